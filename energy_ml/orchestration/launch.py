"""Starting jobs from Python: the same job that the UI, the schedule and the sensor run.

What belongs here: running a job in this process. What doesn't: printing.
"""

import dataclasses
import datetime as dt
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from energy_ml import __version__
from energy_ml.config import Settings, project_root
from energy_ml.errors import EnergyMLError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import METRICS_FILE, RETRAIN
from energy_ml.orchestration.alerts import error_of
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.instance import how_to_look, project_instance
from energy_ml.orchestration.jobs import REFRESH_LEADERBOARD
from energy_ml.orchestration.private import (
    SINGLETON_REPOSITORY_NAME,
    InMemoryJob,
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    ReconstructableJob,
    ReconstructableRepository,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
    execute_run_iterator,
)
from energy_ml.orchestration.run_lock import hold, let_go
from energy_ml.orchestration.triggers import data_version, taken
from energy_ml.provenance import config_digest
from energy_ml.results import ResultsStore
from energy_ml.training_window import deployment, lake_of
from energy_ml.training_window import newest_as_of as newest_as_of  # who starts a run asks for its day here

MODULE = "energy_ml.definitions"
"""Where the definitions are; Dagster's name of the code location too (``workspace.yaml``)."""
_BACKFILL_TAG = "energy_ml/backfill"
"""Tag of a run: the days of the backfill that it is part of."""
_STATES = {
    dg.DagsterEventType.STEP_START: "running",
    dg.DagsterEventType.STEP_SUCCESS: "completed",
    dg.DagsterEventType.STEP_FAILURE: "failed",
}


@dataclass(frozen=True)
class Ran:
    """How a run went: its events, and whether all went well."""

    success: bool
    all_events: list[dg.DagsterEvent]


_StepTold = Callable[[str, str], None]
"""Called with a step's name and ``running``, ``completed`` or ``failed``, in the thread that runs the job."""


def run_job(as_of: dt.date, *, run_id: str | None = None, told: _StepTold | None = None) -> Ran:
    """Retrain for one as-of date on the configured executor, by default in this process, on the project's record.

    Doesn't raise when the run fails: see ``success`` and ``all_events`` of the result. ``told`` hears of each step.
    Raises KeyboardInterrupt when interrupted; the run is then on record as canceled.
    """
    settings, run_id = deployment(), run_id or str(uuid.uuid4())
    with project_instance() as instance:
        own = settings.executor == "in_process"
        definitions = build_definitions(settings)
        found = InMemoryJob(definitions.resolve_job_def(RETRAIN)) if own else by_name(RETRAIN)
        ran = execute(found, as_of, instance, run_id, told=told, by_hand=True)
        if ran.success:
            _refresh_leaderboard(definitions, instance)
        return ran


def by_name(job: str) -> ReconstructableJob:
    """``job`` for executors whose processes load the definitions by name."""
    return ReconstructableRepository.for_module(MODULE, "defs", str(project_root())).get_reconstructable_job(job)


@dataclass(frozen=True)
class DayRun:
    """How one day of a backfill went; ``error`` says in words why it failed."""

    as_of: dt.date
    run_id: str
    seconds: float
    error: str | None


def backfill(
    first: dt.date,
    last: dt.date,
    *,
    only_missing: bool = False,
    progress: Callable[[DayRun], None] | None = None,
) -> list[DayRun]:
    """Retrain for every as-of date from ``first`` to ``last``, oldest first, one run each, in this process.

    Definitions are loaded once. A day that fails doesn't stop the others. With ``only_missing``, days that have results
    of their present data, settings and version are left out. ``progress`` is called after each day; at the end the
    leaderboard is made anew.

    Raises ConfigError for days that aren't partitions, KeyboardInterrupt when interrupted.
    """
    settings = dataclasses.replace(deployment(), executor="in_process")
    days = settings.as_of_range(first, last)
    definitions = build_definitions(settings)
    definition, runs = InMemoryJob(definitions.resolve_job_def(RETRAIN)), []
    lake = lake_of(settings)
    with project_instance() as instance:
        for as_of in days:
            if only_missing and _has_results(settings, lake, instance, as_of):
                continue
            began, run_id = time.monotonic(), str(uuid.uuid4())
            tags = {_BACKFILL_TAG: f"{first}..{last}"}
            result = execute(definition, as_of, instance, run_id, tags=tags, by_hand=True)
            error = None if result.success else what_failed(result.all_events)
            runs.append(DayRun(as_of, run_id, time.monotonic() - began, error))
            if progress is not None:
                progress(runs[-1])
        if any(run.error is None for run in runs):
            _refresh_leaderboard(definitions, instance)
    return runs


def _refresh_leaderboard(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    execute(InMemoryJob(definitions.resolve_job_def(REFRESH_LEADERBOARD)), None, instance, str(uuid.uuid4()))


def what_failed(events: Sequence[dg.DagsterEvent]) -> str:
    """In words, why a run failed: its failed steps and failed blocking checks, or what kept it from having any."""
    steps, checks = [], []
    for event in events:
        if why := error_of(event):
            steps.append(f"{event.step_key}: {why}" if event.is_step_failure else why)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
                checks.append(
                    (f"check {check.check_name} of {check.asset_key.to_user_string()} failed", check.description)
                )
    # A step that fails because of its check mostly says the same as the check.
    told = [f"{text}: {why}" if why else text for text, why in checks if not why or not any(why in s for s in steps)]
    return "; ".join(dict.fromkeys([*steps, *told])) or f"the run failed; see it in the UI ({how_to_look()})"


def _has_results(settings: Settings, lake: ParquetLake, instance: dg.DagsterInstance, as_of: dt.date) -> bool:
    """Whether the day's results are of its present data, these settings and this version of the package."""
    try:
        made = ResultsStore(settings.results_dir).read(as_of, METRICS_FILE)["provenance"]
        same = (made["config_digest"], made["energy_ml"]) == (config_digest(settings.ml_config()), __version__)
        return same and taken(instance, settings, as_of, data_version(settings, lake, as_of)) is not None
    except (EnergyMLError, KeyError, TypeError):
        return False


def execute(
    job: InMemoryJob | ReconstructableJob,
    as_of: dt.date | None,
    instance: dg.DagsterInstance,
    run_id: str,
    *,
    tags: Mapping[str, str] | None = None,
    log_level: str = "CRITICAL",
    told: _StepTold | None = None,
    by_hand: bool = False,
) -> Ran:
    """Run a job on record; ``by_hand``: an interruption is a wish, on record as a cancellation, and raised at the end.

    Doesn't raise when the run fails.
    """
    definition = job.get_definition()
    day = {} if as_of is None else definition.get_tags_for_partition_key(as_of.isoformat(), selected_asset_keys=None)
    hold(instance, run_id)
    try:
        run = instance.create_run_for_job(
            job_def=definition,
            run_id=run_id,
            run_config={"loggers": {"console": {"config": {"log_level": log_level}}}},
            tags={**definition.run_tags, **day, **(tags or {})},
            job_code_origin=None if isinstance(job, InMemoryJob) else job.get_python_origin(),
            remote_job_origin=_home(definition.name),
        )
        events, interrupted = [], False
        for event in execute_run_iterator(job, run, instance):
            events.append(event)
            if by_hand and not interrupted and _is_interruption(event):
                interrupted = True
                if event.is_step_failure:  # the run ends after its step, by what the record then says
                    instance.report_run_canceling(run)
            if told is not None and not interrupted and event.step_key is not None and event.event_type in _STATES:
                told(event.step_key, _STATES[event.event_type])
        if interrupted:
            raise KeyboardInterrupt
        ended = instance.get_run_by_id(run_id)
        return Ran(ended is not None and ended.is_success, events)
    finally:
        let_go(run_id)


def _is_interruption(event: dg.DagsterEvent) -> bool:
    error = getattr(event.event_specific_data, "error", None)
    return error is not None and error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


def _home(job: str) -> RemoteJobOrigin:
    """Where the UI finds the job of a run: without it, it can't execute a run again that it hasn't started itself."""
    target = LoadableTargetOrigin(module_name=MODULE, working_directory=str(project_root()))
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name=MODULE)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job)
