"""The Gymnasium environment: the official checker, and the same money as the simulation."""

from __future__ import annotations

import dataclasses
import importlib
import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from energy_ml.errors import BatteryError, ConfigError
from energy_ml.rl_battery.battery import Battery, simulate
from energy_ml.rl_battery.environment import BatteryEnv
from energy_ml.rl_battery.strategy import Context, build_context
from energy_ml_tests.rl_battery.markets import market, true_forecasts


def context_of(delay: int = 0, **changes) -> Context:
    prices, split = market(days=10)
    battery = Battery(wear_cost_per_mwh=2.0, **changes)
    forecasts = true_forecasts(prices, (15, 60), 15)
    return build_context(prices, "FR", split, battery, forecasts=forecasts, execution_delay=delay)


@pytest.mark.parametrize("random_start", [False, True])
def test_gymnasium_s_checker_passes(random_start: bool) -> None:
    check_env(BatteryEnv(context_of(), max_steps=50, random_start=random_start), skip_render_check=True)


def test_rewards_add_up_to_the_profit_of_the_same_requests() -> None:
    context = context_of(max_cycles_per_day=0.7)
    env = BatteryEnv(context, reward_scale=2.0)
    actions = np.random.default_rng(0).integers(0, 3, len(context.prices))
    observation, info = env.reset(seed=1)
    assert observation.shape == (7,) and info["charge_level_mwh"] == context.start_mwh
    rewards, charges = [], []
    for number, action in enumerate(actions):
        observation, reward, terminated, truncated, info = env.step(int(action))
        assert observation in env.observation_space
        assert not terminated and truncated == (number == len(actions) - 1)
        rewards.append(reward)
        charges.append(info["charge_level_mwh"])
    requests = np.array([0.5, 0.0, -0.5])[actions]
    run = simulate(context.battery, requests, context.prices, context.hours, context.days)
    np.testing.assert_array_equal(charges, run.charge[1:])
    profit = run.cash.sum() + context.terminal_value * (run.charge[-1] - run.charge[0])
    assert sum(rewards) == pytest.approx(2.0 * profit)
    with pytest.raises(BatteryError, match="over"):
        env.step(1)


def test_a_late_observation_shows_old_prices() -> None:
    now, late = BatteryEnv(context_of()), BatteryEnv(context_of(delay=3))
    late.reset(seed=0)
    now.reset(seed=0)
    observed = [now.step(1)[0][1] for _ in range(20)]
    delayed = [late.step(1)[0][1] for _ in range(20)]
    # The late one begins three intervals later and sees what the other saw then: the same prices in the same order.
    np.testing.assert_allclose(delayed, observed)


def test_episodes_are_repeatable_by_seed() -> None:
    env = BatteryEnv(context_of(), max_steps=10, random_start=True)
    first, _ = env.reset(seed=7)
    again, _ = env.reset(seed=7)
    other, _ = env.reset(seed=8)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_bad_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of()
    env = BatteryEnv(context)
    env.reset(seed=0)
    with pytest.raises(BatteryError, match="action 3"):
        env.step(3)
    with pytest.raises(BatteryError, match="more than the execution delay"):
        BatteryEnv(dataclasses.replace(context, execution_delay=len(context.prices)))
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "energy_ml.rl_battery.environment")
    with pytest.raises(ConfigError, match=r"pip install energy_ml\[gym\]"):
        importlib.import_module("energy_ml.rl_battery.environment")
