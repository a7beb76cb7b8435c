"""What markets say of times to come, beside their prices: files of kind ``forecasts`` for covariates.

What belongs here: what a feed is, and when rows were known whose source doesn't tell. What doesn't: any market.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from energy_ml.markets.session import MarketSession

Fetch = Callable[[pd.Timestamp, pd.Timestamp, Sequence[str], MarketSession], pd.DataFrame]
"""``fetch(start_utc, end_utc, regions, session)``: rows of [start, end) as the contract of their kind has them (UTC),
in any order; without what the source doesn't have."""


@dataclass(frozen=True)
class Feed:
    """One of them: ``columns`` of numbers, each value of ``minutes``, and in words when it is ``available``."""

    name: str
    columns: tuple[str, ...]
    minutes: int
    available: str
    fetch: Fetch


def day_before(times: pd.Series, zone: str, hour: int) -> pd.Series:
    """The local ``hour`` of the day before that of each of ``times`` (UTC), where markets publish by the clock."""
    days = times.dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
    known = days - pd.Timedelta(days=1) + pd.Timedelta(hours=hour)
    return known.dt.tz_localize(zone).dt.tz_convert("UTC")
