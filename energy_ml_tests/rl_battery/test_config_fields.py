"""Every field of RLBatteryConfig changes the policy in the direction that its name says."""

from dataclasses import replace

import numpy as np
import pytest

from energy_ml.config import RLBatteryConfig
from energy_ml.rl_battery.battery import Battery, simulate
from energy_ml.rl_battery.strategy import build_context
from energy_ml.rl_battery.trainer import BatteryRLTrainer
from energy_ml_tests.rl_battery.markets import market, true_forecasts

PRICES, SPLIT = market(days=5, minutes=15, seed=7)
FORECASTS = true_forecasts(PRICES, (15, 60), 15, error=5.0)


def learn(episodes: int = 2, forecasts=FORECASTS, **fields):
    trainer = BatteryRLTrainer(RLBatteryConfig(episodes=episodes, **fields))
    return trainer.train_all(prices=PRICES, forecasts=forecasts, split=SPLIT)


@pytest.fixture(scope="module")
def plain():
    return learn()


def size(result) -> float:
    return float(np.abs(result["q_table"]).sum())


def test_bins_are_the_axes_of_the_table():
    result = learn(charge_level_bins=4, price_bins=3, time_bins=6)
    assert result["q_table"].shape == (4, 6, 3, 4)
    assert [len(labels) for labels in result["axes"].values()] == [4, 6, 3, 4]
    for axis, one in ((3, "charge_level_bins"), (2, "price_bins"), (1, "time_bins")):
        result = learn(**{one: 1})
        assert result["q_table"].shape[axis] == 1 and result["finite"]


def test_a_higher_learning_rate_moves_the_table_further():
    assert size(learn(1, learning_rate=0.5)) > size(learn(1, learning_rate=0.01))


def test_a_lower_discount_looks_less_far_ahead(plain):
    # The less later corrections count, the less a correction can build up.
    assert size(learn(discount_factor=0.05)) < size(plain)


def test_episodes_are_passes_at_most():
    assert [learn(n)["episodes"] for n in (1, 2)] == [1, 2]
    assert learn(1000)["converged"]


def test_reward_scale_scales_what_is_learned_and_changes_no_action(plain):
    scaled = learn(reward_scale=100.0)
    np.testing.assert_allclose(scaled["q_table"], 100.0 * plain["q_table"], rtol=1e-6, atol=1e-9)
    answers = [r["policy"].get_action(0.5, 40.0, hour=9) for r in (plain, scaled)]
    assert answers[0]["action"] == answers[1]["action"]
    assert answers[1]["q_values"]["hold"] == pytest.approx(100.0 * answers[0]["q_values"]["hold"], rel=1e-6)


@pytest.mark.parametrize(
    "fields", [{"epsilon": 0.05}, {"epsilon_decay": 0.5}, {"epsilon_min": 1.0}, {"max_steps": 50}, {"random_state": 1}]
)
def test_exploring_and_steps_shape_the_sampled_walk(fields):
    usual = {"update": "sampled", "max_steps": 200}
    one, other = learn(4, **usual), learn(4, **(usual | fields))
    assert (one["q_table"] != other["q_table"]).any()
    if "max_steps" in fields:
        assert (other["q_table"] != 0).sum() < (one["q_table"] != 0).sum()
    # Updating everything at each step explores nothing and starts nowhere: these fields say nothing there.
    np.testing.assert_array_equal(learn(**fields)["q_table"], learn()["q_table"])


def test_one_battery_on_a_walk_learns_nearly_as_much_as_all_at_once():
    # The plan believes forecasts that are too high; what they are worth only the table knows.
    high = FORECASTS.assign(price_forecast=1.5 * FORECASTS["price_forecast"] + 20)
    whole, sampled = learn(1000, high), learn(600, high, update="sampled")
    earned, on_a_walk = (backtest(r, Battery(), forecasts=high)[1] for r in (whole, sampled))
    alone = backtest({"policy": whole["policy"].without_table()}, Battery(), forecasts=high)[1]
    assert earned > 1.1 * alone
    assert on_a_walk > max(0.9 * earned, alone)


def backtest(result, battery: Battery, delay: int = 0, forecasts=FORECASTS):
    context = build_context(PRICES, "FR", SPLIT, battery, forecasts=forecasts, execution_delay=delay)
    run = simulate(battery, result["policy"].actions(context), context.prices, context.hours, context.days)
    return run, float(run.cash.sum() + (run.charge[-1] - run.charge[0]) * context.terminal_value)


def traded(result, battery: Battery) -> float:
    return float(np.abs(backtest(result, battery)[0].energy).sum())


@pytest.mark.parametrize(
    "fields",
    [
        {"wear_cost_per_mwh": 15.0},
        {"buy_fee_per_mwh": 15.0},
        {"sell_fee_per_mwh": 15.0},
        {"efficiency": 0.6},
        {"power_mw": 0.1},
        {"discharge_power_mw": 0.1},
        {"capacity_mwh": 0.3},
        {"min_reserve": 0.4},
        {"max_charge": 0.6},
        {"loss_split": "charge"},
    ],
)
def test_learning_knows_the_battery(plain, fields):
    config = replace(RLBatteryConfig(), **fields)
    battery = Battery.from_config(config)
    result = learn(**fields)
    assert (result["q_table"] != plain["q_table"]).any()
    assert result["policy"].learned.battery == battery
    # Costs, losses and less room each make trading pay less often.
    if "loss_split" not in fields:
        assert traded(result, battery) < traded(plain, Battery())


def test_a_delay_is_learned_for(plain):
    late = learn(execution_delay=1)
    assert late["agent"].delay == 1
    assert backtest(late, Battery(), 1)[1] > 0.97 * backtest(plain, Battery(), 1)[1]
