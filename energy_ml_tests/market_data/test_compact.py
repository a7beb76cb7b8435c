"""A rewritten lake: the same rows, and one zone reads its own files alone."""

from __future__ import annotations

import datetime as dt
import io
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from energy_ml.errors import ConfigError
from energy_ml.market_data.compact import blocks_of, compact
from energy_ml.market_data.footers import Files
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.simulator import Nodes, write_simulation

START = dt.date(2026, 2, 20)


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    def __init__(self, path: str, read: Counter[str]) -> None:
        super().__init__(path)
        self.counts = read

    def read(self, size: int = -1) -> bytes:
        found = super().read(size)
        self.counts[Path(str(self.name)).name] += len(found)
        return found


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> tuple[ParquetLake, ParquetLake]:
    """Three zones of twenty nodes over the end of a month, and the same rewritten a few days at a time."""
    root = tmp_path_factory.mktemp("lakes")
    write_simulation(root / "daily", 16, Nodes(60, 3), START, 5, days_per_file=3)
    paths = compact(ParquetLake(str(root / "daily")), UPath(root / "new"), rows=60_000)
    assert {path.name for path in paths} == {path.name for path in (root / "new").iterdir()}
    return ParquetLake(str(root / "daily")), ParquetLake(str(root / "new"))


def test_the_rows_are_the_same(lakes) -> None:
    old, new = lakes
    window = pd.Timestamp("2026-02-24", tz="UTC"), pd.Timestamp("2026-03-04", tz="UTC")
    for read in (ParquetLake.read_prices, ParquetLake.read_batteries):
        before, after = read(old, *window), read(new, *window)
        order = list(before.columns[:2])
        pd.testing.assert_frame_equal(
            before.sort_values(order, ignore_index=True), after.sort_values(order, ignore_index=True)
        )
    assert old.zones() == new.zones() and len(new.zones()) == 60
    assert old.latest_complete_day() == new.latest_complete_day()


def test_a_zone_reads_its_own_files_alone(lakes, monkeypatch: pytest.MonkeyPatch) -> None:
    new = ParquetLake(str(lakes[1].root))
    counts: Counter[str] = Counter()
    monkeypatch.setattr(Files, "open", lambda self, path: Counted(path, counts))
    zone = [node for node, name in new.zones().items() if name == "Z02"]
    prices = new.read_prices(pd.Timestamp("2026-02-21", tz="UTC"), pd.Timestamp("2026-02-28", tz="UTC"), regions=zone)
    assert prices["region"].nunique() == 20 and len(prices) == 20 * 7 * 288
    sizes = {Path(info.path).name: info.size for info in new.inventory() if info.kind == "prices"}
    assert len(sizes) == 6  # three zones in two months
    for name, size in sizes.items():
        if "2026-02" in name and "Z02" in name:
            assert counts[name] > 0.5 * size
        else:  # the footer, which Arrow reads in 64 KB
            assert counts[name] < 80_000 < size


def test_a_rewritten_file_that_changes_is_another_file(lakes, tmp_path: Path) -> None:
    marks = set()
    for change in (0.0, 0.01):
        frame = pd.DataFrame({"timestamp": pd.date_range("2026-03-01", periods=48, freq="30min", tz="UTC")})
        frame = frame.assign(region="A", real_time_price=10.0)
        frame.loc[7, "real_time_price"] += change
        folder = tmp_path / str(change)
        folder.mkdir()
        frame.to_parquet(folder / "a.parquet")
        compact(ParquetLake(str(folder)), UPath(tmp_path / f"new{change}"))
        (info,) = ParquetLake(str(tmp_path / f"new{change}")).inventory()
        marks.add(info.fingerprint)
    assert len(marks) == 2
    with pytest.raises(ConfigError, match="isn't empty"):
        compact(ParquetLake(str(folder)), UPath(folder))


def test_large_zones_are_parted_and_unnamed_regions_kept() -> None:
    names = [f"N{n:04d}" for n in range(1100)]
    blocks = blocks_of(names, dict.fromkeys(names[:1050], "west"))
    assert [len(found) for found in blocks.values()] == [512, 512, 26, 50]
    assert sorted(name for found in blocks.values() for name in found) == names
    assert list(blocks_of(["a", "b"], {})) == ["all"]
