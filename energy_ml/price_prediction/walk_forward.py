"""Walk-forward backtest: train and forecast as of many past days, exactly as production does.

What belongs here: the loop over as-of dates, and resuming it. What doesn't: another pipeline than the trainer's.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed

from energy_ml.artifacts import write_atomically
from energy_ml.config import MLConfig, Settings
from energy_ml.errors import IncompleteWindowError
from energy_ml.features import feature_columns
from energy_ml.market_data.window import fingerprint_of
from energy_ml.price_prediction.trainer import PricePredictionTrainer
from energy_ml.provenance import code_digest, config_digest
from energy_ml.splits import window_of
from energy_ml.training_window import lake_of, read_window, split_of, window_features, with_history

ReadPrices = Callable[[pd.Timestamp, pd.Timestamp], pd.DataFrame]
"""Cleaned long prices of a half-open UTC window, and of what lies before it, which teaches as history."""


def walk_forward(
    read_prices: ReadPrices,
    as_of: Sequence[dt.date],
    config: MLConfig,
    *,
    days: int = 10,
    cache_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Out-of-sample forecasts of the test part of each as-of date's window.

    Parameters
    ----------
    read_prices : called once per window.
    as_of : days whose trailing window of ``days`` is trained on.
    cache_dir : finished dates are kept here and not computed again, unless prices, regions, config, window or this
        package's code have changed.

    Returns
    -------
    forecasts frame with a first column ``as_of`` (ISO date), test rows only, ordered by date.

    Raises IncompleteWindowError for a window without rows, and the trainer's errors.
    """
    frames = []
    for date in as_of:
        prices = read_prices(*window_of(date, days))
        path = None if cache_dir is None else Path(cache_dir) / _kept_as(date, prices, config, days)
        if path is not None and path.is_file():
            frames.append(pd.read_parquet(path))
            continue
        frames.append(_one_date(prices, date, config, days))
        if path is not None:
            write_atomically(path, frames[-1].to_parquet(index=False))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _kept_as(date: dt.date, prices: pd.DataFrame, config: MLConfig, days: int) -> str:
    """File name of a date's result: it holds a digest of all that the result depends on."""
    parts = {
        "prices": fingerprint_of(prices),
        "config": config_digest(config.price_prediction),
        "gpu": config.enable_gpu,
        "days": days,
        "code": code_digest(),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{date.isoformat()}-{digest[:16]}.parquet"


def walk_forward_parallel(
    settings: Settings,
    as_of: Sequence[dt.date],
    *,
    cache_dir: str | Path,
    jobs: int = 2,
    progress: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """``walk_forward`` as the settings say, over their files, several dates at once, one thread and one process each.

    Finished dates are kept in ``cache_dir``, so that an interrupted call goes on where it stopped; ``progress`` is
    called with the fraction done.
    """
    work = (delayed(_from_files)(settings, date, cache_dir) for date in as_of)
    done = {}
    for date, frame in Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
        done[date] = frame
        if progress is not None:
            progress(len(done) / len(as_of))
    return pd.concat([done[date] for date in as_of], ignore_index=True)


def _from_files(settings: Settings, date: dt.date, cache_dir: str | Path) -> tuple[dt.date, pd.DataFrame]:
    config = replace(settings.ml_config(), n_jobs=1)
    lake = lake_of(settings)
    prices = with_history(settings, lake, read_window(settings, lake, date))
    days = settings.training_window_days
    return date, walk_forward(lambda start, end: prices, [date], config, days=days, cache_dir=cache_dir)


def _one_date(prices: pd.DataFrame, date: dt.date, config: MLConfig, days: int) -> pd.DataFrame:
    start, end = window_of(date, days)
    if not len(prices):
        raise IncompleteWindowError(
            f"there are no prices from {start} to {end}", expected=f"{days} days of prices", remedy="choose other dates"
        )
    trainer = PricePredictionTrainer(config)
    features = window_features(prices, start, config.price_prediction)
    names, split = feature_columns(features), split_of(start, end, config.price_prediction)
    history = prices[prices["timestamp"] < start]
    parts = []
    for horizon in config.price_prediction.horizons:
        made = trainer.train_for_horizon(features, names, horizon, split=split, history=history)["forecasts"]
        parts.append(made[made["split"] == "test"])
    out = pd.concat(parts, ignore_index=True)
    out.insert(0, "as_of", date.isoformat())
    return out
