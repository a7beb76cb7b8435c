"""The gate: keeps good forecasts, turns off bad ones, never looks ahead."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.features.neighbours import HANDFUL
from energy_ml.price_prediction.gate import DOUBT, GRID, OTHERS_WEIGHT, PRIOR_OUTCOMES, OnlineGate


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


def test_chance_alone_never_turns_a_right_ensemble_down() -> None:
    """It knows the median of every next move, and big moves come by chance: any factor but one is luck."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        known = 0.5 * rng.choice([-1.0, 1.0], size=(2, 3000))
        price = 50 + np.cumsum(np.roll(known, 1, axis=1) + rng.standard_t(2, size=known.shape), axis=1)
        factors = (OnlineGate(2, 1, 5).run(price, price + known) - price) / known
        assert np.isclose(factors, 1).mean() > 0.98  # without doubt 68 to 91 %


def test_an_hour_of_spikes_does_not_outweigh_days_of_skill() -> None:
    """A day and a half of good forecasts, then an hour in which prices jump by thousands, each time the other way."""
    price, steps = market(4, 500), 1
    price[:, 440:452] += 5000 * (-1.0) ** np.arange(12)
    good = price.copy()
    good[:, :-1] += 0.5 * (price[:, 1:] - price[:, :-1])
    good[:, 440:452] = 2 * price[:, 440:452] - good[:, 440:452]
    factors = (OnlineGate(2, steps, 5).run(price, good) - price) / np.where(good == price, np.nan, good - price)
    assert (factors[:, 455:-1] > 0.6).all()  # with all their say the spikes make it 0


def test_a_state_saved_before_its_doubt_was_kept_begins_afresh() -> None:
    price = market(3)
    gate = OnlineGate(2, 3, 5)
    gate.run(price, price + np.random.default_rng(1).normal(0, 10, price.shape))
    assert gate.factors().max() < 0.5
    older = OnlineGate.__new__(OnlineGate)
    older.__setstate__({name: value for name, value in gate.__dict__.items() if name != "square"})
    assert (older.factors() == 1).all() and np.isfinite(older.run(price, price)).all()


def test_in_a_large_market_sums_over_regions_say_what_pairs_do() -> None:
    rng = np.random.default_rng(5)
    price = 50 + np.cumsum(rng.normal(size=(HANDFUL + 4, 300)), axis=1)
    skill = np.linspace(0, 1, len(price))[:, None]
    ensemble = price + skill * (np.roll(price, -2, axis=1) - price) + rng.normal(0, 2 - 1.9 * skill, price.shape)
    gate = OnlineGate(len(price), 2, 5)
    gate.run(price, ensemble)
    weight = np.full((len(price), len(price)), OTHERS_WEIGHT)
    np.fill_diagonal(weight, 1.0)
    loss, square = (np.einsum("or,mrg->omg", w, x) for w, x in ((weight, gate.loss), (weight**2, gate.square)))
    usual = (gate.size / gate.count).T[:, :, None]
    doubt = PRIOR_OUTCOMES * usual * np.abs(GRID - 1) + DOUBT * np.sqrt(square)
    chosen = np.where((loss + doubt).min(axis=2) < 0, GRID[(loss + doubt).argmin(axis=2)], 1.0)
    np.testing.assert_allclose(gate.factors(), chosen.mean(axis=1))
    assert gate.factors().min() < 0.5 and gate.factors().max() > 0.7


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(50, 150))
def test_no_forecast_uses_a_later_price(seed: int, steps: int, cut: int) -> None:
    price = market(seed, 200)
    ensemble = price + np.random.default_rng(seed + 1).normal(0, 2, price.shape)
    whole = OnlineGate(2, steps, 5).run(price, ensemble)
    changed = price.copy()
    changed[:, cut:] += 30
    later = OnlineGate(2, steps, 5).run(changed, ensemble)
    assert (later[:, :cut] == whole[:, :cut]).all()


@settings(max_examples=20)
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
