"""A champion replayed on a later window: no look-ahead, no memory of outcomes that its own state has seen."""

import numpy as np
import pandas as pd

from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.price_prediction.replay import replay


def test_replay_is_that_of_a_fresh_state_and_knows_no_future(
    prices: pd.DataFrame, trained: PricePredictionTrainer
) -> None:
    model = trained.models[60]
    features, _ = trained.prepare_data(prices)
    times = pd.DatetimeIndex(prices["timestamp"]).unique()
    since, cut = times[200], times[240]
    found = replay(model, features, since)
    assert found["timestamp"].min() == since and found["price_forecast"].notna().all()
    assert len(found) == (features["timestamp"] >= since).sum()

    changed = prices.copy()
    changed.loc[changed["timestamp"] > cut, "real_time_price"] += 500.0
    again = replay(model, trained.prepare_data(changed)[0], since)
    before = (found["timestamp"] <= cut).to_numpy()
    np.testing.assert_array_equal(found["price_forecast"][before], again["price_forecast"].to_numpy()[before])
    assert not np.allclose(found["price_forecast"][~before], again["price_forecast"].to_numpy()[~before])

    shuffled = replay(model, features.sample(frac=1, random_state=0), since)
    pd.testing.assert_frame_equal(
        shuffled.sort_values(["timestamp", "region"], ignore_index=True),
        found.sort_values(["timestamp", "region"], ignore_index=True),
    )


def test_unknown_regions_are_left_out(prices: pd.DataFrame, trained: PricePredictionTrainer) -> None:
    features, _ = trained.prepare_data(prices)
    features.loc[features["region"] == "CC", "region"] = "ZZ"
    found = replay(trained.models[60], features, features["timestamp"].min())
    assert set(found["region"]) == {"AA", "BB"}
