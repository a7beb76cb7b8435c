"""Rules for prices: each kind of problem is named, and repaired by a stated rule or refused in words.

What belongs here: price values, gaps, regions, intervals of rows that already have the right types.
What doesn't: types (``schema``), files (``lake``), rules shared with telemetry (``rows``), features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from energy_ml.config import SUPPORTED_INTERVALS, PricePredictionConfig
from energy_ml.errors import (
    IntervalError,
    NoDataError,
    TimestampError,
    UnknownRegionError,
    ValueRangeError,
)
from energy_ml.market_data.rows import (
    MINUTE,
    Bools,
    Findings,
    Floats,
    Ints,
    Rows,
    infer_interval,
    merge_duplicates,
    missing_values,
    most_cells,
    nanoseconds,
    refuse_future,
    snap_jitter,
    text_dtype,
    unsupported_interval,
)
from energy_ml.market_data.schema import DataProblem
from energy_ml.market_data.telemetry import CleanBatteries, clean_batteries
from energy_ml.names import IS_FILLED, PRICE, REGION, TIMESTAMP

__all__ = ["CleanBatteries", "CleanPrices", "DataProblem", "clean_batteries", "clean_prices"]

MAX_ABS_PRICE = PricePredictionConfig.max_abs_price
"""Beyond it a price is a mistake: the highest cap of any market is about 20,000 currency/MWh."""
FLATLINE_MINUTES = 360
"""A price that stays the same for longer is reported: feeds that hang look like that."""
MIXED_RUN = 12
"""So many steps in a row of another supported interval mean mixed intervals rather than gaps."""


@dataclass(frozen=True)
class CleanPrices:
    """A complete grid: one row per (timestamp, region), sorted so; ``is_filled`` marks prices that weren't measured.

    Where such a price couldn't be filled, ``real_time_price`` is NaN: in holes, which are longer than a short gap, and
    at a region's very start, where there is nothing to fill from.
    """

    frame: pd.DataFrame
    interval_minutes: int
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
    flatline_minutes: int = FLATLINE_MINUTES,
    now: pd.Timestamp | None = None,
    max_cells: int | None = None,
) -> CleanPrices:
    """Put the prices of a window on a complete grid, repairing what a stated rule repairs and refusing the rest.

    Repaired and listed in ``problems``: types that convert (see ``schema.normalise``); jitter of up to a second; rows
    out of order; duplicates that agree (a missing value agrees with any); NaN and infinite prices (then missing);
    missing intervals, filled with the last price for up to ``max_gap_minutes`` and flagged in ``is_filled``. Extra
    columns are filled the same way and stay NaN beyond. Warned of: longer gaps (holes), which stay NaN; regions with
    prices before the window only, which are left out; prices that stay the same for longer than ``flatline_minutes``.
    How much of a window may be missing, ``window.refuse_too_few`` says.

    Parameters
    ----------
    frame : long prices; n rows, any order. If it was cleaned before, rows with ``is_filled`` count as missing. File
        names in messages come from ``attrs`` as the lake sets them.
    start, end : half-open UTC window; None means from the first row, to the last.
    max_gap_minutes : gaps of up to so much, or of one interval where that is longer, are filled; 0 fills none.
    interval_minutes : None infers it from the most common step.
    regions : all of them must be there, others are left out; None means those that the lake was asked for, else all
        in the frame.
    warmup_minutes : keep up to so much before ``start``; it may be missing in part or whole (then NaN, or shorter).
    max_abs_price : currency/MWh, beyond which a price is refused.
    now : for telling future timestamps; defaults to the clock.
    max_cells : intervals x regions of the grid at most; None is ``rows.most_cells``.

    Raises
    ------
    The first of these, with all others that were found in its message: NoDataError, SchemaError, TimestampError
    (future, off the grid, too far apart), DuplicateError, ValueRangeError, IntervalError, UnknownRegionError.
    """
    rows = Rows.of(frame, "prices", None)
    found = Findings(rows.problems)
    low, high = nanoseconds(start), nanoseconds(end)
    window_from = None if low is None else low - warmup_minutes * MINUTE
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
    snap_jitter(rows, found)
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
    if regions is None and low is not None:
        _leave_out_ended(rows, found, low)
    refuse_future(rows, found, now)
    _refuse_absurd(rows, found, max_abs_price)
    missing_values(rows, found, PRICE)
    rows.sort(found)
    merge_duplicates(rows, found)
    minutes = _interval(rows, found, interval_minutes)
    if minutes is None:
        found.raise_any()
        raise AssertionError("an unknown interval is always refused")
    off = rows.times % (minutes * MINUTE) != 0
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
    _refuse_vast(rows, found, minutes, low, high, max_cells)
    table = _fill_grid(rows, found, minutes, low, high, max_gap_minutes)
    found.raise_any()
    _warn_flatlines(table, found, minutes, flatline_minutes)
    return CleanPrices(table.to_frame(), minutes, found.problems)


def _leave_out_ended(rows: Rows, found: Findings, low: int) -> None:
    """Leave out regions that nobody chose and that have rows in the warm-up only."""
    inside = np.unique(rows.keys[rows.times >= low])
    for code in np.setdiff1d(rows.keys, inside):
        name = rows.names[code]
        found.note("region_absent", f"region {name} has rows before the window only", 0, False, example=name)
    rows.keep(np.isin(rows.keys, inside))


def _span(start: pd.Timestamp | None, end: pd.Timestamp | None) -> str:
    return (f" from {start}" if start is not None else "") + (f" to {end}" if end is not None else "")


def _time(ns: int) -> str:
    return str(pd.Timestamp(int(ns), tz="UTC"))


def _refuse_absurd(rows: Rows, found: Findings, limit: float) -> None:
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
                remedy="correct or drop these rows, or raise ENERGY_ML_PRICES_MAX_ABS_PRICE if this market has them",
            )
        )
        rows.values[PRICE] = np.where(absurd, np.nan, prices)


def _interval(rows: Rows, found: Findings, given: int | None) -> int | None:
    """The window's one interval in minutes; None, with an error noted, if there is none. Rows must be sorted."""
    series = rows.series()
    minutes = given if given is not None else infer_interval([rows.times[s] for s in series])
    if minutes is None or minutes not in SUPPORTED_INTERVALS:
        found.refuse(unsupported_interval([rows.times[s] for s in series], given))
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
                rows=int((np.diff(rows.times[part]) == other * MINUTE).sum()) + 1,
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
    other = steps != minutes * MINUTE
    if int(other.sum()) < MIXED_RUN:
        return None
    for candidate in SUPPORTED_INTERVALS:
        if candidate == minutes:
            continue
        starts, lengths = _runs(steps == candidate * MINUTE)
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
        return _time(self.first + int(step) * self.minutes * MINUTE)

    def to_frame(self) -> pd.DataFrame:
        steps, width = self.filled.shape
        times = self.first + np.arange(steps, dtype=np.int64) * (self.minutes * MINUTE)
        names = pd.Series(self.names, dtype=text_dtype())
        columns: dict[str, Any] = {
            TIMESTAMP: pd.DatetimeIndex(np.repeat(times, width).view("datetime64[ns]"), tz="UTC"),
            REGION: names.take(np.tile(np.arange(width), steps)).reset_index(drop=True),
        }
        columns |= {name: values.reshape(-1) for name, values in self.values.items()}
        columns[IS_FILLED] = self.filled.reshape(-1)
        return pd.DataFrame(columns)


def _extent(rows: Rows, minutes: int, low: int | None, high: int | None) -> tuple[int, int]:
    """First instant of the grid (ns), and how many intervals it has."""
    step = minutes * MINUTE
    first = int(rows.times.min()) if low is None else min(-(-low // step) * step, int(rows.times.min()))
    after = int(rows.times.max()) + step if high is None else -(-high // step) * step
    return first, (after - first) // step


def _refuse_vast(
    rows: Rows, found: Findings, minutes: int, low: int | None, high: int | None, most: int | None
) -> None:
    """Before anything is laid out: few rows that lie decades apart mustn't become a grid of millions."""
    first, steps = _extent(rows, minutes, low, high)
    names = len(np.unique(rows.keys))
    most = most_cells(len(rows)) if most is None else most
    if steps * names > most:
        found.refuse(
            TimestampError(
                f"rows reach from {_time(first)} to {_time(int(rows.times.max()))}: {steps:,} intervals of "
                f"{names} region{'s' if names > 1 else ''} for {len(rows):,} rows",
                column=TIMESTAMP,
                expected=f"a grid of at most {most:,} prices",
                remedy="remove stray timestamps, or pass a shorter window",
            )
        )
        found.raise_any()


def _fill_grid(
    rows: Rows,
    found: Findings,
    minutes: int,
    low: int | None,
    high: int | None,
    max_gap_minutes: int,
) -> _Grid:
    step = minutes * MINUTE
    first, steps = _extent(rows, minutes, low, high)
    used = np.unique(rows.keys)
    column = np.full(len(rows.names), -1, dtype=np.int64)
    column[used] = np.arange(len(used))
    shape = (steps, len(used))
    position = ((rows.times - first) // step, column[rows.keys])
    values = {}
    for name, flat in rows.values.items():
        values[name] = np.full(shape, np.nan)
        values[name][position] = flat
    grid = _Grid(first, minutes, [rows.names[k] for k in used], values, np.isnan(values[PRICE]))
    warm = 0 if low is None else max(0, (-(-low // step) * step - first) // step)
    limit = max_gap_minutes // minutes or min(max_gap_minutes, 1)
    _gaps(grid, found, warm, limit)
    for name, column_values in grid.values.items():
        grid.values[name] = _forward_fill(column_values, limit)
    return grid


def _gaps(grid: _Grid, found: Findings, warm: int, limit: int) -> None:
    """Report gaps that forward filling closes, and holes, which are longer; those of the warm-up don't matter."""
    short: list[tuple[int, int, str]] = []
    holes: list[tuple[int, int, str]] = []
    leading = 0
    for c, name in enumerate(grid.names):
        for start, length in zip(*_runs(grid.filled[:, c]), strict=True):
            if length <= limit and start == 0:
                leading += int(length)
            elif length <= limit:
                short.append((int(start), int(length), name))
            elif start + length > warm:
                holes.append((max(int(start), warm), int(start + length) - max(int(start), warm), name))
    for kind, gaps, words in (
        ("hole", holes, "too long to fill: nothing is learned, judged or traded there"),
        ("short_gap", short, f"of at most {limit * grid.minutes} minutes, filled with the last price"),
    ):
        if gaps:
            start, length, name = min(gaps)
            found.note(
                kind,
                f"{len(gaps)} gap{'s' if len(gaps) > 1 else ''} {words}",
                sum(n for _, n, _ in gaps),
                kind == "short_gap",
                example=f"{name} from {grid.at(start)} to {grid.at(start + length)} ({length * grid.minutes} minutes)",
                column=PRICE,
            )
    hours = [(start, name) for start, length, name in [*short, *holes] if length * grid.minutes == 60]
    for start in sorted({start for start, _ in hours}) if found.naive else []:
        here = [name for at, name in hours if at == start]
        if len(here) == len(grid.names) and pd.Timestamp(grid.at(start)).day_of_week == 6:
            found.note(
                "local_time",
                "an hour of a Sunday is missing: probably local time, of a day of 23 hours; if so, set "
                "ENERGY_ML_INPUT_ZONE to the time zone of these timestamps, such as Europe/Paris",
                60 // grid.minutes * len(here),
                False,
                example=grid.at(start),
                column=TIMESTAMP,
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


def _warn_flatlines(grid: _Grid, found: Findings, minutes: int, flatline_minutes: int) -> None:
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
