"""A long frame that nobody holds whole: a parquet file with a row group for each block, read by what is asked of it.

What belongs here: writing such a file, and the same questions to it as to a frame in memory. What doesn't: what is in
it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from energy_ml.artifacts import write_atomically

_MARK = b"energy_ml.parts"
Where = Mapping[str, Collection[object]]
"""By column the values, of which a row must have one."""


@dataclass
class Parts:
    """The rows of the file at ``path`` that are as ``where`` says. Iterating gives a frame per row group with any."""

    path: Path | UPath
    where: Where = field(default_factory=dict)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        with self.path.open("rb") as handle, pq.ParquetFile(handle) as file:
            for number in range(file.num_row_groups):
                if _may_hold(file.metadata.row_group(number), self.where):
                    frame = _as_said(file.read_row_group(number, use_threads=False).to_pandas(), self.where)
                    if len(frame):
                        yield frame

    @property
    def rows(self) -> int:
        """How many the file has."""
        with self.path.open("rb") as handle:
            return int(pq.read_metadata(handle).num_rows)

    @property
    def empty(self) -> pd.DataFrame:
        """A frame of the same columns without a row."""
        with self.path.open("rb") as handle:
            return cast(pd.DataFrame, pq.read_schema(handle).empty_table().to_pandas())

    @property
    def columns(self) -> pd.Index:
        """As of a frame."""
        return self.empty.columns

    def whole(self) -> pd.DataFrame:
        """All of it in memory."""
        return pd.concat([*self] or [self.empty], ignore_index=True)

    def move_to(self, path: UPath) -> None:
        """Have the file there, whole or not at all."""

        def copy(handle: BinaryIO) -> None:
            with self.path.open("rb") as source:
                shutil.copyfileobj(source, handle)

        if str(path) != str(self.path):
            write_atomically(str(path), copy)
            self.path.unlink()
            with contextlib.suppress(OSError):  # others are still there
                self.path.parent.rmdir()
            self.path = path


Frames: TypeAlias = "pd.DataFrame | Parts"
"""A frame in memory, or one that isn't held whole."""


def frames_of(frames: Frames | Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
    """The frames of which it is made, one at a time."""
    return [frames] if isinstance(frames, pd.DataFrame) else frames


def chosen(frames: Frames, where: Where) -> Frames:
    """Its rows that are as ``where`` says; a frame itself where that is all of them."""
    if isinstance(frames, pd.DataFrame):
        return _as_said(frames, where)
    both = {name: [one for one in values if one in frames.where.get(name, values)] for name, values in where.items()}
    return replace(frames, where={**frames.where, **both})


def in_memory(frames: Frames, where: Where | None = None) -> pd.DataFrame:
    """``chosen`` in memory."""
    found = chosen(frames, where or {})
    return found if isinstance(found, pd.DataFrame) else found.whole()


def write_parts(path: Path, frames: Iterable[pd.DataFrame], compression: str = "zstd") -> Parts:
    """Write frames of the same columns, whole or not at all, each as it comes."""

    def write(handle: BinaryIO) -> None:
        writer = None
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                schema = table.schema.with_metadata({**(table.schema.metadata or {}), _MARK: b"1"})
                writer = pq.ParquetWriter(handle, schema, compression=compression)
            writer.write_table(table.cast(writer.schema), row_group_size=max(len(frame), 1))
        if writer is not None:
            writer.close()

    write_atomically(path, write)
    return Parts(path)


def is_parts(path: UPath) -> bool:
    """Whether ``write_parts`` wrote this file; one that can't be read it didn't. Raises FileNotFoundError."""
    with path.open("rb") as handle, contextlib.suppress(pa.ArrowException):
        return _MARK in (pq.read_schema(handle).metadata or {})
    return False


def _may_hold(group: pq.RowGroupMetaData, where: Where) -> bool:
    """Whether by its statistics the row group may hold a row that is as ``where`` says."""
    for column in (group.column(place) for place in range(group.num_columns)):
        wanted, known = where.get(column.path_in_schema), column.statistics
        if wanted is None or known is None or not known.has_min_max:
            continue
        if not any(known.min <= value <= known.max for value in wanted):
            return False
    return True


def _as_said(frame: pd.DataFrame, where: Where) -> pd.DataFrame:
    for name, values in where.items():
        wanted = frame[name].isin(list(values))
        frame = frame if wanted.all() else frame[wanted]
    return frame
