"""Connections: how many there may be, how long one may take over its headers, and how the last ones end.

What belongs here: what comes before a request is whole, and after the last. What doesn't: requests (``security``,
``http``).
"""

from __future__ import annotations

import asyncio
import socket

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from energy_ml.config import ServiceSettings
from energy_ml.service.security import Guard

_PARTING_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn's, which on a signal to end answers what was accepted, and refuses what comes meanwhile in words.

    A listening socket that closes resets who is in its queue, so it goes on listening for a moment.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self.guard = guard

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Part from the clients, and then end as uvicorn does."""
        self.guard.stopping = True
        await asyncio.sleep(_PARTING_SECONDS)
        await super().shutdown(sockets)


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
