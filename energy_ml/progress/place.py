"""Where progress is kept, and opening it there: a folder beside the results, or the Redis that Celery uses.

What belongs here: the choice. What doesn't: the logs themselves (``log``, ``redis_log``).

Workers of Celery sit on machines that may share no folder with those who watch; there events go through Redis.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from energy_ml.config import Settings
from energy_ml.progress.log import ProgressEvent, ProgressLog

REDIS_SCHEMES = ("redis://", "rediss://")


def progress_folder(results_dir: str) -> Path:
    """Where the logs of runs that write to ``results_dir`` lie: inside it, or on the local disk for an object store.

    Object stores can't append; with one, and without Celery, progress is seen on the machine that trains.
    """
    if "://" not in results_dir:
        return Path(results_dir) / ".progress"
    return Path(tempfile.gettempdir()) / "energy_ml_progress" / hashlib.sha256(results_dir.encode()).hexdigest()[:16]


def progress_place(results_dir: str, settings: Settings | None = None) -> str:
    """Where progress of runs that write to ``results_dir`` is kept: a folder, or the URL of the Redis that Celery uses.

    ``settings`` come from the environment by default. With Celery but without any Redis it is the folder, which then
    has to be shared.
    """
    settings = settings or Settings.from_env()
    if settings.executor == "celery":
        for url in (settings.operations.celery_broker, settings.operations.celery_backend):
            if url.startswith(REDIS_SCHEMES):
                return url
    return str(progress_folder(results_dir))


def open_progress(
    place: str | Path, run_id: str, listener: Callable[[ProgressEvent], None] | None = None
) -> ProgressLog:
    """The log of one run at a place that ``progress_place`` gave."""
    if str(place).startswith(REDIS_SCHEMES):
        from energy_ml.progress.redis_log import RedisProgressLog

        return RedisProgressLog(str(place), run_id, listener)
    return ProgressLog(place, run_id, listener)


def recent_runs(place: str, seconds: float) -> list[str]:
    """Ids of the runs at ``place`` that reported progress within the last ``seconds``."""
    if place.startswith(REDIS_SCHEMES):
        from energy_ml.progress.redis_log import recent_runs

        return recent_runs(place, seconds)
    since = time.time() - seconds
    return [path.stem for path in Path(place).glob("*.jsonl") if path.stat().st_mtime >= since]
