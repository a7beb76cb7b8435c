"""A job in a process of its own, for callers that may not load Dagster; run with ``python -m``.

What belongs here: running a job under a given run id, saying how it ended, closing the records of runs whose process
died. What doesn't: who asks for it and why.

SIGUSR1 cancels the job, on Dagster's record too. (SIGTERM ends it as well, but Dagster then takes that for a failure,
and failures alert people.)
"""

import datetime as dt
import json
import os
import signal
import sys
import threading

import dagster as dg

from energy_ml.artifacts import write_json
from energy_ml.errors import EnergyMLError
from energy_ml.orchestration.instance import project_instance
from energy_ml.training_window import deployment


def _run(job: str, as_of: dt.date, run_id: str, tags: dict[str, str]) -> str | None:
    """Run ``job`` for one as-of date on the configured executor; None if all went well, else what went wrong."""
    # Only here: closing a record needs none of the graph, whose loading takes seconds.
    from energy_ml.orchestration.launch import by_name, execute, what_failed

    day = deployment().check_as_of(as_of)
    with project_instance() as instance:
        signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=_cancel, args=(instance, run_id)).start())
        result = execute(by_name(job), day, instance, run_id, tags=tags, log_level="WARNING")
        return None if result.success else what_failed(result.all_events)


def _cancel(instance: dg.DagsterInstance, run_id: str) -> None:
    """Say that the interruption to come is wanted, then interrupt. In a thread: the main one may hold the record."""
    found = instance.get_run_by_id(run_id)
    if found is not None and not found.is_finished:
        instance.report_run_canceling(found)
    os.kill(os.getpid(), signal.SIGTERM)


def _main(asked: str | None = None) -> int:
    """Run what is asked for, as JSON, and write to its ``outcome`` how it ended; by default close dead runs.

    0 if all went well.
    """
    if asked is None:
        with project_instance():  # whoever looks closes them
            return 0
    given = json.loads(asked)
    error: str | None
    try:
        error = _run(given["job"], dt.date.fromisoformat(given["as_of"]), given["run_id"], given["tags"])
    except EnergyMLError as problem:
        error = str(problem)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    write_json(
        given["outcome"],
        {
            "state": "failed" if error else "completed",
            "error": error,
            "finished_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        },
    )
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
