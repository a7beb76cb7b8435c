"""What a region's price is beside the other regions' prices, and where those just went.

What belongs here: comparisons across regions at one instant and their last moves. What doesn't: a region's own past.

One pooled model serves every region, also one it never saw, and any number of them: the others enter as leave-one-out
mean, minimum and maximum, as the region whose price kept nearest over the last hour, and as one reference region; so
the columns are the same whatever the regions are. A region alone has no others: its columns are NaN. Who the others
are, ``neighbours`` says; with its zones and candidates the work grows with the number of regions, not of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from energy_ml.arrays import Booleans, Floats, Floats32, Integers
from energy_ml.features.neighbours import Compared
from energy_ml.features.rolling_features import padded, plan_windows
from energy_ml.kernels import kernel

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
"""Cells worked on at once: more of them than in the window tree, as its arrays are one region's row each."""
_PAIR_BLOCK = 2
"""Blocks are larger by this where pairs of regions are compared."""


def write_regional(values: Floats, compared: Compared, reference: Floats | None, out: Floats32, first: int = 0) -> None:
    """Leave-one-out spreads and moves, within each zone.

    Parameters
    ----------
    values : (T, R) float64, C order.
    reference : (T,) prices of the reference region, or None if it isn't among the data.
    out : (len(REGIONAL_COLUMNS), T - first, R).
    """
    if len(compared.bounds) == 2:
        _write_zone(values, compared.peers, reference, out, first)
        return
    for zone in compared.zones:
        part = np.empty((*out.shape[:2], len(zone)), dtype=np.float32)
        _write_zone(np.ascontiguousarray(values[:, zone]), compared.peers[zone], reference, part, first)
        out[:, :, zone] = part


def _write_zone(values: Floats, peers: Booleans, reference: Floats | None, out: Floats32, first: int) -> None:
    n_times, n_regions = values.shape
    halo = max(MOVE_STEPS)
    block = max(min(BLOCK_CELLS // n_regions, n_times - first), 1)
    # One set of buffers for all blocks: fresh ones of this size cost more than the work on them.
    buffers = np.empty((4, n_regions, (1 + len(MOVE_STEPS)) * block))
    for start in range(first, n_times, block):
        stop = min(start + block, n_times)
        # Region-major inside a block: each region's row is contiguous.
        price = np.ascontiguousarray(padded(values, start - halo, stop).T)
        now = price[:, halo:]
        part = out[:, start - first : stop - first].transpose(0, 2, 1)
        # Prices and moves side by side: calls are few, and each works on long rows.
        sides = 1 + len(MOVE_STEPS), stop - start
        compared, *room = buffers[..., : sides[0] * sides[1]]
        beside = compared.reshape(n_regions, *sides)
        beside[:, 0] = now
        for place, steps in enumerate(MOVE_STEPS):
            np.subtract(now, price[:, halo - steps : price.shape[1] - steps], out=beside[:, 1 + place])
        for number, statistic in enumerate(others(compared, peers, room)):
            found = statistic.reshape(n_regions, *sides)
            np.subtract(now, found[:, 0], out=part[number], casting="same_kind")
            for place in range(len(MOVE_STEPS)):
                part[4 + 3 * place + number] = found[:, 1 + place]
        if reference is None:
            part[3] = np.nan
        else:
            np.subtract(now, reference[start:stop], out=part[3], casting="same_kind")


def others(values: Floats, peers: Booleans, out: Sequence[Floats] | None = None) -> tuple[Floats, Floats, Floats]:
    """Mean, minimum and maximum over the *other* regions that have a value; (R, n) each, NaN where none has.

    Joined from the regions before and those after rather than total minus own: a spike of the region itself then takes
    no digits from its others. ``out`` are three arrays (R, n) to fill instead of new ones.
    """
    total, low, high = np.empty((3, *values.shape)) if out is None else out
    if peers.all() and np.isfinite(values.sum()):  # a missing price would make the sum NaN
        count = np.full((len(values), 1), len(values) - 1.0)
        filled = values
    else:
        known = ~np.isnan(values)
        known &= peers[:, None]
        values = np.where(known, values, np.nan)
        filled = np.where(known, values, 0.0)
        count = known.sum(axis=0) - known.astype(np.float64)
    count[count == 0] = np.nan
    mean = _leave_one_out(np.add, filled, total)
    mean /= count
    return mean, _leave_one_out(np.fmin, values, low), _leave_one_out(np.fmax, values, high)


def _leave_one_out(function: np.ufunc, values: Floats, out: Floats) -> Floats:
    """``function`` over all rows but the own one, (R, n), into ``out``; one region alone gives NaN."""
    if len(values) == 1:
        out[:] = np.nan
        return out
    # Row by row: numpy's accumulate along the first axis is several times slower.
    last = len(values) - 1
    out[last - 1] = values[last]
    for row in range(last - 1, 0, -1):
        function(values[row], out[row], out=out[row - 1])
    before = values[0].copy()
    for row in range(1, last):
        function(before, out[row], out=out[row])
        function(before, values[row], out=before)
    out[last] = before
    return out


def write_nearest(values: Floats, candidates: Integers, window: int, out: Floats32, first: int = 0) -> None:
    """The other region whose price kept nearest over ``window`` intervals (usually the one without congestion between).

    Columns: price minus its price; mean distance over the window; its last moves; share of the candidates that are
    cheaper now. ``values`` (T, R), ``candidates`` as in ``Compared``, ``out`` (len(NEAREST_COLUMNS), T - first, R).
    """
    n_times, n_regions = values.shape
    halo = max(window - 1, max(MOVE_STEPS))
    block = max(_PAIR_BLOCK * BLOCK_CELLS // n_regions, 4 * halo, 1)
    steps = plan_windows([window])
    node = {1: 0} | {made: place + 1 for place, (made, _, _) in enumerate(steps)}
    tree = np.array([(a, node[a], node[b]) for _, a, b in steps], dtype=np.int64).reshape(-1, 3)
    for start in range(first, n_times, block):
        stop = min(start + block, n_times)
        price = np.ascontiguousarray(padded(values, start - halo, stop).T)
        _nearest(price, candidates, tree, window, halo, _MOVE_STEPS, out[:, start - first : stop - first])


@kernel
def _nearest(
    price: Floats,
    candidates: Integers,
    tree: Integers,
    window: int,
    halo: int,
    moves: Integers,
    out: Floats32,
) -> None:
    """One block, ``price`` (R, halo + n). ``tree`` (steps, 3) sums as ``rolling_sum`` does: length, node, node."""
    n_regions, n = price.shape
    gap, nodes = np.empty(n), np.empty((len(tree) + 1, n))
    near, cheaper, known = np.empty(n), np.empty(n), np.empty(n)
    for own in range(n_regions):
        near[:], cheaper[:], known[:] = np.inf, 0.0, 0.0
        for i in range(halo, n):
            for column in range(2 + len(moves)):
                out[column, i - halo, own] = np.nan
        for peer in candidates[own]:
            if peer < 0:
                break
            sign = 1.0 if own < peer else -1.0
            for i in range(n):
                gap[i] = price[min(own, peer), i] - price[max(own, peer), i]
                nodes[0, i] = abs(gap[i])
            for step in range(len(tree)):
                a, one, other, total = tree[step, 0], nodes[tree[step, 1]], nodes[tree[step, 2]], nodes[step + 1]
                total[: min(a, n)] = np.nan
                for i in range(a, n):
                    total[i] = one[i] + other[i - a]
            for i in range(halo, n):
                signed, distance = sign * gap[i], nodes[-1, i] / window
                cheaper[i] += signed > 0
                known[i] += signed == signed
                if distance < near[i]:
                    near[i] = distance
                    out[0, i - halo, own], out[1, i - halo, own] = signed, distance
                    for k in range(len(moves)):
                        out[2 + k, i - halo, own] = price[peer, i] - price[peer, i - moves[k]]
        for i in range(halo, n):
            out[2 + len(moves), i - halo, own] = cheaper[i] / known[i] if known[i] > 0 else np.nan
