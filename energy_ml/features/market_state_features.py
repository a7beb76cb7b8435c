"""What state the market is in: how much it moves, when it last jumped, where the price stands in its day.

What belongs here: a region's own longer memory. What doesn't: plain lags and rolling windows (their own modules).

Everything looks back over a stated, finite number of intervals, so that a long enough tail gives the same numbers as
the whole history. Lengths are minutes here (``…m`` in the names) and are turned into intervals of the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from energy_ml.arrays import Booleans, Floats, Floats32, Integers
from energy_ml.features.lag_features import lagged
from energy_ml.features.rolling_features import rolling_sum

DAY_MINUTES = 1440
VOL_MINUTES = (60, 180, DAY_MINUTES)
VOL_FLOOR = 0.1
"""Smallest volatility scale, currency/MWh: constant prices still give finite ratios."""
ACTIVITY_MINUTES = (15, 60, 180, DAY_MINUTES)
JUMP_MINUTES = (60, DAY_MINUTES)
JUMP_SIZE = 4.0
"""A change beyond this many volatility scales (as known before it) is a jump."""
DAY_QUANTILES = (0.05, 0.5, 0.95)
DAY_KNOWN = 0.9
"""Share of a day's prices that must be there for its quantiles."""
PROFILE_DAYS = 5
PROFILE_DECAY = 0.7


def steps_of(minutes: int, interval_minutes: int) -> int:
    """Intervals that make up ``minutes``, at least one."""
    return max(1, round(minutes / interval_minutes))


def usable_horizons(horizons: Sequence[int], interval_minutes: int) -> list[int]:
    """Those of ``horizons`` (minutes) that the grid can tell apart and that lie within a day."""
    return [h for h in horizons if h % interval_minutes == 0 and h <= DAY_MINUTES]


def market_state_columns(horizons: Sequence[int], interval_minutes: int) -> list[str]:
    """Names of the columns, in the order of ``write_market_state``."""
    usable = usable_horizons(horizons, interval_minutes)
    return [
        "vol",
        *(f"abs_change_mean_{minutes}m" for minutes in ACTIVITY_MINUTES),
        *(f"jump_count_{minutes}m" for minutes in JUMP_MINUTES),
        "minutes_since_change",
        "last_change",
        "minutes_since_jump",
        "day_position",
        "day_range",
        "dist_day_median",
        "dist_yesterday",
        *(f"yesterday_move_{h}m" for h in usable),
        "dist_profile",
        *(f"profile_move_{h}m" for h in usable),
    ]


def market_state_history(interval_minutes: int) -> int:
    """Intervals (the current one included) on which the columns of a row depend."""
    day = steps_of(DAY_MINUTES, interval_minutes)
    # Jumps of the last day, each measured by the volatility of the day before it; the profile's oldest day.
    return max(2 * day + 3, PROFILE_DAYS * day + 1)


def write_market_state(
    values: Floats, interval_minutes: int, horizons: Sequence[int], out: Floats32, first: int = 0
) -> None:
    """Write the columns of ``market_state_columns``; ``values`` (T, R) float64, ``out`` (columns, T - first, R)."""
    columns = iter(out)
    day = steps_of(DAY_MINUTES, interval_minutes)
    change = values - lagged(values, 1)
    size = np.abs(change)

    vol = volatility(size, values, [steps_of(minutes, interval_minutes) for minutes in VOL_MINUTES])
    next(columns)[:] = vol[first:]
    for steps in (steps_of(minutes, interval_minutes) for minutes in ACTIVITY_MINUTES):
        np.divide(rolling_sum(size, [steps])[steps][first:], steps, out=next(columns), casting="same_kind")

    before = lagged(vol, 1)
    jumped = size > JUMP_SIZE * before
    jumps = np.where(np.isnan(size) | np.isnan(before), np.nan, jumped)
    for steps in (steps_of(minutes, interval_minutes) for minutes in JUMP_MINUTES):
        next(columns)[:] = rolling_sum(jumps, [steps])[steps][first:]

    since, last = _since(size > 0, day, values)
    np.multiply(since[first:], interval_minutes, out=next(columns), casting="same_kind")
    moved = np.take_along_axis(change, np.maximum(last, 0), axis=0)
    moved[since >= day] = 0.0
    moved[np.isnan(since)] = np.nan
    next(columns)[:] = moved[first:]
    since, _ = _since(jumped, day, values)
    np.multiply(since[first:], interval_minutes, out=next(columns), casting="same_kind")

    low, middle, high = _day_quantiles(values, day, first)
    width = high - low
    now = values[first:]
    with np.errstate(invalid="ignore", divide="ignore"):
        position = (now - low) / width
    # A day of one price has no width; the price then stands in its middle.
    position[(width == 0) & (now == middle)] = 0.5
    np.clip(position, -5.0, 6.0, out=position)
    next(columns)[:] = position
    next(columns)[:] = width
    np.subtract(now, middle, out=next(columns), casting="same_kind")

    usable = [steps_of(h, interval_minutes) for h in usable_horizons(horizons, interval_minutes)]
    yesterday = lagged(values, day, first)
    np.subtract(now, yesterday, out=next(columns), casting="same_kind")
    for steps in usable:
        np.subtract(lagged(values, day - steps, first), yesterday, out=next(columns), casting="same_kind")
    profile = day_profile(values, day, max(usable, default=0))
    n_times = len(values)
    np.subtract(now, profile[first:n_times], out=next(columns), casting="same_kind")
    for steps in usable:
        then = profile[first + steps : n_times + steps]
        np.subtract(then, profile[first:n_times], out=next(columns), casting="same_kind")


def volatility(size: Floats, values: Floats, windows: Sequence[int]) -> Floats:
    """Local scale of one-interval changes, currency/MWh, never below ``VOL_FLOOR``; (T, R).

    The mean over the windows of sqrt(mean|change|), squared: averaging in square roots keeps one spike in the short
    window from ruling it, and it is homogeneous in the price. On five Australian regions (December 2024 to February
    2025) it explained the size of the next 5 to 60 minutes' changes best of some thirty such scales (Laplace score).
    Uses the changes that are known, also fewer than a window, as models divide by it; NaN where the price is.
    """
    unknown = np.isnan(size)
    sums = rolling_sum(np.where(unknown, 0.0, size), windows, before=0.0)
    known = rolling_sum((~unknown).astype(np.float64), windows, before=0.0)
    root = np.zeros_like(size)
    for window in windows:
        root += np.sqrt(sums[window] / np.maximum(known[window], 1.0))
    root /= len(windows)
    vol = np.maximum(root * root, VOL_FLOOR)
    vol[np.isnan(values)] = np.nan
    return vol


def _since(event: Booleans, cap: int, values: Floats) -> tuple[Floats, Integers]:
    """Intervals since the last event, at most ``cap``, and its row (-1: none).

    NaN where no event is known and history is too short to say that there was none; NaN where the price is.
    """
    row = np.arange(len(event))[:, None]
    last = np.maximum.accumulate(np.where(event, row, -1), axis=0)
    since = np.minimum(row - last, cap).astype(np.float64)
    since[(last < 0) & (row < cap)] = np.nan
    since[np.isnan(values)] = np.nan
    return since, last


def day_profile(values: Floats, day: int, ahead: int) -> Floats:
    """Mean price at the same time of the last days, weights decaying by the day; (T + ahead, R).

    Row s averages rows s - day, s - 2 day, … (those known of ``PROFILE_DAYS``); NaN if none is. ``ahead`` <= day, so
    even the last rows use only known prices.
    """
    n_times = len(values)
    total = np.zeros((n_times + ahead, values.shape[1]))
    weight = np.zeros_like(total)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    for back in range(1, PROFILE_DAYS + 1):
        start = back * day
        if start >= len(total):
            break
        stop = min(n_times, len(total) - start)
        share = PROFILE_DECAY ** (back - 1)
        total[start : start + stop] += share * filled[:stop]
        weight[start : start + stop] += share * known[:stop]
    weight[weight == 0] = np.nan
    return total / weight


def _day_quantiles(values: Floats, day: int, first: int = 0) -> Floats:
    """5, 50 and 95 % quantiles of the last ``day`` intervals; (3, T - first, R), linear between order statistics.

    Order statistics don't depend on how the window slid here, so pandas's skip list is exact from any start.
    """
    start = max(first - day + 1, 0)
    rolling = pd.DataFrame(values[start:]).rolling(day, min_periods=int(np.ceil(DAY_KNOWN * day)))
    out = np.stack([rolling.quantile(share).to_numpy()[first - start :] for share in DAY_QUANTILES])
    out[:, : max(day - 1 - first, 0)] = np.nan
    return out
