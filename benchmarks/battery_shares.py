"""Share of the perfect-foresight profit that each strategy earns, pooled over many windows of a price file.

    python benchmarks/battery_shares.py prices.parquet                              # 7 + 1.5 d train, 1.5 d test
    python benchmarks/battery_shares.py prices.parquet --train 54 --validation 6 --test 30 --windows 6
    python benchmarks/battery_shares.py prices.parquet --minutes 1                  # prices held for shorter intervals
    python benchmarks/battery_shares.py prices.parquet --delay 1                    # act one interval late
    python benchmarks/battery_shares.py prices.parquet --forecasts-cache /tmp/f     # keep the project's forecasts
    python benchmarks/battery_shares.py prices.parquet --forecasts none

The file has timestamp, region and real_time_price. Test spans of different windows don't overlap by default. Forecasts
are the project's own: cross-fitted on train, out of sample after it. The interval is a bootstrap over windows and
regions; p is that of "ours earns no more than ours_without_forecasts", paired by window.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from energy_ml.config import MLConfig, PricePredictionConfig, RLBatteryConfig
from energy_ml.evaluation.backtest_evaluator import OPTIMUM, backtest, reference_units
from energy_ml.market_data import clean_prices
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.rl_battery.baselines import RollingMPC, ThresholdRule
from energy_ml.rl_battery.battery import Battery, Floats
from energy_ml.rl_battery.obvious import ObviousQLearning
from energy_ml.rl_battery.strategy import Context, Strategy
from energy_ml.rl_battery.trainer import BatteryRLTrainer
from energy_ml.splits import TimeSplit

WITHOUT = "ours_without_forecasts"


class Named:
    """A strategy under another name, blind to forecasts if asked."""

    def __init__(self, name: str, strategy: Strategy, *, blind: bool = False) -> None:
        self.name, self.strategy, self.blind = name, strategy, blind

    def actions(self, context: Context) -> Floats:
        """Requests of the wrapped strategy."""
        if self.blind:
            context = replace(context, forecasts={}, history_forecasts={})
        return self.strategy.actions(context)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", type=Path)
    parser.add_argument("--train", type=float, default=7.0, help="days")
    parser.add_argument("--validation", type=float, default=1.5, help="days")
    parser.add_argument("--test", type=float, default=1.5, help="days")
    parser.add_argument("--windows", type=int, default=25)
    parser.add_argument("--skip", type=float, default=0.0, help="days left out at the start of the file")
    parser.add_argument(
        "--step", type=float, default=None, help="days from window to window; evenly spread if left out"
    )
    parser.add_argument("--regions", nargs="*", default=None)
    parser.add_argument("--minutes", type=int, default=None, help="hold prices for intervals of so many minutes")
    parser.add_argument("--delay", type=int, default=0, help="execution delay, intervals")
    parser.add_argument("--wear", type=float, default=0.0, help="currency per MWh discharged")
    parser.add_argument("--forecasts", choices=["project", "none"], default="project")
    parser.add_argument("--preset", choices=["fast", "best"], default=PricePredictionConfig.preset)
    parser.add_argument("--forecasts-cache", type=Path, default=None)
    parser.add_argument("--no-mpc", action="store_true")
    return parser.parse_args()


def held(prices: pd.DataFrame, minutes: int) -> pd.DataFrame:
    """The same prices on a finer grid."""
    wide = prices.pivot_table(index="timestamp", columns="region", values="real_time_price")
    coarse = wide.index[1] - wide.index[0]
    grid = pd.date_range(wide.index[0], wide.index[-1] + coarse, freq=f"{minutes}min", inclusive="left")
    long = wide.reindex(grid, method="ffill").rename_axis("timestamp").reset_index()
    return long.melt("timestamp", var_name="region", value_name="real_time_price")


def project_forecasts(prices: pd.DataFrame, split: TimeSplit, config: MLConfig, cache: Path | None) -> pd.DataFrame:
    """The project's out-of-sample forecasts of a window, from the cache if they are there."""
    mark = hashlib.sha256(pd.util.hash_pandas_object(prices, index=False).to_numpy().tobytes())
    mark.update(repr((split.to_dict(), config.price_prediction.__dict__)).encode())
    path = None if cache is None else cache / f"{mark.hexdigest()[:24]}.parquet"
    if path is not None and path.exists():
        return pd.read_parquet(path)
    trainer = PricePredictionTrainer(config)
    features, names = trainer.prepare_data(prices)
    frames = [
        trainer.train_for_horizon(features, names, horizon, split=split)["forecasts"]
        for horizon in config.price_prediction.horizons
    ]
    frame = pd.concat(frames, ignore_index=True)[["timestamp", "region", "horizon_minutes", "split", "price_forecast"]]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
    return frame


def interval(profits: Floats, possible: Floats, draws: int = 2000) -> tuple[float, float]:
    """5 % and 95 % of the pooled share when cells (window x region) are drawn anew."""
    picks = np.random.default_rng(0).integers(0, len(profits), (draws, len(profits)))
    low, high = np.quantile(profits[picks].sum(axis=1) / possible[picks].sum(axis=1), [0.05, 0.95])
    return float(low), float(high)


def no_better(ours: Floats, theirs: Floats, draws: int = 5000) -> float:
    """Bootstrap probability that the mean paired difference isn't above 0."""
    difference = ours - theirs
    picks = np.random.default_rng(0).integers(0, len(difference), (draws, len(difference)))
    return float((difference[picks].mean(axis=1) <= 0).mean())


def main() -> None:
    options = arguments()
    raw = pd.read_parquet(options.prices, columns=["timestamp", "region", "real_time_price"])
    if options.regions:
        raw = raw[raw["region"].isin(options.regions)]
    if options.minutes:
        raw = held(raw, options.minutes)
    prices = clean_prices(raw).frame[["timestamp", "region", "real_time_price"]]
    day = pd.Timedelta(days=1)
    first = prices["timestamp"].min().ceil("D") + options.skip * day
    last = prices["timestamp"].max().floor("D") + day
    length = (options.train + options.validation + options.test) * day
    room = (last - first - length) / day
    step = options.step or max(options.test, room / max(1, options.windows - 1))
    step = round(step * 2) / 2
    starts = [first + i * step * day for i in range(options.windows) if i * step <= room]
    gap = sorted(prices["timestamp"].unique())[:2]
    minutes = int((gap[1] - gap[0]) / pd.Timedelta(minutes=1))
    horizons = [h for h in ([1, 5, 15, 60] if minutes == 1 else [5, 15, 30, 60]) if h % minutes == 0]
    config = MLConfig(
        price_prediction=PricePredictionConfig(horizons=horizons, preset=options.preset),
        rl_battery=RLBatteryConfig(execution_delay=options.delay, wear_cost_per_mwh=options.wear),
        n_jobs=1,
    )
    battery = Battery.from_config(config.rl_battery)
    cells: list[pd.DataFrame] = []
    for number, start in enumerate(starts):
        began = time.perf_counter()
        split = TimeSplit(
            start,
            start + options.train * day,
            start + (options.train + options.validation) * day,
            start + length,
        )
        window = prices[(prices["timestamp"] >= split.start) & (prices["timestamp"] < split.end)].reset_index(drop=True)
        strategies: list[Strategy] = [ThresholdRule(), ObviousQLearning()]
        if not options.no_mpc:
            strategies.append(RollingMPC())
        forecasts = None
        bare = BatteryRLTrainer(config).train_all(prices=window, split=split)
        strategies.append(Named(WITHOUT, bare["policy"], blind=True))
        if options.forecasts == "project":
            forecasts = project_forecasts(window, split, config, options.forecasts_cache)
            if not options.no_mpc:
                strategies.append(RollingMPC("mpc_forecast", use_forecasts=True))
            trained = BatteryRLTrainer(config).train_all(prices=window, forecasts=forecasts, split=split)
            strategies.append(Named("ours", trained["policy"]))
        if options.delay:
            prompt = MLConfig(rl_battery=replace(config.rl_battery, execution_delay=0))
            early = BatteryRLTrainer(prompt).train_all(prices=window, forecasts=forecasts, split=split)
            strategies.append(Named("ours_trained_without_delay", early["policy"]))
        regions = sorted(window["region"].unique())
        result = backtest(
            window, strategies, reference_units(regions, battery), split, forecasts=forecasts,
            execution_delay=options.delay, bootstrap=2,
        ).summary  # fmt: skip
        result = result[result["battery_id"] != "all"] if len(regions) > 1 else result
        cells.append(result[["region", "strategy", "profit"]].assign(window=start))
        own = "ours" if forecasts is not None else WITHOUT
        sums = result.groupby("strategy")["profit"].sum()
        print(
            f"{number + 1:3d}/{len(starts)} test to {split.end:%Y-%m-%d %H:%M}: ours {sums[own] / sums[OPTIMUM]:6.1%}, "
            f"threshold {sums['threshold'] / sums[OPTIMUM]:6.1%}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    table = pd.concat(cells).pivot_table(index=["window", "region"], columns="strategy", values="profit")
    possible = table.pop(OPTIMUM).to_numpy()
    print(
        f"\n{len(starts)} windows, {table.index.get_level_values('region').nunique()} regions, {minutes} min, "
        f"{options.train:g} + {options.validation:g} d train, {options.test:g} d test, delay {options.delay}"
    )
    print(f"{'strategy':28s} {'pooled':>7s} {'5..95 %':>13s} {'median':>7s} {'losing':>7s} {'p':>6s}   by region")
    # Cells of one window share their weather: differences are drawn by window.
    by_window = table.groupby("window").sum()
    for name in table.mean().sort_values().index:
        profits = table[name].to_numpy()
        low, high = interval(profits, possible)
        shares = profits / possible
        regions = (table[name].groupby("region").sum() / pd.Series(possible, table.index).groupby("region").sum()) * 100
        p = no_better(by_window[name].to_numpy(), by_window[WITHOUT].to_numpy()) if name == "ours" else float("nan")
        print(
            f"{name:28s} {profits.sum() / possible.sum():7.1%} {low:6.1%}..{high:5.1%} {np.median(shares):7.1%} "
            f"{int((profits < 0).sum()):7d} {p:6.3f}   " + " ".join(f"{r} {v:.0f}" for r, v in regions.items())
        )


if __name__ == "__main__":
    main()
