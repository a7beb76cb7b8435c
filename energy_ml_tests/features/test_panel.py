"""Grids: every row lands in its cell and comes back; bad input is refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml import errors
from energy_ml.features.panel import to_panel
from energy_ml_tests.features.frames import START, long_frame, price_frames, price_matrix

PRICE = ["real_time_price"]


@settings(max_examples=60)
@given(price_frames())
def test_every_row_is_in_its_cell_and_every_other_cell_is_nan(case):
    frame, interval = case
    panel = to_panel(frame, PRICE, interval_minutes=interval)
    assert panel.interval_minutes == interval
    assert panel.regions == tuple(sorted(frame["region"].unique()))
    expected = frame.pivot_table(index="timestamp", columns="region", values="real_time_price", dropna=False).reindex(
        panel.times
    )
    np.testing.assert_array_equal(panel.values, expected.to_numpy().T)
    flat = panel.columns["real_time_price"].reshape(-1)
    again = flat if panel.rows is None else flat[panel.rows]
    np.testing.assert_array_equal(again, frame["real_time_price"].to_numpy())


def test_a_sorted_grid_is_taken_as_it_is():
    frame = long_frame(price_matrix(50, 3, 1))
    panel = to_panel(frame, PRICE)
    assert panel.rows is None
    assert np.shares_memory(panel.values, frame["real_time_price"].to_numpy())
    pd.testing.assert_frame_equal(panel.to_long(), frame, check_dtype=False)


@pytest.mark.parametrize("change", ["region order", "a region swapped", "by region", "one region's name twice"])
def test_rows_that_only_look_like_a_grid_are_not_taken_for_one(change):
    frame = long_frame(price_matrix(6, 2, 1))
    if change == "region order":
        frame["region"] = frame["region"].map({"R0": "Z", "R1": "A"})
    elif change == "a region swapped":
        frame.loc[[4, 5], "region"] = ["R1", "R0"]
    elif change == "by region":
        frame = frame.sort_values(["region", "timestamp"])
    else:
        frame.loc[4, "region"] = "R1"
        with pytest.raises(errors.DuplicateError):
            to_panel(frame, PRICE)
        return
    panel = to_panel(frame, PRICE)
    assert panel.rows is not None
    for (_, row), cell in zip(frame.iterrows(), panel.rows, strict=True):
        time, region = divmod(int(cell), 2)
        assert (panel.times[time], panel.regions[region]) == (row["timestamp"], row["region"])


def test_a_grid_whose_regions_stand_in_another_order_is_the_same_grid():
    frame = long_frame(price_matrix(7, 3, 2))
    turned = frame.iloc[[3 * t + r for t in range(7) for r in (2, 0, 1)]]
    expected = to_panel(frame.sample(frac=1, random_state=1), PRICE)
    panel = to_panel(turned, PRICE)
    assert (panel.regions, panel.interval_minutes) == (expected.regions, expected.interval_minutes)
    np.testing.assert_array_equal(panel.values, expected.values)
    flat = panel.columns["real_time_price"].reshape(-1)
    again = flat if panel.rows is None else flat[panel.rows]
    np.testing.assert_array_equal(again, turned["real_time_price"])


def test_time_zones_and_units_mean_the_same_instants():
    frame = long_frame(price_matrix(300, 2, 3))
    expected = to_panel(frame, PRICE)
    stamps = frame["timestamp"]
    for column in (
        stamps.dt.tz_convert("Europe/Paris"),
        stamps.dt.tz_localize(None),
        stamps.dt.as_unit("us"),
        stamps.dt.tz_localize(None).dt.as_unit("s"),
    ):
        panel = to_panel(frame.assign(timestamp=column), PRICE)
        np.testing.assert_array_equal(panel.times_ns, expected.times_ns)
        assert str(panel.times.tz) == "UTC"


@pytest.mark.parametrize("dtype", ["float32", "int64", "Float64", "Int64", "object"])
def test_numbers_of_any_type_become_float64(dtype):
    frame = long_frame(np.round(price_matrix(5, 2, 1)))
    expected = frame["real_time_price"].to_numpy()
    panel = to_panel(frame.astype({"real_time_price": dtype}), PRICE)
    np.testing.assert_array_equal(panel.columns["real_time_price"].reshape(-1), expected)
    assert panel.values.dtype == np.float64


@pytest.mark.parametrize("dtype", ["object", "category", "string"])
def test_region_names_of_any_type(dtype):
    frame = long_frame(price_matrix(5, 2, 1)).astype({"region": dtype})
    for rows in (frame, frame[::-1]):
        assert to_panel(rows, PRICE).regions == ("R0", "R1")


def test_several_columns_share_the_grid():
    frame = long_frame(price_matrix(5, 2, 1)).assign(load=np.arange(10))[::-1]
    panel = to_panel(frame, ["real_time_price", "load"])
    np.testing.assert_array_equal(panel.matrix("load"), [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]])


def test_a_given_interval_serves_where_none_can_be_inferred():
    frame = long_frame(price_matrix(1, 2, 1))
    with pytest.raises(errors.IntervalError, match=r"one row per region.* say the interval"):
        to_panel(frame, PRICE)
    assert to_panel(frame, PRICE, interval_minutes=15).interval_minutes == 15
    sparse = long_frame(price_matrix(5, 2, 1), 30)
    assert to_panel(sparse, PRICE, interval_minutes=5).values.shape == (2, 25)


def _with(frame: pd.DataFrame, column: str, row: int, value: object) -> pd.DataFrame:
    frame = frame.astype({column: object}) if isinstance(value, str) else frame.copy()
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda f: f.drop(columns="region"), errors.SchemaError, "'region'"),
        (lambda f: f.drop(columns="real_time_price"), errors.SchemaError, "'real_time_price'"),
        (lambda f: f.iloc[:0], errors.NoDataError, "no rows"),
        (lambda f: f.assign(timestamp=f["timestamp"].astype(str)), errors.SchemaError, "to_datetime"),
        (lambda f: _with(f, "timestamp", 3, pd.NaT), errors.TimestampError, "row 3"),
        (lambda f: _with(f, "real_time_price", 3, "cheap"), errors.SchemaError, "numbers"),
        (lambda f: _with(f, "real_time_price", 3, np.inf), errors.ValueRangeError, "row 3: inf"),
        (lambda f: _with(f, "region", 3, None), errors.SchemaError, "row 3"),
        (lambda f: pd.concat([f, f.iloc[[5]]]), errors.DuplicateError, "R1"),
        (lambda f: _with(f, "timestamp", 3, START + pd.Timedelta("7min")), errors.IntervalError, "21:07"),
        (
            lambda f: f.assign(timestamp=START + pd.to_timedelta(7 * np.arange(20), "min")),
            errors.IntervalError,
            "7 min",
        ),
        (lambda f: _with(f, "timestamp", 3, pd.Timestamp("2226-01-01", tz="UTC")), errors.TimestampError, "2226"),
    ],
)
def test_bad_frames_are_refused_by_name(spoil, error, words):
    with pytest.raises(error, match=words):
        to_panel(spoil(long_frame(price_matrix(10, 2, 1))), PRICE)


@given(st.integers(1, 30), st.integers(1, 5))
@settings(max_examples=20)
def test_grid_and_back(n_times, n_regions):
    frame = long_frame(price_matrix(n_times, n_regions, 5))
    shuffled = frame.sample(frac=1, random_state=1)
    again = to_panel(shuffled, PRICE, interval_minutes=5).to_long()
    pd.testing.assert_frame_equal(again, frame, check_dtype=False)
