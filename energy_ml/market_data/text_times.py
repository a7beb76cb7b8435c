"""Texts to instants: one way of writing for a whole column, and never a guess which number is the day.

What belongs here: the ways of writing a time that are read, and what is said of others. What doesn't: columns of other
types (``schema``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from energy_ml.arrays import Booleans, Floats, Integers

_ZONE = r"(?:[ ]?(?P<zone>[Zz]|UTC|GMT|[+-]\d{2}(?::?[0-5]\d)?))?"
_CLOCK = (
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"(?:[ ]?(?P<half>[AaPp]\.?[Mm]\.?))?"
)
_TIME = rf"(?:(?:[Tt]|,?[ ]+){_CLOCK}{_ZONE})?"
_COMPACT = (
    r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})"
    rf"(?:[Tt ]?(?P<hour>\d{{2}})(?P<minute>\d{{2}})(?:(?P<second>\d{{2}})(?:[.,](?P<fraction>\d{{1,9}}))?)?{_ZONE})?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EXPECTED = "the year first and in four digits, such as 2026-01-31T00:15:00Z"
_REMEDY = f"write {_EXPECTED}, or store the column as a timestamp in UTC"


def _ways() -> Iterator[str]:
    """Patterns of whole texts; a column must keep to one. Where the year comes last, ``one`` and ``two`` are day and
    month in an order that the column has to tell."""
    for separator in "-/.":
        yield rf"(?P<year>\d{{4}})\{separator}(?P<month>\d{{1,2}})\{separator}(?P<day>\d{{1,2}}){_TIME}"
    yield _COMPACT
    for separator in "-/.":
        yield rf"(?P<one>\d{{1,2}})\{separator}(?P<two>\d{{1,2}})\{separator}(?P<year>\d{{4}}){_TIME}"
    yield rf"(?P<day>\d{{1,2}})[ -](?P<name>[A-Za-z]{{3,9}})[ -](?P<year>\d{{4}}){_TIME}"
    yield rf"(?P<name>[A-Za-z]{{3,9}})[ ](?P<day>\d{{1,2}}),?[ ](?P<year>\d{{4}}){_TIME}"


_WAYS = tuple(rf"^\s*{way}\s*$" for way in _ways())


@dataclass(frozen=True)
class _ReadTexts:
    """Instants of n texts: ``utc`` (n,) datetime64[ns], ``offset_minutes`` (n,) ahead of UTC, NaN without a zone.

    Or, if they can't be read, ``problem`` in words, ``bad`` (n,) the texts that it is about, what was ``expected`` and
    the ``remedy``.
    """

    utc: npt.NDArray[np.datetime64]
    offset_minutes: Floats
    problem: str | None = None
    bad: Booleans = field(default_factory=lambda: np.zeros(0, dtype=bool))
    expected: str = _EXPECTED
    remedy: str = _REMEDY


def parse_texts(texts: pa.Array) -> _ReadTexts:
    """Read texts (n,), all written in one way.

    Read are ISO 8601 and other dates with the year first; day and month before the year where the column itself shows
    which is which (a number above 12); months by their English names. Everything else is refused, above all texts that
    can be read in two ways: ``05/01/2026``, ``05-01-26``, ``00:15``.

    >>> str(parse_texts(pa.array(["2026-01-31 00:15+01:00"])).utc[0])[:16]
    '2026-01-30T23:15'
    >>> parse_texts(pa.array(["05/01/2026", "06/01/2026"])).problem
    'day and month of the timestamps can be told apart in no row'
    """
    n = len(texts)
    best, most = None, np.zeros(n, dtype=bool)
    for way in _WAYS:
        fits = np.asarray(pc.match_substring_regex(texts, way).fill_null(False).to_numpy(zero_copy_only=False))
        if fits.sum() > most.sum():
            best, most = way, fits
        if most.all():
            break
    if best is None:
        return _refused(n, "values can't be read as timestamps", np.ones(n, dtype=bool))
    if not most.all():
        others = np.zeros(n, dtype=bool)
        for way in _WAYS:
            others |= np.asarray(pc.match_substring_regex(texts, way).fill_null(False).to_numpy(zero_copy_only=False))
        if (~others).any():
            return _refused(n, "values can't be read as timestamps", ~others)
        return _refused(n, "timestamps are written in more than one way", ~most, "one way of writing in the whole file")
    return _instants(pc.extract_regex(texts, best))


def _refused(n: int, problem: str, bad: Booleans, expected: str = _EXPECTED, remedy: str = _REMEDY) -> _ReadTexts:
    return _ReadTexts(np.full(n, np.datetime64("NaT", "ns")), np.full(n, np.nan), problem, bad, expected, remedy)


def _instants(found: pa.StructArray) -> _ReadTexts:
    n, names = len(found), [found.type.field(i).name for i in range(found.type.num_fields)]

    def text(name: str) -> pa.Array:
        return found.field(names.index(name))

    def number(name: str, missing: int = 0) -> Integers:
        if name not in names:
            return np.full(n, missing, dtype=np.int64)
        part = text(name)
        part = pc.if_else(pc.equal(part, ""), str(missing), part)
        return cast(Integers, part.cast(pa.int64()).to_numpy(zero_copy_only=False))

    year, month, day = number("year"), number("month"), number("day")
    if "one" in names:
        one, two = number("one"), number("two")
        day_first, month_first = one > 12, two > 12
        if day_first.any() and month_first.any():
            fewer = day_first if day_first.sum() <= month_first.sum() else month_first
            return _refused(n, "timestamps have day and month in both orders", fewer)
        if not (day_first.any() or month_first.any()):
            return _refused(n, "day and month of the timestamps can be told apart in no row", np.ones(n, dtype=bool))
        day, month = (one, two) if day_first.any() else (two, one)
    if "name" in names:
        short = pc.utf8_slice_codeunits(pc.ascii_lower(text("name")), 0, 3)
        month = pc.index_in(short, pa.array(_MONTHS)).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    hour, minute, second = number("hour"), number("minute"), number("second")
    bad = (month < 1) | (month > 12) | (day < 1) | (hour > 23) | (minute > 59) | (second > 59)
    if "half" in names:
        half = pc.ascii_lower(pc.utf8_slice_codeunits(text("half"), 0, 1)).to_numpy(zero_copy_only=False)
        twelve = (half == "a") | (half == "p")
        bad |= twelve & ((hour < 1) | (hour > 12))
        hour = np.where(twelve, hour % 12 + 12 * (half == "p"), hour)
    months = (np.where(bad, 1970, year) - 1970) * 12 + np.where(bad, 1, month) - 1
    first = months.astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1)
    bad |= date.astype("datetime64[M]") != first
    outside = ~bad & ((year < 1678) | (year > 2261))
    if bad.any():
        return _refused(n, "values can't be read as timestamps", bad, "dates and times of day that exist")
    if outside.any():
        return _refused(n, "timestamps are impossible", outside, "years 1678 to 2261", "correct or drop these rows")
    digits = pc.utf8_rpad(text("fraction"), 9, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    nanoseconds = ((hour * 60 + minute) * 60 + second) * 10**9 + digits
    offset = _offsets(text("zone"))
    ahead = np.where(np.isnan(offset), 0, offset).astype(np.int64) * 60 * 10**9
    return _ReadTexts(date.astype("datetime64[ns]") + (nanoseconds - ahead), offset)


def _offsets(zones: pa.Array) -> Floats:
    """Minutes ahead of UTC of ``Z``, ``UTC``, ``+01``, ``+0100``, ``+01:00``; NaN of an empty text; (n,)."""
    encoded = zones.dictionary_encode()
    minutes = []
    for zone in encoded.dictionary.to_pylist():
        if zone and zone[0] in "+-":
            digits = zone[1:].replace(":", "").ljust(4, "0")
            minutes.append((int(digits[:2]) * 60 + int(digits[2:])) * (-1.0 if zone[0] == "-" else 1.0))
        else:
            minutes.append(0.0 if zone else np.nan)
    return np.asarray(np.array(minutes)[encoded.indices.to_numpy(zero_copy_only=False)])
