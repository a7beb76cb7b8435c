"""Days on disk: what is asked for again and what isn't, servers that misbehave, the command."""

from __future__ import annotations

import datetime as dt
import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from energy_ml import cli
from energy_ml.config import MARKET_NAMES, Covariate, MLConfig, PricePredictionConfig, Settings
from energy_ml.errors import ConfigError, DuplicateError, MarketError
from energy_ml.features.covariates import add_covariates
from energy_ml.market_data.lake import ParquetLake
from energy_ml.markets import MARKETS, FetchedDay, MarketSession, fetch_days
from energy_ml_tests.markets.sources import Answer, Source, aemo, ahead, entsoe, expected, nyiso, nyiso_day

NOW = pd.Timestamp("2026-01-15 15:10", tz="UTC")
ZONES = ("N.Y.C.", "WEST")
THROTTLED: Answer = (429, {"Retry-After": "0"}, b"slow down")
BROKEN_OFF: Answer = (200, {"Content-Length": "100000"}, nyiso_day(dt.date(2026, 1, 10))[:5000])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"ENERGY_ML_DATA_DIR": str(tmp_path / "lake")})


@pytest.fixture
def source() -> Iterator[Source]:
    with nyiso(lambda day: nyiso_day(day, until=NOW)).running() as running:
        yield running


def fetch(source: Source, settings: Settings, first: int, last: int, *regions: str) -> list[FetchedDay]:
    """Days of January 2026 from New York."""
    days = dt.date(2026, 1, first), dt.date(2026, 1, last)
    with MarketSession(source.url, waits=(0, 0), pause=0) as session:
        return list(fetch_days("nyiso", *days, settings, regions or ZONES, session=session, now=NOW))


def outcomes(days: list[FetchedDay]) -> dict[int, str]:
    return {day.day.day: day.outcome for day in days}


def test_whole_days_are_asked_for_once_and_the_newest_always(source: Source, settings: Settings) -> None:
    assert set(outcomes(fetch(source, settings, 10, 15)).values()) == {"new"}
    folder = Path(settings.data_dir) / "nyiso"
    assert sorted(path.name for path in folder.iterdir()) == [f"2026-01-{day}.parquet" for day in range(10, 16)]
    right = expected("2026-01-12", "2026-01-13", 5, ZONES)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "2026-01-12.parquet"), right, check_dtype=False)
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    source.asked.clear()
    kept = dict.fromkeys(range(10, 13), "already there")
    assert outcomes(fetch(source, settings, 10, 15)) == kept | dict.fromkeys(range(13, 16), "as before")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps, "equal files aren't written"
    assert {path[-12:-4] for path in source.asked if "zone" in path} == {"20260112", "20260113", "20260114", "20260115"}


def test_corrections_incomplete_days_and_more_regions_are_taken(source: Source, settings: Settings) -> None:
    lacking = nyiso(lambda day: nyiso_day(day, until=NOW, without=lambda utc: utc.hour == 9 and utc.day == 11))
    with lacking.running():
        first = fetch(lacking, settings, 10, 14, "WEST")
    assert {day.day.day: day.missing for day in first} == {10: 0, 11: 12, 12: 0, 13: 0, 14: 0}
    assert outcomes(fetch(source, settings, 10, 14, "WEST")) == {
        10: "already there",
        11: "changed",
        12: "already there",
        13: "as before",
        14: "as before",
    }
    both = fetch(source, settings, 10, 14, "N.Y.C.")
    assert {day.rows for day in both} == {576} and set(outcomes(both).values()) == {"changed"}, "WEST stays"
    assert outcomes(fetch(source, settings, 10, 12, "WEST")) == dict.fromkeys((10, 11, 12), "already there")


def test_what_passes_is_tried_again_and_half_a_file_is_no_file(source: Source, settings: Settings) -> None:
    source.faults += [THROTTLED, BROKEN_OFF]
    assert outcomes(fetch(source, settings, 10, 10)) == {10: "new"}
    source.faults += [BROKEN_OFF, THROTTLED, THROTTLED]
    with pytest.raises(MarketError, match=r"no prices of 2026-01-11: the server answers 429.*wait some minutes"):
        fetch(source, settings, 10, 12)
    source.faults += [BROKEN_OFF] * 3
    with pytest.raises(MarketError, match=r"2026-01-11: the server doesn't answer \(\w+\).*Remedy: run it again"):
        fetch(source, settings, 10, 12)
    assert [path.name for path in Path(f"{settings.data_dir}/nyiso").iterdir()] == ["2026-01-10.parquet"]
    assert outcomes(fetch(source, settings, 10, 11)) == {10: "already there", 11: "new"}


def test_an_answer_of_another_form_names_day_and_error(source: Source, settings: Settings) -> None:
    source.faults += [(200, {}, b"<html>maintenance</html>")]
    with pytest.raises(
        MarketError, match=r"no prices of 2026-01-10: the answer can't be read \(KeyError: 'Time Stamp'"
    ):
        fetch(source, settings, 10, 10)
    twice = ['"01/10/2026 12:00:00","WEST",61752,777.00,0,0']
    with (
        nyiso(lambda day: nyiso_day(day, extra=twice if day.day == 10 else ())).running() as source,
        pytest.raises(DuplicateError, match="two prices for one interval"),
    ):
        fetch(source, settings, 10, 10)


def test_a_day_without_prices_is_told_and_keeps_nothing(settings: Settings) -> None:
    with nyiso(lambda day: None if day.day in (10, 11, 12) else nyiso_day(day)).running() as source:
        assert outcomes(fetch(source, settings, 11, 13)) == {
            11: "nothing published",
            12: "nothing published",
            13: "new",
        }


def test_days_lie_in_an_object_store_too(source: Source) -> None:
    store = Settings.from_env({"ENERGY_ML_DATA_DIR": "memory://fetched"})
    assert outcomes(fetch(source, store, 12, 13)) == {12: "new", 13: "new"}
    assert outcomes(fetch(source, store, 12, 13)) == {12: "already there", 13: "as before"}


def test_feeds_lie_beside_prices_a_day_longer_and_become_covariates(source: Source, settings: Settings) -> None:
    day_ahead = Covariate("day_ahead_price", "ahead", is_price=True)
    named = MLConfig(price_prediction=PricePredictionConfig(covariates=(day_ahead,)))

    def fetch_with(feeds: tuple[str, ...], of: Settings, first: int = 9) -> list[FetchedDay]:
        days = dt.date(2026, 1, first), dt.date(2026, 1, 10)
        with MarketSession(source.url, waits=(0,), pause=0) as session:
            return list(fetch_days("nyiso", *days, of, ZONES, feeds, session=session, now=NOW))

    made = fetch_with(("day_ahead",), settings)
    assert [(day.of, day.day.day, day.rows) for day in made[2:]] == [("day_ahead", n, 48) for n in (9, 10, 11)]
    assert {info.kind for info in ParquetLake(f"{settings.data_dir}/nyiso_day_ahead").inventory()} == {"forecasts"}
    again = fetch_with((), replace(settings, models=named))
    assert [(day.of, day.outcome) for day in again] == [
        *[("prices", "already there")] * 2,
        *[("day_ahead", "already there")] * 3,
    ]
    lake = ParquetLake(settings.data_dir)
    prices = lake.read_prices(pd.Timestamp("2026-01-10", tz="UTC"), pd.Timestamp("2026-01-11", tz="UTC"))
    known = add_covariates(prices, lake, [day_ahead], [60])
    for row in known.itertuples():
        then = (row.timestamp + pd.Timedelta(hours=1)).floor("h")
        said = row.covariate_price_day_ahead_price_gap_60m + row.real_time_price
        assert round(said, 6) == ahead("da", row.region, then), "known at 11:00 of the day before"


def test_a_feed_that_stops_stops_nothing(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    whole = nyiso().answer
    with (
        Source(lambda path: 503 if "DAM_LBMP" in path and "20260109" in path else whole(path)).running() as source,
        MarketSession(source.url, waits=(), pause=0) as session,
    ):
        day = dt.date(2026, 1, 10)
        made = list(fetch_days("nyiso", day, day, settings, ZONES, ("day_ahead",), session=session, now=NOW))
    assert [(one.of, one.outcome) for one in made] == [
        ("prices", "new"),
        ("day_ahead", "not had"),
        ("day_ahead", "new"),
    ]
    assert "no day_ahead of 2026-01-10: the server answers 503" in caplog.text
    with pytest.raises(ConfigError, match=r"has no wind to fetch with its prices.*Expected: day_ahead.*fetch --list"):
        list(fetch_days("nyiso", day, day, settings, ZONES, ("wind",), now=NOW))


@pytest.mark.network
@pytest.mark.parametrize("market", MARKETS)
def test_the_real_servers_still_speak_so(market: str, settings: Settings) -> None:
    if (key := MARKETS[market].key) and key not in os.environ:
        pytest.skip(f"{key} isn't set")
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=3)
    (made,) = fetch_days(market, day, day, settings, None if MARKETS[market].regions else ["BE"])
    assert made.outcome == "new" and made.missing < made.rows / 10


def test_what_cannot_be_fetched_is_refused_before_anything_is_asked(settings: Settings) -> None:
    day, nobody = dt.date(2026, 1, 10), MarketSession("http://127.0.0.1:9", waits=())

    def refused(
        words: str, market: str = "nyiso", first: dt.date = day, of: Settings = settings, **more: object
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            list(fetch_days(market, first, day, of, session=nobody, now=NOW, **more))

    refused("no market 'nyis'.*aemo, ", market="nyis")
    refused("has no region BOSTON.*Expected: CAPITL", regions=["WEST", "BOSTON"])
    refused("2026-01-11 to 2026-01-10 can't be fetched", first=day + dt.timedelta(days=1))
    refused("sample's folder.*ENERGY_ML_DATA_DIR", of=Settings.from_env({}))
    with pytest.raises(MarketError, match="the server doesn't answer"):
        list(fetch_days("nyiso", day, day, settings, session=nobody, now=NOW))


def test_a_wrong_key_is_told_and_no_key_is_ever_shown(
    settings: Settings, command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ENERGY_ML_DATA_DIR", settings.data_dir)
    day = ("--from", "2026-01-10", "--to", "2026-01-10")
    with entsoe("the-right-key").running() as source:
        monkeypatch.setenv("ENERGY_ML_MARKET_MIRROR", source.url)
        code, _, error = command("entsoe", *day, "--regions", "BE")
        assert code == 2 and "needs a key, and ENTSOE_API_KEY isn't set" in error
        monkeypatch.setenv("ENTSOE_API_KEY", "hunter2secret")
        code, _, error = command("entsoe", *day)
        assert code == 2 and "too many regions to fetch all" in error
        code, _, error = command("entsoe", *day, "--regions", "XX")
        assert code == 2 and "no zone 'XX'" in error
        code, out, error = command("entsoe", *day, "--regions", "BE")
        assert code == 2 and "the server answers 401. Remedy: correct ENTSOE_API_KEY" in error
        assert "hunter2secret" not in out + error + caplog.text
        with pytest.raises(ConfigError) as refused:
            list(fetch_days("entsoe", *[dt.date(2026, 1, 10)] * 2, settings, ["BE"], session=MarketSession(source.url)))
        assert "hunter2secret" not in "".join(traceback.format_exception(refused.value))
        monkeypatch.setenv("ENTSOE_API_KEY", "the-right-key")
        assert command("entsoe", *day, "--regions", "BE")[0] == 0
    (file,) = Path(settings.data_dir).rglob("*.parquet")
    assert b"the-right-key" not in file.read_bytes() and len(pd.read_parquet(file)) == 96


def test_a_payload_of_australia_that_is_no_whole_file_is_asked_for_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nemdatatools.cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(nemdatatools.cache, "POLITE_DELAY", 0)
    ends = pd.date_range("2026-01-15 00:00", "2026-01-15 01:00", freq="5min", tz="UTC", inclusive="right")
    whole, one = aemo(current=ends, regions=("SA1",)).answer, "1030_0000000490123456.zip"

    def fetch_from(answer: Callable[[str], bytes | int | None]) -> FetchedDay:
        with Source(answer).running() as source, MarketSession(source.url, waits=(), pause=0) as session:
            (day,) = fetch_days("aemo", NOW.date(), NOW.date(), settings, ["SA1"], session=session, now=NOW)
        return day

    with pytest.raises(
        MarketError, match=r"no prices of 2026-01-15: one of its files can't be had.*Remedy: run it again"
    ):
        fetch_from(lambda path: 503 if path.endswith(one) else whole(path))
    with pytest.raises(MarketError, match=r"no prices of 2026-01-15: .* is no whole file"):
        fetch_from(lambda path: (whole(path) or b"")[:100] if path.endswith(one) else whole(path))
    day = fetch_from(whole)
    assert (day.rows, day.missing) == (12, 0)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``energy-ml fetch`` in this process: exit code, output, errors."""
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "width", 100)
        monkeypatch.setattr(console, "file", None)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["energy-ml", "fetch", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return (code, *capsys.readouterr())

    return call


def test_the_command_fetches_and_shows(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = str(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=7))
    with nyiso().running() as source:
        source.faults += [THROTTLED]
        monkeypatch.setenv("ENERGY_ML_DATA_DIR", str(tmp_path / "lake"))
        monkeypatch.setenv("ENERGY_ML_MARKET_MIRROR", source.url)
        monkeypatch.setenv("ENERGY_ML_REGIONS", "WEST,N.Y.C.")
        code, out, _ = command("nyiso", "--from", day, "--to", day, "--json")
        assert code == 0 and json.loads(out) == [
            {"of": "prices", "day": day, "outcome": "new", "rows": 576, "missing": 0}
        ]
        shown = command("nyiso", "--from", day, "--to", day, "--with", "day_ahead")[1]
        assert f"{day}  prices     already there   576        0" in shown
        assert f"{day}  day_ahead  new              48        0" in shown
    code, _, error = command("nyiso", "--regions", "BOSTON")
    assert code == 2 and "Remedy: correct --regions" in error and len(error.strip().splitlines()) == 1


def test_the_list_says_what_each_market_is(command) -> None:
    listed = json.loads(command("--list", "--json")[1])
    assert [row["name"] for row in listed] == list(MARKETS) == list(MARKET_NAMES) and all(
        row["terms"] and row["delay"] for row in listed
    )
    shown = command("--list")[1]
    assert all(name in shown for name in MARKETS) and "known after minutes; key: none; free with attribution" in shown
    assert all(
        f"--with {feed.name}: {', '.join(feed.columns)}" in shown for one in MARKETS.values() for feed in one.feeds
    )
