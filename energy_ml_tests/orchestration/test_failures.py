"""Things that break, broken for real: a full disk, results that can't be written, a damaged champion; and a retry.

The tests of this file follow the last day of the shared project, in the order of the file.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from energy_ml import cli
from energy_ml.errors import EnergyMLError, IntervalError
from energy_ml.model_management import ModelRegistry
from energy_ml.names import METRICS_FILE, POLICY_ID
from energy_ml.orchestration.instance import how_to_look, record_home
from energy_ml.orchestration.launch import project_instance, run_job, what_failed
from energy_ml.service import MLService
from energy_ml_tests.orchestration.project import DAYS, Project
from energy_ml_tests.test_artifacts import Bomb

DAY = Project.day(DAYS)
REGISTRY_STEP = "model_management__registry_entry"


@pytest.fixture
def full_disk(inside: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Files that are written below ``models`` reach a device that is full: the kernel itself says so."""
    models, system_open = inside.root / "models", os.open

    def open_(path: str | Path, flags: int, *more: int, **named: int) -> int:
        if str(path).endswith(".tmp") and Path(path).is_relative_to(models):
            return system_open("/dev/full", os.O_WRONLY)
        return system_open(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", open_)
    yield models
    monkeypatch.undo()


def _half_written(project: Project) -> list[Path]:
    return [path for folder in ("models", "results") for path in (project.root / folder).rglob("*.tmp")]


def test_results_that_cannot_be_written_are_one_readable_line(inside: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may write below /sys, not even root, whom permissions don't stop."""
    champions = inside.champions()
    Project(inside.root, {"RESULTS_DIR": "/sys/energy_ml_results"}).enter(monkeypatch)
    result = run_job(DAY)
    assert not result.success
    line = what_failed(result.all_events)
    assert line.startswith("features__price_features: ArtifactError: /sys/energy_ml_results") and "\n" not in line
    assert "can't be written" in line and "ENERGY_ML_RESULTS_DIR" in line
    inside.assert_champions_serve(champions)


def test_a_models_folder_that_cannot_be_written_is_one_readable_line(
    inside: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends before its first step, which can't take the lock of the day."""
    Project(inside.root, {"MODELS_DIR": "/sys/energy_ml_models"}).enter(monkeypatch)
    line = what_failed(run_job(DAY).all_events)
    assert line.startswith("ArtifactError: /sys/energy_ml_models") and "\n" not in line
    assert "can't be written" in line and "ENERGY_ML_MODELS_DIR" in line


def test_a_full_disk_is_one_readable_line_and_champions_go_on(inside: Project, full_disk: Path) -> None:
    champions = inside.champions()
    result = run_job(DAY)
    assert [e.step_key for e in result.all_events if e.is_step_failure] == [REGISTRY_STEP]
    line = what_failed(result.all_events)
    assert line.startswith(f"{REGISTRY_STEP}: ArtifactError: {full_disk}") and "\n" not in line
    assert "No space left on device" in line and "nothing needs cleaning up" in line
    inside.assert_champions_serve(champions)
    assert not _half_written(inside)


def test_a_damaged_record_of_runs_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.make(tmp_path)
    project.enter(monkeypatch)
    database = tmp_path / ".dagster/storage/history/runs.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(EnergyMLError, match="record of runs can't be read or written: file is not a database"):
        run_job(DAY)


def test_a_retry_from_failure_succeeds_though_a_champion_was_damaged_meanwhile(inside: Project) -> None:
    models, served = inside.root / "models", "rl_battery/battery_policy.pkl"
    champion = ModelRegistry(models / "registry.json").champion(POLICY_ID)
    assert champion is not None
    for path in (models / served, models / champion["filepath"]):
        path.write_bytes(path.read_bytes()[:1000])
    job = ReconstructableRepository.for_module("energy_ml.definitions", "defs", str(inside.root))
    with project_instance() as instance:
        failed = instance.get_runs(
            dg.RunsFilter(tags={"dagster/partition": str(DAY)}, statuses=[dg.DagsterRunStatus.FAILURE]), limit=1
        )
        home = failed[0].remote_job_origin
        assert home is not None, "the UI knows where to find the job of a run that it hasn't started"
        assert (home.location_name, home.repository_origin.repository_name) == (
            "energy_ml.definitions",
            "__repository__",
        )
        with dg.execute_job(
            job.get_reconstructable_job("retrain"),
            instance,
            tags=failed[0].tags,
            reexecution_options=dg.ReexecutionOptions.from_failure(failed[0].run_id, instance),
        ) as result:
            assert result.success, what_failed(result.all_events)
            done = {e.step_key for e in result.all_events if e.is_step_success}
    assert done == {REGISTRY_STEP, "evaluation__report"}, "what had succeeded isn't done again"
    decision = inside.store.read(DAY, "model_management/decisions.json")["battery_policy"]
    assert decision["promote"] and "can't be scored" in decision["reason"], decision["reason"]
    inside.assert_champions_serve(inside.champions())
    assert inside.champions()["battery_policy"] == decision["version"]
    (problem,) = inside.registry.verify()
    assert champion["version"] in problem, "the damaged version is named, and nothing else"
    assert not _half_written(inside)


@pytest.mark.parametrize("swap", ["bomb", "another model"])
@pytest.mark.parametrize(
    ("name", "step"),
    [("price_prediction/model_30min.pkl", "model_management/registry_entry"),
     ("rl_battery/battery_policy.pkl", "evaluation/report")],
)  # fmt: skip
def test_a_model_that_was_exchanged_among_the_results_is_neither_run_nor_registered(
    inside: Project, tmp_path: Path, name: str, step: str, swap: str
) -> None:
    """Results may lie in a bucket that others can write to."""
    path, crater = inside.root / "results" / str(DAY) / name, tmp_path / "crater"
    whole, had = path.read_bytes(), inside.registry.history()
    bomb = pickle.dumps(Bomb(crater))
    path.write_bytes(bomb if swap == "bomb" else (inside.root / "results/2026-01-06" / name).read_bytes())
    try:
        job = ReconstructableRepository.for_module("energy_ml.definitions", "defs", str(inside.root))
        with (
            project_instance() as instance,
            dg.execute_job(
                job.get_reconstructable_job("retrain"),
                instance,
                tags={"dagster/partition": str(DAY)},
                asset_selection=[dg.AssetKey(step.split("/"))],
            ) as result,
        ):
            line = what_failed(result.all_events)
    finally:
        path.write_bytes(whole)
    assert not result.success and f"{name} has SHA-256" in line and "was not loaded" in line and "on record" in line
    assert not crater.exists() and inside.registry.history() == had
    pickle.loads(bomb)
    assert crater.exists(), "the bomb is a real one"


def test_a_night_after_half_hours_became_hours(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't serve the new interval refuses in words, is retired by the next night, and holds up nobody else."""
    hourly = Project.make(tmp_path / "hourly", HORIZONS="60,120")
    shutil.copytree(project.root / "models", hourly.root / "models")
    for path in (hourly.root / "data/processed").glob("*price*"):
        frame = pd.read_parquet(path)
        frame[pd.DatetimeIndex(frame["timestamp"]).minute == 0].to_parquet(path, index=False)
    hourly.enter(monkeypatch)
    service = MLService()
    with pytest.raises(IntervalError, match="every 60 minutes"):
        service.forecast()
    with pytest.raises(IntervalError, match=r"every 60 minutes.*every 30 minutes, as battery_policy"):
        service.act(0.5)

    result = run_job(DAY)
    assert result.success, what_failed(result.all_events)
    why = f"trained on prices every 30 minutes; on {DAY} they come every 60"
    decisions = hourly.store.read(DAY, "model_management/decisions.json")
    assert decisions["price_prediction_30m"]["reason"] == f"retired: {why}"
    assert any(why in line for line in hourly.store.read(DAY, METRICS_FILE)["decisions"])
    assert hourly.registry.history("price_prediction_30m")[-1]["event"] == "retired"
    for model_id, version in hourly.champions().items():
        assert version is None or hourly.registry.load(model_id).interval_minutes == 60, model_id

    # Somebody brings it back: the others answer all the same, and say why it doesn't.
    for model_id in ("price_prediction_60m", "battery_policy"):
        hourly.registry.promote(model_id, decisions[model_id]["version"], reason="test", who="test")
    hourly.registry.rollback("price_prediction_30m", reason="test", who="test")
    rows = MLService().forecast()
    assert {row["horizon"] for row in rows} in ({60}, {60, 120}), "without the champion of half-hours"
    assert set(rows[0]["left_out"]) == {"price_prediction_30m"}
    action = MLService().act(0.5)
    assert 60 in action["forecasts"] and "price_prediction_30m can't serve" in action["forecast_source"]
    monkeypatch.setattr(cli.out, "file", None)
    monkeypatch.setattr("sys.argv", ["energy-ml", "predict"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert "price_prediction_30m can't serve" in capsys.readouterr().out


def test_a_record_of_runs_is_kept_where_the_project_can_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed as a package there is no ``dagster.yaml``: the record must outlive the process, and be found again."""
    root = tmp_path / "some where ü"
    root.mkdir()
    for name, value in {"ENERGY_ML_PROJECT_ROOT": str(root), "XDG_STATE_HOME": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with project_instance() as instance:
        run_id = instance.create_run_for_job(_job).run_id
    assert not list(root.iterdir())
    home = record_home()
    assert home is not None and home.is_relative_to(tmp_path / "state")
    assert how_to_look() == f"DAGSTER_HOME={home} dagster dev"
    with project_instance() as instance:
        assert instance.get_run_by_id(run_id) is not None
    (root / "dagster.yaml").write_text("")
    assert record_home() is None and how_to_look() == "dagster dev"


@dg.job(name="retrain")
def _job() -> None: ...
