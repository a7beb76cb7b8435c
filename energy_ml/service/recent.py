"""The newest prices and charges of the lake, kept until the files change.

What belongs here: which window is read, cleaning it, noticing new files. What doesn't: forecasting from it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from energy_ml.config import Covariate
from energy_ml.features.covariates import add_covariates, outlook
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.telemetry import rated_power
from energy_ml.market_data.window import read_recent_prices
from energy_ml.names import BATTERY_ID, CHARGE, POWER, PRICE, RATED_POWER, REGION, TIMESTAMP

Asked = tuple[tuple[Covariate, tuple[int, ...]], ...]
"""Covariates with the minutes ahead of the models that see them, as ``PricePredictor.covariates`` gives them."""
DISCHARGED = "discharged_mwh"
"""Column: what was drawn from a battery's cells on the newest UTC day, MWh."""
_LOOK_SECONDS = 1.0
_MARGIN = pd.Timedelta(hours=1)
_RATING_SPAN = pd.Timedelta(days=10)
"""As long as the usual training window, so that ratings are those of the report."""


@dataclass(frozen=True, eq=False)
class RecentPrices:
    """Clean long prices up to ``newest`` (UTC), their interval, the regions that have a price there, and the
    ``outlook`` from each region's newest price."""

    frame: pd.DataFrame
    newest: pd.Timestamp
    interval_minutes: int
    regions: tuple[str, ...]
    outlook: pd.DataFrame


class RecentMarket:
    """The end of the lake, for many threads; ``covariates`` of the settings, ``rules`` as ``read_recent_prices``'."""

    def __init__(
        self,
        lake: ParquetLake,
        regions: Sequence[str] | None = None,
        covariates: Sequence[Covariate] = (),
        *,
        clock: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now("UTC"),
        **rules: float,
    ) -> None:
        self.lake = lake
        self._clock = clock
        self._regions = regions
        self._covariates = covariates
        self._lock = threading.Lock()
        self._rules: dict[str, Any] = rules
        self._prices: dict[object, tuple[float, object, RecentPrices]] = {}
        self._batteries: tuple[object, pd.DataFrame] | None = None

    def prices(self, minutes: int, columns: Sequence[str] = (), covariates: Asked = ()) -> RecentPrices:
        """The last ``minutes`` of prices, with further ``columns`` and those of ``covariates``. Looks for new files at
        most once a second.

        Raises the lake's DataErrors.
        """
        wanted = minutes, tuple(columns), covariates
        with self._lock:
            looked, marks, kept = self._prices.get(wanted, (-math.inf, None, None))
            if kept is None or time.monotonic() - looked >= _LOOK_SECONDS:
                found = self._marks("prices"), self._marks("forecasts") if self._covariates else ()
                if kept is None or found != marks:
                    kept = self.until(None, minutes, columns, covariates)
                self._prices[wanted] = time.monotonic(), found, kept
            return kept

    def until(
        self, end: pd.Timestamp | None, minutes: int, columns: Sequence[str] = (), covariates: Asked = ()
    ) -> RecentPrices:
        """``minutes`` of prices up to and including ``end``, or to the newest. Raises the lake's DataErrors."""
        # Prices of the time to come, published ahead, aren't the present one.
        stop = (self._clock() if end is None else end) + pd.Timedelta(nanoseconds=1)
        frame = read_recent_prices(
            self.lake, minutes=minutes, until=stop, regions=self._regions, columns=columns, **self._rules
        )
        for covariate, horizons in covariates:
            frame = add_covariates(frame, self.lake, [covariate], horizons)
        stamps = pd.DatetimeIndex(frame[TIMESTAMP])  # of a whole grid that ends with a price
        newest, times = stamps[-1], stamps.unique()
        at = frame[(stamps == newest) & frame[PRICE].notna().to_numpy()]
        step = (times[-1] - times[-2]) // pd.Timedelta(minutes=1) if len(times) > 1 else 0
        return RecentPrices(frame, newest, int(step), tuple(str(r) for r in at[REGION]), self.outlook(frame))

    def outlook(self, prices: pd.DataFrame) -> pd.DataFrame:
        """What prices known ahead say of the hours after each region's newest price."""
        if not self._covariates:
            return outlook(prices.iloc[:0], self.lake, ())
        newest = prices[prices[PRICE].notna()].sort_values(TIMESTAMP).groupby(REGION, sort=False).tail(1)
        return outlook(newest, self.lake, self._covariates)

    def batteries(self) -> pd.DataFrame:
        """The newest row of each battery of the telemetry, with ``DISCHARGED``; empty if there is none."""
        with self._lock:
            marks = self._marks("batteries")
            if self._batteries is None or self._batteries[0] != marks:
                self._batteries = marks, self._read_batteries()
            return self._batteries[1]

    def _read_batteries(self) -> pd.DataFrame:
        lasts = [f.last for f in self.lake.inventory() if f.kind == "batteries" and f.last is not None]
        if not lasts:
            return pd.DataFrame(columns=[BATTERY_ID])
        last = max(lasts)
        frame = self.lake.read_batteries(last - _RATING_SPAN, last + pd.Timedelta(nanoseconds=1))
        frame = frame.sort_values(TIMESTAMP)
        newest = frame[frame[TIMESTAMP] >= last - _MARGIN].groupby(BATTERY_ID, sort=True).tail(1)
        by_battery = frame.groupby(BATTERY_ID, sort=False)
        # The same rule as in the backtest, so that page and report advise the same power.
        rated = {name: rated_power(rows.get(POWER), rows.get(RATED_POWER)) for name, rows in by_battery}
        falls = -by_battery[CHARGE].diff().clip(upper=0.0)
        today = falls[frame[TIMESTAMP] > last.floor("D")].groupby(frame[BATTERY_ID]).sum()
        made = {
            RATED_POWER: newest[BATTERY_ID].map(rated).astype("float64"),
            DISCHARGED: newest[BATTERY_ID].map(today).astype("float64").fillna(0.0),
        }
        return newest.assign(**made).sort_values(BATTERY_ID, ignore_index=True)

    def _marks(self, kind: str) -> tuple[str, ...]:
        return tuple(f.fingerprint for f in self.lake.inventory() if f.kind == kind)
