"""Lagged prices and changes against them.

What belongs here: plain differences to one earlier instant. What doesn't: anything over a window of instants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from energy_ml.arrays import Floats, Floats32


def lagged(values: Floats, lag: int, first: int = 0) -> Floats:
    """``values`` (T, R) as they were ``lag`` >= 0 intervals before, rows from ``first`` on; NaN before the start."""
    n_times = len(values)
    if lag <= first:
        return values[first - lag : n_times - lag]
    out = np.full((n_times - first, *values.shape[1:]), np.nan)
    if lag < n_times:
        out[lag - first :] = values[: n_times - lag]
    return out


def write_lags(values: Floats, lags: Sequence[int], out: Floats32, first: int = 0) -> None:
    """Prices ``lags`` intervals before; ``values`` (T, R), ``out`` (len(lags), T - first, R)."""
    n_times = len(values)
    for column, lag in zip(out, lags, strict=True):
        known = max(lag - first, 0)
        column[:known] = np.nan
        if lag < n_times:
            column[known:] = values[first + known - lag : n_times - lag]


def write_changes(values: Floats, lags: Sequence[int], out: Floats32, first: int = 0) -> None:
    """Current price minus the price ``lags`` intervals before; subtracted in float64, shapes as in ``write_lags``."""
    n_times = len(values)
    for column, lag in zip(out, lags, strict=True):
        known = max(lag - first, 0)
        column[:known] = np.nan
        if lag < n_times:
            start = first + known
            np.subtract(values[start:], values[start - lag : n_times - lag], out=column[known:], casting="same_kind")
