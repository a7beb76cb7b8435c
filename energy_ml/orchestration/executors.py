"""The executor: in process by default, chosen by ``ENERGY_ML_EXECUTOR``.

What belongs here: the choice. What doesn't: deployment (see the operations chapter of the README).

A process per step costs about four seconds of CPU each, and XGBoost uses the cores already; other executors pay only
beyond one machine.
Concept: https://docs.dagster.io/guides/operate/run-executors
"""

import dagster as dg

from energy_ml.config import Settings
from energy_ml.errors import ConfigError


def build_executor(settings: Settings) -> dg.ExecutorDefinition:
    """The executor definition for in_process, multiprocess or celery. Raises ConfigError where the extra is missing."""
    name = settings.executor
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return dg.multiprocess_executor.configured({"max_concurrent": 2})
    try:
        from dagster_celery import celery_executor
    except ImportError as error:
        raise ConfigError(
            "ENERGY_ML_EXECUTOR is celery, but dagster-celery isn't installed",
            remedy="install the extra: pip install 'energy_ml[celery,postgres]'",
        ) from error
    operations = settings.operations
    return celery_executor.configured(
        {"broker": operations.celery_broker, "backend": operations.celery_backend}, name="celery"
    )
