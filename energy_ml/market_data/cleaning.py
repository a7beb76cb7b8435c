"""Rules for prices: each kind of problem is named, and repaired by a stated rule or refused in words.

What belongs here: price values, gaps, regions, intervals of rows that already have the right types.
What doesn't: types (``schema``), files (``lake``), rules shared with telemetry (``rows``), features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from energy_ml.arrays import Booleans, Floats, Integers
from energy_ml.config import SUPPORTED_INTERVALS, PricePredictionConfig
from energy_ml.errors import IntervalError, NoDataError, TimestampError, UnknownRegionError, ValueRangeError
from energy_ml.market_data.rows import (
    MINUTE,
    Rows,
    infer_interval,
    long_frame,
    merge_duplicates,
    missing_values,
    most_cells,
    nanoseconds,
    refuse_future,
    snap_jitter,
    unsupported_interval,
)
from energy_ml.market_data.schema import DataProblem
from energy_ml.names import IS_FILLED, PRICE, REGION, TIMESTAMP

MAX_ABS_PRICE = PricePredictionConfig.max_abs_price
"""Beyond it a price is a mistake: the highest cap of any market is about 20,000 currency/MWh."""
_FLATLINE_MINUTES = 360
"""A price that stays the same for longer is reported: feeds that hang look like that."""
_MIXED_RUN = 12
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
    now: pd.Timestamp | None = None,
    max_cells: int | None = None,
) -> CleanPrices:
    """Put the prices of a window on a complete grid, repairing what a stated rule repairs and refusing the rest.

    Repaired and listed in ``problems``: types that convert (see ``schema.normalise``); jitter of up to a second; rows
    out of order; duplicates that agree (a missing value agrees with any); NaN and infinite prices (then missing);
    missing intervals, filled with the last price for up to ``max_gap_minutes`` and flagged in ``is_filled``. Extra
    columns are filled the same way and stay NaN beyond. Warned of: longer gaps (holes), which stay NaN; regions with
    prices before the window only, which are left out; prices that stay the same for six hours.
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
    low, high = nanoseconds(start), nanoseconds(end)
    regions = frame.attrs.get("regions") if regions is None else regions
    if regions is not None:
        _keep_regions(rows, regions)
    snap_jitter(rows)
    rows.keep_between(None if low is None else low - warmup_minutes * MINUTE, high)
    if not len(rows) or (low is not None and not (rows.times >= low).any()):
        span = (f" from {start}" if start is not None else "") + (f" to {end}" if end is not None else "")
        rows.errors.append(
            NoDataError(
                f"there are no prices{span}",
                rows=0,
                expected="rows for every interval of the window",
                remedy="add the missing files or choose another day",
            )
        )
        rows.raise_errors()
    if regions is None and low is not None:
        _leave_out_ended(rows, low)
    refuse_future(rows, now)
    _refuse_absurd(rows, max_abs_price)
    missing_values(rows, PRICE)
    rows.sort()
    merge_duplicates(rows)
    minutes = _interval(rows, interval_minutes)
    _refuse_vast(rows, minutes, low, high, most_cells(len(rows)) if max_cells is None else max_cells)
    grid = _fill_grid(rows, minutes, low, high, max_gap_minutes)
    rows.raise_errors()
    _warn_flatlines(grid)
    return CleanPrices(grid.to_frame(), minutes, grid.problems)


def _keep_regions(rows: Rows, regions: Sequence[str]) -> None:
    absent = [r for r in regions if r not in rows.names]
    if absent and len(rows):
        rows.errors.append(
            UnknownRegionError(
                f"region{'s' if len(absent) > 1 else ''} {', '.join(absent)} "
                f"{'have' if len(absent) > 1 else 'has'} no rows in the window",
                column=REGION,
                expected=f"some of {', '.join(sorted(rows.names))}",
                remedy="correct ENERGY_ML_REGIONS or add the missing files",
            )
        )
    rows.keep(np.isin(rows.keys, [i for i, name in enumerate(rows.names) if name in regions]))


def _leave_out_ended(rows: Rows, low: int) -> None:
    """Leave out regions that nobody chose and that have rows in the warm-up only."""
    inside = np.unique(rows.keys[rows.times >= low])
    for code in np.setdiff1d(rows.keys, inside):
        name = rows.names[code]
        message = f"region {name} has rows before the window only"
        rows.problems.append(DataProblem("region_absent", message, 0, False, name))
    rows.keep(np.isin(rows.keys, inside))


def _time(ns: int) -> str:
    return str(pd.Timestamp(int(ns), tz="UTC"))


def _refuse_absurd(rows: Rows, limit: float) -> None:
    prices = rows.values[PRICE]
    absurd = (np.abs(prices) > limit) & np.isfinite(prices)
    rows.refuse(
        ValueRangeError,
        "prices are absurd",
        absurd,
        PRICE,
        f"between {-limit:,.0f} and {limit:,.0f} currency/MWh",
        "correct or drop these rows, or raise ENERGY_ML_PRICES_MAX_ABS_PRICE if this market has them",
        value=True,
    )
    rows.values[PRICE] = np.where(absurd, np.nan, prices)


def _interval(rows: Rows, given: int | None) -> int:
    """The window's one interval in minutes, which all timestamps keep to; else raises. Rows must be sorted."""
    series = rows.series()
    minutes = given if given is not None else infer_interval([rows.times[s] for s in series])
    if minutes is None or minutes not in SUPPORTED_INTERVALS:
        rows.errors.append(unsupported_interval([rows.times[s] for s in series], given))
        rows.raise_errors()
        raise AssertionError("the error stands in the line before")
    for part in series:
        if (other := _other_interval(rows.times[part], minutes)) is not None:
            mixed = np.zeros(len(rows), dtype=bool)
            mixed[part.start + 1 : part.stop] = np.diff(rows.times[part]) == other * MINUTE
            rows.refuse(
                IntervalError,
                f"intervals of {minutes} and {other} minutes are mixed",
                mixed,
                TIMESTAMP,
                "one interval for all regions of a window",
                "resample the files to one interval, or keep them in separate folders",
            )
            rows.raise_errors()
    off = rows.times % (minutes * MINUTE) != 0
    rows.refuse(
        TimestampError,
        f"timestamps are off the grid of {minutes} minutes",
        off,
        TIMESTAMP,
        f"the start of an interval: whole multiples of {minutes} minutes since midnight UTC",
        "round the timestamps down to the interval's start",
    )
    if off.any():
        rows.raise_errors()
    return minutes


def _other_interval(times: Integers, minutes: int) -> int | None:
    """Another supported interval that at least _MIXED_RUN steps in a row keep to."""
    steps = np.diff(times)
    for other in SUPPORTED_INTERVALS if (steps != minutes * MINUTE).sum() >= _MIXED_RUN else ():
        if other != minutes and (_runs(steps == other * MINUTE)[1] >= _MIXED_RUN).any():
            return other
    return None


def _runs(mask: Booleans) -> tuple[Integers, Integers]:
    """Start and length of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return edges[::2], edges[1::2] - edges[::2]


@dataclass
class _Grid:
    """Dense columns (T, R): T timestamps from ``first`` (ns) by ``minutes``, R regions; and what is wrong with them."""

    first: int
    minutes: int
    names: list[str]
    values: dict[str, Floats]
    filled: Booleans
    problems: list[DataProblem]

    def note(self, kind: str, message: str, rows: int, example: str, *, repaired: bool = False) -> None:
        self.problems.append(DataProblem(kind, message, rows, repaired, example, PRICE))

    def at(self, step: int) -> str:
        return _time(self.first + int(step) * self.minutes * MINUTE)

    def to_frame(self) -> pd.DataFrame:
        steps, width = self.filled.shape
        times = self.first + np.arange(steps, dtype=np.int64) * (self.minutes * MINUTE)
        columns = {name: values.reshape(-1) for name, values in self.values.items()}
        codes = np.tile(np.arange(width), steps)
        filled = {IS_FILLED: self.filled.reshape(-1)}
        return long_frame(np.repeat(times, width), REGION, codes, self.names, {**columns, **filled})


def _extent(rows: Rows, minutes: int, low: int | None, high: int | None) -> tuple[int, int]:
    """First instant of the grid (ns), and how many intervals it has."""
    step = minutes * MINUTE
    first = int(rows.times.min()) if low is None else min(-(-low // step) * step, int(rows.times.min()))
    after = int(rows.times.max()) + step if high is None else -(-high // step) * step
    return first, (after - first) // step


def _refuse_vast(rows: Rows, minutes: int, low: int | None, high: int | None, most: int) -> None:
    """Before anything is laid out: few rows that lie decades apart mustn't become a grid of millions."""
    first, steps = _extent(rows, minutes, low, high)
    names = len(np.unique(rows.keys))
    if steps * names > most:
        rows.errors.append(
            TimestampError(
                f"rows reach from {_time(first)} to {_time(int(rows.times.max()))}: {steps:,} intervals of "
                f"{names} region{'s' if names > 1 else ''} for {len(rows):,} rows",
                column=TIMESTAMP,
                expected=f"a grid of at most {most:,} prices",
                remedy="remove stray timestamps, or pass a shorter window",
            )
        )
        rows.raise_errors()


def _fill_grid(rows: Rows, minutes: int, low: int | None, high: int | None, max_gap_minutes: int) -> _Grid:
    step = minutes * MINUTE
    first, steps = _extent(rows, minutes, low, high)
    used = np.unique(rows.keys)
    column = np.searchsorted(used, rows.keys)
    values = {name: np.full((steps, len(used)), np.nan) for name in rows.values}
    for name, flat in rows.values.items():
        values[name][(rows.times - first) // step, column] = flat
    grid = _Grid(first, minutes, [rows.names[k] for k in used], values, np.isnan(values[PRICE]), rows.problems)
    warm = 0 if low is None else max(0, (-(-low // step) * step - first) // step)
    limit = max_gap_minutes // minutes or min(max_gap_minutes, 1)
    _gaps(grid, warm, limit, local=rows.naive)
    for name, column_values in grid.values.items():
        grid.values[name] = _forward_fill(column_values, limit)
    return grid


def _gaps(grid: _Grid, warm: int, limit: int, *, local: bool) -> None:
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
            grid.note(
                kind,
                f"{len(gaps)} gap{'s' if len(gaps) > 1 else ''} {words}",
                sum(n for _, n, _ in gaps),
                f"{name} from {grid.at(start)} to {grid.at(start + length)} ({length * grid.minutes} minutes)",
                repaired=kind == "short_gap",
            )
    hours = [(start, name) for start, length, name in [*short, *holes] if length * grid.minutes == 60]
    for start in sorted({start for start, _ in hours}) if local else []:
        here = [name for at, name in hours if at == start]
        if len(here) == len(grid.names) and pd.Timestamp(grid.at(start)).day_of_week == 6:
            message = (
                "an hour of a Sunday is missing: probably local time, of a day of 23 hours; if so, set "
                "ENERGY_ML_INPUT_ZONE to the time zone of these timestamps, such as Europe/Paris"
            )
            lost = 60 // grid.minutes * len(here)
            grid.problems.append(DataProblem("local_time", message, lost, False, grid.at(start), TIMESTAMP))
    if leading and not warm:
        message = "the first prices of the window are missing and stay so: there is nothing earlier to fill them with"
        grid.note("leading_gap", message, leading, grid.at(0))


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


def _warn_flatlines(grid: _Grid) -> None:
    prices = np.where(grid.filled, np.nan, grid.values[PRICE])
    worst: list[tuple[int, int, str]] = []
    for name, same in zip(grid.names, (np.diff(prices, axis=0) == 0).T, strict=True):
        for start, length in zip(*_runs(same), strict=True):
            if (length + 1) * grid.minutes > _FLATLINE_MINUTES:
                worst.append((int(length) + 1, int(start), name))
    if worst:
        length, start, name = max(worst)
        grid.note(
            "flatline",
            f"prices stay the same for more than {_FLATLINE_MINUTES} minutes {len(worst)} time"
            f"{'s' if len(worst) > 1 else ''}; a hanging feed looks like that",
            sum(n for n, _, _ in worst),
            f"{name} from {grid.at(start)} for {length * grid.minutes} minutes",
        )
