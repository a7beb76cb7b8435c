"""Forecast errors and interval coverage over many windows of any price parquet, beside "the price stays".

Usage: python benchmarks/forecast_windows.py prices.parquet [--days 10] [--windows all|0,3,6] [--preset best]

Cuts the data into consecutive windows of ``--days`` days, trains the shipped defaults on each (70/15/15 % by time) and
scores the test part of each. rMAE is the pooled absolute error over that of persistence; means over windows are
geometric.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.price_prediction import PricePredictionEvaluator, walk_forward
from energy_ml.price_prediction.evaluator import geometric_mean


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prices", type=Path, help="parquet with timestamp, region, real_time_price")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--first", default=None, help="first day of the first window (default: first whole UTC day)")
    parser.add_argument("--windows", default="all", help="numbers of the windows, such as 0,3,6 (default: all)")
    parser.add_argument("--horizons", default="5,15,30,60")
    parser.add_argument("--preset", default=PricePredictionConfig.preset, choices=["fast", "best"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=None, help="keep finished windows here, to go on later")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    frame = pd.read_parquet(args.prices, columns=["timestamp", "region", "real_time_price"])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True)
    first = pd.Timestamp(args.first, tz="UTC") if args.first else frame["timestamp"].min().ceil("D")
    after = frame["timestamp"].max().floor("D")
    count = int((after - first) / pd.Timedelta(days=args.days))
    chosen = range(count) if args.windows == "all" else [int(part) for part in args.windows.split(",")]
    horizons = [int(part) for part in args.horizons.split(",")]
    config = MLConfig(
        price_prediction=PricePredictionConfig(horizons=horizons, preset=args.preset), n_jobs=args.threads
    )

    def read(start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        return frame[(frame["timestamp"] >= start) & (frame["timestamp"] < end)].reset_index(drop=True)

    evaluator = PricePredictionEvaluator(config)
    rows, regions = [], []
    print(f"{len(frame):,} rows, {count} windows of {args.days} days from {first.date()}, preset {args.preset}")
    for number in chosen:
        as_of = (first + pd.Timedelta(days=args.days * (number + 1) - 1)).date()
        started, cpu = time.perf_counter(), time.process_time()
        forecasts = walk_forward(read, [as_of], config, days=args.days, horizons=horizons, cache_dir=args.cache)
        table = evaluator.table(forecasts, ["horizon_minutes"]).set_index("horizon_minutes")
        by_region = evaluator.table(forecasts, ["horizon_minutes", "region"])
        regions.append(by_region.assign(window=number))
        rows.append(table.assign(window=number))
        figures = " ".join(f"{table.loc[h, 'rmae']:.3f}" for h in horizons)
        seconds = f"{time.perf_counter() - started:.0f} s, {time.process_time() - cpu:.0f} s CPU"
        print(f"window {number:2d} as of {as_of}: rMAE {figures}   ({seconds})", flush=True)

    every = pd.concat(rows).reset_index()
    per_region = pd.concat(regions)
    print("\nhorizon   rMAE  worst  won  DM wins/losses  coverage  worst region  Winkler   width")
    for horizon in horizons:
        of = every[every["horizon_minutes"] == horizon]
        # Pooled over windows, so that one region's bad day and a half doesn't decide.
        region = per_region[per_region["horizon_minutes"] == horizon].groupby("region")["coverage"].mean()
        wins = int(((of["dm_p_value"] < 0.05) & (of["dm_statistic"] < 0)).sum())
        losses = int(((of["dm_p_value"] < 0.05) & (of["dm_statistic"] > 0)).sum())
        print(
            f"{horizon:4d} min  {geometric_mean(of['rmae']):.3f}  {of['rmae'].max():.3f}"
            f"  {(of['rmae'] < 1).mean():4.0%}"
            f"  {wins:7d}/{losses:<6d}  {of['coverage'].mean():8.3f}  {region.min():12.3f}"
            f"  {of['winkler'].mean():7.0f}  {of['mean_width'].mean():6.0f}"
        )
    mean = np.mean([geometric_mean(every.loc[every["horizon_minutes"] == h, "rmae"]) for h in horizons])
    print(f"mean over horizons: {mean:.4f}")


if __name__ == "__main__":
    main()
