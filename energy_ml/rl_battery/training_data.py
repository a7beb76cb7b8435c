"""The window that policies are trained on, as arrays per region.

What belongs here: cutting and aligning prices and forecasts, and the step that learning walks in. What doesn't:
learning from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.errors import ModelError, NoDataError
from energy_ml.rl_battery.battery import utc_days
from energy_ml.rl_battery.strategy import aligned_forecasts, known, last_known, region_series
from energy_ml.splits import TimeSplit, split_window

_STEP_MINUTES = 5
"""Learning walks in steps of at least so many: what energy is worth moves slowly."""
_HELD = 0.999
"""Prices are held if this part of their changes falls on the minutes of the longer interval."""


@dataclass(frozen=True, eq=False)
class TrainingSeries:
    """One region's train and validation rows.

    ``minutes``, ``days``, ``prices`` (N,) of all intervals: the prices that were paid, NaN where none was measured, and
    ``seen`` (N,), what a trader saw there. ``ahead`` (H, N): forecasts made then, one row per horizon. ``starts`` (B,):
    the intervals that learning walks over. ``train`` and ``train_starts``: how many intervals, and how many of
    ``starts``, belong to train.
    """

    region: str
    minutes: Integers
    days: Integers
    prices: Floats
    seen: Floats
    starts: Integers
    ahead: Floats
    train: int
    train_starts: int


@dataclass(frozen=True, eq=False)
class TrainingWindow:
    """All regions of a window. ``horizons`` are the forecasts (minutes) that all regions have."""

    series: list[TrainingSeries]
    horizons: tuple[int, ...]
    interval_minutes: int
    dispatch_minutes: int

    @property
    def hours(self) -> float:
        """Length of the step that learning walks in."""
        return self.dispatch_minutes / 60.0


def default_split(prices: pd.DataFrame) -> TimeSplit:
    """70/15/15 % of the frame's time. Raises NoDataError if it has fewer than two intervals."""
    times = pd.DatetimeIndex(np.sort(prices["timestamp"].unique()))
    if len(times) < 2:
        raise NoDataError("the price frame has fewer than two intervals", expected="several days")
    return split_window(times[0], times[-1] + (times[1] - times[0]))


def training_window(
    prices: pd.DataFrame, forecasts: pd.DataFrame | None, split: TimeSplit, price_col: str, delay: int
) -> TrainingWindow:
    """Cut train and validation out of long frames; test rows are left behind.

    Raises NoDataError (no region, or too little of it), ModelError (intervals that differ) and what
    ``strategy.region_series`` raises.
    """
    column = price_col if price_col in prices.columns else "real_time_price"
    names = sorted(prices["region"].astype(str).unique())
    if not names:
        raise NoDataError("the price frame is empty", expected="prices of at least one region")
    prices = prices.loc[(prices["timestamp"] >= split.start) & (prices["timestamp"] < split.val_end)]
    whole = {name: region_series(prices, name, price_col=column) for name in names}
    intervals = {interval for _, _, interval in whole.values()}
    if len(intervals) > 1:
        raise ModelError(f"regions have different intervals: {sorted(intervals)} minutes", expected="one interval")
    interval = intervals.pop()
    dispatch = interval if delay else max(_held_minutes(list(whole.values()), interval), _step(interval))
    columns = {name: aligned_forecasts(forecasts, name, times) for name, (times, _, _) in whole.items()}
    common = set.intersection(*(set(c) for c in columns.values()))
    horizons = tuple(sorted(common))
    series = []
    for name, (times, values, _) in whole.items():
        train = int((times < split.train_end).sum())
        to_train, to_validate = len(known(values[:train])), len(known(values[train:]))
        if to_train * interval < 1440 or to_validate * interval < 60:
            raise NoDataError(
                f"region {name!r} has {to_train * interval / 1440:.2f} days to train on and "
                f"{to_validate * interval / 60:.1f} hours to validate on",
                expected="at least one day and one hour",
                remedy="use a longer window",
            )
        minutes = np.asarray(times.hour * 60 + times.minute, dtype=np.int64)
        starts = np.arange(0, len(times), dispatch // interval)
        ahead = np.array([columns[name][h] for h in horizons]).reshape(len(horizons), len(times))
        series.append(
            TrainingSeries(
                name,
                minutes,
                utc_days(times),
                values,
                last_known(values),
                starts,
                ahead,
                train,
                int((starts < train).sum()),
            )
        )
    return TrainingWindow(series, horizons, interval, dispatch)


def _step(interval: int) -> int:
    return _STEP_MINUTES if _STEP_MINUTES % interval == 0 else interval


def _held_minutes(series: Sequence[tuple[pd.DatetimeIndex, Floats, int]], interval: int) -> int:
    """For how many minutes prices hold: 15 where five-minute data repeats prices of a quarter of an hour."""
    for minutes in (60, 30, 15):
        if minutes <= interval or minutes % interval:
            continue
        changes = np.concatenate(
            [np.asarray(times.minute)[1:][np.diff(last_known(prices)) != 0] for times, prices, _ in series]
        )
        if len(changes) and (changes % minutes == 0).mean() > _HELD:
            return minutes
    return interval
