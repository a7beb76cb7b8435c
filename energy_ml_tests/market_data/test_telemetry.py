from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import DuplicateError, SchemaError, TimestampError, ValueRangeError
from energy_ml.market_data.telemetry import clean_batteries, rated_power
from energy_ml_tests.market_data.frames import NOW, START, telemetry


def clean(frame, **options):
    return clean_batteries(frame, now=NOW, **options)


def kinds(result):
    return sorted(p.kind for p in result.problems)


def test_good_telemetry_passes_untouched():
    result = clean(telemetry())
    pd.testing.assert_frame_equal(result.frame.drop(columns="is_filled"), telemetry())
    assert result.problems == []


def test_none_is_fine():
    result = clean(telemetry().iloc[:0])
    assert len(result.frame) == 0


def test_window_is_half_open():
    result = clean(telemetry(), start=START + pd.Timedelta(minutes=5), end=START + pd.Timedelta(minutes=9))
    assert result.frame["timestamp"].nunique() == 4


def test_order_and_agreeing_duplicates_are_repaired():
    frame = pd.concat([telemetry().sample(frac=1, random_state=0), telemetry().iloc[:3]])
    result = clean(frame)
    pd.testing.assert_frame_equal(result.frame.drop(columns="is_filled"), telemetry())
    assert kinds(result) == ["duplicates", "unsorted"]


def test_regions_stay_with_their_rows():
    frame = telemetry().assign(region=["FR", "DE"] * 60)
    result = clean(frame.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(result.frame[frame.columns], frame)


def test_disagreeing_duplicates_are_refused():
    with pytest.raises(DuplicateError, match="battery_id"):
        clean(pd.concat([telemetry(), telemetry().iloc[:1].assign(charge_level_mwh=6.0)]))


@pytest.mark.parametrize(
    "level, kind, repaired", [(10.5, "charge_above_capacity", 10.0), (-0.5, "negative_charge", 0.0)]
)
def test_levels_outside_the_battery_are_clipped_and_reported(level, kind, repaired):
    frame = telemetry()
    frame.loc[frame["battery_id"] == "a", "charge_level_mwh"] = level
    result = clean(frame)
    assert kinds(result) == [kind]
    own = result.frame["battery_id"] == "a"
    assert (result.frame.loc[own, "charge_level_mwh"] == repaired).all()
    assert (result.frame["is_filled"] == own).all()
    assert "more than 1%" in result.problems[0].message


@pytest.mark.parametrize("capacity", [0.0, -1.0, np.nan, np.inf])
def test_impossible_capacities_are_refused(capacity):
    frame = telemetry()
    frame.loc[4, "capacity_mwh"] = capacity
    with pytest.raises(ValueRangeError, match="capacit"):
        clean(frame)


def test_missing_levels_are_filled_while_they_are_fresh():
    frame = telemetry(120)
    own = frame["battery_id"] == "b"
    after = (frame["timestamp"] - START) // pd.Timedelta(minutes=1)
    frame.loc[own & (after >= 20) & (after < 80), "charge_level_mwh"] = np.nan
    result = clean(frame, max_gap_minutes=30)
    missing = result.frame["charge_level_mwh"].isna()
    assert (missing == (own & (after > 49) & (after < 80))).all()
    assert (result.frame["is_filled"] == (own & (after >= 20) & (after <= 49))).all()
    assert kinds(result) == ["missing_values"]


def test_jumps_beyond_power_are_reported():
    frame = telemetry().assign(power_mw=2.0)
    late = frame["timestamp"] >= START + pd.Timedelta(minutes=30)
    frame.loc[(frame["battery_id"] == "a") & late, "charge_level_mwh"] = 7.0
    result = clean(frame)
    assert kinds(result) == ["charge_jump"]
    assert result.problems[0].rows == 1
    assert "00:30:00" in result.problems[0].example
    slow = telemetry().assign(power_mw=2.0)
    slow["charge_level_mwh"] = 5 + np.repeat(np.arange(60), 2) * 2 / 60
    assert clean(slow).problems == []


def test_jumps_are_found_without_power_too():
    frame = telemetry()
    frame.loc[frame["timestamp"] >= START + pd.Timedelta(minutes=30), "charge_level_mwh"] = 9.0
    assert kinds(clean(frame)) == ["charge_jump"]


def test_pauses_are_reported():
    frame = telemetry(120)
    after = (frame["timestamp"] - START) // pd.Timedelta(minutes=1)
    result = clean(frame[(after < 20) | (after > 70)])
    assert kinds(result) == ["telemetry_gap"]
    assert result.problems[0].rows == 2


def test_future_and_wrong_types_are_refused():
    with pytest.raises(TimestampError, match="future"):
        clean_batteries(telemetry(), now=START - pd.Timedelta(hours=3))
    with pytest.raises(SchemaError):
        clean(telemetry().drop(columns="capacity_mwh"))


def test_a_rating_is_what_was_said_or_else_reached_more_than_once() -> None:
    flow = pd.Series([0.0, 1.0, -1.0, 0.9, -0.5] * 20)
    assert rated_power(flow, None) == 1.0
    wild = pd.concat([flow, pd.Series([50.0])])
    assert rated_power(wild, None) == 1.0, "one wild reading sets no rating"
    assert rated_power(flow, pd.Series([np.nan, 2.0, 2.5, np.nan])) == 2.5
    assert rated_power(pd.Series([0.0, np.nan]), None) is None and rated_power(None, None) is None


@pytest.mark.parametrize(("factor", "unit"), [(100 / 4.0, "percent"), (1000.0, "kWh")])
def test_charge_in_another_unit_is_refused_by_name(factor: float, unit: str) -> None:
    frame = telemetry().assign(capacity_mwh=4.0)
    frame["charge_level_mwh"] = np.linspace(0.5, 3.5, len(frame)) * factor
    with pytest.raises(ValueRangeError, match=f"look like {unit}") as refused:
        clean(frame)
    assert refused.value.column == "charge_level_mwh"


def test_a_battery_that_would_last_for_weeks_is_refused() -> None:
    frame = telemetry().assign(capacity_mwh=2000.0, power_mw=1.0)
    frame["charge_level_mwh"] = 900.0
    with pytest.raises(ValueRangeError, match="look like kWh"):
        clean(frame)
