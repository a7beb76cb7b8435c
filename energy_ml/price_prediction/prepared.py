"""One window of features made ready for all horizons: input rows, prices on a grid, the split, the binned matrix.

What belongs here: what horizons share. What doesn't: anything that depends on one horizon's fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.errors import HorizonError, NoDataError, SchemaError, SplitError
from energy_ml.features import to_panel
from energy_ml.price_prediction.boosting import BinnedPool
from energy_ml.price_prediction.design import Design
from energy_ml.splits import TimeSplit

Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MIN_TRAIN_ROWS = 200
"""Fewer training rows than this can't carry a model."""


@dataclass
class PreparedWindow:
    """Arrays of one window. Rows are those of ``frame``; the grid has R regions and T instants.

    ``cells`` (n,): ``t * R + r`` of each row; ``price`` (T, R): NaN where there is no row; ``rows`` (n, columns):
    input rows of ``design``; ``vol`` (n,); ``part`` (n,): 0 train, 1 validation, 2 test, -1 outside the window.
    """

    frame: pd.DataFrame
    feature_cols: tuple[str, ...]
    split: TimeSplit
    design: Design
    interval_minutes: int
    times: pd.DatetimeIndex
    cells: IntArray
    price: Array
    rows: Float32Array
    vol: Array
    part: IntArray
    chosen: dict[str, IntArray]
    """Row numbers that fits use: ``train``, ``validation``, ``both`` (thinned when there are many)."""
    binned: BinnedPool

    @property
    def now(self) -> Array:
        """Current price per row, (n,)."""
        return self.price.reshape(-1)[self.cells]

    def ahead(self, steps: int) -> Array:
        """Price ``steps`` intervals later per row, (n,); NaN where it isn't known. Negative looks back."""
        moved = np.full_like(self.price, np.nan)
        if abs(steps) < len(self.price):
            if steps >= 0:
                moved[: len(moved) - steps] = self.price[steps:]
            else:
                moved[-steps:] = self.price[:steps]
        return moved.reshape(-1)[self.cells]

    def to_grid(self, values: Array) -> Array:
        """Per-row values (n, ...) on the grid, (R, T, ...); NaN where there is no row."""
        n_times, n_regions = self.price.shape
        grid = np.full((n_times * n_regions, *values.shape[1:]), np.nan)
        grid[self.cells] = values
        return np.ascontiguousarray(np.swapaxes(grid.reshape(n_times, n_regions, *values.shape[1:]), 0, 1))

    def from_grid(self, grid: Array) -> Array:
        """The inverse of ``to_grid``."""
        swapped = np.swapaxes(grid, 0, 1)
        return swapped.reshape(-1, *grid.shape[2:])[self.cells]

    def steps_of(self, horizon: int) -> int:
        """Intervals of ``horizon`` minutes. Raises HorizonError when the interval doesn't divide it."""
        if horizon <= 0 or horizon % self.interval_minutes:
            fitting = [h for h in (1, 5, 15, 30, 60, 120) if h % self.interval_minutes == 0]
            raise HorizonError(
                f"a horizon of {horizon} minutes on data with an interval of {self.interval_minutes} minutes",
                expected=f"a positive multiple of {self.interval_minutes} minutes",
                remedy=f"set ENERGY_ML_HORIZONS, for example to {','.join(map(str, fitting))}",
            )
        return horizon // self.interval_minutes


def prepare_window(
    frame: pd.DataFrame,
    feature_cols: Sequence[str],
    split: TimeSplit,
    *,
    price_col: str,
    max_rows: int,
    max_bin: int,
    seed: int,
) -> PreparedWindow:
    """Lay a features frame out for training. Raises SchemaError, SplitError (a part has no rows) and panel errors."""
    for name in ("timestamp", "region", price_col):
        if name not in frame.columns:
            raise SchemaError(
                f"the features frame lacks '{name}'",
                column=name,
                expected=f"timestamp, region, {price_col} and features",
                remedy="build it with energy_ml.features.build_price_features",
            )
    if not len(frame):
        raise NoDataError("the features frame has no rows", expected="a window of prices", remedy="choose other dates")
    panel = to_panel(frame, [price_col])
    n_times, n_regions = len(panel.times_ns), len(panel.regions)
    cells = panel.rows if panel.rows is not None else np.arange(n_times * n_regions, dtype=np.int64)
    stamps = panel.times[cells // n_regions]
    part = np.full(len(frame), -1, dtype=np.int64)
    for number, name in enumerate(("train", "validation", "test")):
        part[split.mask(stamps, name)] = number
    price = np.ascontiguousarray(panel.values.T)
    train_prices = price.reshape(-1)[cells][part == 0]
    known = np.isfinite(price.reshape(-1)[cells])
    for number, name in enumerate(("training", "validation", "test")):
        found = int((known & (part == number)).sum())
        least = MIN_TRAIN_ROWS if number == 0 else 1
        if found < least:
            raise SplitError(
                f"the {name} part has {found} rows with a price",
                expected=f"at least {least}",
                remedy="use a longer window or finer data",
            )
    design = Design.plan(feature_cols, panel.regions, train_prices)
    rows = design.rows(frame, price_col)
    rng = np.random.default_rng(seed)
    train = _thin(np.flatnonzero(known & (part == 0)), max_rows, rng)
    validation = _thin(np.flatnonzero(known & (part == 1)), max_rows, rng)
    # Training rows thin to the same density in the refit, so that a stopped number of trees means the same there.
    chosen = {"train": train, "validation": validation, "both": np.sort(np.concatenate([train, validation]))}
    return PreparedWindow(
        frame,
        tuple(feature_cols),
        split,
        design,
        panel.interval_minutes,
        panel.times,
        cells,
        price,
        rows,
        design.volatility(frame),
        part,
        chosen,
        BinnedPool(rows, train, max_bin),
    )


def _thin(rows: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, size=most, replace=False))
