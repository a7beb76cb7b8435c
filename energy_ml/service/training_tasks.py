"""Training by request: starts the project's Dagster jobs in a process of their own and knows how they fare.

What belongs here: records of trainings, starting, watching and cancelling their processes. What doesn't: HTTP, Dagster.

A training is a file ``<results>/.trainings/<id>.json``, written atomically, so that it outlives the server. Whether its
process lives is told by a lock that the kernel drops with the process, however it dies: the server locks ``<id>.lock``
and hands the open descriptor down. How it ended is said by the process in ``<id>.outcome.json``; no lock and no outcome
means that it was killed. (POSIX: ``flock``.)
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from filelock import FileLock
from pydantic import ConfigDict, TypeAdapter, ValidationError

from energy_ml.artifacts import write_json
from energy_ml.config import Settings, project_root
from energy_ml.errors import ConfigError, HorizonError, ServiceError, UnknownRegionError
from energy_ml.fields import text_of, variable
from energy_ml.names import (
    POLICY_ID,
    PRICE_PREDICTION,
    RETRAIN,
    RL_BATTERY,
    TRAIN_PRICE_PREDICTION,
    TRAIN_RL_BATTERY,
    price_model_id,
)
from energy_ml.progress import ProgressEvent, open_progress, progress_place
from energy_ml.service.answers import ModelProgress, TrainingFacts, TrainingOut
from energy_ml.service.problems import in_words
from energy_ml.training_window import deployment, newest

log = logging.getLogger("energy_ml.service")

_JOBS = {PRICE_PREDICTION: TRAIN_PRICE_PREDICTION, RL_BATTERY: TRAIN_RL_BATTERY, "all": RETRAIN}
"""What may be trained -> the Dagster job; ``all`` also evaluates and promotes."""
TASKS = {kind: f"tasks.{job}" for kind, job in _JOBS.items()}
ENDED = ("completed", "failed", "cancelled")
_HANDED_ON = (
    *("data_dir", "models_dir", "results_dir", "start_date", "end_date"),
    *("horizons", "regions", "executor"),
)
"""Settings that a training's process is told in its environment."""
_IN_ANOTHER_PROCESS = (sys.executable, "-m", "energy_ml.orchestration.requested_run")
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.5
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


class _Record(TrainingFacts):
    """A training as its file has it."""

    idempotency_key: str | None
    narrowed: bool
    results_dir: str
    created: float
    pid: int | None
    cancelled: bool


@dataclass(frozen=True)
class TrainingRequest:
    """What to train.

    ``as_of`` None is the newest complete day. ``horizons`` and ``regions`` narrow a training; its results then lie in a
    folder of their own and disturb nobody's. The same ``idempotency_key`` finds the training that it started.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    type: Literal["price_prediction", "rl_battery", "all"]
    as_of: dt.date | None = None
    horizons: tuple[int, ...] | None = None
    regions: tuple[str, ...] | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        for name in ("horizons", "regions"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name) or ()))) or None)

    @classmethod
    def of(cls, request: TrainingRequest | Mapping[str, object]) -> TrainingRequest:
        """From a mapping with the same names; dates may be text. Raises ServiceError 422 naming what can't be."""
        try:
            return _REQUEST.validate_python(request)
        except ValidationError as error:
            raise ServiceError(
                f"no training is described by {in_words(error)}",
                status=422,
                expected=f"type ({', '.join(_JOBS)}), as_of, horizons, regions, idempotency_key",
            ) from error

    @property
    def narrowed(self) -> bool:
        """Whether it covers less than the settings say."""
        return self.horizons is not None or self.regions is not None


_REQUEST = TypeAdapter(TrainingRequest)
_BY_SETTINGS: dict[str, Trainings] = {}
"""They outlive the call: whoever started a process has to wait for its end one day."""


async def train_model_task(training_id: str, request: TrainingRequest | Mapping[str, object]) -> TrainingOut:
    """Start a training with the settings of the environment; its state comes at once, see ``Trainings.start``."""
    settings = deployment()
    trainings = _BY_SETTINGS.setdefault(repr(settings), Trainings(settings))
    state, _ = await asyncio.to_thread(trainings.start, TrainingRequest.of(request), training_id)
    return state


class Trainings:
    """The trainings of one results folder, for many threads and servers."""

    def __init__(self, settings: Settings, *, per_hour: int = 12) -> None:
        self.settings = settings
        # Locks and processes belong to this machine, so records stay on its disk even if results don't.
        remote = "://" in settings.results_dir
        self.folder = (project_root() if remote else Path(settings.results_dir)) / ".trainings"
        self.per_hour = per_hour
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._read: dict[str, tuple[tuple[int, ...], _Record]] = {}
        self._ended: dict[str, TrainingOut] = {}
        self._threads = threading.Lock()

    # --- asking -------------------------------------------------------------------------------------------------------

    def start(self, request: TrainingRequest, training_id: str | None = None) -> tuple[TrainingOut, bool]:
        """Start a training, or find the one that was meant. Returns its state and whether it was started by this call.

        The same idempotency key, or the same work while it is running, gives the training that is there. Raises
        ConfigError (as-of date), HorizonError, UnknownRegionError, NoDataError, ServiceError (409 another is running or
        the key was used for something else, 429 too many in an hour).
        """
        training_id = _check_id(training_id or f"t-{uuid.uuid4().hex[:16]}")
        meant = self._record(training_id, request, self._check(request))
        with self._alone():
            records = self._records()
            if request.idempotency_key is not None:
                for record in records:
                    if record["idempotency_key"] == request.idempotency_key:
                        as_of = record["as_of"] if request.as_of is None else meant["as_of"]
                        if _work(record) != _work({**meant, "as_of": as_of}):
                            raise ServiceError(
                                "this Idempotency-Key was used for another training",
                                status=409,
                                remedy="use a new key for each new training",
                            )
                        return self._state(record), False
            if any(record["training_id"] == training_id for record in records):
                return self.get(training_id), False
            for record in records:
                if self._state(record)["state"] == "running":
                    if _work(record) == _work(meant):
                        return self._state(record), False
                    raise ServiceError(
                        f"training {record['training_id']} ({record['type']} as of {record['as_of']}) is running",
                        status=409,
                        expected="one training at a time",
                        remedy="wait for its end, or cancel it",
                    )
            since = time.time() - 3600
            if sum(record["created"] > since for record in records) >= self.per_hour:
                raise ServiceError(
                    f"{self.per_hour} trainings were started in the last hour",
                    status=429,
                    remedy="wait, or raise ENERGY_ML_API_TRAININGS_PER_HOUR",
                )
            return self._state(self._launch(meant)), True

    def get(self, training_id: str) -> TrainingOut:
        """State of one training: ``state`` (running, completed, failed, cancelled), ``progress`` 0..1, ``models``
        (id -> state, progress, epoch, metrics), ``error`` in words and what was asked. Raises ServiceError 404."""
        path = self.folder / f"{_check_id(training_id)}.json"
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ServiceError(
                f"there is no training {training_id!r}",
                status=404,
                expected="an id that POST /api/v1/models/train gave",
                remedy="see GET /api/v1/models/train",
            ) from None
        return self._state(record)

    def newest(self, limit: int = 50) -> list[TrainingOut]:
        """States of the newest trainings, newest first."""
        return [self._state(record) for record in self._records()[:limit]]

    def wait(self, training_id: str) -> TrainingOut:
        """Wait until a training has ended; returns its state. Raises ServiceError 404."""
        while (state := self.get(training_id))["state"] not in ENDED:
            time.sleep(_POLL_SECONDS)
        return state

    def cancel(self, training_id: str) -> TrainingOut:
        """End a running training; one that has ended stays as it is. Returns its state. Raises ServiceError 404."""
        state = self.get(training_id)
        if state["state"] != "running":
            return state
        path = self.folder / f"{training_id}.json"
        with self._alone():
            record = json.loads(path.read_bytes())
            write_json(path, {**record, "cancelled": True})
        if record["pid"] is not None and self._alive(training_id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record["pid"], signal.SIGUSR1)  # ends its own helpers, and says so on record
            deadline = time.monotonic() + _GRACE_SECONDS
            while self._alive(training_id) and time.monotonic() < deadline:
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                if self._alive(training_id):
                    os.killpg(record["pid"], signal.SIGKILL)  # it leads a session of its own
            while self._alive(training_id) and time.monotonic() < deadline + _GRACE_SECONDS:
                time.sleep(0.05)
        return self.get(training_id)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _check(self, request: TrainingRequest) -> dt.date:
        settings = self.settings
        if request.type == "all" and request.narrowed:
            raise ServiceError(
                "a training of everything can't be narrowed, because it decides who becomes champion",
                status=422,
                remedy="leave out horizons and regions, or train price_prediction or rl_battery",
            )
        for horizon in request.horizons or ():
            if horizon not in settings.horizons:
                raise HorizonError(
                    f"horizon {horizon} isn't among those of this project",
                    expected=f"one of {', '.join(map(str, settings.horizons))}",
                    remedy="set ENERGY_ML_HORIZONS to include it",
                )
        for region in request.regions or ():
            if "," in region or region not in (settings.regions or (region,)):
                raise UnknownRegionError(
                    f"region {region!r} isn't among those of this project",
                    expected=f"one of {', '.join(settings.regions)}" if settings.regions else "a name without comma",
                    remedy="set ENERGY_ML_REGIONS to include it",
                )
        last = newest(replace(settings, regions=request.regions or settings.regions))
        if request.as_of is None:
            return settings.check_as_of(last)
        if request.as_of > last:
            raise ConfigError(
                f"as-of date {request.as_of} lies after the newest complete day",
                expected=f"{last} or earlier",
                remedy="wait for its prices, or leave as_of out",
            )
        return settings.check_as_of(request.as_of)

    def _record(self, training_id: str, request: TrainingRequest, as_of: dt.date) -> _Record:
        """A training that is about to start."""
        own = self.folder / training_id / "results"
        return {
            "training_id": training_id,
            "run_id": str(uuid.uuid4()),
            "task": TASKS[request.type],
            "job": _JOBS[request.type],
            "type": request.type,
            "as_of": as_of.isoformat(),
            "horizons": list(request.horizons or self.settings.horizons),
            "regions": None if request.regions is None else list(request.regions),
            "idempotency_key": request.idempotency_key,
            "narrowed": request.narrowed,
            "results_dir": str(own) if request.narrowed else self.settings.results_dir,
            "created": time.time(),
            "pid": None,
            "state": "running",
            "cancelled": False,
            "error": None,
            "finished_at": None,
        }

    def _launch(self, record: _Record) -> _Record:
        """Write the record and start the process; called alone."""
        training_id = record["training_id"]
        path = self.folder / f"{training_id}.json"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ENERGY_ML_API_")}
        own = self._settings_of(record)
        environment |= {variable(Settings, name): text_of(getattr(own, name)) for name in _HANDED_ON}
        asked = {
            **{name: record[name] for name in ("job", "as_of", "run_id")},
            "outcome": str(self.folder / f"{training_id}.outcome.json"),
            "tags": {"energy_ml/training_id": training_id},
        }
        lock = os.open(self.folder / f"{training_id}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_json(path, record)  # only now, when the lock says that it lives, may others see it
            with (self.folder / f"{training_id}.log").open("ab") as output:
                process = subprocess.Popen(
                    [*_IN_ANOTHER_PROCESS, json.dumps(asked)],
                    cwd=project_root(),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)
        self._processes[training_id] = process
        record["pid"] = process.pid
        write_json(path, record)
        log.info("training %s: %s as of %s, run %s", training_id, record["job"], record["as_of"], record["run_id"])
        return record

    def _state(self, record: _Record) -> TrainingOut:
        """What clients see; settles the record if its process has ended since."""
        training_id = record["training_id"]
        if training_id in self._ended:
            return self._ended[training_id]
        if record["state"] == "running" and not self._alive(training_id):
            record = self._settle(record)
        models: dict[str, ModelProgress] = {
            name: {"state": "waiting", "progress": 0.0, "epoch": None, "metrics": {}} for name in _models(record)
        }
        place = progress_place(self._settings_of(record))
        for name, event in open_progress(place, record["run_id"]).latest().items():
            models[name] = model_state(event)
        for model in models.values():
            if record["state"] != "running" and model["state"] == "running":
                model["state"] = record["state"]
        done = sum(model["progress"] for model in models.values()) / max(len(models), 1)
        facts = cast(TrainingFacts, {name: record[name] for name in TrainingFacts.__annotations__})  # type: ignore[literal-required]
        state: TrainingOut = {
            **facts,
            "progress": 1.0 if record["state"] == "completed" else min(done, 0.99),
            "models": models,
            "created_at": dt.datetime.fromtimestamp(record["created"], dt.UTC).isoformat(timespec="milliseconds"),
        }
        if record["state"] in ENDED:
            self._ended[training_id] = state
            process = self._processes.pop(training_id, None)
            if process is not None:  # another server settled the record; its end is still ours to collect
                process.wait(timeout=_GRACE_SECONDS)
        return state

    def _settle(self, record: _Record) -> _Record:
        """The process is gone: write down how it ended."""
        training_id = record["training_id"]
        path = self.folder / f"{training_id}.json"
        process = self._processes.pop(training_id, None)
        code = process.wait(timeout=_GRACE_SECONDS) if process is not None else None
        with self._quietly(path):
            record = json.loads(path.read_bytes())
        if record["state"] != "running":
            return record  # another thread was faster
        try:
            outcome = json.loads((self.folder / f"{training_id}.outcome.json").read_bytes())
        except (FileNotFoundError, ValueError):
            how = "unexpectedly" if not code else f"by signal {-code}" if code < 0 else f"with code {code}"
            outcome = {
                "state": "failed",
                "error": f"the training's process ended {how} before it was done; nothing half-written is left",
                "finished_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            }
            self._close_dead_runs()
        if record["cancelled"] and outcome["state"] == "failed":
            outcome |= {"state": "cancelled", "error": "cancelled by request"}
        for name in ("state", "error", "finished_at"):
            record[name] = outcome[name]
        write_json(path, record)
        log.info("training %s: %s%s", training_id, record["state"], f": {record['error']}" if record["error"] else "")
        return record

    def _close_dead_runs(self) -> None:
        """Let Dagster's record say so too, in a process of its own: loading Dagster takes seconds."""
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            _IN_ANOTHER_PROCESS, cwd=project_root(), stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        threading.Thread(target=process.wait, daemon=True).start()  # somebody must collect its end

    def _alive(self, training_id: str) -> bool:
        process = self._processes.get(training_id)
        if process is not None and process.poll() is not None:
            return False
        try:
            lock = os.open(self.folder / f"{training_id}.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(lock)

    def _records(self) -> list[_Record]:
        records = []
        for path in self.folder.glob("*.json"):
            if not path.name.endswith(".outcome.json"):
                with self._quietly(path):
                    found = path.stat()
                    stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
                    kept = self._read.get(path.name)
                    if kept is None or kept[0] != stamp:
                        kept = self._read[path.name] = (stamp, json.loads(path.read_bytes()))
                    records.append(kept[1])
        return sorted(records, key=lambda record: record["created"], reverse=True)

    @staticmethod
    @contextlib.contextmanager
    def _quietly(path: Path) -> Iterator[None]:
        """A record that someone deleted or damaged must not stop the others."""
        try:
            yield
        except (OSError, ValueError) as error:
            log.warning("%s can't be read: %s", path, error)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._threads, FileLock(self.folder / ".starting.lock", timeout=30):
            yield

    def _settings_of(self, record: _Record) -> Settings:
        """Narrowed trainings stay on this machine: workers elsewhere know neither their folder nor their horizons."""
        narrowed = record["narrowed"] and self.settings.executor in ("celery", "k8s")
        return replace(
            self.settings,
            results_dir=record["results_dir"],
            executor="in_process" if narrowed else self.settings.executor,
            horizons=tuple(record["horizons"]),
            regions=tuple(record["regions"]) if record["regions"] else self.settings.regions,
        )


def _check_id(training_id: str) -> str:
    """The id, if it is one: it becomes a file name. Raises ServiceError 404."""
    if not _ID.fullmatch(training_id):
        raise ServiceError(
            "this is no training id",
            status=404,
            expected="up to 64 letters, digits, '-' and '_', as the service gave it",
        )
    return training_id


def model_state(event: ProgressEvent) -> ModelProgress:
    """What clients see of one model."""
    metrics = {k: v for k, v in event.metrics.items() if k != "epoch"}
    epoch = event.metrics.get("epoch", metrics.get("round", metrics.get("episode")))
    return {"state": event.state, "progress": event.progress, "epoch": epoch, "metrics": metrics}


def _models(record: _Record) -> list[str]:
    names = [price_model_id(horizon) for horizon in record["horizons"]]
    return names if record["type"] == PRICE_PREDICTION else [*names, POLICY_ID]


def _work(record: _Record) -> tuple[object, ...]:
    """What a training does, the same for all that would do it again."""
    regions = tuple(record["regions"]) if record["regions"] else None
    return record["type"], record["as_of"], tuple(record["horizons"]) if record["narrowed"] else None, regions
