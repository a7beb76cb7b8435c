"""A step of the day as a Dagster asset: its outputs declared, its inputs loaded, its facts shown, its checks recorded.

What belongs here: turning ``Made`` into what Dagster records, the same way for every step. What doesn't: which steps
there are (``assets``), and what they do (``energy_ml.day``).
Concept: https://docs.dagster.io/guides/build/assets/defining-assets
"""

import datetime as dt
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandas as pd

from energy_ml import __version__
from energy_ml.checks import Check
from energy_ml.config import Settings
from energy_ml.day import Made, Night
from energy_ml.display import showing
from energy_ml.errors import ConfigError, DataError, EnergyMLError
from energy_ml.model_management.registry import registry_of
from energy_ml.names import TIMESTAMP
from energy_ml.orchestration.io_managers import FILE, Reader, keep, recorded_digest
from energy_ml.orchestration.metadata import columns_of, to_metadata
from energy_ml.orchestration.partitions import as_of_days, trailing_window
from energy_ml.orchestration.shell import backfill_policy
from energy_ml.parts import Parts
from energy_ml.progress import open_progress, progress_place
from energy_ml.results import ResultsStore
from energy_ml.training_window import lake_of

OWNERS = {
    "raw": "team:market-data",
    "features": "team:forecasting",
    "price_prediction": "team:forecasting",
    "rl_battery": "team:storage",
    "evaluation": "team:evaluation",
    "model_management": "team:operations",
}
"""Of the assets of each group."""
ROLE = "energy_ml/role"
"""Tag of every asset: ``input``, a step's ``result``, what it leaves ``beside`` it, or an ``overview`` of all days."""


@dataclass(frozen=True)
class Step:
    """One asset of the day.

    ``key`` names its main output, ``file`` where that lies. The function's arguments are outputs of other steps by
    their names, or as ``inputs`` say; ``after`` are steps that must have run, ``raw`` the external asset whose trailing
    window is read. ``beside`` are its further outputs: the name in ``Made.files`` to key and file. ``checks`` map a
    name to its description; those of ``must_pass`` stop what comes after, others warn unless the settings say
    otherwise. ``gate`` is the check that fails when the data is refused; ``told_as`` the model whose progress ends when
    training fails; ``share`` about how much of a night's time it takes beside the others.
    """

    key: str
    file: str
    run: Callable[..., Made]
    kinds: set[str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    raw: dg.AssetKey | None = None
    beside: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)
    must_pass: frozenset[str] = frozenset()
    gate: str | None = None
    told_as: str | None = None
    share: float = 1.0
    description: str | None = None
    freshness: dg.FreshnessPolicy | None = None

    @property
    def group(self) -> str:
        """Whose asset it is."""
        return self.key.split("/")[0]

    @property
    def name(self) -> str:
        """What Dagster calls the step."""
        return self.key.replace("/", "__")

    @property
    def outputs(self) -> dict[str, tuple[str, str]]:
        """Name of each output to its key and file; the main one is called ``result``."""
        return {"result": (self.key, self.file), **self.beside}


def key_of(path: str) -> dg.AssetKey:
    """``group/name`` as an asset key."""
    return dg.AssetKey(path.split("/"))


def asset_of(settings: Settings, step: Step, turn: int = 0) -> dg.AssetsDefinition:
    """The asset of ``step``: one computation, each file that it leaves an output of its own.

    Of steps that could begin, the one with the lowest ``turn`` does.
    """
    deps: list[dg.AssetDep | dg.AssetKey] = [key_of(path) for path in step.after]
    if step.raw is not None:
        deps.append(dg.AssetDep(step.raw, partition_mapping=trailing_window(settings)))
    blocking = step.must_pass | set(settings.operations.blocking_checks)

    @dg.multi_asset(
        name=step.name,
        outs={output: _declared(step, output, path, file) for output, (path, file) in step.outputs.items()},
        ins={argument: dg.AssetIn(key=key_of(path)) for argument, path in step.inputs.items()},
        deps=deps,
        group_name=step.group,
        partitions_def=as_of_days(settings),
        can_subset=True,
        op_tags={"dagster/priority": str(-turn)},
        backfill_policy=backfill_policy(),
        required_resource_keys={"training"},
        check_specs=[_check(settings, step, check, check in blocking) for check in step.checks],
    )
    def compute(context: dg.AssetExecutionContext, **inputs: Reader) -> Iterator[Any]:
        days = context.partition_keys  # mostly one; each of a range in turn, so that one at a time is in memory
        found: dict[str, list[Check]] = {}
        for day in days:
            night = _night_of(settings, context, day)
            read = {name: of_day(day) for name, of_day in inputs.items()}
            try:
                with showing(settings.display):
                    made = step.run(night, **read)
                    if step.raw is not None and isinstance(made.value, pd.DataFrame):
                        _report(context.instance, settings, step.raw, made.value)
                    newest = _keep(context, night.store, step, made, day, read)
            except EnergyMLError as error:
                said = _of_days(days, day, str(error))
                yield from _tell(context, step, night, error, said)
                raise dg.Failure(f"{type(error).__name__}: {said}", allow_retries=False) from error
            found[day] = made.checks
        yield from _record(context, step, newest, found, blocking)

    return compute


def _tell(
    context: dg.AssetExecutionContext, step: Step, night: Night, error: EnergyMLError, said: str
) -> Iterator[dg.AssetCheckResult]:
    """Who follows a model hears that it failed; refused data is on record as a failed check, so that nothing downstream
    runs on half a window."""
    if step.told_as is not None:
        night.progress.write(step.told_as, 0.0, {"error": said}, state="failed")
    gate = dg.AssetCheckKey(key_of(step.key), step.gate or "")
    if isinstance(error, DataError) and gate in context.selected_asset_check_keys:
        yield dg.AssetCheckResult(asset_key=gate.asset_key, check_name=gate.name, passed=False, description=said)


def _night_of(settings: Settings, context: dg.AssetExecutionContext, day: str) -> Night:
    """The night of as-of date ``day`` as the run's launchpad would have it."""
    try:
        settings = context.resources.training.of(settings)
    except ConfigError as error:  # of the launchpad
        raise dg.Failure(str(error), allow_retries=False) from error
    return Night(
        settings,
        dt.date.fromisoformat(day),
        context.run.run_id,
        lake_of(settings),
        ResultsStore(settings.results_dir),
        registry_of(settings),
        functools.partial(context.resources.training.trainer, settings.ml_config()),
        open_progress(progress_place(settings), context.run.run_id),
        lambda file: recorded_digest(context.instance, key_of(file.rpartition(".")[0]), day),
    )


def _check(settings: Settings, step: Step, check: str, blocking: bool) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", dg.PreviewWarning
        )  # each day has its own outcome, which a later day leaves alone
        return dg.AssetCheckSpec(
            check,
            asset=key_of(step.key),
            description=step.checks[check],
            blocking=blocking,
            partitions_def=as_of_days(settings),
        )


def _declared(step: Step, output: str, path: str, file: str) -> dg.AssetOut:
    main = output == "result"
    description = (step.description or step.run.__doc__) if main else f"{step.key} leaves this beside its result."
    return dg.AssetOut(
        key=key_of(path),
        description=description,
        metadata={FILE: file, **_source(step)},
        kinds=step.kinds if main else {file.rpartition(".")[2]},
        owners=[OWNERS[step.group]],
        code_version=__version__,
        tags={ROLE: "result" if main else "beside"},
        is_required=False,
        freshness_policy=step.freshness if main else None,
    )


def _source(step: Step) -> dict[str, object]:
    """Where the code of a step is."""
    code = inspect.unwrap(step.run.func if isinstance(step.run, functools.partial) else step.run)
    file, line = str(inspect.getsourcefile(code)), inspect.getsourcelines(code)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        place = dg.LocalFileCodeReference(file_path=file, line_number=line, label=step.key)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}


def _report(instance: dg.DagsterInstance, settings: Settings, raw: dg.AssetKey, window: pd.DataFrame) -> None:
    """Put on record which days of the external files are there, as the sensor does where it is on: they came from
    elsewhere, and so the record is of no run."""
    there = instance.get_materialized_partitions(raw)
    rows = window.loc[window[TIMESTAMP] >= pd.Timestamp(settings.start_date, tz="UTC"), TIMESTAMP].dt.floor("D")
    for day, count in rows.value_counts(sort=False).items():
        if (partition := f"{day:%Y-%m-%d}") not in there:
            metadata = {"dagster/partition_row_count": int(count)}
            instance.report_runless_asset_event(dg.AssetMaterialization(raw, partition=partition, metadata=metadata))


def _of_frame(step: Step, value: object, read: Mapping[str, object]) -> dict[str, object]:
    """Size and columns of a frame, and which of them frames that it was made of have by the same name."""
    if not isinstance(value, pd.DataFrame | Parts):
        return {}
    rows, held = (len(value), value) if isinstance(value, pd.DataFrame) else (value.rows, value.empty)
    told: dict[str, object] = {"dagster/row_count": rows, "dagster/column_schema": columns_of(held)}
    frames = [
        (key_of(step.inputs[name]), frame) for name, frame in read.items() if isinstance(frame, pd.DataFrame | Parts)
    ]
    found = {
        str(column): [dg.TableColumnDep(key, str(column)) for key, frame in frames if column in frame.columns]
        for column in value.columns
    }
    if known := {column: deps for column, deps in found.items() if deps}:
        told["dagster/column_lineage"] = dg.TableColumnLineage(known)
    return told


def _keep(
    context: dg.AssetExecutionContext,
    store: ResultsStore,
    step: Step,
    made: Made,
    day: str,
    read: Mapping[str, object],
) -> dict[str, object]:
    """Write what nobody will be handed, tell the facts of the rest; returns the outputs that are asked for.

    The IO manager is handed the outputs of the newest day: those of days before it in a range are written here.
    """
    wanted = {}
    for output, (path, file) in step.outputs.items():
        main, asked_for = output == "result", key_of(path) in context.selected_asset_keys
        if main and not asked_for:
            continue
        value = made.value if main else made.files[output]
        facts = {**_of_frame(step, value, read), **(made.facts if main else {})}
        if not asked_for or day != context.partition_keys[-1]:
            facts |= keep(store, day, file, value)
        if asked_for:
            context.add_asset_metadata(to_metadata(facts), key_of(path), day)
            wanted[output] = value
    return wanted


def _record(
    context: dg.AssetExecutionContext,
    step: Step,
    wanted: Mapping[str, object],
    found: Mapping[str, list[Check]],
    blocking: frozenset[str],
) -> Iterator[dg.MaterializeResult[object]]:
    """Side outputs first, so that they are there when the main one is announced; then the main one with its checks."""
    for output, value in sorted(wanted.items(), key=lambda item: item[0] == "result"):
        key = key_of(step.outputs[output][0])
        checks = [_over_days(key, name, found, blocking) for name in step.checks] if output == "result" else []
        yield dg.MaterializeResult(asset_key=key, value=value, check_results=checks)


def _over_days(
    key: dg.AssetKey, name: str, found: Mapping[str, list[Check]], blocking: frozenset[str]
) -> dg.AssetCheckResult:
    """A check over the run's days: passed if it is on each, with the figures of the newest (that failed)."""
    by_day = {day: next(check for check in checks if check.name == name) for day, checks in found.items()}
    failed = {day: check for day, check in by_day.items() if not check.passed}
    told = failed or by_day
    words = "; ".join(_of_days(list(found), day, check.words) for day, check in told.items() if check.words)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if name in blocking else dg.AssetCheckSeverity.WARN,
        description=words or None,
        metadata=to_metadata(list(told.values())[-1].facts),
    )


def _of_days(days: Sequence[str], day: str, words: str) -> str:
    """Words about ``day``, naming it where there are several."""
    return words if len(days) == 1 else f"{day}: {words}"
