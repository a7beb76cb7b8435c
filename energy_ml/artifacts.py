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
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO

import joblib
import numpy as np

from energy_ml.errors import ArtifactError, ModelNotFoundError, RegistryError
from energy_ml.names import TRAINING_RESULTS_FILE, horizon_of_id, price_model_name

PathLike = str | os.PathLike[str]
Content = bytes | Callable[[BinaryIO], None]

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

    Raises ArtifactError when the disk is full, read-only or otherwise refuses; the previous file is then untouched and
    nothing is left beside it. Whatever else ``content`` raises passes through, with the same promise.
    """
    if _is_url(path):
        _remote(path).write_bytes(_as_bytes(content))
        return
    target = Path(path)
    temp = stage(target, content, temp_prefix=temp_prefix, durable=durable)
    try:
        commit_staged(temp, target, durable=durable)
    except BaseException:
        discard_staged(temp)
        raise


def stage(path: PathLike, content: Content, *, temp_prefix: str = ".tmp-", durable: bool = True) -> Path:
    """The first half of ``write_atomically``: the complete, flushed file beside ``path``. Returns where it is.

    Everything that can run out of space happens here, so that a writer of several files can stage all before it
    renames the first.
    """
    target = Path(path)
    temp = target.with_name(f"{temp_prefix}{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with _in_words(target):
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
    with _in_words(target):
        temp.replace(target)
        if durable:
            _sync_folder(target.parent)


def discard_staged(temp: Path) -> None:
    """Remove a staged file, if it is still there."""
    with contextlib.suppress(OSError):
        temp.unlink()


def write_json(path: PathLike, value: Any, *, indent: int | None = 2) -> None:
    """Write ``value`` as JSON, atomically. NumPy values, dates and paths become plain; NaN and infinities null."""
    text = json.dumps(to_jsonable(value), indent=indent, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def save_training_results(folder: PathLike, trained: Mapping[str, tuple[PathLike, str, Mapping[str, object]]]) -> None:
    """Write ``training_results.json`` beside models: per model id its ``file``, ``sha256`` and what is known of it.

    ``trained`` has, by model id, the model's file, its SHA-256 and the facts, such as ``metrics`` and ``config``.
    """
    write_json(
        f"{folder}/{TRAINING_RESULTS_FILE}",
        {
            model_id: {"file": PurePath(file).name, "sha256": sha256, **facts}
            for model_id, (file, sha256, facts) in sorted(trained.items())
        },
    )


def to_jsonable(value: Any) -> Any:
    """The same value in JSON's own types. Raises TypeError for what has no plain form."""
    if value is None or isinstance(value, bool | int | str):
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
        return to_jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [to_jsonable(item) for item in items]
    raise TypeError(f"{type(value).__name__} can't be written as JSON: {value!r}")


def save_artifact(obj: Any, path: PathLike) -> str:
    """Pickle ``obj`` with joblib to ``path``, atomically. Returns the SHA-256 of the file's bytes (hex)."""
    buffer = io.BytesIO()
    joblib.dump(obj, buffer, compress=_COMPRESSION)
    data = buffer.getvalue()
    write_atomically(path, data)
    return digest(data)


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
    """Base of dataclasses that are pickled: one of another version, which lacks a field, is refused when it is loaded.

    Without it the object would load and fail when it is used, far from the file that is to blame.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        assert dataclasses.is_dataclass(self)
        lacking = [f.name for f in dataclasses.fields(self) if f.default is dataclasses.MISSING and f.name not in state]
        if lacking:
            raise TypeError(f"{type(self).__name__} of another version, which lacks {', '.join(lacking)}")
        self.__dict__.update(state)


def load_artifact(path: PathLike, expected_sha256: str | None = None) -> Any:
    """Load what ``save_artifact`` wrote.

    The file is read once; the digest is taken of those very bytes, and only then are they unpickled, so neither a
    damaged nor an exchanged file gets to run code. Without ``expected_sha256`` the file is trusted as it is.

    Raises ModelNotFoundError (no file) and ArtifactError (unreadable, digest differs, or not an artefact).
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


def read_registry(path: PathLike) -> dict[str, Any] | None:
    """What ``registry.json`` holds; None when there is no registry yet. Needs no lock: the file is only ever replaced.

    Raises RegistryError when the file is damaged, or gone while its backup is still there.
    """
    parsed = _read_registry_bytes(Path(path))
    return None if parsed is None else parsed[1]


def load_champion(models_dir: PathLike, relative_path: PathLike) -> Any:
    """Load the model that serves at ``models_dir/relative_path``, such as ``price_prediction/model_15min.pkl``.

    With a ``registry.json`` in ``models_dir`` the registry has the word: the bytes must be the champion's. While a
    promotion is under way (or its writer was killed) the path may still hold another version that the registry knows,
    or nothing; the champion's own copy under ``versions/`` is then loaded. A file that the registry doesn't know is
    refused. Without a registry the file is loaded as it is.

    Raises ModelNotFoundError (nothing there, or no champion yet) and ArtifactError (changed, damaged or unknown file).
    """
    folder, relative = Path(models_dir), PurePath(relative_path).as_posix()
    path = folder / relative
    if _is_url(models_dir):
        return load_artifact(_remote(models_dir) / relative)
    seen: bytes | None = None
    refused: Exception | None = None
    for _ in range(_READ_ATTEMPTS):
        parsed = _read_registry_bytes(folder / "registry.json")
        if parsed is None:
            return load_artifact(path)
        # A verdict stands only if the registry is still the one it was reached with; otherwise a promotion or prune
        # came between the two reads.
        if refused is not None and parsed[0] == seen:
            raise refused
        seen = parsed[0]
        try:
            return unpickle(_champion_bytes(folder, relative, parsed[1]), path)
        except (ModelNotFoundError, ArtifactError) as error:
            refused = error
    assert refused is not None
    raise refused


def champion_entry(models_dir: PathLike, relative_path: PathLike) -> dict[str, Any] | None:
    """The registry's entry of the champion at that path (version, sha256, metadata, …); None if there is none.

    Cheap enough to ask before each use whether a new champion should be loaded.
    """
    if _is_url(models_dir):
        return None
    registry = read_registry(Path(models_dir) / "registry.json")
    model = _model_at(registry, PurePath(relative_path).as_posix()) if registry else None
    return None if model is None else _version_of(model, model.get("champion"))


def _champion_bytes(folder: Path, relative: str, registry: dict[str, Any]) -> bytes:
    path = folder / relative
    model = _model_at(registry, relative)
    if model is None:
        if not path.exists():
            read_artifact(path)  # says in words that it is missing
        raise _unknown(path, "a file of a model that the registry lists")
    served = _read_bytes(path)
    champion = _version_of(model, model.get("champion"))
    known = {version["sha256"] for version in model["details"].values()}
    if champion is None:
        if served is None:
            raise ModelNotFoundError(
                f"There is no champion at {path}: no version of {len(model['versions'])} was promoted",
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
    return read_artifact(folder / champion["filepath"], champion["sha256"])


def _unknown(path: Path, expected: str, found: str | None = None) -> ArtifactError:
    return ArtifactError(
        f"The registry doesn't know the file {path}{f' with SHA-256 {found}' if found else ''}; it was not loaded",
        expected=expected,
        remedy="register it (ModelRegistry.register_model), or put the champion back with `energy-ml models repair`",
    )


def _model_at(registry: dict[str, Any], relative: str) -> dict[str, Any] | None:
    return next((m for m in registry["models"].values() if m.get("champion_path") == relative), None)


def _version_of(model: dict[str, Any], version: str | None) -> dict[str, Any] | None:
    entry: dict[str, Any] | None = model["details"].get(version)
    return entry


def champion_path(model_type: str, model_id: str) -> str:
    """Where a model's champion lies, relative to the registry's folder: ``price_prediction/model_15min.pkl``."""
    horizon = horizon_of_id(model_id)
    return f"{model_type}/{model_id if horizon is None else price_model_name(horizon)}.pkl"


def _complete(model_id: str, model: dict[str, Any]) -> None:
    """Give a model's entry its present form: ``versions`` are names, newest first, and ``details`` stand beside.

    Before, ``versions`` held the details themselves. A file of bare names is complete too: what isn't known is null.
    """
    listed = model["versions"]
    details = {v["version"]: v for v in listed if isinstance(v, dict)} or model.get("details", {})
    names = sorted({v["version"] if isinstance(v, dict) else v for v in listed}, reverse=True)
    path = model.setdefault("champion_path", champion_path(model.setdefault("type", ""), model_id))
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a version of {model_id} is no name: {name!r}")
        own = PurePosixPath(model["type"], "versions", name, PurePosixPath(path).name).as_posix()
        bare: dict[str, Any] = {
            "version": name,
            "filepath": own,
            "sha256": None,
            "size": None,
            "registered_at": None,
            "metadata": {},
        }
        if not {"version", "sha256", "filepath"} <= details.setdefault(name, bare).keys():
            raise KeyError(f"version, sha256 or filepath of {model_id} {name}")
    model["versions"], model["details"] = names, {name: details[name] for name in names}
    model.setdefault("latest", names[0] if names else None)
    model.setdefault("champion", None)
    model.setdefault("champions", [] if model["champion"] is None else [model["champion"]])


def _read_registry_bytes(path: Path) -> tuple[bytes, dict[str, Any]] | None:
    backup = path.with_name(path.name + ".bak")
    remedy = (
        f"copy the backup {backup} (the state before the last change) over it"
        if backup.exists()
        else "there is no backup beside it: restore it from your own, or move it away and register the models anew"
    )
    data = _read_bytes(path)
    if data is None:
        if not backup.exists():
            return None
        data = _read_bytes(path)  # both may have been made since the first look
    if data is None:
        raise RegistryError(
            f"{path} is missing, but its backup {backup.name} is there",
            expected="both, or neither for an empty registry",
            remedy=f"{remedy}; or remove the backup too, to begin anew",
        )
    try:
        registry = json.loads(data)
        if not isinstance(registry["models"], dict):
            raise TypeError("'models' is no object")
        for name, model in registry["models"].items():
            _complete(name, model)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(
            f"{path} ({len(data):,} bytes) is damaged: {type(error).__name__}: {error}",
            expected='JSON of the form {"models": {id: {"type", "versions": [names], "latest"}}, "history": [...]}',
            remedy=remedy,
        ) from error
    registry.setdefault("history", [])
    return data, registry


def _read_bytes(path: PathLike) -> bytes | None:
    source = _remote(path) if _is_url(path) else Path(path)
    try:
        return bytes(source.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ArtifactError(
            f"{path} can't be read: {error.strerror or error}",
            expected="a readable file",
            remedy="check its permissions and the disk",
        ) from error


def _is_url(path: PathLike) -> bool:
    return "://" in str(path)


def _remote(path: PathLike) -> Any:
    from upath import UPath  # only for object stores: it costs an import that local users need not pay

    return UPath(path)


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
def _in_words(path: Path) -> Iterator[None]:
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
