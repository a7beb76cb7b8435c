from __future__ import annotations

import datetime as dt
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from energy_ml.errors import (
    DuplicateError,
    IncompleteWindowError,
    IntervalError,
    NoDataError,
    SchemaError,
    TimestampError,
    UnknownRegionError,
    UnreadableFileError,
)
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.window import read_price_window, refuse_too_few
from energy_ml.splits import split_window
from energy_ml_tests.market_data.frames import NOW, START, prices, telemetry

DAY = 1440
REGIONS = ("DE", "FR")


def day(n):
    return START + pd.Timedelta(days=n)


def date(n):
    return day(n).date()


def write(path, frame, **options):
    path = UPath(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as handle:
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), handle, **options)
    return path


def contents(lake):
    """What the files hold, whatever they are called."""
    return {info.fingerprint for info in lake.inventory()}


def days(first, count, interval=5, **options):
    """Prices of whole days."""
    return prices(DAY * count, interval=interval, start=day(first), seed=first, **options)


def same(read, expected):
    """Equal rows; reading keeps the files' order."""
    order = ["timestamp", "region"]
    read, expected = (f.sort_values(order, ignore_index=True) for f in (read, expected))
    pd.testing.assert_frame_equal(read, expected, check_dtype=False)


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    """The same lake on a disk and on an object store."""
    if request.param == "local":
        yield UPath(tmp_path / "lake")
        return
    folder = UPath(f"memory://lake-{os.getpid()}-{abs(hash(str(tmp_path)))}")
    yield folder
    if folder.exists():
        folder.fs.rm(folder.path, recursive=True)


@pytest.fixture
def lake(root):
    """Three files of two days each, written in another order than time, and telemetry."""
    write(root / "b.parquet", days(2, 2), row_group_size=288 * 2)
    write(root / "a.parquet", days(4, 2))
    write(root / "deep" / "er" / "c.parquet", days(0, 2))
    write(root / "batteries.parquet", telemetry())
    return ParquetLake(root)


def everything():
    return pd.concat([days(0, 2), days(2, 2), days(4, 2)], ignore_index=True)


class TestReading:
    def test_window_is_half_open_and_spans_files(self, lake):
        start, end = day(1) + pd.Timedelta(hours=7), day(5) + pd.Timedelta(minutes=5)
        frame = lake.read_prices(start, end)
        whole = everything()
        same(frame, whole[(whole["timestamp"] >= start) & (whole["timestamp"] < end)])
        assert frame["timestamp"].dtype == "datetime64[ns, UTC]"

    def test_sources_and_problems_are_told(self, lake):
        frame = lake.read_prices(day(1), day(3))
        assert [rows for _, rows in frame.attrs["sources"]] == [576, 576]
        assert {path.rsplit("/", 1)[1] for path, _ in frame.attrs["sources"]} == {"b.parquet", "c.parquet"}
        assert frame.attrs["problems"] == []
        clean = clean_prices(frame, start=day(1), end=day(3), now=NOW)
        assert clean.problems == []

    def test_chosen_regions_only(self, lake):
        frame = lake.read_prices(day(0), day(6), regions=["FR"])
        same(frame, everything()[everything()["region"] == "FR"])

    def test_unknown_region(self, lake):
        with pytest.raises(UnknownRegionError, match="ES") as caught:
            lake.read_prices(day(0), day(6), regions=["FR", "ES"])
        assert "DE, FR" in caught.value.expected

    def test_nothing_in_the_window_is_an_empty_frame(self, lake):
        frame = lake.read_prices(day(100), day(101))
        assert list(frame.columns) == ["timestamp", "region", "real_time_price"]
        assert len(frame) == 0
        assert frame["timestamp"].dtype == "datetime64[ns, UTC]"

    def test_telemetry(self, lake):
        pd.testing.assert_frame_equal(lake.read_batteries(day(0), day(1)), telemetry())
        assert len(lake.read_batteries(day(5), day(6))) == 0

    def test_naive_bounds_are_utc_and_other_zones_are_converted(self, lake):
        expected = lake.read_prices(day(1), day(2))
        pd.testing.assert_frame_equal(
            lake.read_prices(pd.Timestamp("2026-02-02"), pd.Timestamp("2026-02-03")), expected
        )
        paris = lake.read_prices(day(1).tz_convert("Europe/Paris"), day(2).tz_convert("Europe/Paris"))
        pd.testing.assert_frame_equal(paris, expected)

    def test_only_row_groups_and_columns_that_are_needed_are_read(self, root, monkeypatch):
        frame = days(0, 4).assign(load=1.0, note="x")
        write(root / "wide.parquet", frame, row_group_size=288 * 2)
        asked = []
        original = pq.ParquetFile.read_row_groups

        def spy(self, groups, columns=None, **options):
            asked.append((groups, columns))
            return original(self, groups, columns=columns, **options)

        monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spy)
        lake = ParquetLake(root)
        lake.read_prices(day(2), day(3))
        assert asked == [([2], ["timestamp", "region", "real_time_price"])]
        assert list(lake.read_prices(day(2), day(3), columns=["load"]).columns)[3:] == ["load"]
        everything = lake.read_prices(day(2), day(3), columns="all")
        assert list(everything.columns)[3:] == ["load"]
        assert [p["kind"] for p in everything.attrs["problems"]] == ["extra_column"]
        with pytest.raises(SchemaError, match="'wind'"):
            lake.read_prices(day(2), day(3), columns=["wind"])

    def test_regions_prune_row_groups(self, root, monkeypatch):
        frame = days(0, 1).sort_values(["region", "timestamp"])
        write(root / "by_region.parquet", frame, row_group_size=288)
        asked = []
        original = pq.ParquetFile.read_row_groups
        monkeypatch.setattr(
            pq.ParquetFile, "read_row_groups", lambda self, g, **o: asked.append(g) or original(self, g, **o)
        )
        same(ParquetLake(root).read_prices(day(0), day(1), regions=["FR"]), frame[frame["region"] == "FR"])
        assert asked == [[1]]

    def test_types_of_files_may_differ(self, root):
        write(root / "1.parquet", days(0, 1))
        write(root / "2.parquet", days(1, 1).assign(timestamp=lambda f: f["timestamp"].dt.tz_convert("Asia/Tokyo")))
        write(root / "3.parquet", days(2, 1).assign(timestamp=lambda f: f["timestamp"].dt.tz_localize(None)))
        write(root / "4.parquet", days(3, 1).assign(timestamp=lambda f: f["timestamp"].map(str)))
        write(root / "5.parquet", days(4, 1).assign(real_time_price=lambda f: f["real_time_price"].map(str)))
        lake = ParquetLake(root)
        frame = lake.read_prices(day(0), day(5))
        same(frame, pd.concat([days(n, 1) for n in range(5)]))
        kinds = [p["kind"] for p in frame.attrs["problems"]]
        assert kinds == ["naive_timestamps", "text_timestamps", "converted_type"]
        assert all(p["file"] for p in frame.attrs["problems"])
        assert lake.coverage().shape == (5, 2)
        assert (lake.coverage() == 288).all(axis=None)
        assert lake.latest_complete_day() == date(4)

    def test_without_statistics(self, root):
        write(root / "x.parquet", days(0, 3), write_statistics=False, row_group_size=500)
        lake = ParquetLake(root)
        same(lake.read_prices(day(1), day(2)), days(0, 3).query("@day(1) <= timestamp < @day(2)"))
        assert lake.inventory()[0].first == day(0)
        assert lake.latest_complete_day() == date(2)

    def test_bad_types_name_the_file(self, root):
        write(root / "good.parquet", days(0, 1))
        write(root / "bad.parquet", days(1, 1).assign(real_time_price="twelve"))
        lake = ParquetLake(root)
        assert len(lake.read_prices(day(0), day(1))) == 576
        with pytest.raises(SchemaError, match=r"bad\.parquet"):
            lake.read_prices(day(0), day(2))

    def test_no_files(self, root):
        with pytest.raises(NoDataError, match="no price files") as caught:
            ParquetLake(root).read_prices(day(0), day(1))
        assert "ENERGY_ML_DATA_DIR" in caught.value.remedy
        assert ParquetLake(root).inventory() == []
        assert ParquetLake(root).coverage().empty
        write(root / "b.parquet", telemetry())
        with pytest.raises(NoDataError, match="none of the 1"):
            ParquetLake(root).read_prices(day(0), day(1))
        with pytest.raises(NoDataError):
            ParquetLake(root).latest_complete_day()

    def test_one_file_as_root(self, root):
        path = write(root / "x.parquet", days(0, 1))
        write(root / "y.parquet", days(1, 1))
        assert len(ParquetLake(path).read_prices(day(0), day(5))) == 576


class TestFolders:
    def test_hive_partitions_give_their_column(self, root):
        for region in REGIONS:
            for n in range(2):
                part = days(n, 1)
                part = part[part["region"] == region].drop(columns="region")
                write(root / f"region={region}" / f"day={date(n)}" / "x.parquet", part)
        lake = ParquetLake(root)
        same(lake.read_prices(day(0), day(2)), pd.concat([days(0, 1), days(1, 1)]))
        assert lake.read_prices(day(0), day(2), regions=["FR"])["region"].unique().tolist() == ["FR"]
        assert {i.regions for i in lake.inventory()} == {("DE",), ("FR",)}
        assert (lake.coverage() == 288).all(axis=None)

    def test_hidden_and_temporary_files_are_ignored(self, root):
        write(root / "x.parquet", days(0, 1))
        for name in (
            ".x.parquet",
            "_x.parquet",
            "~x.parquet",
            "_temporary/0/x.parquet",
            ".hid/x.parquet",
            "x.tmp.parquet",
        ):
            write(root / name, days(1, 1))
        (root / "note.txt").write_bytes(b"hello")
        (root / "y.parquet.part").write_bytes(b"PAR1")
        assert [i.path.rsplit("/", 1)[1] for i in ParquetLake(root).inventory()] == ["x.parquet"]

    def test_a_folder_named_like_a_file(self, root):
        write(root / "x.parquet" / "part-0.parquet", days(0, 1))
        assert len(ParquetLake(root).read_prices(day(0), day(1))) == 576

    def test_files_that_agree_may_overlap(self, root):
        write(root / "a.parquet", days(0, 2))
        write(root / "b.parquet", days(0, 2).query("timestamp >= @day(1)"))
        lake = ParquetLake(root)
        frame = lake.read_prices(day(0), day(2))
        assert len(frame) == 3 * 576
        clean = clean_prices(frame, start=day(0), end=day(2), now=NOW)
        assert [p.kind for p in clean.problems] == ["duplicates"]
        assert (lake.coverage() == 288).all(axis=None)

    def test_files_that_disagree_are_both_named(self, root):
        write(root / "a.parquet", days(0, 1))
        write(root / "b.parquet", days(0, 1).assign(real_time_price=1.0))
        with pytest.raises(DuplicateError, match=r"a\.parquet and .*b\.parquet"):
            clean_prices(ParquetLake(root).read_prices(day(0), day(1)), now=NOW)

    def test_new_and_replaced_files_are_seen(self, lake, root):
        before = contents(lake)
        assert lake.latest_complete_day() == date(5)
        write(root / "d.parquet", days(6, 1))
        assert lake.latest_complete_day() == date(6)
        write(root / "a.parquet", days(4, 2).assign(real_time_price=7.0))
        assert contents(lake) != before
        assert (lake.read_prices(day(4), day(6))["real_time_price"] == 7).all()


def damage(root, name, how):
    whole = write(root / name, days(2, 1)).read_bytes()
    (root / name).write_bytes(
        {
            "empty": b"",
            "not_parquet": b"timestamp,region,real_time_price\n" * 100,
            "incomplete": whole[: len(whole) // 2],
            "corrupt": whole[:-600] + b"\xff" * 592 + whole[-8:],
        }[how]
    )


@pytest.mark.parametrize("how", ["empty", "not_parquet", "incomplete", "corrupt"])
class TestUnreadableFiles:
    def test_inventory_names_it_and_lives(self, root, how):
        write(root / "good.parquet", days(0, 2))
        damage(root, "bad.parquet", how)
        lake = ParquetLake(root)
        bad, good = lake.inventory()
        assert good.problem is None
        assert bad.problem_kind == how
        assert bad.problem
        assert (bad.rows, bad.kind, bad.first) == (0, None, None)
        assert list(lake.coverage().index) == [date(0), date(1)]
        assert lake.latest_complete_day() == date(1)

    def test_a_window_that_needs_it_is_refused(self, root, how):
        write(root / "good.parquet", days(0, 2))
        damage(root, "bad.parquet", how)
        with pytest.raises(UnreadableFileError, match=r"bad\.parquet") as caught:
            ParquetLake(root).read_prices(day(0), day(3))
        assert "write it again" in caught.value.remedy

    def test_a_window_that_others_cover_is_read_and_says_so(self, root, how):
        write(root / "good.parquet", days(0, 2))
        damage(root, "bad.parquet", how)
        frame = ParquetLake(root).read_prices(day(0), day(2))
        assert [p["kind"] for p in frame.attrs["problems"]] == ["unreadable_file"]

    def test_the_only_file(self, root, how):
        damage(root, "bad.parquet", how)
        with pytest.raises(UnreadableFileError):
            ParquetLake(root).read_prices(day(2), day(3))
        with pytest.raises(UnreadableFileError):
            ParquetLake(root).days_of_file(ParquetLake(root).inventory()[0].path)

    def test_one_file_per_region(self, root, how):
        for region in REGIONS:
            write(root / f"{region}.parquet", days(2, 1).query("region == @region"))
        damage(root, "ES.parquet", how)
        with pytest.raises(UnreadableFileError, match=r"ES\.parquet"):
            ParquetLake(root).read_prices(day(2), day(3))

    def test_dates_in_names_are_believed(self, root, how):
        write(root / "2026-02-01.parquet", days(0, 1)[5:])  # incomplete: something is missing
        damage(root, "2026-03-01.parquet", how)
        damage(root, "day=2025-03-01/x.parquet", how)
        damage(root, "2025-03-01_2025-03-04.parquet", how)
        frame = ParquetLake(root).read_prices(day(0), day(1))
        assert frame.attrs["problems"] == []
        damage(root, "2026-02-01_b.parquet", how)
        with pytest.raises(UnreadableFileError, match="2026-02-01_b"):
            ParquetLake(root).read_prices(day(0), day(1))


def test_a_warm_up_before_all_files_needs_no_file_but_a_window_does(tmp_path):
    write(tmp_path / "good.parquet", days(0, 2))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    frame = ParquetLake(tmp_path).read_prices(day(-1), day(2))
    clean = clean_prices(frame, start=day(0), end=day(2), warmup_minutes=DAY, now=NOW)
    assert [p.kind for p in clean.problems] == ["unreadable_file"]
    window = read_price_window(ParquetLake(tmp_path), day(-1), day(2))
    with pytest.raises(IncompleteWindowError, match=r"may be in files that can't be read: .*bad\.parquet"):
        refuse_too_few(window, split_window(day(-1), day(2)), min_training_days=5, max_missing_share=0.25)


def test_texts_that_can_be_read_in_two_ways_are_refused_with_an_example_and_a_remedy(tmp_path):
    frame = days(0, 1).assign(timestamp=lambda f: f["timestamp"].dt.strftime("%d/%m/%Y %H:%M"))
    write(tmp_path / "italian.parquet", frame)
    lake = ParquetLake(tmp_path)
    (info,) = lake.inventory()
    assert "can be told apart in no row" in info.problem
    for ask in (lake.latest_complete_day, lambda: lake.read_prices(day(0), day(1))):
        with pytest.raises(TimestampError, match="year first") as caught:
            ask()
        assert (caught.value.column, caught.value.rows) == ("timestamp", len(frame))
        assert "italian.parquet" in str(caught.value)
        assert "row 0: '01/02/2026 00:00'" in str(caught.value)


def test_dates_above_the_root_say_nothing(tmp_path):
    root = UPath(tmp_path / "backup 2030-01-01")
    write(root / "good.parquet", days(0, 1)[5:])
    (root / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(UnreadableFileError, match=r"bad\.parquet"):
        ParquetLake(root).read_prices(day(0), day(1))


class TestFilesWithOtherProblems:
    def test_damage_in_the_middle(self, root):
        write(root / "x.parquet", days(0, 1), compression="zstd")
        data = bytearray((root / "x.parquet").read_bytes())
        data[200:2200] = b"\xff" * 2000
        (root / "x.parquet").write_bytes(bytes(data))
        lake = ParquetLake(root)
        assert len(lake.inventory()) == 1
        with pytest.raises(UnreadableFileError, match=r"x\.parquet"):
            lake.read_prices(day(0), day(1))

    def test_a_price_file_that_lacks_a_column(self, root):
        write(root / "good.parquet", days(0, 1))
        write(root / "bad.parquet", days(1, 1).drop(columns="region"))
        lake = ParquetLake(root)
        bad = lake.inventory()[0]
        assert bad.problem_kind == "schema"
        assert "'region'" in bad.problem
        assert len(lake.read_prices(day(0), day(1))) == 576
        with pytest.raises(SchemaError, match=r"bad\.parquet") as caught:
            lake.read_prices(day(0), day(2))
        assert "rename or add the column" in caught.value.remedy

    def test_times_that_keep_to_no_interval_are_called_that(self, root):
        prices = days(0, 2)
        late = pd.to_timedelta(7 * (np.arange(len(prices)) % 3), unit="s")
        write(root / "p.parquet", prices.assign(timestamp=prices.timestamp + late))
        with pytest.raises(IntervalError, match="the interval is") as caught:
            ParquetLake(root).latest_complete_day()
        assert "round the timestamps" in caught.value.remedy

    def test_files_of_something_else_never_stand_in_the_way(self, root):
        write(root / "good.parquet", days(0, 1)[5:])
        write(root / "weather.parquet", pd.DataFrame({"time": [1, 2], "wind": [3.0, 4.0]}))
        lake = ParquetLake(root)
        assert lake.inventory()[1].problem_kind == "other"
        assert lake.read_prices(day(0), day(1)).attrs["problems"] == []

    def test_no_rows(self, root):
        write(root / "none.parquet", days(0, 1).iloc[:0])
        write(root / "good.parquet", days(0, 1))
        lake = ParquetLake(root)
        assert [i.problem for i in lake.inventory()] == [None, None]
        assert len(lake.read_prices(day(0), day(1))) == 576

    def test_impossible_timestamps(self, root):
        write(root / "bad.parquet", days(0, 1).assign(timestamp="soon"))
        lake = ParquetLake(root)
        assert lake.inventory()[0].problem_kind == "timestamps"
        with pytest.raises((TimestampError, UnreadableFileError), match=r"bad\.parquet"):
            lake.read_prices(day(0), day(1))

    def test_a_region_that_other_files_hold_is_missed(self, root):
        write(root / "a.parquet", days(0, 1, regions=["DE", "ES", "FR"]))
        write(root / "b.parquet", days(1, 1))
        frame = ParquetLake(root).read_prices(day(1), day(2))
        assert [(p["kind"], p["example"]) for p in frame.attrs["problems"]] == [("region_absent", "ES")]
        with pytest.raises(UnknownRegionError):
            clean_prices(ParquetLake(root).read_prices(day(1), day(2), regions=["ES", "FR"]), now=NOW)


class TestInventory:
    def test_what_footers_say(self, lake):
        infos = {i.path.rsplit("/", 1)[1]: i for i in lake.inventory()}
        assert set(infos) == {"a.parquet", "b.parquet", "c.parquet", "batteries.parquet"}
        a = infos["a.parquet"]
        assert (a.kind, a.rows, a.regions) == ("prices", 1152, REGIONS)
        assert (a.first, a.last) == (day(4), day(6) - pd.Timedelta(minutes=5))
        assert infos["batteries.parquet"].kind == "batteries"
        assert infos["batteries.parquet"].regions == ("a", "b")
        assert all(i.problem is None and i.size > 0 for i in infos.values())

    def test_fingerprint_is_of_content_not_of_time_or_name(self, root):
        path = write(root / "x.parquet", days(0, 1))
        first = contents(ParquetLake(root))
        data = path.read_bytes()
        path.unlink()
        (root / "renamed.parquet").write_bytes(data)
        assert contents(ParquetLake(root)) == first
        changed = days(0, 1)
        changed.loc[300, "real_time_price"] += 0.5
        write(root / "renamed.parquet", changed)
        assert contents(ParquetLake(root)) != first

    def test_a_touched_file_is_the_same(self, tmp_path):
        path = write(tmp_path / "x.parquet", days(0, 1))
        before = ParquetLake(tmp_path).inventory()
        os.utime(path, (1, 1))
        assert ParquetLake(tmp_path).inventory() == before


class TestDays:
    def test_coverage_counts_rows_per_day_and_region(self, root):
        frame = days(0, 3)
        gone = (frame["region"] == "FR") & (frame["timestamp"] >= day(1)) & (frame["timestamp"] < day(1.5))
        write(root / "x.parquet", frame[~gone].sample(frac=1, random_state=0))
        coverage = ParquetLake(root).coverage()
        assert coverage.to_dict("list") == {"DE": [288, 288, 288], "FR": [288, 144, 288]}
        assert list(coverage.index) == [date(0), date(1), date(2)]
        assert all(type(d) is dt.date for d in coverage.index)

    def test_coverage_equals_brute_force(self, root):
        rng = np.random.default_rng(5)
        parts = []
        for n in range(4):
            frame = days(0, 3)
            parts.append(frame[rng.random(len(frame)) < 0.4])
            write(root / f"{n}.parquet", parts[-1], row_group_size=100)
        whole = pd.concat(parts).drop_duplicates(["timestamp", "region"])
        expected = pd.crosstab(whole["timestamp"].dt.date, whole["region"])
        pd.testing.assert_frame_equal(ParquetLake(root).coverage(), expected, check_names=False, check_dtype=False)

    def test_coverage_of_telemetry(self, lake):
        assert lake.coverage("batteries").to_dict("list") == {"a": [60], "b": [60]}

    def test_days_of_one_file(self, lake):
        found = lake.days_of_file(next(i.path for i in lake.inventory() if i.path.endswith("b.parquet")))
        assert (list(found.index), list(found.columns)) == ([date(2), date(3)], list(REGIONS))
        assert (found == 288).all(axis=None)

    def test_latest_complete_day(self, lake):
        assert lake.latest_complete_day() == date(5)
        assert lake.latest_complete_day(regions=["FR"]) == date(5)

    @pytest.mark.parametrize(
        "keep, expected",
        [
            (lambda f: f["timestamp"] < day(2.5), 1),  # the last day has begun only
            (lambda f: f["timestamp"] < day(3) - pd.Timedelta(minutes=30), 2),  # a short gap at its end
            (lambda f: f["timestamp"] < day(3) - pd.Timedelta(minutes=40), 1),
            (lambda f: ~((f["timestamp"] > day(2.5)) & (f["timestamp"] < day(2.75))), 1),  # a long gap within
            (lambda f: (f["region"] != "FR") | (f["timestamp"] < day(2.5)), 1),  # one region stops
            (lambda f: (f["region"] != "FR") | (f["timestamp"] < day(2)), 1),  # one region is missing
            (lambda f: (f["region"] != "FR") | (f["timestamp"] < day(1)), 2),  # … and has been for long
        ],
    )
    def test_days_that_are_not_complete_are_passed_over(self, tmp_path, keep, expected):
        write(tmp_path / "x.parquet", days(0, 3)[keep])
        assert ParquetLake(tmp_path).latest_complete_day() == date(expected)

    @pytest.mark.parametrize("form", [None, "text"])
    @pytest.mark.parametrize("value", [np.nan, None, np.inf])
    def test_rows_without_a_price_are_none(self, tmp_path, value, form):
        frame = days(0, 3)
        gone = (frame["region"] == "FR") & (frame["timestamp"] >= day(2.4))
        price = frame["real_time_price"].astype(object).where(~gone, value)
        if form == "text":
            price = price.map(lambda p: "-" if p is None or not np.isfinite(p) else f"{p}")
        else:
            price = price.astype(float)
        write(tmp_path / "x.parquet", frame.assign(real_time_price=price))
        lake = ParquetLake(tmp_path)
        assert lake.latest_complete_day() == date(1)
        assert lake.latest_complete_day(regions=["DE"]) == date(2)
        assert lake.coverage().loc[date(2)].to_dict() == {"DE": 288, "FR": 116}

    @pytest.mark.parametrize("now, expected", [(2.0, 1), (2.99, 1), (3.0, 2), (3.5, 2), (9.0, 5)])
    def test_a_day_that_is_not_over_is_not_complete_though_its_prices_are_published(self, tmp_path, now, expected):
        write(tmp_path / "ahead.parquet", days(0, 6))
        assert ParquetLake(tmp_path).latest_complete_day(now=day(now)) == date(expected)
        with pytest.raises(NoDataError, match="complete"):
            ParquetLake(tmp_path).latest_complete_day(now=day(0.5))

    def test_a_hole_of_months(self, tmp_path):
        write(tmp_path / "old.parquet", days(-200, 2))
        write(tmp_path / "new.parquet", days(0, 1)[:100])
        assert ParquetLake(tmp_path).latest_complete_day() == date(-199)

    def test_none_complete(self, tmp_path):
        write(tmp_path / "x.parquet", days(0, 1)[:100])
        with pytest.raises(NoDataError, match="complete"):
            ParquetLake(tmp_path).latest_complete_day()

    def test_only_the_end_is_read(self, tmp_path, monkeypatch):
        write(tmp_path / "x.parquet", days(0, 20), row_group_size=576)
        lake = ParquetLake(tmp_path)
        lake.inventory()
        asked = []
        original = pq.ParquetFile.read_row_groups
        monkeypatch.setattr(
            pq.ParquetFile, "read_row_groups", lambda self, g, **o: asked.append(g) or original(self, g, **o)
        )
        lake.latest_complete_day()
        assert asked == [[19], [18]]
