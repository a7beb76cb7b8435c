"""One answer at every door: which day is the newest, and what its models are trained on."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from energy_ml import checks
from energy_ml.config import BatteryEntry, MLConfig, Settings
from energy_ml.errors import ConfigError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import REPORT_FILE
from energy_ml.orchestration.schedules import build_schedules
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.results import ResultsStore
from energy_ml.rl_battery import BatteryRLTrainer
from energy_ml.service.training_tasks import TrainingRequest, Trainings
from energy_ml.training_window import newest, open_day, policy_regions
from energy_ml_tests.orchestration.project import DAYS, Project

LATE = "DE"


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two regions, one of them a day late; the other is the chosen one."""
    project = Project.make(tmp_path / "late", REGIONS="FR")
    for path in (project.root / "data/processed").rglob("prices*.parquet"):
        frame = pd.read_parquet(path)
        keep = (frame["region"] != LATE) | (frame["timestamp"] < pd.Timestamp(project.day(DAYS), tz="UTC"))
        frame[keep].to_parquet(path, index=False)
    project.enter(monkeypatch)
    return project


def test_the_newest_day_is_that_of_the_chosen_regions_at_every_door(
    late: Project, instance: dg.DagsterInstance
) -> None:
    day, settings = late.day(DAYS), late.settings
    assert newest(settings) == day
    shown = late.run("energy-ml", "data", "--json")
    assert json.loads(shown.stdout)["latest_complete_day"] == day.isoformat()
    assert Trainings(settings)._check(TrainingRequest("all")) == day
    tick = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(4, 30), dt.UTC)
    (schedule,) = build_schedules(settings)
    asked = schedule(dg.build_schedule_context(instance, scheduled_execution_time=tick))
    assert getattr(asked, "partition_key", asked) == day.isoformat()
    assert checks.data_recent(settings, ParquetLake(settings.data_dir), tick).passed


def test_a_trainer_alone_learns_from_the_rows_of_the_nightly_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window's first rows have whole lags, from the warm-up before it; so have the trainer's."""
    project = Project.make(tmp_path / "whole", HORIZONS="60", PRICES_N_ESTIMATORS="20")
    project.enter(monkeypatch)
    project.night(project.day(DAYS))
    kept = ResultsStore(project.settings.results_dir)
    nightly = kept.read(project.day(DAYS), "features/price_features.parquet")
    trainer = PricePredictionTrainer(project.settings.ml_config())
    alone, names = trainer.prepare_data(trainer.load_data())
    trained = trainer.train_for_horizon(alone, names, 60)
    assert trained["model"].provenance["history"]["rows"], "four days before a window of four teach too"
    forecasts = kept.read(project.day(DAYS), "price_prediction/forecasts_60min.parquet")
    pd.testing.assert_frame_equal(trained["forecasts"], forecasts, check_dtype=False)
    page = kept.path(project.day(DAYS), REPORT_FILE).read_text()
    assert "rows before the window too, since 01 Jan 2026" in page
    pd.testing.assert_frame_equal(alone, nightly, check_dtype=False)
    day = open_day(project.settings, ParquetLake(project.settings.data_dir), project.day(DAYS))
    pd.testing.assert_frame_equal(alone, day.features)
    assert names == day.feature_names
    prices = BatteryRLTrainer().load_data()
    assert (prices["timestamp"].min(), len(prices)) == (nightly["timestamp"].min(), len(nightly))


def test_which_regions_get_a_policy() -> None:
    """All of a few; of many those with batteries, or ten; the chosen, and always those with batteries."""
    few, many = ["b", "a"], [f"N{n:03d}" for n in range(95)]
    mine = MLConfig(batteries=(BatteryEntry("mine", region="N042"),))
    assert policy_regions(Settings(), few, []) == ["a", "b"]
    assert policy_regions(Settings(), many, []) == many[::10]
    assert policy_regions(Settings(), many, ["N007", "elsewhere"]) == ["N007"]
    assert policy_regions(Settings(models=mine), many, ["N007"]) == ["N007", "N042"]
    assert policy_regions(Settings(battery_regions=("every",)), many, []) == many
    assert policy_regions(Settings(battery_regions=("own",)), few, ["b"]) == ["b"]
    assert policy_regions(Settings(battery_regions=("N001",), models=mine), many, []) == ["N001", "N042"]
    with pytest.raises(ConfigError, match=r"ENERGY_ML_BATTERY_REGIONS.*gone"):
        policy_regions(Settings(battery_regions=("N001", "gone")), many, [])
