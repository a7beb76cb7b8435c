"""Patience and numbers are limited: slow bodies, slow answers, too many sockets. The app is called without a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from energy_ml.service import ServiceSettings, create_app
from energy_ml.service.api import server_around
from energy_ml.service.ml_service import MLService
from energy_ml_tests.service.conftest import Server

Message = dict[str, Any]
HOST = (b"host", b"127.0.0.1:8000")
PREDICT = {
    "type": "http",
    "method": "POST",
    "path": "/api/v1/models/predict",
    "raw_path": b"/api/v1/models/predict",
    "query_string": b"",
    "headers": [HOST, (b"content-type", b"application/json")],
}
SOCKET = {"type": "websocket", "path": "/api/v1/ws", "raw_path": b"/api/v1/ws", "query_string": b"", "headers": [HOST]}


def call(app: Any, scope: Message, receive: Callable[[], Awaitable[Message]]) -> list[Message]:
    """What the app sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await asyncio.wait_for(app(dict(scope), receive, send), 30)

    asyncio.run(run())
    return sent


def test_a_body_that_never_comes_is_given_up(market: Server) -> None:
    app = create_app(market.settings, ServiceSettings(timeout_seconds=0.05))
    parts = [{"type": "http.request", "body": b'{"prices', "more_body": True}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    start, body = call(app, PREDICT, receive)
    assert start["status"] == 408 and "0.05 s" in json.loads(body["body"])["detail"]


def test_an_answer_that_never_comes_is_given_up(market: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(market.settings, ServiceSettings(timeout_seconds=0.05))
    monkeypatch.setattr(MLService, "forecast", lambda *_, **__: time.sleep(0.5))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    start, body = call(app, PREDICT, receive)
    assert start["status"] == 503 and "no answer after 0.05 s" in json.loads(body["body"])["detail"]


def test_one_socket_too_many_is_turned_away(market: Server) -> None:
    app = create_app(market.settings, ServiceSettings(max_sockets=1))
    app.app.state.hub.clients.add(object())
    messages = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        return messages.pop()

    accepted, closed = call(app, SOCKET, receive)
    assert accepted["type"] == "websocket.accept" and closed["code"] == 1013


def test_a_plain_route_that_never_answers_is_given_up(market: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(market.settings, ServiceSettings(timeout_seconds=0.05))
    monkeypatch.setattr(MLService, "list_models", lambda _: time.sleep(0.5))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    path = {"method": "GET", "path": "/api/v1/models", "raw_path": b"/api/v1/models"}
    start, body = call(app, PREDICT | path, receive)
    assert start["status"] == 503 and "no answer after 0.05 s" in json.loads(body["body"])["detail"]


# --- connections, at a started server ---------------------------------------------------------------------------------


@contextmanager
def started(market: Server, limits: ServiceSettings) -> Iterator[int]:
    """The server of ``serve`` with these limits, in a thread; its port."""
    own = server_around(create_app(market.settings, limits), limits, "127.0.0.1", 0, "critical")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        runs = threading.Thread(target=own.run, kwargs={"sockets": [listening]})
        runs.start()
        try:
            while not own.started:
                assert runs.is_alive()
                time.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            own.should_exit = True
            runs.join()


def ends(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    connection.settimeout(20)
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_headers_have_a_size_and_a_time_and_connections_a_number(market: Server) -> None:
    limits = ServiceSettings(timeout_seconds=0.3, max_connections=4)
    with started(market, limits) as port:
        place = ("127.0.0.1", port)
        alive = f"http://127.0.0.1:{port}/api/v1/health/live"
        for head in (b"GET /" + b"a" * 200_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000):
            with socket.create_connection(place) as one:
                sent = 0
                try:
                    for _ in range(100):
                        one.sendall(head if not sent else b"a" * 200_000)
                        sent += 200_000
                except (ConnectionResetError, BrokenPipeError):
                    pass
                assert sent < 20_000_000, "it took headers without end"
                assert ends(one)[:12] in (b"HTTP/1.1 400", b"")
        slow = [socket.create_connection(place) for _ in range(6)]
        for one in slow:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                one.sendall(b"GET /api/v1/health/live HTTP/1.1\r\nHost: ")
        for one in slow:  # the first four by their time, the others at once
            assert ends(one) == b""
            one.close()
        with httpx.Client(verify=False) as client:
            for _ in range(3):  # a connection that is kept alive has its time for each request
                assert client.get(alive).status_code == 200


def test_two_lone_timestamps_make_no_grid_of_decades(api: httpx.Client) -> None:
    stamps = ["1990-01-01T00:00Z", "2025-03-05T12:00Z", "2025-03-05T12:01Z", "2025-03-05T12:02Z"]
    body = {"timestamps": stamps, "regions": {name: [1, 1, 1, 1] for name in ("FR", "DE", "ES", "IT", "BE")}}
    for route, more in (("predict", {}), ("act", {"charge_level_mwh": 0.5})):
        answer = api.post(f"/models/{route}", json={"prices": body, **more})
        assert answer.status_code == 422, answer.text
        assert "1990" in answer.json()["detail"] and "100,000" in answer.json()["expected"]


@pytest.mark.parametrize(
    ("path", "methods"), [("models/predict", "POST"), ("models/train", "GET, POST"), ("models/nothing", "GET")]
)
def test_a_refused_method_is_told_the_right_ones(api: httpx.Client, path: str, methods: str) -> None:
    answer = api.request("OPTIONS", f"/{path}")
    assert answer.status_code == 405 and answer.headers["Allow"] == methods


def test_a_region_may_have_a_name_of_words(api: httpx.Client) -> None:
    for name, known in (("North Sea", True), (" North", False), ("North\nSea", False), ("x" * 65, False)):
        answer = api.post("/models/predict", json={"regions": [name]})
        assert answer.status_code == 422
        assert ("isn't in" in answer.text or "North Sea" in answer.json()["detail"]) == known, answer.text
