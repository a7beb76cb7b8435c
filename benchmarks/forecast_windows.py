"""Forecast errors and interval coverage over many windows of any price parquets, beside "the price stays".

Usage: python benchmarks/forecast_windows.py prices.parquet ... [--history 0,60] [--windows all|0,3,6] [--preset best]

Cuts the data into consecutive windows of ``--days`` days, trains the shipped defaults on each (70/15/15 % by time) and
scores the test part of each. rMAE is the pooled absolute error over that of persistence; means over windows are
geometric. ``--coverage`` asks instead how many outcomes intervals of several levels hold, also in the three hours after
a change of regime: the last hour's realised volatility above the training part's 95 % quantile, one hour after it was
below the median.

``--as-of 2025-03-31,2025-04-29`` takes those of these days that a file has, instead of consecutive windows. At the end
stands one table: a line for each file and each ``--history``. To compare windows of different lengths on the same
prices, ``--score-days 1.5`` scores only so many of the last days, and ``--part-days 1.5`` makes validation and test
part so long whatever the window is, instead of 15 % each.
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import gmean

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.features import WARM_UP_MINUTES
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.price_prediction import PricePredictionEvaluator
from energy_ml.price_prediction.walk_forward import ReadPrices, walk_forward
from energy_ml.splits import split_window, window_of


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prices", type=Path, nargs="+", help="parquets with timestamp, region, real_time_price")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--history", default="0", help="days before each window that teach too, such as 0,60")
    parser.add_argument("--first", default=None, help="first day of the first window (default: first whole UTC day)")
    parser.add_argument("--windows", default="all", help="numbers of the windows, such as 0,3,6 (default: all)")
    parser.add_argument("--horizons", default="5,15,30,60")
    parser.add_argument("--preset", default=PricePredictionConfig.preset, choices=["fast", "best"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=None, help="keep finished windows here, to go on later")
    parser.add_argument("--as-of", default=None, help="last days of the windows, instead of consecutive ones")
    parser.add_argument("--score-days", type=float, default=None, help="score only the last so many days")
    parser.add_argument("--part-days", type=float, default=None, help="days of validation and of test")
    parser.add_argument("--coverage", action="store_true", help="coverage instead of errors")
    parser.add_argument("--levels", default="0.80,0.90,0.95", help="of the intervals, for --coverage")
    return parser.parse_args()


HOUR, AFTERMATH = pd.Timedelta(hours=1), pd.Timedelta(hours=3)
"""Realised volatility is over the first; what follows a change of regime for the second is its aftermath."""


def aftermath(prices: pd.DataFrame, train_end: pd.Timestamp) -> pd.Series:
    """Whether each origin (timestamp, region) of long prices lies within three hours after a change of regime."""
    wide = prices.pivot_table(index="timestamp", columns="region", values="real_time_price")
    step = (wide.index[1:] - wide.index[:-1]).min()
    hour = round(HOUR / step)
    realised = np.sqrt((wide.diff() ** 2).rolling(hour).mean())
    training = realised[realised.index < train_end]
    changed = (realised > training.quantile(0.95)) & (realised.shift(hour) <= training.median())
    after = changed.rolling(round(AFTERMATH / step), min_periods=1).max() > 0
    return after.reset_index().melt("timestamp", value_name="after").set_index(["timestamp", "region"])["after"]


def coverage(args: argparse.Namespace, read: ReadPrices, dates: list[dt.date], config: MLConfig) -> None:
    """Share of outcomes inside intervals per level and horizon, pooled over windows; all and after changes."""
    levels = [float(part) for part in args.levels.split(",")]
    rows = []
    for as_of in dates:
        start, end = window_of(as_of, args.days)
        after = aftermath(read(start, end), split_window(start, end).train_end)
        for level in levels:
            settings = replace(config.price_prediction, interval_level=level)
            of = walk_forward(
                read, [as_of], replace(config, price_prediction=settings), days=args.days, cache_dir=args.cache
            )
            of["level"] = level
            of["covered"] = of["price_actual"].between(of["lower"], of["upper"])
            rows.append(of.join(after, on=["timestamp", "region"]))
        print(f"as of {as_of}: done", flush=True)
    every = pd.concat(rows, ignore_index=True)
    first = every[every["level"] == levels[0]]
    share = first.groupby("horizon_minutes")["after"].mean().iloc[0]
    print(f"preset {args.preset}, {len(dates)} windows, {len(first):,} forecasts, {share:.1%} of them after a change")
    table = {}
    for name, some in (("all", every), ("after a change", every[every["after"]])):
        for level, of in some.groupby("level"):
            table[name, f"{level:.0%}"] = of.groupby("horizon_minutes")["covered"].mean()
    by_region = every.groupby(["level", "horizon_minutes", "region"])["covered"].mean()
    for level in levels:
        table["worst region", f"{level:.0%}"] = by_region.loc[level].groupby("horizon_minutes").min()
    print(pd.DataFrame(table).to_string(float_format="{:.3f}".format))


def windows_of(args: argparse.Namespace, frame: pd.DataFrame) -> dict[int, dt.date]:
    """Last days of the windows that are asked for, by number."""
    first = pd.Timestamp(args.first, tz="UTC") if args.first else frame["timestamp"].min().ceil("D")
    after = frame["timestamp"].max().floor("D")
    if args.as_of:
        days = [pd.Timestamp(day, tz="UTC") for day in args.as_of.split(",")]
        return {n: day.date() for n, day in enumerate(days) if first < day <= after}
    count = int((after - first) / pd.Timedelta(days=args.days))
    chosen = range(count) if args.windows == "all" else [int(part) for part in args.windows.split(",")]
    return {n: (first + pd.Timedelta(days=args.days * (n + 1) - 1)).date() for n in chosen}


def errors(
    args: argparse.Namespace, read: ReadPrices, windows: dict[int, dt.date], config: MLConfig
) -> tuple[pd.DataFrame, float]:
    """Prints each window's figures and all windows' per horizon; the table of every window and horizon, and the CPU
    seconds of a window."""
    horizons = config.price_prediction.horizons
    evaluator = PricePredictionEvaluator(config.price_prediction)
    rows, regions, begun = [], [], time.process_time()
    for number, as_of in windows.items():
        started, cpu = time.perf_counter(), time.process_time()
        forecasts = walk_forward(read, [as_of], config, days=args.days, cache_dir=args.cache)
        if args.score_days is not None:
            end = pd.Timestamp(as_of, tz="UTC") + pd.Timedelta(days=1)
            forecasts = forecasts[forecasts["timestamp"] >= end - pd.Timedelta(days=args.score_days)]
        scores = evaluator.evaluate(forecasts)
        table = scores.overall.set_index("horizon_minutes")
        regions.append(scores.by_region.assign(window=number))
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
            f"{horizon:4d} min  {gmean(of['rmae']):.3f}  {of['rmae'].max():.3f}"
            f"  {(of['rmae'] < 1).mean():4.0%}"
            f"  {wins:7d}/{losses:<6d}  {of['coverage'].mean():8.3f}  {region.min():12.3f}"
            f"  {of['winkler'].mean():7.0f}  {of['mean_width'].mean():6.0f}"
        )
    return every, (time.process_time() - begun) / len(windows)


def main() -> None:
    args = arguments()
    horizons = [int(part) for part in args.horizons.split(",")]
    settings = PricePredictionConfig(horizons=horizons, preset=args.preset)
    if args.part_days is not None:
        part = args.part_days / args.days
        settings = replace(settings, train_end_pct=1 - 2 * part, val_end_pct=1 - part)
    config = MLConfig(price_prediction=settings, n_jobs=args.threads)
    lines = []
    for path in args.prices:
        frame = pd.read_parquet(path, columns=["timestamp", "region", "real_time_price"])
        frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True)
        windows = windows_of(args, frame)
        for history in [int(part) for part in args.history.split(",")]:

            def read(
                start: pd.Timestamp, end: pd.Timestamp, frame: pd.DataFrame = frame, history: int = history
            ) -> pd.DataFrame:
                if history:
                    start -= pd.Timedelta(days=history) + pd.Timedelta(minutes=WARM_UP_MINUTES)
                rows = frame[(frame["timestamp"] >= start) & (frame["timestamp"] < end)]
                return clean_prices(rows, end=end).frame if history else rows.reset_index(drop=True)

            name = f"{path.stem}, {args.days} days" + (f" and {history} before" if history else "")
            print(f"\n{name}: {len(windows)} windows, preset {args.preset}")
            if args.coverage:
                coverage(args, read, list(windows.values()), config)
                continue
            every, cpu = errors(args, read, windows, config)
            by = [every[every["horizon_minutes"] == h] for h in horizons]
            means = [gmean(of["rmae"]) for of in by]
            cells = [*(f"{mean:.3f}" for mean in means), f"{np.mean(means):.3f}", f"{every['rmae'].max():.3f}"]
            cells += [" / ".join(f"{of['winkler'].mean():.0f}" for of in by), f"{cpu:.0f} s"]
            lines.append(f"| {name} | {len(windows)} | " + " | ".join(cells) + " |")
    if lines:
        heads = ["", "windows", *(f"{h} min" for h in horizons), "mean", "worst", "Winkler at 90 %", "CPU"]
        print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        print("\n".join(lines))


if __name__ == "__main__":
    main()
