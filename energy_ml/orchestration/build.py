"""Putting it together: settings in, Dagster definitions out.

What belongs here: the list of assets, jobs, schedules, sensors and the resources they get. What doesn't: any of them.
"""

import dagster as dg

from energy_ml.config import Settings
from energy_ml.orchestration.assets import all_assets
from energy_ml.orchestration.executors import build_executor
from energy_ml.orchestration.io_managers import ResultsIOManager
from energy_ml.orchestration.jobs import build_jobs
from energy_ml.orchestration.resources import TrainingResource
from energy_ml.orchestration.schedules import build_schedules
from energy_ml.orchestration.sensors import build_sensors
from energy_ml.orchestration.shell import check_asked
from energy_ml.training_window import deployment


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """All definitions for ``settings``, by default those of the environment."""
    settings = settings or deployment()
    definitions = dg.Definitions(
        assets=all_assets(settings),
        jobs=build_jobs(settings),
        schedules=build_schedules(settings),
        sensors=build_sensors(settings),
        executor=build_executor(settings),
        resources={
            "training": TrainingResource(preset=None, training_window_days=None),
            "io_manager": ResultsIOManager(
                results_dir=settings.results_dir,
                locks_dir=f"{settings.models_dir}/.locks" if settings.executor == "in_process" else None,
            ),
        },
    )
    check_asked(definitions, settings)
    return definitions
