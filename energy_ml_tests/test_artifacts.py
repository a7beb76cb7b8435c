"""Files are written whole or not at all, and nothing is unpickled before its digest is checked."""

import dataclasses
import datetime as dt
import errno
import functools
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.artifacts import Complete, to_jsonable
from energy_ml.errors import ArtifactError, EnergyMLError, ModelNotFoundError, RegistryError
from energy_ml.model_management import ModelRegistry
from energy_ml.model_management.persistence import (
    load_artifact,
    load_champion,
    save_artifact,
    sha256_of,
    write_atomically,
    write_json,
)

SERVED = "price_prediction/model_15min.pkl"
V1, V2 = "v20260210_010000", "v20260211_010000"


class Bomb:
    """Unpickling this makes a file: proof that code of a pickle ran."""

    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self):
        return (Path.touch, (self.crater,))


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_artefact_comes_back_as_it_was(tmp_path):
    model = {"weights": np.arange(1000.0).reshape(10, 100), "frame": pd.DataFrame({"region": ["FR"], "price": [-3.5]})}
    path = tmp_path / "new" / "folders" / "model.pkl"
    sha256 = save_artifact(model, path)
    assert sha256 == sha256_of(path)
    back = load_artifact(path, sha256)
    np.testing.assert_array_equal(back["weights"], model["weights"])
    pd.testing.assert_frame_equal(back["frame"], model["frame"])
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_gets_a_handle(tmp_path):
    frame = pd.DataFrame({"price": [1.0, 2.0]})
    write_atomically(tmp_path / "a.parquet", lambda handle: frame.to_parquet(handle, index=False))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), frame)


def test_bytes_reach_the_disk_before_their_name_does(tmp_path, monkeypatch):
    """Rename first and flush later, and a power cut leaves an empty file under the good name."""
    order = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append(Path(f"/proc/self/fd/{descriptor}").resolve()))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    write_atomically(tmp_path / "a", b"x")
    assert [order[1], order[2]] == ["rename", tmp_path] and order[0].name.startswith(".tmp-a.")


def test_files_have_the_mode_that_the_umask_asks_for(tmp_path):
    old = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_objects_in_a_store_are_put_as_a_whole():
    sha256 = save_artifact([1, 2], "memory://models/m.pkl")
    assert load_artifact("memory://models/m.pkl", sha256) == load_champion("memory://models", "m.pkl") == [1, 2]
    write_atomically("memory://models/t.txt", lambda handle: handle.write(b"x") and None)
    with pytest.raises(ModelNotFoundError):
        load_artifact("memory://models/none.pkl")


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a", b"old")

    def fails(handle):
        handle.write(b"half")
        raise KeyError("a mistake in the caller's code")

    with pytest.raises(KeyError):
        write_atomically(tmp_path / "a", fails)
    assert everything_in(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("fsync", errno.ENOSPC, "free space"),
        ("fsync", errno.EDQUOT, "quota"),
        ("open", errno.EROFS, "make the folder writable"),
        ("replace", errno.EACCES, "make the folder writable"),
        ("replace", errno.EIO, "disk works"),
    ],
)
def test_a_disk_that_refuses_is_named_with_a_remedy(tmp_path, monkeypatch, call, code, words):
    write_atomically(tmp_path / "a", b"old")

    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(ArtifactError, match=words) as caught:
            write_atomically(tmp_path / "a", b"new")
    assert str(tmp_path / "a") in str(caught.value)
    assert everything_in(tmp_path) == {"a": b"old"}


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(ArtifactError, match="can't be written"):
        save_artifact(1, tmp_path / "models" / "m.pkl")
    with pytest.raises(ModelNotFoundError):
        load_artifact(tmp_path / "models" / "m.pkl")


def test_json_takes_what_metrics_are_made_of(tmp_path):
    pairs = {
        "float": (np.float32(0.5), 0.5),
        "int": (np.int64(3), 3),
        "bool": (np.True_, True),
        "nan": (float("nan"), None),
        "inf": (np.float64("inf"), None),
        "none": (None, None),
        "day": (dt.date(2026, 2, 10), "2026-02-10"),
        "at": (pd.Timestamp("2026-02-10", tz="UTC"), "2026-02-10T00:00:00+00:00"),
        "took": (dt.timedelta(minutes=1), 60.0),
        "path": (Path("a/b"), "a/b"),
        "array": (np.array([[1.0, np.nan]]), [[1.0, None]]),
        "tuple": ((1, 2), [1, 2]),
        "set": ({"b", "a"}, ["a", "b"]),
        "horizons": ({15: {"mae": np.float64(1)}}, {"15": {"mae": 1.0}}),
        "é": ("é", "é"),
    }
    write_json(tmp_path / "a.json", {name: value for name, (value, _) in pairs.items()})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {name: plain for name, (_, plain) in pairs.items()}
    with pytest.raises(TypeError, match="object"):
        to_jsonable({"x": object()})


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_arrays_are_lists_and_what_is_no_number_is_null() -> None:
    whole, half = np.array([[1.5, np.nan], [np.inf, -0.0]]), np.array([0.1, np.nan], dtype=np.float32)
    assert to_jsonable({"a": whole, "b": half}) == {"a": [[1.5, None], [None, 0.0]], "b": [float(half[0]), None]}
    assert to_jsonable(np.array(2.5)) == 2.5 and to_jsonable(np.array([1, 2])) == [1, 2]


@settings(max_examples=50)
@given(JSON_LIKE)
def test_plain_values_are_unchanged(value):
    assert to_jsonable(value) == value


def test_nothing_is_unpickled_before_its_digest_is_checked(tmp_path):
    crater = tmp_path / "crater"
    path = tmp_path / "model.pkl"
    expected = save_artifact("harmless", path)
    path.write_bytes(pickle.dumps(Bomb(crater)))
    with pytest.raises(ArtifactError) as caught:
        load_artifact(path, expected)
    assert not crater.exists()
    for part in (str(path), expected, sha256_of(path), "Remedy"):
        assert part in str(caught.value)
    load_artifact(path, sha256_of(path))
    assert crater.exists(), "the bomb is a real one"


def test_a_file_exchanged_after_the_check_does_not_run(tmp_path, monkeypatch):
    """The bytes that were hashed are the bytes that are unpickled: the file is read exactly once."""
    crater, path = tmp_path / "crater", tmp_path / "model.pkl"
    expected = save_artifact("harmless", path)
    read = Path.read_bytes

    def read_then_exchange(self):
        data = read(self)
        self.write_bytes(pickle.dumps(Bomb(crater)))
        return data

    monkeypatch.setattr(Path, "read_bytes", read_then_exchange)
    assert load_artifact(path, expected) == "harmless"
    assert not crater.exists()


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PAR1" + b, lambda b: b"\x80\x04."]
)
def test_a_damaged_artefact_without_digest_is_named_too(tmp_path, damage):
    path = tmp_path / "model.pkl"
    save_artifact({"a": np.arange(100)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"model\.pkl .* can't be loaded"):
        load_artifact(path)


def test_a_missing_artefact_says_train_first(tmp_path):
    with pytest.raises(ModelNotFoundError, match="energy-ml retrain"):
        load_artifact(tmp_path / "model.pkl")


# --- champions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path):
    """A models folder whose 15-minute model has V1 as champion and V2 beside it."""
    folder = tmp_path / "models"
    registry = ModelRegistry(folder / "registry.json")
    for version, payload in ((V1, "one"), (V2, "two")):
        save_artifact(payload, tmp_path / "trained.pkl")
        registry.register_model("price_prediction", "price_prediction_15m", version, tmp_path / "trained.pkl")
    registry.promote("price_prediction_15m", V1, reason="first", who="test")
    return folder


def test_without_a_registry_a_file_is_loaded_as_it_is(tmp_path):
    save_artifact("mine", tmp_path / SERVED)
    assert load_champion(tmp_path, SERVED) == "mine"


def test_the_champion_is_loaded_and_known(models):
    assert load_champion(models, SERVED) == "one"
    entry = ModelRegistry(models / "registry.json").champion("price_prediction_15m")
    assert entry is not None and entry["version"] == V1 and entry["sha256"] == sha256_of(models / SERVED)


def test_an_unknown_file_in_the_champions_place_never_runs(models, tmp_path):
    crater = tmp_path / "crater"
    (models / SERVED).write_bytes(pickle.dumps(Bomb(crater)))
    with pytest.raises(ArtifactError, match="doesn't know the file"):
        load_champion(models, SERVED)
    assert not crater.exists()


def test_models_in_an_object_store_are_checked_as_those_of_a_folder(models, tmp_path):
    """A folder that was copied to a bucket with its registry."""
    bucket, crater = "memory://checked", tmp_path / "crater"
    for name, data in everything_in(models).items():
        write_atomically(f"{bucket}/{name}", data)
    assert load_champion(bucket, SERVED) == "one"
    write_atomically(f"{bucket}/{SERVED}", pickle.dumps(Bomb(crater)))
    with pytest.raises(ArtifactError, match="doesn't know the file"):
        load_champion(bucket, SERVED)
    assert not crater.exists()


def test_a_champion_whose_file_is_gone_is_served_by_its_copy_and_somebody_is_told(models, caplog):
    (models / SERVED).unlink()
    assert load_champion(models, SERVED) == "one"
    assert "is missing" in caplog.text and V1 in caplog.text and "models repair" in caplog.text


def test_a_file_that_no_model_of_the_registry_serves_is_not_loaded(models, tmp_path):
    crater = tmp_path / "crater"
    (models / "price_prediction" / "model_5min.pkl").write_bytes(pickle.dumps(Bomb(crater)))
    with pytest.raises(ArtifactError, match="doesn't know the file"):
        load_champion(models, "price_prediction/model_5min.pkl")
    assert not crater.exists()
    with pytest.raises(ModelNotFoundError):
        load_champion(models, "price_prediction/model_60min.pkl")


def test_a_promotion_under_way_serves_the_registrys_champion(models):
    """Between the registry's change and the file's, the path holds another known version, or nothing."""
    two = (models / f"price_prediction/versions/{V2}/model_15min.pkl").read_bytes()
    (models / SERVED).write_bytes(two)
    assert load_champion(models, SERVED) == "one"
    (models / SERVED).unlink()
    assert load_champion(models, SERVED) == "one"


def test_a_champion_whose_own_copy_is_damaged_too_is_refused(models):
    (models / SERVED).unlink()
    (models / f"price_prediction/versions/{V1}/model_15min.pkl").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="SHA-256"):
        load_champion(models, SERVED)


def test_before_the_first_promotion_only_registered_bytes_are_loaded(tmp_path):
    registry = ModelRegistry(tmp_path / "registry.json")
    save_artifact("mine", tmp_path / SERVED)
    registry.register_model("price_prediction", "price_prediction_15m", V1, tmp_path / SERVED)
    assert load_champion(tmp_path, SERVED) == "mine"
    (tmp_path / SERVED).unlink()
    with pytest.raises(ModelNotFoundError, match="energy-ml models promote"):
        load_champion(tmp_path, SERVED)
    save_artifact("other", tmp_path / SERVED)
    with pytest.raises(ArtifactError, match="doesn't know"):
        load_champion(tmp_path, SERVED)


def test_a_change_between_the_two_reads_is_read_again(models, monkeypatch):
    """A reader with yesterday's registry and today's file must not refuse today's champion."""
    registry = ModelRegistry(models / "registry.json")
    three = models.parent / "three.pkl"
    save_artifact("three", three)
    read, changed = Path.read_bytes, []

    def read_bytes(self):
        if self == models / SERVED and not changed:
            changed.append(True)
            registry.register_model("price_prediction", "price_prediction_15m", "v20260212_010000", three)
            registry.promote("price_prediction_15m", "v20260212_010000", reason="meanwhile", who="test")
            registry.prune("price_prediction_15m", 0)
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert load_champion(models, SERVED) == "three"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"models": 3}',
        b'{"models": {"m": {"type": "x"}}}',
        b'{"models": {"m": {"versions": [1]}}}',
        b"\xff",
        b'{"models": {}, "history": [], "note": "half a pair: \\uD800"}',
    ],
)
def test_a_damaged_registry_names_its_backup(models, content):
    before = (models / "registry.json").read_bytes()
    (models / "registry.json").write_bytes(content)
    for reads in (
        lambda: load_champion(models, SERVED),
        lambda: ModelRegistry(models / "registry.json").list_models(),
        lambda: ModelRegistry(models / "registry.json").new_version(),
    ):
        with pytest.raises(RegistryError, match=r"registry\.json .* is damaged.*registry\.json\.bak"):
            reads()
    (models / "registry.json").write_bytes((models / "registry.json.bak").read_bytes())
    registry = ModelRegistry(models / "registry.json")
    assert registry.list_models()[0]["versions"] == [V2, V1]
    assert len(before) > len((models / "registry.json.bak").read_bytes()), "the backup is the state one change ago"


def _damages(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where something of the registry can be exchanged, by keys and places."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _damages(item, (*path, key))


@pytest.mark.parametrize("wrong", [None, 3, [None], {"x": None}, "../x", True])
def test_whatever_is_damaged_in_a_registry_is_said_in_words(models, monkeypatch, wrong):
    """Each value of the file in turn becomes another, or is left out: whatever is asked, it works or says why."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    file, registry = models / "registry.json", ModelRegistry(models / "registry.json")
    model_id, new = "price_prediction_15m", "v20260301_000000"
    whole = file.read_bytes()
    actions: list[Callable[[], object]] = [
        registry.list_models,
        registry.history,
        registry.new_version,
        registry.verify,
        lambda: registry.champion(model_id),
        lambda: registry.load(model_id),
        lambda: registry.compare(model_id, V1, V2),
        lambda: registry.register_model("price_prediction", model_id, new, models / SERVED),
        lambda: registry.prune(model_id, 1),
        lambda: load_champion(models, SERVED),
    ]
    refused = 0
    for path in _damages(json.loads(whole)):
        if "numbers" in path or not path:
            continue
        damaged = json.loads(whole)
        *way, last = path
        place = functools.reduce(lambda at, key: at[key], way, damaged)
        if wrong is True:
            del place[last]
        else:
            place[last] = wrong
        for action in actions:
            file.write_text(json.dumps(damaged))
            try:
                action()
            except EnergyMLError:
                refused += 1
    assert refused > 50


def test_a_registry_that_vanished_is_not_an_empty_one(models):
    (models / "registry.json").unlink()
    with pytest.raises(RegistryError, match=r"missing.*\.bak"):
        load_champion(models, SERVED)
    (models / "registry.json.bak").unlink()
    assert ModelRegistry(models / "registry.json").list_models() == []


@dataclasses.dataclass(frozen=True)
class Kept(Complete):
    name: str
    size: int
    note: str = "none"


def test_an_object_of_another_version_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    kept = Kept("a", 3)
    save_artifact(kept, tmp_path / "kept.pkl")
    assert load_artifact(tmp_path / "kept.pkl") == kept
    del kept.__dict__["note"]
    save_artifact(kept, tmp_path / "without_note.pkl")
    assert load_artifact(tmp_path / "without_note.pkl").note == "none", "what has a default may be missing"
    del kept.__dict__["size"]
    save_artifact(kept, tmp_path / "old.pkl")
    with pytest.raises(ArtifactError, match=r"old\.pkl.*Kept of another version, which lacks size") as caught:
        load_artifact(tmp_path / "old.pkl")
    assert "retrain" in str(caught.value)
