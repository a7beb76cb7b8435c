"""Features of battery telemetry: how full, how it just moved, and what the price is beside its day.

What belongs here: columns per battery and instant, price joined from the past only. What doesn't: battery physics.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.errors import DuplicateError, ValueRangeError
from energy_ml.features.market_state_features import DAY_MINUTES, steps_of
from energy_ml.features.panel import NS_PER_MINUTE, numeric, require_columns, timestamps_ns, to_panel
from energy_ml.features.rolling_features import rolling_sum
from energy_ml.names import POWER, PRICE, RATED_POWER, REGION

BATTERY_COLUMNS = (
    "charge_fraction",
    "available_mwh",
    "room_mwh",
    "charge_change_mwh",
    "charge_rate_mw",
    "charge_change_60m_mwh",
    "last_action",
    "minutes_since_action",
    "price",
    "price_age_minutes",
    "price_change",
    "price_spread_day_mean",
    "price_day_position",
    "hour",
)
_CHARGE_WINDOW_MINUTES = 60
_PRICE_MAX_AGE_MINUTES = 60
"""An older price is no price: the column is NaN."""
_STILL = 1e-6
"""A change of charge below this fraction of capacity is measurement noise, not an action."""


def build_battery_features(
    df: pd.DataFrame,
    price_df: pd.DataFrame,
    battery_col: str = "charge_level_mwh",
    capacity_col: str = "capacity_mwh",
    timestamp_col: str = "timestamp",
    battery_id_col: str = "battery_id",
) -> pd.DataFrame:
    """Features of each battery row: the same rows, in the same order, with the same index.

    Parameters
    ----------
    df : telemetry, any order; ``timestamp_col``, ``battery_id_col``, ``battery_col`` (MWh), ``capacity_col`` (MWh)
        and optionally ``region``, ``power_mw``, ``rated_power_mw`` (carried along).
    price_df : long prices (``timestamp``, ``region``, ``real_time_price``). Each battery row gets its region's newest
        price at or before it, at most an hour old; without a region column the mean over the regions.

    Returns
    -------
    The keys and float32 columns ``BATTERY_COLUMNS``. ``last_action`` is +1 for charging, -1 for discharging; changes
    are against the battery's previous row; ``minutes_since_action`` is NaN before the first action seen; the day is the
    24 h up to the price.

    Raises
    ------
    SchemaError, NoDataError, DuplicateError, ValueRangeError (a capacity of zero or less), and those of ``to_panel``.
    """
    keys = [timestamp_col, battery_id_col]
    require_columns(df, [*keys, battery_col, capacity_col])
    stamps = timestamps_ns(df[timestamp_col])
    batteries, _ = pd.factorize(df[battery_id_col])
    charge = numeric(df, battery_col)
    capacity = numeric(df, capacity_col)
    if (capacity <= 0).any():
        raise ValueRangeError(
            "capacity isn't positive",
            column=capacity_col,
            rows=int((capacity <= 0).sum()),
            example=f"battery {df[battery_id_col].iloc[int((capacity <= 0).argmax())]}",
            expected="MWh above 0",
            remedy="correct the telemetry",
        )
    columns: dict[str, Floats] = {
        "charge_fraction": charge / capacity,
        "available_mwh": charge,
        "room_mwh": capacity - charge,
        "hour": (stamps // (60 * NS_PER_MINUTE) % 24).astype(np.float64),
    }
    order = np.lexsort((stamps, batteries))
    columns |= _unsort(
        _charge_history(stamps[order], batteries[order], charge[order], capacity[order], df, order), order
    )
    columns |= _prices_at(stamps, df[REGION] if REGION in df.columns else None, price_df)
    matrix = np.stack([columns[name] for name in BATTERY_COLUMNS]).astype(np.float32)
    frame = pd.DataFrame(matrix.T, columns=list(BATTERY_COLUMNS), index=df.index, copy=False)
    optional = [name for name in (POWER, RATED_POWER) if name in df.columns]
    kept = [*keys, *([REGION] if REGION in df.columns else []), battery_col, capacity_col, *optional]
    for name in reversed(kept):
        frame.insert(0, name, df[name])
    return frame


def _unsort(columns: dict[str, Floats], order: Integers) -> dict[str, Floats]:
    result = {}
    for name, values in columns.items():
        result[name] = np.empty_like(values)
        result[name][order] = values
    return result


def _charge_history(
    stamps: Integers,
    batteries: Integers,
    charge: Floats,
    capacity: Floats,
    df: pd.DataFrame,
    order: Integers,
) -> dict[str, Floats]:
    """Columns from each battery's past; rows sorted by battery, then time."""
    n = len(stamps)
    follows = np.zeros(n, dtype=bool)
    follows[1:] = batteries[1:] == batteries[:-1]
    repeated = follows & (np.diff(stamps, prepend=stamps[0] - 1) == 0)
    if repeated.any():
        raise DuplicateError(
            "several rows share their battery and timestamp",
            rows=int(repeated.sum()),
            example=df.iloc[int(order[repeated.argmax()])].to_dict(),
            expected="one row per battery and timestamp",
            remedy="clean the frame first (energy_ml.market_data.cleaning)",
        )
    change = np.full(n, np.nan)
    minutes = np.full(n, np.nan)
    change[1:] = np.where(follows[1:], np.diff(charge), np.nan)
    minutes[1:] = np.where(follows[1:], np.diff(stamps) / NS_PER_MINUTE, np.nan)

    row = np.arange(n)
    start = np.maximum.accumulate(np.where(follows, 0, row))
    acted = np.abs(change) > _STILL * capacity
    last = np.maximum.accumulate(np.where(acted, row, -1))
    seen = last >= start
    at = np.maximum(last, 0)

    # Row at or before an hour ago: batteries lie one after another, so one search over shifted stamps serves all.
    span = int(stamps.max() - stamps.min()) + _CHARGE_WINDOW_MINUTES * NS_PER_MINUTE + 1
    line = stamps - stamps.min() + batteries * span
    back = np.searchsorted(line, line - _CHARGE_WINDOW_MINUTES * NS_PER_MINUTE, side="right") - 1
    whole = back >= start
    return {
        "charge_change_mwh": change,
        "charge_rate_mw": change / minutes * 60.0,
        "charge_change_60m_mwh": np.where(whole, charge - charge[np.maximum(back, 0)], np.nan),
        "last_action": np.where(seen, np.sign(change[at]), np.nan),
        "minutes_since_action": np.where(seen, (stamps - stamps[at]) / NS_PER_MINUTE, np.nan),
    }


def _prices_at(stamps: Integers, regions: pd.Series | None, price_df: pd.DataFrame) -> dict[str, Floats]:
    """Price columns as of each row: the newest price at or before it."""
    panel = to_panel(price_df, [PRICE])
    price = panel.columns[PRICE]
    if regions is None:
        known = ~np.isnan(price)
        number = known.sum(axis=1, keepdims=True).astype(np.float64)
        number[number == 0] = np.nan
        price = np.where(known, price, 0.0).sum(axis=1, keepdims=True) / number
        column = np.zeros(len(stamps), dtype=np.int64)
        has_region = np.ones(len(stamps), dtype=bool)
    else:
        place = {name: code for code, name in enumerate(panel.regions)}
        mapped = regions.map(place).to_numpy(dtype=np.float64, na_value=np.nan)
        has_region = ~np.isnan(mapped)
        column = np.where(has_region, mapped, 0).astype(np.int64)

    step = panel.interval_minutes * NS_PER_MINUTE
    n_times = len(price)
    # The newest known price at each instant, and its row.
    row = np.arange(n_times)[:, None]
    newest = np.maximum.accumulate(np.where(np.isnan(price), -1, row), axis=0)
    day = steps_of(DAY_MINUTES, panel.interval_minutes)
    filled = np.where(np.isnan(price), 0.0, price)
    known = rolling_sum((~np.isnan(price)).astype(np.float64), day, before=0.0)
    with np.errstate(invalid="ignore"):
        day_mean = rolling_sum(filled, day, before=0.0) / known
    last_day = pd.DataFrame(price).rolling(day, min_periods=1)
    low, high = last_day.min().to_numpy(), last_day.max().to_numpy()

    instant = np.minimum((stamps - panel.times_ns[0]) // step, n_times - 1)
    usable = has_region & (stamps >= panel.times_ns[0])
    at = np.where(usable, newest[np.maximum(instant, 0), column], -1)
    age = (stamps - panel.times_ns[np.maximum(at, 0)]) / NS_PER_MINUTE
    fresh = (at >= 0) & (age <= _PRICE_MAX_AGE_MINUTES)
    at = np.maximum(at, 0)
    current = np.where(fresh, price[at, column], np.nan)
    previous = np.where(fresh & (at > 0), price[np.maximum(at - 1, 0), column], np.nan)
    width = high[at, column] - low[at, column]
    with np.errstate(invalid="ignore", divide="ignore"):
        position = np.where(width > 0, (current - low[at, column]) / width, 0.5)
    return {
        "price": current,
        "price_age_minutes": np.where(fresh, age, np.nan),
        "price_change": current - previous,
        "price_spread_day_mean": current - day_mean[at, column],
        "price_day_position": np.where(fresh, position, np.nan),
    }
