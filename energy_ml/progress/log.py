"""Progress of long work, visible to other processes, by default without a broker.

What belongs here: an append-only log of progress events per run, and reading it. What doesn't: drawing bars, sockets,
Redis (``redis_log``), where logs lie (``place``).

One run appends JSON lines to one file under ``<results>/.progress/``. That is safe between processes of one machine:
each event is one ``write`` on a descriptor opened with O_APPEND, which the kernel does whole and at the file's end, so
lines never interleave and nothing is locked; a reader that sees a line without its newline waits for the rest; a writer
that is killed leaves whole lines. Nobody needs the file but to look: losing it loses no result.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from energy_ml.artifacts import to_jsonable

ProgressCallback = Callable[[float, Mapping[str, object]], None]
"""Called with the fraction done (0..1) and a few metrics."""

_MIN_STEP = 0.01
_MIN_SECONDS = 0.25


@dataclass(frozen=True)
class ProgressEvent:
    """One step forward: ``state`` is running, completed or failed; ``progress`` never falls within one model."""

    model_id: str
    progress: float
    state: str = "running"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    time: float = 0.0


class ProgressLog:
    """Writes and reads the events of one run.

    Parameters
    ----------
    folder
        Where the log lies.
    run_id
        Becomes the file's name. Raises ValueError unless it's made of letters, digits, ``-`` and ``_``.
    """

    def __init__(self, folder: str | Path, run_id: str) -> None:
        if not run_id or not all(c.isalnum() or c in "-_" for c in run_id):
            raise ValueError(f"run id {run_id!r} isn't made of letters, digits, '-' and '_'")
        self.path = Path(folder) / f"{run_id}.jsonl"
        self._last: dict[str, tuple[float, float]] | None = None

    def write(
        self, model_id: str, progress: float, metrics: Mapping[str, object] | None = None, state: str = "running"
    ) -> None:
        """Append one event. Running events closer than 1 % and a quarter second to the last one are dropped."""
        now = time.time()
        if self._last is None:  # a step that is tried again goes on from where the first try came to
            self._last = {name: (event.progress, event.time) for name, event in self.latest().items()}
        before, when = self._last.get(model_id, (-1.0, 0.0))
        progress = max(min(float(progress), 1.0), before, 0.0)
        if state == "running" and progress - before < _MIN_STEP and now - when < _MIN_SECONDS:
            return
        self._last[model_id] = (progress, now)
        self._append(ProgressEvent(model_id, progress, state, to_jsonable(metrics or {}), now))

    def callback(self, model_id: str) -> ProgressCallback:
        """A function for training loops: ``callback(fraction, metrics)``."""
        return lambda fraction, metrics: self.write(model_id, fraction, metrics)

    def read(self, after: str = "") -> tuple[list[ProgressEvent], str]:
        """Events after a mark that an earlier call gave, and the mark to go on from; whole events only."""
        offset = int(after or 0)
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return [], after
        whole = data[: data.rfind(b"\n") + 1]
        return [ProgressEvent(**json.loads(line)) for line in whole.splitlines()], str(offset + len(whole))

    def latest(self) -> dict[str, ProgressEvent]:
        """The newest event of each model."""
        return {event.model_id: event for event in self.read()[0]}

    def _append(self, event: ProgressEvent) -> None:
        line = json.dumps(event.__dict__, allow_nan=False) + "\n"
        # A full or read-only disk stops the run where a result is written, with words; not here, for a look.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
