"""What a learned policy has to beat: hold, a threshold rule, rolling optimisation, itself without parts; and the limit.

What belongs here: strategies without learning from rewards. What doesn't: Q-learning (agent, trainer, policy) and the
accounting of results (``energy_ml.evaluation.backtest_evaluator``). All but perfect foresight are free of look-ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.errors import BatteryError
from energy_ml.kernels import kernel, part
from energy_ml.names import HOLD, MPC, MPC_FORECAST, PERFECT_FORESIGHT, THRESHOLD
from energy_ml.rl_battery.battery import Battery, simulate, utc_days
from energy_ml.rl_battery.learning import follow
from energy_ml.rl_battery.lookahead import CELLS, path_lengths, plan_slopes
from energy_ml.rl_battery.optimum import perfect_foresight
from energy_ml.rl_battery.policy import BatteryPolicy
from energy_ml.rl_battery.strategy import Blind, Context, Strategy, end_value, known


@dataclass(frozen=True)
class Hold:
    """Do nothing; earns nothing by construction, which makes it the zero of every table."""

    name: str = HOLD

    def actions(self, context: Context) -> Floats:
        """All requests are 0, (T,) MW."""
        return np.zeros(len(context.prices))


@dataclass(frozen=True)
class PerfectForesight:
    """The exact optimum with all prices known: no strategy, the limit of all of them."""

    name: str = PERFECT_FORESIGHT

    def actions(self, context: Context) -> Floats:
        """Powers of the optimal schedule, (T,) MW."""
        return perfect_foresight(
            context.battery,
            context.prices,
            context.hours,
            days=context.days,
            start_mwh=context.start_mwh,
            terminal_value=context.terminal_value,
        ).requests


def trailing_rank(prices: Floats, window: int) -> Floats:
    """Share of the last ``window`` prices, the newest included, that lie below the newest (ties count half); (T,).

    At the start of the series the window is what there is so far. A price that is NaN has no rank and stands in no
    window.
    """
    there = ~np.isnan(prices)
    rolling = pd.Series(prices[there]).rolling(window, min_periods=1)
    ranks = np.full(len(prices), np.nan)
    ranks[there] = (rolling.rank() - 0.5) / rolling.count()
    return ranks


@dataclass(frozen=True)
class ThresholdRule:
    """Buy when the price ranks low among those of the last days, sell when it ranks high.

    The length of the trailing window and both ranks are chosen by profit on the history (train and validation).
    """

    name: str = THRESHOLD
    window_days: tuple[float, ...] = (1.0, 3.0, 7.0)
    buy_ranks: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
    sell_ranks: tuple[float, ...] = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

    def tune(self, context: Context) -> tuple[float, float, float]:
        """(window in days, buy at or below this rank, sell at or above that one) with the best profit on history."""
        battery, prices = context.battery, context.history_prices
        days, late = utc_days(context.history_timestamps), np.full(context.execution_delay, np.nan)
        worth = end_value(prices, battery)
        best, chosen = -np.inf, (self.window_days[0], self.buy_ranks[0], self.sell_ranks[-1])
        for window in self.window_days:
            ranks = np.concatenate([late, trailing_rank(prices, max(2, int(window * context.per_day)))])[: len(prices)]
            for buy, sell in product(self.buy_ranks, self.sell_ranks):
                if buy < sell:
                    run = simulate(battery, _by_rank(ranks, buy, sell, battery), prices, context.hours, days)
                    profit = float(run.cash.sum() + worth * run.charge[-1])
                    if profit > best:
                        best, chosen = profit, (window, buy, sell)
        return chosen

    def actions(self, context: Context) -> Floats:
        """Full power one way or the other, (T,) MW."""
        window, buy, sell = self.tune(context)
        known = np.concatenate([context.history_prices, context.prices])
        ranks = trailing_rank(known, max(2, int(window * context.per_day)))
        first = len(context.history_prices) - context.execution_delay
        return _by_rank(ranks[first : first + len(context.prices)], buy, sell, context.battery)


def _by_rank(ranks: Floats, buy: float, sell: float, battery: Battery) -> Floats:
    """Full power at prices that rank so low or high, MW; none where a rank is NaN."""
    return np.where(ranks <= buy, battery.power_mw, np.where(ranks >= sell, -battery.power_out_mw, 0.0))


class _Outlook(NamedTuple):
    """How the rolling plan expects prices.

    ``lags`` (A,) are the anchors of the forecast in intervals, 0 first; ``decay`` is what is left of a deviation from
    the profile after one interval; ``ends`` (S + 1,) of the plan's steps, intervals from the one acted in; prices count
    up to ``cap``. ``interval`` in minutes.
    """

    interval: int
    profile_days: int
    cap: float
    decay: float
    lags: Integers
    ends: Integers


@part
def _hours_until(sums: Floats, minute: int) -> float:
    """Sum of an hourly profile from midnight to a minute of this day or later ones; ``sums`` of its whole hours."""
    hour = minute // 60
    return float(sums[hour] + (minute % 60) / 60 * (sums[hour + 1] - sums[hour]))


@kernel
def _expected(
    outlook: _Outlook, prices: Floats, minutes: Integers, forecasts: Floats, first: int, delay: int
) -> Floats:
    """Expected prices of the interval acted in and of the plan's steps, made ``delay`` before each interval from
    ``first`` on: (T - first, S + 1).

    ``minutes`` (T,) of the UTC day; ``forecasts`` (A, T) at the anchors; row 0 is not used. Where a price is NaN the
    last known one is seen; rows before the first known one are NaN.
    """
    interval, profile_days, cap, decay, lags, ends = outlook
    ring, seen = np.zeros((24, profile_days)), np.zeros(24, dtype=np.int64)
    profile, sums = np.zeros(24), np.zeros(24 * (2 + delay * interval // 1440) + 26)
    total, running, count, clipped, known_prices = 0.0, 0.0, 0, 0.0, 0
    deviation, anchor = np.empty(len(lags)), np.empty(len(lags), dtype=np.int64)
    out = np.full((len(prices) - first, len(ends)), np.nan)
    # u is the newest interval whose price is known, u + delay the one to decide on.
    for u in range(len(prices) - delay):
        if count > 0 and minutes[u] // 60 != minutes[u - 1] // 60:
            hour = minutes[u - 1] // 60
            ring[hour, seen[hour] % profile_days] = running / count
            seen[hour] += 1
            known_days, mean = min(seen[hour], profile_days), 0.0
            for i in range(known_days):
                mean += ring[hour, i]
            profile[hour] = mean / known_days
            running, count = 0.0, 0
        if not np.isnan(prices[u]):
            clipped = min(max(prices[u], -cap), cap)
            running, total = running + clipped, total + clipped
            count, known_prices = count + 1, known_prices + 1
            for hour in range(24):
                if seen[hour] == 0:
                    profile[hour] = total / known_prices
        if u + delay < first or known_prices == 0:
            continue
        for hour in range(len(sums) - 1):
            sums[hour + 1] = sums[hour] + profile[hour % 24]
        # Deviations from the profile at the anchors that have a forecast.
        anchors = 0
        for lag in range(len(lags)):
            value = clipped if lag == 0 else forecasts[lag, u]
            if not np.isnan(value):
                anchor[anchors] = lags[lag]
                usual = profile[(minutes[u] + lags[lag] * interval) // 60 % 24]
                deviation[anchors] = min(max(value, -cap), cap) - usual
                anchors += 1
        begin, segment = delay, 0
        for i in range(len(ends)):
            end = delay + ends[i]
            middle = 0.5 * (begin + end - 1)
            usual = _hours_until(sums, minutes[u] + end * interval) - _hours_until(sums, minutes[u] + begin * interval)
            while segment < anchors - 1 and middle > anchor[segment + 1]:
                segment += 1
            if segment == anchors - 1:
                extra = deviation[segment] * decay ** (middle - anchor[segment])
            else:
                way = (middle - anchor[segment]) / (anchor[segment + 1] - anchor[segment])
                extra = (1 - way) * deviation[segment] + way * deviation[segment + 1]
            out[u + delay - first, i] = usual * 60 / (interval * (end - begin)) + extra
            begin = end
    return out


@dataclass(frozen=True)
class RollingMPC:
    """Plan the next day anew in each interval on a forecast, carry out the plan's first step (receding horizon).

    The plan is the policy's (``lookahead.plan_slopes``).
    The forecast is the mean price of each hour of the day over the last days, plus the newest price's deviation from
    it, which decays. With ``use_forecasts`` the path first runs through the given forecasts (straight lines between
    horizons). The speed of decay is chosen by profit on the last days of the history.
    """

    name: str = MPC
    use_forecasts: bool = False
    decay_hours: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    profile_days: int = 7
    cap_quantile: float = 0.99
    tune_days: int = 7

    def _run(self, context: Context, first: int, n: int, tau: float, start: float) -> tuple[Floats, float, float]:
        prices = np.concatenate([context.history_prices, context.prices])[:n]
        times = context.history_timestamps.append(context.timestamps)[:n]
        interval, delay, lengths = (
            context.interval_minutes,
            context.execution_delay,
            path_lengths(context.interval_minutes, 0),
        )
        horizons = sorted(context.forecasts) if self.use_forecasts else []
        rows = [np.full(n, np.nan)]
        for horizon in horizons:
            earlier = context.history_forecasts.get(horizon, np.full(len(context.history_prices), np.nan))
            rows.append(np.concatenate([earlier, context.forecasts[horizon]])[:n])
        cap = float(np.quantile(np.abs(known(context.history_prices)), self.cap_quantile))
        outlook = _Outlook(
            interval=interval,
            profile_days=self.profile_days,
            cap=max(cap, 1.0),
            decay=float(np.exp(-context.hours / tau)),
            lags=np.array([0] + [h // interval for h in horizons], dtype=np.int64),
            ends=np.cumsum([1, *lengths]),
        )
        minutes = np.asarray(times.hour * 60 + times.minute, dtype=np.int64)
        paths = _expected(outlook, prices, minutes, np.array(rows), first, delay)
        physics, span = context.battery.physics, prices[first:]
        # The first step is the interval that is acted in.
        ahead = np.concatenate([[1.0], lengths])
        slopes = plan_slopes(ahead, 1, paths, physics, context.hours, CELLS)
        worth = np.cumsum(slopes * (physics.high - physics.low) / CELLS, axis=1)
        worth = np.concatenate([np.zeros((len(span), 1)), worth], axis=1)
        expected = paths[:, 0].copy() if delay else span
        return follow(physics, start, context.hours, expected, span, worth, utc_days(times[first:]))

    def actions(self, context: Context) -> Floats:
        """Powers of the first steps of the plans, (T,) MW. Raises BatteryError if forecasts are wanted but missing."""
        if self.use_forecasts and not context.forecasts:
            raise BatteryError(
                f"strategy {self.name!r} has no forecasts of region {context.region!r}",
                expected="forecasts in the context",
                remedy="pass forecasts to the backtest or leave this strategy out",
            )
        past = len(context.history_prices)
        first = max(context.per_day, past - self.tune_days * context.per_day)
        best, chosen = -np.inf, self.decay_hours[0]
        worth = end_value(context.history_prices, context.battery)
        for tau in self.decay_hours if first < past else ():
            start = context.battery.initial_mwh
            _, cash, charge = self._run(context, first, past, tau, start)
            if cash + worth * charge > best:
                best, chosen = cash + worth * charge, tau
        n = past + len(context.prices)
        return self._run(context, past, n, chosen, context.start_mwh)[0]


def baselines(with_forecasts: bool) -> list[Hold | ThresholdRule | RollingMPC]:
    """The baselines that stand in every report; the last one only where forecasts are given."""
    usual: list[Hold | ThresholdRule | RollingMPC] = [Hold(), ThresholdRule(), RollingMPC()]
    return [*usual, RollingMPC(MPC_FORECAST, use_forecasts=True)] if with_forecasts else usual


def reduced(policy: BatteryPolicy) -> list[Strategy]:
    """The policy and what is left of it without its table, its forecasts, or both."""
    plan = policy.without_table()
    return [policy, plan, Blind(policy), Blind(plan)]


def ablation(policy: BatteryPolicy, contexts: Sequence[Context]) -> pd.DataFrame:
    """Profit and share of the optimum (of all contexts together) without parts of the policy.

    Parameters
    ----------
    contexts : spans of batteries, see ``strategy.build_context``; forecasts in them, or the rows are alike in pairs.

    Returns
    -------
    Frame with ``strategy``, see ``reduced``, ``profit`` (currency), ``share`` of the possible profit and ``worth``, the
    share that the missing part adds.

    Raises what ``BatteryPolicy.actions`` raises.
    """

    def profit(requests: Callable[[Context], Floats]) -> float:
        total = 0.0
        for c in contexts:
            run = simulate(c.battery, requests(c), c.prices, c.hours, c.days, start_mwh=c.start_mwh)
            total += float(run.cash.sum()) + float(run.charge[-1] - run.charge[0]) * c.terminal_value
        return total

    table = pd.DataFrame([{"strategy": s.name, "profit": profit(s.actions)} for s in reduced(policy)])
    possible = profit(PerfectForesight().actions)
    table["share"] = table["profit"] / possible if possible > 0 else float("nan")
    table["worth"] = table["share"].iloc[0] - table["share"]
    return table
