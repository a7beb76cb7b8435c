"""A large market is worked on block by block: the same features, and a night of it from prices to the report."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from energy_ml import day
from energy_ml.config import MLConfig, PricePredictionConfig, Settings
from energy_ml.features import feature_columns, feature_rows
from energy_ml.features.feature_rows import frames
from energy_ml.features.price_features import LATER
from energy_ml.market_data.simulator import Nodes, write_simulation
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.parts import in_memory
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.price_prediction.replay import replay
from energy_ml.progress import open_progress
from energy_ml.results import ResultsStore
from energy_ml.splits import TimeSplit
from energy_ml.training_window import lake_of, window_features
from energy_ml_tests.features.frames import long_frame, price_matrix

START = dt.date(2026, 3, 2)
PRICE = "real_time_price"


def test_blocks_make_the_features_of_the_whole_market(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, with holes, a column of its own, and regions that fill several blocks."""
    values = price_matrix(300, 40, 7, 0.02)
    prices = long_frame(values, 30).assign(load=lambda frame: frame[PRICE] * 2, is_filled=False)
    prices.loc[prices.index % 97 == 5, "is_filled"] = True
    start, config = prices["timestamp"].unique()[200], PricePredictionConfig(extra_columns=("load",))
    zones = {name: f"zone {number % 3}" for number, name in enumerate(prices["region"].unique())}
    whole = window_features(prices, start, config, zones)
    monkeypatch.setattr(feature_rows, "LARGE", 100)
    monkeypatch.setattr(feature_rows, "BLOCK_REGIONS", 14)
    later = window_features(prices, start, config, zones)
    assert feature_columns(later) == feature_columns(whole) and LATER in later.attrs
    assert list(later.columns) == ["timestamp", "region", PRICE, "load", "is_filled"]
    parts = list(frames(later, PRICE, start, prices[prices["timestamp"] < start]))
    assert [part["region"].nunique() for part in parts] == [14, 13, 13]
    made = pd.concat(parts).sort_values(["timestamp", "region"], ignore_index=True)[whole.columns]
    whole = whole.sort_values(["timestamp", "region"], ignore_index=True)
    known = whole[PRICE].notna()
    pd.testing.assert_frame_equal(made[known], whole[known], check_exact=True, check_dtype=False)


def test_a_night_of_a_large_market_goes_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_simulation(tmp_path / "lake", 10, Nodes(24, 2), START, interval_minutes=60, batteries=0)
    settings = Settings(
        data_dir=str(tmp_path / "lake"),
        start_date=START,
        training_window_days=8,
        horizons=(60,),
        models=MLConfig(price_prediction=PricePredictionConfig(preset="fast", n_estimators=8, history_days=0)),
    )

    def night(name: str) -> tuple[day.Made, day.Made, TimeSplit]:
        store, registry = ResultsStore(str(tmp_path / name)), ModelRegistry(tmp_path / name / "models/registry.json")
        trainer, log = PricePredictionTrainer(settings.ml_config()), open_progress(str(tmp_path / name), "run")
        made = day.Night(
            settings, dt.date(2026, 3, 11), "run", lake_of(settings), store, registry, lambda: trainer, log
        )
        features = day.price_features(made)
        store.write(made.as_of, "features.parquet", features.value)
        features = replace(features, value=store.read(made.as_of, "features.parquet"))
        split = day.time_split(made, features.value, features.files["data"]).value
        trained = day.train_price(made, 60, features.value, features.files["history"], split)
        return features, trained, TimeSplit.from_dict(split)

    features, trained, split = night("whole")
    monkeypatch.setattr(feature_rows, "LARGE", 100)
    monkeypatch.setattr(feature_rows, "BLOCK_REGIONS", 12)
    kept, by_block, _ = night("blocks")
    assert len(kept.value.columns) == 4 and len(features.value.columns) > 80
    assert {c.name: c.passed for c in kept.checks} == {c.name: c.passed for c in features.checks}
    keys = ["timestamp", "region", "split", "price_now", "price_actual"]
    assert by_block.value.provenance["rows_left_out"] == trained.value.provenance["rows_left_out"]
    made = in_memory(by_block.files["forecasts"]).sort_values(["timestamp", "region"], ignore_index=True)
    pd.testing.assert_frame_equal(made[keys], trained.files["forecasts"][keys])
    # The sample that teaches is drawn in another order: as good, not the same.
    assert by_block.facts["rmae"] == pytest.approx(trained.facts["rmae"], abs=0.02)
    later, whole = (replay(trained.value, made.value, split.val_end) for made in (kept, features))
    order = ["timestamp", "region"]
    pd.testing.assert_frame_equal(later.sort_values(order, ignore_index=True), whole.reset_index(drop=True))
