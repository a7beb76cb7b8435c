"""What the battery means to do: one plan at every door, which begins with the action and keeps to the physics."""

from __future__ import annotations

import httpx
import numpy as np
import pandas as pd
import pytest

from energy_ml.artifacts import to_jsonable
from energy_ml.service import MLService
from energy_ml_tests.service.conftest import INTERVAL, Server


@pytest.fixture(scope="module")
def service(server: Server) -> MLService:
    """The service in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (name for name in server.environment if name.startswith("ENERGY_ML_")):
            patch.setenv(name, server.environment[name])
        return MLService()


@pytest.mark.parametrize("asked", [{"charge_level_mwh": 0.4}, {"battery": "Site A", "charge_level_mwh": 3.0}], ids=str)
def test_a_plan_is_the_same_at_both_doors_and_begins_with_the_action(
    api: httpx.Client, service: MLService, asked: dict[str, float]
) -> None:
    own = service.plan(**asked)  # type: ignore[arg-type]
    answered = api.post("/models/plan", json=asked).raise_for_status().json()
    assert answered["steps"] == to_jsonable(own["steps"]) and answered["cash"] == own["cash"]
    action = service.act(**asked)  # type: ignore[arg-type]
    first, steps = own["steps"][0], own["steps"]
    for name in ("action", "power_mw", "energy_mwh", "charge_after_mwh"):
        assert first[name] == action[name]
    assert (first["timestamp"], first["price"]) == (action["acts_at"], action["price"])
    # One after the other for a day, within the limits, and cash and charge follow from what is traded.
    ends = [step["timestamp"] + pd.Timedelta(minutes=step["minutes"]) for step in steps]
    assert [step["timestamp"] for step in steps[1:]] == ends[:-1] and first["minutes"] == INTERVAL
    assert pd.Timedelta(hours=24) <= ends[-1] - first["timestamp"] <= pd.Timedelta(hours=25)
    low, high = own["bounds_mwh"]
    charges = np.array([own["charge_level_mwh"], *(step["charge_after_mwh"] for step in steps)])
    assert ((charges >= low - 1e-9) & (charges <= high + 1e-9)).all()
    for step, moved in zip(steps, np.diff(charges), strict=True):
        assert step["cash"] == pytest.approx(-step["energy_mwh"] * step["price"])
        assert step["energy_mwh"] * moved >= 0 and abs(moved) <= abs(step["energy_mwh"]) / 0.9**0.5 + 1e-9
    assert {step["action"] for step in steps} >= {"charge", "discharge"}, "prices of a day are worth a trade"


def test_a_plan_buys_low_and_sells_high_of_what_it_expects(service: MLService) -> None:
    steps = service.plan(0.1)["steps"][1:]  # the first one is what plan and table say together
    bought = [step["price"] for step in steps if step["action"] == "charge"]
    sold = [step["price"] for step in steps if step["action"] == "discharge"]
    assert np.mean(sold) > np.mean(bought)


def test_a_misspelt_question_is_no_question(service: MLService) -> None:
    with pytest.raises(TypeError, match="regoin"):
        service.act(0.1, regoin="FR")  # type: ignore[call-arg]


def test_a_limit_on_cycles_holds_in_a_plan(service: MLService) -> None:
    """By UTC day, and what telemetry says was drawn today counts."""
    from dataclasses import replace

    asked = service._asked(0.9)
    limited = replace(asked.battery, max_cycles_per_day=0.2)
    free, tight, used = (
        asked.policy.plan(asked.known),
        asked.policy.plan(replace(asked.known, battery=limited)),
        asked.policy.plan(replace(asked.known, battery=limited, discharged_mwh=0.2)),
    )
    begin = asked.facts["acts_at"]

    def drawn(plan: list, *, today: bool) -> float:  # type: ignore[type-arg]
        before = [asked.known.charge, *(step.charge_after_mwh for step in plan)]
        return sum(
            max(0.0, before[i] - step.charge_after_mwh)
            for i, step in enumerate(plan)
            if ((begin + pd.Timedelta(minutes=step.begin)).floor("D") == begin.floor("D")) == today
        )

    assert drawn(free, today=True) + drawn(free, today=False) > 0.4 + 1e-6
    for today in (True, False):
        assert drawn(tight, today=today) <= 0.2 + 1e-6
    assert drawn(used, today=True) == 0.0
