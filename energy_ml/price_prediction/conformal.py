"""Intervals that keep their promised coverage: conformalised quantiles, corrected online.

What belongs here: the calibration state and the bounds of any level. What doesn't: the quantile model.

Romano, Patterson & Candes, "Conformalized quantile regression", NeurIPS 2019; Gibbs & Candes, "Adaptive conformal
inference under distribution shift", NeurIPS 2021. Scores live in the model's target space (a change on the arcsinh
scale), so that corrections add and a spike can't blow a band up by a factor; the working miscoverage is kept within
bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from energy_ml.arrays import Floats, Integers
from energy_ml.errors import ConfigError
from energy_ml.kernels import exchange, kernel

LEVELS = (0.80, 0.90, 0.95)
"""Levels that are calibrated by themselves; others lie between them on the normal scale."""
QUANTILES = (0.025, 0.05, 0.10, 0.50, 0.90, 0.95, 0.975)
"""What the quantile model gives, ascending; pairs from outside in belong to LEVELS from the last to the first."""
_MEMORY_MINUTES = 2880
"""Outcomes older than this no longer count."""
MIN_SCORES = 40
"""Fewer outcomes than this correct nothing."""
_LEARNING_RATE = 0.1
"""Step of the working miscoverage, as a share of the nominal one: what is missed more often learns faster. It is
divided by the root of the horizon's steps: outcomes of overlapping forecasts say the same, late, and overshoot."""
TIGHTEST, WIDEST = 3.0, 0.2
"""The working miscoverage stays within these multiples of the nominal one."""
_STATE = ("scores", "history", "filled", "next_slot", "miss", "pending")


@dataclass
class OnlineConformal:
    """State per region (R) for one horizon of ``steps`` intervals.

    ``scores`` (R, levels, memory): how far outcomes lay outside the quantile pair (negative: inside), sorted ascending,
    the first ``filled`` (R,) are valid; ``history``: the same in order of arrival; ``next_slot`` (R,); ``miss`` (R,
    levels): working miscoverage; ``pending`` (R, steps, quantiles + 2 levels): quantiles and issued bounds of origins
    whose target time is still to come.
    """

    regions: int
    steps: int
    interval_minutes: int
    scores: Floats = field(init=False)
    history: Floats = field(init=False)
    filled: Integers = field(init=False)
    next_slot: Integers = field(init=False)
    miss: Floats = field(init=False)
    pending: Floats = field(init=False)

    def __post_init__(self) -> None:
        memory = max(_MEMORY_MINUTES // self.interval_minutes, 2 * MIN_SCORES)
        self.scores = np.full((self.regions, len(LEVELS), memory), np.inf)
        self.history = np.full((self.regions, len(LEVELS), memory), np.nan)
        self.filled = np.zeros(self.regions, dtype=np.int64)
        self.next_slot = np.zeros(self.regions, dtype=np.int64)
        self.miss = np.tile(1 - np.array(LEVELS), (self.regions, 1))
        self.pending = self._nothing_pending()

    def _nothing_pending(self) -> Floats:
        return np.full((self.regions, self.steps, len(QUANTILES) + 2 * len(LEVELS)), np.nan)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if self.pending.shape[2] < len(QUANTILES) + 2 * len(LEVELS):
            # Saved before issued bounds were kept: the outcomes due next teach nothing.
            self.pending = self._nothing_pending()

    def run(self, value: Floats, quantiles: Floats, regions: Integers | slice = slice(None)) -> Floats:
        """Go through time: learn the outcome of each instant, then give bounds for the forecast made there.

        ``value`` (R, T): the outcome's scale coordinate at each instant (arcsinh of the price), NaN where no price was
        measured; ``quantiles`` (R, T, quantiles): ascending, on the same scale; NaN where there is none; ``regions``:
        which of all they are. Returns (R, T, levels, 2), lower and upper on that scale. Moves their state.
        """
        out = np.empty((*value.shape, len(LEVELS), 2))
        state = {name: getattr(self, name)[regions] for name in _STATE}
        _run(
            np.ascontiguousarray(value),
            np.ascontiguousarray(quantiles),
            state["scores"],
            state["history"],
            state["filled"],
            state["next_slot"],
            state["miss"],
            state["pending"],
            _LEARNING_RATE / self.steps**0.5,
            out,
        )
        for name, moved in state.items():
            getattr(self, name)[regions] = moved
        return out

    def bounds(self, region: int, quantiles: Floats) -> Floats:
        """Bounds (levels, 2) of one forecast's ascending ``quantiles`` at the present state, which doesn't move."""
        out = np.empty((len(LEVELS), 2))
        _bounds(quantiles, self.scores[region], self.filled[region], self.miss[region], out)
        return out


def at_level(bounds: Floats, median: Floats, level: float) -> Floats:
    """Bounds (..., 2) of any level from those of LEVELS (..., levels, 2) and the median (...,).

    Between calibrated levels, and beyond the outer one, bounds are linear in the normal quantile of the level; below
    the inner one they close in on the median.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"interval level is {level!r}", expected="between 0 and 1", remedy="use 0.80, 0.90 or 0.95")
    for place, calibrated in enumerate(LEVELS):
        if abs(level - calibrated) < 1e-9:
            return bounds[..., place, :]
    normal = NormalDist()
    position = normal.inv_cdf((1 + level) / 2)
    knots = [0.0, *(normal.inv_cdf((1 + calibrated) / 2) for calibrated in LEVELS)]
    values = np.concatenate([np.stack([median, median], axis=-1)[..., None, :], bounds], axis=-2)
    upper = min(max(int(np.searchsorted(knots, position)), 1), len(knots) - 1)
    share = (position - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
    return np.asarray(values[..., upper - 1, :] * (1 - share) + values[..., upper, :] * share)


@kernel
def _bounds(quantiles: Floats, scores: Floats, filled: int, miss: Floats, out: Floats) -> None:
    levels = miss.shape[0]
    median = quantiles[levels]
    for level in range(levels):
        correction = 0.0
        if filled >= MIN_SCORES:
            rank = int(np.ceil((filled + 1) * (1.0 - miss[level]))) - 1
            correction = scores[level, min(max(rank, 0), filled - 1)]
        # Level 0 is the narrowest and owns the innermost pair.
        low = quantiles[levels - 1 - level] - correction
        high = quantiles[levels + 1 + level] + correction
        out[level, 0], out[level, 1] = min(low, median), max(high, median)
    for level in range(1, levels):
        out[level, 0] = min(out[level, 0], out[level - 1, 0])
        out[level, 1] = max(out[level, 1], out[level - 1, 1])


@kernel
def _run(
    value: Floats,
    quantiles: Floats,
    scores: Floats,
    history: Floats,
    filled: Integers,
    next_slot: Integers,
    miss: Floats,
    pending: Floats,
    rate: float,
    out: Floats,
) -> None:
    levels, memory = scores.shape[1], scores.shape[2]
    steps, width = pending.shape[1], quantiles.shape[2]
    for r in range(value.shape[0]):
        for t in range(value.shape[1]):
            actual = value[r, t]
            due = pending[r, 0]
            if np.isfinite(actual) and np.isfinite(due[levels]):
                slot = next_slot[r]
                for level in range(levels):
                    # Judged by the bounds that were issued: what today's calibration would have made of that forecast
                    # covers more than what anybody was given.
                    low, high = due[width + 2 * level], due[width + 2 * level + 1]
                    outside = 1.0 if actual < low or actual > high else 0.0
                    target = 1.0 - LEVELS[level]
                    moved = miss[r, level] + rate * target * (target - outside)
                    miss[r, level] = min(max(moved, WIDEST * target), TIGHTEST * target)
                    score = max(due[levels - 1 - level] - actual, actual - due[levels + 1 + level])
                    exchange(scores[r, level], filled[r], history[r, level, slot], score)
                    history[r, level, slot] = score
                filled[r] = min(filled[r] + 1, memory)
                next_slot[r] = (slot + 1) % memory
            _bounds(quantiles[r, t], scores[r], filled[r], miss[r], out[r, t])
            # Loops rather than whole-row assignments, which double the time of compiling.
            for j in range(pending.shape[2]):
                for k in range(steps - 1):
                    pending[r, k, j] = pending[r, k + 1, j]
            for j in range(width):
                pending[r, steps - 1, j] = quantiles[r, t, j]
            for level in range(levels):
                pending[r, steps - 1, width + 2 * level] = out[r, t, level, 0]
                pending[r, steps - 1, width + 2 * level + 1] = out[r, t, level, 1]
