"""Training end to end on small synthetic markets."""

import json

import numpy as np
import pandas as pd
import pytest

from energy_ml.artifacts import load_artifact
from energy_ml.config import MLConfig, RLBatteryConfig
from energy_ml.errors import GapError, ModelError, NoDataError, UnknownRegionError
from energy_ml.evaluation.backtest_evaluator import backtest, reference_units
from energy_ml.rl_battery.baselines import Hold, ThresholdRule
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.policy import BatteryPolicy
from energy_ml.rl_battery.strategy import Blind, Strategy
from energy_ml.rl_battery.trainer import BatteryRLTrainer
from energy_ml_tests.rl_battery.markets import market, true_forecasts

REGIONS = ("BE", "FR")


@pytest.fixture(scope="module")
def data():
    prices, split = market(days=8, minutes=15, regions=REGIONS, seed=1)
    return prices, split, true_forecasts(prices, (15, 60), 15, error=5.0)


@pytest.fixture(scope="module")
def trained(data):
    prices, split, forecasts = data
    seen = []
    trainer = BatteryRLTrainer(MLConfig())
    result = trainer.train_all(
        prices=prices, forecasts=forecasts, split=split, progress=lambda f, m: seen.append((f, m))
    )
    return trainer, result, seen


def shares(prices, split, strategies, forecasts, delay=0):
    summary = backtest(
        prices, strategies, reference_units(REGIONS, Battery(), delay), split, forecasts=forecasts, bootstrap=10,
    ).summary  # fmt: skip
    return summary[summary["region"] == "all"].set_index("strategy")["share"]


def test_earns_most_of_the_optimum_and_more_than_the_baselines(data, trained):
    prices, split, forecasts = data
    policy = trained[1]["policy"]
    assert isinstance(policy, Strategy)
    found = shares(prices, split, [policy, ThresholdRule(), Hold()], forecasts)
    assert found["q_learning"] > 0.75
    assert found["q_learning"] > found["threshold"] + 0.02


def test_forecasts_help(data, trained):
    prices, split, forecasts = data
    policy = trained[1]["policy"]
    found = shares(prices, split, [policy, Blind(policy)], forecasts)
    assert found["q_learning"] > found["q_learning_without_forecasts"]
    alone = shares(prices, split, [policy], None)["q_learning"]
    assert found["q_learning_without_forecasts"] == pytest.approx(alone)


def test_result_says_what_was_learned(trained):
    _, result, seen = trained
    assert result["regions"] == list(REGIONS) and set(result["agents"]) == set(REGIONS)
    assert result["converged"] and result["episodes"] < 1000 and result["finite"]
    assert result["q_table"].shape == tuple(len(labels) for labels in result["axes"].values())
    assert set(result["validation"]) == {"q_learning", "plan_alone", "q_learning_without_forecasts"}
    assert all(set(profits) == set(REGIONS) for profits in result["validation"].values())
    assert result["metrics"]["validation_profit"] > 0
    assert list(result["axes"]) == ["information", "hour", "gap", "charge"]
    assert list(result["learning"].columns) == ["step", "value", "region"]
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    table = result["tables"]["FR"]
    assert table["value"].shape == (len(table["charge"]), len(table["hour"]))
    assert table["action"].shape == table["correction"].shape == (len(table["charge"]), len(table["gap"]))
    # The more a MWh is worth beside the price now, the rather it is bought, the less it is sold.
    assert (np.diff(table["action"], axis=1) >= 0).all()
    assert {-1, 1} <= set(table["action"].ravel().tolist())


def test_same_seed_same_policy_on_any_number_of_threads_and_the_test_rows_are_never_looked_at(data):
    prices, split, forecasts = data
    changed = prices.copy()
    changed.loc[changed["timestamp"] >= split.val_end, "real_time_price"] = 1e4
    once = BatteryRLTrainer(MLConfig(n_jobs=2)).train_all(prices=prices, forecasts=forecasts, split=split)
    again = BatteryRLTrainer(MLConfig(n_jobs=1)).train_all(prices=changed, forecasts=forecasts, split=split)
    np.testing.assert_array_equal(again["q_table"], once["q_table"])
    for region in REGIONS:
        ours, theirs = again["agents"][region], once["agents"][region]
        np.testing.assert_array_equal(ours.look.weights, theirs.look.weights)
        assert ours.market == theirs.market


def test_one_region_of_the_frame(data):
    prices, split, _ = data
    result = BatteryRLTrainer(RLBatteryConfig(charge_level_bins=4)).train(20, "FR", prices=prices, split=split)
    assert result["region"] == "FR" and result["policy"].regions == ["FR"]
    assert result["episodes"] <= 20 and result["q_table"].shape[-1] == 4


def test_sampled_updates_earn_nearly_as_much(data, trained):
    prices, split, forecasts = data
    config = RLBatteryConfig(update="sampled")
    result = BatteryRLTrainer(config).train_all(n_episodes=60, prices=prices, forecasts=forecasts, split=split)
    assert result["episodes"] == 60 and not result["converged"]
    sampled, full = (shares(prices, split, [r["policy"]], forecasts)["q_learning"] for r in (result, trained[1]))
    assert sampled > 0.9 * full


def test_a_late_policy_is_trained_for_its_delay(data):
    prices, split, forecasts = data
    trainer = BatteryRLTrainer(RLBatteryConfig(execution_delay=1))
    late = trainer.train_all(prices=prices, forecasts=forecasts, split=split)["policy"]
    found = shares(prices, split, [late], forecasts, delay=1)["q_learning"]
    assert found > 0.5
    with pytest.raises(ModelError, match="delay"):
        shares(prices, split, [late], forecasts, delay=0)


def test_saved_policy_acts_the_same(tmp_path, data, trained):
    prices, split, forecasts = data
    trainer, result, _ = trained
    saved = trainer.save(tmp_path / "rl_battery")
    facts = json.loads((tmp_path / "rl_battery" / "training_results.json").read_text())["battery_policy"]
    assert (facts["file"], facts["sha256"]) == ("battery_policy.pkl", saved["sha256"]), "the form that a night leaves"
    assert facts["validation"] == result["validation"] and facts["metrics"] == result["metrics"]
    assert load_artifact(saved["path"], saved["sha256"]).battery == Battery()
    loaded = BatteryPolicy(tmp_path / "rl_battery")
    assert shares(prices, split, [loaded], forecasts)["q_learning"] == pytest.approx(
        shares(prices, split, [result["policy"]], forecasts)["q_learning"]
    )
    assert sorted(p.name for p in (tmp_path / "rl_battery").iterdir()) == [
        "battery_policy.pkl",
        "training_results.json",
    ]


def test_bad_data_is_refused_by_name(data):
    prices, split, _ = data
    trainer = BatteryRLTrainer()
    with pytest.raises(UnknownRegionError, match="DE"):
        trainer.train_all(["DE"], prices=prices, split=split)
    with pytest.raises(GapError):
        trainer.train_all(prices=prices.drop(index=prices.index[100:140]), split=split)
    short = prices[prices["timestamp"] < prices["timestamp"].min() + pd.Timedelta(hours=20)]
    with pytest.raises(NoDataError, match="at least one day"):
        trainer.train_all(prices=short)
    with pytest.raises(NoDataError):
        trainer.train_all(prices=prices.iloc[:0])
    with pytest.raises(ModelError, match="no policy"):
        BatteryRLTrainer().save("unused")
