"""CPU and memory of each step of a night as a market grows from five regions to thousands of nodes.

    python benchmarks/scale.py --nodes 5 100 1000 5000 [--horizons 5,15,30,60] [--keep DIR]
    python benchmarks/scale.py --nodes 200 --until evaluate --trees 100 --workers 1 2

Simulated nodal markets (five-minute prices, ten days and six of warm-up), a process each; the steps are those of a
night, with a handful of trees, so that what grows with the data is left. Peak memory is that of the step alone.
``--workers`` sets the forecasts' step in this process beside the same with blocks on a local Dask and a local Ray of
so many workers: seconds it took, and CPU seconds of this process and of the workers. On a machine with other work the
latter say more: what this process still has to do is what no worker can take from it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START, WARM_UP, DAYS, MINUTES = dt.date(2026, 3, 2), 6, 10, 5
STAGES = ("read", "features", "forecast", "evaluate", "policy", "backtest", "report")


class Meter:
    """CPU seconds and highest resident memory of each stage; seconds that it took, and CPU seconds of workers."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}
        self.took: dict[str, tuple[float, float]] = {}

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
        busy, began, below = time.process_time(), time.perf_counter(), children_cpu()
        try:
            result = function()
        finally:
            over.set()
            watcher.join()
        cpu, most = self.found.get(stage, (0.0, 0.0))
        self.found[stage] = (cpu + time.process_time() - busy, max(most, peak / 1e9))
        took = time.perf_counter() - began
        before = self.took.get(stage, (0.0, 0.0))
        self.took[stage] = before[0] + took, before[1] + children_cpu() - below
        told = f"{stage}: {self.found[stage][0]:.1f} s, {self.found[stage][1]:.2f} GB; the last took {took:.1f} s"
        print(told, file=sys.stderr, flush=True)
        return result


@contextlib.contextmanager
def cluster(kind: str, workers: int) -> Iterator[None]:
    """A cluster of so many workers on this machine, for this process; none for threads."""
    os.environ |= {"ENERGY_ML_PARALLEL": kind, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if kind == "dask":
        from distributed import Client, LocalCluster

        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as made, Client(made):
            yield
    elif kind == "ray":
        import ray

        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()
    else:
        yield


def children_cpu() -> float:
    """CPU seconds of the processes below this one, alive and ended."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid], used[pid] = int(fields[1]), sum(map(int, fields[11:15])) / ticks
    below, found = {os.getpid()}, 0.0
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
        found += sum(used[pid] for pid in more)
    return found + sum(os.times()[2:4])


def measure(folder: Path, trees: int, until: str, horizons: str) -> None:
    """A night on the market in ``folder`` in this process; prints its figures as JSON."""
    os.environ |= {
        "ENERGY_ML_DATA_DIR": str(folder),
        "ENERGY_ML_START_DATE": str(START),
        "ENERGY_ML_HORIZONS": horizons,
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
        lake, trainer = lake_of(settings), PricePredictionTrainer(settings.ml_config())
        as_of = START + dt.timedelta(days=WARM_UP + DAYS - 1)
        night = day.Night(
            settings,
            as_of,
            "scale",
            lake,
            ResultsStore(scratch),
            ModelRegistry(f"{scratch}/models/registry.json"),
            lambda: trainer,
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
        print(json.dumps({"rows": rows, "stages": meter.found, "took": meter.took}))


def main() -> None:
    """One line per market and stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", nargs="+", type=int, default=[5, 100, 1000])
    parser.add_argument("--trees", type=int, default=3)
    parser.add_argument("--horizons", default="5,60")
    parser.add_argument("--workers", nargs="+", type=int, help="of Dask and Ray; compare them")
    parser.add_argument("--cluster", nargs=2, default=["threads", "1"], help=argparse.SUPPRESS)
    parser.add_argument("--until", default="report", choices=["evaluate", "report"])
    parser.add_argument("--keep", type=Path, help="write the prices here and use those already there")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, workers = options.cluster
        with cluster(kind, int(workers)):
            measure(options.measure, options.trees, options.until, options.horizons)
        return
    from energy_ml.market_data.simulator import Nodes, write_simulation

    kinds = [("threads", 1), *((kind, n) for kind in ("dask", "ray") for n in options.workers or ())]
    print(f"{options.trees} trees, {options.horizons} minutes ahead\n")
    if options.workers:
        print("| nodes | forecasts' blocks in | s | CPU s here | CPU s of workers |\n|---|---|---|---|---|")
    else:
        print("CPU µs a row, (peak GB)\n")
        print(f"| nodes | rows | {' | '.join(STAGES)} | together |\n|{'---|' * (len(STAGES) + 3)}")
    with tempfile.TemporaryDirectory() as scratch:
        for nodes in options.nodes:
            folder = (options.keep or Path(scratch)) / str(nodes)
            if not folder.is_dir():
                write_simulation(folder, WARM_UP + DAYS, Nodes(nodes, min(nodes, 12)), START, interval_minutes=MINUTES)
            for kind, workers in kinds:
                print(line(nodes, folder, options, kind, workers), flush=True)


def line(nodes: int, folder: Path, options: argparse.Namespace, kind: str, workers: int) -> str:
    """What one night took, in a process of its own, as a line of the table."""
    command = [sys.executable, __file__, "--measure", str(folder), "--trees", str(options.trees)]
    command += ["--until", options.until, "--horizons", options.horizons, "--cluster", kind, str(workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return f"| {nodes:,} | {kind} {workers} failed: {done.returncode} |"
    found = json.loads(done.stdout.splitlines()[-1])
    if options.workers:
        took, below = found["took"]["forecast"]
        return f"| {nodes:,} | {kind}, {workers} | {took:.1f} | {found['stages']['forecast'][0]:.1f} | {below:.1f} |"
    each = {name: (cpu / found["rows"] * 1e6, peak) for name, (cpu, peak) in found["stages"].items()}
    cells = [f"{each[name][0]:.1f} ({each[name][1]:.2f})" if name in each else "–" for name in STAGES]
    cells.append(f"{sum(cpu for cpu, _ in each.values()):.1f} ({max(p for _, p in each.values()):.2f})")
    return f"| {nodes:,} | {found['rows']:,} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
