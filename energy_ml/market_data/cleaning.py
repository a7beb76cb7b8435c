"""Rules for bad rows: each kind of problem is named, and repaired by a stated rule or refused in words.

What belongs here: values, duplicates, order, gaps, intervals of rows that already have the right types.
What doesn't: types (``schema``), files (``lake``), features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.config import SUPPORTED_INTERVALS
from energy_ml.errors import (
    DataError,
    DuplicateError,
    GapError,
    IncompleteWindowError,
    IntervalError,
    NoDataError,
    TimestampError,
    UnknownRegionError,
    ValueRangeError,
)
from energy_ml.market_data.schema import (
    CAPACITY,
    CHARGE,
    IS_FILLED,
    KEY_COLUMN,
    POWER,
    PRICE,
    REGION,
    TIMESTAMP,
    DataProblem,
    Kind,
    normalise,
)

__all__ = ["CleanBatteries", "CleanPrices", "DataProblem", "clean_batteries", "clean_prices", "infer_interval"]

MAX_ABS_PRICE = 50_000.0
"""Beyond it a price is a mistake: the highest cap of any market is about 20,000 currency/MWh."""
FUTURE_TOLERANCE = pd.Timedelta(hours=1)
"""How far clocks may be apart before a timestamp counts as lying in the future."""
MIN_COVERAGE = 0.90
"""Least share of intervals that a region must really have; the rest may be short gaps."""
FLATLINE_MINUTES = 360
"""A price that stays the same for longer is reported: feeds that hang look like that."""
MIXED_RUN = 12
"""So many steps in a row of another supported interval mean mixed intervals rather than gaps."""

_MINUTE = 60 * 10**9
_JITTER = 10**9  # one second: clocks that stamp 00:05:00.2 mean 00:05
_OVER_FULL = 0.01  # share of capacity by which a meter may be off before it is reported as a problem of its own
_LOSSES = 1.2  # power is measured at the grid; what leaves the cells is more by the losses of discharging

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CleanPrices:
    """A complete grid: one row per (timestamp, region), sorted so; ``is_filled`` marks prices that weren't measured.

    ``real_time_price`` is NaN only in a short gap at the very start of a region (nothing to fill from; also flagged),
    in the warm-up, or where ``partial_regions="keep"`` asked for it.
    """

    frame: pd.DataFrame
    interval_minutes: int
    problems: list[DataProblem] = field(default_factory=list)


@dataclass(frozen=True)
class CleanBatteries:
    """Telemetry sorted by (timestamp, battery_id), as often as it came; ``is_filled`` marks charge levels repaired.

    ``interval_minutes`` is None where the telemetry keeps to no interval.
    """

    frame: pd.DataFrame
    interval_minutes: int | None
    problems: list[DataProblem] = field(default_factory=list)


def clean_prices(
    frame: pd.DataFrame,
    *,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    max_gap_minutes: int = 30,
    interval_minutes: int | None = None,
    regions: Sequence[str] | None = None,
    warmup_minutes: int = 0,
    max_abs_price: float = MAX_ABS_PRICE,
    min_coverage: float = MIN_COVERAGE,
    partial_regions: Literal["refuse", "drop", "keep"] = "refuse",
    flatline_minutes: int = FLATLINE_MINUTES,
    now: pd.Timestamp | None = None,
) -> CleanPrices:
    """Put the prices of a window on a complete grid, repairing what a stated rule repairs and refusing the rest.

    Repaired and listed in ``problems``: types that convert (see ``schema.normalise``); jitter of up to a second; rows
    out of order; duplicates that agree (a missing value agrees with any); NaN and infinite prices (then missing);
    missing intervals, filled with the last price for up to ``max_gap_minutes`` and flagged in ``is_filled``. Extra
    columns are filled the same way and stay NaN beyond. Warned of: prices that stay the same for longer than
    ``flatline_minutes``. The price of a short gap at a region's very start stays NaN: the next one isn't known yet.

    Parameters
    ----------
    frame : long prices; n rows, any order. If it was cleaned before, rows with ``is_filled`` count as missing. File
        names in messages come from ``attrs`` as the lake sets them.
    start, end : half-open UTC window that must be covered; None means from the first row, to the last.
    interval_minutes : None infers it from the most common step.
    regions : all of them must be there, others are left out; None means those that the lake was asked for, else all
        in the frame.
    warmup_minutes : keep up to so much before ``start``; it may be missing in part or whole (then NaN, or shorter).
    max_abs_price : currency/MWh, beyond which a price is refused.
    min_coverage : least share of measured intervals per region (one short gap is always allowed).
    partial_regions : what to do with a region that starts late, stops early or has less than ``min_coverage``: refuse
        the window, drop the region (a problem says so), or keep it with NaN at its ends.
    now : for telling future timestamps; defaults to the clock.

    Raises
    ------
    The first of these, with all others that were found in its message: NoDataError, SchemaError, TimestampError
    (future, off the grid), DuplicateError, ValueRangeError, IntervalError, GapError, IncompleteWindowError,
    UnknownRegionError.
    """
    rows = _Rows.of(frame, "prices", None)
    found = _Findings(rows.problems)
    low, high = _ns(start), _ns(end)
    window_from = None if low is None else low - warmup_minutes * _MINUTE
    regions = frame.attrs.get("regions") if regions is None else regions
    if regions is not None:
        absent = [r for r in regions if r not in rows.names]
        if absent and len(rows):
            found.refuse(
                UnknownRegionError(
                    f"region{'s' if len(absent) > 1 else ''} {', '.join(absent)} "
                    f"{'have' if len(absent) > 1 else 'has'} no rows in the window",
                    column=REGION,
                    expected=f"some of {', '.join(sorted(rows.names))}",
                    remedy="correct ENERGY_ML_REGIONS or add the missing files",
                )
            )
        rows.keep(np.isin(rows.keys, [i for i, name in enumerate(rows.names) if name in regions]))
    _snap_jitter(rows, found)
    inside = np.ones(len(rows), dtype=bool)
    if window_from is not None:
        inside &= rows.times >= window_from
    if high is not None:
        inside &= rows.times < high
    rows.keep(inside)
    if not len(rows) or (low is not None and not (rows.times >= low).any()):
        found.refuse(
            NoDataError(
                f"there are no prices{_span(start, end)}",
                rows=0,
                expected="rows for every interval of the window",
                remedy="add the missing files or choose another day",
            )
        )
        found.raise_any()
    _refuse_future(rows, found, now)
    _refuse_absurd(rows, found, max_abs_price)
    _missing_values(rows, found, PRICE)
    rows.sort(found)
    _merge_duplicates(rows, found)
    minutes = _interval(rows, found, interval_minutes)
    if minutes is None:
        found.raise_any()
        raise AssertionError("an unknown interval is always refused")
    off = rows.times % (minutes * _MINUTE) != 0
    if off.any():
        found.refuse(
            TimestampError(
                f"timestamps are off the grid of {minutes} minutes",
                file=rows.file_of(off),
                column=TIMESTAMP,
                rows=int(off.sum()),
                example=rows.example(off),
                expected=f"the start of an interval: whole multiples of {minutes} minutes since midnight UTC",
                remedy="round the timestamps down to the interval's start",
            )
        )
        found.raise_any()
    table = _fill_grid(rows, found, minutes, low, high, max_gap_minutes, min_coverage, partial_regions)
    found.raise_any()
    _warn_flatlines(table, found, minutes, flatline_minutes)
    return CleanPrices(table.to_frame(), minutes, found.problems)


def clean_batteries(
    frame: pd.DataFrame,
    *,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    max_gap_minutes: int = 30,
    now: pd.Timestamp | None = None,
) -> CleanBatteries:
    """Check battery telemetry; it accompanies prices, so all but contradictions is repaired or reported.

    Repaired and listed: types, jitter, order, agreeing duplicates; missing charge levels are filled with the last one
    for up to ``max_gap_minutes`` and left NaN beyond; levels outside [0, capacity] are clipped; all these rows have
    ``is_filled``. Reported only: gaps in time, and charge levels that change faster than the battery's largest
    ``power_mw`` allows (without that column: than a full charge in 15 minutes).

    Raises DuplicateError, TimestampError (future), ValueRangeError (capacity not above zero), SchemaError. An empty
    frame is fine and gives an empty one.
    """
    rows = _Rows.of(frame, "batteries", None)
    found = _Findings(rows.problems)
    _snap_jitter(rows, found)
    low, high = _ns(start), _ns(end)
    inside = np.ones(len(rows), dtype=bool)
    if low is not None:
        inside &= rows.times >= low
    if high is not None:
        inside &= rows.times < high
    rows.keep(inside)
    _refuse_future(rows, found, now)
    bad = ~(rows.values[CAPACITY] > 0) | np.isinf(rows.values[CAPACITY])
    if bad.any():
        found.refuse(
            ValueRangeError(
                "capacities aren't above zero",
                file=rows.file_of(bad),
                column=CAPACITY,
                rows=int(bad.sum()),
                example=rows.example(bad, CAPACITY),
                expected="MWh above 0",
                remedy="correct the capacity or drop these rows",
            )
        )
    _missing_values(rows, found, CHARGE)
    rows.sort(found)
    _merge_duplicates(rows, found)
    found.raise_any()
    repaired = _fill_charge(rows, max_gap_minutes)
    repaired |= _clip_charge(rows, found)
    minutes = infer_interval([rows.times[s] for s in rows.series()])
    _report_telemetry_gaps(rows, found, minutes, max_gap_minutes)
    _report_jumps(rows, found)
    order = np.lexsort((rows.keys, rows.times))
    result = rows.to_frame(order)
    result[IS_FILLED] = repaired[order]
    return CleanBatteries(result, minutes, found.problems)


def infer_interval(series: Sequence[Ints]) -> int | None:
    """Most common step, in minutes, of ascending timestamps (ns), one array per region; None if it isn't supported.

    Ties go to the shorter step.
    """
    steps = np.concatenate([np.diff(times) for times in series]) if series else np.empty(0, dtype=np.int64)
    steps = steps[steps > 0]
    if not len(steps):
        return None
    values, counts = np.unique(steps, return_counts=True)
    minutes, rest = divmod(int(values[np.argmax(counts)]), _MINUTE)
    return minutes if rest == 0 and minutes in SUPPORTED_INTERVALS else None


class _Findings:
    """Collects problems and errors, so that one run names everything that is wrong."""

    def __init__(self, problems: list[DataProblem]) -> None:
        self.problems = problems
        self.errors: list[DataError] = []

    def note(self, kind: str, message: str, rows: int, repaired: bool, **where: str | None) -> None:
        self.problems.append(DataProblem(kind, message, rows, repaired, **where))

    def refuse(self, error: DataError) -> None:
        self.errors.append(error)

    def raise_any(self) -> None:
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


@dataclass
class _Rows:
    """Columns of one long frame as arrays of n values each; ``keys`` indexes ``names`` (regions or battery ids)."""

    kind: Kind
    times: Ints
    keys: Ints
    names: list[str]
    values: dict[str, Floats]
    texts: dict[str, pd.Series]
    row: Ints
    """Position in the frame that came in, for naming the file of an example."""
    sources: list[tuple[str, int]]
    problems: list[DataProblem]

    @classmethod
    def of(cls, frame: pd.DataFrame, kind: Kind, extra_columns: Sequence[str] | None) -> _Rows:
        before = [DataProblem(**p) for p in frame.attrs.get("problems", [])]
        sources = [(str(path), int(count)) for path, count in frame.attrs.get("sources", [])]
        in_order = isinstance(frame.index, pd.RangeIndex) and sum(count for _, count in sources) == len(frame)
        typed, problems = normalise(frame, kind, extra_columns=extra_columns)
        if (
            kind == "prices" and IS_FILLED in frame.columns
        ):  # cleaned before: what was filled isn't known any better now
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

    def keep(self, which: Array) -> None:
        """Keep rows by mask or by position."""
        if which.dtype == bool and which.all():
            return
        self.times, self.keys, self.row = self.times[which], self.keys[which], self.row[which]
        self.values = {name: values[which] for name, values in self.values.items()}
        positions = np.flatnonzero(which) if which.dtype == bool else which
        self.texts = {name: values.take(positions).reset_index(drop=True) for name, values in self.texts.items()}

    def sort(self, found: _Findings) -> None:
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
        if wrong.any():
            late = np.zeros(len(self), dtype=bool)
            late[by_key[1:][wrong]] = True
            found.note(
                "unsorted",
                "rows weren't in the order of time and were sorted",
                int(wrong.sum()),
                True,
                example=self.example(late),
                column=TIMESTAMP,
                file=self.file_of(late),
            )
        if back.any():
            self.keep(np.lexsort((self.row, self.times, self.keys)))
        elif (np.diff(self.keys) < 0).any():
            self.keep(by_key)

    def series(self) -> list[slice]:
        """One slice per key; rows must be sorted."""
        bounds = np.flatnonzero(np.diff(self.keys)) + 1
        edges = [0, *bounds.tolist(), len(self)] if len(self) else []
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def example(self, mask: Bools, column: str | None = None) -> str:
        i = int(np.argmax(mask))
        text = f"{pd.Timestamp(int(self.times[i]), tz='UTC')} {self.names[self.keys[i]]}"
        return text if column is None else f"{text} {column} = {self.values[column][i]:g}"

    def file_of(self, mask: Bools) -> str | None:
        """File of the first row in ``mask``, where the lake told which rows came from which file."""
        return self.file_at(int(self.row[int(np.argmax(mask))])) if mask.any() else None

    def file_at(self, row: int) -> str | None:
        ends = np.cumsum([count for _, count in self.sources])
        return self.sources[int(np.searchsorted(ends, row, side="right"))][0] if self.sources else None

    def to_frame(self, order: Ints) -> pd.DataFrame:
        names = pd.Series(self.names, dtype=_text_dtype())
        columns: dict[str, Any] = {
            TIMESTAMP: pd.DatetimeIndex(self.times[order].view("datetime64[ns]"), tz="UTC"),
            KEY_COLUMN[self.kind]: names.take(self.keys[order]).reset_index(drop=True),
        }
        columns |= {name: values[order] for name, values in self.values.items()}
        columns |= {name: values.take(order).reset_index(drop=True) for name, values in self.texts.items()}
        return pd.DataFrame(columns)


def _text_dtype() -> Any:
    return pd.Series(["a"]).dtype


def _ns(moment: pd.Timestamp | None) -> int | None:
    if moment is None:
        return None
    stamp = pd.Timestamp(moment)
    stamp = stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")
    return int(stamp.as_unit("ns").value)


def _span(start: pd.Timestamp | None, end: pd.Timestamp | None) -> str:
    return (f" from {start}" if start is not None else "") + (f" to {end}" if end is not None else "")


def _time(ns: int) -> str:
    return str(pd.Timestamp(int(ns), tz="UTC"))


# --- Timestamps and values --------------------------------------------------------------------------------------


def _snap_jitter(rows: _Rows, found: _Findings) -> None:
    nearest = (rows.times + _MINUTE // 2) // _MINUTE * _MINUTE
    off = nearest - rows.times
    jitter = (off != 0) & (np.abs(off) <= _JITTER)
    if jitter.any():
        found.note(
            "jitter",
            "timestamps up to a second off a whole minute were rounded to it",
            int(jitter.sum()),
            True,
            example=rows.example(jitter),
            column=TIMESTAMP,
            file=rows.file_of(jitter),
        )
        rows.times = np.where(jitter, nearest, rows.times)


def _refuse_future(rows: _Rows, found: _Findings, now: pd.Timestamp | None) -> None:
    limit = pd.Timestamp(_ns(pd.Timestamp.now("UTC") if now is None else now) or 0, tz="UTC") + FUTURE_TOLERANCE
    future = rows.times > limit.as_unit("ns").value
    if future.any():
        found.refuse(
            TimestampError(
                "timestamps lie in the future",
                file=rows.file_of(future),
                column=TIMESTAMP,
                rows=int(future.sum()),
                example=rows.example(future),
                expected=f"nothing after {limit.floor('s')}",
                remedy="correct the timestamps' time zone or this machine's clock; forecasts don't belong here",
            )
        )


def _refuse_absurd(rows: _Rows, found: _Findings, limit: float) -> None:
    prices = rows.values[PRICE]
    absurd = (np.abs(prices) > limit) & np.isfinite(prices)
    if absurd.any():
        found.refuse(
            ValueRangeError(
                "prices are absurd",
                file=rows.file_of(absurd),
                column=PRICE,
                rows=int(absurd.sum()),
                example=rows.example(absurd, PRICE),
                expected=f"between {-limit:,.0f} and {limit:,.0f} currency/MWh",
                remedy="correct or drop these rows, or raise max_abs_price if this market really has such prices",
            )
        )
        rows.values[PRICE] = np.where(absurd, np.nan, prices)


def _missing_values(rows: _Rows, found: _Findings, column: str) -> None:
    """Report NaN and infinite values of ``column``; infinite ones become NaN. Other columns too, without a report."""
    for name, values in rows.values.items():
        infinite, missing = np.isinf(values), np.isnan(values)
        if name != column and not infinite.any():
            continue
        for kind, mask in (("infinite_values", infinite), ("missing_values", missing)):
            if mask.any() and (name == column or kind == "infinite_values"):
                found.note(
                    kind,
                    f"{name} is {'infinite' if kind == 'infinite_values' else 'missing'}; taken as a gap",
                    int(mask.sum()),
                    True,
                    example=rows.example(mask),
                    column=name,
                    file=rows.file_of(mask),
                )
        if infinite.any() and name != CAPACITY:
            rows.values[name] = np.where(infinite, np.nan, values)


def _merge_duplicates(rows: _Rows, found: _Findings) -> None:
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
        differs = low != high
        differs &= ~(np.isnan(low) & np.isnan(high))
        if differs.any() and column is None:
            column = name
        disagree |= differs
        rows.values[name] = _broadcast_first(values, starts, low)
    agreeing = int((size[~disagree] - 1).sum())
    if disagree.any():
        mask = np.zeros(len(rows), dtype=bool)
        mask[starts[disagree]] = True
        where = starts[disagree][0]
        files = sorted({f for f in (rows.file_at(int(r)) for r in rows.row[where : where + size[disagree][0]]) if f})
        found.refuse(
            DuplicateError(
                "rows share timestamp and " + KEY_COLUMN[rows.kind] + " but disagree in their values",
                file=" and ".join(files) or None,
                column=column,
                rows=int(size[disagree].sum()),
                example=rows.example(mask),
                expected="one row each, or repeated rows that agree",
                remedy="keep the right one of these rows; overlapping files must agree where they overlap",
            )
        )
    if agreeing:
        mask = np.zeros(len(rows), dtype=bool)
        mask[starts[(size > 1) & ~disagree]] = True
        found.note(
            "duplicates",
            "repeated rows that agree were dropped",
            agreeing,
            True,
            example=rows.example(mask),
            column=TIMESTAMP,
            file=rows.file_of(mask),
        )
    rows.keep(first)


def _broadcast_first(values: Floats, starts: Ints, merged: Floats) -> Floats:
    result = values.copy()
    result[starts] = merged
    return result


# --- Interval and grid ------------------------------------------------------------------------------------------


def _interval(rows: _Rows, found: _Findings, given: int | None) -> int | None:
    """The window's one interval in minutes; None, with an error noted, if there is none. Rows must be sorted."""
    series = rows.series()
    minutes = given if given is not None else infer_interval([rows.times[s] for s in series])
    supported = ", ".join(map(str, SUPPORTED_INTERVALS))
    if minutes is None or minutes not in SUPPORTED_INTERVALS:
        steps = np.concatenate([np.diff(rows.times[s]) for s in series])
        values, counts = np.unique(steps, return_counts=True)
        most = f"{values[np.argmax(counts)] / _MINUTE:g} minutes" if len(values) else "unknown: one row per region"
        found.refuse(
            IntervalError(
                f"the interval is {given if given is not None else most}",
                column=TIMESTAMP,
                rows=len(rows),
                example=_time(int(rows.times[0])),
                expected=f"one of {supported} minutes",
                remedy="resample the prices to one of these",
            )
        )
        return None
    for part in series:
        run = _mixed_run(rows.times[part], minutes)
        if run is None:
            continue
        other, at = run
        mask = np.zeros(len(rows), dtype=bool)
        mask[part.start + at] = True
        found.refuse(
            IntervalError(
                f"intervals of {minutes} and {other} minutes are mixed",
                file=rows.file_of(mask),
                column=TIMESTAMP,
                rows=int((np.diff(rows.times[part]) == other * _MINUTE).sum()) + 1,
                example=rows.example(mask),
                expected="one interval for all regions of a window",
                remedy="resample the files to one interval, or keep them in separate folders",
            )
        )
        return None
    return minutes


def _mixed_run(times: Ints, minutes: int) -> tuple[int, int] | None:
    """Another supported interval that at least MIXED_RUN steps in a row keep to, and where; None if there is none."""
    steps = np.diff(times)
    other = steps != minutes * _MINUTE
    if int(other.sum()) < MIXED_RUN:
        return None
    for candidate in SUPPORTED_INTERVALS:
        if candidate == minutes:
            continue
        starts, lengths = _runs(steps == candidate * _MINUTE)
        if len(lengths) and lengths.max() >= MIXED_RUN:
            return candidate, int(starts[np.argmax(lengths >= MIXED_RUN)])
    return None


def _runs(mask: Bools) -> tuple[Ints, Ints]:
    """Start and length of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return edges[::2], edges[1::2] - edges[::2]


@dataclass
class _Grid:
    """Dense columns (T, R): T timestamps from ``first`` (ns) by ``minutes``, R regions."""

    first: int
    minutes: int
    names: list[str]
    values: dict[str, Floats]
    filled: Bools

    def at(self, step: int) -> str:
        return _time(self.first + int(step) * self.minutes * _MINUTE)

    def select(self, columns: Ints) -> None:
        self.names = [self.names[c] for c in columns]
        self.values = {name: values[:, columns] for name, values in self.values.items()}
        self.filled = self.filled[:, columns]

    def to_frame(self) -> pd.DataFrame:
        steps, width = self.filled.shape
        times = self.first + np.arange(steps, dtype=np.int64) * (self.minutes * _MINUTE)
        names = pd.Series(self.names, dtype=_text_dtype())
        columns: dict[str, Any] = {
            TIMESTAMP: pd.DatetimeIndex(np.repeat(times, width).view("datetime64[ns]"), tz="UTC"),
            REGION: names.take(np.tile(np.arange(width), steps)).reset_index(drop=True),
        }
        columns |= {name: values.reshape(-1) for name, values in self.values.items()}
        columns[IS_FILLED] = self.filled.reshape(-1)
        return pd.DataFrame(columns)


def _fill_grid(
    rows: _Rows,
    found: _Findings,
    minutes: int,
    low: int | None,
    high: int | None,
    max_gap_minutes: int,
    min_coverage: float,
    partial: Literal["refuse", "drop", "keep"],
) -> _Grid:
    step = minutes * _MINUTE
    first = int(rows.times.min()) if low is None else min(-(-low // step) * step, int(rows.times.min()))
    after = int(rows.times.max()) + step if high is None else -(-high // step) * step
    used = np.unique(rows.keys)
    column = np.full(len(rows.names), -1, dtype=np.int64)
    column[used] = np.arange(len(used))
    shape = ((after - first) // step, len(used))
    position = ((rows.times - first) // step, column[rows.keys])
    values = {}
    for name, flat in rows.values.items():
        values[name] = np.full(shape, np.nan)
        values[name][position] = flat
    grid = _Grid(first, minutes, [rows.names[k] for k in used], values, np.isnan(values[PRICE]))
    warm = 0 if low is None else max(0, (-(-low // step) * step - first) // step)
    limit = max_gap_minutes // minutes
    dropped = _partial_regions(grid, found, warm, limit, min_coverage, partial)
    if dropped.all():
        return grid
    if dropped.any():
        grid.select(np.flatnonzero(~dropped))
    _gaps(grid, found, warm, limit, max_gap_minutes, partial)
    for name, column_values in grid.values.items():
        grid.values[name] = _forward_fill(column_values, limit)
    return grid


def _partial_regions(
    grid: _Grid,
    found: _Findings,
    warm: int,
    limit: int,
    min_coverage: float,
    partial: Literal["refuse", "drop", "keep"],
) -> Bools:
    """Refuse regions (columns) that don't cover the window, or say which to drop; the warm-up doesn't count."""
    missing = grid.filled[warm:]
    steps = len(missing)
    has = ~missing
    lead = np.where(has.any(axis=0), has.argmax(axis=0), steps)
    trail = np.where(has.any(axis=0), has[::-1].argmax(axis=0), steps)
    if warm:  # what the warm-up ends with may fill a short gap at the start, but says nothing about coverage
        lead = np.where(lead <= limit, 0, lead)
    late, stopped = lead > limit, trail > limit
    within = has.sum(axis=0) / np.maximum(steps, 1)
    # One short gap may be a large share of a short window, and is still a short gap.
    few = steps - has.sum(axis=0) > max(limit, (1 - min_coverage) * steps)
    poor = few & ~late & ~stopped
    bad = late | stopped | poor
    drop = np.zeros(len(grid.names), dtype=bool)
    if not bad.any():
        return drop
    words = []
    for c in np.flatnonzero(bad):
        what = []
        if lead[c] == steps:
            what.append("has no price at all")
        else:
            if late[c]:
                what.append(f"starts only at {grid.at(warm + lead[c])}")
            if stopped[c]:
                what.append(f"stops after {grid.at(warm + steps - 1 - trail[c])}")
            if poor[c]:
                what.append(f"has only {within[c]:.1%} of the intervals")
        words.append(f"{grid.names[c]} {' and '.join(what)}")
    lost = int(missing[:, bad].sum())
    span = f"{grid.at(warm)} to {grid.at(warm + steps)}"
    if partial == "refuse" or (bad.all() and partial == "drop"):
        good = [name for name, is_bad in zip(grid.names, bad, strict=True) if not is_bad]
        remedy = "add the missing prices or choose a window that the files cover"
        if good:
            remedy = f"add the missing prices, or train without: ENERGY_ML_REGIONS={','.join(good)}"
        found.refuse(
            IncompleteWindowError(
                f"{int(bad.sum())} of {len(bad)} regions don't cover the window {span}: {'; '.join(words)}",
                column=PRICE,
                rows=lost,
                expected=f"at least {min_coverage:.0%} of the intervals, none missing for long at either end",
                remedy=remedy,
            )
        )
        return bad
    if partial == "drop":
        found.note("region_dropped", f"left out: {'; '.join(words)}", int(has[:, bad].sum()), True, column=REGION)
        return bad
    found.note("region_partial", f"kept with missing prices: {'; '.join(words)}", lost, False, column=REGION)
    return drop


def _gaps(
    grid: _Grid,
    found: _Findings,
    warm: int,
    limit: int,
    max_gap_minutes: int,
    partial: Literal["refuse", "drop", "keep"],
) -> None:
    """Report gaps that forward filling closes; refuse longer ones, except in the warm-up and at allowed ends."""
    short: list[tuple[int, int, str]] = []
    long: list[tuple[int, int, str]] = []
    leading = 0
    steps = len(grid.filled)
    for c, name in enumerate(grid.names):
        for start, length in zip(*_runs(grid.filled[:, c]), strict=True):
            if start == 0 and length <= limit:
                leading += int(length)
            elif length <= limit:
                short.append((int(start), int(length), name))
            elif start + length <= warm or (start == 0 and length - warm <= limit):
                continue  # a hole in the warm-up: features start later there
            elif partial == "keep" and (start <= warm or start + length == steps):
                continue
            else:
                long.append((int(start), int(length), name))
    if long:
        start, length, name = min(long)
        found.refuse(
            GapError(
                f"{len(long)} gap{'s are' if len(long) > 1 else ' is'} longer than {max_gap_minutes} minutes",
                column=PRICE,
                rows=sum(n for _, n, _ in long),
                example=f"{name} from {grid.at(start)} to {grid.at(start + length)} ({length * grid.minutes} minutes)",
                expected=f"gaps of at most {max_gap_minutes} minutes, which are filled with the last price",
                remedy="add the missing prices, raise max_gap_minutes, or leave the region out with ENERGY_ML_REGIONS",
            )
        )
    if short:
        start, length, name = min(short)
        found.note(
            "short_gap",
            f"{len(short)} gap{'s' if len(short) > 1 else ''} of at most {max_gap_minutes} minutes "
            f"{'were' if len(short) > 1 else 'was'} filled with the last price",
            sum(n for _, n, _ in short),
            True,
            example=f"{name} from {grid.at(start)} to {grid.at(start + length)}",
            column=PRICE,
        )
    if leading and not warm:
        found.note(
            "leading_gap",
            "the first prices of the window are missing and stay so: there is nothing earlier to fill them with",
            leading,
            False,
            example=grid.at(0),
            column=PRICE,
        )


def _forward_fill(values: Floats, limit: int) -> Floats:
    """Carry the last value down each column (T, R) over at most ``limit`` missing ones; longer gaps stay whole."""
    missing = np.isnan(values)
    if not missing.any() or limit == 0:
        return values
    steps = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, steps), axis=0)
    following = np.minimum.accumulate(np.where(missing, len(values), steps)[::-1], axis=0)[::-1]
    fill = missing & (last >= 0) & (following - last - 1 <= limit)
    result = values.copy()
    row, column = np.nonzero(fill)
    result[row, column] = values[last[row, column], column]
    return result


def _warn_flatlines(grid: _Grid, found: _Findings, minutes: int, flatline_minutes: int) -> None:
    prices = np.where(grid.filled, np.nan, grid.values[PRICE])
    same = np.diff(prices, axis=0) == 0
    worst: list[tuple[int, int, str]] = []
    for c, name in enumerate(grid.names):
        starts, lengths = _runs(same[:, c])
        for i in np.flatnonzero((lengths + 1) * minutes > flatline_minutes):
            worst.append((int(lengths[i]) + 1, int(starts[i]), name))
    if worst:
        length, start, name = max(worst)
        found.note(
            "flatline",
            f"prices stay the same for more than {flatline_minutes} minutes {len(worst)} time"
            f"{'s' if len(worst) > 1 else ''}; a hanging feed looks like that",
            sum(n for n, _, _ in worst),
            False,
            example=f"{name} from {grid.at(start)} for {length * minutes} minutes",
            column=PRICE,
        )


# --- Telemetry --------------------------------------------------------------------------------------------------


def _fill_charge(rows: _Rows, max_gap_minutes: int) -> Bools:
    """Fill missing charge levels with the battery's last one if that is at most ``max_gap_minutes`` old."""
    charge = rows.values[CHARGE]
    missing = np.isnan(charge)
    if not missing.any():
        return missing
    index = np.arange(len(rows))
    last = np.maximum.accumulate(np.where(missing, -1, index))
    known = np.maximum(last, 0)
    recent = rows.times - rows.times[known] <= max_gap_minutes * _MINUTE
    fill = missing & (last >= 0) & (rows.keys[known] == rows.keys) & recent
    rows.values[CHARGE] = np.where(fill, charge[known], charge)
    return fill


def _clip_charge(rows: _Rows, found: _Findings) -> Bools:
    charge, capacity = rows.values[CHARGE], rows.values[CAPACITY]
    above, below = charge > capacity * (1 + 1e-9), charge < 0
    for kind, mask, words in (
        ("charge_above_capacity", above, "lie above the capacity and were set to it"),
        ("negative_charge", below, "are negative and were set to 0"),
    ):
        if mask.any():
            gross = mask & ((charge > capacity * (1 + _OVER_FULL)) | (charge < -_OVER_FULL * capacity))
            much = f"; {int(gross.sum()):,} of them by more than {_OVER_FULL:.0%} of the capacity"
            found.note(
                kind,
                f"charge levels {words}{much if gross.any() else ''}",
                int(mask.sum()),
                True,
                example=rows.example(mask, CHARGE),
                column=CHARGE,
                file=rows.file_of(mask),
            )
    rows.values[CHARGE] = np.clip(charge, 0, capacity)
    return above | below


def _report_telemetry_gaps(rows: _Rows, found: _Findings, minutes: int | None, max_gap_minutes: int) -> None:
    if len(rows) < 2:
        return
    limit = max(max_gap_minutes, minutes or 0) * _MINUTE
    gap = np.zeros(len(rows), dtype=bool)
    gap[1:] = (np.diff(rows.times) > limit + (minutes or 0) * _MINUTE) & (np.diff(rows.keys) == 0)
    if gap.any():
        found.note(
            "telemetry_gap",
            f"telemetry pauses for more than {limit // _MINUTE} minutes",
            int(gap.sum()),
            False,
            example=f"before {rows.example(gap)}",
            column=TIMESTAMP,
            file=rows.file_of(gap),
        )


def _report_jumps(rows: _Rows, found: _Findings) -> None:
    if len(rows) < 2:
        return
    hours = np.diff(rows.times) / (60 * _MINUTE)
    limit = 4 * rows.values[CAPACITY]
    if POWER in rows.values:
        largest = np.full(len(rows.names), -np.inf)
        power = np.nan_to_num(np.abs(rows.values[POWER]), nan=-np.inf)
        np.maximum.at(largest, rows.keys, power)
        limit = np.where(largest[rows.keys] > 0, largest[rows.keys], limit)
    change = np.abs(np.diff(rows.values[CHARGE]))
    allowed = _LOSSES * limit[1:] * hours + 1e-3 * rows.values[CAPACITY][1:]
    jump = np.zeros(len(rows), dtype=bool)
    jump[1:] = (change > allowed) & (np.diff(rows.keys) == 0)
    if jump.any():
        found.note(
            "charge_jump",
            "charge levels change faster than the battery's power allows",
            int(jump.sum()),
            False,
            example=rows.example(jump, CHARGE),
            column=CHARGE,
            file=rows.file_of(jump),
        )
