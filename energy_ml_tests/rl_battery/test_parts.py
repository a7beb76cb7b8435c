"""What the parts of a policy are worth, in one call."""

import pandas as pd
import pytest

from energy_ml.config import RLBatteryConfig
from energy_ml.errors import ConfigError
from energy_ml.rl_battery import ablation
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.strategy import build_context, planned_on
from energy_ml.rl_battery.trainer import BatteryRLTrainer
from energy_ml_tests.rl_battery.markets import market, true_forecasts

OURS = "q_learning"


def test_taking_parts_away_costs_what_they_are_worth():
    prices, split = market(days=8, minutes=15, regions=("BE", "FR"), seed=1)
    forecasts = true_forecasts(prices, (15, 60), 15, error=5.0)
    policy = BatteryRLTrainer().train_all(prices=prices, forecasts=forecasts, split=split)["policy"]
    contexts = [build_context(prices, region, split, Battery(), forecasts=forecasts) for region in ("BE", "FR")]
    table = ablation(policy, contexts).set_index("strategy")
    assert list(table.index) == [OURS, "plan_alone", f"{OURS}_without_forecasts", "plan_alone_without_forecasts"]
    assert table["worth"][OURS] == 0
    assert 0.7 < table["share"][OURS] < 1
    assert (table["share"] + table["worth"]).to_numpy() == pytest.approx(table["share"][OURS])
    assert table["worth"][f"{OURS}_without_forecasts"] > 0
    assert (policy.without_table().agent("FR").table.values == 0).all()
    assert (policy.agent("FR").table.values != 0).any()


def test_policies_learn_from_the_forecasts_that_the_setting_names():
    forecasts = pd.DataFrame({"price_forecast": [10.0, 20.0], "price_expected": [11.0, 25.0]})
    assert list(planned_on(forecasts, RLBatteryConfig())["price_forecast"]) == [10.0, 20.0]
    assert list(planned_on(forecasts, RLBatteryConfig(plan_on="expected"))["price_forecast"]) == [11.0, 25.0]
    with pytest.raises(ConfigError, match="plan_on"):
        RLBatteryConfig(plan_on="mean")
