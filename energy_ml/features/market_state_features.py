"""What state the market is in: how much it moves, when it last jumped, where the price stands in its day.

What belongs here: a region's own longer memory. What doesn't: plain lags and rolling windows (their own modules).

Everything looks back over a stated, finite number of intervals, so that a long enough tail gives the same numbers as
the whole history. Lengths are minutes here (``…m`` in the names) and are turned into intervals of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from energy_ml.arrays import ZERO, Floats, Floats32, Integers
from energy_ml.features.lag_features import read_only
from energy_ml.features.rolling_features import sum_windows, window_tree
from energy_ml.kernels import exchange, kernel, part

DAY_MINUTES = 1440
_VOL_MINUTES = (60, 180, DAY_MINUTES)
VOL_FLOOR = 0.1
"""Smallest volatility scale, currency/MWh: constant prices still give finite ratios."""
_ACTIVITY_MINUTES = (15, 60, 180, DAY_MINUTES)
_JUMP_MINUTES = (60, DAY_MINUTES)
_JUMP_SIZE = 4.0
"""A change beyond this many volatility scales (as known before it) is a jump."""
_DAY_QUANTILES = (0.05, 0.5, 0.95)
_DAY_KNOWN = 0.9
"""Share of a day's prices that must be there for its quantiles."""
_PROFILE_DAYS = 5
_PROFILE_SHARES = np.array([0.7**back for back in range(_PROFILE_DAYS)])


def steps_of(minutes: int, interval_minutes: int) -> int:
    """Intervals that make up ``minutes``, at least one."""
    return max(1, round(minutes / interval_minutes))


def _usable_horizons(horizons: Sequence[int], interval_minutes: int) -> list[int]:
    """Those of ``horizons`` (minutes) that the grid can tell apart and that lie within a day."""
    return [h for h in horizons if h % interval_minutes == 0 and h <= DAY_MINUTES]


@lru_cache(maxsize=64)
def market_state_columns(horizons: tuple[int, ...], interval_minutes: int) -> tuple[str, ...]:
    """Names of the columns, in the order of ``write_market_state``."""
    usable = _usable_horizons(horizons, interval_minutes)
    return (
        "vol",
        *(f"abs_change_mean_{minutes}m" for minutes in _ACTIVITY_MINUTES),
        *(f"jump_count_{minutes}m" for minutes in _JUMP_MINUTES),
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
    )


def market_state_history(interval_minutes: int) -> int:
    """Intervals (the current one included) on which the columns of a row depend."""
    day = steps_of(DAY_MINUTES, interval_minutes)
    # Jumps of the last day, each measured by the volatility of the day before it; the profile's oldest day.
    return max(2 * day + 3, _PROFILE_DAYS * day + 1)


@lru_cache(maxsize=64)
def _lengths(
    interval_minutes: int, horizons: tuple[int, ...]
) -> tuple[Integers, Integers, tuple[Integers, ...], Integers, Integers]:
    """Trees of the volatility's windows and of each window of activity, windows of jumps and horizons, in intervals."""

    def steps(minutes: Sequence[int]) -> tuple[int, ...]:
        return tuple(steps_of(length, interval_minutes) for length in minutes)

    activity = tuple(window_tree((window,))[0] for window in steps(_ACTIVITY_MINUTES))
    usable = steps(_usable_horizons(horizons, interval_minutes))
    jumps = np.array(steps(_JUMP_MINUTES), dtype=np.int64)
    return *window_tree(steps(_VOL_MINUTES)), activity, jumps, np.array(usable, dtype=np.int64)


def write_market_state(
    values: Floats, interval_minutes: int, horizons: Sequence[int], out: Floats32, first: int = 0
) -> None:
    """Write the columns of ``market_state_columns``; ``values`` (T, R) float64, ``out`` (columns, T - first, R)."""
    day = steps_of(DAY_MINUTES, interval_minutes)
    whole = max(first, day - 1)
    ordered = np.empty((values.shape[1], day))
    if whole < len(values):
        # Sorted by numpy, whose vectorised sort is several times faster than a compiled loop; NaN comes last.
        ordered = np.sort(np.ascontiguousarray(values[whole - day + 1 : whole + 1].T), axis=1)
    lengths = _lengths(interval_minutes, tuple(horizons))
    _write(read_only(values), interval_minutes, first, ordered, *lengths, out)


@kernel
def _write(
    values: Floats,
    interval_minutes: int,
    first: int,
    ordered: Floats,
    vol_tree: Integers,
    vol_ends: Integers,
    activity: tuple[Integers, ...],
    jump_windows: Integers,
    horizons: Integers,
    out: Floats32,
) -> None:
    """``ordered`` (R, day): the prices of the first whole day that is asked for, ascending."""
    day = ordered.shape[1]
    # The day's jumps need the volatility of the day before them; older rows change nothing.
    begin = max(first - (2 * day + 2), 0)
    n, at = len(values) - begin, first - begin
    price, size, vol = np.empty(n), np.empty(n), np.empty(n)
    deepest = len(vol_tree)
    for tree in activity:
        deepest = max(deepest, len(tree))
    nodes = np.empty((deepest + 1, n))
    for r in range(values.shape[1]):
        for i in range(n):
            price[i] = values[begin + i, r]
            size[i] = abs(price[i] - price[i - 1]) if i > 0 else np.nan
        _volatility(size, price, max(at - day - 1, 0), vol_tree, vol_ends, nodes, vol)
        for i in range(at, n):
            out[0, i - at, r] = vol[i]
        column = 1
        for i in range(n):  # a slice would compile how its error is worded: a second
            nodes[0, i] = size[i]
        for tree in activity:
            steps = tree[-1, 0] if len(tree) else 1
            sum_windows(nodes, tree, max(at - steps + 1, 0), np.nan)
            for i in range(at, n):
                out[column, i - at, r] = nodes[len(tree), i] / steps
            column += 1
        _moves(price, size, vol, at, begin, day, interval_minutes, jump_windows, out[column:, :, r])
        column += len(jump_windows) + 3
        _in_day(price, at, max(day - 1 - begin, at), ordered[r], out[column:, :, r])
        _by_days(values[:, r], first, day, horizons, out[column + 3 :, :, r])


@part
def _volatility(
    size: Floats, price: Floats, start: int, tree: Integers, ends: Integers, nodes: Floats, vol: Floats
) -> None:
    """Local scale of one-interval changes, currency/MWh, never below ``VOL_FLOOR``, from ``start`` on into ``vol``.

    The mean over the windows of sqrt(mean|change|), squared: averaging in square roots keeps one spike in the short
    window from ruling it, and it is homogeneous in the price. On five Australian regions (December 2024 to February
    2025) it explained the size of the next 5 to 60 minutes' changes best of some thirty such scales (Laplace score).
    Uses the changes that are known, also fewer than a window, as models divide by it; NaN where the price is.
    """
    counted = np.zeros(len(size) + 1)
    for i in range(len(size)):
        known = size[i] == size[i]
        nodes[0, i] = size[i] if known else 0.0
        counted[i + 1] = counted[i] + known
    sum_windows(nodes, tree, ZERO, 0.0)
    for i in range(start, len(size)):
        root = 0.0
        for k in range(len(ends)):
            changes = counted[i + 1] - counted[max(i + 1 - ends[k, 0], 0)]
            root += math.sqrt(nodes[ends[k, 1], i] / max(changes, 1.0))
        root /= len(ends)
        vol[i] = max(root * root, VOL_FLOOR) if price[i] == price[i] else np.nan


@part
def _moves(
    price: Floats,
    size: Floats,
    vol: Floats,
    at: int,
    begin: int,
    day: int,
    interval_minutes: int,
    jump_windows: Integers,
    out: Floats32,
) -> None:
    """Jump counts, minutes since the last change, that change, minutes since the last jump; rows from ``at`` on."""
    changed, jumped, column = -1, -1, len(jump_windows)
    jumps, unknown = np.zeros(len(price) + 1), np.zeros(len(price) + 1)
    for i in range(max(at - day, 0), len(price)):
        before = vol[i - 1] if i > 0 else np.nan
        jump = size[i] > _JUMP_SIZE * before
        jumps[i + 1] = jumps[i] + jump
        unknown[i + 1] = unknown[i] + (size[i] != size[i] or before != before)
        jumped = i if jump else jumped
        changed = i if size[i] > 0 else changed
        if i < at:
            continue
        for k in range(len(jump_windows)):
            since = i + 1 - jump_windows[k]
            whole = since >= 0 and unknown[i + 1] == unknown[since]
            out[k, i - at] = jumps[i + 1] - jumps[since] if whole else np.nan
        young = begin + i < day
        change = _since(price[i], i, changed, day, young)
        out[column, i - at] = change * interval_minutes
        last = price[changed] - price[changed - 1] if change == change else np.nan
        out[column + 1, i - at] = 0.0 if change == day else last
        out[column + 2, i - at] = _since(price[i], i, jumped, day, young) * interval_minutes


@part
def _since(price: float, i: int, last: int, day: int, young: bool) -> float:
    """Intervals since the last event, at most a day; NaN where the price is unknown, or where no event (-1) is known
    and history is too young to say that there was none."""
    return np.nan if price != price or (last < 0 and young) else float(min(i - last, day))


@part
def _in_day(price: Floats, at: int, whole: int, ordered: Floats, out: Floats32) -> None:
    """Where each price from ``at`` on stands among those of its day, which are ``ordered`` (day,) at ``whole``, where
    the first day is whole."""
    day, known = len(ordered), ZERO
    for number in ordered:
        known += number == number
    for i in range(at, len(price)):
        if i > whole:
            known = exchange(ordered, known, price[i - day], price[i])
        low, middle, high, now = np.nan, np.nan, np.nan, price[i]
        if i >= whole and known >= math.ceil(_DAY_KNOWN * day):
            low = _order_statistic(ordered, known, _DAY_QUANTILES[0])
            middle = _order_statistic(ordered, known, _DAY_QUANTILES[1])
            high = _order_statistic(ordered, known, _DAY_QUANTILES[2])
        position = (now - low) / (high - low)
        if high == low and now == middle:  # a day of one price has no width; the price then stands in its middle
            position = 0.5
        out[0, i - at] = min(max(position, -5.0), 6.0) if position == position else np.nan
        out[1, i - at], out[2, i - at] = high - low, now - middle


@part
def _order_statistic(ordered: Floats, known: int, share: float) -> float:
    """Quantile of ``known`` ascending numbers, linear between them as pandas has it."""
    place = share * (known - 1)
    below = int(place)
    if below == place:
        return float(ordered[below])
    return float(ordered[below] + (ordered[below + 1] - ordered[below]) * (place - below))


@part
def _by_days(price: Floats, first: int, day: int, horizons: Integers, out: Floats32) -> None:
    """Distances from yesterday's price and from the usual one of the time of day, and where those went from there."""
    ahead = 0
    for steps in horizons:
        ahead = max(ahead, steps)
    usual, column = np.empty(len(price) - first + ahead), 1 + len(horizons)
    for i in range(len(usual)):
        usual[i] = _profile(price, first + i, day)
    for t in range(first, len(price)):
        i, yesterday = t - first, price[t - day] if t >= day else np.nan
        out[0, i], out[column, i] = price[t] - yesterday, price[t] - usual[i]
        for k in range(len(horizons)):
            then = t - day + horizons[k]
            out[1 + k, i] = (price[then] if then >= 0 else np.nan) - yesterday
            out[column + 1 + k, i] = usual[i + horizons[k]] - usual[i]


@part
def _profile(price: Floats, row: int, day: int) -> float:
    """Mean price at the same time of the last days, weights decaying by the day, at a ``row`` at most a day ahead; NaN
    if none of ``_PROFILE_DAYS`` is known."""
    total, weight = 0.0, 0.0
    for back in range(_PROFILE_DAYS):
        then = row - (back + 1) * day
        if then < 0:
            break
        if price[then] == price[then]:
            total += _PROFILE_SHARES[back] * price[then]
            weight += _PROFILE_SHARES[back]
    return total / weight if weight > 0 else np.nan
