"""What a region's price is beside the other regions' prices, and where those just went.

What belongs here: comparisons across regions at one instant and their last moves. What doesn't: a region's own past.

One pooled model serves every region, also one it never saw, and any number of them: the others enter as leave-one-out
mean, minimum and maximum, as the region whose price kept nearest over the last hour, and as one reference region; so
the columns are the same whatever the regions are. A region alone has no others: its columns are NaN. Who the others
are, ``neighbours`` says; with its zones and candidates the work grows with the number of regions, not of pairs.
"""

from __future__ import annotations

import numpy as np

from energy_ml.arrays import ZERO, Booleans, Floats, Floats32, Integers
from energy_ml.features.lag_features import read_only
from energy_ml.features.neighbours import Compared
from energy_ml.features.rolling_features import sum_windows, window_tree
from energy_ml.kernels import kernel, part

MOVE_STEPS = (1, 3)
"""Intervals over which the others' last moves are taken."""
REGIONAL_COLUMNS = (
    "spread_others_mean",
    "spread_others_min",
    "spread_others_max",
    "spread_reference",
    *(f"others_change_{statistic}_{steps}" for steps in MOVE_STEPS for statistic in ("mean", "min", "max")),
)
NEAREST_COLUMNS = (
    "nearest_spread",
    "nearest_distance",
    *(f"nearest_change_{steps}" for steps in MOVE_STEPS),
    "cheaper_share",
)
NEAREST_MINUTES = 60
_MOVE_STEPS = np.array(MOVE_STEPS, dtype=np.int64)
BLOCK_CELLS = 65_536
"""Cells (instants x regions) worked on at once, so that they stay in cache."""
_PAIR_BLOCK = 2
"""Blocks are larger by this where pairs of regions are compared."""


def write_regional(values: Floats, compared: Compared, reference: Floats | None, out: Floats32, first: int = 0) -> None:
    """Leave-one-out spreads and moves, within each zone.

    Joined from the regions before and those after rather than total minus own: a spike of the region itself then takes
    no digits from its others.

    Parameters
    ----------
    values : (T, R) float64, C order.
    reference : (T,) prices of the reference region, or None if it isn't among the data.
    out : (len(REGIONAL_COLUMNS), T - first, R).
    """
    beside = np.full(out.shape[1], np.nan) if reference is None else np.array(reference[first:])
    np.subtract(values[first:], beside[:, None], out=out[3], casting="same_kind")
    for zone in range(len(compared.bounds) - 1):
        places = compared.order[compared.bounds[zone] : compared.bounds[zone + 1]]
        _write_zone(read_only(values), places, compared.peers, BLOCK_CELLS, first, out)


@kernel
def _write_zone(values: Floats, zone: Integers, peers: Booleans, cells: int, first: int, out: Floats32) -> None:
    n_regions, n_times, sides = len(zone), len(values), 1 + len(_MOVE_STEPS)
    block = max(min(cells // n_regions, n_times - first), 1)
    # Each row holds a region's prices of the block, then its moves; of the others those after it, for now.
    shape = (n_regions, sides * block)
    beside, total, low, high = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape)
    count, before = np.empty(sides * block), np.empty((3, sides * block))
    for start in range(first, n_times, block):
        n = min(block, n_times - start)
        for place in range(n_regions):
            for i in range(n):
                beside[place, i] = now = values[start + i, zone[place]]
                for side in range(1, sides):
                    then = start + i - _MOVE_STEPS[side - 1]
                    beside[place, side * n + i] = now - values[then, zone[place]] if then >= 0 else np.nan
        total[-1], low[-1], high[-1] = 0.0, np.nan, np.nan
        count[:], before[0], before[1:] = 0.0, 0.0, np.nan
        for place in range(n_regions - 1, -1, -1):
            peer = peers[zone[place]]
            for i in range(sides * n):
                number = beside[place, i] if peer else np.nan
                count[i] += number == number
                if place > 0:
                    total[place - 1, i] = total[place, i] + (number if number == number else 0.0)
                    low[place - 1, i] = _low(number, low[place, i])
                    high[place - 1, i] = _high(number, high[place, i])
        for place in range(n_regions):
            region, peer = zone[place], peers[zone[place]]
            for side in range(sides):
                for t in range(start, start + n):
                    i = side * n + t - start
                    own = beside[place, i]
                    number = own if peer else np.nan
                    known = count[i] - (number == number)
                    mean = (before[0, i] + total[place, i]) / known if known > 0 else np.nan
                    least, most = _low(before[1, i], low[place, i]), _high(before[2, i], high[place, i])
                    before[0, i] += number if number == number else 0.0
                    before[1, i], before[2, i] = _low(before[1, i], number), _high(before[2, i], number)
                    if side == 0:
                        mean, least, most = own - mean, own - least, own - most
                    column = 3 * side + (side > 0)
                    out[column, t - first, region] = mean
                    out[column + 1, t - first, region] = least
                    out[column + 2, t - first, region] = most


@part
def _low(a: float, b: float) -> float:
    """The lower one; the other where one is unknown."""
    return b if a != a else a if b != b or a <= b else b


@part
def _high(a: float, b: float) -> float:
    return b if a != a else a if b != b or a >= b else b


def write_nearest(values: Floats, candidates: Integers, window: int, out: Floats32, first: int = 0) -> None:
    """The other region whose price kept nearest over ``window`` intervals (usually the one without congestion between).

    Columns: price minus its price; mean distance over the window; its last moves; share of the candidates that are
    cheaper now. ``values`` (T, R), ``candidates`` as in ``Compared``, ``out`` (len(NEAREST_COLUMNS), T - first, R).
    """
    halo = max(window - 1, max(MOVE_STEPS))
    block = max(_PAIR_BLOCK * BLOCK_CELLS // values.shape[1], 4 * halo, 1)
    tree, _ = window_tree((window,))
    for start in range(first, len(values), block):
        stop, before = min(start + block, len(values)), max(start - halo, 0)
        price = np.full((values.shape[1], halo + stop - start), np.nan)
        price[:, before - start + halo :] = values[before:stop].T
        _nearest(price, candidates, tree, window, halo, out[:, start - first : stop - first])


@kernel
def _nearest(price: Floats, candidates: Integers, tree: Integers, window: int, halo: int, out: Floats32) -> None:
    """One block, ``price`` (R, halo + n)."""
    n_regions, n = price.shape
    gap, nodes = np.empty(n), np.empty((len(tree) + 1, n))
    near, cheaper, known = np.empty(n), np.empty(n), np.empty(n)
    for own in range(n_regions):
        near[:], cheaper[:], known[:] = np.inf, 0.0, 0.0
        for i in range(halo, n):
            for column in range(2 + len(_MOVE_STEPS)):
                out[column, i - halo, own] = np.nan
        for peer in candidates[own]:
            if peer < 0:
                break
            sign = 1.0 if own < peer else -1.0
            for i in range(n):
                gap[i] = price[min(own, peer), i] - price[max(own, peer), i]
                nodes[0, i] = abs(gap[i])
            sum_windows(nodes, tree, ZERO, np.nan)
            for i in range(halo, n):
                signed, distance = sign * gap[i], nodes[-1, i] / window
                cheaper[i] += signed > 0
                known[i] += signed == signed
                if distance < near[i]:
                    near[i] = distance
                    out[0, i - halo, own], out[1, i - halo, own] = signed, distance
                    for k in range(len(_MOVE_STEPS)):
                        out[2 + k, i - halo, own] = price[peer, i] - price[peer, i - _MOVE_STEPS[k]]
        for i in range(halo, n):
            out[2 + len(_MOVE_STEPS), i - halo, own] = cheaper[i] / known[i] if known[i] > 0 else np.nan
