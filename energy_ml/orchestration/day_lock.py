"""One run at a time per as-of date, whoever starts it: command line, UI, schedule, sensor or service.

What belongs here: the lock. What doesn't: queueing (``dagster.yaml`` limits what the daemon starts).

The lock is the operating system's, so that it ends with its process, killed or not. It covers runs in one process; with
an executor of many processes or machines the daemon's limit per partition does the same.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from energy_ml.artifacts import writing
from energy_ml.errors import EnergyMLError

_WAIT_SECONDS = 3600.0


@contextlib.contextmanager
def day_lock(folder: str | Path, as_of: str, log: Callable[[str], None]) -> Iterator[None]:
    """Exclusive work on one as-of date. ``log`` is told when it has to wait.

    Raises EnergyMLError when another run has held the lock for an hour, ArtifactError where it can't be made.
    """
    path = Path(folder) / f"{as_of}.lock"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    # A singleton per path and reentrant, so that one process never waits for itself.
    lock = filelock.FileLock(path, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log(f"waits: another run of {as_of} is at work (lock {path})")
        try:
            lock.acquire(timeout=_WAIT_SECONDS, poll_interval=0.2)
        except filelock.Timeout:
            raise EnergyMLError(
                f"another run of {as_of} has been at work for more than {_WAIT_SECONDS:.0f} s",
                expected="one run per as-of date at a time",
                remedy=f"see the runs in the UI, or which process holds {path}",
            ) from None
    try:
        yield
    finally:
        lock.release()
