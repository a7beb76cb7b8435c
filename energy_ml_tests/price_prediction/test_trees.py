"""Flattened trees give XGBoost's numbers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xgboost as xgb

from energy_ml.price_prediction.trees import flatten


def data(seed: int = 0, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 7)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    target = np.nan_to_num(rows[:, 0]) * 3 + np.nan_to_num(rows[:, 1]) ** 2 + rng.normal(size=n)
    return rows, target


@pytest.mark.parametrize(
    "params",
    [
        {"objective": "reg:absoluteerror"},
        {"objective": "reg:squarederror"},
        {"objective": "reg:quantileerror", "quantile_alpha": np.array([0.1, 0.5, 0.9])},
    ],
)
def test_equal_to_xgboost_with_missing_values(params: dict) -> None:
    rows, target = data()
    matrix = xgb.QuantileDMatrix(rows, target)
    booster = xgb.train({**params, "max_depth": 5, "nthread": 1}, matrix, 40)
    expected = booster.inplace_predict(rows).reshape(len(rows), -1)
    np.testing.assert_allclose(flatten([booster]).predict(rows), expected, rtol=1e-5, atol=1e-5)


def test_several_boosters_stand_side_by_side() -> None:
    rows, target = data()
    first = xgb.train({"objective": "reg:absoluteerror", "nthread": 1}, xgb.QuantileDMatrix(rows, target), 7)
    second = xgb.train(
        {"objective": "reg:quantileerror", "quantile_alpha": np.array([0.2, 0.8]), "nthread": 1},
        xgb.QuantileDMatrix(rows, -target),
        9,
    )
    forest = flatten([first, second])
    found = forest.predict(rows)
    np.testing.assert_allclose(found[:, 0], first.inplace_predict(rows), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[:, 1:], second.inplace_predict(rows), rtol=1e-5, atol=1e-5)


def test_one_row_equals_the_same_row_among_many_bit_for_bit() -> None:
    rows, target = data(n=900)
    forest = flatten([xgb.train({"max_depth": 6, "nthread": 1}, xgb.QuantileDMatrix(rows, target), 30)])
    whole = forest.predict(rows)
    for i in (0, 255, 256, 899):
        assert (forest.predict(rows[i : i + 1])[0] == whole[i]).all()


def test_a_forest_that_has_predicted_pickles_its_fields_alone() -> None:
    rows, target = data()
    forest = flatten([xgb.train({"max_depth": 3, "nthread": 1}, xgb.QuantileDMatrix(rows, target), 6)])
    untouched = pickle.dumps(forest)
    expected = forest.predict(rows)
    assert pickle.dumps(forest) == untouched
    np.testing.assert_array_equal(pickle.loads(untouched).predict(rows), expected)


def test_values_on_a_threshold_go_where_xgboost_sends_them() -> None:
    rows = np.repeat(np.arange(4, dtype=np.float32), 50)[:, None]
    target = (rows[:, 0] >= 2).astype(float)
    booster = xgb.train({"max_depth": 2, "nthread": 1}, xgb.QuantileDMatrix(rows, target), 5)
    exact = flatten([booster]).predict(np.arange(4, dtype=np.float32)[:, None])[:, 0]
    np.testing.assert_allclose(exact, booster.inplace_predict(np.arange(4, dtype=np.float32)[:, None]), rtol=1e-6)
