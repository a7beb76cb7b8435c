"""Artefacts under the name that belongs to the registry's interface; they live in ``energy_ml.artifacts``.

What belongs here: nothing but names. Models save and load themselves without knowing the registry, so the files they
share with it stand below both.
"""

from energy_ml.artifacts import (
    load_artifact,
    load_champion,
    read_artifact,
    read_registry,
    save_artifact,
    sha256_of,
    write_atomically,
    write_json,
)

__all__ = [
    "load_artifact",
    "load_champion",
    "read_artifact",
    "read_registry",
    "save_artifact",
    "sha256_of",
    "write_atomically",
    "write_json",
]
