"""Price frames for tests: spiky, stepwise prices with gaps, NaN and any order of rows.

What belongs here: making frames. What doesn't: assertions.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import strategies as st

START = pd.Timestamp("2026-01-30 21:00", tz="UTC")


def price_matrix(n_times: int, n_regions: int, seed: int, nan_share: float = 0.0) -> np.ndarray:
    """(T, R) prices: a third repeats the last price, moves have heavy tails, some are negative."""
    rng = np.random.default_rng(seed)
    moves = np.where(rng.random((n_times, n_regions)) < 0.33, 0.0, rng.standard_t(2, (n_times, n_regions)) * 5)
    prices = np.round(40 + moves.cumsum(axis=0), 2)
    prices[rng.random(prices.shape) < nan_share] = np.nan
    return prices


def long_frame(prices: np.ndarray, interval_minutes: int = 5, start: pd.Timestamp = START) -> pd.DataFrame:
    """A complete grid as a long frame sorted by timestamp, then region."""
    n_times, n_regions = prices.shape
    times = pd.date_range(start, periods=n_times, freq=f"{interval_minutes}min", unit="ns")
    return pd.DataFrame(
        {
            "timestamp": times.repeat(n_regions),
            "region": [f"R{region}" for region in range(n_regions)] * n_times,
            "real_time_price": prices.reshape(-1),
        }
    )


@st.composite
def price_frames(
    draw: st.DrawFn, min_times: int = 3, max_times: int = 60, intervals: tuple[int, ...] = (1, 5, 15, 30, 60)
) -> tuple[pd.DataFrame, int]:
    """Frames of 1 to 4 regions with rows missing, NaN prices, shuffled rows and an odd index; and their interval."""
    n_times, n_regions = draw(st.integers(min_times, max_times)), draw(st.integers(1, 4))
    seed, interval = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(intervals))
    frame = long_frame(price_matrix(n_times, n_regions, seed, draw(st.sampled_from([0.0, 0.1]))), interval)
    rng = np.random.default_rng(seed)
    if draw(st.booleans()):
        keep = rng.random(len(frame)) > 0.1
        # A whole region may lack its beginning, as one that joins the market late.
        keep &= ~((frame["region"] == "R1") & (np.arange(len(frame)) < len(frame) // 3)).to_numpy()
        keep[0] = True
        frame = frame[keep]
    if draw(st.booleans()):
        frame = frame.sample(frac=1, random_state=seed % 2**31)
    return frame, interval


def by_cell(frame: pd.DataFrame) -> dict[tuple[pd.Timestamp, str], float]:
    """Known prices by timestamp and region."""
    known = frame.dropna(subset=["real_time_price"])
    return dict(zip(zip(known["timestamp"], known["region"], strict=True), known["real_time_price"], strict=True))
