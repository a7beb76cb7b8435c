"""A look ahead: the price path expected for the coming day, and what stored energy is worth if prices follow it.

What belongs here: the path, how it is learned, and the plan on it. What doesn't: what prices do around the path, which
Q-learning (``learning``) is for.

Without forecasts each step of the day is a ridge regression on the newest price, the means of the last hour, six hours
and day, the step's own hours as they usually are, as they were yesterday and the day before. It works in the asinh of
price / typical price, which tames spikes: in currency, a morning of spikes was expected to come again for days.

Forecasts lift or lower that path: each at its own time, between them on straight lines; a horizon that isn't given is
filled in from the others by how deviations last from horizon to horizon; and the steps beyond the last one follow by
weights that are at least 0. So nothing jumps when a forecast is missing, and none that rises lowers an expected price.

Forecasts are medians, the path is a mean. Near the path a forecast counts in full; where it lies far away, at spikes,
what comes on average is nearer to the path, and what it says beyond counts for the part that came true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from energy_ml.arrays import ZERO, Booleans, Floats, Integers
from energy_ml.kernels import kernel, part
from energy_ml.rl_battery.battery import Physics

PATH_HOURS = 24
_MEANS = (60, 360, 1440)
"""Trailing means over so many minutes."""
_OWN, _WINDOWS = 4 + len(_MEANS), 3
_RIDGE = 0.03
"""Weight of the penalty, in variances of each input."""
CELLS = 20
"""Parts of the charge range that a plan is made on, at least."""
_NEAR = 0.25
"""Of a forecast's deviation from the path so much counts in full, in typical prices."""
_LEAST_LEFT = 0.05
"""Of a deviation at one horizon at least so much is expected at the next."""
_STEEPEST = 8.0
"""Expected prices are at most sinh(8), about 1,500, typical prices."""


class Lookahead(NamedTuple):
    """How the price path of one region is expected, by what was learned of all regions.

    ``lengths`` (S,) of the path's steps, intervals of the state; the first is what is left of the interval in hand
    where the battery acts more often than the path has steps. ``whole`` (S or S - 1,): the others. ``usual`` (24,):
    mean level (asinh of price / typical price) of each UTC hour in training. ``weights`` (whole, F) of the inputs.
    ``horizons`` (H,) of training's forecasts, intervals; ``lasting`` (H,): log of what is left at each of them of a
    deviation at the first; ``beyond`` (whole, H): what a deviation at each moves the steps after the last by. ``delay``
    (intervals): plans begin that much later. ``believed``: the part of a forecast's deviation from the path beyond
    ``_NEAR`` that counts.
    """

    lengths: Floats
    whole: Integers
    usual: Floats
    weights: Floats
    horizons: Floats
    lasting: Floats
    beyond: Floats
    delay: int
    believed: float = 1.0


def path_lengths(interval_minutes: int, delay: int) -> Integers:
    """Lengths of the steps, intervals: fine near now, hourly from the fourth hour on; the delay in single intervals."""
    lengths, minutes = [1] * delay, 0
    while minutes < PATH_HOURS * 60:
        wanted = 5 if minutes < 60 else 15 if minutes < 240 else 60
        lengths.append(max(1, wanted // interval_minutes))
        minutes += lengths[-1] * interval_minutes
    return np.array(lengths, dtype=np.int64)


@kernel
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


@part
def _mean(sums: Floats, first: int, last: int) -> float:
    return float((sums[last] - sums[first]) / (last - first))


@part
def _inputs_of_row(
    sums: Floats, usual: Floats, t: int, oldest: int, interval: int, lengths: Integers, own: Floats, windows: Floats
) -> None:
    """Fill ``own`` (7,), which all steps share, and ``windows`` (S, 3), from cumulative sums of levels."""
    day = 1440 // interval
    own[0] = 1.0
    own[1] = sums[t + 1] - sums[t]
    for j, minutes in enumerate(_MEANS):
        own[2 + j] = _mean(sums, max(oldest, t + 1 - max(1, minutes // interval)), t + 1)
    own[2 + len(_MEANS)] = usual[t + 1] - usual[t]
    own[3 + len(_MEANS)] = _mean(usual, max(oldest, t + 1 - max(1, 60 // interval)), t + 1)
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


@kernel
def _path_inputs(
    levels: Floats, usual: Floats, interval: int, lengths: Integers, rows: Integers
) -> tuple[Floats, Floats]:
    """Inputs at ``rows`` (R,) of a series of levels (N,): (R, 7) that all steps share and (R, S, 3)."""
    sums, usual_sums = _cumulative(levels), _cumulative(usual)
    own, windows = np.empty((len(rows), _OWN)), np.empty((len(rows), len(lengths), _WINDOWS))
    for r in range(len(rows)):
        _inputs_of_row(sums, usual_sums, rows[r], ZERO, interval, lengths, own[r], windows[r])
    return own, windows


@kernel
def _cumulative(values: Floats) -> Floats:
    out = np.zeros(len(values) + 1)
    for i in range(len(values)):
        out[i + 1] = out[i] + values[i]
    return out


@part
def _between(x: float, at: Floats, values: Floats) -> float:
    """The value at ``x`` on straight lines through (at, values), ``at`` from 0 on; the last one beyond."""
    if x >= at[-1]:
        return float(values[-1])
    i = 1
    while at[i] <= x:
        i += 1
    way = (x - at[i - 1]) / (at[i] - at[i - 1])
    return float(values[i - 1] + way * (values[i] - values[i - 1]))


@part
def _within_reach(level: float, path: float) -> float:
    """``level`` moved to where it lies at most ``_NEAR`` typical prices from ``path``, all in asinh."""
    price = np.sinh(path)
    return float(min(max(level, np.arcsinh(price - _NEAR)), np.arcsinh(price + _NEAR)))


@part
def _deviation(x: float, at: Floats, deviations: Floats, horizons: Floats, lasting: Floats) -> float:
    """How far the price ``x`` intervals ahead is expected from the path without forecasts, given those ``at`` some.

    After the last one given, as much is left as usually was: ``lasting`` at ``horizons``, from 0 on.
    """
    last, value = at[-1], _between(x, at, deviations)
    if x <= last:
        return value
    return float(value * np.exp(min(_between(x, horizons, lasting) - _between(last, horizons, lasting), 0.0)))


@kernel
def expected_paths(
    look: Lookahead,
    prices: Floats,
    usual: Floats,
    when: Floats,
    ahead: Floats,
    interval: int,
    price_scale: float,
    first: int,
    history: bool,
) -> Floats:
    """Expected prices of the path's steps at intervals ``first`` to the end: (N - first, S), currency/MWh.

    ``prices`` (N,), newest last; ``usual`` (N + steps,), see ``usual_path``; ``ahead`` (G, N) forecasts of the prices
    ``when`` (G,) intervals later, in order of time, NaN where there is none. They needn't be training's. Without
    ``history`` each row knows its own price only.
    """
    n, steps, count = len(prices), len(look.lengths), len(look.whole)
    partial = steps - count
    sums, usual_sums = np.zeros(n + 1), _cumulative(usual)
    for t in range(n):
        # asinh, in half of the time that the library takes: much of one action would go there.
        size = abs(prices[t]) / price_scale
        level = np.log(size + np.sqrt(size * size + 1.0))
        sums[t + 1] = sums[t] + (level if prices[t] >= 0.0 else -level)
    own, windows = np.empty(_OWN), np.empty((count, _WINDOWS))
    places, path = np.zeros(count + 1), np.empty(count + 1)
    begin = 1.0
    for i in range(count):
        places[i + 1] = begin + 0.5 * (look.whole[i] - 1)
        begin += look.whole[i]
    at, deviations = np.zeros(len(when) + 1), np.zeros(len(when) + 1)
    trained = np.empty(len(look.horizons))
    horizons, lasting = np.zeros(len(trained) + 1), np.zeros(len(trained) + 1)
    for h in range(len(trained)):
        horizons[h + 1], lasting[h + 1] = look.horizons[h], look.lasting[h]
    points, expected = np.zeros(len(when) + len(trained) + 1), np.empty(len(when) + len(trained) + 1)
    out = np.empty((n - first, steps))
    for t in range(first, n):
        _inputs_of_row(sums, usual_sums, t, 0 if history else t, interval, look.whole, own, windows)
        path[0] = own[1]
        for i in range(count):
            level = 0.0
            for j in range(_OWN):
                level += look.weights[i, j] * own[j]
            for j in range(_WINDOWS):
                level += look.weights[i, _OWN + j] * windows[i, j]
            path[i + 1] = min(max(level, -_STEEPEST), _STEEPEST)
        given = 1
        for g in range(len(when)):
            if not np.isnan(ahead[g, t]):
                at[given] = when[g]
                level, expected_level = np.arcsinh(ahead[g, t] / price_scale), _between(when[g], places, path)
                near = _within_reach(level, expected_level)
                deviations[given] = near - expected_level + look.believed * (level - near)
                given += 1
        for h in range(len(trained)):
            trained[h] = _deviation(look.horizons[h], at[:given], deviations[:given], horizons, lasting)
        # Points of the near path: the forecasts given, and training's horizons filled in from them.
        expected[0], found, g, h = prices[t], 1, 1, 0
        while given > 1 and (g < given or h < len(trained)):
            if h == len(trained) or (g < given and at[g] <= look.horizons[h]):
                points[found], deviation = at[g], deviations[g]
                h += h < len(trained) and at[g] == look.horizons[h]
                g += 1
            else:
                points[found], deviation = look.horizons[h], trained[h]
                h += 1
            level = _between(points[found], places, path) + deviation
            expected[found] = np.sinh(min(max(level, -_STEEPEST), _STEEPEST)) * price_scale
            found += 1
        for i in range(steps):
            # The rest of the interval in hand has the middle of its prices half an interval ahead.
            place = places[i - partial + 1] if i >= partial else 0.5
            if found > 1 and place <= points[found - 1]:
                out[t - first, i] = _between(place, points[:found], expected[:found])
                continue
            level = path[i - partial + 1] if i >= partial else _between(place, places, path)
            if i >= partial:
                for h in range(len(trained)):
                    level += look.beyond[i - partial, h] * trained[h]
            out[t - first, i] = np.sinh(min(max(level, -_STEEPEST), _STEEPEST)) * price_scale
    return out


@kernel
def slopes_on_the_way(lengths: Floats, delay: int, path: Floats, physics: Physics, hours: float, cells: int) -> Floats:
    """What a MWh in the cells is worth before each step of a plan and after the last one if prices follow the path:
    (S - delay + 1, cells) currency/MWh, from empty to full.

    ``path`` (S,) currency/MWh, of steps of ``lengths`` (S,) intervals, ``delay`` of which come before the plan;
    ``hours``: length of an interval. What is left after a day is worth the path's mean price.

    With prices known, a step back in time moves slopes: where a MWh is worth more than buying one costs the battery
    charges, so that the slope there is that of the charge it arrives at, but not below the cost; and the other way
    round for selling (Zheng, Jaworski and Xu, arXiv 2108.06000). Nothing is optimised.
    """
    total, mean, width = 0.0, 0.0, (physics.high - physics.low) / cells
    for i in range(delay, len(path)):
        total += lengths[i]
    for i in range(delay, len(path)):
        mean += path[i] * lengths[i] / total
    out = np.empty((len(path) - delay + 1, cells))
    for c in range(cells):
        out[-1, c] = max(0.0, mean) * physics.discharge_eff
    for i in range(len(path) - 1, delay - 1, -1):
        _plan_back(path[i], hours * lengths[i] / width, physics, out[i - delay + 1], out[i - delay])
    return out


@kernel
def plan_slopes(lengths: Floats, delay: int, paths: Floats, physics: Physics, hours: float, slices: int) -> Floats:
    """The same before the first step of each of many paths (N, S), by equal slices of the charge range: (N, slices).

    The plan itself is made on cells at most a ``CELLS``-th of the range.
    """
    each = -(-CELLS // slices)
    out = np.zeros((len(paths), slices))
    for t in range(len(paths)):
        first = slopes_on_the_way(lengths, delay, paths[t], physics, hours, slices * each)[0]
        for c in range(slices * each):
            out[t, c // each] += first[c] / each
    return out


@part
def _plan_back(price: float, length: float, physics: Physics, slope: Floats, new: Floats) -> None:
    """One step back: ``new`` (cells,) from ``slope`` after it; ``length``: hours over the cells' width."""
    cells = len(slope)
    up, down = physics.power_in * length * physics.charge_eff, physics.power_out * length / physics.discharge_eff
    up_cells, down_cells = int(up), int(down)
    up_part, down_part = up - up_cells, down - down_cells
    buy = (price + physics.buy_fee) / physics.charge_eff
    sell = (price - physics.sell_fee - physics.wear) * physics.discharge_eff
    # At a negative price that pays for burning energy, a battery that can't do both charges.
    sell = min(sell, buy)
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


def fit_lookahead(
    levels: Sequence[Floats],
    minutes: Sequence[Integers],
    ahead: Sequence[Floats],
    known: Sequence[Booleans],
    *,
    interval: int,
    lead: float,
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
    interval : of the state, minutes. ``lead`` : intervals of the state until the battery acts again, at most 1.
    horizons : of the forecasts, minutes. ``delay`` : intervals.
    most_rows : longer series are thinned out evenly to so many rows of all regions.

    Returns (per region: Lookahead; the usual level of each known interval on other days (N,)).
    """
    whole = path_lengths(interval, delay)
    ends = 1 + np.cumsum(whole)
    reach, steps = int(whole.sum()), len(whole)
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
        parts.append((*_path_inputs(region, seen, interval, whole, rows), forecasts[:, rows].T))
        sums = _cumulative(region)
        after = np.minimum(rows[:, None] + ends, n)
        before = np.minimum(after, rows[:, None] + ends - whole)
        mean = (sums[after] - sums[before]) / whole
        unknown = np.concatenate([[0], np.cumsum(~there)])
        usable = (rows[:, None] + ends <= n) & (unknown[after] == unknown[before]) & there[rows][:, None]
        targets.append(np.where(usable, mean, np.nan))
    own, windows, given = (np.concatenate(column) for column in zip(*parts, strict=True))
    y = np.concatenate(targets)
    weights = np.zeros((steps, _OWN + _WINDOWS))
    path = np.empty((len(y), steps + 1))
    path[:, 0] = own[:, 1]
    for i in range(steps):
        x, rows = np.hstack([own, windows[:, i]]), np.isfinite(y[:, i])
        weights[i] = _ridge(x[rows], y[rows, i])
        path[:, i + 1] = x @ weights[i]
    places = np.concatenate([[0.0], ends - 0.5 * (whole + 1)])
    horizon = np.array(horizons, dtype=np.float64) / interval
    lasting, beyond, believed = _follow_forecasts(path, places, y, given, horizon)
    lengths = whole.astype(np.float64)
    if lead < 1.0 and not delay:
        lengths = np.concatenate([[1.0 - lead], lengths])
    return [Lookahead(lengths, whole, day, weights, horizon, lasting, beyond, delay, believed) for day in usual], others


def _follow_forecasts(
    path: Floats, places: Floats, y: Floats, given: Floats, horizons: Floats
) -> tuple[Floats, Floats, float]:
    """(``lasting``, ``beyond``, ``believed``) of a Lookahead from paths without forecasts (R, 1 + S) at ``places``
    (1 + S,), what came (R, S) and the forecasts (R, H), all in asinh."""
    count, steps = len(horizons), y.shape[1]
    lasting, beyond = np.zeros(count), np.zeros((steps, count))
    lower = np.clip(np.searchsorted(places, horizons, side="right") - 1, 0, steps - 1)
    way = (horizons - places[lower]) / (places[lower + 1] - places[lower])
    at, came = (x[:, lower] + way * (x[:, lower + 1] - x[:, lower]) for x in (path, np.hstack([path[:, :1], y])))
    near = np.clip(given, np.arcsinh(np.sinh(at) - _NEAR), np.arcsinh(np.sinh(at) + _NEAR))
    excess, true = given - near, came - near
    rows = np.isfinite(excess) & np.isfinite(true)
    size, came_true = float((excess[rows] ** 2).sum()), float((excess[rows] * true[rows]).sum())
    believed = min(max(came_true / size, 0.0), 1.0) if size else 1.0
    deviations = near - at + believed * excess
    for h in range(1, count):
        pair = deviations[:, h - 1 : h + 1]
        near, far = pair[np.isfinite(pair).all(axis=1)].T
        left = float(near @ far) / max(float(near @ near), 1e-12)
        lasting[h] = lasting[h - 1] + np.log(min(max(left, _LEAST_LEFT), 1.0))
    complete = np.isfinite(deviations).all(axis=1)
    for i in range(steps):
        rows = complete & np.isfinite(y[:, i])
        if count and places[i + 1] > horizons[-1] and rows.any():
            beyond[i] = _nonnegative(deviations[rows], y[rows, i] - path[rows, i + 1])
    return lasting, beyond, believed


def _nonnegative(x: Floats, y: Floats) -> Floats:
    """Weights of (N, F) inputs, at least 0, by ridge regression."""
    from scipy.optimize import nnls

    root = np.linalg.cholesky(x.T @ x + np.diag(_RIDGE * len(y) * (x.var(axis=0) + 1e-3)))
    return np.asarray(nnls(root.T, np.linalg.solve(root, x.T @ y))[0], dtype=np.float64)


def _ridge(x: Floats, y: Floats) -> Floats:
    """Weights of (N, F) inputs, the first of which is 1 and free of the penalty; without rows the usual level's."""
    if not len(y):
        weights = np.zeros(x.shape[1])
        weights[_OWN] = 1.0
        return weights
    penalty = _RIDGE * len(y) * (x.var(axis=0) + 1e-3)
    penalty[0] = 0.0
    return np.asarray(np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y), dtype=np.float64)
