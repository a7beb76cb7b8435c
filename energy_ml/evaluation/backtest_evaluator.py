"""The battery backtest: every strategy on the test span, carried out by the one physics, summed up with intervals.

What belongs here: running strategies, the backtest frame, and what can be computed from it. What doesn't: strategies
(``energy_ml.rl_battery``) and drawing (``charts``, ``reports``).

Profit is cash plus the change of what is stored, valued at the mean training price times the discharge efficiency, for
strategies and optimum alike: doing nothing scores 0 and merely emptying the battery about 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from energy_ml.config import RLBatteryConfig, default_config
from energy_ml.errors import ConfigError, UnknownRegionError
from energy_ml.market_data.schema import DataProblem
from energy_ml.names import IS_FILLED
from energy_ml.rl_battery.baselines import PerfectForesight
from energy_ml.rl_battery.battery import ACTIONS, Battery, Floats, simulate
from energy_ml.rl_battery.strategy import Context, Strategy, build_context
from energy_ml.splits import TimeSplit

REFERENCE = "reference"
"""``battery_id`` of the configured battery, one per region."""
POOLED = "all"
FLEET = "fleet"
OPTIMUM = "perfect_foresight"
COLUMNS = (
    "timestamp",
    "region",
    "battery_id",
    "strategy",
    "action",
    "charge_level_mwh",
    "charge_level_end_mwh",
    "price",
    "energy_mwh",
    "cash",
    "is_filled",
)
"""The backtest frame: one row per interval, battery and strategy; test split only. Where no price was measured
(``is_filled``) it is the last known one, and the battery waits."""


@dataclass(frozen=True)
class BatteryUnit:
    """One battery of a backtest: where it stands and the charge it starts the test with (MWh)."""

    battery_id: str
    region: str
    battery: Battery
    start_mwh: float


class Backtest(NamedTuple):
    """``frame`` holds every interval (``COLUMNS``), ``summary`` one row per strategy and battery and pooled rows."""

    frame: pd.DataFrame
    summary: pd.DataFrame


def reference_units(regions: Sequence[str], battery: Battery) -> list[BatteryUnit]:
    """The same battery once in each region."""
    return [BatteryUnit(REFERENCE, str(region), battery, battery.initial_mwh) for region in regions]


def telemetry_units(
    telemetry: pd.DataFrame, split: TimeSplit, config: RLBatteryConfig, regions: Sequence[str]
) -> tuple[list[BatteryUnit], list[DataProblem]]:
    """The batteries of a (cleaned) telemetry frame as they stand when the test begins, with what was odd about them.

    Capacity is the last known one, the power limit the greatest ``power_mw`` seen before the test (without that
    column: the config's ratio of power to capacity), the start the last known charge, moved into the limits of the
    config where it lies outside. All else is the config's. Only rows before the test (the start: up to its first
    instant) are looked at. Batteries without rows, or in a region without prices, are left out and listed.
    """
    units: list[BatteryUnit] = []
    problems: list[DataProblem] = []

    def report(kind: str, message: str, rows: int, repaired: bool) -> None:
        problems.append(DataProblem(kind=kind, message=message, rows=rows, repaired=repaired))

    known = telemetry[(telemetry["timestamp"] <= split.val_end) & telemetry["charge_level_mwh"].notna()]
    for battery_id, every in telemetry.groupby("battery_id", observed=True):
        rows = known[known["battery_id"] == battery_id].sort_values("timestamp")
        named = every["region"].dropna().unique() if "region" in every else []
        region = str(named[-1]) if len(named) else str(regions[0]) if len(regions) == 1 else ""
        if region not in set(map(str, regions)):
            where = f"in region {region!r}, which has no prices" if region else "without a region"
            report("battery_left_out", f"battery {battery_id!r} is {where}; it isn't backtested", len(every), False)
            continue
        if rows.empty:
            report("battery_left_out", f"battery {battery_id!r} has no charge level before the test", len(every), False)
            continue
        capacity = float(rows["capacity_mwh"].iloc[-1])
        power = float("nan")
        if "power_mw" in rows:
            power = float(rows.loc[rows["timestamp"] < split.val_end, "power_mw"].abs().max())
        if not power > 0:
            power = config.power_mw / config.capacity_mwh * capacity
        battery = Battery.from_config(config, capacity_mwh=capacity, power_mw=power)
        charge = float(rows["charge_level_mwh"].iloc[-1])
        start = min(max(charge, battery.low_mwh), battery.high_mwh)
        if abs(start - charge) > 1e-6 * capacity:
            report(
                "start_outside_limits",
                f"battery {battery_id!r} holds {charge:g} MWh when the test begins, outside its limits of "
                f"{battery.low_mwh:g} to {battery.high_mwh:g} MWh; it starts with {start:g} MWh",
                1,
                True,
            )
        units.append(
            BatteryUnit(str(battery_id), region, replace(battery, initial_charge=_fraction(start, battery)), start)
        )
    return units, problems


def _fraction(charge: float, battery: Battery) -> float:
    return min(max(charge / battery.capacity_mwh, battery.min_reserve), battery.max_charge)


def backtest(
    prices: pd.DataFrame,
    strategies: Sequence[Strategy],
    units: Sequence[BatteryUnit],
    split: TimeSplit,
    *,
    forecasts: pd.DataFrame | None = None,
    execution_delay: int = 0,
    part: str = "test",
    bootstrap: int = 1000,
    seed: int = 42,
    threads: int | None = None,
    progress: Callable[[float, dict[str, Any]], None] | None = None,
) -> Backtest:
    """Run strategies and the perfect-foresight optimum for each battery over ``part`` of the window.

    Parameters
    ----------
    prices : cleaned long price frame of the window.
    strategies : distinct names; the optimum is added if it isn't among them.
    units : batteries; see ``reference_units`` and ``telemetry_units``.
    forecasts : the project's forecasts frame, for the strategies that use it.
    execution_delay : intervals between the newest price that a request may use and the interval it is for.
    bootstrap, seed : see ``summarise``.
    threads : runs at a time, as many as ``default_config`` has if None; doesn't change a number. Strategies may
        be asked for several contexts at once.
    progress : called with the fraction done and the strategy and battery just finished.

    Raises ConfigError on doubled names or no battery, and what ``build_context`` raises on bad prices or starts.
    """
    chosen = list(strategies)
    if OPTIMUM not in {s.name for s in chosen}:
        chosen.append(PerfectForesight())
    names = [s.name for s in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"strategies are named {names}", expected="distinct names", remedy="rename one of them")
    if not units:
        raise ConfigError(
            "there is no battery to backtest", expected="at least one", remedy="add reference_units(regions, battery)"
        )
    keys = [(u.region, u.battery_id) for u in units]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"batteries are named {keys}", expected="distinct ids within a region")
    contexts = [
        build_context(
            prices,
            unit.region,
            split,
            unit.battery,
            forecasts=forecasts,
            start_mwh=unit.start_mwh,
            execution_delay=execution_delay,
            part=part,
        )
        for unit in units
    ]
    runs = [(unit, context, s) for unit, context in zip(units, contexts, strict=True) for s in chosen]
    frames: list[pd.DataFrame] = []
    with ThreadPoolExecutor(threads or default_config.threads) as pool:
        done = pool.map(lambda run: run_strategy(run[1], run[2], run[0].battery_id), runs)
        for number, ((unit, _, strategy), rows) in enumerate(zip(runs, done, strict=True)):
            frames.append(rows)
            if progress is not None:
                told = {"strategy": strategy.name, "region": unit.region, "battery_id": unit.battery_id}
                progress((number + 1) / len(runs), told)
    facts = [
        {
            "region": unit.region,
            "battery_id": unit.battery_id,
            "capacity_mwh": unit.battery.capacity_mwh,
            "terminal_value": context.terminal_value,
        }
        for unit, context in zip(units, contexts, strict=True)
    ]
    frame = pd.concat(frames, ignore_index=True)
    return Backtest(frame, summarise(frame, pd.DataFrame(facts), bootstrap=bootstrap, seed=seed))


def run_strategy(context: Context, strategy: Strategy, battery_id: str = REFERENCE) -> pd.DataFrame:
    """One strategy on one battery: its requests carried out by the physics, as rows of the backtest frame."""
    run = simulate(
        context.battery,
        strategy.actions(context),
        context.prices,
        context.hours,
        context.days,
        start_mwh=context.start_mwh,
    )
    return pd.DataFrame(
        {
            "timestamp": context.timestamps,
            "region": context.region,
            "battery_id": battery_id,
            "strategy": strategy.name,
            "action": np.array(ACTIONS, dtype=object)[run.actions],
            "charge_level_mwh": run.charge[:-1],
            "charge_level_end_mwh": run.charge[1:],
            "price": context.seen_prices[len(context.history_prices) :],
            "energy_mwh": run.energy,
            "cash": run.cash,
            IS_FILLED: np.isnan(context.prices),
        }
    )


def summarise(
    frame: pd.DataFrame, batteries: pd.DataFrame, *, level: float = 0.90, bootstrap: int = 1000, seed: int = 42
) -> pd.DataFrame:
    """What each strategy earned, from the raw rows.

    Parameters
    ----------
    frame : backtest frame.
    batteries : ``region``, ``battery_id``, ``capacity_mwh`` and ``terminal_value`` (currency/MWh in the cells).
    level, bootstrap, seed : of the block-bootstrap intervals (see ``BlockBootstrap``).

    Returns
    -------
    One row per (region, battery_id, strategy); where there are several batteries also rows pooled over the
    reference batteries (region and battery_id ``all``; over every battery where there is no reference) and, beside
    reference batteries, over the telemetry's (region ``fleet``). Columns:
    ``profit`` (currency), ``share`` of the optimum's profit with ``share_low`` and ``share_high``, ``profit_per_day``
    with ``_low`` and ``_high``, ``cash``, ``days``, ``cycles`` (equivalent full ones: capacities drawn from the cells),
    ``cycles_per_day``, ``profit_per_cycle``, ``worst_day`` and ``losing_days`` (UTC days), ``max_drawdown`` (largest
    fall of the cumulative profit), ``energy_bought_mwh``, ``energy_sold_mwh``, ``start_charge_mwh``,
    ``end_charge_mwh``, ``capacity_mwh``, ``terminal_value`` (pooled: NaN). Without possible profit the share is NaN.
    """
    # Grouping by numbers is several times faster than by strings.
    marked = mark_to_market(frame, batteries).astype(dict.fromkeys(("region", "battery_id", "strategy"), "category"))
    minutes = _interval_minutes(marked)
    groups: list[tuple[str, str, pd.DataFrame]] = [
        (str(region), str(battery_id), rows)
        for (region, battery_id), rows in marked.groupby(["region", "battery_id"], sort=False, observed=True)
    ]
    if len(groups) > 1:
        is_reference = marked["battery_id"] == REFERENCE
        if is_reference.any() and not is_reference.all():
            groups.append((FLEET, POOLED, marked[~is_reference]))
        groups.insert(0, (POOLED, POOLED, headline(marked)))
    records = []
    for region, battery_id, rows in groups:
        hourly = hourly_profits(rows)
        draws = BlockBootstrap(len(hourly), n=bootstrap, seed=seed)
        resampled = {name: draws.sums(hourly[name].to_numpy()) for name in hourly}
        for name, mine in rows.groupby("strategy", sort=False, observed=True):
            per_interval = mine.groupby("timestamp")["profit"].sum()
            days = len(per_interval) * minutes / 1440
            daily = per_interval.groupby(per_interval.index.floor("D")).sum()
            cumulative = np.concatenate([[0.0], per_interval.cumsum().to_numpy()])
            profit, cycles = float(mine["profit"].sum()), float(mine["cycles"].sum())
            possible = float(rows.loc[rows["strategy"] == OPTIMUM, "profit"].sum())
            low, high = (1 - level) / 2, (1 + level) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = resampled[name] / resampled[OPTIMUM] if OPTIMUM in resampled else np.array([np.nan])
            usable = shares[np.isfinite(shares)]
            of_batteries = mine.groupby(["region", "battery_id"], observed=True)
            single = of_batteries.ngroups == 1
            records.append(
                {
                    "region": region,
                    "battery_id": battery_id,
                    "strategy": str(name),
                    "profit": profit,
                    "share": profit / possible if possible > 1e-9 else np.nan,
                    "share_low": np.quantile(usable, low) if possible > 1e-9 and len(usable) else np.nan,
                    "share_high": np.quantile(usable, high) if possible > 1e-9 and len(usable) else np.nan,
                    "profit_per_day": profit / days,
                    "profit_per_day_low": np.quantile(resampled[name], low) / days,
                    "profit_per_day_high": np.quantile(resampled[name], high) / days,
                    "cash": float(mine["cash"].sum()),
                    "days": days,
                    "cycles": cycles,
                    "cycles_per_day": cycles / days / of_batteries.ngroups,
                    "profit_per_cycle": profit / cycles if cycles > 1e-9 else np.nan,
                    "worst_day": float(daily.min()),
                    "losing_days": int((daily < 0).sum()),
                    "max_drawdown": float((np.maximum.accumulate(cumulative) - cumulative).max()),
                    "energy_bought_mwh": float(mine["energy_mwh"].clip(lower=0).sum()),
                    "energy_sold_mwh": float(-mine["energy_mwh"].clip(upper=0).sum()),
                    "start_charge_mwh": float(of_batteries["charge_level_mwh"].first().sum()),
                    "end_charge_mwh": float(of_batteries["charge_level_end_mwh"].last().sum()),
                    "capacity_mwh": float(of_batteries["capacity_mwh"].first().sum()),
                    "terminal_value": float(mine["terminal_value"].iloc[0]) if single else np.nan,
                }
            )
    return pd.DataFrame(records)


def mark_to_market(frame: pd.DataFrame, batteries: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``capacity_mwh``, ``terminal_value``, ``profit`` and ``cycles`` of each interval, in time order.

    An interval's profit is its cash plus the change of charge times the terminal value; over a span these add up to
    cash plus the value of what is left minus the value of what was there. ``batteries`` may be a whole summary. Raises
    UnknownRegionError for a battery that it doesn't describe.
    """
    facts = batteries[["region", "battery_id", "capacity_mwh", "terminal_value"]].drop_duplicates()
    marked = frame.merge(facts, on=["region", "battery_id"], how="left", validate="many_to_one")
    if marked["terminal_value"].isna().any():
        lost = marked.loc[marked["terminal_value"].isna(), ["region", "battery_id"]]
        raise UnknownRegionError(
            "a battery of the backtest isn't described",
            rows=len(lost),
            example=tuple(lost.iloc[0]),
            expected="capacity_mwh and terminal_value of every region and battery_id",
        )
    change = marked["charge_level_end_mwh"] - marked["charge_level_mwh"]
    marked["profit"] = marked["cash"] + change * marked["terminal_value"]
    marked["cycles"] = (-change).clip(lower=0) / marked["capacity_mwh"]
    return marked.sort_values("timestamp", kind="stable")


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """The reference batteries' rows, or all where there is none.

    Headlines compare markets: a big fleet must not drown the same battery in each of them.
    """
    reference = rows[rows["battery_id"] == REFERENCE]
    return reference if len(reference) else rows


def hourly_profits(marked: pd.DataFrame) -> pd.DataFrame:
    """Profit per UTC hour (rows) and strategy (columns), batteries summed: they share hours and aren't independent."""
    hours = marked["timestamp"].dt.floor("h").rename("hour")
    return (
        marked.assign(hour=hours)
        .pivot_table(index="hour", columns="strategy", values="profit", aggfunc="sum", observed=True, sort=False)
        .sort_index()
    )


def _interval_minutes(rows: pd.DataFrame) -> float:
    times = np.unique(pd.DatetimeIndex(rows["timestamp"]).as_unit("ns").asi8)
    return float(np.diff(times).min() / 60e9) if len(times) > 1 else 60.0


class BlockBootstrap:
    """Circular block bootstrap of hourly series (Politis and Romano 1992): whole blocks keep the day's course together.

    Blocks are days; spans shorter than a week don't hold enough of them and are resampled in blocks of six hours, which
    says little about how days differ: take such intervals as lower limits of the uncertainty. The same object draws the
    same blocks for every series, so differences and ratios of its sums are paired.
    """

    def __init__(self, hours: int, *, n: int = 1000, seed: int = 42) -> None:
        self.hours = hours
        self.block = min(24 if hours >= 7 * 24 else 6, hours)
        blocks = -(-hours // self.block)
        self.scale = hours / (blocks * self.block)
        self.starts = np.random.default_rng(seed).integers(0, hours, (n, blocks))

    def sums(self, series: Floats) -> Floats:
        """Resampled sums of a series (hours,), shape (n,)."""
        around = np.concatenate([[0.0], np.cumsum(np.concatenate([series, series[: self.block]]))])
        of_block = around[self.block : self.block + self.hours] - around[: self.hours]
        return np.asarray(of_block[self.starts].sum(axis=1) * self.scale)


def compare_strategies(
    frame: pd.DataFrame,
    batteries: pd.DataFrame,
    strategy: str,
    *,
    level: float = 0.90,
    bootstrap: int = 1000,
    seed: int = 42,
) -> pd.DataFrame:
    """``strategy`` against every other one by a paired block bootstrap over the ``headline`` batteries.

    Returns one row per rival: ``rival``, ``difference_per_day`` (currency, ours minus theirs) with ``_low`` and
    ``_high``, and ``probability``: the share of resamples in which ours earned more (ties count half).
    Raises ConfigError if the frame doesn't hold ``strategy``.
    """
    hourly = hourly_profits(mark_to_market(headline(frame), batteries))
    if strategy not in hourly:
        raise ConfigError(f"the backtest has no strategy {strategy!r}", expected=f"one of {', '.join(hourly)}")
    draws = BlockBootstrap(len(hourly), n=bootstrap, seed=seed)
    days = len(hourly) / 24
    records = []
    for rival in hourly.columns.drop(strategy):
        difference = (hourly[strategy] - hourly[rival]).to_numpy()
        resampled = draws.sums(difference)
        records.append(
            {
                "strategy": strategy,
                "rival": str(rival),
                "difference_per_day": difference.sum() / days,
                "difference_per_day_low": np.quantile(resampled, (1 - level) / 2) / days,
                "difference_per_day_high": np.quantile(resampled, (1 + level) / 2) / days,
                "probability": float((resampled > 0).mean() + 0.5 * (resampled == 0).mean()),
            }
        )
    return pd.DataFrame(records)
