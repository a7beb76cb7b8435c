"""What a price file and a battery file must look like, and turning what comes in into exactly that.

What belongs here: column names, telling a file's kind, converting types and timestamps.
What doesn't: opening files (``lake``), and rules on values, gaps and duplicates (``cleaning``).
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from energy_ml.arrays import Booleans, Floats, Integers
from energy_ml.errors import DataError, SchemaError, TimestampError
from energy_ml.market_data.local_times import instants_of
from energy_ml.market_data.text_times import parse_texts
from energy_ml.names import (
    AVAILABLE_AT,
    BATTERY_ID,
    CAPACITY,
    CHARGE,
    IS_FILLED,
    POWER,
    PRICE,
    RATED_POWER,
    REGION,
    TIMESTAMP,
)

Kind = Literal["prices", "batteries", "forecasts"]

KEY_COLUMN: dict[Kind, str] = {"prices": REGION, "batteries": BATTERY_ID, "forecasts": REGION}
"""Names the series that a row belongs to."""
REQUIRED_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "prices": (TIMESTAMP, REGION, PRICE),
    "batteries": (TIMESTAMP, BATTERY_ID, CHARGE, CAPACITY),
    "forecasts": (TIMESTAMP, AVAILABLE_AT, REGION),
}
OPTIONAL_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "prices": (),
    "batteries": (REGION, POWER, RATED_POWER),
    "forecasts": (),
}
_TEXT_COLUMNS = (REGION, BATTERY_ID)
MISSING_WORDS = frozenset({"", "nan", "null", "none", "na", "n/a", "-"})
"""Texts in a numeric column that mean "no value"; compared in lower case, without surrounding spaces."""

# Whole numbers as timestamps: seconds, milliseconds, … since 1970 are told apart by their size (years 1973 to 5138).
_EPOCH_UNITS = (("s", 10**8, 10**11), ("ms", 10**11, 10**14), ("us", 10**14, 10**17), ("ns", 10**17, 2**63))


@dataclass(frozen=True)
class DataProblem:
    """Something that input data had wrong, and whether a stated rule repaired it.

    ``repaired`` False means a warning: the rows were left as they are. Errors that refuse the data are raised instead.
    """

    kind: str
    message: str
    rows: int
    repaired: bool
    example: str | None = None
    column: str | None = None
    file: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, fit for JSON and for ``DataFrame.attrs``."""
        return asdict(self)


def utc(moment: pd.Timestamp | dt.datetime | str) -> pd.Timestamp:
    """The moment in UTC, to the nanosecond; without a zone it is UTC already."""
    stamp = pd.Timestamp(moment).as_unit("ns")
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")


def read_kind(schema: pa.Schema | Sequence[str]) -> Kind:
    """Tell by its columns what a file holds. Raises SchemaError naming the missing columns, or if it could be both."""
    names = list(schema.names) if isinstance(schema, pa.Schema) else [str(name) for name in schema]
    missing = {kind: [c for c in REQUIRED_COLUMNS[kind] if c not in names] for kind in get_args(Kind)}
    fitting: list[Kind] = [kind for kind in get_args(Kind) if not missing[kind]]
    if len(fitting) > 1 and PRICE in names:  # prices may say when they became known
        fitting = [kind for kind in fitting if kind != "forecasts"]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise SchemaError(
            f"columns {names} fit both prices and battery telemetry",
            expected="one kind per file",
            remedy="write prices and battery telemetry to separate files",
        )
    near: Kind = "batteries" if {BATTERY_ID, CHARGE, CAPACITY} & set(names) else "prices"
    near = "forecasts" if AVAILABLE_AT in names else near
    raise _lacking(
        near,
        missing[near],
        names,
        None,
        f"prices with {', '.join(REQUIRED_COLUMNS['prices'])}, or batteries with "
        f"{', '.join(REQUIRED_COLUMNS['batteries'])}, or forecasts with {', '.join(REQUIRED_COLUMNS['forecasts'])}",
        "rename or add the column (names are case-sensitive), or move the file out of the data folder",
    )


def _lacking(
    kind: Kind, absent: list[str], names: list[str], file: object | None, expected: str, remedy: str
) -> SchemaError:
    return SchemaError(
        f"{kind} lack column{'s' if len(absent) > 1 else ''} {', '.join(map(repr, absent))}; "
        f"found {', '.join(map(repr, names)) or 'no columns'}",
        file=file,
        column=absent[0],
        expected=expected,
        remedy=remedy,
    )


def normalise(
    data: pa.Table | pd.DataFrame,
    kind: Kind,
    *,
    extra_columns: Sequence[str] | None = (),
    file: object | None = None,
    zone: str | None = None,
) -> tuple[pd.DataFrame, list[DataProblem]]:
    """Convert columns to the types of the data contract; rows and their order stay as they are.

    Parameters
    ----------
    data : table or frame with at least the required columns of ``kind``; n rows.
    extra_columns : further numeric columns to carry; None carries every numeric one and leaves out the rest.
    file : named in errors and problems.
    zone : what timestamps without a zone are read in; None is UTC.

    Returns
    -------
    frame of n rows: ``timestamp`` datetime64[ns, UTC], region and battery_id text, all else float64; and what was
    converted or left out. Missing numbers are NaN.

    Raises
    ------
    SchemaError : a column is missing or has values that aren't what they should be.
    TimestampError : timestamps are missing, impossible, or mix aware and naive ones.
    """
    names = list(data.column_names) if isinstance(data, pa.Table) else [str(c) for c in data.columns]
    needed = [*REQUIRED_COLUMNS[kind], *(extra_columns or ())]
    if absent := [c for c in needed if c not in names]:
        remedy = "add or rename the column, or leave it out of extra_columns"
        raise _lacking(kind, absent, names, file, ", ".join(needed), remedy)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SchemaError(f"column {repeated[0]!r} occurs twice", file=file, column=repeated[0], expected="once")
    problems: list[DataProblem] = []
    wanted = [*REQUIRED_COLUMNS[kind], *(c for c in OPTIONAL_COLUMNS[kind] if c in names)]
    others = [c for c in names if c not in wanted and c != IS_FILLED]
    for name in others if extra_columns is None else dict.fromkeys(extra_columns):
        if name in wanted:
            continue
        if extra_columns is not None or _is_numeric(data, name):
            wanted.append(name)
        else:
            message = f"column {name!r} isn't numeric and was left out"
            problems.append(DataProblem("extra_column", message, len(data), True, column=name, file=as_text(file)))
    columns: dict[str, object] = {}
    for name in wanted:
        column = _Column(_as_series(data, name), problems, file)
        if name in (TIMESTAMP, AVAILABLE_AT):
            columns[name] = utc_timestamps(data, KEY_COLUMN[kind], problems, file, zone, name)
        elif name in _TEXT_COLUMNS:
            columns[name] = _texts(column, required=name == KEY_COLUMN[kind])
        else:
            columns[name] = _numbers(column)
    return pd.DataFrame(columns, copy=False), problems


def utc_timestamps(
    data: pa.Table | pd.DataFrame,
    key: str,
    problems: list[DataProblem],
    file: object | None,
    zone: str | None,
    name: str = TIMESTAMP,
) -> pd.DatetimeIndex:
    """The column ``name`` of ``data`` as datetime64[ns, UTC], n; adds to ``problems`` what was assumed.

    ``key`` names the column of the rows' series, where there is one. Raises TimestampError.
    """
    names = data.column_names if isinstance(data, pa.Table) else data.columns
    keys = _as_series(data, key).to_numpy() if key in names else np.zeros(len(data))
    return _Timestamps(_Column(_as_series(data, name), problems, file), zone, keys).read()


@dataclass(frozen=True)
class _Column:
    """One column of n values on its way to its type; ``mask`` (n,) is the rows that a message is about."""

    values: pd.Series
    problems: list[DataProblem]
    file: object | None

    @property
    def name(self) -> str:
        return str(self.values.name)

    @property
    def all(self) -> Booleans:
        return np.ones(len(self.values), dtype=bool)

    def example(self, mask: Booleans) -> str | None:
        return f"row {(row := int(np.argmax(mask)))}: {self.values.iloc[row]!r}" if len(mask) else None

    def note(self, kind: str, message: str, mask: Booleans | None = None) -> None:
        """List rows that were converted; None is all."""
        mask = self.all if mask is None else mask
        example, file = self.example(mask), as_text(self.file)
        self.problems.append(DataProblem(kind, message, int(mask.sum()), True, example, self.name, file))

    def refused(
        self, error: type[DataError], found: str, mask: Booleans, expected: str, remedy: str | None = None
    ) -> DataError:
        return error(
            found,
            file=self.file,
            column=self.name,
            rows=int(mask.sum()),
            example=self.example(mask),
            expected=expected,
            remedy=remedy,
        )


@dataclass(frozen=True)
class _Timestamps:
    """A column to datetime64[ns, UTC]; naive means ``zone``, or UTC.

    ``keys`` (n,) names each row's series, within which the order of rows tells a repeated hour's first from its second.
    """

    column: _Column
    zone: str | None
    keys: npt.NDArray[np.generic]

    def read(self) -> pd.DatetimeIndex:
        """Adds to the column's problems what was assumed; raises TimestampError."""
        values = self.column.values
        null = np.asarray(values.isna())
        if null.any():
            raise self.refuse(
                "timestamps are missing", null, "a timestamp in every row", "drop these rows or fill the column"
            )
        if values.dtype.kind == "M":
            return self.to_utc(pd.DatetimeIndex(values))
        if values.dtype.kind in "iu":
            return self.of_numbers(values.to_numpy(dtype=np.int64))
        if values.dtype == object or isinstance(values.dtype, pd.StringDtype | pd.CategoricalDtype):
            return self.of_objects()
        raise self.refuse(
            f"values of type {values.dtype} aren't timestamps",
            self.column.all,
            "a timestamp column",
            "store the column as a timestamp in UTC",
        )

    def refuse(self, found: str, bad: Booleans, expected: str, remedy: str) -> DataError:
        return self.column.refused(TimestampError, found, bad, expected, remedy)

    def to_utc(self, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
        if times.tz is None:
            times = self.without_zone(times)
        try:
            return times.tz_convert("UTC").as_unit("ns")
        except (pd.errors.OutOfBoundsDatetime, OverflowError):
            outside = np.asarray((times.year < 1678) | (times.year > 2261))
            raise self.refuse(
                "timestamps are impossible", outside, "years 1678 to 2261", "correct or drop these rows"
            ) from None

    def without_zone(self, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
        if self.zone is None:
            message = "timestamps without a zone were taken as UTC (else: ENERGY_ML_INPUT_ZONE)"
            self.column.note("naive_timestamps", message)
            return times.tz_localize("UTC")
        self.column.note("local_timestamps", f"timestamps without a zone were read as those of {self.zone}")
        return instants_of(times, self.keys, self.zone, self.refuse)

    def of_numbers(self, numbers: Integers) -> pd.DatetimeIndex:
        if not len(numbers):
            return pd.DatetimeIndex([], dtype="datetime64[ns, UTC]")
        written = _written_out(numbers)
        for unit, low, high in _EPOCH_UNITS if written is None else ():
            if numbers.min() >= low and numbers.max() < high:
                self.column.note("integer_timestamps", f"whole numbers were taken as {unit} since 1970 UTC")
                return self.to_utc(pd.DatetimeIndex(numbers.astype(f"datetime64[{unit}]")).tz_localize("UTC"))
        raise self.refuse(
            written or "whole numbers that aren't a time since 1970 in one unit",
            self.column.all,
            "seconds, milliseconds, microseconds or nanoseconds since 1970",
            "store the column as a timestamp",
        )

    def of_objects(self) -> pd.DatetimeIndex:
        # Only distinct values are parsed: a long frame repeats each timestamp once per region.
        codes, distinct = pd.factorize(self.column.values, use_na_sentinel=False)
        texts = [_written(value) for value in distinct]
        bad = np.array([text is None for text in texts], dtype=bool)
        if bad.any():
            raise self.refuse(
                "values can't be read as timestamps",
                bad[codes],
                "timestamps such as 2026-02-10T00:00:00Z",
                "correct these rows or store the column as a timestamp",
            )
        read = parse_texts(pa.array(texts, pa.string()))
        if read.problem is not None:
            raise self.refuse(read.problem, read.bad[codes], read.expected, read.remedy)
        stamps, offsets = read.utc, read.offset_minutes
        naive = np.isnan(offsets)
        if naive.any() and not naive.all():
            raise self.refuse(
                "timestamps with a zone stand beside ones without",
                naive[codes],
                "all with a zone, or none (then UTC is meant)",
                "write all timestamps in UTC",
            )
        kind = "text_timestamps" if any(isinstance(value, str) for value in distinct) else "object_timestamps"
        self.column.note(kind, "timestamps were converted from text or objects")
        if len(naive) and naive.all():
            return self.without_zone(pd.DatetimeIndex(stamps[codes]))
        zones = np.unique(offsets[~naive])
        if len(zones) > 1:
            message = f"timestamps with {len(zones)} different UTC offsets were converted to UTC"
            self.column.note("mixed_time_zones", message)
        return pd.DatetimeIndex(stamps[codes], tz="UTC")


def _written_out(numbers: Integers) -> str | None:
    """In words, if all numbers are dates written in digits (202601310015): they'd pass for seconds of 2034 or
    milliseconds of 1976."""
    for digits, form in ((10, "YYYYMMDDHH"), (12, "YYYYMMDDHHMM")):
        day, clock = np.divmod(numbers, 10 ** (digits - 8))
        hour, minute = np.divmod(clock, 100) if digits == 12 else (clock, np.zeros_like(clock))
        year, month = day // 10_000, day // 100 % 100
        dates = (year >= 1990) & (year < 2100) & (month >= 1) & (month <= 12) & (day % 100 >= 1) & (day % 100 <= 31)
        if len(numbers) and (dates & (hour < 24) & (minute < 60)).all():
            return f"whole numbers that look like dates written as {form}"
    return None


def _written(value: object) -> str | None:
    """A text, or the text of an instant; None for anything else."""
    if isinstance(value, dt.datetime | np.datetime64) or type(value) is dt.date:
        try:
            return str(pd.Timestamp(value).isoformat())
        except (ValueError, OverflowError):
            return None
    return value if isinstance(value, str) else None


def _texts(column: _Column, *, required: bool) -> pd.Series:
    name = column.name
    codes, distinct = pd.factorize(column.values, use_na_sentinel=True)
    absent = codes < 0
    if absent.any() and required:
        raise column.refused(
            SchemaError, f"{name} is missing", absent, "a name in every row", "fill or drop these rows"
        )

    def rows(found: list[bool]) -> Booleans:
        return np.asarray(np.array([*found, False])[codes])

    whole = [isinstance(v, int | np.integer) and not isinstance(v, bool | np.bool_) for v in distinct]
    other = rows([not isinstance(v, str) and not ok for v, ok in zip(distinct, whole, strict=True)])
    if other.any():
        remedy = "store the column as text"
        raise column.refused(SchemaError, f"{name} isn't text", other, "text such as FR", remedy)
    cleaned = [str(v).strip() for v in distinct]
    if required and "" in cleaned:
        empty = rows([c == "" for c in cleaned])
        raise column.refused(SchemaError, f"{name} is empty text", empty, "a name in every row")
    if any(whole):
        column.note("converted_type", f"{name}: whole numbers were taken as names", rows(whole))
    padded = rows([isinstance(v, str) and v != c for v, c in zip(distinct, cleaned, strict=True)])
    if padded.any():
        column.note("padded_text", f"{name}: surrounding spaces were removed", padded)
    names = pd.Series([*cleaned, None], dtype=text_dtype())
    return names.take(np.where(absent, len(cleaned), codes)).reset_index(drop=True).rename(name)


def _numbers(column: _Column) -> Floats:
    values, kind = column.values, column.values.dtype.kind
    if kind == "f" and isinstance(values.dtype, np.dtype):
        return np.asarray(values.to_numpy(dtype=np.float64))
    bad = column.all
    if kind in "iuf":
        what = "whole numbers" if kind in "iu" else f"{values.dtype} values"
        column.note("converted_type", f"{column.name}: {what} were converted to float64")
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    if kind not in "bmM":
        codes, distinct = pd.factorize(values, use_na_sentinel=True)
        numbers = [_parse_number(value) for value in distinct]
        bad = np.array([*(n is None for n in numbers), False])[codes]
        if not bad.any():
            if kinds := {"text" if isinstance(v, str) else "decimals" for v in distinct}:
                what = " and ".join(sorted(kinds))
                column.note("converted_type", f"{column.name}: {what} were converted to float64")
            return np.asarray(np.array([*numbers, np.nan], dtype=np.float64)[codes])
    raise column.refused(
        SchemaError,
        f"{column.name} isn't numeric (type {values.dtype})",
        bad,
        "numbers with a decimal point, such as -12.5",
        "correct these rows or store the column as float64",
    )


def _parse_number(value: object) -> float | None:
    """The number that ``value`` means, NaN for a missing one, None if it isn't a number."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in MISSING_WORDS:
            return float("nan")
        if "_" in text:  # float() reads 1_000; nobody's price file means that
            return None
        try:
            return float(text)
        except ValueError:
            return None
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number | decimal.Decimal):
        return None
    return float(value)


def _is_numeric(data: pa.Table | pd.DataFrame, name: str) -> bool:
    if isinstance(data, pa.Table):
        kind = data.schema.field(name).type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
    return data[name].dtype.kind in "iuf"


def _as_series(data: pa.Table | pd.DataFrame, name: str) -> pd.Series:
    if isinstance(data, pd.DataFrame):
        return data[name].reset_index(drop=True)
    column = data.column(name)
    try:
        series = column.to_pandas()
    except pa.ArrowInvalid:  # instants outside of what nanoseconds can hold; objects keep them for the message
        series = pd.Series(column.to_pylist(), dtype=object)
    return series.rename(name)


def text_dtype() -> object:
    """What pandas makes of texts here: str, or object before version 3."""
    return pd.Series(["a"]).dtype


def as_text(file: object | None) -> str | None:
    """A file as a DataProblem names it."""
    return None if file is None else str(file)
