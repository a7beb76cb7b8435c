"""With the data folder alone everything runs: what nobody set is taken from the files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from energy_ml.config import SAMPLE_START, Settings
from energy_ml.market_data.simulator import write_simulation
from energy_ml.training_window import deployment
from energy_ml_tests.orchestration.project import FIRST, Project


def made(folder: Path, interval: int, days: int, regions: int = 1) -> dict[str, str]:
    write_simulation(folder, days, regions, FIRST, interval, days_per_file=days)
    return {"ENERGY_ML_DATA_DIR": str(folder)}


@pytest.mark.parametrize(
    "interval, days, horizons, window",
    [
        (1, 3, (1, 5, 15, 60), 10),
        (5, 12, (5, 15, 60), 10),
        (15, 30, (15, 60), 10),
        (30, 30, (30, 60), 15),
        (60, 12, (60,), 10),
        (60, 80, (60,), 30),
    ],
)
def test_what_is_left_open_fits_the_files(
    tmp_path: Path, interval: int, days: int, horizons: tuple[int, ...], window: int
) -> None:
    found = deployment(made(tmp_path, interval, days))
    assert (found.start_date, found.end_date) == (FIRST, None)
    assert found.horizons == horizons
    assert found.training_window_days == window


def test_what_is_set_stays_as_set_and_the_sample_is_not_looked_at(tmp_path: Path) -> None:
    env = made(tmp_path, 60, 12) | {
        "ENERGY_ML_HORIZONS": "120",
        "ENERGY_ML_START_DATE": "2026-01-03",
        "ENERGY_ML_TRAINING_WINDOW_DAYS": "5",
    }
    assert deployment(env) == Settings.from_env(env)
    assert deployment({}) == Settings.from_env({})
    assert deployment({}).start_date == SAMPLE_START
    nothing = {"ENERGY_ML_DATA_DIR": str(tmp_path / "nothing")}
    assert deployment(nothing) == Settings.from_env(nothing)


def test_the_chosen_regions_count(tmp_path: Path) -> None:
    env = made(tmp_path / "one", 60, 12)
    write_simulation(tmp_path / "other", 2, 2, FIRST, 5, days_per_file=2)
    frame = pd.read_parquet(next((tmp_path / "other").glob("prices*")))
    frame[frame["region"] != "FR"].to_parquet(tmp_path / "one/prices_other.parquet")
    assert deployment(env | {"ENERGY_ML_REGIONS": "FR"}).horizons == (60,)


@pytest.mark.parametrize("interval, days", [(60, 14), (15, 11)])
def test_a_strangers_file_runs_from_the_first_command(tmp_path: Path, interval: int, days: int) -> None:
    project = Project.make(tmp_path / "project")
    env = made(tmp_path / "files", interval, days)
    stranger = dataclasses.replace(project, more={})
    kept = {name: value for name, value in stranger.env.items() if not name.startswith("ENERGY_ML_")}
    kept |= {"ENERGY_ML_PROJECT_ROOT": str(project.root), "ENERGY_ML_PRESET": "fast", **env}

    def run(*arguments: str) -> str:
        import subprocess

        done = subprocess.run(
            stranger.command(*arguments), cwd=project.root, env=kept, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    facts = json.loads(run("energy-ml", "data", "--json"))
    assert facts["interval_minutes"] == interval
    assert facts["holes"] is None
    assert facts["start_date"] == FIRST.isoformat()
    shown = json.loads(run("energy-ml", "retrain", "--json"))
    assert [row["horizon_minutes"] for row in shown["prices"]] == facts["horizons"]
    assert run("energy-ml", "report").strip().endswith("report.html")
