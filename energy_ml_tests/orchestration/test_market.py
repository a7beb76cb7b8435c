"""A market that Dagster fetches: one graph with what comes of it, one run for a range, a schedule, no key on record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from energy_ml.config import Settings
from energy_ml.market_data.watch import DayChange
from energy_ml.markets import MarketSession
from energy_ml.orchestration.assets import MARKET_PRICES
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.jobs import FETCH_PRICES
from energy_ml.orchestration.schedules import build_schedules
from energy_ml.orchestration.sensors import _events
from energy_ml_tests.markets.sources import Source, elexon, entsoe
from energy_ml_tests.orchestration.folder import settings_for

TIME_SPLIT = dg.AssetKey(["features", "time_split"])


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setattr(MarketSession.__init__, "__kwdefaults__", {"waits": (), "pause": 0})
    with elexon().running() as running:
        yield running


@pytest.fixture
def settings(source: Source, tmp_path: Path) -> Settings:
    return settings_for(tmp_path, MARKET="elexon", MARKET_MIRROR=source.url)


def test_one_run_holds_a_day_s_prices_and_what_comes_of_them(settings: Settings, instance: dg.DagsterInstance) -> None:
    graph = build_definitions(settings).resolve_asset_graph()
    partitioned = [graph.get(key).partitions_def for key in graph.materializable_asset_keys]
    assert len(set(partitioned) - {None}) == 1 and not graph.get(MARKET_PRICES).is_external
    job = build_definitions(settings).resolve_implicit_global_asset_job_def()
    selection = [
        MARKET_PRICES,
        dg.AssetKey(["features", "price_features"]),
        dg.AssetKey(["features", "data"]),
        TIME_SPLIT,
    ]
    done = job.execute_in_process(instance=instance, partition_key="2026-01-05", asset_selection=selection)
    assert done.success and instance.get_materialized_partitions(TIME_SPLIT) == {"2026-01-05"}
    days = [path.stem for path in sorted(Path(settings.data_dir).rglob("*.parquet"))]
    assert days == [f"2026-01-0{day}" for day in range(1, 6)], "window and warm-up, not before the first day"


def test_a_range_is_one_run_and_asks_for_each_day_once(
    settings: Settings, source: Source, instance: dg.DagsterInstance
) -> None:
    job = build_definitions(settings).resolve_job_def(FETCH_PRICES)
    tags = {"dagster/asset_partition_range_start": "2026-01-04", "dagster/asset_partition_range_end": "2026-01-07"}
    assert job.execute_in_process(instance=instance, tags=tags).success
    assert len(instance.get_materialized_partitions(MARKET_PRICES)) == 4
    assert len(source.asked) == len(set(source.asked)) == 7
    source.asked.clear()
    assert job.execute_in_process(instance=instance, tags=tags).success and not source.asked, "whole days are there"


def test_a_wrong_key_fails_at_once_and_is_on_no_record(
    settings: Settings, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENTSOE_API_KEY", "hunter2secret")
    with entsoe("another").running() as source:
        other = settings_for(tmp_path, MARKET="entsoe", MARKET_MIRROR=source.url, REGIONS="BE")
        job = build_definitions(other).resolve_job_def(FETCH_PRICES)
        done = job.execute_in_process(instance=instance, partition_key="2026-01-05", raise_on_error=False)
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    assert "answers 401" in str(failure.step_failure_data.error) and "ENTSOE_API_KEY" in str(failure.step_failure_data)
    record = instance.all_logs(done.run_id)
    assert len(record) > 5 and "hunter2secret" not in "".join(map(dg.serialize_value, record))


def test_the_schedule_fetches_the_newest_day_and_waits_for_its_own_run(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    night, schedule = build_schedules(settings)
    assert (schedule.cron_schedule, schedule.default_status) == ("*/30 * * * *", dg.DefaultScheduleStatus.RUNNING)
    assert night.default_status == dg.DefaultScheduleStatus.STOPPED

    def tick(at: str) -> dg.RunRequest | str:
        moment = dt.datetime.fromisoformat(at).astimezone(dt.UTC)
        answer = schedule(dg.build_schedule_context(instance, scheduled_execution_time=moment))
        return str(answer.skip_message) if isinstance(answer, dg.SkipReason) else answer

    assert "no whole window" in tick("2026-01-03T12:00Z")
    request = tick("2026-01-10T12:30Z")
    assert set(request.tags.values()) == {"2026-01-09"} and request.partition_key is None
    job = build_definitions(settings).resolve_job_def(FETCH_PRICES)
    run = instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    assert "isn't done yet" in tick("2026-01-10T13:00Z")
    instance.report_run_canceled(run)
    assert isinstance(tick("2026-01-10T13:30Z"), dg.RunRequest)


def test_the_sensor_reports_only_days_that_are_partitions(settings: Settings) -> None:
    changes = [
        DayChange("prices", dt.date(2026, 1, day), {"GB": 48}, ("a.parquet",), "0" * 64, False) for day in (2, 3, 4)
    ]
    assert [event.partition for event in _events(settings, changes, [])] == ["2026-01-03", "2026-01-04"]
