"""Progress through Redis, for trainings on machines that share no folder with those who watch. Extra: ``[celery]``.

What belongs here: writing events to Redis and reading them. What doesn't: what an event is, and when to use Redis
(``place``).

Each run has a stream of its events, of bounded length, and beside it the newest event of each model, for those who come
late; both vanish a week after the run's last word. An event is written to both in one transaction.

Progress is for looking at: where Redis can't be reached, the training goes on and the reader sees what it saw before.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from energy_ml.errors import needing
from energy_ml.progress.log import ProgressEvent, ProgressLog

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

_PREFIX = "energy_ml:progress:"
_RUNS = f"{_PREFIX}runs"
_KEPT_SECONDS = 7 * 86_400
_KEPT_EVENTS = 10_000
_PATIENCE_SECONDS = 2.0
"""How long one call may take; training waits for it."""
_PAUSE_SECONDS = 5.0
"""After a failure nothing is tried for so long, except the last word about a model."""
_T = TypeVar("_T")


class RedisProgressLog(ProgressLog):
    """The log of one run in the Redis at ``url``. Raises ConfigError where the extra is missing."""

    def __init__(self, url: str, run_id: str) -> None:
        super().__init__(".", run_id)
        self.run_id = run_id
        self._redis = _connection(url)

    def read(self, after: str = "") -> tuple[list[ProgressEvent], str]:
        """Events after a mark that an earlier call gave, and the mark to go on from."""
        found: list[Any] = self._redis.ask(
            lambda redis: redis.xrange(self._stream, min=f"({after}" if after else "-"), []
        )
        return [_event(fields[b"event"]) for _, fields in found], found[-1][0].decode() if found else after

    def latest(self) -> dict[str, ProgressEvent]:
        """The newest event of each model."""
        found: dict[Any, bytes] = self._redis.ask(lambda redis: redis.hgetall(self._newest), {})
        return {event.model_id: event for event in map(_event, found.values())}

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _stream(self) -> str:
        return f"{_PREFIX}{self.run_id}:events"

    @property
    def _newest(self) -> str:
        return f"{_PREFIX}{self.run_id}:newest"

    def _append(self, event: ProgressEvent) -> None:
        text = json.dumps(event.__dict__, allow_nan=False)

        def write(redis: Redis) -> None:
            with redis.pipeline(transaction=True) as pipe:
                pipe.xadd(self._stream, {"event": text}, maxlen=_KEPT_EVENTS, approximate=True)
                pipe.hset(self._newest, event.model_id, text)
                pipe.zadd(_RUNS, {self.run_id: event.time})
                pipe.zremrangebyscore(_RUNS, "-inf", event.time - _KEPT_SECONDS)
                pipe.expire(self._stream, _KEPT_SECONDS)
                pipe.expire(self._newest, _KEPT_SECONDS)
                pipe.execute()

        self._redis.ask(write, None, urgent=event.state != "running")


def runs_in_redis(url: str, seconds: float) -> list[str]:
    """Ids of the runs that reported progress within the last ``seconds``."""
    found: list[bytes] = _connection(url).ask(
        lambda redis: redis.zrangebyscore(_RUNS, time.time() - seconds, "+inf"), []
    )
    return [run_id.decode() for run_id in found]


class _Connection:
    """One client for all threads of this process, and when it may be tried again after a failure."""

    def __init__(self, url: str) -> None:
        with needing("celery", "progress through Celery's Redis"):
            import redis
        self._failures: type[Exception] = redis.RedisError
        self._client = redis.Redis.from_url(
            url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS
        )
        self._lock = threading.Lock()
        self._again = 0.0

    def ask(self, call: Callable[[Any], _T], otherwise: _T, *, urgent: bool = False) -> _T:
        """What ``call`` gives, or ``otherwise`` while Redis can't be reached."""
        if time.monotonic() < self._again and not urgent:
            return otherwise
        try:
            found = call(self._client)
        except self._failures as error:
            with self._lock:
                if not self._again:
                    log.warning("progress can't be reported or read: %s: %s", type(error).__name__, error)
                self._again = time.monotonic() + _PAUSE_SECONDS
            return otherwise
        self._again = 0.0
        return found


_connection = lru_cache(maxsize=8)(_Connection)


def _event(text: bytes) -> ProgressEvent:
    return ProgressEvent(**json.loads(text))
