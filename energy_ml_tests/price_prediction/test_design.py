"""Where forecasts may lie: within what prices usually were, or where the price is now."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_ml.price_prediction.design import VOL, Design

PRICES = st.floats(-1e4, 2e4)


@pytest.fixture(scope="module")
def design() -> Design:
    """North between 0 and 100 with one spike in a thousand prices, south between -50 and 10 and unknown at first."""
    north, south = np.linspace(0, 100, 1000), np.linspace(-50, 10, 1000)
    north[500] = 15_000.0
    south[:300] = np.nan
    return Design.plan(["day_position", VOL], ["north", "south"], np.column_stack([north, south]))


def _held(design: Design, forecast: float, price: float, code: int) -> float:
    return float(design.within_usual(np.array([forecast]), np.array([price]), np.array([code]))[0])


def test_a_forecast_of_a_price_that_hardly_ever_was_is_held_back(design: Design) -> None:
    assert _held(design, -1500.0, 40.0, 0) == pytest.approx(3.0, abs=0.2), "one spike is not usual, a low near 0 is"
    assert _held(design, 5000.0, 40.0, 0) == pytest.approx(97.0, abs=0.3)
    assert _held(design, 40.0, -20.0, 1) == pytest.approx(8.7, abs=0.3), "each region has its own prices"


def test_a_price_beyond_the_usual_may_stay_where_it_is(design: Design) -> None:
    assert _held(design, 9000.0, 15_000.0, 0) == 9000.0
    assert _held(design, 16_000.0, 15_000.0, 0) == 15_000.0
    assert _held(design, -300.0, -200.0, 0) == -200.0


def test_an_unseen_region_has_what_is_usual_anywhere(design: Design) -> None:
    assert design.usual_prices.shape == (3, 2)
    assert design.usual_prices[2, 0] < design.usual_prices[0, 0]
    assert design.usual_prices[2, 1] > design.usual_prices[1, 1]
    assert _held(design, -1500.0, 40.0, -1) == design.usual_prices[2, 0]


@given(forecast=PRICES, price=PRICES, code=st.integers(-1, 1))
def test_nothing_lies_beyond_both_the_usual_and_the_present_price(
    design: Design, forecast: float, price: float, code: int
) -> None:
    low, high = design.usual_prices[code]
    held = _held(design, forecast, price, code)
    assert min(low, price) <= held <= max(high, price)
    if min(low, price) <= forecast <= max(high, price):
        assert held == forecast
    assert np.isnan(_held(design, float("nan"), price, code))
