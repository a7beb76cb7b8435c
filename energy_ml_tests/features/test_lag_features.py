"""Lags and changes against plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.features.lag_features import write_changes, write_lags
from energy_ml_tests.features.frames import price_matrix


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(1, 3), st.integers(0, 19), st.integers(0, 2**32 - 1))
def test_lags_and_changes_equal_loops(n_times, n_regions, first, seed):
    first = min(first, n_times)
    values = price_matrix(n_times, n_regions, seed, 0.1)
    lags = [0, 1, 2, 5, 19, 20, 30]
    lag_columns = np.zeros((len(lags), n_times - first, n_regions), np.float32)
    change_columns = lag_columns.copy()
    write_lags(values, lags, lag_columns, first)
    write_changes(values, lags, change_columns, first)
    for place, lag in enumerate(lags):
        for t in range(first, n_times):
            before = values[t - lag] if t >= lag else np.full(n_regions, np.nan)
            np.testing.assert_array_equal(lag_columns[place, t - first], before.astype(np.float32))
            np.testing.assert_array_equal(change_columns[place, t - first], (values[t] - before).astype(np.float32))


def test_changes_are_subtracted_before_digits_are_dropped():
    out = np.empty((1, 2, 1), np.float32)
    write_changes(np.array([[1e9], [1e9 + 0.25]]), [1], out)
    assert out[0, 1, 0] == 0.25
