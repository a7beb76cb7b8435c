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
    columns |= _charge_history(stamps, batteries, charge, capacity, df)
    columns |= _prices_at(stamps, df[REGION] if REGION in df.columns else None, price_df)
    matrix = np.stack([columns[name] for name in BATTERY_COLUMNS]).astype(np.float32)
    frame = pd.DataFrame(matrix.T, columns=list(BATTERY_COLUMNS), index=df.index, copy=False)
    optional = [name for name in (POWER, RATED_POWER) if name in df.columns]
    kept = [*keys, *([REGION] if REGION in df.columns else []), battery_col, capacity_col, *optional]
    for name in reversed(kept):
        frame.insert(0, name, df[name])
    return frame


def _charge_history(
    stamps: Integers, batteries: Integers, charge: Floats, capacity: Floats, df: pd.DataFrame
) -> dict[str, Floats]:
    """Columns from each battery's past."""
    at, minute = pd.DatetimeIndex(stamps.view("M8[ns]")), pd.Timedelta(minutes=1)
    rows = pd.DataFrame({"battery": batteries, "at": at, "charge": charge, "still": _STILL * capacity})
    repeated = rows.duplicated(["battery", "at"]).to_numpy()
    if repeated.any():
        raise DuplicateError(
            "several rows share their battery and timestamp",
            rows=int(repeated.sum()),
            example=df.iloc[int(repeated.argmax())].to_dict(),
            expected="one row per battery and timestamp",
            remedy="clean the frame first (energy_ml.market_data.cleaning)",
        )
    rows = rows.sort_values("at")
    own = rows.groupby("battery")
    change = own["charge"].diff()
    acted = change.abs() > rows["still"]
    last = pd.DataFrame({"move": change, "at": rows["at"]}).where(acted).groupby(rows["battery"]).ffill()
    before = rows[["battery", "at"]].assign(at=rows["at"] - _CHARGE_WINDOW_MINUTES * minute)
    then = pd.merge_asof(before, rows[["battery", "at", "charge"]], on="at", by="battery")["charge"].to_numpy()
    columns = {
        "charge_change_mwh": change,
        "charge_rate_mw": change / (own["at"].diff() / minute) * 60.0,
        "charge_change_60m_mwh": rows["charge"] - then,
        "last_action": np.sign(last["move"]),
        "minutes_since_action": (rows["at"] - last["at"]) / minute,
    }
    return {name: column.sort_index().to_numpy() for name, column in columns.items()}


def _prices_at(stamps: Integers, regions: pd.Series | None, price_df: pd.DataFrame) -> dict[str, Floats]:
    """Price columns as of each row: the newest price at or before it."""
    panel = to_panel(price_df, [PRICE])
    price = panel.columns[PRICE]
    if regions is None:
        known = ~np.isnan(price)
        number = known.sum(axis=1, keepdims=True).astype(np.float64)
        number[number == 0] = np.nan
        price, place = np.where(known, price, 0.0).sum(axis=1, keepdims=True) / number, np.zeros(len(stamps))
    else:
        codes = {name: code for code, name in enumerate(panel.regions)}
        place = regions.map(codes).to_numpy(dtype=np.float64, na_value=-1.0)
        used = np.unique(place[place >= 0]).astype(np.int64)
        price, place = price[:, used], np.where(place >= 0, np.searchsorted(used, place), -1)
    day, (n_times, width) = steps_of(DAY_MINUTES, panel.interval_minutes), price.shape
    known, last_day = ~np.isnan(price), pd.DataFrame(price).rolling(day, min_periods=1)
    with np.errstate(invalid="ignore"):
        mean = rolling_sum(np.where(known, price, 0.0), day, before=0.0) / rolling_sum(known * 1.0, day, before=0.0)
    at = pd.DatetimeIndex(panel.times_ns.view("M8[ns]")).repeat(width)
    table = {"price": price, "change": np.diff(price, axis=0, prepend=np.nan), "mean": mean}
    table |= {"low": last_day.min().to_numpy(), "high": last_day.max().to_numpy()}
    prices = pd.DataFrame({name: values.reshape(-1) for name, values in table.items()})
    prices = prices.assign(at=at, since=at, place=np.tile(np.arange(width), n_times)).dropna(subset="price")
    rows = pd.DataFrame({"at": stamps.view("M8[ns]"), "place": place.astype(np.int64)}).sort_values("at")
    fresh = pd.Timedelta(minutes=_PRICE_MAX_AGE_MINUTES)
    found = pd.merge_asof(rows, prices, on="at", by="place", tolerance=fresh).set_index(rows.index).sort_index()
    above, width = found["price"] - found["low"], found["high"] - found["low"]
    columns = {
        "price": found["price"],
        "price_age_minutes": (found["at"] - found["since"]) / pd.Timedelta(minutes=1),
        "price_change": found["change"],
        "price_spread_day_mean": found["price"] - found["mean"],
        "price_day_position": (above / width).where(width > 0, 0.5).where(found["price"].notna()),
    }
    return {name: column.to_numpy() for name, column in columns.items()}
