"""Training all horizons on the sample's size beside mlforecast + LightGBM with as many trees.

    python benchmarks/training_speed.py                       # both presets, two threads each
    python benchmarks/training_speed.py --threads 1 --repeats 3

14,400 minutes x 5 regions of simulated prices, horizons 1, 5, 15, 60. First like for like: as many trees of the same
depth on the same rows, features included, all horizons on our shared binned matrix against mlforecast's models per
horizon. Then what really happens: our whole training (ensemble, quantiles, early stopping, cross-fitted forecasts of
every row, gate, intervals), and mlforecast + LightGBM with as many trees as that built.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.market_data.simulator import simulate_market
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.price_prediction.boosting import BinnedPool, booster_parameters, fit_rounds
from energy_ml.price_prediction.design import Design, to_volatility
from energy_ml.price_prediction.ensemble import Preset, preset_of
from energy_ml.splits import split_window

HORIZONS = (1, 5, 15, 60)
LEARN = 0.85


def timed(run: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median wall and CPU seconds of all threads, and the last result."""
    wall, cpu, result = [], [], None
    for _ in range(repeats):
        started, busy = time.perf_counter(), time.process_time()
        result = run()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - busy)
    return statistics.median(wall), statistics.median(cpu), result


def ours_alike(prices: pd.DataFrame, trees: int, depth: int, threads: int) -> list[xgb.Booster]:
    """Features, one shared binned matrix, and a booster per horizon on all rows that may teach."""
    config = PricePredictionConfig(horizons=list(HORIZONS), n_estimators=trees, max_depth=depth)
    preset: Preset = preset_of(config)
    member = next(m for m in preset.members if m.name == "brief")
    features, names = PricePredictionTrainer(config).prepare_data(prices)
    n_regions = prices["region"].nunique()
    price = features["real_time_price"].to_numpy(dtype=np.float64)
    learn = np.arange(int(len(features) * LEARN) // n_regions * n_regions)
    design = Design.plan(names, sorted(features["region"].unique()), price[learn].reshape(-1, n_regions))
    pool = BinnedPool(design.rows(features, "real_time_price").__getitem__, learn, preset.max_bin)
    vol = design.volatility(features)
    parameters = booster_parameters(member, len(learn), seed=42, max_bin=preset.max_bin, device="cpu")

    def fit(horizon: int) -> xgb.Booster:
        future = np.full(len(price), np.nan)
        future[: -horizon * n_regions] = price[horizon * n_regions :]
        with pool.borrow() as binned:
            target = to_volatility(price, future, vol)[learn]
            return fit_rounds(
                parameters, binned.labelled(learn, target, np.ones(len(learn))), trees, lambda number, score: None
            )

    with ThreadPoolExecutor(threads) as workers:
        return list(workers.map(fit, HORIZONS))


def mlforecast(prices: pd.DataFrame, trees: int, depth: int, threads: int) -> list[Any]:
    """mlforecast's lags, windows and calendar as in our config on differences, and LightGBM, a model per horizon.

    Features are made once and the models fitted on them directly, since releases before 1.1 would fit all sixty steps.
    """
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMax, RollingMean, RollingMin, RollingStd
    from mlforecast.target_transforms import Differences

    config = PricePredictionConfig()
    long = prices.rename(columns={"region": "unique_id", "timestamp": "ds", "real_time_price": "y"})
    long = long.assign(ds=long["ds"].dt.tz_localize(None)).iloc[: int(len(long) * LEARN)]
    kinds = (RollingMean, RollingStd, RollingMin, RollingMax)
    engine = MLForecast(
        models=[],
        freq="1min",
        lags=list(config.price_lags),
        lag_transforms={1: [kind(window) for window in config.rolling_windows for kind in kinds]},
        date_features=["hour", "minute", "dayofweek"],
        target_transforms=[Differences([1])],
        num_threads=threads,
    )
    rows = engine.preprocess(long[["unique_id", "ds", "y"]], static_features=[])
    inputs = rows.drop(columns=["unique_id", "ds", "y"])
    models = []
    for horizon in HORIZONS:
        target = rows.groupby("unique_id", sort=False)["y"].shift(1 - horizon)
        known = target.notna()
        model = LGBMRegressor(
            objective="l1",
            n_estimators=trees,
            learning_rate=config.learning_rate,
            max_depth=depth,
            num_leaves=2**depth,
            subsample=config.subsample,
            subsample_freq=1,
            colsample_bytree=config.colsample_bytree,
            n_jobs=threads,
            verbose=-1,
        )
        models.append(model.fit(inputs[known], target[known]))
    return models


class Counter:
    """Trees that XGBoost grows while this is entered; one round of seven quantiles is seven trees."""

    def __enter__(self) -> Counter:
        self.trees, self._train = 0, xgb.train

        def counting(parameters: dict[str, Any], matrix: xgb.DMatrix, *args: Any, **kwargs: Any) -> xgb.Booster:
            booster = self._train(parameters, matrix, *args, **kwargs)
            self.trees += booster.num_boosted_rounds() * max(np.size(parameters.get("quantile_alpha", 0)), 1)
            return booster

        xgb.train = counting
        return self

    def __exit__(self, *_: object) -> None:
        xgb.train = self._train


def ours_whole(prices: pd.DataFrame, preset: str, threads: int) -> PricePredictionTrainer:
    """What a run trains, for all horizons."""
    config = MLConfig(price_prediction=PricePredictionConfig(horizons=list(HORIZONS), preset=preset), n_jobs=threads)
    trainer = PricePredictionTrainer(config)
    features, names = trainer.prepare_data(prices)
    times = pd.DatetimeIndex(prices["timestamp"]).unique()
    split = split_window(times[0], times[-1] + (times[1] - times[0]))
    for horizon in HORIZONS:
        trainer.train_for_horizon(features, names, horizon, split=split)
    return trainer


def main() -> None:
    """Print one line per candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--regions", type=int, default=5)
    parser.add_argument("--presets", nargs="*", default=["fast", "best"])
    options = parser.parse_args()
    prices = simulate_market(options.days, options.regions, dt.date(2026, 1, 30))
    defaults = PricePredictionConfig()
    trees, depth, threads = defaults.n_estimators, defaults.max_depth, options.threads
    # A small run first: compiling and importing belong to no candidate.
    small = prices.iloc[: 1440 * options.regions * 3]
    ours_alike(small, 2, 3, 1)
    mlforecast(small, 2, 3, 1)
    ours_whole(small, "fast", 1)
    print(f"{len(prices):,} rows, horizons {', '.join(map(str, HORIZONS))}, {threads} threads; wall s, CPU s")

    def line(name: str, figures: tuple[float, float, Any], note: str = "") -> None:
        print(f"{name:<58}{figures[0]:>8.1f}{figures[1]:>8.1f}  {note}", flush=True)

    print(f"as many trees on the same rows: {trees} per horizon, depth {depth}")
    line("  ours", timed(lambda: ours_alike(prices, trees, depth, threads), options.repeats))
    line("  mlforecast + LightGBM", timed(lambda: mlforecast(prices, trees, depth, threads), options.repeats))
    for preset in options.presets:
        with Counter() as counter:
            figures = timed(lambda preset=preset: ours_whole(prices, preset, threads), options.repeats)
        grown = counter.trees // options.repeats
        print(f"all that a run trains, preset {preset}")
        line("  ours", figures, f"{grown:,} trees")
        per_horizon = max(round(grown / len(HORIZONS)), 1)
        theirs = timed(lambda n=per_horizon: mlforecast(prices, n, depth, threads), options.repeats)
        line("  mlforecast + LightGBM, as many trees", theirs, f"{per_horizon * len(HORIZONS):,} trees, points only")


if __name__ == "__main__":
    main()
