"""Linear median regression finds medians, ignores spikes, survives odd columns."""

from __future__ import annotations

import numpy as np

from energy_ml.price_prediction.linear import MedianRegression


def test_recovers_coefficients_despite_wild_outliers() -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, size=(2000, 3))
    target = 2 * rows[:, 0] - rows[:, 1] + 0.5 + rng.laplace(0, 0.1, 2000)
    target[:200] += 1000
    line = MedianRegression.fit(rows, target, penalty=1e-6)
    probe = rng.uniform(-1, 1, size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(line.predict(probe), 2 * probe[:, 0] - probe[:, 1] + 0.5, atol=0.1)


def test_least_absolute_deviation_is_no_worse_than_nearby_coefficients() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 2)).clip(-2, 2).astype(np.float32)
    target = rows @ [1.0, -2.0] + rng.standard_t(2, 300)
    line = MedianRegression.fit(rows, target, penalty=0.0, iterations=200)

    def loss(weights: np.ndarray, intercept: float) -> float:
        return float(np.abs(target - MedianRegression(line.center, line.scale, weights, intercept).predict(rows)).sum())

    best = loss(line.weights, line.intercept)
    for step in (0.05, -0.05):
        for j in range(2):
            moved = line.weights.copy()
            moved[j] += step
            assert best <= loss(moved, line.intercept) + 0.05
        assert best <= loss(line.weights, line.intercept + step) + 0.05


def test_constant_and_empty_columns_and_nan_rows_are_harmless() -> None:
    rng = np.random.default_rng(2)
    rows = np.column_stack([rng.normal(size=200), np.full(200, 7.0), np.full(200, np.nan)])
    line = MedianRegression.fit(rows, rows[:, 0])
    found = line.predict(np.array([[np.nan, 7.0, np.nan], [1e30, 0.0, 3.0]], dtype=np.float32))
    assert np.isfinite(found).all()


def test_one_row_equals_the_same_row_among_many_bit_for_bit() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(500, 90)).astype(np.float32)
    line = MedianRegression.fit(rows, rng.normal(size=500))
    whole = line.predict(rows)
    assert all(line.predict(rows[i : i + 1])[0] == whole[i] for i in range(0, 500, 37))
