"""The executor: in process by default, chosen by ``ENERGY_ML_EXECUTOR``.

What belongs here: the choice, and that the process of a run is known to live. What doesn't: deployment (see the
operations chapter of the README).

A process per step costs about four seconds of CPU each, and XGBoost uses the cores already; other executors pay only
beyond one machine.
Concept: https://docs.dagster.io/guides/operate/run-executors
"""

import importlib
from collections.abc import Iterator

import dagster as dg

from energy_ml.config import Settings
from energy_ml.errors import needing
from energy_ml.orchestration.private import ExecutionPlan, PlanOrchestrationContext
from energy_ml.orchestration.record import kept_open
from energy_ml.orchestration.run_lock import hold


def build_executor(settings: Settings) -> dg.ExecutorDefinition:
    """The executor definition for in_process, multiprocess or celery, whose process holds the lock of its run.

    Raises ConfigError where the extra is missing.
    """
    chosen = _chosen(settings)
    make, schema = chosen.executor_creation_fn, chosen.config_schema
    assert make is not None

    def holding(context: dg.InitExecutorContext) -> dg.Executor:
        executor = make(context)
        execute = executor.execute

        def held(plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[dg.DagsterEvent]:
            hold(plan_context.instance, plan_context.run_id)
            with kept_open():
                yield from execute(plan_context, execution_plan)

        executor.execute = held  # type: ignore[method-assign]  # not one around it: Celery's loop asks for its members
        return executor

    return dg.ExecutorDefinition(chosen.name, schema, chosen.get_requirements, holding)  # type: ignore[arg-type]


def _chosen(settings: Settings) -> dg.ExecutorDefinition:
    name = settings.executor
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return dg.multiprocess_executor.configured({"max_concurrent": 2})
    library, made = {"k8s": ("dagster_k8s", "k8s_job_executor"), "celery": ("dagster_celery", "celery_executor")}[name]
    with needing(f"{name},postgres", f"ENERGY_ML_EXECUTOR={name}"):
        executor: dg.ExecutorDefinition = getattr(importlib.import_module(library), made)
    if name == "k8s":
        return executor
    operations = settings.operations
    return executor.configured(
        {"broker": operations.celery_broker, "backend": operations.celery_backend}, name="celery"
    )
