"""The named tasks of training: each runs its part of the graph to the end. Celery's where Celery is installed.

What belongs here: names that callers were promised. What doesn't: how a training is started (``training_tasks``), and
which broker they come through (``worker``, or an application of the caller's: they are shared tasks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from energy_ml.errors import ModelError
from energy_ml.names import PRICE_PREDICTION, RL_BATTERY
from energy_ml.service.answers import TrainingOut
from energy_ml.service.training_tasks import TASKS, TrainingRequest, Trainings
from energy_ml.training_window import deployment

_F = TypeVar("_F", bound=Callable[..., TrainingOut])


def _task(kind: str) -> Callable[[_F], _F]:
    """Make it a shared task of that name, or leave it as it is where there is no Celery."""
    try:
        from celery import shared_task
    except ImportError:
        return lambda function: function
    made: Callable[[_F], _F] = shared_task(name=TASKS[kind])
    return made


@_task(PRICE_PREDICTION)
def train_price_prediction(training_id: str, request_dict: Mapping[str, object]) -> TrainingOut:
    """Train features, price models and their evaluation; returns the training's state at its end.

    ``training_id`` is a new one, or that of a training to wait for; ``request_dict`` as ``TrainingRequest``, without
    its type. Raises what ``Trainings.start`` raises, and ModelError if the training failed.
    """
    return _run(PRICE_PREDICTION, training_id, request_dict)


@_task(RL_BATTERY)
def train_rl_battery(training_id: str, request_dict: Mapping[str, object]) -> TrainingOut:
    """Train the policy with the forecasts it needs, and its backtest; see ``train_price_prediction``."""
    return _run(RL_BATTERY, training_id, request_dict)


def _run(kind: str, training_id: str, request: Mapping[str, object]) -> TrainingOut:
    trainings = Trainings(deployment())
    state, _ = trainings.start(TrainingRequest.of({**request, "type": kind}), training_id)
    state = trainings.wait(state["training_id"])
    if state["state"] == "failed":
        raise ModelError(f"training {training_id} failed: {state['error']}")
    return state
