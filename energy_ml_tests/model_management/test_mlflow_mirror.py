"""The mirror in MLflow, against a tracker in a folder; and one that is dead. Where mlflow isn't, its words."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import PricePredictionConfig
from energy_ml.errors import ModelError
from energy_ml.model_management import mlflow_mirror
from energy_ml.model_management.comparison import Decision
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml_tests.features.frames import long_frame, price_matrix

MODEL = "price_prediction_15m"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelRegistry, dict[str, Any], pd.DataFrame]:
    """A registry with one champion, the decision on it, and the prices that it learned from."""
    folder = tmp_path_factory.mktemp("mirrored")
    prices = long_frame(price_matrix(4 * 96, 2, 1), 15)
    trainer = PricePredictionTrainer(
        PricePredictionConfig(horizons=[15], n_estimators=5, preset="fast", min_training_days=1)
    )
    features, names = trainer.prepare_data(prices)
    trainer.train_for_horizon(features, names, 15)
    registry = ModelRegistry(folder / "models/registry.json")
    file = trainer.save_models(folder / "made")[15]
    metadata = {"as_of": "2026-02-02", "config": {"preset": "fast"}, "metrics": {"test": {"mae": 1.5}}}
    registry.register_model("price_prediction", MODEL, "v20260202_010000", file, metadata, who="test")
    registry.decide(
        MODEL, "v20260202_010000", Decision(True, "the first that beats the baseline", {}), who="test", against=None
    )
    decision = {
        "promote": True,
        "reason": "the first that beats the baseline",
        "version": "v20260202_010000",
        "numbers": {},
    }
    return registry, {MODEL: decision}, prices


def test_boosters_and_their_columns_as_json(made: Any, tmp_path: Path) -> None:
    import xgboost as xgb

    registry, _, _ = made
    *members, about = mlflow_mirror.export(registry, MODEL, "xgboost-json", tmp_path)
    model, design = registry.load(MODEL), json.loads(about.read_text())
    assert design["columns"] == model.design.names and design["horizon_minutes"] == 15
    for place, file in enumerate(members):
        booster = xgb.Booster(model_file=file)
        rows = xgb.DMatrix(model.sample_rows)
        assert np.array_equal(booster.predict(rows), model.fitted.booster(place).predict(rows))


def test_without_a_tracker_nothing_is_told(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, decisions, _ = made
    monkeypatch.delenv(mlflow_mirror.TRACKER, raising=False)
    assert mlflow_mirror.mirror(registry, "2026-02-02", decisions, "", "r1").startswith("none")


def test_what_goes_wrong_is_a_warning(
    made: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry, decisions, _ = made
    monkeypatch.setenv(mlflow_mirror.TRACKER, "http://127.0.0.1:9")
    began = time.monotonic()
    assert mlflow_mirror.mirror(registry, "2026-02-02", decisions, "", "r1").startswith("failed")
    assert time.monotonic() - began < 60 and "MLflow isn't told of 2026-02-02" in caplog.text


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_a_night_stands_in_the_tracker_and_its_champion_answers(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    registry, decisions, prices = made
    monkeypatch.setenv(mlflow_mirror.TRACKER, f"sqlite:///{tmp_path}/tracker.db")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(None)
    told = mlflow_mirror.mirror(registry, "2026-02-02", decisions, "<html>report</html>", "r1")
    assert told.startswith("run "), told
    client = mlflow.MlflowClient()
    night = client.get_run(told.removeprefix("run "))
    assert night.data.tags["as_of"] == "2026-02-02" and night.data.tags["run_id"] == "r1"
    assert [file.path for file in client.list_artifacts(night.info.run_id)] == ["report.html"]
    (one,) = client.search_runs([night.info.experiment_id], f"tags.mlflow.parentRunId = '{night.info.run_id}'")
    assert one.data.params["preset"] == "fast" and one.data.metrics["test.mae"] == 1.5
    assert one.data.tags["decision"] == "the first that beats the baseline"
    loaded = mlflow.pyfunc.load_model(f"models:/energy_ml.{MODEL}@champion")
    rows = loaded.predict(prices)
    own = PricePredictor().use({15: registry.load(MODEL)}).predict_many(prices)
    assert rows["price"].tolist() == own["price"].tolist() and len(rows) == 2
    (folder,) = mlflow_mirror.export(registry, MODEL, "mlflow", tmp_path / "out")
    assert mlflow.pyfunc.load_model(str(folder)).predict(prices)["price"].tolist() == own["price"].tolist()


def test_a_policy_has_no_boosters(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, _, _ = made
    monkeypatch.setattr(registry, "load", lambda model_id: object())
    with pytest.raises(ModelError, match="battery_policy has no boosters"):
        mlflow_mirror.export(registry, "battery_policy", "xgboost-json", tmp_path)
