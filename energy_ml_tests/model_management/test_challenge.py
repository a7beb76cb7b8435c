"""Candidate against champion: a tie keeps the champion, a better one wins, an older one never does."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.artifacts import save_artifact
from energy_ml.config import RLBatteryConfig
from energy_ml.errors import ArtifactError
from energy_ml.model_management.challenge import judge_policy, judge_price_model
from energy_ml.model_management.comparison import Decision
from energy_ml.model_management.promotion import register_and_decide, retire_unfit
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.rl_battery import BatteryRLTrainer
from energy_ml.rl_battery.battery import Battery
from energy_ml.splits import TimeSplit
from energy_ml_tests.price_prediction.conftest import market, small_config, whole_split


@dataclasses.dataclass(frozen=True)
class Case:
    prices: pd.DataFrame
    features: pd.DataFrame
    forecasts: pd.DataFrame
    split: TimeSplit
    trainer: PricePredictionTrainer


@pytest.fixture(scope="module")
def case() -> Case:
    prices = market(days=4.0)
    trainer = PricePredictionTrainer(small_config(horizons=[60]))
    features, names = trainer.prepare_data(prices)
    split = whole_split(prices)
    forecasts = trainer.train_for_horizon(features, names, 60, split=split)["forecasts"]
    return Case(prices, features, forecasts, split, trainer)


def _judge(case: Case, champion: object, **more: object) -> Decision:
    return judge_price_model(
        case.trainer.models[60],
        None if champion is None else lambda: champion,
        features=case.features,
        forecasts=case.forecasts,
        split=case.split,
        as_of="2026-02-10",
        **more,
    )


def test_the_first_price_model_stands_against_price_stays(case: Case) -> None:
    decision = _judge(case, None)
    test = case.forecasts[case.forecasts["split"] == "test"]
    assert decision.numbers["candidate"] == pytest.approx((test["price_forecast"] - test["price_actual"]).abs().mean())
    assert decision.numbers["opponent"] == pytest.approx((test["price_now"] - test["price_actual"]).abs().mean())
    assert decision.promote == (decision.numbers["candidate"] < decision.numbers["opponent"])
    assert "'price stays'" in decision.reason


def test_the_same_model_again_is_a_tie_and_keeps_the_champion(case: Case) -> None:
    decision = _judge(case, copy.deepcopy(case.trainer.models[60]), as_of_champion="2026-02-10")
    assert not decision.promote and decision.numbers["improvement"] == 0


def test_a_worse_champion_loses_and_an_older_candidate_never_wins(case: Case) -> None:
    noise = market(days=4.0, seed=99)
    rng = np.random.default_rng(0)
    noise["real_time_price"] = rng.permutation(noise["real_time_price"].to_numpy())
    weak = PricePredictionTrainer(small_config(horizons=[60]))
    weak.train_for_horizon(*weak.prepare_data(noise), 60)
    won = _judge(case, weak.models[60], as_of_champion="2026-02-09")
    assert won.promote and won.numbers["improvement"] > 0 and "the champion" in won.reason
    older = _judge(case, weak.models[60], as_of_champion="2026-02-11")
    assert not older.promote and "backfill" in older.reason


def test_a_champion_of_other_features_makes_way_only_for_what_beats_the_baseline(case: Case) -> None:
    champion = copy.deepcopy(case.trainer.models[60])
    champion.design = dataclasses.replace(champion.design, features=(*champion.design.features, "moon_phase"))
    decision = _judge(case, champion, as_of_champion="2026-02-09")
    assert "can't be scored" in decision.reason and "moon_phase" in decision.reason


def _broken() -> object:
    raise ArtifactError("Artefact model.pkl can't be loaded: TypeError: other classes")


def test_a_champion_that_cannot_be_loaded_does_not_stop_the_next_run(case: Case) -> None:
    more = {"features": case.features, "forecasts": case.forecasts, "split": case.split, "as_of": "2026-02-10"}
    decision = judge_price_model(case.trainer.models[60], _broken, as_of_champion="2026-02-09", **more)
    assert "the champion can't be scored: Artefact model.pkl can't be loaded" in decision.reason
    assert decision.numbers["opponent"] == pytest.approx(_judge(case, None).numbers["opponent"]), "the baseline instead"
    older = judge_price_model(case.trainer.models[60], _broken, as_of_champion="2026-02-11", **more)
    assert not older.promote, "not even then"


def test_a_champion_of_an_earlier_version_that_loads_and_then_fails_does_not_stop_the_next_run(case: Case) -> None:
    champion = copy.deepcopy(case.trainer.models[60])
    champion.fitted = None
    decision = _judge(case, champion, as_of_champion="2026-02-09")
    assert "the champion can't be scored: AttributeError: 'NoneType'" in decision.reason
    assert decision.promote == _judge(case, None).promote
    with pytest.raises(AttributeError):  # the candidate's own defect isn't hidden
        judge_price_model(
            champion,
            lambda: case.trainer.models[60],
            features=case.features,
            forecasts=case.forecasts,
            split=case.split,
            as_of="2026-02-10",
        )


def test_policies_by_profit(case: Case) -> None:
    config = RLBatteryConfig(episodes=10)
    trained = BatteryRLTrainer(config).train_all(prices=case.prices, forecasts=case.forecasts, split=case.split)
    learned = trained["policy"].learned
    common = {
        "prices": case.prices,
        "forecasts": case.forecasts,
        "split": case.split,
        "battery": Battery.from_config(config),
        "as_of": "2026-02-10",
    }
    first = judge_policy(learned, None, **common)
    assert first.promote == (first.numbers["candidate"] > 0) and "holding" in first.reason
    tie = judge_policy(learned, lambda: learned, as_of_champion="2026-02-10", **common)
    assert not tie.promote and tie.numbers["candidate"] == pytest.approx(first.numbers["candidate"])
    broken = judge_policy(learned, _broken, as_of_champion="2026-02-09", **common)
    assert broken.promote == first.promote and "can't be scored" in broken.reason
    old = judge_policy(learned, lambda: object(), as_of_champion="2026-02-09", **common)
    assert old.promote == first.promote and "can't be scored: AttributeError" in old.reason
    worn = dataclasses.replace(learned, own={"Site A": learned.agents})
    other = dataclasses.replace(trained["agent"].battery, wear_cost_per_mwh=9.0)
    bygone = {"FR": dataclasses.replace(trained["agent"], battery=other)}
    for champion in (learned, dataclasses.replace(learned, own={"Site A": bygone})):
        asked = judge_policy(worn, lambda c=champion: c, as_of_champion="2026-02-10", **common)
        assert asked.promote == first.promote and "it has no policy for Site A" in asked.reason
    assert judge_policy(worn, lambda: worn, as_of_champion="2026-02-10", **common) == tie
    assert not judge_policy(worn, lambda: learned, as_of_champion="2026-02-11", **common).promote, "it is older"


def test_register_and_decide_puts_decision_and_results_on_record(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models" / "registry.json")
    asked = []

    def submit(number: int, promote: bool) -> str:
        version, artefact = registry.new_version(), tmp_path / f"{number}.pkl"
        save_artifact(number, artefact)

        def judge(champion: dict | None) -> Decision:
            asked.append(None if champion is None else champion["version"])
            return Decision(promote, f"because {number}")

        register_and_decide(
            registry,
            model_type="price_prediction",
            model_id="price_prediction_15m",
            version=version,
            filepath=artefact,
            metadata={"as_of": f"2026-02-{number:02d}"},
            judge=judge,
            who="test",
            max_backups=1,
        )
        return version

    first, second, third = submit(1, True), submit(2, False), submit(3, False)
    assert asked == [None, first, first]
    assert registry.champion("price_prediction_15m")["version"] == first
    assert registry.list_models()[0]["versions"] == [third, first], "the champion and one backup"
    events = [(e["event"], e["version"]) for e in registry.history("price_prediction_15m")]
    assert ("kept", second) in events and ("pruned", second) in events
    registry.write_training_results()
    results = (tmp_path / "models" / "price_prediction" / "training_results.json").read_text()
    assert first in results and "2026-02-01" in results and third not in results


def test_a_horizon_that_nobody_trains_any_more_is_retired(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models/registry.json")
    version = registry.new_version()
    save_artifact("model", tmp_path / "model.pkl")
    for name, day in (("price_prediction_30m", "3"), ("price_prediction_60m", "3"), ("price_prediction_90m", "5")):
        registry.register_model("price_prediction", name, version, tmp_path / "model.pkl", {"as_of": f"2026-01-0{day}"})
        registry.promote(name, version, reason="test", who="test")
    retired = retire_unfit(registry, 30, (30, 120), as_of="2026-01-04", who="test")
    why = "60 minutes ahead isn't among the horizons of 2026-01-04: 30, 120"
    assert retired == {"price_prediction_60m": (version, f"retired: {why}")}, "the one of a later day stays"
    assert [m["model_id"] for m in registry.list_models() if m["champion"] is None] == ["price_prediction_60m"]
    assert retire_unfit(registry, 30, (30, 120), as_of="2026-01-04", who="test") == {}
