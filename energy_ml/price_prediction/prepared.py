"""One window of features made ready for all horizons: input rows, prices on a grid, the split, the binned matrix.

What belongs here: what horizons share. What doesn't: anything that depends on one horizon's fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Booleans, Floats, Floats32, Integers
from energy_ml.errors import HorizonError, NoDataError, SchemaError, SplitError
from energy_ml.features import follows_hole, recent_reach
from energy_ml.features.feature_rows import FeatureBlocks, FeatureRows, FrameRows
from energy_ml.features.price_features import LATER
from energy_ml.price_prediction.boosting import BinnedPool, Inputs
from energy_ml.price_prediction.design import VOL, Design
from energy_ml.price_prediction.ensemble import Preset
from energy_ml.splits import PARTS, TimeSplit

HISTORY = 3
"""Number of the part before the window, after those of ``PARTS``."""


@dataclass
class PreparedWindow:
    """Arrays of one window and of the history before it, history first; the grid has R regions and T instants.

    ``usable`` (T, R): whether the price and all that the newest features look at are known; ``part`` (T,): 0 train,
    1 validation, 2 test, 3 history, -1 none of them. Input rows are made for the rows that are asked for: all of them
    at once would take as much memory as the features.
    """

    rows: FeatureRows
    feature_cols: tuple[str, ...]
    split: TimeSplit
    design: Design
    usable: Booleans
    inputs: Inputs
    """Input rows (k, columns) of ``design`` for k row numbers."""
    part: npt.NDArray[np.int8]
    preset: Preset
    """For the length of the training part."""
    chosen: dict[str, Integers]
    """Row numbers that fits use: ``history``, ``train``, ``validation`` (thinned when there are many); ``before`` is
    history and train, ``all`` the three together."""
    binned: BinnedPool

    def __post_init__(self) -> None:
        self.interval_minutes, self.times, self.cells = self.rows.interval_minutes, self.rows.times, self.rows.cells
        self.price, self.outcome = self.rows.price, self.rows.outcome

    def volatility(self, rows: Integers) -> Floats:
        """Local volatility of these rows, (len(rows),)."""
        return self.rows.column(VOL, rows)

    def ahead(self, rows: Integers, steps: int, *, measured: bool = False) -> Floats:
        """Price ``steps`` intervals after each of these rows, (len(rows),); NaN where it isn't known. Negative looks
        back, 0 is the current price. ``measured`` leaves out filled ones."""
        grid = self.outcome if measured else self.price
        cells = self.cells[rows] + steps * grid.shape[1]
        known = (cells >= 0) & (cells < grid.size)
        return np.where(known, grid.reshape(-1)[np.where(known, cells, 0)], np.nan)

    def left_out(self, steps: int) -> dict[str, int]:
        """Rows of each part that teach nothing ``steps`` ahead: they or their targets touch what wasn't measured."""
        rows = np.arange(len(self.cells))
        taught = self.usable.reshape(-1)[self.cells] & np.isfinite(self.ahead(rows, steps, measured=True))
        lost, instants = ~taught, self.places()[1]
        inside = {name: self.split.mask(self.times, name, steps * self.interval_minutes)[instants] for name in PARTS}
        return {name: int((lost & mask).sum()) for name, mask in inside.items()}

    @property
    def history(self) -> dict[str, object]:
        """How much of the time before the window teaches: its first instant and the rows drawn."""
        rows = self.chosen["history"]
        return {"from": self.times[self.places(rows)[1].min()].isoformat() if len(rows) else None, "rows": len(rows)}

    def places(self, rows: Integers | slice = slice(None)) -> tuple[Integers, Integers]:
        """Region and instant on the grid of these rows, or of all, (len(rows),) each."""
        instants, regions = np.divmod(self.cells[rows], self.price.shape[1])
        return regions, instants

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


HISTORY_HALF_LIFE_DAYS = 20.0
"""A history row is drawn half as likely for each so many days that it is older: markets change."""


def prepare_window(
    window: pd.DataFrame,
    feature_cols: Sequence[str],
    split: TimeSplit,
    *,
    price_col: str,
    preset: Preset,
    seed: int,
    min_training_rows: int,
    history: pd.DataFrame | None = None,
) -> PreparedWindow:
    """Lay a features frame out for training; ``history`` is one of the time before it. Of a window that keeps no
    features, the prices before it: they fill lags alone.

    History teaches if it has at least as many rows as the training part: less wouldn't forecast that part any better
    than its own other days do.

    Raises SchemaError, SplitError (a part has no rows) and panel errors.
    """
    frame = window
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
    if history is not None and LATER not in frame.attrs:
        history = history[history["timestamp"] < frame["timestamp"].min()]
        training = split.mask(pd.DatetimeIndex(frame["timestamp"]), "train").sum()
        if len(history) >= training:
            frame = pd.concat([history.reindex(columns=frame.columns), frame], ignore_index=True)
    rows: FeatureRows = (
        FeatureBlocks(frame, history, price_col) if LATER in frame.attrs else FrameRows(frame, price_col)
    )
    times, cells, price, n_regions = rows.times, rows.cells, rows.price, len(rows.regions)
    part = np.full(len(times), -1, dtype=np.int8)
    for number, name in enumerate(("train", "validation", "test")):
        part[split.mask(times, name)] = number
    if frame is not window:
        part[times < window["timestamp"].min()] = HISTORY
    usable = np.isfinite(price) & ~follows_hole(price, recent_reach(feature_cols, rows.interval_minutes))
    part_of_row = part[cells // n_regions]
    known = usable.reshape(-1)[cells]
    for number, name in enumerate(("training", "validation", "test")):
        found = int((known & (part_of_row == number)).sum())
        least = min_training_rows if number == 0 else 1
        if found < least:
            raise SplitError(
                f"the {name} part has {found} rows with a price and what is needed before it",
                expected=f"at least {least}{' (ENERGY_ML_PRICES_MIN_TRAINING_ROWS)' if number == 0 else ''}",
                remedy="use a longer window (ENERGY_ML_TRAINING_WINDOW_DAYS) or finer data",
            )
    design = Design.plan(feature_cols, rows.regions, rows.outcome[part == 0])
    days = (split.train_end - split.start) / pd.Timedelta(days=1)
    preset = preset.for_span(days, history=frame is not window)
    max_rows = preset.max_rows
    rng = np.random.default_rng(seed)
    train = _thin(np.flatnonzero(known & (part_of_row == 0)), max_rows, rng)
    validation = _thin(np.flatnonzero(known & (part_of_row == 1)), max_rows, rng)
    old = np.flatnonzero(known & (part_of_row == HISTORY))
    age = np.asarray((split.start - times[cells[old] // n_regions]) / pd.Timedelta(days=1))
    chance = 0.5 ** (age / HISTORY_HALF_LIFE_DAYS)
    old = _thin(old, max_rows, rng, chance / chance.sum() if len(old) else None)
    # Training rows thin to the same density in the refit, so that a stopped number of trees means the same there.
    before = np.concatenate([old, train])
    chosen = {
        "history": old,
        "train": train,
        "validation": validation,
        "before": before,
        "all": np.sort(np.concatenate([before, validation])),
    }

    rows.keep(chosen["all"])

    def inputs(numbers: Integers) -> Floats32:
        return design.rows(rows.at(numbers), price_col)

    binned = BinnedPool(inputs, before, preset.max_bin)
    return PreparedWindow(rows, tuple(feature_cols), split, design, usable, inputs, part, preset, chosen, binned)


def _thin(rows: Integers, most: int, rng: np.random.Generator, chance: Floats | None = None) -> Integers:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, size=most, replace=False, p=chance))
