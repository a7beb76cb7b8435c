"""What a price known ahead is worth: to forecasts, and to batteries that plan on it, with it and without it.

    python benchmarks/covariates.py prices.parquet day_ahead.parquet                # 12 windows of 10 days, preset fast
    python benchmarks/covariates.py prices.parquet day_ahead.parquet --published 13 --zone America/New_York
    python benchmarks/covariates.py prices.parquet day_ahead.parquet --battery --horizons 5,15,30,60 --windows 24

The second file has timestamp, region and day_ahead_price; it is taken to be published ``--published`` hours before its
local day begins. Both sides are the shipped defaults on the same prices; forecasts of the test part are compared by a
Diebold-Mariano test over each window and by windows won. With ``--battery`` the price models don't see it on either
side: policy and MPC on the models' forecasts are compared with the same two on those and what is known beyond them.
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
from scipy.stats import wilcoxon

from energy_ml.config import Covariate, MLConfig, PricePredictionConfig
from energy_ml.evaluation.backtest_evaluator import backtest, reference_units
from energy_ml.evaluation.metrics import diebold_mariano
from energy_ml.features.covariates import add_covariates, outlook
from energy_ml.market_data import clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import MPC_FORECAST, OUR_POLICY, PERFECT_FORESIGHT
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.rl_battery.baselines import RollingMPC
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.trainer import BatteryRLTrainer
from energy_ml.splits import TimeSplit, split_window

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
    parser.add_argument("--battery", action="store_true", help="shares of the optimum in place of forecast errors")
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
    """Forecasts of all horizons, and what the trial on validation said, by horizon."""
    trainer = PricePredictionTrainer(MLConfig(price_prediction=config, n_jobs=threads, verbose=False))
    features, names = trainer.prepare_data(prices)
    split = split_of(prices)
    parts, trials = [], {}
    for horizon in config.horizons:
        trained = trainer.train_for_horizon(features, names, horizon, split=split)
        parts.append(trained["forecasts"])
        trials[horizon] = trained["model"].provenance["covariates"]
    return pd.concat(parts, ignore_index=True), trials


def split_of(prices: pd.DataFrame) -> TimeSplit:
    """70 / 15 / 15 % of a window."""
    return split_window(prices["timestamp"].min(), prices["timestamp"].max() + pd.Timedelta(minutes=5))


def shares(
    window: pd.DataFrame, lake: ParquetLake, config: PricePredictionConfig, threads: int
) -> dict[tuple[str, str], float]:
    """Share of the optimum on the test part by strategy and side, all regions together."""
    plain, _ = forecasts(window, config, threads)
    known = outlook(window[["timestamp", "region"]], lake, (DAY_AHEAD,))
    known = known[known["horizon_minutes"] > max(config.horizons)]
    models, split, found = MLConfig(price_prediction=config, n_jobs=threads, verbose=False), split_of(window), {}
    units = reference_units(sorted(window["region"].unique()), Battery.from_config(models.rl_battery))
    for side, told in (("without", plain), ("with", pd.concat([plain, known], ignore_index=True))):
        policy = BatteryRLTrainer(models).train_all(prices=window, forecasts=told, split=split)["policy"]
        strategies = [policy, RollingMPC(MPC_FORECAST, use_forecasts=True)]
        summary = backtest(window, strategies, units, split, forecasts=told, bootstrap=2, threads=threads).summary
        profit = summary[summary["region"] != "all"].groupby("strategy")["profit"].sum()
        for name in (OUR_POLICY, MPC_FORECAST):
            found[name, side] = profit[name] / profit[PERFECT_FORESIGHT]
    return found


def compare(
    window: pd.DataFrame, lake: ParquetLake, plain: PricePredictionConfig, threads: int
) -> list[dict[str, Any]]:
    """Mean errors of one window's test part by horizon: without, with and of "the price stays"."""
    seen = replace(plain, covariates=(DAY_AHEAD,))
    without, _ = forecasts(window, plain, threads)
    known, trials = forecasts(add_covariates(window, lake, seen.covariates, seen.horizons), seen, threads)
    without = without[without["split"] == "test"]
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


def report(rows: list[dict[str, Any]]) -> None:
    """Print the table of forecast errors."""
    print("horizon  rMAE without    with   only where it pays   windows won   pays on validation")
    for horizon, of in pd.DataFrame(rows).groupby("horizon"):
        chosen = np.where(of["pays"], of["with"], of["without"])
        ratio = [np.exp(np.log(one / of["stays"]).mean()) for one in (of["without"], of["with"], chosen)]
        won = int((of["with"] < of["without"]).sum())
        print(
            f"{horizon:4d} min {ratio[0]:12.4f} {ratio[1]:8.4f} {ratio[2]:12.4f} {won:16d}/{len(of)}"
            f" {int(of['pays'].sum()):14d}/{len(of)}"
        )


def main() -> None:
    options = arguments()
    plain = PricePredictionConfig(horizons=[int(h) for h in options.horizons.split(",")], preset=options.preset)
    prices = clean_prices(pd.read_parquet(options.prices, columns=["timestamp", "region", "real_time_price"])).frame
    first, last = prices["timestamp"].min().ceil("D"), prices["timestamp"].max().floor("D")
    step = ((last - first) / pd.Timedelta(days=1) - options.days) / max(options.windows - 1, 1)
    rows, earned = [], []
    with tempfile.TemporaryDirectory() as folder:
        lake = lake_of(options.day_ahead, options.published, options.zone, Path(folder))
        for number in range(options.windows):
            began, start = time.perf_counter(), first + pd.Timedelta(days=int(number * step))
            inside = (prices["timestamp"] >= start) & (prices["timestamp"] < start + pd.Timedelta(days=options.days))
            window = prices[inside].reset_index(drop=True)
            if options.battery:
                earned.append(shares(window, lake, plain, options.threads))
                told = ", ".join(f"{name} {side} {share:.1%}" for (name, side), share in earned[-1].items())
                print(f"{start:%Y-%m-%d} {told}, {time.perf_counter() - began:.0f} s", flush=True)
                continue
            for row in compare(window, lake, plain, options.threads):
                rows.append(row)
                print(
                    f"{start:%Y-%m-%d} {row['horizon']:3d} min: without {row['without']:.3f}, with {row['with']:.3f}, "
                    f"p {row['p']:.3f}, pays on validation: {row['pays']}, {time.perf_counter() - began:.0f} s",
                    flush=True,
                )
    if rows:
        report(rows)
    for name in (OUR_POLICY, MPC_FORECAST) if earned else ():
        of = pd.DataFrame([{side: one[name, side] for side in ("without", "with")} for one in earned])
        gain, mean = of["with"] - of["without"], of.mean()
        print(
            f"{name}: without {mean['without']:.1%}, with {mean['with']:.1%}, better in {int((gain > 0).sum())} of "
            f"{len(of)} windows, p {wilcoxon(gain).pvalue:.4f} (Wilcoxon)"
        )


if __name__ == "__main__":
    main()
