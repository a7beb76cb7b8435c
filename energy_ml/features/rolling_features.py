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
    flat, written = values.reshape(-1), (n_times - first) * width
    columns, gaps = out.reshape(len(out), written), distances.reshape(len(distances), written)
    shape = (len(tree) + 1, (min(block, n_times - first) + halo) * width)
    mean, m2, low, high = np.empty(shape), np.zeros(shape), np.empty(shape), np.empty(shape)
    for start in range(first, n_times, block):
        size = (min(block, n_times - start) + halo) * width
        unknown = max(halo - start, 0) * width
        begin = (start - halo) * width
        for i in range(size):
            number = flat[begin + i] if i >= unknown else np.nan
            mean[0, i], low[0, i], high[0, i] = number, number, number
        for step in range(len(tree)):
            window, a, own, other = tree[step, 0], tree[step, 1], tree[step, 2], tree[step, 3]
            begin, back, node = (window - 1) * width, a * width, step + 1
            share, square = (window - a) / window, a * (window - a) / window
            # One result at a time: the compiler then works on several cells at once.
            one, other_one, result = (
                mean[own, begin:size],
                mean[other, begin - back : size - back],
                mean[node, begin:size],
            )
            parts, other_parts, squares = m2[own, begin:size], m2[other, begin - back :], m2[node, begin:size]
            for i in range(len(squares)):
                delta = other_one[i] - one[i]
                squares[i] = (parts[i] + other_parts[i]) + delta * delta * square
            for i in range(len(result)):
                result[i] = one[i] + (other_one[i] - one[i]) * share
            _lower(low[own, begin:], low[other, begin - back :], low[node, begin:size])
            _higher(high[own, begin:], high[other, begin - back :], high[node, begin:size])
        now, cells = (
            slice(halo * width, size),
            slice((start - first) * width, (start - first) * width + size - halo * width),
        )
        for place in range(len(ends)):
            window, node = ends[place, 0], ends[place, 1]
            put(mean[node, now], columns[4 * place, cells])
            _put_deviation(m2[node, now], window, columns[4 * place + 1, cells])
            put(low[node, now], columns[4 * place + 2, cells])
            put(high[node, now], columns[4 * place + 3, cells])
            if len(gaps):
                put_difference(mean[0, now], mean[node, now], gaps[3 * place, cells])
                put_difference(mean[0, now], low[node, now], gaps[3 * place + 1, cells])
                put_difference(mean[0, now], high[node, now], gaps[3 * place + 2, cells])


@part
def _lower(a: Floats, b: Floats, out: Floats) -> None:
    """The lower ones of (n,) and (n,); unknown where one is."""
    for i in range(len(out)):
        out[i] = a[i] if (a[i] <= b[i]) | (a[i] != a[i]) else b[i]


@part
def _higher(a: Floats, b: Floats, out: Floats) -> None:
    for i in range(len(out)):
        out[i] = a[i] if (a[i] >= b[i]) | (a[i] != a[i]) else b[i]


@part
def _put_deviation(squares: Floats, window: int, out: Floats32) -> None:
    """Roots of the variances as stored: float32."""
    for i in range(len(out)):
        out[i] = math.sqrt(np.float64(np.float32(squares[i] * (1 / (window - 1))))) if window > 1 else np.nan
