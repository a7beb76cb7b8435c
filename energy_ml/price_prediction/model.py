"""A trained price model of one horizon: what is pickled, and how it forecasts.

What belongs here: combining members, gate and intervals into forecasts, importance, provenance. What doesn't:
training it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Floats32, Integers
from energy_ml.artifacts import Complete
from energy_ml.config import PricePredictionConfig
from energy_ml.errors import ConfigError, IntervalError
from energy_ml.features import PriceFeatureSpec, feature_family, feature_names, measured_prices
from energy_ml.price_prediction.conformal import LEVELS, QUANTILES, OnlineConformal, at_level
from energy_ml.price_prediction.design import VOL, Design, from_arcsinh, from_volatility
from energy_ml.price_prediction.distribution import calibrated, expected_price, spike_probability
from energy_ml.price_prediction.ensemble import ARCSINH, Member, combine
from energy_ml.price_prediction.gate import OnlineGate
from energy_ml.price_prediction.linear import MedianRegression
from energy_ml.price_prediction.trees import Forest, flatten

if TYPE_CHECKING:
    import xgboost as xgb


@dataclass(frozen=True)
class Fitted(Complete):
    """Fitted members over the same input rows: boosters in the order of ``members`` + the quantile model, and the
    line."""

    members: tuple[Member, ...]
    quantiles: Member
    boosters: tuple[bytes, ...]
    """UBJSON, quantile model last."""
    forest: Forest
    linear: MedianRegression | None

    @classmethod
    def of(
        cls,
        members: tuple[Member, ...],
        quantiles: Member,
        boosters: list[xgb.Booster],
        linear: MedianRegression | None,
    ) -> Fitted:
        """From boosters, quantile model last."""
        raw = tuple(bytes(booster.save_raw("ubj")) for booster in boosters)
        return cls(members, quantiles, raw, flatten(boosters), linear)

    def booster(self, place: int) -> xgb.Booster:
        """XGBoost's own object of member ``place``."""
        import xgboost as xgb  # serving needs the flattened trees alone

        booster = xgb.Booster()
        booster.load_model(bytearray(self.boosters[place]))
        return booster

    def forecast(
        self, rows: Floats32, price: Floats, vol: Floats, design: Design, codes: Integers
    ) -> tuple[Floats, Floats]:
        """The ensemble's prices (n,), NaN where a member has none, and ascending quantiles (n, quantiles) of
        arcsinh(price / scale); ``codes`` (n,) of the regions as in ``design``."""
        scale = design.price_scale
        outputs = self.forest.predict(rows).astype(np.float64)
        columns = [
            from_arcsinh(price, outputs[:, place], scale)
            if member.space == ARCSINH
            else from_volatility(price, outputs[:, place], vol)
            for place, member in enumerate(self.members)
        ]
        if self.linear is not None:
            columns.append(from_volatility(price, self.linear.predict(rows), vol))
        first = len(self.members)
        changes = np.sort(outputs[:, first : first + len(QUANTILES)], axis=1)
        ensemble = design.within_usual(combine(np.column_stack(columns), self.members), price, codes)
        return ensemble, np.arcsinh(price / scale)[:, None] + changes


@dataclass
class PricePredictionModel(Complete):
    """Forecasts one horizon for every region. Pickles by joblib; carries its online state.

    The state (gate, interval calibration) stands at ``state_time``, the newest instant whose price it has seen;
    ``advance`` moves it. ``provenance`` holds whatever is needed to make the model again.
    """

    horizon: int
    """Minutes ahead."""
    interval_minutes: int
    price_col: str
    feature_cols: tuple[str, ...]
    design: Design
    fitted: Fitted
    gate: OnlineGate
    conformal: OnlineConformal
    state_time: pd.Timestamp
    interval_level: float
    sample_rows: Floats32
    """Some input rows of training, evenly spread: what SHAP importance is taken over."""
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions seen in training."""
        return self.design.regions

    @property
    def max_abs_price(self) -> float:
        """Beyond it, either way, a price is a mistake."""
        return float(self.provenance["config"].get("max_abs_price", PricePredictionConfig.max_abs_price))

    @property
    def steps(self) -> int:
        """Intervals of the horizon."""
        return self.horizon // self.interval_minutes

    @cached_property
    def spec(self) -> PriceFeatureSpec:
        """The features that it was trained with."""
        return PriceFeatureSpec.from_dict(self.provenance["feature_spec"])

    @cached_property
    def _places(self) -> tuple[Integers, Integers, int, dict[str, int]]:
        """Where the input columns and the volatility stand in a feature cube, and the regions' codes."""
        place = {name: i for i, name in enumerate(feature_names(self.spec, self.interval_minutes))}
        of = (self.design.in_volatility, self.design.as_is)
        in_volatility, as_is = (np.array([place[name] for name in names], dtype=np.int64) for names in of)
        return in_volatility, as_is, place[VOL], {name: code for code, name in enumerate(self.regions)}

    def forecast_cube(self, features: Floats32, price: Floats, names: Sequence[str]) -> Forecast:
        """Forecasts of the regions ``names`` (n,) from their features (all of ``spec``, n) and prices (n,)."""
        in_volatility, as_is, of_vol, known = self._places
        codes = np.array([known.get(name, -1) for name in names], dtype=np.int64)
        vol = features[of_vol]
        rows = self.design.assemble(features[in_volatility].T, features[as_is].T, vol, price, codes)
        return self.forecast_rows(rows, price, vol.astype(np.float64), codes)

    def predict(self, features: pd.DataFrame) -> Floats:
        """Price forecasts per row of a features frame, currency/MWh, shape (n,), at the present state of the gate."""
        return self.forecast(features).price

    def forecast(self, features: pd.DataFrame) -> Forecast:
        """Point forecasts and bounds of all calibrated levels per row."""
        return self.forecast_rows(*self._inputs(features))

    def _inputs(self, features: pd.DataFrame) -> tuple[Floats32, Floats, Floats, Integers]:
        price = features[self.price_col].to_numpy(dtype=np.float64)
        rows = self.design.rows(features, self.price_col)
        return rows, price, self.design.volatility(features), self.design.region_codes(features)

    def forecast_rows(self, rows: Floats32, price: Floats, vol: Floats, regions: Integers) -> Forecast:
        """The same from input rows (n, columns) of ``design`` and region codes (n,), -1 for an unseen region.

        An unseen region is served with a penalty: the gate takes the smallest factor of the known regions and the
        interval the widest bounds that any of them would get.
        """
        ensemble, quantiles = self.fitted.forecast(rows, price, vol, self.design, regions)
        point = np.empty(len(price))
        bounds = np.empty((len(price), len(LEVELS), 2))
        for i, region in enumerate(regions):
            if region >= 0:
                point[i] = self.gate.apply(int(region), price[i], ensemble[i])
                bounds[i] = self.conformal.bounds(int(region), quantiles[i])
            else:
                point[i] = price[i] + self.gate.factors().min() * (ensemble[i] - price[i])
                every = np.stack([self.conformal.bounds(r, quantiles[i]) for r in range(len(self.regions))])
                bounds[i, :, 0], bounds[i, :, 1] = every[..., 0].min(axis=0), every[..., 1].max(axis=0)
        return Forecast(point, bounds, quantiles, self.design.price_scale)

    def ungated(self, features: pd.DataFrame) -> tuple[Floats, Integers, Floats, Floats]:
        """What gate and calibration work on, per row: price (n,), region code (n,), the ensemble's price (n,) and
        quantiles (n, quantiles) of arcsinh(price / scale)."""
        rows, price, vol, codes = self._inputs(features)
        return price, codes, *self.fitted.forecast(rows, price, vol, self.design, codes)

    def advance(self, features: pd.DataFrame) -> int:
        """Learn from prices newer than ``state_time``: outcomes of earlier forecasts, then forecasts for later ones.

        ``features`` are rows of any instants; those at or before ``state_time`` are ignored, missing instants count as
        unknown. Rows of unseen regions teach nothing. Returns how many instants the state moved. Raises IntervalError
        when the rows are on another grid.
        """
        newer = features[pd.DatetimeIndex(features["timestamp"]) > self.state_time]
        newer = newer[newer["region"].isin(self.regions)]
        if not len(newer):
            return 0
        gap = pd.DatetimeIndex(newer["timestamp"]) - self.state_time
        minutes = np.asarray(gap / pd.Timedelta(minutes=1))
        offsets = np.rint(minutes / self.interval_minutes).astype(np.int64) - 1
        if np.abs(minutes - (offsets + 1) * self.interval_minutes).max() > 1e-6:
            raise IntervalError(
                f"rows lie between the {self.interval_minutes}-minute instants that the model knows",
                expected=f"instants that are multiples of {self.interval_minutes} minutes after {self.state_time}",
                remedy="pass data of the interval that the model was trained on",
            )
        price, codes, made, quantiles = self.ungated(newer)
        n_times = int(offsets.max()) + 1
        # A long silence needs no walk of its own: memory fades and pending outcomes are lost within one horizon.
        skipped = max(int(offsets.min()) - self.steps - 2880, 0)
        shape = (len(self.regions), n_times - skipped)
        places = codes, offsets - skipped
        grid, outcome, ensemble = (np.full(shape, np.nan) for _ in range(3))
        spread = np.full((*shape, len(QUANTILES)), np.nan)
        grid[places], ensemble[places], spread[places] = price, made, quantiles
        outcome[places] = measured_prices(newer, self.price_col)
        self.gate.run(grid, ensemble, outcome)
        self.conformal.run(np.arcsinh(outcome / self.design.price_scale), spread)
        self.state_time = self.state_time + pd.Timedelta(minutes=n_times * self.interval_minutes)
        return n_times

    def feature_importance(self, method: str = "gain") -> pd.DataFrame:
        """What the boosted median members use; columns ``feature, family, importance`` (shares), largest first.

        ``gain``: share of total gain. ``shap``: share of mean absolute contribution (XGBoost's ``pred_contribs``) over
        the sample of training rows kept with the model.
        """
        if method not in ("gain", "shap"):
            raise ConfigError(f"importance method is {method!r}", expected="'gain' or 'shap'")
        names = self.design.names
        total = np.zeros(len(names))
        for place in range(len(self.fitted.members)):
            booster = self.fitted.booster(place)
            sizes = np.zeros(len(names))
            if method == "gain":
                for key, gain in booster.get_score(importance_type="total_gain").items():
                    sizes[int(key[1:])] = float(np.sum(gain))
            else:
                import xgboost as xgb

                contributions = booster.predict(xgb.DMatrix(self.sample_rows), pred_contribs=True)
                sizes = np.abs(contributions[:, :-1]).mean(axis=0)
            if sizes.sum() > 0:
                total += sizes / sizes.sum()
        shares = total / total.sum() if total.sum() > 0 else total
        table = pd.DataFrame({"feature": names, "family": [family_of(name) for name in names], "importance": shares})
        return table.sort_values(["importance", "feature"], ascending=[False, True], ignore_index=True)

    def importance_table(self) -> pd.DataFrame:
        """Both measures side by side: columns ``feature, family, shap, gain`` (shares), largest SHAP first.

        Gain says what trees split on in training, SHAP what moves forecasts; where they differ, gain flatters features
        with many values.
        """
        shap = self.feature_importance("shap").rename(columns={"importance": "shap"})
        gain = self.feature_importance("gain").rename(columns={"importance": "gain"})
        return shap.merge(gain[["feature", "gain"]], on="feature", validate="one_to_one")


@dataclass(frozen=True)
class Forecast:
    """Forecasts of n rows: ``price`` (n,), currency/MWh; ``bounds`` (n, levels, 2) and ``quantiles`` (n, quantiles) on
    the arcsinh(price / scale) scale."""

    price: Floats
    bounds: Floats
    quantiles: Floats
    scale: float

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Bounds at any level, currency/MWh; the point forecast never lies outside."""
        return interval_around(self.price, self.bounds, self.quantiles[:, len(QUANTILES) // 2], level, self.scale)

    @property
    def distribution(self) -> Floats:
        """Calibrated quantiles (n, quantiles) on the arcsinh scale."""
        return calibrated(self.bounds, self.quantiles[:, len(QUANTILES) // 2])

    @property
    def expected(self) -> Floats:
        """The mean price per row, (n,), currency/MWh."""
        return expected_price(self.distribution, self.scale)

    def spike_probability(self, threshold: Floats, calibration: tuple[float, float] = (0.0, 1.0)) -> Floats:
        """P(price > threshold) per row, (n,), for thresholds (n,) in currency/MWh; NaN where that is NaN."""
        return spike_probability(self.distribution, self.scale, threshold, calibration)


def interval_around(price: Floats, bounds: Floats, median: Floats, level: float, scale: float) -> tuple[Floats, Floats]:
    """Lower and upper prices (n,) of ``level`` from bounds on the arcsinh scale, stretched to hold the point
    forecast."""
    chosen = scale * np.sinh(at_level(bounds, median, level))
    return np.minimum(chosen[..., 0], price), np.maximum(chosen[..., 1], price)


def family_of(name: str) -> str:
    """Family of an input column: that of the feature it is made of."""
    own = {"price_level": "lags", "vol_level": "volatility", "region_code": "regional"}
    return own.get(name) or feature_family(name)
