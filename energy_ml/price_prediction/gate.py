"""The online gate: how far a forecast may leave the current price, learned from outcomes as they become known.

What belongs here: the gate's state, learning from an outcome, and the gated forecast. What doesn't: the ensemble's
members.

The gated forecast is ``price_now + a * (ensemble - price_now)``. For each region, ``a`` is one unless another value
on a grid had less exponentially weighted absolute error so far, by more than its standard error and a prior of
pseudo-outcomes. Following the leader without that doubt (Cesa-Bianchi & Lugosi, "Prediction, Learning, and Games",
2006, ch. 3 and 4) costs a good ensemble up to a hundredth of its error. An outcome counts only once its target time
has passed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from energy_ml.arrays import Floats
from energy_ml.features.neighbours import HANDFUL
from energy_ml.kernels import kernel

GRID = np.round(np.arange(0.0, 1.25, 0.1), 1)
_HALF_LIVES_MINUTES = (720.0, 5760.0)
"""A quick memory notices that the market has left what the model knows; a slow one holds on to skill. Their factors are
averaged."""
DOUBT = 1.0
"""So many standard errors must another factor be ahead of one."""
_LARGEST_SAY = 5.0
"""An outcome speaks for or against a factor with at most so many usual moves: an hour of spikes isn't a day's
evidence."""
PRIOR_OUTCOMES = 10.0
OTHERS_WEIGHT = 0.1
"""Weight of the other regions' outcomes in a region's choice: a region alone is noisy, all together are deaf."""


@dataclass
class OnlineGate:
    """State per region (R) for one horizon of ``steps`` intervals; all in currency/MWh.

    ``loss`` (memories, R, grid): weighted absolute errors beyond those of the factor one; ``square``: the same of their
    squares; ``size`` (memories, R): weighted sum of absolute forecast moves; ``count`` (memories, R): sum of weights;
    ``pending`` (R, steps, 2): price and ensemble forecast of the origins whose target time is still to come, oldest
    first; NaN where none was made.
    """

    regions: int
    steps: int
    interval_minutes: int
    loss: Floats = field(init=False)
    square: Floats = field(init=False)
    size: Floats = field(init=False)
    count: Floats = field(init=False)
    pending: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._know_nothing()
        self.pending = np.full((self.regions, self.steps, 2), np.nan)

    def _know_nothing(self) -> None:
        shape = (len(_HALF_LIVES_MINUTES), self.regions)
        self.loss, self.square = np.zeros((*shape, len(GRID))), np.zeros((*shape, len(GRID)))
        self.size, self.count = np.zeros(shape), np.zeros(shape)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if "square" not in state:  # saved when losses were of another kind
            self._know_nothing()

    @property
    def decay(self) -> Floats:
        """What an outcome's weight is multiplied with per interval, for each memory."""
        return np.asarray(0.5 ** (self.interval_minutes / np.array(_HALF_LIVES_MINUTES)))

    def run(self, price: Floats, ensemble: Floats, outcome: Floats | None = None) -> Floats:
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
            self.square,
            self.size,
            self.count,
            self.pending,
            self.decay,
            out,
        )
        return out

    def apply(self, region: int, price: float, ensemble: float) -> float:
        """The gated forecast of one region at the present state, which doesn't move."""
        return float(price + self._factor_of(region) * (ensemble - price))

    def factors(self) -> Floats:
        """Today's factor of each region, shape (R,)."""
        return np.array([self._factor_of(region) for region in range(self.regions)])

    def _factor_of(self, region: int) -> float:
        return float(
            _factor(region, self.loss, self.square, self.size, self.count, _sums(self.loss), _sums(self.square))
        )


@kernel
def _sums(state: Floats) -> Floats:
    """Sums over regions (memories, grid) of ``loss`` or ``square``, for a market of more than a handful."""
    total = np.zeros((state.shape[0], state.shape[2]))
    if state.shape[1] > HANDFUL:
        for m in range(state.shape[0]):
            for r in range(state.shape[1]):
                for g in range(state.shape[2]):
                    total[m, g] += state[m, r, g]
    return total


@kernel
def _factor(
    region: int, loss: Floats, square: Floats, size: Floats, count: Floats, all_loss: Floats, all_square: Floats
) -> float:
    mean = 0.0
    for m in range(loss.shape[0]):
        # The prior speaks in moves of the usual size, so that it weighs the same in calm and in wild markets.
        usual = size[m, region] / count[m, region] if count[m, region] > 0.0 else 1.0
        best, least = 1.0, 0.0
        for g in range(GRID.shape[0]):
            total, variance = PRIOR_OUTCOMES * usual * abs(GRID[g] - 1.0), 0.0
            if loss.shape[1] > HANDFUL:  # pairs of thousands of regions would be millions
                own, spread = loss[m, region, g], square[m, region, g]
                total += own + OTHERS_WEIGHT * (all_loss[m, g] - own)
                variance += spread + OTHERS_WEIGHT * OTHERS_WEIGHT * max(all_square[m, g] - spread, 0.0)
            else:
                for r in range(loss.shape[1]):
                    weight = 1.0 if r == region else OTHERS_WEIGHT
                    total += weight * loss[m, r, g]
                    variance += weight * weight * square[m, r, g]
            total += DOUBT * np.sqrt(variance)
            if total < least:
                least, best = total, GRID[g]
        mean += best / loss.shape[0]
    return mean


@kernel
def _run(
    price: Floats,
    ensemble: Floats,
    outcome: Floats,
    loss: Floats,
    square: Floats,
    size: Floats,
    count: Floats,
    pending: Floats,
    decay: Floats,
    out: Floats,
) -> None:
    regions, steps = pending.shape[0], pending.shape[1]
    for t in range(price.shape[1]):
        for m in range(decay.shape[0]):
            # Loops: whole-array expressions take numba three times as long to compile.
            for r in range(regions):
                size[m, r] *= decay[m]
                count[m, r] *= decay[m]
                for g in range(GRID.shape[0]):
                    loss[m, r, g] *= decay[m]
                    square[m, r, g] *= decay[m]
        for r in range(regions):
            actual = outcome[r, t]
            before, forecast = pending[r, 0, 0], pending[r, 0, 1]
            if np.isfinite(actual) and np.isfinite(before) and np.isfinite(forecast):
                for m in range(decay.shape[0]):
                    size[m, r] += abs(forecast - before)
                    count[m, r] += 1.0
                    most = _LARGEST_SAY * size[m, r] / count[m, r]
                    for g in range(GRID.shape[0]):
                        more = abs(actual - before - GRID[g] * (forecast - before)) - abs(actual - forecast)
                        more = min(max(more, -most), most)
                        loss[m, r, g] += more
                        square[m, r, g] += more * more
            for k in range(steps - 1):
                pending[r, k, 0], pending[r, k, 1] = pending[r, k + 1, 0], pending[r, k + 1, 1]
            pending[r, steps - 1, 0], pending[r, steps - 1, 1] = price[r, t], ensemble[r, t]
        # All regions of an instant learn before any forecasts from it: their outcomes are known together.
        all_loss, all_square = _sums(loss), _sums(square)
        for r in range(regions):
            factor = _factor(r, loss, square, size, count, all_loss, all_square)
            out[r, t] = price[r, t] + factor * (ensemble[r, t] - price[r, t])
