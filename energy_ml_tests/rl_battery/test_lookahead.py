"""The price path without look-ahead, and the plan against the exact optimum on the same path."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.lookahead import (
    expected_paths,
    fit_lookahead,
    plan_slopes,
    usual_of_other_days,
    usual_path,
)
from energy_ml.rl_battery.optimum import perfect_foresight
from energy_ml_tests.rl_battery.markets import random_lookahead

SCALE = 50.0


def paths_of(look, prices, minutes, ahead, interval, first=0, history=True, when=None):
    usual = usual_path(look.usual, minutes, interval, int(look.whole.sum()))
    when = look.horizons if when is None else np.array(when)
    return expected_paths(look, prices, usual, when, ahead, interval, SCALE, first, history)


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.sampled_from([5, 15]), st.sampled_from([0, 2]))
def test_paths_see_no_future_and_no_distant_past(seed, interval, delay):
    rng = np.random.default_rng(seed)
    day = 1440 // interval
    n, t = 3 * day, int(rng.integers(2 * day, 3 * day))
    prices, ahead = rng.normal(50, 40, n), rng.normal(50, 40, (2, n))
    minutes = np.arange(n, dtype=np.int64) * interval % 1440
    look = random_lookahead(rng, interval, delay=delay)
    whole = paths_of(look, prices, minutes, ahead, interval)
    changed, later = prices.copy(), ahead.copy()
    changed[t + 1 :], later[:, t + 1 :] = 1e4, -1e4
    np.testing.assert_allclose(paths_of(look, changed, minutes, later, interval)[: t + 1], whole[: t + 1])
    some = slice(t - 2 * day, t + 1)
    short = paths_of(look, prices[some], minutes[some], ahead[:, some], interval, first=2 * day)
    np.testing.assert_allclose(short[0], whole[t], rtol=1e-8)
    alone = paths_of(look, prices[t : t + 1], minutes[t : t + 1], ahead[:, t : t + 1], interval)
    np.testing.assert_allclose(alone[0], paths_of(look, prices, minutes, ahead, interval, t, False)[0], rtol=1e-8)


def test_paths_run_through_the_forecasts_on_straight_lines():
    look = random_lookahead(np.random.default_rng(0), 5, horizons=(5, 15, 30))
    ahead = np.array([[60.0], [80.0], [50.0]])
    minutes, price = np.array([0], dtype=np.int64), np.array([40.0])
    path = paths_of(look, price, minutes, ahead, 5)[0]
    np.testing.assert_allclose(path[:6], [60.0, 70.0, 80.0, 70.0, 60.0, 50.0])
    # One that is no horizon of training counts all the same, and one before the first step bends the way to it.
    more = paths_of(look, price, minutes, np.vstack([ahead, [[20.0]]]), 5, when=[1.0, 3.0, 6.0, 8.0])[0]
    np.testing.assert_allclose(more[:8], [60.0, 70.0, 80.0, 70.0, 60.0, 50.0, 35.0, 20.0])


def test_a_missing_forecast_is_filled_in_without_a_jump():
    look = random_lookahead(np.random.default_rng(1), 5, horizons=(5, 15, 30, 60))
    minutes, price = np.array([0], dtype=np.int64), np.array([40.0])
    blind = paths_of(look, price, minutes, np.full((4, 1), np.nan), 5)[0]
    for missing in range(4):
        # What lies where it is expected without forecasts moves nothing, given or not.
        at = np.array([blind[0], blind[2], blind[5], blind[11]])[:, None]
        at[missing] = np.nan
        np.testing.assert_allclose(paths_of(look, price, minutes, at, 5)[0][12:], blind[12:], rtol=1e-9)
        # And with one given alone, the others move with it.
        alone = np.full((4, 1), np.nan)
        alone[missing] = blind[[0, 2, 5, 11][missing]] + 30.0
        moved = paths_of(look, price, minutes, alone, 5)[0] - blind
        assert (moved[[0, 2, 5, 11]] > 0).all() and (moved[12:] >= 0).all()


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0, 1]))
def test_higher_forecasts_never_lower_a_price_or_the_worth_of_energy(seed, delay):
    rng = np.random.default_rng(seed)
    look = random_lookahead(rng, 15, horizons=(15, 30, 60), delay=delay)
    prices, minutes = rng.normal(40, 60, 50), np.arange(50, dtype=np.int64) * 15
    ahead = rng.normal(40, 60, (4, 50))
    ahead[rng.random((4, 50)) < 0.4] = np.nan
    when = (1.0, 1.5, 4.0, 7.0)
    before = paths_of(look, prices, minutes, ahead, 15, when=when)
    after = paths_of(look, prices, minutes, ahead + rng.uniform(0, 50, (4, 50)), 15, when=when)
    assert (after >= before - 1e-6).all()
    battery = Battery(wear_cost_per_mwh=1.0, buy_fee_per_mwh=0.5)
    low, high = (plan_slopes(look.lengths, look.delay, path, battery.physics, 0.25, 10) for path in (before, after))
    assert (high >= low - 1e-6 * (1 + np.abs(low))).all()


def test_the_rest_of_the_interval_in_hand_is_planned_with_the_nearest_forecast():
    minutes = np.arange(600, dtype=np.int64) * 5 % 1440
    levels = np.arcsinh(np.random.default_rng(2).normal(50, 10, 600) / SCALE)
    (look,), _ = fit_lookahead(
        [levels], [minutes], [np.tile(levels, (2, 1))], [np.ones(600, dtype=bool)],
        interval=5, lead=0.2, horizons=(1, 5), delay=0, most_rows=1000,
    )  # fmt: skip
    assert look.lengths[0] == pytest.approx(0.8) and (look.lengths[1:] == look.whole).all()
    now, price = np.array([0], dtype=np.int64), np.array([40.0])
    path = paths_of(look._replace(believed=1.0), price, now, np.array([[200.0], [50.0]]), 5)[0]
    assert path[0] == pytest.approx(200.0 + (0.5 - 0.2) / 0.8 * (50.0 - 200.0)) and path[1] == pytest.approx(50.0)


@pytest.mark.parametrize("delay", [0, 1])
def test_plans_are_worth_what_the_optimum_on_the_path_earns(delay):
    rng = np.random.default_rng(3)
    battery = Battery(wear_cost_per_mwh=2.0, buy_fee_per_mwh=1.0)
    look = random_lookahead(rng, 30, delay=delay)
    assert (look.whole[delay:].sum(), set(look.whole[:delay])) == (48, {1} if delay else set())
    paths = np.abs(rng.normal(60, 30, (6, len(look.lengths)))) + 1
    slopes = plan_slopes(look.lengths, look.delay, paths, battery.physics, 0.5, 40)
    assert (np.diff(slopes, axis=1) <= 1e-9).all()
    starts = np.linspace(battery.low_mwh, battery.high_mwh, 5)
    for path, found in zip(paths, slopes, strict=True):
        prices = np.repeat(path, look.whole)[delay:]
        worth = prices.mean() * battery.discharge_efficiency
        exact = [
            perfect_foresight(battery, prices, 0.5, start_mwh=start, terminal_value=worth).profit for start in starts
        ]
        mine = found.reshape(4, -1).mean(axis=1) * np.diff(starts)
        np.testing.assert_allclose(mine, np.diff(exact), rtol=0.03, atol=0.3)


def test_what_is_usual_leaves_out_the_day_itself():
    minutes = np.arange(3 * 24, dtype=np.int64) * 60 % 1440
    levels = np.repeat([1.0, 2.0, 6.0], 24)
    usual, others = usual_of_other_days(levels, minutes, np.ones(len(levels), dtype=bool))
    np.testing.assert_allclose(usual, 3.0)
    np.testing.assert_allclose(others.reshape(3, 24)[:, 5], [4.0, 3.5, 1.5])
    _, alone = usual_of_other_days(levels[:24], minutes[:24], np.ones(24, dtype=bool))
    np.testing.assert_allclose(alone, 1.0)


def test_a_day_like_the_others_is_expected_again():
    rng = np.random.default_rng(0)
    day = 60 + 40 * np.sin(np.arange(96) * 2 * np.pi / 96)
    n = 10 * 96
    prices, minutes = np.tile(day, 10) + rng.normal(0, 2, n), np.arange(n, dtype=np.int64) * 15 % 1440
    ahead = np.full((1, n), np.nan)
    (look,), _ = fit_lookahead(
        [np.arcsinh(prices / SCALE)],
        [minutes],
        [ahead],
        [np.ones(n, dtype=bool)],
        interval=15,
        lead=1.0,
        horizons=(60,),
        delay=0,
        most_rows=10_000,
    )
    path = paths_of(look, prices, minutes, ahead, 15, first=n - 1)[0]
    ends = np.cumsum(look.whole)
    actual = np.array([day[np.arange(e - k, e) % 96].mean() for e, k in zip(ends, look.whole, strict=True)])
    assert np.abs(path - actual).max() < 8.0
    # With too little known to learn from, the usual day is what is left.
    (bare,), _ = fit_lookahead(
        [np.arcsinh(day / SCALE)],
        [minutes[:96]],
        [ahead[:, :96]],
        [np.ones(96, dtype=bool)],
        interval=15,
        lead=1.0,
        horizons=(60,),
        delay=0,
        most_rows=100,
    )
    assert np.isfinite(paths_of(bare, prices, minutes, ahead, 15)).all()


def believed_where(said):
    """The part believed far from the path where forecasts say ``said`` of what comes in an hour."""
    n = 20 * 96
    levels = np.convolve(np.random.default_rng(1).normal(0, 0.3, n + 3), np.ones(4), "valid")
    come = np.append(levels[4:], np.full(4, np.nan))
    (look,), _ = fit_lookahead(
        [levels], [np.arange(n, dtype=np.int64) * 15 % 1440], [said(come)[None, :]], [np.ones(n, dtype=bool)],
        interval=15, lead=1.0, horizons=(60,), delay=0, most_rows=n,
    )  # fmt: skip
    return look.believed


def test_large_deviations_of_forecasts_are_believed_as_far_as_they_came_true():
    parts = [believed_where(lambda come, by=by: by * come) for by in (0.5, 1.0, 2.0, 100.0, -1.0)]
    np.testing.assert_allclose(parts, [1.0, 1.0, 0.5, 0.0, 0.0], atol=0.15)
    # Where some cry wolf, large ones count for little; what is said every day counts all the same.
    rng = np.random.default_rng(2)
    assert believed_where(lambda come: np.where(rng.random(len(come)) < 0.1, 8.0, come)) < 0.3
    look = random_lookahead(np.random.default_rng(0), 5, horizons=(60,))._replace(believed=0.0)
    now, price = np.array([0], dtype=np.int64), np.array([40.0])
    blind = paths_of(look, price, now, np.array([[np.nan]]), 5)[0][11]
    for said, counts in ((0.1, 0.1), (0.5, 0.25), (-3.0, -0.25)):
        path = paths_of(look, price, now, np.array([[blind + said * SCALE]]), 5)[0]
        assert path[11] == pytest.approx(blind + counts * SCALE)
