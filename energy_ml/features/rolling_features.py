"""Rolling mean, standard deviation, minimum and maximum over the last w intervals, all windows in one pass.

What belongs here: the window tree. What doesn't: which windows a model gets (``price_features``).

Each window is made of two windows already known (60 = 30 + 30, 15 = 10 + 5), so that five windows cost seven combining
steps. Means and sums of squared deviations merge by Chan, Golub and LeVeque, "Algorithms for computing the sample
variance", The American Statistician 37(3), 1983: no running sum, hence no drift, and a NaN spoils only the windows that
hold it. Which numbers are combined in which order depends on the window alone, never on where it stands: one row
computed from a tail of the data equals the batch row bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from energy_ml.arrays import Floats, Floats32, Integers
from energy_ml.features.lag_features import put, put_difference, read_only
from energy_ml.kernels import kernel, part

STATISTICS = ("mean", "std", "min", "max")
BLOCK_CELLS = 32_768
"""Cells (instants x regions) worked on at once, so that the tree stays in cache."""


def plan_windows(windows: Sequence[int]) -> list[tuple[int, int, int]]:
    """Combining steps (w, a, b) with w = a + b, each of a and b being 1 or made by an earlier step."""
    known = {1}
    steps: list[tuple[int, int, int]] = []

    def make(window: int) -> None:
        if window in known:
            return
        halves = next(((a, window - a) for a in sorted(known, reverse=True) if window - a in known), None)
        if halves is None:
            halves = (window - window // 2, window // 2)
            make(halves[1])
            make(halves[0])
        steps.append((window, *halves))
        known.add(window)

    for window in sorted(set(windows)):
        make(window)
    return steps


@lru_cache(maxsize=64)
def window_tree(windows: tuple[int, ...]) -> tuple[Integers, Integers]:
    """``plan_windows`` for compiled code: (steps, 4) window, a, node of a, node of b; and (windows, 2) length, node.

    Node 0 is the series itself, node k + 1 is made by step k.
    """
    steps = plan_windows(windows)
    node = {1: 0} | {window: place + 1 for place, (window, _, _) in enumerate(steps)}
    tree = np.array([(window, a, node[a], node[b]) for window, a, b in steps], dtype=np.int64).reshape(-1, 4)
    return tree, np.array([(window, node[window]) for window in windows], dtype=np.int64).reshape(-1, 2)


def rolling_sum(values: Floats, window: int, before: float = np.nan) -> Floats:
    """Sums over the last ``window`` rows of ``values`` (T, R), same shape.

    Rows before the first count as ``before``: NaN leaves unfinished windows NaN, 0 sums what there is.
    """
    tree, _ = window_tree((window,))
    nodes = np.empty((len(tree) + 1, len(values)))
    out = np.empty_like(values)
    for own, column in zip(out.T, values.T, strict=True):
        nodes[0] = column
        sum_windows(nodes, tree, 0, before)
        own[:] = nodes[-1]
    return out


@kernel
def sum_windows(nodes: Floats, tree: Integers, start: int, before: float) -> None:
    """Sums of the series in ``nodes[0]`` (n,) into the other nodes of ``tree``, from ``start`` on, as if it began there
    and each number before it were ``before``."""
    for step in range(len(tree)):
        # Slices, so that the compiler sees that no index is negative, and works on several numbers at once.
        a, own, total = tree[step, 1], nodes[tree[step, 2], start:], nodes[step + 1, start:]
        for i in range(min(a, len(total))):
            total[i] = own[i] + before
        later, one, other = total[a:], own[a:], nodes[tree[step, 3], start:]
        for i in range(len(later)):
            later[i] = one[i] + other[i]


def write_rolling(
    values: Floats, windows: Sequence[int], out: Floats32, first: int = 0, distances: Floats32 | None = None
) -> None:
    """Write the four statistics of each window.

    Parameters
    ----------
    values : (T, R) float64, C order.
    windows : whole numbers of intervals, each window ends at and includes the current one.
    out : (len(windows) * 4, T - first, R), mean, std (ddof 1), min, max of the first window, then of the next.
    first : rows before it aren't written.
    distances : (len(windows) * 3, T - first, R) or None; the current price minus mean, min and max.
    """
    tree, ends = window_tree(tuple(windows))
    block = max(BLOCK_CELLS // values.shape[1], 4 * max(windows))
    _write(read_only(values), tree, ends, block, first, out, out[:0] if distances is None else distances)


@kernel
def _write(
    values: Floats, tree: Integers, ends: Integers, block: int, first: int, out: Floats32, distances: Floats32
) -> None:
    n_times, width = values.shape
    halo = 0
    for place in range(len(ends)):
        halo = max(halo, ends[place, 0] - 1)
    # All arrays flat and time-major, so that one offset shifts all regions.
    flat, shape = values.reshape(-1), (n_times - first) * width
    columns, gaps = out.reshape(len(out), shape), distances.reshape(len(distances), shape)
    # Mean, squared deviations, lowest and highest of each node.
    nodes = np.zeros((4, len(tree) + 1, (min(block, n_times - first) + halo) * width))
    for start in range(first, n_times, block):
        size = (min(block, n_times - start) + halo) * width
        for i in range(size):
            cell = i + (start - halo) * width
            number = flat[cell] if cell >= 0 else np.nan
            nodes[0, 0, i], nodes[1, 0, i], nodes[2, 0, i], nodes[3, 0, i] = number, 0.0, number, number
        for step in range(len(tree)):
            window, a, own, other = tree[step, 0], tree[step, 1], tree[step, 2], tree[step, 3]
            begin, node, share, square = (
                (window - 1) * width,
                step + 1,
                (window - a) / window,
                a * (window - a) / window,
            )
            then = begin - a * width
            one, two, mean = nodes[0, own, begin:size], nodes[0, other, then:], nodes[0, node, begin:size]
            _squares(one, two, nodes[1, own, begin:], nodes[1, other, then:], square, nodes[1, node, begin:size])
            for i in range(len(mean)):
                mean[i] = one[i] + (two[i] - one[i]) * share
            _lower(nodes[2, own, begin:], nodes[2, other, then:], nodes[2, node, begin:size])
            _higher(nodes[3, own, begin:], nodes[3, other, then:], nodes[3, node, begin:size])
        now, written = slice(halo * width, size), (start - first) * width
        cells = slice(written, written + size - halo * width)
        for place in range(len(ends)):
            window, node = ends[place, 0], ends[place, 1]
            variance = nodes[1, node, now]
            for i in range(len(variance)):
                variance[i] *= 1 / (window - 1)
            for k in range(4):
                put(nodes[k, node, now], columns[4 * place + k, cells])
            deviation = columns[4 * place + 1, cells]
            for i in range(len(deviation)):  # the root of the number as stored
                deviation[i] = math.sqrt(np.float64(deviation[i]))
            for k in range(len(gaps) // len(ends)):
                put_difference(nodes[0, 0, now], nodes[k + (k > 0), node, now], gaps[3 * place + k, cells])


@part
def _squares(a: Floats, b: Floats, of_a: Floats, of_b: Floats, share: float, out: Floats) -> None:
    """Squared deviations of two windows together, by their means and their own; one result at a time, so that the
    compiler works on several cells at once."""
    for i in range(len(out)):
        delta = b[i] - a[i]
        out[i] = (of_a[i] + of_b[i]) + delta * delta * share


@part
def _lower(a: Floats, b: Floats, out: Floats) -> None:
    """The lower ones of (n,) and (n,); unknown where one is."""
    for i in range(len(out)):
        out[i] = a[i] if (a[i] <= b[i]) | (a[i] != a[i]) else b[i]


@part
def _higher(a: Floats, b: Floats, out: Floats) -> None:
    for i in range(len(out)):
        out[i] = a[i] if (a[i] >= b[i]) | (a[i] != a[i]) else b[i]
