"""From raw recent prices straight to a forecast: loading models, checking the prices, one call.

What belongs here: serving. What doesn't: training, and anything that needs an orchestrator.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from energy_ml.arrays import Booleans, Floats32
from energy_ml.artifacts import Registry, load_champion, read_registry
from energy_ml.config import Covariate, PricePredictionConfig, resolve_path
from energy_ml.errors import (
    DataError,
    HistoryError,
    HorizonError,
    IntervalError,
    ModelNotFoundError,
    SchemaError,
    StaleDataError,
    TimestampError,
    UnknownRegionError,
    ValueRangeError,
)
from energy_ml.evaluation.metrics import family_importance
from energy_ml.features import (
    Panel,
    PriceFeatureSpec,
    price_feature_cube,
    recent_reach,
    required_history,
    to_panel,
)
from energy_ml.features.covariates import PREFIX, add_covariates, covariate_of, with_unknown
from energy_ml.features.panel import NS_PER_MINUTE, timestamps_ns, with_region
from energy_ml.features.price_features import price_features
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.rows import recent_interval
from energy_ml.names import (
    IS_FILLED,
    REGION,
    REGISTRY_FILE,
    TIMESTAMP,
    horizon_of_file,
    price_model_id,
    price_model_name,
)
from energy_ml.price_prediction.model import Forecast, PricePredictionModel

log = logging.getLogger("energy_ml")

ForecastRow = dict[str, Any]
"""One forecast with its interval; see ``PricePredictor.predict_with_confidence``."""
_METHOD = (
    "multi-quantile gradient boosting on the arcsinh price change, conformalised per region, "
    "corrected online by the outcomes of the last two days"
)
_UNSEEN = "unseen region: served without a region code, the gate at its most careful, the interval at its widest"


class PricePredictor:
    """Serves the models of a folder. Loads each when first asked for; the registry beside the folder has the last word.

    Parameters
    ----------
    models_dir : folder with ``model_{h}min.pkl``. If ``registry.json`` stands beside it, a file whose SHA-256 isn't the
        champion's is refused before it is unpickled.
    max_age_minutes : refuse recent prices whose newest row is older than this by the clock; None never does.
    min_recent_share : refuse a region of whose prices that lags and windows look at fewer than this were measured.
    """

    def __init__(
        self,
        models_dir: str | Path = "models/price_prediction",
        *,
        max_age_minutes: float | None = None,
        min_recent_share: float = PricePredictionConfig.min_recent_share,
    ) -> None:
        self.models_dir = Path(resolve_path(models_dir))
        self.max_age_minutes = max_age_minutes
        self.min_recent_share = min_recent_share
        self._models: dict[int, PricePredictionModel] = {}
        self._given = False
        self._left_out: dict[int, str] = {}
        self._listed: tuple[int | None, list[int]] = (None, [])
        self._state = threading.Lock()
        """Held while a model learns or is asked: its online state belongs to all threads."""

    # --- models -------------------------------------------------------------------------------------------------------

    @property
    def horizons(self) -> list[int]:
        """Minutes ahead that ``use`` was given, the registry has champions of or, without one, the folder models of."""
        if self._given:
            return sorted(self._models)
        registry = self.models_dir.parent / REGISTRY_FILE
        stamp = registry.stat().st_mtime_ns if registry.exists() else None
        if stamp is None or stamp != self._listed[0]:
            self._listed = (stamp, self._horizons_of(read_registry(registry)))
        return self._listed[1]

    def _horizons_of(self, registry: Registry | None) -> list[int]:
        names = {path.name for path in self.models_dir.glob("model_*min.pkl")}
        if registry is not None:
            places = {Path(m["champion_path"]): m for m in registry["models"].values() if "retired" not in m}
            own = {place.name: m for place, m in places.items() if place.parent.name == self.models_dir.name}
            # Before the first promotion a registered file serves; a champion does also where its file is gone.
            names = {name for name, m in own.items() if name in names or m["champion"] is not None}
        found = {horizon for name in names if (horizon := horizon_of_file(name)) is not None}
        return sorted(found if registry is not None else {*found, *self._models})

    def model(self, horizon: int) -> PricePredictionModel:
        """The model of ``horizon`` minutes. Raises HorizonError, ModelNotFoundError, ArtifactError."""
        if horizon not in self._models:
            available = self.horizons
            if not available:
                raise ModelNotFoundError(
                    f"{self.models_dir} holds no price model",
                    expected="files model_{minutes}min.pkl",
                    remedy="train first (energy-ml retrain), or name the right folder",
                )
            if horizon not in available:
                raise HorizonError(
                    f"there is no model for {horizon} minutes ahead",
                    expected=f"one of {', '.join(map(str, available))}",
                    remedy="ask for one of these, or train with ENERGY_ML_HORIZONS including it",
                )
            path = f"{self.models_dir.name}/{price_model_name(horizon)}.pkl"
            # Of two threads that load it at once, the first's learns and serves.
            self._models.setdefault(horizon, load_champion(self.models_dir.parent, path))
        return self._models[horizon]

    def extra_columns(self, horizons: Sequence[int] | None = None) -> list[str]:
        """Columns beside the price that the models of ``horizons`` (None: all) were trained with, and ask for."""
        specs = (self.model(horizon).spec for horizon in horizons or self.horizons)
        return list(dict.fromkeys(column for spec in specs for column in spec.extra_columns))

    def covariates(self) -> tuple[tuple[Covariate, tuple[int, ...]], ...]:
        """Covariates that models were trained with, each with the minutes ahead of those models."""
        found: dict[Covariate, list[int]] = {}
        for horizon in self.horizons:
            for covariate in self.model(horizon).spec.covariates:
                found.setdefault(covariate, []).append(horizon)
        return tuple((covariate, tuple(horizons)) for covariate, horizons in found.items())

    def add_covariates(self, prices: pd.DataFrame | Panel, lake: ParquetLake) -> pd.DataFrame | Panel:
        """Recent prices with what the lake's files say of the models' covariates, as known at each price.

        Covariates whose columns are given stay as they are.
        """
        held = {covariate_of(name) for name in prices.columns}
        for covariate, horizons in self.covariates():
            if covariate.name in held:
                continue
            frame = prices.to_long() if isinstance(prices, Panel) else prices
            made = add_covariates(frame, lake, [covariate], horizons)
            if isinstance(prices, Panel):
                shape = prices.values.T.shape
                new = {name: made[name].to_numpy().reshape(shape) for name in made if name not in frame}
                prices = replace(prices, columns={**prices.columns, **new})
            else:
                prices = made
        return prices

    def use(self, models: dict[int, PricePredictionModel]) -> PricePredictor:
        """Serve these models instead of the folder's files (a trainer's ``models``, say). Returns itself."""
        self._models, self._given = dict(models), True
        return self

    def warm_up(self) -> list[ForecastRow]:
        """Forecast from made-up prices, so that nothing is left to load or to compile for whoever asks first.

        Returns the rows, as ``predict_rows`` does: a model that can't give them can't give others. Takes half a minute
        where compiled code isn't cached yet, else milliseconds.
        """
        rows: list[ForecastRow] = []
        for horizon in self.horizons:
            model = self.model(horizon)
            count = _least(model)
            times = NS_PER_MINUTE * model.interval_minutes * np.arange(count, dtype=np.int64)
            names = tuple(sorted(model.regions))
            cell = np.arange(count * len(names), dtype=np.float64).reshape(count, len(names))
            columns = [model.price_col, *model.spec.extra_columns]
            panel = Panel(times, names, model.interval_minutes, {name: 50 + 10 * np.sin(cell) for name in columns})
            rows += self.predict_rows(panel, [horizon], now=pd.Timestamp(int(times[-1]), tz="UTC"))
        return rows

    def fitting(
        self, current_data: pd.DataFrame | Panel, horizons: Sequence[int] | None = None
    ) -> tuple[list[int], dict[int, str]]:
        """Which models can be served from these prices, and in words why others can't, by minutes ahead.

        Each answers for itself: after a change of the prices' interval or columns those that were trained before are
        left out, which is logged. Raises IntervalError or SchemaError where none fits, or one of ``horizons`` doesn't.
        """
        step = None
        if isinstance(current_data, Panel):
            step = current_data.interval_minutes
        elif TIMESTAMP in current_data.columns:
            step = recent_interval(timestamps_ns(current_data[TIMESTAMP]))
        found = horizons or self.horizons or [0]  # which no folder has: it says that there is none
        errors = {h: error for h in found if (error := self._misfit(self.model(h), current_data, step)) is not None}
        if errors and (horizons or len(errors) == len(found)):
            raise next(iter(errors.values()))
        left_out = {horizon: str(error) for horizon, error in errors.items()}
        if left_out != self._left_out:
            self._left_out = left_out
            for horizon, why in left_out.items():
                log.warning("%s can't serve: %s", price_model_id(horizon), why)
        return [horizon for horizon in dict.fromkeys(found) if horizon not in errors], left_out

    # --- forecasts ----------------------------------------------------------------------------------------------------

    def predict(
        self,
        current_data: pd.DataFrame,
        horizon: int = 15,
        region: str | None = None,
        *,
        now: pd.Timestamp | None = None,
    ) -> float:
        """Price of ``region`` ``horizon`` minutes after the newest row, currency/MWh.

        Parameters
        ----------
        current_data : recent prices, columns ``timestamp``, ``region``, ``real_time_price`` and ``extra_columns()``
            (NaN where unknown), on the interval of training; all regions that training had (others' prices are
            features), at least ``max(lag, window)`` intervals. With ``required_history`` intervals the forecast equals
            the batch path's bit for bit.
        region : may be left out when there is only one.
        now : refuse rows after this instant; None doesn't look.

        Raises HistoryError, IntervalError, SchemaError, TimestampError, StaleDataError, UnknownRegionError, DataError,
        HorizonError.
        """
        _, _, forecasts = self._one(current_data, [horizon], region, now)
        return float(forecasts[horizon].price[0])

    def predict_all_horizons(
        self, current_data: pd.DataFrame, region: str | None = None, *, now: pd.Timestamp | None = None
    ) -> dict[int, float]:
        """Forecast of every horizon of the folder whose model fits the prices, by minutes; see ``fitting``."""
        _, _, forecasts = self._one(current_data, None, region, now)
        return {horizon: float(forecast.price[0]) for horizon, forecast in forecasts.items()}

    def predict_with_confidence(
        self,
        current_data: pd.DataFrame,
        horizon: int = 15,
        region: str | None = None,
        *,
        level: float | None = None,
        now: pd.Timestamp | None = None,
    ) -> ForecastRow:
        """Forecast with an interval: ``price, lower, upper, expected, spike_probability, spike_price, level, method,
        region, horizon, timestamp, target_time, price_now, known_region, recent_missing, late_regions, penalty``; see
        ``predict``. ``level`` defaults to the model's own.

        ``price`` is the middle of what may come, ``expected`` its mean, which spikes pull up; ``spike_probability``
        that of a price above ``spike_price``, None for a region that training didn't know. ``recent_missing`` of the
        prices that features look at weren't measured; ``late_regions`` have no price at ``timestamp``, but a last one;
        ``penalty`` says in words what makes the forecast worse than usual. ``prediction`` and ``confidence_interval``
        are price and bounds again, under the names of other libraries."""
        panel, name, forecasts = self._one(current_data, [horizon], region, now)
        row = self._as_rows(horizon, [name], forecasts[horizon], panel, level)[0]
        return row | {"prediction": row["price"], "confidence_interval": (row["lower"], row["upper"])}

    def predict_many(
        self,
        current_data: pd.DataFrame,
        horizons: Sequence[int] | None = None,
        regions: Sequence[str] | None = None,
        *,
        level: float | None = None,
        now: pd.Timestamp | None = None,
    ) -> pd.DataFrame:
        """Several regions and horizons at once: one row each, with the columns of ``predict_with_confidence``."""
        return pd.DataFrame(self.predict_rows(current_data, horizons, regions, level=level, now=now))

    def predict_rows(
        self,
        current_data: pd.DataFrame | Panel,
        horizons: Sequence[int] | None = None,
        regions: Sequence[str] | None = None,
        *,
        level: float | None = None,
        now: pd.Timestamp | None = None,
    ) -> list[ForecastRow]:
        """The rows of ``predict_many`` as dicts. A panel of prices as input saves laying a frame out.

        Regions without a price at the newest instant are left out and named in each row's ``late_regions``; an error
        where no other was asked for.
        """
        wanted, _ = self.fitting(current_data, horizons)
        panel = self._panel(current_data, wanted, None, now)
        asked = list(panel.regions if regions is None else regions)
        late = {*_late_regions(panel), *set(self.model(wanted[0]).regions) - set(panel.regions)}
        names = [name for name in asked if name not in late] or asked
        made = self._forecast(panel, wanted, names)
        return [row for horizon, found in made.items() for row in self._as_rows(horizon, names, found, panel, level)]

    def update(self, recent_prices: pd.DataFrame, *, now: pd.Timestamp | None = None) -> int:
        """Feed outcomes: move gate and calibration of every horizon that fits over the rows that are new to them.

        Call it with each new price (or a batch of them), before asking for forecasts from it; any thread may. Nothing
        is learned from a forecast before its target time has passed. ``now`` is the clock's by default: a row after it
        isn't the present, and what came until then would no longer be new. Returns the number of instants that were
        new. Raises as ``predict`` does.
        """
        now = pd.Timestamp.now("UTC") if now is None else now
        made: dict[tuple[PriceFeatureSpec, str, int], pd.DataFrame] = {}
        waiting: list[tuple[PricePredictionModel, pd.DataFrame]] = []
        for horizon in self.fitting(recent_prices)[0]:
            model = self.model(horizon)
            spec, price_col, interval = kind = model.spec, model.price_col, model.interval_minutes
            if kind not in made:
                panel = self._panel(recent_prices, [horizon], None, now, whole=True)
                made[kind] = price_features(panel.to_long(), spec, price_col=price_col, interval_minutes=interval)
            waiting.append((model, made[kind]))
        with self._state:
            return max((model.advance(features) for model, features in waiting), default=0)

    def get_feature_importance(self, horizon: int, *, method: str = "gain", by_family: bool = False) -> pd.DataFrame:
        """Columns ``feature, family, importance`` (shares), largest first; ``method`` is ``gain`` or ``shap``.

        ``by_family`` sums them to ``family, importance``.
        """
        table = self.model(horizon).feature_importance(method)
        return family_importance(table) if by_family else table

    # --- inside -------------------------------------------------------------------------------------------------------

    def _misfit(self, model: PricePredictionModel, data: pd.DataFrame | Panel, step: int | None) -> DataError | None:
        """What keeps the model from answering from prices of this step, if anything."""
        extras = [name for name in model.spec.extra_columns if not name.startswith(PREFIX)]
        if missing := [name for name in extras if name not in data.columns]:
            return SchemaError(
                f"the recent prices lack column {missing[0]!r}, which the models were trained with",
                column=missing[0],
                expected=", ".join([TIMESTAMP, REGION, model.price_col, *extras]),
                remedy="pass it beside the prices, empty where unknown, or train without it: "
                "ENERGY_ML_PRICES_EXTRA_COLUMNS",
            )
        if step not in (None, model.interval_minutes):
            return IntervalError(
                f"recent prices come every {step} minutes",
                expected=f"every {model.interval_minutes} minutes, as in training",
                remedy="resample them, or train on data of this interval",
            )
        return None

    def _one(
        self, data: pd.DataFrame, horizons: Sequence[int] | None, region: str | None, now: pd.Timestamp | None
    ) -> tuple[Panel, str, dict[int, Forecast]]:
        horizons, _ = self.fitting(data, horizons)
        panel = self._panel(data, horizons, region, now)
        if region is None:
            if len(panel.regions) > 1:
                raise UnknownRegionError(
                    f"the recent prices hold {len(panel.regions)} regions and none was named",
                    expected=f"region= one of {', '.join(panel.regions)}",
                    remedy="name the region, or call predict_many",
                )
            region = panel.regions[0]
        return panel, region, self._forecast(panel, horizons, [region])

    def _panel(
        self,
        data: pd.DataFrame | Panel,
        horizons: Sequence[int],
        region: str | None,
        now: pd.Timestamp | None,
        whole: bool = False,
    ) -> Panel:
        """Recent prices, which fit the models of ``horizons``, on a grid, checked."""
        model, extras = self.model(horizons[0]), self.extra_columns(horizons)
        if isinstance(data, Panel):
            self._check(data, model, now)
            unknown = {name: np.full(data.values.T.shape, np.nan) for name in extras if name not in data.columns}
            return replace(data, columns={**data.columns, **unknown}) if unknown else data
        if REGION not in data.columns and region is None and len(model.regions) > 1:
            raise UnknownRegionError(
                "the recent prices have no region column and no region was named",
                expected=f"region= one of {', '.join(model.regions)}",
                remedy="name the region that the prices are of",
            )
        data = with_unknown(with_region(data, region or model.regions[0]), extras)
        columns = [model.price_col, *extras]
        if IS_FILLED in data.columns:
            columns.append(IS_FILLED)
        interval = model.interval_minutes if len(data) > 1 and TIMESTAMP in data.columns else None
        if interval is not None and not whole:
            # Features look back a finite way: older rows cost time and change nothing.
            stamps = timestamps_ns(data[TIMESTAMP])
            oldest = stamps.max() - (required_history(model.spec, interval) + 1) * interval * NS_PER_MINUTE
            if stamps.min() < oldest:
                data = data[stamps > oldest]
        panel = to_panel(data, columns, interval_minutes=interval)
        self._check(panel, model, now)
        return panel

    def _check(self, panel: Panel, model: PricePredictionModel, now: pd.Timestamp | None) -> None:
        newest, now = _newest(panel), None if now is None else pd.to_datetime(now, utc=True)
        if now is not None and newest > now:
            late = int((panel.times > now).sum())
            raise TimestampError(
                "recent prices lie in the future",
                rows=late,
                example=newest,
                expected=f"nothing after {now}",
                remedy="check the clock and the time zone of the prices",
            )
        if self.max_age_minutes is not None:
            age = ((pd.Timestamp.now(tz="UTC") if now is None else now) - newest) / pd.Timedelta(minutes=1)
            if age > self.max_age_minutes:
                raise StaleDataError(
                    f"the newest price is {age:,.0f} minutes old ({newest})",
                    expected=f"at most {self.max_age_minutes:g} minutes",
                    remedy="pass newer prices, or raise max_age_minutes",
                )
        least, limit = _least(model), model.max_abs_price
        prices = panel.matrix(model.price_col)
        if (absurd := np.abs(prices) > limit).any():
            raise ValueRangeError(
                "recent prices are absurd",
                column=model.price_col,
                rows=int(absurd.sum()),
                example=float(prices[absurd][0]),
                expected=f"between {-limit:,.0f} and {limit:,.0f} currency/MWh",
                remedy="correct or drop these rows, or train with a higher ENERGY_ML_PRICES_MAX_ABS_PRICE",
            )
        if len(panel.times_ns) < least:
            raise HistoryError(
                f"{len(panel.times_ns)} recent intervals",
                expected=f"at least {least} (the longest lag or window) of {model.interval_minutes} minutes",
                remedy="pass a longer history",
            )

    def _forecast(self, panel: Panel, horizons: Sequence[int], names: Sequence[str]) -> dict[int, Forecast]:
        """Forecasts of the regions ``names`` from the newest instant, per horizon."""
        if unknown := [name for name in names if name not in panel.regions]:
            raise UnknownRegionError(
                f"region {unknown[0]!r} isn't in the recent prices",
                expected=f"one of {', '.join(panel.regions)}",
                remedy="pass its prices, or ask for another region",
            )
        places = [panel.regions.index(name) for name in names]
        price = np.ascontiguousarray(panel.values[places, -1])
        if not np.isfinite(price).all():
            missing = names[int(np.flatnonzero(~np.isfinite(price))[0])]
            raise DataError(
                f"region {missing!r} has no price at the newest instant",
                rows=int((~np.isfinite(price)).sum()),
                example=f"{panel.times[-1]}; its last price is of {_late_regions(panel)[missing] or 'long before'}",
                expected="a finite price at the newest instant of each region asked for",
                remedy="fill the gap, or wait for the next price",
            )
        out: dict[int, Forecast] = {}
        cubes: dict[PriceFeatureSpec, Floats32] = {}
        for horizon in horizons:
            model = self.model(horizon)
            gone = _recent_missing(panel, model)[places]
            if gone.mean(axis=1).max(initial=0.0) > 1 - self.min_recent_share:
                place = int(gone.mean(axis=1).argmax())
                raise HistoryError(
                    f"{int(gone[place].sum())} of the last {gone.shape[1]} prices of region {names[place]!r} "
                    "weren't measured",
                    expected=f"at least {self.min_recent_share:.0%} of them",
                    remedy="pass the missing prices, or wait for new ones",
                )
            if model.spec not in cubes:
                cubes[model.spec] = price_feature_cube(panel, model.spec, last=1)[1][:, 0, places]
            with self._state:
                out[horizon] = model.forecast_cube(cubes[model.spec], price, names)
        return out

    def _as_rows(
        self, horizon: int, names: Sequence[str], forecast: Forecast, panel: Panel, level: float | None
    ) -> list[ForecastRow]:
        """One dict per region of ``names``, in the order of the forecast."""
        model = self.model(horizon)
        level = model.interval_level if level is None else level
        lower, upper = forecast.interval(level)
        time, gone, late = _newest(panel), _recent_missing(panel, model), _late_regions(panel)
        spikes = model.provenance.get("spike_thresholds", {})
        limit = np.array([spikes.get(name, np.nan) for name in names])
        line = model.provenance.get("spike_calibration", (0.0, 1.0))
        expected, spike = forecast.expected, forecast.spike_probability(limit, line)
        there = set(np.array(panel.regions)[~gone.all(axis=1)])
        without = [name for name in model.regions if name not in there] if len(model.regions) > 1 else []
        rows = []
        for i, name in enumerate(names):
            place, seen = panel.regions.index(name), name in model.regions
            missing = int(gone[place].sum())
            penalties = [] if seen else [_UNSEEN]
            if without:
                penalties.append(f"no recent prices of {', '.join(without)}, whose prices are features")
            if silent := _silent(panel, model.spec, place):
                penalties.append(f"nothing is known of {', '.join(silent)}")
            if missing:
                penalties.append(f"{missing} of the last {gone.shape[1]} prices weren't measured")
            rows.append(
                {
                    "price": float(forecast.price[i]),
                    "lower": float(lower[i]),
                    "upper": float(upper[i]),
                    "expected": float(expected[i]),
                    "spike_probability": None if np.isnan(spike[i]) else float(spike[i]),
                    "spike_price": None if np.isnan(limit[i]) else float(limit[i]),
                    "level": level,
                    "method": _METHOD,
                    "region": name,
                    "horizon": horizon,
                    "timestamp": time,
                    "target_time": time + pd.Timedelta(minutes=horizon),
                    "price_now": float(panel.values[place, -1]),
                    "known_region": seen,
                    "recent_missing": missing,
                    "late_regions": late,
                    "penalty": "; ".join(penalties) or None,
                }
            )
        return rows


def _least(model: PricePredictionModel) -> int:
    """The longest lag or window: how many intervals a forecast needs at least."""
    return max(*model.spec.lags, *model.spec.windows)


def _recent_missing(panel: Panel, model: PricePredictionModel) -> Booleans:
    """Which of the prices that lags and windows of the newest row look at weren't measured, (R, that many)."""
    recent = slice(-recent_reach(model.feature_cols, model.interval_minutes) - 1, None)
    missing = np.isnan(panel.matrix(model.price_col)[:, recent])
    return missing | (panel.matrix(IS_FILLED)[:, recent] != 0) if IS_FILLED in panel.columns else missing


def _silent(panel: Panel, spec: PriceFeatureSpec, place: int) -> list[str]:
    """Covariates of which nothing is known at the newest instant of the region at ``place``."""
    known: dict[str, bool] = {}
    for column in spec.extra_columns:
        if (name := covariate_of(column)) is not None:
            known[name] = known.get(name, False) or bool(np.isfinite(panel.columns[column][-1, place]))
    return [name for name, there in known.items() if not there]


def _late_regions(panel: Panel) -> dict[str, pd.Timestamp | None]:
    """Regions without a price at the newest instant -> time of their last one, None if the panel has none."""
    late: dict[str, pd.Timestamp | None] = {}
    for place in np.flatnonzero(~np.isfinite(panel.values[:, -1])):
        known = np.flatnonzero(np.isfinite(panel.values[place]))
        late[panel.regions[place]] = pd.Timestamp(int(panel.times_ns[known[-1]]), tz="UTC") if len(known) else None
    return late


def _newest(panel: Panel) -> pd.Timestamp:
    """The newest instant; a single Timestamp costs a hundredth of the panel's whole index."""
    return pd.Timestamp(int(panel.times_ns[-1]), tz="UTC")
