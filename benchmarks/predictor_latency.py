"""How long a forecast of all horizons with intervals takes, from recent prices in a frame or a panel.

Usage: python benchmarks/predictor_latency.py [--calls 2000] [--preset best] [--models DIR]

Trains small models on made-up one-minute prices (or takes the models of a folder), then asks for forecasts from a new
frame each time: recent prices of 1 and 5 regions, 120 minutes, one day and all history that features look back on.
Beside them stands XGBoost's own ``inplace_predict`` of the same boosters, one row each, without any features. Wall time
is what a caller waits, CPU time what it costs when the machine is busy with other things.
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.features import PriceFeatureSpec, required_history, to_panel
from energy_ml.market_data.simulator import simulate_market
from energy_ml.price_prediction import PricePredictionTrainer, PricePredictor

HORIZONS = [1, 5, 15, 60]
REGIONS = ["BE", "DE", "ES", "FR", "IT"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--days", type=int, default=7, help="of made-up prices")
    parser.add_argument("--train-days", type=int, default=3)
    parser.add_argument("--preset", choices=["fast", "best"], default="best")
    parser.add_argument("--models", type=Path, default=None, help="folder of model_{h}min.pkl instead of training")
    return parser.parse_args()


def measure(call: Callable[[int], object], calls: int) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds of wall and CPU time per call; the first calls, which compile and load, don't count."""
    for number in range(10):
        call(number)
    wall, cpu = np.empty(calls), np.empty(calls)
    for number in range(calls):
        wall_start, cpu_start = time.perf_counter_ns(), time.thread_time_ns()
        call(number)
        cpu[number], wall[number] = time.thread_time_ns() - cpu_start, time.perf_counter_ns() - wall_start
    return wall / 1e3, cpu / 1e3


def show(name: str, call: Callable[[int], object], calls: int) -> None:
    wall, cpu = measure(call, calls)
    figures = [*np.percentile(wall, [50, 99]), *np.percentile(cpu, [50, 99]), cpu.min()]
    print(f"{name:62s}" + "".join(f"{figure:10,.0f}" for figure in figures), flush=True)


def main() -> None:
    args = arguments()
    predictor = PricePredictor(args.models) if args.models is not None else PricePredictor()
    names = list(predictor.model(predictor.horizons[0]).regions) if args.models is not None else REGIONS
    prices = simulate_market(days=args.days, regions=names, start=dt.date(2026, 1, 1), interval_minutes=1, seed=1)
    prices = prices[["timestamp", "region", "real_time_price"]]
    prices = prices.sort_values(["timestamp", "region"], ignore_index=True)
    if args.models is None:
        config = MLConfig(price_prediction=PricePredictionConfig(horizons=HORIZONS, preset=args.preset), n_jobs=1)
        trainer = PricePredictionTrainer(config)
        features, columns = trainer.prepare_data(prices[: args.train_days * 1440 * len(REGIONS)])
        for horizon in HORIZONS:
            trainer.train_for_horizon(features, columns, horizon)
        predictor.use(trainer.models)
    horizons = predictor.horizons
    trees = sum(len(predictor.model(horizon).fitted.forest.roots) for horizon in horizons)
    print(f"{len(horizons)} horizons, {trees:,} trees; microseconds per call over {args.calls:,} calls")
    print(f"{'':62s}{'wall p50':>10s}{'p99':>10s}{'CPU p50':>10s}{'p99':>10s}{'least':>10s}")

    history = required_history(PriceFeatureSpec(), 1)
    for regions, minutes in [(n, length) for n in sorted({1, len(names)}) for length in (120, 1440, history)]:
        chosen = prices[prices["region"].isin(names[:regions])]
        whole = len(chosen) // regions
        # A service gets another frame with every request.
        ends = np.linspace(min(minutes, whole), whole, 40).astype(int)
        frames = [chosen[(end - min(minutes, end)) * regions : end * regions].reset_index(drop=True) for end in ends]
        panels = [to_panel(frame, ["real_time_price"]) for frame in frames]
        what = f"{regions} region{'s' * (regions > 1)}, {minutes:,} min"
        show(
            f"{what}: frame, one region's rows",
            lambda i, frames=frames: predictor.predict_rows(frames[i % len(frames)], horizons, names[:1]),
            args.calls,
        )
        show(
            f"{what}: panel, one region's rows",
            lambda i, panels=panels: predictor.predict_rows(panels[i % len(panels)], horizons, names[:1]),
            args.calls,
        )
        if regions > 1:
            show(
                f"{what}: frame, all regions' rows",
                lambda i, frames=frames: predictor.predict_rows(frames[i % len(frames)], horizons),
                args.calls,
            )
        show(
            f"{what}: frame, predict_many (a frame again)",
            lambda i, frames=frames: predictor.predict_many(frames[i % len(frames)], horizons),
            max(args.calls // 4, 10),
        )

    models = [predictor.model(horizon) for horizon in horizons]
    boosters = [model.fitted.booster(place) for model in models for place in range(len(model.fitted.boosters))]
    for booster in boosters:
        booster.set_param({"nthread": 1})
    rows = models[0].sample_rows
    show(
        f"XGBoost inplace_predict, {len(boosters)} boosters, one row, no features",
        lambda i: [booster.inplace_predict(rows[i % len(rows)][None]) for booster in boosters],
        max(args.calls // 4, 10),
    )
    forests = [model.fitted.forest for model in models]
    show(
        "the same trees as flat arrays",
        lambda i: [forest.predict(rows[i % len(rows)][None]) for forest in forests],
        args.calls,
    )


if __name__ == "__main__":
    main()
