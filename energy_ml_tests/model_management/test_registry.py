"""What the registry promises to one caller at a time; many at once are in ``test_registry_under_fire``."""

import copy
import datetime as dt
import errno
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from energy_ml.errors import ArtifactError, ModelNotFoundError, PromotionError, RegistryError
from energy_ml.model_management import Decision, ModelRegistry, parse_version
from energy_ml.model_management import registry as registry_module
from energy_ml.model_management.persistence import load_artifact, load_champion, save_artifact, sha256_of

MODEL = "price_prediction_15m"
SERVED = "price_prediction/model_15min.pkl"
V = [f"v202602{day:02d}_013000" for day in range(1, 10)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def registry(folder):
    return ModelRegistry(folder / "registry.json")


def register(registry, version, payload=None, model_id=MODEL, model_type="price_prediction", **kwargs):
    path = registry.folder.parent / "trained.pkl"
    save_artifact(version if payload is None else payload, path)
    registry.register_model(model_type, model_id, version, path, **kwargs)


def versions(registry, model_id=MODEL):
    return next(model["versions"] for model in registry.list_models() if model["model_id"] == model_id)


def test_an_empty_registry_answers_and_makes_nothing(registry, folder):
    assert registry.list_models() == []
    assert registry.get_latest_version(MODEL) is None
    assert registry.champion(MODEL) is None
    assert registry.history() == []
    assert not folder.exists()


def test_the_file_has_the_promised_form(registry, folder):
    register(registry, V[0], metadata={"as_of": dt.date(2026, 2, 1), "metrics": {"mae": np.float32(2.5), "r2": np.nan}})
    register(registry, V[1], model_id="battery_policy", model_type="rl_battery")
    registry.promote(MODEL, V[0], reason="first", who="test")
    registry.promote("battery_policy", V[1], reason="first", who="test")
    content = json.loads((folder / "registry.json").read_text("utf-8"))
    model = content["models"][MODEL]
    assert (model["type"], model["latest"], model["champion"]) == ("price_prediction", V[0], V[0])
    assert model["versions"] == [V[0]]
    entry = model["details"][V[0]]
    assert entry["filepath"] == f"price_prediction/versions/{V[0]}/model_15min.pkl"
    assert entry["metadata"] == {"as_of": "2026-02-01", "metrics": {"mae": 2.5, "r2": None}}
    for relative in (entry["filepath"], "price_prediction/model_15min.pkl"):
        assert sha256_of(folder / relative) == entry["sha256"]
        assert (folder / relative).stat().st_size == entry["size"]
    assert content["models"]["battery_policy"]["champion_path"] == "rl_battery/battery_policy.pkl"
    assert load_artifact(folder / "rl_battery" / "battery_policy.pkl") == V[1]
    assert [e["event"] for e in content["history"]] == ["registered", "registered", "promoted", "promoted"]
    assert [model["model_id"] for model in registry.list_models()] == ["battery_policy", MODEL]


def test_a_folder_of_models_can_be_moved(registry, folder, tmp_path):
    register(registry, V[0])
    registry.promote(MODEL, V[0], reason="first", who="test")
    folder.rename(tmp_path / "elsewhere")
    moved = ModelRegistry(tmp_path / "elsewhere" / "registry.json")
    assert moved.load(MODEL) == moved.load(MODEL, V[0]) == V[0]
    assert moved.verify() == []


def test_latest_is_the_newest_version_in_whatever_order_they_come(registry):
    for version in (V[3], V[0], V[5], V[2]):
        register(registry, version)
    assert versions(registry) == [V[5], V[3], V[2], V[0]]
    assert registry.get_latest_version(MODEL) == registry.version(MODEL, V[5])


def test_registering_does_not_promote(registry, folder):
    register(registry, V[0])
    assert registry.champion(MODEL) is None and not (folder / SERVED).exists()
    with pytest.raises(ModelNotFoundError, match="no champion"):
        registry.load(MODEL)


def test_the_same_again_changes_nothing_and_other_content_is_refused(registry, folder):
    register(registry, V[0], "one", metadata={"metrics": {"mae": 1}})
    before = (folder / "registry.json").read_bytes()
    register(registry, V[0], "one", metadata={"metrics": {"mae": 2}})
    with pytest.raises(RegistryError, match="already registered with other content"):
        register(registry, V[0], "two")
    assert (folder / "registry.json").read_bytes() == before
    assert registry.load(MODEL, V[0]) == "one"


def test_the_same_again_restores_a_lost_artefact(registry):
    register(registry, V[0], "one")
    registry.artifact_path(MODEL, V[0]).unlink()
    assert len(registry.verify()) == 1
    register(registry, V[0], "one")
    assert registry.verify() == []


def test_models_of_one_run_share_a_version(registry, folder):
    for minutes in (1, 5, 15, 60):
        register(registry, V[0], f"{minutes} min", model_id=f"price_prediction_{minutes}m")
    names = {path.name for path in (folder / "price_prediction" / "versions" / V[0]).iterdir()}
    assert names == {"model_1min.pkl", "model_5min.pkl", "model_15min.pkl", "model_60min.pkl"}
    registry.promote("price_prediction_5m", V[0], reason="first", who="test")
    assert load_champion(folder, "price_prediction/model_5min.pkl") == "5 min"


@pytest.mark.parametrize(
    ("model_type", "model_id", "version", "words"),
    [
        ("../outside", MODEL, V[0], "no model type"),
        ("versions", MODEL, V[0], "no model type"),
        ("price_prediction", "a/b", V[0], "no model id"),
        ("price_prediction", "", V[0], "no model id"),
        ("price_prediction", ".hidden", V[0], "no model id"),
        ("price_prediction", MODEL, "v1", "no version"),
        ("price_prediction", MODEL, "../../v", "no version"),
    ],
)
def test_impossible_names_are_refused(registry, folder, tmp_path, model_type, model_id, version, words):
    save_artifact(1, tmp_path / "m.pkl")
    with pytest.raises(RegistryError, match=words):
        registry.register_model(model_type, model_id, version, tmp_path / "m.pkl")
    assert not folder.exists()


def test_what_is_not_there_is_named(registry, tmp_path):
    with pytest.raises(ModelNotFoundError, match="none"):
        registry.register_model("price_prediction", MODEL, V[0], tmp_path / "none.pkl")
    with pytest.raises(RegistryError, match="nothing is registered yet"):
        registry.promote(MODEL, V[0], reason="r", who="w")
    register(registry, V[0])
    with pytest.raises(RegistryError, match=rf"no version '{V[1]}'.*one of {V[0]}"):
        registry.promote(MODEL, V[1], reason="r", who="w")
    with pytest.raises(RegistryError, match=f"one of {MODEL}"):
        registry.prune("price_prediction_16m", 1)
    with pytest.raises(RegistryError, match="one type per model"):
        register(registry, V[1], model_type="rl_battery")
    with pytest.raises(RegistryError, match="one model per path"):
        register(registry, V[1], model_id="model_15min")
    with pytest.raises(RegistryError, match="max_backups is -1"):
        registry.prune(MODEL, -1)


def test_a_registry_needs_a_file_system():
    with pytest.raises(RegistryError, match="s3://bucket"):
        ModelRegistry("s3://bucket/registry.json")


# --- champions -------------------------------------------------------------------------------------------------------


def test_promotion_puts_file_and_entry_in_step(registry, folder):
    for version in V[:3]:
        register(registry, version)
        registry.promote(MODEL, version, reason=f"{version} is better", who="test")
        champion = registry.champion(MODEL)
        assert champion["version"] == version
        assert sha256_of(folder / SERVED) == champion["sha256"]
    event = registry.history(MODEL)[-1]
    assert (event["event"], event["version"], event["previous"]) == ("promoted", V[2], V[1])
    assert (event["reason"], event["who"]) == (f"{V[2]} is better", "test")


def test_promoting_the_champion_again_changes_nothing_but_heals_its_file(registry, folder):
    register(registry, V[0])
    registry.promote(MODEL, V[0], reason="first", who="test")
    events = registry.history()
    registry.promote(MODEL, V[0], reason="again", who="test")
    assert registry.history() == events
    (folder / SERVED).write_bytes(b"damaged")
    registry.promote(MODEL, V[0], reason="heal", who="test")
    assert registry.verify() == [] and load_champion(folder, SERVED) == V[0]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"damaged")])
def test_a_damaged_artefact_never_becomes_champion(registry, folder, damage):
    for version in V[:2]:
        register(registry, version)
    registry.promote(MODEL, V[0], reason="first", who="test")
    damage(registry.artifact_path(MODEL, V[1]))
    before = (folder / "registry.json").read_bytes()
    with pytest.raises((ArtifactError, ModelNotFoundError)):
        registry.promote(MODEL, V[1], reason="better", who="test")
    assert (folder / "registry.json").read_bytes() == before
    assert load_champion(folder, SERVED) == V[0]


def test_rollback_walks_the_succession_back(registry, folder):
    for version in V[:4]:
        register(registry, version)
    for version in (V[0], V[2], V[1]):
        registry.promote(MODEL, version, reason="r", who="w")
    for expected in (V[2], V[0]):
        assert registry.rollback(MODEL, reason="bad forecasts", who="ops")["version"] == expected
        assert load_champion(folder, SERVED) == expected
    with pytest.raises(PromotionError, match=rf"no earlier champion.*{V[3]}, {V[2]}, {V[1]}"):
        registry.rollback(MODEL, reason="bad", who="ops")
    event = registry.history(MODEL)[-1]
    assert (event["event"], event["version"], event["previous"]) == ("rolled_back", V[0], V[2])
    assert (event["reason"], event["who"]) == ("bad forecasts", "ops")
    assert registry.verify() == []


def test_rollback_has_somewhere_to_go_after_many_nights_without_a_promotion(registry):
    for version in V[:2]:
        register(registry, version)
        registry.promote(MODEL, version, reason="r", who="w")
    for version in V[2:8]:
        register(registry, version)
        registry.prune(MODEL, 1)
    assert versions(registry) == [V[7], V[1], V[0]]
    assert registry.rollback(MODEL, reason="bad", who="ops")["version"] == V[0]
    assert registry.load(MODEL) == V[0] and registry.verify() == []


def test_rollback_skips_what_was_pruned(registry):
    for version in V[:5]:
        register(registry, version)
    for version in (V[4], V[0], V[3], V[1]):
        registry.promote(MODEL, version, reason="r", who="w")
    assert registry.prune(MODEL, 2) == [V[0], V[2]]
    assert [registry.rollback(MODEL, reason="bad", who="ops")["version"] for _ in range(2)] == [V[3], V[4]]


def test_a_registry_of_details_in_a_list_is_migrated_once_and_loses_nothing(registry, folder):
    for version in V[:3]:
        register(registry, version, metadata={"as_of": version[1:9], "metrics": {"mae": 1.5}})
    for version in V[:2]:
        against = (registry.champion(MODEL) or {}).get("version")
        registry.decide(MODEL, version, Decision(True, "r", {"p_value": 0.01}), who="w", against=against)
    path = folder / "registry.json"
    new = json.loads(path.read_text())
    old = copy.deepcopy(new)
    model = old["models"][MODEL]
    model["versions"] = [model["details"][v] for v in reversed(model["versions"])]
    del model["details"]
    path.write_text(json.dumps(old))
    assert [registry.version(MODEL, v) for v in V[:3]] == model["versions"]
    assert load_champion(folder, SERVED) == V[1] and registry.verify() == []
    register(registry, V[3])
    written = json.loads(path.read_text())
    assert written["models"][MODEL]["versions"] == [V[3], V[2], V[1], V[0]]
    assert written["models"][MODEL]["details"].pop(V[3])["version"] == V[3]
    assert written["models"][MODEL]["details"] == new["models"][MODEL]["details"]
    assert written["models"][MODEL]["champions"] == [V[0], V[1]]
    assert written["history"][:-1] == new["history"]
    assert registry.rollback(MODEL, reason="bad", who="ops")["version"] == V[0]


def test_a_registry_of_bare_names_is_read_served_and_extended(registry, folder):
    save_artifact("served", folder / SERVED)
    own = folder / "price_prediction" / "versions" / V[1] / "model_15min.pkl"
    save_artifact("named", own)
    bare = {"type": "price_prediction", "versions": [V[1], V[0]], "latest": V[1]}
    (folder / "registry.json").write_text(json.dumps({"models": {MODEL: bare}}))
    assert registry.get_latest_version(MODEL)["version"] == V[1]
    assert load_champion(folder, SERVED) == "served" and registry.verify() == []
    register(registry, V[2])
    assert versions(registry) == [V[2], V[1], V[0]] and own.exists()
    assert registry.promote(MODEL, V[1], reason="r", who="w")["sha256"] == sha256_of(own)
    with pytest.raises(ModelNotFoundError):
        registry.promote(MODEL, V[0], reason="its artefact was never here", who="w")
    assert registry.load(MODEL) == "named" and registry.verify() == []


@pytest.mark.parametrize("champion", [None, 0, 4, 7])
@pytest.mark.parametrize("backups", [0, 1, 5, 7, 20])
def test_prune_keeps_the_champion_and_the_newest_others(registry, folder, champion, backups):
    for version in V[:8]:
        register(registry, version)
    if champion is not None:
        registry.promote(MODEL, V[champion], reason="r", who="w")
    others = [v for i, v in enumerate(V[:8]) if i != champion]
    keep = {*others[len(others) - min(backups, len(others)) :], *([] if champion is None else [V[champion]])}
    assert registry.prune(MODEL, backups) == [v for v in V[:8] if v not in keep]
    assert set(versions(registry)) == keep
    root = folder / "price_prediction" / "versions"
    assert {path.name for path in root.iterdir()} == keep
    assert {e["version"] for e in registry.history() if e["event"] == "registered"} == set(V[:8])
    assert (registry.get_latest_version(MODEL) or {}).get("version") == (max(keep) if keep else None)
    assert registry.prune(MODEL, backups) == []
    assert registry.verify() == []


def test_prune_leaves_other_models_of_the_same_run_alone(registry):
    for version in V[:2]:
        register(registry, version, "fifteen")
        register(registry, version, "one", model_id="price_prediction_1m")
    registry.prune(MODEL, 0)
    assert registry.load("price_prediction_1m", V[0]) == "one"
    assert registry.verify() == []


def test_a_decision_is_carried_out_and_kept_with_its_numbers(registry, folder):
    for version in V[:3]:
        register(registry, version)
    yes = Decision(True, "3 % better", {"p_value": np.float64(0.01), "improvement": float("inf")})
    no = Decision(False, "4 % worse", {"p_value": 0.9})
    assert registry.decide(MODEL, V[0], no, who="retrain", against=None) is None
    assert registry.decide(MODEL, V[1], yes, who="retrain", against=None)["version"] == V[1]
    assert registry.decide(MODEL, V[2], no, who="retrain", against=V[1])["version"] == V[1]
    assert load_champion(folder, SERVED) == V[1]
    decisions = [(e["event"], e["version"], e["reason"], e["decision"]["numbers"]) for e in registry.history(MODEL)[3:]]
    assert decisions == [
        ("kept", V[0], "4 % worse", {"p_value": 0.9}),
        ("promoted", V[1], "3 % better", {"p_value": 0.01, "improvement": None}),
        ("kept", V[2], "4 % worse", {"p_value": 0.9}),
    ]
    assert [registry.version(MODEL, v)["decision"]["promote"] for v in V[:3]] == [False, True, False]


def test_a_decision_against_a_champion_of_yesterday_is_void(registry):
    for version in V[:3]:
        register(registry, version)
    registry.promote(MODEL, V[0], reason="first", who="test")
    registry.promote(MODEL, V[2], reason="someone was quicker", who="other run")
    with pytest.raises(PromotionError, match=f"compared with champion {V[0]}, but {V[2]}"):
        registry.decide(MODEL, V[1], Decision(True, "better"), who="retrain", against=V[0])
    assert registry.champion(MODEL)["version"] == V[2]


def test_two_versions_side_by_side(registry):
    register(registry, V[0], metadata={"metrics": {"mae": 2.0, "rmse": 3.0}, "as_of": "2026-02-01", "good": True})
    register(registry, V[1], metadata={"metrics": {"mae": 1.5}, "rows": 10})
    result = registry.compare(MODEL, V[0], V[1])
    assert (result["a"]["version"], result["b"]["version"], result["champion"]) == (V[0], V[1], None)
    assert result["numbers"] == {
        "metrics.mae": {"a": 2.0, "b": 1.5, "difference": -0.5},
        "metrics.rmse": {"a": 3.0, "b": None, "difference": None},
        "rows": {"a": None, "b": 10, "difference": None},
    }


# --- versions, history -----------------------------------------------------------------------------------------------


def test_versions_are_unique_within_a_second_and_when_the_clock_goes_back(folder):
    now = dt.datetime(2026, 2, 10, 1, 30, tzinfo=dt.UTC)
    moments = iter([now] * 3 + [now - dt.timedelta(hours=1)] * 2 + [now + dt.timedelta(hours=1)])
    registry = ModelRegistry(folder / "registry.json", clock=lambda: next(moments))
    given = [registry.new_version() for _ in range(6)]
    assert given == [f"v20260210_{t}" for t in ("013000", "013001", "013002", "013003", "013004", "023000")]
    assert [parse_version(v) for v in given]


def test_a_version_is_not_given_again_after_it_was_pruned(folder):
    registry = ModelRegistry(folder / "registry.json", clock=lambda: dt.datetime(2026, 2, 10, tzinfo=dt.UTC))
    first = registry.new_version()
    register(registry, first)
    registry.prune(MODEL, 0)
    assert registry.new_version() != first


def test_history_only_grows_and_moves_out_when_it_is_long(registry, folder, monkeypatch):
    monkeypatch.setattr(registry_module, "HISTORY_TAIL", 10)
    seen = []
    for i in range(24):
        register(registry, V[i % 2], model_id=f"model_{i}")
        if i % 5 == 4:
            registry.prune(f"model_{i}", 0)
        events = registry.history()
        assert events[: len(seen)] == seen
        seen = events
    assert [e["seq"] for e in seen] == list(range(1, 29))
    assert len(json.loads((folder / "registry.json").read_text())["history"]) <= 10
    assert len(list((folder / "registry_history").iterdir())) >= 3
    assert [e["event"] for e in registry.history("model_4")] == ["registered", "pruned"]
    assert registry.verify() == []
    next((folder / "registry_history").iterdir()).write_text("{")
    with pytest.raises(RegistryError, match=r"events-.* is damaged"):
        registry.history()


@pytest.mark.parametrize(
    "journal",
    [b"", b"\xff", b"[" * 100_000, b"null", b'{"sequence": 1, "files": "registry.json"}']
    + [json.dumps({"sequence": 0, "files": [name]}).encode() for name in
       ("../../victim.txt", "link/versions/v20260101_000000/model_15min.pkl", "registry.json", ".", "a\0b", "x" * 999)],
)  # fmt: skip
def test_a_forged_journal_costs_nobody_a_file(registry, folder, journal):
    outside = folder.parent / "outside/versions/v20260101_000000/model_15min.pkl"
    outside.parent.mkdir(parents=True)
    register(registry, V[0])
    for path in (outside, folder.parent / "victim.txt"):
        path.write_text("kept")
    (folder / "link").symlink_to(folder.parent / "outside")
    registry._pending.write_bytes(journal)
    registry.new_version()
    assert registry.verify() == [] and registry.version(MODEL, V[0])
    assert outside.exists() and (folder.parent / "victim.txt").exists()


# --- failure ---------------------------------------------------------------------------------------------------------


def test_verify_names_every_problem(registry, folder):
    for version in V[:4]:
        register(registry, version)
    registry.promote(MODEL, V[2], reason="r", who="w")
    registry.artifact_path(MODEL, V[0]).write_bytes(b"changed")
    registry.artifact_path(MODEL, V[1]).unlink()
    (folder / SERVED).write_bytes(b"changed")
    stray = folder / "price_prediction" / "versions" / V[8] / "model_15min.pkl"
    stray.parent.mkdir()
    stray.write_bytes(b"?")
    problems = "\n".join(registry.verify())
    for words in (
        f"{V[0]}: price_prediction",
        "has another SHA-256",
        f"{V[1]}: price",
        "missing",
        "champion file",
        V[8],
    ):
        assert words in problems
    assert len(problems.splitlines()) == 4


def test_repair_puts_right_what_can_be(registry, folder):
    for version in V[:2]:
        register(registry, version)
    registry.promote(MODEL, V[1], reason="r", who="w")
    (folder / SERVED).unlink()
    assert registry.repair() == [f"put {V[1]} at {SERVED}"]
    assert registry.verify() == []
    registry.artifact_path(MODEL, V[1]).write_bytes(b"changed")
    assert registry.repair() == [f"restored price_prediction/versions/{V[1]}/model_15min.pkl from the champion's file"]
    assert registry.verify() == [] and registry.repair() == []
    assert [e["event"] for e in registry.history()][-2:] == ["recovered", "recovered"]


@pytest.mark.parametrize("by", ["repair", "promotion"])
def test_what_nobody_knows_at_a_champions_path_is_set_aside(registry, folder, by):
    for version in V[:2]:
        register(registry, version)
    registry.promote(MODEL, V[0], reason="r", who="w")
    (folder / SERVED).write_bytes(b"an operator's own model")
    if by == "repair":
        moved, put = registry.repair()
        assert "moved" in moved and "put" in put and load_champion(folder, SERVED) == V[0]
    else:
        registry.promote(MODEL, V[1], reason="r", who="w")
        assert load_champion(folder, SERVED) == V[1]
    kept, why = sorted((folder / "quarantine").iterdir())
    assert kept.read_bytes() == b"an operator's own model" and "doesn't know" in why.read_text()


def everything_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def artefacts_in(folder):
    return {name: data for name, data in everything_in(folder).items() if name.endswith(".pkl")}


@pytest.mark.parametrize("older", [False, True])
def test_a_registry_that_knows_less_than_the_folder_repairs_nothing_and_adopts(registry, folder, older):
    """``registry.json`` lost, or the one of some versions ago put back: no artefact is ever taken for garbage."""
    for place, version in enumerate(V[:6]):
        if place == 2:
            before = (folder / "registry.json").read_bytes()
        register(registry, version, metadata={"as_of": version})
        register(registry, version, model_id="battery_policy", model_type="rl_battery")
        registry.promote(MODEL, version, reason="r", who="w")
    registry.write_training_results()
    had = artefacts_in(folder)
    (folder / "registry.json.bak").unlink()
    if older:
        (folder / "registry.json").write_bytes(before)
    else:
        (folder / "registry.json").unlink()
    with pytest.raises(RegistryError, match=rf"doesn't know {8 if older else 12} artefacts.*models adopt"):
        registry.repair()
    registry.new_version()
    assert len(registry.verify()) >= (8 if older else 12) and artefacts_in(folder) == had
    registry.adopt(who="ops")
    assert registry.adopt() == []
    assert versions(registry) == versions(registry, "battery_policy") == V[5::-1]
    assert artefacts_in(folder) == had
    if older:
        assert registry.champion(MODEL)["version"] == V[1]
        assert registry.repair() == [f"put {V[1]} at {SERVED}"], "the newer champion is a known version by now"
    else:
        assert registry.champion(MODEL)["metadata"]["as_of"] == V[5] and registry.champion("battery_policy") is None
        assert registry.repair() == []
    assert registry.verify() == [] and load_champion(folder, SERVED) == (V[1] if older else V[5])


def test_a_journal_of_a_newer_registry_deletes_nothing_of_an_older_one(registry, folder):
    register(registry, V[0])
    before = (folder / "registry.json").read_bytes()
    register(registry, V[1])
    path = registry.artifact_path(MODEL, V[1])
    journal = {"sequence": 1, "files": [path.relative_to(folder).as_posix(), "registry.json", "../x", SERVED]}
    (folder / "registry.json.pending").write_text(json.dumps({**journal, "sequence": 2}))
    (folder / "registry.json").write_bytes(before)
    registry.new_version()
    assert path.exists() and not (folder / "registry.json.pending").exists()
    (folder / "registry.json.pending").write_text(json.dumps(journal))
    registry.new_version()
    assert not path.exists() and versions(registry) == [V[0]], "that one would have been the writer's own"


@pytest.mark.parametrize("place", ["../outside.pkl", "price_prediction/../../outside.pkl", "/{outside}", "link/x.pkl"])
@pytest.mark.parametrize("field", ["filepath", "champion_path"])
def test_no_path_leads_out_of_the_folder(registry, folder, tmp_path, field, place):
    for version in V[:3]:
        register(registry, version)
    registry.promote(MODEL, V[2], reason="r", who="w")
    for outside in (tmp_path / "outside.pkl", tmp_path / "elsewhere" / "x.pkl"):
        outside.parent.mkdir(exist_ok=True)
        outside.write_bytes(b"not ours")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    content = json.loads((folder / "registry.json").read_text())
    model = content["models"][MODEL]
    (model if field == "champion_path" else model["details"][V[0]])[field] = place.format(outside=tmp_path / "o.pkl")
    (folder / "registry.json").write_text(json.dumps(content))
    had = everything_in(tmp_path)
    for action in (
        registry.repair,
        registry.verify,
        lambda: registry.prune(MODEL, 0),
        lambda: registry.load(MODEL, V[0]),
        lambda: registry.promote(MODEL, V[0], reason="r", who="w"),
        lambda: load_champion(folder, SERVED),
    ):
        with pytest.raises(RegistryError, match=r"leads out of .*models"):
            action()
    assert {k: v for k, v in everything_in(tmp_path).items() if not k.endswith(".lock")} == {
        k: v for k, v in had.items() if not k.endswith(".lock")
    }


def test_prune_deletes_artefacts_and_nothing_that_is_called_one(registry, folder):
    for version in V[:3]:
        register(registry, version)
    content = json.loads((folder / "registry.json").read_text())
    shared = content["models"][MODEL]["details"][V[2]]["filepath"]
    for version, path in ((V[0], "registry.json"), (V[1], shared)):
        content["models"][MODEL]["details"][version]["filepath"] = path
    (folder / "registry.json").write_text(json.dumps(content))
    assert registry.prune(MODEL, 1) == V[:2]
    assert versions(registry) == [V[2]] and registry.load(MODEL, V[2]) == V[2]


def test_a_retired_model_serves_no_longer_and_comes_back(registry, folder):
    for version in V[:2]:
        register(registry, version)
        registry.promote(MODEL, version, reason="r", who="w")
    assert registry.retire(MODEL, reason="30-minute prices ended", who="ops")["version"] == V[1]
    assert registry.champion(MODEL) is None and not (folder / SERVED).exists() and registry.verify() == []
    with pytest.raises(ModelNotFoundError, match="retired: 30-minute prices ended"):
        load_champion(folder, SERVED)
    with pytest.raises(PromotionError, match="no champion"):
        registry.retire(MODEL, reason="again", who="ops")
    (folder / SERVED).write_bytes(registry.artifact_path(MODEL, V[0]).read_bytes())
    with pytest.raises(ModelNotFoundError, match="retired"):
        load_champion(folder, SERVED)
    assert registry.prune(MODEL, 0) == [], "the last champion and the one before it stay"
    assert registry.rollback(MODEL, reason="they are back", who="ops")["version"] == V[1]
    assert load_champion(folder, SERVED) == V[1] and registry.verify() == []
    registry.artifact_path(MODEL, V[1]).unlink()
    registry.retire(MODEL, reason="r", who="ops")
    assert load_artifact(folder / SERVED) == V[1], "the last copy of its bytes isn't deleted"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").write_text("a file in the folder's place")
    registry = ModelRegistry(tmp_path / "models" / "registry.json")
    assert registry.list_models() == []
    with pytest.raises(RegistryError, match=r"can't be changed.*ENERGY_ML_MODELS_DIR"):
        registry.new_version()


def test_a_lock_that_never_comes_free_is_named(registry, folder):
    register(registry, V[0])
    with registry._changing():
        impatient = ModelRegistry(folder / "registry.json", lock_timeout=0.05)
        with pytest.raises(RegistryError, match=r"registry\.json\.lock"):
            impatient.new_version()
        assert impatient.get_latest_version(MODEL)["version"] == V[0], "readers need no lock"


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("action", ["register", "promote", "prune", "rollback"])
def test_a_full_disk_at_any_moment_is_an_error_and_no_damage(tmp_path, monkeypatch, call, action):
    """The n-th call of the operating system fails, for every n until the action gets by without."""
    actions = {
        "register": lambda r: register(r, V[3]),
        "promote": lambda r: r.promote(MODEL, V[2], reason="r", who="w"),
        "prune": lambda r: r.prune(MODEL, 0),
        "rollback": lambda r: r.rollback(MODEL, reason="r", who="w"),
    }
    real = getattr(os, call)
    for n in range(1, 100):
        registry = ModelRegistry(tmp_path / str(n) / "models" / "registry.json")
        for version in V[:3]:
            register(registry, version)
        for version in V[:2]:
            registry.promote(MODEL, version, reason="r", who="w")
        calls = 0

        def fails(*args, n=n, **kwargs):
            nonlocal calls
            calls += str(tmp_path) in str(args[0]) or isinstance(args[0], int)
            if calls == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        failed = False
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            try:
                actions[action](registry)
            except RegistryError as error:
                failed = True
                assert "Remedy" in str(error)
            served = load_champion(registry.folder, SERVED)
        if not failed and calls < n:
            break
        assert served == registry.champion(MODEL)["version"]
        assert registry.verify() == []
        assert not list(registry.folder.rglob("*.tmp")), "nothing half-written stays"
    assert n > 1


# --- any order of anything -------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order, the registry agrees with a simple model of itself."""

    registered = Bundle("registered")

    def __init__(self):
        super().__init__()
        self.temp = tempfile.TemporaryDirectory()
        self.registry = ModelRegistry(Path(self.temp.name) / "models" / "registry.json")
        self.alive: dict[str, str] = {}
        self.succession: list[str] = []
        self.retired = False
        self.events = 0
        self.seen: list[dict] = []

    def teardown(self):
        self.temp.cleanup()

    @rule(target=registered, version=st.sampled_from(V), payload=st.sampled_from("ab"))
    def register(self, version, payload):
        if self.alive.get(version, payload) != payload:
            with pytest.raises(RegistryError, match="other content"):
                register(self.registry, version, payload)
        else:
            register(self.registry, version, payload)
            self.events += version not in self.alive
            self.alive[version] = payload
        return version

    @rule(version=registered)
    def promote(self, version):
        if version not in self.alive:
            with pytest.raises(RegistryError, match="no version"):
                self.registry.promote(MODEL, version, reason="r", who="w")
            return
        self.registry.promote(MODEL, version, reason="r", who="w")
        if self.succession[-1:] != [version] or self.retired:
            self.retired = False
            self.succession = [v for v in self.succession if v != version] + [version]
            self.events += 1

    @precondition(lambda self: self.alive)
    @rule()
    def retire(self):
        if not self.succession or self.retired:
            with pytest.raises(PromotionError):
                self.registry.retire(MODEL, reason="r", who="w")
            return
        self.registry.retire(MODEL, reason="r", who="w")
        self.retired = True
        self.events += 1

    @precondition(lambda self: self.alive)
    @rule()
    def rollback(self):
        if len(self.succession) < 2 - self.retired:
            with pytest.raises(PromotionError):
                self.registry.rollback(MODEL, reason="r", who="w")
            return
        if not self.retired:
            self.succession.pop()
        self.retired = False
        self.events += 1
        assert self.registry.rollback(MODEL, reason="r", who="w")["version"] == self.succession[-1]

    @precondition(lambda self: self.alive)
    @rule(backups=st.integers(0, 4))
    def prune(self, backups):
        others = sorted(v for v in self.alive if self.retired or v not in self.succession[-1:])
        doomed = [v for v in others[: max(len(others) - backups, 0)] if v not in self.succession[-2:]]
        assert self.registry.prune(MODEL, backups) == doomed
        self.events += len(doomed)
        self.succession = [v for v in self.succession if v not in doomed]
        for version in doomed:
            del self.alive[version]

    @invariant()
    def agrees(self):
        assert self.registry.verify() == []
        history = self.registry.history()
        assert len(history) == self.events and history[: len(self.seen)] == self.seen
        self.seen = history
        listed = self.registry.list_models()
        if not listed:
            return
        (model,) = listed
        assert model["versions"] == sorted(self.alive, reverse=True)
        serves = bool(self.succession) and not self.retired
        assert model["champion"] == (self.succession[-1] if serves else None)
        if serves:
            assert load_champion(self.registry.folder, SERVED) == self.alive[self.succession[-1]]


AnyOrder.TestCase.settings = settings(max_examples=20, stateful_step_count=20)
TestAnyOrder = AnyOrder.TestCase
