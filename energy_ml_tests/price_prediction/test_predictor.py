"""Serving: the batch path's numbers, bit for bit, and clear refusals."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import (
    DataError,
    HistoryError,
    HorizonError,
    IntervalError,
    ModelNotFoundError,
    StaleDataError,
    TimestampError,
    UnknownRegionError,
    ValueRangeError,
)
from energy_ml.model_management import ModelRegistry
from energy_ml.price_prediction import PricePredictionTrainer, PricePredictor
from energy_ml_tests.price_prediction.conftest import REGIONS, market, small_config, whole_split


@pytest.fixture()
def predictor(trained: PricePredictionTrainer) -> PricePredictor:
    return PricePredictor().use(copy.deepcopy(trained.models))


@pytest.mark.parametrize("regions", [REGIONS, tuple(f"N{n:02d}" for n in range(18))], ids=["few", "many"])
def test_fed_price_by_price_it_repeats_the_batch_test_forecasts_bit_for_bit(regions: tuple[str, ...]) -> None:
    """Train on a window, hide its last hours, serve them live: the same numbers as one batch run over all.

    Of many regions the model keeps which ones it compares.
    """
    prices = market(regions=regions)
    split = whole_split(prices)
    hidden_from = prices["timestamp"].max() - pd.Timedelta(hours=3)
    earlier = prices[prices["timestamp"] <= hidden_from]

    def train(frame: pd.DataFrame) -> PricePredictionTrainer:
        trainer = PricePredictionTrainer(small_config())
        features, names = trainer.prepare_data(frame)
        for horizon in (15, 60):
            trainer.train_for_horizon(features, names, horizon, split=split)
        return trainer

    batch = train(prices)
    live = PricePredictor().use(train(earlier).models)
    compared = 0
    for time in sorted(prices.loc[prices["timestamp"] > hidden_from, "timestamp"].unique()):
        recent = prices[prices["timestamp"] <= time]
        assert live.update(recent) == 1
        found = live.predict_many(recent).set_index(["horizon", "region"])
        for horizon in (15, 60):
            made = batch.results[horizon]["forecasts"]
            for row in made[made["timestamp"] == time].itertuples():
                answer = found.loc[(horizon, row.region)]
                assert (answer["price"], answer["lower"], answer["upper"]) == (
                    row.price_forecast,
                    row.lower,
                    row.upper,
                )
                assert (answer["expected"], answer["spike_probability"]) == (row.price_expected, row.spike_probability)
                compared += 1
    assert compared > 40
    chosen = batch.models[15].provenance["feature_spec"]["neighbours"]
    assert (chosen is None) == (regions is REGIONS)


def test_feeding_many_prices_at_once_equals_feeding_them_one_by_one(
    predictor: PricePredictor, trained: PricePredictionTrainer
) -> None:
    longer = market(days=3.5)
    new = sorted(longer.loc[longer["timestamp"] > trained.models[15].state_time, "timestamp"].unique())
    one_by_one = PricePredictor().use(copy.deepcopy(trained.models))
    for time in new:
        one_by_one.update(longer[longer["timestamp"] <= time])
    assert predictor.update(longer) == len(new)
    assert predictor.update(longer) == 0
    pd.testing.assert_frame_equal(predictor.predict_many(longer), one_by_one.predict_many(longer), check_exact=True)


def test_many_threads_that_feed_and_ask_teach_it_each_price_once(
    predictor: PricePredictor, trained: PricePredictionTrainer
) -> None:
    longer = market(days=3.5)
    new = sorted(longer.loc[longer["timestamp"] > trained.models[15].state_time, "timestamp"].unique())
    parts = [longer[longer["timestamp"] <= time] for time in new]
    alone = PricePredictor().use(copy.deepcopy(trained.models))
    alone.update(longer)

    def feed(_: int) -> int:
        moved = 0
        for part in parts:
            moved += predictor.update(part)
            assert np.isfinite(predictor.predict_many(part, [60])[["price", "lower", "upper"]]).all(axis=None)
        return moved

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(feed, range(8))) == len(new)
    pd.testing.assert_frame_equal(predictor.predict_many(longer), alone.predict_many(longer), check_exact=True)


def test_a_row_from_the_future_is_not_taken_as_the_present(
    predictor: PricePredictor, trained: PricePredictionTrainer
) -> None:
    longer = market(days=3.5)
    newest = longer["timestamp"].max()
    with pytest.raises(TimestampError, match="future"):
        predictor.update(longer, now=newest - pd.Timedelta(minutes=15))
    late = pd.Timestamp.now("UTC").ceil("15min") + pd.Timedelta(days=365) - newest
    with pytest.raises(TimestampError, match="future"):
        predictor.update(longer.assign(timestamp=longer["timestamp"] + late))
    assert predictor.model(15).state_time == trained.models[15].state_time
    for naive in (newest.tz_localize(None) - pd.Timedelta(minutes=15), "2020-01-01"):  # then it is UTC
        with pytest.raises(TimestampError, match="future"):
            predictor.update(longer, now=naive)
    assert predictor.update(longer, now=newest) > 0, "what comes then is still new"


@pytest.mark.parametrize(("price", "row"), [(1e308, -1), (-60_000.0, -100)])
def test_prices_that_cannot_be_are_refused(
    predictor: PricePredictor, prices: pd.DataFrame, price: float, row: int
) -> None:
    wrong = prices.copy()
    wrong.loc[wrong.index[row], "real_time_price"] = price
    for ask in (predictor.predict_many, predictor.update):
        with pytest.raises(ValueRangeError, match="between -50,000 and 50,000"):
            ask(wrong)


def test_what_was_not_known_is_counted_and_said(predictor: PricePredictor, prices: pd.DataFrame) -> None:
    newest = prices["timestamp"].max()
    back = (newest - prices["timestamp"]) // pd.Timedelta(minutes=15)
    with pytest.raises(HistoryError, match="57 of the last 61 prices of region 'AA' weren't measured"):
        predictor.predict(prices[back.isin([0, 1, 2, 60])], 60, "AA")
    told = predictor.predict_with_confidence(prices[~back.between(5, 14)], 60, "AA")
    assert told["recent_missing"] == 10 and "10 of the last 61 prices weren't measured" in told["penalty"]
    silent = prices.assign(real_time_price=prices["real_time_price"].where(prices["region"] != "BB"))
    for fewer in (prices[prices["region"] != "BB"], silent):
        told = predictor.predict_with_confidence(fewer, 60, "AA")
        assert told["penalty"] == "no recent prices of BB, whose prices are features"


def test_point_and_interval_agree_between_all_calls(predictor: PricePredictor, prices: pd.DataFrame) -> None:
    told = predictor.predict_with_confidence(prices, 60, "BB")
    assert told["prediction"] == told["price"] and told["confidence_interval"] == (told["lower"], told["upper"])
    assert predictor.predict(prices, 60, "BB") == told["price"]
    assert predictor.predict_all_horizons(prices, "BB")[60] == told["price"]
    assert told["lower"] <= told["price"] <= told["upper"]
    assert (told["level"], told["region"], told["horizon"]) == (0.9, "BB", 60)
    assert told["target_time"] - told["timestamp"] == pd.Timedelta(minutes=60)
    assert "conformal" in told["method"]
    wider = predictor.predict_with_confidence(prices, 60, "BB", level=0.95)
    assert wider["lower"] <= told["lower"] and wider["upper"] >= told["upper"]


def test_one_region_needs_no_name(predictor: PricePredictor, prices: pd.DataFrame) -> None:
    alone = prices[prices["region"] == "AA"]
    assert predictor.predict(alone, 60) == predictor.predict(alone, 60, "AA")
    assert predictor.predict(alone.drop(columns="region"), 60, "AA") == predictor.predict(alone, 60, "AA")
    with pytest.raises(UnknownRegionError, match="none was named"):
        predictor.predict(prices, 60)


def test_an_unseen_region_is_served_with_its_penalty_stated(predictor: PricePredictor, prices: pd.DataFrame) -> None:
    more = pd.concat([prices, prices[prices["region"] == "AA"].assign(region="ZZ")], ignore_index=True)
    told = predictor.predict_with_confidence(more, 60, "ZZ")
    assert told["known_region"] is False and "unseen region" in told["penalty"]
    known = predictor.predict_with_confidence(more, 60, "AA")
    assert known["penalty"] is None
    assert told["upper"] - told["lower"] >= 0.9 * (known["upper"] - known["lower"])


def test_bad_recent_prices_are_refused_in_words(predictor: PricePredictor, prices: pd.DataFrame) -> None:
    newest = prices["timestamp"].max()
    with pytest.raises(HistoryError, match="at least 60"):
        predictor.predict(prices[prices["timestamp"] > newest - pd.Timedelta(hours=10)], 60, "AA")
    with pytest.raises(IntervalError, match="every 60 minutes"):
        predictor.predict(prices[prices["timestamp"].dt.minute == 0], 60, "AA")
    with pytest.raises(TimestampError, match="future"):
        predictor.predict(prices, 60, "AA", now=newest - pd.Timedelta(hours=1))
    with pytest.raises(UnknownRegionError, match="'QQ'"):
        predictor.predict(prices, 60, "QQ")
    with pytest.raises(HorizonError, match="15, 60"):
        predictor.predict(prices, 5, "AA")
    missing = prices.copy()
    missing.loc[(missing["timestamp"] == newest) & (missing["region"] == "AA"), "real_time_price"] = np.nan
    with pytest.raises(DataError, match="no price at the newest instant"):
        predictor.predict(missing, 60, "AA")
    assert np.isfinite(predictor.predict(missing, 60, "BB"))
    strict = PricePredictor(max_age_minutes=30).use(predictor._models)
    with pytest.raises(StaleDataError, match="minutes old"):
        strict.predict(prices, 60, "AA", now=newest + pd.Timedelta(hours=2))
    assert np.isfinite(strict.predict(prices, 60, "AA", now=newest + pd.Timedelta(minutes=20)))


def test_a_folder_is_served_and_a_stranger_beside_a_registry_is_not(
    trained: PricePredictionTrainer, prices: pd.DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "price_prediction"
    with pytest.raises(ModelNotFoundError, match="no price model"):
        PricePredictor(folder).predict(prices, 60, "AA")
    trained.save_models(folder)
    served = PricePredictor(folder)
    assert served.horizons == [15, 60]
    features, _ = trained.prepare_data(prices)
    batch = trained.models[60].predict(features[features["timestamp"] == prices["timestamp"].max()])
    found = served.predict_many(prices, [60])
    assert list(found["region"]) == list(REGIONS)
    np.testing.assert_array_equal(found["price"], batch)


def test_the_champions_of_a_registry_load_as_the_trainers_do(
    trained: PricePredictionTrainer, prices: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(tmp_path / "models" / "registry.json")
    path = trained.save_models(tmp_path / "own")[60]
    for version in ("v20260201_013000", "v20260202_013000"):
        registry.register_model("price_prediction", "price_prediction_60m", version, path)
        registry.promote("price_prediction_60m", version, reason="r", who="w")
    registry.write_training_results()
    registry.rollback("price_prediction_60m", reason="bad", who="ops")
    monkeypatch.setenv("ENERGY_ML_PROJECT_ROOT", str(tmp_path))
    loaded = PricePredictionTrainer.load_models()
    assert set(loaded) == set(PricePredictionTrainer.load_models(horizons=[60])) == {60}
    features, _ = trained.prepare_data(prices)
    np.testing.assert_array_equal(loaded[60].predict(features), trained.models[60].predict(features))


def test_a_champion_whose_file_is_gone_keeps_its_horizon_and_a_retired_one_loses_it(
    trained: PricePredictionTrainer, prices: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = ModelRegistry(tmp_path / "models" / "registry.json")
    for horizon, path in trained.save_models(tmp_path / "own").items():
        registry.register_model("price_prediction", f"price_prediction_{horizon}m", "v20260201_013000", path)
        registry.promote(f"price_prediction_{horizon}m", "v20260201_013000", reason="r", who="w")
    folder = tmp_path / "models/price_prediction"
    whole = PricePredictor(folder).predict_all_horizons(prices, "AA")
    (folder / "model_15min.pkl").unlink()
    (folder / "model_5min.pkl").write_bytes(b"no model of the registry")
    served = PricePredictor(folder)
    assert served.predict_all_horizons(prices, "AA") == whole and set(whole) == {15, 60}
    assert "model_15min.pkl is missing" in caplog.text
    registry.retire("price_prediction_60m", reason="r", who="w")
    assert served.horizons == [15]
    with pytest.raises(HorizonError, match="one of 15"):
        PricePredictor(folder).predict(prices, 60, "AA")


def test_after_a_change_of_the_interval_each_model_answers_for_itself(
    trained: PricePredictionTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    hourly = market(days=12, interval=60)
    trainer = PricePredictionTrainer(small_config(horizons=[60]))
    features, names = trainer.prepare_data(hourly)
    trainer.train_for_horizon(features, names, 60)
    alone, both = PricePredictor().use({60: trainer.models[60]}), PricePredictor()
    both.use({15: trained.models[15], 60: copy.deepcopy(trainer.models[60])})
    assert both.predict_all_horizons(hourly, "AA") == alone.predict_all_horizons(hourly, "AA")
    assert set(both.predict_many(hourly)["horizon"]) == {60} and both.predict(hourly, 60, "AA")
    assert caplog.text.count("price_prediction_15m can't serve") == 1, "once, not with every answer"
    assert both.fitting(hourly) == ([60], {15: both.fitting(hourly)[1][15]})
    with pytest.raises(IntervalError, match=r"every 60 minutes.*every 15 minutes"):
        both.predict(hourly, 15, "AA")
    later = market(days=12.5, interval=60)
    assert both.update(later) == 12
    quarters = market(days=3.5)
    assert set(both.predict_all_horizons(quarters, "AA")) == {15}
    with pytest.raises(IntervalError, match=r"every 15 minutes.*every 60 minutes"):
        alone.predict_all_horizons(quarters, "AA")


def test_prices_without_a_region_are_one_region(predictor: PricePredictor, prices: pd.DataFrame) -> None:
    one = prices[prices["region"] == "AA"].drop(columns="region")
    with pytest.raises(UnknownRegionError, match="no region column"):
        predictor.predict(one, 60)
    assert predictor.predict_with_confidence(one, 60, "AA")["known_region"]
    features, names = PricePredictionTrainer(small_config()).prepare_data(one)
    assert set(features["region"]) == {"single"} and len(features) == len(one) and names


def test_importance_by_gain_and_shap_in_shares(predictor: PricePredictor) -> None:
    for method in ("gain", "shap"):
        table = predictor.get_feature_importance(60, method=method)
        assert list(table.columns) == ["feature", "family", "importance"]
        assert table["importance"].sum() == pytest.approx(1.0)
        assert table["importance"].is_monotonic_decreasing
        families = predictor.get_feature_importance(60, method=method, by_family=True).set_index("family")["importance"]
        assert families.to_dict() == pytest.approx(table.groupby("family")["importance"].sum().to_dict())
        assert families.is_monotonic_decreasing


def test_serving_never_loads_the_orchestrator() -> None:
    code = "import sys, energy_ml.price_prediction as p; p.PricePredictor(); print('dagster' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.strip().lower()) is False
