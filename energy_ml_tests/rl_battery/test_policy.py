"""A single action: equal to the backtest's, within the limits, free of look-ahead, and clear about bad input."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import BatteryError, ModelError, ModelNotFoundError, UnknownRegionError
from energy_ml.rl_battery.battery import Battery, simulate
from energy_ml.rl_battery.policy import BatteryPolicy
from energy_ml.rl_battery.strategy import build_context
from energy_ml.rl_battery.trainer import BatteryRLTrainer
from energy_ml_tests.rl_battery.markets import market, true_forecasts

HORIZONS = (5, 15)


def on_minutes(prices, split, noise=0.0):
    """Five-minute prices on a one-minute grid, held or with noise on top, with their forecasts and a policy."""
    times = pd.date_range(split.start, split.end, freq="1min", inclusive="left", tz="UTC").rename("timestamp")
    minute = prices.set_index("timestamp").reindex(times, method="ffill").reset_index()
    minute["real_time_price"] += np.random.default_rng(3).normal(0, noise, len(minute))
    forecasts = true_forecasts(minute, HORIZONS, 1, error=3.0)
    policy = BatteryRLTrainer().train_all(prices=minute, forecasts=forecasts, split=split)["policy"]
    return minute, split, forecasts, policy


@pytest.fixture(scope="module")
def held():
    return on_minutes(*market(days=4, minutes=5, seed=2))


@pytest.fixture(scope="module")
def moving():
    return on_minutes(*market(days=4, minutes=5, seed=4), noise=10.0)


def test_minutes_are_learned_from_in_steps_of_five(held):
    assert held[3].agent("FR").dispatch_minutes == 5 and held[3].agent("FR").interval_minutes == 1


@pytest.mark.parametrize("which", ["held", "moving"])
def test_single_actions_equal_the_backtest(which, request):
    prices, split, forecasts, policy = request.getfixturevalue(which)
    context = build_context(prices, "FR", split, Battery(), forecasts=forecasts)
    run = simulate(context.battery, policy.actions(context), context.prices, context.hours)
    known = np.concatenate([context.history_prices, context.prices])
    before = len(context.history_prices)
    for t in range(5, len(context.prices) - 20, 7):
        now = context.timestamps[t]
        ahead = {h: context.forecasts[h][t] for h in HORIZONS}
        answer = policy.get_action(
            run.charge[t],
            context.prices[t],
            hour=now.hour,
            minute=now.minute,
            region="FR",
            recent_prices=known[: before + t],
            forecasts=ahead,
        )
        assert answer["energy_mwh"] == pytest.approx(run.energy[t], abs=1e-9)
        assert answer["charge_after_mwh"] == pytest.approx(run.charge[t + 1], abs=1e-9)
        assert answer["action"] == ("charge", "hold", "discharge")[run.actions[t]]
        assert answer["q_values"][answer["action"]] >= max(answer["q_values"].values()) - 1e-6


def test_minutes_earn_what_five_minutes_earn(held):
    prices, split, forecasts, policy = held
    five = prices[prices["timestamp"].dt.minute % 5 == 0].reset_index(drop=True)
    theirs = forecasts[forecasts["timestamp"].dt.minute % 5 == 0].reset_index(drop=True)
    coarse = BatteryRLTrainer().train_all(prices=five, forecasts=theirs, split=split)["policy"]

    def profit(frame, ahead, which):
        context = build_context(frame, "FR", split, Battery(), forecasts=ahead)
        run = simulate(context.battery, which.actions(context), context.prices, context.hours)
        return run.cash.sum() + (run.charge[-1] - run.charge[0]) * context.terminal_value

    assert profit(prices, forecasts, policy) == pytest.approx(profit(five, theirs, coarse), rel=0.06)


def test_the_future_changes_nothing_earlier(held):
    prices, split, forecasts, policy = held
    context = build_context(prices, "FR", split, Battery(), forecasts=forecasts)
    t = 333
    later = prices.copy()
    later.loc[later["timestamp"] > context.timestamps[t], "real_time_price"] = -5e3
    ahead = forecasts.copy()
    ahead.loc[ahead["timestamp"] > context.timestamps[t], "price_forecast"] = 5e3
    other = build_context(later, "FR", split, Battery(), forecasts=ahead)
    np.testing.assert_array_equal(policy.actions(context)[: t + 1], policy.actions(other)[: t + 1])


@settings(max_examples=40)
@given(
    st.floats(0, 1),
    st.floats(-1000, 17000),
    st.floats(-1000, 17000),
    st.integers(0, 23),
    st.floats(0.2, 50),
    st.floats(0.05, 60),
    st.integers(0, 200),
)
def test_never_asks_for_what_the_limits_forbid(held, share, price, ahead, hour, capacity, power, past):
    policy = held[3]
    answer = policy.get_action(
        share * capacity,
        price,
        price_forecast_5m=ahead,
        price_forecast_15m=ahead,
        hour=hour,
        recent_prices=[price / 2] * past,
        capacity_mwh=capacity,
        power_mw=power,
    )
    low, high = 0.1 * capacity, 0.9 * capacity
    after = answer["charge_after_mwh"]
    assert abs(answer["power_mw"]) <= power + 1e-9
    assert min(low, share * capacity) - 1e-9 <= after <= max(high, share * capacity) + 1e-9
    if answer["action"] == "hold":
        assert answer["energy_mwh"] == 0 and after == share * capacity
    assert set(answer["q_values"]) <= {"charge", "hold", "discharge"} and answer["action"] in answer["q_values"]
    assert answer["why"].endswith(".")


def test_works_with_nothing_but_charge_and_price(held):
    policy = held[3]
    assert policy.get_action(0.5, 500.0, hour=18)["action"] == "discharge"
    assert policy.get_action(0.5, -50.0, hour=12)["action"] == "charge"
    full = policy.get_action(0.9, -50.0)
    assert full["action"] == "hold" and "upper limit" in full["why"] and "charge" not in full["q_values"]
    empty = policy.get_action(0.1, 500.0)
    assert empty["action"] == "hold" and "lower limit" in empty["why"]


def test_zero_means_not_given_but_not_in_the_dict(held):
    policy = held[3]
    without = policy.get_action(0.5, 50.0, hour=3)
    assert policy.get_action(0.5, 50.0, 0, 0, None, 3) == without and without["forecasts_used"] == {}
    zero = policy.get_action(0.5, 50.0, hour=3, forecasts={5: 0.0, 15: 0.0})
    assert zero["q_values"] != without["q_values"] and zero["forecasts_used"] == {5: 0.0, 15: 0.0}


STATES = [
    (charge, price, hour) for charge in (0.2, 0.5, 0.8) for price in (20.0, 60.0, 110.0) for hour in range(0, 24, 3)
]


def test_any_combination_of_forecasts_counts(held):
    policy = held[3]

    def changed(near, far):
        act = policy.get_action
        return {s for s in STATES if act(s[0], s[1], hour=s[2], **near(s))["action"] != act(
            s[0], s[1], hour=s[2], **far(s))["action"]}  # fmt: skip

    full = changed(*(lambda s, f=f: {"forecasts": dict.fromkeys((1, 5, 15, 60), s[1] * f)} for f in (0.2, 5.0)))
    three = changed(
        *(lambda s, f=f: {f"price_forecast_{h}m": s[1] * f for h in (1, 5, 15)} for f in (0.2, 5.0)),
    )
    assert len(full) > len(STATES) / 3 and len(three & full) >= len(full) / 3
    for horizon in (1, 5, 15, 30, 60, 120):
        answers = [policy.get_action(0.5, 60.0, hour=8, forecasts={horizon: f}) for f in (0.0, 5000.0)]
        assert answers[0]["q_values"]["hold"] < answers[1]["q_values"]["hold"]
        assert list(answers[0]["forecasts_used"]) == [horizon]


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from([1, 3, 5, 15, 30, 60, 240]), st.floats(-200, 2000), min_size=1),
    st.floats(0, 800),
    st.floats(0, 1),
    st.floats(-50, 300),
    st.integers(0, 23),
)
def test_higher_forecasts_never_lower_the_value_of_holding(held, ahead, rise, charge, price, hour):
    policy = held[3]
    low, high = (
        policy.get_action(charge, price, hour=hour, forecasts=f)["q_values"]["hold"]
        for f in (ahead, {h: v + rise for h, v in ahead.items()})
    )
    # Below the reserve a charge is worth less than the empty battery's, by as much as a MWh is worth.
    assert high >= low - 1e-6 * (1 + abs(low)) or charge < 0.1


def test_one_value_function_inside_and_outside_the_limits(held):
    policy = held[3]
    for charge in (0.0, 0.03, 0.06, 0.09):
        assert policy.get_action(charge, -5.0, hour=8, forecasts={5: 300.0, 15: 300.0})["action"] == "charge"
    for charge in (0.92, 0.95, 1.0):
        assert policy.get_action(charge, 1.0, hour=8, forecasts={5: 500.0, 15: 500.0})["action"] == "hold"


def test_why_says_what_plan_and_table_say(held):
    answer = held[3].get_action(0.5, 500.0, hour=18)
    assert "by the plan" in answer["why"] and "by the table" in answer["why"] and "so sell" in answer["why"]


def test_the_last_bit_of_room_is_used(held):
    answer = held[3].get_action(0.8999, -300.0, hour=12)
    assert answer["action"] == "charge" and answer["charge_after_mwh"] == pytest.approx(0.9, abs=1e-12)


def test_bad_input_is_refused_by_name(held, tmp_path):
    prices, split, _, policy = held
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(BatteryError, match="charge_level"):
            policy.get_action(bad, 50.0)
    for bad in (float("inf"), 1e308, -60_000.0):
        with pytest.raises(BatteryError, match="current_price"):
            policy.get_action(0.5, bad)
        with pytest.raises(BatteryError, match="15 minutes ahead"):
            policy.get_action(0.5, 50.0, price_forecast_15m=bad)
    dear = BatteryPolicy.of(replace(policy.learned, config={**policy.learned.config, "max_abs_price": 1e5}))
    assert policy.learned.max_abs_price == 50_000 and dear.get_action(0.5, 60_000.0)["action"] == "discharge"
    for bad in (24, 23.9, float("nan")):
        with pytest.raises(BatteryError, match=f"hour {bad}"):
            policy.get_action(0.5, 50.0, hour=bad)
    whole = pd.Series([17, None])[0]  # pandas' 17.0
    assert policy.get_action(0.5, 50.0, hour=whole) == policy.get_action(0.5, 50.0, hour=17)
    for bad in (float("nan"), float("-inf"), 1e308):
        with pytest.raises(BatteryError, match="recent_prices"):
            policy.get_action(0.5, 50.0, recent_prices=[bad] * 300)
    for more in ({"hour": "x"}, {"minute": "x"}, {"forecasts": {"x": 5.0}}, {"forecasts": {5: "x"}}, {"forecasts": [5]},
                 {"recent_prices": ["x"]}, {"discharged_mwh": None}):  # fmt: skip
        with pytest.raises(BatteryError, match="can't be read"):
            policy.get_action(0.5, 50.0, **more)
    for more in ({"recent_prices": np.ones((3, 3))}, {"discharged_mwh": float("nan")}, {"discharged_mwh": -1.0}):
        with pytest.raises(BatteryError, match="dimensions"):
            policy.get_action(0.5, 50.0, **more)
    began = time.monotonic()
    assert policy.get_action(0.5, 50.0, minute=15.0) == policy.get_action(0.5, 50.0, minute=15)
    assert time.monotonic() - began < 1.0, "nothing was compiled anew"
    for ahead in ({0: 50.0}, {2000: 50.0}, {15: float("nan")}, {15.5: 50.0}):
        with pytest.raises(BatteryError, match="minutes ahead"):
            policy.get_action(0.5, 50.0, forecasts=ahead)
    with pytest.raises(UnknownRegionError, match="XX"):
        policy.get_action(0.5, 50.0, region="XX")
    five = prices[prices["timestamp"].dt.minute % 5 == 0].reset_index(drop=True)
    with pytest.raises(ModelError, match="1-minute prices"):
        policy.actions(build_context(five, "FR", split, Battery()))
    with pytest.raises(ModelNotFoundError):
        BatteryPolicy(tmp_path).get_action(0.5, 50.0)
