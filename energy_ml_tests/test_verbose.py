"""Who trains from Python is told a line for each model, unless he asked for silence or follows the progress."""

from __future__ import annotations

from dataclasses import replace

import pytest

from energy_ml.config import MLConfig
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.rl_battery import BatteryRLTrainer
from energy_ml_tests.price_prediction.conftest import market, small_config


@pytest.mark.parametrize("verbose", [True, False])
def test_trainers_say_a_line_for_each_model_or_nothing(verbose: bool, capsys: pytest.CaptureFixture[str]) -> None:
    prices = market()
    config: MLConfig = replace(small_config(), verbose=verbose)
    trainer = PricePredictionTrainer(config)
    features, names = trainer.prepare_data(prices)
    trainer.train_for_horizon(features, names, 60)
    BatteryRLTrainer(config).train_all(prices=prices)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told] == (["60 min ahead", "battery policy"] if verbose else [])
    trainer.train_for_horizon(features, names, 60, progress=lambda fraction, metrics: None)
    assert not capsys.readouterr().err, "who follows the progress isn't told twice"
