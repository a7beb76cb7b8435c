"""What the agent observes: compiled trees against XGBoost, inputs without look-ahead, state and base values."""

from dataclasses import replace

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.rl_battery.agent import BatteryAgent, base_values, describe_market, price_levels, refresh_rows
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.lookahead import Lookahead, path_lengths
from energy_ml.rl_battery.optimum import perfect_foresight
from energy_ml.rl_battery.state_space import Design, StateSpace, table_rows
from energy_ml.rl_battery.value_model import (
    NO_MODEL,
    BoostedTrees,
    build_inputs,
    cross_fit,
    evaluate_trees,
    hindsight_slopes,
    input_names,
    value_targets,
)

MARKET = describe_market(np.array([20.0, 40.0, 80.0]), Battery())


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_compiled_trees_equal_xgboost(outputs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 6)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    y = np.nan_to_num(x[:, :outputs] * x[:, 1:2]) + rng.normal(0, 0.1, (800, outputs))
    parameters = {"base_score": 0.0, "max_depth": 4, "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(x, y), 20)
    ours = evaluate_trees(BoostedTrees.from_xgboost(booster, outputs), x)
    np.testing.assert_allclose(ours, booster.predict(xgboost.DMatrix(x)).reshape(800, outputs), atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 5, 15, 30, 60]))
def test_inputs_see_no_future_and_no_distant_past(seed, interval):
    rng = np.random.default_rng(seed)
    n, t = 3 * 1440 // interval, int(rng.integers(2 * 1440 // interval, 3 * 1440 // interval))
    prices = rng.normal(50, 40, n)
    minutes = np.arange(n, dtype=np.int64) * interval % 1440
    ahead = rng.normal(50, 40, (2, n))
    whole = build_inputs(prices, minutes, ahead, interval, 50.0, 0)
    assert whole.shape == (n, len(input_names((5, 60))))
    changed = prices.copy()
    changed[t + 1 :] = 1e4
    later = ahead.copy()
    later[:, t + 1 :] = -1e4
    np.testing.assert_array_equal(build_inputs(changed, minutes, later, interval, 50.0, 0)[: t + 1], whole[: t + 1])
    first = t - 2 * 1440 // interval
    short = build_inputs(
        prices[first : t + 1], minutes[first : t + 1], ahead[:, first : t + 1], interval, 50.0, t - first
    )
    np.testing.assert_array_equal(short[0], whole[t])


def test_inputs_by_hand():
    prices = np.arange(1.0, 1 + 3 * 24)
    minutes = np.arange(3 * 24, dtype=np.int64) * 60 % 1440
    row = dict(zip(input_names((60,)), build_inputs(prices, minutes, prices[None] + 1, 60, 10.0, 0)[-1], strict=True))
    levels = np.arcsinh(prices / 10)
    assert row["minute_of_day"] == 23 * 60
    assert row["change_180min"] == pytest.approx(levels[-1] - levels[-4], abs=1e-5)
    assert row["mean_360min"] == pytest.approx(levels[-6:].mean() - levels[-1], abs=1e-5)
    assert row["deviation_1440min"] == pytest.approx(levels[-24:].std(), abs=1e-5)
    assert row["yesterday_60_240min"] == pytest.approx(levels[-24 + 1 : -24 + 4].mean() - levels[-1], abs=1e-5)
    assert row["forecast_60min"] == pytest.approx(np.arcsinh(7.3) - levels[-1], abs=1e-5)


def test_little_history_or_a_missing_forecast_is_missing_whole():
    minutes = np.arange(100, dtype=np.int64) * 5
    ahead = np.full((2, 100), 30.0)
    ahead[1, 50] = np.nan
    x = build_inputs(np.full(100, 20.0), minutes, ahead, 5, 20.0, 0)
    assert np.isnan(x[:12, 6:]).all() and np.isfinite(x[12:, 6]).all()
    assert np.isnan(x[50, 4:6]).all() and np.isfinite(x[49, 4:6]).all()


def test_the_state_holds_until_it_is_refreshed_but_the_price_is_always_new():
    rng = np.random.default_rng(1)
    prices, minutes = rng.normal(60, 30, 3 * 1440), np.arange(3 * 1440, dtype=np.int64) % 1440
    space = StateSpace(24, np.zeros((4, 0)))
    look = Lookahead(path_lengths(5, 0), np.zeros(24), np.zeros((2, 44, 11)), np.array([1]), 0, 0.5)
    agent = BatteryAgent(
        "FR", Design("d", False, "price", 1, 0.99), space, np.zeros((space.rows, 3)), NO_MODEL, look, MARKET, Battery(),
        (5,), 1, 5, 0, np.zeros((24, 1)), np.zeros(24),
    )  # fmt: skip
    forecasts = {5: prices + 1.0}
    fine = agent.observe(prices, minutes, forecasts, first=1003)
    coarse = replace(agent, interval_minutes=5).observe(prices[::5], minutes[::5], {5: forecasts[5][::5]}, first=200)
    np.testing.assert_array_equal(fine.expected, prices[1003:])
    np.testing.assert_array_equal(fine.signals, np.repeat(coarse.signals, 5, axis=1)[:, 3:])
    np.testing.assert_array_equal(fine.level, np.repeat(coarse.level, 5)[3:])
    starts, place = refresh_rows(np.array([3, 4, 5, 6, 9, 10, 11]), 5)
    np.testing.assert_array_equal(starts[place], [0, 0, 2, 2, 2, 5, 5])


def test_price_level_is_the_mean_size_of_the_last_day():
    prices = np.concatenate([np.full(24, -40.0), np.full(24, 80.0)])
    levels = price_levels(prices, 24, MARKET, 0)
    assert levels[47] == pytest.approx(80.0) and levels[23] == pytest.approx(40.0)
    assert levels[0] == pytest.approx((40.0 + 23 * MARKET.usual_level) / 24)
    np.testing.assert_allclose(price_levels(prices, 24, MARKET, 30), levels[30:])


def test_table_rows_follow_their_axes():
    edges = np.array([[0.0, 1.0], [0.5, 2.0], [0.0, 1.0], [0.0, 1.0]])
    space = StateSpace(24, edges)
    information, minutes = np.array([0, 1, 3]), np.array([0, 61, 1439])
    rows = table_rows(information, minutes, np.array([0.7, 0.7, 5.0]), edges, 24)
    shape = (4, 24, space.bins)
    np.testing.assert_array_equal(np.stack(np.unravel_index(rows, shape)), [[0, 1, 3], [0, 1, 23], [1, 1, 2]])
    axes = space.axes(6, "value")
    assert [len(labels) for labels in axes.values()] == [4, 24, 3, 6]
    fitted = StateSpace.fit(24, Design("d", False, "price", 4, 0.99), np.full(100, 3), np.arange(100.0))
    np.testing.assert_allclose(fitted.edges[0], [24.75, 49.5, 74.25])


def test_base_values_integrate_the_slopes():
    values = base_values(np.array([[100.0, 60.0]]), 0.8, 5)
    np.testing.assert_allclose(values[0], [0.0, 20.0, 40.0, 52.0, 64.0])


def test_hindsight_slopes_are_derivatives_of_the_optimum():
    rng = np.random.default_rng(3)
    prices = np.abs(rng.normal(60, 30, 200)) + 1
    battery = Battery()
    slopes = hindsight_slopes(battery.physics, prices, 0.5, 4)
    worth = prices.mean() * battery.discharge_efficiency

    def optimum(start):
        result = perfect_foresight(battery, prices[101:], 0.5, start_mwh=start, terminal_value=worth)
        return result.profit

    ends = np.linspace(battery.low_mwh, battery.high_mwh, 5)
    exact = np.diff([optimum(s) for s in ends]) / np.diff(ends)
    np.testing.assert_allclose(slopes[100], exact, rtol=0.08, atol=2.0)


def test_cross_fitted_models_never_saw_their_block():
    rng = np.random.default_rng(4)
    n = 1200
    x, when = rng.normal(size=(n, 9)).astype(np.float32), np.arange(n)
    y = rng.normal(size=(n, 1))

    def fit(targets):
        return cross_fit(x, targets, when, x, intervals=len(x), folds=3, purge=20, rounds=5, seed=1)

    final, folds, edges = fit(y)
    np.testing.assert_array_equal(edges, [0, 400, 800, 1200])
    block = (when >= 400) & (when < 800)
    poisoned = y.copy()
    poisoned[block] = 50.0
    poisoned[380:400] = poisoned[800:820] = 50.0
    other_final, other, _ = fit(poisoned)
    inside = x[block]
    np.testing.assert_array_equal(evaluate_trees(folds[1].trees, inside), evaluate_trees(other[1].trees, inside))
    assert not np.allclose(evaluate_trees(final.trees, inside), evaluate_trees(other_final.trees, inside))


def test_targets_speak_of_the_interval_that_is_acted_in():
    slopes, prices = np.arange(10.0)[:, None] * 10, np.arange(10.0)
    now = value_targets(slopes, prices, 5.0, 0)
    np.testing.assert_allclose(now[:, 0], np.clip(np.arcsinh(slopes[:, 0] / 5) - np.arcsinh(prices / 5), -4, 4))
    late = value_targets(slopes, prices, 5.0, 2)
    assert np.isnan(late[-2:]).all() and late.shape == (10, 1)
    np.testing.assert_allclose(late[0], np.arcsinh(20 / 5))
