"""Learning and answering on a toy market, thrown away: afterwards nothing is left to compile.

What belongs here: calling what compiles, on as little data as does it. What doesn't: results.

    python -m energy_ml.rehearsal

``make demo`` runs it beside the first night, on the processor time that this leaves over, so that the first forecast
after it is as quick as the next; an image or a new server may run it once. Compiled code is kept beside the package.
"""

from __future__ import annotations

import compileall
import datetime as dt
import os
from pathlib import Path

import pandas as pd

from energy_ml.config import MLConfig, PricePredictionConfig, RLBatteryConfig
from energy_ml.evaluation.backtest_evaluator import backtest, reference_units
from energy_ml.evaluation.vega import drawing_script
from energy_ml.market_data.simulator import simulate_market
from energy_ml.names import TIMESTAMP
from energy_ml.price_prediction import PricePredictionTrainer, PricePredictor
from energy_ml.rl_battery import BatteryPolicy, BatteryRLTrainer
from energy_ml.rl_battery.baselines import baselines
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.policy import Known
from energy_ml.splits import split_window

_DAYS, _REGIONS, _HORIZONS = 5, ("FR", "DE"), [15, 60]


def rehearse() -> None:
    """Learn from quarter-hours of two regions, answer once and be judged."""
    config = MLConfig(
        price_prediction=PricePredictionConfig(
            horizons=_HORIZONS, n_estimators=4, early_stopping_rounds=2, preset="fast"
        ),
        rl_battery=RLBatteryConfig(episodes=2),
        n_jobs=1,
    )
    prices = simulate_market(_DAYS, _REGIONS, dt.date(2026, 1, 1), 15)
    end = prices[TIMESTAMP].max() + pd.Timedelta(minutes=15)
    split, trainer = split_window(end - pd.Timedelta(days=_DAYS - 1), end), PricePredictionTrainer(config)
    features, names = trainer.prepare_data(prices)
    trained = {horizon: trainer.train_for_horizon(features, names, horizon, split=split) for horizon in _HORIZONS}
    forecasts = pd.concat([one["forecasts"] for one in trained.values()], ignore_index=True)
    learned = BatteryRLTrainer(config).train_all(_REGIONS, prices=prices, forecasts=forecasts, split=split)
    policy: BatteryPolicy = learned["policy"]
    PricePredictor().use({horizon: one["model"] for horizon, one in trained.items()}).warm_up()
    policy.plan(Known(0.5, 50.0, 12.0))
    units = reference_units(_REGIONS, Battery.from_config(config.rl_battery), config.rl_battery.execution_delay)
    backtest(prices, [policy, *baselines(with_forecasts=True)], units, split, forecasts=forecasts)
    drawing_script()
    compileall.compile_dir(Path(__file__).parent, quiet=2)


if __name__ == "__main__":
    os.nice(19)
    rehearse()
