"""Intervals: coverage on drifting data, no look-ahead, levels in order."""

from __future__ import annotations

import numpy as np
import pytest

from energy_ml.errors import ConfigError
from energy_ml.price_prediction.conformal import LEVELS, MIN_SCORES, QUANTILES, OnlineConformal, at_level


def quantiles_of(center: np.ndarray, width: float) -> np.ndarray:
    return center[..., None] + width * np.linspace(-1, 1, len(QUANTILES))


def test_covers_after_a_change_of_regime_although_the_quantiles_are_far_too_narrow() -> None:
    rng = np.random.default_rng(0)
    n = 6000
    scale = np.where(np.arange(n) < n // 2, 1.0, 4.0)
    value = rng.normal(size=(2, n)) * scale
    steps = 3
    bounds = OnlineConformal(2, steps, 5).run(value, quantiles_of(np.zeros((2, n)), 0.1))
    later = slice(n // 2 + 900, n - steps)
    for place, level in enumerate(LEVELS):
        made = bounds[:, later, place]
        actual = value[:, n // 2 + 900 + steps :]
        inside = (actual >= made[..., 0]) & (actual <= made[..., 1])
        assert abs(inside.mean() - level) < 0.02


def test_bounds_never_use_a_later_value() -> None:
    rng = np.random.default_rng(1)
    value = rng.normal(size=(1, 300))
    quantiles = quantiles_of(rng.normal(size=(1, 300)), 0.5)
    whole = OnlineConformal(1, 4, 5).run(value, quantiles)
    changed = value.copy()
    changed[:, 200:] += 50
    assert (OnlineConformal(1, 4, 5).run(changed, quantiles)[:, :200] == whole[:, :200]).all()
    assert (OnlineConformal(1, 4, 5).run(changed, quantiles)[:, 200:] != whole[:, 200:]).any()


def test_running_in_pieces_and_asking_live_give_the_same_bounds_bit_for_bit() -> None:
    rng = np.random.default_rng(2)
    value = rng.normal(size=(2, 400))
    value[0, 50:60] = np.nan
    quantiles = quantiles_of(rng.normal(size=(2, 400)), 0.5)
    whole = OnlineConformal(2, 3, 60).run(value, quantiles)
    state = OnlineConformal(2, 3, 60)
    for t in range(400):
        assert (state.run(value[:, t : t + 1], quantiles[:, t : t + 1])[:, 0] == whole[:, t]).all()
        assert (state.bounds(1, quantiles[1, t]) == whole[1, t]).all()


def test_state_saved_before_issued_bounds_were_kept_goes_on_without_what_was_due() -> None:
    rng = np.random.default_rng(4)
    value = rng.normal(size=(1, 300))
    quantiles = quantiles_of(rng.normal(size=(1, 300)), 0.5)
    state = OnlineConformal(1, 6, 60)
    state.run(value, quantiles)
    older = OnlineConformal.__new__(OnlineConformal)
    older.__setstate__(state.__dict__ | {"pending": state.pending[..., : len(QUANTILES)].copy()})
    assert (older.bounds(0, quantiles[0, 0]) == state.bounds(0, quantiles[0, 0])).all()
    assert np.isfinite(older.run(value, quantiles)).all()


def test_scores_stay_sorted_and_hold_the_newest_outcomes() -> None:
    rng = np.random.default_rng(3)
    state = OnlineConformal(1, 1, 60)
    memory = state.scores.shape[2]
    value = np.round(rng.normal(size=(1, 5 * memory)), 1)
    state.run(value, quantiles_of(np.zeros_like(value), 0.3))
    held = state.scores[0, 0]
    assert (np.diff(held) >= 0).all()
    np.testing.assert_array_equal(held, np.sort(state.history[0, 0]))
    newest = np.maximum(state.pending[0, 0][2] - value, value - state.pending[0, 0][4])[0, -memory:]
    np.testing.assert_allclose(np.sort(newest), held)


def test_few_outcomes_correct_nothing() -> None:
    value = np.zeros((1, MIN_SCORES - 1)) + 9.0
    quantiles = quantiles_of(np.zeros_like(value), 1.0)
    bounds = OnlineConformal(1, 1, 5).run(value, quantiles)
    np.testing.assert_allclose(bounds[0, -1, 0], [quantiles[0, 0, 2], quantiles[0, 0, 4]])


def test_levels_are_nested_and_those_between_lie_between() -> None:
    bounds = np.array([[-1.0, 1.0], [-2.0, 2.5], [-3.0, 4.0]])
    median = np.array(0.1)
    previous = (0.1, 0.1)
    for level in (0.1, 0.5, 0.8, 0.85, 0.9, 0.93, 0.95, 0.99):
        low, high = at_level(bounds, median, level)
        assert low <= previous[0] and high >= previous[1]
        previous = (low, high)
    np.testing.assert_allclose(at_level(bounds, median, 0.9), [-2.0, 2.5])
    with pytest.raises(ConfigError):
        at_level(bounds, median, 1.0)
