"""CPU and memory of each step of a night as a market grows from five regions to thousands of nodes.

    python benchmarks/scale.py --nodes 5 100 1000 [--keep DIR]
    ENERGY_ML_PARALLEL=dask DASK_SCHEDULER_ADDRESS=… python benchmarks/scale.py --nodes 1000 --until evaluate

Simulated nodal markets (five-minute prices, ten days and six of warm-up), a process each; the steps are those of a
night, with a handful of trees, so that what grows with the data is left. Peak memory is that of the step alone, CPU
that of this process; beside processes or a cluster (the second line) what steps took, on standard error, says more.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START, WARM_UP, DAYS, MINUTES = dt.date(2026, 3, 2), 6, 10, 5
STAGES = ("read", "features", "forecast", "evaluate", "policy", "backtest", "report")


class Meter:
    """CPU seconds and highest resident memory of each stage."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}

    def run(self, stage: str, function: Callable[[], Any]) -> Any:
        """Call ``function`` and add what it took to ``stage``."""
        peak, over = 0.0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
                if over.wait(0.01):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        busy, began = time.process_time(), time.perf_counter()
        try:
            result = function()
        finally:
            over.set()
            watcher.join()
        cpu, most = self.found.get(stage, (0.0, 0.0))
        self.found[stage] = (cpu + time.process_time() - busy, max(most, peak / 1e9))
        took = time.perf_counter() - began
        told = f"{stage}: {self.found[stage][0]:.1f} s, {self.found[stage][1]:.2f} GB; the last took {took:.1f} s"
        print(told, file=sys.stderr, flush=True)
        return result


def measure(folder: Path, trees: int, until: str) -> None:
    """A night on the market in ``folder`` in this process; prints its figures as JSON."""
    os.environ |= {
        "ENERGY_ML_DATA_DIR": str(folder),
        "ENERGY_ML_START_DATE": str(START),
        "ENERGY_ML_HORIZONS": "5,60",
        "ENERGY_ML_PRESET": "fast",
        "ENERGY_ML_PRICES_N_ESTIMATORS": str(trees),
        "ENERGY_ML_PRICES_HISTORY_DAYS": "0",
        "ENERGY_ML_MODELS_N_JOBS": os.environ.get("ENERGY_ML_MODELS_N_JOBS", "1"),
    }
    from energy_ml import day
    from energy_ml.config import Settings
    from energy_ml.model_management.registry import ModelRegistry
    from energy_ml.price_prediction import PricePredictionTrainer
    from energy_ml.progress import open_progress
    from energy_ml.results import ResultsStore
    from energy_ml.training_window import lake_of, read_window

    with tempfile.TemporaryDirectory() as scratch:
        settings, meter = Settings.from_env(), Meter()
        lake = lake_of(settings)
        as_of = START + dt.timedelta(days=WARM_UP + DAYS - 1)
        night = day.Night(
            settings,
            as_of,
            "scale",
            lake,
            ResultsStore(scratch),
            ModelRegistry(f"{scratch}/models/registry.json"),
            PricePredictionTrainer(settings.ml_config()),
            open_progress(scratch, "scale"),
        )
        # The first time footers are read; features read the window again.
        rows = meter.run("read", lambda: int(read_window(settings, lake, as_of).in_window.sum()))
        features = meter.run("features", lambda: day.price_features(night))
        batteries = day.battery_features(night, features.value)
        split: Any = day.time_split(night, features.value, features.files["data"]).value
        history = features.files["history"]
        made = {
            h: meter.run("forecast", lambda h=h: day.train_price(night, h, features.value, history, split))
            for h in settings.horizons
        }
        frames = {f"forecasts_{h}": m.files["forecasts"] for h, m in made.items()}
        forecasts: Any = meter.run("forecast", lambda: day.forecasts(night, **frames).value)
        evaluation = meter.run("evaluate", lambda: day.evaluate(night, forecasts))
        if until != "evaluate":
            policy = meter.run(
                "policy",
                lambda: day.train_policy(night, features.value, batteries.value, split, forecasts),
            )
            tested = meter.run(
                "backtest",
                lambda: day.backtest(night, features.value, batteries.value, split, forecasts, policy.value),
            )
            importance = {f"importance_{h}": m.files["importance"] for h, m in made.items()}
            provenance = {f"provenance_{h}": m.files["provenance"] for h, m in made.items()}
            page = meter.run(
                "report",
                lambda: day.report(
                    night,
                    policy.value,
                    forecasts,
                    split,
                    evaluation.value,
                    tested.value,
                    tested.files["summary"],
                    policy.files["learning"],
                    {},
                    **importance,
                    **provenance,
                ),
            )
            print(f"report: {len(page.value) / 1e6:.2f} MB", file=sys.stderr)
        print(json.dumps({"rows": rows, "stages": meter.found}))


def main() -> None:
    """One line per market and stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", nargs="+", type=int, default=[5, 100, 1000])
    parser.add_argument("--trees", type=int, default=3)
    parser.add_argument("--until", default="report", choices=["evaluate", "report"])
    parser.add_argument("--keep", type=Path, help="write the prices here and use those already there")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.trees, options.until)
        return
    from energy_ml.market_data.simulator import Nodes, write_simulation

    print(f"CPU µs a row, (peak GB); {options.trees} trees, two horizons\n")
    print(f"| nodes | rows | {' | '.join(STAGES)} | together |\n|{'---|' * (len(STAGES) + 3)}")
    with tempfile.TemporaryDirectory() as scratch:
        for nodes in options.nodes:
            folder = (options.keep or Path(scratch)) / str(nodes)
            if not folder.is_dir():
                write_simulation(folder, WARM_UP + DAYS, Nodes(nodes, min(nodes, 12)), START, interval_minutes=MINUTES)
            command = [sys.executable, __file__, "--measure", str(folder), "--trees", str(options.trees)]
            command += ["--until", options.until]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"| {nodes:,} | failed: {done.returncode} |")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            each = {name: (cpu / found["rows"] * 1e6, peak) for name, (cpu, peak) in found["stages"].items()}
            cells = [f"{each[name][0]:.1f} ({each[name][1]:.2f})" if name in each else "–" for name in STAGES]
            cells.append(f"{sum(cpu for cpu, _ in each.values()):.1f} ({max(p for _, p in each.values()):.2f})")
            print(f"| {nodes:,} | {found['rows']:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
