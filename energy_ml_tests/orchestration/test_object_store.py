"""Data and results in an object store: a whole run against a local S3 server, models on disk beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.simulator import write_simulation
from energy_ml.market_data.watch import WatchState, look
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.orchestration.launch import backfill
from energy_ml.price_prediction import PricePredictor
from energy_ml.training_window import newest
from energy_ml_tests.orchestration.project import DAYS, FIRST, Project


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; whoever asks for ``s3://`` reaches the local server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="energy")
    yield "s3://energy"
    server.stop()


def test_a_day_is_trained_from_and_into_an_object_store(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_simulation(f"{bucket}/prices", DAYS, 2, FIRST, 30, days_per_file=4, batteries=1)
    project = Project.make(tmp_path, DATA_DIR=f"{bucket}/prices", RESULTS_DIR=f"{bucket}/results", HORIZONS="60")
    for name, value in project.env.items():
        if name.startswith("ENERGY_ML_"):
            monkeypatch.setenv(name, value)
    last = newest(project.settings)
    assert last == project.day(DAYS)

    found = look(ParquetLake(f"{bucket}/prices"), WatchState(), now=time.time(), settle_seconds=0)
    assert {change.day for change in found.changes} == {project.day(n + 1) for n in range(DAYS)}
    assert all(file.startswith(("prices", "batteries")) for change in found.changes for file in change.files)

    (run,) = backfill(last, last)
    assert run.error is None
    assert project.store.as_of_dates() == [last]
    assert set(project.store.read(last, "forecasts.parquet")["split"]) == {"train", "validation", "test"}
    assert "chart-data" in project.store.read(last, "report.html")
    assert UPath(f"{bucket}/results/leaderboard.html").exists()
    assert backfill(last, last, only_missing=True) == [], "results in the store are found again"

    registry = ModelRegistry(project.root / "models/registry.json")
    assert {model["model_id"] for model in registry.list_models()} == {
        "price_prediction_60m",
        "battery_policy",
    } and registry.verify() == []
    assert len(PricePredictor(project.root / "models/price_prediction").get_feature_importance(60))
    beside = {path.name for path in project.root.iterdir()}
    assert "results" not in beside, "nothing of the results is on the local disk"
