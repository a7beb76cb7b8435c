"""The newest row alone, as a live forecast asks for it, against the batch: bit for bit, whatever the market."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.features import PriceFeatureSpec, price_feature_cube, required_history, to_panel
from energy_ml_tests.features.frames import long_frame, price_matrix

PRICE = ["real_time_price"]


def assert_same_newest_row(values: np.ndarray, interval: int, spec: PriceFeatureSpec) -> None:
    frame = long_frame(values, interval).assign(load=np.arange(values.size) / 7)
    panel = to_panel(frame, [*PRICE, *spec.extra_columns], interval_minutes=interval)
    names, batch = price_feature_cube(panel, spec)
    _, newest = price_feature_cube(panel, spec, last=1)
    assert newest.shape == (len(names), 1, values.shape[1])
    for name, expected, found in zip(names, batch[:, -1], newest[:, 0], strict=True):
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(known, ~np.isnan(found), err_msg=name)
        np.testing.assert_array_equal(found.view(np.uint32)[known], expected.view(np.uint32)[known], err_msg=name)


@settings(max_examples=50)
@given(
    st.integers(2, 160),
    st.integers(1, 6),
    st.sampled_from([1, 5, 15, 30, 60]),
    st.sampled_from([0.0, 0.02, 0.2]),
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([1, 2, 3, 5, 7, 30, 60]), min_size=1, max_size=5, unique=True),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.data(),
)
def test_any_market_any_features(n_times, n_regions, interval, nan_share, seed, windows, parts, data):
    names = [f"R{region}" for region in range(n_regions)]
    regions = data.draw(st.none() | st.permutations([*names, "away"]).map(lambda order: tuple(order[:2])))
    if regions == ("away",) or (regions and not set(regions) & set(names)):
        regions = None
    time, regional, market_state, extra = parts
    spec = PriceFeatureSpec(
        windows=tuple(windows),
        regions=regions,
        include_time=time,
        include_regional=regional,
        include_market_state=market_state,
        extra_columns=("load",) if extra else (),
    )
    assert_same_newest_row(price_matrix(n_times, n_regions, seed, nan_share), interval, spec)


@pytest.mark.parametrize("interval", [5, 15, 60])
@pytest.mark.parametrize("extra", [-1, 0, 1, 700])
@pytest.mark.parametrize("nan_share", [0.0, 0.03, 0.15])
def test_around_a_day_and_with_all_history(interval, extra, nan_share):
    day, spec = 1440 // interval, PriceFeatureSpec()
    for length in (day, required_history(spec, interval)):
        assert_same_newest_row(price_matrix(length + extra, 3, length + interval, nan_share), interval, spec)


@pytest.mark.parametrize("prices", [np.full((400, 2), 33.3), np.repeat([[1e6], [-1e6]], 200, axis=0)])
def test_constant_and_wild_prices(prices):
    assert_same_newest_row(prices, 15, PriceFeatureSpec())
