"""Versions, champions and their artefacts: saved atomically, compared fairly, loaded only if they are what was saved.

What belongs here: the registry and the files that it vouches for. What doesn't: what a model is and how it is trained.
"""

from energy_ml.model_management.persistence import (
    champion_entry,
    load_artifact,
    load_champion,
    save_artifact,
    sha256_of,
    write_atomically,
    write_json,
)

__all__ = [
    "champion_entry",
    "load_artifact",
    "load_champion",
    "save_artifact",
    "sha256_of",
    "write_atomically",
    "write_json",
]
