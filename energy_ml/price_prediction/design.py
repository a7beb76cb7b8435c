"""From a features frame to what models see: columns and targets in scales that a spike can't wreck.

What belongs here: which columns a model takes, in which unit, and the two target spaces. What doesn't: making
features, fitting.

Two target spaces (both changes from the current price, never levels): the change over the local volatility ``vol``,
and the change of arcsinh(price / scale). On real prices this alone takes an ordinary gradient-boosted model from 1.9
times the error of "the price stays" to below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Floats32, Integers
from energy_ml.artifacts import Complete
from energy_ml.errors import SchemaError
from energy_ml.features.covariates import with_unknown

VOL = "vol"
"""Feature column with the local volatility of the price, currency/MWh."""
_PRICE_LEVELS = re.compile(r"^(price_now|price_lag_\d+|rolling_(mean|min|max)_\d+)$")
"""Price levels: what they say, changes and distances from the current price say better."""
_IN_CURRENCY = re.compile(
    r"^(change_|dist_|spread_|others_change_|nearest_spread|nearest_distance|nearest_change_|abs_change_mean_"
    r"|rolling_std_|last_change$|day_range$|yesterday_move_|profile_move_|covariate_price_)"
)
"""Differences and sizes in currency/MWh: seen by models in units of the local volatility."""
_USUAL_SHARES = (0.03, 0.97)
"""Shares of the training prices below and up to the usual ones. On real prices anything from 2 to 5 % is as good."""


@dataclass(frozen=True)
class Design(Complete):
    """How a model's input rows are made from a features frame; ``names`` are the resulting columns in order."""

    features: tuple[str, ...]
    """Columns that the frame must have."""
    in_volatility: tuple[str, ...]
    as_is: tuple[str, ...]
    regions: tuple[str, ...]
    """Regions seen in training; another one gets a missing region code."""
    price_scale: float
    """Scale of arcsinh(price / price_scale), currency/MWh; a robust spread of the training prices."""
    usual_prices: Floats
    """(regions + 1, 2) lowest and highest usual price of each region in training, of all regions in the last row."""

    @property
    def names(self) -> list[str]:
        """Columns of ``rows``: volatility units first, then plain ones, then the model's own three."""
        return [*self.in_volatility, *self.as_is, "price_level", "vol_level", "region_code"]

    @classmethod
    def plan(cls, features: Sequence[str], regions: Sequence[str], train_prices: Floats) -> Design:
        """Choose columns; ``train_prices`` (times, regions) fit the arcsinh scale and the usual prices and must be of
        the training part only; NaN where there is none."""
        if VOL not in features:
            raise SchemaError(
                f"the feature columns lack '{VOL}'",
                column=VOL,
                expected="the columns that energy_ml.features.build_price_features makes",
                remedy="build the features with it",
            )
        kept = [name for name in features if name != VOL and not _PRICE_LEVELS.match(name)]
        scaled = tuple(name for name in kept if _IN_CURRENCY.match(name))
        plain = tuple(name for name in kept if not _IN_CURRENCY.match(name))
        finite = train_prices[np.isfinite(train_prices)]
        spread = float(np.median(np.abs(finite - np.median(finite)))) if len(finite) else 1.0
        known = [column[np.isfinite(column)] for column in train_prices.T]
        usual = [np.quantile(prices if len(prices) else finite, _USUAL_SHARES) for prices in (*known, finite)]
        return cls(tuple(features), scaled, plain, tuple(regions), max(spread, 1.0), np.array(usual))

    def volatility(self, frame: pd.DataFrame) -> Floats:
        """Local volatility per row, currency/MWh, shape (n,)."""
        return np.asarray(frame[VOL].to_numpy(dtype=np.float64))

    def region_codes(self, frame: pd.DataFrame) -> Integers:
        """Place of each row's region in ``regions``, -1 for one that training didn't see; shape (n,)."""
        codes, found = pd.factorize(frame["region"])
        place = {name: code for code, name in enumerate(self.regions)}
        return np.asarray(np.array([place.get(str(name), -1) for name in found], dtype=np.int64)[codes])

    def rows(self, frame: pd.DataFrame, price_col: str) -> Floats32:
        """Input rows of a features frame, shape (n, len(names)), float32; NaN where a feature is unknown."""
        frame = with_unknown(frame, self.features)
        missing = [name for name in self.features if name not in frame.columns]
        if missing:
            raise SchemaError(
                f"the features frame lacks {len(missing)} of the columns that the model was trained on",
                column=missing[0],
                expected=f"{len(self.features)} columns, among them {', '.join(missing[:3])}",
                remedy="build the features with the same lags, windows and horizons as in training",
            )
        return self.assemble(
            frame[list(self.in_volatility)].to_numpy(dtype=np.float32),
            frame[list(self.as_is)].to_numpy(dtype=np.float32),
            frame[VOL].to_numpy(dtype=np.float32),
            frame[price_col].to_numpy(dtype=np.float64),
            self.region_codes(frame),
        )

    def within_usual(self, forecast: Floats, price: Floats, codes: Integers) -> Floats:
        """Forecasts (n,) held within the region's usual prices, or the current ``price`` (n,) where that is beyond.

        Between spikes trees extrapolate: a fall of a spike's size from an ordinary price. A median further out than
        prices hardly ever were is wrong in both directions; how far a spike reaches, intervals say.
        """
        return np.clip(
            forecast, np.minimum(self.usual_prices[codes, 0], price), np.maximum(self.usual_prices[codes, 1], price)
        )

    def assemble(
        self,
        in_volatility: Floats32,
        as_is: Floats32,
        vol: Floats32,
        price: Floats,
        codes: Integers,
    ) -> Floats32:
        """Input rows (n, len(names)) from feature blocks (n, ...) in the order of the names, ``vol`` and ``price``
        (n,)."""
        first = len(self.in_volatility)
        out = np.empty((len(price), first + len(self.as_is) + 3), dtype=np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            np.divide(in_volatility, vol[:, None], out=out[:, :first])
            out[:, first:-3] = as_is
            out[:, -3] = np.arcsinh(price / self.price_scale)
            out[:, -2] = np.log(vol)
            out[:, -1] = np.where(codes >= 0, codes, np.nan)
        # XGBoost takes NaN for missing but refuses infinity.
        out[~np.isfinite(out)] = np.nan
        return out


def to_volatility(price: Floats, future: Floats, vol: Floats) -> Floats:
    """Change in units of local volatility."""
    return (future - price) / vol


def from_volatility(price: Floats, change: Floats, vol: Floats) -> Floats:
    """Price that ``to_volatility`` came from."""
    return price + change * vol


def to_arcsinh(price: Floats, future: Floats, scale: float) -> Floats:
    """Change of arcsinh(price / scale)."""
    return np.asarray(np.arcsinh(future / scale) - np.arcsinh(price / scale))


def from_arcsinh(price: Floats, change: Floats, scale: float) -> Floats:
    """Price that ``to_arcsinh`` came from."""
    return np.asarray(scale * np.sinh(np.arcsinh(price / scale) + change))
