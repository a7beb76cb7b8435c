"""A question asked at two doors gets one answer: shell, REST and Python give the same numbers, to the bit."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from energy_ml import cli
from energy_ml.artifacts import to_jsonable
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.simulator import write_simulation
from energy_ml.market_data.window import read_recent_prices
from energy_ml.price_prediction import PricePredictor
from energy_ml.service import MLService, create_app
from energy_ml_tests.service.conftest import DAYS, INTERVAL, START, TOKEN, Server, promote


@pytest.fixture(scope="module")
def later(market: Server, artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A project whose data is two days newer than its models."""
    folder = tmp_path_factory.mktemp("later")
    data = folder / "data"
    start = dt.date.fromisoformat(START)
    write_simulation(str(data), days=DAYS + 1, regions=2, start=start, interval_minutes=INTERVAL, seed=1)
    own = {"ENERGY_ML_DATA_DIR": str(data), "ENERGY_ML_MODELS_DIR": str(folder / "models")}
    server = Server(folder, {**market.environment, **own})
    promote(server, artifacts)
    return server


def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What the command prints as JSON."""
    monkeypatch.setattr("sys.argv", ["energy-ml", *arguments, "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    captured = capsys.readouterr()
    assert not left.value.code, captured.err
    return json.loads(captured.out)


def rest(server: Server, route: str, body: dict[str, Any] | None = None) -> Any:
    """What the service answers over HTTP: a question to its models, or what is there."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(server.settings))  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            if body is None:
                return await client.get(f"/api/v1/{route}", timeout=60)
            return await client.post(f"/api/v1/models/{route}", json=body, timeout=60)

    return asyncio.run(ask()).raise_for_status().json()


@pytest.fixture
def environment(later: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in later.environment.items():
        if name.startswith("ENERGY_ML_"):
            monkeypatch.setenv(name, value)
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "file", None)  # whatever stream another test gave it


def told(rows: list[dict[str, Any]]) -> dict[tuple[str, int], tuple[float, float, float]]:
    return {(row["region"], row["horizon"]): (row["price"], row["lower"], row["upper"]) for row in rows}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("level", [None, 0.8])
def test_forecasts(
    later: Server, level: float | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    option = [] if level is None else ["--level", str(level)]
    printed = told(shell(monkeypatch, capsys, "predict", *option))
    assert printed == told(rest(later, "predict", {"level": level})["forecasts"])
    assert printed == told(MLService().forecast(level=level))
    # The outcomes of the two days have moved the intervals, or this would be no test of who learns from them.
    recent = read_recent_prices(ParquetLake(later.settings.data_dir))
    as_trained = PricePredictor(f"{later.settings.models_dir}/price_prediction").predict_rows(recent, level=level)
    assert printed.keys() == told(as_trained).keys() and printed != told(as_trained)
    assert (
        shell(monkeypatch, capsys, "predict", "--region", "DE", "--horizon", "60", *option)[0]["price"]
        == (printed["DE", 60][0])
    )


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("region", [None, "DE"])
def test_actions(
    later: Server, region: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    option = [] if region is None else ["--region", region]
    printed = shell(monkeypatch, capsys, "act", "--charge", "0.5", *option)
    asked = {"charge_level_mwh": 0.5} | ({} if region is None else {"region": region})
    own = to_jsonable(MLService().act(0.5, region=region))
    for other in (rest(later, "act", asked), own):
        assert {k: v for k, v in other.items() if k != "data_age_minutes"} == {
            k: v for k, v in printed.items() if k != "data_age_minutes"
        }
    assert printed["forecasts"] and printed["region"] == (region or "FR")


@pytest.mark.usefixtures("environment")
def test_batteries_plan_on_what_the_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = MLService().forecast(regions=["FR"])
    assert MLService().act(0.5, region="FR")["forecasts"] == {row["horizon"]: row["price"] for row in rows}
    monkeypatch.setenv("ENERGY_ML_BATTERY_PLAN_ON", "expected")
    assert MLService().act(0.5, region="FR")["forecasts"] == {row["horizon"]: row["expected"] for row in rows}


@pytest.mark.usefixtures("environment")
def test_refusals_have_one_wording(
    later: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, call in (
        (["predict", "--horizon", "7"], lambda: MLService().forecast(horizons=[7])),
        (["predict", "--region", "XX"], lambda: MLService().forecast(regions=["XX"])),
        (["act", "--charge", "0.5", "--region", "XX"], lambda: MLService().act(0.5, region="XX")),
        (["act", "--charge", "1.5"], lambda: MLService().act(1.5)),
    ):
        with pytest.raises(Exception) as said:
            call()
        monkeypatch.setattr("sys.argv", ["energy-ml", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        assert str(said.value) in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("ENERGY_ML_API_MAX_AGE_MINUTES", "60")
    monkeypatch.setattr("sys.argv", ["energy-ml", "predict"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "minutes old" in capsys.readouterr().err, "an operator's limit holds at each door"


LOADS = """
import sys
from energy_ml.service import MLService
service = MLService()
assert service.forecast() and service.act(0.5)["action"]
print(sorted({name.split(".")[0] for name in sys.modules} & {FORBIDDEN}))
"""


def test_answers_load_neither_server_nor_orchestrator(later: Server) -> None:
    forbidden = {"dagster", "fastapi", "starlette", "uvicorn", "celery", "vl_convert", "xgboost", "sklearn"}
    told = subprocess.run(
        [sys.executable, "-c", LOADS.replace("{FORBIDDEN}", repr(forbidden))],
        env=later.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.strip() == "[]"
