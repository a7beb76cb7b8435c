"""From an empty folder to a forecast by commands alone: prices and day-ahead prices of a market, fetched and used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from energy_ml import cli
from energy_ml_tests.markets.sources import nyiso

SETTINGS = """
[[covariate]]
name = "day_ahead_price"
known = "ahead"
is_price = true
keep = true
"""


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """``energy-ml …`` in an empty folder with a loopback server for a market: what it prints."""
    (tmp_path / "energy_ml.toml").write_text(SETTINGS)
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "file", None)
    with nyiso().running() as source:
        settings = {
            "PROJECT_ROOT": str(tmp_path),
            "DATA_DIR": str(tmp_path / "lake"),
            "MARKET_MIRROR": source.url,
            "REGIONS": "WEST",
            "HORIZONS": "60",
            "PRESET": "fast",
            "PRICES_N_ESTIMATORS": "20",
            "TRAINING_WINDOW_DAYS": "3",
            "HISTORY_DAYS": "0",
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"ENERGY_ML_{name}", value)

        def call(*arguments: str) -> str:
            monkeypatch.setattr("sys.argv", ["energy-ml", *arguments])
            try:
                cli.main()
            except SystemExit as leaving:
                assert not leaving.code, f"{arguments}\n{capsys.readouterr()}"
            return capsys.readouterr().out

        yield call


def test_fetch_retrain_report_predict_export(run: Callable[..., str], tmp_path: Path) -> None:
    made = json.loads(run("fetch", "nyiso", "--from", "2026-01-06", "--to", "2026-01-08", "--json"))
    assert [(day["of"], day["rows"], day["missing"]) for day in made] == [
        *[("prices", 288, 0)] * 3,
        *[("day_ahead", 24, 0)] * 4,
    ], "what the settings name comes unasked"
    run("retrain")
    report = Path(run("report").strip())
    assert report == tmp_path / "results/2026-01-08/report.html" and "day_ahead_price</td>" in report.read_text()
    (forecast,) = json.loads(run("predict", "--region", "WEST", "--horizon", "60", "--json"))
    assert forecast["left_out"] == {} and forecast["lower"] < forecast["price"] < forecast["upper"]
    (tmp_path / "out").mkdir()
    written = run("models", "export", "price_prediction_60m", "--format", "xgboost-json", "--to", str(tmp_path / "out"))
    assert [Path(line).is_file() for line in written.splitlines()].count(True) == len(written.splitlines()) > 2
