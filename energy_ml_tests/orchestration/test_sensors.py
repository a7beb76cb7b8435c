"""The sensor on a real folder: what arrives, changes, breaks, moves and vanishes, and what it makes of it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from energy_ml.config import Settings
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.watch import PATIENCE
from energy_ml.orchestration import sensors
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.jobs import REFRESH_LEADERBOARD
from energy_ml.orchestration.sensors import NEW_PARQUET, RUN_FAILURES, build_sensors
from energy_ml.orchestration.triggers import STALE_TAG, VERSION_TAG
from energy_ml.results import ResultsStore
from energy_ml.training_window import read_window
from energy_ml_tests.orchestration.folder import day, prices, put, settings_for


class Watcher:
    """Ticks the sensor as the daemon does: cursor kept between ticks, a new definition after ``restart``."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings = settings
        self.instance = instance
        self.cursor: str | None = None
        self.restart()

    def restart(self) -> None:
        self.sensor = next(s for s in build_sensors(self.settings) if s.name == NEW_PARQUET)

    def tick(self, keep: bool = True) -> dg.SensorResult:
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        if keep and result.cursor is not None:
            self.cursor = result.cursor
        return result

    def run(self, request: dg.RunRequest, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
        """The run that the daemon makes of a request."""
        tags = {**request.tags, "dagster/partition": str(request.partition_key)}
        run = self.instance.create_run_for_job(_job, tags=tags, status=status)
        return str(run.run_id)


@dg.job(name="retrain")
def _job() -> None: ...


@pytest.fixture
def watcher(tmp_path: Path, instance: dg.DagsterInstance) -> Watcher:
    return Watcher(settings_for(tmp_path), instance)


def _why(result: dg.SensorResult) -> str:
    assert not result.run_requests
    return str(result.skip_reason.skip_message)


def _days(result: dg.SensorResult) -> list[str]:
    return [str(event.partition) for event in result.asset_events]


def _start(watcher: Watcher, root: Path, days: int = 4) -> dg.RunRequest:
    """One file per day, taken in and running."""
    for number in range(1, days + 1):
        put(root, f"prices_{day(number)}.parquet", prices(number))
    (request,) = watcher.tick().run_requests
    watcher.run(request)
    assert _why(watcher.tick()) == "nothing new"
    return request


def test_a_first_look_reports_every_day_and_trains_the_newest(watcher: Watcher, tmp_path: Path) -> None:
    for number in range(1, 5):
        put(tmp_path, f"prices_{day(number)}.parquet", prices(number))
    result = watcher.tick()
    (request,) = result.run_requests
    assert request.partition_key == "2026-01-04"
    assert request.run_key.startswith("2026-01-04:") and request.tags[VERSION_TAG] in request.run_key
    assert _days(result) == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    event = result.asset_events[0]
    assert event.asset_key.to_user_string() == "raw/market_prices"
    assert event.metadata["regions"].value == "DE, FR"
    assert event.metadata["rows"].value == {"DE": 48, "FR": 48}
    assert event.metadata["files"].value == "prices_2026-01-01.parquet"


def test_a_hundred_files_at_once_are_one_run(watcher: Watcher, tmp_path: Path) -> None:
    for number in range(1, 51):
        for region in ("DE", "FR"):
            put(tmp_path, f"{region}/{number}.parquet", prices(number, regions=[region]))
    result = watcher.tick()
    assert [r.partition_key for r in result.run_requests] == [day(50).isoformat()]
    assert len(result.asset_events) == 50
    assert result.asset_events[0].metadata["regions"].value == "DE, FR"


def test_no_files_and_too_few_days_are_reasons_not_to_run(watcher: Watcher, tmp_path: Path) -> None:
    assert _why(watcher.tick()) == "nothing new"
    put(tmp_path, "a.parquet", prices(1, 2))
    why = _why(watcher.tick())
    assert "no whole window of 3 days" in why and "2026-01-03 or later" in why


def test_a_day_in_parts_is_trained_when_it_is_whole(watcher: Watcher, tmp_path: Path) -> None:
    _start(watcher, tmp_path)
    put(tmp_path, "5a.parquet", prices(5, until=720))
    first = watcher.tick()
    assert _days(first) == ["2026-01-05"] and "outside of the window of 2026-01-04" in _why(first)
    put(tmp_path, "5.parquet", prices(5))
    (tmp_path / "data/5a.parquet").unlink()
    (request,) = watcher.tick().run_requests
    assert request.partition_key == "2026-01-05"


@pytest.mark.parametrize("where", ["other.parquet", "sub/folder/other.parquet"])
def test_touched_renamed_and_moved_files_change_nothing(watcher: Watcher, tmp_path: Path, where: str) -> None:
    _start(watcher, tmp_path)
    path = tmp_path / "data/prices_2026-01-04.parquet"
    os.utime(path, (2e9, 2e9))
    assert _why(watcher.tick()) == "nothing new"
    target = tmp_path / "data" / where
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    result = watcher.tick()
    assert _why(result) == "nothing new" and not result.asset_events


def test_days_merged_split_and_copied_change_nothing(watcher: Watcher, tmp_path: Path) -> None:
    _start(watcher, tmp_path)
    put(tmp_path, "all.parquet", prices(1, 2, 3, 4).sample(frac=1, random_state=0))
    assert _why(watcher.tick()) == "nothing new"
    for number in range(1, 5):
        (tmp_path / f"data/prices_{day(number)}.parquet").unlink()
    assert _why(watcher.tick()) == "nothing new"


def test_a_file_that_grows_changes_only_its_new_day(watcher: Watcher, tmp_path: Path) -> None:
    put(tmp_path, "year.parquet", prices(1, 2, 3, 4))
    watcher.run(watcher.tick().run_requests[0])
    put(tmp_path, "year.parquet", prices(1, 2, 3, 4, 5))
    result = watcher.tick()
    assert _days(result) == ["2026-01-05"]
    assert [r.partition_key for r in result.run_requests] == ["2026-01-05"]


def test_a_replaced_file_with_one_other_price_retrains(watcher: Watcher, tmp_path: Path) -> None:
    first = _start(watcher, tmp_path)
    frame = prices(4)
    frame.loc[7, "real_time_price"] += 0.001
    path = tmp_path / "data/prices_2026-01-04.parquet"
    size = path.stat().st_size
    put(tmp_path, path.name, frame)
    result = watcher.tick()
    (request,) = result.run_requests
    assert request.partition_key == "2026-01-04" and request.tags[VERSION_TAG] != first.tags[VERSION_TAG]
    assert result.asset_events[0].metadata["change"].value == "changed"
    assert abs(path.stat().st_size - size) < 64, "the case is about content, not size"


def test_data_that_goes_back_to_what_it_was_is_trained_again(watcher: Watcher, tmp_path: Path) -> None:
    first = _start(watcher, tmp_path)
    put(tmp_path, "prices_2026-01-04.parquet", prices(4, shift=5))
    (second,) = watcher.tick().run_requests
    watcher.run(second)
    put(tmp_path, "prices_2026-01-04.parquet", prices(4))
    (third,) = watcher.tick().run_requests
    assert third.tags[VERSION_TAG] == first.tags[VERSION_TAG] != second.tags[VERSION_TAG]
    assert len({first.run_key, second.run_key, third.run_key}) == 3, "Dagster drops a run key that it has seen"


def test_a_deleted_day_is_reported_and_a_window_with_a_hole_not_trained(watcher: Watcher, tmp_path: Path) -> None:
    _start(watcher, tmp_path)
    (tmp_path / "data/prices_2026-01-03.parquet").unlink()
    result = watcher.tick()
    (event,) = result.asset_events
    assert isinstance(event, dg.AssetObservation) and event.partition == "2026-01-03"
    assert event.metadata["change"].value == "gone"
    assert "2026-01-04 can't be trained" in _why(result)


def test_a_first_look_marks_only_dates_whose_data_is_other(watcher: Watcher, tmp_path: Path) -> None:
    for number in range(1, 8):
        put(tmp_path, f"prices_{day(number)}.parquet", prices(number))
    store, lake = ResultsStore(watcher.settings.results_dir), ParquetLake(watcher.settings.data_dir)
    for number in (4, 5, 6):
        version = read_window(watcher.settings, lake, day(number)).fingerprint
        store.write(day(number), "metrics.json", {"provenance": {"data_fingerprint": version}})
    put(tmp_path, "prices_2026-01-03.parquet", prices(3, shift=1))
    (request,) = watcher.tick().run_requests
    assert (request.partition_key, request.tags[STALE_TAG]) == ("2026-01-07", "2026-01-04..2026-01-05")
    assert "energy_ml/changed_days" in request.tags


def test_a_first_look_at_very_many_results_ends_in_time(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "LONGEST_COMPARISON", -1.0)
    ResultsStore(watcher.settings.results_dir).write(day(3), "metrics.json", {})
    assert STALE_TAG not in _start(watcher, tmp_path).tags


def test_a_late_file_for_an_old_day_marks_the_dates_it_falls_into(watcher: Watcher, tmp_path: Path) -> None:
    _start(watcher, tmp_path, days=6)
    store = ResultsStore(watcher.settings.results_dir)
    for number in (3, 4, 5, 6):
        store.write(day(number), "metrics.json", {})
    put(tmp_path, "prices_2026-01-04.parquet", prices(4, shift=1))
    result = watcher.tick()
    (request,) = result.run_requests
    assert request.partition_key == "2026-01-06", "the window of the newest day holds it"
    assert request.tags[STALE_TAG] == "2026-01-04..2026-01-05", "so do the windows of these two; they aren't retrained"
    assert result.asset_events[0].metadata["stale_as_of"].value == "2026-01-04..2026-01-05"
    watcher.run(request)
    put(tmp_path, "prices_2026-01-01.parquet", prices(1, shift=1))
    result = watcher.tick()
    assert "2026-01-01 lies outside of the window of 2026-01-06" in _why(result)
    assert "trained on data that has changed since: 2026-01-03" in _why(result)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not parquet at all", "isn't parquet"), (b"PAR1" + b"\0" * 100, "no footer")],
)
def test_an_unreadable_file_is_named_once_and_left_alone(
    watcher: Watcher, tmp_path: Path, content: bytes, reason: str
) -> None:
    _start(watcher, tmp_path)
    (tmp_path / "data/broken.parquet").write_bytes(content)
    why = _why(watcher.tick())
    assert "broken.parquet" in why and reason in why
    assert _why(watcher.tick()) == "nothing new"
    put(tmp_path, "prices_2026-01-05.parquet", prices(5))
    assert [r.partition_key for r in watcher.tick().run_requests] == ["2026-01-05"], "other files work on"


@pytest.mark.parametrize(("settle", "rests"), [("4", True), ("11", False)], ids=["rests", "looks again"])
def test_a_file_copied_slowly_is_used_when_it_is_whole(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, settle: str, rests: bool
) -> None:
    watcher = Watcher(settings_for(tmp_path, SETTLE_SECONDS=settle), instance)
    content = put(tmp_path, "whole.tmp.parquet", prices(5)).read_bytes()
    target, shares, clock = tmp_path / "data/slow.parquet", [0.3, 0.6, 0.9, 1.0], [1000.0]

    def sleep(seconds: float) -> None:  # the copy goes on meanwhile
        clock[0] += seconds
        if target.exists() and shares:
            target.write_bytes(content[: int(shares.pop(0) * len(content))])

    def tick() -> dg.SensorResult:
        if not rests:
            sleep(11)  # the sensor's interval
        return watcher.tick()

    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    monkeypatch.setattr(sensors.time, "sleep", sleep)
    for number in range(1, 5):
        put(tmp_path, f"prices_{day(number)}.parquet", prices(number))
    if not rests:
        assert "waits until prices_2026-01-01.parquet" in _why(tick())
    watcher.run(tick().run_requests[0])
    target.write_bytes(b"")
    while shares:
        assert "waits until slow.parquet" in _why(tick()), "at the end whole, but it may still be written to"
    assert [r.partition_key for r in tick().run_requests] == ["2026-01-05"]


def test_a_whole_file_settles_from_when_it_was_written_or_moved(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(settings_for(tmp_path, SETTLE_SECONDS="4"), instance)
    path, rests, now = put(tmp_path, "days.parquet", prices(1, 2, 3)), [], time.time
    os.utime(path, (1000.0, 1000.0))  # as a copy that keeps its source's time; the file is new all the same
    late = [0.0]
    monkeypatch.setattr(sensors.time, "time", lambda: now() + late[0])
    monkeypatch.setattr(sensors.time, "sleep", rests.append)
    assert "waits until days.parquet" in _why(watcher.tick(keep=False))
    assert 0 < rests.pop() <= 4, "the tick rests for what is missing"
    late[0] = 5.0
    assert [r.partition_key for r in watcher.tick().run_requests] == ["2026-01-03"]
    assert not rests, "nobody has touched it for five seconds: it is used at first sight"
    (tmp_path / "data/half.parquet").write_bytes(path.read_bytes()[:-100])
    late[0] = 10.0
    assert "waits until half.parquet" in _why(watcher.tick()), "a part of a file may be a copy that is stuck"


def test_a_file_that_never_rests_holds_the_others_up_for_a_while_only(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(settings_for(tmp_path, SETTLE_SECONDS="4"), instance)
    clock = [1000.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        put(tmp_path, "live.parquet", prices(4, until=60, shift=clock[0]))

    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    monkeypatch.setattr(sensors.time, "sleep", sleep)
    put(tmp_path, "days.parquet", prices(1, 2, 3))
    requests: list[dg.RunRequest] = []
    while not requests and clock[0] < 1000 + 2 * PATIENCE * 4:
        sleep(1)
        requests = list(watcher.tick().run_requests)
    assert [r.partition_key for r in requests] == ["2026-01-03"]
    assert clock[0] - 1000 >= PATIENCE * 4


def test_a_daemon_that_dies_between_request_and_cursor_asks_for_the_same_run(watcher: Watcher, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3))
    before = watcher.tick(keep=False)
    watcher.restart()
    again = watcher.tick()
    assert [r.run_key for r in before.run_requests] == [r.run_key for r in again.run_requests], "Dagster keeps one"
    assert _days(before) == _days(again)
    watcher.run(again.run_requests[0])
    watcher.restart()
    assert _why(watcher.tick()) == "nothing new"


def test_a_damaged_or_foreign_cursor_heals_itself(watcher: Watcher, tmp_path: Path) -> None:
    request = _start(watcher, tmp_path)
    for damaged in ("{", "[]", '{"files": 3}', '{"something": "else"}', "12"):
        watcher.cursor = damaged
        assert request.tags[VERSION_TAG] in _why(watcher.tick()), "a run for this data version exists already"


def test_data_trained_by_hand_is_not_trained_again(watcher: Watcher, tmp_path: Path) -> None:
    put(tmp_path, "days.parquet", prices(1, 2, 3))
    (request,) = watcher.tick(keep=False).run_requests
    version = request.tags[VERSION_TAG]
    ResultsStore(watcher.settings.results_dir).write(
        day(3), "metrics.json", {"provenance": {"data_fingerprint": version + "0" * 48}}
    )
    assert f"2026-01-03 is trained on this data (version {version})" in _why(watcher.tick())


def test_telemetry_is_reported_and_retrains_nothing(watcher: Watcher, tmp_path: Path) -> None:
    _start(watcher, tmp_path)
    telemetry = prices(4, regions=["b1"]).drop(columns="real_time_price").rename(columns={"region": "battery_id"})
    put(tmp_path, "telemetry.parquet", telemetry.assign(charge_level_mwh=1.0, capacity_mwh=2.0))
    result = watcher.tick()
    assert "only telemetry changed" in _why(result)
    assert [e.asset_key.to_user_string() for e in result.asset_events] == ["raw/battery_telemetry"]
    assert result.asset_events[0].metadata["batteries"].value == "b1"


def test_the_sensor_works_in_its_definitions_and_starts_switched_off(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = settings_for(tmp_path)
    put(tmp_path, "days.parquet", prices(1, 2, 3))
    definitions = build_definitions(settings)
    with dg.build_sensor_context(instance, definitions=definitions) as context:
        data = definitions.get_repository_def().get_sensor_def(NEW_PARQUET).evaluate_tick(context)
    assert [r.partition_key for r in data.run_requests] == ["2026-01-03"]
    assert {s.name: s.default_status.value for s in definitions.sensors} == {
        NEW_PARQUET: "STOPPED",
        REFRESH_LEADERBOARD: "STOPPED",
        RUN_FAILURES: "STOPPED",
    }


# --- failed runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """A local address and what was posted to it; ``/broken`` answers 500."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def _failed_run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    @dg.op
    def features() -> None:
        try:
            raise ValueError("a gap of 3 h\nin DE")
        except ValueError as error:
            raise dg.Failure("GapError: a gap of 3 h\nin DE") from error

    @dg.job(name="retrain", tags={"dagster/partition": "2026-01-04"})
    def failing() -> None:
        features()

    return failing.execute_in_process(instance=instance, raise_on_error=False)


def _alert(settings: Settings, instance: dg.DagsterInstance) -> None:
    result = _failed_run(instance)
    _react(settings, instance, result.dagster_run, result.get_run_failure_event())


def _react(settings: Settings, instance: dg.DagsterInstance, run: dg.DagsterRun, event: dg.DagsterEvent) -> None:
    sensor = next(s for s in build_sensors(settings) if s.name == RUN_FAILURES)
    context = dg.build_run_status_sensor_context(
        sensor_name=RUN_FAILURES, dagster_instance=instance, dagster_run=run, dagster_event=event
    )
    sensor(context.for_run_failure())


def test_a_killed_run_is_told_by_what_killed_it(
    tmp_path: Path, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    run = instance.create_run_for_job(_job, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event("[DagsterApiServer] The process was terminated by signal 9 (SIGKILL).\nMemory?", run)
    _react(settings_for(tmp_path), instance, run, instance.report_run_failed(run))
    said = capsys.readouterr().err
    assert f"failed (run {run.run_id}): The process was terminated by signal 9 (SIGKILL). Memory? This run" in said


def test_a_failed_run_is_one_line_and_a_post(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    receiver: tuple[str, list[Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, got = receiver
    settings = settings_for(tmp_path, ALERT_WEBHOOK=f"{url}/alerts")
    _alert(settings, instance)
    ((path, kind, message),) = got
    assert (path, kind) == ("/alerts", "application/json")
    assert message["job"] == "retrain" and message["as_of"] == "2026-01-04"
    assert message["failures"] == [{"step": "features", "error": "GapError: a gap of 3 h in DE"}]
    assert message["text"].count("\n") == 0
    assert f"retrain for 2026-01-04 failed (run {message['run_id']}): features: GapError" in message["text"]
    assert message["text"] in capsys.readouterr().err
    assert next(s for s in build_sensors(settings) if s.name == RUN_FAILURES).default_status.value == "RUNNING"


def test_a_webhook_that_is_down_does_not_hide_the_line(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    receiver: tuple[str, list[Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _alert(settings_for(tmp_path, ALERT_WEBHOOK=f"{receiver[0]}/broken"), instance)
    said = capsys.readouterr().err
    assert "retrain for 2026-01-04 failed" in said
    assert "the alert webhook didn't take the message: HTTPError: HTTP Error 500" in said
    _alert(settings_for(tmp_path, ALERT_WEBHOOK="http://127.0.0.1:9/"), instance)
    said = capsys.readouterr().err
    assert "retrain for 2026-01-04 failed" in said and "didn't take the message: URLError" in said


def test_without_a_webhook_there_is_the_line(
    tmp_path: Path, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    _alert(settings_for(tmp_path), instance)
    assert "failed (run" in (said := capsys.readouterr().err) and "features: GapError: a gap of 3 h in DE" in said
