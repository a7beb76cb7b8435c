"""Which runs are alive: the process of a run holds a lock of the operating system, which ends with it, killed or not.

What belongs here: holding it, and closing the record of runs whose process is gone, so that no queue waits for them.
What doesn't: one run at a time per as-of date (``day_lock``).

Locks lie beside the record of runs on this machine's disk; runs of other machines have none here and are left alone.
"""

from pathlib import Path

import dagster as dg
import filelock

from energy_ml.orchestration.private import CheckRunHealthResult, WorkerStatus

_UNFINISHED = [dg.DagsterRunStatus[name] for name in ("NOT_STARTED", "STARTING", "STARTED", "CANCELING")]
_GONE = "The run's process is gone: it was killed, or its machine went down. Nothing half-written is left."
_HELD: dict[str, filelock.BaseFileLock] = {}


def hold(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tie a run to the life of this process, if it isn't yet."""
    if run_id not in _HELD and not instance.is_ephemeral:
        path = _path(instance, run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        _HELD[run_id] = filelock.FileLock(path)
        _HELD[run_id].acquire()
        path.with_suffix(".held").touch()  # only now does a free lock mean that its holder is gone


def let_go(run_id: str) -> None:
    """The run is over for this process, whatever its record says."""
    if run_id in _HELD:
        _HELD.pop(run_id).release()


def close_dead(instance: dg.DagsterInstance) -> None:
    """Put every run whose process is gone on record as failed, or as canceled where somebody had asked for that."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        _closed(instance, run.run_id)


class RunLauncher(dg.DefaultRunLauncher):
    """Dagster's own, which starts runs in the code server; its daemon's look at runs closes dead ones, as ours does."""

    supports_check_run_worker_health = True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run that has started is there."""
        dead = _closed(self._instance, run.run_id)
        return CheckRunHealthResult(WorkerStatus.FAILED, _GONE) if dead else CheckRunHealthResult(WorkerStatus.RUNNING)


def _path(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.storage_directory()) / "run_locks" / f"{run_id}.lock"


def _closed(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Close the record of a run if its process is gone, and say whether."""
    path = _path(instance, run_id)
    if not path.with_suffix(".held").exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0):  # of several who look, one closes
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                return False
            canceling = run.status is dg.DagsterRunStatus.CANCELING
            (instance.report_run_canceled if canceling else instance.report_run_failed)(run, _GONE)
            return True
    except filelock.Timeout:
        return False
