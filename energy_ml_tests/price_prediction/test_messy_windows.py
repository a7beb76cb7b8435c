"""Messy data from cleaning through features and training: right, or refused in words; never NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import HorizonError
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml_tests.price_prediction.conftest import market, small_config

PRICE = "real_time_price"
CAP, FLOOR = 17_500.0, -1_000.0


def trained_on(raw: pd.DataFrame, horizon: int = 60, **cleaning: Any) -> dict[str, Any]:
    """One horizon of the smallest model on what cleaning makes of ``raw``."""
    trainer = PricePredictionTrainer(small_config(horizons=[horizon], n_estimators=4))
    features, names = trainer.prepare_data(clean_prices(raw, **cleaning).frame)
    return trainer.train_for_horizon(features, names, horizon)


def assert_finite(result: dict[str, Any]) -> pd.DataFrame:
    forecasts = result["forecasts"]
    numbers = forecasts[["price_now", "price_forecast", "lower", "upper"]].to_numpy()
    assert np.isfinite(numbers).all()
    assert forecasts["price_actual"].notna().mean() > 0.9
    assert (forecasts["lower"] <= forecasts["upper"]).all()
    assert set(forecasts["split"]) == {"train", "validation", "test"}
    assert np.isfinite(result["metrics"]["test"]["mae"])
    return forecasts


def without(raw: pd.DataFrame, region: str, first: str | None = None, last: str | None = None) -> pd.DataFrame:
    """``raw`` without the rows of ``region`` before ``first`` or after ``last``."""
    times = raw["timestamp"]
    gone = pd.Series(False, index=raw.index)
    if first is not None:
        gone |= times < pd.Timestamp(first)
    if last is not None:
        gone |= times > pd.Timestamp(last)
    return raw[~(gone & (raw["region"] == region))].reset_index(drop=True)


@pytest.mark.parametrize(
    "ends",
    [{"first": "2025-03-02 00:00Z"}, {"last": "2025-03-02 12:00Z"}, {"last": "2025-03-03 18:00Z"}],
    ids=["starts late", "stops in the training part", "stops in the test part"],
)
def test_a_region_that_starts_late_or_stops_is_kept_with_what_it_has(ends: dict[str, str]) -> None:
    raw = without(market(days=3), "CC", **ends)
    window = {"start": pd.Timestamp("2025-03-01", tz="UTC"), "end": pd.Timestamp("2025-03-04", tz="UTC")}
    there = raw.loc[raw["region"] == "CC", "timestamp"]
    forecasts = assert_finite(trained_on(raw, **window))
    made = forecasts.loc[forecasts["region"] == "CC", "timestamp"]
    assert len(made) and made.min() >= there.min() and made.max() <= there.max()
    # The others get every forecast that they get with the third region whole.
    assert (forecasts["region"] == "AA").sum() == (forecasts["region"] == "BB").sum() > len(made)


def test_hours_at_the_markets_cap_and_floor_stay_in_proportion() -> None:
    raw = market(days=3)
    hour = raw["timestamp"].dt.hour
    raw.loc[hour == 18, PRICE] = CAP
    raw.loc[hour == 12, PRICE] = FLOOR
    forecasts = assert_finite(trained_on(raw))
    # A spike can't wreck the scale: no forecast far outside of what the market allows.
    assert forecasts["price_forecast"].between(2 * FLOOR, 2 * CAP).all()


def test_negative_prices_throughout() -> None:
    raw = market(days=3)
    raw[PRICE] -= 500.0
    forecasts = assert_finite(trained_on(raw))
    assert (forecasts["price_forecast"] < 0).mean() > 0.9


def test_a_constant_price_is_forecast_exactly() -> None:
    forecasts = assert_finite(trained_on(market(days=3).assign(**{PRICE: -7.5})))
    np.testing.assert_allclose(forecasts[["price_forecast", "lower", "upper"]], -7.5, atol=1e-6)


def test_one_constant_region_beside_lively_ones() -> None:
    raw = market(days=3)
    raw.loc[raw["region"] == "BB", PRICE] = 30.0
    forecasts = assert_finite(trained_on(raw))
    flat = forecasts.loc[forecasts["region"] == "BB", "price_forecast"]
    assert (flat - 30.0).abs().median() < 5.0


@pytest.mark.parametrize(("interval", "days"), [(30, 5), (60, 8)])
def test_half_hourly_and_hourly_data(interval: int, days: int) -> None:
    raw = market(days=days, interval=interval)
    forecasts = assert_finite(trained_on(raw, horizon=60))
    assert set(forecasts["timestamp"].dt.minute) == set(range(0, 60, interval))
    with pytest.raises(HorizonError, match=f"{interval} minutes"):
        trained_on(raw, horizon=15)


@pytest.mark.parametrize("first", ["2025-03-29", "2025-10-25"])
def test_local_days_of_23_and_25_hours_give_the_same_numbers_as_utc(first: str) -> None:
    raw = market(days=3)
    raw["timestamp"] += pd.Timestamp(first, tz="UTC") - raw["timestamp"].min()
    local = raw.assign(timestamp=raw["timestamp"].dt.tz_convert("Europe/Paris"))
    hours = local["timestamp"].dt.tz_localize(None).dt.normalize().value_counts() // (4 * 3)
    assert set(hours) & {23, 25}
    trainer = PricePredictionTrainer(small_config())
    found = [trainer.prepare_data(clean_prices(frame).frame)[0] for frame in (local, raw)]
    # The same rows to learn from; what is learned from the same rows is the same.
    pd.testing.assert_frame_equal(*found)


def test_short_gaps_are_filled_and_holes_left_out() -> None:
    raw = market(days=3)
    gap = raw["timestamp"].between(pd.Timestamp("2025-03-03 02:00Z"), pd.Timestamp("2025-03-03 02:15Z"))
    assert_finite(trained_on(raw[~gap].reset_index(drop=True)))
    hole = raw["timestamp"].between(pd.Timestamp("2025-03-01 02:00Z"), pd.Timestamp("2025-03-01 06:00Z"))
    forecasts = assert_finite(trained_on(raw[~hole].reset_index(drop=True)))
    assert not forecasts["timestamp"].isin(raw.loc[hole, "timestamp"]).any()
