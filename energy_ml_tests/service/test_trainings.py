"""Trainings by request on a small project root: real Dagster runs in real processes, watched, cancelled, killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from energy_ml.errors import HorizonError, ServiceError, UnknownRegionError
from energy_ml.service import training_tasks
from energy_ml.service.events import Client, events_of
from energy_ml.service.training_tasks import ENDED, TrainingRequest, Trainings
from energy_ml_tests.service.conftest import TRAIN_TOKEN, Server
from energy_ml_tests.service.test_clients import SNIPPETS, run_snippet, said

SMALL = {"type": "price_prediction", "horizons": [60]}


def listen(server: Server, training_id: str | None = None) -> ClientConnection:
    query = f"?training_id={training_id}" if training_id else ""
    return connect(server.ws + query, additional_headers={"Authorization": f"Bearer {TRAIN_TOKEN}"}, proxy=None)


def until_end(socket: ClientConnection, training_id: str, seconds: float = 120) -> list[dict[str, Any]]:
    """Events of a training up to the one that says how it ended."""
    events: list[dict[str, Any]] = []
    deadline = time.monotonic() + seconds
    while not events or events[-1]["event"] != "training" or events[-1]["state"] not in ENDED:
        event = json.loads(socket.recv(timeout=max(deadline - time.monotonic(), 0.01)))
        if event["training_id"] == training_id:
            events.append(event)
    return events


def wait_until_progress(api: httpx.Client, training_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        state = api.get(f"/models/train/{training_id}").json()
        if state["progress"] > 0 or state["state"] != "running":
            return state
        time.sleep(0.1)
    raise AssertionError("no progress")


def run_status(server: Server, run_id: str) -> str | None:
    """What Dagster's own record says, as the UI shows it."""
    for database in (server.root / ".dagster").rglob("runs.db"):
        connection = sqlite3.connect(database)
        try:
            row = connection.execute("SELECT status FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        finally:
            connection.close()
        if row is not None:
            return str(row[0])
    return None


def record(server: Server, training_id: str) -> dict[str, Any]:
    """What the server wrote down about a training."""
    found: dict[str, Any] = json.loads((server.root / f"results/.trainings/{training_id}.json").read_text())
    return found


def wait_for_status(server: Server, run_id: str, status: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while run_status(server, run_id) != status:
        assert time.monotonic() < deadline, f"{run_status(server, run_id)} instead of {status}"
        time.sleep(0.1)


def test_killed_midway_and_the_next_cancelled(server: Server, api: httpx.Client) -> None:
    killed = api.post("/models/train", json=SMALL).json()["training_id"]
    with listen(server, killed) as socket:
        assert wait_until_progress(api, killed)["state"] == "running"
        os.killpg(record(server, killed)["pid"], signal.SIGKILL)
        began = time.monotonic()
        events = until_end(socket, killed, 10)
        assert time.monotonic() - began < 10
    assert events[-1]["state"] == "failed" and "signal 9" in events[-1]["error"]
    assert [e["event"] for e in events][-2] == "model_training_failed"

    following = api.post("/models/train", json=SMALL)
    assert following.status_code == 202, "the killed one stands in nobody's way"
    training_id, run_id = following.json()["training_id"], following.json()["run_id"]
    with listen(server, training_id) as socket:
        assert wait_until_progress(api, training_id)["state"] == "running"
        assert run_status(server, run_id) == "STARTED"
        state = api.post(f"/models/train/{training_id}/cancel").raise_for_status().json()
        assert state["state"] == "cancelled" and state["error"] == "cancelled by request"
        assert until_end(socket, training_id, 10)[-1]["state"] == "cancelled"
    assert api.post(f"/models/train/{training_id}/cancel").json()["finished_at"] == state["finished_at"]
    # Dagster's record must not show them as running for ever.
    wait_for_status(server, record(server, killed)["run_id"], "FAILURE")
    wait_for_status(server, run_id, "CANCELED")


def test_a_training_from_request_to_end(server: Server) -> None:
    """Its server is killed on the way; the next one knows it, as do clients, and the documentation's client code."""
    with server.client() as api:
        answer = api.post("/models/train", json=SMALL, headers={"Idempotency-Key": "one"})
        assert answer.status_code == 202, answer.text
        state = answer.json()
        training_id = state["training_id"]
        assert answer.headers["location"] == f"/api/v1/models/train/{training_id}"
        assert (state["state"], state["task"], state["as_of"]) == (
            "running",
            "tasks.train_price_prediction",
            "2025-03-05",
        )
        os.killpg(record(server, training_id)["pid"], signal.SIGSTOP)  # so that it can't end meanwhile
    server.stop(signal.SIGKILL)
    server.start()

    with server.client() as api, listen(server) as socket:
        # The same key and the same work find the training that is there; other work has to wait.
        again = api.post("/models/train", json=SMALL, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()["training_id"], again.json()["state"]) == (200, training_id, "running")
        assert api.post("/models/train", json=SMALL).json()["training_id"] == training_id
        other = api.post("/models/train", json={"type": "rl_battery"})
        assert other.status_code == 409 and training_id in other.json()["detail"]
        reused = api.post("/models/train", json={"type": "all"}, headers={"Idempotency-Key": "one"})
        assert reused.status_code == 409 and "key" in reused.json()["remedy"]
        waiting = run_snippet(SNIPPETS["training"], server)
        os.killpg(record(server, training_id)["pid"], signal.SIGCONT)
        events = until_end(socket, training_id)
        progress = [e["progress"] for e in events if e["event"] == "model_training_progress"]
        assert len(progress) > 3 and progress == sorted(progress) and progress[0] == 0
        assert any("epoch" in e for e in events)
        assert [e["event"] for e in events][-2:] == ["model_training_completed", "training"]
        assert all(e["model_id"] == "price_prediction_60m" for e in events if e["event"] != "training")
        assert events[-1]["state"] == "completed"

        end = api.get(f"/models/train/{training_id}").json()
        assert end["state"] == "completed" and end["progress"] == 1 and end["error"] is None and end["finished_at"]
        assert end["models"]["price_prediction_60m"]["metrics"]["mae"] > 0
        assert api.get("/models/train").json()["trainings"][0]["training_id"] == training_id
        assert run_status(server, end["run_id"]) == "SUCCESS"
        assert not (server.root / "results/2025-03-05").exists(), "narrowed trainings disturb no results"
        with listen(server, training_id) as late:
            assert until_end(late, training_id, 5)[-1]["state"] == "completed"
    assert said(waiting).startswith("completed")
    assert said(run_snippet(SNIPPETS["socket"], server)).splitlines()[-1].startswith("completed")


def test_without_data_a_training_is_refused_in_words(server: Server, api: httpx.Client) -> None:
    folder = server.root / "data/processed"
    hidden = [path.rename(path.with_suffix(".away")) for path in folder.glob("*.parquet")]
    try:
        answer = api.post("/models/train", json={"type": "price_prediction"})
        assert answer.status_code == 404 and "there are no price files" in answer.json()["detail"]
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".parquet"))


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"type": "everything"}, 422, "type"),
        ({}, 422, "type"),
        ({"type": "price_prediction", "horizons": [7]}, 422, "horizon"),
        ({"type": "price_prediction", "regions": ["XX"]}, 422, "region"),
        ({"type": "price_prediction", "as_of": "2025-03-01"}, 422, "as-of date"),
        ({"type": "price_prediction", "as_of": "2099-01-01"}, 422, "as-of date"),
        ({"type": "price_prediction", "as_of": "soon"}, 422, "as_of"),
        ({"type": "all", "horizons": [15]}, 422, "narrowed"),
    ],
)
def test_impossible_trainings_are_refused(api: httpx.Client, body: dict[str, Any], status: int, word: str) -> None:
    answer = api.post("/models/train", json=body)
    assert answer.status_code == status and word in answer.text


@pytest.mark.parametrize("name", ["%2e%2e", "../x", "%2e%2e%2fregistry", "a" * 65, "x.json", "x%00y"])
def test_ids_never_become_paths(api: httpx.Client, name: str) -> None:
    assert api.get(f"/models/train/{name}").status_code in (404, 405, 422)
    assert api.post(f"/models/train/{name}/cancel").status_code in (404, 405, 422)


# --- without processes ------------------------------------------------------------------------------------------------


def test_too_many_trainings_are_refused(market: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Server(tmp_path, {**market.environment, "ENERGY_ML_RESULTS_DIR": str(tmp_path)}).settings
    trainings = Trainings(settings, per_hour=2)

    class Ended:
        pid = 2**30

        def __init__(self, command: list[str], **_: Any) -> None:
            if asked := command[3:]:
                place = Path(json.loads(asked[0])["outcome"])
                place.write_text('{"state": "completed", "error": null, "finished_at": "2025-03-05T00:00:00+00:00"}')

        def poll(self) -> int:
            return 0

        def wait(self, timeout: float) -> int:
            return 0

    monkeypatch.setattr("energy_ml.service.training_tasks.subprocess.Popen", Ended)
    for _ in range(2):
        state, started = trainings.start(TrainingRequest("price_prediction"))
        assert started and state["state"] == "completed"
    with pytest.raises(ServiceError) as caught:
        trainings.start(TrainingRequest("price_prediction"))
    assert caught.value.status == 429
    for request, error in (
        (TrainingRequest("price_prediction", horizons=(7,)), HorizonError),
        (TrainingRequest("price_prediction", regions=("XX",)), UnknownRegionError),
    ):
        with pytest.raises(error):
            trainings.start(request)
    with pytest.raises(ServiceError, match="no training id"):
        trainings.get("../registry")
    with pytest.raises(ServiceError, match="described"):
        TrainingRequest.of({"type": "price_prediction", "path": "/etc/passwd"})


@pytest.mark.parametrize("narrowed", [{}, {"regions": ("FR",)}, {"horizons": (60,)}])
def test_one_training_of_many_asked_for_at_once(
    narrowed: dict[str, Any], market: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers over one folder, four threads each, the same work: one process."""
    settings = Server(tmp_path, {**market.environment, "ENERGY_ML_RESULTS_DIR": str(tmp_path)}).settings
    started: list[int] = []
    locks: list[int] = []

    class Running:
        pid = 2**30

        def __init__(self, command: list[str], pass_fds: list[int] = [], **_: Any) -> None:  # noqa: B006
            started.append(1)
            locks.extend(os.dup(descriptor) for descriptor in pass_fds)

        def poll(self) -> None:
            return None

    monkeypatch.setattr("energy_ml.service.training_tasks.subprocess.Popen", Running)
    servers = [Trainings(settings), Trainings(settings)]
    ids: list[str] = []
    request = TrainingRequest("price_prediction", **narrowed)
    threads = [
        threading.Thread(target=lambda s=s: ids.append(s.start(request)[0]["training_id"]))
        for s in servers
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(started) == 1 and len(ids) == 8 and len(set(ids)) == 1
    finally:
        for descriptor in locks:
            os.close(descriptor)


def test_killed_together_with_its_server_it_is_failed_on_the_next_start(
    market: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Server(tmp_path, {**market.environment, "ENERGY_ML_RESULTS_DIR": str(tmp_path)}).settings
    commands: list[list[str]] = []
    locks: list[int] = []

    class Running:
        pid = 2**30

        def __init__(self, command: list[str], pass_fds: tuple[int, ...] = (), **_: Any) -> None:
            commands.append(command)
            locks.extend(os.dup(descriptor) for descriptor in pass_fds)

        def poll(self) -> None:
            return None

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("energy_ml.service.training_tasks.subprocess.Popen", Running)
    state, _ = Trainings(settings).start(TrainingRequest("price_prediction"))
    assert Trainings(settings).get(state["training_id"])["state"] == "running", "the kernel holds the lock"
    for descriptor in locks:
        os.close(descriptor)  # as the kernel does with a process that is killed
    after = Trainings(settings)
    assert [found["state"] for found in after.newest()] == ["failed"]
    assert "unexpectedly" in after.get(state["training_id"])["error"]
    assert commands[-1] == training_tasks._IN_ANOTHER_PROCESS, "Dagster's record is closed too"
    assert after.start(TrainingRequest("price_prediction"))[1], "the next one starts"
    for descriptor in locks[1:]:
        os.close(descriptor)


def test_a_slow_client_misses_steps_but_not_the_end() -> None:
    import asyncio

    async def scene() -> list[dict[str, Any]]:
        client = Client()
        state = {
            "training_id": "t", "run_id": "r", "type": "price_prediction", "as_of": "2025-03-05", "state": "running",
            "progress": 0.0, "error": None,
        }  # fmt: skip
        for step in range(10_000):
            model = {"state": "running", "progress": step / 10_000, "epoch": step, "metrics": {}}
            for key, event in events_of({**state, "models": {"m": model}}):
                client.offer(key, event)
        for key, event in events_of({**state, "state": "failed", "error": "killed", "models": {"m": model}}):
            client.offer(key, event)
        return await client.take()

    events = asyncio.run(scene())
    assert [e["event"] for e in events] == ["model_training_failed", "training"]
    assert events[0]["error"] == "killed"


def test_sockets_need_a_token_and_an_existing_training(server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}):
        with pytest.raises(Exception, match="HTTP 403"):
            connect(server.ws, additional_headers=headers, proxy=None)
    with pytest.raises(Exception, match="403"):
        connect(
            server.ws, origin="http://evil.example", proxy=None,  # type: ignore[arg-type]
            additional_headers={"Authorization": f"Bearer {TRAIN_TOKEN}"},
        )  # fmt: skip
    with listen(server, "t-none") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=5)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404
