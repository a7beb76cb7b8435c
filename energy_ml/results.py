"""What a run leaves behind for one as-of date: ``results/<D>/…``, locally or in an object store.

What belongs here: where a result lies and how it is written and read by its suffix. What doesn't: what is in it.

Nothing half-written is ever visible: local files are written beside and renamed; object stores publish whole objects.
Results may lie where others can write. A pickle runs code when it is read, so one is read only by the digest that
``write`` returned, which its writer keeps elsewhere (in Dagster's record of the asset).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import re
from typing import Any

import pandas as pd
from upath import UPath

from energy_ml.artifacts import digest, pickled, to_jsonable, unpickle, write_atomically
from energy_ml.errors import ArtifactError, NoDataError
from energy_ml.parts import Parts, is_parts

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class ResultsStore:
    """Results by as-of date and relative name; the suffix (.parquet, .json, .html, .pkl) decides the format."""

    def __init__(self, root: str) -> None:
        self.root = UPath(root)

    def path(self, as_of: dt.date | str, name: str) -> UPath:
        """Where ``name`` of ``as_of`` lies, whether it is there or not."""
        day = str(as_of)
        if not _DATE.fullmatch(day):
            raise ValueError(f"as-of date {day!r} isn't YYYY-MM-DD")
        return self.root / day / name

    def write(self, as_of: dt.date | str, name: str, value: object) -> str:
        """Write ``value`` whole or not at all. Returns the SHA-256 of the file."""
        path = self.path(as_of, name)
        if isinstance(value, Parts):
            value.move_to(path)
            with path.open("rb") as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
        content = _encode(value, path.suffix)
        write_atomically(str(path), content)
        return digest(content)

    def read(self, as_of: dt.date | str, name: str, sha256: str | None = None) -> Any:
        """Read a result; a pickle only if it has the digest ``sha256``.

        Raises NoDataError where it isn't there and ArtifactError where it can't be read or isn't what was written.
        """
        path = self.path(as_of, name)
        try:
            if path.suffix == ".parquet" and is_parts(path):
                return Parts(path)
            content = path.read_bytes()
        except FileNotFoundError:
            raise NoDataError(
                f"there is no {name} for {as_of}",
                file=path,
                remedy=f"materialize it first: energy-ml retrain --date {as_of}",
            ) from None
        if path.suffix == ".pkl":
            if digest(content) == sha256:
                return unpickle(content, str(path))
            on_record = f"{sha256}, as the run that made it has on record" if sha256 else "a run on record that made it"
            raise ArtifactError(
                f"{path} has SHA-256 {digest(content)}; it was not loaded",
                expected=on_record,
                remedy=f"see who changed it, and make it again: energy-ml retrain --date {as_of}",
            )
        try:
            return _decode(content, path.suffix)
        except Exception as error:
            raise ArtifactError(
                f"{path} can't be read ({type(error).__name__}: {error})",
                remedy=f"make it again: energy-ml retrain --date {as_of}",
            ) from error

    def exists(self, as_of: dt.date | str, name: str) -> bool:
        """Whether the result is there."""
        return bool(self.path(as_of, name).exists())

    def sweep(self, as_of: dt.date | str) -> int:
        """Delete what a killed writer left beside the results of a day; returns how many files.

        Only for the one who writes that day: another writer's file beside is not told apart from a dead one's.
        """
        if self.root.protocol not in ("", "file", "local"):
            return 0  # object stores publish whole objects: there is nothing beside
        strays = [path for path in self.path(as_of, "").rglob(".tmp-*.tmp") if path.is_file()]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)

    def as_of_dates(self, name: str = "metrics.json") -> list[dt.date]:
        """As-of dates that have ``name``, oldest first."""
        if not self.root.exists():
            return []
        days = (p.name for p in self.root.iterdir() if _DATE.fullmatch(p.name))
        return [dt.date.fromisoformat(day) for day in sorted(days) if self.exists(day, name)]


def _encode(value: object, suffix: str) -> bytes:
    if suffix == ".json":
        return (json.dumps(value, indent=2, default=to_jsonable) + "\n").encode()
    if suffix == ".html":
        return str(value).encode()
    if suffix == ".pkl":
        return pickled(value)
    if suffix == ".parquet" and isinstance(value, pd.DataFrame):
        return bytes(value.to_parquet(index=False, compression="zstd"))
    raise ValueError(f"no format for a {type(value).__name__} in a file that ends in {suffix!r}")


def _decode(content: bytes, suffix: str) -> object:
    if suffix == ".json":
        return json.loads(content)
    if suffix == ".html":
        return content.decode()
    return pd.read_parquet(io.BytesIO(content))
