"""Baselines: no look-ahead, known answers, and the order that theory demands."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from energy_ml.errors import BatteryError, GapError, IntervalError, NoDataError, UnknownRegionError
from energy_ml.rl_battery.baselines import (
    Hold,
    PerfectForesight,
    RollingMPC,
    ThresholdRule,
    trailing_rank,
)
from energy_ml.rl_battery.battery import Battery, simulate
from energy_ml.rl_battery.lookahead import path_lengths
from energy_ml.rl_battery.strategy import Context, Strategy, build_context
from energy_ml_tests.rl_battery.markets import market, true_forecasts

CAUSAL = (Hold(), ThresholdRule(), RollingMPC(), RollingMPC("mpc_forecast", use_forecasts=True))


def profit(context: Context, strategy: Strategy) -> float:
    run = simulate(
        context.battery,
        strategy.actions(context),
        context.prices,
        context.hours,
        context.days,
        start_mwh=context.start_mwh,
    )
    return run.cash.sum() + context.terminal_value * (run.charge[-1] - run.charge[0])


def context_of(seed: int = 0, delay: int = 0, battery: Battery | None = None, minutes: int = 15) -> Context:
    prices, split = market(seed=seed, minutes=minutes)
    forecasts = true_forecasts(prices, (15, 60), minutes)
    return build_context(prices, "FR", split, battery or Battery(), forecasts=forecasts, execution_delay=delay)


@pytest.mark.parametrize("strategy", CAUSAL, ids=lambda s: s.name)
@pytest.mark.parametrize("delay", [0, 2])
def test_requests_don_t_depend_on_what_is_not_yet_known(strategy: Strategy, delay: int) -> None:
    context = context_of(delay=delay)
    before = strategy.actions(context)
    cut = 60
    prices = context.prices.copy()
    prices[cut:] = np.random.default_rng(1).normal(0, 500, len(prices) - cut)
    forecasts = {h: np.where(np.arange(len(prices)) >= cut, -777.0, v) for h, v in context.forecasts.items()}
    after = strategy.actions(dataclasses.replace(context, prices=prices, forecasts=forecasts))
    np.testing.assert_array_equal(before[: cut + delay], after[: cut + delay])
    if strategy.name != "hold":
        assert (before[cut + delay :] != after[cut + delay :]).any()


def test_every_baseline_is_a_strategy_and_deterministic() -> None:
    context = context_of()
    for strategy in (*CAUSAL, PerfectForesight()):
        assert isinstance(strategy, Strategy)
        np.testing.assert_array_equal(strategy.actions(context), strategy.actions(context))


@pytest.mark.parametrize("seed", range(3))
def test_profits_stand_in_the_order_that_information_allows(seed: int) -> None:
    context = context_of(seed)
    hold, threshold, seasonal, informed = (profit(context, s) for s in CAUSAL)
    best = profit(context, PerfectForesight())
    assert hold == 0
    assert 0 < threshold < best and 0 < seasonal < best
    assert seasonal < informed <= best + 1e-9


def test_knowing_less_for_longer_costs() -> None:
    now, late = context_of(), context_of(delay=4)
    for strategy in (ThresholdRule(), RollingMPC()):
        assert profit(late, strategy) < profit(now, strategy)


def test_mpc_is_optimal_where_every_day_is_the_same() -> None:
    prices, split = market(noise=0.0, days=20)
    context = build_context(prices, "FR", split, Battery())
    # The profile is hourly while prices move every quarter of an hour: nearly all is within reach, not all.
    assert profit(context, RollingMPC()) > 0.93 * profit(context, PerfectForesight())


def test_missing_forecasts_fall_back_to_the_profile() -> None:
    context = context_of()
    nothing = {h: np.full_like(v, np.nan) for h, v in context.forecasts.items()}
    history = {h: np.full_like(v, np.nan) for h, v in context.history_forecasts.items()}
    blind = dataclasses.replace(context, forecasts=nothing, history_forecasts=history)
    np.testing.assert_array_equal(RollingMPC(use_forecasts=True).actions(blind), RollingMPC().actions(context))
    with pytest.raises(BatteryError, match="no forecasts of region 'FR'"):
        RollingMPC(use_forecasts=True).actions(dataclasses.replace(context, forecasts={}))


def test_wear_and_fees_make_every_strategy_trade_less() -> None:
    free = context_of()
    dear = context_of(battery=Battery(wear_cost_per_mwh=40, buy_fee_per_mwh=10, sell_fee_per_mwh=10))
    for strategy in (ThresholdRule(), RollingMPC(), PerfectForesight()):
        moved = [
            np.abs(simulate(c.battery, strategy.actions(c), c.prices, c.hours, c.days).energy).sum()
            for c in (free, dear)
        ]
        assert moved[1] < moved[0]


@pytest.mark.parametrize("window", [2, 7, 50, 500])
def test_trailing_rank_is_the_rank_by_brute_force(window: int) -> None:
    prices = np.round(np.random.default_rng(4).normal(0, 3, 300))
    expected = []
    for t in range(len(prices)):
        seen = prices[max(0, t - window + 1) : t + 1]
        expected.append((np.sum(seen < prices[t]) + np.sum(seen <= prices[t])) / (2 * len(seen)))
    np.testing.assert_allclose(trailing_rank(prices, window), expected, rtol=1e-12)


def test_threshold_rule_is_tuned_to_the_best_of_its_grid() -> None:
    context = context_of()
    rule = ThresholdRule(window_days=(1.0, 3.0), buy_ranks=(0.1, 0.3), sell_ranks=(0.6, 0.9))
    chosen = rule.tune(context)
    past = context.history_prices
    worth = past.mean() * context.battery.discharge_efficiency
    profits = {}
    for window in rule.window_days:
        ranks = trailing_rank(past, int(window * 96))
        for buy in rule.buy_ranks:
            for sell in rule.sell_ranks:
                requests = np.where(ranks <= buy, 0.5, np.where(ranks >= sell, -0.5, 0.0))
                run = simulate(context.battery, requests, past, context.hours)
                profits[window, buy, sell] = run.cash.sum() + worth * (run.charge[-1] - run.charge[0])
    assert chosen == max(profits, key=profits.get)


@pytest.mark.parametrize("minutes", [1, 5, 15, 30, 60])
def test_plans_cover_a_day_at_every_interval(minutes: int) -> None:
    lengths = path_lengths(minutes, 0)
    assert lengths.sum() * minutes == 1440
    assert len(lengths) <= 48 and lengths.min() >= 1


@pytest.mark.parametrize("minutes", [5, 60])
def test_other_intervals_work(minutes: int) -> None:
    prices, split = market(minutes=minutes, days=4)
    context = build_context(prices, "FR", split, Battery(), forecasts=true_forecasts(prices, (60,), minutes))
    for strategy in (ThresholdRule(), RollingMPC(), RollingMPC(use_forecasts=True)):
        assert profit(context, strategy) > 0


def test_cycle_limit_holds_for_every_strategy() -> None:
    context = context_of(battery=Battery(max_cycles_per_day=0.6))
    for strategy in (*CAUSAL, PerfectForesight()):
        run = simulate(context.battery, strategy.actions(context), context.prices, context.hours, context.days)
        drawn = np.bincount(context.days - context.days[0], -np.minimum(np.diff(run.charge), 0))
        assert drawn.max() <= 0.6 + 1e-9


def test_context_is_cut_and_aligned_as_promised() -> None:
    prices, split = market(regions=("FR", "DE"))
    forecasts = true_forecasts(prices, (15, 60), 15).sample(frac=1, random_state=1)
    context = build_context(prices, "DE", split, Battery(), forecasts=forecasts)
    mine = prices[prices.region == "DE"].set_index("timestamp")["real_time_price"]
    np.testing.assert_array_equal(context.prices, mine[mine.index >= split.val_end].to_numpy())
    np.testing.assert_array_equal(context.history_prices, mine[mine.index < split.val_end].to_numpy())
    np.testing.assert_allclose(context.forecasts[60][:-4], context.prices[4:])
    assert np.isnan(context.forecasts[60][-4:]).all()
    np.testing.assert_allclose(context.history_forecasts[15], mine.shift(-1)[mine.index < split.val_end])
    training = mine[mine.index < split.train_end].mean()
    assert context.terminal_value == pytest.approx(training * np.sqrt(0.9))
    assert context.interval_minutes == 15


def test_bad_markets_are_named() -> None:
    prices, split = market(days=4)
    with pytest.raises(UnknownRegionError, match="no prices of region 'XX'"):
        build_context(prices, "XX", split, Battery())
    with pytest.raises(GapError, match="30 minutes after"):
        build_context(prices.drop(index=50), "FR", split, Battery())
    holed = prices.copy()
    holed.loc[7, "real_time_price"] = np.inf
    with pytest.raises(GapError, match="1 row"):
        build_context(holed, "FR", split, Battery())
    with pytest.raises(NoDataError, match="0 prices in test"):
        build_context(prices[prices.timestamp < split.val_end], "FR", split, Battery())
    with pytest.raises(NoDataError, match="has 1 prices"):
        build_context(prices[:1], "FR", split, Battery())
    with pytest.raises(IntervalError, match="0 minutes apart"):
        build_context(prices.loc[[0, 0, 1, 2]], "FR", split, Battery())
    short, short_split = market(days=1)
    with pytest.raises(NoDataError, match="at least a day of history"):
        build_context(short, "FR", short_split, Battery())
    with pytest.raises(BatteryError, match="outside the limits"):
        build_context(prices, "FR", split, Battery(), start_mwh=0.01)
