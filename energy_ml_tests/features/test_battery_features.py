"""Battery columns against loops over each battery's rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import DuplicateError, NoDataError, SchemaError, ValueRangeError
from energy_ml.features import BATTERY_COLUMNS, build_battery_features
from energy_ml_tests.features.frames import START, long_frame, price_matrix


def telemetry(n_rows: int, n_batteries: int, seed: int, with_region: bool = True) -> pd.DataFrame:
    """Irregular rows of some batteries, in any order; a third of the steps stands still."""
    rng = np.random.default_rng(seed)
    parts = []
    for battery in range(n_batteries):
        minutes = np.sort(rng.choice(6 * 60, n_rows, replace=False)) - 30
        steps = np.where(rng.random(n_rows) < 0.3, 0.0, rng.normal(0, 0.05, n_rows))
        parts.append(
            pd.DataFrame(
                {
                    "timestamp": START + pd.to_timedelta(minutes, "min"),
                    "battery_id": f"B{battery}",
                    "region": f"R{battery % 3}",
                    "charge_level_mwh": np.clip(1 + steps.cumsum(), 0, 2),
                    "capacity_mwh": 2.0,
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True).sample(frac=1, random_state=seed % 2**31)
    return frame if with_region else frame.drop(columns="region")


def _brute(frame: pd.DataFrame, prices: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, row in frame.iterrows():
        past = frame[(frame["battery_id"] == row["battery_id"]) & (frame["timestamp"] <= row["timestamp"])]
        past = past.sort_values("timestamp")
        changes = past["charge_level_mwh"].diff()
        minutes = past["timestamp"].diff().dt.total_seconds() / 60
        acted = past[changes.abs() > 1e-6 * past["capacity_mwh"]]
        hour_ago = past[past["timestamp"] <= row["timestamp"] - pd.Timedelta("1h")]
        known = prices[prices["timestamp"] <= row["timestamp"]]
        if "region" in frame:
            known = known[known["region"] == row["region"]].set_index("timestamp")["real_time_price"]
        else:
            known = known.groupby("timestamp")["real_time_price"].mean()
        known = known.sort_index()
        before = known.shift(1)
        known = known.dropna()
        fresh = len(known) and row["timestamp"] - known.index[-1] <= pd.Timedelta("1h")
        day = known[known.index > known.index[-1] - pd.Timedelta("24h")] if fresh else None
        width = day.max() - day.min() if fresh else np.nan
        rows.append(
            {
                "charge_fraction": row["charge_level_mwh"] / 2,
                "available_mwh": row["charge_level_mwh"],
                "room_mwh": 2 - row["charge_level_mwh"],
                "charge_change_mwh": changes.iloc[-1],
                "charge_rate_mw": changes.iloc[-1] / minutes.iloc[-1] * 60,
                "charge_change_60m_mwh": row["charge_level_mwh"] - hour_ago["charge_level_mwh"].iloc[-1]
                if len(hour_ago)
                else np.nan,
                "last_action": np.sign(changes[acted.index[-1]]) if len(acted) else np.nan,
                "minutes_since_action": (row["timestamp"] - acted["timestamp"].iloc[-1]).total_seconds() / 60
                if len(acted)
                else np.nan,
                "price": known.iloc[-1] if fresh else np.nan,
                "price_age_minutes": (row["timestamp"] - known.index[-1]).total_seconds() / 60 if fresh else np.nan,
                "price_change": known.iloc[-1] - before[known.index[-1]] if fresh else np.nan,
                "price_spread_day_mean": known.iloc[-1] - day.mean() if fresh else np.nan,
                "price_day_position": np.nan
                if not fresh
                else ((known.iloc[-1] - day.min()) / width if width > 0 else 0.5),
                "hour": row["timestamp"].hour,
            }
        )
    return pd.DataFrame(rows, index=frame.index)[list(BATTERY_COLUMNS)]


@settings(max_examples=8)
@given(
    st.integers(1, 15),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([5, 30]),
    st.integers(0, 2**32 - 1),
)
def test_columns_equal_loops(n_rows, n_batteries, with_region, nan_share, interval, seed):
    frame = telemetry(n_rows, n_batteries, seed, with_region)
    prices = long_frame(price_matrix(240 // interval, 2, seed, nan_share), interval)
    features = build_battery_features(frame, prices)
    keys = [name for name in frame if name in features]
    pd.testing.assert_frame_equal(features[keys], frame[keys])
    assert list(features.columns)[-len(BATTERY_COLUMNS) :] == list(BATTERY_COLUMNS)
    expected = _brute(frame, prices)
    for name in BATTERY_COLUMNS:
        assert features[name].dtype == np.float32
        np.testing.assert_allclose(features[name], expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


def test_prices_never_come_from_the_future():
    frame = telemetry(15, 2, 3)
    prices = long_frame(price_matrix(80, 2, 3))
    before = build_battery_features(frame, prices)
    moment = START + pd.Timedelta("2h")
    later = prices.copy()
    later.loc[later["timestamp"] > moment, "real_time_price"] = 9e5
    past = frame["timestamp"] <= moment
    pd.testing.assert_frame_equal(build_battery_features(frame, later)[past], before[past])


def test_a_days_mean_takes_24_hours():
    prices = long_frame(price_matrix(24 * 3, 1, 2), 60)
    frame = telemetry(1, 1, 0).assign(timestamp=prices["timestamp"].iloc[-1])
    row = build_battery_features(frame, prices).iloc[0]
    day = prices["real_time_price"].iloc[-24:]
    assert row["price_spread_day_mean"] == pytest.approx(day.iloc[-1] - day.mean(), abs=1e-4)
    expected = (day.iloc[-1] - day.min()) / (day.max() - day.min())
    assert row["price_day_position"] == pytest.approx(expected, abs=1e-6)


def test_other_column_names():
    frame, prices = telemetry(5, 2, 1), long_frame(price_matrix(50, 2, 1))
    named = frame.rename(
        columns={"timestamp": "at", "battery_id": "unit", "charge_level_mwh": "soc", "capacity_mwh": "size"}
    )
    features = build_battery_features(named, prices, "soc", "size", "at", "unit")
    expected = build_battery_features(frame, prices)[list(BATTERY_COLUMNS)]
    pd.testing.assert_frame_equal(features[list(BATTERY_COLUMNS)], expected)
    assert list(features.columns[:2]) == ["at", "unit"]


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda f: f.drop(columns="capacity_mwh"), SchemaError, "capacity_mwh"),
        (lambda f: f.iloc[:0], NoDataError, "no rows"),
        (lambda f: f.assign(capacity_mwh=0.0), ValueRangeError, "capacity"),
        (lambda f: f.assign(charge_level_mwh="full"), SchemaError, "numbers"),
        (lambda f: pd.concat([f, f.iloc[[2]]]), DuplicateError, "B"),
    ],
)
def test_bad_telemetry_is_refused_by_name(spoil, error, words):
    with pytest.raises(error, match=words):
        build_battery_features(spoil(telemetry(5, 2, 1)), long_frame(price_matrix(50, 2, 1)))
