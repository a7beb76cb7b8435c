"""A look ahead: the price path expected for the coming day, and what stored energy is worth if prices follow it.

What belongs here: the path, how it is learned, and the plan on it. What doesn't: what prices do around the path, which
the value model (``value_model``) and Q-learning (``learning``) are for.

The path runs through the price forecasts as far as they reach, on straight lines. Beyond, each step of the day is a
ridge regression on the newest price, the means of the last hour, six hours and day, the step's own hours as they
usually are, as they were yesterday and the day before, and the forecasts. It works in the asinh of price / typical
price, which tames spikes: in currency, a morning of spikes was expected to come again for days.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from energy_ml.arrays import Booleans, Floats, Integers
from energy_ml.rl_battery.battery import Physics

PATH_HOURS = 24
MEANS = (60, 360, 1440)
"""Trailing means over so many minutes."""
_OWN, _WINDOWS = 4 + len(MEANS), 3
RIDGE = 0.03
"""Weight of the penalty, in variances of each input."""
STEEPEST = 8.0
"""Expected prices are at most sinh(8), about 1,500, typical prices."""


class Lookahead(NamedTuple):
    """How the price path of one region is expected.

    ``lengths`` (S,) of the path's steps, intervals; the first starts with the next interval. ``usual`` (24,): mean
    level (asinh of price / typical price) of each UTC hour in training. ``weights`` (2, S, F): of the inputs without
    and with forecasts. ``horizons`` (H,) of the forecasts, intervals. ``delay`` (intervals): plans begin that much
    later. ``share``: weight of the plan against the value model.
    """

    lengths: Integers
    usual: Floats
    weights: Floats
    horizons: Integers
    delay: int
    share: float


def path_lengths(interval_minutes: int, delay: int) -> Integers:
    """Lengths of the steps, intervals: fine near now, hourly from the fourth hour on; the delay in single intervals."""
    lengths, minutes = [1] * delay, 0
    while minutes < PATH_HOURS * 60:
        wanted = 5 if minutes < 60 else 15 if minutes < 240 else 60
        lengths.append(max(1, wanted // interval_minutes))
        minutes += lengths[-1] * interval_minutes
    return np.array(lengths, dtype=np.int64)


@njit(cache=True)
def usual_path(usual: Floats, minutes: Integers, interval: int, more: int) -> Floats:
    """The usual level of each interval of a series (N,) and of ``more`` after it."""
    n = len(minutes)
    out = np.empty(n + more)
    for i in range(n + more):
        minute = minutes[i] if i < n else (minutes[n - 1] + (i - n + 1) * interval) % 1440
        out[i] = usual[minute // 60]
    return out


def usual_of_other_days(levels: Floats, minutes: Integers, known: Booleans) -> tuple[Floats, Floats]:
    """(mean ``known`` level of each UTC hour (24,), and for each interval (N,) that of its hour on all other days).

    The second is what learning may use: a mean that holds the outcome itself would be trusted too much.
    """
    hour = minutes // 60
    day = np.cumsum(np.concatenate([[0], np.diff(minutes) < 0]))
    sums, counts = np.zeros((day[-1] + 1, 24)), np.zeros((day[-1] + 1, 24))
    np.add.at(sums, (day[known], hour[known]), levels[known])
    np.add.at(counts, (day[known], hour[known]), 1.0)
    total, number = sums.sum(axis=0), counts.sum(axis=0)
    usual = np.where(number > 0, total / np.maximum(number, 1), levels[known].mean())
    others = number - counts
    without = np.where(others > 0, (total - sums) / np.maximum(others, 1), usual)
    return usual, without[day, hour]


@njit(cache=True)
def _mean(sums: Floats, first: int, last: int) -> float:
    return (sums[last] - sums[first]) / (last - first)


@njit(cache=True)
def _inputs_of_row(
    sums: Floats, usual: Floats, t: int, oldest: int, interval: int, lengths: Integers, own: Floats, windows: Floats
) -> None:
    """Fill ``own`` (7,), which all steps share, and ``windows`` (S, 3), from cumulative sums of levels."""
    day = 1440 // interval
    own[0] = 1.0
    own[1] = sums[t + 1] - sums[t]
    for j, minutes in enumerate(MEANS):
        own[2 + j] = _mean(sums, max(oldest, t + 1 - max(1, minutes // interval)), t + 1)
    own[2 + len(MEANS)] = usual[t + 1] - usual[t]
    own[3 + len(MEANS)] = _mean(usual, max(oldest, t + 1 - max(1, 60 // interval)), t + 1)
    begin = t + 1
    for i in range(len(lengths)):
        end = begin + lengths[i]
        windows[i, 0] = _mean(usual, begin, end)
        for back in range(1, _WINDOWS):
            shift = back * day
            if end - shift > t + 1:
                shift += day
            windows[i, back] = _mean(sums, begin - shift, end - shift) if begin - shift >= oldest else windows[i, 0]
        begin = end


@njit(cache=True, nogil=True)
def path_inputs(
    levels: Floats, usual: Floats, interval: int, lengths: Integers, rows: Integers
) -> tuple[Floats, Floats]:
    """Inputs at ``rows`` (R,) of a series of levels (N,): (R, 7) that all steps share and (R, S, 3)."""
    sums, usual_sums = _cumulative(levels), _cumulative(usual)
    own, windows = np.empty((len(rows), _OWN)), np.empty((len(rows), len(lengths), _WINDOWS))
    for r in range(len(rows)):
        _inputs_of_row(sums, usual_sums, rows[r], 0, interval, lengths, own[r], windows[r])
    return own, windows


@njit(cache=True)
def _cumulative(values: Floats) -> Floats:
    out = np.zeros(len(values) + 1)
    for i in range(len(values)):
        out[i + 1] = out[i] + values[i]
    return out


@njit(cache=True, nogil=True)
def expected_paths(
    look: Lookahead,
    prices: Floats,
    usual: Floats,
    ahead: Floats,
    interval: int,
    price_scale: float,
    first: int,
    history: bool,
) -> Floats:
    """Expected prices of the path's steps at intervals ``first`` to the end: (N - first, S), currency/MWh.

    ``prices`` (N,), newest last; ``usual`` (N + steps,), see ``usual_path``; ``ahead`` (H, N) forecasts, a row in which
    one is missing has none. Without ``history`` each row knows its own price only.
    """
    n, steps, horizons = len(prices), len(look.lengths), len(look.horizons)
    sums, usual_sums = _cumulative(np.arcsinh(prices / price_scale)), _cumulative(usual)
    own, windows = np.empty(_OWN), np.empty((steps, _WINDOWS))
    given = np.empty(horizons)
    out = np.empty((n - first, steps))
    for t in range(first, n):
        _inputs_of_row(sums, usual_sums, t, 0 if history else t, interval, look.lengths, own, windows)
        known = horizons > 0
        for h in range(horizons):
            given[h] = np.arcsinh(ahead[h, t] / price_scale)
            known = known and not np.isnan(given[h])
        reach, passed, begin = look.horizons[horizons - 1] if known else 0, 0, 1
        for i in range(steps):
            middle = begin + 0.5 * (look.lengths[i] - 1)
            begin += look.lengths[i]
            if middle <= reach:
                while look.horizons[passed] < middle:
                    passed += 1
                start = look.horizons[passed - 1] if passed else 0
                value = ahead[passed - 1, t] if passed else prices[t]
                way = (middle - start) / (look.horizons[passed] - start)
                out[t - first, i] = value + way * (ahead[passed, t] - value)
                continue
            weights = look.weights[1 if known else 0, i]
            level = 0.0
            for j in range(_OWN):
                level += weights[j] * own[j]
            for j in range(_WINDOWS):
                level += weights[_OWN + j] * windows[i, j]
            if known:
                for h in range(horizons):
                    level += weights[_OWN + _WINDOWS + h] * given[h]
            out[t - first, i] = np.sinh(min(max(level, -STEEPEST), STEEPEST)) * price_scale
    return out


@njit(cache=True, nogil=True)
def plan_slopes(look: Lookahead, paths: Floats, physics: Physics, hours: float, cells: int) -> Floats:
    """What a MWh in the cells is worth after each interval if prices follow its path: (N, cells) currency/MWh.

    ``paths`` (N, S) currency/MWh; ``hours``: length of an interval. The charge range is cut into ``cells`` equal parts,
    from empty to full. What is left after a day is worth the path's mean price.

    With prices known, a step back in time moves slopes: where a MWh is worth more than buying one costs the battery
    charges, so that the slope there is that of the charge it arrives at, but not below the cost; and the other way
    round for selling (Zheng, Jaworski and Xu, arXiv 2108.06000). Nothing is optimised.
    """
    n, steps = paths.shape
    width = (physics.high - physics.low) / cells
    out = np.empty((n, cells))
    slope, new = np.empty(cells), np.empty(cells)
    total = look.lengths[look.delay :].sum()
    for t in range(n):
        mean = 0.0
        for i in range(look.delay, steps):
            mean += paths[t, i] * look.lengths[i] / total
        for c in range(cells):
            slope[c] = max(0.0, mean) * physics.discharge_eff
        for i in range(steps - 1, look.delay - 1, -1):
            most = physics.power * hours * look.lengths[i]
            up, down = most * physics.charge_eff / width, most / physics.discharge_eff / width
            up_cells, down_cells = int(up), int(down)
            up_part, down_part = up - up_cells, down - down_cells
            buy = (paths[t, i] + physics.buy_fee) / physics.charge_eff
            sell = (paths[t, i] - physics.sell_fee - physics.wear) * physics.discharge_eff
            for c in range(cells):
                worth = slope[c]
                if worth > buy:
                    a, b = c + up_cells, c + up_cells + 1
                    worth = (1.0 - up_part) * (max(buy, slope[a]) if a < cells else buy)
                    worth += up_part * (max(buy, slope[b]) if b < cells else buy)
                elif worth < sell:
                    a, b = c - down_cells, c - down_cells - 1
                    worth = (1.0 - down_part) * (min(sell, slope[a]) if a >= 0 else sell)
                    worth += down_part * (min(sell, slope[b]) if b >= 0 else sell)
                new[c] = worth
            slope, new = new, slope
        out[t] = slope
    return out


def fit_lookahead(
    levels: Sequence[Floats],
    minutes: Sequence[Integers],
    ahead: Sequence[Floats],
    known: Sequence[Booleans],
    *,
    interval: int,
    horizons: Sequence[int],
    delay: int,
    most_rows: int,
) -> tuple[list[Lookahead], list[Floats]]:
    """Learn the paths of all regions together, each with its own usual day.

    Parameters
    ----------
    levels, minutes, ahead : per region the known intervals: asinh of price / typical price (N,), minute of the UTC day
        (N,), the forecasts in the same asinh (H, N).
    known : (N,) which levels were measured; paths over others aren't learned from.
    interval : minutes. ``horizons`` : of the forecasts, minutes. ``delay`` : intervals.
    most_rows : longer series are thinned out evenly to so many rows of all regions.

    Returns (per region: Lookahead, its share still 1; the usual level of each known interval on other days (N,)).
    """
    lengths = path_lengths(interval, delay)
    ends = 1 + np.cumsum(lengths)
    reach, steps, count = int(lengths.sum()), len(lengths), len(horizons)
    thin = max(1, -(-sum(map(len, levels)) // most_rows))
    usual, others, parts, targets = [], [], [], []
    for region, when, forecasts, there in zip(levels, minutes, ahead, known, strict=True):
        n = len(region)
        day, own_day_out = usual_of_other_days(region, when, there)
        usual.append(day)
        others.append(own_day_out)
        # Rows that know two days, where there are enough of them; else what there is.
        rows = np.arange(min(2 * 1440 // interval, n // 2), n, thin)
        seen = np.concatenate([own_day_out, usual_path(day, when, interval, reach)[n:]])
        parts.append((*path_inputs(region, seen, interval, lengths, rows), forecasts[:, rows].T))
        sums = _cumulative(region)
        after = np.minimum(rows[:, None] + ends, n)
        before = np.minimum(after, rows[:, None] + ends - lengths)
        mean = (sums[after] - sums[before]) / lengths
        unknown = np.concatenate([[0], np.cumsum(~there)])
        whole = (rows[:, None] + ends <= n) & (unknown[after] == unknown[before]) & there[rows][:, None]
        targets.append(np.where(whole, mean, np.nan))
    own, windows, given = (np.concatenate(column) for column in zip(*parts, strict=True))
    y = np.concatenate(targets)
    complete = np.isfinite(given).all(axis=1)
    weights = np.zeros((2, steps, _OWN + _WINDOWS + count))
    for with_forecasts in range(2 if count else 1):
        for i in range(steps):
            x = np.hstack([own, windows[:, i], given][: 2 + with_forecasts])
            rows = np.isfinite(y[:, i]) & (complete if with_forecasts else True)
            weights[with_forecasts, i, : x.shape[1]] = _ridge(x[rows], y[rows, i])
    horizon = np.array([h // interval for h in horizons], dtype=np.int64)
    return [Lookahead(lengths, day, weights, horizon, delay, 1.0) for day in usual], others


def _ridge(x: Floats, y: Floats) -> Floats:
    """Weights of (N, F) inputs, the first of which is 1 and free of the penalty; without rows the usual level's."""
    if not len(y):
        weights = np.zeros(x.shape[1])
        weights[_OWN] = 1.0
        return weights
    penalty = RIDGE * len(y) * (x.var(axis=0) + 1e-3)
    penalty[0] = 0.0
    return np.asarray(np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y), dtype=np.float64)
