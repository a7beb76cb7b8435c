"""A training window: what may be missing of it, and what its warm-up may hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import DataError, IncompleteWindowError, IntervalError, ValueRangeError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.window import PriceWindow, read_price_window, read_recent_prices, refuse_too_few
from energy_ml.service.recent import RecentMarket
from energy_ml.splits import split_window
from energy_ml_tests.market_data.frames import START, prices

DAY = pd.Timedelta(days=1)
TEN = START + 10 * DAY


def window(tmp_path, frame: pd.DataFrame, **options) -> PriceWindow:
    frame.to_parquet(tmp_path / "prices.parquet")
    return read_price_window(ParquetLake(tmp_path), START, TEN, **options)


def judged(found: PriceWindow, days: float = 5.0, share: float = 0.25) -> PriceWindow:
    split = split_window(found.start, found.end)
    return refuse_too_few(found, split, min_training_days=days, max_missing_share=share)


def without(frame: pd.DataFrame, region: str, first: float, last: float) -> pd.DataFrame:
    times = frame["timestamp"]
    return frame[~((frame["region"] == region) & (times >= START + first * DAY) & (times < START + last * DAY))]


TEN_DAYS = prices(14_400, interval=15)


@pytest.mark.parametrize("day", range(0, 7))
def test_a_day_without_prices_anywhere_in_the_training_part_is_no_hindrance(tmp_path, day):
    found = judged(window(tmp_path, without(TEN_DAYS, "FR", day, day + 1)))
    missing = found.prices["real_time_price"].isna()
    assert missing.sum() == 96
    assert (missing == found.prices["is_filled"]).all()
    assert [p.kind for p in found.problems] == ["hole"]


@pytest.mark.parametrize(
    "first, last, words",
    [
        (2.0, 4.5, r"FR has 4\.5 days to train on"),
        (0.0, 5.0, r"FR has 2\.0 days to train on and starts only at 2026-02-06"),
        (7.0, 7.5, "FR lacks 33% of the validation part"),
        (8.5, 9.0, "FR lacks 33% of the test part"),
        (9.0, 10.0, "FR lacks 67% of the test part and stops after 2026-02-09 23:45"),
        (6.5, 9.5, "FR lacks 100% of the validation part and lacks 67% of the test part"),
    ],
)
def test_too_little_is_refused_with_numbers_and_who_may_stay(tmp_path, first, last, words):
    found = window(tmp_path, without(TEN_DAYS, "FR", first, last))
    with pytest.raises(IncompleteWindowError, match=words) as caught:
        judged(found)
    assert "ENERGY_ML_REGIONS=DE" in str(caught.value)
    assert "ENERGY_ML_PRICES_MAX_MISSING_SHARE" in str(caught.value)
    assert caught.value.rows == round((last - first) * 96)
    assert judged(found, days=1.0, share=1.0) is found


def test_many_short_gaps_count_too(tmp_path):
    mask = (TEN_DAYS["region"] == "FR") & (TEN_DAYS["timestamp"].dt.minute == 30) & (TEN_DAYS.index % 3 > 0)
    found = window(tmp_path, TEN_DAYS[~mask])
    assert not found.prices["real_time_price"].isna().any()
    judged(found)
    with pytest.raises(IncompleteWindowError, match=r"FR lacks 1[67]% of the validation part"):
        judged(found, share=0.1)


def test_of_a_short_window_three_quarters_of_the_training_part_are_enough(tmp_path):
    TEN_DAYS.to_parquet(tmp_path / "prices.parquet")
    three = read_price_window(ParquetLake(tmp_path), START, START + 3 * DAY)
    assert judged(three) is three
    four = read_price_window(ParquetLake(tmp_path), START - DAY, START + 3 * DAY)
    with pytest.raises(IncompleteWindowError, match="2 of 2 regions"):
        judged(four)


def earlier(interval: int, days: float = 6) -> pd.DataFrame:
    return prices(int(days * 1440), interval=interval, start=START - days * DAY)


@pytest.mark.parametrize(
    "before, kept",
    [
        (earlier(15), 6),
        (earlier(60), 0),
        (pd.concat([earlier(5)[lambda f: f["timestamp"] < START - 3 * DAY], earlier(15, 3)]), 3),
        (earlier(15).assign(real_time_price=lambda f: f["real_time_price"].where(f.index != 400, 1e9)), 3),
        (pd.concat([earlier(15), earlier(15)[:1].assign(real_time_price=-7.0)]), 5),
        (earlier(15).assign(timestamp=lambda f: f["timestamp"] + pd.Timedelta(minutes=7)), 0),
    ],
    ids=["whole", "other interval", "other interval at first", "absurd price", "rows that disagree", "off the grid"],
)
def test_what_is_wrong_in_the_warm_up_only_costs_that_part_of_it(tmp_path, before, kept):
    before.to_parquet(tmp_path / "before.parquet")
    found = window(tmp_path, TEN_DAYS, warmup_minutes=6 * 1440)
    assert found.interval_minutes == 15
    assert found.prices["timestamp"].min() == START - kept * DAY
    told = [p for p in found.problems if p.kind == "warm_up"]
    assert len(told) == (kept < 6)
    alone = window(tmp_path, TEN_DAYS)
    assert found.fingerprint == alone.fingerprint
    pd.testing.assert_frame_equal(
        found.prices[found.in_window].reset_index(drop=True), alone.prices.reset_index(drop=True)
    )


def test_an_unreadable_file_of_the_warm_up_is_no_hindrance(tmp_path):
    (tmp_path / "2026-01-28..2026-01-29.parquet").write_bytes(b"PAR1")
    found = window(tmp_path, TEN_DAYS, warmup_minutes=6 * 1440)
    assert np.isfinite(found.prices.loc[found.in_window, "real_time_price"]).all()


def test_what_is_wrong_in_the_window_is_still_refused(tmp_path):
    earlier(15).to_parquet(tmp_path / "before.parquet")
    with pytest.raises(ValueRangeError):
        window(tmp_path, TEN_DAYS.assign(real_time_price=1e9), warmup_minutes=6 * 1440)
    with pytest.raises(IntervalError):
        window(tmp_path, TEN_DAYS[TEN_DAYS["timestamp"].dt.minute.eq(0) | (TEN_DAYS.index > 900)], warmup_minutes=1440)


def test_recent_prices_end_with_the_newest_that_is_known(tmp_path):
    """Prices published ahead, and rows that wait for theirs, are no present."""
    now = pd.Timestamp.now("UTC")
    frame = prices(4 * 1440, interval=30, start=now.floor("D") - 2 * DAY)
    waiting = frame.assign(real_time_price=frame["real_time_price"].where(frame["timestamp"] <= now - DAY / 24))
    for number, published in enumerate((frame, waiting)):
        folder = tmp_path / str(number)
        folder.mkdir()
        published.to_parquet(folder / "ahead.parquet")
        recent = read_recent_prices(ParquetLake(folder), minutes=1440)
        newest = recent["timestamp"].max()
        assert now - (1 + 2 * number) * pd.Timedelta(minutes=60) < newest <= now
        assert recent["real_time_price"].notna().all()
        market = RecentMarket(ParquetLake(folder), clock=lambda: now)
        assert market.prices(1440).newest == newest
        earlier = RecentMarket(ParquetLake(folder), clock=lambda: now - DAY)
        assert earlier.prices(720).newest == (now - DAY).floor("30min")


def test_a_chosen_region_that_ended_before_another_of_its_file_is_still_read(tmp_path) -> None:
    long = prices(minutes=5 * 1440, regions=("AA", "BB"), interval=60)
    ends = long["region"].map({"AA": long["timestamp"].min() + 2 * DAY, "BB": long["timestamp"].max()})
    long[long["timestamp"] < ends].to_parquet(tmp_path / "p.parquet", index=False)
    lake = ParquetLake(tmp_path)
    recent = read_recent_prices(lake, minutes=1440, regions=["AA"])
    assert recent["timestamp"].max() == long["timestamp"].min() + 2 * DAY - pd.Timedelta(hours=1)
    assert set(recent["region"]) == {"AA"} and len(recent) == 24 and lake.interval(["AA"]) == 60


@pytest.mark.parametrize("minutes", [0, -1, 10**9, 10**30, float("nan")])
def test_so_many_minutes_nobody_has(minutes: float) -> None:
    with pytest.raises(DataError, match="minutes of prices asked for"):
        read_recent_prices(ParquetLake("."), minutes=minutes)  # type: ignore[arg-type]
