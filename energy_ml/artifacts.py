"""Bytes on disk: atomic writes, artefacts with their SHA-256, and reading the registry's file and its champions.

What belongs here: how a file gets written and read so that nobody ever sees half of it or runs code out of a file that
isn't the one that was saved. What doesn't: which version is champion and why (``registry``, ``comparison``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import errno
import hashlib
import io
import json
import logging
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NotRequired, TypeVar, cast

import joblib
import numpy as np
from typing_extensions import TypedDict

from energy_ml.config import resolve_path
from energy_ml.errors import ArtifactError, ModelNotFoundError, RegistryError
from energy_ml.names import REGISTRY_FILE, TRAINING_RESULTS_FILE, horizon_of_id, price_model_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

PathLike = str | os.PathLike[str]
Content = bytes | Callable[[BinaryIO], None]
_T = TypeVar("_T")

log = logging.getLogger("energy_ml")

_COMPRESSION = 3
_READ_ATTEMPTS = 20


def write_atomically(path: PathLike, content: Content, *, temp_prefix: str = ".tmp-", durable: bool = True) -> None:
    """Write a whole file or nothing: beside it first, flushed to disk, then renamed over it.

    Parameters
    ----------
    path : target; missing parent folders are made. A URL (``s3://…``, ``memory://…``) is put as one object instead.
    content : the bytes, or a callable that writes them to the binary file handle it is given.
    temp_prefix : how the file beside starts. Its name ends in ``.tmp``, so that no pattern such as ``*.json`` finds it.
    durable : flush to disk before and after the rename. Without, a power cut (not a killed process) may lose the file.

    Raises ArtifactError when the disk refuses. Whatever is raised, the previous file is untouched and nothing left
    beside it.
    """
    if _is_url(path):
        _place(path).write_bytes(_as_bytes(content))
        return
    temp = stage(path, content, temp_prefix=temp_prefix, durable=durable)
    try:
        commit_staged(temp, path, durable=durable)
    except BaseException:
        discard_staged(temp)
        raise


def stage(path: PathLike, content: Content, *, temp_prefix: str = ".tmp-", durable: bool = True) -> Path:
    """The first half of ``write_atomically``, all that can run out of space. Returns where the complete file is."""
    target = Path(path)
    temp = target.with_name(f"{temp_prefix}{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are 0600, and a champion that only its trainer can read serves nobody.
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                if isinstance(content, bytes):
                    handle.write(content)
                else:
                    content(handle)
                if durable:
                    handle.flush()
                    os.fsync(handle.fileno())
        except BaseException:
            discard_staged(temp)
            raise
    return temp


def commit_staged(temp: Path, path: PathLike, *, durable: bool = True) -> None:
    """The second half: rename the staged file over ``path`` and make the rename durable."""
    target = Path(path)
    with writing(target):
        temp.replace(target)
        if durable:
            _sync_folder(target.parent)


def discard_staged(temp: Path) -> None:
    """Remove a staged file, if it is still there."""
    with contextlib.suppress(OSError):
        temp.unlink()


def write_json(path: PathLike, value: object, *, temp_prefix: str = ".tmp-") -> None:
    """Write ``value`` as JSON, atomically. NumPy values, dates and paths become plain; NaN and infinities null."""
    text = json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode(), temp_prefix=temp_prefix)


def folder_to_save(output_dir: PathLike) -> Path:
    """Where a trainer saves: at the project root, as all that is relative; where a registry keeps champions there, in
    the current folder, so that who trains by hand doesn't exchange the files that serve."""
    folder = Path(resolve_path(output_dir))
    return Path(output_dir).expanduser().absolute() if (folder.parent / REGISTRY_FILE).exists() else folder


def save_training_results(
    folder: PathLike,
    trained: Mapping[str, tuple[PathLike, str | None, Mapping[str, object]]],
    *,
    temp_prefix: str = ".tmp-",
) -> None:
    """Write ``training_results.json`` beside models: by model id its file, its SHA-256 and what is known of it."""
    results = {
        model_id: {"file": PurePath(file).name, "sha256": sha256, **facts}
        for model_id, (file, sha256, facts) in sorted(trained.items())
    }
    write_json(f"{folder}/{TRAINING_RESULTS_FILE}", results, temp_prefix=temp_prefix)


def to_jsonable(value: object) -> Any:
    """The same value in JSON's own types. Raises TypeError for what has no plain form."""
    if value is None or isinstance(value, (bool, int, str)):  # quicker than a union, and a report has many
        return value
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dt.date | dt.datetime | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            plain = value.astype(object)
            plain[~np.isfinite(value)] = None
            return plain.tolist()
        return to_jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [to_jsonable(item) for item in items]
    raise TypeError(f"{type(value).__name__} can't be written as JSON: {value!r}")


def save_artifact(obj: object, path: PathLike) -> str:
    """Pickle ``obj`` with joblib to ``path``, atomically. Returns the SHA-256 of the file's bytes (hex)."""
    data = pickled(obj)
    write_atomically(path, data)
    return digest(data)


def pickled(obj: object) -> bytes:
    """The bytes that ``unpickle`` reads."""
    buffer = io.BytesIO()
    joblib.dump(obj, buffer, compress=_COMPRESSION)
    return buffer.getvalue()


def digest(data: bytes) -> str:
    """SHA-256 of bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: PathLike) -> str:
    """SHA-256 of a file's bytes, hex. Raises ModelNotFoundError when there is no such file."""
    return digest(read_artifact(path))


def read_artifact(path: PathLike, expected_sha256: str | None = None) -> bytes:
    """The file's bytes, compared with the digest when there is one.

    Raises ModelNotFoundError (no file) and ArtifactError (unreadable, or not the bytes of that digest).
    """
    data = _read_bytes(path)
    if data is None:
        raise ModelNotFoundError(
            f"There is no artefact {path}",
            expected="a model file that a training run has written",
            remedy="train first (energy-ml retrain), or point ENERGY_ML_MODELS_DIR at the folder with the models",
        )
    if expected_sha256 is not None and digest(data) != expected_sha256:
        raise ArtifactError(
            f"Artefact {path} has SHA-256 {digest(data)}; it was not loaded",
            expected=f"SHA-256 {expected_sha256}, as recorded when it was saved",
            remedy="the file was changed or damaged since: restore it from a backup, promote or roll back to another "
            "version (energy-ml models rollback), or retrain",
        )
    return data


class Complete:
    """Base of dataclasses that are pickled: one of another version, which lacks a field, is refused when it is loaded,
    not when it is used, far from the file that is to blame."""

    def __getstate__(self) -> dict[str, object]:
        """The fields alone, without what was computed from them."""
        assert dataclasses.is_dataclass(self)
        fields = {f.name for f in dataclasses.fields(self)}
        return {name: value for name, value in vars(self).items() if name in fields}

    def __setstate__(self, state: dict[str, object]) -> None:
        assert dataclasses.is_dataclass(self)
        lacking = [f.name for f in dataclasses.fields(self) if f.default is dataclasses.MISSING and f.name not in state]
        if lacking:
            raise TypeError(f"{type(self).__name__} of another version, which lacks {', '.join(lacking)}")
        self.__dict__.update(state)


def load_artifact(path: PathLike, expected_sha256: str | None = None) -> Any:
    """Load what ``save_artifact`` wrote, as ``read_artifact`` and ``unpickle`` do.

    The digest is taken of the very bytes that are then unpickled, so neither a damaged nor an exchanged file gets to
    run code. Without ``expected_sha256`` the file is trusted as it is.
    """
    return unpickle(read_artifact(path, expected_sha256), path)


def unpickle(data: bytes, path: PathLike) -> Any:
    """The object in bytes that ``path`` held. Raises ArtifactError when they are no artefact."""
    try:
        return joblib.load(io.BytesIO(data))
    except Exception as error:
        raise ArtifactError(
            f"Artefact {path} ({len(data):,} bytes) can't be loaded: {type(error).__name__}: {error}",
            expected="a file that energy_ml wrote, with a version whose classes are still here",
            remedy="retrain, or install the version of energy_ml that wrote the file",
        ) from error


def read_registry(path: PathLike) -> Registry | None:
    """What ``registry.json`` holds; None when there is no registry yet. Needs no lock: the file is only ever replaced.

    Raises RegistryError when the file is damaged, or gone while its backup is still there.
    """
    parsed = _read_registry_bytes(path)
    return None if parsed is None else parsed[1]


def load_champion(models_dir: PathLike, relative_path: PathLike) -> Any:
    """Load the model that serves at ``models_dir/relative_path``, such as ``price_prediction/model_15min.pkl``.

    With a ``registry.json`` in ``models_dir`` (a folder or a URL) the bytes must be the champion's. While a promotion
    is under way, or its writer was killed, the path may hold another version that the registry knows, or nothing, which
    is logged; the champion's own copy under ``versions/`` is then loaded. Without a registry the file is loaded as it
    is.

    Raises ModelNotFoundError (nothing there, no champion yet, or retired), ArtifactError (changed, damaged or unknown
    file) and RegistryError (the registry is damaged).
    """
    relative = PurePath(relative_path).as_posix()
    path = f"{models_dir}/{relative}"
    seen: bytes | None = None
    refused: Exception | None = None
    for _ in range(_READ_ATTEMPTS):
        parsed = _read_registry_bytes(f"{models_dir}/{REGISTRY_FILE}")
        if parsed is None:
            return load_artifact(path)
        # A verdict stands only if no promotion or prune came between the two reads.
        if refused is not None and parsed[0] == seen:
            raise refused
        seen, registry = parsed
        try:
            return unpickle(_champion_bytes(models_dir, relative, registry), path)
        except (ModelNotFoundError, ArtifactError) as error:
            refused = error
    assert refused is not None
    raise refused


def inside(folder: PathLike, relative: str) -> Path:
    """Where ``relative`` of a models folder lies, as a path (of an object store, if the folder is a URL).

    Raises RegistryError when it leads out of the folder: by ``..``, as an absolute path or through a link.
    """
    root = _place(folder)
    parts = PurePosixPath(relative).parts
    try:
        if parts and parts[0] != "/" and ".." not in parts:
            path = root / relative
            if _is_url(folder) or path.resolve().is_relative_to(root.resolve()):
                return path
    except (OSError, ValueError, RuntimeError):  # a loop of links, or no path at all
        pass
    raise RegistryError(
        f"{relative!r} leads out of {folder}",
        expected="a path inside the models folder; the folder itself may be a link, nothing in it may lead elsewhere",
        remedy="look who changed registry.json or made the link, and restore it from a backup",
    )


def _champion_bytes(folder: PathLike, relative: str, registry: Registry) -> bytes:
    path = inside(folder, relative)
    served = _read_bytes(path)
    model = next((m for m in registry["models"].values() if m["champion_path"] == relative), None)
    if model is None:
        if served is None:
            read_artifact(path)  # says in words that it is missing
        raise _unknown(path, "a file of a model that the registry lists")
    champion = champion_of(model)
    known = {version["sha256"] for version in model["details"].values()}
    if champion is None:
        if served is None or "retired" in model:
            why = f"it was retired: {model['retired']}" if "retired" in model else "no version was promoted"
            raise ModelNotFoundError(
                f"There is no champion at {path}: {why}; {len(model['versions'])} versions are registered",
                expected="a promoted version",
                remedy="see why with `energy-ml models show`, or promote one by hand with `energy-ml models promote`",
            )
        if digest(served) in known or None in known:  # bare version names vouch for no bytes, and deny none
            return served
        raise _unknown(path, "the bytes of a registered version")
    if served is not None and digest(served) == champion["sha256"]:
        return served
    if served is not None and digest(served) not in known:
        raise _unknown(path, f"SHA-256 {champion['sha256']} of champion {champion['version']}", digest(served))
    kept = read_artifact(inside(folder, champion["filepath"]), champion["sha256"])
    if served is None:
        log.warning("%s", lost_champion(folder, model))
    return kept


def lost_champion(folder: PathLike, model: Model) -> str | None:
    """In words, that a champion's file is gone and its copy under ``versions/`` serves; None while it is there."""
    path, champion = inside(folder, model["champion_path"]), champion_of(model)
    if champion is None or path.exists():
        return None
    return f"{path} is missing; {champion['filepath']} serves in its place; put it back with `energy-ml models repair`"


def _unknown(path: Path, expected: str, found: str | None = None) -> ArtifactError:
    return ArtifactError(
        f"The registry doesn't know the file {path}{f' with SHA-256 {found}' if found else ''}; it was not loaded",
        expected=expected,
        remedy="register it (ModelRegistry.register_model), or put the champion back with `energy-ml models repair`",
    )


def champion_of(model: Model) -> Version | None:
    """The entry of the version that serves; None where there is none."""
    return None if model["champion"] is None else model["details"].get(model["champion"])


def champion_path(model_type: str, model_id: str) -> str:
    """Where a model's champion lies, relative to the registry's folder: ``price_prediction/model_15min.pkl``."""
    horizon = horizon_of_id(model_id)
    return f"{model_type}/{model_id if horizon is None else price_model_name(horizon)}.pkl"


_ADAPTERS: dict[object, TypeAdapter[object]] = {}


class Version(TypedDict):
    """A version as the registry knows it; ``filepath`` is relative to its folder, ``size`` in bytes."""

    version: str
    filepath: str
    sha256: str | None
    size: int | None
    registered_at: str | None
    metadata: dict[str, object]
    decision: NotRequired[dict[str, object] | None]


class Model(TypedDict):
    """A model: ``versions`` are names, newest first, ``details`` their entries; ``champions`` the succession."""

    type: str
    champion_path: str
    latest: str | None
    champion: str | None
    champions: list[str]
    versions: list[str]
    details: dict[str, Version]
    retired: NotRequired[str]


class ListedModel(Model):
    """A model with its name."""

    model_id: str


class Event(TypedDict):
    """Something that happened to a version. Some have more: ``sha256``, ``previous``, ``champion``, ``decision``."""

    seq: int
    time: str
    event: str
    model_id: str | None
    version: str | None
    who: str | None
    reason: str | None


class Registry(TypedDict):
    """What ``registry.json`` holds; ``sequence`` is the last event's number."""

    models: dict[str, Model]
    sequence: int
    history: list[Event]
    last_version: NotRequired[str]


def checked(kind: type[_T], value: object) -> _T:
    """``value``, if it has the form of ``kind`` (a type of the registry). Raises TypeError naming what hasn't."""
    from pydantic import TypeAdapter, ValidationError  # only where a registry is read

    adapter = _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise TypeError(f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}") from None
    return cast(_T, value)


def _complete(model_id: str, model: dict[str, Any]) -> None:
    """Give a model's entry its present form: ``versions`` are names, newest first, and ``details`` stand beside, where
    once they held the details. A file of bare names is complete too: what isn't known is null.

    Raises TypeError or KeyError for what can't be.
    """
    listed = model["versions"]
    if not isinstance(listed, list):
        raise TypeError(f"versions of {model_id} is {listed!r}")
    details = {v["version"]: v for v in listed if isinstance(v, dict)} or model.get("details", {})
    names = sorted({v["version"] if isinstance(v, dict) else v for v in listed}, reverse=True)
    model.setdefault("champion_path", champion_path(model.setdefault("type", ""), model_id))
    model.setdefault("latest", names[0] if names else None)
    champion = model.setdefault("champion", None)
    model.setdefault("champions", [] if champion is None else [champion])
    home, file = f"{model['type']}/versions", PurePosixPath(model["champion_path"]).name
    unknown: dict[str, object] = {"sha256": None, "size": None, "registered_at": None, "metadata": {}}
    model["versions"] = names
    model["details"] = {
        name: unknown | {"version": name, "filepath": f"{home}/{name}/{file}"} | details.get(name, {}) for name in names
    }


def _parse(data: bytes, folder: PathLike) -> Registry:
    """The registry in ``data``. Raises what ``_read_registry_bytes`` calls damage, and as ``inside`` does."""
    found = json.loads(data)
    if rb"\ud" in data.lower():
        json.dumps(found, ensure_ascii=False).encode()  # half a pair is read, but could never be written again
    for model_id, model in found["models"].items():
        _complete(model_id, model)
    history = checked(list[Event], found.setdefault("history", []))
    found.setdefault("sequence", max((event["seq"] for event in history), default=0))
    registry = checked(Registry, found)
    for model_id, model in registry["models"].items():
        inside(folder, model["champion_path"])
        for name, entry in model["details"].items():
            inside(folder, entry["filepath"])
            if entry["version"] != name:
                raise ValueError(f"{model_id} {name} says that it is {entry['version']}")
    return registry


def _read_registry_bytes(path: PathLike) -> tuple[bytes, Registry] | None:
    backup = f"{path}.bak"
    data = _read_bytes(path)
    if data is None and _read_bytes(backup) is None:
        return None
    data = data or _read_bytes(path)  # both may have been made since the first look
    if data is None:
        raise RegistryError(
            f"{path} is missing, but its backup is there",
            expected="both, or neither for an empty registry",
            remedy=f"copy {backup} (the state before the last change) to it; or remove the backup too, to begin anew",
        )
    try:
        registry = _parse(data, _place(path).parent)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(
            f"{path} ({len(data):,} bytes) is damaged: {type(error).__name__}: {error}",
            expected='JSON of the form {"models": {id: {"type", "versions": [names], "latest"}}, "history": [...]}',
            remedy=f"copy the backup {backup} (the state before the last change) over it"
            if _read_bytes(backup) is not None
            else "there is no backup beside it: restore it from your own, or move it away and take in what the folder "
            "holds with `energy-ml models adopt`",
        ) from error
    return data, registry


def _read_bytes(path: PathLike) -> bytes | None:
    try:
        return _place(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ArtifactError(
            f"{path} can't be read: {error.strerror or error}",
            expected="a readable file",
            remedy="check its permissions and the disk",
        ) from error


def _place(path: PathLike) -> Path:
    if not _is_url(path):
        return Path(path)
    from upath import UPath  # only for object stores: it costs an import that local users need not pay

    return cast(Path, UPath(path))  # which does what a path does


def _is_url(path: PathLike) -> bool:
    return "://" in str(path)


def _as_bytes(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    buffer = io.BytesIO()
    content(buffer)
    return buffer.getvalue()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows can't open folders; renames there are durable by the journal alone
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of writing ``path`` into an ArtifactError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space or raise the quota, then run again; nothing needs cleaning up"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "make the folder writable, or choose another with ENERGY_ML_MODELS_DIR or ENERGY_ML_RESULTS_DIR"
        else:
            remedy = "check that the folder exists, is one, and that its disk works"
        raise ArtifactError(
            f"{path} can't be written: {error.strerror or error}; what was there before is unchanged",
            expected="a writable folder with free space",
            remedy=remedy,
        ) from error
