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
from typing import Any

from energy_ml import __version__

LIBRARIES = ("dagster", "numba", "numpy", "pandas", "pyarrow", "scikit-learn", "xgboost", "xgboost-cpu")


def config_digest(config: Any) -> str:
    """SHA-256 of a config dataclass, leaving out the paths (where a model lies doesn't change what it is)."""
    text = json.dumps(_without_paths(dataclasses.asdict(config)), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 of this package's source: what was computed by other code isn't the same result."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _without_paths(values: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [plain(one) for one in value]
        return _without_paths(value) if isinstance(value, dict) else value

    return {name: plain(value) for name, value in values.items() if not name.endswith("_path")}


def provenance(*, as_of: str, data_fingerprint: str, config: Any, **more: Any) -> dict[str, Any]:
    """A plain record: equal data, config and versions give equal records, ``created_at`` aside."""
    versions = {}
    for name in LIBRARIES:
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
