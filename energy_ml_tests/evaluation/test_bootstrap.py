"""The block bootstrap against brute force, known answers and what it promises of coverage and size."""

from __future__ import annotations

import numpy as np
import pytest

from energy_ml.evaluation.bootstrap import BlockBootstrap

RNG = np.random.default_rng(7)


def test_sums_and_p_value_agree_with_brute_force():
    series = RNG.normal(0.05, 1, 60)
    draws = BlockBootstrap(60, block=7, samples=500, seed=3)
    starts = np.random.default_rng(3).integers(0, 60, size=(500, 9))
    means = [np.mean([series[(s + k) % 60] for s in row for k in range(7)]) for row in starts]
    np.testing.assert_allclose(draws.sums(series), 60 * np.array(means), atol=1e-9)
    assert draws.p_value(series) == (1 + sum(mean <= 0 for mean in means)) / 501


def test_certainty_and_ties():
    draws = BlockBootstrap(20, block=3, samples=2000)
    assert draws.p_value(np.full(20, 0.1)) == 1 / 2001
    assert draws.p_value(np.zeros(20)) == 1
    assert BlockBootstrap(20, block=100).p_value(np.full(20, -0.1)) == 1
    np.testing.assert_allclose(BlockBootstrap(30, block=7, samples=50).sums(np.full(30, 2.0)), 60.0)


def test_means_are_kept_and_covered():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(60):
        series = np.repeat(rng.normal(1.0, 1.0, 60), 24)
        sums = BlockBootstrap(len(series), block=24, samples=300, seed=seed).sums(series)
        assert sums.mean() == pytest.approx(series.sum(), rel=0.1)
        low, high = np.quantile(sums, [0.05, 0.95])
        covered += low <= len(series) <= high
    assert 46 <= covered <= 60


def test_it_rejects_about_as_often_as_it_says_on_correlated_profit():
    """With single steps as blocks it would reject an equal policy far too often; with long blocks it hardly does."""
    rejected = {1: 0, 24: 0}
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=300 + 24)
        series = np.convolve(noise, np.ones(24), "valid")[:300]  # each profit lasts for a day of hours
        for block in rejected:
            rejected[block] += BlockBootstrap(300, block, samples=200).p_value(series) <= 0.05
    assert rejected[1] > 60
    assert rejected[24] < 35
