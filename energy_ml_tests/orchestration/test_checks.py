"""Freshness and drift checks: what they compare, and what they say."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from energy_ml import checks
from energy_ml.day import Made
from energy_ml.features import build_price_features, feature_columns
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.schema import DataProblem
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.steps import Step, asset_of
from energy_ml.splits import split_window, window_of
from energy_ml_tests.orchestration.folder import day, prices, put, settings_for


def _now(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_late_input_is_said_in_days(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    put(tmp_path, "days.parquet", prices(1, 2, 3))
    lake = ParquetLake(settings.data_dir)
    on_time = checks.data_recent(settings, lake, _now("2026-01-04T02:00"))
    assert on_time.passed
    late = checks.data_recent(settings, lake, _now("2026-01-06T02:00"))
    assert not late.passed
    assert late.words == ("input is 2 days late: the newest complete day is 2026-01-03; 2026-01-05 was expected by now")
    ended = settings_for(tmp_path, END_DATE="2026-01-03")
    assert checks.data_recent(ended, lake, _now("2026-11-06T02:00")).passed, "data that has ended isn't late"


def test_no_data_at_all_is_late_too(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    found = checks.data_recent(settings, ParquetLake(settings.data_dir), _now("2026-01-04T02:00"))
    assert not found.passed and "ENERGY_ML_DATA_DIR" in found.words


def test_absent_regions_are_named() -> None:
    assert checks.regions_present(prices(1), []).words == "2 of 2 regions in the window: DE, FR"
    absent = DataProblem("region_absent", "region NL has no rows", 0, False, "NL", "region")
    found = checks.regions_present(prices(1), [absent])
    assert not found.passed and found.words == "2 of 3 regions in the window: DE, FR; without prices: NL"


@pytest.mark.parametrize(("factor", "stable"), [(1.0, True), (6.0, False)])
def test_a_newest_day_unlike_the_training_part_is_drift(tmp_path: Path, factor: float, stable: bool) -> None:
    settings = settings_for(tmp_path, TRAINING_WINDOW_DAYS="6")
    frame = prices(*range(1, 7))
    frame.loc[frame["timestamp"] >= pd.Timestamp(day(6), tz="UTC"), "real_time_price"] *= factor
    features = build_price_features(frame, lags=[1], windows=[5], include_regional=False)
    found = checks.features_stable(settings, features, feature_columns(features), split_window(*window_of(day(6), 6)))
    assert found.passed is stable, found.words
    assert "median PSI" in found.words and "most moved" in found.words
    table = found.facts["most_moved"]
    assert isinstance(table, pd.DataFrame) and {"psi", "ks"} <= set(table)


def _forecasts(newest_error: float) -> pd.DataFrame:
    """Validation and test of two days each; the price moves by 2, errors are 1, on the newest day ``newest_error``."""
    times = pd.date_range("2026-01-01", periods=4 * 48, freq="30min", tz="UTC", unit="ns")
    sign = np.where(np.arange(len(times)) % 2, 1.0, -1.0)
    actual = 50 + 2 * sign
    error = np.where(times >= pd.Timestamp("2026-01-04", tz="UTC"), newest_error, 1.0)
    return pd.DataFrame(
        {
            "timestamp": times,
            "region": "FR",
            "horizon_minutes": 30,
            "split": np.where(times < pd.Timestamp("2026-01-03", tz="UTC"), "validation", "test"),
            "price_now": 50.0,
            "price_actual": actual,
            "price_forecast": actual + error,
            "lower": actual - 9,
            "upper": actual + 9,
        }
    )


@pytest.mark.parametrize(("newest_error", "kept"), [(1.0, True), (1.2, True), (1.8, False)])
def test_a_newest_day_worse_than_promised_is_told(tmp_path: Path, newest_error: float, kept: bool) -> None:
    found = checks.newest_day_as_promised(settings_for(tmp_path), _forecasts(newest_error))
    assert found.passed is kept
    assert f"30 min: {newest_error / 2:.3f} against 0.500" in found.words
    assert found.facts["by_horizon"]["growth"].tolist() == pytest.approx([newest_error])  # type: ignore[index]


def test_a_blocking_check_fails_as_an_error(tmp_path: Path) -> None:
    """Also one whose result is numpy's own False."""
    settings = settings_for(tmp_path, BLOCKING_CHECKS="features_stable")
    found = [checks.Check("features_stable", np.False_), checks.Check("data_recent", False)]  # type: ignore[arg-type]
    step = Step(
        "features/x",
        "features/x.json",
        lambda night: Made({}, checks=found),
        {"json"},
        checks={"features_stable": "", "data_recent": ""},
        description="x",
    )
    asset = asset_of(settings, step)
    assert {spec.name: spec.blocking for spec in asset.check_specs} == {"features_stable": True, "data_recent": False}
    resources = build_definitions(settings).resources
    ran = dg.materialize(
        [asset], partition_key=settings.first_as_of.isoformat(), resources=resources, raise_on_error=False
    )
    severities = {e.check_name: e.severity for e in ran.get_asset_check_evaluations()}
    assert severities["features_stable"] is dg.AssetCheckSeverity.ERROR
    assert severities["data_recent"] is dg.AssetCheckSeverity.WARN
