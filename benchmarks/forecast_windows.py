"""Forecasts of many windows with and without history: errors beside "the price stays", coverage, cost.

Usage: python benchmarks/forecast_windows.py prices.parquet ... [--history 0,60] [--as-of 2025-03-31,2018-02-15]

Trains the shipped defaults on windows of ``--days`` days (70/15/15 % by time), once for each ``--history``, the days
before the window that teach too. Windows end at those days of ``--as-of`` that a file holds with its longest history,
or lie one behind the other. Two tables come at the end, a line for each file and history.

Errors are of the test part: rMAE is the pooled absolute error over that of persistence, its means over windows are
geometric; CPU seconds are those of features and training. Coverage is of every forecast out of sample after the
window's first day, of those in the three hours after a change of regime (the last hour's realised volatility above the
training part's 95 % quantile, one hour after it was below the median), and of the test part alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import gmean

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.features import WARM_UP_MINUTES, feature_columns
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.price_prediction import PricePredictionEvaluator, PricePredictionTrainer
from energy_ml.price_prediction.conformal import LEVELS
from energy_ml.price_prediction.model import interval_around
from energy_ml.provenance import code_digest
from energy_ml.splits import split_window, window_of
from energy_ml.training_window import window_features

HOUR, AFTERMATH, DAY = pd.Timedelta(hours=1), pd.Timedelta(hours=3), pd.Timedelta(days=1)
"""Realised volatility is over the first; what follows a change of regime for the second is its aftermath."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prices", type=Path, nargs="+", help="parquets with timestamp, region, real_time_price")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--history", default="0,60", help="days before each window that teach too")
    parser.add_argument("--as-of", default=None, help="last days of the windows, instead of consecutive ones")
    parser.add_argument("--first", default=None, help="first day of the first of them (default: first whole UTC day)")
    parser.add_argument("--windows", default="all", help="numbers of consecutive windows, such as 0,3,6 (default: all)")
    parser.add_argument("--horizons", default="5,15,30,60")
    parser.add_argument("--preset", default=PricePredictionConfig.preset, choices=["fast", "best"])
    parser.add_argument("--cache", type=Path, default=None, help="keep finished windows here, to go on later")
    return parser.parse_args()


class Trainer(PricePredictionTrainer):
    """Puts the bounds of every calibrated level beside each forecast."""

    def _forecasts_frame(
        self, window: Any, horizon: int, block: int, point: Any, interval: Any, bounds: Any, median: Any
    ) -> Any:
        frame, *rest = super()._forecasts_frame(window, horizon, block, point, interval, bounds, median)
        for level in LEVELS:
            at = interval_around(point, bounds, median, level, window.design.price_scale)
            other = super()._forecasts_frame(window, horizon, block, point, at, bounds, median)[0]
            frame[f"inside {level:.0%}"] = frame["price_actual"].between(other["lower"], other["upper"])
        return frame, *rest


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


def window_forecasts(
    path: Path, frame: pd.DataFrame, as_of: dt.date, days: int, settings: PricePredictionConfig, cache: Path | None
) -> pd.DataFrame:
    """Every forecast of the window after its first day, with ``after`` a change of regime and the ``cpu`` seconds.

    ``frame`` is what the file at ``path`` holds; what is in the folder ``cache`` isn't made again.
    """
    horizons = ",".join(map(str, settings.horizons))
    name = f"{path.stem}-{as_of}-{days}-{settings.history_days}-{settings.preset}-{horizons}-{code_digest()[:12]}"
    if cache is not None and (cache / f"{name}.parquet").is_file():
        return pd.read_parquet(cache / f"{name}.parquet")
    start, end = window_of(as_of, days)
    since = start - pd.Timedelta(days=settings.history_days) - pd.Timedelta(minutes=WARM_UP_MINUTES)
    prices = clean_prices(frame[(frame["timestamp"] >= since) & (frame["timestamp"] < end)], end=end).frame
    begun, split, earlier = time.process_time(), split_window(start, end), prices[prices["timestamp"] < start]
    features = window_features(prices, start, settings)
    trainer, names = Trainer(MLConfig(price_prediction=settings, n_jobs=1, verbose=False)), feature_columns(features)
    parts = [
        trainer.train_for_horizon(features, names, horizon, split=split, history=earlier)["forecasts"]
        for horizon in settings.horizons
    ]
    cpu = time.process_time() - begun
    after = aftermath(prices[prices["timestamp"] >= start], split.train_end)
    made = pd.concat(parts, ignore_index=True).join(after, on=["timestamp", "region"])
    made = made[made["timestamp"] >= start + DAY].assign(cpu=cpu)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        made.to_parquet(cache / f"{name}.parquet")
    return made


def read_prices(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path, columns=["timestamp", "region", "real_time_price"])
    return frame.assign(timestamp=pd.to_datetime(frame["timestamp"], utc=True))


def windows_of(args: argparse.Namespace, frame: pd.DataFrame, before: pd.Timedelta) -> list[dt.date]:
    """Last days of the windows that are asked for and that the frame holds with so much before them."""
    first = pd.Timestamp(args.first, tz="UTC") if args.first else frame["timestamp"].min().ceil("D")
    after, length = frame["timestamp"].max().floor("D"), pd.Timedelta(days=args.days)
    if args.as_of:
        days = [pd.Timestamp(day, tz="UTC") for day in args.as_of.split(",")]
    else:
        count = int((after - first) / length)
        chosen = range(count) if args.windows == "all" else [int(part) for part in args.windows.split(",")]
        days = [first + length * (n + 1) - DAY for n in chosen]
    return [day.date() for day in days if first + before <= day + DAY - length and day <= after]


def errors_line(name: str, windows: list[pd.DataFrame], horizons: list[int]) -> str:
    """Line of the first table."""
    tables = [PricePredictionEvaluator().evaluate(of).overall.set_index("horizon_minutes") for of in windows]
    every = pd.concat(tables).groupby(level=0)
    means = [gmean(every.get_group(h)["rmae"]) for h in horizons]
    worst = [f"{every.get_group(h)['rmae'].max():.3f}" for h in horizons]
    winkler = [f"{every.get_group(h)['winkler'].mean():.0f}" for h in horizons]
    cpu = np.mean([of["cpu"].iloc[0] for of in windows])
    cells = [f"{len(windows)}", *(f"{mean:.3f}" for mean in means), f"{np.mean(means):.3f}", " / ".join(worst)]
    return f"| {name} | " + " | ".join([*cells, " / ".join(winkler), f"{cpu:.0f}"]) + " |"


def coverage_lines(name: str, windows: list[pd.DataFrame], horizons: list[int]) -> list[str]:
    """Lines of the second table, one for each level."""
    every = pd.concat(windows, ignore_index=True).dropna(subset="price_actual")
    lines = []
    for level in LEVELS:
        cells = []
        for horizon in horizons:
            of = every[every["horizon_minutes"] == horizon]
            inside = of[f"inside {level:.0%}"].astype(bool)
            shares = inside.mean(), inside[of["after"].astype(bool)].mean(), inside[of["split"] == "test"].mean()
            cells.append(", ".join(f"{share:.1%}"[:-1] for share in shares))
        lines.append(f"| {name}, {level:.0%} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    args = arguments()
    horizons, histories = [int(part) for part in args.horizons.split(",")], [int(h) for h in args.history.split(",")]
    errors, coverage = [], []
    for path in args.prices:
        frame = read_prices(path)
        done: dict[int, list[pd.DataFrame]] = {history: [] for history in histories}
        for as_of in windows_of(args, frame, pd.Timedelta(days=max(histories))):
            for history in histories:
                settings = PricePredictionConfig(horizons=horizons, preset=args.preset, history_days=history)
                made = window_forecasts(path, frame, as_of, args.days, settings, args.cache)
                done[history].append(made)
                print(errors_line(f"{path.stem} as of {as_of}, history {history}", [made], horizons), flush=True)
        for history, of in done.items():
            name = f"{path.stem}, " + (f"history of {history} days" if history else f"{args.days} days")
            errors.append(errors_line(name, of, horizons))
            coverage += coverage_lines(name, of, horizons)
    ahead = [f"{h} min" for h in horizons]
    heads = [f"preset {args.preset}", "windows", *ahead, "mean", "worst window", "Winkler at 90 %", "CPU s"]
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads) + "\n" + "\n".join(errors))
    print("\nInside the interval: all, after a change of regime, test part alone (%)\n")
    print("| | " + " | ".join(ahead) + " |\n|" + "---|" * (1 + len(ahead)) + "\n" + "\n".join(coverage))


if __name__ == "__main__":
    main()
