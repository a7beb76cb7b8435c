"""More than one machine, on one: every step on a real Celery worker, history in PostgreSQL, tasks through Redis."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from energy_ml.progress import open_progress, recent_runs
from energy_ml_tests.orchestration.project import SOURCE, Project
from energy_ml_tests.orchestration.servers import missing, postgres, process, redis

pytestmark = pytest.mark.servers

HISTORY = """
import json, time
import dagster as dg
until = time.monotonic() + 300
with dg.DagsterInstance.get() as instance:
    while True:
        (run,) = (run for run in instance.get_runs() if run.job_name != "refresh_leaderboard")
        if run.is_finished or time.monotonic() > until:
            break
        time.sleep(0.5)
    events = instance.all_logs(run.run_id)
    workers = {e.step_key for e in events if e.dagster_event and "celery worker" in (e.dagster_event.message or "")}
    steps = {e.step_key for e in events if e.dagster_event and e.dagster_event.is_step_success}
    print(json.dumps({"status": run.status.value, "tags": run.tags, "storage": type(instance.run_storage).__name__,
                      "on_workers": sorted(workers), "steps": sorted(steps)}))
"""


WORKER = [
    sys.executable, "-c", "from dagster_celery.cli import main; main()", "worker", "start",
    "-A", "dagster_celery.app", "-y", str(SOURCE / "deploy/celery.yaml"), "--", "--concurrency", "1",
]  # fmt: skip
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_a_backfills_runs_each_whole_on_a_worker(tmp_path: Path) -> None:
    """The launcher as the page on scaling out has it."""
    pytest.importorskip("dagster_celery", reason="pip install 'energy_ml[celery]'")
    (launcher,) = re.findall(r"```yaml\n(run_launcher:\n.+?)```", (SOURCE / "docs/scale.md").read_text(), re.DOTALL)
    home = tmp_path / "home"
    home.mkdir()
    at_once = "run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}\n"
    (home / "dagster.yaml").write_text(f"{launcher}{at_once}telemetry: {{enabled: false}}\n")
    with redis(tmp_path / "redis") as queue:
        project = Project.make(tmp_path / "project", CELERY_BROKER=f"{queue}/0", CELERY_BACKEND=f"{queue}/1")
        env = {**project.env, "DAGSTER_HOME": str(home), "PATH": PATH}
        log = tmp_path / "worker.log"
        backfill = ["backfill", "-j", "train_price_prediction", "--partitions", "2026-01-06", "--noprompt"]
        asked = project.command("dagster", "job", *backfill, "-w", "workspace.yaml")
        done = subprocess.run(asked, env=env, cwd=project.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        with log.open("wb") as out, process(WORKER, env=env, cwd=project.root, stdout=out, stderr=out):
            told = subprocess.run([sys.executable, "-c", HISTORY], env=env, capture_output=True, text=True, check=True)
        history = json.loads(told.stdout)
        assert history["status"] == "SUCCESS", log.read_text()[-3000:]
    assert history["tags"]["dagster-celery/task_id"] in log.read_text()
    assert not history["on_workers"] and len(history["steps"]) >= 6, "the run is one task, its steps are none"
    assert project.store.exists("2026-01-06", "evaluation/price_evaluation.json")


def test_the_whole_retrain_on_a_worker_with_history_in_postgres(tmp_path: Path) -> None:
    try:
        import dagster_celery
        import dagster_postgres
        import redis as client

        assert dagster_celery and dagster_postgres and client
    except ImportError as error:
        missing(f"{error}: pip install 'energy_ml[celery,postgres]'")
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((SOURCE / "deploy/dagster.postgres.yaml").read_text())
    with postgres(tmp_path / "postgres") as database, redis(tmp_path / "redis") as queue:
        project = Project.make(
            tmp_path / "project",
            EXECUTOR="celery",
            CELERY_BROKER=f"{queue}/0",
            CELERY_BACKEND=f"{queue}/1",
            POSTGRES_URL=database,
        )
        env = {**project.env, "DAGSTER_HOME": str(home)}
        with (tmp_path / "worker.log").open("wb") as log, process(
            WORKER, env={**env, "PATH": PATH}, cwd=project.root, stdout=log, stderr=log,
        ):  # fmt: skip
            done = subprocess.run(
                project.command("energy-ml", "retrain", "--date", "2026-01-06", "--json"),
                env=env, cwd=project.root, capture_output=True, text=True, check=False, timeout=600,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:] + (tmp_path / "worker.log").read_text()[-3000:]
        (run_id,) = recent_runs(f"{queue}/0", 600)
        progress = {name: event.state for name, event in open_progress(f"{queue}/0", run_id).latest().items()}
        told = subprocess.run([sys.executable, "-c", HISTORY], env=env, capture_output=True, text=True, check=True)
    history = json.loads(told.stdout)
    assert history["status"] == "SUCCESS" and history["storage"] == "PostgresRunStorage"
    assert history["tags"]["dagster/partition"] == "2026-01-06"
    assert history["steps"] == history["on_workers"] and len(history["steps"]) == 11
    assert "battery_policy" in progress and len(progress) > 1 and set(progress.values()) == {"completed"}
    assert not (project.root / "results/.progress").exists(), "workers elsewhere share no such folder"
    assert project.store.exists("2026-01-06", "report.html")
