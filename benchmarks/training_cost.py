"""Time and memory of reading, features and training as data grows from ten days to a year of ten regions.

    python benchmarks/training_cost.py
    python benchmarks/training_cost.py --sizes 10x5 30x10 --preset fast --keep DIR

Simulated one-minute prices in parquet; each size runs in a process of its own along the path of a run: read and clean
the window, compute features, train all horizons. Resident memory is the highest so far at the end of each step.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

START = dt.date(2025, 1, 1)


def measure(folder: str, days: int, options: argparse.Namespace) -> None:
    """Run one size in this process and print its figures as JSON."""
    import pandas as pd

    from energy_ml.config import MLConfig, PricePredictionConfig
    from energy_ml.market_data.lake import ParquetLake
    from energy_ml.market_data.window import read_price_window
    from energy_ml.price_prediction import PricePredictionTrainer
    from energy_ml.splits import split_window

    steps: dict[str, Any] = {}

    def step(name: str, function: Any) -> Any:
        started, busy = time.perf_counter(), time.process_time()
        result = function()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        steps[name] = (time.perf_counter() - started, time.process_time() - busy, peak)
        print(f"{days} days: {name} {steps[name]}", file=sys.stderr, flush=True)
        return result

    start = pd.Timestamp(START, tz="UTC")
    end = start + pd.Timedelta(days=days)
    prices = step("read", lambda: read_price_window(ParquetLake(folder), start, end).prices)
    horizons = [int(part) for part in options.horizons.split(",")]
    settings = PricePredictionConfig(horizons=horizons, preset=options.preset, n_estimators=options.trees)
    config = MLConfig(price_prediction=settings, n_jobs=options.threads)
    trainer = PricePredictionTrainer(config)
    features, names = step("features", lambda: trainer.prepare_data(prices))
    split = split_window(start, end)

    def train() -> None:
        for horizon in horizons:
            trainer.train_for_horizon(features, names, horizon, split=split)

    step("train", train)
    print(json.dumps({"rows": len(prices), "columns": len(names), "steps": steps}))


def main() -> None:
    """One line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["10x5", "30x10", "90x10", "365x10"], help="DAYSxREGIONS")
    parser.add_argument("--preset", default="fast", choices=["fast", "best"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--horizons", default="1,5,15,60")
    parser.add_argument("--trees", type=int, default=200, help="at most; with 3, what doesn't grow trees is left")
    parser.add_argument("--keep", type=Path, help="write the prices here and use those already there")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "DAYS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], int(options.measure[1]), options)
        return
    from energy_ml.market_data.simulator import write_simulation

    print(
        f"preset {options.preset}, {options.threads} thread(s); CPU s, (wall s), highest resident memory so far in GB"
    )
    print("| size | rows | read and clean | features | training | µs CPU per row |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            days, regions = map(int, size.split("x"))
            folder = (options.keep or Path(scratch)) / size
            if not folder.is_dir():
                write_simulation(folder, days=days, regions=regions, start=START, batteries=0)
            command = [sys.executable, __file__, "--measure", str(folder), str(days)]
            command += ["--preset", options.preset, "--threads", str(options.threads)]
            command += ["--horizons", options.horizons, "--trees", str(options.trees)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"| {days} days x {regions} | {days * 1440 * regions:,} | failed: {done.returncode} | | | |")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            cells = [f"{cpu:.1f} ({wall:.1f}), {peak:.2f}" for wall, cpu, peak in found["steps"].values()]
            each = sum(cpu for _, cpu, _ in found["steps"].values()) / found["rows"] * 1e6
            print(
                f"| {days} days x {regions} | {found['rows']:,} | " + " | ".join(cells) + f" | {each:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
