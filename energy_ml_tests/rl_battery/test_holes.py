"""Where no price was measured the battery waits, and nothing that was put there in its place changes anything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import MLConfig, RLBatteryConfig
from energy_ml.errors import NoDataError
from energy_ml.evaluation.backtest_evaluator import backtest, reference_units
from energy_ml.rl_battery import BatteryPolicy, BatteryRLTrainer
from energy_ml.rl_battery.baselines import baselines, trailing_rank
from energy_ml.rl_battery.battery import Battery, simulate
from energy_ml.rl_battery.optimum import perfect_foresight
from energy_ml.rl_battery.strategy import last_known, region_series
from energy_ml_tests.rl_battery.markets import market, true_forecasts

HOLES = [("2026-01-06 18:00", "2026-01-07 18:00"), ("2026-01-13 07:00", "2026-01-13 07:30"),
         ("2026-01-14 09:00", "2026-01-14 12:15")]  # fmt: skip
"""A day of the training part, half an hour of validation's, and hours of the test part."""


def holed(invented: float, regions: tuple[str, ...] = ("FR",), minutes: int = 15):
    prices, split = market(10, minutes, regions)
    forecasts = true_forecasts(prices, (15, 60), 15, error=5.0) if minutes == 15 else None
    gone = np.zeros(len(prices), dtype=bool)
    for start, end in HOLES:
        times = prices["timestamp"]
        gone |= ((times >= pd.Timestamp(start, tz="UTC")) & (times < pd.Timestamp(end, tz="UTC"))).to_numpy()
    gone &= (prices["region"] == regions[0]).to_numpy()
    prices["real_time_price"] = prices["real_time_price"].mask(gone, invented)
    return prices.assign(is_filled=gone), split, forecasts


def test_last_known_price_is_carried_on_and_never_back_but_at_the_start():
    np.testing.assert_array_equal(
        last_known(np.array([np.nan, 2.0, np.nan, np.nan, 5.0, np.nan])), [2.0, 2.0, 2.0, 2.0, 5.0, 5.0]
    )
    prices, _, _ = holed(np.nan)
    _, values, _ = region_series(prices, "FR")
    np.testing.assert_array_equal(np.isnan(values), prices["is_filled"].to_numpy())
    with pytest.raises(NoDataError, match="has 0 prices"):
        region_series(prices.assign(is_filled=True), "FR")


def test_nothing_is_traded_without_a_price_and_the_required_charge_is_still_reached():
    battery = Battery(initial_charge=0.5, final_charge=0.9, efficiency=1.0)
    prices = np.array([50.0, np.nan, 10.0, np.nan, np.nan])
    run = simulate(battery, np.full(5, -0.5), prices, 1.0)
    assert run.energy[np.isnan(prices)].tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(run.cash).all()
    assert run.charge[-1] == pytest.approx(0.9)


@pytest.mark.parametrize("cycles", [None, 1.0])
def test_the_optimum_waits_and_nothing_allowed_beats_it(cycles):
    rng = np.random.default_rng(3)
    battery = Battery(max_cycles_per_day=cycles, wear_cost_per_mwh=1.0)
    days = np.repeat(np.arange(2), 24)
    for _ in range(5):
        prices = rng.normal(20, 60, 48)
        prices[rng.random(48) < 0.3] = np.nan
        found = perfect_foresight(battery, prices, 1.0, days=days, terminal_value=15.0)
        assert (found.run.energy[np.isnan(prices)] == 0).all()
        assert found.profit == pytest.approx(float(found.run.cash.sum() + 15.0 * found.run.charge[-1]))
        assert found.profit == pytest.approx(found.bound)
        for _ in range(200):
            run = simulate(battery, rng.normal(0, 0.5, 48), prices, 1.0, days)
            assert run.cash.sum() + 15.0 * run.charge[-1] <= found.profit + 1e-9


def test_ranks_are_among_known_prices():
    prices = np.array([3.0, np.nan, 1.0, 2.0, np.nan, 4.0])
    known = np.isfinite(prices)
    ranks = trailing_rank(prices, 3)
    np.testing.assert_array_equal(ranks[known], trailing_rank(prices[known], 3))
    assert np.isnan(ranks[~known]).all()


@pytest.mark.parametrize("delay", [0, 1])
def test_invented_prices_change_no_strategy_and_no_learned_value(delay):
    config = MLConfig(rl_battery=RLBatteryConfig(execution_delay=delay, episodes=4))
    frames, tables = [], []
    for invented in (-3000.0, np.nan):
        prices, split, forecasts = holed(invented, ("FR", "DE"))
        trained = BatteryRLTrainer(config).train_all(prices=prices, forecasts=forecasts, split=split)
        assert trained["finite"]
        tables.append({region: agent.table.values for region, agent in trained["agents"].items()})
        policy: BatteryPolicy = trained["policy"]
        strategies = [policy, *baselines(with_forecasts=True)]
        units = reference_units(["DE", "FR"], Battery.from_config(config.rl_battery), delay)
        frame, summary = backtest(prices, strategies, units, split, forecasts=forecasts, bootstrap=20)
        assert summary["profit"].notna().all()
        frames.append(frame)
    pd.testing.assert_frame_equal(*frames)
    for region in tables[0]:
        np.testing.assert_array_equal(tables[0][region], tables[1][region])
    frame = frames[0]
    waiting = frame[frame["is_filled"]]
    assert set(waiting["region"]) == {"FR"}
    assert waiting["timestamp"].nunique() == 13
    assert (waiting["energy_mwh"] == 0).all()
    assert (waiting["cash"] == 0).all()
    traded = frame.loc[~frame["is_filled"]].groupby("strategy")["energy_mwh"].apply(lambda e: float(e.abs().sum()))
    assert (traded.drop("hold") > 0).all()
    best = frame.groupby("strategy")["cash"].sum()
    assert frame["price"].abs().max() < 3000
    assert best.notna().all()


def test_hours_of_a_minute_market_are_left_out_of_its_held_prices():
    prices, split, _ = holed(np.nan, minutes=5)
    trained = BatteryRLTrainer(RLBatteryConfig(episodes=3)).train_all(prices=prices, split=split)
    assert trained["finite"]
