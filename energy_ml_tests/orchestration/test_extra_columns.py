"""A further column of the price files, from the files through a training to every door that serves its models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import SchemaError
from energy_ml.market_data import ParquetLake, read_recent_prices
from energy_ml.price_prediction import PricePredictor
from energy_ml.service import MLService
from energy_ml_tests.orchestration.project import Project
from energy_ml_tests.service.conftest import Server, inline
from energy_ml_tests.service.test_two_doors import rest, shell, told

LACKS = "the recent prices lack column 'load', which the models were trained with"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Prices are noise, but ``load`` half an hour before is what they will be."""
    made = Project.make(tmp_path, PRICES_EXTRA_COLUMNS="load", HORIZONS="30", API_TOKEN="read-token-0123456789")
    path = next(p for p in (tmp_path / "data/processed").iterdir() if "price" in p.name)
    frame = pd.read_parquet(path).sort_values(["region", "timestamp"], ignore_index=True)
    frame["real_time_price"] = np.random.default_rng(3).normal(50, 20, len(frame))
    frame["load"] = frame.groupby("region")["real_time_price"].shift(-1)
    frame.to_parquet(path, index=False)
    return made


def test_every_door(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    project.enter(monkeypatch)
    trained = shell(monkeypatch, capsys, "retrain")
    assert trained["prices"][0]["rmae"] < 0.5, "without load these prices can't be known"

    printed = told(shell(monkeypatch, capsys, "predict"))
    server = Server(project.root, {**project.env, "ENERGY_ML_API_TRAIN_TOKEN": "train-token-0123456789"})
    monkeypatch.setattr(Server, "settings", project.settings)
    assert printed == told(rest(server, "predict", {})["forecasts"]) == told(MLService().forecast())
    assert shell(monkeypatch, capsys, "act", "--charge", "0.5")["forecast_source"] == "models"

    lake = ParquetLake(project.settings.data_dir)
    prices = read_recent_prices(lake, minutes=6 * 1440, columns=["load"])
    predictor = PricePredictor(project.root / "models/price_prediction")
    given = told(predictor.predict_rows(prices))
    sent = inline(prices, rows=300)
    wide = prices.pivot_table(index="timestamp", columns="region", values="load", dropna=False).loc[sent["timestamps"]]
    columns = {"load": {name: [None if x != x else x for x in wide[name]] for name in wide.columns}}
    assert given == told(rest(server, "predict", {"prices": {**sent, "columns": columns}})["forecasts"])
    file = next(str(path) for path in (project.root / "data/processed").iterdir() if "price" in path.name)
    assert given.keys() == told(shell(monkeypatch, capsys, "predict", "--file", file)).keys()
    newest = prices["timestamp"].max()
    for load in (0.0, 100.0):  # what the newest row says of the next price counts
        prices.loc[prices["timestamp"] == newest, "load"] = load
        own = MLService().predict("price_prediction_30m", features=prices, region="FR")["price"]
        assert own == predictor.predict(prices, 30, "FR") and abs(own - load) < abs(own - (100 - load))

    bare = prices.drop(columns="load")
    for ask in (predictor.predict_rows, MLService().forecast):
        with pytest.raises(SchemaError, match=LACKS):
            ask(bare)
    with pytest.raises(Exception, match="422"):
        rest(server, "predict", {"prices": sent})
    assert MLService().act(0.5, prices=bare)["forecast_source"].startswith(f"none: {LACKS}")
