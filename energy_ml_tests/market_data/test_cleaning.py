from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import (
    DuplicateError,
    IntervalError,
    NoDataError,
    SchemaError,
    TimestampError,
    UnknownRegionError,
    ValueRangeError,
)
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.market_data.rows import infer_interval
from energy_ml.market_data.schema import DataProblem
from energy_ml_tests.market_data.frames import NOW, START, prices


def clean(frame, **options):
    return clean_prices(frame, now=NOW, **options)


def kinds(result):
    return sorted(p.kind for p in result.problems)


def minute(n):
    return START + pd.Timedelta(minutes=n)


def rows_at(frame, region, first, last):
    """Mask of the rows of a region from minute ``first`` up to ``last``, excluded."""
    return (frame["region"] == region) & (frame["timestamp"] >= minute(first)) & (frame["timestamp"] < minute(last))


def test_good_prices_pass_untouched():
    result = clean(prices(), start=START, end=minute(120))
    pd.testing.assert_frame_equal(result.frame.drop(columns="is_filled"), prices())
    assert not result.frame["is_filled"].any()
    assert result.problems == []
    assert result.interval_minutes == 1


@pytest.mark.parametrize("interval", [1, 5, 15, 30, 60])
def test_interval_is_inferred(interval):
    result = clean(prices(1440, interval=interval), start=START, end=minute(1440))
    assert result.interval_minutes == interval
    assert len(result.frame) == 2 * 1440 // interval


def test_unsorted_rows_are_sorted_and_reported():
    shuffled = prices().sample(frac=1, random_state=1)
    result = clean(shuffled)
    pd.testing.assert_frame_equal(result.frame.drop(columns="is_filled"), prices())
    assert kinds(result) == ["unsorted"]
    assert result.problems[0].repaired


def test_a_stray_timestamp_is_refused_before_a_grid_of_decades_is_laid_out():
    lone = prices().iloc[:1].assign(timestamp=pd.Timestamp("1990-01-01", tz="UTC"))
    tracemalloc.start()
    try:
        with pytest.raises(TimestampError, match=r"from 1990.*: \d\d,\d{3},\d{3} intervals"):
            clean(pd.concat([lone, prices()]))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    with pytest.raises(TimestampError, match="at most 100"):
        clean(prices(), max_cells=100)


def test_region_after_region_is_an_order_too():
    assert clean(prices().sort_values(["region", "timestamp"])).problems == []
    assert clean(prices().sort_values(["timestamp", "region"], ascending=[True, False])).problems == []


def test_duplicates_that_agree_are_dropped():
    frame = pd.concat([prices(), prices().iloc[10:15]])
    result = clean(frame)
    pd.testing.assert_frame_equal(result.frame.drop(columns="is_filled"), prices())
    problem = next(p for p in result.problems if p.kind == "duplicates")
    assert problem.rows == 5
    assert str(prices()["timestamp"][10]) in problem.example


def test_a_missing_value_agrees_with_any():
    again = prices().iloc[10:15].assign(real_time_price=np.nan)
    for frame in (pd.concat([prices(), again]), pd.concat([again, prices()])):
        result = clean(frame)
        pd.testing.assert_frame_equal(result.frame.drop(columns="is_filled"), prices())
        assert "duplicates" in kinds(result)


def test_duplicates_that_disagree_are_refused():
    other = prices().iloc[10:13].copy()
    other["real_time_price"] += 1
    with pytest.raises(DuplicateError) as caught:
        clean(pd.concat([prices(), other]))
    error = caught.value
    assert error.rows == 6
    assert error.column == "real_time_price"
    assert str(prices()["timestamp"][10]) in error.example


def test_duplicates_that_disagree_in_an_extra_column_are_refused():
    frame = prices().assign(load=1.0)
    with pytest.raises(DuplicateError, match="'load'"):
        clean(pd.concat([frame, frame.iloc[:1].assign(load=2.0)]))


def test_both_files_are_named_where_files_disagree():
    frame = pd.concat([prices(), prices().iloc[:2].assign(real_time_price=-1.0)], ignore_index=True)
    frame.attrs["sources"] = [["a.parquet", 240], ["b.parquet", 2]]
    with pytest.raises(DuplicateError, match=r"a\.parquet and b\.parquet"):
        clean(frame)


def test_short_gap_is_filled_with_the_last_price_and_flagged():
    gap = rows_at(prices(), "FR", 50, 80)
    result = clean(prices()[~gap], max_gap_minutes=30)
    frame = result.frame
    filled = rows_at(frame, "FR", 50, 80)
    assert (frame["is_filled"] == filled).all()
    last = prices()[rows_at(prices(), "FR", 49, 50)]["real_time_price"].item()
    assert (frame.loc[filled, "real_time_price"] == last).all()
    pd.testing.assert_frame_equal(frame[~filled].drop(columns="is_filled"), prices()[~gap], check_index_type=False)
    assert kinds(result) == ["short_gap"]
    assert result.problems[0].rows == 30


def test_a_longer_gap_stays_a_hole_and_is_reported():
    gap = rows_at(prices(600), "FR", 50, 81)
    result = clean(prices(600)[~gap], max_gap_minutes=30)
    assert (result.frame["real_time_price"].isna() == gap).all()
    assert (result.frame["is_filled"] == gap).all()
    (problem,) = result.problems
    assert (problem.kind, problem.rows, problem.repaired) == ("hole", 31, False)
    assert problem.example == "FR from 2026-02-01 00:50:00+00:00 to 2026-02-01 01:21:00+00:00 (31 minutes)"


@pytest.mark.parametrize("interval, fills", [(60, 1), (30, 1), (15, 2), (5, 6)])
def test_one_interval_may_be_filled_whatever_its_length(interval, fills):
    for length, kind in ((fills, "short_gap"), (fills + 1, "hole")):
        frame = prices(6000, interval=interval)
        gone = rows_at(frame, "FR", 20 * interval, (20 + length) * interval)
        result = clean(frame[~gone], max_gap_minutes=30)
        assert kinds(result) == [kind]
        assert result.frame["is_filled"].sum() == length


def test_no_gap_is_short_if_none_may_be_filled():
    assert kinds(clean(prices(600)[~rows_at(prices(600), "FR", 50, 51)], max_gap_minutes=0)) == ["hole"]


@pytest.mark.parametrize(
    "value, kind", [(np.nan, "missing_values"), (np.inf, "infinite_values"), (-np.inf, "infinite_values")]
)
def test_missing_and_infinite_prices_are_gaps(value, kind):
    frame = prices(600)
    frame.loc[rows_at(frame, "DE", 10, 15), "real_time_price"] = value
    result = clean(frame)
    assert kinds(result) == sorted([kind, "short_gap"])
    assert result.frame["is_filled"].sum() == 5
    assert np.isfinite(result.frame["real_time_price"]).all()
    frame.loc[rows_at(frame, "DE", 10, 60), "real_time_price"] = value
    assert kinds(clean(frame)) == sorted([kind, "hole"])


def test_first_prices_that_are_missing_stay_missing():
    result = clean(prices()[~rows_at(prices(), "FR", 0, 5)], start=START)
    missing = result.frame["real_time_price"].isna()
    assert (missing == rows_at(result.frame, "FR", 0, 5)).all()
    assert (missing == result.frame["is_filled"]).all()
    assert kinds(result) == ["leading_gap"]


@pytest.mark.parametrize("price", [1e6, -1e6, 99999.0, 1e300])
def test_absurd_prices_are_refused(price):
    frame = prices()
    frame.loc[7, "real_time_price"] = price
    with pytest.raises(ValueRangeError) as caught:
        clean(frame)
    assert (caught.value.column, caught.value.rows) == ("real_time_price", 1)
    if abs(price) < 1e10:
        assert clean(frame, max_abs_price=2e6).problems == []


def test_caps_of_real_markets_are_not_absurd():
    frame = prices()
    frame.loc[:3, "real_time_price"] = [17_500.0, -1000.0, 9999.0, 20_300.0]
    assert clean(frame).problems == []


def test_future_timestamps_are_refused():
    with pytest.raises(TimestampError, match="future") as caught:
        clean_prices(prices(), now=minute(30))
    assert caught.value.rows == 2 * 29  # one hour of tolerance
    assert clean_prices(prices(), now=minute(60)).problems == []


def test_timestamps_off_the_grid_are_refused():
    frame = prices()
    frame["timestamp"] += pd.Timedelta(seconds=20)
    with pytest.raises(TimestampError, match="off the grid"):
        clean(frame)
    hourly = prices(1440, interval=60)
    hourly["timestamp"] += pd.Timedelta(minutes=30)
    with pytest.raises(TimestampError, match="off the grid of 60 minutes"):
        clean(hourly)


def test_jitter_of_a_second_is_rounded_away():
    frame = prices()
    frame["timestamp"] += pd.to_timedelta(np.random.default_rng(0).uniform(-1, 1, len(frame)), unit="s")
    result = clean(frame, start=START, end=minute(120))
    pd.testing.assert_frame_equal(result.frame.drop(columns="is_filled"), prices())
    assert kinds(result) == ["jitter"]


@pytest.mark.parametrize(
    "frame",
    [
        pd.concat([prices(1440), prices(1440, interval=5, start=minute(1440))]),
        pd.concat([prices(1440, interval=15), prices(60, start=minute(1440))]),
        pd.concat([prices(1440, ["FR"]), prices(1440, ["DE"], interval=15)]),
        pd.concat([prices(1440, ["FR"], interval=60), prices(1440, ["DE"], interval=30)]),
    ],
)
def test_mixed_intervals_are_refused(frame):
    with pytest.raises(IntervalError, match="mixed"):
        clean(frame)


def test_unsupported_intervals_are_refused():
    times = pd.date_range(START, periods=50, freq="7min")
    frame = pd.DataFrame({"timestamp": times, "region": "FR", "real_time_price": 1.0})
    with pytest.raises(IntervalError, match="7 minutes"):
        clean(frame)
    with pytest.raises(IntervalError, match="one row per region"):
        clean(frame.iloc[:1])
    with pytest.raises(IntervalError, match="interval is 7"):
        clean(prices(), interval_minutes=7)


def test_random_gaps_are_no_mixed_interval():
    keep = np.random.default_rng(3).random(len(prices(1440))) > 0.05
    keep[:2] = keep[-2:] = True
    result = clean(prices(1440)[keep])
    assert result.interval_minutes == 1
    assert result.frame["is_filled"].sum() == (~keep).sum()


class TestRegions:
    @pytest.mark.parametrize("first, last", [(0, 200), (1300, 1440)])
    def test_one_that_starts_late_or_stops_has_a_hole_there(self, first, last):
        gone = rows_at(prices(1440), "FR", first, last)
        result = clean(prices(1440)[~gone], start=START, end=minute(1440))
        assert (result.frame["real_time_price"].isna() == gone).all()
        assert kinds(result) == ["hole"]

    def test_one_that_ended_before_the_window_is_left_out_unless_chosen(self):
        frame = prices(600)[~rows_at(prices(600), "FR", 250, 600)]
        window = {"start": minute(300), "end": minute(600), "warmup_minutes": 200}
        result = clean(frame, **window)
        assert set(result.frame["region"]) == {"DE"}
        assert [(p.kind, p.example) for p in result.problems] == [("region_absent", "FR")]
        chosen = clean(frame, regions=["DE", "FR"], **window).frame
        assert chosen.loc[(chosen["region"] == "FR") & (chosen["timestamp"] >= minute(300)), "is_filled"].all()

    def test_chosen_region_is_absent(self):
        with pytest.raises(UnknownRegionError, match="ES has no rows"):
            clean(prices(), regions=["FR", "ES"])
        assert set(clean(prices(), regions=["FR"]).frame["region"]) == {"FR"}

    def test_regions_asked_of_the_lake_are_remembered(self):
        frame = prices()
        frame.attrs["regions"] = ["FR", "ES"]
        with pytest.raises(UnknownRegionError, match="ES has no rows"):
            clean(frame)


def test_no_rows_in_the_window():
    with pytest.raises(NoDataError):
        clean(prices(), start=minute(500), end=minute(600))
    with pytest.raises(NoDataError):
        clean(prices().iloc[:0])


def test_warm_up_is_kept_where_it_exists():
    frame = prices(600)
    result = clean(frame, start=minute(300), end=minute(600), warmup_minutes=120)
    assert result.frame["timestamp"].min() == minute(180)
    assert len(clean(frame, start=START, end=minute(600), warmup_minutes=120).frame) == len(frame)


def test_holes_in_the_warm_up_refuse_nothing_and_are_not_filled():
    frame = prices(600)
    frame = frame[~rows_at(frame, "FR", 200, 280) & ~rows_at(frame, "DE", 0, 250)]
    result = clean(frame, start=minute(300), end=minute(600), warmup_minutes=300)
    hole = result.frame["real_time_price"].isna()
    assert (hole == (rows_at(result.frame, "FR", 200, 280) | rows_at(result.frame, "DE", 0, 250))).all()


def test_warm_up_fills_a_gap_at_the_windows_start():
    frame = prices(600)
    frame = frame[~rows_at(frame, "FR", 295, 310)]
    result = clean(frame, start=minute(300), end=minute(600), warmup_minutes=60)
    filled = result.frame[rows_at(result.frame, "FR", 300, 310)]
    assert filled["is_filled"].all()
    assert (
        filled["real_time_price"] == prices(600)[rows_at(prices(600), "FR", 294, 295)]["real_time_price"].item()
    ).all()


def test_flatline_is_reported_not_refused():
    frame = prices(1440)
    frame.loc[rows_at(frame, "FR", 100, 500), "real_time_price"] = 33.0
    result = clean(frame)
    assert kinds(result) == ["flatline"]
    assert not result.problems[0].repaired
    assert "FR from 2026-02-01 01:40" in result.problems[0].example
    frame.loc[rows_at(frame, "FR", 300, 301), "real_time_price"] = 34.0
    assert clean(frame).problems == []


def test_every_fatal_problem_is_named_at_once():
    frame = prices(600)
    frame.loc[3, "real_time_price"] = 1e7
    frame = frame[~rows_at(frame, "FR", 100, 300)]
    frame = pd.concat([frame, prices(600).iloc[500:501].assign(real_time_price=-1.0)])
    with pytest.raises(ValueRangeError) as caught:
        clean(frame)
    text = str(caught.value)
    assert "1 more problem:" in text
    assert "DuplicateError" in text


def test_files_are_named_if_the_lake_said_which():
    frame = prices()
    frame.attrs["sources"] = [["a.parquet", 100], ["b.parquet", 140]]
    frame.loc[150, "real_time_price"] = 1e7
    with pytest.raises(ValueRangeError, match=r"file b\.parquet"):
        clean(frame)


def test_problems_found_before_are_handed_on_and_are_plain_data():
    frame = prices()
    frame.attrs["problems"] = [
        DataProblem("naive_timestamps", "m", 1, repaired=True, file="f").to_dict(),
    ]
    result = clean(frame)
    assert kinds(result) == ["naive_timestamps"]
    json.dumps([p.to_dict() for p in result.problems])


def test_extra_columns_are_filled_over_short_gaps_only():
    frame = prices(600).assign(load=np.arange(1200.0))
    frame.loc[rows_at(frame, "FR", 10, 20) | rows_at(frame, "FR", 100, 200), "load"] = np.nan
    result = clean(frame).frame
    missing = result["load"].isna()
    assert (missing == rows_at(result, "FR", 100, 200)).all()
    assert not result["is_filled"].any()


def test_cleaning_again_changes_nothing():
    once = clean(prices()[~rows_at(prices(), "FR", 50, 60)])
    again = clean(once.frame)
    pd.testing.assert_frame_equal(again.frame, once.frame)


def test_types_are_checked_here_too():
    with pytest.raises(SchemaError):
        clean(prices().assign(real_time_price="x"))
    assert kinds(clean(prices().assign(timestamp=prices()["timestamp"].dt.tz_localize(None)))) == ["naive_timestamps"]


def test_infer_interval_takes_the_most_common_step():
    minute_ns = 60 * 10**9
    assert infer_interval([np.array([0, 5, 10, 30]) * minute_ns]) == 5
    assert infer_interval([np.array([0, 1, 2]) * minute_ns, np.array([0, 5]) * minute_ns]) == 1
    assert infer_interval([np.array([0, 7, 14]) * minute_ns]) is None
    assert infer_interval([]) is None


def brute_force_fill(values, limit):
    """Fill one region's prices as a person would, run by run."""
    result, i = list(values), 0
    while i < len(values):
        if not np.isnan(values[i]):
            i += 1
            continue
        j = i
        while j < len(values) and np.isnan(values[j]):
            j += 1
        if i > 0 and j - i <= limit:
            result[i:j] = [values[i - 1]] * (j - i)
        i = j
    return result


@settings(max_examples=60)
@given(
    missing=st.lists(st.sampled_from(["", "FR", "DE", "FRDE"]), min_size=40, max_size=40),
    seed=st.integers(0, 1000),
    limit=st.integers(1, 20),
)
def test_filling_equals_brute_force(missing, seed, limit):
    frame = prices(80)
    drop = np.zeros(len(frame), dtype=bool)
    for n, regions in enumerate(missing):  # rows alternate: DE, FR
        drop[2 * (20 + n)], drop[2 * (20 + n) + 1] = "DE" in regions, "FR" in regions
    expected = {}
    for region in ("DE", "FR"):
        own = frame["real_time_price"].where(~drop)[frame["region"] == region].to_numpy()
        expected[region] = brute_force_fill(own, limit)
    given_rows = frame[~drop].sample(frac=1, random_state=seed)
    options = {"start": START, "end": minute(80), "max_gap_minutes": limit, "interval_minutes": 1}
    result = clean(given_rows, **options).frame
    for region, values in expected.items():
        np.testing.assert_array_equal(result.loc[result["region"] == region, "real_time_price"], values)
    assert result["is_filled"].sum() == drop.sum()


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), cut=st.integers(60, 100))
def test_a_clean_row_never_depends_on_later_rows(seed, cut):
    frame = prices(120, seed=seed)
    frame = frame[np.random.default_rng(seed).random(len(frame)) > 0.1]
    options = {"start": START, "interval_minutes": 1}
    whole = clean(frame, end=minute(120), **options).frame
    part = clean(frame[frame["timestamp"] < minute(cut)], end=minute(cut), **options).frame
    pd.testing.assert_frame_equal(part, whole[whole["timestamp"] < minute(cut)])
