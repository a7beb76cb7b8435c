"""Dense time x region matrices from long frames, and back.

What belongs here: laying rows out on a grid and finding them again. What doesn't: cleaning (market_data) and features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.config import SUPPORTED_INTERVALS
from energy_ml.errors import DuplicateError, IntervalError, NoDataError, SchemaError, TimestampError, ValueRangeError
from energy_ml.market_data.rows import infer_interval, most_cells, unsupported_interval
from energy_ml.names import ONE_REGION, REGION, TIMESTAMP

NS_PER_MINUTE = 60_000_000_000
_SUPPORTED_NS = {minutes * NS_PER_MINUTE for minutes in SUPPORTED_INTERVALS}

_FEW_ROWS = 20_000
"""Up to here names are compared fastest as Python objects; above, by the column's own type."""


@dataclass(frozen=True)
class Panel:
    """Columns of a long frame as dense matrices on a regular grid; NaN where there is no row.

    The memory is time-major (all regions of one instant side by side), so that a shift in time is one offset for all
    regions at once; ``values`` and ``matrix`` show it as region x time.
    """

    times_ns: Integers
    """(T,) start of each interval, nanoseconds since 1970 UTC, evenly spaced."""
    regions: tuple[str, ...]
    """(R,) names."""
    interval_minutes: int
    columns: Mapping[str, Floats]
    """Each (T, R), float64, C order."""
    rows: Integers | None = None
    """(n,) cell ``t * R + r`` of each row of the long frame; None if the rows are the grid in time-major order."""

    @property
    def times(self) -> pd.DatetimeIndex:
        """(T,) interval starts, UTC."""
        return pd.DatetimeIndex(self.times_ns.view("M8[ns]"), tz="UTC")

    @property
    def values(self) -> Floats:
        """(R, T) matrix of the first column (a view)."""
        return next(iter(self.columns.values())).T

    def matrix(self, column: str) -> Floats:
        """(R, T) matrix of ``column`` (a view)."""
        return self.columns[column].T

    def to_long(self) -> pd.DataFrame:
        """The complete grid as a long frame sorted by timestamp, then region."""
        n_times, n_regions = len(self.times_ns), len(self.regions)
        frame = {
            "timestamp": self.times.repeat(n_regions),
            "region": np.tile(np.asarray(self.regions, dtype=object), n_times),
        }
        return pd.DataFrame(frame | {name: matrix.reshape(-1) for name, matrix in self.columns.items()})


def with_region(df: pd.DataFrame, name: str = ONE_REGION) -> pd.DataFrame:
    """The frame itself, or one with region ``name`` where it has no region column: such prices are one region's."""
    return df if REGION in df.columns else df.assign(**{REGION: name})


def to_panel(df: pd.DataFrame, value_cols: Sequence[str], *, interval_minutes: int | None = None) -> Panel:
    """Lay a long frame (one row per timestamp and region, any order, any gaps) out on a grid.

    Parameters
    ----------
    value_cols : numeric columns, each becomes a float64 matrix; the first is ``Panel.values``.
    interval_minutes : by default the commonest distance of neighbouring timestamps.

    Raises
    ------
    NoDataError, SchemaError (a column is missing or isn't numeric), TimestampError (missing timestamps),
    IntervalError (no interval, or rows between its grid), DuplicateError (two rows of a timestamp and region),
    ValueRangeError (infinite values).
    """
    require_columns(df, [TIMESTAMP, REGION, *value_cols])
    stamps = timestamps_ns(df[TIMESTAMP])
    columns = {name: numeric(df, name) for name in value_cols}
    grid = _grid_of_sorted_rows(stamps, df[REGION], interval_minutes)
    if grid is not None:
        times, names, interval, order = grid
        blocks = {name: column.reshape(len(times), len(names)) for name, column in columns.items()}
        if order is None:
            return Panel(times, names, interval, blocks)
        cells = np.arange(len(stamps)).reshape(-1, len(names))[:, np.argsort(order)].reshape(-1)
        return Panel(times, names, interval, {name: block[:, order] for name, block in blocks.items()}, cells)

    codes, names = _region_codes(df[REGION])
    unique = np.unique(stamps)
    interval = _interval(unique, interval_minutes)
    step = interval * NS_PER_MINUTE
    n_times = int((unique[-1] - unique[0]) // step) + 1
    most = most_cells(len(df))
    if n_times * len(names) > most:
        raise TimestampError(
            f"rows reach from {_show(unique[0])} to {_show(unique[-1])}: a grid of {n_times:,} intervals",
            column=TIMESTAMP,
            expected=f"at most {most:,} cells",
            remedy="remove stray timestamps or pass a shorter window",
        )
    cells = (stamps - unique[0]) // step * len(names) + codes
    _refuse_duplicates(cells, stamps, df[REGION], n_times * len(names))
    matrices = {}
    for name, column in columns.items():
        flat = np.full(n_times * len(names), np.nan)
        flat[cells] = column
        matrices[name] = flat.reshape(n_times, len(names))
    return Panel(unique[0] + step * np.arange(n_times, dtype=np.int64), names, interval, matrices, cells)


def timestamps_ns(column: pd.Series) -> Integers:
    """Timestamps as nanoseconds since 1970 UTC, shape (n,); naive ones are taken as UTC. Raises TimestampError."""
    if not isinstance(column.dtype, pd.DatetimeTZDtype) and not np.issubdtype(column.to_numpy().dtype, np.datetime64):
        raise SchemaError(
            f"timestamps have type {column.dtype}",
            column=str(column.name),
            example=column.iloc[0] if len(column) else None,
            expected="a datetime column",
            remedy="convert it with pandas.to_datetime(..., utc=True)",
        )
    # An aware column comes out in UTC; the .dt methods take a hundred times longer.
    stamps = column.to_numpy(dtype="datetime64[ns]")
    missing = np.isnat(stamps)
    if missing.any():
        raise TimestampError(
            "timestamps are missing",
            column=str(column.name),
            rows=int(missing.sum()),
            example=f"row {int(missing.argmax())}",
            expected="a timestamp in every row",
            remedy="drop these rows",
        )
    return np.asarray(stamps.view(np.int64))


def require_columns(df: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a frame that lacks one of ``names`` or has no rows. Raises SchemaError, NoDataError."""
    missing = [name for name in names if name not in df.columns]
    if missing:
        raise SchemaError(
            f"column {', '.join(map(repr, missing))} is missing",
            column=missing[0],
            expected=f"columns {', '.join(names)}; found {', '.join(map(str, df.columns))}",
            remedy="rename the columns",
        )
    if not len(df):
        raise NoDataError("the frame has no rows", expected="at least one row", remedy="ask for a window with data")


def numeric(df: pd.DataFrame, name: str) -> Floats:
    """Column ``name`` as float64, shape (n,), missing values as NaN. Raises SchemaError, ValueRangeError."""
    try:
        column = df[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise SchemaError(
            f"values have type {df[name].dtype}",
            column=name,
            example=repr(df[name].iloc[0]),
            expected="numbers",
            remedy="convert the column to float64",
        ) from None
    infinite = np.isinf(column)
    if infinite.any():
        raise ValueRangeError(
            "infinite values",
            column=name,
            rows=int(infinite.sum()),
            example=f"row {int(infinite.argmax())}: {column[infinite.argmax()]}",
            expected="finite numbers or NaN",
            remedy="clean the frame first",
        )
    return np.ascontiguousarray(column)


def _show(stamp: int | np.int64) -> str:
    return str(pd.Timestamp(int(stamp), tz="UTC"))


def _interval(unique_stamps: Integers, given: int | None) -> int:
    interval = infer_interval([unique_stamps]) if given is None else given
    if interval not in SUPPORTED_INTERVALS:
        raise unsupported_interval([unique_stamps], given)
    off = np.diff(unique_stamps) % (interval * NS_PER_MINUTE) != 0
    if off.any():
        first = int(off.argmax())
        raise IntervalError(
            "rows lie between the grid's instants",
            rows=int(off.sum()),
            example=f"{_show(unique_stamps[first + 1])} after {_show(unique_stamps[first])}",
            expected=f"distances that are multiples of {interval} minutes",
            remedy="clean the frame first, or pass interval_minutes",
        )
    return interval


def _grid_of_sorted_rows(
    stamps: Integers, region_column: pd.Series, interval_minutes: int | None
) -> tuple[Integers, tuple[str, ...], int, Integers | None] | None:
    """Times, regions and interval if the rows are a complete grid, instant by instant with the regions always in the
    same order; and where each region stands in that order, None for the grid's own."""
    n_regions = int(np.searchsorted(stamps, stamps[0], side="right")) if stamps[-1] >= stamps[0] else 0
    if not n_regions or len(stamps) % n_regions:
        return None
    by_time = stamps.reshape(-1, n_regions)
    times = by_time[:, 0]
    steps = times[1:] - times[:-1]
    if (len(steps) and (steps[0] <= 0 or (steps != steps[0]).any())) or (by_time != times[:, None]).any():
        return None
    if interval_minutes is not None and len(steps) and steps[0] != interval_minutes * NS_PER_MINUTE:
        return None
    first = region_column.iloc[:n_regions].to_numpy(dtype=object, na_value=None)
    if any(name is None or name != name for name in first):
        return None
    names = tuple(str(name) for name in first)
    wanted = tuple(sorted(names))
    if len(set(names)) < n_regions or not _repeats(region_column, n_regions):
        return None
    if interval_minutes is None and len(steps) and steps[0] in _SUPPORTED_NS:
        interval_minutes = int(steps[0]) // NS_PER_MINUTE
    elif interval_minutes not in SUPPORTED_INTERVALS:
        interval_minutes = _interval(times, interval_minutes)
    order = None if wanted == names else np.array([names.index(name) for name in wanted], dtype=np.int64)
    return np.ascontiguousarray(times), wanted, interval_minutes, order


def _repeats(column: pd.Series, period: int) -> bool:
    """Whether every value equals the one ``period`` rows before."""
    if len(column) == period:
        return True
    if len(column) <= _FEW_ROWS:
        names = column.to_numpy(dtype=object, na_value=None)
        return bool((names[period:] == names[:-period]).all())
    array = column.array[period:] == column.array[:-period]
    return bool(pd.Series(array).all(skipna=False)) if not isinstance(array, np.ndarray) else bool(array.all())


def _region_codes(column: pd.Series) -> tuple[Integers, tuple[str, ...]]:
    codes, found = pd.factorize(column)
    if (codes < 0).any():
        raise SchemaError(
            "rows have no region",
            column=str(column.name),
            rows=int((codes < 0).sum()),
            example=f"row {int((codes < 0).argmax())}",
            expected="a region in every row",
            remedy="drop these rows",
        )
    present = [str(name) for name in found]
    names = tuple(sorted(set(present)))
    place = {name: code for code, name in enumerate(names)}
    return np.array([place[name] for name in present], dtype=np.int64)[codes], names


def _refuse_duplicates(cells: Integers, stamps: Integers, region_column: pd.Series, n_cells: int) -> None:
    counts = np.bincount(cells, minlength=n_cells)
    if counts.max() > 1:
        first = int((counts[cells] > 1).argmax())
        raise DuplicateError(
            "several rows share their timestamp and region",
            rows=int(counts[counts > 1].sum()),
            example=f"{_show(stamps[first])}, {region_column.iloc[first]}",
            expected="one row per timestamp and region",
            remedy="clean the frame first (energy_ml.market_data.cleaning)",
        )
