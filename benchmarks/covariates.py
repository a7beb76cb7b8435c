"""What a price known ahead is worth: forecasts an hour ahead, with it and without it.

    python benchmarks/covariates.py prices.parquet day_ahead.parquet                # 12 windows of 10 days, preset fast
    python benchmarks/covariates.py prices.parquet day_ahead.parquet --published 13 --zone America/New_York

The second file has timestamp, region and day_ahead_price; it is taken to be published ``--published`` hours before its
local day begins. Both sides are the shipped defaults on the same prices; forecasts of the test part are compared by a
Diebold-Mariano test over each window and by windows won.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from energy_ml.config import Covariate, MLConfig, PricePredictionConfig
from energy_ml.evaluation.metrics import diebold_mariano
from energy_ml.features.covariates import add_covariates
from energy_ml.market_data import clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.splits import split_window

DAY_AHEAD = Covariate("day_ahead_price", "ahead", is_price=True, keep=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", type=Path)
    parser.add_argument("day_ahead", type=Path)
    parser.add_argument("--windows", type=int, default=12, help="spread evenly over the file")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--horizons", default="15,60")
    parser.add_argument("--preset", choices=["fast", "best"], default="fast")
    parser.add_argument("--published", type=float, default=13.0, help="hours before the local day")
    parser.add_argument("--zone", default="America/New_York")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def lake_of(path: Path, published: float, zone: str, folder: Path) -> ParquetLake:
    """The day-ahead prices as a lake of forecasts."""
    frame = pd.read_parquet(path)
    local = frame["timestamp"].dt.tz_convert(zone).dt.normalize()
    frame["available_at"] = local.dt.tz_convert("UTC") - pd.Timedelta(hours=published)
    frame.to_parquet(folder / "day_ahead.parquet", index=False)
    return ParquetLake(folder)


def forecasts(prices: pd.DataFrame, config: PricePredictionConfig, threads: int) -> tuple[pd.DataFrame, dict[int, Any]]:
    """Test forecasts of all horizons, and what the trial on validation said, by horizon."""
    trainer = PricePredictionTrainer(MLConfig(price_prediction=config, n_jobs=threads, verbose=False))
    features, names = trainer.prepare_data(prices)
    split = split_window(prices["timestamp"].min(), prices["timestamp"].max() + pd.Timedelta(minutes=5))
    parts, trials = [], {}
    for horizon in config.horizons:
        trained = trainer.train_for_horizon(features, names, horizon, split=split)
        parts.append(trained["forecasts"])
        trials[horizon] = trained["model"].provenance["covariates"]
    every = pd.concat(parts, ignore_index=True)
    return every[every["split"] == "test"], trials


def compare(
    window: pd.DataFrame, lake: ParquetLake, plain: PricePredictionConfig, threads: int
) -> list[dict[str, Any]]:
    """Mean errors of one window's test part by horizon: without, with and of "the price stays"."""
    seen = replace(plain, covariates=(DAY_AHEAD,))
    without, _ = forecasts(window, plain, threads)
    known, trials = forecasts(add_covariates(window, lake, seen.covariates, seen.horizons), seen, threads)
    key = ["timestamp", "region", "horizon_minutes"]
    both = without.merge(known[[*key, "price_forecast"]], on=key, suffixes=("", "_with")).dropna(
        subset=["price_actual"]
    )
    rows = []
    for horizon, of in both.groupby("horizon_minutes"):
        named = {"without": "price_forecast", "with": "price_forecast_with", "stays": "price_now"}
        errors = of.assign(**{name: (of[column] - of["price_actual"]).abs() for name, column in named.items()})
        loss = errors.groupby("timestamp")[[*named]].mean()
        test = diebold_mariano(loss["with"], loss["without"], horizon=int(horizon) // 5)
        (trial,) = trials[int(horizon)]
        pays = trial["mae"] < trial["mae_without"]
        rows.append({"horizon": horizon, **loss.mean(), "p": test.p_value, "pays": pays})
    return rows


def main() -> None:
    options = arguments()
    plain = PricePredictionConfig(horizons=[int(h) for h in options.horizons.split(",")], preset=options.preset)
    prices = clean_prices(pd.read_parquet(options.prices, columns=["timestamp", "region", "real_time_price"])).frame
    first, last = prices["timestamp"].min().ceil("D"), prices["timestamp"].max().floor("D")
    step = ((last - first) / pd.Timedelta(days=1) - options.days) / max(options.windows - 1, 1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        lake = lake_of(options.day_ahead, options.published, options.zone, Path(folder))
        for number in range(options.windows):
            began, start = time.perf_counter(), first + pd.Timedelta(days=int(number * step))
            inside = (prices["timestamp"] >= start) & (prices["timestamp"] < start + pd.Timedelta(days=options.days))
            for row in compare(prices[inside].reset_index(drop=True), lake, plain, options.threads):
                rows.append(row)
                print(
                    f"{start:%Y-%m-%d} {row['horizon']:3d} min: without {row['without']:.3f}, with {row['with']:.3f}, "
                    f"p {row['p']:.3f}, pays on validation: {row['pays']}, {time.perf_counter() - began:.0f} s",
                    flush=True,
                )
    print("horizon  rMAE without    with   only where it pays   windows won   pays on validation")
    for horizon, of in pd.DataFrame(rows).groupby("horizon"):
        chosen = np.where(of["pays"], of["with"], of["without"])
        ratio = [np.exp(np.log(one / of["stays"]).mean()) for one in (of["without"], of["with"], chosen)]
        won = int((of["with"] < of["without"]).sum())
        print(
            f"{horizon:4d} min {ratio[0]:12.4f} {ratio[1]:8.4f} {ratio[2]:12.4f} {won:16d}/{len(of)}"
            f" {int(of['pays'].sum()):14d}/{len(of)}"
        )


if __name__ == "__main__":
    main()
