"""The discrete state of the Q-table: what is known x time of day x a binned signal x charge node.

What belongs here: designs of the state, bin edges, and the map from signals to table rows. What doesn't: computing the
signals (``agent``) and learning (``learning``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from energy_ml.arrays import Floats, Integers

INFORMATION = ("price", "forecasts", "history", "forecasts and history")
"""What a decision may know beside the price and the hour; the position is the number used as the first axis."""
FORECASTS, HISTORY = 1, 2
TAIL_QUANTILES = (0.97, 0.985, 0.995)
SIGNALS = ("value", "price", "forecast")
"""What can be binned: the forecast value of stored energy, the price, or the longest price forecast given; each over
the price level of the last day."""


@dataclass(frozen=True)
class Design:
    """One way to lay out the state.

    ``learned_base`` starts from the value model; otherwise energy starts at the mean price and the table does it all.
    ``signal`` is binned into ``bins`` quantile bins (1: not at all), with further ones for the upper tail if ``tails``.
    ``discount`` is per hour.
    """

    name: str
    learned_base: bool
    signal: str
    bins: int
    discount: float
    tails: bool = False


@njit(cache=True)
def table_rows(
    information: Integers,
    minutes: Integers,
    signal: Floats,
    edges: Floats,
    time_bins: int,
) -> Integers:
    """Row of the table of each of N intervals; see ``StateSpace``."""
    rows = np.empty(len(signal), np.int64)
    bins = edges.shape[1] + 1
    for i in range(len(signal)):
        place = 0
        while place < bins - 1 and signal[i] >= edges[information[i], place]:
            place += 1
        rows[i] = (information[i] * time_bins + minutes[i] * time_bins // 1440) * bins + place
    return rows


@dataclass(frozen=True, eq=False)
class StateSpace:
    """Rows of the table: information level x time bin x signal bin.

    ``edges`` (information levels, bins - 1) separate the signal's bins.
    """

    time_bins: int
    edges: Floats

    @property
    def bins(self) -> int:
        """Bins of the signal."""
        return self.edges.shape[1] + 1

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return len(INFORMATION) * self.time_bins * self.bins

    def axes(self, nodes: int, signal: str) -> dict[str, Any]:
        """Names and labels of the axes of ``table.reshape(information, time, bin, charge)``, in that order."""
        return {
            "information": list(INFORMATION),
            "hour": [24.0 * i / self.time_bins for i in range(self.time_bins)],
            signal: list(range(self.bins)),
            "charge": np.linspace(0.0, 1.0, nodes).tolist(),
        }

    @classmethod
    def fit(cls, time_bins: int, design: Design, information: Integers, signal: Floats) -> StateSpace:
        """Quantile edges of the signal at each information level; levels without rows take those of the highest."""
        quantiles = np.arange(1, design.bins) / design.bins
        if design.tails:
            quantiles = np.unique(np.concatenate([quantiles, TAIL_QUANTILES]))
        edges = np.zeros((len(INFORMATION), len(quantiles)))
        highest = int(information.max())
        for level in range(len(INFORMATION)):
            rows = information == (level if (information == level).any() else highest)
            if len(quantiles):
                edges[level] = np.quantile(signal[rows], quantiles)
        return cls(time_bins, edges)
