"""What a result was made from: data fingerprint, config, seed, versions.

What belongs here: collecting the record. What doesn't: storing it, or anything that differs between equal runs but the
clock.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from energy_ml import __version__

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LIBRARIES = ("dagster", "numba", "numpy", "pandas", "pyarrow", "scikit-learn", "xgboost", "xgboost-cpu")


def config_digest(config: DataclassInstance) -> str:
    """SHA-256 of a config dataclass, leaving out the paths (where a model lies doesn't change what it is)."""
    text = json.dumps(_without_paths(dataclasses.asdict(config)), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_paths(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_paths(one) for name, one in value.items() if not name.endswith("_path")}
    return [_without_paths(one) for one in value] if isinstance(value, tuple | list) else value


@cache
def code_digest() -> str:
    """SHA-256 of this package's source: what was computed by other code isn't the same result."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def provenance(*, as_of: str, data_fingerprint: str, config: DataclassInstance, **more: object) -> dict[str, object]:
    """A plain record: equal data, config and versions give equal records, ``created_at`` aside."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "as_of": as_of,
        "data_fingerprint": data_fingerprint,
        "config_digest": config_digest(config),
        "config": dataclasses.asdict(config),
        "energy_ml": __version__,
        "python": platform.python_version(),
        "libraries": versions,
        "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        **more,
    }
