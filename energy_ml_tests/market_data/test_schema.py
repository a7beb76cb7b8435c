from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import SchemaError, TimestampError
from energy_ml.market_data.schema import normalise, read_kind
from energy_ml_tests.market_data.frames import START, prices, telemetry


def kinds(problems):
    return [p.kind for p in problems]


def test_kind_is_told_by_columns():
    assert read_kind(["x", "real_time_price", "region", "timestamp"]) == "prices"
    assert read_kind(pa.Schema.from_pandas(telemetry())) == "batteries"


@pytest.mark.parametrize("column", ["timestamp", "region", "real_time_price"])
def test_a_missing_column_is_named(column):
    with pytest.raises(SchemaError, match=f"'{column}'") as caught:
        normalise(prices().drop(columns=column), "prices", file="p.parquet")
    assert caught.value.column == column
    assert caught.value.file == "p.parquet"
    with pytest.raises(SchemaError, match="lack column"):
        read_kind([c for c in prices().columns if c != column])


def test_battery_columns_that_are_missing_are_named():
    with pytest.raises(SchemaError, match="batteries lack column 'capacity_mwh'"):
        read_kind(["timestamp", "battery_id", "charge_level_mwh"])


def test_a_file_that_could_be_both_is_refused():
    with pytest.raises(SchemaError, match="both"):
        read_kind([*prices().columns, *telemetry().columns])


def test_right_types_pass_untouched():
    frame, problems = normalise(prices(), "prices")
    pd.testing.assert_frame_equal(frame, prices())
    assert problems == []


@pytest.mark.parametrize(
    "convert",
    [
        lambda p: p.map("{:.4f}".format),
        lambda p: p.map(lambda x: f" {x:.4f} "),
        lambda p: p.map(lambda x: Decimal(f"{x:.4f}")),
        lambda p: p.astype("Float64"),
        lambda p: p.map("{:.4f}".format).astype("category"),
        lambda p: p.astype(pd.ArrowDtype(pa.float64())),
    ],
)
def test_prices_that_convert_are_converted_and_reported(convert):
    frame = prices()
    frame["real_time_price"] = convert(frame["real_time_price"])
    result, problems = normalise(frame, "prices", file="f")
    np.testing.assert_allclose(result["real_time_price"], prices()["real_time_price"])
    assert result["real_time_price"].dtype == np.float64
    assert kinds(problems) == ["converted_type"]
    assert problems[0].column == "real_time_price"
    assert problems[0].rows == len(frame)


def test_arrow_types_convert():
    frame = prices()
    whole = frame["real_time_price"].round().astype(int)
    for values in (
        pa.array(whole, pa.int32()),
        pa.array([Decimal(int(v)) for v in whole], pa.decimal128(12, 2)),
        pa.array(whole.astype(str), pa.string()).dictionary_encode(),
    ):
        table = pa.table({"timestamp": frame["timestamp"], "region": frame["region"], "real_time_price": values})
        result, problems = normalise(table, "prices")
        assert result["real_time_price"].tolist() == whole.tolist()
        assert kinds(problems) == ["converted_type"]


@pytest.mark.parametrize("word", ["", "NaN", "null", " n/a "])
def test_words_for_missing_are_missing(word):
    frame = prices().astype({"real_time_price": object})
    frame["real_time_price"] = frame["real_time_price"].map(str)
    frame.loc[3, "real_time_price"] = word
    result, _ = normalise(frame, "prices")
    assert np.flatnonzero(result["real_time_price"].isna()).tolist() == [3]


@pytest.mark.parametrize("bad", ["12,5", "abc", "1_000", True, dt.date(2026, 1, 1), [1.0]])
def test_values_that_are_no_numbers_are_refused_with_file_column_rows_and_example(bad):
    if isinstance(bad, list):
        bad = tuple(bad)
    values = prices()["real_time_price"].astype(object).tolist()
    values[5] = values[7] = bad
    frame = prices().assign(real_time_price=pd.Series(values, dtype=object))
    with pytest.raises(SchemaError) as caught:
        normalise(frame, "prices", file="bad.parquet")
    error = caught.value
    assert (error.file, error.column, error.rows) == ("bad.parquet", "real_time_price", 2)
    assert "row 5" in error.example
    assert "bad.parquet" in str(error)


def test_boolean_and_time_columns_are_no_prices():
    for values in (prices()["real_time_price"] > 60, prices()["timestamp"]):
        with pytest.raises(SchemaError, match="isn't numeric"):
            normalise(prices().assign(real_time_price=values), "prices")


def test_extra_columns_are_carried_if_numeric():
    frame = prices().assign(load=1, note="x", wind=2.5)
    result, problems = normalise(frame, "prices", extra_columns=None)
    assert list(result.columns) == ["timestamp", "region", "real_time_price", "load", "wind"]
    assert result["load"].dtype == np.float64
    assert sorted(kinds(problems)) == ["converted_type", "extra_column"]
    assert list(normalise(frame, "prices", extra_columns=["wind"])[0].columns)[3:] == ["wind"]
    assert list(normalise(frame, "prices")[0].columns)[3:] == []
    with pytest.raises(SchemaError, match="'sun'"):
        normalise(frame, "prices", extra_columns=["sun"])
    with pytest.raises(SchemaError, match="note isn't numeric"):
        normalise(frame, "prices", extra_columns=["note"])


def test_a_column_that_occurs_twice_is_refused():
    frame = pd.concat([prices(), prices()[["region"]]], axis=1)
    with pytest.raises(SchemaError, match="twice"):
        normalise(frame, "prices")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris", "Australia/Brisbane"])
def test_timestamps_of_any_unit_and_zone_become_utc(unit, zone):
    frame = prices()
    times = pd.DatetimeIndex(frame["timestamp"]).as_unit(unit)
    frame["timestamp"] = times.tz_localize(None) if zone is None else times.tz_convert(zone)
    for data in (frame, pa.Table.from_pandas(frame, preserve_index=False)):
        result, problems = normalise(data, "prices")
        assert result["timestamp"].dtype == "datetime64[ns, UTC]"
        assert (result["timestamp"] == prices()["timestamp"]).all()
        assert kinds(problems) == (["naive_timestamps"] if zone is None else [])


def test_texts_dates_and_whole_numbers_become_timestamps():
    expected = prices()["timestamp"]
    cases = {
        "text_timestamps": expected.map(lambda t: t.isoformat()),
        "object_timestamps": pd.Series([t.to_pydatetime() for t in expected], dtype=object),
        "integer_timestamps": expected.astype("int64") // 10**6,
    }
    for kind, values in cases.items():
        result, problems = normalise(prices().assign(timestamp=values), "prices")
        assert (result["timestamp"] == expected).all()
        assert kinds(problems) == [kind]


def test_naive_texts_are_utc_and_reported():
    frame = prices().assign(timestamp=prices()["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S"))
    result, problems = normalise(frame, "prices")
    assert (result["timestamp"] == prices()["timestamp"]).all()
    assert kinds(problems) == ["text_timestamps", "naive_timestamps"]


def test_texts_with_several_offsets_become_utc():
    zones = ["Europe/Paris", "Asia/Tokyo"]
    texts = [t.tz_convert(zones[i % 2]).isoformat() for i, t in enumerate(prices()["timestamp"])]
    result, problems = normalise(prices().assign(timestamp=texts), "prices")
    assert (result["timestamp"] == prices()["timestamp"]).all()
    assert "mixed_time_zones" in kinds(problems)


def test_aware_beside_naive_is_refused():
    texts = [t.isoformat() if i else t.tz_localize(None).isoformat() for i, t in enumerate(prices()["timestamp"])]
    with pytest.raises(TimestampError, match="beside ones without") as caught:
        normalise(prices().assign(timestamp=texts), "prices")
    assert caught.value.rows == 1


@pytest.mark.parametrize(
    "values, words",
    [
        (lambda t: t.where(t.index != 4), "missing"),
        (lambda t: t.astype(str).where(t.index != 4, "yesterday"), "can't be read"),
        (lambda t: pd.Series(np.arange(len(t))), "aren't a time since 1970"),
        (lambda t: pd.Series(np.linspace(0, 1, len(t))), "aren't timestamps"),
        (lambda t: pd.Series(t.index % 2 == 0), "aren't timestamps"),
    ],
)
def test_impossible_timestamps_are_refused(values, words):
    with pytest.raises(TimestampError, match=words):
        normalise(prices().assign(timestamp=values(prices()["timestamp"])), "prices")


@pytest.mark.parametrize("form", ["%Y%m%d%H", "%Y%m%d%H%M"])
def test_dates_written_as_whole_numbers_are_no_time_since_1970(form):
    numbers = prices()["timestamp"].dt.strftime(form).astype("int64")
    with pytest.raises(TimestampError, match="dates written as YYYYMMDDHH"):
        normalise(prices().assign(timestamp=numbers), "prices")


def test_years_beyond_nanoseconds_are_refused():
    times = pa.array([dt.datetime(2026, 2, 1), dt.datetime(9999, 1, 1)], pa.timestamp("us", "UTC"))
    table = pa.table({"timestamp": times, "region": ["FR", "FR"], "real_time_price": [1.0, 2.0]})
    with pytest.raises(TimestampError):
        normalise(table, "prices")


def test_region_names_are_cleaned_or_refused():
    result, problems = normalise(prices(4).assign(region=["FR ", "DE"] * 4), "prices")
    assert set(result["region"]) == {"FR", "DE"}
    assert kinds(problems) == ["padded_text"]
    result, problems = normalise(prices(4).assign(region=[1, 2] * 4), "prices")
    assert set(result["region"]) == {"1", "2"}
    assert kinds(problems) == ["converted_type"]
    for bad, words in ((None, "missing"), (" ", "empty"), (1.5, "isn't text")):
        values = pd.Series(["FR", "DE"] * 3 + ["FR", bad], dtype=object)
        with pytest.raises(SchemaError, match=words):
            normalise(prices(4).assign(region=values), "prices")


def test_optional_battery_columns_are_kept():
    frame = telemetry().assign(region="FR", power_mw=1, note="x")
    result, _ = normalise(frame, "batteries")
    assert list(result.columns) == [*telemetry().columns, "region", "power_mw"]


def test_no_rows_are_fine():
    empty, problems = normalise(prices().iloc[:0], "prices")
    assert len(empty) == 0
    assert problems == []
    assert empty["timestamp"].dtype == "datetime64[ns, UTC]"


@settings(max_examples=40)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30))
def test_text_round_trip_keeps_every_float(values):
    frame = pd.DataFrame(
        {
            "timestamp": pd.date_range(START, periods=len(values), freq="min"),
            "region": "FR",
            "real_time_price": [repr(v) for v in values],
        }
    )
    result, _ = normalise(frame, "prices")
    np.testing.assert_array_equal(result["real_time_price"].to_numpy(), np.array(values))
