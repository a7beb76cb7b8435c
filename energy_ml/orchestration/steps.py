"""A step of the day as a Dagster asset: its outputs declared, its inputs loaded, its facts shown, its checks recorded.

What belongs here: turning ``Made`` into what Dagster records, the same way for every step. What doesn't: which steps
there are (``assets``), and what they do (``energy_ml.day``).
Concept: https://docs.dagster.io/guides/build/assets/defining-assets
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandas as pd

from energy_ml.config import Settings
from energy_ml.day import Made, Night
from energy_ml.display import showing
from energy_ml.errors import DataError, EnergyMLError
from energy_ml.orchestration.io_managers import FILE, recorded_digest
from energy_ml.orchestration.metadata import columns_of, to_metadata
from energy_ml.orchestration.partitions import as_of_days, trailing_window

RESOURCES = {"lake", "results", "registry", "price_trainer"}


@dataclass(frozen=True)
class Step:
    """One asset of the day.

    ``key`` names its main output, ``file`` where that lies. ``inputs`` map the function's arguments to outputs of other
    steps; ``after`` are steps that must have run, ``raw`` the external asset whose trailing window is read. ``beside``
    are its further outputs: the name in ``Made.files`` to key and file. ``checks`` map a name to its description; those
    of ``must_pass`` stop what comes after, others warn unless the settings say otherwise. ``gate`` is the check that
    fails when the data is refused; ``told_as`` the model whose progress ends when training fails; ``share`` about how
    much of a night's time it takes beside the others.
    """

    key: str
    file: str
    run: Callable[..., Made]
    kinds: set[str]
    owner: str
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
    def name(self) -> str:
        """What Dagster calls the step."""
        return self.key.replace("/", "__")

    @property
    def outputs(self) -> dict[str, tuple[str, str]]:
        """Name of each output to its key and file; the main one is called ``value``."""
        return {"value": (self.key, self.file), **self.beside}


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
        outs={_out(output): _declared(step, output, path, file) for output, (path, file) in step.outputs.items()},
        ins={argument: dg.AssetIn(key=key_of(path)) for argument, path in step.inputs.items()},
        deps=deps,
        group_name=step.key.split("/")[0],
        partitions_def=as_of_days(settings),
        can_subset=True,
        op_tags={"dagster/priority": str(-turn)},
        required_resource_keys=RESOURCES,
        check_specs=[
            dg.AssetCheckSpec(check, asset=key_of(step.key), description=words, blocking=check in blocking)
            for check, words in step.checks.items()
        ],
    )
    def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
        night = night_of(settings, context)
        try:
            with showing(settings.display):
                made = step.run(night, **inputs)
                told = to_metadata({**_size_of(made.value), **made.facts})
        except EnergyMLError as error:
            if step.told_as is not None:
                night.progress.write(step.told_as, 0.0, {"error": str(error)}, state="failed")
            gate = dg.AssetCheckKey(key_of(step.key), step.gate or "")
            if isinstance(error, DataError) and gate in context.selected_asset_check_keys:
                # The check is on record in the UI, and nothing downstream runs on half a window.
                yield dg.AssetCheckResult(
                    asset_key=gate.asset_key, check_name=gate.name, passed=False, description=str(error)
                )
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
        yield from _record(context, step, made, told, blocking)

    return compute


def night_of(settings: Settings, context: dg.AssetExecutionContext) -> Night:
    """What the run's resources and its partition say of the night."""
    given = context.resources
    return Night(
        settings,
        dt.date.fromisoformat(context.partition_key),
        context.run.run_id,
        given.lake.lake(),
        given.results.store(),
        given.registry.registry(),
        given.price_trainer.trainer(settings.ml_config()),
        given.results.progress(context.run.run_id),
        lambda file: recorded_digest(context.instance, key_of(file.rpartition(".")[0]), context.partition_key),
    )


def _out(output: str) -> str:
    return "result" if output == "value" else output


def _declared(step: Step, output: str, path: str, file: str) -> dg.AssetOut:
    main = output == "value"
    description = (step.description or step.run.__doc__) if main else f"{step.key} leaves this beside its result."
    return dg.AssetOut(
        key=key_of(path),
        description=description,
        metadata={FILE: file},
        kinds=step.kinds if main else {file.rpartition(".")[2]},
        owners=[step.owner],
        is_required=False,
        freshness_policy=step.freshness if main else None,
    )


def _record(
    context: dg.AssetExecutionContext, step: Step, made: Made, told: dict[str, Any], blocking: frozenset[str]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Side outputs first, so that they are there when the main one is announced; then the main one with its checks."""
    wanted = context.selected_asset_keys
    for output, (path, file) in step.beside.items():
        if key_of(path) in wanted:
            value = made.files[output]
            yield dg.MaterializeResult(asset_key=key_of(path), value=value, metadata=to_metadata(_size_of(value)))
        else:
            context.resources.results.store().write(context.partition_key, file, made.files[output])
    if key_of(step.key) not in wanted:
        return
    yield dg.MaterializeResult(
        asset_key=key_of(step.key),
        value=made.value,
        metadata=told,
        check_results=[
            dg.AssetCheckResult(
                asset_key=key_of(step.key),
                check_name=check.name,
                passed=bool(check.passed),
                severity=dg.AssetCheckSeverity.ERROR if check.name in blocking else dg.AssetCheckSeverity.WARN,
                description=check.words or None,
                metadata=to_metadata(check.facts),
            )
            for check in made.checks
        ],
    )


def _size_of(value: object) -> dict[str, Any]:
    if not isinstance(value, pd.DataFrame):
        return {}
    return {"dagster/row_count": len(value), "dagster/column_schema": columns_of(value)}
