"""From files with holes to forecasts, metrics and money: what wasn't measured is nowhere taken for a price."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import IncompleteWindowError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.orchestration.triggers import data_version
from energy_ml.training_window import open_day
from energy_ml_tests.orchestration.project import DAYS, Project

PRICE = "real_time_price"


def change(project: Project, edit) -> pd.DataFrame:
    """Write the price files anew as ``edit`` leaves them; returns all prices that are left."""
    frames = []
    for path in sorted((project.root / "data/processed").rglob("prices*.parquet")):
        frames.append(edit(pd.read_parquet(path)))
        frames[-1].to_parquet(path, index=False)
    return pd.concat(frames, ignore_index=True)


def holed(project: Project) -> pd.DataFrame:
    """FR lacks half a day of training; on the last day every fifth half-hour is missing."""
    start = pd.Timestamp(project.day(DAYS - 3), tz="UTC")

    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        times = frame["timestamp"]
        hole = (frame["region"] == "FR") & (times >= start) & (times < start + pd.Timedelta(hours=12))
        slot = (times - start) // pd.Timedelta(minutes=30)
        last = (times >= pd.Timestamp(project.day(DAYS), tz="UTC")) & (slot % 5 == 1)
        return frame[~(hole | last)]

    return change(project, edit)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, pd.DataFrame]:
    project = Project.make(tmp_path_factory.mktemp("holed"), PROMOTION_REQUIRE_BEATS_NAIVE="false", HORIZONS="60")
    measured = holed(project)
    project.night(project.day(DAYS))
    return project, measured


def test_forecasts_and_metrics_count_measured_prices_only(trained: tuple[Project, pd.DataFrame]) -> None:
    project, measured = trained
    day = project.day(DAYS)
    forecasts = project.store.read(day, "forecasts.parquet")
    known = measured.set_index(["timestamp", "region"])[PRICE]
    origin = pd.MultiIndex.from_frame(forecasts[["timestamp", "region"]])
    ahead = forecasts["timestamp"] + pd.to_timedelta(forecasts["horizon_minutes"], unit="min")
    target = pd.MultiIndex.from_arrays([ahead, forecasts["region"]])
    np.testing.assert_array_equal(forecasts["is_filled"], ~origin.isin(known.index))
    there = target.isin(known.index)
    np.testing.assert_array_equal(forecasts["price_actual"].notna(), there)
    np.testing.assert_allclose(forecasts["price_actual"][there], known.loc[target[there]])
    assert 0.05 < (~there).mean() < 0.5
    metrics = project.store.read(day, "metrics.json")
    for row in metrics["prices"]:
        mine = forecasts[(forecasts["split"] == "test") & (forecasts["horizon_minutes"] == row["horizon_minutes"])]
        judged = mine.dropna(subset="price_actual")
        assert (row["n"], row["n_missing"]) == (len(judged), len(mine) - len(judged))
        assert row["mae"] == pytest.approx((judged["price_forecast"] - judged["price_actual"]).abs().mean())
        assert row["persistence_mae"] == pytest.approx((judged["price_now"] - judged["price_actual"]).abs().mean())


def test_no_battery_trades_where_no_price_was_measured(trained: tuple[Project, pd.DataFrame]) -> None:
    project, measured = trained
    rows = project.store.read(project.day(DAYS), "battery_backtest.parquet")
    known = pd.MultiIndex.from_frame(measured[["timestamp", "region"]])
    filled = ~pd.MultiIndex.from_frame(rows[["timestamp", "region"]]).isin(known)
    np.testing.assert_array_equal(rows["is_filled"], filled)
    assert filled.any()
    assert (rows.loc[filled, ["energy_mwh", "cash"]] == 0).all().all()
    traded = rows[~filled].groupby("strategy")["energy_mwh"].apply(lambda energy: float(energy.abs().sum()))
    assert traded["perfect_foresight"] > 0
    assert traded["q_learning"] > 0


def test_it_is_said_in_the_report_and_by_the_window(trained: tuple[Project, pd.DataFrame]) -> None:
    project, _ = trained
    day = project.day(DAYS)
    report = project.store.path(day, "report.html").read_text()
    assert "too long to fill" in report
    split = project.store.read(day, "features/time_split.json")
    holes = [problem for problem in split["problems"] if problem["kind"] == "hole"]
    assert [problem["rows"] for problem in holes] == [24]
    opened = open_day(project.settings, ParquetLake(project.settings.data_dir), day)
    assert "the first FR from 2026-01-05 00:00:00" in opened.window.holes
    left_out = project.store.read(day, "price_prediction/model_60min.json")
    assert left_out["data_fingerprint"] == opened.window.fingerprint


def test_a_live_forecast_beside_a_hole_says_so(trained: tuple[Project, pd.DataFrame]) -> None:
    project, _ = trained
    done = project.run("energy-ml", "predict", "--region", "DE", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert all("weren't measured" in row["penalty"] for row in json.loads(done.stdout))


def test_run_and_trigger_agree_about_what_can_not_be_trained(tmp_path: Path) -> None:
    """Anything that only the warm-up holds stands in nobody's way; too little of the window stands in everybody's."""
    project = Project.make(tmp_path / "edges")
    lake, day = ParquetLake(project.settings.data_dir), project.day(DAYS)
    start = pd.Timestamp(project.day(DAYS - 3), tz="UTC")

    def hourly_before(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["timestamp"] >= start) | (frame["timestamp"].dt.minute == 0)]

    before = data_version(project.settings, lake, day)
    change(project, hourly_before)
    opened = open_day(project.settings, lake, day)
    assert opened.window.interval_minutes == 30
    assert data_version(project.settings, lake, day) == before == opened.window.fingerprint[: len(before)]

    late = start + pd.Timedelta(days=2.2)
    change(project, lambda frame: frame[(frame["region"] != "FR") | (frame["timestamp"] >= late)])
    for decide in (open_day, data_version):
        with pytest.raises(IncompleteWindowError, match=r"FR has 0\.6 days to train on"):
            decide(project.settings, lake, day)
