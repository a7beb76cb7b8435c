from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from upath import UPath

from energy_ml.config import SAMPLE_END, SAMPLE_START
from energy_ml.errors import ConfigError
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.simulator import (
    REGION_NAMES,
    MarketSimulator,
    NodalMarket,
    Nodes,
    battery_specs,
    region_names,
    simulate_market,
    write_simulation,
)
from energy_ml.market_data.telemetry import clean_batteries

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "processed"
NOW = pd.Timestamp("2027-01-01", tz="UTC")
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def markets():
    """Eight weeks of five regions for each seed; shape (minutes, regions)."""
    result = {}
    for seed in SEEDS:
        market = MarketSimulator(REGION_NAMES[:5], dt.date(2026, 3, 2), seed)
        result[seed] = np.concatenate([market.next_day() for _ in range(56)])
    return result


def autocorrelation(prices, lag):
    centred = prices - prices.mean()
    return float((centred[lag:] * centred[:-lag]).sum() / (centred**2).sum())


@pytest.mark.parametrize("seed", SEEDS)
class TestStylisedFacts:
    """Bounds from one-minute Belgian and Dutch balancing prices; see data/README.md."""

    def test_persistence(self, markets, seed):
        for prices in markets[seed].T:
            assert 0.92 < autocorrelation(prices, 1) < 0.98
            assert 0.45 < autocorrelation(prices, 15) < 0.75
            assert 0.28 < autocorrelation(prices, 60) < 0.58
            assert 0.28 < (np.diff(prices) == 0).mean() < 0.40

    def test_level_and_tails(self, markets, seed):
        prices = markets[seed]
        assert 0.06 < (prices < 0).mean() < 0.18
        assert 45 < prices.mean() < 85
        for own in prices.T:
            assert 45 < own.std() < 90
            changes = np.diff(own)
            kurtosis = ((changes - changes.mean()) ** 4).mean() / changes.var() ** 2
            assert kurtosis > 6
            assert own.max() > 500
            assert own.min() < -120

    def test_daily_and_weekly_shape(self, markets, seed):
        common = markets[seed].mean(axis=1).reshape(56, 24, 60)
        hours = common.mean(axis=(0, 2))
        assert 17 <= hours[12:].argmax() + 12 <= 20  # UTC; an hour later in the regions
        assert 5 <= hours[:10].argmax() <= 9
        assert hours[10:14].mean() < hours.mean() - 25  # midday dip …
        negative = (common < 0).mean(axis=(0, 2))
        assert 9 <= negative.argmax() <= 14  # … which is where prices fall below zero
        days = common.mean(axis=(1, 2)).reshape(8, 7)
        assert days[:, 5:].mean() < days[:, :5].mean() - 5

    def test_volatility_comes_in_regimes(self, markets, seed):
        for prices in markets[seed].T:
            moves = np.abs(np.diff(np.clip(prices, -100, 250)))
            blocks = moves[: len(moves) // 30 * 30].reshape(-1, 30).mean(axis=1)
            assert autocorrelation(blocks, 1) > 0.4
            assert np.quantile(blocks, 0.95) > 2 * np.quantile(blocks, 0.2)  # one regime alone: 1.4

    def test_spikes_rise_fast_and_decay_slowly(self, markets, seed):
        rises, falls = [], []
        for prices in markets[seed].T:
            for peak in np.flatnonzero(prices > 400):
                if peak != peak - 60 + prices[peak - 60 : peak + 60].argmax():
                    continue
                half = prices[peak] / 2
                rises.append((prices[peak - 60 : peak][::-1] < half).argmax())
                falls.append((prices[peak : peak + 60] < half).argmax())
        assert len(rises) > 50
        assert np.median(rises) <= 4
        assert np.median(falls) > 2 * np.median(rises)

    def test_regions_move_together_and_come_apart(self, markets, seed):
        prices = markets[seed]
        whole = np.corrcoef(prices.T)[np.triu_indices(5, 1)]
        assert 0.5 < whole.min() <= whole.max() < 0.95
        windows = prices[: len(prices) // 180 * 180].reshape(-1, 180, 5)
        hours = np.array([np.corrcoef(w[:, 0], w[:, 2])[0, 1] for w in windows])
        assert np.quantile(hours, 0.9) > 0.8
        assert np.quantile(hours, 0.1) < 0.45

    def test_the_first_region_leads(self, markets, seed):
        france, germany = np.diff(markets[seed][:, 0]), np.diff(markets[seed][:, 1])
        lead = [np.corrcoef(germany[: len(germany) - k], france[k:])[0, 1] for k in range(5)]
        assert int(np.argmax(lead)) == 2


def test_same_seed_same_prices_other_seed_other_prices():
    pd.testing.assert_frame_equal(simulate_market(days=2, seed=5), simulate_market(days=2, seed=5))
    assert (
        simulate_market(days=2, seed=5)["real_time_price"] != simulate_market(days=2, seed=6)["real_time_price"]
    ).any()


def test_prices_depend_neither_on_other_regions_nor_on_later_days():
    few = simulate_market(days=2, regions=["FR", "NL"], seed=5)
    many = simulate_market(days=3, regions=10, seed=5)
    end = few["timestamp"].max()
    kept = many[many["region"].isin(["FR", "NL"]) & (many["timestamp"] <= end)].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, kept)


@pytest.mark.parametrize("interval", [1, 5, 15, 30, 60])
def test_frames_keep_to_the_data_contract(interval):
    frame = simulate_market(days=2, regions=3, interval_minutes=interval)
    start = pd.Timestamp(SAMPLE_START, tz="UTC")
    clean = clean_prices(frame, start=start, end=start + pd.Timedelta(days=2), now=NOW)
    assert clean.problems == []
    assert clean.interval_minutes == interval
    assert frame["region"].unique().tolist() == ["FR", "DE", "BE"]
    assert (frame["real_time_price"].round(2) == frame["real_time_price"]).all()


@pytest.mark.parametrize("interval", [1, 15])
def test_batteries_obey_physics(interval, tmp_path):
    write_simulation(tmp_path, days=3, interval_minutes=interval, batteries=4)
    frame = pd.concat(map(pd.read_parquet, tmp_path.glob("batteries_*.parquet")), ignore_index=True)
    prices = simulate_market(days=3, interval_minutes=interval)
    assert clean_batteries(frame, now=NOW).problems == []
    assert frame["battery_id"].nunique() == 4
    for spec in battery_specs(4):
        own = frame[frame["battery_id"] == spec.battery_id].reset_index(drop=True)
        charge, power = own["charge_level_mwh"].to_numpy(), own["power_mw"].to_numpy()
        assert charge.min() >= spec.min_reserve * spec.capacity_mwh - 1e-6
        assert charge.max() <= spec.max_charge * spec.capacity_mwh + 1e-6
        assert np.abs(power).max() <= spec.power_mw + 1e-9
        leg = np.sqrt(spec.efficiency)
        stored = np.where(power > 0, power * leg, power / leg) * interval / 60
        np.testing.assert_allclose(np.diff(charge), stored[:-1], atol=1e-5)
        assert (power > 0).any() and (power < 0).any()
        paid = own.merge(prices, on=["timestamp", "region"])
        assert paid["real_time_price"][power > 0].mean() < paid["real_time_price"][power < 0].mean()


def test_files_do_not_depend_on_how_days_are_split(tmp_path):
    one = write_simulation(tmp_path / "one", days=5, regions=2, days_per_file=30)
    many = write_simulation(tmp_path / "many", days=5, regions=2, days_per_file=2)
    assert [p.name for p in one] == ["prices_2026-01-30_2026-02-03.parquet", "batteries_2026-01-30_2026-02-03.parquet"]
    assert len(many) == 6
    start, end = (pd.Timestamp(d, tz="UTC") for d in ("2026-01-30", "2026-02-04"))
    for read in (ParquetLake.read_prices, ParquetLake.read_batteries):
        a, b = read(ParquetLake(tmp_path / "one"), start, end), read(ParquetLake(tmp_path / "many"), start, end)
        pd.testing.assert_frame_equal(a, b)
    assert pq.ParquetFile(one[0]).num_row_groups == 5  # one a day, so that a window is found by the footer


def test_same_arguments_same_bytes(tmp_path):
    first = [p.read_bytes() for p in write_simulation(tmp_path, days=2)]
    assert [p.read_bytes() for p in write_simulation(tmp_path, days=2)] == first
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "batteries_2026-01-30_2026-01-31.parquet",
        "prices_2026-01-30_2026-01-31.parquet",
    ]


def test_writing_to_an_object_store():
    root = UPath("memory://simulation-test")
    paths = write_simulation(root, days=1, batteries=0)
    assert [p.name for p in paths] == ["prices_2026-01-30_2026-01-30.parquet"]
    assert write_simulation(root, days=1, batteries=0) == paths
    assert ParquetLake(root).latest_complete_day() == SAMPLE_START
    root.fs.rm(root.path, recursive=True)


def test_nothing_half_written_is_left_or_visible(tmp_path):
    def stop(fraction, _):
        assert ParquetLake(tmp_path).inventory() == []
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_simulation(tmp_path, days=4, regions=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_one(tmp_path):
    seen = []
    write_simulation(tmp_path, days=3, regions=1, progress=lambda fraction, _: seen.append(fraction))
    assert seen == [1 / 3, 2 / 3, 1.0]


@pytest.mark.parametrize(
    "options",
    [
        {"days": 0},
        {"regions": 0},
        {"regions": 25},
        {"regions": ["FR", "FR"]},
        {"interval_minutes": 7},
        {"seed": -1},
        {"batteries": -1},
        {"days_per_file": 0},
    ],
)
def test_impossible_arguments(tmp_path, options):
    with pytest.raises(ConfigError):
        write_simulation(tmp_path, **options)


def test_regions_by_number_and_name():
    assert region_names(2) == ("FR", "DE")
    assert region_names(["XX"]) == ("XX",)
    assert len(simulate_market(days=1, regions=["XX", "YY"])) == 2880


def test_the_sample_is_what_the_defaults_write(tmp_path):
    made = write_simulation(tmp_path)
    assert sorted(p.name for p in made) == sorted(p.name for p in SAMPLE.glob("*.parquet"))
    for path in made:
        shipped = SAMPLE / path.name
        assert pq.read_schema(path).equals(pq.read_schema(shipped))
        # Rounding in the last digit may differ between processors' mathematics, nothing else may.
        pd.testing.assert_frame_equal(pq.read_table(path).to_pandas(), pq.read_table(shipped).to_pandas(), atol=0.011)


def test_the_sample_is_whole_clean_and_small():
    lake = ParquetLake(SAMPLE)
    start, end = pd.Timestamp(SAMPLE_START, tz="UTC"), pd.Timestamp(SAMPLE_END, tz="UTC") + pd.Timedelta(days=1)
    clean = clean_prices(lake.read_prices(start, end), start=start, end=end, now=NOW)
    assert clean.problems == []
    assert len(clean.frame) == 12 * 1440 * 5
    assert sorted(clean.frame["region"].unique()) == ["BE", "DE", "ES", "FR", "NL"]
    assert clean_batteries(lake.read_batteries(start, end), now=NOW).problems == []
    assert lake.latest_complete_day() == SAMPLE_END
    assert sum(i.size for i in lake.inventory()) < 3e6
    france = clean.frame.loc[clean.frame["region"] == "FR", "real_time_price"].to_numpy()
    assert 0.93 < autocorrelation(france, 1) < 0.97
    assert 0.4 < autocorrelation(france, 15) < 0.7
    assert 0.3 < autocorrelation(france, 60) < 0.5
    assert 0.3 < (np.diff(france) == 0).mean() < 0.4
    assert 0.08 < (france < 0).mean() < 0.13


class TestNodes:
    def test_nodes_of_a_zone_move_together_and_pockets_by_themselves(self):
        market = NodalMarket(240, 4, dt.date(2026, 3, 2), 1, interval_minutes=15)
        table = market.table.to_pandas()
        prices = np.concatenate([market.next_day() for _ in range(7)])
        assert prices.shape == (7 * 96, 240)
        hubs = np.flatnonzero(table["kind"] == "hub")
        zone = table["zone"].to_numpy()
        apart = np.array([np.abs(prices - prices[:, [hub]]).mean(axis=0) for hub in hubs])
        own = zone[hubs][:, None] == zone
        pocket = apart[own] > 4 * np.median(apart[own])
        assert 0.02 < pocket.mean() < 0.08  # few, and far from their hub
        assert np.median(apart[~own]) > 2 * np.median(apart[own])
        assert np.corrcoef(prices[:, hubs].T).min() > 0.7  # one energy price under all of it

    def test_a_node_keeps_its_prices_however_many_follow(self):
        few, many = (NodalMarket(n, 3, dt.date(2026, 3, 2), 1, 60) for n in (30, 90))
        place = [many.regions.index(name) for name in few.regions]
        for _ in range(2):
            np.testing.assert_array_equal(few.next_day(), many.next_day()[:, place])

    def test_files_beside_the_zones_file(self, tmp_path):
        paths = write_simulation(tmp_path, 2, Nodes(40, 4), dt.date(2026, 3, 2), interval_minutes=60, batteries=1)
        assert len(paths) == 3
        table = pd.read_parquet(tmp_path / "nodes.parquet")
        assert list(table) == ["node", "zone", "hub", "kind"]
        assert table.groupby("zone").size().tolist() == [10] * 4
        lake = ParquetLake(tmp_path)
        assert set(lake.skipped()) == {"nodes.parquet"}
        start = pd.Timestamp("2026-03-02", tz="UTC")
        prices = lake.read_prices(start, start + pd.Timedelta(days=2))
        assert prices["region"].unique().tolist() == table["node"].tolist() == sorted(table["node"])
        with pytest.raises(ConfigError, match="zones"):
            write_simulation(tmp_path, regions=Nodes(3, 4))
