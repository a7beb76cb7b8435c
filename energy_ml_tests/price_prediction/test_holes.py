"""What wasn't measured teaches nothing and judges nothing; forecasts beside it say so."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import HistoryError, SplitError
from energy_ml.features import follows_hole, recent_reach
from energy_ml.price_prediction import PricePredictionTrainer, PricePredictor
from energy_ml.price_prediction.conformal import OnlineConformal
from energy_ml.price_prediction.gate import OnlineGate
from energy_ml.price_prediction.replay import replay
from energy_ml_tests.price_prediction.conftest import market, small_config, whole_split

PRICE = "real_time_price"


def between(frame: pd.DataFrame, first: str, last: str) -> pd.Series:
    return frame["timestamp"].between(pd.Timestamp(first), pd.Timestamp(last), inclusive="left")


def spotted(invented: float) -> pd.DataFrame:
    """Five days of which AA lacks a day of training, and an hour each of training, validation and test is filled."""
    raw = market(days=5)
    hole = between(raw, "2025-03-02 06:00Z", "2025-03-03 06:00Z") & (raw["region"] == "AA")
    filled = pd.Series(False, index=raw.index)
    for day in ("2025-03-01", "2025-03-04", "2025-03-05"):
        filled |= between(raw, f"{day} 20:00Z", f"{day} 21:00Z")
    raw[PRICE] = raw[PRICE].mask(filled, invented).mask(hole)
    return raw.assign(is_filled=hole | filled)


def test_rows_that_follow_a_hole_are_found_within_reach_only():
    price = np.arange(20.0).reshape(10, 2)
    price[3, 0] = price[0, 1] = np.nan
    found = follows_hole(price, 2)
    assert np.flatnonzero(found[:, 0]).tolist() == [4, 5]
    assert np.flatnonzero(found[:, 1]).tolist() == [1, 2]
    names = ["price_lag_30", "rolling_mean_12", "change_500", "rolling_std_40"]
    assert recent_reach(names, 5) == 40
    assert recent_reach(names, 60) == 24, "no further back than a day"


def test_outcomes_that_were_not_measured_move_neither_gate_nor_calibration():
    rng = np.random.default_rng(4)
    price = rng.normal(50, 10, (2, 300))
    ensemble, gone = price + rng.normal(0, 5, price.shape), rng.random(price.shape) < 0.2
    quantiles = np.arcsinh(price)[..., None] + np.linspace(-1, 1, 7)
    states = []
    for other in (0.0, 1e4):
        outcome = np.where(gone, np.nan, price)
        gate, conformal = OnlineGate(2, 3, 5), OnlineConformal(2, 3, 5)
        # Where forecasts start from may be filled, so it's kept; only what they're judged by is withheld.
        gate.run(price, ensemble, outcome)
        conformal.run(np.arcsinh(outcome), quantiles)
        everything = OnlineGate(2, 3, 5)
        everything.run(price, ensemble, np.where(gone, other, price))
        states.append((gate, conformal, everything))
    np.testing.assert_array_equal(states[0][0].loss, states[1][0].loss)
    np.testing.assert_array_equal(states[0][1].scores, states[1][1].scores)
    assert not np.array_equal(states[0][2].loss, states[1][2].loss), "else this test couldn't fail"
    assert (states[0][0].count < states[0][2].count).all()


@pytest.fixture(scope="module")
def trained() -> tuple[PricePredictionTrainer, pd.DataFrame, pd.DataFrame]:
    prices = spotted(45.0)
    trainer = PricePredictionTrainer(small_config(horizons=[60]))
    features, names = trainer.prepare_data(prices)
    trainer.train_for_horizon(features, names, 60, split=whole_split(prices))
    return trainer, prices, features


def test_a_window_with_a_hole_of_a_day_trains_around_it_and_counts(trained):
    trainer, prices, _ = trained
    forecasts, model = trainer.results[60]["forecasts"], trainer.models[60]
    known = prices[~prices["is_filled"]].set_index(["timestamp", "region"])[PRICE]
    target = pd.MultiIndex.from_arrays([forecasts["timestamp"] + pd.Timedelta(minutes=60), forecasts["region"]])
    measured = target.isin(known.index)
    np.testing.assert_array_equal(forecasts["price_actual"].notna(), measured)
    np.testing.assert_array_equal(forecasts["price_actual"][measured], known.loc[target[measured]])
    assert 0 < (~measured).sum() < len(forecasts)
    origin = pd.MultiIndex.from_arrays([forecasts["timestamp"], forecasts["region"]])
    np.testing.assert_array_equal(forecasts["is_filled"], ~origin.isin(known.index))
    assert np.isfinite(forecasts[["price_now", "price_forecast", "lower", "upper"]].to_numpy()).all()
    mine = forecasts[forecasts["region"] == "AA"]
    # A day missing, and fifteen hours (sixty intervals) after it whose lags and windows touch it.
    assert not between(mine, "2025-03-02 06:00Z", "2025-03-03 21:00Z").any()
    assert between(forecasts[forecasts["region"] == "BB"], "2025-03-02 06:00Z", "2025-03-03 21:00Z").any()
    left_out = model.provenance["rows_left_out"]
    assert left_out["train"] >= 96 + 60 + 3 * 4
    assert left_out["validation"] == 12
    # Three regions, an hour each of targets; the hour that is forecast from may be filled.
    assert left_out["test"] == 12
    metrics = trainer.results[60]["metrics"]["test"]
    test = forecasts[(forecasts["split"] == "test") & forecasts["price_actual"].notna()]
    assert metrics["n"] == len(test)
    assert metrics["n_missing"] == 12
    assert metrics["mae"] == pytest.approx((test["price_forecast"] - test["price_actual"]).abs().mean())


def test_filled_prices_judge_no_replay_and_no_serving_state(trained):
    trainer, prices, features = trained
    model = trainer.models[60]
    since = prices["timestamp"].max() - pd.Timedelta(hours=12)
    late = market(days=5.5)
    late["is_filled"] = between(late, "2025-03-06 03:00Z", "2025-03-06 04:00Z")
    states = []
    for flagged in (late, late.assign(is_filled=False)):
        served = PricePredictor().use(copy.deepcopy(trainer.models))
        served.update(flagged)
        states.append(served.model(60).gate.count)
    assert (states[0] < states[1]).all()
    replayed = replay(model, features, since)
    assert len(replayed) == (features["timestamp"] >= since).sum()


def test_a_forecast_beside_a_hole_says_so_or_is_refused_in_words(trained):
    trainer, _, _ = trained
    recent, newest = market(days=5), pd.Timestamp("2025-03-05 23:45Z")
    served = PricePredictor().use(trainer.models)
    assert served.predict_with_confidence(recent, 60, "AA")["penalty"] is None
    hole = between(recent, "2025-03-05 20:00Z", "2025-03-05 22:00Z") & (recent["region"] == "AA")
    for frame in (recent[~hole], recent.assign(**{PRICE: recent[PRICE].mask(hole)}), recent.assign(is_filled=hole)):
        told = served.predict_with_confidence(frame, 60, "AA")
        assert told["recent_missing"] == 8
        assert "8 of the last 61 prices weren't measured" in told["penalty"]
        assert np.isfinite([told["price"], told["lower"], told["upper"]]).all()
        assert served.predict_with_confidence(frame, 60, "BB")["penalty"] is None
    most = between(recent, "2025-03-05 10:00Z", "2025-03-05 23:00Z") & (recent["region"] == "AA")
    with pytest.raises(HistoryError, match=r"52 of the last 61 prices of region 'AA'.*at least 50%"):
        served.predict(recent[~most], 60, "AA", now=newest)
    assert np.isfinite(served.predict(recent[~most], 60, "BB"))


def test_a_part_of_which_nothing_is_left_is_refused_before_training():
    prices = market(days=5, regions=("AA",))
    gone = between(prices, "2025-03-04 06:00Z", "2025-03-05 12:00Z")
    trainer = PricePredictionTrainer(small_config(horizons=[60]))
    features, names = trainer.prepare_data(prices.assign(**{PRICE: prices[PRICE].mask(gone)}))
    with pytest.raises(SplitError, match="validation part has 0 rows"):
        trainer.train_for_horizon(features, names, 60)
