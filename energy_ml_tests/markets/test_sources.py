"""What each source publishes becomes the prices that it meant: stamps, clock changes, corrections, holes."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pandas as pd
import pytest

from energy_ml.markets import MARKETS, MarketSession
from energy_ml_tests.markets.sources import Source, aemo, aemo_told, ahead, elexon, entsoe, expected, nyiso, nyiso_day


def fetched(source: Source, market: str, start: str, end: str, *regions: str) -> pd.DataFrame:
    """What the market's function gives, in order."""
    with source.running(), MarketSession(source.url, waits=(0, 0), pause=0) as session:
        moments = (pd.Timestamp(moment, tz="UTC") for moment in (start, end))
        rows = MARKETS[market].fetch(*moments, regions, session)
    return rows.sort_values(["timestamp", "region"], ignore_index=True)


def same(found: pd.DataFrame, right: pd.DataFrame) -> None:
    start, end = right["timestamp"].min(), right["timestamp"].max()
    found = found[found["timestamp"].between(start, end)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, right, check_dtype=False)


@pytest.mark.parametrize("day", ["2024-03-10", "2024-11-03", "2026-03-08", "2026-11-01", "2025-12-06", "2026-01-15"])
def test_new_york_around_its_clock_changes_in_both_kinds_of_files(day: str) -> None:
    end = str(pd.Timestamp(day).date() + dt.timedelta(days=2))
    same(fetched(nyiso(), "nyiso", day, end, "N.Y.C.", "WEST"), expected(day, end, 5, ["N.Y.C.", "WEST"]))


def test_new_york_takes_neither_schedules_nor_runs_off_the_grid() -> None:
    known = pd.Timestamp("2026-01-15 15:10", tz="UTC")  # 10:10 in New York
    scheduled = [f'"01/15/2026 {time}:00","WEST",61752,777.00,0,0' for time in ("10:15", "10:30", "10:45")]
    off_grid = ['"01/15/2026 09:58:42","WEST",61752,888.00,0,0']
    source = nyiso(
        lambda day: nyiso_day(day, until=known, extra=[*off_grid, *scheduled]) if day.day == 15 else nyiso_day(day),
        current="01/15/2026 10:10:00",
    )
    found = fetched(source, "nyiso", "2026-01-15", "2026-01-16", "WEST")
    same(found, expected("2026-01-15", "2026-01-15 15:10", 5, ["WEST"]))
    assert found["timestamp"].max() == pd.Timestamp("2026-01-15 15:05", tz="UTC")


def test_an_hour_of_new_york_that_cannot_be_told_is_a_hole() -> None:
    """One of the two hours between 1 and 2 o'clock is missing: which one, the file doesn't say."""
    second = pd.Timestamp("2026-11-01 05:55", tz="UTC"), pd.Timestamp("2026-11-01 06:50", tz="UTC")
    once = nyiso(lambda day: nyiso_day(day, without=lambda utc: second[0] <= utc <= second[1]))
    found = fetched(once, "nyiso", "2026-11-01", "2026-11-02", "WEST")
    right = expected("2026-11-01", "2026-11-02", 5, ["WEST"])
    same(found, right[~right["timestamp"].between("2026-11-01 04:55Z", second[1])].reset_index(drop=True))


def test_a_missing_file_of_new_york_is_a_hole_of_its_local_day() -> None:
    source = nyiso(lambda day: None if day == dt.date(2026, 1, 15) else nyiso_day(day))
    found = fetched(source, "nyiso", "2026-01-15", "2026-01-16", "WEST")
    same(found, expected("2026-01-15", "2026-01-15 05:00", 5, ["WEST"]))
    assert found["timestamp"].max() < pd.Timestamp("2026-01-15 05:00", tz="UTC")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import nemdatatools.cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(nemdatatools.cache, "POLITE_DELAY", 0)
    return tmp_path


STATES = ("NSW1", "QLD1", "SA1", "TAS1", "VIC1")


@pytest.mark.parametrize("month", ["2024-04", "2024-10"])
def test_australia_keeps_its_time_all_year_under_either_name_of_its_files(cache: Path, month: str) -> None:
    """Clocks in Sydney change on 2024-04-06 and 2024-10-05, 16:00 UTC; the market's don't."""
    day = {"2024-04": "2024-04-06", "2024-10": "2024-10-05"}[month]
    end = str(pd.Timestamp(day).date() + dt.timedelta(days=1))
    source = aemo(months=[month], regions=("NSW1", "SA1"), interventions=[f"{day} 03:00", f"{day} 16:00"])
    found = fetched(source, "aemo", day, end, "SA1")
    same(found, expected(day, end, 5, ["SA1"]))
    assert len(found) == 288


def test_australia_is_stitched_from_bundles_and_the_newest_files(cache: Path) -> None:
    newest = pd.date_range("2026-01-15 14:00", "2026-01-15 15:00", freq="5min", tz="UTC", inclusive="right")
    source = aemo(archived=[dt.date(2026, 1, day) for day in (14, 15)], current=newest)
    found = fetched(source, "aemo", "2026-01-15", "2026-01-16", *STATES)
    same(found, expected("2026-01-15", "2026-01-15 15:00", 5, STATES))
    assert len(found) == 15 * 12 * 5
    assert len([path for path in source.asked if "Current" in path and path.endswith(".zip")]) == 12


@pytest.mark.parametrize(("day", "periods"), [("2026-03-29", 46), ("2026-10-25", 50), ("2026-07-01", 48)])
def test_great_britain_on_days_of_46_and_50_half_hours_by_its_newest_word(day: str, periods: int) -> None:
    end = str(pd.Timestamp(day).date() + dt.timedelta(days=2))
    source = elexon()
    same(fetched(source, "elexon", day, end, "GB"), expected(day, end, 30, ["GB"]))
    assert len(json.loads(source.usual(source.asked[0])[2])["data"]) in (3 * 48, 3 * periods)
    lacking = fetched(elexon(without=lambda time: time.hour == 7), "elexon", day, end, "GB")
    assert not lacking["timestamp"].dt.hour.eq(7).any() and len(lacking) >= 2 * 46


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_europe_has_one_price_or_that_of_the_long_and_beside_it_that_of_the_short(
    day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENTSOE_API_KEY", "the-key")
    end = str(pd.Timestamp(day).date() + dt.timedelta(days=1))
    found = fetched(entsoe("the-key"), "entsoe", day, end, "BE", "FR")
    for zone, minutes in (("BE", 15), ("FR", 30)):
        mine = found[found["region"] == zone].reset_index(drop=True)
        same(mine[["timestamp", "region", "real_time_price"]], expected(day, end, minutes, [zone]))
        short = mine["short_price"] - mine["real_time_price"]
        assert short.isna().all() if zone == "BE" else (short.round(2) == 7).all()


def test_a_running_day_of_europe_ends_where_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTSOE_API_KEY", "the-key")
    until = pd.Timestamp("2026-01-15 11:00", tz="UTC")
    found = fetched(entsoe("the-key", until), "entsoe", "2026-01-15", "2026-01-16", "BE")
    same(found, expected("2026-01-15", "2026-01-15 11:00", 15, ["BE"]))
    assert len(found) == 44
    assert fetched(entsoe("the-key", until), "entsoe", "2026-01-16", "2026-01-17", "BE").empty


def told(source: Source, market: str, feed: str, start: str, end: str, *regions: str) -> pd.DataFrame:
    """What a feed's function gives, in order."""
    (of,) = (one for one in MARKETS[market].feeds if one.name == feed)
    with source.running(), MarketSession(source.url, waits=(0, 0), pause=0) as session:
        rows = of.fetch(*(pd.Timestamp(moment, tz="UTC") for moment in (start, end)), regions, session)
    assert set(of.columns) <= set(rows.columns)
    rows = rows[rows["timestamp"].between(pd.Timestamp(start, tz="UTC"), pd.Timestamp(end, tz="UTC"), inclusive="left")]
    return rows.sort_values(["timestamp", "available_at", "region"], ignore_index=True)


@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01", "2024-07-01"])
def test_new_york_s_auction_is_known_at_eleven_the_day_before(day: str) -> None:
    end = str(pd.Timestamp(day).date() + dt.timedelta(days=2))
    found = told(nyiso(), "nyiso", "day_ahead", day, end, "WEST")
    assert found["timestamp"].tolist() == pd.date_range(day, end, freq="h", tz="UTC", inclusive="left").tolist()
    assert found["day_ahead_price"].tolist() == [ahead("da", "WEST", time) for time in found["timestamp"]]
    local = found["available_at"].dt.tz_convert("America/New_York")
    assert local.dt.strftime("%H:%M").eq("11:00").all()
    days = found["timestamp"].dt.tz_convert("America/New_York").dt.tz_localize(None).dt.normalize()
    assert ((days - local.dt.tz_localize(None).dt.normalize()) == pd.Timedelta(days=1)).all()


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_europe_s_prices_and_forecasts_of_tomorrow(day: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTSOE_API_KEY", "the-key")
    end = str(pd.Timestamp(day).date() + dt.timedelta(days=1))
    prices = told(entsoe("the-key"), "entsoe", "day_ahead", day, end, "BE", "FR")
    assert len(prices) == 2 * 96 and prices["available_at"].dt.tz_convert("Europe/Brussels").dt.hour.eq(14).all()
    for row in prices.itertuples():
        assert row.day_ahead_price == ahead("da", row.region, row.timestamp) and row.available_at < row.timestamp
    load = told(entsoe("the-key"), "entsoe", "load", day, end, "BE")
    assert (
        load["load_forecast"].tolist() == [ahead("load", "BE", time) for time in load["timestamp"]] and len(load) == 24
    )
    sky = told(entsoe("the-key"), "entsoe", "wind_solar", day, end, "FR")
    wind = [ahead("B18", "FR", time) + ahead("B19", "FR", time) for time in sky["timestamp"]]
    assert sky["solar_forecast"].tolist() == [ahead("B16", "FR", time) for time in sky["timestamp"]]
    assert sky["wind_forecast"].round(2).tolist() == [round(value, 2) for value in wind]


def test_australia_s_five_minute_runs_as_each_came(cache: Path) -> None:
    runs = pd.date_range("2026-01-31 13:05", "2026-01-31 15:00", freq="5min", tz="UTC")
    found = told(aemo_told("P5MIN", runs), "aemo", "p5min", "2026-01-31 13:30", "2026-01-31 14:30", "SA1")
    assert len(found) == sum(min(12, 7 + n) for n in range(7)) + 5 * 12
    for row in found.itertuples():
        run = (row.available_at + pd.Timedelta(minutes=5)).floor("min")
        assert row.p5min_price == ahead(f"{run:%d %H:%M}", "SA1", row.timestamp)
        assert row.p5min_demand == round(row.p5min_price + 5000, 2) and run <= row.timestamp + pd.Timedelta(minutes=5)


def test_australia_s_half_hourly_runs_of_the_month_before_speak_of_a_month_s_first_day(cache: Path) -> None:
    runs = pd.date_range("2026-01-31 04:00", "2026-01-31 20:00", freq="30min", tz="UTC")
    found = told(aemo_told("PREDISPATCH", runs), "aemo", "predispatch", "2026-02-01", "2026-02-02", "SA1")
    assert found["available_at"].min() < pd.Timestamp("2026-01-31 14:00", tz="UTC") < found["available_at"].max()
    for row in found.itertuples():
        run = (row.available_at + pd.Timedelta(minutes=30)).floor("min")
        assert row.predispatch_price == ahead(f"{run:%d %H:%M}", "SA1", row.timestamp)
