"""The data of one as-of date: its training window, whole and clean, with warm-up before it where the files have any.

What belongs here: putting lake and cleaning together for a window. What doesn't: features, models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from energy_ml.errors import NoDataError
from energy_ml.market_data.cleaning import DataProblem, clean_prices
from energy_ml.market_data.lake import ParquetLake


@dataclass(frozen=True)
class PriceWindow:
    """Clean long prices of [start - warm-up, end), their interval, what was found wrong, and a digest of the window."""

    prices: pd.DataFrame
    start: pd.Timestamp
    end: pd.Timestamp
    interval_minutes: int
    problems: list[DataProblem]
    fingerprint: str

    @property
    def in_window(self) -> pd.Series:
        """Boolean mask of the rows inside [start, end); the others are warm-up."""
        return self.prices["timestamp"] >= self.start


def read_price_window(
    lake: ParquetLake,
    start: pd.Timestamp,
    end: pd.Timestamp,
    *,
    warmup_minutes: int = 0,
    regions: Sequence[str] | None = None,
    extra_columns: Sequence[str] = (),
    max_gap_minutes: int = 30,
) -> PriceWindow:
    """Read and clean [start, end), which must be whole, and up to ``warmup_minutes`` before it, which need not exist.

    Raises the DataErrors of the lake and of ``clean_prices``.
    """
    cleaned = clean_prices(
        lake.read_prices(
            start - pd.Timedelta(minutes=warmup_minutes), end, regions=regions, columns=list(extra_columns)
        ),
        start=start,
        end=end,
        max_gap_minutes=max_gap_minutes,
        regions=regions,
        warmup_minutes=warmup_minutes,
    )
    inside = cleaned.frame["timestamp"] >= start
    return PriceWindow(
        prices=cleaned.frame,
        start=start,
        end=end,
        interval_minutes=cleaned.interval_minutes,
        problems=cleaned.problems,
        fingerprint=fingerprint_of(cleaned.frame[inside]),
    )


def fingerprint_of(prices: pd.DataFrame) -> str:
    """SHA-256 of a clean long frame's contents: equal rows give equal digests, wherever they came from."""
    digest = hashlib.sha256()
    for name in sorted(prices.columns):
        digest.update(name.encode())
        digest.update(pd.util.hash_pandas_object(prices[name], index=False).to_numpy().tobytes())
    return digest.hexdigest()


def read_recent_prices(
    lake: ParquetLake,
    *,
    minutes: int = 2 * 1440,
    until: pd.Timestamp | None = None,
    regions: Sequence[str] | None = None,
    max_gap_minutes: int = 30,
) -> pd.DataFrame:
    """Clean long prices of the last ``minutes`` in the files (or before ``until``): what a predictor is asked with.

    Regions that stop earlier than the others keep NaN at their end. Raises NoDataError where there are no prices, and
    the DataErrors of ``clean_prices``.
    """
    last = [info.last for info in lake.inventory() if info.kind == "prices" and info.last is not None]
    if not last:
        raise NoDataError(
            "there are no price files", file=lake.root, remedy="put parquet files there, or simulate some"
        )
    end = min(max(last) + pd.Timedelta(minutes=1), until or pd.Timestamp.max.tz_localize("UTC"))
    start = end - pd.Timedelta(minutes=minutes)
    return clean_prices(
        lake.read_prices(start, end, regions=regions),
        regions=regions,
        max_gap_minutes=max_gap_minutes,
        partial_regions="keep",
    ).frame
