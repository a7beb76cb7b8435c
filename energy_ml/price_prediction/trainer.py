"""Training of price models: one per horizon, with out-of-sample forecasts for every row of the window.

What belongs here: from prices to a model and its forecasts, files. What doesn't: which rows each fit may see
(``fits``), how a booster is fitted, gated or served.

Gate and interval calibration run through time over all parts: what they use of an outcome, they use after its target
time.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb

from energy_ml import __version__
from energy_ml.arrays import Floats, Integers
from energy_ml.artifacts import folder_to_save, load_artifact, save_artifact, save_training_results
from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.errors import ModelError, ModelNotFoundError
from energy_ml.evaluation.metrics import diebold_mariano, forecast_metrics, spike_thresholds
from energy_ml.features import PriceFeatureSpec, feature_columns
from energy_ml.features.covariates import PREFIX, covariate_of, of_horizon
from energy_ml.features.feature_rows import FrameRows
from energy_ml.features.neighbours import ATTRIBUTE
from energy_ml.features.price_features import LATER, price_features
from energy_ml.names import (
    IS_FILLED,
    NODES_FILE,
    PRICE_EXPECTED,
    SPIKE_PROBABILITY,
    TRAINING_RESULTS_FILE,
    horizon_of_id,
    price_model_id,
)
from energy_ml.parts import Frames, write_parts
from energy_ml.price_prediction.boosting import choose_device
from energy_ml.price_prediction.conformal import QUANTILES, OnlineConformal
from energy_ml.price_prediction.distribution import (
    calibrated,
    calibration_of,
    expected_price,
    recalibrated,
    spike_probability,
)
from energy_ml.price_prediction.ensemble import preset_of
from energy_ml.price_prediction.fits import BLOCK_ROWS, HorizonFits, OutOfSample
from energy_ml.price_prediction.gate import OnlineGate
from energy_ml.price_prediction.model import PricePredictionModel, interval_around
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.price_prediction.prepared import PreparedWindow, prepare_window
from energy_ml.progress import ProgressCallback
from energy_ml.provenance import code_digest
from energy_ml.splits import PARTS, TimeSplit, split_window
from energy_ml.training_window import lake_of, newest, read_window, settings_for, window_features, with_history

_SAMPLE_ROWS = 200
"""Input rows kept with a model for SHAP importance."""


_Asked = tuple[pd.DataFrame, tuple[str, ...], TimeSplit | None, pd.DataFrame | None]
"""Features frame, columns, split and history that a prepared window was made from."""


class PricePredictionTrainer:
    """Trains one model per horizon. Accepts a PricePredictionConfig or an MLConfig (whose cores and GPU it then
    uses)."""

    def __init__(self, config: PricePredictionConfig | MLConfig | None = None) -> None:
        whole = config if isinstance(config, MLConfig) else None
        self.config: PricePredictionConfig = (
            config.price_prediction if isinstance(config, MLConfig) else config or PricePredictionConfig()
        )
        shared = whole or MLConfig()
        self.threads, self.parallel, self.verbose = shared.threads, shared.parallel, shared.verbose
        self.enable_gpu = whole is not None and whole.enable_gpu
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
        progress: ProgressCallback | None = None,
        kept_in: Path | None = None,
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
        kept_in : folder for the finished blocks of a market too large to hold: a call that was killed goes on there.
            Its forecasts are then ``Parts``, in a file of the folder's name.

        Returns
        -------
        dict with ``model`` (PricePredictionModel), ``forecasts`` (frame of the whole window), ``metrics`` (per part),
        ``best_iteration`` (rounds per member), ``n_rows``, ``horizon``, ``feature_importance`` (frame).

        Raises HorizonError, SchemaError, SplitError.
        """
        feature_cols, trials = self._paying(df_features, feature_cols, horizon, split, history)
        window = self._prepare(df_features, feature_cols, split, history)
        steps = window.steps_of(horizon)
        fits = HorizonFits(window, steps, self.config, self.threads, self.parallel, self.device, progress)
        if isinstance(window.rows, FrameRows):
            kept_in = None
        made, final, rounds = fits.run(kept_in / code_digest()[:16] if kept_in is not None else None)
        gate = OnlineGate(len(window.design.regions), steps, window.interval_minutes)
        conformal = OnlineConformal(len(window.design.regions), steps, window.interval_minutes)
        forecasts, spikes, spike_line = self._forecasts(window, horizon, made, gate, conformal, kept_in)
        del made
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
            sample_rows=window.inputs(_evenly(window.chosen["train"], _SAMPLE_ROWS)),
        )
        table = forecast_metrics(
            forecasts, ["split"], interval_level=self.config.interval_level, spike_threshold=spikes
        )
        counts = table.set_index("split")[["n", "n_missing"]].sum(axis=1)
        metrics = {str(row.pop("split")): row for row in table.to_dict("records")}
        model.metrics = metrics
        model.provenance = {
            "version": __version__,
            "xgboost": xgb.__version__,
            "horizon_minutes": horizon,
            "interval_minutes": window.interval_minutes,
            "split": window.split.to_dict(),
            "regions": list(window.design.regions),
            "config": asdict(self.config),
            "feature_spec": {
                **self._spec(feature_cols, window.design.regions).to_dict(),
                "neighbours": df_features.attrs.get(ATTRIBUTE),
            },
            "covariates": trials,
            "best_iteration": rounds,
            "price_scale": window.design.price_scale,
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
            "n_rows": {name: int(counts.get(name, 0)) for name in PARTS},
            "feature_importance": model.feature_importance(),
        }
        self.models[horizon], self.results[horizon] = model, result
        if self.verbose and progress is None:
            error, stays = metrics["test"]["mae"], metrics["test"]["persistence_mae"]
            print(f"{horizon} min ahead: test error {error:.2f}, 'the price stays' {stays:.2f}", file=sys.stderr)
        return result

    def train_all(
        self, horizons: Sequence[int] | None = None, *, progress: ProgressCallback | None = None
    ) -> dict[int, Any]:
        """Load the data and train every horizon (those of the config by default); results by horizon."""
        features, names = self.prepare_data(self.load_data())
        wanted = list(horizons or self.config.horizons)
        for number, horizon in enumerate(wanted):

            def share(fraction: float, metrics: Mapping[str, object], number: int = number) -> None:
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
        asked = (frame, tuple(feature_cols), split, history)
        if self._prepared is not None:
            (seen, *rest, earlier), window = self._prepared
            if seen is frame and earlier is history and rest == [*asked[1:3]]:
                return window
        self._prepared = None
        if split is None:
            times = pd.DatetimeIndex(frame["timestamp"])
            distinct = times.unique().sort_values()
            step = (distinct[1:] - distinct[:-1]).min() if len(distinct) > 1 else pd.Timedelta(0)
            split = split_window(distinct[0], distinct[-1] + step, self.config.train_end_pct, self.config.val_end_pct)
        earlier = history
        if history is not None and len(history) and LATER not in frame.attrs:
            spec = replace(PriceFeatureSpec.from_config(self.config), neighbours=frame.attrs.get(ATTRIBUTE))
            since = split.start - pd.Timedelta(days=self.config.history_days)
            earlier = price_features(history, spec, price_col=self.config.target_column, since=since)
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

    def _paying(
        self,
        frame: pd.DataFrame,
        feature_cols: Sequence[str],
        horizon: int,
        split: TimeSplit | None,
        history: pd.DataFrame | None,
    ) -> tuple[list[str], list[dict[str, object]]]:
        """The columns that the model of ``horizon`` sees: of covariates its own, where they pay on validation. And per
        covariate the error of one member there with it and without, and the p-value of no difference."""
        own, entries = of_horizon(feature_cols, horizon), {c.name: c for c in self.config.covariates}
        groups: dict[str, list[str]] = {}
        for column in own:
            if (name := covariate_of(column)) is not None:
                groups.setdefault(name, []).append(column)
        kept = [column for column in own if covariate_of(column) is None]
        if not groups:
            return kept, []
        trials = []
        before, steps = self._losses(frame, kept, horizon, split, history)
        for name, columns in groups.items():
            after, _ = self._losses(frame, [*kept, *columns], horizon, split, history)
            error, without = float(after.mean()), float(before.mean())
            pays = error < without
            test = diebold_mariano(after, before, horizon=steps)
            stays = pays or (name in entries and entries[name].keep)
            trials.append(
                {"covariate": name, "mae": error, "mae_without": without, "p_value": test.p_value, "kept": stays}
            )
            if stays:
                kept, before = [*kept, *columns], after
        return kept, trials

    def _losses(
        self,
        frame: pd.DataFrame,
        feature_cols: Sequence[str],
        horizon: int,
        split: TimeSplit | None,
        history: pd.DataFrame | None,
    ) -> tuple[Floats, int]:
        """``HorizonFits.validation_losses`` with these columns, and the horizon in intervals."""
        window = self._prepare(frame, feature_cols, split, history)
        steps = window.steps_of(horizon)
        return HorizonFits(window, steps, self.config, device=self.device).validation_losses(), steps

    def _spec(self, feature_cols: Sequence[str], regions: Sequence[str]) -> PriceFeatureSpec:
        """What a model with these columns is asked with."""
        spec = PriceFeatureSpec.from_config(self.config, regions)
        names = {covariate_of(column) for column in feature_cols}
        return replace(
            spec,
            extra_columns=tuple(c for c in spec.extra_columns if not c.startswith(PREFIX) or c in feature_cols),
            covariates=tuple(c for c in spec.covariates if c.name in names),
        )

    def _forecasts(
        self,
        window: PreparedWindow,
        horizon: int,
        made: OutOfSample,
        gate: OnlineGate,
        conformal: OnlineConformal,
        kept_in: Path | None,
    ) -> tuple[Frames, dict[str, float], tuple[float, float]]:
        """Forecasts of the window, gated and calibrated, a block after the other; the price of a spike by region; and
        the calibration of spikes' probability, fitted before the test part. Moves gate and conformal through time."""
        price, outcome = np.ascontiguousarray(window.price.T), np.ascontiguousarray(window.outcome.T)
        point, scale, spikes = gate.run(price, made.ensemble, outcome), window.design.price_scale, {}
        del price, made.ensemble  # over a year of minutes each takes tens of megabytes

        def of_block(block: int) -> pd.DataFrame:
            own, quantiles = window.rows.places[block], made.quantiles(block)
            bounds = conformal.run(np.arcsinh(outcome[own] / scale), quantiles, own)
            median = quantiles[..., len(QUANTILES) // 2]
            interval = interval_around(point[own], bounds, median, self.config.interval_level, scale)
            frame, levels = self._forecasts_frame(window, horizon, block, point[own], interval, bounds, median)
            spikes.update(levels)
            return frame

        blocks = (of_block(block) for block in range(len(window.rows.blocks)))
        raw = [*blocks] if kept_in is None else write_parts(kept_in / "uncalibrated.parquet", blocks, "none")
        line = _spike_line(raw, spikes)
        name = SPIKE_PROBABILITY
        frames = (frame.assign(**{name: recalibrated(frame[name].to_numpy(), line)}) for frame in raw)
        if kept_in is None:
            every = [*frames]
            return every[0] if len(every) == 1 else pd.concat(every, ignore_index=True), spikes, line
        forecasts = write_parts(kept_in.with_suffix(".parquet"), frames)
        shutil.rmtree(kept_in)
        return forecasts, spikes, line

    def _forecasts_frame(
        self,
        window: PreparedWindow,
        horizon: int,
        block: int,
        point: Floats,
        interval: tuple[Floats, Floats],
        bounds: Floats,
        median: Floats,
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """Forecasts frame of a block's grids (regions, T, ...), by time and region, without rows that touch a hole or
        lie in no part, and the price of a spike by region. A target that wasn't measured has no actual price. Spikes'
        probability isn't calibrated yet."""
        own, steps, scale = window.rows.places[block], window.steps_of(horizon), window.design.price_scale
        day = 1440 // window.interval_minutes
        rows = window.rows.blocks[block].start + np.argsort(window.cells[window.rows.blocks[block]], kind="stable")
        labels = window.split.label(window.times, horizon)
        places, now, actual = window.places(rows), window.ahead(rows, 0), window.ahead(rows, steps, measured=True)
        places = np.searchsorted(own, places[0]), places[1]
        known = np.isfinite(point[places]) & window.usable.reshape(-1)[window.cells[rows]]
        known &= labels[places[1]] != None  # noqa: E711 - element by element
        rows, now, actual, places = rows[known], now[known], actual[known], (places[0][known], places[1][known])
        frame = pd.DataFrame(
            {
                "timestamp": window.times[places[1]],
                "region": np.asarray(window.design.regions, dtype=object)[own][places[0]],
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
            some = slice(start, start + BLOCK_ROWS)
            here = places[0][some], places[1][some]
            levels = calibrated(bounds[here], median[here])
            expected[some] = expected_price(levels, scale)
            spike[some] = spike_probability(levels, scale, limit[some])
        return frame.assign(**{PRICE_EXPECTED: expected, SPIKE_PROBABILITY: spike}), spikes


def _spike_line(frames: Iterable[pd.DataFrame], spikes: Mapping[str, float]) -> tuple[float, float]:
    """The calibration of spikes' probability, fitted before the test part."""
    said, came = [], []
    for frame in frames:
        spike, actual = frame[SPIKE_PROBABILITY].to_numpy(), frame["price_actual"].to_numpy()
        judged = (frame["split"] != "test").to_numpy() & np.isfinite(actual) & np.isfinite(spike)
        said.append(spike[judged])
        came.append(actual[judged] > frame["region"].map(spikes).to_numpy(dtype=np.float64)[judged])
    return calibration_of(np.concatenate(said), np.concatenate(came))


def _evenly(rows: Integers, count: int) -> Integers:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64))]
