"""The window tree against numpy on each window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.features import rolling_features
from energy_ml.features.rolling_features import plan_windows, rolling_sum, write_rolling
from energy_ml_tests.features.frames import price_matrix


def _rolling(values, windows, first=0):
    n_times, n_regions = values.shape
    out = np.zeros((len(windows) * 4, n_times - first, n_regions), np.float32)
    distances = np.zeros((len(windows) * 3, n_times - first, n_regions), np.float32)
    write_rolling(values, windows, out, first, distances)
    return out, distances


def _brute(values, windows, first=0):
    n_times, n_regions = values.shape
    out = np.full((len(windows), 4, n_times - first, n_regions), np.nan)
    for place, window in enumerate(windows):
        for t in range(max(first, window - 1), n_times):
            part = values[t - window + 1 : t + 1]
            std = part.std(axis=0, ddof=1) if window > 1 else np.full(n_regions, np.nan)
            out[place, :, t - first] = part.mean(axis=0), std, part.min(axis=0), part.max(axis=0)
    return out.reshape(-1, n_times - first, n_regions)


@settings(max_examples=60)
@given(
    st.integers(1, 50),
    st.integers(1, 4),
    st.lists(st.integers(1, 25), min_size=1, max_size=5, unique=True),
    st.integers(0, 40),
    st.sampled_from([1, 7, 16_384]),
    st.integers(0, 2**32 - 1),
)
def test_every_window_equals_numpy_on_that_window(n_times, n_regions, windows, first, block, seed):
    first = min(first, n_times - 1)
    values = price_matrix(n_times, n_regions, seed, 0.03)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolling_features, "BLOCK_CELLS", block)
        out, distances = _rolling(values, windows, first)
    expected = _brute(values, windows, first)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-5)
    statistics = expected.reshape(len(windows), 4, *expected.shape[1:])[:, [0, 2, 3]]
    gaps = (values[first:] - statistics).reshape(distances.shape)
    np.testing.assert_allclose(distances, gaps, rtol=1e-5, atol=1e-5)


def test_known_answer():
    out, _ = _rolling(np.array([[2.0], [4.0], [4.0], [4.0], [5.0], [5.0], [7.0], [9.0]]), [8])
    np.testing.assert_allclose(out[:, -1, 0], [5.0, np.sqrt(32 / 7), 2.0, 9.0], rtol=1e-7)
    assert np.isnan(out[:, :-1]).all()


def test_nan_spoils_its_own_windows_only():
    values = price_matrix(200, 2, 1)
    spoilt = values.copy()
    spoilt[100, 0] = np.nan
    windows = [1, 5, 60]
    clean, dirty = _rolling(values, windows)[0], _rolling(spoilt, windows)[0]
    for place, window in enumerate(windows):
        hit = np.zeros(clean.shape[1:], bool)
        hit[100 : 100 + window, 0] = True
        for column in range(4 * place, 4 * place + 4):
            assert np.isnan(dirty[column][hit]).all()
            np.testing.assert_array_equal(dirty[column][~hit], clean[column][~hit])


def test_a_large_offset_costs_no_digits():
    values = price_matrix(300, 2, 2)
    near, far = _rolling(values, [5, 60])[0], _rolling(values + 1e6, [5, 60])[0]
    for std in (1, 5):
        np.testing.assert_allclose(far[std], near[std], rtol=1e-4, atol=1e-5)


def test_constant_prices_have_no_deviation_at_all():
    out, distances = _rolling(np.full((100, 2), 0.1), [3, 7, 60])
    assert (out[[1, 5, 9], 60:] == 0).all()
    assert (distances[:, 60:] == 0).all()


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8))
@settings(max_examples=100)
def test_plan_makes_each_window_from_known_ones(windows):
    known = {1}
    for window, a, b in plan_windows(windows):
        assert window == a + b
        assert {a, b} <= known
        known.add(window)
    assert set(windows) <= known


def test_plan_of_the_default_windows_takes_seven_steps():
    assert len(plan_windows([5, 10, 15, 30, 60])) == 7


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_sums_equal_sums(n_times, window, seed):
    values = price_matrix(n_times, 2, seed)
    whole, partial = rolling_sum(values, window), rolling_sum(values, window, before=0.0)
    for t in range(n_times):
        np.testing.assert_allclose(partial[t], values[max(t - window + 1, 0) : t + 1].sum(axis=0), rtol=1e-9, atol=1e-9)
        expected = partial[t] if t >= window - 1 else np.full(2, np.nan)
        np.testing.assert_array_equal(whole[t], expected)
