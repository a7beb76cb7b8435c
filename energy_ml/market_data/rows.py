"""Rows of one kind as arrays, and the rules that prices and telemetry share: order, clocks, duplicates, missing values.

What belongs here: whatever doesn't care what the values mean. What doesn't: rules of prices (``cleaning``) or of
batteries (``telemetry``), types (``schema``).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from energy_ml.arrays import Booleans, Floats, Integers
from energy_ml.config import SUPPORTED_INTERVALS
from energy_ml.errors import DataError, DuplicateError, IntervalError, TimestampError
from energy_ml.market_data.schema import KEY_COLUMN, DataProblem, Kind, normalise, text_dtype, utc
from energy_ml.names import CAPACITY, IS_FILLED, PRICE, REGION, TIMESTAMP

_FUTURE_TOLERANCE = pd.Timedelta(hours=1)
"""How far clocks may be apart before a timestamp counts as lying in the future."""
MINUTE = 60 * 10**9
"""Nanoseconds."""

_FREE_CELLS, _CELLS_PER_ROW = 1_000_000, 20
_JITTER = 10**9  # one second: clocks that stamp 00:05:00.2 mean 00:05


def most_cells(rows: int) -> int:
    """Intervals x regions that so many rows may be laid out on: a stray timestamp mustn't fill the memory."""
    return _FREE_CELLS + _CELLS_PER_ROW * rows


def rows_by_code(codes: Integers, count: int) -> list[Integers]:
    """The rows of each of ``count`` codes, in order; one sort, where a comparison per code would go with their square.

    >>> [rows.tolist() for rows in rows_by_code(np.array([1, 0, 1]), 3)]
    [[1], [0, 2], []]
    """
    ends = np.cumsum(np.bincount(codes, minlength=count))
    return np.split(np.argsort(codes, kind="stable"), ends[:-1])


def infer_interval(series: Sequence[Integers]) -> int | None:
    """Most common step, in minutes, of ascending timestamps (ns), one array per region; None if it isn't supported.

    Ties go to the shorter step.
    """
    steps = np.concatenate([np.diff(times) for times in series]) if series else np.empty(0, dtype=np.int64)
    steps = steps[steps > 0]
    if not len(steps):
        return None
    values, counts = np.unique(steps, return_counts=True)
    minutes, rest = divmod(int(values[np.argmax(counts)]), MINUTE)
    return minutes if rest == 0 and minutes in SUPPORTED_INTERVALS else None


def unsupported_interval(series: Sequence[Integers], given: int | None = None, file: object = None) -> IntervalError:
    """What to say of ascending timestamps (ns), one array per region, whose most common step isn't supported."""
    values, counts = np.unique(np.concatenate([np.diff(times) for times in series]), return_counts=True)
    most = f"{values[np.argmax(counts)] / MINUTE:.6g} minutes" if len(values) else "unknown: one row per region"
    return IntervalError(
        f"the interval is {most if given is None else f'{given} minutes'}",
        file=file,
        column=TIMESTAMP,
        rows=sum(map(len, series)),
        example=pd.Timestamp(int(series[0][0]), tz="UTC"),
        expected=f"one of {', '.join(map(str, SUPPORTED_INTERVALS))} minutes",
        remedy="resample the prices to one of these, or round the timestamps to the interval's start"
        if len(values)
        else "give more rows, or say the interval",
    )


def recent_interval(stamps: Integers) -> int | None:
    """``infer_interval`` of the newest timestamps of a frame, of which most are looked for at its end."""
    return infer_interval([np.unique(stamps[-2000:])[-49:]])


@dataclass
class Rows:
    """Columns of one long frame as arrays of n values each, and all that is found wrong with them.

    ``keys`` indexes ``names`` (regions or battery ids).
    """

    kind: Kind
    times: Integers
    keys: Integers
    names: list[str]
    values: dict[str, Floats]
    texts: dict[str, pd.Series]
    row: Integers
    """Position in the frame that came in, for naming the file of an example."""
    sources: list[tuple[str, int]]
    problems: list[DataProblem]
    errors: list[DataError] = field(default_factory=list)

    @classmethod
    def of(cls, frame: pd.DataFrame, kind: Kind, extra_columns: Sequence[str] | None) -> Rows:
        """The rows of a frame, typed as ``normalise`` does; files and problems come from its ``attrs``."""
        before = [DataProblem(**p) for p in frame.attrs.get("problems", [])]
        sources = [(str(path), int(count)) for path, count in frame.attrs.get("sources", [])]
        in_order = isinstance(frame.index, pd.RangeIndex) and sum(count for _, count in sources) == len(frame)
        typed, problems = normalise(frame, kind, extra_columns=extra_columns)
        if kind == "prices" and IS_FILLED in frame:  # cleaned before: what was filled isn't known any better now
            typed[PRICE] = typed[PRICE].mask(frame[IS_FILLED].to_numpy(dtype=bool))
        codes, names = pd.factorize(typed[KEY_COLUMN[kind]], sort=True)
        texts = {c: typed[c] for c in (REGION,) if kind == "batteries" and c in typed.columns}
        skip = {TIMESTAMP, KEY_COLUMN[kind], *texts}
        return cls(
            kind=kind,
            times=pd.DatetimeIndex(typed[TIMESTAMP]).asi8,
            keys=codes.astype(np.int64),
            names=[str(name) for name in names],
            values={str(c): typed[c].to_numpy(dtype=np.float64) for c in typed.columns if c not in skip},
            texts=texts,
            row=np.arange(len(typed), dtype=np.int64),
            sources=sources if in_order else [],
            problems=before + problems,
        )

    def __len__(self) -> int:
        return len(self.times)

    def note(
        self, kind: str, message: str, mask: Booleans, column: str, *, repaired: bool = True, value: bool = False
    ) -> None:
        """List the rows of ``mask`` (n,), if there are any; ``value`` shows the column's in the example."""
        if mask.any():
            example, file = self.example(mask, column if value else None), self.file_of(mask)
            self.problems.append(DataProblem(kind, message, int(mask.sum()), repaired, example, column, file))

    def refuse(
        self,
        error: type[DataError],
        found: str,
        mask: Booleans,
        column: str,
        expected: str,
        remedy: str,
        *,
        value: bool = False,
    ) -> None:
        """Refuse the rows of ``mask`` (n,), if there are any: ``raise_errors`` raises."""
        if mask.any():
            self.errors.append(
                error(
                    found,
                    file=self.file_of(mask),
                    column=column,
                    rows=int(mask.sum()),
                    example=self.example(mask, column if value else None),
                    expected=expected,
                    remedy=remedy,
                )
            )

    @property
    def naive(self) -> bool:
        """Whether timestamps came without a zone and were taken as UTC."""
        return any(problem.kind == "naive_timestamps" for problem in self.problems)

    def raise_errors(self) -> None:
        """Raise the first error, the others in its message."""
        if not self.errors:
            return
        first, others = self.errors[0], self.errors[1:]
        unreadable = [p.file for p in self.problems if p.kind == "unreadable_file" and p.file]
        if unreadable:
            first.args = (f"{first.args[0]} The rows may be in files that can't be read: {', '.join(unreadable)}.",)
        if others:
            more = " | ".join(f"{type(e).__name__}: {e.found}" for e in others)
            many = f"{len(others)} more problem{'s' if len(others) > 1 else ''}"
            first.args = (f"{first.args[0]} And {many}: {more}",)
        raise first

    def keep_between(self, low: int | None, high: int | None) -> None:
        """Keep the rows of [low, high) (ns); None is without end."""
        inside = np.ones(len(self), dtype=bool)
        if low is not None:
            inside &= self.times >= low
        if high is not None:
            inside &= self.times < high
        self.keep(inside)

    def keep(self, which: Booleans | Integers) -> None:
        """Keep rows by mask or by position."""
        if which.dtype == bool and which.all():
            return
        self.times, self.keys, self.row = self.times[which], self.keys[which], self.row[which]
        self.values = {name: values[which] for name, values in self.values.items()}
        positions = np.flatnonzero(which) if which.dtype == bool else which
        self.texts = {name: values.take(positions).reset_index(drop=True) for name, values in self.texts.items()}

    def sort(self) -> None:
        """Sort by key, then time; rows that don't ascend in time within their key are reported."""
        by_key = np.argsort(self.keys, kind="stable")
        keys, times = self.keys[by_key], self.times[by_key]
        back = (np.diff(times) < 0) & (np.diff(keys) == 0)
        if self.sources and back.any():  # where one file ends and another begins, there is no order to keep
            ends = np.cumsum([count for _, count in self.sources])
            files = np.searchsorted(ends, self.row[by_key], side="right")
            wrong = back & (np.diff(files) == 0)
        else:
            wrong = back
        late = np.zeros(len(self), dtype=bool)
        late[by_key[1:][wrong]] = True
        self.note("unsorted", "rows weren't in the order of time and were sorted", late, TIMESTAMP)
        if back.any():
            self.keep(np.lexsort((self.row, self.times, self.keys)))
        elif (np.diff(self.keys) < 0).any():
            self.keep(by_key)

    def series(self) -> list[slice]:
        """One slice per key; rows must be sorted."""
        bounds = np.flatnonzero(np.diff(self.keys)) + 1
        edges = [0, *bounds.tolist(), len(self)] if len(self) else []
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def example(self, mask: Booleans, column: str | None = None) -> str:
        """The first row of ``mask`` in words, with the value of ``column``."""
        i = int(np.argmax(mask))
        text = f"{pd.Timestamp(int(self.times[i]), tz='UTC')} {self.names[self.keys[i]]}"
        return text if column is None else f"{text} {column} = {self.values[column][i]:g}"

    def file_of(self, mask: Booleans) -> str | None:
        """File of the first row in ``mask``, where the lake told which rows came from which file."""
        return self._file_at(int(self.row[int(np.argmax(mask))]))

    def _file_at(self, row: int) -> str | None:
        ends = np.cumsum([count for _, count in self.sources])
        return self.sources[int(np.searchsorted(ends, row, side="right"))][0] if self.sources else None

    def to_frame(self, order: Integers) -> pd.DataFrame:
        """The rows at the positions ``order`` as a long frame."""
        numbers = {name: values[order] for name, values in self.values.items()}
        texts = {name: values.take(order).reset_index(drop=True) for name, values in self.texts.items()}
        key = KEY_COLUMN[self.kind]
        return long_frame(self.times[order], key, self.keys[order], self.names, {**numbers, **texts})


def long_frame(
    times: Integers, key: str, codes: Integers, names: list[str], columns: Mapping[str, object]
) -> pd.DataFrame:
    """Instants (ns), the names of ``codes`` in the column ``key``, and further columns; n rows."""
    texts = pd.Series(names, dtype=text_dtype()).take(codes).reset_index(drop=True)
    return pd.DataFrame({TIMESTAMP: pd.DatetimeIndex(times.view("datetime64[ns]"), tz="UTC"), key: texts, **columns})


def nanoseconds(moment: pd.Timestamp | None) -> int | None:
    """Nanoseconds since 1970 of a moment, UTC where it has no zone."""
    return None if moment is None else int(utc(moment).value)


def snap_jitter(rows: Rows) -> None:
    """Round timestamps that are up to a second off to their minute."""
    nearest = (rows.times + MINUTE // 2) // MINUTE * MINUTE
    off = nearest - rows.times
    jitter = (off != 0) & (np.abs(off) <= _JITTER)
    rows.note("jitter", "timestamps up to a second off a whole minute were rounded to it", jitter, TIMESTAMP)
    rows.times = np.where(jitter, nearest, rows.times)


def refuse_future(rows: Rows, now: pd.Timestamp | None) -> None:
    """Refuse rows later than an hour from ``now``."""
    limit = utc(pd.Timestamp.now("UTC") if now is None else now) + _FUTURE_TOLERANCE
    rows.refuse(
        TimestampError,
        "timestamps lie in the future",
        rows.times > limit.value,
        TIMESTAMP,
        f"nothing after {limit.floor('s')}",
        "correct the timestamps' time zone or this machine's clock; forecasts don't belong here",
    )


def missing_values(rows: Rows, column: str) -> None:
    """Report NaN and infinite values of ``column``; infinite ones become NaN. Other columns too, without a report."""
    for name, values in rows.values.items():
        infinite = np.isinf(values)
        rows.note("infinite_values", f"{name} is infinite; taken as a gap", infinite, name)
        if name == column:
            rows.note("missing_values", f"{name} is missing; taken as a gap", np.isnan(values), name)
        if infinite.any() and name != CAPACITY:
            rows.values[name] = np.where(infinite, np.nan, values)


def merge_duplicates(rows: Rows) -> None:
    """Make (key, time) unique; rows must be sorted. Missing values agree with any value, which then stands."""
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (np.diff(rows.keys) != 0) | (np.diff(rows.times) != 0)
    if first.all():
        return
    starts = np.flatnonzero(first)
    size = np.diff([*starts, len(rows)])
    disagree = np.zeros(len(starts), dtype=bool)
    column = None
    for name, values in rows.values.items():
        low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
        differs = (low != high) & ~(np.isnan(low) & np.isnan(high))
        if differs.any() and column is None:
            column = name
        disagree |= differs
        rows.values[name] = values.copy()
        rows.values[name][starts] = low
    if disagree.any():
        where, local = np.flatnonzero(disagree)[0], rows.naive and _one_hour_each(rows, rows.times[starts[size > 1]])
        here = rows.row[starts[where] : starts[where] + size[where]]
        rows.errors.append(
            DuplicateError(
                f"rows share timestamp and {KEY_COLUMN[rows.kind]} but disagree in their values"
                + (": probably local time, of a day of 25 hours" if local else ""),
                file=" and ".join(sorted({file for row in here if (file := rows._file_at(int(row)))})) or None,
                column=column,
                rows=int(size[disagree].sum()),
                example=rows.example(np.isin(np.arange(len(rows)), starts[disagree])),
                expected="one row each, or repeated rows that agree",
                remedy="set ENERGY_ML_INPUT_ZONE to the time zone of these timestamps, such as Europe/Paris"
                if local
                else "keep the right one of these rows; overlapping files must agree where they overlap",
            )
        )
    repeated = ~first & np.repeat(~disagree, size)
    rows.note("duplicates", "repeated rows that agree were dropped", repeated, TIMESTAMP)
    rows.keep(first)


def _one_hour_each(rows: Rows, times: Integers) -> bool:
    """Whether the repeated times (ns) are one whole hour of few days, far apart, as when clocks are set back."""
    minutes = infer_interval([rows.times[part] for part in rows.series()])
    hours, whole = np.unique(np.unique(times) // (60 * MINUTE), return_counts=True)
    return minutes is not None and bool((whole * minutes == 60).all() and (np.diff(hours) > 90 * 24).all())
