"""The face for other programs: forecasts, battery actions, training by request, live progress. Extra: ``[service]``.

Only names live here; each is loaded when first used, so that ``MLService`` works without the extra's packages.
"""

from __future__ import annotations

from energy_ml.lazy import from_homes

_HOMES = {
    "MLService": "ml_service",
    "ServiceSettings": "ml_service",
    "TrainingRequest": "training_tasks",
    "Trainings": "training_tasks",
    "create_app": "api",
    "serve": "api",
    "train_model_task": "training_tasks",
}

__all__ = sorted(_HOMES)


__getattr__ = from_homes(__name__, _HOMES)
