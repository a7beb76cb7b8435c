"""The named tasks of training: each starts its part of the graph and returns the training's state at once.

What belongs here: names that callers were promised. What doesn't: how a training is started (``training_tasks``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energy_ml.service.training_tasks import train_model_task


def train_price_prediction(training_id: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Start ``tasks.train_price_prediction``: features, price models and their evaluation; see ``Trainings.start``."""
    return train_model_task(training_id, {**(request or {}), "type": "price_prediction"})


def train_rl_battery(training_id: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Start ``tasks.train_rl_battery``: the policy with the forecasts it needs, and its backtest."""
    return train_model_task(training_id, {**(request or {}), "type": "rl_battery"})
