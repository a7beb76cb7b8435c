"""The mean and the probability of a spike, read off calibrated quantiles."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_ml.price_prediction.conformal import QUANTILES
from energy_ml.price_prediction.distribution import (
    calibrated,
    calibration_of,
    expected_price,
    spike_probability,
)

SCALE = 30.0


def quantiles_of(mean: float, deviation: float, scale: float = SCALE) -> np.ndarray:
    """Of a normal price (1, quantiles), on the arcsinh scale."""
    known = NormalDist(mean, deviation)
    return np.arcsinh(np.array([[known.inv_cdf(share) for share in QUANTILES]]) / scale)


def test_of_a_normal_price_they_are_its_mean_and_its_tail() -> None:
    quantiles = quantiles_of(60.0, 10.0)
    assert expected_price(quantiles, SCALE)[0] == pytest.approx(60.0, abs=0.3)
    for threshold in (45.0, 60.0, 70.0, 79.0):
        tail = 1 - NormalDist(60.0, 10.0).cdf(threshold)
        assert spike_probability(quantiles, SCALE, np.array([threshold]))[0] == pytest.approx(tail, abs=0.01)
    assert np.isnan(spike_probability(quantiles, SCALE, np.array([np.nan]))[0])


def test_the_mean_of_a_skewed_price_is_that_of_many_draws() -> None:
    """Prices whose arcsinh is normal: what calibrated quantiles of a spiky market look like."""
    rng = np.random.default_rng(1)
    draws = SCALE * np.sinh(rng.normal(1.2, 0.5, 200_000))
    quantiles = np.quantile(np.arcsinh(draws / SCALE), QUANTILES)[None]
    assert expected_price(quantiles, SCALE)[0] == pytest.approx(draws.mean(), rel=0.02)
    assert expected_price(quantiles, SCALE)[0] > np.median(draws) * 1.05
    for threshold in (60.0, 120.0, 250.0):
        found = spike_probability(quantiles, SCALE, np.array([threshold]))[0]
        assert found == pytest.approx((draws > threshold).mean(), abs=0.005)


def test_too_sure_probabilities_are_moved_towards_how_often_spikes_come() -> None:
    rng = np.random.default_rng(3)
    true = rng.uniform(0, 0.2, 5000)
    came = (rng.random(5000) < true).astype(float)
    told = np.clip(3 * true, 0, 1)
    start, slope = calibration_of(told, came)
    assert slope == pytest.approx(1 / 3, abs=0.05)
    assert start == pytest.approx(0, abs=0.01)
    assert calibration_of(told, np.zeros(5000)) == (0.0, 1.0), "nothing is learned from a time without spikes"
    assert calibration_of(1 - told, came)[1] == 0.0, "what tells the wrong way round tells nothing"
    quantiles = quantiles_of(60.0, 10.0)
    plain, moved = (spike_probability(quantiles, SCALE, np.array([60.0]), line)[0] for line in ((0, 1), (0.01, 0.5)))
    assert moved == pytest.approx(0.01 + 0.5 * plain)


def test_bounds_and_median_are_put_in_order() -> None:
    bounds = np.array([[[-1.0, 1.0], [-2.0, 2.5], [-3.0, 4.0]]])
    np.testing.assert_array_equal(calibrated(bounds, np.array([0.2])), [[-3, -2, -1, 0.2, 1, 2.5, 4]])


@given(
    st.lists(st.floats(-3, 6), min_size=7, max_size=7),
    st.floats(-500, 5000),
    st.floats(0, 1000),
)
def test_they_move_as_they_should(values: list[float], threshold: float, more: float) -> None:
    quantiles = np.sort(np.array([values])) + 1e-3 * np.arange(7)
    lower, higher = (spike_probability(quantiles, SCALE, np.array([t]))[0] for t in (threshold, threshold + more))
    assert 0 <= higher <= lower <= 1
    raised = quantiles + 0.1
    assert expected_price(raised, SCALE)[0] > expected_price(quantiles, SCALE)[0]
    assert spike_probability(raised, SCALE, np.array([threshold]))[0] >= lower - 1e-12
