"""Share of the perfect-foresight profit that each strategy earns, over many windows of price files; a table per file.

    python benchmarks/battery_shares.py australia.parquet new_york.parquet          # 7 + 1.5 d train, 1.5 d test
    python benchmarks/battery_shares.py prices.parquet --train 54 --validation 6 --test 30 --step 6 --windows 30
    python benchmarks/battery_shares.py prices.parquet --delay 1                    # act one interval late
    python benchmarks/battery_shares.py prices.parquet --wear 10 --fees 5           # currency per MWh
    python benchmarks/battery_shares.py prices.parquet --cache forecasts --rows rows.csv     # a long run, to go on with

A file has timestamp, region and real_time_price. Forecasts are the project's own, learned with up to ``--history`` days
before the window as far as the file reaches: cross-fitted on train, out of sample after it.
With ``--rows`` each window's profits are written down as it is done and not computed again; a table covers all windows
of its file found there, also those of earlier calls with another ``--skip`` or ``--step``.

Beside rivals stand the policy without its parts: the plan alone (table zeroed), with its forecasts withheld, and both.
Intervals and p come from a block bootstrap over calendar days (blocks of a week where tests are longer than that), all
regions of a day together: they share their weather. p: resamples in which ours earns no more than the other.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import pandas as pd

from energy_ml.config import MLConfig, PricePredictionConfig, RLBatteryConfig
from energy_ml.evaluation.backtest_evaluator import backtest, mark_to_market, reference_units
from energy_ml.features import WARM_UP_MINUTES
from energy_ml.market_data import clean_prices
from energy_ml.names import MPC_FORECAST, THRESHOLD
from energy_ml.names import OUR_POLICY as OURS
from energy_ml.names import PERFECT_FORESIGHT as OPTIMUM
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.rl_battery.baselines import RollingMPC, ThresholdRule, reduced
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.strategy import Strategy
from energy_ml.rl_battery.trainer import BatteryRLTrainer
from energy_ml.splits import TimeSplit

DAY = pd.Timedelta(days=1)
KEY = ["market", "setting", "window", "region", "day", "strategy"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", type=Path, nargs="+")
    parser.add_argument("--train", type=float, default=7.0, help="days")
    parser.add_argument("--validation", type=float, default=1.5, help="days")
    parser.add_argument("--test", type=float, default=1.5, help="days")
    parser.add_argument("--windows", type=int, default=25)
    parser.add_argument("--skip", type=float, default=0.0, help="days left out at the start of the file")
    parser.add_argument(
        "--step", type=float, default=None, help="days from window to window; evenly spread if left out"
    )
    parser.add_argument("--regions", nargs="*", default=None)
    parser.add_argument("--delay", type=int, default=0, help="execution delay, intervals")
    parser.add_argument("--wear", type=float, default=0.0, help="currency per MWh discharged")
    parser.add_argument("--fees", type=float, default=0.0, help="currency per MWh bought or sold")
    parser.add_argument("--ends", nargs="*", default=None, help="last days of the windows, instead of the steps")
    parser.add_argument("--forecasts", choices=["project", "none"], default="project")
    parser.add_argument("--history", type=int, default=PricePredictionConfig.history_days, help="days before a window")
    parser.add_argument("--preset", choices=["fast", "best"], default=PricePredictionConfig.preset)
    parser.add_argument("--cache", type=Path, default=None, help="folder where forecasts are kept")
    parser.add_argument("--rows", type=Path, default=None, help="CSV file where profits are kept")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def project_forecasts(prices: pd.DataFrame, split: TimeSplit, config: MLConfig, cache: Path | None) -> pd.DataFrame:
    """The project's out-of-sample forecasts of a window, from the cache if they are there.

    ``prices`` before the window are its warm-up and history.
    """
    mark = hashlib.sha256(pd.util.hash_pandas_object(prices, index=False).to_numpy().tobytes())
    mark.update(repr((split.to_dict(), config.price_prediction.__dict__)).encode())
    path = None if cache is None else cache / f"{mark.hexdigest()[:24]}.parquet"
    if path is not None and path.exists():
        return pd.read_parquet(path)
    trainer = PricePredictionTrainer(config)
    prices.attrs["window_start"] = split.start.isoformat()
    features, names = trainer.prepare_data(prices)
    frames = [
        trainer.train_for_horizon(features, names, horizon, split=split)["forecasts"]
        for horizon in config.price_prediction.horizons
    ]
    frame = pd.concat(frames, ignore_index=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
    return frame


def evaluate(prices: pd.DataFrame, split: TimeSplit, config: MLConfig, options: argparse.Namespace) -> pd.DataFrame:
    """Profit of every strategy on the test of one window: region, day, strategy, profit."""
    forecasts = None
    if options.forecasts == "project":
        forecasts = project_forecasts(prices, split, config, options.cache)
    prices = prices[prices["timestamp"] >= split.start].reset_index(drop=True)
    strategies: list[Strategy] = [ThresholdRule(), RollingMPC()]
    policy = BatteryRLTrainer(config).train_all(prices=prices, forecasts=forecasts, split=split)["policy"]
    strategies += reduced(policy)[: 2 if forecasts is None else None]
    if forecasts is not None:
        strategies.append(RollingMPC(MPC_FORECAST, use_forecasts=True))
    result = backtest(
        prices,
        strategies,
        reference_units(sorted(prices["region"].unique()), Battery.from_config(config.rl_battery), options.delay),
        split,
        forecasts=forecasts,
        bootstrap=2,
        threads=options.threads,
    )
    facts = result.summary[result.summary["region"] != "all"]
    marked = mark_to_market(result.frame, facts)
    marked["day"] = marked["timestamp"].dt.strftime("%Y-%m-%d")
    return marked.groupby(["region", "day", "strategy"], as_index=False)["profit"].sum()


def resample(days: pd.DataFrame, test: float, draws: int = 4000) -> pd.DataFrame:
    """Bootstrap sums of the columns of ``days`` (one row per calendar day, in order), one row per draw."""
    block = min(7, len(days)) if test > 7 else 1
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(days), (draws, -(-len(days) // block)))
    picks = ((first[:, :, None] + np.arange(block)) % len(days)).reshape(draws, -1)[:, : len(days)]
    return pd.DataFrame({name: days[name].to_numpy()[picks].sum(axis=1) for name in days})


def report(rows: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print the table of one setting's rows."""
    cells = rows.pivot_table(index=["window", "region"], columns="strategy", values="profit", aggfunc="sum")
    drawn = resample(rows.pivot_table(index="day", columns="strategy", values="profit", aggfunc="sum"), options.test)
    possible, windows = cells[OPTIMUM], cells.index.get_level_values("window").nunique()
    regions = cells.index.get_level_values("region").unique()
    print(
        f"\n{windows} windows, {len(regions)} regions, {options.train:g} + {options.validation:g} d train, "
        f"{options.test:g} d test, delay {options.delay}, wear {options.wear:g}, fees {options.fees:g}"
    )
    print(
        f"{'strategy':31s} {'pooled':>7s} {'5..95 %':>13s} {'by start':>8s} {'median':>7s} {'losing':>7s}   by region"
    )
    names = [name for name in cells.mean().sort_values().index if name != OPTIMUM]
    together = cells.groupby("window").sum()
    for name in names:
        shares = drawn[name] / drawn[OPTIMUM]
        by_region = 100 * cells[name].groupby("region").sum() / possible.groupby("region").sum()
        median, losing = (cells[name] / possible).median(), int((cells[name] < 0).sum())
        print(
            f"{name:31s} {cells[name].sum() / possible.sum():7.1%} {shares.quantile(0.05):6.1%}.."
            f"{shares.quantile(0.95):5.1%} {(together[name] / together[OPTIMUM]).mean():8.1%} {median:7.1%} "
            f"{losing:7d}   " + " ".join(f"{region} {share:.0f}" for region, share in by_region.items())
        )
    for rival in names:
        if rival == OURS:
            continue
        gain = (drawn[OURS] - drawn[rival]) / drawn[OPTIMUM]
        print(
            f"{OURS} minus {rival}: {(cells[OURS] - cells[rival]).sum() / possible.sum():+.1%} of the optimum "
            f"({gain.quantile(0.05):+.1%}..{gain.quantile(0.95):+.1%}), p {(gain <= 0).mean():.4f}"
        )
    lost = cells[(cells[OURS] < 0) & (cells[THRESHOLD] > 0)]
    print(
        f"cells (window x region) in which {OURS} loses money and the threshold rule earns: {len(lost)} of {len(cells)}"
    )
    lost = together[(together[OURS] < 0) & (together[THRESHOLD] > 0)]
    print(f"windows, all regions together, in which that happens: {len(lost)} of {len(together)}")


def windows_of(prices: pd.DataFrame, options: argparse.Namespace) -> list[TimeSplit]:
    """The windows of a file, as the options say."""
    days = np.cumsum([options.train, options.validation, options.test])
    if options.ends:
        starts = [pd.Timestamp(end, tz="UTC") + DAY - days[-1] * DAY for end in options.ends]
    else:
        first = prices["timestamp"].min().ceil("D") + options.skip * DAY
        room = (prices["timestamp"].max().floor("D") + DAY - first - days[-1] * DAY) / DAY
        step = options.step or max(options.test, room / max(1, options.windows - 1))
        step = round(step * 2) / 2
        starts = [first + i * step * DAY for i in range(options.windows) if i * step <= room]
    return [TimeSplit(start, *[start + d * DAY for d in days]) for start in starts]


def measure(path: Path, options: argparse.Namespace) -> None:
    """Measure one file's windows and print its table."""
    raw = pd.read_parquet(path, columns=["timestamp", "region", "real_time_price"])
    if options.regions:
        raw = raw[raw["region"].isin(options.regions)]
    prices = clean_prices(raw).frame
    gap = sorted(prices["timestamp"].unique())[:2]
    minutes = int((gap[1] - gap[0]) / pd.Timedelta(minutes=1))
    horizons = [h for h in ([1, 5, 15, 60] if minutes == 1 else [5, 15, 30, 60]) if h % minutes == 0]
    config = MLConfig(
        price_prediction=PricePredictionConfig(horizons=horizons, preset=options.preset, history_days=options.history),
        rl_battery=RLBatteryConfig(
            execution_delay=options.delay,
            wear_cost_per_mwh=options.wear,
            buy_fee_per_mwh=options.fees,
            sell_fee_per_mwh=options.fees,
        ),
        n_jobs=options.threads,
    )
    setting = (
        f"{options.train:g}+{options.validation:g}/{options.test:g} d {minutes} min "
        f"delay {options.delay} wear {options.wear:g} fees {options.fees:g} {options.forecasts} {options.preset} "
        f"history {options.history}"
    )
    known = pd.DataFrame(columns=[*KEY, "profit"])
    if options.rows is not None and options.rows.exists():
        known = pd.read_csv(options.rows)
        known = known[(known["setting"] == setting) & (known["market"] == path.stem)]
    parts = [known] if len(known) else []
    splits = windows_of(prices, options)
    for number, split in enumerate(splits):
        name = f"{split.end:%Y-%m-%d %H:%M}"
        if name in set(known["window"]):
            continue
        began, worked = time.perf_counter(), time.process_time()
        days = config.price_prediction.history_days * DAY
        since = split.start - days - (days > 0 * DAY) * WARM_UP_MINUTES * pd.Timedelta(minutes=1)
        window = prices[(prices["timestamp"] >= since) & (prices["timestamp"] < split.end)].reset_index(drop=True)
        rows = evaluate(window, split, config, options)
        rows = rows.assign(market=path.stem, setting=setting, window=name)[[*KEY, "profit"]]
        parts.append(rows)
        if options.rows is not None:
            rows.to_csv(options.rows, mode="a", header=not options.rows.exists(), index=False)
        sums = rows.groupby("strategy")["profit"].sum() / rows.loc[rows["strategy"] == OPTIMUM, "profit"].sum()
        print(
            f"{number + 1:3d}/{len(splits)} test to {name}: ours {sums[OURS]:6.1%}, threshold {sums[THRESHOLD]:6.1%}, "
            f"{time.perf_counter() - began:.0f} s, {time.process_time() - worked:.0f} s CPU",
            flush=True,
        )
    print(f"\n{path.stem}: {setting}", end="")
    report(pd.concat(parts, ignore_index=True), options)


def main() -> None:
    options = arguments()
    for path in options.prices:
        measure(path, options)


if __name__ == "__main__":
    main()
