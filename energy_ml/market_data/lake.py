"""The folder of parquet files as one table: what is there, and reading a time window of it.

What belongs here: push-down, coverage, files that can't be read but may be needed. What doesn't: the files themselves
(``footers``), types (``schema``), and rules on values, gaps and duplicates (``cleaning``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

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
from energy_ml.market_data.footers import FileInfo, Files, Footer, first_line
from energy_ml.market_data.rows import infer_interval, rows_by_code, unsupported_interval
from energy_ml.market_data.schema import (
    KEY_COLUMN,
    MISSING_WORDS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    DataProblem,
    Kind,
    normalise,
    utc,
)
from energy_ml.names import AVAILABLE_AT, BATTERY_ID, NODES_FILE, PRICE, REGION, TIMESTAMP

_EPOCH = dt.date(1970, 1, 1)
_DAY_NS = 86_400 * 10**9
_DATE_IN_PATH = re.compile(r"(?<!\d)(\d{4})[-_]?(\d{2})[-_]?(\d{2})(?!\d)")
_COMPLETE_TAIL_MINUTES = 30
_COMPLETE_SHARE = 0.95


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
        self._files = Files(self.root, zone)

    # --- What is there -------------------------------------------------------------------------------------------

    def inventory(self) -> list[FileInfo]:
        """One entry per file, ordered by path, from footers. Files with problems are listed, never raised."""
        return [footer.info for footer in self._files.scan()]

    def skipped(self) -> dict[str, str]:
        """Files below the root that aren't looked at: path relative to the root -> why, and what to do, in words."""
        return {name: why for name, why, _ in self._files.listing() if why}

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
                f"it can't be read ({first_line(error)})", file=path, remedy="write it again or move it away"
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

    def days_of_file(self, path: str) -> pd.DataFrame:
        """As ``coverage``, of one file; reads two columns. Raises UnreadableFileError or DataError."""
        footer = self._files.footer(path)
        if footer.info.problem:
            raise _unreadable([footer])
        return _rows_per_day(*self._keys(footer, None))

    def coverage(self, kind: Kind = "prices") -> pd.DataFrame:
        """Distinct timestamps per UTC day (index: datetime.date, in order) and region (columns); 0 where none.

        A timestamp that overlapping files share counts once. Files with problems count nothing.
        """
        footers = [f for f in self._files.scan() if f.info.kind == kind and f.info.rows]
        if not footers:
            return pd.DataFrame(index=pd.Index([], name="day", dtype=object))
        parts = [_rows_per_day(*self._keys(footer, None)) for footer in footers]
        total = pd.concat(parts).groupby(level=0).sum().astype(np.int64)
        days = pd.Index([day for part in parts for day in part.index])
        for day in days[days.duplicated()].unique():  # files overlap: their distinct timestamps count
            for region, times in self._day_rows(footers, (day - _EPOCH).days).times.items():
                total.loc[day, region] = len(times)
        total.index.name, total.columns.name = "day", None
        return total.sort_index().sort_index(axis=1)

    def latest_complete_day(self, regions: Sequence[str] | None = None, *, now: pd.Timestamp | None = None) -> dt.date:
        """The last UTC day that is over by ``now`` (None: the clock) and on which every region has its prices.

        Complete: at least 95 % of the day's intervals, none missing for more than 30 minutes at its end, for each of
        ``regions`` (None: those seen on the day or the day before). Rows without a price, such as placeholders for what
        is to come, don't count. Only files near the end are looked into. Raises NoDataError if no day is complete,
        IntervalError if that is because no day is spaced evenly.
        """
        footers = self._price_footers(regions)
        odd: list[Integers] = []
        even = False
        over = utc(pd.Timestamp.now("UTC") if now is None else now).floor("D").value - 1
        last_ns = min(max(cast(pd.Timestamp, f.info.last).value for f in footers), over)
        for today, before in itertools.pairwise(self._days_back(footers, last_ns)):
            expected = set(regions) if regions is not None else set(today.times) | set(before.times)
            if today.times and today.complete(expected):
                return _date(today.day)
            even = even or infer_interval(list(today.times.values())) is not None
            odd = odd or [times for times in today.times.values() if len(times) > 1]
        if odd and not even:
            raise unsupported_interval(odd, file=self.root)
        raise NoDataError(
            f"no UTC day between {_first(footers).date()} and {_date(last_ns // _DAY_NS)} is complete",
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
        for today in self._days_back(chosen, last.value):
            held = [ns[-1] for name, ns in today.times.items() if name in regions]
            if held:
                return pd.Timestamp(int(max(held)), tz="UTC")
        return last

    def interval(self, regions: Sequence[str] | None = None) -> int | None:
        """Minutes between the newest prices; None if that is no supported interval. Raises as ``read_prices``."""
        days = self._days_back(self._price_footers(regions), self.newest_row(regions).value)
        for pair in itertools.islice(
            itertools.pairwise(days), 10
        ):  # the newest rows may be placeholders without prices
            series = [ns for day in pair for name, ns in day.times.items() if regions is None or name in regions]
            if (minutes := infer_interval(series)) is not None:
                return minutes
        return None

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
        start, end = utc(start), utc(end)
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
        start, end = utc(start), utc(end)
        footers = [f for f in self._files.scan() if f.info.kind == "batteries"]
        return self._read(footers, "batteries", start, end, None, [])

    def read_covariates(self, start: pd.Timestamp, end: pd.Timestamp, names: Sequence[str]) -> pd.DataFrame:
        """What files say of times in the half-open UTC window in the columns ``names``, as far as they have them.

        Columns ``timestamp`` (the time spoken of), ``available_at`` (NaT where a price file says it), ``region`` and
        ``names``; n rows. What can't be read is left out and told in ``attrs["problems"]``: nothing depends on it.
        """
        start, end, frames, problems = utc(start), utc(end), [], list[str]()
        for footer in self._files.scan():
            stored = [] if footer.schema is None else footer.schema.names
            kind, held = footer.info.kind, [name for name in names if name in stored]
            if kind not in ("prices", "forecasts") or not held:
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
        footers: list[Footer],
        kind: Kind,
        start: pd.Timestamp,
        end: pd.Timestamp,
        keys: Sequence[str] | None,
        extras: list[str] | None,
    ) -> pd.DataFrame:
        frames: list[pd.DataFrame] = []
        problems: list[DataProblem] = []
        sources: list[tuple[str, int]] = []
        for footer in sorted(footers, key=lambda f: (f.info.first, f.info.path)):  # names say nothing about time
            if not footer.info.touches(start, end) or (keys is not None and not set(keys) & set(footer.info.regions)):
                continue
            groups = footer.groups_in(start.value, end.value, keys)
            if not groups:
                continue
            table = self._read_columns(footer, groups, _columns_of(footer, kind, extras))
            if footer.group_spans is not None:
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
                sources.append((footer.info.path, len(frame)))
        if not frames:
            frames = [_empty_frame(kind, extras or [])]
        result = frames[0].reset_index(drop=True) if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        result.attrs = {"problems": [p.to_dict() for p in problems], "sources": sources}
        return result

    def _read_columns(self, footer: Footer, groups: list[int] | None, columns: list[str]) -> pa.Table:
        """Read row groups (None: all) of ``columns``, partition columns included. Raises UnreadableFileError."""
        stored = [c for c in columns if footer.schema is not None and c in footer.schema.names]
        texts = [c for c in stored if c in KEY_COLUMN.values()]
        try:
            with self._files.open(footer.info.path) as handle:
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
                f"the file's data can't be read ({first_line(error)})",
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
        self, frame: pd.DataFrame, footers: list[Footer], start: pd.Timestamp, end: pd.Timestamp, regions: set[str]
    ) -> None:
        """Raise if an unreadable file may hold rows of the window; else note it among the frame's problems.

        Nobody knows what an unreadable file holds. It isn't needed if its path names days outside of the window or
        a region that isn't wanted, or if the readable files cover the window for all known regions anyway (which
        doesn't count where each file holds a region of its own: then it may well be one more region).
        """
        bad = [f for f in self._files.scan() if f.broken]
        root = str(self.root)
        near = [f for f in bad if _may_touch(f, f.info.path.removeprefix(root), start, end, regions)]
        if not near:
            return
        one_each = len(footers) > 1 and len({f.info.regions for f in footers}) == len(footers) == len(regions)
        # Before the first row of all files there may be nothing: a warm-up asks for what needn't exist. If it should,
        # clean_prices refuses the window and names these files.
        begin = max(start, _first(footers))
        if not one_each and _covers(frame, begin, end, regions):
            for footer in near:
                message = f"{footer.info.problem}; not needed, other files cover the window"
                problem = DataProblem("unreadable_file", message, 0, False, file=footer.info.path)
                frame.attrs["problems"].append(problem.to_dict())
            return
        raise _unreadable(near)

    def _days_back(self, footers: list[Footer], last_ns: int) -> Iterator[_DayRows]:
        """The days from that of ``last_ns`` to the one before the first of all rows."""
        return (
            self._day_rows(footers, day) for day in range(last_ns // _DAY_NS, _first(footers).value // _DAY_NS - 2, -1)
        )

    def _day_rows(self, footers: list[Footer], day: int) -> _DayRows:
        start, end = day * _DAY_NS, (day + 1) * _DAY_NS
        found: dict[str, list[Integers]] = {}
        for footer in footers:
            if not footer.info.touches(pd.Timestamp(start, tz="UTC"), pd.Timestamp(end, tz="UTC")):
                continue
            groups = footer.groups_in(start, end, None)
            if not groups:
                continue
            times, keys, names = self._keys(footer, groups)
            inside = (times >= start) & (times < end)
            times, keys = times[inside], keys[inside]
            for name, rows in zip(names, rows_by_code(keys, len(names)), strict=True):
                if len(rows):
                    found.setdefault(name, []).append(times[rows])
        return _DayRows(day, {name: np.unique(np.concatenate(parts)) for name, parts in found.items()})

    def _keys(self, footer: Footer, groups: list[int] | None) -> tuple[Integers, Integers, list[str]]:
        """Timestamps (ns UTC) and key codes of the rows, with the names that the codes stand for; of prices those that
        are numbers."""
        key = KEY_COLUMN[cast(Kind, footer.info.kind)]
        value = [PRICE] if footer.info.kind == "prices" else []
        table = self._read_columns(footer, groups, [TIMESTAMP, key, *value])
        for name in value:
            table = table.filter(_is_number(table.column(name)))
        times = self._files.times_ns(table, key, footer.info.path)
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

    # --- Files and footers ---------------------------------------------------------------------------------------

    def _price_footers(self, regions: Sequence[str] | None) -> list[Footer]:
        """Readable price files with rows. Raises NoDataError or UnknownRegionError, or the files' own problem."""
        every = self._files.scan()
        footers = [f for f in every if f.info.kind == "prices" and f.info.rows]
        broken = [f for f in every if f.broken]
        if not footers:
            if broken:
                raise _unreadable(broken)
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
            raise _unreadable(broken)
        return footers


@dataclass(frozen=True)
class _DayRows:
    """Distinct timestamps (ns UTC, ascending) of one UTC day by region."""

    day: int
    times: dict[str, Integers]

    def complete(self, regions: set[str]) -> bool:
        minutes = infer_interval(list(self.times.values()))
        if minutes is None:
            return False
        enough = _COMPLETE_SHARE * 1440 / minutes
        tail = (self.day + 1) * _DAY_NS - (minutes + _COMPLETE_TAIL_MINUTES) * 60 * 10**9
        return all(r in self.times and len(self.times[r]) >= enough and self.times[r][-1] >= tail for r in regions)


def _unreadable(footers: list[Footer]) -> DataError:
    """What to say of files that can't be read, by the first of them."""
    info, error, others = footers[0].info, footers[0].error, len(footers) - 1
    if isinstance(error, TimestampError):
        return error
    more = f" (and {others} more such file{'s' if others > 1 else ''})" if others else ""
    found = f"{info.problem}{more}"
    if isinstance(error, SchemaError):
        return SchemaError(found, file=info.path, expected=error.expected, remedy=error.remedy)
    return UnreadableFileError(
        found,
        file=info.path,
        expected="whole parquet files that keep to the data contract",
        remedy="wait until it is written, write it again, or move it out of the data folder",
    )


def _first(footers: list[Footer]) -> pd.Timestamp:
    return min(cast(pd.Timestamp, f.info.first) for f in footers)


def _date(day: int) -> dt.date:
    return _EPOCH + dt.timedelta(days=int(day))


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
    column_of, columns = pd.factorize(np.array(names, dtype=object), sort=True)
    own = column_of[keys]
    order = np.lexsort((times, own))
    times, own = times[order], own[order]
    new = np.ones(len(times), dtype=bool)
    new[1:] = (np.diff(times) != 0) | (np.diff(own) != 0)
    day0, days = int(times.min() // _DAY_NS), int(np.ptp(times // _DAY_NS)) + 1
    cells = (times[new] // _DAY_NS - day0) * len(columns) + own[new]
    table = np.bincount(cells, minlength=days * len(columns)).reshape(days, len(columns))
    index = pd.Index([_date(day0 + d) for d in range(days)], name="day", dtype=object)
    frame = pd.DataFrame(table, index=index, columns=columns)
    return frame.iloc[np.flatnonzero(table.any(axis=1))].astype(np.int64)


def _may_touch(footer: Footer, path: str, start: pd.Timestamp, end: pd.Timestamp, regions: set[str]) -> bool:
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


def _columns_of(footer: Footer, kind: Kind, extras: list[str] | None) -> list[str]:
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
