"""Runs that are killed stop nobody: not the shell's, not those whose code server dies with them, at whatever step."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import dagster as dg
import filelock
import pytest

from energy_ml.names import RETRAIN
from energy_ml.orchestration.run_lock import close_dead
from energy_ml_tests.orchestration.project import DAYS, Project
from energy_ml_tests.orchestration.system import System, running

pytestmark = pytest.mark.servers

DAY = str(Project.day(DAYS))
PUBLISHING = "model_management__registry_entry"
SOON = 30.0
ENGINE = dg.DagsterEventType.ENGINE_EVENT
LAUNCH = """mutation ($job: String!, $tags: [ExecutionTag!]) { launchRun(executionParams: {
  selector: {repositoryName: "__repository__", repositoryLocationName: "energy_ml.definitions", jobName: $job}
  runConfigData: {}, executionMetadata: {tags: $tags}}) { __typename ... on LaunchRunSuccess { run { runId } } } }"""


def launch(system: System, job: str, **tags: str) -> str:
    """Ask for a run as the UI does; its id."""
    asked: dict[str, Any] = {"job": job, "tags": [{"key": key, "value": value} for key, value in tags.items()]}
    body = json.dumps({"query": LAUNCH, "variables": asked}).encode()
    request = urllib.request.Request(f"{system.url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["data"]["launchRun"]["run"]["runId"])


def status(system: System, run_id: str) -> str:
    run = system.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def started(system: System, run_id: str, step: str) -> bool:
    """Whether a run has begun a step."""
    events = system.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    return any(event.dagster_event and event.dagster_event.step_key == step for event in events)


def kill_shell(system: System, until: str | None) -> str:
    """Start ``energy-ml retrain`` and kill it when its run has started, or is inside of a step; the run's id."""
    known = {run.run_id for run in system.runs(DAY)}
    process = system.project.start("energy-ml", "retrain", "--date", DAY)

    def there() -> bool:
        assert process.poll() is None, "it ended by itself"
        new = [run for run in system.runs(DAY) if run.run_id not in known and run.status.value == "STARTED"]
        return bool(new) and (until is None or started(system, new[0].run_id, until))

    system.until("the run is where it is to be killed", there)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return system.runs(DAY)[0].run_id


def test_a_killed_run_with_a_process_per_step_is_closed(tmp_path: Path) -> None:
    """Dagster's own command, whose processes nobody else watches: 10 s."""
    project = Project.make(tmp_path, EXECUTOR="multiprocess")
    step = ("--select", "features/price_features", "--partition", DAY)
    process = project.start("dagster", "asset", "materialize", "-m", "energy_ml.definitions", *step)
    with contextlib.chdir(tmp_path), dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        while not (runs := [r for r in instance.get_runs() if instance.all_logs(r.run_id, of_type=ENGINE)]):
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.1)
        close_dead(instance)
        assert instance.get_runs()[0].status.value == "STARTED", "it lives"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        close_dead(instance)
        ended = instance.get_run_by_id(runs[0].run_id)
        assert ended is not None and ended.status.value == "FAILURE"


def test_killed_runs_are_closed_and_the_queue_goes_on(tmp_path: Path) -> None:
    """All the servers are needed: 40 s."""
    with running(Project.make(tmp_path, HORIZONS="60")) as system:
        registry = system.project.root / "models/registry.json.lock"
        registry.parent.mkdir()
        with filelock.FileLock(registry):  # nothing gets through the publishing step meanwhile
            dead = [kill_shell(system, None), kill_shell(system, PUBLISHING)]
        lost = launch(system, RETRAIN, **{"dagster/partition": DAY})
        system.until("the queued run has begun", lambda: status(system, lost) not in ("QUEUED", "NOT_STARTED"), SOON)
        assert [status(system, run) for run in dead] == ["FAILURE", "FAILURE"]
        for run in dead:
            (event,) = system.instance.all_logs(run, of_type=dg.DagsterEventType.RUN_FAILURE)
            assert "process is gone" in str(event.dagster_event and event.dagster_event.message)
        system.until("its first step", lambda: started(system, lost, "features__price_features"))
        said = system.instance.all_logs(lost, of_type=ENGINE)
        pid = next(
            event.dagster_event.event_specific_data.metadata["pid"].value
            for event in said
            if event.dagster_event and "Executing steps in process" in (event.dagster_event.message or "")
        )
        os.killpg(os.getpgid(int(pid)), signal.SIGKILL)  # with the code server, as when the machine goes down
        system.until("the lost run is closed", lambda: status(system, lost) == "FAILURE", SOON)
        told = system.log.read_text()
        assert "Launched 1 runs" in told and "won't launch more" not in told, "no line a second while a run is at work"
