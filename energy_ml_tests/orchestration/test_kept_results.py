"""A backfill leaves out only what was made from the same data, settings and version."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import METRICS_FILE
from energy_ml.orchestration import launch
from energy_ml.provenance import provenance
from energy_ml.training_window import read_window
from energy_ml_tests.orchestration.project import DAYS, Project


def test_results_of_other_data_settings_or_version_are_made_anew(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.make(tmp_path / "project")
    day, settings, lake = project.day(DAYS), project.settings, ParquetLake(project.root / "data/processed")
    fingerprint = read_window(settings, lake, day).fingerprint
    record = provenance(as_of=str(day), data_fingerprint=fingerprint, config=settings.ml_config())
    assert not launch._has_results(settings, lake, instance, day)
    project.store.write(day, METRICS_FILE, {"provenance": record})
    assert launch._has_results(settings, lake, instance, day)
    for changed in ({"preset": "best"}, {"horizons": (60,)}, {"regions": ("FR",)}, {"training_window_days": 5}):
        assert not launch._has_results(dataclasses.replace(settings, **changed), lake, instance, day)
    monkeypatch.setattr(launch, "__version__", "0.0.0")
    assert not launch._has_results(settings, lake, instance, day)
    monkeypatch.undo()
    path = next((project.root / "data/processed").rglob("prices*.parquet"))
    frame = pd.read_parquet(path)
    frame.loc[frame.index[-1], "real_time_price"] += 1.0
    frame.to_parquet(path, index=False)
    assert not launch._has_results(settings, lake, instance, day)
