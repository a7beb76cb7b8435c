"""The circular block bootstrap: how far a sum over time could have come out otherwise.

What belongs here: drawing blocks and summing them. What doesn't: what is summed, and what is decided by it.
"""

from __future__ import annotations

import numpy as np

from energy_ml.arrays import Floats


class BlockBootstrap:
    """Resampled sums of series over the same steps: Politis and Romano (1992), in Exploring the Limits of Bootstrap.

    Whole blocks keep the course of time together. One object draws the same blocks for every series, so differences
    and ratios of its sums are paired.

    Parameters
    ----------
    steps : length of the series, at least 1.
    block : steps per block, at least 1; all of the series where that is shorter.
    samples, seed : how many resampled series, and which.

    Examples
    --------
    >>> BlockBootstrap(30, block=7, samples=3).sums(np.full(30, 2.0))
    array([60., 60., 60.])
    """

    def __init__(self, steps: int, block: int, samples: int = 1000, seed: int = 42) -> None:
        self._steps, self._block = steps, min(block, steps)
        blocks = -(-steps // self._block)
        self._scale = steps / (blocks * self._block)
        self._starts = np.random.default_rng(seed).integers(0, steps, (samples, blocks))

    def sums(self, series: Floats) -> Floats:
        """Sum each resampled series of ``series`` (steps,): shape (samples,), in its unit."""
        ends = np.concatenate([[0.0], np.cumsum(np.concatenate([series, series[: self._block]]))])
        of_block = ends[self._block : self._block + self._steps] - ends[: self._steps]
        return np.asarray(of_block[self._starts].sum(axis=1) * self._scale)

    def p_value(self, difference: Floats) -> float:
        """Test one-sidedly that the mean of ``difference`` (steps,) isn't above 0: the share of sums that aren't."""
        # Prefix sums round; a difference of exactly nothing must count as "no more".
        noise = 16 * np.finfo(np.float64).eps * float(np.abs(difference).sum() + 1e-300) * self._starts.shape[1]
        return float((1 + np.count_nonzero(self.sums(difference) <= noise)) / (len(self._starts) + 1))
