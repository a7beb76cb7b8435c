"""The face for other programs: forecasts, battery actions, training by request, live progress. Extra: ``[service]``.

Only names live here; each is loaded when first used, so that ``MLService`` works without the extra's packages.
"""

from __future__ import annotations

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
