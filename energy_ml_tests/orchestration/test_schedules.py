"""The nightly schedule: which day, which reasons to skip, and one run per day and data version."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from energy_ml.config import OperationsConfig, Settings
from energy_ml.errors import ConfigError
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.schedules import NIGHTLY, build_schedules
from energy_ml.orchestration.triggers import VERSION_TAG, short_days
from energy_ml.results import ResultsStore
from energy_ml.training_window import due_day
from energy_ml_tests.orchestration.folder import day, prices, put, settings_for


@dg.job(name="retrain")
def _job() -> None: ...


class Night:
    """Ticks the schedule at given times on one instance."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.settings = settings
        (self.schedule,) = build_schedules(settings)

    def tick(self, at: str) -> dg.RunRequest | str:
        context = dg.build_schedule_context(
            self.instance, scheduled_execution_time=dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC)
        )
        answer = self.schedule(context)
        return str(answer.skip_message) if isinstance(answer, dg.SkipReason) else answer

    def run(self, request: dg.RunRequest | str, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> None:
        assert isinstance(request, dg.RunRequest)
        tags = {**request.tags, "dagster/partition": str(request.partition_key)}
        self.instance.create_run_for_job(_job, tags=tags, status=status)


@pytest.fixture
def night(tmp_path: Path, instance: dg.DagsterInstance) -> Night:
    return Night(settings_for(tmp_path), instance)


@pytest.mark.parametrize(
    ("at", "zone", "now", "expected"),
    [
        ("01:30", "UTC", "2026-01-05T01:30", "2026-01-04"),
        ("01:30", "UTC", "2026-01-05T23:30", "2026-01-04"),
        ("01:30", "UTC", "2026-01-05T00:30", "2026-01-03"),  # still the night before: its late data may come
        ("06:00", "Europe/Paris", "2026-07-05T04:00", "2026-07-04"),
        ("06:00", "Europe/Paris", "2026-07-05T03:59", "2026-07-03"),
        ("01:30", "Europe/Paris", "2026-07-05T00:00", "2026-07-03"),  # 01:30 in Paris is 23:30 UTC: the 4th isn't over
        ("02:30", "Europe/Paris", "2026-03-29T03:00", "2026-03-28"),  # 02:30 doesn't exist in this night
        ("19:00", "Australia/Sydney", "2026-01-05T08:00", "2026-01-04"),
    ],
)
def test_the_day_that_is_over(at: str, zone: str, now: str, expected: str) -> None:
    moment = dt.datetime.fromisoformat(now).replace(tzinfo=dt.UTC)
    assert str(due_day(Settings(operations=OperationsConfig(nightly_at=at, nightly_zone=zone)), moment)) == expected


def test_one_run_per_day_however_often_it_ticks(night: Night, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4))
    request = night.tick("2026-01-05T01:30")
    assert isinstance(request, dg.RunRequest) and request.partition_key == "2026-01-04"
    assert request.run_key == f"2026-01-04:{request.tags[VERSION_TAG]}"
    assert night.tick("2026-01-05T01:30") == request, "nothing of it is random"
    night.run(request)
    for at in ("2026-01-05T01:30", "2026-01-05T02:30", "2026-01-05T23:30", "2026-01-06T00:30"):
        reason = night.tick(at)
        assert isinstance(reason, str) and "for 2026-01-04 and this data" in reason and "SUCCESS" in reason


@pytest.mark.parametrize("status", ["STARTED", "STARTING", "FAILURE"])
def test_a_run_at_work_or_failed_is_not_started_again(night: Night, tmp_path: Path, status: str) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4))
    night.run(night.tick("2026-01-05T01:30"), dg.DagsterRunStatus(status))
    assert status in str(night.tick("2026-01-05T02:30"))


def test_late_data_is_caught_up(night: Night, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3))
    reason = night.tick("2026-01-05T01:30")
    assert "2026-01-04 isn't complete: it has no prices; the newest complete day is 2026-01-03" in str(reason)
    put(tmp_path, "4.parquet", prices(4, until=600))
    assert "DE 20 prices, FR 20 prices" in str(night.tick("2026-01-05T02:30"))
    put(tmp_path, "4.parquet", prices(4))
    request = night.tick("2026-01-05T03:30")
    assert isinstance(request, dg.RunRequest) and request.partition_key == "2026-01-04"


def test_a_missing_region_makes_the_day_incomplete(night: Night, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3))
    put(tmp_path, "4.parquet", prices(4, regions=["FR"]))
    assert "2026-01-04 isn't complete: FR 48 prices" in str(night.tick("2026-01-05T01:30"))


def test_corrected_data_is_trained_again(night: Night, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4))
    first = night.tick("2026-01-05T01:30")
    night.run(first)
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4, shift=0.5))
    second = night.tick("2026-01-05T02:30")
    assert isinstance(first, dg.RunRequest) and isinstance(second, dg.RunRequest)
    assert second.partition_key == first.partition_key and second.run_key != first.run_key


def test_another_day_in_the_same_file_is_no_new_version(night: Night, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4))
    night.run(night.tick("2026-01-05T01:30"))
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4, 5))
    assert "for 2026-01-04 and this data" in str(night.tick("2026-01-05T02:30"))


def test_a_day_trained_by_hand_is_done(night: Night, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4))
    request = night.tick("2026-01-05T01:30")
    assert isinstance(request, dg.RunRequest)
    ResultsStore(night.settings.results_dir).write(
        day(4), "metrics.json", {"provenance": {"data_fingerprint": request.tags[VERSION_TAG] + "f" * 48}}
    )
    assert "2026-01-04 is trained on this data" in str(night.tick("2026-01-05T02:30"))


def test_a_hole_in_the_window_is_put_on_record_once(night: Night, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 4))
    request = night.tick("2026-01-05T01:30")
    assert isinstance(request, dg.RunRequest), "a run that fails by its check tells the people; skipping wouldn't"
    assert request.tags[VERSION_TAG].startswith("unusable-")
    night.run(request, dg.DagsterRunStatus.FAILURE)
    assert "FAILURE" in str(night.tick("2026-01-05T02:30"))


def test_without_files_or_history_it_says_what_to_do(night: Night, tmp_path: Path) -> None:
    assert "ENERGY_ML_DATA_DIR" in str(night.tick("2026-01-05T01:30"))
    assert "ENERGY_ML_START_DATE" in str(night.tick("2026-01-02T01:30"))


def test_the_end_of_the_data_is_the_last_day(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    night = Night(settings_for(tmp_path, END_DATE="2026-01-03"), instance)
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4))
    request = night.tick("2026-11-05T01:30")
    assert isinstance(request, dg.RunRequest) and request.partition_key == "2026-01-03"


def test_the_schedule_in_its_definitions(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = settings_for(tmp_path, NIGHTLY_AT="02:45", NIGHTLY_ZONE="Europe/Paris")
    put(tmp_path, "days.parquet", prices(1, 2, 3, 4))
    definitions = build_definitions(settings)
    schedule = definitions.get_repository_def().get_schedule_def(NIGHTLY)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED, (
        "a fresh clone doesn't begin failing every night"
    )
    assert schedule.cron_schedule == ["45 2 * * *", "45 * * * *"] and schedule.execution_timezone == "Europe/Paris"
    ticks = schedule_execution_time_iterator(
        dt.datetime(2026, 1, 5, tzinfo=dt.UTC).timestamp(), schedule.cron_schedule, schedule.execution_timezone
    )
    assert [next(ticks).hour for _ in range(4)] == [1, 2, 3, 4], "the night's own is one tick"
    assert "02:45 Europe/Paris" in (schedule.description or "")
    context = dg.build_schedule_context(
        instance,
        scheduled_execution_time=dt.datetime(2026, 1, 5, 5, 45, tzinfo=dt.UTC),
        repository_def=definitions.get_repository_def(),
    )
    data = schedule.evaluate_tick(context)
    (request,) = data.run_requests or []
    assert request.partition_key == "2026-01-04" and request.tags["dagster/partition"] == "2026-01-04"


@pytest.mark.parametrize(
    "bad",
    [
        {"NIGHTLY_AT": "25:00"},
        {"NIGHTLY_AT": "noon"},
        {"NIGHTLY_ZONE": "Middle/Earth"},
        {"SENSOR_SECONDS": "0"},
        {"ALERT_WEBHOOK": "ftp://x"},
        {"BLOCKING_CHECKS": "no_such_check"},
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, bad: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad)).lower() if "SECONDS" in next(iter(bad)) else "ENERGY_ML_"):
        settings_for(tmp_path, **bad)


def test_days_in_words() -> None:
    assert short_days([day(1), day(3), day(2), day(5), day(5)]) == "2026-01-01..2026-01-03, 2026-01-05"
    assert short_days([]) == ""
