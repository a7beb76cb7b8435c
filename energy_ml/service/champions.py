"""Champions kept warm: loaded when first asked for, replaced soon after a promotion, never by something broken.

What belongs here: which version is in memory, and swapping it. What doesn't: what a model is asked.

Readers take a whole immutable set by one attribute read; whoever is in the middle of a request keeps the set it has.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from energy_ml.artifacts import Model, Version, champion_of, load_champion, lost_champion, read_registry
from energy_ml.errors import ArtifactError, EnergyMLError, ModelNotFoundError, ServiceError, in_one_line
from energy_ml.model_management.registry import model_of
from energy_ml.names import REGISTRY_FILE
from energy_ml.price_prediction.model import PricePredictionModel
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.rl_battery.policy import BatteryPolicy, LearnedPolicy

log = logging.getLogger("energy_ml.service")

_POLL_SECONDS = 0.25
_RETRY_SECONDS = 5.0
_ATTEMPTS = 5


@dataclass(frozen=True, eq=False)
class Champion:
    """One model in memory: a PricePredictionModel or a BatteryPolicy, and the registry's entry of its version."""

    model_id: str
    type: str
    model: Any  # of one kind or the other, which callers know by its type
    entry: Version

    @property
    def version(self) -> str:
        """The version's name."""
        return self.entry["version"]


@dataclass(frozen=True, eq=False)
class ChampionSet:
    """Everything that serves at one instant: champions in memory, all of the registry's models, what is wrong."""

    loaded: Mapping[str, Champion] = field(default_factory=dict)
    listed: Mapping[str, Model] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    """Model id, or ``registry``, -> what is wrong, in words."""

    def promoted(self, model_id: str) -> Version:
        """The registry's entry of a model's champion. Raises ModelNotFoundError."""
        entry = model_of(self.listed, model_id)
        if (version := champion_of(entry)) is None:
            retired = entry.get("retired")
            raise ModelNotFoundError(
                f"{model_id} was retired: {retired}" if retired else f"no version of {model_id} was promoted yet",
                expected="a champion",
                remedy=f"see why with `energy-ml models show {model_id}`, or promote one",
            )
        return version

    def price_models(self) -> dict[int, Champion]:
        """Loaded price models by minutes ahead, ascending."""
        found = {c.model.horizon: c for c in self.loaded.values() if isinstance(c.model, PricePredictionModel)}
        return dict(sorted(found.items()))


class Champions:
    """The champions of one models folder, for many threads. ``start`` watches the registry in a thread of its own."""

    def __init__(self, models_dir: str | Path) -> None:
        self.folder = Path(models_dir)
        self._registry = self.folder / REGISTRY_FILE
        self._set = ChampionSet()
        self._stamp: tuple[int, ...] | None = (-1,)
        self._looked = -math.inf
        self._retry_at = math.inf
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def current(self) -> ChampionSet:
        """What serves now. Without a watcher, looks at the registry first if it hasn't done so for a moment."""
        if self._watcher is None and time.monotonic() - self._looked >= _POLL_SECONDS:
            self.refresh()
        return self._set

    def get(self, model_id: str) -> Champion:
        """One champion, loaded if need be. Raises ModelNotFoundError, or ServiceError 503 if it is broken."""
        found = self.current().loaded.get(model_id)
        if found is not None:
            return found
        self.current().promoted(model_id)
        with self._changing:
            self._load([model_id])
        found = self._set.loaded.get(model_id)
        if found is None:
            raise ServiceError(
                f"{model_id} can't be loaded: {self._set.problems.get(model_id, 'unknown reason')}",
                status=503,
                remedy="retrain, or roll back with `energy-ml models rollback`",
            )
        return found

    def lost(self) -> dict[str, str]:
        """Models whose champion's file is gone while its copy serves, each with that in words."""
        return {m: told for m, entry in self._set.listed.items() if (told := lost_champion(self.folder, entry))}

    def load_all(self, kind: str | None = None) -> ChampionSet:
        """Load every champion (of one type) that isn't in memory yet; those that can't be are in ``problems``."""
        now = self.current()
        wanted = [m for m, entry in now.listed.items() if entry["champion"] and kind in (None, entry["type"])]
        missing = [m for m in wanted if m not in now.loaded]
        if missing and any(m not in now.problems for m in missing):
            with self._changing:
                self._load([m for m in missing if m not in self._set.loaded])
        return self._set

    def refresh(self) -> None:
        """Look at the registry; load what was promoted since. Cheap when nothing changed. Never raises."""
        # While another thread is at it the old set serves; before the first look there is none, so that one is awaited.
        if not self._changing.acquire(blocking=self._looked == -math.inf):
            return
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp and time.monotonic() < self._retry_at:
                return
            self._stamp, self._retry_at = stamp, math.inf
            self._read_registry()
        finally:
            self._looked = time.monotonic()
            self._changing.release()

    def start(self) -> None:
        """Watch the registry in a daemon thread, and load all champions at once."""
        if self._watcher is None:
            self.refresh()
            self.load_all()
            self._stop.clear()
            self._watcher = threading.Thread(target=self._watch, name="champions", daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """End the watcher."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            self._stop.set()
            watcher.join(timeout=5)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                self.refresh()
                self.load_all()
            except Exception:  # the watcher must outlive whatever a disk can do
                log.exception("looking for new champions failed")

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            found = self._registry.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read_registry(self) -> None:
        """Called with the lock held."""
        before = self._set
        try:
            registry = read_registry(self._registry)
        except EnergyMLError as error:
            self._problem("registry", f"{error} The models in memory go on serving.")
            return
        if registry is None and before.listed:
            self._problem("registry", f"{self._registry} is gone. The models in memory go on serving.")
            return
        listed = {} if registry is None else registry["models"]
        loaded = {m: c for m, c in before.loaded.items() if m in listed and listed[m]["champion"] is not None}
        problems = {m: text for m, text in before.problems.items() if m in listed}
        self._set = ChampionSet(loaded, listed, problems)
        self._load([m for m, c in loaded.items() if champion_of(listed[m]) != c.entry] + list(problems))

    def _load(self, model_ids: list[str]) -> None:
        """Load and swap in, each by itself; called with the lock held."""
        for model_id in dict.fromkeys(model_ids):
            before = self._set
            kept = before.loaded.get(model_id)
            try:
                champion = self._load_one(model_id)
            except EnergyMLError as error:
                serving = f"version {kept.version} goes on serving" if kept else "nothing serves"
                self._problem(model_id, f"the champion can't be loaded; {serving}. {error}")
                continue
            problems = {m: text for m, text in before.problems.items() if m != model_id}
            self._set = replace(before, loaded={**before.loaded, model_id: champion}, problems=problems)
            log.info("%s: version %s serves", model_id, champion.version)

    def _load_one(self, model_id: str) -> Champion:
        for _ in range(_ATTEMPTS):
            known = self._known()
            version, entry = known.promoted(model_id), known.listed[model_id]
            loaded = load_champion(self.folder, entry["champion_path"])
            if self._known().promoted(model_id)["version"] == version["version"]:
                return Champion(model_id, entry["type"], _checked(model_id, loaded), version)
        raise ArtifactError(f"{model_id} was promoted {_ATTEMPTS} times while it was loaded", remedy="wait a moment")

    def _known(self) -> ChampionSet:
        registry = read_registry(self._registry)
        return ChampionSet(listed={} if registry is None else registry["models"])

    def _problem(self, what: str, text: str) -> None:
        before = self._set
        if before.problems.get(what) != text:
            log.error("%s: %s", what, text)
        self._set = replace(before, problems={**before.problems, what: text})
        self._retry_at = time.monotonic() + _RETRY_SECONDS


def _checked(model_id: str, loaded: object) -> object:
    """The object, after it has shown that it can answer. A pickle of something else is as broken as a cut-off one."""
    try:
        if isinstance(loaded, LearnedPolicy):
            loaded = BatteryPolicy.of(loaded)
        if isinstance(loaded, BatteryPolicy):
            battery = loaded.agent().battery
            loaded.get_action(battery.initial_mwh, 50.0, hour=12)
            return loaded
        if isinstance(loaded, PricePredictionModel):
            rows = PricePredictor().use({loaded.horizon: loaded}).warm_up()
            if rows and np.isfinite([row[name] for row in rows for name in ("price", "lower", "upper")]).all():
                return loaded
            raise ValueError("its forecast isn't finite")
    except Exception as error:
        raise ArtifactError(
            f"{model_id} loads but can't answer ({in_one_line(error)})", remedy="retrain, or roll back"
        ) from error
    raise ArtifactError(
        f"{model_id} holds a {type(loaded).__name__}", expected="a price model or a battery policy", remedy="roll back"
    )
