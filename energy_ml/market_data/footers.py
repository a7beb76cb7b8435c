"""Parquet files by what their footers say: what each holds, from when to when, and which row groups a window needs.

What belongs here: finding and opening files, footers, content fingerprints, files that can't be read. What doesn't:
their rows (``lake``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from energy_ml.arrays import Integers
from energy_ml.errors import DataError, SchemaError
from energy_ml.market_data.part_file import CONTENT, KEYS
from energy_ml.market_data.schema import KEY_COLUMN, Kind, read_kind, utc, utc_timestamps
from energy_ml.names import CHARGE, NODES_FILE, PRICE, REGION, TIMESTAMP

_SUFFIXES = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"
_CHECKSUMS = ("ETag", "etag", "md5", "md5Hash", "content_md5")
"""What object stores call a file's checksum."""
_HASHED_WHOLE = 64 * 2**20

Details = Mapping[str, object]
"""What a file system says of a file."""


@dataclass(frozen=True)
class FileInfo:
    """One file as its footer describes it.

    ``first`` and ``last`` are the first and last timestamp (UTC), ``regions`` what the key column holds (battery ids
    for telemetry), ``size`` bytes, ``fingerprint`` a sha256 over size, footer and content (of files
    above 64 MB: size and footer, with a store's own checksum if it has one). A file that can't be used has
    ``problem`` in words and ``problem_kind``: empty | not_parquet | incomplete | corrupt | schema (resembles prices or
    telemetry but lacks columns) | timestamps | other (has nothing to do with either, never stands in the way).
    A file with zero rows is no problem and covers nothing. ``changed_at``: when a local file was last written or moved,
    seconds since 1970, by the file system's clock; a hint only, files are told apart by their fingerprint.
    """

    path: str
    kind: Kind | None
    rows: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    regions: tuple[str, ...]
    size: int
    fingerprint: str
    problem: str | None = None
    problem_kind: str | None = None
    changed_at: float | None = field(default=None, compare=False)

    def touches(self, start: pd.Timestamp, end: pd.Timestamp) -> bool:
        """Whether the file may hold rows of the half-open window."""
        return self.first is not None and self.last is not None and self.first < end and self.last >= start


@dataclass
class Footer:
    """What is kept of an opened file between calls: enough to plan reading without opening it again."""

    info: FileInfo
    schema: pa.Schema | None = None
    partitions: dict[str, str] = field(default_factory=dict)
    group_rows: Integers = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    group_spans: Integers | None = None
    """First and last timestamp of each row group, ns UTC, (2, groups); None without usable statistics."""
    group_keys: list[tuple[str, str] | None] = field(default_factory=list)
    """Smallest and largest region of each row group, None where unknown."""
    error: DataError | None = None
    """What is wrong with it, where that is more than that it can't be read."""

    @property
    def broken(self) -> bool:
        """Whether it can't be read though it may hold prices or telemetry."""
        return self.info.problem is not None and self.info.problem_kind != "other"

    def groups_in(self, start: int, end: int, keys: Sequence[str] | None) -> list[int]:
        """Row groups that may hold rows of [start, end) ns and of ``keys``, by the footer's statistics."""
        groups = np.flatnonzero(self.group_rows > 0)
        if self.group_spans is not None:
            first, last = self.group_spans[:, groups]
            groups = groups[(first < end) & (last >= start)]

        def may_hold(pair: tuple[str, str] | None) -> bool:
            # Stored names may carry spaces that normalising strips, so only clean extremes exclude a group.
            return (
                keys is None
                or pair is None
                or pair[0] != pair[0].strip()
                or any(pair[0] <= key <= pair[1] for key in keys)
            )

        return [int(group) for group in groups if may_hold(self.group_keys[group])]


class Files:
    """The parquet files below ``root``. Footers are kept while size and modification stamp stay the same.

    Timestamps without a zone are read in ``zone`` (None: UTC).
    """

    def __init__(self, root: UPath, zone: str | None) -> None:
        self.root, self.zone = root, zone
        self._kept: dict[str, tuple[tuple[str, ...], Footer]] = {}

    def scan(self) -> list[Footer]:
        """The footer of each file that is looked at, ordered by path."""
        if _is_parquet(self.root.path) and self.root.fs.isfile(self.root.path):
            return [self.footer(str(self.root))]
        return [self._current(str(self.root / name), details) for name, why, details in self.listing() if not why]

    def listing(self) -> list[tuple[str, str, Details]]:
        """Each file below the root, by name: path relative to it, why it isn't looked at (empty if it is), details."""
        base = self.root.path.rstrip("/")
        try:
            listing = self.root.fs.find(base, detail=True)
        except FileNotFoundError:
            return []
        names = {(path[len(base) :].lstrip("/") if path.startswith(base) else path): path for path in sorted(listing)}
        return [(name, _why_skipped(name, listing[path]), listing[path]) for name, path in names.items()]

    def footer(self, path: str) -> Footer:
        """The footer of one file."""
        try:
            details = self.root.fs.info(_inner(path))
        except FileNotFoundError:
            details = {}
        return self._current(path, details)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """The file, for reading."""
        # Arrow's own file is several times faster than a Python file object, and only exists for local paths.
        local, inner = self.root.protocol in ("", "file", "local"), _inner(path)
        return cast(AbstractContextManager[BinaryIO], pa.OSFile(inner) if local else self.root.fs.open(inner, "rb"))

    def times_ns(self, table: pa.Table, key: str, path: str) -> Integers:
        """Timestamps of the rows, ns UTC; ``key`` names the column of their series, where the table has it."""
        column = table.column(TIMESTAMP)
        if pa.types.is_timestamp(column.type) and column.null_count == 0 and (self.zone is None or column.type.tz):
            with contextlib.suppress(pa.ArrowInvalid):
                return np.asarray(column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64()).to_numpy())
        return np.asarray(utc_timestamps(table, key, [], path, self.zone).asi8)

    def _current(self, path: str, details: Details) -> Footer:
        # The stamp only decides whether to look into the file again; what is found there never depends on it.
        stamp = tuple(str(details.get(key)) for key in ("size", "mtime", "ino", "created", "LastModified", *_CHECKSUMS))
        kept = self._kept.get(path)
        if kept is None or kept[0] != stamp:
            footer = self._read(path, details)
            # A copy that keeps its source's time of writing is still new: "created" is the inode's last change.
            times = [at for at in (details.get("mtime"), details.get("created")) if isinstance(at, (int, float))]
            kept = (stamp, replace(footer, info=replace(footer.info, changed_at=max(times, default=None))))
            self._kept[path] = kept
        return kept[1]

    def _read(self, path: str, details: Details) -> Footer:
        size, mark, names = 0, hashlib.sha256(), list[str]()

        def problem(kind: str, message: str, error: DataError | None = None) -> Footer:
            fingerprint = mark.hexdigest() if size else ""
            info = FileInfo(path, None, 0, None, None, (), size, fingerprint, message, kind)
            return Footer(info, partitions=_partitions(path), error=error)

        try:
            with self.open(path) as handle:
                handle.seek(0, 2)
                size = handle.tell()
                if size == 0:
                    return problem("empty", "the file is empty (0 bytes)")
                handle.seek(0)
                head = handle.read(4)
                handle.seek(max(size - 8, 0))
                tail = handle.read(8)
                mark.update(f"{size}".encode() + head + tail)
                if head != _MAGIC[: len(head)]:
                    return problem("not_parquet", "the file isn't parquet")
                if size < 12 or tail[4:] != _MAGIC:
                    return problem("incomplete", "the file has no footer: it was cut off or is still being written")
                length = int.from_bytes(tail[:4], "little")
                handle.seek(max(size - 8 - length, 0))
                ending = handle.read(length)
                mark.update(ending)
                handle.seek(0)
                checksums = [str(details[key]) for key in _CHECKSUMS if details.get(key)]
                if checksums:
                    mark.update(checksums[0].encode())
                elif size <= _HASHED_WHOLE and CONTENT not in ending:
                    mark.update(handle.read())  # a corrected price may leave size and footer as they were
                    handle.seek(0)
                file = pq.ParquetFile(handle)
                names = file.schema_arrow.names
                return self._describe(path, handle, file, size, mark.hexdigest())
        except FileNotFoundError:
            return problem("incomplete", "the file disappeared while it was looked at")
        except DataError as error:
            resembles = {PRICE, CHARGE} & set(names) or {TIMESTAMP, REGION} <= set(names)
            kind = "timestamps" if not isinstance(error, SchemaError) else "schema" if resembles else "other"
            return problem(kind, error.found.rstrip("."), error)
        except (pa.ArrowException, OSError, ValueError) as error:
            return problem("corrupt", f"the file's footer can't be read ({first_line(error)})")

    def _describe(self, path: str, handle: BinaryIO, file: pq.ParquetFile, size: int, mark: str) -> Footer:
        partitions, schema, metadata = _partitions(path), file.schema_arrow, file.metadata
        kind = read_kind([*schema.names, *(p for p in partitions if p not in schema.names)])
        key = KEY_COLUMN[kind]
        footer = Footer(
            FileInfo(path, kind, metadata.num_rows, None, None, (), size, mark),
            schema,
            partitions,
            np.array([metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)], dtype=np.int64),
        )
        if not metadata.num_rows:
            return footer
        stored = schema.field(TIMESTAMP).type if TIMESTAMP in schema.names else None
        if self.zone is None or getattr(stored, "tz", None) is not None:
            footer.group_spans = _time_statistics(file)
        footer.group_keys = _key_statistics(file, key, partitions)
        times = footer.group_spans
        if times is None:
            stamps = file.read(columns=[c for c in (TIMESTAMP, key) if c in schema.names])
            times = self.times_ns(stamps, key, path)
        said = (metadata.metadata or {}).get(KEYS)
        if said is not None:
            names = set(json.loads(said))
        elif all(pair is not None and pair[0] == pair[1] for pair in footer.group_keys):
            names = {pair[0] for pair in footer.group_keys if pair is not None}
        else:  # the footer knows only the extremes; the column itself is tiny, being dictionary-encoded
            column = pq.ParquetFile(handle, read_dictionary=[key]).read(columns=[key]).column(0)
            names = {str(name).strip() for name in pc.unique(column).to_pylist() if name is not None}
        first, last = (pd.Timestamp(int(edge), tz="UTC") for edge in (times.min(), times.max()))
        footer.info = replace(footer.info, first=first, last=last, regions=tuple(sorted(names)))
        return footer


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _inner(path: str) -> str:
    return path if "://" not in path else UPath(path).path


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _why_skipped(name: str, details: Details) -> str:
    """Why a file of this path below the root isn't looked at, in words; empty if it is."""
    parts = name.split("/")
    if any(part.startswith((".", "_", "~")) or part.endswith(".tmp.parquet") for part in parts):
        return "names that begin with . _ or ~, and *.tmp.parquet, are left alone: rename it if it is meant"
    if parts[-1] == NODES_FILE:
        return "it says which zone a node lies in; prices aren't looked for in it"
    if _is_parquet(parts[-1]):
        return ""
    if parts[-1].lower().endswith((".csv", ".csv.gz", ".tsv", ".txt")):
        to = f"{parts[-1].split('.')[0]}.parquet"
        return (
            "only parquet is read; in its folder: "
            f"python -c \"import pandas; pandas.read_csv({parts[-1]!r}, sep=None, engine='python')"
            f'.to_parquet({to!r}, index=False)"'
        )
    if details.get("islink") and details.get("type") != "file":
        return "links to folders aren't followed: name the folder in ENERGY_ML_DATA_DIR, or move the files here"
    return "its name doesn't end with .parquet"


def _partitions(path: str) -> dict[str, str]:
    """Columns that hive-partitioned folders name, such as ``region=FR/day=2026-02-10``."""
    pairs = (part.split("=", 1) for part in path.replace("\\", "/").split("/")[:-1] if "=" in part)
    return {name: unquote(value) for name, value in pairs if name and value != "__HIVE_DEFAULT_PARTITION__"}


def _time_statistics(file: pq.ParquetFile) -> Integers | None:
    """First and last timestamp (ns UTC) per row group, (2, groups); None where the footer can't tell."""
    schema, metadata = file.schema_arrow, file.metadata
    if not pa.types.is_timestamp(schema.field(TIMESTAMP).type):
        return None
    index, limits, pairs = schema.names.index(TIMESTAMP), np.iinfo(np.int64), list[tuple[int, int]]()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        statistics = group.column(index).statistics
        if group.num_rows == 0:
            pairs.append((limits.max, limits.min))
        elif statistics is None or not statistics.has_min_max:
            return None
        else:
            try:
                pairs.append((utc(statistics.min).value, utc(statistics.max).value))
            except (OverflowError, ValueError):
                return None
    return np.array(pairs, dtype=np.int64).T


def _key_statistics(file: pq.ParquetFile, key: str, partitions: dict[str, str]) -> list[tuple[str, str] | None]:
    metadata, names = file.metadata, file.schema_arrow.names
    if key not in names:
        return [(partitions[key], partitions[key])] * metadata.num_row_groups
    pairs: list[tuple[str, str] | None] = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(names.index(key)).statistics
        usable = statistics is not None and statistics.has_min_max and isinstance(statistics.min, str)
        pairs.append((statistics.min, statistics.max) if usable else None)
    return pairs
