"""The split is by time, covers the window once, and no target crosses a boundary."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import SplitError
from energy_ml.splits import PARTS, TimeSplit, split_window, window_of


def test_ten_days_are_seven_and_twice_one_and_a_half() -> None:
    start, end = window_of(dt.date(2026, 2, 10), 10)
    assert (start, end) == (pd.Timestamp("2026-02-01", tz="UTC"), pd.Timestamp("2026-02-11", tz="UTC"))
    split = split_window(start, end)
    assert split.train_end == pd.Timestamp("2026-02-08", tz="UTC")
    assert split.val_end == pd.Timestamp("2026-02-09 12:00", tz="UTC")
    assert TimeSplit.from_dict(split.to_dict()) == split


@settings(max_examples=60)
@given(
    days=st.integers(3, 40),
    interval=st.sampled_from([5, 15, 30, 60]),
    steps=st.integers(0, 12),
    percentages=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)).filter(lambda p: abs(p[0] - p[1]) > 0.05),
)
def test_no_target_crosses_a_boundary(days: int, interval: int, steps: int, percentages: tuple[float, float]) -> None:
    start, end = window_of(dt.date(2026, 2, 10), days)
    split = split_window(start, end, min(percentages), max(percentages))
    times = pd.date_range(start, end, freq=f"{interval}min", inclusive="left")
    horizon = steps * interval
    label = split.label(times, horizon)
    target = split.label(times + pd.Timedelta(minutes=horizon))
    kept = np.array([name is not None for name in label])
    assert (label[kept] == target[kept]).all()
    # Purging takes exactly the rows whose target lies in another part or outside.
    now = split.label(times)
    assert (kept == (now == target)).all()
    assert all((now == part).any() for part in PARTS)


def test_gaps_do_not_move_the_boundaries() -> None:
    start, end = window_of(dt.date(2026, 2, 10), 10)
    times = pd.date_range(start, end, freq="5min", inclusive="left")
    holes = times[(times < start + pd.Timedelta(days=1)) | (times > start + pd.Timedelta(days=3))]
    split = split_window(start, end)
    full, holed = pd.Series(split.label(times), times), pd.Series(split.label(holes), holes)
    assert (full[holes] == holed).all()


def test_impossible_splits_are_refused() -> None:
    start, end = window_of(dt.date(2026, 2, 10), 10)
    with pytest.raises(SplitError, match="order"):
        split_window(start, end, 0.9, 0.8)
    with pytest.raises(SplitError, match="no part 'future'"):
        split_window(start, end).bounds("future")
