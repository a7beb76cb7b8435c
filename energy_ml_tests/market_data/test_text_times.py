"""Texts are read in one way for the whole column, and never by a guess which number is the day."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import TimestampError
from energy_ml.market_data.schema import normalise
from energy_ml.market_data.text_times import parse_texts

JANUARY = pd.date_range("2026-01-03", periods=400, freq="90min", tz="UTC")
"""With days up to 27: what is the day shows."""


def column(form: str, times: pd.DatetimeIndex = JANUARY) -> pa.Array:
    return pa.array(times.strftime(form))


def refused(texts: list[str], words: str) -> TimestampError:
    frame = pd.DataFrame({"timestamp": texts, "region": "FR", "real_time_price": 1.0})
    with pytest.raises(TimestampError, match=words) as caught:
        normalise(frame, "prices", file="prices.parquet")
    error = caught.value
    assert (error.file, error.column) == ("prices.parquet", "timestamp")
    assert error.example is not None
    assert error.example.startswith("row ")
    return error


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%d %H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M+0000",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M:%S.%f",
        "%Y/%m/%d %H:%M",
        "%Y.%m.%d %H:%M:%S UTC",
        "%Y%m%dT%H%M",
        "%Y%m%dT%H%M%SZ",
        "%Y%m%d%H%M",
        "%d/%m/%Y %H:%M",
        "%m/%d/%Y %H:%M:%S",
        "%m/%d/%Y %I:%M %p",
        "%d.%m.%Y %H:%M",
        "%d-%m-%Y %H:%M",
        "%d-%b-%Y %H:%M",
        "%B %d, %Y %I:%M %p",
        " %Y-%m-%d  %H:%M ",
    ],
)
def test_a_column_in_one_way_gives_every_instant(form):
    read = parse_texts(column(form))
    assert read.problem is None
    np.testing.assert_array_equal(read.utc, JANUARY.tz_localize(None).as_unit("ns").to_numpy())


@settings(max_examples=60)
@given(
    st.datetimes(min_value=pd.Timestamp("1700-01-01"), max_value=pd.Timestamp("2250-01-01")),
    st.integers(-14 * 60, 14 * 60),
)
def test_iso_texts_are_read_as_pandas_reads_them(moment, offset):
    sign = "-" if offset < 0 else "+"
    text = f"{moment.isoformat()}{sign}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    read = parse_texts(pa.array([text]))
    assert pd.Timestamp(read.utc[0], tz="UTC") == pd.Timestamp(text)
    assert read.offset_minutes[0] == offset


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m-%d-%Y %H:%M", "%d.%m.%Y"])
def test_day_and_month_that_no_row_tells_apart_are_refused(form):
    texts = pd.date_range("2026-04-01", "2026-04-12", freq="D").strftime(form).tolist()
    error = refused(texts, "told apart in no row")
    assert "year first" in str(error)
    assert texts[0] in error.example


def test_one_row_in_the_other_order_is_found():
    texts = [*JANUARY.strftime("%d/%m/%Y"), "01/28/2026"]
    error = refused(texts, "both orders")
    assert error.rows == 1
    assert error.example == "row 400: '01/28/2026'"


@pytest.mark.parametrize("other", ["2026/01/28 00:15", "28/01/2026 00:15", "20260128T0015", "Jan 28, 2026"])
def test_a_row_written_in_another_way_is_found(other):
    texts = [*JANUARY.strftime("%Y-%m-%d %H:%M"), other]
    error = refused(texts, "more than one way")
    assert (error.rows, error.example) == (1, f"row 400: {other!r}")


@pytest.mark.parametrize(
    "text",
    ["00:15", "now", "today", "NaT", "05-01-26", "28/01/26", "2026Q1", "2026-01", "2026-W05", "2026-028", "17.5",
     "2026-02-30", "2026-13-01", "2026-01-28T24:15", "2026-01-28T00:61", "2026-01-28 13:15 PM", "28-Foo-2026",
     "1769559300", "2026-01-28 00:15 CET", "", "20260128T001"],
)  # fmt: skip
def test_what_is_no_instant_is_refused_alone_and_among_others(text):
    refused([text], "can't be read")
    error = refused([*JANUARY.strftime("%Y-%m-%d %H:%M"), text], "can't be read|more than one way")
    assert error.rows == 1
