"""Patience and numbers are limited: slow bodies, slow answers, too many sockets. The app is called without a server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from energy_ml.service import ServiceSettings, create_app
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
