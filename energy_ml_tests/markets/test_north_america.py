"""California and Texas in an environment of its own: made once, asked strictly, and what the real gridstatus reads."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import venv
from pathlib import Path

import pandas as pd
import pytest

from energy_ml.config import Settings
from energy_ml.errors import MarketError
from energy_ml.markets import MARKETS, MarketSession, fetch_days, north_america
from energy_ml_tests.markets.sources import Source, ahead, caiso, ercot, expected

DAY = dt.date(2026, 1, 10)
NP15, SP15, _ = north_america.CAISO_REGIONS
FAKE = '''
"""As much of gridstatus as the worker uses, reading the same answers."""
import io, zipfile
import pandas as pd
import requests

class NoDataFoundException(Exception):
    pass

class CAISO:
    def get_lmp(self, date, end, market, locations):
        if date.year == 2025:
            raise NoDataFoundException("none")
        assert str(date.tz) == "US/Pacific" and market in ("REAL_TIME_5_MIN", "DAY_AHEAD_HOURLY")
        query = "PRC_LMP" if market == "DAY_AHEAD_HOURLY" else "PRC_INTVL_LMP"
        first, last = (time.tz_convert("UTC").strftime("%Y%m%dT%H:%M-0000") for time in (date, end))
        span = f"startdatetime={first}&enddatetime={last}"
        url = f"https://oasis.caiso.com/oasisapi/SingleZip?queryname={query}&node={','.join(locations)}&{span}"
        answer = requests.get(url)
        if answer.status_code == 429:
            raise NoDataFoundException("as if there were none")
        rows = pd.read_csv(zipfile.ZipFile(io.BytesIO(answer.content)).open("prices.csv"))
        rows = rows[rows["LMP_TYPE"] == "LMP"].rename(columns={"MW": "VALUE"})
        return pd.DataFrame(
            {
                "Interval Start": pd.to_datetime(rows["INTERVALSTARTTIME_GMT"], utc=True).dt.tz_convert("US/Pacific"),
                "Location": rows["NODE"],
                "LMP": rows["VALUE"],
            }
        )

class Ercot:
    def get_spp(self, date, end, market, locations):
        raise ValueError("the format\\nhas changed")
'''


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """With a gridstatus of ours where this interpreter finds it."""
    (tmp_path / "gridstatus.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(north_america, "_python", lambda: sys.executable)
    return Settings.from_env({"ENERGY_ML_DATA_DIR": str(tmp_path / "lake")})


def test_california_comes_as_files_and_a_refusal_is_no_hole(settings: Settings) -> None:
    now = pd.Timestamp("2026-02-01", tz="UTC")
    with caiso(throttled=1).running() as source, MarketSession(source.url) as session:
        days = list(fetch_days("caiso", DAY, DAY, settings, [NP15, SP15], ["day_ahead"], session=session, now=now))
        assert [(day.of, day.outcome, day.rows, day.missing) for day in days] == [
            ("prices", "new", 576, 0),
            ("day_ahead", "new", 48, 0),
            ("day_ahead", "new", 48, 0),
        ]
        found = pd.read_parquet(f"{settings.data_dir}/caiso/2026-01-10.parquet")
        right = expected("2026-01-10", "2026-01-11", 5, [NP15, SP15])
        pd.testing.assert_frame_equal(found, right, check_dtype=False)
        told = pd.read_parquet(f"{settings.data_dir}/caiso_day_ahead/2026-01-10.parquet")
        assert told["day_ahead_price"].tolist() == [ahead("da", row.region, row.timestamp) for row in told.itertuples()]
        assert told["available_at"].max() == pd.Timestamp("2026-01-09 21:00", tz="UTC")
    with (
        caiso(throttled=9).running() as source,
        MarketSession(source.url) as session,
        pytest.raises(MarketError, match=r"no prices of 2026-01-12: gridstatus 0.37.0: the server answers 429"),
    ):
        other = DAY + dt.timedelta(days=2)
        list(fetch_days("caiso", other, other, settings, [NP15], session=session, now=now))


def test_no_data_is_told_and_what_fails_says_its_last_line(settings: Settings) -> None:
    nobody, earlier = MarketSession("http://127.0.0.1:9"), dt.date(2025, 7, 1)
    (day,) = fetch_days("caiso", earlier, earlier, settings, session=nobody)
    assert day.outcome == "nothing published"
    with pytest.raises(MarketError, match=r"Texas \(ERCOT\): no prices of 2026-01-10: gridstatus 0.37.0: has changed"):
        list(fetch_days("ercot", DAY, DAY, settings, session=nobody))


def test_the_environment_is_made_once_with_the_version_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []
    asked: list[list[str]] = []
    monkeypatch.setattr(venv, "create", lambda folder, **_: (made.append(folder), folder.mkdir(parents=True)))
    answers = [(1, "ERROR: no matching distribution\n"), (0, "")]

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        code, words = answers.pop(0)
        return subprocess.CompletedProcess(command, code, "", words)

    monkeypatch.setattr(north_america, "_run", run)
    with pytest.raises(MarketError, match=r"can't be installed: ERROR: no matching distribution"):
        north_america._python()
    made[0].rmdir()
    python = north_america._python()
    assert python == north_america._python() and python.startswith(f"{tmp_path}/energy_ml/gridstatus-0.37.0/")
    assert len(made) == 2 and asked[1] == [python, "-m", "pip", "install", "--quiet", "gridstatus==0.37.0"]


@pytest.mark.network
@pytest.mark.parametrize("day", ["2026-01-10", "2026-03-08", "2026-11-01"])
def test_the_real_gridstatus_reads_the_sources_formats(day: str) -> None:
    """Installs it; the servers are ours."""
    start, end = pd.Timestamp(day, tz="UTC"), pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1)
    margin = pd.Timedelta(hours=2)
    sources: dict[str, tuple[Source, int, tuple[str, ...]]] = {
        "caiso": (caiso(throttled=1), 5, (NP15, SP15)),
        "ercot": (
            ercot(f"{start - margin:%Y-%m-%d %H:%M}", f"{end + margin:%Y-%m-%d %H:%M}"),
            15,
            ("HB_NORTH", "LZ_WEST"),
        ),
    }
    for name, (source, minutes, regions) in sources.items():
        with source.running(), MarketSession(source.url) as session:
            found = MARKETS[name].fetch(start, end, regions, session)
        found = found[(found["timestamp"] >= start) & (found["timestamp"] < end)]
        found = found.sort_values(["timestamp", "region"], ignore_index=True)
        right = expected(day, f"{end:%Y-%m-%d}", minutes, regions)
        pd.testing.assert_frame_equal(found, right, check_dtype=False)
