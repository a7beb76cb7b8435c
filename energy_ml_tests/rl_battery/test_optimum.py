"""The perfect-foresight optimum against a mixed-integer program by HiGHS, and its properties."""

from __future__ import annotations

import dataclasses

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import BatteryError
from energy_ml.rl_battery import optimum as module
from energy_ml.rl_battery.battery import Battery, simulate
from energy_ml.rl_battery.optimum import perfect_foresight


def by_mixed_integer_program(
    battery: Battery, prices: np.ndarray, hours: float, terminal: float, days: np.ndarray | None = None
) -> float:
    """The same optimum written down a second time, with a binary variable wherever doing both at once would pay."""
    p = battery.physics
    buy, sell = (prices + p.buy_fee) / p.charge_eff, (prices - p.sell_fee - p.wear) * p.discharge_eff
    most_in, most_out = p.power_in * hours * p.charge_eff, p.power_out * hours / p.discharge_eff
    h = highspy.Highs()
    h.silent()
    for option, value in (("mip_rel_gap", 1e-10), ("mip_abs_gap", 1e-9), ("threads", 1)):
        h.setOptionValue(option, value)
    worth, before = 0, battery.initial_mwh
    drawn: dict[int, list] = {}
    for t in range(len(prices)):
        stored, taken = h.addVariable(0, most_in), h.addVariable(0, most_out)
        after = h.addVariable(battery.final_mwh if t == len(prices) - 1 else p.low, p.high)
        h.addConstr(after == before + stored - taken)
        if buy[t] < sell[t]:
            charging = h.addBinary()
            h.addConstr(stored <= most_in * charging)
            h.addConstr(taken <= most_out - most_out * charging)
        worth += sell[t] * taken - buy[t] * stored
        if days is not None:
            drawn.setdefault(int(days[t]), []).append(taken)
        before = after
    for of_day in drawn.values():
        h.addConstr(sum(of_day[1:], 1.0 * of_day[0]) <= p.daily_discharge)
    h.maximize(worth + terminal * before)
    return h.getInfo().objective_function_value


@st.composite
def problems(draw: st.DrawFn) -> tuple[Battery, np.ndarray, float, float]:
    low = draw(st.floats(0, 0.5))
    high = draw(st.floats(low + 0.05, 1))
    battery = Battery(
        capacity_mwh=draw(st.floats(0.5, 3)),
        power_mw=draw(st.floats(0.1, 3)),
        discharge_power_mw=draw(st.none() | st.floats(0.1, 3)),
        min_reserve=low,
        max_charge=high,
        efficiency=draw(st.floats(0.5, 1)),
        loss_split=draw(st.sampled_from(["sqrt", "charge", "discharge"])),
        wear_cost_per_mwh=draw(st.sampled_from([0.0, 5.0])),
        buy_fee_per_mwh=draw(st.sampled_from([0.0, 3.0])),
        sell_fee_per_mwh=draw(st.sampled_from([0.0, 2.0])),
        initial_charge=draw(st.floats(low, high)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 24))
    prices = rng.normal(draw(st.sampled_from([-40, 0, 20, 60])), 40, n)
    if draw(st.booleans()):
        prices = np.round(prices / 20) * 20  # ties
    hours = draw(st.sampled_from([1 / 12, 0.25, 0.5, 1.0]))
    if draw(st.integers(0, 3)) == 0:
        reachable = battery.initial_mwh + 0.9 * n * battery.power_mw * hours * battery.charge_efficiency
        final = low + draw(st.floats(0, 1)) * (min(high, reachable / battery.capacity_mwh) - low)
        battery = dataclasses.replace(battery, final_charge=min(max(final, low), high))
    return battery, prices, hours, draw(st.sampled_from([0.0, 30.0, -20.0]))


@given(problems())
@settings(max_examples=80)
def test_agrees_with_a_mixed_integer_program(problem: tuple[Battery, np.ndarray, float, float]) -> None:
    battery, prices, hours, terminal = problem
    found = perfect_foresight(battery, prices, hours, terminal_value=terminal)
    expected = by_mixed_integer_program(battery, prices, hours, terminal)
    assert found.profit == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert found.bound == pytest.approx(found.profit, rel=1e-9, abs=1e-9)


@given(problems(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_no_schedule_earns_more(problem: tuple[Battery, np.ndarray, float, float], seed: int) -> None:
    battery, prices, hours, terminal = problem
    best = perfect_foresight(battery, prices, hours, terminal_value=terminal).profit
    rng = np.random.default_rng(seed)
    for _ in range(20):
        requests = rng.choice([-1.0, 0.0, 1.0], len(prices)) * battery.power_mw * rng.uniform(0.3, 1, len(prices))
        run = simulate(battery, requests, prices, hours)
        assert run.cash.sum() + terminal * run.charge[-1] <= best + 1e-9


@pytest.mark.parametrize(("mean", "power"), [(40.0, 0.5), (-10.0, 0.5), (-20.0, 0.01)])
def test_long_spans_agree_with_the_forward_schedule(mean: float, power: float) -> None:
    # What the schedule earns must be what the value function promised; a weak battery makes that of many pieces.
    prices = mean + 60 * np.sin(np.arange(5000) / 40) + np.random.default_rng(1).normal(0, 30, 5000)
    battery = Battery(power_mw=power)
    found = perfect_foresight(battery, prices, 1 / 12, terminal_value=35.0)
    p = battery.physics
    most = (p.power_in / 12 * p.charge_eff, p.power_out / 12 / p.discharge_eff)
    limits = module._Limits(p.low, p.high, 1e-12)
    _, value = module._optimise(prices / p.charge_eff, prices * p.discharge_eff, most, limits, p.low, 35.0, 0.5)
    assert found.profit == pytest.approx(value, rel=1e-10)


def test_known_answer_buy_low_sell_high() -> None:
    battery = Battery(initial_charge=0.1, power_mw=10)
    found = perfect_foresight(battery, np.array([50.0, 10.0, 100.0, 20.0]), 1.0)
    assert found.profit == pytest.approx(0.8 * (100 * np.sqrt(0.9) - 10 / np.sqrt(0.9)))
    np.testing.assert_allclose(found.run.charge, [0.1, 0.1, 0.9, 0.1, 0.1])


def test_negative_prices_are_taken_twice_by_burning_energy_in_between() -> None:
    # The middle interval's small payment is worth making room for the next, larger income.
    battery = Battery(initial_charge=0.1, power_mw=10)
    found = perfect_foresight(battery, np.array([-100.0, -10.0, -100.0]), 1.0)
    np.testing.assert_allclose(found.run.charge, [0.1, 0.9, 0.1, 0.9])


def test_flat_and_worthless_prices_leave_the_battery_alone() -> None:
    found = perfect_foresight(Battery(), np.full(50, 40.0), 0.25, terminal_value=40.0)
    np.testing.assert_array_equal(found.run.energy, 0)


@pytest.mark.parametrize("seed", range(6))
def test_cycle_limit_agrees_with_a_mixed_integer_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prices = rng.normal(rng.choice([10, 50]), 40, 24)
    days = np.repeat([7, 8, 9], 8)
    battery = Battery(max_cycles_per_day=0.5, power_mw=0.6, wear_cost_per_mwh=2.0)
    found = perfect_foresight(battery, prices, 1.0, days=days, terminal_value=20.0)
    assert found.profit == pytest.approx(by_mixed_integer_program(battery, prices, 1.0, 20.0, days), rel=1e-6)
    assert found.bound == pytest.approx(found.profit, rel=1e-6)
    drawn = np.bincount(days, -np.minimum(np.diff(found.run.charge), 0))
    assert drawn.max() <= 0.5 + 1e-9
    free = perfect_foresight(dataclasses.replace(battery, max_cycles_per_day=None), prices, 1.0, terminal_value=20.0)
    assert found.profit < free.profit


def test_bad_input_is_named() -> None:
    with pytest.raises(BatteryError, match="aren't finite"):
        perfect_foresight(Battery(), np.array([1.0, np.inf]), 1.0)
    with pytest.raises(BatteryError, match="no prices"):
        perfect_foresight(Battery(), np.array([]), 1.0)
    with pytest.raises(BatteryError, match="outside the limits"):
        perfect_foresight(Battery(), np.ones(3), 1.0, start_mwh=0.0)
    with pytest.raises(BatteryError, match="out of reach"):
        perfect_foresight(Battery(final_charge=0.9), np.ones(3), 1 / 60)
    with pytest.raises(BatteryError, match="days"):
        perfect_foresight(Battery(max_cycles_per_day=1.0), np.ones(3), 1.0)
