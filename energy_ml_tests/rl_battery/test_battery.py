"""The battery's physics: balance, limits, costs, cycle limit, bad numbers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.config import RLBatteryConfig
from energy_ml.errors import BatteryError, ConfigError
from energy_ml.rl_battery.battery import CHARGE, DISCHARGE, HOLD, Battery, simulate, step, utc_days


@st.composite
def batteries(draw: st.DrawFn) -> Battery:
    low = draw(st.floats(0, 0.6))
    high = draw(st.floats(low + 0.05, 1.0))
    return Battery(
        capacity_mwh=draw(st.floats(0.01, 500)),
        power_mw=draw(st.floats(0.01, 300)),
        discharge_power_mw=draw(st.none() | st.floats(0.01, 300)),
        min_reserve=low,
        max_charge=high,
        efficiency=draw(st.floats(0.3, 1.0)),
        loss_split=draw(st.sampled_from(["sqrt", "charge", "discharge"])),
        wear_cost_per_mwh=draw(st.floats(0, 30)),
        buy_fee_per_mwh=draw(st.floats(0, 10)),
        sell_fee_per_mwh=draw(st.floats(0, 10)),
        max_cycles_per_day=draw(st.none() | st.floats(0.1, 5)),
        initial_charge=low + draw(st.floats(0, 1)) * (high - low),
    )


@given(batteries(), st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 15, 60]))
@settings(max_examples=150)
def test_energy_balance_limits_and_cash_hold_for_any_requests(battery: Battery, seed: int, minutes: int) -> None:
    rng = np.random.default_rng(seed)
    n = 200
    requests = rng.uniform(-2, 2, n) * battery.power_mw * rng.integers(0, 2, n)
    prices = rng.normal(50, 100, n)
    days = np.arange(n) * minutes // 1440
    run = simulate(battery, requests, prices, minutes / 60, days)
    scale = max(1.0, battery.capacity_mwh)
    bought, sold = np.maximum(run.energy, 0), np.maximum(-run.energy, 0)
    balance = bought * battery.charge_efficiency - sold / battery.discharge_efficiency
    assert np.abs(np.diff(run.charge) - balance).max() <= 1e-9 * scale
    assert run.charge.min() >= battery.low_mwh - 1e-9 * scale
    assert run.charge.max() <= battery.high_mwh
    for energy, most in ((bought, battery.power_mw), (sold, battery.power_out_mw)):
        assert energy.max() <= most * minutes / 60 * (1 + 1e-12)
    cash = -bought * (prices + battery.buy_fee_per_mwh) + sold * (
        prices - battery.sell_fee_per_mwh - battery.wear_cost_per_mwh
    )
    np.testing.assert_allclose(run.cash, cash, rtol=1e-12, atol=1e-12)
    assert not ((requests > 0) & (run.energy < 0)).any()
    assert not ((requests < 0) & (run.energy > 0)).any()
    if battery.max_cycles_per_day is not None:
        drawn = np.bincount(days, -np.minimum(np.diff(run.charge), 0))
        assert drawn.max() <= battery.max_cycles_per_day * battery.capacity_mwh + 1e-9 * scale


def test_known_hour_of_the_reference_battery() -> None:
    battery = Battery()
    run = simulate(battery, [0.5, 0.0, -0.5], [20.0, 500.0, 100.0], 0.5)
    root = math.sqrt(0.9)
    np.testing.assert_allclose(run.charge, [0.5, 0.5 + 0.25 * root, 0.5 + 0.25 * root, 0.5 + 0.25 * root - 0.25 / root])
    np.testing.assert_allclose(run.cash, [-5.0, 0.0, 25.0])
    assert run.actions.tolist() == [CHARGE, HOLD, DISCHARGE]


def test_a_round_trip_loses_exactly_the_efficiency_whatever_the_split() -> None:
    for split in ("sqrt", "charge", "discharge"):
        battery = Battery(loss_split=split, initial_charge=0.1, efficiency=0.81)
        run = simulate(battery, [0.4, -9.0, -9.0], np.ones(3), 1.0)
        assert run.charge[-1] == battery.low_mwh
        assert -run.energy[1:].sum() == pytest.approx(0.81 * run.energy[0], rel=1e-12)


def test_the_last_bit_of_room_is_used_exactly() -> None:
    battery = Battery(initial_charge=0.8999)
    full = simulate(battery, [9.0, 9.0, -99.0, -99.0, -99.0], np.zeros(5), 1.0).charge
    assert full[1] == battery.high_mwh and full[2] == battery.high_mwh
    assert full[-1] == battery.low_mwh


def test_cycle_limit_counts_cell_energy_and_renews_each_day() -> None:
    battery = Battery(max_cycles_per_day=0.25, initial_charge=0.9)
    days = np.repeat([0, 1], 4)
    run = simulate(battery, np.full(8, -0.5), np.full(8, 10.0), 1.0, days)
    drawn = -np.diff(run.charge)
    np.testing.assert_allclose([drawn[:4].sum(), drawn[4:].sum()], 0.25, rtol=1e-12)
    with pytest.raises(BatteryError, match="days"):
        simulate(battery, np.zeros(2), np.zeros(2), 1.0)


def test_final_charge_is_reached_in_time_and_only_then() -> None:
    battery = Battery(final_charge=0.7)
    run = simulate(battery, np.full(12, -0.5), np.full(12, 10.0), 0.25)
    assert run.charge[-1] == pytest.approx(0.7, abs=1e-12)
    assert run.charge[3] < 0.2
    free = simulate(Battery(), np.full(12, -0.5), np.full(12, 10.0), 0.25)
    np.testing.assert_array_equal(run.charge[:4], free.charge[:4])


def test_fees_and_wear_are_taken_from_cash() -> None:
    battery = Battery(wear_cost_per_mwh=7, buy_fee_per_mwh=2, sell_fee_per_mwh=3, efficiency=1.0)
    run = simulate(battery, [0.2, -0.2], [50.0, 50.0], 1.0)
    np.testing.assert_allclose(run.cash, [-0.2 * 52, 0.2 * 40])


def test_step_is_the_simulation() -> None:
    battery = Battery()
    rng = np.random.default_rng(3)
    requests, prices = rng.uniform(-1, 1, 50), rng.normal(0, 50, 50)
    run = simulate(battery, requests, prices, 0.25)
    charge = battery.initial_mwh
    for t in range(50):
        charge, energy, cash, _ = step(battery.physics, charge, requests[t], 0.25, prices[t], math.inf)
        assert (charge, energy, cash) == (run.charge[t + 1], run.energy[t], run.cash[t])


@pytest.mark.parametrize(
    "field, value",
    [
        ("capacity_mwh", 0),
        ("capacity_mwh", math.nan),
        ("power_mw", -1),
        ("power_mw", math.inf),
        ("efficiency", 0),
        ("efficiency", 1.01),
        ("loss_split", "half"),
        ("min_reserve", -0.1),
        ("max_charge", 1.1),
        ("max_charge", 0.05),
        ("wear_cost_per_mwh", -1),
        ("buy_fee_per_mwh", math.nan),
        ("max_cycles_per_day", 0),
        ("initial_charge", 0.05),
        ("final_charge", 0.95),
    ],
)
def test_impossible_numbers_are_named(field: str, value: object) -> None:
    with pytest.raises(BatteryError, match=field):
        Battery(**{field: value})


def test_bad_starts_prices_and_shapes_are_refused() -> None:
    battery = Battery()
    with pytest.raises(BatteryError, match="outside the limits"):
        simulate(battery, [0.0], [1.0], 1.0, start_mwh=0.95)
    with pytest.raises(BatteryError, match="aren't finite, first at interval 1"):
        simulate(battery, [0.0, 0.0], [1.0, np.inf], 1.0)
    with pytest.raises(BatteryError, match="shapes"):
        simulate(battery, [0.0], [1.0, 2.0], 1.0)
    with pytest.raises(BatteryError, match="hours"):
        simulate(battery, [0.0], [1.0], 0.0)


def test_the_config_describes_the_same_battery() -> None:
    assert Battery.from_config(RLBatteryConfig()) == Battery()
    assert Battery.from_config(RLBatteryConfig(efficiency=0.8), power_mw=2.0) == Battery(efficiency=0.8, power_mw=2.0)
    with pytest.raises(ConfigError, match="loss_split"):
        RLBatteryConfig(loss_split="half")
    with pytest.raises(ConfigError, match="final_charge"):
        RLBatteryConfig(final_charge=0.0)


def test_utc_days_turn_at_midnight_utc() -> None:
    times = pd.DatetimeIndex(["2026-02-10T00:30+01:00", "2026-02-10T01:00+01:00"])
    days = utc_days(times)
    assert days[1] - days[0] == 1
    assert days[1] == (pd.Timestamp("2026-02-10") - pd.Timestamp("1970-01-01")).days
