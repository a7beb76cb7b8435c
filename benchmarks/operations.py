"""What running by itself costs: from a new file to a decision, orchestration beside the core, thirty days beside one.

What belongs here: the measured claims of the operations chapter. What doesn't: how good models are.

    python benchmarks/operations.py overhead     # the retrain job in process, on the sample
    python benchmarks/operations.py latency      # file dropped -> decision, with a running daemon, sensor every 5 s
    python benchmarks/operations.py backfill     # 30 days against one, on a small setting

``overhead`` runs in a process of its own that was started for it, as the command line does. "Core" is the time in
functions of ``energy_ml.day``; "files" is reading and writing results; "for the UI" is drawing charts and making
metadata; "Dagster" is the rest of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import functools
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = str(ROOT / "data/processed")
KINDS = ("core", "files", "for the UI")
FIRST = dt.date(2026, 1, 1)
SMALL = {"TRAINING_WINDOW_DAYS": "4", "HORIZONS": "30,60", "PRESET": "fast", "START_DATE": FIRST.isoformat()}


@contextlib.contextmanager
def project(**settings: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """A temporary project with this one's configuration, and the environment of its processes."""
    with tempfile.TemporaryDirectory(prefix="energy-ml-operations-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(ROOT / name, root / name)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGY_ML_", "DAGSTER_"))}
        own = {f"ENERGY_ML_{name}": value for name, value in settings.items()}
        yield root, {**inherited, "ENERGY_ML_PROJECT_ROOT": str(root), "DAGSTER_HOME": str(root), **own}


def show(title: str, header: list[str], rows: list[list[Any]]) -> None:
    """Print a table."""
    cells = [header, *([f"{c:.2f}" if isinstance(c, float) else str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


# --- Orchestration beside the core ---------------------------------------------------------------------------------


class Clock:
    """Time in wrapped functions, by kind; a call within a call counts for the inner one alone."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, float, float]] = []
        self._within: list[tuple[float, float]] = [(0.0, 0.0)]

    def wrap(self, kind: str, owner: Any, name: str) -> None:
        """Time ``owner``'s function ``name``, without what calls within it take."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began, clock, cpu = time.time(), time.perf_counter(), time.process_time()
            self._within.append((0.0, 0.0))
            try:
                return function(*args, **kwargs)
            finally:
                wall, spent = time.perf_counter() - clock, time.process_time() - cpu
                inner_wall, inner_spent = self._within.pop()
                outer_wall, outer_spent = self._within.pop()
                self._within.append((outer_wall + wall, outer_spent + spent))
                self.calls.append((kind, began, wall - inner_wall, spent - inner_spent))

        setattr(owner, name, timed)

    def watch_assets(self) -> None:
        """Time what assets are made of; to be called before the asset graph is."""
        from energy_ml import day
        from energy_ml.evaluation import charts
        from energy_ml.orchestration import assets, steps
        from energy_ml.results import ResultsStore

        for name in set(day.__all__) - {"Made", "Night", "newest", "open_day"}:
            self.wrap("core", day, name)
        for name, value in list(vars(charts).items()):
            if inspect.isfunction(value) and value.__module__ == charts.__name__ and not name.startswith("_"):
                self.wrap("for the UI", charts, name)
        for module in (assets, steps):
            self.wrap("for the UI", module, "to_metadata")
        for name in ("read", "write"):
            self.wrap("files", ResultsStore, name)


def overhead_inside(started: float) -> None:
    """In a process that was started at ``started``: run the job and print where the time went, by step, as JSON."""
    from energy_ml.config import Settings
    from energy_ml.orchestration.instance import project_instance
    from energy_ml.orchestration.launch import run_job
    from energy_ml.training_window import newest

    as_of, clock = newest(Settings.from_env()), Clock()
    clock.watch_assets()
    began, before = time.time(), time.process_time()
    result = run_job(as_of)
    ended, run_cpu = time.time(), time.process_time() - before
    assert result.success
    with project_instance() as instance:
        runs = instance.get_runs(limit=2)  # the night's, and the leaderboard's after it
        of_runs = [step for run in runs for step in instance.get_run_step_stats(run.run_id)]
    steps = sorted(of_runs, key=lambda step: step.start_time or 0.0)
    rows: dict[str, dict[str, float]] = {}
    for step in steps:
        assert step.start_time is not None and step.end_time is not None
        row = rows.setdefault(step.step_key.replace("__", "/"), defaultdict(float))
        row["total"] = step.end_time - step.start_time
        for kind, first, wall, _ in clock.calls:
            if step.start_time - 0.001 <= first <= step.end_time:
                row[kind] += wall
        row["Dagster"] = row["total"] - sum(row[kind] for kind in KINDS)
    between = (ended - began) - sum(row["total"] for row in rows.values())
    rows["run: begin, end, between steps"] = {"Dagster": between, "total": between}
    cpu = {kind: sum(spent for name, *_, spent in clock.calls if name == kind) for kind in KINDS}
    cpu["Dagster"] = run_cpu - sum(cpu.values())
    cpu["total"] = run_cpu
    told = {"as_of": str(as_of), "start_up": began - started, "start_up_cpu": before, "rows": rows, "cpu": cpu}
    print(json.dumps(told))


def overhead(data_dir: str, preset: str) -> None:
    """The retrain job in process on ``data_dir``, twice: the first run of a fresh project, and the next."""
    with project(DATA_DIR=data_dir, PRESET=preset) as (_, env):
        if data_dir == SAMPLE:
            del env["ENERGY_ML_DATA_DIR"]  # the sample's days are the default only for the sample
            shutil.copytree(SAMPLE, Path(env["ENERGY_ML_PROJECT_ROOT"]) / "data/processed")
        for number in (1, 2):
            began = time.time()
            done = subprocess.run(
                [sys.executable, __file__, "overhead-inside", repr(began)],
                env=env, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                sys.exit(done.stderr)
            told = json.loads(done.stdout.splitlines()[-1])
            kinds = [*KINDS, "Dagster", "total"]
            rows = [[name, *(row.get(kind, 0.0) for kind in kinds)] for name, row in told["rows"].items()]
            sums = [sum(row[i] for row in rows) for i in range(1, len(kinds) + 1)]
            show(
                f"retrain for {told['as_of']}, run {number}, seconds of wall",
                ["step", *kinds],
                [*rows, ["the run", *sums], ["the run, CPU", *(told["cpu"][kind] for kind in kinds)]],
            )
            for name, values, start in (
                ("wall", sums, told["start_up"]),
                ("CPU", [told["cpu"][kind] for kind in kinds], told["start_up_cpu"]),
            ):
                beyond = values[-1] - values[0]
                print(
                    f"{name}: beyond the core {beyond:.1f} s, {beyond / values[0]:.0%} of the core's {values[0]:.1f} s "
                    f"(goal: 20 % or 5 s); interpreter and imports {start:.1f} s more; the core's share of all "
                    f"{values[0] / (values[-1] + start):.0%}",
                    flush=True,
                )


# --- File dropped -> decision --------------------------------------------------------------------------------------


def latency(files: int) -> None:
    """Drop the file of one more day ``files`` times beside a running daemon and follow what happens."""
    import dagster as dg
    import pandas as pd

    from energy_ml.market_data.simulator import simulate_market, write_simulation

    last = FIRST + dt.timedelta(days=6 + files)
    rows = []
    with project(**SMALL, END_DATE=str(last), SENSOR_SECONDS="5") as (root, env), contextlib.chdir(root):
        data = root / "data/processed"
        write_simulation(data, 7, 2, FIRST, 30)
        market = simulate_market(7 + files, 2, FIRST, 30)
        _timed(["retrain"], env)
        command = [sys.executable, "-m", "dagster", "sensor", "start", "new_parquet", "-m", "energy_ml.definitions"]
        subprocess.run(command, env=env, check=True, capture_output=True)
        with (root / "daemon.log").open("wb") as log, dg.DagsterInstance.from_config(str(root)) as instance:
            command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "energy_ml.definitions"]
            daemon = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
            try:
                for number in range(files):
                    time.sleep(25 + 1.7 * number)  # it has looked, and each file comes at another moment of its round
                    day = FIRST + dt.timedelta(days=7 + number)
                    start = pd.Timestamp(day, tz="UTC")
                    inside = market["timestamp"].between(start, start + pd.Timedelta(days=1), inclusive="left")
                    market[inside].to_parquet(data / ".arriving", index=False)
                    (data / ".arriving").rename(data / f"prices_{day}.parquet")
                    dropped, tags = time.time(), {"dagster/partition": str(day)}
                    while not (runs := instance.get_runs(dg.RunsFilter(tags=tags))) or not runs[0].is_finished:
                        time.sleep(0.2)
                        assert time.time() - dropped < 300, (root / "daemon.log").read_text()[-3000:]
                    if not runs[0].is_success:
                        lines = [e.message for e in instance.all_logs(runs[0].run_id)]
                        sys.exit("\n".join([f"the run of {day} failed:", *lines[-15:]]))
                    record = instance.get_run_record_by_id(runs[0].run_id)
                    assert record is not None and record.start_time and record.end_time
                    stats = {s.step_key: s for s in instance.get_run_step_stats(runs[0].run_id)}
                    decided = stats["model_management__registry_entry"].end_time or 0.0
                    first = min(s.start_time or 0.0 for s in stats.values())
                    asked = record.create_timestamp.timestamp()
                    rows.append(
                        [str(day), asked - dropped, first - asked, decided - first, decided - dropped, first - dropped]
                    )
            finally:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
    show(
        "file dropped -> decision on record, seconds of wall (sensor every 5 s, a file settles for 4 s)",
        ["day", "until asked for", "until its first step", "job until decided", "in all", "beyond the job"],
        rows,
    )
    print(f"beyond the job: at most {max(row[-1] for row in rows):.1f} s (goal: 15 s)")


# --- Thirty days beside one ----------------------------------------------------------------------------------------


def _timed(arguments: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command with all that it starts."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-c", "from energy_ml.cli import main; main()", *arguments]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def backfill(days: int) -> None:
    """``energy-ml backfill`` over ``days`` days beside ``energy-ml retrain`` of one."""
    from energy_ml.market_data.simulator import write_simulation

    first, last = (FIRST + dt.timedelta(days=n) for n in (3, 2 + days))
    with project(**SMALL, END_DATE=str(last)) as (root, env):
        write_simulation(root / "data/processed", days + 3, 2, FIRST, 30)
        _timed(["retrain", "--date", str(last)], env)  # whatever is compiled once is compiled
        one = _timed(["retrain", "--date", str(last)], env)
        many = _timed(["backfill", "--from", str(first), "--to", str(last)], env)
    show(
        f"backfill of {days} days beside a run of one day: half-hourly prices, 2 regions, 4-day window, preset fast",
        ["", "wall s", "CPU s"],
        [["one day", *one], [f"{days} days", *many], ["times", many[0] / one[0], many[1] / one[1]]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    overheads = commands.add_parser("overhead")
    overheads.add_argument("--data", default=SAMPLE, help="folder; default: the sample")
    overheads.add_argument("--preset", default="best", choices=["fast", "best"])
    commands.add_parser("latency").add_argument("--files", type=int, default=3)
    commands.add_parser("backfill").add_argument("--days", type=int, default=30)
    commands.add_parser("overhead-inside").add_argument("started", type=float)
    given = parser.parse_args()
    if given.command == "overhead":
        overhead(given.data, given.preset)
    elif given.command == "latency":
        latency(given.files)
    elif given.command == "backfill":
        backfill(given.days)
    else:
        overhead_inside(given.started)


if __name__ == "__main__":
    main()
