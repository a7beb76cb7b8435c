"""SIGTERM: what was accepted is answered, what comes after is refused in words, nobody is reset, and it ends soon."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter

import httpx
import pytest

from energy_ml_tests.service.conftest import TOKEN, Server

IN_FLIGHT = 8
BODY = b'{"horizons": [15]}'
HEAD = (
    f"POST /api/v1/models/predict HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {TOKEN}\r\nExpect: 100-continue\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode()


def test_a_server_that_is_told_to_end_parts_from_its_clients(server: Server) -> None:
    own = Server(server.root, server.environment).start()
    seen = Counter[str]()

    def ask(keep: bool) -> None:
        """Ask until refused, each time on a new connection or always on one."""
        status = 200
        with own.client(TOKEN) as kept:
            while status == 200:
                try:
                    if keep:
                        answer = kept.get("/models")
                    else:
                        with own.client(TOKEN) as new:
                            answer = new.get("/models")
                except httpx.TransportError as error:
                    seen[repr(error)] += 1
                    return
                status = answer.status_code
                seen[f"{status} {answer.json().get('detail', '')} {answer.headers.get('connection', '')}"] += 1

    accepted = [socket.create_connection(("127.0.0.1", own.port), timeout=30) for _ in range(IN_FLIGHT)]
    for one in accepted:
        one.sendall(HEAD)
        assert one.recv(1000).startswith(b"HTTP/1.1 100"), "it waits for the body"
    clients = [threading.Thread(target=ask, args=(keep,)) for keep in (True, False) * 2]
    for client in clients:
        client.start()
    assert own.process is not None
    own.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    for client in clients:
        client.join()
    refused = "503 the service is ending. close"
    assert set(seen) <= {"200  ", refused} and seen[refused] == len(clients), seen
    for one in accepted:  # no new one is taken any more
        one.sendall(BODY)
        answer = b""
        while part := one.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200") and b'"forecasts"' in answer
        one.close()
    own.process.wait(timeout=20)
    assert time.monotonic() - began < 20
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", own.port))
