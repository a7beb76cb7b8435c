"""Calendar columns of an instant, in UTC.

What belongs here: functions of the timestamp alone. What doesn't: holidays, local time, anything that needs a price.
"""

from __future__ import annotations

import numpy as np

from energy_ml.arrays import Floats32, Integers
from energy_ml.features.panel import NS_PER_MINUTE
from energy_ml.kernels import kernel

_MINUTES_PER_DAY = 1440
_DISPATCH_MINUTES = 5
"""Length of a dispatch interval in most real-time markets: prices on a 1-minute grid move on its boundaries."""

TIME_COLUMNS = (
    "hour",
    "minute_of_day",
    "minute_in_hour",
    "minute_in_half_hour",
    "minute_in_dispatch",
    "day_of_week",
    "is_weekend",
    "day_sin",
    "day_cos",
    "half_day_sin",
    "half_day_cos",
    "week_sin",
    "week_cos",
)


def _tables() -> Floats32:
    """(columns, minutes of a week from Monday 00:00 UTC): looked up rather than computed row by row."""
    minute = np.arange(7 * _MINUTES_PER_DAY)
    of_day, day = minute % _MINUTES_PER_DAY, minute // _MINUTES_PER_DAY
    angle = 2 * np.pi * of_day / _MINUTES_PER_DAY
    week = 2 * np.pi * minute / len(minute)
    columns = [
        of_day // 60,
        of_day,
        of_day % 60,
        of_day % 30,
        of_day % _DISPATCH_MINUTES,
        day,
        day >= 5,
        np.sin(angle),
        np.cos(angle),
        np.sin(2 * angle),
        np.cos(2 * angle),
        np.sin(week),
        np.cos(week),
    ]
    return np.stack([np.asarray(column, dtype=np.float32) for column in columns])


_TABLES = _tables()


def write_time(times_ns: Integers, out: Floats32) -> None:
    """Calendar columns of ``times_ns`` (T,), ns since 1970 UTC; ``out`` (len(TIME_COLUMNS), T, R)."""
    # 1970-01-01 was a Thursday: three days after a Monday.
    _look_up((times_ns // NS_PER_MINUTE + 3 * _MINUTES_PER_DAY) % _TABLES.shape[1], _TABLES, out)


@kernel
def _look_up(minutes: Integers, tables: Floats32, out: Floats32) -> None:
    for column in range(len(tables)):
        for t in range(len(minutes)):
            out[column, t] = tables[column, minutes[t]]
