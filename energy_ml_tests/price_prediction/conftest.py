"""A small made-up market and models trained on it once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.splits import TimeSplit, split_window

REGIONS = ("AA", "BB", "CC")


def market(days: float = 3.0, interval: int = 15, seed: int = 0, regions: tuple[str, ...] = REGIONS) -> pd.DataFrame:
    """Mean-reverting prices with a daily shape, common shocks and a few spikes; a long price frame."""
    rng = np.random.default_rng(seed)
    n = int(days * 1440 / interval)
    times = pd.date_range("2025-03-01", periods=n, freq=f"{interval}min", tz="UTC").as_unit("ns")
    shape = 40 + 20 * np.sin(2 * np.pi * np.arange(n) * interval / 1440)
    out = []
    common = rng.normal(0, 4, n)
    for number, region in enumerate(regions):
        shocks = common + rng.normal(0, 3, n) + (rng.random(n) < 0.01) * rng.exponential(150, n)
        deviation = np.zeros(n)
        for t in range(1, n):
            deviation[t] = 0.8 * deviation[t - 1] + shocks[t]
        prices = shape + 5 * number + deviation
        out.append(pd.DataFrame({"timestamp": times, "region": region, "real_time_price": prices}))
    return pd.concat(out).sort_values(["timestamp", "region"], ignore_index=True)


def small_config(**changes: object) -> MLConfig:
    settings: dict = {"horizons": [15, 60], "n_estimators": 8, "early_stopping_rounds": 4, "preset": "fast"} | changes
    return MLConfig(price_prediction=PricePredictionConfig(**settings), n_jobs=1)


def whole_split(prices: pd.DataFrame) -> TimeSplit:
    times = pd.DatetimeIndex(prices["timestamp"]).unique()
    return split_window(times[0], times[-1] + (times[1] - times[0]))


@pytest.fixture(scope="session")
def prices() -> pd.DataFrame:
    return market()


@pytest.fixture(scope="session")
def trained(prices: pd.DataFrame) -> PricePredictionTrainer:
    """Both presets' machinery at its smallest: two horizons of the fast preset."""
    trainer = PricePredictionTrainer(small_config())
    features, names = trainer.prepare_data(prices)
    for horizon in (15, 60):
        trainer.train_for_horizon(features, names, horizon)
    return trainer
