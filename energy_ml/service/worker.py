"""A Celery application for the named tasks of training: ``celery -A energy_ml.service.worker worker``. Extra: [celery].

What belongs here: which broker (``ENERGY_ML_CELERY_BROKER``, ``_BACKEND``). What doesn't: the tasks (``tasks``).
"""

from __future__ import annotations

from energy_ml.config import Settings
from energy_ml.errors import needing

with needing("celery", "this worker"):
    from celery import Celery

_operations = Settings.from_env().operations
app = Celery(
    "energy_ml",
    broker=_operations.celery_broker,
    backend=_operations.celery_backend,
    include=["energy_ml.service.tasks"],
    # A training runs for minutes: none is handed out before there is a hand free, none is lost with a worker.
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)
