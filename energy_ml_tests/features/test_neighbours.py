"""Who is compared with whom in a market of many nodes, and that every path compares alike."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import Settings
from energy_ml.errors import SchemaError
from energy_ml.features import PriceFeatureSpec, price_feature_cube, to_panel
from energy_ml.features import neighbours as rules
from energy_ml.features.neighbours import HANDFUL, NEAREST, choose, compared
from energy_ml.features.price_features import price_features
from energy_ml.market_data.simulator import NodalMarket, Nodes, write_simulation
from energy_ml.results import ResultsStore
from energy_ml.training_window import lake_of, open_day
from energy_ml_tests.features.frames import long_frame, price_matrix
from energy_ml_tests.features.test_regional_features import brute_nearest, brute_regional

PRICE = ["real_time_price"]


@pytest.fixture(scope="module")
def nodal() -> tuple[NodalMarket, np.ndarray]:
    market = NodalMarket(72, 3, dt.date(2026, 3, 2), 5, interval_minutes=15)
    return market, np.concatenate([market.next_day() for _ in range(4)])


def test_a_handful_is_compared_with_all_and_nothing_is_chosen() -> None:
    prices = price_matrix(50, HANDFUL, 1)
    assert choose(prices, [f"R{n}" for n in range(HANDFUL)]) is None
    every = compared(("a", "b", "c"), ("a", "c"), None)
    assert every.candidates.tolist() == [[2, -1], [0, 2], [0, -1]]


def test_named_zones_hold_and_candidates_are_few_and_near(nodal) -> None:
    market, prices = nodal
    zone_of = dict(zip(*(market.table[name].to_pylist() for name in ("node", "zone")), strict=True))
    laid = compared(market.regions, None, choose(prices, market.regions, zone_of))
    assert [{zone_of[market.regions[own]] for own in zone} for zone in laid.zones] == [{"Z01"}, {"Z02"}, {"Z03"}]
    assert laid.candidates.shape == (72, NEAREST)
    for own in range(72):
        distance = np.abs(prices - prices[:, [own]]).mean(axis=0)
        zone = [n for n in range(72) if n != own and market.regions[n][:3] == market.regions[own][:3]]
        assert set(laid.candidates[own]) <= set(zone)
        assert distance[laid.candidates[own]].mean() < distance[zone].mean()


def test_without_names_zones_are_found_in_the_prices(nodal, monkeypatch: pytest.MonkeyPatch) -> None:
    market, prices = nodal
    monkeypatch.setattr(rules, "LARGEST_FOUND", 24)
    shuffled = np.random.default_rng(0).permutation(72)
    regions = [f"{n:02d}" for n in range(72)]
    found = json.loads(choose(prices[:, shuffled], regions))
    assert sorted(name for names, _ in found for name in names) == regions
    assert max(len(names) for names, _ in found) <= 24
    by_zone = [pd.Series([market.regions[shuffled[int(n)]][:3] for n in names]) for names, _ in found]
    assert np.mean([zone.value_counts(normalize=True).iloc[0] for zone in by_zone]) > 0.8
    assert choose(prices[:, shuffled], regions) == choose(prices[:, shuffled], regions)


def test_features_equal_loops_over_the_chosen_pairs_and_the_newest_row() -> None:
    """Zones of unequal size, missing prices, a node that the choice doesn't know: batch, loops and live agree."""
    values = price_matrix(60, 23, 3, 0.05)
    regions = [f"R{n}" for n in range(23)]
    order = [regions.index(name) for name in sorted(regions)]
    zones = {name: "few" if n < 5 else "more" for n, name in enumerate(regions[:-1])}
    choice = choose(values[:, :-1], regions[:-1], zones)
    spec = PriceFeatureSpec(neighbours=choice, horizons=(15,), windows=(5,))
    panel = to_panel(long_frame(values, 15), PRICE)
    assert list(panel.regions) == sorted(regions)
    names, cube = price_feature_cube(panel, spec)
    others = compared(panel.regions, None, choice)
    assert (others.candidates[panel.regions.index("R22")] == -1).all()
    ordered = values[:, order]
    first = names.index("spread_others_mean")
    for zone in others.zones:
        place = zone.tolist().index(0) if 0 in zone else None
        part = brute_regional(ordered[:, zone], np.ones(len(zone), bool), place)
        part[3] = ordered[:, zone] - ordered[:, [0]]
        np.testing.assert_allclose(cube[first : first + len(part), :, zone], part, rtol=1e-5, atol=1e-5)
    first = names.index("nearest_spread")
    near = brute_nearest(ordered, others.candidates, 4)
    np.testing.assert_allclose(cube[first : first + len(near)], near, rtol=1e-5, atol=1e-5)
    newest = price_feature_cube(panel, spec, last=1)[1]
    np.testing.assert_array_equal(newest[:, 0].view(np.uint32), cube[:, -1].view(np.uint32))


def test_the_choice_goes_with_the_features_and_looks_at_their_first_days_alone() -> None:
    frame = long_frame(price_matrix(8 * 24, 20, 4), 60)
    features = price_features(frame, PriceFeatureSpec())
    kept = features[features["timestamp"] >= features["timestamp"].iloc[500]].reset_index(drop=True)
    assert isinstance(kept.attrs["neighbours"], str)
    later = frame.assign(real_time_price=np.where(np.arange(len(frame)) < 2 * 24 * 20, frame["real_time_price"], 7.0))
    assert price_features(later, PriceFeatureSpec()).attrs == features.attrs


def test_zones_of_the_file_reach_the_features_of_a_day_and_stay_with_them(tmp_path: Path) -> None:
    start = dt.date(2026, 3, 2)
    write_simulation(tmp_path / "lake", 6, Nodes(20, 2), start, interval_minutes=60, batteries=0)
    settings = Settings(data_dir=str(tmp_path / "lake"), start_date=start, training_window_days=5, horizons=(60,))
    lake = lake_of(settings)
    features = open_day(settings, lake, dt.date(2026, 3, 7)).features
    chosen = json.loads(features.attrs["neighbours"])
    assert [{lake.zones()[name] for name in names} for names, _ in chosen] == [{"Z01"}, {"Z02"}]
    store = ResultsStore(str(tmp_path / "results"))
    store.write(start, "features.parquet", features)
    assert store.read(start, "features.parquet").attrs["neighbours"] == features.attrs["neighbours"]
    pd.DataFrame({"node": ["a"], "area": ["b"]}).to_parquet(tmp_path / "lake" / "nodes.parquet")
    with pytest.raises(SchemaError, match=r"'zone'.*nodes\.parquet"):
        lake.zones()
