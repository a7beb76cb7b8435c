"""Putting it together: settings in, Dagster definitions out.

What belongs here: the list of assets, jobs, schedules, sensors and the resources they get. What doesn't: any of them.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from energy_ml.config import Settings
from energy_ml.orchestration.assets import all_assets
from energy_ml.orchestration.executors import build_executor
from energy_ml.orchestration.io_managers import ResultsIOManager
from energy_ml.orchestration.jobs import build_jobs
from energy_ml.orchestration.resources import (
    LakeResource,
    RegistryResource,
    ResultsResource,
    TrainerResource,
    TrainingResource,
)
from energy_ml.orchestration.schedules import build_schedules
from energy_ml.orchestration.sensors import build_sensors
from energy_ml.orchestration.shell import check_asked
from energy_ml.training_window import deployment


def build_definitions(
    settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """All definitions for ``settings`` (by default those of the environment); resources can be replaced by name."""
    settings = settings or deployment()
    results = ResultsResource(root=settings.results_dir)
    definitions = dg.Definitions(
        assets=all_assets(settings),
        jobs=build_jobs(settings),
        schedules=build_schedules(settings),
        sensors=build_sensors(settings),
        executor=build_executor(settings),
        resources={
            "lake": LakeResource(root=settings.data_dir, zone=settings.input_zone),
            "results": results,
            "registry": RegistryResource(models_dir=settings.models_dir),
            "price_trainer": TrainerResource(),
            "training": TrainingResource(preset=None, training_window_days=None),
            "io_manager": ResultsIOManager(
                results=results,
                locks_dir=f"{settings.models_dir}/.locks" if settings.executor == "in_process" else None,
            ),
            **(resource_overrides or {}),
        },
    )
    check_asked(definitions, settings)
    return definitions
