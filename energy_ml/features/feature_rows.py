"""Rows of features for training: of a frame that holds them, or of a large market, made where they are asked for.

What belongs here: which features of a window are worth keeping, and the same questions answered for both. What doesn't:
computing features (``price_features``), choosing rows (``price_prediction``).

Features take forty times the memory of their prices. Of a market of many nodes a window keeps its prices alone; what
its models see is made again for a block of regions at a time: whole zones, which need nothing of each other but the
reference region's price. That costs a tenth of what forecasting from it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.features.neighbours import HANDFUL, compared
from energy_ml.features.panel import Panel, to_panel
from energy_ml.features.price_features import LATER, PriceFeatureSpec, measured_prices, price_feature_cube
from energy_ml.names import IS_FILLED, REGION, TIMESTAMP

LARGE = 1_000_000
"""A window of more rows keeps no features, if its regions have zones."""
BLOCK_REGIONS = 128
"""Zones are put together up to so many regions; a larger zone is a block of its own."""


def is_large(rows: int, regions: int) -> bool:
    """Whether a window of so many rows is worked on block by block."""
    return rows > LARGE and regions > HANDFUL


@dataclass(frozen=True)
class Given:
    """Makes what is there: features, region and price of some rows."""

    frame: pd.DataFrame
    price_col: str

    def __call__(self) -> pd.DataFrame:
        """The frame."""
        return self.frame


@dataclass(frozen=True)
class BlockMaker:
    """Makes features, region and price of a block's newest ``last`` instants from its prices (``panel``) and those of
    the reference region (T,). It can be sent elsewhere."""

    panel: Panel
    spec: PriceFeatureSpec
    last: int
    reference: Floats | None
    price_col: str

    def __call__(self) -> pd.DataFrame:
        """Make them."""
        names, cube = price_feature_cube(self.panel, self.spec, last=self.last, reference=self.reference)
        frame = pd.DataFrame(cube.reshape(len(names), -1).T, columns=names, copy=False)
        frame[self.price_col] = self.panel.columns[self.price_col][-self.last :].reshape(-1)
        frame[REGION] = np.tile(np.array(self.panel.regions, dtype=object), self.last)
        return frame


class FrameRows:
    """The n rows of a features frame, and its prices on a grid of T instants and R regions.

    ``cells`` (n,): ``t * R + r`` of each row; ``price`` (T, R): NaN where there is none; ``outcome`` (T, R): the same
    without filled ones; ``blocks``: rows that are made together, in order; ``places``: the regions of each.
    """

    def __init__(self, frame: pd.DataFrame, price_col: str) -> None:
        panel = to_panel(frame, [price_col])
        self.frame, self.times, self.regions = frame, panel.times, panel.regions
        self.interval_minutes = panel.interval_minutes
        self.price = np.ascontiguousarray(panel.values.T)
        self.cells = panel.rows if panel.rows is not None else np.arange(self.price.size, dtype=np.int64)
        self.outcome = np.full(self.price.shape, np.nan)
        self.outcome.reshape(-1)[self.cells] = measured_prices(frame, price_col)
        self.blocks, self.places = [slice(0, len(frame))], [np.arange(len(self.regions), dtype=np.int64)]
        self._price_col = price_col

    def maker(self, block: int) -> Given:
        """What makes the rows of a block."""
        return Given(self.frame, self._price_col)

    def keep(self, rows: Integers) -> None:
        """Have these rows (k,) at hand from now on; they are."""

    def at(self, rows: Integers) -> pd.DataFrame:
        """Features, region and price of these rows (k,), which were kept."""
        return self.frame.iloc[rows]

    def column(self, name: str, rows: Integers) -> Floats:
        """One column of these rows, (k,)."""
        return np.asarray(self.frame[name].to_numpy()[rows], dtype=np.float64)


class FeatureBlocks:
    """The same of a window that keeps no features (``price_features.LATER``).

    ``before`` are long prices of the time before it, which fill lags; none, and the first rows are unknown. Rows run
    block by block, in each by time, then region.
    """

    def __init__(self, window: pd.DataFrame, before: pd.DataFrame | None, price_col: str) -> None:
        later = window.attrs[LATER]
        self.spec, self.interval_minutes = PriceFeatureSpec.from_dict(later["spec"]), int(later["interval_minutes"])
        columns = [price_col, *self.spec.extra_columns]
        filled = [IS_FILLED] if IS_FILLED in window.columns else []
        keys = [TIMESTAMP, REGION, *columns, *filled]
        start, rows = window[TIMESTAMP].min(), window[keys]
        if before is not None and len(before):
            before = before[(before[TIMESTAMP] < start) & before[REGION].isin(window[REGION].unique())]
            rows = pd.concat([before.reindex(columns=keys), rows], ignore_index=True)
        panel = to_panel(rows, [*columns, *filled], interval_minutes=self.interval_minutes)
        self._panel, self._price_col = panel, price_col
        self._first = int(np.searchsorted(panel.times_ns, start.value))
        self.regions, self.times = panel.regions, panel.times[self._first :]
        self.price = panel.columns[price_col][self._first :]
        measured = panel.columns[IS_FILLED][self._first :] == 0 if filled else True
        self.outcome = np.where(measured, self.price, np.nan)
        self._columns = columns
        self.places = _blocks(compared(panel.regions, None, self.spec.neighbours).zones)
        instants = np.arange(len(self.times), dtype=np.int64)[:, None] * len(self.regions)
        self.cells = np.concatenate([(instants + places).reshape(-1) for places in self.places])
        edges = np.cumsum([0, *(len(places) * len(self.times) for places in self.places)])
        self.blocks = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        self._kept: tuple[Integers, pd.DataFrame] = np.empty(0, dtype=np.int64), pd.DataFrame()

    def maker(self, block: int) -> BlockMaker:
        """As ``FrameRows``."""
        places, panel = self.places[block], self._panel
        part = Panel(
            panel.times_ns,
            tuple(self.regions[place] for place in places),
            self.interval_minutes,
            {name: np.ascontiguousarray(panel.columns[name][:, places]) for name in self._columns},
        )
        name = self.regions[0] if self.spec.regions is None else self.spec.regions[0]
        price = panel.columns[self._price_col]
        reference = price[:, self.regions.index(name)].copy() if name in self.regions else None
        return BlockMaker(part, self.spec, len(self.times), reference, self._price_col)

    def keep(self, rows: Integers) -> None:
        """As ``FrameRows``."""
        rows = np.unique(rows)
        frames = []
        for number, block in enumerate(self.blocks):
            own = rows[(rows >= block.start) & (rows < block.stop)]
            if len(own):
                frames.append(self.maker(number)().iloc[own - block.start])
        self._kept = rows, pd.concat(frames, ignore_index=True)

    def at(self, rows: Integers) -> pd.DataFrame:
        """As ``FrameRows``."""
        kept, frame = self._kept
        return frame.iloc[np.searchsorted(kept, rows)]

    def column(self, name: str, rows: Integers) -> Floats:
        """As ``FrameRows``."""
        return np.asarray(self.at(rows)[name], dtype=np.float64)


FeatureRows = FrameRows | FeatureBlocks


def frames(
    features: pd.DataFrame, price_col: str, since: pd.Timestamp, before: pd.DataFrame | None = None
) -> Iterator[pd.DataFrame]:
    """Features of a window's rows from ``since`` on, with their keys: the frame's own, or a block's at a time."""
    if LATER not in features.attrs:
        chosen = features[TIMESTAMP] >= since
        yield features if chosen.all() else features[chosen]
        return
    rows = FeatureBlocks(features, before, price_col)
    first = int(np.searchsorted(rows.times, since))
    for number, places in enumerate(rows.places):
        frame = rows.maker(number)()
        instants = np.repeat(np.arange(len(rows.times)), len(places))
        late = instants >= first
        filled = np.isnan(rows.outcome[:, places].reshape(-1)[late])
        yield frame[late].assign(**{TIMESTAMP: rows.times[instants[late]], IS_FILLED: filled})


def _blocks(zones: list[Integers]) -> list[Integers]:
    """Places of the regions of each block, ascending."""
    blocks: list[list[int]] = []
    for zone in zones:
        if blocks and len(blocks[-1]) + len(zone) <= BLOCK_REGIONS:
            blocks[-1] += zone.tolist()
        else:
            blocks.append(zone.tolist())
    return [np.array(sorted(block), dtype=np.int64) for block in blocks]
