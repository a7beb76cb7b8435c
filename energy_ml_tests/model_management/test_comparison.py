"""The promotion rule: better on the same window, never older, the first one better than doing nothing."""

import datetime as dt
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.artifacts import to_jsonable
from energy_ml.config import PromotionConfig, Settings
from energy_ml.errors import ConfigError, PromotionError
from energy_ml.model_management import compare_policies, compare_price_models
from energy_ml.model_management.comparison import compare_metadata

RNG = np.random.default_rng(7)
ERRORS = RNG.normal(size=(400, 3))
PROFIT = RNG.normal(1.0, 0.5, size=(288, 2))


def test_a_better_mean_is_promoted_with_its_numbers():
    decision = compare_price_models(
        0.9 * ERRORS, ERRORS, horizon_steps=3, as_of_candidate="2026-02-10", as_of_champion=dt.date(2026, 2, 9)
    )
    assert decision.promote
    assert decision.numbers["improvement"] == pytest.approx(0.1)
    assert decision.numbers["candidate"] == pytest.approx(0.9 * np.abs(ERRORS).mean())
    assert decision.numbers["p_value"] < 1e-6 and decision.numbers["steps"] == 400
    assert decision.numbers["as_of_candidate"] == "2026-02-10"
    for words in ("Promoted", "10.00% better", "400 steps", "the champion", "Diebold-Mariano"):
        assert words in decision.reason
    json.dumps(to_jsonable(decision.numbers), allow_nan=False)


def test_a_worse_mean_and_an_exact_tie_are_not_promoted():
    worse = compare_price_models(1.1 * ERRORS, ERRORS)
    assert not worse.promote and "10.00% worse" in worse.reason and worse.numbers["p_value"] > 0.99
    tie = compare_price_models(ERRORS, -ERRORS)
    assert not tie.promote and "no difference" in tie.reason


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 12]))
def test_by_default_the_better_mean_wins_and_never_both(seed, horizon):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 200, 2))
    forth, back = (compare_price_models(x, y, horizon_steps=horizon) for x, y in ((a, b), (b, a)))
    assert forth.promote == (np.abs(a).mean() < np.abs(b).mean())
    assert not (forth.promote and back.promote)
    assert forth.numbers["p_value"] + back.numbers["p_value"] == pytest.approx(1)


def test_thresholds_are_settable():
    """A candidate that is 1 % better on the mean, but better at few steps and worse at many."""
    mixed = ERRORS * np.where(np.arange(400) % 8 == 0, 0.5, 1.0)[:, None]
    mixed *= 0.99 * np.abs(ERRORS).mean() / np.abs(mixed).mean()
    default = compare_price_models(mixed, ERRORS)
    assert default.promote and default.numbers["improvement"] == pytest.approx(0.01)
    p = default.numbers["p_value"]
    assert p < 0.5
    assert not compare_price_models(mixed, ERRORS, rule=PromotionConfig(min_improvement=0.02)).promote
    demanding = compare_price_models(mixed, ERRORS, rule=PromotionConfig(max_p_value=p / 2))
    assert not demanding.promote and "p must be at most" in demanding.reason
    assert not compare_price_models(ERRORS, mixed).promote
    assert compare_price_models(ERRORS, mixed, rule=PromotionConfig(min_improvement=-0.02, max_p_value=1)).promote
    assert not compare_price_models(ERRORS, mixed, rule=PromotionConfig(min_improvement=-0.02)).promote


@pytest.mark.parametrize("compare", [compare_price_models, compare_policies])
def test_a_backfill_of_old_days_never_dethrones(compare):
    def decide(candidate, champion):
        much_better = (0.01 * ERRORS, ERRORS) if compare is compare_price_models else (PROFIT + 9, PROFIT)
        return compare(*much_better, as_of_candidate=candidate, as_of_champion=champion)

    old = decide("2026-02-09", dt.date(2026, 2, 10))
    assert not old.promote and "older than the champion of 2026-02-10" in old.reason
    assert not decide(None, "2026-02-10").promote
    for candidate in ("2026-02-10", "2026-02-11", dt.datetime(2026, 2, 10, 5)):
        assert decide(candidate, "2026-02-10").promote
    assert decide("2026-02-10", None).promote
    with pytest.raises(PromotionError, match="no as-of date"):
        decide("yesterday", "2026-02-10")


def test_the_first_price_model_must_beat_price_stays():
    assert compare_price_models(0.9 * ERRORS, None, errors_naive=ERRORS).promote
    lost = compare_price_models(1.01 * ERRORS, None, errors_naive=ERRORS)
    assert not lost.promote and "'price stays'" in lost.reason
    with pytest.raises(PromotionError, match="baseline"):
        compare_price_models(ERRORS, None)
    assert compare_price_models(ERRORS, None, rule=PromotionConfig(require_beats_naive=False)).promote
    # Once there is a champion, it is the opponent.
    assert compare_price_models(0.9 * ERRORS, ERRORS, errors_naive=0.1 * ERRORS).promote


def test_the_first_policy_must_beat_holding():
    assert compare_policies(PROFIT, None).promote
    lost = compare_policies(-PROFIT, None)
    assert not lost.promote and "holding" in lost.reason
    assert not compare_policies(0 * PROFIT, None).promote, "doing nothing is no better than doing nothing"


def test_a_better_profit_is_promoted_and_a_worse_one_not():
    better = compare_policies(PROFIT + 0.1, PROFIT)
    assert better.promote and better.numbers["block"] == 16
    assert better.numbers["candidate"] - better.numbers["opponent"] == pytest.approx(0.1 * PROFIT.size)
    assert not compare_policies(PROFIT - 0.1, PROFIT).promote
    assert not compare_policies(PROFIT, PROFIT).promote
    days = compare_policies([10.0, 12.0], [9.0, 11.5])
    assert days.promote and days.numbers["steps"] == 2
    assert not compare_policies([10.0], [9.0]).promote, "one number can't be tested"


def test_losses_on_losses_are_compared_the_right_way_round():
    assert compare_policies([-1.0, -1.0, -1.0], [-2.0, -2.0, -2.0]).numbers["improvement"] == pytest.approx(0.5)
    assert not compare_policies([-3.0] * 3, [-2.0] * 3).promote


def test_only_pairs_that_both_have_are_compared():
    a, b = ERRORS.copy(), 2 * ERRORS
    a[:50] = b[:50] = np.nan
    b[50:60, 0] = np.nan
    decision = compare_price_models(a, b)
    assert decision.numbers["steps"] == 350
    clean = compare_price_models(np.delete(a, slice(0, 60), axis=0), np.delete(b, slice(0, 60), axis=0))
    assert clean.numbers["improvement"] == pytest.approx(0.5) == decision.numbers["improvement"]
    few = compare_price_models(ERRORS[:10], 2 * ERRORS[:10])
    assert not few.promote and "only 10 steps" in few.reason
    assert not compare_price_models(np.full(50, np.nan), np.ones(50)).promote
    with pytest.raises(PromotionError, match="same test window"):
        compare_price_models(ERRORS, ERRORS[1:])


def test_numbers_of_two_versions_side_by_side():
    rows, others = compare_metadata({"a": {"x": 1, "y": True}, "s": "text"}, {"a": {"x": 3.5}, "s": "text", "z": 2})
    assert others == {"a.y": {"a": True, "b": None}}
    assert rows == {
        "a.x": {"a": 1, "b": 3.5, "difference": 2.5},
        "z": {"a": None, "b": 2, "difference": None},
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_improvement": 1.0},
        {"max_p_value": 0.0},
        {"max_p_value": 1.5},
        {"min_observations": 0},
        {"bootstrap_samples": 0},
    ],
)
def test_impossible_thresholds_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PromotionConfig(**wrong)


def test_thresholds_come_from_the_environment():
    env = {"ENERGY_ML_PROMOTION_MIN_IMPROVEMENT": "-0.01", "ENERGY_ML_PROMOTION_MAX_P_VALUE": "0.9"}
    rule = Settings.from_env(env | {"ENERGY_ML_PROMOTION_REQUIRE_BEATS_NAIVE": "no"}).ml_config().promotion
    assert (rule.min_improvement, rule.max_p_value, rule.require_beats_naive) == (-0.01, 0.9, False)
    assert Settings.from_env({}).ml_config().promotion == PromotionConfig()
    for name, value in (("MAX_P_VALUE", "2"), ("MIN_IMPROVEMENT", "much"), ("REQUIRE_BEATS_NAIVE", "maybe")):
        with pytest.raises(ConfigError):
            Settings.from_env({f"ENERGY_ML_PROMOTION_{name}": value})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_answer_loses_to_an_answer(bad: float) -> None:
    """Infinite at nearly all steps and a little better at the rest must not become champion."""
    champion = np.random.default_rng(0).normal(0, 10, 2000)
    candidate = np.full(2000, bad)
    candidate[:30] = 0.5 * champion[:30]
    decision = compare_price_models(candidate, champion)
    assert not decision.promote
    assert "no finite answer at 1,970 steps" in decision.reason
    profit = np.ones(500)
    earned = np.where(np.arange(500) < 5, 2.0, -bad)
    assert not compare_policies(earned, profit).promote
    both = np.where(np.arange(2000) % 2, champion, np.nan)
    assert compare_price_models(0.5 * both, both).promote, "where neither knows, nobody loses"
