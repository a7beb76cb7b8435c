"""The backtest: its schema, its physics, and every figure of its summary recomputed from the raw rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import RLBatteryConfig
from energy_ml.errors import BatteryError, ConfigError, UnknownRegionError
from energy_ml.evaluation.backtest_evaluator import (
    BatteryUnit,
    backtest,
    compare_strategies,
    own_units,
    pool_summary,
    reference_units,
    summarise,
)
from energy_ml.names import REFERENCE
from energy_ml.rl_battery.baselines import Hold, RollingMPC, ThresholdRule, baselines
from energy_ml.rl_battery.battery import Battery
from energy_ml_tests.rl_battery.markets import market, true_forecasts

REGIONS = ("DE", "FR")
FIGURES = ["region", "battery_id", "strategy"]


@pytest.fixture(scope="module")
def setting():
    prices, split = market(days=20, regions=REGIONS, minutes=15)
    battery = Battery(wear_cost_per_mwh=3.0, sell_fee_per_mwh=1.0, buy_fee_per_mwh=0.5)
    units = [
        *reference_units(REGIONS, battery),
        BatteryUnit("B1", "FR", dataclasses.replace(battery, capacity_mwh=4.0, power_mw=1.0), 1.0),
    ]
    forecasts = true_forecasts(prices, (15, 60), 15, error=5.0)
    seen: list[tuple[float, dict]] = []
    frame, summary = backtest(
        prices, baselines(True), units, split, forecasts=forecasts, progress=lambda f, m: seen.append((f, m))
    )
    return prices, split, battery, units, frame, summary, seen


def test_frame_has_the_promised_columns_and_every_row_of_the_test_span(setting) -> None:
    prices, split, _, units, frame, _, seen = setting
    assert ",".join(frame.columns) == (
        "timestamp,region,battery_id,strategy,action,charge_level_mwh,charge_level_end_mwh,price,energy_mwh,cash,"
        "is_filled"
    )
    names = {"hold", "threshold", "mpc", "mpc_forecast", "perfect_foresight"}
    assert set(frame["strategy"]) == names
    span = prices[(prices.timestamp >= split.val_end) & (prices.region == "FR")]
    assert len(frame) == len(span) * len(names) * len(units)
    assert frame["timestamp"].min() == split.val_end and frame["timestamp"].max() < split.end
    assert not frame.isna().any().any()
    assert [f for f, _ in seen] == pytest.approx(np.arange(1, 16) / 15)
    assert seen[-1][1] == {"strategy": "perfect_foresight", "region": "FR", "battery_id": "B1"}


def test_rows_obey_the_physics(setting) -> None:
    frame = setting[4]
    energy = frame["energy_mwh"]
    bought, sold = energy.clip(lower=0), -energy.clip(upper=0)
    change = frame["charge_level_end_mwh"] - frame["charge_level_mwh"]
    np.testing.assert_allclose(change, bought * np.sqrt(0.9) - sold / np.sqrt(0.9), atol=1e-9)
    cash = -bought * (frame["price"] + 0.5) + sold * (frame["price"] - 1.0 - 3.0)
    np.testing.assert_allclose(frame["cash"], cash, atol=1e-9)
    expected = np.select([energy > 0, energy < 0], ["charge", "discharge"], "hold")
    assert (frame["action"].to_numpy() == expected).all()
    for (_, name), rows in frame.groupby(["battery_id", "region"]):
        capacity = 4.0 if (rows["battery_id"] == "B1").all() else 1.0
        assert rows["charge_level_end_mwh"].between(0.1 * capacity - 1e-12, 0.9 * capacity + 1e-12).all(), name
    for _, rows in frame.groupby(["region", "battery_id", "strategy"]):
        np.testing.assert_array_equal(rows["charge_level_end_mwh"][:-1], rows["charge_level_mwh"][1:])


def test_every_figure_is_recomputed_from_the_raw_rows(setting) -> None:
    prices, split, _, _, frame, summary, _ = setting
    worth = {
        region: rows.loc[rows.timestamp < split.train_end, "real_time_price"].mean() * np.sqrt(0.9)
        for region, rows in prices.groupby("region")
    }
    single = summary[~summary["region"].isin(["all", "fleet"])].set_index(FIGURES)
    assert len(single) == 15
    for key, rows in frame.groupby(FIGURES):
        region, battery_id, _ = key
        capacity = 4.0 if battery_id == "B1" else 1.0
        change = rows["charge_level_end_mwh"] - rows["charge_level_mwh"]
        marked = rows["cash"] + change * worth[region]
        profit = rows["cash"].sum() + worth[region] * (
            rows["charge_level_end_mwh"].iloc[-1] - rows["charge_level_mwh"].iloc[0]
        )
        got = single.loc[key]
        assert got["profit"] == pytest.approx(profit, abs=1e-9)
        days = len(rows) / 96
        assert got["days"] == pytest.approx(days)
        assert got["profit_per_day"] == pytest.approx(profit / days, abs=1e-9)
        cycles = -change.clip(upper=0).sum() / capacity
        assert got["cycles"] == pytest.approx(cycles)
        assert got["cycles_per_day"] == pytest.approx(cycles / days)
        if cycles > 0:
            assert got["profit_per_cycle"] == pytest.approx(profit / cycles)
        daily = marked.groupby(rows["timestamp"].dt.date).sum()
        assert got["worst_day"] == pytest.approx(daily.min(), abs=1e-9)
        assert got["losing_days"] == (daily < 0).sum()
        curve = np.concatenate([[0], marked.cumsum()])
        assert got["max_drawdown"] == pytest.approx(max(curve[: i + 1].max() - curve[i] for i in range(len(curve))))
        assert got["terminal_value"] == pytest.approx(worth[region])
        best = single.loc[(region, battery_id, "perfect_foresight"), "profit"]
        assert got["share"] == pytest.approx(profit / best)


def test_pooled_rows_add_up(setting) -> None:
    summary = setting[5]
    single = summary[~summary["region"].isin(["all", "fleet"])]
    reference = single[single["battery_id"] == "reference"]
    for name, rows in single.groupby("strategy"):
        markets = reference[reference["strategy"] == name]
        pooled = summary[(summary["region"] == "all") & (summary["strategy"] == name)].iloc[0]
        fleet = summary[(summary["region"] == "fleet") & (summary["strategy"] == name)].iloc[0]
        for column in ("profit", "cash", "cycles", "energy_bought_mwh", "end_charge_mwh", "capacity_mwh"):
            assert pooled[column] == pytest.approx(markets[column].sum(), abs=1e-9)
            assert fleet[column] == pytest.approx(rows.loc[rows.battery_id == "B1", column].sum(), abs=1e-9)
        best = reference[reference.strategy == "perfect_foresight"]["profit"].sum()
        assert pooled["share"] == pytest.approx(markets["profit"].sum() / best, abs=1e-12)
    assert summary["region"].iloc[0] == "all"


def test_the_optimum_is_the_limit_and_hold_is_zero(setting) -> None:
    summary = setting[5].set_index(FIGURES)
    assert (summary["share"] <= 1 + 1e-12).all()
    hold = summary.xs("hold", level="strategy")
    for column in ("profit", "share", "cycles", "max_drawdown", "worst_day"):
        assert (hold[column] == 0).all()
    assert hold["profit_per_cycle"].isna().all()
    best = summary.xs("perfect_foresight", level="strategy")
    assert (best["share"] == 1).all()
    np.testing.assert_allclose(best[["share_low", "share_high"]], 1)


def test_intervals_enclose_the_figures_and_are_repeatable(setting) -> None:
    _, _, _, _, frame, summary, _ = setting
    active = summary[~summary["strategy"].isin(["hold", "perfect_foresight"])]
    assert (active["share_low"] < active["share"]).all() and (active["share"] < active["share_high"]).all()
    assert (active["profit_per_day_low"] < active["profit_per_day"]).all()
    again = summarise(frame.sample(frac=1, random_state=0).sort_values("timestamp", kind="stable"), summary)
    merged = summary.merge(again, on=FIGURES, suffixes=("", "_again"))
    assert len(merged) == len(summary)
    np.testing.assert_allclose(merged["share_low"], merged["share_low_again"])
    np.testing.assert_allclose(merged["profit"], merged["profit_again"], atol=1e-9)


def test_paired_comparison_orders_strategies(setting) -> None:
    _, _, _, _, frame, summary, _ = setting
    compared = compare_strategies(frame, summary, "mpc")
    table = compared.set_index("rival")
    assert table.loc["hold", "probability"] > 0.95 and table.loc["hold", "difference_per_day_low"] > 0
    assert table.loc["perfect_foresight", "probability"] < 0.05
    pooled = summary[summary["region"] == "all"].set_index("strategy")["profit_per_day"]
    for rival, row in table.iterrows():
        assert row["difference_per_day"] == pytest.approx(pooled["mpc"] - pooled[rival])
    with pytest.raises(ConfigError, match="no strategy 'nothing'"):
        compare_strategies(frame, summary, "nothing")


def test_one_battery_is_pooled_with_itself() -> None:
    prices, split = market(minutes=15)
    summary = backtest(prices, [Hold()], reference_units(["FR"], Battery()), split, bootstrap=10).summary
    pooled = pool_summary(summary)
    assert pooled["strategy"].tolist() == ["hold", "perfect_foresight"]
    own = summary[summary["region"] == "FR"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        pooled.drop(columns=["region", "battery_id"]), own.drop(columns=["region", "battery_id"])
    )


def test_a_late_policy_earns_less_and_the_optimum_the_same() -> None:
    prices, split = market(minutes=15, seed=3)
    now, late = (
        pool_summary(backtest(prices, [RollingMPC()], reference_units(["FR"], Battery(), d), split).summary).set_index(
            "strategy"
        )["profit"]
        for d in (0, 3)
    )
    assert late["mpc"] < now["mpc"]
    assert late["perfect_foresight"] == now["perfect_foresight"]


def test_required_final_charge_is_kept_by_all() -> None:
    prices, split = market(minutes=15)
    frame, summary = backtest(
        prices, baselines(False), reference_units(["FR"], Battery(final_charge=0.8)), split, bootstrap=10
    )
    ends = frame.groupby("strategy")["charge_level_end_mwh"].last()
    assert (ends >= 0.8 - 1e-9).all()
    assert (summary["share"] <= 1 + 1e-9).all()


def test_telemetry_becomes_batteries_as_they_stand_before_the_test() -> None:
    prices, split = market(regions=REGIONS)
    times = pd.date_range(split.start, split.end, freq="60min", inclusive="left")

    def telemetry(battery_id: str, region: str | None, charge: float, power: float) -> pd.DataFrame:
        levels = np.where(times < split.val_end, charge, 0.5)
        levels[times == split.val_end] = charge
        return pd.DataFrame(
            {
                "timestamp": times,
                "battery_id": battery_id,
                "charge_level_mwh": levels,
                "capacity_mwh": 2.0,
                "region": region,
                "power_mw": np.where(times < split.val_end, power, 9.0),
            }
        )

    frame = pd.concat(
        [
            telemetry("a", "FR", 1.5, 0.8),
            telemetry("b", "XX", 1.0, 0.8),
            telemetry("c", "DE", 0.05, 0.0),
            telemetry("d", "DE", 1.0, 0.8)[lambda x: x.timestamp > split.val_end],
        ]
    )
    units, problems = own_units(frame, split, RLBatteryConfig(wear_cost_per_mwh=2.0), REGIONS)
    assert [(u.battery_id, u.region, u.start_mwh) for u in units] == [("a", "FR", 1.5), ("c", "DE", 0.2)]
    assert units[0].battery.power_mw == 0.8 and units[0].battery.wear_cost_per_mwh == 2.0
    assert units[1].battery.power_mw == 1.0  # none was seen: the config's ratio of power to capacity
    assert sorted(p.kind for p in problems) == ["battery_left_out", "battery_left_out", "start_outside_limits"]
    result = backtest(prices, [Hold()], units, split, bootstrap=10)
    assert set(result.frame["battery_id"]) == {"a", "c"}

    alone, listed = own_units(frame[frame.battery_id == "a"].drop(columns="region"), split, RLBatteryConfig(), REGIONS)
    assert not alone and listed[0].kind == "battery_left_out"
    assert own_units(frame[frame.battery_id == "a"].drop(columns="region"), split, RLBatteryConfig(), ["FR"])[0]


def test_bad_use_is_named() -> None:
    prices, split = market()
    units = reference_units(["FR"], Battery())
    with pytest.raises(ConfigError, match="distinct names"):
        backtest(prices, [Hold(), Hold()], units, split)
    with pytest.raises(ConfigError, match="no battery"):
        backtest(prices, [Hold()], [], split)
    with pytest.raises(ConfigError, match="distinct ids"):
        backtest(prices, [Hold()], [*units, *units], split)
    with pytest.raises(UnknownRegionError, match="'DE'"):
        backtest(prices, [Hold()], reference_units(["DE"], Battery()), split)
    with pytest.raises(BatteryError, match="outside the limits"):
        backtest(prices, [Hold()], [BatteryUnit(REFERENCE, "FR", Battery(), 0.0)], split)
    with pytest.raises(UnknownRegionError, match="isn't described"):
        frame, _ = backtest(prices, [ThresholdRule()], units, split, bootstrap=10)
        summarise(
            frame,
            pd.DataFrame(
                {"region": ["DE"], "battery_id": "x", "capacity_mwh": 1, "rated_power_mw": 1, "terminal_value": 1}
            ),
        )
