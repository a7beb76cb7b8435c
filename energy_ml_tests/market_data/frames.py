"""Small price frames for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

START = pd.Timestamp("2026-02-01", tz="UTC")
NOW = pd.Timestamp("2026-03-01", tz="UTC")


def prices(
    minutes: int = 120,
    regions: Sequence[str] = ("DE", "FR"),
    interval: int = 1,
    start: pd.Timestamp = START,
    seed: int = 0,
) -> pd.DataFrame:
    """Complete long prices, sorted by time and region; no price repeats."""
    times = pd.date_range(start, periods=minutes // interval, freq=f"{interval}min", unit="ns")
    frame = pd.DataFrame(
        {
            "timestamp": np.repeat(times, len(regions)),
            "region": list(regions) * len(times),
            "real_time_price": 0.0,
        }
    )
    frame["real_time_price"] = np.random.default_rng(abs(seed)).normal(60, 20, len(frame)).round(4)
    return frame


def telemetry(rows: int = 60, batteries: Sequence[str] = ("a", "b"), interval: int = 1) -> pd.DataFrame:
    """Telemetry of batteries of 10 MWh that stand still at 5 MWh."""
    times = pd.date_range(START, periods=rows, freq=f"{interval}min", unit="ns")
    return pd.DataFrame(
        {
            "timestamp": np.repeat(times, len(batteries)),
            "battery_id": list(batteries) * rows,
            "charge_level_mwh": 5.0,
            "capacity_mwh": 10.0,
        }
    )
