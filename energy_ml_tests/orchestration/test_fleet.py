"""From the telemetry's file to money: every column that the contract names reaches the fleet's backtest."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from energy_ml import day
from energy_ml.config import RLBatteryConfig
from energy_ml.evaluation.backtest_evaluator import own_units
from energy_ml.market_data.lake import ParquetLake
from energy_ml.service.recent import RecentMarket
from energy_ml.training_window import open_day
from energy_ml_tests.orchestration.project import DAYS, Project

POWERS = {"slow": 0.25, "middle": 1.0, "fast": 4.0}


@pytest.mark.parametrize("rated", [False, True], ids=["seen", "rated"])
def test_power_reaches_backtest_and_page(tmp_path: Path, rated: bool) -> None:
    project = Project.make(tmp_path / "fleet")
    settings, lake = project.settings, ParquetLake(project.settings.data_dir)
    times = pd.date_range(project.day(1), periods=DAYS * 48, freq="30min", tz="UTC")
    flow = pd.Series(times.hour % 4 // 2 * 2 - 1, dtype=float)
    frames = [
        pd.DataFrame(
            {
                "timestamp": times,
                "battery_id": name,
                "region": "FR",
                "charge_level_mwh": 2.0,
                "capacity_mwh": 4.0,
                "power_mw": flow * power * (0.5 if rated else 1.0),
                **({"rated_power_mw": power} if rated else {}),
            }
        )
        for name, power in POWERS.items()
    ]
    frames[0].loc[7, "power_mw"] = 60.0  # one wild reading
    for path in (project.root / "data/processed").rglob("batteries*.parquet"):
        path.unlink()
    pd.concat(frames).to_parquet(project.root / "data/processed/batteries.parquet", index=False)
    opened = open_day(settings, lake, project.day(DAYS))
    night = day.Night(settings, project.day(DAYS), "x", lake, *[None] * 4)  # type: ignore[arg-type]
    features = day.battery_features(night, opened.features).value
    units, _ = own_units(features, opened.split, RLBatteryConfig(), ["DE", "FR"])  # type: ignore[arg-type]
    assert {unit.battery_id: unit.battery.power_mw for unit in units} == POWERS
    shown = RecentMarket(lake).batteries()
    assert dict(zip(shown["battery_id"], shown["rated_power_mw"], strict=True)) == POWERS
