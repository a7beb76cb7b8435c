"""The named tasks: on a real Celery worker through a real Redis, told to WebSocket clients; plain without Celery."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from energy_ml.errors import ServiceError
from energy_ml.service import train_model_task, training_tasks
from energy_ml.service.training_tasks import ENDED, TrainingRequest
from energy_ml_tests.orchestration.servers import missing, process, redis
from energy_ml_tests.service.conftest import Server
from energy_ml_tests.service.test_trainings import listen, until_end

ALONE = """
import json, sys
sys.modules["celery"] = None
from energy_ml.errors import ServiceError
from energy_ml.service import tasks
for task in (tasks.train_price_prediction, tasks.train_rl_battery):
    assert not hasattr(task, "delay")
    try:
        task("t-1", {"horizon": 15})
    except ServiceError as error:
        print(error)
"""


@pytest.mark.servers
def test_a_worker_runs_them_and_clients_are_told(server: Server, tmp_path: Path) -> None:
    try:
        from celery import Celery
    except ImportError as error:
        missing(f"{error}: pip install 'energy_ml[celery]'")
    with redis(tmp_path) as url:
        broker, backend = f"{url}/0", f"{url}/1"
        own = {"ENERGY_ML_CELERY_BROKER": broker, "ENERGY_ML_CELERY_BACKEND": backend}
        command = [sys.executable, "-m", "celery", "-A", "energy_ml.service.worker", "worker", "--pool", "solo"]
        log = (tmp_path / "worker.log").open("wb")
        with log, process(command, env={**server.environment, **own}, stdout=log, stderr=log), listen(server) as socket:
            caller = Celery("caller", broker=broker, backend=backend, set_as_current=False)
            # The policy's training trains the price models as well; the other task is asked for what it refuses.
            asked = caller.send_task("tasks.train_rl_battery", ["by-celery", {"horizons": [60], "regions": ["FR"]}])
            events = until_end(socket, "by-celery", 300)
            for model_id in ("price_prediction_60m", "battery_policy"):
                told = [e for e in events if e.get("model_id") == model_id]
                progress = [e["progress"] for e in told]
                assert progress == sorted(progress) and progress[-1] == 1.0 and len(progress) > 2
                assert told[-1]["event"] == "model_training_completed"
            state = asked.get(timeout=60)
            assert state["state"] == "completed" == events[-1]["state"]
            assert state["task"] == "tasks.train_rl_battery" and state["training_id"] == "by-celery"
            refused = caller.send_task("tasks.train_price_prediction", ["by-celery-refused", {"horizons": [7]}])
            with pytest.raises(Exception, match="horizon 7"):
                refused.get(timeout=60)


def test_without_celery_they_are_plain_functions(market: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=market.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("horizon") >= 2


def test_the_task_of_any_type_can_be_awaited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        if name.startswith(("ENERGY_ML_", "DAGSTER_")):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(training_tasks, "_BY_SETTINGS", {})  # other tests have folders of their own
    state = asyncio.run(train_model_task("awaited", {"type": "price_prediction", "horizons": [60]}))
    assert state["training_id"] == "awaited" and state["state"] == "running"
    with server.client() as api:
        ended = api.post("/models/train/awaited/cancel").raise_for_status().json()
    assert ended["state"] in ENDED
    for trainings in training_tasks._BY_SETTINGS.values():  # whoever started a process collects it
        assert trainings.wait("awaited")["state"] == ended["state"]


@pytest.mark.parametrize(
    ("request_dict", "word"),
    [
        ({}, "type"),
        ({"type": "everything"}, "type"),
        ({"type": "all", "as_of": "soon"}, "as_of"),
        ({"type": "all", "horizons": 15}, "horizons"),
        ({"type": "all", "regoins": ["FR"]}, "regoins"),
    ],
)
def test_what_describes_no_training_is_refused_by_name(request_dict: dict[str, Any], word: str) -> None:
    with pytest.raises(ServiceError, match=word) as caught:
        TrainingRequest.of(request_dict)
    assert caught.value.status == 422


def test_a_request_is_put_in_order() -> None:
    made = TrainingRequest.of({"type": "all", "horizons": [60, 15, 60], "regions": [], "as_of": "2026-02-10"})
    assert made.horizons == (15, 60) and made.regions is None and made.as_of is not None
