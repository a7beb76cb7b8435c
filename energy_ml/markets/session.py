"""Asking a market's server: politely, again where that helps, and never with a key in a message.

What belongs here: one HTTP session. What doesn't: what any market's answers mean.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import requests
from requests.utils import get_environ_proxies

_AGAIN = (429, 500, 502, 503, 504)
_KEPT, _KEPT_BYTES = 16, 4_000_000
_LONGEST_WAIT = 120.0
_TIMEOUT = 60.0


def cache_folder() -> Path:
    """Where what sources need is kept for the user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "energy_ml"


class MarketSession(requests.Session):
    """A session that waits ``pause`` seconds between requests, and tries again what may pass.

    Throttling, a server's error, a broken connection and an answer that ends early are tried again after each of
    ``waits`` (seconds; longer if the server says so). Small answers are kept, so that days that lie in one file cost
    one request; a session is therefore one command's. ``mirror``: an address asked in place of every server's.
    """

    def __init__(
        self, mirror: str | None = None, *, waits: tuple[float, ...] = (1, 4, 15, 60), pause: float = 0.2
    ) -> None:
        super().__init__()
        self.mirror, self._waits, self._pause = mirror, waits, pause
        self._kept: OrderedDict[str, requests.Response] = OrderedDict()
        self._last = 0.0

    def read(self, url: str) -> bytes | None:
        """The content at ``url``; None where there is nothing (404). Raises requests.RequestException."""
        answer = self.get(url)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.content

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        """Send one request, as often as it takes."""
        asked = str(request.url)
        if asked in self._kept:
            return self._kept[asked]
        if self.mirror:
            request.url = self.mirror.rstrip("/") + request.path_url
            more["proxies"] = get_environ_proxies(request.url)
        more["timeout"] = more.get("timeout") or _TIMEOUT
        for wait in (*self._waits, None):
            time.sleep(max(0.0, self._last + self._pause - time.monotonic()))
            told = "0"
            try:
                answer = super().send(request, **more)
                if answer.status_code not in _AGAIN or wait is None:
                    break
                told = answer.headers.get("Retry-After", "0")
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if wait is None:
                    raise
            finally:
                self._last = time.monotonic()
            time.sleep(max(wait, min(float(told), _LONGEST_WAIT) if told.isdigit() else 0.0))
        if answer.ok and len(answer.content) <= _KEPT_BYTES:
            self._kept[asked] = answer
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return answer
