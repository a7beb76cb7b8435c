"""Live progress of trainings for many WebSocket clients.

What belongs here: turning states of trainings into events, and handing each client what is new to it. What doesn't:
sockets, and where progress comes from (``energy_ml.progress``: files that trainings append to, or Celery's Redis).

A client has no queue but a slot per model that holds the newest event: one that reads slowly misses steps in between,
never the end, costs no memory and holds up nobody. Since all is derived from what is kept there, a server that starts
anew, or a client that comes late, is told the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from energy_ml.errors import EnergyMLError
from energy_ml.progress import open_progress, progress_place, recent_runs
from energy_ml.service.answers import ModelProgress, TrainingOut
from energy_ml.service.training_tasks import ENDED, Trainings, model_state

log = logging.getLogger("energy_ml.service")

_POLL_SECONDS = 0.2
_SHOWN_AFTER_END_SECONDS = 3600.0
_FOREIGN_SECONDS = 600.0
"""A run that wasn't started here (schedule, UI, command line) is shown while its log was written to lately."""

Event = dict[str, object]
Key = tuple[str, str]


class Client:
    """What one socket has still to be told: the newest event of each model and training, in order of arrival."""

    def __init__(self, training_id: str | None = None) -> None:
        self.training_id = training_id
        self._pending: dict[Key, Event] = {}
        self._news = asyncio.Event()

    def offer(self, key: Key, event: Event) -> None:
        """Put an event in its slot, over an older one."""
        if self.training_id is None or event.get("training_id") == self.training_id:
            self._pending.pop(key, None)
            self._pending[key] = event
            self._news.set()

    async def take(self) -> list[Event]:
        """Wait for news and take all of it."""
        await self._news.wait()
        self._news.clear()
        taken, self._pending = list(self._pending.values()), {}
        return taken


class Hub:
    """Looks at the trainings a few times a second and tells its clients what changed."""

    def __init__(self, trainings: Trainings) -> None:
        self.trainings = trainings
        self.clients: set[Client] = set()
        self._latest: dict[Key, Event] = {}
        self._settled: dict[str, float] = {}

    def join(self, training_id: str | None = None) -> Client:
        """A new client; it is offered the present state of everything at once."""
        client = Client(training_id)
        for key, event in self._latest.items():
            client.offer(key, event)
        if training_id is not None and training_id not in {event.get("training_id") for event in self._latest.values()}:
            for key, event in events_of(self.trainings.get(training_id)):
                client.offer(key, event)
        self.clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self.clients.discard(client)

    async def run(self) -> None:
        """Look and tell until cancelled."""
        while True:
            try:
                found = await asyncio.to_thread(self._look)
                for key, event in found:
                    if self._latest.get(key) != event:
                        self._latest[key] = event
                        for client in self.clients:
                            client.offer(key, event)
                present = {key for key, _ in found}
                self._latest = {key: event for key, event in self._latest.items() if key in present}
            except (EnergyMLError, OSError, ValueError):
                log.exception("looking at the trainings failed")
            await asyncio.sleep(_POLL_SECONDS)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _look(self) -> list[tuple[Key, Event]]:
        """Events of everything that runs or ended lately; ended ones are read once."""
        found: list[tuple[Key, Event]] = []
        known, now = set(), time.time()
        for state in self.trainings.newest(20):
            known.add(state["run_id"])
            if state["state"] in ENDED:
                ended = self._settled.setdefault(state["training_id"], now)
                if now - ended > _SHOWN_AFTER_END_SECONDS:
                    continue
            found += events_of(state)
        return [*found, *self._foreign(known)]

    def _foreign(self, known: set[str]) -> Iterable[tuple[Key, Event]]:
        place = progress_place(self.trainings.settings)
        for run_id in recent_runs(place, _FOREIGN_SECONDS):
            if run_id not in known:
                for model_id, event in open_progress(place, run_id).latest().items():
                    model = model_state(event)
                    error = model["metrics"].get("error")
                    told = None if error is None else str(error)
                    yield (run_id, model_id), _model_event(None, run_id, model_id, model, told)


def events_of(state: TrainingOut) -> list[tuple[Key, Event]]:
    """One event per model of a training, then one of the training itself, from what ``Trainings.get`` says."""
    training_id, run_id, ended = state["training_id"], state["run_id"], state["state"] in ENDED
    found: list[tuple[Key, Event]] = []
    for model_id, model in state["models"].items():
        if ended and model["state"] not in ENDED:
            model = {**model, "state": state["state"]}
        found.append(((run_id, model_id), _model_event(training_id, run_id, model_id, model, state["error"])))
    told = {name: state[name] for name in ("training_id", "run_id", "type", "as_of", "state", "progress", "error")}
    found.append(((run_id, ""), {"event": "training", **told}))
    return found


def _model_event(training_id: str | None, run_id: str, model_id: str, model: ModelProgress, error: str | None) -> Event:
    kind = {"completed": "completed", "failed": "failed", "cancelled": "failed"}.get(model["state"], "progress")
    event: Event = {
        "event": f"model_training_{kind}",
        "model_id": model_id,
        "progress": 1.0 if kind == "completed" else model["progress"],
        "metrics": model["metrics"],
        "training_id": training_id,
        "run_id": run_id,
    }
    if model["epoch"] is not None:
        event["epoch"] = model["epoch"]
    if kind == "failed":
        event["error"] = error or "the training ended before this model was done"
    return event
