"""The time-based split: train | validation | test by time, never by row count, purged at each boundary.

What belongs here: boundaries and row masks. What doesn't: reading data, features, models.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Booleans
from energy_ml.errors import SplitError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class TimeSplit:
    """Half-open parts of a UTC window: train [start, train_end), validation [.., val_end), test [val_end, end)."""

    start: pd.Timestamp
    train_end: pd.Timestamp
    val_end: pd.Timestamp
    end: pd.Timestamp

    def __post_init__(self) -> None:
        if not self.start < self.train_end < self.val_end < self.end:
            raise SplitError(
                f"boundaries {self.start} | {self.train_end} | {self.val_end} | {self.end} aren't in order",
                expected="start < train_end < val_end < end",
                remedy="use a longer window or other percentages",
            )

    def bounds(self, part: str) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First instant of ``part`` and the first one after it."""
        try:
            return {
                "train": (self.start, self.train_end),
                "validation": (self.train_end, self.val_end),
                "test": (self.val_end, self.end),
            }[part]
        except KeyError:
            raise SplitError(f"there is no part {part!r}", expected=", ".join(PARTS)) from None

    def mask(self, timestamps: pd.Series | pd.DatetimeIndex, part: str, horizon_minutes: int = 0) -> Booleans:
        """Rows of ``part`` whose target ``horizon_minutes`` later still lies inside it (purged); shape (n,), bool."""
        first, after = self.bounds(part)
        times = pd.DatetimeIndex(timestamps)
        return np.asarray((times >= first) & (times + pd.Timedelta(minutes=horizon_minutes) < after))

    def label(self, timestamps: pd.Series | pd.DatetimeIndex, horizon_minutes: int = 0) -> npt.NDArray[np.object_]:
        """Name of the part of each row, or None where it is purged or outside the window; shape (n,)."""
        names = np.full(len(timestamps), None, dtype=object)
        for part in PARTS:
            names[self.mask(timestamps, part, horizon_minutes)] = part
        return names

    def to_dict(self) -> dict[str, str]:
        """Boundaries as ISO 8601 text."""
        return {name: getattr(self, name).isoformat() for name in ("start", "train_end", "val_end", "end")}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> TimeSplit:
        """The inverse of ``to_dict``."""
        return cls(**{name: pd.Timestamp(values[name]) for name in ("start", "train_end", "val_end", "end")})


def split_window(
    start: pd.Timestamp, end: pd.Timestamp, train_end_pct: float = 0.70, val_end_pct: float = 0.85
) -> TimeSplit:
    """Split [start, end) by time; boundaries are rounded down to whole minutes."""
    length = end - start
    return TimeSplit(
        start, (start + length * train_end_pct).floor("min"), (start + length * val_end_pct).floor("min"), end
    )


def window_of(as_of: dt.date, days: int) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The window of an as-of date D: [D - days + 1 at 00:00, D + 1 at 00:00) UTC."""
    end = pd.Timestamp(as_of, tz="UTC") + pd.Timedelta(days=1)
    return end - pd.Timedelta(days=days), end
