"""Small synthetic markets for the battery's tests; nothing here is a test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from energy_ml.rl_battery.lookahead import Lookahead, path_lengths
from energy_ml.splits import TimeSplit, split_window


def market(
    days: float = 10, minutes: int = 15, regions: tuple[str, ...] = ("FR",), seed: int = 0, noise: float = 15.0
) -> tuple[pd.DataFrame, TimeSplit]:
    """A long price frame with a daily shape, a midday dip below zero and persistent noise, and its split."""
    start = pd.Timestamp("2026-01-05", tz="UTC")
    times = pd.date_range(start, periods=int(days * 1440 // minutes), freq=f"{minutes}min")
    hours = np.asarray(times.hour + times.minute / 60)
    rng = np.random.default_rng(seed)
    frames = []
    for region in regions:
        shocks = rng.normal(0, noise, len(times))
        for t in range(1, len(times)):
            shocks[t] += 0.8 * shocks[t - 1]
        prices = 60 - 45 * np.cos((hours - 19) / 12 * np.pi + np.pi) - 50 * np.exp(-(((hours - 13) / 2) ** 2)) + shocks
        frames.append(pd.DataFrame({"timestamp": times, "region": region, "real_time_price": prices}))
    frame = pd.concat(frames).sort_values(["timestamp", "region"]).reset_index(drop=True)
    return frame, split_window(start, start + pd.Timedelta(days=days))


def true_forecasts(prices: pd.DataFrame, horizons: tuple[int, ...], minutes: int, error: float = 0.0) -> pd.DataFrame:
    """A forecasts frame that knows the future, with a normal error of the given size."""
    rng = np.random.default_rng(5)
    frames = []
    for region, rows in prices.groupby("region"):
        for horizon in horizons:
            ahead = rows["real_time_price"].shift(-horizon // minutes)
            frames.append(
                pd.DataFrame(
                    {
                        "timestamp": rows["timestamp"],
                        "region": region,
                        "horizon_minutes": horizon,
                        "price_now": rows["real_time_price"],
                        "price_actual": ahead,
                        "price_forecast": ahead + rng.normal(0, error, len(rows)),
                    }
                ).dropna()
            )
    return pd.concat(frames).sort_values(["timestamp", "region", "horizon_minutes"]).reset_index(drop=True)


def random_lookahead(
    rng: np.random.Generator, interval: int, horizons: tuple[int, ...] = (15, 60), delay: int = 0
) -> Lookahead:
    """A price path of random weights."""
    whole, count = path_lengths(interval, delay), len(horizons)
    return Lookahead(
        lengths=whole.astype(np.float64),
        whole=whole,
        usual=rng.normal(0, 0.3, 24),
        weights=rng.normal(0, 0.2, (len(whole), 10)),
        horizons=np.array(horizons) / interval,
        lasting=-np.cumsum(rng.uniform(0, 0.5, count)),
        beyond=rng.uniform(0, 0.5, (len(whole), count)),
        delay=delay,
    )
