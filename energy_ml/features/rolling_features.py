"""Rolling mean, standard deviation, minimum and maximum over the last w intervals, all windows in one pass.

What belongs here: the window tree. What doesn't: which windows a model gets (features/__init__).

Each window is made of two windows already known (60 = 30 + 30, 15 = 10 + 5), so that five windows cost seven combining
steps. Means and sums of squared deviations merge by Chan, Golub and LeVeque, "Algorithms for computing the sample
variance", The American Statistician 37(3), 1983: no running sum, hence no drift, and a NaN spoils only the windows that
hold it. Which numbers are combined in which order depends on the window alone, never on where it stands: one row
computed from a tail of the data equals the batch row bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from energy_ml.arrays import Floats, Floats32

STATISTICS = ("mean", "std", "min", "max")
BLOCK_CELLS = 32_768
"""Cells (instants x regions) worked on at once: the buffers stay in cache, and calls are few."""


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


def rolling_sum(values: Floats, windows: Sequence[int], before: float = np.nan) -> dict[int, Floats]:
    """Sums over the last w rows of ``values`` (T, R): {w: (T, R) float64}.

    Rows before the first count as ``before``: NaN leaves unfinished windows NaN, 0 sums what there is.
    """
    sums: dict[int, Floats] = {1: values}
    for window, a, b in plan_windows(windows):
        total = sums[a] + before
        np.add(sums[a][a:], sums[b][: max(len(values) - a, 0)], out=total[a:])
        sums[window] = total
    return {window: sums[window] for window in windows}


def padded(values: Floats, start: int, stop: int) -> Floats:
    """Rows start..stop of ``values`` (T, R) with NaN rows for a negative ``start``."""
    if start >= 0:
        return values[start:stop]
    return np.concatenate([np.full((-start, *values.shape[1:]), np.nan), values[:stop]])


def write_rolling(
    values: Floats,
    windows: Sequence[int],
    out: Floats32,
    first: int = 0,
    distances: Floats32 | None = None,
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
    n_times, n_regions = values.shape
    halo = max(windows) - 1
    block = max(BLOCK_CELLS // n_regions, 4 * halo, 1)
    work = _Tree(windows, min(block, n_times - first) + halo, n_regions)
    for start in range(first, n_times, block):
        stop = min(start + block, n_times)
        part = slice(start - first, stop - first)
        work.run(
            np.ascontiguousarray(padded(values, start - halo, stop)).reshape(-1),
            halo * n_regions,
            out.reshape(len(out), n_times - first, n_regions)[:, part],
            None if distances is None else distances[:, part],
        )


class _Tree:
    """The buffers of one tree, reused for every block; arrays are flat, time-major."""

    def __init__(self, windows: Sequence[int], n_rows: int, n_regions: int) -> None:
        self.windows, self.n_regions = list(windows), n_regions
        self.steps = plan_windows(windows)
        size = n_rows * n_regions
        self.nodes = {window: tuple(np.empty(size) for _ in range(4)) for window, _, _ in self.steps}
        self.zeros, self.delta, self.scaled = np.zeros(size), np.empty(size), np.empty(size)

    def run(self, price: Floats, skip: int, out: Floats32, distances: Floats32 | None) -> None:
        """One block; ``price`` is flat with ``skip`` cells of history before the first one to write."""
        size = len(price)
        nodes = {1: (price, self.zeros, price, price), **self.nodes}
        for window, a, b in self.steps:
            shift, begin = a * self.n_regions, (window - 1) * self.n_regions
            now, then = slice(begin, size), slice(begin - shift, size - shift)
            mean, m2, low, high = (array[now] for array in nodes[window])
            mean_a, m2_a, low_a, high_a = (array[now] for array in nodes[a])
            mean_b, m2_b, low_b, high_b = (array[then] for array in nodes[b])
            delta, scaled = self.delta[now], self.scaled[now]
            np.subtract(mean_b, mean_a, out=delta)
            np.multiply(delta, b / window, out=scaled)
            np.add(mean_a, scaled, out=mean)
            np.multiply(delta, delta, out=delta)
            np.multiply(delta, a * b / window, out=delta)
            np.add(m2_a, m2_b, out=m2)
            np.add(m2, delta, out=m2)
            np.minimum(low_a, low_b, out=low)
            np.maximum(high_a, high_b, out=high)
        shape = out.shape[1:]
        current = price[skip:].reshape(shape)
        for place, window in enumerate(self.windows):
            mean, m2, low, high = (array[skip:size].reshape(shape) for array in nodes[window])
            columns = out[4 * place : 4 * place + 4]
            columns[0] = mean
            if window > 1:
                np.multiply(m2, 1 / (window - 1), out=columns[1], casting="same_kind")
                np.sqrt(columns[1], out=columns[1])
            else:
                columns[1] = np.nan
            columns[2] = low
            columns[3] = high
            if distances is not None:
                for column, statistic in zip(distances[3 * place : 3 * place + 3], (mean, low, high), strict=True):
                    np.subtract(current, statistic, out=column, casting="same_kind")
