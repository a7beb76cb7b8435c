"""Where progress is kept, and opening it there: a folder beside the results, or the Redis that Celery uses.

What belongs here: the choice. What doesn't: the logs themselves (``log``, ``redis_log``).

Workers of Celery sit on machines that may share no folder with those who watch; there events go through Redis.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path

from energy_ml.config import Settings
from energy_ml.progress.log import ProgressLog

_REDIS_SCHEMES = ("redis://", "rediss://")


def progress_place(settings: Settings) -> str:
    """Where progress of runs with these settings is kept: a folder of the results, or the Redis that Celery uses.

    With Celery but without any Redis it is the folder, which then has to be shared. Object stores can't append: beside
    one it is a folder of the local disk, so that progress is seen on the machine that trains.
    """
    results = settings.results_dir
    if settings.executor == "celery":
        for url in (settings.operations.celery_broker, settings.operations.celery_backend):
            if url.startswith(_REDIS_SCHEMES):
                return url
    if "://" not in results:
        return f"{results}/.progress"
    return f"{tempfile.gettempdir()}/energy_ml_progress/{hashlib.sha256(results.encode()).hexdigest()[:16]}"


def open_progress(place: str, run_id: str) -> ProgressLog:
    """The log of one run at a place that ``progress_place`` gave."""
    if place.startswith(_REDIS_SCHEMES):
        from energy_ml.progress.redis_log import RedisProgressLog

        return RedisProgressLog(place, run_id)
    return ProgressLog(place, run_id)


def recent_runs(place: str, seconds: float) -> list[str]:
    """Ids of the runs at ``place`` that reported progress within the last ``seconds``."""
    if place.startswith(_REDIS_SCHEMES):
        from energy_ml.progress.redis_log import runs_in_redis

        return runs_in_redis(place, seconds)
    since = time.time() - seconds
    return [path.stem for path in Path(place).glob("*.jsonl") if path.stat().st_mtime >= since]
