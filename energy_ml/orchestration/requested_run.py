"""A job in a process of its own, for callers that may not load Dagster; run with ``python -m``.

What belongs here: running a job under a given run id, saying how it ended, closing the record of a run whose process
died. What doesn't: who asks for it and why.
"""

import argparse
import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run

from energy_ml.config import Settings, project_root
from energy_ml.errors import EnergyMLError
from energy_ml.model_management.persistence import write_json
from energy_ml.orchestration.launch import check_as_of, project_instance

QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def run(job: str, as_of: dt.date, run_id: str, tags: dict[str, str]) -> str | None:
    """Run ``job`` for one as-of date on the configured executor; None if all went well, else what went wrong."""
    day = check_as_of(Settings.from_env(), as_of).isoformat()
    repository = ReconstructableRepository.for_module("energy_ml.definitions", "defs", str(project_root()))
    reconstructable = repository.get_reconstructable_job(job)
    definition = reconstructable.get_definition()
    with project_instance() as instance:
        made = instance.create_run_for_job(
            job_def=definition,
            run_id=run_id,
            run_config=QUIET,
            tags={**definition.get_tags_for_partition_key(day, selected_asset_keys=None), **tags},
            job_code_origin=reconstructable.get_python_origin(),
        )
        result = execute_run(reconstructable, made, instance, raise_on_error=False)
        return None if result.success else _what_failed(result.all_events)


def close(run_id: str, state: str, message: str) -> None:
    """Put a run whose process is gone on record as failed or canceled, so that the UI doesn't show it as running."""
    with project_instance() as instance:
        found = instance.get_run_by_id(run_id)
        if found is None or found.is_finished:
            return
        if state == "canceled":
            instance.report_run_canceled(found, message)
        else:
            instance.report_run_failed(found, message)


def _what_failed(events: Any) -> str:
    words = []
    for event in events:
        if event.is_step_failure:
            data = event.step_failure_data
            said = data.user_failure_data.description if data.user_failure_data else None
            words.append(said or data.error_display_string.strip().splitlines()[0])
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
                told = f": {check.description}" if check.description else ""
                words.append(f"check {check.check_name} of {check.asset_key.to_user_string()} failed{told}")
    return "; ".join(dict.fromkeys(words)) or "the run failed; see it in the UI (dagster dev)"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 if the run succeeded or was closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("run")
    starting.add_argument("--job", required=True)
    starting.add_argument("--as-of", required=True, type=dt.date.fromisoformat)
    starting.add_argument("--run-id", required=True)
    starting.add_argument("--outcome", required=True, type=Path, help="file that gets {state, error} at the end")
    starting.add_argument("--tags", type=json.loads, default={})
    closing = commands.add_parser("close")
    closing.add_argument("--run-id", required=True)
    closing.add_argument("--state", required=True, choices=["failed", "canceled"])
    closing.add_argument("--message", default="the process of the run is gone")
    given = parser.parse_args(arguments)
    if given.command == "close":
        close(given.run_id, given.state, given.message)
        return 0
    error: str | None
    try:
        error = run(given.job, given.as_of, given.run_id, given.tags)
    except EnergyMLError as problem:
        error = str(problem)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    write_json(
        given.outcome,
        {
            "state": "failed" if error else "completed",
            "error": error,
            "finished_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        },
    )
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
