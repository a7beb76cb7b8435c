"""What the agent observes and how it reads its table: no look-ahead, bins, monotone worth, steps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.rl_battery.agent import BatteryAgent, Eyes, describe_market, observe, price_levels
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.lookahead import usual_path
from energy_ml.rl_battery.state_space import (
    FORECASTS,
    HISTORY,
    QTable,
    Seen,
    find_places,
    gap_bins,
    read,
    rising,
    stored_values,
)
from energy_ml_tests.rl_battery.markets import random_lookahead

MARKET = describe_market(np.array([20.0, 40.0, np.nan, 80.0]))


def seen_of(planned, price, information=3, level=50.0):
    n = len(planned)
    price = np.full(n, price)
    return Seen(price, price, planned, np.full(n, level), np.full(n, information), np.arange(n) * 60 % 1440)


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.sampled_from([5, 15]))
def test_what_is_seen_holds_no_future_and_no_distant_past(seed, interval):
    rng = np.random.default_rng(seed)
    day = 1440 // interval
    n, t = 3 * day, int(rng.integers(2 * day, 3 * day))
    prices, ahead = rng.normal(50, 40, n), rng.normal(50, 40, (2, n))
    minutes = np.arange(n, dtype=np.int64) * interval % 1440
    eyes = Eyes(random_lookahead(rng, interval), MARKET, interval, 5)

    def look(some, prices, ahead, first):
        usual = usual_path(eyes.look.usual, minutes[some], interval, int(eyes.look.whole.sum()))
        when = np.array([1.0, 12.0])
        return observe(eyes, prices[some], minutes[some], usual, when, ahead[:, some], Battery().physics, first, True)

    whole = look(slice(0, n), prices, ahead, 0)
    changed, later = prices.copy(), ahead.copy()
    changed[t + 1 :], later[:, t + 1 :] = 1e4, -1e4
    for ours, theirs in zip(look(slice(0, n), changed, later, 0), whole, strict=True):
        np.testing.assert_allclose(ours[: t + 1], theirs[: t + 1])
    short = look(slice(t - 2 * day, t + 1), prices, ahead, 2 * day)
    for ours, theirs in zip(short, whole.rows(slice(t, t + 1)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_what_is_known_is_told_apart():
    look = random_lookahead(np.random.default_rng(0), 5)
    minutes, ahead = np.arange(20, dtype=np.int64) * 5, np.full((2, 20), np.nan)
    ahead[1, 15:] = 30.0
    usual = usual_path(look.usual, minutes, 5, int(look.whole.sum()))
    prices = np.full(20, 20.0)
    seen = observe(
        Eyes(look, MARKET, 5, 4), prices, minutes, usual, np.array([1.0, 3.0]), ahead, Battery().physics, 0, True
    )
    np.testing.assert_array_equal(seen.information, [0] * 12 + [HISTORY] * 3 + [HISTORY + FORECASTS] * 5)
    assert (seen.level[:12] == MARKET.usual_level).all() and (seen.level[12:] != MARKET.usual_level).all()


def test_every_minute_looks_back_in_the_steps_of_learning():
    rng = np.random.default_rng(1)
    prices, minutes = rng.normal(60, 30, 3 * 1440), np.arange(3 * 1440, dtype=np.int64) % 1440
    table = QTable(np.zeros((4, 24, 1, 3)), np.zeros((4, 1)))
    look = random_lookahead(rng, 5)
    agent = BatteryAgent("FR", table, look, MARKET, Battery(), (5,), 1, 5, 0, 1.0, np.zeros((24, 3)))
    coarse_agent = replace(agent, interval_minutes=5)
    ahead = prices + 1.0
    fine = agent.observe(prices, minutes, {5: ahead}, first=1003)
    np.testing.assert_array_equal(fine.price, prices[1003:])
    for phase in range(5):
        coarse = coarse_agent.observe(prices[phase::5], minutes[phase::5], {5: ahead[phase::5]})
        for ours, theirs in zip(fine.rows(slice((phase - 3) % 5, None, 5)), coarse, strict=True):
            np.testing.assert_array_equal(ours, theirs[-len(ours) :])


def test_price_level_is_the_mean_size_of_the_last_day():
    prices = np.concatenate([np.full(24, -40.0), np.full(24, 80.0)])
    levels = price_levels(prices, 24, MARKET, 0)
    assert levels[47] == pytest.approx(80.0) and levels[23] == pytest.approx(40.0)
    assert levels[0] == pytest.approx((40.0 + 23 * MARKET.usual_level) / 24)
    np.testing.assert_allclose(price_levels(prices, 24, MARKET, 30), levels[30:])


def test_bins_stand_for_equal_parts_of_what_was_met_and_are_read_on_straight_lines():
    rng = np.random.default_rng(2)
    seen = [seen_of(rng.normal(60, 30, (500, 3)), 50.0), seen_of(rng.normal(20, 3, (500, 3)), 50.0, HISTORY)]
    middles = gap_bins(seen, 4)
    gaps = (seen[0].planned - 50.0) / 50.0
    np.testing.assert_allclose(middles[3], np.quantile(gaps, [0.125, 0.375, 0.625, 0.875]), atol=1e-8)
    np.testing.assert_array_equal(middles[0], middles[3])
    assert (middles[HISTORY] < middles[3]).all()
    values = rng.normal(0, 1, (4, 24, 4, 3))
    places = find_places(seen[0], middles, 24)
    for t in range(0, 500, 7):
        for j in range(3):
            expected = np.interp(gaps[t, j], middles[3], values[3, t % 24, :, j])
            assert read(values, places, t, j) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_more_planned_worth_is_never_less_stored_value(seed):
    rng = np.random.default_rng(seed)
    middles = np.sort(rng.normal(0, 0.5, (4, 6)), axis=1)
    values = rising(rng.normal(0, 1, (4, 24, 6, 3)), middles, rng.uniform(0, 5, (4, 24, 6, 3)))
    planned = rng.normal(50, 40, (30, 3))
    raised = planned + rng.uniform(0, 30, (30, 3))
    lower, higher = (
        stored_values(s, values, find_places(s, middles, 24), s.level, 0.3)
        for s in (seen_of(planned, 50.0), seen_of(raised, 50.0))
    )
    assert (higher >= lower - 1e-9).all()


def test_a_rising_table_is_left_alone_and_another_keeps_its_mean():
    middles, weights = np.tile(np.arange(4.0), (4, 1)), np.ones((4, 1, 4, 1))
    steady = np.zeros((4, 1, 4, 1)) + np.array([0.0, -0.5, 0.2, 0.0])[:, None]
    np.testing.assert_array_equal(rising(steady, middles, weights), steady)
    falling = np.zeros((4, 1, 4, 1)) + np.array([0.0, 2.0, -2.0, 0.0])[:, None]
    made = middles[0] + rising(falling, middles, weights)[0, 0, :, 0]
    np.testing.assert_allclose(made, [0.0, 1.5, 1.5, 3.0])
