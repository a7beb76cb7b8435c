"""Price forecasts: one model per horizon, trained, evaluated and served.

What belongs here: the names that others use, each loaded when first used, since serving needs no XGBoost. What doesn't:
any computation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from energy_ml.price_prediction.evaluator import PricePredictionEvaluator
    from energy_ml.price_prediction.model import PricePredictionModel
    from energy_ml.price_prediction.predictor import PricePredictor
    from energy_ml.price_prediction.trainer import PricePredictionTrainer

__all__ = [
    "PricePredictionEvaluator",
    "PricePredictionModel",
    "PricePredictionTrainer",
    "PricePredictor",
]

_HOMES = {
    "PricePredictionEvaluator": "evaluator",
    "PricePredictionModel": "model",
    "PricePredictionTrainer": "trainer",
    "PricePredictor": "predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
