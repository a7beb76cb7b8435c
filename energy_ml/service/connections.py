"""Connections that send no request: how many there may be, and how long one may take over its headers.

What belongs here: what comes before a request is whole. What doesn't: requests (``security``, ``http``).
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from energy_ml.config import ServiceSettings


def bounded(limits: ServiceSettings) -> type[asyncio.Protocol]:
    """uvicorn's protocol with the limits of these settings. h11, since httptools bounds no headers."""

    class Bounded(H11Protocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            if len(self.connections) >= limits.max_connections:
                transport.close()
                self.transport = transport
                return
            super().connection_made(transport)
            self._expect()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._patience is None and self.conn.their_state is h11.IDLE:
                self._expect()
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._expect_no_more()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_no_more()
            if self in self.connections:
                super().connection_lost(exc)

        def _expect(self) -> None:
            self._patience = self.loop.call_later(limits.timeout_seconds, self._give_up)

        def _expect_no_more(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

        def _give_up(self) -> None:
            self._patience = None
            if self.conn.their_state is h11.IDLE:
                self.transport.close()

    return Bounded
