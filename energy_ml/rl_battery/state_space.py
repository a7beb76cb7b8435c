"""The discrete state of the Q-table: what is known x time of day x gap x slice of the charge range.

What belongs here: bins, and reading the table. What doesn't: where planned values come from (``lookahead``, ``agent``)
and learning (``learning``).

The gap of a slice is what the plan says a MWh in it is worth, minus the price now, over the price level: the price on
the scale that matters to a battery. Where it is far below 0 selling is on offer, far above 0 buying.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from energy_ml.arrays import Floats, Integers
from energy_ml.kernels import kernel

INFORMATION = ("price", "forecasts", "history", "forecasts and history")
"""What a decision may know beside the price and the hour; the position is the number used as the first axis."""
FORECASTS, HISTORY = 1, 2
Rows = TypeVar("Rows", bound=NamedTuple)


class QTable(NamedTuple):
    """What Q-learning adds to the planned value of a MWh, in price levels.

    ``values`` (information, time bins, gap bins, slices); ``middles`` (information, gap bins), rising: the gap that
    each bin stands for. Between two of them the table is read on a straight line.
    """

    values: Floats
    middles: Floats

    def axes(self) -> dict[str, object]:
        """Names and labels of the axes of ``values``: UTC hours, gaps with all known, slices as charge fractions."""
        _, times, _, slices = self.values.shape
        return {
            "information": list(INFORMATION),
            "hour": [24.0 * i / times for i in range(times)],
            "gap": self.middles[-1].tolist(),
            "charge": ((np.arange(slices) + 0.5) / slices).tolist(),
        }


class Seen(NamedTuple):
    """What is known at each of N intervals.

    ``price`` (N,): the newest known. ``expected`` (N,): price of the interval that is acted in. ``planned`` (N,
    slices): what the plan says a MWh is worth, from the empty to the full battery, currency/MWh. ``level`` (N,): price
    level, currency/MWh. ``information`` (N,): see ``INFORMATION``. ``minutes`` (N,): of the UTC day.
    """

    price: Floats
    expected: Floats
    planned: Floats
    level: Floats
    information: Integers
    minutes: Integers

    def rows(self, rows: slice | Integers) -> Seen:
        """These rows only."""
        return Seen._make(column[rows] for column in self)


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows of several tuples of arrays, or of such tuples, one after another."""
    columns = zip(*parts, strict=True)
    return parts[0]._make(joined(c) if isinstance(c[0], tuple) else np.concatenate(c) for c in columns)


class Places(NamedTuple):
    """Where N intervals fall in a table: ``information`` and ``time`` bin (N,), and per slice (N, slices) the gap bin
    below and the ``share`` of the way to the next one."""

    information: Integers
    time: Integers
    lower: Integers
    share: Floats


@kernel
def find_places(seen: Seen, middles: Floats, time_bins: int) -> Places:
    """Places of N intervals in a table of these gaps."""
    n, slices = seen.planned.shape
    last = middles.shape[1] - 1
    lower, share = np.zeros((n, slices), np.int64), np.zeros((n, slices))
    for t in range(n):
        bins = middles[seen.information[t]]
        for j in range(slices):
            gap = (seen.planned[t, j] - seen.price[t]) / seen.level[t]
            if gap <= bins[0]:
                continue
            if gap >= bins[last]:
                lower[t, j] = last
                continue
            i = 0
            while gap >= bins[i + 1]:
                i += 1
            lower[t, j], share[t, j] = i, (gap - bins[i]) / (bins[i + 1] - bins[i])
    return Places(seen.information, seen.minutes * time_bins // 1440, lower, share)


@kernel
def read(values: Floats, places: Places, t: int, j: int) -> float:
    """The table's entry for slice j of interval t."""
    row = values[places.information[t], places.time[t]]
    i, share = places.lower[t, j], places.share[t, j]
    return float(row[i, j] + share * (row[i + 1, j] - row[i, j]) if share > 0.0 else row[i, j])


@kernel
def stored_values(seen: Seen, values: Floats, places: Places, scale: Floats, width: float) -> Floats:
    """Value of the charge at each node above the empty battery, (N, slices + 1) currency, for slices of ``width`` MWh.

    ``scale`` (N,): currency/MWh of a unit of the table.
    """
    n, slices = seen.planned.shape
    out = np.zeros((n, slices + 1))
    for t in range(n):
        for j in range(slices):
            out[t, j + 1] = out[t, j] + width * (seen.planned[t, j] + scale[t] * read(values, places, t, j))
    return out


def gap_bins(seen: list[Seen], bins: int) -> Floats:
    """The gaps that bins stand for, (information, bins): the middle of each of ``bins`` equal parts of what was met.

    Levels of information that weren't met take those of the highest one that was.
    """
    parts = (np.arange(bins) + 0.5) / bins
    information = np.concatenate([s.information for s in seen])
    gaps = np.concatenate([(s.planned - s.price[:, None]) / s.level[:, None] for s in seen])
    out = np.empty((len(INFORMATION), bins))
    for level in range(len(INFORMATION)):
        rows = information == (level if (information == level).any() else information.max())
        # Equal gaps would leave nothing between two bins.
        out[level] = np.maximum.accumulate(np.quantile(gaps[rows], parts) + 1e-9 * np.arange(bins))
    return out


def rising(values: Floats, middles: Floats, weights: Floats) -> Floats:
    """The table nearest to ``values`` under which a MWh that is planned to be worth more is worth more.

    Per level, time and slice, gap + entry must not fall with the gap: neighbours that break the rule share their mean,
    weighted by how often each was met (pool adjacent violators: Barlow and others, Statistical Inference under Order
    Restrictions, 1972). Forecasts that rise then never lower the value of what is stored.
    """
    out = values.copy()
    levels, times, _, slices = values.shape
    for level in range(levels):
        for time in range(times):
            for j in range(slices):
                worth = middles[level] + values[level, time, :, j]
                if (np.diff(worth) >= 0).all():
                    continue
                blocks: list[list[float]] = []
                for value, weight in zip(worth, weights[level, time, :, j] + 1e-6, strict=True):
                    blocks.append([value, weight, 1.0])
                    while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
                        (a, wa, na), (b, wb, nb) = blocks[-2], blocks.pop()
                        blocks[-1] = [(a * wa + b * wb) / (wa + wb), wa + wb, na + nb]
                steady = np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks])
                out[level, time, :, j] = steady - middles[level]
    return out
