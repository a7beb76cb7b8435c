"""Kills at random moments, and what they leave: nothing may be lost, torn or left open. Exit code 1 is a finding.

What belongs here: the wide attack, for an hour of one's own. What doesn't: its small form, which the tests run.

    python -m benchmarks.attack retrain [--kills 100]       energy-ml retrain, every second one while it publishes
    python -m benchmarks.attack promote [--seconds 10]      four writers of the registry, about 30 kills a second
    python -m benchmarks.attack registry [--operations 1000]  eight processes, so many each; four are killed
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg

from energy_ml.model_management import ModelRegistry
from energy_ml.orchestration.run_lock import close_dead
from energy_ml_tests.model_management.under_fire import leftovers, massacre, storm
from energy_ml_tests.orchestration.project import DAYS, Project


def retrain(folder: Path, kills: int) -> dict[str, Any]:
    """Kill the command; champions must serve, results be whole, and at the end no run be left open."""
    project, day, found, killed = Project.make(folder), str(Project.day(DAYS)), list[str](), 0
    began = time.monotonic()
    assert project.run("energy-ml", "retrain", "--date", day).returncode == 0
    whole, results = time.monotonic() - began, [p for p in (folder / "results" / day).rglob("*") if p.is_file()]
    for number in range(kills):
        champions, process = project.champions(), project.start("energy-ml", "retrain", "--date", day)
        changed = project.registry.path.stat().st_mtime_ns
        if number % 2:
            while process.poll() is None and project.registry.path.stat().st_mtime_ns == changed:
                time.sleep(0.001)  # it publishes from here on
            time.sleep(random.uniform(0, whole / 20))
        else:
            time.sleep(random.uniform(0, whole))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        try:
            assert project.registry.verify() == [], project.registry.verify()
            now = project.champions()
            assert now.keys() == champions.keys() and None not in now.values(), (champions, now)
            project.assert_champions_serve(now)
            for path in results:
                if path.suffix in (".json", ".parquet"):
                    project.store.read(day, str(path.relative_to(folder / "results" / day)))
        except Exception as error:
            found.append(f"kill {number}: {error!r}")
        print(f"{killed} killed, {number + 1 - killed} came to their end before, {len(found)} findings", flush=True)
    assert project.run("energy-ml", "retrain", "--date", day).returncode == 0
    with contextlib.chdir(folder), dg.DagsterInstance.from_config(str(folder)) as instance:
        close_dead(instance)
        statuses = Counter(run.status.value for run in instance.get_runs())
    found += [f"{n} runs are left {status}" for status, n in statuses.items() if status not in ("SUCCESS", "FAILURE")]
    return {"killed": killed, "runs": dict(statuses), "found": found, **leftovers(folder / "models")}


def promote(folder: Path, seconds: int) -> dict[str, Any]:
    """Kill writers while they register, promote and prune; there is a champion for the reader all the time."""
    return massacre(folder / "models", seconds=seconds)


def registry(folder: Path, operations: int) -> dict[str, Any]:
    """Everything that a survivor was told was done is in the history."""
    result = storm(folder / "models", 8, operations, killed=4)
    survivors, history = result.pop("logs"), ModelRegistry(folder / "models/registry.json").history()
    names = {"registered": "register", "pruned": "prune", "rolled_back": "rollback"}
    recorded = Counter((names[e["event"]], e["model_id"], e["version"]) for e in history if e["event"] in names)
    told = Counter(tuple(entry) for log in survivors for entry in log if entry[0] in names.values())
    problems = ModelRegistry(folder / "models/registry.json").verify()
    missing = [str(entry) for entry in (told - recorded)]
    return {**result, "events": len(history), "found": missing, "problems": problems, **leftovers(folder / "models")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sizes = ((retrain, "--kills", 100), (promote, "--seconds", 10), (registry, "--operations", 1000))
    for attack, size, default in sizes:
        command = commands.add_parser(attack.__name__)
        command.add_argument(size, type=int, default=default, dest="size")
        command.set_defaults(attack=attack)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="energy-ml-attack-") as folder:
        told = given.attack(Path(folder), given.size)
    print(told)
    sys.exit(any(told.get(name) for name in ("found", "problems", "leftovers", "lost", "none")))


if __name__ == "__main__":
    main()
