"""Lagged prices and changes against them.

What belongs here: plain differences to one earlier instant. What doesn't: anything over a window of instants.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from energy_ml.arrays import Floats, Floats32, Integers
from energy_ml.kernels import kernel, part


def read_only(values: Floats) -> Floats:
    """A view for compiled code, which would be compiled again for arrays that can be written, as some are."""
    if values.flags.writeable:
        values = values.view()
        values.flags.writeable = False
    return values


@lru_cache(maxsize=64)
def _integers(values: tuple[int, ...]) -> Integers:
    return np.array(values, dtype=np.int64)


def write_lags(values: Floats, lags: Sequence[int], out: Floats32, first: int = 0) -> None:
    """Prices ``lags`` intervals before; ``values`` (T, R), ``out`` (len(lags), T - first, R)."""
    _shifted(read_only(values), _integers(tuple(lags)), first, False, out)


def write_changes(values: Floats, lags: Sequence[int], out: Floats32, first: int = 0) -> None:
    """Current price minus the price ``lags`` intervals before; subtracted in float64, shapes as in ``write_lags``."""
    _shifted(read_only(values), _integers(tuple(lags)), first, True, out)


@kernel
def _shifted(values: Floats, lags: Integers, first: int, changes: bool, out: Floats32) -> None:
    flat, skip = values.reshape(-1), first * values.shape[1]
    for place in range(len(lags)):
        column, back = out[place].reshape(-1), lags[place] * values.shape[1]
        known = min(max(back - skip, 0), len(column))
        column[:known] = np.nan
        if known == len(column):
            continue
        if changes:
            put_difference(flat[skip + known :], flat[skip + known - back :], column[known:])
        else:
            put(flat[skip + known - back :], column[known:])


@part
def put(values: Floats, out: Floats32) -> None:
    """The first of ``values`` into ``out`` (n,)."""
    for i in range(len(out)):
        out[i] = values[i]


@part
def put_difference(values: Floats, others: Floats, out: Floats32) -> None:
    """The first of ``values`` minus those of ``others`` into ``out`` (n,)."""
    for i in range(len(out)):
        out[i] = values[i] - others[i]
