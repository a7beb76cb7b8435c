"""How long and how much memory it takes to simulate a year of ten regions, and to look into it afterwards.

python benchmarks/simulate_large.py [--days 365] [--regions 10] [--days-per-file 30] [--keep DIR]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import pandas as pd

from energy_ml.market_data.cleaning import clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.simulator import write_simulation


def peak_mb() -> float:
    """Highest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Simulate, then time each question that one asks of a lake; print one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--days-per-file", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="write here and keep the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        print(f"{'step':<44}{'seconds':>9}{'peak MB':>9}  result")

        def step(name, function, show):
            began = time.perf_counter()
            result = function()
            print(f"{name:<44}{time.perf_counter() - began:>9.3f}{peak_mb():>9.0f}  {show(result)}", flush=True)
            return result

        size = step(
            f"simulate {options.days} days x {options.regions} regions",
            lambda: write_simulation(
                folder, days=options.days, regions=options.regions, days_per_file=options.days_per_file
            ),
            lambda paths: f"{len(paths)} files, {sum(p.stat().st_size for p in paths) / 1e6:.1f} MB",
        )
        assert size
        lake = ParquetLake(folder)
        step("inventory, first time", lake.inventory, lambda infos: f"{sum(i.rows for i in infos):,} rows")
        step("inventory, again", lake.inventory, lambda infos: f"{len(infos)} files")
        day = step("latest complete day", lake.latest_complete_day, str)
        end = pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1)
        start = end - pd.Timedelta(days=min(10, options.days))
        frame = step("read the last 10 days", lambda: lake.read_prices(start, end), lambda f: f"{len(f):,} rows")
        now = end + pd.Timedelta(days=1)
        step(
            "clean them",
            lambda: clean_prices(frame, start=start, end=end, now=now),
            lambda c: f"{len(c.frame):,} rows, {len(c.problems)} problems",
        )
        step("coverage of all days", lake.coverage, lambda c: f"{len(c)} days")


if __name__ == "__main__":
    main()
