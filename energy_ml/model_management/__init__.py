"""Versions, champions and their artefacts: saved atomically, compared fairly, loaded only if they are what was saved.

What belongs here: the registry and the files that it vouches for. What doesn't: what a model is and how it is trained.
"""

from energy_ml.model_management.comparison import Decision, compare_policies, compare_price_models
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.model_management.versioning import VERSION_FORMAT, new_version, parse_version

__all__ = [
    "VERSION_FORMAT",
    "Decision",
    "ModelRegistry",
    "compare_policies",
    "compare_price_models",
    "new_version",
    "parse_version",
]
