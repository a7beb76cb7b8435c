"""Many writers and readers at once, and writers that die: nothing torn, nothing lost, champions keep serving."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from energy_ml.errors import ModelNotFoundError
from energy_ml.model_management import ModelRegistry
from energy_ml.model_management.persistence import load_champion, save_artifact
from energy_ml_tests.model_management.under_fire import ACTIONS, MODEL, SERVED, VERSIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place():
    """In memory where there is such a folder: thousands of small files, and no question of what a disk loses."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def outcome(place):
    """What ``under_fire`` printed. A process of its own, with one thread, because it forks."""
    done = subprocess.run(
        [sys.executable, "-m", "energy_ml_tests.model_management.under_fire", str(place)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_eight_processes_lose_nothing(place, outcome):
    folder, result = place / "storm" / "models", outcome["storm"]
    failures = [log["failed"] for log in result["logs"] if isinstance(log, dict)]
    assert not failures, failures[0]
    assert result["codes"] == [0] * 8
    registry = ModelRegistry(folder / "registry.json")
    assert registry.verify() == []
    done = Counter(tuple(entry) for log in result["logs"] for entry in log)
    history = registry.history()
    names = {"registered": "register", "pruned": "prune", "rolled_back": "rollback"}
    recorded = Counter((names[e["event"]], e["model_id"], e["version"]) for e in history if e["event"] in names)
    assert recorded == Counter({key: n for key, n in done.items() if key[0] in names.values()})
    promoted = Counter((e["model_id"], e["version"]) for e in history if e["event"] == "promoted")
    assert all(n <= done["promote", *key] for key, n in promoted.items()), "a promotion that nobody asked for"
    assert {key[1:] for key in done if key[0] == "promote"} == promoted.keys()
    registered = {key[1:] for key in done if key[0] == "register"}
    assert len(registered) > 40 and max(done[("register", *key)] for key in registered) == 1
    assert len({version for _, version in registered}) == len(registered), "versions are unique over all processes"
    pruned = {key[1:] for key in done if key[0] == "prune"}
    present = {(model["model_id"], version) for model in registry.list_models() for version in model["versions"]}
    assert present == registered - pruned
    for model in registry.list_models():
        changes = [
            e for e in history if e["model_id"] == model["model_id"] and e["event"] in ("promoted", "rolled_back")
        ]
        assert model["champion"] == (changes[-1]["version"] if changes else None)
        for before, after in itertools.pairwise(changes):
            assert after["previous"] == before["version"], "each change follows from the one before it"


def test_threads_that_share_a_registry_lose_nothing(tmp_path):
    registry = ModelRegistry(tmp_path / "models" / "registry.json")

    def work(number):
        mine = []
        for i in range(8):
            path = tmp_path / f"{number}-{i}.pkl"
            version = registry.new_version()
            save_artifact(version, path)
            registry.register_model("price_prediction", MODEL, version, path)
            registry.promote(MODEL, version, reason="r", who=str(number))
            try:
                assert load_champion(registry.folder, SERVED)
            except ModelNotFoundError:
                raise AssertionError("there has been a champion since before this read") from None
            mine.append(version)
        return mine

    with ThreadPoolExecutor(8) as pool:
        versions = [version for mine in pool.map(work, range(8)) for version in mine]
    assert len(set(versions)) == 64
    assert registry.list_models()[0]["versions"] == sorted(versions, reverse=True)
    assert len(registry.history()) == 128
    assert registry.verify() == []


def test_writers_killed_at_random_never_stop_the_champion_from_serving(outcome):
    result = outcome["massacre"]
    assert result["killed"] > 10 and result["served"] > 1
    assert not result["none"], "there was a champion all the time"
    assert result["problems"] == result["leftovers"] == result["lost"] == []


@pytest.mark.parametrize("action", ACTIONS)
def test_a_writer_killed_before_any_call_leaves_old_or_new(outcome, action):
    results = [r for r in outcome["killed_everywhere"] if r["action"] == action]
    assert len(results) > 5
    assert [r["code"] for r in results] == [-9] * (len(results) - 1) + [0]
    old, new = VERSIONS[1], {"promote": VERSIONS[2], "rollback": VERSIONS[0], "retire": None}.get(action, VERSIONS[1])
    for result in results:
        assert result["served"] == result["champion"] == result["file"] and result["served"] in (old, new), result
        assert result["problems"] == result["leftovers"] == result["lost"] == [] and result["foreign"], result
    assert results[0]["served"] == old and results[-1]["served"] == new


def test_a_write_that_the_kernel_stops_half_way_changes_nothing(outcome):
    result = outcome["out_of_space"]
    assert result["code"] == 0, result["message"]
    assert "can't be written" in result["message"] and "Remedy" in result["message"]
    assert result["problems"] == [] and result["unchanged"]
