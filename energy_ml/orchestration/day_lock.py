"""One run at a time per as-of date, whoever starts it: command line, UI, schedule, sensor or service.

What belongs here: the lock. What doesn't: queueing (``dagster.yaml`` limits what the daemon starts).

The lock is the operating system's, so that it ends with its process, killed or not. It covers runs in one process; with
an executor of many processes or machines the daemon's limit per partition does the same.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import filelock

from energy_ml.artifacts import writing
from energy_ml.errors import EnergyMLError

_WAIT_SECONDS = 3600.0


class DayLock:
    """Exclusive work on one as-of date. ``log`` is told when it has to wait."""

    def __init__(self, folder: str | Path, as_of: dt.date | str) -> None:
        self.as_of = str(as_of)
        self.path = Path(folder) / f"{self.as_of}.lock"
        # A singleton per path and reentrant, so that one process never waits for itself.
        self._lock = filelock.FileLock(self.path, is_singleton=True, thread_local=False)

    def acquire(self, log: Callable[[str], None], wait_seconds: float = _WAIT_SECONDS) -> None:
        """Take the lock.

        Raises EnergyMLError when another run has held it for ``wait_seconds``, ArtifactError where it can't be made.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        try:
            self._lock.acquire(timeout=0)
            return
        except filelock.Timeout:
            log(f"waits: another run of {self.as_of} is at work (lock {self.path})")
        try:
            self._lock.acquire(timeout=wait_seconds, poll_interval=0.2)
        except filelock.Timeout:
            raise EnergyMLError(
                f"another run of {self.as_of} has been at work for more than {wait_seconds:.0f} s",
                expected="one run per as-of date at a time",
                remedy=f"see the runs in the UI, or which process holds {self.path}",
            ) from None

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()
