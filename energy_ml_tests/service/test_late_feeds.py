"""A feed that is late, or thin: the others' forecasts come all the same, and every door says what is missing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pandas as pd
import pytest

from energy_ml import cli
from energy_ml.errors import DataError
from energy_ml.market_data import ParquetLake, read_recent_prices
from energy_ml.price_prediction import PricePredictor
from energy_ml.service import MLService
from energy_ml_tests.service.conftest import HORIZONS, Server, promote
from energy_ml_tests.service.test_two_doors import rest, shell, told

NEWEST = pd.Timestamp("2025-03-05T23:45Z")


def project(
    market: Server,
    artifacts: dict[str, Path],
    prices: pd.DataFrame,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    **more: str,
) -> Server:
    """A project with these prices, which this process works in."""
    (folder / "data").mkdir()
    prices.to_parquet(folder / "data/prices.parquet", index=False)
    own = {"ENERGY_ML_DATA_DIR": str(folder / "data"), "ENERGY_ML_MODELS_DIR": str(folder / "models"), **more}
    server = Server(folder, {**market.environment, **own})
    promote(server, artifacts)
    for name, value in server.environment.items():
        if name.startswith("ENERGY_ML_"):
            monkeypatch.setenv(name, value)
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "file", None)
    return server


@pytest.mark.parametrize(("late", "regions"), [("45min", ""), ("5h", "DE,FR"), ("4D", "DE,FR"), ("100D", "")])
def test_the_others_are_served_and_the_late_one_is_named(
    late: str,
    regions: str,
    market: Server,
    artifacts: dict[str, Path],
    prices: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    last = NEWEST - pd.Timedelta(late)
    ends = prices["region"].map({"DE": last, "FR": NEWEST})
    left = prices[prices["timestamp"] <= ends]
    server = project(market, artifacts, left, tmp_path, monkeypatch, ENERGY_ML_REGIONS=regions)
    known = last if last > prices["timestamp"].min() else None

    printed = shell(monkeypatch, capsys, "predict")
    assert {(row["region"], row["horizon"]) for row in printed} == {("FR", h) for h in HORIZONS}
    own, answer = MLService().forecast(), rest(server, "predict", {})
    assert told(printed) == told(own) == told(answer["forecasts"])
    assert told(rest(server, "predict", {"regions": ["DE", "FR"]})["forecasts"]) == told(own)
    assert own[0]["late_regions"] == {"DE": known}
    told_last = answer["late_regions"]["DE"]
    assert (None if told_last is None else pd.Timestamp(told_last)) == known
    assert printed[0]["late_regions"] == answer["late_regions"]
    monkeypatch.setattr("sys.argv", ["energy-ml", "predict"])
    with pytest.raises(SystemExit):
        cli.main()
    words = "long before" if known is None else f"{known:%Y-%m-%d %H:%M}"
    assert f"DE is late and left out: its last price is of {words}" in capsys.readouterr().out
    with pytest.raises(DataError, match="'DE'"):
        MLService().forecast(regions=["DE"])
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        rest(server, "predict", {"regions": ["DE"]})

    predictor = PricePredictor(f"{server.settings.models_dir}/price_prediction")
    many = predictor.predict_many(read_recent_prices(ParquetLake(server.settings.data_dir)))
    assert set(many["region"]) == {"FR"} and len(many) == len(HORIZONS)


def test_thin_data_is_counted(
    market: Server,
    artifacts: dict[str, Path],
    prices: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = prices["timestamp"].between(NEWEST - pd.Timedelta(hours=3), NEWEST - pd.Timedelta(hours=2))
    gone |= (prices["timestamp"] == NEWEST) & (prices["region"] == "DE")  # a feed that is about to come
    server = project(market, artifacts, prices[~gone], tmp_path, monkeypatch)
    for rows in (shell(monkeypatch, capsys, "predict"), rest(server, "predict", {})["forecasts"]):
        assert {row["region"]: row["recent_missing"] for row in rows} == {"DE": 6, "FR": 5}, "quarters of an hour"
    assert shell(monkeypatch, capsys, "act", "--charge", "0.5")["recent_missing"] == 5
    assert rest(server, "act", {"charge_level_mwh": 0.5})["recent_missing"] == 5
    one = {"timestamps": [NEWEST.isoformat()], "regions": {"FR": [50.0]}}
    assert rest(server, "act", {"charge_level_mwh": 0.5, "prices": one})["recent_missing"] == 2 * 96 - 1
