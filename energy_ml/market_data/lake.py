"""The folder of parquet files as one table: what is there, and reading a time window of it.

What belongs here: finding files, footers, push-down, coverage, content fingerprints, files that can't be read.
What doesn't: types (``schema``), and rules on values, gaps and duplicates (``cleaning``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from energy_ml.arrays import Integers
from energy_ml.config import resolve_path
from energy_ml.errors import (
    DataError,
    NoDataError,
    SchemaError,
    TimestampError,
    UnknownRegionError,
    UnreadableFileError,
)
from energy_ml.market_data.part_file import CONTENT, KEYS
from energy_ml.market_data.rows import infer_interval, rows_by_code, unsupported_interval
from energy_ml.market_data.schema import (
    KEY_COLUMN,
    MISSING_WORDS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    DataProblem,
    Kind,
    normalise,
    read_kind,
    utc_timestamps,
)
from energy_ml.names import AVAILABLE_AT, BATTERY_ID, CHARGE, NODES_FILE, PRICE, REGION, TIMESTAMP

_SUFFIXES = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"
_DAY_NS = 86_400 * 10**9
_DATE_IN_PATH = re.compile(r"(?<!\d)(\d{4})[-_]?(\d{2})[-_]?(\d{2})(?!\d)")
_CHECKSUMS = ("ETag", "etag", "md5", "md5Hash", "content_md5")
"""What object stores call a file's checksum."""
_HASHED_WHOLE = 64 * 2**20
_COMPLETE_TAIL_MINUTES = 30
_COMPLETE_SHARE = 0.95


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


@dataclass(frozen=True)
class FileDays:
    """Which UTC days and regions (battery ids for telemetry) one file covers.

    ``rows``: distinct timestamps, one line per day (datetime.date), one column per region.
    """

    path: str
    kind: Kind
    rows: pd.DataFrame
    fingerprint: str

    @property
    def days(self) -> tuple[dt.date, ...]:
        """The days with at least one row, in order."""
        return tuple(self.rows.index)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions, or battery ids, in order."""
        return tuple(self.rows.columns)


@dataclass
class _Footer:
    """What is kept of an opened file between calls: enough to plan reading without opening it again."""

    info: FileInfo
    schema: pa.Schema | None = None
    partitions: dict[str, str] = field(default_factory=dict)
    group_rows: Integers = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    group_first: Integers | None = None
    """First timestamp of each row group in ns UTC; None where the footer has no usable statistics."""
    group_last: Integers | None = None
    group_keys: list[tuple[str, str] | None] = field(default_factory=list)
    """Smallest and largest region of each row group, None where unknown."""
    error: DataError | None = None
    """What is wrong with it, where that is more than that it can't be read."""


class ParquetLake:
    """Every ``*.parquet`` under ``root``, a local path or an fsspec URL such as ``s3://bucket/prices``.

    Folders are searched recursively; hive-partitioned ones (``region=FR/…``) give their column. ``.parq`` and ``.pq``
    are read as well, in any case. Names that begin with ``.``, ``_`` or ``~`` and ``*.tmp.parquet`` are ignored,
    folders included; ``skipped`` tells which files aren't looked at. Footers are kept while size and
    modification stamp stay the same, so asking one lake again is cheap; results never depend on modification times.
    Timestamps without a zone are read in ``zone`` (None: UTC); such files are read as wholes.
    """

    def __init__(self, root: str | UPath, zone: str | None = None) -> None:
        self.zone = zone
        self.root = root if isinstance(root, UPath) else UPath(resolve_path(root))
        self._footers: dict[str, tuple[tuple[str, ...], _Footer]] = {}
        self._days: dict[str, FileDays] = {}

    # --- What is there -------------------------------------------------------------------------------------------

    def inventory(self) -> list[FileInfo]:
        """One entry per file, ordered by path, from footers. Files with problems are listed, never raised."""
        return [footer.info for footer in self._scan()]

    def skipped(self) -> dict[str, str]:
        """Files below the root that aren't looked at: path relative to the root -> why, and what to do, in words."""
        return {name: why for name, why, _ in self._listing() if why}

    def zones(self) -> dict[str, str]:
        """Zone by node, as ``nodes.parquet`` in the root has them; empty without it. Raises SchemaError."""
        path = self.root / NODES_FILE
        if not self.root.is_dir() or not path.exists():
            return {}
        try:
            with path.open("rb") as handle:
                table = pq.read_table(handle)
        except (pa.ArrowException, OSError) as error:
            raise UnreadableFileError(
                f"it can't be read ({_first_line(error)})", file=path, remedy="write it again or move it away"
            ) from error
        missing = [name for name in ("node", "zone") if name not in table.column_names]
        if missing:
            raise SchemaError(
                f"nodes lack column {missing[0]!r}; found {table.column_names}",
                file=path,
                column=missing[0],
                expected="node and zone, perhaps hub and kind",
                remedy="rename or add the column, or move the file away: zones are then found in the prices",
            )
        pairs = zip(table["node"].to_pylist(), table["zone"].to_pylist(), strict=True)
        return {str(node): str(zone) for node, zone in pairs if node is not None and zone is not None}

    def days_of_file(self, path: str) -> FileDays:
        """Which UTC days and regions ``path`` covers; reads two columns. Raises UnreadableFileError or DataError."""
        footer = self._footer(path, self._details(path))
        if footer.info.problem:
            raise self._unreadable(footer.info)
        return self._count_days(footer)

    def coverage(self, kind: Kind = "prices") -> pd.DataFrame:
        """Distinct timestamps per UTC day (index: datetime.date, in order) and region (columns); 0 where none.

        A timestamp that overlapping files share counts once. Files with problems count nothing.
        """
        footers = [f for f in self._scan() if f.info.kind == kind and f.info.problem is None and f.info.rows]
        return self._merge_days(footers)

    def latest_complete_day(
        self,
        interval: int | None = None,
        regions: Sequence[str] | None = None,
        *,
        now: pd.Timestamp | None = None,
    ) -> dt.date:
        """The last UTC day that is over by ``now`` (None: the clock) and on which every region has its prices.

        Complete: at least 95 % of the day's intervals of ``interval`` minutes (None: inferred), none missing for more
        than 30 minutes at its end, for each of ``regions`` (None: those seen on the day or the day before). Rows
        without a price, such as placeholders for what is to come, don't count. Only files near the end are looked into.
        Raises NoDataError if no day is complete, IntervalError if that is because no day is spaced evenly.
        """
        footers = self._price_footers(regions)
        odd: list[Integers] = []
        even = False
        over = _utc(pd.Timestamp.now("UTC") if now is None else now).floor("D").value - 1
        last_ns = min(max(cast(pd.Timestamp, f.info.last).value for f in footers), over)
        first_ns = min(cast(pd.Timestamp, f.info.first).value for f in footers)
        day = last_ns // _DAY_NS
        newer: _DayRows | None = None
        while day >= first_ns // _DAY_NS:
            today = newer if newer is not None else self._day_rows(footers, day)
            before = self._day_rows(footers, day - 1)
            expected = set(regions) if regions is not None else set(today.times) | set(before.times)
            if today.times and today.complete(expected, interval):
                return _date(day)
            even = even or infer_interval(list(today.times.values())) is not None
            odd = odd or [times for times in today.times.values() if len(times) > 1]
            newer, day = before, day - 1
        if interval is None and odd and not even:
            raise unsupported_interval(odd, file=self.root)
        raise NoDataError(
            f"no UTC day between {_date(first_ns // _DAY_NS)} and {_date(last_ns // _DAY_NS)} is complete",
            file=self.root,
            expected="a day on which every region has at least 95 % of its intervals, up to the day's end",
            remedy="add the missing prices, or choose regions with ENERGY_ML_REGIONS",
        )

    def newest_row(self, regions: Sequence[str] | None = None) -> pd.Timestamp:
        """Time of the last row of the price files; of ``regions``, of the last that has a price.

        Raises as ``read_prices``.
        """
        footers = self._price_footers(regions)
        chosen = [f for f in footers if regions is None or set(regions) & set(f.info.regions)]
        last = max(cast(pd.Timestamp, f.info.last) for f in chosen)
        if regions is None:
            return last
        first = min(cast(pd.Timestamp, f.info.first) for f in chosen)
        for day in range(last.value // _DAY_NS, first.value // _DAY_NS - 1, -1):
            held = [ns[-1] for name, ns in self._day_rows(chosen, day).times.items() if name in regions]
            if held:
                return pd.Timestamp(int(max(held)), tz="UTC")
        return last

    def interval(self, regions: Sequence[str] | None = None) -> int | None:
        """Minutes between the newest prices; None if that is no supported interval. Raises as ``read_prices``."""
        footers = self._price_footers(regions)
        last = self.newest_row(regions).value // _DAY_NS
        for day in range(last, last - 10, -1):  # the newest rows may be placeholders without prices
            days = [self._day_rows(footers, number).times for number in (day - 1, day)]
            series = [ns for held in days for name, ns in held.items() if regions is None or name in regions]
            if (minutes := infer_interval(series)) is not None:
                return minutes
        return None

    def fingerprint(self, start: pd.Timestamp, end: pd.Timestamp, kinds: Sequence[Kind] = ("prices",)) -> str:
        """sha256 over the content fingerprints of the files of ``kinds`` that touch [start, end).

        The same for renamed, moved or touched files; another one as soon as a file is written with other content.
        """
        start, end = _utc(start), _utc(end)
        marks = sorted(f.info.fingerprint for f in self._scan() if f.info.kind in kinds and f.info.touches(start, end))
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    # --- Reading a window ----------------------------------------------------------------------------------------

    def read_prices(
        self,
        start: pd.Timestamp,
        end: pd.Timestamp,
        regions: Sequence[str] | None = None,
        columns: Sequence[str] | Literal["all"] | None = None,
    ) -> pd.DataFrame:
        """Prices of the half-open UTC window [start, end), as the files hold them, types normalised.

        Parameters
        ----------
        regions : these only; None means all.
        columns : numeric columns to read beside timestamp, region and real_time_price; "all" reads every one.

        Returns
        -------
        Long frame, files by their first timestamp, rows as in the file; n rows (zero if nothing touches the window).
        ``attrs["problems"]`` lists what was converted (dicts of DataProblem), ``attrs["sources"]`` pairs of file and
        row count, in order, ``attrs["regions"]`` the chosen regions: ``clean_prices`` reads them.

        Raises
        ------
        NoDataError : there are no price files at all.
        UnreadableFileError : a file that can't be read is needed for the window.
        UnknownRegionError : no file holds one of ``regions``.
        SchemaError, TimestampError : a file that touches the window breaks the data contract.
        """
        start, end = _utc(start), _utc(end)
        footers = self._price_footers(regions)
        known = {region for footer in footers for region in footer.info.regions}
        extras = None if columns == "all" else [c for c in columns or () if c not in (TIMESTAMP, REGION)]
        frame = self._read(footers, "prices", start, end, regions, extras)
        self._refuse_unreadable(frame, footers, start, end, set(regions) if regions is not None else known)
        if regions is not None:
            frame.attrs["regions"] = list(regions)  # clean_prices refuses if a chosen one has no rows
        elif len(frame):
            for region in sorted(known - set(frame[REGION].unique())):
                problem = DataProblem(
                    "region_absent",
                    f"region {region} has no rows between {start} and {end} though other files hold it",
                    0,
                    False,
                    region,
                    REGION,
                )
                frame.attrs["problems"].append(problem.to_dict())
        return frame

    def read_batteries(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        """Battery telemetry of the half-open UTC window; an empty frame if there is none (telemetry is optional).

        Columns, attrs and errors as in ``read_prices``; optional columns only where the files have them.
        """
        start, end = _utc(start), _utc(end)
        footers = [f for f in self._scan() if f.info.kind == "batteries" and f.info.problem is None]
        return self._read(footers, "batteries", start, end, None, [])

    def read_covariates(self, start: pd.Timestamp, end: pd.Timestamp, names: Sequence[str]) -> pd.DataFrame:
        """What files say of times in the half-open UTC window in the columns ``names``, as far as they have them.

        Columns ``timestamp`` (the time spoken of), ``available_at`` (NaT where a price file says it), ``region`` and
        ``names``; n rows. What can't be read is left out and told in ``attrs["problems"]``: nothing depends on it.
        """
        start, end, frames, problems = _utc(start), _utc(end), [], list[str]()
        for footer in self._scan():
            stored = [] if footer.schema is None else footer.schema.names
            kind, held = footer.info.kind, [name for name in names if name in stored]
            if kind not in ("prices", "forecasts") or not held or footer.info.problem is not None:
                continue
            try:
                rows = self._read([footer], kind, start, end, None, held)
            except DataError as error:
                problems.append(str(error))
                continue
            if len(rows):
                if kind == "prices":
                    rows[AVAILABLE_AT] = pd.Series(pd.NaT, rows.index, dtype="datetime64[ns, UTC]")
                frames.append(rows)
        columns = [TIMESTAMP, AVAILABLE_AT, REGION, *names]
        frame = pd.concat(frames, ignore_index=True) if frames else _empty_frame("forecasts", list(names))
        frame = frame.reindex(columns=columns)
        frame.attrs = {"problems": problems}
        return frame

    def _read(
        self,
        footers: list[_Footer],
        kind: Kind,
        start: pd.Timestamp,
        end: pd.Timestamp,
        keys: Sequence[str] | None,
        extras: list[str] | None,
    ) -> pd.DataFrame:
        frames: list[pd.DataFrame] = []
        problems: list[DataProblem] = []
        sources: list[list[Any]] = []
        for footer in sorted(footers, key=lambda f: (f.info.first, f.info.path)):  # names say nothing about time
            if not footer.info.touches(start, end) or (keys is not None and not set(keys) & set(footer.info.regions)):
                continue
            groups = _groups_in(footer, start.value, end.value, keys)
            if not groups:
                continue
            table = self._read_columns(footer, groups, _columns_of(footer, kind, extras))
            if footer.group_first is not None:
                table = _filter_time(table, start, end)
            if not table.num_rows:
                continue
            frame, found = normalise(table, kind, extra_columns=extras, file=footer.info.path, zone=self.zone)
            times = frame[TIMESTAMP]
            keep = np.asarray((times >= start) & (times < end))
            if keys is not None:
                keep = keep & np.asarray(frame[KEY_COLUMN[kind]].isin(list(keys)))
            if not keep.all():
                frame = frame[keep]
            if len(frame):
                problems += found
                frames.append(frame)
                sources.append([footer.info.path, len(frame)])
        if not frames:
            frames = [_empty_frame(kind, extras or [])]
        result = frames[0].reset_index(drop=True) if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        result.attrs = {"problems": [p.to_dict() for p in problems], "sources": sources}
        return result

    def _read_columns(self, footer: _Footer, groups: list[int] | None, columns: list[str]) -> pa.Table:
        """Read row groups (None: all) of ``columns``, partition columns included. Raises UnreadableFileError."""
        stored = [c for c in columns if footer.schema is not None and c in footer.schema.names]
        texts = [c for c in stored if c in KEY_COLUMN.values()]
        try:
            with self._open(footer.info.path) as handle:
                file = pq.ParquetFile(handle, read_dictionary=texts)
                table = file.read(columns=stored) if groups is None else file.read_row_groups(groups, columns=stored)
        except FileNotFoundError:
            raise UnreadableFileError(
                "the file disappeared while it was read",
                file=footer.info.path,
                remedy="write files beside, then rename them into place; run again",
            ) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UnreadableFileError(
                f"the file's data can't be read ({_first_line(error)})",
                file=footer.info.path,
                expected="a whole parquet file",
                remedy="write the file again or move it out of the data folder",
            ) from error
        for name in columns:
            if name not in stored and name in footer.partitions:
                value = pa.scalar(footer.partitions[name], pa.string())
                table = table.append_column(name, pa.repeat(value, table.num_rows))
        return table

    def _refuse_unreadable(
        self,
        frame: pd.DataFrame,
        footers: list[_Footer],
        start: pd.Timestamp,
        end: pd.Timestamp,
        regions: set[str],
    ) -> None:
        """Raise if an unreadable file may hold rows of the window; else note it among the frame's problems.

        Nobody knows what an unreadable file holds. It isn't needed if its path names days outside of the window or
        a region that isn't wanted, or if the readable files cover the window for all known regions anyway (which
        doesn't count where each file holds a region of its own: then it may well be one more region).
        """
        bad = [f for f in self._scan() if f.info.problem and f.info.problem_kind != "other"]
        root = str(self.root)
        near = [f for f in bad if _may_touch(f, f.info.path.removeprefix(root), start, end, regions)]
        if not near:
            return
        one_each = len(footers) > 1 and len({f.info.regions for f in footers}) == len(footers) == len(regions)
        # Before the first row of all files there may be nothing: a warm-up asks for what needn't exist. If it should,
        # clean_prices refuses the window and names these files.
        begin = max(start, min(cast(pd.Timestamp, f.info.first) for f in footers))
        if not one_each and _covers(frame, begin, end, regions):
            for footer in near:
                message = f"{footer.info.problem}; not needed, other files cover the window"
                problem = DataProblem("unreadable_file", message, 0, False, file=footer.info.path)
                frame.attrs["problems"].append(problem.to_dict())
            return
        raise self._unreadable(near[0].info, others=len(near) - 1)

    def _unreadable(self, info: FileInfo, others: int = 0) -> DataError:
        kept = self._footers.get(info.path)
        error = kept[1].error if kept else None
        if isinstance(error, TimestampError):
            return error
        more = f" (and {others} more such file{'s' if others > 1 else ''})" if others else ""
        if isinstance(error, SchemaError):
            return SchemaError(f"{info.problem}{more}", file=info.path, expected=error.expected, remedy=error.remedy)
        return UnreadableFileError(
            f"{info.problem}{more}",
            file=info.path,
            expected="whole parquet files that keep to the data contract",
            remedy="wait until it is written, write it again, or move it out of the data folder",
        )

    # --- Days ----------------------------------------------------------------------------------------------------

    def _count_days(self, footer: _Footer) -> FileDays:
        kept = self._days.get(footer.info.path)
        if kept is None or kept.fingerprint != footer.info.fingerprint:
            times, keys, names = self._keys(footer, None)
            rows = _rows_per_day(times, keys, names)
            kept = FileDays(footer.info.path, cast(Kind, footer.info.kind), rows, footer.info.fingerprint)
            self._days[footer.info.path] = kept
        return kept

    def _merge_days(self, footers: list[_Footer]) -> pd.DataFrame:
        """Add up the files' days; where files overlap in a day, count distinct timestamps of all of them."""
        parts = [self._count_days(f) for f in footers]
        if not parts:
            return pd.DataFrame(index=pd.Index([], name="day", dtype=object))
        total = parts[0].rows
        if len(parts) > 1:
            total = pd.concat([p.rows for p in parts]).groupby(level=0).sum()
            days = pd.Index([day for p in parts for day in p.days])
            for day in days[days.duplicated()].unique():
                number = (pd.Timestamp(day) - pd.Timestamp(0)).days
                for region, times in self._day_rows(footers, number).times.items():
                    total.loc[day, region] = len(times)
        total = total.astype(np.int64)
        total.index.name, total.columns.name = "day", None
        return total.sort_index().sort_index(axis=1)

    def _day_rows(self, footers: list[_Footer], day: int) -> _DayRows:
        start, end = day * _DAY_NS, (day + 1) * _DAY_NS
        found: dict[str, list[Integers]] = {}
        for footer in footers:
            if not footer.info.touches(pd.Timestamp(start, tz="UTC"), pd.Timestamp(end, tz="UTC")):
                continue
            groups = _groups_in(footer, start, end, None)
            if not groups:
                continue
            times, keys, names = self._keys(footer, groups)
            inside = (times >= start) & (times < end)
            times, keys = times[inside], keys[inside]
            for name, rows in zip(names, rows_by_code(keys, len(names)), strict=True):
                if len(rows):
                    found.setdefault(name, []).append(times[rows])
        return _DayRows(day, {name: np.unique(np.concatenate(parts)) for name, parts in found.items()})

    def _keys(self, footer: _Footer, groups: list[int] | None) -> tuple[Integers, Integers, list[str]]:
        """Timestamps (ns UTC) and key codes of the rows, with the names that the codes stand for; of prices those that
        are numbers."""
        key = KEY_COLUMN[cast(Kind, footer.info.kind)]
        value = [PRICE] if footer.info.kind == "prices" else []
        table = self._read_columns(footer, groups, [TIMESTAMP, key, *value])
        for name in value:
            table = table.filter(_is_number(table.column(name)))
        times = self._times_ns(table, key, footer.info.path)
        encoded = table.column(key).combine_chunks()
        if not pa.types.is_dictionary(encoded.type):
            encoded = encoded.cast(pa.string()).dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        names = [str(name).strip() for name in encoded.dictionary.to_pylist()]
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        if (codes < 0).any():
            times, codes = times[codes >= 0], codes[codes >= 0]
        return times, codes, names

    def _times_ns(self, table: pa.Table, key: str, path: str) -> Integers:
        """Timestamps of the rows, ns UTC; ``key`` names the column of their series, where the table has it."""
        column = table.column(TIMESTAMP)
        if pa.types.is_timestamp(column.type) and column.null_count == 0 and (self.zone is None or column.type.tz):
            with contextlib.suppress(pa.ArrowInvalid):
                return np.asarray(column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64()).to_numpy())
        return np.asarray(utc_timestamps(table, key, [], path, self.zone).asi8)

    # --- Files and footers ---------------------------------------------------------------------------------------

    def _price_footers(self, regions: Sequence[str] | None) -> list[_Footer]:
        """Readable price files with rows. Raises NoDataError or UnknownRegionError, or the files' own problem."""
        every = self._scan()
        footers = [f for f in every if f.info.kind == "prices" and f.info.problem is None and f.info.rows]
        broken = [f.info for f in every if f.info.problem and f.info.problem_kind != "other"]
        if not footers:
            if broken:
                raise self._unreadable(broken[0], others=len(broken) - 1)
            raise NoDataError(
                "there are no price files" if not every else f"none of the {len(every)} parquet files holds prices",
                file=self.root,
                expected="*.parquet with columns timestamp, region, real_time_price",
                example=next((f"{name}: {why}" for name, why in self.skipped().items()), None),
                remedy="set ENERGY_ML_DATA_DIR to the folder with your files, or make data with: energy-ml simulate",
            )
        known = {region for f in footers for region in f.info.regions}
        unknown = [r for r in regions or () if r not in known]
        if unknown and not broken:
            raise UnknownRegionError(
                f"no file holds region{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
                file=self.root,
                column=REGION,
                expected=f"some of {', '.join(sorted(known))}",
                remedy="correct ENERGY_ML_REGIONS or unset it for all regions",
            )
        if unknown:
            raise self._unreadable(broken[0], others=len(broken) - 1)
        return footers

    def _scan(self) -> list[_Footer]:
        return [self._footer(path, details) for path, details in self._files()]

    def _files(self) -> list[tuple[str, dict[str, Any]]]:
        if _is_parquet(self.root.path) and self.root.fs.isfile(self.root.path):
            return [(str(self.root), self._details(str(self.root)))]
        return [(str(self.root / name), details) for name, why, details in self._listing() if not why]

    def _listing(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Each file below the root, by name: path relative to it, why it isn't looked at (empty if it is), details."""
        base = self.root.path.rstrip("/")
        try:
            listing = self.root.fs.find(base, detail=True)
        except FileNotFoundError:
            return []
        names = {(path[len(base) :].lstrip("/") if path.startswith(base) else path): path for path in sorted(listing)}
        return [(name, _why_skipped(name, listing[path]), listing[path]) for name, path in names.items()]

    def _details(self, path: str) -> dict[str, Any]:
        try:
            return dict(self.root.fs.info(self._inner(path)))
        except FileNotFoundError:
            return {}

    def _inner(self, path: str) -> str:
        return path if "://" not in path else UPath(path).path

    def _open(self, path: str) -> AbstractContextManager[BinaryIO]:
        inner = self._inner(path)
        local = self.root.protocol in ("", "file", "local")
        # Arrow's own file is several times faster than a Python file object, and only exists for local paths.
        return cast(AbstractContextManager[BinaryIO], pa.OSFile(inner) if local else self.root.fs.open(inner, "rb"))

    def _footer(self, path: str, details: dict[str, Any]) -> _Footer:
        # The stamp only decides whether to look into the file again; what is found there never depends on it.
        stamp = tuple(str(details.get(key)) for key in ("size", "mtime", "ino", "created", "LastModified", *_CHECKSUMS))
        kept = self._footers.get(path)
        if kept is None or kept[0] != stamp:
            footer = self._read_footer(path, details)
            # A copy that keeps its source's time of writing is still new: "created" is the inode's last change.
            times = [at for at in (details.get("mtime"), details.get("created")) if isinstance(at, (int, float))]
            kept = (stamp, replace(footer, info=replace(footer.info, changed_at=max(times, default=None))))
            self._footers[path] = kept
        return kept[1]

    def _read_footer(self, path: str, details: dict[str, Any]) -> _Footer:
        size, mark = 0, hashlib.sha256()

        def problem(kind: str, message: str, size: int = 0, mark: str = "", error: DataError | None = None) -> _Footer:
            info = FileInfo(path, None, 0, None, None, (), size, mark, message, kind)
            return _Footer(info, partitions=_partitions(path), error=error)

        try:
            with self._open(path) as handle:
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
                    return problem("not_parquet", "the file isn't parquet", size, mark.hexdigest())
                if size < 12 or tail[4:] != _MAGIC:
                    message = "the file has no footer: it was cut off or is still being written"
                    return problem("incomplete", message, size, mark.hexdigest())
                length = int.from_bytes(tail[:4], "little")
                handle.seek(max(size - 8 - length, 0))
                ending = handle.read(length)
                mark.update(ending)
                handle.seek(0)
                checksums = [str(details[key]) for key in _CHECKSUMS if details.get(key)]
                if checksums:
                    mark.update(checksums[0].encode())
                elif (
                    size <= _HASHED_WHOLE and CONTENT not in ending
                ):  # a corrected price may leave size and footer as they were
                    mark.update(handle.read())
                    handle.seek(0)
                file = pq.ParquetFile(handle)
                names = file.schema_arrow.names
                return self._describe(path, handle, file, size, mark.hexdigest())
        except FileNotFoundError:
            return problem("incomplete", "the file disappeared while it was looked at")
        except DataError as error:
            resembles = {PRICE, CHARGE} & set(names) or {TIMESTAMP, REGION} <= set(names)
            kind = "timestamps" if not isinstance(error, SchemaError) else "schema" if resembles else "other"
            return problem(kind, error.found.rstrip("."), size, mark.hexdigest(), error)
        except (pa.ArrowException, OSError, ValueError) as error:
            return problem("corrupt", f"the file's footer can't be read ({_first_line(error)})", size, mark.hexdigest())

    def _describe(self, path: str, handle: BinaryIO, file: pq.ParquetFile, size: int, mark: str) -> _Footer:
        partitions = _partitions(path)
        schema, metadata = file.schema_arrow, file.metadata
        kind = read_kind([*schema.names, *(p for p in partitions if p not in schema.names)])
        key = KEY_COLUMN[kind]
        rows, groups = metadata.num_rows, metadata.num_row_groups
        footer = _Footer(
            FileInfo(path, kind, rows, None, None, (), size, mark),
            schema,
            partitions,
            np.array([metadata.row_group(g).num_rows for g in range(groups)], dtype=np.int64),
        )
        if rows == 0:
            return footer
        stored = schema.field(TIMESTAMP).type if TIMESTAMP in schema.names else None
        if self.zone is None or getattr(stored, "tz", None) is not None:
            footer.group_first, footer.group_last = _time_statistics(file, path)
        footer.group_keys = _key_statistics(file, key, partitions)
        if footer.group_first is None or footer.group_last is None:
            stamps = file.read(columns=[c for c in (TIMESTAMP, key) if c in schema.names])
            times = self._times_ns(stamps, key, path)
            first, last = int(times.min()), int(times.max())
        else:
            first, last = int(footer.group_first.min()), int(footer.group_last.max())
        said = (metadata.metadata or {}).get(KEYS)
        if said is not None:
            names = set(json.loads(said))
        elif all(pair is not None and pair[0] == pair[1] for pair in footer.group_keys):
            names = {pair[0] for pair in footer.group_keys if pair is not None}
        else:  # the footer knows only the extremes; the column itself is tiny, being dictionary-encoded
            column = pq.ParquetFile(handle, read_dictionary=[key]).read(columns=[key]).column(0)
            names = {str(name).strip() for name in pc.unique(column).to_pylist() if name is not None}
        footer.info = FileInfo(
            path,
            kind,
            rows,
            pd.Timestamp(first, tz="UTC"),
            pd.Timestamp(last, tz="UTC"),
            tuple(sorted(names)),
            size,
            mark,
        )
        return footer


@dataclass(frozen=True)
class _DayRows:
    """Distinct timestamps (ns UTC, ascending) of one UTC day by region."""

    day: int
    times: dict[str, Integers]

    def complete(self, regions: set[str], interval: int | None) -> bool:
        minutes = interval or infer_interval(list(self.times.values()))
        if minutes is None:
            return False
        enough = _COMPLETE_SHARE * 1440 / minutes
        tail = (self.day + 1) * _DAY_NS - (minutes + _COMPLETE_TAIL_MINUTES) * 60 * 10**9
        return all(r in self.times and len(self.times[r]) >= enough and self.times[r][-1] >= tail for r in regions)


def _utc(moment: pd.Timestamp | dt.datetime | str) -> pd.Timestamp:
    stamp = pd.Timestamp(moment)
    return stamp.tz_localize("UTC").as_unit("ns") if stamp.tzinfo is None else stamp.tz_convert("UTC").as_unit("ns")


def _date(day: int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=int(day))


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _why_skipped(name: str, details: dict[str, Any]) -> str:
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _partitions(path: str) -> dict[str, str]:
    """Columns that hive-partitioned folders name, such as ``region=FR/day=2026-02-10``."""
    pairs = (part.split("=", 1) for part in path.replace("\\", "/").split("/")[:-1] if "=" in part)
    return {name: unquote(value) for name, value in pairs if name and value != "__HIVE_DEFAULT_PARTITION__"}


def _time_statistics(file: pq.ParquetFile, path: str) -> tuple[Integers | None, Integers | None]:
    """First and last timestamp (ns UTC) per row group; (None, None) where the footer can't tell."""
    schema, metadata = file.schema_arrow, file.metadata
    if not pa.types.is_timestamp(schema.field(TIMESTAMP).type):
        return None, None
    index = schema.names.index(TIMESTAMP)
    pairs = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(index).statistics
        if metadata.row_group(group).num_rows == 0:
            pairs.append((np.iinfo(np.int64).max, np.iinfo(np.int64).min))
        elif statistics is None or not statistics.has_min_max:
            return None, None
        else:
            with contextlib.suppress(OverflowError, pd.errors.OutOfBoundsDatetime, ValueError):
                pairs.append((_utc(statistics.min).value, _utc(statistics.max).value))
                continue
            return None, None
    first, last = np.array(pairs, dtype=np.int64).T
    return first, last


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


def _groups_in(footer: _Footer, start: int, end: int, keys: Sequence[str] | None) -> list[int]:
    """Row groups that may hold rows of [start, end) ns and of ``keys``, by the footer's statistics."""
    groups = np.flatnonzero(footer.group_rows > 0)
    if footer.group_first is not None and footer.group_last is not None:
        groups = groups[(footer.group_first[groups] < end) & (footer.group_last[groups] >= start)]
    if keys is None:
        return [int(g) for g in groups]

    def may_hold(group: int) -> bool:
        pair = footer.group_keys[group]
        # Stored names may carry spaces that normalising strips, so only clean extremes exclude a group.
        return pair is None or pair[0] != pair[0].strip() or any(pair[0] <= key <= pair[1] for key in keys)

    return [int(g) for g in groups if may_hold(int(g))]


def _filter_time(table: pa.Table, start: pd.Timestamp, end: pd.Timestamp) -> pa.Table:
    """Drop rows outside the window before anything is converted, where the column is a timestamp already."""
    kind = table.schema.field(TIMESTAMP).type
    if not pa.types.is_timestamp(kind):
        return table
    zone = "UTC" if kind.tz is not None else None
    low, high = (pa.scalar(t.value, pa.timestamp("ns", zone)) for t in (start, end))
    times = table.column(TIMESTAMP)
    if kind.tz not in (None, "UTC"):
        times = times.cast(pa.timestamp(kind.unit, "UTC"))
    try:
        times = times.cast(pa.timestamp("ns", zone))
    except pa.ArrowInvalid:  # out of nanoseconds' range: normalise() says so with an example
        return table
    inside = pc.and_(pc.greater_equal(times, low), pc.less(times, high))
    inside = pc.fill_null(inside, True)  # missing timestamps are refused later, not lost here
    return table if pc.all(inside).as_py() else table.filter(inside)


def _is_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which values are finite numbers; of texts, which are none of the words for a missing one."""
    if pa.types.is_floating(column.type):
        return pc.fill_null(pc.is_finite(column), False)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        word = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        return pc.fill_null(pc.invert(pc.is_in(word, pa.array(sorted(MISSING_WORDS)))), False)
    return pc.is_valid(column)


def _rows_per_day(times: Integers, keys: Integers, names: list[str]) -> pd.DataFrame:
    """Distinct timestamps per day and name."""
    if not len(times):
        return pd.DataFrame(index=pd.Index([], name="day", dtype=object))
    order = sorted(set(names))
    column_of = np.array([order.index(name) for name in names], dtype=np.int64)
    columns = column_of[keys]
    day0 = int(times.min() // _DAY_NS)
    size = (int(times.max() // _DAY_NS) - day0 + 1) * len(order)
    if _has_repeats(times, columns):
        own = [np.unique(times[rows]) for rows in rows_by_code(columns, len(order))]
        columns = np.repeat(np.arange(len(order)), [len(o) for o in own])
        times = np.concatenate(own)
    table = np.bincount((times // _DAY_NS - day0) * len(order) + columns, minlength=size).reshape(-1, len(order))
    index = pd.Index([_date(day0 + d) for d in range(len(table))], name="day", dtype=object)
    frame = pd.DataFrame(table, index=index, columns=order)
    return frame.iloc[np.flatnonzero(table.any(axis=1))].astype(np.int64)


def _has_repeats(times: Integers, columns: Integers) -> bool:
    """Whether a (time, column) pair occurs twice; rows that ascend within a column are recognised without sorting."""
    for rows in rows_by_code(columns, int(columns.max()) + 1):
        own = times[rows]
        if not (np.diff(own) > 0).all() and len(np.unique(own)) < len(own):
            return True
    return False


def _may_touch(footer: _Footer, path: str, start: pd.Timestamp, end: pd.Timestamp, regions: set[str]) -> bool:
    """Whether what ``path``, below the root, says leaves open that an unreadable file holds rows of the window."""
    region = footer.partitions.get(REGION)
    if region is not None and region not in regions:
        return False
    days = []
    for year, month, day in _DATE_IN_PATH.findall(path):
        with contextlib.suppress(ValueError):
            days.append(pd.Timestamp(int(year), int(month), int(day), tz="UTC"))
    if not days:
        return True
    margin = pd.Timedelta(days=1)  # the path's days may be in local time
    if len(days) == 1 and not any("-" in value for value in footer.partitions.values()):
        return bool(days[0] - margin < end)  # the first day of who knows how many
    return bool(min(days) - margin < end and max(days) + 2 * margin > start)


def _covers(frame: pd.DataFrame, start: pd.Timestamp, end: pd.Timestamp, regions: set[str]) -> bool:
    """Whether every region has every interval of [start, end)."""
    if not len(frame):
        return False
    times = pd.DatetimeIndex(frame[TIMESTAMP]).asi8
    codes, names = pd.factorize(frame[REGION])
    parts = zip(names, rows_by_code(codes, len(names)), strict=True)
    own = {str(name): np.unique(times[rows]) for name, rows in parts}
    minutes = infer_interval(list(own.values()))
    if minutes is None:
        return False
    whole = -(-(end - start) // pd.Timedelta(minutes=minutes))
    return all(region in own and len(own[region]) >= whole for region in regions)


def _columns_of(footer: _Footer, kind: Kind, extras: list[str] | None) -> list[str]:
    """Which columns of a file are read; None reads every one. Missing ones are left to ``normalise`` to refuse."""
    stored = footer.schema.names if footer.schema is not None else []
    optional = [c for c in OPTIONAL_COLUMNS[kind] if c in stored or c in footer.partitions]
    return list(dict.fromkeys([*REQUIRED_COLUMNS[kind], *optional, *(stored if extras is None else extras)]))


def _empty_frame(kind: Kind, extras: list[str]) -> pd.DataFrame:
    """No rows, the right columns and types."""
    names = dict.fromkeys([*REQUIRED_COLUMNS[kind], *extras])
    table = pa.table({name: pa.array([], _EMPTY_TYPES.get(name, pa.float64())) for name in names})
    return normalise(table, kind, extra_columns=extras)[0]


_EMPTY_TYPES = {
    TIMESTAMP: pa.timestamp("ns", "UTC"),
    AVAILABLE_AT: pa.timestamp("ns", "UTC"),
    REGION: pa.string(),
    BATTERY_ID: pa.string(),
}
