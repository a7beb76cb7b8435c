"""What a newcomer waits for: a bare clone to the table of results, the second run, and short commands after it.

What belongs here: wall and CPU seconds of each command in a fresh clone. What doesn't: where a run spends them
(``operations``, ``training_speed``).

    python benchmarks/first_minute.py

The clone is of this repository's HEAD, in a temporary folder; installing asks the package index. On a machine with
other work, CPU seconds are the ones to compare.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ".venv/bin/energy-ml"
STAGES = {
    "clone": ["git", "clone", "--quiet", str(ROOT), "."],
    "make: install": ["make", ".venv/.installed-demo"],
    "make demo: first run, compiling": ["make", "demo"],
    "second run, preset best": [PROGRAM, "retrain"],
    "third run, preset fast": ["env", "ENERGY_ML_PRESET=fast", PROGRAM, "retrain"],
    "--help": [PROGRAM, "--help"],
    "predict": [PROGRAM, "predict"],
    "act": [PROGRAM, "act", "--charge", "0.5"],
}


def main() -> None:
    """Run every stage in its turn and print a row for each."""
    print(f"{os.cpu_count()} cores\n\n| stage | wall s | CPU s |\n|---|---:|---:|")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ENERGY_ML_", "DAGSTER_"))}
    with tempfile.TemporaryDirectory() as folder:
        for stage, command in STAGES.items():
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"| {stage} | {wall:.1f} | {cpu:.1f} |", flush=True)


if __name__ == "__main__":
    main()
