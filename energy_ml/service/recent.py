"""The newest prices and charges of the lake, kept until the files change.

What belongs here: which window is read, cleaning it, noticing new files. What doesn't: forecasting from it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from energy_ml.errors import NoDataError
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.telemetry import rated_power
from energy_ml.names import BATTERY_ID, POWER, RATED_POWER, TIMESTAMP

_LOOK_SECONDS = 1.0
_MARGIN = pd.Timedelta(hours=1)
_RATING_SPAN = pd.Timedelta(days=10)
"""As long as the usual training window, so that ratings are those of the report."""


@dataclass(frozen=True, eq=False)
class RecentPrices:
    """Clean long prices up to ``newest`` (UTC), their interval, and the regions that have a price there."""

    frame: pd.DataFrame
    newest: pd.Timestamp
    interval_minutes: int
    regions: tuple[str, ...]


class RecentMarket:
    """The end of the lake, for many threads."""

    def __init__(
        self,
        lake: ParquetLake,
        regions: Sequence[str] | None = None,
        *,
        clock: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now("UTC"),
    ) -> None:
        self.lake = lake
        self._clock = clock
        self._regions = regions
        self._lock = threading.Lock()
        self._looked = -math.inf
        self._key: tuple[object, ...] | None = None
        self._prices: RecentPrices | None = None
        self._batteries: tuple[object, pd.DataFrame] | None = None

    def prices(self, minutes: int) -> RecentPrices:
        """The last ``minutes`` of prices. Looks for new files at most once a second. Raises the lake's DataErrors."""
        with self._lock:
            fresh = time.monotonic() - self._looked < _LOOK_SECONDS
            if self._prices is None or self._key is None or not fresh or self._key[0] != minutes:
                key = (minutes, *self._marks("prices"))
                if key != self._key:
                    self._prices = self.until(None, minutes)
                    self._key = key
                self._looked = time.monotonic()
            assert self._prices is not None
            return self._prices

    def until(self, end: pd.Timestamp | None, minutes: int) -> RecentPrices:
        """``minutes`` of prices up to and including ``end``, or to the newest. Raises the lake's DataErrors."""
        files = [f for f in self.lake.inventory() if f.kind == "prices" and f.last is not None and not f.problem]
        newest = max((f.last for f in files if f.last is not None), default=None)
        if newest is None:
            raise NoDataError(
                "there are no prices",
                file=self.lake.root,
                remedy="put parquet files there, or send prices with the request",
            )
        # The interval's start at `end` belongs to the window; half-open windows therefore end a moment later. Prices of
        # the time to come, published ahead, aren't the present one.
        last = min(newest, self._clock() if end is None else end)
        stop = last + pd.Timedelta(nanoseconds=1)
        start = last - pd.Timedelta(minutes=minutes)
        frame = self.lake.read_prices(start, stop, regions=self._regions)
        if not len(frame):
            raise NoDataError(
                f"there are no prices in the {minutes} minutes before {last}",
                file=self.lake.root,
                expected=f"prices up to {newest}",
                remedy="ask for a time that the files cover",
            )
        cleaned = clean_prices(frame)
        return _recent(cleaned.frame, cleaned.interval_minutes)

    def batteries(self) -> pd.DataFrame:
        """The newest row of each battery of the telemetry; empty if there is none."""
        with self._lock:
            marks = self._marks("batteries")
            if self._batteries is None or self._batteries[0] != marks:
                lasts = [f.last for f in self.lake.inventory() if f.kind == "batteries" and f.last is not None]
                if not lasts:
                    return pd.DataFrame()
                last = max(lasts)
                frame = self.lake.read_batteries(last - _RATING_SPAN, last + pd.Timedelta(nanoseconds=1))
                frame = frame.sort_values(TIMESTAMP)
                newest = frame[frame[TIMESTAMP] >= last - _MARGIN].groupby(BATTERY_ID, sort=True).tail(1)
                # The same rule as in the backtest, so that page and report advise the same power.
                rated = {
                    name: rated_power(rows.get(POWER), rows.get(RATED_POWER))
                    for name, rows in frame.groupby(BATTERY_ID, sort=False)
                }
                newest = newest.assign(**{RATED_POWER: newest[BATTERY_ID].map(rated).astype("float64")})
                self._batteries = (marks, newest.sort_values(BATTERY_ID, ignore_index=True))
            return self._batteries[1]

    def _marks(self, kind: str) -> tuple[str, ...]:
        return tuple(f.fingerprint for f in self.lake.inventory() if f.kind == kind)


def _recent(frame: pd.DataFrame, interval: int) -> RecentPrices:
    stamps = pd.DatetimeIndex(frame["timestamp"])
    priced = np.isfinite(frame["real_time_price"].to_numpy(dtype=np.float64))
    newest = stamps[priced].max()
    frame = frame[np.asarray(stamps <= newest)].reset_index(drop=True)
    at = frame[(frame["timestamp"] == newest) & frame["real_time_price"].notna()]
    return RecentPrices(frame, newest, interval, tuple(str(r) for r in at["region"]))
