"""The online gate: how far a forecast may leave the current price, learned from outcomes as they become known.

What belongs here: the gate's state, learning from an outcome, and the gated forecast. What doesn't: the ensemble's
members.

The gated forecast is ``price_now + a * (ensemble - price_now)``. For each region, ``a`` is the value on a grid with
the least exponentially weighted absolute error so far (follow the leader over shrunken experts; Cesa-Bianchi &
Lugosi, "Prediction, Learning, and Games", 2006, ch. 3 and 4). A prior of pseudo-outcomes holds ``a`` near one until
outcomes say otherwise. An outcome counts only once its target time has passed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

GRID = np.round(np.arange(0.0, 1.25, 0.1), 1)
HALF_LIVES_MINUTES = (360.0, 1440.0)
"""A quick memory notices that the market has left what the model knows; a slow one holds on to skill. Their factors are
averaged."""
PRIOR_OUTCOMES = 10.0
POOLED = 0.1
"""Weight of the other regions' outcomes in a region's choice: a region alone is noisy, all together are deaf."""


@dataclass
class OnlineGate:
    """State per region (R) for one horizon of ``steps`` intervals; all in currency/MWh.

    ``loss`` (memories, R, grid): weighted absolute errors; ``size`` (memories, R): weighted sum of absolute forecast
    moves; ``count`` (memories, R): sum of weights; ``pending`` (R, steps, 2): price and ensemble forecast of the
    origins whose target time is still to come, oldest first; NaN where none was made.
    """

    regions: int
    steps: int
    interval_minutes: int
    loss: Array = field(init=False)
    size: Array = field(init=False)
    count: Array = field(init=False)
    pending: Array = field(init=False)

    def __post_init__(self) -> None:
        memories = len(HALF_LIVES_MINUTES)
        self.loss = np.zeros((memories, self.regions, len(GRID)))
        self.size = np.zeros((memories, self.regions))
        self.count = np.zeros((memories, self.regions))
        self.pending = np.full((self.regions, self.steps, 2), np.nan)

    @property
    def decay(self) -> Array:
        """What an outcome's weight is multiplied with per interval, for each memory."""
        return np.asarray(0.5 ** (self.interval_minutes / np.array(HALF_LIVES_MINUTES)))

    def run(self, price: Array, ensemble: Array, outcome: Array | None = None) -> Array:
        """Go through time: learn the outcome of each instant, then forecast from it.

        ``price`` and ``ensemble`` (R, T): the price at each origin and the ensemble's forecast made there, NaN where
        there is none; ``outcome`` (R, T): the price where it was measured, which alone teaches, else NaN; by default
        every price. Returns gated forecasts (R, T). Moves the state.
        """
        out = np.empty_like(price)
        _run(
            price,
            ensemble,
            price if outcome is None else outcome,
            self.loss,
            self.size,
            self.count,
            self.pending,
            self.decay,
            GRID,
            PRIOR_OUTCOMES,
            POOLED,
            out,
        )
        return out

    def apply(self, region: int, price: float, ensemble: float) -> float:
        """The gated forecast of one region at the present state, which doesn't move."""
        return float(
            price + _factor(region, self.loss, self.size, self.count, GRID, PRIOR_OUTCOMES, POOLED) * (ensemble - price)
        )

    def factors(self) -> Array:
        """Today's factor of each region, shape (R,)."""
        return np.array(
            [_factor(r, self.loss, self.size, self.count, GRID, PRIOR_OUTCOMES, POOLED) for r in range(self.regions)]
        )


@numba.njit(cache=True)
def _factor(region: int, loss: Array, size: Array, count: Array, grid: Array, prior: float, pooled: float) -> float:
    mean = 0.0
    for m in range(loss.shape[0]):
        # The prior speaks in moves of the usual size, so that it weighs the same in calm and in wild markets.
        usual = size[m, region] / count[m, region] if count[m, region] > 0.0 else 1.0
        best, least = 1.0, np.inf
        for g in range(grid.shape[0]):
            total = prior * usual * abs(grid[g] - 1.0)
            for r in range(loss.shape[1]):
                total += loss[m, r, g] * (1.0 if r == region else pooled)
            if total < least:
                least, best = total, grid[g]
        mean += best / loss.shape[0]
    return mean


@numba.njit(cache=True)
def _run(
    price: Array,
    ensemble: Array,
    outcome: Array,
    loss: Array,
    size: Array,
    count: Array,
    pending: Array,
    decay: Array,
    grid: Array,
    prior: float,
    pooled: float,
    out: Array,
) -> None:
    regions, steps = pending.shape[0], pending.shape[1]
    for t in range(price.shape[1]):
        for m in range(decay.shape[0]):
            # Loops: whole-array expressions take numba three times as long to compile.
            for r in range(regions):
                size[m, r] *= decay[m]
                count[m, r] *= decay[m]
                for g in range(grid.shape[0]):
                    loss[m, r, g] *= decay[m]
        for r in range(regions):
            actual = outcome[r, t]
            before, forecast = pending[r, 0, 0], pending[r, 0, 1]
            if np.isfinite(actual) and np.isfinite(before) and np.isfinite(forecast):
                for m in range(decay.shape[0]):
                    for g in range(grid.shape[0]):
                        loss[m, r, g] += abs(actual - before - grid[g] * (forecast - before))
                    size[m, r] += abs(forecast - before)
                    count[m, r] += 1.0
            for k in range(steps - 1):
                pending[r, k, 0], pending[r, k, 1] = pending[r, k + 1, 0], pending[r, k + 1, 1]
            pending[r, steps - 1, 0], pending[r, steps - 1, 1] = price[r, t], ensemble[r, t]
        # All regions of an instant learn before any forecasts from it: their outcomes are known together.
        for r in range(regions):
            factor = _factor(r, loss, size, count, grid, prior, pooled)
            out[r, t] = price[r, t] + factor * (ensemble[r, t] - price[r, t])
