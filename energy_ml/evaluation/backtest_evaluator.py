"""The battery backtest: every strategy on the test span, carried out by the one physics, summed up with intervals.

What belongs here: running strategies, the backtest frame, and what can be computed from it. What doesn't: strategies
(``energy_ml.rl_battery``) and drawing (``charts``, ``reports``).

Profit is cash plus the change of what is stored, valued at the mean training price times the discharge efficiency, for
strategies and optimum alike: doing nothing scores 0 and merely emptying the battery about 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from energy_ml import blocks
from energy_ml.arrays import Floats
from energy_ml.config import BatteryEntry, RLBatteryConfig, default_config
from energy_ml.errors import ConfigError, UnknownRegionError
from energy_ml.evaluation.bootstrap import BlockBootstrap
from energy_ml.market_data.schema import DataProblem
from energy_ml.market_data.telemetry import rated_power
from energy_ml.names import (
    ACTION,
    ACTIONS,
    BATTERY_ID,
    CAPACITY,
    CHARGE,
    CHARGE_END,
    FLEET,
    IS_FILLED,
    PERFECT_FORESIGHT,
    POOLED,
    POWER,
    RATED_POWER,
    REFERENCE,
    REGION,
    STRATEGY,
    TIMESTAMP,
)
from energy_ml.rl_battery.baselines import PerfectForesight
from energy_ml.rl_battery.battery import Battery, simulate
from energy_ml.rl_battery.strategy import Context, Strategy, build_context
from energy_ml.splits import TimeSplit

_UNIT = [REGION, BATTERY_ID]
_LEVEL = 0.90  # of every interval


@dataclass(frozen=True)
class BatteryUnit:
    """One battery of a backtest: where it stands, the charge it starts the test with (MWh), how late it acts."""

    battery_id: str
    region: str
    battery: Battery
    start_mwh: float
    execution_delay: int = 0


class Backtest(NamedTuple):
    """``frame``: a row per interval, battery and strategy (``run_strategy``); ``summary``: what ``summarise`` says."""

    frame: pd.DataFrame
    summary: pd.DataFrame


def reference_units(regions: Sequence[str], battery: Battery, execution_delay: int = 0) -> list[BatteryUnit]:
    """Put the same battery once into each region."""
    return [BatteryUnit(REFERENCE, str(region), battery, battery.initial_mwh, execution_delay) for region in regions]


def own_units(
    telemetry: pd.DataFrame,
    split: TimeSplit,
    config: RLBatteryConfig,
    regions: Sequence[str],
    entries: Sequence[BatteryEntry] = (),
) -> tuple[list[BatteryUnit], list[DataProblem]]:
    """Take the batteries of ``entries`` and of a (cleaned) telemetry frame as they stand when the test begins.

    What an entry says of a battery holds, else what telemetry said last before the test, else the config. The start is
    the last known charge, moved into the limits. Batteries of which neither an entry nor a row tells enough, or in a
    region without prices, are left out and listed beside what else was odd.
    """
    units: list[BatteryUnit] = []
    problems: list[DataProblem] = []

    def left_out(why: str) -> None:
        problems.append(DataProblem(kind="battery_left_out", message=why, rows=len(every), repaired=False))

    known = telemetry[(telemetry[TIMESTAMP] <= split.val_end) & telemetry[CHARGE].notna()]
    said = {entry.name: entry for entry in entries}
    for battery_id in sorted({*said, *map(str, telemetry[BATTERY_ID].unique())}):
        every = telemetry[telemetry[BATTERY_ID] == battery_id]
        rows = known[known[BATTERY_ID] == battery_id].sort_values(TIMESTAMP)
        entry = said.get(battery_id, BatteryEntry(battery_id))
        named = [entry.region] if entry.region else list(every[REGION].dropna().unique()) if REGION in every else []
        region = str(named[-1]) if named else str(regions[0]) if len(regions) == 1 else ""
        if region not in set(map(str, regions)):
            where = f"in region {region!r}, which has no prices" if region else "without a region"
            left_out(f"battery {battery_id!r} is {where}; it isn't backtested")
            continue
        if rows.empty and battery_id not in said:
            left_out(f"battery {battery_id!r} has no charge level before the test")
            continue
        before = rows[rows[TIMESTAMP] < split.val_end]
        own = entry.completed(
            config,
            capacity_mwh=None if rows.empty else float(rows[CAPACITY].iloc[-1]),
            power_mw=rated_power(before.get(POWER), before.get(RATED_POWER)),
        )
        battery = Battery.from_config(own)
        capacity = battery.capacity_mwh
        charge = battery.initial_mwh if rows.empty else float(rows[CHARGE].iloc[-1])
        start = min(max(charge, battery.low_mwh), battery.high_mwh)
        if abs(start - charge) > 1e-6 * capacity:
            message = (
                f"battery {battery_id!r} holds {charge:g} MWh when the test begins, outside its limits of "
                f"{battery.low_mwh:g} to {battery.high_mwh:g} MWh; it starts with {start:g} MWh"
            )
            problems.append(DataProblem(kind="start_outside_limits", message=message, rows=1, repaired=True))
        fraction = min(max(start / capacity, battery.min_reserve), battery.max_charge)  # dividing rounds
        battery = replace(battery, initial_charge=fraction)
        units.append(BatteryUnit(battery_id, region, battery, start, own.execution_delay))
    return units, problems


def backtest(
    prices: pd.DataFrame,
    strategies: Sequence[Strategy],
    units: Sequence[BatteryUnit],
    split: TimeSplit,
    *,
    forecasts: pd.DataFrame | None = None,
    bootstrap: int = 1000,
    threads: int | None = None,
    parallel: str = "threads",
    progress: Callable[[float, dict[str, str]], None] | None = None,
) -> Backtest:
    """Run strategies and the perfect-foresight optimum for each battery over the test part of the window.

    Parameters
    ----------
    prices : cleaned long price frame of the window.
    strategies : distinct names; the optimum is added if it isn't among them.
    units : batteries; see ``reference_units`` and ``own_units``.
    forecasts : the project's forecasts frame, for the strategies that use it.
    bootstrap : see ``summarise``.
    threads, parallel : runs at a time, as many as ``default_config`` has if None, and where (``energy_ml.blocks``);
        neither changes a number. Strategies may be asked for several contexts at once.
    progress : called with the fraction done and the strategy and battery just finished.

    Raises ConfigError on doubled names or no battery, and what ``build_context`` raises on bad prices or starts.
    """
    names = [strategy.name for strategy in strategies]
    if len(set(names)) < len(names):
        raise ConfigError(f"strategies are named {names}", expected="distinct names", remedy="rename one of them")
    if not units:
        raise ConfigError(
            "there is no battery to backtest", expected="at least one", remedy="add reference_units(regions, battery)"
        )
    keys = [(unit.region, unit.battery_id) for unit in units]
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
            execution_delay=unit.execution_delay,
            battery_id=unit.battery_id,
        )
        for unit in units
    ]
    chosen = [*strategies, *([] if PERFECT_FORESIGHT in names else [PerfectForesight()])]
    runs = [(unit, context, s) for unit, context in zip(units, contexts, strict=True) for s in chosen]
    frames: list[pd.DataFrame] = []
    done = blocks.map(_run, runs, parallel=parallel, workers=threads or default_config.threads)
    for (unit, _, strategy), rows in zip(runs, done, strict=True):
        frames.append(rows)
        if progress is not None:
            told = {STRATEGY: strategy.name, REGION: unit.region, BATTERY_ID: unit.battery_id}
            progress(len(frames) / len(runs), told)
    facts = [
        {
            REGION: unit.region,
            BATTERY_ID: unit.battery_id,
            CAPACITY: unit.battery.capacity_mwh,
            RATED_POWER: unit.battery.power_out_mw,
            "terminal_value": context.terminal_value,
        }
        for unit, context in zip(units, contexts, strict=True)
    ]
    frame = pd.concat(frames, ignore_index=True)
    return Backtest(frame, summarise(frame, pd.DataFrame(facts), bootstrap=bootstrap))


def _run(run: tuple[BatteryUnit, Context, Strategy]) -> pd.DataFrame:
    unit, context, strategy = run
    return run_strategy(context, strategy, unit.battery_id)


def run_strategy(context: Context, strategy: Strategy, battery_id: str = REFERENCE) -> pd.DataFrame:
    """Run one strategy on one battery: its requests, carried out by the physics, as rows of the backtest frame.

    Columns: ``timestamp``, ``region``, ``battery_id``, ``strategy``, ``action`` (what was carried out),
    ``charge_level_mwh`` and ``charge_level_end_mwh`` (in the cells, at the interval's start and end), ``price``
    (currency/MWh), ``energy_mwh`` (at the meter; positive: bought), ``cash`` (currency, after fees and wear) and
    ``is_filled``: no price was measured, so it is the last known one, and the battery waits.
    """
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
            TIMESTAMP: context.timestamps,
            REGION: context.region,
            BATTERY_ID: battery_id,
            STRATEGY: strategy.name,
            ACTION: np.array(ACTIONS, dtype=object)[run.actions],
            CHARGE: run.charge[:-1],
            CHARGE_END: run.charge[1:],
            "price": context.seen_prices[len(context.history_prices) :],
            "energy_mwh": run.energy,
            "cash": run.cash,
            IS_FILLED: np.isnan(context.prices),
        }
    )


def summarise(frame: pd.DataFrame, batteries: pd.DataFrame, *, bootstrap: int = 1000) -> pd.DataFrame:
    """Sum up what each strategy earned, from the raw rows.

    Parameters
    ----------
    frame : backtest frame.
    batteries : ``region``, ``battery_id``, ``capacity_mwh``, ``rated_power_mw`` (discharging) and ``terminal_value``
        (currency/MWh in the cells).
    bootstrap : resamplings behind the 90 % intervals (``BlockBootstrap``).

    Returns
    -------
    pandas.DataFrame
        One row per (region, battery_id, strategy), above them rows pooled over the reference batteries (region and
        battery_id ``all``; over every battery where there is no reference) and, where there are reference batteries
        and others, over the others (region ``fleet``). Columns: ``profit`` (currency), ``share`` of the optimum's
        profit with ``share_low`` and ``share_high``, ``profit_per_day`` with ``_low`` and ``_high``, ``cash``,
        ``days``, ``cycles`` (equivalent full ones: capacities drawn from the cells), ``cycles_per_day``,
        ``profit_per_cycle``, ``worst_day`` and ``losing_days`` (UTC days), ``max_drawdown`` (largest fall of the
        cumulative profit), ``energy_bought_mwh``, ``energy_sold_mwh``, ``start_charge_mwh``, ``end_charge_mwh``,
        ``capacity_mwh``, ``rated_power_mw``, ``profit_per_mw_year`` (currency per MW of rated power, a year of such
        days), ``terminal_value`` (of several batteries: NaN). Without possible profit the share is NaN.
    """
    # Grouping by numbers is several times faster than by strings.
    marked = mark_to_market(frame, batteries).astype(dict.fromkeys((*_UNIT, STRATEGY), "category"))
    times = np.unique(pd.DatetimeIndex(marked[TIMESTAMP]).as_unit("ns").asi8)
    minutes = float(np.diff(times).min() / 60e9) if len(times) > 1 else 60.0
    groups: list[tuple[str, str, pd.DataFrame]] = [(POOLED, POOLED, headline(marked))]
    groups += [
        (str(region), str(battery_id), rows)
        for (region, battery_id), rows in marked.groupby(_UNIT, sort=False, observed=True)
    ]
    is_reference = marked[BATTERY_ID] == REFERENCE
    if is_reference.any() and not is_reference.all():
        groups.append((FLEET, POOLED, marked[~is_reference]))
    records = []
    for region, battery_id, rows in groups:
        hourly = _hourly_profits(rows)
        draws = _bootstrap(len(hourly), bootstrap)
        resampled = {name: draws.sums(hourly[name].to_numpy()) for name in hourly}
        possible = float(rows.loc[rows[STRATEGY] == PERFECT_FORESIGHT, "profit"].sum())
        for name, mine in rows.groupby(STRATEGY, sort=False, observed=True):
            figures = _earned(mine, resampled[name], minutes)
            share = low = high = np.nan
            if possible > 1e-9:
                with np.errstate(divide="ignore", invalid="ignore"):
                    shares = resampled[name] / resampled[PERFECT_FORESIGHT]
                low, high = _interval(shares[np.isfinite(shares)])
                share = figures["profit"] / possible
            ours = {"profit": figures.pop("profit"), "share": share, "share_low": low, "share_high": high}
            records.append({REGION: region, BATTERY_ID: battery_id, STRATEGY: str(name), **ours, **figures})
    return pd.DataFrame(records)


def _earned(mine: pd.DataFrame, resampled: Floats, minutes: float) -> dict[str, float]:
    """Sum up one strategy's marked rows of one or several batteries; ``resampled`` are its bootstrap profits."""
    per_interval = mine.groupby(TIMESTAMP)["profit"].sum()
    days = len(per_interval) * minutes / 1440
    daily = per_interval.groupby(per_interval.index.floor("D")).sum()
    cumulative = np.concatenate([[0.0], per_interval.cumsum().to_numpy()])
    profit, cycles = float(mine["profit"].sum()), float(mine["cycles"].sum())
    low, high = _interval(resampled)
    batteries = mine.groupby(_UNIT, observed=True)
    rated, energy = float(batteries[RATED_POWER].first().sum()), mine["energy_mwh"].to_numpy()
    return {
        "profit": profit,
        "profit_per_day": profit / days,
        "profit_per_day_low": low / days,
        "profit_per_day_high": high / days,
        "cash": float(mine["cash"].sum()),
        "days": days,
        "cycles": cycles,
        "cycles_per_day": cycles / days / batteries.ngroups,
        "profit_per_cycle": profit / cycles if cycles > 1e-9 else np.nan,
        "worst_day": float(daily.min()),
        "losing_days": int((daily < 0).sum()),
        "max_drawdown": float((np.maximum.accumulate(cumulative) - cumulative).max()),
        "energy_bought_mwh": float(np.maximum(energy, 0).sum()),
        "energy_sold_mwh": float(-np.minimum(energy, 0).sum()),
        "start_charge_mwh": float(batteries[CHARGE].first().sum()),
        "end_charge_mwh": float(batteries[CHARGE_END].last().sum()),
        CAPACITY: float(batteries[CAPACITY].first().sum()),
        RATED_POWER: rated,
        "profit_per_mw_year": profit / days * 365 / rated,
        "terminal_value": float(mine["terminal_value"].iloc[0]) if batteries.ngroups == 1 else np.nan,
    }


def pool_summary(summary: pd.DataFrame) -> pd.DataFrame:
    """Choose a summary's pooled rows: one per strategy, the headline batteries together."""
    return summary[summary[REGION] == POOLED].reset_index(drop=True)


def mark_to_market(frame: pd.DataFrame, batteries: pd.DataFrame) -> pd.DataFrame:
    """Add what ``batteries`` says, ``profit`` and ``cycles`` of each interval; rows in time order.

    An interval's profit is its cash plus the change of charge times the terminal value; over a span these add up to
    cash plus the value of what is left minus the value of what was there. ``batteries`` may be a whole summary. Raises
    UnknownRegionError for a battery that it doesn't describe.
    """
    facts = batteries[[*_UNIT, CAPACITY, RATED_POWER, "terminal_value"]].drop_duplicates()
    marked = frame.merge(facts, on=_UNIT, how="left", validate="many_to_one")
    if marked["terminal_value"].isna().any():
        lost = marked.loc[marked["terminal_value"].isna(), _UNIT]
        raise UnknownRegionError(
            "a battery of the backtest isn't described",
            rows=len(lost),
            example=tuple(lost.iloc[0]),
            expected="capacity_mwh, rated_power_mw and terminal_value of every region and battery_id",
        )
    change = marked[CHARGE_END] - marked[CHARGE]
    marked["profit"] = marked["cash"] + change * marked["terminal_value"]
    marked["cycles"] = (-change).clip(lower=0) / marked[CAPACITY]
    return marked.sort_values(TIMESTAMP, kind="stable")


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """Choose the reference batteries' rows, or all where there is none.

    Headlines compare markets: a big fleet must not drown the same battery in each of them.
    """
    reference = rows[rows[BATTERY_ID] == REFERENCE]
    return reference if len(reference) else rows


def _hourly_profits(marked: pd.DataFrame) -> pd.DataFrame:
    """Sum profit per UTC hour (rows) and strategy (columns) over batteries: they share hours, aren't independent."""
    hours = marked[TIMESTAMP].dt.floor("h").rename("hour")
    return (
        marked.assign(hour=hours)
        .pivot_table(index="hour", columns=STRATEGY, values="profit", aggfunc="sum", observed=True, sort=False)
        .sort_index()
    )


def _bootstrap(hours: int, samples: int) -> BlockBootstrap:
    """Draw blocks of days; spans shorter than a week don't hold enough of them and get blocks of six hours.

    These say little about how days differ: take such intervals as lower limits of the uncertainty.
    """
    return BlockBootstrap(hours, 24 if hours >= 7 * 24 else 6, samples)


def _interval(values: Floats) -> tuple[float, float]:
    """Give the bounds between which the middle 90 % of ``values`` lie; NaN without any."""
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def compare_strategies(frame: pd.DataFrame, batteries: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """Set ``strategy`` against every other one by a paired block bootstrap over the ``headline`` batteries.

    Returns one row per rival: ``rival``, ``difference_per_day`` (currency, ours minus theirs) with ``_low`` and
    ``_high`` (90 %), and ``probability``: the share of resamples in which ours earned more (ties count half).
    Raises ConfigError if the frame doesn't hold ``strategy``.
    """
    hourly = _hourly_profits(mark_to_market(headline(frame), batteries))
    if strategy not in hourly:
        raise ConfigError(f"the backtest has no strategy {strategy!r}", expected=f"one of {', '.join(hourly)}")
    draws = _bootstrap(len(hourly), 1000)
    days = len(hourly) / 24
    records = []
    for rival in hourly.columns.drop(strategy):
        difference = (hourly[strategy] - hourly[rival]).to_numpy()
        resampled = draws.sums(difference)
        low, high = _interval(resampled)
        records.append(
            {
                STRATEGY: strategy,
                "rival": str(rival),
                "difference_per_day": difference.sum() / days,
                "difference_per_day_low": low / days,
                "difference_per_day_high": high / days,
                "probability": float((resampled > 0).mean() + 0.5 * (resampled == 0).mean()),
            }
        )
    return pd.DataFrame(records)
