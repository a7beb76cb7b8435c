"""Progress through a real Redis: another machine's training is seen, by latecomers too, and Redis may fail."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from energy_ml.config import Settings
from energy_ml.progress import open_progress, progress_place, recent_runs
from energy_ml.service.events import Hub
from energy_ml.service.training_tasks import Trainings
from energy_ml_tests.orchestration.servers import missing, redis

pytestmark = pytest.mark.servers

WORKER = """
import sys
from energy_ml.config import Settings
from energy_ml.progress import open_progress, progress_place
log = open_progress(progress_place(Settings.from_env()), sys.argv[1])
for step in range(0, 101, 5):
    log.write("price_prediction_15m", step / 100, {"round": step})
log.write("price_prediction_15m", 1.0, {"mae": 1.5}, state="completed")
log.write("battery_policy", 0.4, {"episode": 40})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        import redis as client

        assert client
    except ImportError as error:
        missing(f"{error}: pip install 'energy_ml[celery]'")
    with redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


def settings_for(url: str, folder: Path) -> tuple[Settings, dict[str, str]]:
    """As every machine of a cluster has them, and the environment of a worker."""
    own = {
        "ENERGY_ML_EXECUTOR": "celery",
        "ENERGY_ML_CELERY_BROKER": f"{url}/0",
        "ENERGY_ML_CELERY_BACKEND": f"{url}/1",
    }
    settings = Settings.from_env({**own, "ENERGY_ML_RESULTS_DIR": str(folder)})
    return settings, {**os.environ, **own}


def test_a_worker_without_our_folders_is_seen(server: str, tmp_path: Path) -> None:
    settings, environment = settings_for(server, tmp_path)
    subprocess.run([sys.executable, "-c", WORKER, "run-1"], env=environment, cwd=tmp_path, check=True)
    place = progress_place(settings)
    log = open_progress(place, "run-1")
    events, after = log.read()
    steps = [event.progress for event in events if event.model_id == "price_prediction_15m"]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 1 and len(steps) > 5
    assert log.read(after) == ([], after), "the mark goes on from where it was"
    newest = log.latest()
    assert newest["price_prediction_15m"].state == "completed" and newest["battery_policy"].progress == 0.4
    assert recent_runs(place, 60) == ["run-1"] and recent_runs(place, -60) == []
    assert not Path(settings.results_dir, ".progress").exists()

    # A server that starts now, and its clients, are told the present state at once.
    hub, heard = Hub(Trainings(settings)), {}

    async def come_late() -> None:
        looking = asyncio.create_task(hub.run())
        while not hub._latest:
            await asyncio.sleep(0.01)
        for event in await hub.join().take():
            heard[event["model_id"]] = event
        looking.cancel()

    asyncio.run(asyncio.wait_for(come_late(), 20))
    assert heard["price_prediction_15m"]["event"] == "model_training_completed"
    assert heard["battery_policy"]["event"] == "model_training_progress"
    assert (heard["battery_policy"]["progress"], heard["battery_policy"]["epoch"]) == (0.4, 40)


def test_a_second_try_goes_on_from_where_the_first_came_to(server: str) -> None:
    for values in ((0.0, 0.6), (0.1, 0.9)):
        log = open_progress(server, "run-2")
        for value in values:
            log.write("m", value, state="failed")
    assert [event.progress for event in log.read()[0]] == [0.0, 0.6, 0.6, 0.9]


def test_narrowed_trainings_stay_here(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers elsewhere know neither their folder nor their horizons."""
    settings, _ = settings_for(server, tmp_path)
    record = {"results_dir": str(tmp_path / "own"), "run_id": "run-3", "narrowed": True, "type": "price_prediction"}
    record |= {"horizons": [15], "regions": None}
    trainings = Trainings(settings)
    own, usual = (trainings._settings_of({**record, "narrowed": narrowed}) for narrowed in (True, False))
    assert own.executor == "in_process"
    open_progress(progress_place(own), "run-3").write("m", 0.5)
    assert (tmp_path / "own/.progress/run-3.jsonl").exists()
    assert open_progress(progress_place(usual), "run-3").latest() == {}


def test_only_celery_takes_redis(tmp_path: Path) -> None:
    settings, _ = settings_for("redis://broker:6379", tmp_path)
    assert progress_place(settings) == "redis://broker:6379/0"
    folder = str(tmp_path / ".progress")
    assert progress_place(replace(settings, executor="in_process")) == folder
    other = replace(settings.operations, celery_broker="amqp://broker")
    assert progress_place(replace(settings, operations=other)) == "redis://broker:6379/1"
    other = replace(other, celery_backend="rpc://")
    assert progress_place(replace(settings, operations=other)) == folder


def test_without_redis_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with redis(tmp_path) as url:
        log = open_progress(url, "run-4")
        log.write("m", 0.25)
    with caplog.at_level(logging.WARNING):
        began = time.monotonic()
        for step in range(26, 100):
            log.write("m", step / 100)
        assert time.monotonic() - began < 10
        assert log.latest() == {} and log.read() == ([], "") and recent_runs(url, 60) == []
    assert len(caplog.records) == 1 and "progress can't be reported" in caplog.text


def test_what_redis_holds_is_bounded(server: str) -> None:
    import redis as client

    log = open_progress(server, "run-5")
    log.write("m", 0.5)
    connection = client.Redis.from_url(server)
    keys: Any = connection.keys("energy_ml:progress:run-5:*")
    assert len(keys) == 2 and all(0 < connection.ttl(key) <= 7 * 86_400 for key in keys)  # type: ignore[operator]
    assert json.loads(connection.hget("energy_ml:progress:run-5:newest", "m"))["progress"] == 0.5  # type: ignore[arg-type]
    connection.close()
