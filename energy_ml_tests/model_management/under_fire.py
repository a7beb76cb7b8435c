"""The registry's storms, as a program: forks writers and readers, kills them, and prints what happened as JSON.

What belongs here: what must run outside of pytest, because it forks, dies by SIGKILL or limits file sizes.
What doesn't: asserting; ``test_registry_under_fire`` does.

    python -m energy_ml_tests.model_management.under_fire FOLDER
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from energy_ml.errors import ArtifactError, ModelNotFoundError, PromotionError, RegistryError
from energy_ml.model_management import ModelRegistry
from energy_ml.model_management.persistence import load_artifact, load_champion, save_artifact

MODELS = {
    "price_prediction_15m": ("price_prediction", "price_prediction/model_15min.pkl"),
    "price_prediction_60m": ("price_prediction", "price_prediction/model_60min.pkl"),
    "battery_policy": ("rl_battery", "rl_battery/battery_policy.pkl"),
}
MODEL, SERVED = "price_prediction_15m", "price_prediction/model_15min.pkl"
VERSIONS = [f"v2026021{day}_013000" for day in range(5)]


def fork(work: Callable[[], Any], output: Path | None = None) -> int:
    """Run ``work`` in a child; its JSON, or its traceback, goes to ``output``. Returns the child's id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        result = work()
        if output is not None:
            output.write_text(json.dumps(result))
        code = 0
    except BaseException:
        if output is not None:
            output.write_text(json.dumps({"failed": traceback.format_exc()}))
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """The child's exit code; negative is the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def register(registry: ModelRegistry, scratch: Path, model_id: str, who: str) -> str:
    version = registry.new_version()
    path = scratch / f"{os.getpid()}.pkl"
    save_artifact({"model": model_id, "version": version, "ballast": os.urandom(2000)}, path)
    registry.register_model(MODELS[model_id][0], model_id, version, path, {"by": who}, who=who)
    return version


def serve(folder: Path, model_id: str) -> str | None:
    """Load the champion as a predictor does; any answer but a whole artefact of that very model is an error."""
    try:
        loaded = load_champion(folder, MODELS[model_id][1])
    except ModelNotFoundError:
        return None
    assert loaded["model"] == model_id and len(loaded["ballast"]) == 2000
    return str(loaded["version"])


def storm(folder: Path, processes: int = 8, operations: int = 25, killed: int = 0) -> dict[str, Any]:
    """Every process registers, promotes, rolls back, prunes and reads at random, and logs what it was told was done.

    So many are killed within the first seconds, and leave no log.
    """

    def worker(number: int) -> list[list[str]]:
        registry, chance, done = ModelRegistry(folder / "registry.json"), random.Random(number), []
        for _ in range(operations):
            model_id = chance.choice(list(MODELS))
            action = chance.choices(["register", "promote", "rollback", "prune"], [5, 4, 1, 1])[0]
            who = f"worker {number}"
            try:
                if action == "register":
                    done.append([action, model_id, register(registry, folder.parent, model_id, who)])
                elif action == "promote":
                    known = [v for m in registry.list_models() if m["model_id"] == model_id for v in m["versions"]]
                    if known:
                        version = chance.choice(known)
                        registry.promote(model_id, version, reason="storm", who=who)
                        done.append([action, model_id, version])
                elif action == "rollback":
                    done.append([action, model_id, registry.rollback(model_id, reason="storm", who=who)["version"]])
                else:
                    done += [["prune", model_id, v] for v in registry.prune(model_id, 4, who=who)]
            except PromotionError:
                pass  # nothing to roll back to
            except RegistryError as error:
                # Between looking and acting, another process may have pruned the version or not yet begun the model.
                assert "has no version" in str(error) or "There is no model" in str(error), error
            serve(folder, chance.choice(list(MODELS)))
        return done

    outputs = [folder.parent / f"worker-{n}.json" for n in range(processes)]
    started = time.perf_counter()
    pids = [fork(lambda n=n: worker(n), output) for n, output in enumerate(outputs)]  # type: ignore[misc]
    for pid in pids[:killed]:
        time.sleep(random.uniform(0, 2))
        os.kill(pid, signal.SIGKILL)
    codes = [wait(pid) for pid in pids]
    seconds = time.perf_counter() - started
    return {"codes": codes, "logs": [json.loads(o.read_text()) for o in outputs if o.exists()], "seconds": seconds}


def massacre(folder: Path, writers: int = 4, seconds: float = 2.0) -> dict[str, Any]:
    """Writers at work are killed at random moments and replaced, while a reader is served all the time."""

    def write(seed: int) -> None:
        registry, chance = ModelRegistry(folder / "registry.json"), random.Random(seed)
        while True:
            version = register(registry, folder.parent, MODEL, str(seed))
            if chance.random() < 0.7:
                try:
                    registry.promote(MODEL, version, reason="massacre", who=str(seed))
                except RegistryError as error:
                    # The other writers may have registered enough newer ones by now for this to be pruned.
                    assert "has no version" in str(error), error
            if chance.random() < 0.5:
                registry.prune(MODEL, 3)

    first = ModelRegistry(folder / "registry.json")
    first.promote(MODEL, register(first, folder.parent, MODEL, "first"), reason="first", who="first")
    chance, killed, served = random.Random(0), 0, set()
    alive = [fork(lambda n=n: write(n), folder.parent / f"died-{n}.json") for n in range(writers)]  # type: ignore[misc]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pause = time.monotonic() + chance.uniform(0, 0.04)
        while time.monotonic() < pause:
            served.add(serve(folder, MODEL))
        victim = alive.pop(chance.randrange(len(alive)))
        os.kill(victim, signal.SIGKILL)
        if wait(victim) != -signal.SIGKILL:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)  # or they would write for ever
            raise AssertionError(
                f"a writer had died by itself: {[p.read_text() for p in folder.parent.glob('died-*')]}"
            )
        killed += 1
        alive.append(fork(lambda n=killed: write(1000 + n), folder.parent / f"died-{1000 + killed}.json"))  # type: ignore[misc]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        wait(pid)
    problems = ModelRegistry(folder / "registry.json").verify()
    return {"killed": killed, "served": len(served), "none": None in served, "problems": problems, **leftovers(folder)}


def prepared(folder: Path) -> ModelRegistry:
    """Three versions, of which the second is champion and the first was before."""
    registry = ModelRegistry(folder / "registry.json")
    for version in VERSIONS[:3]:
        save_artifact(version, folder.parent / "m.pkl")
        registry.register_model("price_prediction", MODEL, version, folder.parent / "m.pkl")
    for version in VERSIONS[:2]:
        registry.promote(MODEL, version, reason="prepared", who="test")
    save_artifact(VERSIONS[3], folder.parent / "m.pkl")
    return registry


ACTIONS: dict[str, Callable[[ModelRegistry], Any]] = {
    "register": lambda r: r.register_model("price_prediction", MODEL, VERSIONS[3], r.folder.parent / "m.pkl"),
    "begin a model": lambda r: r.register_model("rl_battery", "battery_policy", VERSIONS[3], r.folder.parent / "m.pkl"),
    "promote": lambda r: r.promote(MODEL, VERSIONS[2], reason="better", who="test"),
    "rollback": lambda r: r.rollback(MODEL, reason="bad", who="test"),
    "retire": lambda r: r.retire(MODEL, reason="old", who="test"),
    "prune": lambda r: r.prune(MODEL, 0),
    "new version": lambda r: r.new_version(),
    "training results": lambda r: r.write_training_results(),
}  # fmt: skip


def killed_everywhere(folder: Path) -> list[dict[str, Any]]:
    """Each action, killed before its first, second, third … call that changes files, until it gets by alive.

    Beside the models lie an operator's copy, and links to another models folder: nobody may touch what is in them.
    """
    models = folder / "template" / "models"
    prepared(models)
    foreign = [models / "price_prediction.2026-11-27", folder / "elsewhere"]
    for place in foreign:
        shutil.copytree(models / "price_prediction", place)
    (models / "other_market").symlink_to(foreign[1])
    (models / "price_prediction/versions/v20260301_000000").symlink_to(foreign[1] / "versions" / VERSIONS[0])
    whole = [sorted(p.relative_to(place) for p in place.rglob("*")) for place in foreign]
    results = []
    for name, action in ACTIONS.items():
        for n in range(1, 200):
            place = folder / "place"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(folder / "template", place, symlinks=True)
            registry = ModelRegistry(place / "models" / "registry.json")

            def act(action: Callable[[ModelRegistry], Any] = action, n: int = n, r: ModelRegistry = registry) -> None:
                killed_at(n)
                action(r)

            code = wait(fork(act))
            try:
                served = load_champion(registry.folder, SERVED)
            except ModelNotFoundError:
                served = None
            champion = (registry.champion(MODEL) or {}).get("version")
            result: dict[str, Any] = {"action": name, "call": n, "code": code, "served": served, "champion": champion}
            result["problems"] = registry.verify()
            result |= leftovers(registry.folder)
            result["file"] = load_artifact(registry.folder / SERVED) if champion else None
            # Whoever tries again must succeed, unless the action had been done already.
            if name != "rollback" and not (name == "retire" and champion is None):
                action(registry)
                result["problems"] += registry.verify()
            foreign[0] = registry.folder / foreign[0].name
            result["foreign"] = whole == [sorted(p.relative_to(at) for p in at.rglob("*")) for at in foreign]
            results.append(result)
            if code == 0:
                break
    return results


def killed_at(call: int) -> None:
    """From here on, this process dies just before that many-th call that changes the file system."""
    calls = 0

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return counted

    for name in ("open", "fsync", "replace", "unlink", "mkdir", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))


def leftovers(folder: Path) -> dict[str, Any]:
    """Files that should not be there once the next holder of the lock has cleaned up."""
    registry = ModelRegistry(folder / "registry.json")
    named = {folder / v["filepath"] for model in registry.list_models() for v in model["details"].values()}
    own = [p for kind in ("price_prediction", "rl_battery", "registry_history") for p in (folder / kind).rglob("*")]
    found = [p for p in [*own, *folder.glob(".*.tmp")] if p.is_file() and ("versions" in p.parts or p.suffix == ".tmp")]
    return {"leftovers": [str(p) for p in found if p not in named], "lost": [str(p) for p in named if not p.exists()]}


def out_of_space(folder: Path) -> dict[str, Any]:
    """The kernel refuses to let a file grow beyond 20,000 bytes: a write that fails half-way, for real."""
    registry = prepared(folder)
    before = {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    large = folder.parent / "large.pkl"
    large.write_bytes(os.urandom(100_000))

    def limited() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            registry.register_model("price_prediction", MODEL, VERSIONS[4], large)
        except ArtifactError as error:
            assert isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EFBIG
            return str(error)
        raise AssertionError("100,000 bytes were written")

    output = folder.parent / "limited.json"
    code = wait(fork(limited, output))
    message = json.loads(output.read_text())
    problems = registry.verify()
    after = {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {"code": code, "message": message, "problems": problems, "unchanged": before == after}


def main() -> None:
    os.fsync = lambda fd: None  # type: ignore[assignment]  # killed processes need no flushing, only power cuts do
    results = {}
    for work in (storm, massacre, killed_everywhere, out_of_space):
        folder = Path(sys.argv[1]) / work.__name__
        folder.mkdir()
        results[work.__name__] = work(folder / "models")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
