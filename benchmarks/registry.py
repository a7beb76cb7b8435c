"""1,000 registry operations from 8 processes at once: nothing lost, and at what rate.

What belongs here: the measured claim. What doesn't: writers that die (``energy_ml_tests/model_management``).

    python benchmarks/registry.py [--operations 1000] [--processes 8] [--folder DIR]
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path

from energy_ml.errors import ModelNotFoundError, RegistryError
from energy_ml.model_management import ModelRegistry
from energy_ml.model_management.persistence import load_champion, save_artifact

MODELS = {f"price_prediction_{h}m": f"price_prediction/model_{h}min.pkl" for h in (1, 5, 15, 60)}
KINDS, WEIGHTS = ["register", "promote", "prune", "read"], [4, 2, 1, 3]


def work(folder: Path, number: int, kinds: list[str]) -> list[tuple[str, str, list[str], float]]:
    """Do these operations; returns (kind, model, versions that it concerned, milliseconds) of each."""
    registry, chance = ModelRegistry(folder / "registry.json"), random.Random(number)
    artifact = folder.parent / f"trained-{number}.pkl"
    done = []
    for kind in kinds:
        model_id = chance.choice(list(MODELS))
        known = [v for model in registry.list_models() if model["model_id"] == model_id for v in model["versions"]]
        started = time.perf_counter()
        touched: list[str] = []
        try:
            if kind == "register":
                touched = [registry.new_version()]
                save_artifact(os.urandom(200_000), artifact)
                registry.register_model("price_prediction", model_id, touched[0], artifact)
            elif kind == "promote" and known:
                touched = [chance.choice(known)]
                registry.promote(model_id, touched[0], reason="benchmark", who=f"process {number}")
            elif kind == "prune" and known:
                touched = registry.prune(model_id, 5)
            elif kind == "read":
                load_champion(folder, MODELS[model_id])
        except ModelNotFoundError:
            pass  # no champion yet
        except RegistryError as error:
            if "has no version" not in str(error):  # pruned since it was looked up
                raise
            touched = []
        done.append((kind, model_id, touched, (time.perf_counter() - started) * 1000))
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed afterwards)")
    options = parser.parse_args()
    kinds = random.Random(0).choices(KINDS, WEIGHTS, k=options.operations)
    with tempfile.TemporaryDirectory(dir=options.folder) as temp:
        folder = Path(temp) / "models"
        shares = [(folder, n, kinds[n :: options.processes]) for n in range(options.processes)]
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            pool.map(str, range(options.processes))  # processes have started and imported before the clock does
            started = time.perf_counter()
            done = [entry for part in pool.starmap(work, shares, chunksize=1) for entry in part]
            seconds = time.perf_counter() - started
        registry = ModelRegistry(folder / "registry.json")
        problems = registry.verify()
        told = {kind: {(m, v) for k, m, versions, _ in done if k == kind for v in versions} for kind in KINDS}
        recorded = collections.defaultdict(set)
        for event in registry.history():
            recorded[event["event"]].add((event["model_id"], event["version"]))
        present = {(model["model_id"], v) for model in registry.list_models() for v in model["versions"]}
        lost = (
            (told["register"] ^ recorded["registered"])
            | (told["prune"] ^ recorded["pruned"])
            | (told["promote"] ^ recorded["promoted"])
            | (present ^ (told["register"] - told["prune"]))
        )
        size = (folder / "registry.json").stat().st_size
    print(f"{'operation':<10} {'done':>6} {'median ms':>10} {'p95 ms':>8}")
    for kind in KINDS:
        times = sorted(took for k, _, _, took in done if k == kind)
        if times:
            p95 = times[min(int(0.95 * len(times)), len(times) - 1)]
            print(f"{kind:<10} {len(times):>6} {times[len(times) // 2]:>10.1f} {p95:>8.1f}")
    print(
        f"{options.operations:,} operations, {options.processes} processes, {seconds:.1f} s: "
        f"{options.operations / seconds:.0f} per second; registry.json {size / 1024:.0f} KB"
    )
    print(f"lost or unexplained: {len(lost)}; problems found by verify: {len(problems)}")
    if lost or problems:
        raise SystemExit("\n".join([*map(str, sorted(lost)), *problems]))


if __name__ == "__main__":
    main()
