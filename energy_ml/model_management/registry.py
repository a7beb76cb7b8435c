"""The model registry: which versions of a model exist, which one is champion, who decided so, and why.

What belongs here: ``registry.json`` and the artefacts under ``<type>/versions/``, changed under one lock.
What doesn't: bytes on disk and reading champions (``energy_ml.artifacts``), the promotion rule (``comparison``).

Order of writing. ``registry.json`` is the one place where a change becomes true, by one rename:

- an artefact is complete on disk before an entry names it, and an entry is gone before its artefact is deleted;
- a promotion stages the new champion file, changes the registry, then renames the staged file over the champion's path.
  In between, readers (``artifacts.load_champion``) see by the digest that the path isn't up to date and load the
  champion from ``versions/``.

A writer leaves a journal while more than one file is changing: what it makes or deletes. Whoever takes the lock next
and finds it knows that the writer died, deletes what the journal names and the registry doesn't, and puts the champion
files right. Nothing else is ever deleted for not being in the registry, and no link is followed: ``repair`` refuses
where the folder holds artefacts that the registry doesn't know, ``adopt`` takes them in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from filelock import FileLock, Timeout

from energy_ml import artifacts
from energy_ml.artifacts import Event, ListedModel, Model, PathLike, Registry, Version, inside
from energy_ml.config import Settings, resolve_path
from energy_ml.errors import ArtifactError, ModelNotFoundError, PromotionError, RegistryError, UnknownModelError
from energy_ml.model_management.comparison import Decision, compare_metadata
from energy_ml.model_management.versioning import new_version, parse_version
from energy_ml.names import PRICE_PREDICTION, REGISTRY_FILE, RL_BATTERY, TRAINING_RESULTS_FILE, model_id_of_file

HISTORY_TAIL = 2000
"""Events that stay in ``registry.json``; when there are more, the older half moves to ``registry_history/``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_TEMP = ".registry-"
_POLL_SECONDS = 0.01
_ARTEFACT = re.compile(r"(?!\.)[^/]+/versions/v\d{8}_\d{6}/(?!\.)[^/]+", re.ASCII)
_OF_FILE = ("file", "sha256", "version")


class ModelRegistry:
    """Versions and champions of all models below one folder, safe for many threads, processes and sudden deaths.

    Artefacts live in the folders beside ``registry_path``, which need not exist yet. Writers wait ``lock_timeout``
    seconds for others, then RegistryError; readers never wait. ``clock``: the present time, aware; for tests.

    Entries are plain dicts, ``artifacts.Model`` and ``artifacts.Version``. Every method raises RegistryError for a
    damaged ``registry.json`` or one whose paths lead out of its folder, and ArtifactError when the disk refuses;
    nothing is then half changed.
    """

    def __init__(
        self,
        registry_path: PathLike = "models/registry.json",
        *,
        lock_timeout: float = 60.0,
        clock: Callable[[], dt.datetime] | None = None,
    ) -> None:
        if "://" in str(registry_path):
            raise RegistryError(
                f"The registry can't live at {registry_path}",
                expected="a path on a file system, local or shared, because writers need a lock and an atomic rename",
                remedy="set ENERGY_ML_MODELS_DIR to a folder; data and results may stay in the object store",
            )
        self.path = Path(resolve_path(registry_path))
        self.folder = self.path.parent
        self._lock_timeout = lock_timeout
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._pending = self.path.with_name(self.path.name + ".pending")
        self._segments = self.folder / "registry_history"
        self._aside = self.folder / "quarantine"

    # --- reading: no lock, because registry.json is only ever replaced as a whole ------------------------------------

    def list_models(self) -> list[ListedModel]:
        """All models by id, each as its entry with its ``model_id``; empty when there is no registry yet."""
        return [{"model_id": model_id, **model} for model_id, model in sorted(self._read()["models"].items())]

    def model(self, model_id: str) -> Model:
        """The entry of one model. Raises UnknownModelError when nothing of that name is registered."""
        return model_of(self._read()["models"], model_id)

    def get_latest_version(self, model_id: str) -> Version | None:
        """The entry of the newest registered version, champion or not; None when there is none."""
        return self._named(model_id, "latest")

    def champion(self, model_id: str) -> Version | None:
        """The entry of the version that serves; None when there is none (yet)."""
        return self._named(model_id, "champion")

    def _named(self, model_id: str, role: Literal["latest", "champion"]) -> Version | None:
        model = self._read()["models"].get(model_id)
        return None if model is None or model[role] is None else _find(model, model_id, str(model[role]))

    def version(self, model_id: str, version: str) -> Version:
        """The entry of one version. Raises UnknownModelError when it isn't registered."""
        return _find(self.model(model_id), model_id, version)

    def artifact_path(self, model_id: str, version: str) -> Path:
        """Where the version's own artefact lies (not the champion's copy)."""
        return inside(self.folder, self.version(model_id, version)["filepath"])

    def load(self, model_id: str, version: str | None = None) -> Any:
        """Load a version, by default the champion; its digest is checked before anything is unpickled.

        Raises ModelNotFoundError (no champion) and ArtifactError (artefact missing or changed).
        """
        if version is None:
            return artifacts.load_champion(self.folder, self.model(model_id)["champion_path"])
        entry = self.version(model_id, version)
        return artifacts.load_artifact(self.folder / entry["filepath"], entry["sha256"])

    def compare(self, model_id: str, a: str, b: str) -> dict[str, Any]:
        """Two versions side by side: both entries, every number of their metadata with its difference (b − a), and
        what else differs between them (``others``: settings, days, libraries)."""
        model = self.model(model_id)
        first, second = _find(model, model_id, a), _find(model, model_id, b)
        numbers, others = compare_metadata(first["metadata"], second["metadata"])
        both = {"a": first, "b": second, "numbers": numbers, "others": others}
        return {"model_id": model_id, "champion": model["champion"], **both}

    def history(self, model_id: str | None = None) -> list[Event]:
        """Every event since the registry was begun, oldest first; of one model, or of all.

        Each has ``seq`` (1, 2, 3, …), ``time``, ``event`` (registered, promoted, kept, rolled_back, retired, pruned,
        recovered, adopted), ``model_id``, ``version``, ``who``, ``reason`` and what else it needs.
        """
        # The registry first: events only ever move from it to the segments, so none slips through between the reads.
        events = {event["seq"]: event for event in self._read()["history"]}
        for segment in sorted(self._segments.glob("events-*.json")):
            try:
                found = artifacts.checked(list[Event], json.loads(segment.read_bytes()))
                events.update((event["seq"], event) for event in found)
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise RegistryError(
                    f"{segment} is damaged: {error}",
                    expected="a JSON list of events",
                    remedy="restore it from your own backup, or move it away to go on without those events",
                ) from error
        return [events[seq] for seq in sorted(events) if model_id is None or events[seq]["model_id"] == model_id]

    # --- changing ----------------------------------------------------------------------------------------------------

    def new_version(self) -> str:
        """A version name that no other caller gets, in whatever process; usable for several models of one run."""
        with self._changing() as registry:
            now = self._clock()
            if last := registry.get("last_version"):
                now = max(now, parse_version(last) + dt.timedelta(seconds=1))
            taken = {version for model in registry["models"].values() for version in model["versions"]}
            registry["last_version"] = new_version(taken, now=now)
            self._commit(registry)
            return str(registry["last_version"])

    def register_model(
        self,
        model_type: str,
        model_id: str,
        version: str,
        filepath: PathLike,
        metadata: Mapping[str, object] | None = None,
        *,
        who: str | None = None,
        sha256: str | None = None,
    ) -> None:
        """Copy an artefact into the registry as a version of a model. It doesn't become champion by that.

        Parameters
        ----------
        model_type : the folder beside the registry, ``price_prediction`` or ``rl_battery``.
        model_id : ``price_prediction_{h}m`` or ``battery_policy``; further ids are welcome.
        version : see ``new_version``.
        filepath : the artefact, wherever it lies; it is read once, and must be of ``sha256`` where that is given.
        metadata : what should be known about it: ``as_of``, ``metrics``, provenance. Must have a JSON form.

        Registering the same bytes as the same version again changes nothing (and restores a lost copy). Raises as
        ``read_artifact``, and RegistryError when names are impossible or the version is taken by other bytes.
        """
        for what, name in (("model type", model_type), ("model id", model_id)):
            if not _NAME.fullmatch(name) or name == "versions":
                raise RegistryError(
                    f"{name!r} is no {what}",
                    expected="letters, digits, '_', '-' and '.', beginning with a letter or digit",
                    remedy="use price_prediction or rl_battery as type and, say, price_prediction_15m as id",
                )
        parse_version(version)
        plain = artifacts.to_jsonable(dict(metadata or {}))
        data = artifacts.read_artifact(filepath, sha256)
        sha256 = artifacts.digest(data)
        with self._changing() as registry:
            model = registry["models"].get(model_id) or _new_model(registry, model_type, model_id)
            if model["type"] != model_type:
                raise RegistryError(
                    f"{model_id} is registered with type {model['type']!r}, not {model_type!r}",
                    expected="one type per model",
                    remedy="register it with that type, or under another id",
                )
            entry = model["details"].get(version)
            name = PurePosixPath(model["champion_path"]).name
            relative = PurePosixPath(model_type, "versions", version, name).as_posix()
            there = self._digest_of(relative)
            known = there if entry is None else entry["sha256"]
            if known not in (None, sha256):
                raise RegistryError(
                    f"{model_id} {version} is already {'registered' if entry else 'there'} with other content "
                    f"(SHA-256 {known[:12]}…, the new file has {sha256[:12]}…)",
                    expected="a version that never changes once it is there",
                    remedy="register the file as a new version, see ModelRegistry.new_version",
                )
            if entry is not None and known is not None:
                if there != sha256:
                    with self._several_files(registry):
                        artifacts.write_atomically(inside(self.folder, relative), data, temp_prefix=_TEMP)
                return
            with self._several_files(registry, *([relative] if there is None else [])):
                artifacts.write_atomically(inside(self.folder, relative), data, temp_prefix=_TEMP)
                registry["models"][model_id] = model
                model["details"][version] = self._entry(version, relative, data, plain)
                _order(model)
                self._commit(registry, _event("registered", model_id, version, who, None, sha256=sha256))

    def promote(self, model_id: str, version: str, *, reason: str, who: str) -> Version:
        """Make a version champion: the registry says so and its file lies at the champion's path. Returns its entry.

        By hand any version may be promoted, an older one too; ``decide`` is what the rule uses.
        Raises RegistryError (unknown version) and ArtifactError (its artefact is missing or damaged: nothing changes).
        """
        with self._changing() as registry:
            return self._promote(registry, model_id, version, reason, who)

    def decide(
        self, model_id: str, version: str, decision: Decision, *, who: str, against: str | None
    ) -> Version | None:
        """Carry out and record the promotion rule's decision. Returns the champion's entry (None: still none).

        ``against`` is the champion that the decision compared with, None if there was none. When another one has taken
        its place meanwhile, the decision is void: PromotionError, compare again.
        """
        with self._changing() as registry:
            model = model_of(registry["models"], model_id)
            entry, plain = _find(model, model_id, version), artifacts.to_jsonable(dataclasses.asdict(decision))
            if decision.promote:
                if model["champion"] not in (against, version):
                    raise PromotionError(
                        f"{model_id} {version} was compared with champion {against}, but {model['champion']} is "
                        "champion by now",
                        expected="a comparison with the present champion",
                        remedy="compare again and decide anew",
                    )
                return self._promote(registry, model_id, version, decision.reason, who, plain)
            entry["decision"], more = plain, {"champion": model["champion"], "decision": plain}
            self._commit(registry, _event("kept", model_id, version, who, decision.reason, **more))
            return None if model["champion"] is None else _find(model, model_id, model["champion"])

    def rollback(self, model_id: str, *, reason: str, who: str) -> Version:
        """Make the previous champion champion again; repeated, the one before it. Returns its entry. Undoes ``retire``.

        Raises PromotionError when there is none, or when it was pruned.
        """
        with self._changing() as registry:
            model = model_of(registry["models"], model_id)
            before = model["champions"] if model["champion"] is None else model["champions"][:-1]
            if not before:
                others = [version for version in model["versions"] if version != model["champion"]]
                raise PromotionError(
                    f"{model_id} has no earlier champion to go back to (champion: {model['champion']})",
                    expected="a version that was champion before and wasn't pruned",
                    remedy=f"promote one of {', '.join(others)} by hand" if others else "train another version",
                )
            entry = _find(model, model_id, before[-1])
            event = _event("rolled_back", model_id, entry["version"], who, reason, previous=model["champion"])
            return self._serve(registry, model, before, event)

    def retire(self, model_id: str, *, reason: str, who: str) -> Version:
        """Let a model serve no longer; ``promote`` and ``rollback`` bring it back. Returns the last champion's entry.

        Its versions stay. Raises PromotionError when there is no champion.
        """
        with self._changing() as registry:
            model = model_of(registry["models"], model_id)
            if model["champion"] is None:
                raise PromotionError(
                    f"{model_id} has no champion", expected="a model that serves", remedy="see `energy-ml models list`"
                )
            entry = _find(model, model_id, model["champion"])
            with self._several_files(registry, model["champion_path"]):
                model["champion"], model["retired"] = None, reason
                self._commit(registry, _event("retired", model_id, entry["version"], who, reason))
            return entry

    def prune(self, model_id: str, max_backups: int, *, who: str | None = None) -> list[str]:
        """Delete all but the champion, the one before it and the ``max_backups`` newest others. Returns the deleted.

        The champion before stays whatever ``max_backups`` says, so that ``rollback`` has somewhere to go. Artefacts
        go, history stays.
        """
        if max_backups < 0:
            raise RegistryError(f"max_backups is {max_backups}", expected="0 or more", remedy="correct the setting")
        with self._changing() as registry:
            model = model_of(registry["models"], model_id)
            others = [version for version in model["versions"] if version != model["champion"]]
            names = [version for version in reversed(others[max_backups:]) if version not in model["champions"][-2:]]
            if not names:
                return []
            with self._several_files(registry, *(model["details"][version]["filepath"] for version in names)):
                for version in names:
                    del model["details"][version]
                model["champions"] = [v for v in model["champions"] if v not in names]
                _order(model)
                self._commit(
                    registry, *(_event("pruned", model_id, v, who, f"max_backups {max_backups}") for v in names)
                )
            return names

    def repair(self) -> list[str]:
        """Put the files right by the registry, as after a killed writer. Returns what was done, in words.

        What a dead writer's journal names and the registry doesn't is deleted, a champion's path gets the champion's
        bytes (what lay there and nobody knows goes to ``quarantine/``), and its lost artefact is restored from that
        path. Raises RegistryError, with nothing changed, where ``adopt`` has to come first.
        """
        with self._changing(recover=False) as registry:
            journal = self._journal(registry)
            if strangers := [name for name in self._strangers(registry) if name not in journal]:
                raise RegistryError(
                    f"{self.path} doesn't know {len(strangers)} artefacts of the folder, such as {strangers[0]}",
                    expected="a registry that knows every artefact under versions/, or the right one restored",
                    remedy="if registry.json was lost or an older one put back, restore it; else register what is "
                    "there with `energy-ml models adopt`, or move it away",
                )
            return self._recover(registry, by_hand=True)

    def write_training_results(self) -> None:
        """Write ``<type>/training_results.json`` beside the champions: what each was trained on and how it did."""
        with self._changing() as registry, self._several_files(registry):
            by_type: dict[str, dict[str, tuple[str, str | None, dict[str, object]]]] = {}
            for model_id, model in registry["models"].items():
                if (champion := artifacts.champion_of(model)) is not None:
                    facts = {"version": champion["version"], **champion["metadata"]}
                    trained = model["champion_path"], champion["sha256"], facts
                    by_type.setdefault(model["type"], {})[model_id] = trained
            for model_type, results in by_type.items():
                artifacts.save_training_results(self.folder / model_type, results, temp_prefix=_TEMP)

    def adopt(self, *, who: str | None = None) -> list[str]:
        """Register the artefacts under ``versions/`` that the registry doesn't know. Returns what was done, in words.

        As after ``registry.json`` was lost: what is known of a version is taken from ``training_results.json``, and the
        version whose bytes lie at the champion's path of a model without champion becomes its champion. The files are
        trusted as they are.
        """
        with self._changing() as registry:
            events = []
            for relative in self._strangers(registry):
                model_type, _, version, name = PurePosixPath(relative).parts
                model_id, data = model_id_of_file(name), artifacts.read_artifact(self.folder / relative)
                model = registry["models"].get(model_id) or _new_model(registry, model_type, model_id)
                registry["models"][model_id], sha256 = model, artifacts.digest(data)
                facts = self._trained(model_type, model_id, sha256)
                model["details"][version] = self._entry(version, relative, data, facts)
                _order(model)
                events.append(_event("adopted", model_id, version, who, "registry.json didn't know it", sha256=sha256))
                if model["champion"] is None and self._digest_of(model["champion_path"]) == sha256:
                    model["champion"], model["champions"] = version, [*model["champions"], version]
                    events.append(_event("promoted", model_id, version, who, "its bytes lay at the champion's path"))
            if events:
                self._commit(registry, *events)
            return [f"{event['event']} {event['model_id']} {event['version']}" for event in events]

    def verify(self) -> list[str]:
        """Check every artefact and champion file against the registry. Returns the problems, in words; empty is well.

        What a killed writer left is put right first, as with any other change.
        """
        problems = []
        with self._changing() as registry:
            for model_id, model in registry["models"].items():
                names = model["versions"]
                if model["latest"] != (names[0] if names else None):
                    problems.append(f"{model_id}: latest is {model['latest']}, the newest version is {names[:1]}")
                for entry in model["details"].values():
                    found = self._digest_of(entry["filepath"])
                    if entry["sha256"] not in (None, found):
                        problems.append(f"{model_id} {entry['version']}: {_differs(entry['filepath'], found)}")
                if model["champion"] is None:
                    continue
                if model["champion"] not in names:
                    problems.append(f"{model_id}: champion {model['champion']} is not among its versions")
                    continue
                found = self._digest_of(model["champion_path"])
                if found != _find(model, model_id, model["champion"])["sha256"]:
                    problems.append(f"{model_id}: champion file {_differs(model['champion_path'], found)}")
            problems += [f"{name} isn't in the registry" for name in self._strangers(registry)]
            sequence = [event["seq"] for event in self.history()]
            if sequence != list(range(1, registry["sequence"] + 1)):
                problems.append(f"history has {len(sequence)} events, {registry['sequence']} were written")
        return problems

    # --- the machinery -----------------------------------------------------------------------------------------------

    def _read(self) -> Registry:
        return artifacts.read_registry(self.path) or {"models": {}, "sequence": 0, "history": []}

    @contextlib.contextmanager
    def _changing(self, *, recover: bool = True) -> Iterator[Registry]:
        """The registry as it is, with the lock held; first cleans up after a writer that died."""
        lock_path = self.path.with_name(self.path.name + ".lock")
        lock = FileLock(lock_path, timeout=self._lock_timeout, poll_interval=_POLL_SECONDS)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise RegistryError(
                f"Another process has held {lock_path} for {self._lock_timeout:g} s",
                expected="changes that take well under a second",
                remedy="look for a stopped or hanging energy_ml process; the lock goes when it ends",
            ) from None
        except OSError as error:
            raise RegistryError(
                f"The registry {self.path} can't be changed: {error.strerror or error}",
                expected="a writable folder",
                remedy="make it writable, or set ENERGY_ML_MODELS_DIR to one that is; reading needs no lock",
            ) from error
        try:
            registry = self._read()
            if recover and (self._pending.exists() or any(self.folder.glob(f"{_TEMP}*.tmp"))):
                self._recover(registry)
            yield registry
        finally:
            lock.release()

    @contextlib.contextmanager
    def _several_files(self, registry: Registry, *files: str) -> Iterator[None]:
        """Keep a journal while more than one file is changing; ``files`` are those that are made or deleted.

        It outlives an error or a death on purpose. At the end what the registry names no longer is deleted.
        """
        journal = {"sequence": registry["sequence"], "files": files}
        artifacts.write_atomically(self._pending, json.dumps(journal).encode(), temp_prefix=_TEMP, durable=False)
        yield
        self._discard(registry, files)
        self._unmark()

    def _unmark(self) -> None:
        artifacts.discard_staged(self._pending)  # one that can't be deleted costs the next writer a look

    def _journal(self, registry: Registry) -> list[str]:
        """The files that a dead writer made or was deleting; none if an older registry has been put back since."""
        try:
            journal = json.loads(self._pending.read_bytes())
            files = [name for name in journal["files"] if isinstance(name, str)]
            return files if journal["sequence"] <= registry["sequence"] else []
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []

    def _commit(self, registry: Registry, *events: dict[str, object]) -> None:
        for event in events:
            registry["sequence"] += 1
            registry["history"].append(cast(Event, {"seq": registry["sequence"], "time": self._now(), **event}))
        if len(registry["history"]) > HISTORY_TAIL:
            older = registry["history"][: -(HISTORY_TAIL // 2)]
            name = f"events-{older[0]['seq']:09d}-{older[-1]['seq']:09d}.json"
            artifacts.write_atomically(self._segments / name, _laid_out(older).encode(), temp_prefix=_TEMP)
            registry["history"] = registry["history"][len(older) :]
        if self.path.exists():
            # A copy, not a link: someone who edits registry.json in place would edit the backup with it.
            backup = self.path.with_name(self.path.name + ".bak")
            artifacts.write_atomically(backup, self.path.read_bytes(), temp_prefix=_TEMP, durable=False)
        artifacts.write_atomically(self.path, f"{_laid_out(registry)}\n".encode(), temp_prefix=_TEMP)

    def _promote(
        self,
        registry: Registry,
        model_id: str,
        version: str,
        reason: str,
        who: str,
        decision: dict[str, object] | None = None,
    ) -> Version:
        model = model_of(registry["models"], model_id)
        entry = _find(model, model_id, version)
        if model["champion"] == version and self._digest_of(model["champion_path"]) == entry["sha256"]:
            return entry
        more: dict[str, object] = {"previous": model["champion"]}
        if decision is not None:
            more["decision"] = entry["decision"] = decision
        succession = [v for v in model["champions"] if v != version] + [version]
        return self._serve(registry, model, succession, _event("promoted", model_id, version, who, reason, **more))

    def _serve(self, registry: Registry, model: Model, succession: list[str], event: dict[str, object]) -> Version:
        """Make the last of ``succession`` champion. Its bytes are staged beside the champion's path and renamed over it
        when the registry says so."""
        entry = model["details"][succession[-1]]
        data = artifacts.read_artifact(self.folder / entry["filepath"], entry["sha256"])
        entry["sha256"], entry["size"] = artifacts.digest(data), len(data)
        target = inside(self.folder, model["champion_path"])
        with self._several_files(registry):
            self._set_aside(model)
            temp = artifacts.stage(target, data, temp_prefix=_TEMP)
            try:
                model.pop("retired", None)
                model["champion"], model["champions"] = entry["version"], succession
                self._commit(registry, event)
            except BaseException:
                artifacts.discard_staged(temp)
                raise
            artifacts.commit_staged(temp, target)
        return entry

    def _recover(self, registry: Registry, *, by_hand: bool = False) -> list[str]:
        """Finish or undo what a dead writer left, by its journal alone, and put champions' files right."""
        journal = self._journal(registry)
        homes = {self.folder, self._segments, self._aside, *((self.folder / name).parent for name in journal)}
        homes |= {(self.folder / model["champion_path"]).parent for model in registry["models"].values()}
        unfinished = {path for home in homes if not self._linked(home) for path in home.glob(f"{_TEMP}*.tmp")}
        done = [f"deleted {path.name}, which wasn't finished" for path in sorted(unfinished) if self._delete(path)]
        done += [f"deleted {name}, which a dead writer left" for name in self._discard(registry, journal)]
        for model in registry["models"].values():
            entry = artifacts.champion_of(model)
            if entry is None or entry["sha256"] is None:
                continue
            served, own = self._digest_of(model["champion_path"]), self._digest_of(entry["filepath"])
            if own != entry["sha256"] and served == entry["sha256"]:
                data = artifacts.read_artifact(self.folder / model["champion_path"], entry["sha256"])
                artifacts.write_atomically(self.folder / entry["filepath"], data, temp_prefix=_TEMP)
                done.append(f"restored {entry['filepath']} from the champion's file")
            elif own == entry["sha256"] != served and (by_hand or self._knows(model, served)):
                done += self._set_aside(model)
                data = artifacts.read_artifact(self.folder / entry["filepath"], entry["sha256"])
                artifacts.write_atomically(self.folder / model["champion_path"], data, temp_prefix=_TEMP)
                done.append(f"put {entry['version']} at {model['champion_path']}")
        if done:
            self._commit(registry, _event("recovered", None, None, None, "; ".join(done)))
        self._unmark()
        return done

    def _strangers(self, registry: Registry) -> list[str]:
        """Artefacts under ``versions/`` that no entry names; what isn't one by place and name is nobody's business."""
        models = registry["models"]
        named = {v["filepath"] for model in models.values() for v in model["details"].values()}
        found = []
        for kind in {PRICE_PREDICTION, RL_BATTERY, *(model["type"] for model in models.values())}:
            for path in (self.folder / kind / "versions").glob("v*/*.pkl"):
                name, model_id = path.relative_to(self.folder).as_posix(), model_id_of_file(path.name)
                place = artifacts.champion_path(kind, model_id)
                known = models.get(model_id, {"type": kind, "champion_path": place})
                ours = _NAME.fullmatch(model_id) and (known["type"], known["champion_path"]) == (kind, place)
                if name not in named and ours and _ARTEFACT.fullmatch(name) and not self._linked(path):
                    found.append(name)
        return sorted(found)

    def _discard(self, registry: Registry, files: Iterable[str]) -> list[str]:
        """Delete artefacts that no entry names, and files of retired champions whose version is still there."""
        models = list(registry["models"].values())
        named = {v["filepath"] for model in models for v in model["details"].values()}
        kept = {model["champion_path"]: model for model in models if "retired" in model}
        deleted = []
        for name in files:
            expendable = name not in named and _ARTEFACT.fullmatch(name) is not None
            if name in kept:
                served = self._digest_of(name)
                own = [v["filepath"] for v in kept[name]["details"].values() if v["sha256"] == served]
                expendable = any(self._digest_of(path) == served for path in own)
            if expendable and self._delete(self.folder / name):
                deleted.append(name)
        return deleted

    def _delete(self, path: Path) -> bool:
        """Delete a file, and its version's folder if that is empty then; never a link or what lies behind one."""
        if self._linked(path):
            return False
        there = path.is_file()
        with artifacts.writing(path):
            path.unlink(missing_ok=True)
        if path.parent.parent.name == "versions":
            with contextlib.suppress(OSError):  # another model of the same run may have its version there
                path.parent.rmdir()
        return there

    def _linked(self, path: Path) -> bool:
        """Whether the path, or a folder between it and the registry's, is a link."""
        return any(part.is_symlink() for part in (path, *path.parents) if self.folder in part.parents)

    @staticmethod
    def _knows(model: Model, sha256: str | None) -> bool:
        """Whether nothing is lost with a file of that digest (None: no file): a version has the same bytes."""
        return sha256 is None or any(version["sha256"] == sha256 for version in model["details"].values())

    def _set_aside(self, model: Model) -> list[str]:
        """Copy what lies at the champion's path and nobody knows to ``quarantine/``, and say why beside it."""
        name = model["champion_path"]
        if self._knows(model, sha256 := self._digest_of(name)):
            return []
        place = self._aside / f"{PurePosixPath(name).name}.{str(sha256)[:12]}"
        why = f"{name} had this content, of SHA-256 {sha256}, which the registry doesn't know; set aside {self._now()}"
        artifacts.write_atomically(place, artifacts.read_artifact(self.folder / name), temp_prefix=_TEMP)
        artifacts.write_atomically(f"{place}.txt", f"{why}\n".encode(), temp_prefix=_TEMP)
        return [f"moved {name} to {place.relative_to(self.folder).as_posix()}"]

    def _trained(self, model_type: str, model_id: str, sha256: str) -> dict[str, object]:
        """What ``training_results.json`` knows of these bytes."""
        try:
            facts = dict(json.loads((self.folder / model_type / TRAINING_RESULTS_FILE).read_bytes())[model_id])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {k: v for k, v in facts.items() if k not in _OF_FILE} if facts.get("sha256") == sha256 else {}

    def _entry(self, version: str, relative: str, data: bytes, metadata: dict[str, object]) -> Version:
        return {
            "version": version,
            "filepath": relative,
            "sha256": artifacts.digest(data),
            "size": len(data),
            "registered_at": self._now(),
            "metadata": metadata,
        }

    def _digest_of(self, relative: str) -> str | None:
        try:
            return artifacts.sha256_of(self.folder / relative)
        except (ModelNotFoundError, ArtifactError):
            return None

    def _now(self) -> str:
        return self._clock().astimezone(dt.UTC).isoformat(timespec="seconds")


def registry_of(settings: Settings) -> ModelRegistry:
    """The registry of the settings' models folder."""
    return ModelRegistry(f"{settings.models_dir}/{REGISTRY_FILE}")


def _new_model(registry: Registry, model_type: str, model_id: str) -> Model:
    path = artifacts.champion_path(model_type, model_id)
    for other, model in registry["models"].items():
        if model["champion_path"] == path:
            raise RegistryError(
                f"{model_id} would serve at {path}, where {other} does",
                expected="one model per path",
                remedy="choose another id",
            )
    return {
        "type": model_type,
        "champion_path": path,
        "latest": None,
        "champion": None,
        "champions": [],
        "versions": [],
        "details": {},
    }


def _order(model: Model) -> None:
    """``details`` newest first, ``versions`` and ``latest`` as it has them."""
    model["details"] = dict(sorted(model["details"].items(), reverse=True))
    model["versions"] = list(model["details"])
    model["latest"] = next(iter(model["versions"]), None)


def model_of(models: Mapping[str, Model], model_id: str) -> Model:
    """The entry of one of the registry's models. Raises UnknownModelError."""
    if model_id not in models:
        raise UnknownModelError(
            f"There is no model {model_id!r}",
            expected=f"one of {', '.join(sorted(models)) or 'none: nothing is registered yet'}",
            remedy="see `energy-ml models list` or GET /api/v1/models, or train first (energy-ml retrain)",
        )
    return models[model_id]


def _find(model: Model, model_id: str, version: str) -> Version:
    if version in model["details"]:
        return model["details"][version]
    raise UnknownModelError(
        f"{model_id} has no version {version!r}",
        expected=f"one of {', '.join(model['versions']) or 'none'}",
        remedy="see `energy-ml models show`; older versions may have been pruned (max_backups)",
    )


def _event(
    event: str, model_id: str | None, version: str | None, who: str | None, reason: str | None, **more: object
) -> dict[str, object]:
    return {"event": event, "model_id": model_id, "version": version, "who": who, "reason": reason, **more}


def _differs(path: str, found: str | None) -> str:
    return f"{path} is missing or unreadable" if found is None else f"{path} has another SHA-256 ({found})"


def _laid_out(value: object, depth: int = 4, indent: str = "\n") -> str:
    """JSON with a line for each event and version: readable, diffable, and mostly encoded by the fast encoder."""
    inner = f"{indent}  "
    if isinstance(value, dict) and depth and value:
        items = [f"{json.dumps(name)}: {_laid_out(held, depth - 1, inner)}" for name, held in value.items()]
        return f"{{{inner}{f',{inner}'.join(items)}{indent}}}"
    if isinstance(value, list) and depth > 1 and value:
        return f"[{inner}{f',{inner}'.join(json.dumps(item, ensure_ascii=False) for item in value)}{indent}]"
    return json.dumps(value, ensure_ascii=False)
