"""What a project sets reaches every face: further columns of its files, its currency, its clock."""

from __future__ import annotations

import base64
import gzip
import re

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from energy_ml import cli
from energy_ml.config import Settings
from energy_ml.display import Display, showing
from energy_ml.errors import ConfigError, SchemaError
from energy_ml.market_data import ParquetLake, read_recent_prices
from energy_ml.names import METRICS_FILE, REPORT_FILE
from energy_ml.orchestration.launch import project_instance
from energy_ml.orchestration.metadata import table
from energy_ml.price_prediction import PricePredictor
from energy_ml.service import MLService
from energy_ml_tests.orchestration.project import DAYS, Project
from energy_ml_tests.service.conftest import Server, inline
from energy_ml_tests.service.test_two_doors import rest, shell, told

LACKS = "the recent prices lack column 'load', which the models were trained with"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A trained one. Prices are noise, but ``load`` half an hour before is what they will be."""
    root = tmp_path_factory.mktemp("faces")
    made = Project.make(
        root,
        PRICES_EXTRA_COLUMNS="load",
        HORIZONS="30",
        API_TOKEN="read-token-0123456789",
        CURRENCY="AUD",
        DISPLAY_ZONE="Australia/Brisbane",
    )
    path = next(p for p in (root / "data/processed").iterdir() if "price" in p.name)
    frame = pd.read_parquet(path).sort_values(["region", "timestamp"], ignore_index=True)
    frame["real_time_price"] = np.random.default_rng(3).normal(50, 20, len(frame))
    frame["load"] = frame.groupby("region")["real_time_price"].shift(-1)
    frame.to_parquet(path, index=False)
    made.night(made.day(DAYS))
    return made


@pytest.fixture(autouse=True)
def _inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.enter(monkeypatch)
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "file", None)
        monkeypatch.setattr(console, "width", 120)


def served(project: Project, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(Server, "settings", project.settings)
    return Server(project.root, {})


def test_the_leaderboard_is_on_record() -> None:
    with project_instance() as instance:
        made = instance.get_latest_materialization_event(dg.AssetKey(["evaluation", "leaderboard"]))
    assert made is not None and made.asset_materialization is not None


def test_columns(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = project.store.read(project.day(DAYS), METRICS_FILE)
    assert metrics["prices"][0]["rmae"] < 0.5, "without load these prices can't be known"

    printed = told(shell(monkeypatch, capsys, "predict"))
    server = served(project, monkeypatch)
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

    shown = rest(server, "prices?minutes=2880")
    asked = {"prices": {name: shown[name] for name in ("timestamps", "regions", "columns")}}
    assert told(rest(server, "predict", asked)["forecasts"]).keys() == given.keys()

    bare = prices.drop(columns="load")
    for ask in (predictor.predict_rows, MLService().forecast):
        with pytest.raises(SchemaError, match=LACKS):
            ask(bare)
    with pytest.raises(Exception, match="422"):
        rest(server, "predict", {"prices": sent})
    assert MLService().act(0.5, prices=bare)["forecast_source"].startswith(f"none: {LACKS}")


def test_currency_and_clock(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data ends on 8 January, 23:30 UTC: half past nine of the ninth in Brisbane."""
    for command in (["predict"], ["act", "--charge", "0.5"]):
        monkeypatch.setattr("sys.argv", ["energy-ml", *command])
        with pytest.raises(SystemExit):
            cli.main()
        assert "2026-01-09 09:30 Australia/Brisbane" in (printed := capsys.readouterr().out) and "AUD/MWh" in printed
    newest = shell(monkeypatch, capsys, "predict")[0]["timestamp"]
    assert newest.startswith("2026-01-08T23:30:00"), "machines get UTC"
    page = project.store.path(project.day(DAYS), REPORT_FILE).read_text()
    assert "09 Jan 2026 10:00 Australia/Brisbane, which no model" in page and "AUD/MWh" in page and "AUD per MW" in page
    (packed,) = re.findall(r'id="chart-data">([^<]+)<', page)
    charts = gzip.decompress(base64.b64decode(packed)).decode()
    assert "currency/MWh" not in page + charts and "time that is forecast, Australia/Brisbane" in charts
    with project_instance() as instance:
        keys = ("features/price_features", "features/time_split", "price_prediction/model_30min")
        features, split, model = (
            instance.get_latest_materialization_event(dg.AssetKey(key.split("/"))).asset_materialization.metadata
            for key in keys
        )
    assert features["window"].value == "2026-01-05 10:00 … 2026-01-09 10:00 Australia/Brisbane"
    assert split["end"].value == "2026-01-09 10:00 Australia/Brisbane"
    assert model["price_unit"].value == "AUD/MWh"
    recent = rest(served(project, monkeypatch), "prices")
    assert (recent["unit"], recent["zone"]) == ("AUD/MWh", "Australia/Brisbane")


def test_instants_in_a_metadata_table_are_on_the_readers_clock() -> None:
    frame = pd.DataFrame({"at": [pd.Timestamp("2026-01-05 12:00", tz="UTC")], "price": [1.5]})
    with showing(Display("EUR", "Europe/Paris")):
        text = str(table(frame).value)
    assert "13:00" in text and "Europe/Paris" in text and "1.5" in text


def test_a_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"display_zone \(ENERGY_ML_DISPLAY_ZONE\) is 'Paris'"):
        Settings.from_env({"ENERGY_ML_DISPLAY_ZONE": "Paris"})
