"""A data folder on a real file system, with half-hourly prices by day, and settings that point at it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from energy_ml.config import Settings

FIRST = dt.date(2026, 1, 1)
INTERVAL = 30


def settings_for(root: Path, **more: str) -> Settings:
    """Three-day windows from 2026-01-01 on, in folders below ``root``; a file settles at once."""
    return Settings.from_env(
        {
            "ENERGY_ML_DATA_DIR": str(root / "data"),
            "ENERGY_ML_RESULTS_DIR": str(root / "results"),
            "ENERGY_ML_MODELS_DIR": str(root / "models"),
            "ENERGY_ML_START_DATE": FIRST.isoformat(),
            "ENERGY_ML_TRAINING_WINDOW_DAYS": "3",
            "ENERGY_ML_HORIZONS": "30,60",
            "ENERGY_ML_SETTLE_SECONDS": "0",
            **{f"ENERGY_ML_{name}": value for name, value in more.items()},
        }
    )


def day(number: int) -> dt.date:
    """The n-th day of the data, from 1."""
    return FIRST + dt.timedelta(days=number - 1)


def prices(*numbers: int, regions: Sequence[str] = ("DE", "FR"), until: int = 1440, shift: float = 0.0) -> pd.DataFrame:
    """Prices of the numbered days, up to minute ``until`` of each; the same day always has the same prices."""
    frames = []
    for number in numbers:
        times = pd.date_range(pd.Timestamp(day(number), tz="UTC"), periods=until // INTERVAL, freq="30min", unit="ns")
        values = np.random.default_rng(number).normal(60, 20, (len(times), len(regions))).round(3) + shift
        frames.append(
            pd.DataFrame(
                {
                    "timestamp": np.repeat(times, len(regions)),
                    "region": list(regions) * len(times),
                    "real_time_price": values.ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def put(root: Path, name: str, frame: pd.DataFrame) -> Path:
    """Write ``frame`` as ``data/<name>``."""
    path = root / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    return path
