"""Rules for battery telemetry: repaired or reported, since it accompanies prices and rarely has to be perfect.

What belongs here: charge levels, capacities and power. What doesn't: rules that prices share (``rows``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from energy_ml.arrays import Booleans
from energy_ml.errors import ValueRangeError
from energy_ml.market_data.rows import (
    MINUTE,
    Rows,
    infer_interval,
    merge_duplicates,
    missing_values,
    nanoseconds,
    refuse_future,
    snap_jitter,
)
from energy_ml.market_data.schema import DataProblem
from energy_ml.names import CAPACITY, CHARGE, IS_FILLED, POWER, RATED_POWER, TIMESTAMP

_OVER_FULL = 0.01  # share of capacity by which a meter may be off before the message says so
_LONGEST_HOURS = 200.0  # no battery lasts longer at full power; one told in kWh seems to
_LOSSES = 1.2  # power is measured at the grid; what leaves the cells is more by the losses of discharging


@dataclass(frozen=True)
class CleanBatteries:
    """Telemetry sorted by (timestamp, battery_id), as often as it came; ``is_filled`` marks charge levels repaired."""

    frame: pd.DataFrame
    problems: list[DataProblem] = field(default_factory=list)


def clean_batteries(
    frame: pd.DataFrame,
    *,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    max_gap_minutes: int = 30,
    now: pd.Timestamp | None = None,
) -> CleanBatteries:
    """Check battery telemetry; it accompanies prices, so all but contradictions is repaired or reported.

    Repaired and listed: types, jitter, order, agreeing duplicates; missing charge levels are filled with the last one
    for up to ``max_gap_minutes`` and left NaN beyond; levels outside [0, capacity] are clipped; all these rows have
    ``is_filled``. Reported only: gaps in time, and charge levels that change faster than the battery's largest
    ``power_mw`` allows (without that column: than a full charge in 15 minutes).

    Raises DuplicateError, TimestampError (future), ValueRangeError (capacity not above zero), SchemaError. An empty
    frame is fine and gives an empty one.
    """
    rows = Rows.of(frame, "batteries", None)
    snap_jitter(rows)
    rows.keep_between(nanoseconds(start), nanoseconds(end))
    refuse_future(rows, now)
    bad = ~(rows.values[CAPACITY] > 0) | np.isinf(rows.values[CAPACITY])
    remedy = "correct the capacity or drop these rows"
    rows.refuse(ValueRangeError, "capacities aren't above zero", bad, CAPACITY, "MWh above 0", remedy, value=True)
    if not bad.any():
        _refuse_other_units(rows)
    missing_values(rows, CHARGE)
    rows.sort()
    merge_duplicates(rows)
    rows.raise_errors()
    repaired = _fill_charge(rows, max_gap_minutes)
    repaired |= _clip_charge(rows)
    _report_telemetry_gaps(rows, max_gap_minutes)
    _report_jumps(rows)
    order = np.lexsort((rows.keys, rows.times))
    result = rows.to_frame(order)
    result[IS_FILLED] = repaired[order]
    return CleanBatteries(result, rows.problems)


def rated_power(power: pd.Series | None, rated: pd.Series | None) -> float | None:
    """What a battery can do at most, MW at the grid, from its rows in order of time; None where nothing tells.

    The last ``rated_power_mw`` that is known; else what ``power_mw`` reached, leaving out the topmost hundredth (a row
    at least): a single wild reading sets no rating.
    """
    if rated is not None:
        known = rated[rated > 0]
        if len(known):
            return float(known.iloc[-1])
    flow = np.abs(power.to_numpy(dtype=np.float64)) if power is not None else np.empty(0)
    flow = flow[np.isfinite(flow) & (flow > 0)]
    return float(np.quantile(flow, 0.99, method="lower")) if len(flow) else None


def _refuse_other_units(rows: Rows) -> None:
    """Charge in percent or kWh under a name that says MWh would be clipped to full, or swamp a fleet's sums."""
    charge, capacity = rows.values[CHARGE], rows.values[CAPACITY]
    known = np.isfinite(charge) & np.isfinite(capacity)
    over = known & (charge > capacity * (1 + _OVER_FULL))
    if over.sum() > known.sum() / 2:
        highest = float(np.max(charge[known] / capacity[known]))
        unit, factor = ("percent", "times capacity_mwh / 100") if charge[known].max() <= 101 else ("kWh", "/ 1000")
        rows.refuse(
            ValueRangeError,
            f"charge levels are up to {highest:,.0f} times the capacity: they look like {unit}",
            over,
            CHARGE,
            "MWh, between 0 and capacity_mwh",
            f"write {CHARGE} {factor}",
            value=True,
        )
    for name in (RATED_POWER, POWER):
        if name not in rows.values:
            continue
        power = np.abs(rows.values[name])
        power = power[np.isfinite(power) & (power > 0)]
        if len(power) and np.median(capacity[known]) > _LONGEST_HOURS * np.quantile(power, 0.99):
            rows.refuse(
                ValueRangeError,
                f"capacities of {np.median(capacity[known]):,.0f} MWh would last for weeks at {name}: "
                "they look like kWh",
                known,
                CAPACITY,
                "MWh, with power in MW",
                f"write {CAPACITY} and {CHARGE} / 1000",
                value=True,
            )
            return


def _fill_charge(rows: Rows, max_gap_minutes: int) -> Booleans:
    """Fill missing charge levels with the battery's last one if that is at most ``max_gap_minutes`` old."""
    charge = rows.values[CHARGE]
    missing = np.isnan(charge)
    if not missing.any():
        return missing
    index = np.arange(len(rows))
    last = np.maximum.accumulate(np.where(missing, -1, index))
    known = np.maximum(last, 0)
    recent = rows.times - rows.times[known] <= max_gap_minutes * MINUTE
    fill = missing & (last >= 0) & (rows.keys[known] == rows.keys) & recent
    rows.values[CHARGE] = np.where(fill, charge[known], charge)
    return np.asarray(fill)


def _clip_charge(rows: Rows) -> Booleans:
    charge, capacity = rows.values[CHARGE], rows.values[CAPACITY]
    above, below = charge > capacity * (1 + 1e-9), charge < 0
    for kind, mask, words in (
        ("charge_above_capacity", above, "lie above the capacity and were set to it"),
        ("negative_charge", below, "are negative and were set to 0"),
    ):
        gross = mask & ((charge > capacity * (1 + _OVER_FULL)) | (charge < -_OVER_FULL * capacity))
        much = f"; {int(gross.sum()):,} of them by more than {_OVER_FULL:.0%} of the capacity" if gross.any() else ""
        rows.note(kind, f"charge levels {words}{much}", mask, CHARGE, value=True)
    rows.values[CHARGE] = np.clip(charge, 0, capacity)
    return above | below


def _report_telemetry_gaps(rows: Rows, max_gap_minutes: int) -> None:
    minutes = infer_interval([rows.times[s] for s in rows.series()]) or 0
    limit = max(max_gap_minutes, minutes) * MINUTE
    gap = np.zeros(len(rows), dtype=bool)
    gap[1:] = (np.diff(rows.times) > limit + minutes * MINUTE) & (np.diff(rows.keys) == 0)
    message = f"telemetry comes after a pause of more than {limit // MINUTE} minutes"
    rows.note("telemetry_gap", message, gap, TIMESTAMP, repaired=False)


def _report_jumps(rows: Rows) -> None:
    hours = np.diff(rows.times) / (60 * MINUTE)
    limit = 4 * rows.values[CAPACITY]
    if POWER in rows.values:
        largest = np.full(len(rows.names), -np.inf)
        known = RATED_POWER if RATED_POWER in rows.values else POWER
        power = np.nan_to_num(np.abs(rows.values[known]), nan=-np.inf)
        np.maximum.at(largest, rows.keys, power)
        limit = np.where(largest[rows.keys] > 0, largest[rows.keys], limit)
    change = np.abs(np.diff(rows.values[CHARGE]))
    allowed = _LOSSES * limit[1:] * hours + 1e-3 * rows.values[CAPACITY][1:]
    jump = np.zeros(len(rows), dtype=bool)
    jump[1:] = (change > allowed) & (np.diff(rows.keys) == 0)
    message = "charge levels change faster than the battery's power allows"
    rows.note("charge_jump", message, jump, CHARGE, repaired=False, value=True)
