"""All price features of the newest instant alone, compiled: what a live forecast needs, in microseconds.

What belongs here: the last row's arithmetic. What doesn't: what a feature means; the modules of the families say that
and compute whole histories.

Every number is combined in the order in which the families' modules combine it, so that both agree bit for bit (the
tests compare them on random markets). numpy's calls cost a microsecond each however little they do, and the families
make some 600 of them; hence a second, compiled path for one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from energy_ml.arrays import Booleans, Floats, Floats32, Integers
from energy_ml.features.market_state_features import (
    ACTIVITY_MINUTES,
    DAY_KNOWN,
    DAY_MINUTES,
    DAY_QUANTILES,
    JUMP_MINUTES,
    JUMP_SIZE,
    PROFILE_DAYS,
    PROFILE_DECAY,
    VOL_FLOOR,
    VOL_MINUTES,
    steps_of,
    usable_horizons,
)
from energy_ml.features.neighbours import Compared
from energy_ml.features.panel import NS_PER_MINUTE
from energy_ml.features.regional_features import MOVE_STEPS, NEAREST_MINUTES
from energy_ml.features.rolling_features import plan_windows
from energy_ml.features.time_features import MINUTES_PER_DAY, TABLES
from energy_ml.kernels import kernel, part

_MOVE_STEPS = np.array(MOVE_STEPS, dtype=np.int64)
_SHARES = np.array([PROFILE_DECAY**back for back in range(PROFILE_DAYS)])


@dataclass(frozen=True)
class NewestRowPlan:
    """Everything about one set of features and one interval that doesn't depend on prices."""

    lags: Integers
    changes: Integers
    tree: Integers
    """(steps, 5) of the rolling windows: window, a, b, node of a, node of b; node 0 is the price itself."""
    tree_shares: Floats
    """(steps, 2): b / window and a * b / window."""
    windows: Integers
    """(windows, 2): length and node."""
    include: Booleans
    """Time, regional, market state."""
    day: int
    interval_minutes: int
    vol_tree: Integers
    """(steps, 3): a, node of a, node of b; node 0 is the size of the change."""
    vol_windows: Integers
    """(windows, 2): length and node."""
    activity: tuple[Integers, ...]
    """Each the order in which a window is summed, see ``summing_order``."""
    jump_windows: Integers
    horizons: Integers
    """In intervals."""
    nearest: Integers
    """Summing order of the window over which regions are compared."""

    @classmethod
    def make(
        cls,
        lags: Sequence[int],
        windows: Sequence[int],
        changes: Sequence[int],
        horizons: Sequence[int],
        interval_minutes: int,
        *,
        include_time: bool,
        include_regional: bool,
        include_market_state: bool,
    ) -> NewestRowPlan:
        """Lags, windows and changes in intervals, horizons in minutes, as in ``PriceFeatureSpec``."""
        steps, node = _nodes(windows)
        tree = [(window, a, b, node[a], node[b]) for window, a, b in steps]
        vol_lengths = [steps_of(minutes, interval_minutes) for minutes in VOL_MINUTES]
        vol_steps, vol_node = _nodes(vol_lengths)
        return cls(
            lags=_ints(lags),
            changes=_ints(changes),
            tree=_ints(tree).reshape(-1, 5),
            tree_shares=np.array([(b / w, a * b / w) for w, a, b in steps], dtype=np.float64).reshape(-1, 2),
            windows=_ints([(window, node[window]) for window in windows]).reshape(-1, 2),
            include=np.array([include_time, include_regional, include_market_state]),
            day=steps_of(DAY_MINUTES, interval_minutes),
            interval_minutes=interval_minutes,
            vol_tree=_ints([(a, vol_node[a], vol_node[b]) for _, a, b in vol_steps]).reshape(-1, 3),
            vol_windows=_ints([(window, vol_node[window]) for window in vol_lengths]),
            activity=tuple(summing_order(steps_of(minutes, interval_minutes)) for minutes in ACTIVITY_MINUTES),
            jump_windows=_ints([steps_of(minutes, interval_minutes) for minutes in JUMP_MINUTES]),
            horizons=_ints([steps_of(h, interval_minutes) for h in usable_horizons(horizons, interval_minutes)]),
            nearest=summing_order(steps_of(NEAREST_MINUTES, interval_minutes)),
        )


def _nodes(windows: Sequence[int]) -> tuple[list[tuple[int, int, int]], dict[int, int]]:
    steps = plan_windows(windows)
    return steps, {1: 0} | {window: place + 1 for place, (window, _, _) in enumerate(steps)}


def _ints(values: Sequence[object]) -> Integers:
    return np.array(list(values), dtype=np.int64)


def summing_order(window: int) -> Integers:
    """How ``rolling_sum`` adds up one window: (window,) additions of the two newest partial sums that follow each
    value, values taken newest first."""
    halves = {length: (a, b) for length, a, b in plan_windows([window])}

    def additions(length: int) -> list[int]:
        if length == 1:
            return [0]
        a, b = halves[length]
        counts = additions(a) + additions(b)
        counts[-1] += 1
        return counts

    return _ints(additions(window))


def newest_row(
    values: Floats,
    time_ns: int,
    plan: NewestRowPlan,
    compared: Compared,
    reference: int | None,
    out: Floats32,
) -> None:
    """Features of the last row of ``values`` (T, R), which starts at ``time_ns``.

    ``compared`` and ``reference`` as in ``write_regional``; ``out`` (F, R) takes the columns in the order of
    ``feature_names`` without the extra ones.
    """
    day, n_times = plan.day, len(values)
    # Prices of frames are read-only, others not: one of the two types is enough to compile.
    values = values.view()
    values.flags.writeable = False
    ordered = np.empty((values.shape[1], 0))
    if plan.include[2] and n_times >= day:
        # Sorted by numpy, whose vectorised sort is several times faster than a compiled loop; NaN comes last.
        ordered = np.sort(np.ascontiguousarray(values[n_times - day :].T), axis=1)
    _newest_row(
        values,
        time_ns,
        plan.lags,
        plan.changes,
        plan.tree,
        plan.tree_shares,
        plan.windows,
        plan.include,
        day,
        plan.interval_minutes,
        plan.vol_tree,
        plan.vol_windows,
        plan.activity,
        plan.jump_windows,
        plan.horizons,
        plan.nearest,
        compared.peers,
        compared.order,
        compared.bounds,
        compared.candidates,
        -1 if reference is None else reference,
        ordered,
        TABLES,
        out,
    )


@kernel
def _newest_row(
    values: Floats,
    time_ns: int,
    lags: Integers,
    changes: Integers,
    tree: Integers,
    tree_shares: Floats,
    windows: Integers,
    include: Booleans,
    day: int,
    interval_minutes: int,
    vol_tree: Integers,
    vol_windows: Integers,
    activity: tuple[Integers, ...],
    jump_windows: Integers,
    horizons: Integers,
    nearest: Integers,
    peers: Booleans,
    zones: Integers,
    bounds: Integers,
    candidates: Integers,
    reference: int,
    ordered: Floats,
    tables: Floats32,
    out: Floats32,
) -> None:
    n_regions = values.shape[1]
    t = values.shape[0] - 1
    for r in range(n_regions):
        out[0, r] = values[t, r]
    column = 1
    for lag in lags:
        for r in range(n_regions):
            out[column, r] = _at(values, t - lag, r)
        column += 1
    rolling = column
    column += 4 * windows.shape[0]
    if include[0]:
        minute = (time_ns // NS_PER_MINUTE + 3 * MINUTES_PER_DAY) % tables.shape[1]
        for table in range(tables.shape[0]):
            for r in range(n_regions):
                out[column, r] = tables[table, minute]
            column += 1
    if include[1]:
        _regional(values, peers, zones, bounds, reference, out, column)
        column += 4 + 3 * len(_MOVE_STEPS)
    distances = -1
    if include[2]:
        for lag in changes:
            for r in range(n_regions):
                out[column, r] = values[t, r] - _at(values, t - lag, r)
            column += 1
        distances = column
        column += 3 * windows.shape[0]
        column = _market_state(
            values,
            day,
            interval_minutes,
            vol_tree,
            vol_windows,
            activity,
            jump_windows,
            horizons,
            ordered,
            out,
            column,
        )
        if include[1]:
            _nearest(values, candidates, nearest, out, column)
    _rolling(values, tree, tree_shares, windows, out, rolling, distances)


@part
def _at(values: Floats, row: int, region: int) -> float:
    return values[row, region] if row >= 0 else np.nan


@part
def _low(a: float, b: float) -> float:
    if a != a or b != b:
        return np.nan
    return a if a <= b else b


@part
def _high(a: float, b: float) -> float:
    if a != a or b != b:
        return np.nan
    return a if a >= b else b


@part
def _known_low(a: float, b: float) -> float:
    return b if a != a else a if b != b or a <= b else b


@part
def _known_high(a: float, b: float) -> float:
    return b if a != a else a if b != b or a >= b else b


@part
def _sum_back(series: Floats, order: Integers, before: float, stack: Floats) -> float:
    """Sum of the newest ``len(order)`` numbers of ``series`` (n,) in the given order; ``before`` stands for each one
    that lies before the first."""
    top = 0
    last = series.shape[0] - 1
    for back in range(order.shape[0]):
        stack[top] = series[last - back] if back <= last else before
        top += 1
        for _ in range(order[back]):
            top -= 1
            stack[top - 1] += stack[top]
    return float(stack[0])


@part
def _rolling(
    values: Floats,
    tree: Integers,
    tree_shares: Floats,
    windows: Integers,
    out: Floats32,
    place: int,
    distances: int,
) -> None:
    n_times = values.shape[0]
    length = 1
    for k in range(windows.shape[0]):
        length = max(length, windows[k, 0])
    nodes = tree.shape[0] + 1
    mean, m2 = np.empty((nodes, length)), np.zeros((nodes, length))
    low, high = np.empty((nodes, length)), np.empty((nodes, length))
    for r in range(values.shape[1]):
        for i in range(length):
            price = _at(values, n_times - length + i, r)
            mean[0, i] = low[0, i] = high[0, i] = price
        for step in range(tree.shape[0]):
            node, a = step + 1, tree[step, 1]
            own, other = tree[step, 3], tree[step, 4]
            share, square = tree_shares[step, 0], tree_shares[step, 1]
            for i in range(tree[step, 0] - 1, length):
                delta = mean[other, i - a] - mean[own, i]
                mean[node, i] = mean[own, i] + delta * share
                m2[node, i] = (m2[own, i] + m2[other, i - a]) + delta * delta * square
                low[node, i] = _low(low[own, i], low[other, i - a])
                high[node, i] = _high(high[own, i], high[other, i - a])
        now = mean[0, length - 1]
        for k in range(windows.shape[0]):
            window, node = windows[k, 0], windows[k, 1]
            column = place + 4 * k
            out[column, r] = mean[node, length - 1]
            if window > 1:
                # The root of the number as stored: float32.
                variance = np.float32(m2[node, length - 1] * (1 / (window - 1)))
                out[column + 1, r] = math.sqrt(np.float64(variance))
            else:
                out[column + 1, r] = np.nan
            out[column + 2, r] = low[node, length - 1]
            out[column + 3, r] = high[node, length - 1]
            if distances >= 0:
                column = distances + 3 * k
                out[column, r] = now - mean[node, length - 1]
                out[column + 1, r] = now - low[node, length - 1]
                out[column + 2, r] = now - high[node, length - 1]


@part
def _others(numbers: Floats, peers: Booleans, mean: Floats, low: Floats, high: Floats) -> None:
    """Mean, minimum and maximum over the other regions that have a number; all (R,)."""
    n = numbers.shape[0]
    known = 0
    for r in range(n):
        known += peers[r] and numbers[r] == numbers[r]
    if n == 1:
        mean[0] = low[0] = high[0] = np.nan
        return
    # From the last region to the first, then from the first to the last: as in ``_leave_one_out``.
    for r in range(n - 1, 0, -1):
        has = peers[r] and numbers[r] == numbers[r]
        known_number, filled = numbers[r] if has else np.nan, numbers[r] if has else 0.0
        if r == n - 1:
            mean[r - 1], low[r - 1], high[r - 1] = filled, known_number, known_number
        else:
            mean[r - 1] = filled + mean[r]
            low[r - 1], high[r - 1] = _known_low(known_number, low[r]), _known_high(known_number, high[r])
    total, least, most = 0.0, np.nan, np.nan
    for r in range(n):
        has = peers[r] and numbers[r] == numbers[r]
        known_number, filled = numbers[r] if has else np.nan, numbers[r] if has else 0.0
        if r == n - 1:
            mean[r], low[r], high[r] = total, least, most
        elif r > 0:
            mean[r] = total + mean[r]
            low[r], high[r] = _known_low(least, low[r]), _known_high(most, high[r])
        if r == 0:
            total, least, most = filled, known_number, known_number
        else:
            total += filled
            least, most = _known_low(least, known_number), _known_high(most, known_number)
        count = known - (1 if has else 0)
        mean[r] = mean[r] / count if count > 0 else np.nan


@part
def _regional(
    values: Floats,
    peers: Booleans,
    zones: Integers,
    bounds: Integers,
    reference: int,
    out: Floats32,
    column: int,
) -> None:
    n_regions, t = values.shape[1], values.shape[0] - 1
    mean, low, high = np.empty(n_regions), np.empty(n_regions), np.empty(n_regions)
    numbers, counts = np.empty(n_regions), peers[zones]
    # First the prices themselves, then their moves: one call, as a compiler inlines each.
    for place in range(-1, len(_MOVE_STEPS)):
        for i in range(n_regions):
            numbers[i] = values[t, zones[i]]
            if place >= 0:
                numbers[i] -= _at(values, t - _MOVE_STEPS[place], zones[i])
        for zone in range(len(bounds) - 1):
            own = slice(bounds[zone], bounds[zone + 1])
            _others(numbers[own], counts[own], mean[own], low[own], high[own])
        for i in range(n_regions):
            r = zones[i]
            if place < 0:
                now = values[t, r]
                out[column, r], out[column + 1, r], out[column + 2, r] = now - mean[i], now - low[i], now - high[i]
                out[column + 3, r] = now - values[t, reference] if reference >= 0 else np.nan
            else:
                first = column + 4 + 3 * place
                out[first, r], out[first + 1, r], out[first + 2, r] = mean[i], low[i], high[i]


@part
def _nearest(values: Floats, candidates: Integers, order: Integers, out: Floats32, column: int) -> None:
    n_regions, t, window = values.shape[1], values.shape[0] - 1, order.shape[0]
    stack = np.empty(order.shape[0] + 1)
    length = min(window, t + 1)
    gaps = np.empty(length)
    for own in range(n_regions):
        for place in range(2 + len(_MOVE_STEPS)):
            out[column + place, own] = np.nan
        nearest, cheaper, known = np.inf, 0.0, 0.0
        for peer in candidates[own]:
            if peer < 0:
                break
            distance = np.nan
            if length == window:
                for i in range(length):
                    row = t + 1 - length + i
                    gaps[i] = abs(values[row, own] - values[row, peer])
                distance = _sum_back(gaps, order, np.nan, stack) / window
            signed = values[t, own] - values[t, peer] if own < peer else -(values[t, peer] - values[t, own])
            cheaper += signed > 0
            known += signed == signed
            if distance < nearest:
                nearest = distance
                out[column, own], out[column + 1, own] = signed, distance
                for k in range(len(_MOVE_STEPS)):
                    out[column + 2 + k, own] = values[t, peer] - _at(values, t - _MOVE_STEPS[k], peer)
        out[column + 2 + len(_MOVE_STEPS), own] = cheaper / known if known > 0 else np.nan


@part
def _market_state(
    values: Floats,
    day: int,
    interval_minutes: int,
    vol_tree: Integers,
    vol_windows: Integers,
    activity: tuple[Integers, ...],
    jump_windows: Integers,
    horizons: Integers,
    ordered: Floats,
    out: Floats32,
    begin: int,
) -> int:
    n_regions = values.shape[1]
    # The day's jumps need the volatility of the day before them; older rows change nothing.
    n = min(values.shape[0], 2 * day + 3)
    rows = values[values.shape[0] - n :]
    t = n - 1
    size, vol = np.empty(n), np.empty(n)
    nodes = np.empty((vol_tree.shape[0] + 1, n))
    counted = np.zeros(n + 1)
    longest = 1
    for order in activity:
        longest = max(longest, order.shape[0])
    stack = np.empty(longest + 1)
    column = begin
    for r in range(n_regions):
        now = rows[t, r]
        for i in range(n):
            size[i] = abs(rows[i, r] - rows[i - 1, r]) if i > 0 else np.nan
        _volatility(size, rows[:, r], vol_tree, vol_windows, nodes, counted, vol)
        column = begin
        out[column, r] = vol[t]
        column += 1
        for order in activity:
            steps = order.shape[0]
            out[column, r] = _sum_back(size, order, np.nan, stack) / steps if steps <= n else np.nan
            column += 1
        for steps in jump_windows:
            out[column, r] = _jump_count(size, vol, steps)
            column += 1

        since, moved = -1, 0.0
        for back in range(min(day, n)):
            if size[t - back] > 0:
                since, moved = back, rows[t - back, r] - rows[t - back - 1, r]
                break
        out[column, r], out[column + 1, r] = _since(since, moved, now, n > day, day, interval_minutes)
        since = -1
        for back in range(min(day, n - 1)):
            if size[t - back] > JUMP_SIZE * vol[t - back - 1]:
                since = back
                break
        out[column + 2, r], _ = _since(since, 0.0, now, n > day, day, interval_minutes)
        column += 3

        low, middle, high = _day_quantiles(ordered[r], day)
        width = high - low
        position = (now - low) / width
        if width == 0 and now == middle:
            position = 0.5
        if position == position:
            position = min(max(position, -5.0), 6.0)
        out[column, r], out[column + 1, r], out[column + 2, r] = position, width, now - middle
        column += 3

        last = values.shape[0] - 1
        yesterday = _at(values, last - day, r)
        out[column, r] = now - yesterday
        column += 1
        for steps in horizons:
            out[column, r] = _at(values, last - day + steps, r) - yesterday
            column += 1
        profile = _profile(values, last, r, day)
        out[column, r] = now - profile
        column += 1
        for steps in horizons:
            out[column, r] = _profile(values, last + steps, r, day) - profile
            column += 1
    return column


@part
def _volatility(
    size: Floats,
    price: Floats,
    tree: Integers,
    windows: Integers,
    nodes: Floats,
    counted: Floats,
    vol: Floats,
) -> None:
    """``market_state_features.volatility`` of one region; sizes and ``vol`` (n,)."""
    n = size.shape[0]
    for i in range(n):
        known = size[i] == size[i]
        nodes[0, i] = size[i] if known else 0.0
        counted[i + 1] = counted[i] + (1.0 if known else 0.0)
    for step in range(tree.shape[0]):
        a = tree[step, 0]
        own, other, total = nodes[tree[step, 1]], nodes[tree[step, 2]], nodes[step + 1]
        for i in range(min(a, n)):
            total[i] = own[i]
        for i in range(a, n):
            total[i] = own[i] + other[i - a]
    for i in range(n):
        root = 0.0
        for k in range(windows.shape[0]):
            known = counted[i + 1] - counted[max(i + 1 - windows[k, 0], 0)]
            root += math.sqrt(nodes[windows[k, 1], i] / max(known, 1.0))
        root /= windows.shape[0]
        vol[i] = max(root * root, VOL_FLOOR) if price[i] == price[i] else np.nan


@part
def _jump_count(size: Floats, vol: Floats, steps: int) -> float:
    """Jumps among the newest ``steps`` changes; NaN if one of these or of the volatilities before them is unknown."""
    n = size.shape[0]
    if steps > n - 1:
        return np.nan
    count = 0.0
    for i in range(n - steps, n):
        before = vol[i - 1]
        if size[i] != size[i] or before != before:
            return np.nan
        count += size[i] > JUMP_SIZE * before
    return count


@part
def _since(
    since: int, moved: float, now: float, long_enough: bool, day: int, interval_minutes: int
) -> tuple[float, float]:
    """Minutes since an event ``since`` intervals ago (-1: none within a day) and its move."""
    if now != now or (since < 0 and not long_enough):
        return np.nan, np.nan
    if since < 0:
        return float(day * interval_minutes), 0.0
    return float(since * interval_minutes), moved


@part
def _day_quantiles(ordered: Floats, day: int) -> tuple[float, float, float]:
    """As pandas interpolates them; ``ordered`` (day,) ascending, NaN last, or empty."""
    known = 0
    for i in range(ordered.shape[0]):
        known += ordered[i] == ordered[i]
    if known == 0 or known < math.ceil(DAY_KNOWN * day):
        return np.nan, np.nan, np.nan
    return (
        _order_statistic(ordered, known, DAY_QUANTILES[0]),
        _order_statistic(ordered, known, DAY_QUANTILES[1]),
        _order_statistic(ordered, known, DAY_QUANTILES[2]),
    )


@part
def _order_statistic(ordered: Floats, known: int, share: float) -> float:
    place = share * (known - 1)
    below = int(place)
    if below == place:
        return float(ordered[below])
    return float(ordered[below] + (ordered[below + 1] - ordered[below]) * (place - below))


@part
def _profile(values: Floats, row: int, region: int, day: int) -> float:
    """``market_state_features.day_profile`` at one row, which may lie up to a day ahead."""
    total, weight = 0.0, 0.0
    for back in range(PROFILE_DAYS):
        then = row - (back + 1) * day
        if then < 0:
            break
        price = values[then, region]
        if price == price:
            total += _SHARES[back] * price
            weight += _SHARES[back]
    return total / weight if weight > 0 else np.nan
