"""Rewriting a lake once, out of core, into files that a block of regions reads alone.

What belongs here: which rows go into which file. What doesn't: reading (``lake``) and repairing them (``cleaning``).

A lake that grew day by day has every region in every file: reading one zone reads all. Here each file holds one
block, a zone or at most 512 regions, for a month, and its footer says what it holds, so that others aren't opened
further. Rows stay as they are, types and times in the form of the data contract.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from upath import UPath

from energy_ml.errors import ConfigError, NoDataError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.part_file import PartFile
from energy_ml.market_data.rows import rows_by_code
from energy_ml.market_data.schema import KEY_COLUMN, Kind
from energy_ml.names import NODES_FILE, TIMESTAMP

_LARGEST_BLOCK = 512
_ROWS_AT_ONCE = 2_000_000


def compact(
    lake: ParquetLake, output: UPath, progress: Callable[[float], None] | None = None, rows: int = _ROWS_AT_ONCE
) -> list[UPath]:
    """Write prices and telemetry of ``lake`` anew into the empty folder ``output``; returns the files.

    About ``rows`` rows are in memory at a time, whatever the lake holds.

    Raises
    ------
    ConfigError
        There is something in ``output``.
    DataError
        A file breaks the data contract; then nothing is left in ``output``.
    """
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} isn't empty", expected="a new folder", remedy="name another one")
    files = [info for info in lake.inventory() if info.rows and info.first is not None]
    if not files:
        raise NoDataError("there is nothing to rewrite", file=lake.root, remedy="set ENERGY_ML_DATA_DIR")
    output.mkdir(parents=True, exist_ok=True)
    try:
        zones = lake.zones()
        regions = sorted({name for info in files if info.kind == "prices" for name in info.regions})
        block_of = {name: block for block, names in blocks_of(regions, zones).items() for name in names}
        paths = [path for kind in get_args(Kind) for path in _rewrite(lake, output, kind, block_of, rows, progress)]
        if zones:
            paths.append(output / NODES_FILE)
            paths[-1].write_bytes((lake.root / NODES_FILE).read_bytes())
    except BaseException:
        shutil.rmtree(output.path) if output.protocol in ("", "file", "local") else output.fs.rm(output.path, True)
        raise
    return paths


def blocks_of(regions: list[str], zones: dict[str, str]) -> dict[str, list[str]]:
    """Regions by the name of their block: their zone, or a part of it where that is large."""
    by_zone: dict[str, list[str]] = {}
    for name in regions:
        by_zone.setdefault(zones.get(name, "other" if zones else "all"), []).append(name)
    return {
        zone if len(names) <= _LARGEST_BLOCK else f"{zone}-{first // _LARGEST_BLOCK + 1}": names[first:][
            :_LARGEST_BLOCK
        ]
        for zone, names in by_zone.items()
        for first in range(0, len(names), _LARGEST_BLOCK)
    }


def _rewrite(
    lake: ParquetLake,
    output: UPath,
    kind: Kind,
    block_of: Mapping[str, str],
    rows: int,
    progress: Callable[[float], None] | None,
) -> Iterator[UPath]:
    """The files of one kind, as their month is done."""
    files = [info for info in lake.inventory() if info.kind == kind and info.rows]
    times = [(info.first, info.last) for info in files if info.first is not None and info.last is not None]
    if not times:
        return
    start, last = min(first for first, _ in times).floor("D"), max(end for _, end in times)
    per_day = sum(info.rows for info in files) / ((last - start) / pd.Timedelta(days=1) + 1)
    span = pd.Timedelta(days=max(int(rows / per_day), 1))
    begin, parts = start, _Parts(output, kind, block_of)
    try:
        while begin <= last:
            month_end = (begin + pd.offsets.MonthBegin(1)).floor("D")
            end = min(begin + span, month_end)
            frame = lake.read_prices(begin, end, columns="all") if kind == "prices" else lake.read_batteries(begin, end)
            parts.write(frame, f"{begin:%Y-%m}")
            if end == month_end or end > last:
                yield from parts.finish()
            begin = end
            if progress is not None:
                progress(min((begin - start) / (last - start + span), 1.0))
    except BaseException:
        parts.discard()
        raise


class _Parts:
    """The files of a month that are being written, by block and columns."""

    def __init__(self, output: UPath, kind: Kind, block_of: Mapping[str, str]) -> None:
        self.output, self.kind, self.block_of = output, kind, block_of
        self.number = {block: number for number, block in enumerate(sorted(set(block_of.values())))}
        self.open: dict[tuple[object, ...], tuple[PartFile, set[str]]] = {}

    def write(self, frame: pd.DataFrame, month: str) -> None:
        """Put each row of ``frame`` into its block's file, region by region."""
        key = KEY_COLUMN[self.kind]
        blocks = frame[key].map(self.block_of).to_numpy() if self.kind == "prices" else np.full(len(frame), "all")
        codes, names = pd.factorize(blocks)
        for block, places in zip(names, rows_by_code(codes, len(names)), strict=True):
            part = frame.iloc[places].sort_values([key, TIMESTAMP], kind="stable")
            place = (block, tuple(part.columns))
            if place not in self.open:
                words = re.sub(r"[^\w.-]", "_", str(block))
                name = f"{self.kind}_{month}_{self.number.get(block, 0):03d}_{words}"
                more = sum(other[0] == block for other in self.open)
                path = self.output / f"{name}{f'_{more + 1}' if more else ''}.parquet"
                self.open[place] = PartFile(path, {}), set()
            file, held = self.open[place]
            file.write(pa.Table.from_pandas(part, preserve_index=False))
            held |= set(part[key].astype(str).unique())

    def finish(self) -> list[UPath]:
        """Give the month's files their names."""
        done = [file.finish(held) for file, held in self.open.values()]
        self.open = {}
        return done

    def discard(self) -> None:
        """Leave nothing of the month."""
        for file, _ in self.open.values():
            file.discard()
