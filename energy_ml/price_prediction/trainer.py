"""Training of price models: one per horizon, with out-of-sample forecasts for every row of the window.

What belongs here: the order of fits and which rows each may see. What doesn't: how a booster is fitted, gated or
served.

Train rows are forecast by cross-fitted members (contiguous blocks, purged), validation rows by members that saw
training rows only, test rows by the final members, refitted on training and validation rows. Gate and interval
calibration run through time over all of them: what they use of an outcome, they use after its target time.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from threadpoolctl import threadpool_limits

from energy_ml import __version__
from energy_ml.artifacts import folder_to_save, load_artifact, save_artifact, save_training_results
from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.errors import ModelError, ModelNotFoundError
from energy_ml.evaluation.metrics import forecast_metrics, spike_thresholds
from energy_ml.features import PriceFeatureSpec, feature_columns
from energy_ml.features.neighbours import ATTRIBUTE
from energy_ml.features.price_features import price_features
from energy_ml.names import (
    IS_FILLED,
    NODES_FILE,
    PRICE_EXPECTED,
    SPIKE_PROBABILITY,
    TRAINING_RESULTS_FILE,
    horizon_of_id,
    price_model_id,
)
from energy_ml.price_prediction.boosting import BinnedRows, booster_parameters, choose_device, fit_rounds, fit_stopped
from energy_ml.price_prediction.conformal import QUANTILES, OnlineConformal
from energy_ml.price_prediction.design import to_arcsinh, to_volatility
from energy_ml.price_prediction.distribution import (
    calibrated,
    calibration_of,
    expected_price,
    recalibrated,
    spike_probability,
)
from energy_ml.price_prediction.ensemble import ARCSINH, VOLATILITY, Member, Preset, preset_of
from energy_ml.price_prediction.gate import OnlineGate
from energy_ml.price_prediction.linear import MedianRegression
from energy_ml.price_prediction.model import Fitted, PricePredictionModel, interval_around
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.price_prediction.prepared import HISTORY, PreparedWindow, prepare_window
from energy_ml.splits import PARTS, TimeSplit, split_window
from energy_ml.training_window import lake_of, newest, read_window, settings_for, window_features, with_history

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[float, dict[str, Any]], None]

REFIT_FACTOR = 1.1
"""The refit sees more rows, so it gets that many more trees than early stopping found, up to ``n_estimators``."""

SAMPLE_ROWS = 200
"""Input rows kept with a model for SHAP importance."""

BLOCK_ROWS = 65_536
"""Rows forecast at a time."""


class PricePredictionTrainer:
    """Trains one model per horizon. Accepts a PricePredictionConfig or an MLConfig (whose cores and GPU it then
    uses)."""

    def __init__(self, config: PricePredictionConfig | MLConfig | None = None) -> None:
        whole = config if isinstance(config, MLConfig) else None
        self.config: PricePredictionConfig = (
            config.price_prediction if isinstance(config, MLConfig) else config or PricePredictionConfig()
        )
        self.threads = (whole or MLConfig()).threads
        self.verbose = (whole or MLConfig()).verbose
        self.enable_gpu = whole.enable_gpu if whole is not None else False
        self.preset = preset_of(self.config)
        self.models: dict[int, PricePredictionModel] = {}
        self.results: dict[int, dict[str, Any]] = {}
        self._device: str | None = None
        self._prepared: tuple[_Asked, PreparedWindow] | None = None
        self._left_out: tuple[pd.DataFrame, pd.DataFrame] | None = None

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``; asking for a GPU that isn't there warns once."""
        if self._device is None:
            self._device = choose_device(self.enable_gpu)
        return self._device

    # --- data ---------------------------------------------------------------------------------------------------------

    def load_data(self) -> pd.DataFrame:
        """Clean prices of the newest as-of date, with history before its window (``attrs["window_start"]``).

        Raises
        ------
        DataError
            There is no complete day, or its window can't be used.
        """
        settings = settings_for(self.config)
        lake = lake_of(settings)
        window = read_window(settings, lake, newest(settings, lake), self.config)
        prices = with_history(settings, lake, window, self.config)
        prices.attrs |= {"window_start": window.start.isoformat(), NODES_FILE: json.dumps(lake.zones())}
        return prices

    def prepare_data(self, df: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """Features of a long price frame's window and the names of the feature columns.

        The window begins at ``attrs["window_start"]`` if the frame has that; what is before it fills lags, and teaches
        as history when the features are trained on.
        """
        if "window_start" not in df.attrs:
            features = price_features(
                df, PriceFeatureSpec.from_config(self.config), price_col=self.config.target_column
            )
        else:
            start = pd.Timestamp(df.attrs["window_start"])
            features = window_features(df, start, self.config, json.loads(df.attrs.get(NODES_FILE, "{}")))
            self._left_out = features, df[df["timestamp"] < start]
        return features, feature_columns(features)

    # --- training -----------------------------------------------------------------------------------------------------

    def train_for_horizon(
        self,
        df_features: pd.DataFrame,
        feature_cols: Sequence[str],
        horizon: int,
        *,
        split: TimeSplit | None = None,
        history: pd.DataFrame | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Train the model of ``horizon`` minutes.

        Parameters
        ----------
        df_features : long features frame of one window (``prepare_data``); rows outside ``split`` are ignored.
        feature_cols : its feature columns.
        split : by default 70/15/15 % of the frame's time, as the config says.
        history : clean long prices of the time before the frame, which teach too; by default those that the last
            ``prepare_data`` left out of this frame.
        progress : called with the fraction done and ``{"stage": …, "round": …, "score": …}`` per boosting round.

        Returns
        -------
        dict with ``model`` (PricePredictionModel), ``forecasts`` (frame of the whole window), ``metrics`` (per part),
        ``best_iteration`` (rounds per member), ``n_rows``, ``horizon``, ``feature_importance`` (frame).

        Raises HorizonError, SchemaError, SplitError.
        """
        window = self._prepare(df_features, feature_cols, split, history)
        steps = window.steps_of(horizon)
        fits = _HorizonFits(self, window, steps, _Meter(progress, window.preset))
        ensemble, quantiles, final, rounds = fits.run()
        del fits
        scale = window.design.price_scale
        price, outcome = np.ascontiguousarray(window.price.T), np.ascontiguousarray(window.outcome.T)
        gate = OnlineGate(len(price), steps, window.interval_minutes)
        conformal = OnlineConformal(len(price), steps, window.interval_minutes)
        point = gate.run(price, ensemble, outcome)
        bounds = conformal.run(np.arcsinh(outcome / scale), quantiles)
        median = quantiles[..., len(QUANTILES) // 2]
        interval = interval_around(point, bounds, median, self.config.interval_level, scale)
        # Over a year of minutes each of these takes hundreds of megabytes.
        del ensemble
        forecasts, spikes, spike_line = self._forecasts_frame(window, horizon, point, interval, bounds, median)
        del point, interval, quantiles, bounds, median
        model = PricePredictionModel(
            horizon=horizon,
            interval_minutes=window.interval_minutes,
            price_col=self.config.target_column,
            feature_cols=tuple(feature_cols),
            design=window.design,
            fitted=final,
            gate=gate,
            conformal=conformal,
            state_time=window.times[-1],
            interval_level=self.config.interval_level,
            sample_rows=window.inputs(_evenly(window.chosen["train"], SAMPLE_ROWS)),
        )
        table = forecast_metrics(
            forecasts, ["split"], interval_level=self.config.interval_level, spike_quantile=self.config.spike_quantile
        )
        metrics = {str(row.pop("split")): row for row in table.to_dict("records")}
        model.metrics = metrics
        model.provenance = {
            "version": __version__,
            "xgboost": xgb.__version__,
            "horizon_minutes": horizon,
            "interval_minutes": window.interval_minutes,
            "split": window.split.to_dict(),
            "regions": list(window.design.regions),
            "config": dict(self.config.__dict__),
            "feature_spec": {
                **PriceFeatureSpec.from_config(self.config, window.design.regions).to_dict(),
                "neighbours": df_features.attrs.get(ATTRIBUTE),
            },
            "best_iteration": rounds,
            "price_scale": scale,
            "rows_left_out": window.left_out(steps),
            "history": window.history,
            "spike_thresholds": spikes,
            "spike_calibration": spike_line,
        }
        result = {
            "horizon": horizon,
            "model": model,
            "forecasts": forecasts,
            "metrics": metrics,
            "best_iteration": rounds,
            "n_rows": {name: int((forecasts["split"] == name).sum()) for name in PARTS},
            "feature_importance": model.feature_importance(),
        }
        self.models[horizon], self.results[horizon] = model, result
        if self.verbose and progress is None:
            error, stays = metrics["test"]["mae"], metrics["test"]["persistence_mae"]
            print(f"{horizon} min ahead: test error {error:.2f}, 'the price stays' {stays:.2f}", file=sys.stderr)
        return result

    def train_all(self, horizons: Sequence[int] | None = None, *, progress: Progress | None = None) -> dict[int, Any]:
        """Load the data and train every horizon (those of the config by default); results by horizon."""
        features, names = self.prepare_data(self.load_data())
        wanted = list(horizons or self.config.horizons)
        for number, horizon in enumerate(wanted):

            def share(fraction: float, metrics: dict[str, Any], number: int = number) -> None:
                assert progress is not None
                progress((number + fraction) / len(wanted), metrics)

            self.train_for_horizon(features, names, horizon, progress=None if progress is None else share)
        return {horizon: self.results[horizon] for horizon in wanted}

    # --- files --------------------------------------------------------------------------------------------------------

    def save_models(self, output_dir: str | Path = "models/price_prediction") -> dict[int, Path]:
        """Write ``model_{h}min.pkl`` for each trained horizon and ``training_results.json``, each atomically.

        A relative folder starts at the project root, as everywhere, or where you stand if a registry keeps champions
        there. Returns the files by horizon.
        """
        if not self.models:
            raise ModelError("no model was trained yet", remedy="call train_for_horizon or train_all first")
        folder = folder_to_save(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        paths, digests = {}, {}
        for horizon, model in sorted(self.models.items()):
            paths[horizon] = folder / f"model_{horizon}min.pkl"
            digests[horizon] = save_artifact(model, paths[horizon])
        save_training_results(
            folder,
            {
                price_model_id(horizon): (
                    paths[horizon],
                    digests[horizon],
                    {"metrics": model.metrics, "provenance": model.provenance},
                )
                for horizon, model in self.models.items()
            },
        )
        return paths

    @classmethod
    def load_models(
        cls, models_dir: str | Path = "models/price_prediction", horizons: Sequence[int] | None = None
    ) -> dict[int, PricePredictionModel]:
        """Load the models that ``training_results.json`` names, or those of ``horizons``, their digests verified.

        Where a registry put them there, the registry says which bytes are the champion's, as for the PricePredictor,
        which also says where a relative folder lies.

        Raises
        ------
        ModelNotFoundError, ArtifactError
            There is no such folder or model; a file isn't the one that was saved.
        """
        predictor = PricePredictor(models_dir)
        folder = predictor.models_dir
        try:
            saved = json.loads((folder / TRAINING_RESULTS_FILE).read_text())
        except FileNotFoundError:
            raise ModelNotFoundError(
                f"{folder} holds no {TRAINING_RESULTS_FILE}",
                expected="a folder that save_models or a nightly run wrote",
                remedy="train first, or name another folder",
            ) from None
        found = {minutes: entry for name, entry in saved.items() if (minutes := horizon_of_id(name)) is not None}
        models = {}
        for horizon in horizons or sorted(found):
            entry = found.get(horizon)
            if entry is None:
                raise ModelNotFoundError(
                    f"{folder} holds no model for {horizon} minutes",
                    expected=f"one of {', '.join(map(str, sorted(found))) or '(none)'}",
                    remedy="ask for one of these, or train that horizon and save it",
                )
            if "version" in entry:  # a registry's champion, which a rollback may have exchanged since
                models[horizon] = predictor.model(horizon)
            else:
                models[horizon] = load_artifact(folder / entry["file"], entry["sha256"])
        return models

    # --- inside -------------------------------------------------------------------------------------------------------

    def _prepare(
        self,
        frame: pd.DataFrame,
        feature_cols: Sequence[str],
        split: TimeSplit | None,
        history: pd.DataFrame | None,
    ) -> PreparedWindow:
        """The window's shared arrays; horizons called one after the other with the same frame share them."""
        if history is None and self._left_out is not None and self._left_out[0] is frame:
            history = self._left_out[1]
        asked = _Asked(frame, tuple(feature_cols), split, history)
        if self._prepared is not None and self._prepared[0].is_like(asked):
            return self._prepared[1]
        self._prepared = None
        if split is None:
            times = pd.DatetimeIndex(frame["timestamp"])
            distinct = times.unique().sort_values()
            step = (distinct[1:] - distinct[:-1]).min() if len(distinct) > 1 else pd.Timedelta(0)
            split = split_window(distinct[0], distinct[-1] + step, self.config.train_end_pct, self.config.val_end_pct)
        earlier = None
        if history is not None and len(history):
            spec = replace(PriceFeatureSpec.from_config(self.config), neighbours=frame.attrs.get(ATTRIBUTE))
            earlier = price_features(history, spec, price_col=self.config.target_column)
            since = split.start - pd.Timedelta(days=self.config.history_days)
            earlier = earlier[earlier["timestamp"] >= since]  # what is before fills lags
        window = prepare_window(
            frame,
            feature_cols,
            split,
            price_col=self.config.target_column,
            preset=self.preset,
            seed=self.config.random_state,
            min_training_rows=self.config.min_training_rows,
            history=earlier,
        )
        self._prepared = asked, window
        return window

    def _forecasts_frame(
        self,
        window: PreparedWindow,
        horizon: int,
        point: Array,
        interval: tuple[Array, Array],
        bounds: Array,
        median: Array,
    ) -> tuple[pd.DataFrame, dict[str, float], tuple[float, float]]:
        """Forecasts frame of a window's grids (R, T, ...), by time and region, without rows that touch a hole or lie in
        no part; the price of a spike by region; and the calibration of spikes' probability, fitted before the test
        part. A target that wasn't measured has no actual price."""
        steps = window.steps_of(horizon)
        day = 1440 // window.interval_minutes
        rows = np.argsort(window.cells, kind="stable")
        labels = window.split.label(window.times, horizon)
        places, now, actual = window.places(rows), window.ahead(rows, 0), window.ahead(rows, steps, measured=True)
        known = np.isfinite(point[places]) & window.usable.reshape(-1)[window.cells[rows]]
        known &= labels[places[1]] != None  # noqa: E711 - element by element
        rows, now, actual, places = rows[known], now[known], actual[known], (places[0][known], places[1][known])
        frame = pd.DataFrame(
            {
                "timestamp": window.times[places[1]],
                "region": np.asarray(window.design.regions, dtype=object)[places[0]],
                "horizon_minutes": np.full(len(rows), horizon, dtype=np.int64),
                "split": labels[places[1]],
                "price_now": now,
                "price_actual": actual,
                "price_forecast": point[places],
                "lower": interval[0][places],
                "upper": interval[1][places],
                "price_seasonal": window.ahead(rows, steps - day) if steps <= day else np.nan,
                IS_FILLED: np.isnan(window.ahead(rows, 0, measured=True)),
            }
        )
        spikes = spike_thresholds(frame, self.config.spike_quantile)
        limit = frame["region"].map(spikes).to_numpy(dtype=np.float64)
        expected, spike = np.empty(len(frame)), np.empty(len(frame))
        for start in range(0, len(frame), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            here, scale = (places[0][block], places[1][block]), window.design.price_scale
            quantiles = calibrated(bounds[here], median[here])
            expected[block] = expected_price(quantiles, scale)
            spike[block] = spike_probability(quantiles, scale, limit[block])
        actual = frame["price_actual"].to_numpy()
        judged = (frame["split"] != "test").to_numpy() & np.isfinite(actual) & np.isfinite(spike)
        line = calibration_of(spike[judged], actual[judged] > limit[judged])
        frame = frame.assign(**{PRICE_EXPECTED: expected, SPIKE_PROBABILITY: recalibrated(spike, line)})
        return frame, spikes, line


@dataclass(frozen=True)
class _Asked:
    """What a prepared window was made from."""

    frame: pd.DataFrame
    feature_cols: tuple[str, ...]
    split: TimeSplit | None
    history: pd.DataFrame | None

    def is_like(self, other: _Asked) -> bool:
        """Whether both mean the same frames and the same split."""
        same = self.frame is other.frame and self.history is other.history
        return same and (self.feature_cols, self.split) == (other.feature_cols, other.split)


def _evenly(rows: IntArray, count: int) -> IntArray:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64))]


def refit_rounds(member: Member, stopped: int) -> int:
    """Rounds of the final fit.

    Stopping on a day and a half is a noisy measurement: for members with a recency (wide leaves, no harm in more trees)
    the count is the geometric mean of what was measured and of the limit.
    """
    scaled = stopped * REFIT_FACTOR
    wanted = round((scaled * member.rounds) ** 0.5 if member.recency is not None else scaled)
    return min(max(wanted, 1), member.rounds)


class _Meter:
    """Turns the boosting rounds of fits that run side by side into one fraction: each fit has a fixed share of it."""

    def __init__(self, progress: Progress | None, preset: Preset) -> None:
        self._progress = progress
        self._total = sum(member.rounds * member.outputs for member in [*preset.members, preset.quantiles])
        self._done = 0.0
        self._lock = threading.Lock()

    def fit(self, stage: str, member: Member, share: float, rounds: int) -> _FitMeter:
        """The meter of a fit that is ``share`` of the member's whole work and may take ``rounds``."""
        return _FitMeter(self, stage, share * member.rounds * member.outputs / self._total, rounds)

    def add(self, part: float, metrics: dict[str, Any]) -> None:
        """So much more of the whole is done."""
        with self._lock:
            self._done += part
            if self._progress is not None:
                self._progress(min(self._done, 1.0), metrics)


@dataclass
class _FitMeter:
    """Reports the rounds of one fit; ``finish`` counts the rest, since early stopping skips rounds."""

    meter: _Meter
    stage: str
    share: float
    rounds: int
    reported: float = 0.0

    def round(self, number: int, score: float) -> None:
        """One boosting round ended."""
        metrics = {"stage": self.stage, "round": number}
        self._report(number / self.rounds, metrics | ({"score": score} if np.isfinite(score) else {}))

    def finish(self) -> None:
        """The fit ended, perhaps before its last round."""
        self._report(1.0, {"stage": self.stage})

    def _report(self, fraction: float, metrics: dict[str, Any]) -> None:
        part = max(min(fraction, 1.0) - self.reported, 0.0)
        self.reported += part
        self.meter.add(self.share * part, metrics)


class _HorizonFits:
    """All fits of one horizon, and the out-of-sample forecasts they make."""

    def __init__(self, trainer: PricePredictionTrainer, window: PreparedWindow, steps: int, meter: _Meter) -> None:
        self.trainer, self.window, self.steps, self.meter = trainer, window, steps, meter
        self.preset = window.preset
        self.members, self.quantiles = self.preset.members, self.preset.quantiles
        stamps = window.times
        minutes = steps * window.interval_minutes
        # Instants (T,) in whose part the target lies too: only their rows may teach.
        self.inside = {name: window.split.mask(stamps, name, minutes) for name in ("train", "validation")}
        ahead, old = stamps + pd.Timedelta(minutes=minutes), window.part == HISTORY
        teaches = old | (stamps >= window.split.start)
        self.history = np.asarray(old & (ahead < window.split.start))
        self.before_validation = np.asarray(teaches & (ahead < window.split.train_end))
        self.before_test = np.asarray(teaches & (ahead < window.split.val_end))
        # Where there is history, that alone forecasts the training part.
        self.teachers = "history" if len(window.chosen["history"]) else "train"
        self.folds = [(window.part == 0, self.history)] if self.teachers == "history" else self._folds()

    def run(self) -> tuple[Array, Array, Fitted, dict[str, int]]:
        """The ensemble's prices (R, T) and quantiles (R, T, quantiles) out of sample, the final fit, rounds per
        member."""
        window, chosen = self.window, self.window.chosen
        every, folds, teachers = [*self.members, self.quantiles], self.folds, chosen[self.teachers]
        # Each fit has one thread of its own and shares nothing that it writes: their order can't change a number.
        # BLAS would start threads of its own in each, which wait for each other at full load: twice the time.
        with (
            threadpool_limits(1, user_api="blas"),
            ThreadPoolExecutor(1 if self.trainer.device == "cuda" else self.trainer.threads) as pool,
        ):
            stopped = [job.result() for job in [pool.submit(self._stop, member) for member in every]]
            rounds = {member.name: count for member, (_, count) in zip(every, stopped, strict=True)}
            final_jobs = [
                pool.submit(
                    self._fit,
                    member,
                    chosen["all"],
                    self.before_test,
                    refit_rounds(member, rounds[member.name]),
                    stage="refit",
                    recent=True,
                )
                for member in every
            ]
            fold_jobs = [
                [
                    pool.submit(
                        self._fit,
                        member,
                        teachers,
                        allowed,
                        rounds[member.name],
                        stage="cross-fit",
                        recent=False,
                    )
                    for member in every
                ]
                for _, allowed in folds
            ]
            shape = (window.price.shape[1], window.price.shape[0])
            ensemble, spread = np.full(shape, np.nan), np.full((*shape, len(QUANTILES)), np.nan)

            def forecast_with(
                boosters: list[xgb.Booster], rows: IntArray, allowed: BoolArray, where: BoolArray
            ) -> Fitted:
                # Each call fills instants of its own.
                fitted = self._fitted(boosters, rows, allowed)
                self._forecast(fitted, where, ensemble, spread)
                return fitted

            first = [booster for booster, _ in stopped]
            jobs = [pool.submit(forecast_with, first, chosen["before"], self.before_validation, window.part == 1)]
            final_boosters = [job.result() for job in final_jobs]
            final = pool.submit(forecast_with, final_boosters, chosen["all"], self.before_test, window.part == 2)
            for (held_out, allowed), fold in zip(folds, fold_jobs, strict=True):
                boosters = [job.result() for job in fold]
                jobs.append(pool.submit(forecast_with, boosters, teachers, allowed, held_out))
            for job in jobs:
                job.result()
        return ensemble, spread, final.result(), rounds

    def _folds(self) -> list[tuple[BoolArray, BoolArray]]:
        """(held-out instants, instants that may teach) of each contiguous block of training time, purged on both
        sides; (T,) each."""
        train = self.window.part == 0
        taught = self.window.places(np.flatnonzero(train[self.window.places()[1]]))[1]
        low, high = int(taught.min()), int(taught.max()) + 1
        edges = np.linspace(low, high, self.preset.folds + 1).astype(np.int64)
        instant = np.arange(len(train))
        folds = []
        for begin, end in pairwise(edges):
            inside = (instant >= begin) & (instant < end)
            # Before the block targets may not reach into it; after it, features still show its last targets.
            near = (instant >= begin - self.steps) & (instant < end + self.steps)
            folds.append((train & inside, self.inside["train"] & ~near))
        return folds

    def _parameters(self, member: Member, rows: IntArray) -> dict[str, Any]:
        trainer = self.trainer
        return booster_parameters(
            member,
            len(rows),
            seed=trainer.config.random_state,
            max_bin=self.preset.max_bin,
            device=trainer.device,
        )

    def _target(self, space: str, rows: IntArray) -> Array:
        """What a member of this space learns for each of ``rows``, (len(rows),)."""
        window = self.window
        now, future = window.ahead(rows, 0), window.ahead(rows, self.steps, measured=True)
        if space == ARCSINH:
            return to_arcsinh(now, future, window.design.price_scale)
        return to_volatility(now, future, window.volatility(rows))

    def _weights(self, member: Member, rows: IntArray, teaches: BoolArray, recent: bool) -> Array:
        """Weights (len(rows),) with mean one over the rows that teach."""
        window = self.window
        weight = np.ones(len(rows))
        if member.weight_power:
            # A few wild hours must not own the fit.
            cap = np.nanquantile(window.volatility(window.chosen["train"]), 0.995)
            weight = np.minimum(np.nan_to_num(window.volatility(rows), nan=0.0), cap) ** member.weight_power
        if recent and member.recency is not None:
            instant = window.places(rows)[1]
            newest, oldest = instant.max(), instant.min()
            half_life = max(member.recency * float(newest - oldest), 1.0)
            weight = weight * 0.5 ** ((newest - instant) / half_life)
        weight = np.where(teaches, weight, 0.0)
        mean = weight.sum() / max(np.count_nonzero(weight), 1)
        return weight / mean if mean > 0 else weight

    def _matrix(
        self, binned: BinnedRows, member: Member, rows: IntArray, allowed: BoolArray, recent: bool
    ) -> xgb.QuantileDMatrix:
        target = self._target(member.space, rows)
        teaches = allowed[self.window.places(rows)[1]] & np.isfinite(target)
        return binned.labelled(rows, target, self._weights(member, rows, teaches, recent))

    def _stop(self, member: Member) -> tuple[xgb.Booster, int]:
        chosen = self.window.chosen
        meter = self.meter.fit(f"{member.name}: early stopping", member, 0.4, member.rounds)
        with self.window.binned.borrow() as binned:
            train = self._matrix(binned, member, chosen["before"], self.before_validation, recent=True)
            validation = self._matrix(binned, member, chosen["validation"], self.inside["validation"], recent=False)
            parameters = self._parameters(member, chosen["before"])
            threshold = self.trainer.config.early_stopping_threshold
            found = fit_stopped(member, parameters, train, validation, threshold, meter.round)
        meter.finish()
        return found

    def _fit(
        self,
        member: Member,
        rows: IntArray,
        allowed: BoolArray,
        rounds: int,
        *,
        stage: str,
        recent: bool,
    ) -> xgb.Booster:
        share = 0.3 if stage == "refit" else 0.3 / len(self.folds)
        meter = self.meter.fit(f"{member.name}: {stage}", member, share, rounds)
        with self.window.binned.borrow() as binned:
            matrix = self._matrix(binned, member, rows, allowed, recent)
            booster = fit_rounds(self._parameters(member, rows), matrix, rounds, meter.round)
        meter.finish()
        return booster

    def _fitted(self, boosters: list[xgb.Booster], rows: IntArray, allowed: BoolArray) -> Fitted:
        target = self._target(VOLATILITY, rows)
        used = allowed[self.window.places(rows)[1]] & np.isfinite(target)
        linear = MedianRegression.fit(self.window.inputs(rows[used]), np.clip(target[used], -30.0, 30.0))
        return Fitted.of(self.members, self.quantiles, boosters, linear)

    def _forecast(self, fitted: Fitted, where: BoolArray, ensemble: Array, spread: Array) -> None:
        """Fill the instants ``where`` (T,) of both grids."""
        window = self.window
        every = np.flatnonzero(where[window.places()[1]])
        for start in range(0, len(every), BLOCK_ROWS):
            rows = every[start : start + BLOCK_ROWS]
            places = window.places(rows)
            ensemble[places], spread[places] = fitted.forecast(
                window.inputs(rows), window.ahead(rows, 0), window.volatility(rows), window.design, places[0]
            )
