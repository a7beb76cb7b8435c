"""The gate: keeps good forecasts, turns off bad ones, never looks ahead."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.price_prediction.gate import OnlineGate


def market(seed: int, n: int = 800) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).normal(size=(2, n)), axis=1) + 50


def relative_error(price: np.ndarray, forecast: np.ndarray, steps: int, after: int) -> float:
    actual, now = price[:, after + steps :], price[:, after:-steps]
    return float(np.abs(forecast[:, after:-steps] - actual).sum() / np.abs(now - actual).sum())


def test_a_useless_ensemble_ends_up_close_to_persistence() -> None:
    price, steps = market(0), 3
    wild = price + np.random.default_rng(1).normal(0, 10, price.shape)
    assert relative_error(price, wild, steps, 200) > 2
    assert relative_error(price, OnlineGate(2, steps, 5).run(price, wild), steps, 200) < 1.01


def test_a_perfect_ensemble_is_left_alone() -> None:
    price, steps = market(2), 3
    perfect = np.full_like(price, np.nan)
    perfect[:, :-steps] = price[:, steps:]
    gated = OnlineGate(2, steps, 5).run(price, perfect)
    assert relative_error(price, gated, steps, 200) < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(50, 150))
def test_no_forecast_uses_a_later_price(seed: int, steps: int, cut: int) -> None:
    price = market(seed, 200)
    ensemble = price + np.random.default_rng(seed + 1).normal(0, 2, price.shape)
    whole = OnlineGate(2, steps, 5).run(price, ensemble)
    changed = price.copy()
    changed[:, cut:] += 30
    later = OnlineGate(2, steps, 5).run(changed, ensemble)
    assert (later[:, :cut] == whole[:, :cut]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_pieces_and_live_calls_equal_the_whole_run_bit_for_bit(seed: int, steps: int) -> None:
    price = market(seed, 120)
    price[0, 30:40] = np.nan
    ensemble = price + np.random.default_rng(seed + 1).normal(0, 2, price.shape)
    whole = OnlineGate(2, steps, 5).run(price, ensemble)
    gate = OnlineGate(2, steps, 5)
    for t in range(120):
        piece = gate.run(price[:, t : t + 1], ensemble[:, t : t + 1])[:, 0]
        np.testing.assert_array_equal(piece, whole[:, t])
        np.testing.assert_array_equal(gate.apply(1, price[1, t], ensemble[1, t]), whole[1, t])
