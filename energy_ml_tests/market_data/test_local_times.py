"""Prices in local time without a zone: read right over both clock changes, or refused in words that help."""

from __future__ import annotations

import json
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from energy_ml import cli
from energy_ml.config import Settings
from energy_ml.errors import ConfigError, DuplicateError, TimestampError
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.market_data.lake import ParquetLake

BACK = [
    ("Europe/Paris", "2025-10-26", 15),
    ("America/New_York", "2025-11-02", 5),
    ("Australia/Sydney", "2025-04-06", 30),
]
FORWARD = [
    ("Europe/Paris", "2025-03-30", 60),
    ("America/New_York", "2025-03-09", 15),
    ("Australia/Sydney", "2025-10-05", 5),
]


def market(day: str, minutes: int, days: int = 3) -> pd.DataFrame:
    """Prices of two regions around ``day``, in UTC, by time."""
    start = pd.Timestamp(day, tz="UTC") - pd.Timedelta(days=1)
    times = pd.date_range(start, periods=days * 1440 // minutes, freq=f"{minutes}min", unit="ns")
    values = np.random.default_rng(minutes).normal(50, 20, 2 * len(times)).round(2)
    return pd.DataFrame({"timestamp": times.repeat(2), "region": ["AA", "BB"] * len(times), "real_time_price": values})


def local(frame: pd.DataFrame, zone: str) -> pd.DataFrame:
    """As clocks there showed it, without saying so."""
    return frame.assign(timestamp=frame["timestamp"].dt.tz_convert(zone).dt.tz_localize(None))


def read(folder: Path, zone: str | None) -> pd.DataFrame:
    window = pd.Timestamp("2025-01-01", tz="UTC"), pd.Timestamp("2026-01-01", tz="UTC")
    return ParquetLake(folder, zone).read_prices(*window)


def same(found: pd.DataFrame, frame: pd.DataFrame) -> bool:
    keys = ["timestamp", "region"]
    found, frame = (f.sort_values(keys, ignore_index=True).astype({"region": str}) for f in (found, frame))
    return found[keys].equals(frame[keys]) and found["real_time_price"].equals(frame["real_time_price"])


@pytest.mark.parametrize("written", ["by time", "by region", "newest first", "as text", "by region in folders"])
@pytest.mark.parametrize(("zone", "day", "minutes"), BACK + FORWARD)
def test_both_changes_are_read_right(zone: str, day: str, minutes: int, written: str, tmp_path: Path) -> None:
    frame = market(day, minutes)
    naive = local(frame, zone)
    if written == "by region":
        naive = naive.sort_values("region", kind="stable")
    if written == "newest first":
        naive = naive[::-1]
    if written == "as text":
        naive = naive.assign(timestamp=naive["timestamp"].dt.strftime("%Y-%m-%d %H:%M"))
    if written == "by region in folders":
        for name, own in naive.groupby("region"):
            (tmp_path / f"region={name}").mkdir()
            own.drop(columns="region").to_parquet(tmp_path / f"region={name}/x.parquet", index=False, row_group_size=7)
    else:
        naive.to_parquet(tmp_path / "x.parquet", index=False, row_group_size=7)
    found = read(tmp_path, zone)
    assert same(found, frame)
    assert {p["kind"] for p in found.attrs["problems"]} >= {"local_timestamps"}
    (info, *_) = (lake := ParquetLake(tmp_path, zone)).inventory()
    assert (info.first, info.last) == (frame["timestamp"].min(), frame["timestamp"].max())
    assert lake.coverage().to_numpy().tolist() == [[1440 // minutes] * 2] * 3
    noon = pd.Timestamp(day, tz="UTC") + pd.Timedelta(hours=1)
    some = lake.read_prices(noon, noon + pd.Timedelta(hours=1), regions=["BB"])
    assert same(some, frame[frame["timestamp"].between(noon, noon + pd.Timedelta(minutes=59)) & (frame.region == "BB")])


@pytest.mark.parametrize("minutes", range(45, 240, 15))
def test_a_feed_that_ends_in_the_repeated_hour(minutes: int, tmp_path: Path) -> None:
    frame = market("2025-10-26", 15)
    known = frame[frame["timestamp"] <= pd.Timestamp("2025-10-25T22:00Z") + pd.Timedelta(minutes=minutes)]
    local(known, "Europe/Paris").to_parquet(tmp_path / "x.parquet", index=False)
    assert same(read(tmp_path, "Europe/Paris"), known)


def refused(folder: Path, frame: pd.DataFrame, words: str) -> None:
    frame.to_parquet(folder / "x.parquet", index=False)
    with pytest.raises(TimestampError, match=words):
        read(folder, "Europe/Paris")


def test_what_nobody_can_tell_is_refused(tmp_path: Path) -> None:
    frame = market("2025-10-26", 15)
    naive = local(frame, "Europe/Paris")
    refused(tmp_path, naive[~frame["timestamp"].dt.floor("h").eq("2025-10-26T00:00Z")], "is there once")
    refused(tmp_path, naive.sort_values(["timestamp", "region"], kind="stable"), "isn't in the order of time")
    spring = market("2025-03-30", 15)  # in truth UTC
    refused(tmp_path, spring.assign(timestamp=spring["timestamp"].dt.tz_localize(None)), "never showed these times")


def test_aware_times_do_not_care(tmp_path: Path) -> None:
    frame = market("2025-10-26", 15)
    frame.to_parquet(tmp_path / "x.parquet", index=False)
    assert same(read(tmp_path, "Asia/Tokyo"), frame)


@pytest.mark.parametrize(("zone", "day", "minutes"), BACK)
def test_a_day_of_25_hours_taken_for_utc(zone: str, day: str, minutes: int) -> None:
    with pytest.raises(DuplicateError, match="probably local time, of a day of 25 hours") as said:
        clean_prices(local(market(day, minutes), zone))
    assert "ENERGY_ML_INPUT_ZONE" in str(said.value) and "keep the right one" not in str(said.value)
    doubled = market(day, minutes)  # one row that was really written twice is no clock
    doubled = pd.concat([doubled, doubled.iloc[[40]].assign(real_time_price=999.0)])
    with pytest.raises(DuplicateError, match="keep the right one"):
        clean_prices(doubled.assign(timestamp=doubled["timestamp"].dt.tz_localize(None)))


@pytest.mark.parametrize(("zone", "day", "minutes"), FORWARD)
def test_a_day_of_23_hours_taken_for_utc(zone: str, day: str, minutes: int) -> None:
    frame = market(day, minutes)
    notes = [p.message for p in clean_prices(local(frame, zone)).problems if p.kind == "local_time"]
    assert len(notes) == 1 and "probably local time" in notes[0] and "ENERGY_ML_INPUT_ZONE" in notes[0]
    hole = frame[frame["timestamp"].dt.floor("h") != pd.Timestamp(f"{day}T02:00Z")]
    assert not [p for p in clean_prices(hole).problems if p.kind == "local_time"], "in UTC an hour is just missing"


def test_the_setting_reaches_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = market("2025-10-26", 60, days=12)
    for name, own in local(frame, "Europe/Paris").groupby("region"):
        own.to_parquet(tmp_path / f"{name}.parquet", index=False)
    monkeypatch.setenv("ENERGY_ML_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["energy-ml", "data", "--json"])
    for zone, days in (("", "10"), ("", "11"), ("Europe/Paris", "11")):  # eleven days hold the change
        monkeypatch.setenv("ENERGY_ML_INPUT_ZONE", zone)
        monkeypatch.setenv("ENERGY_ML_TRAINING_WINDOW_DAYS", days)
        with pytest.raises(SystemExit):
            cli.main()
        facts = json.loads(capsys.readouterr().out)
        said = [words for words in facts["notes"] if "without a zone were taken as UTC" in words]
        refused = "ENERGY_ML_INPUT_ZONE" in facts["problems"].get("window", "")
        assert (len(said), refused) == ((0, False) if zone else (1, False) if days == "10" else (0, True))
    assert {day: row["AA"] for row in facts["coverage"] if (day := row["day"])} == {
        str(day): 24 for day in frame["timestamp"].dt.date.unique()
    }
    with pytest.raises(ConfigError, match="ENERGY_ML_INPUT_ZONE"):
        Settings.from_env({"ENERGY_ML_INPUT_ZONE": "Mars/Olympus"})
    assert Settings.from_env({"ENERGY_ML_INPUT_ZONE": ZoneInfo("UTC").key}).input_zone == "UTC"
