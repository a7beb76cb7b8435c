"""Price forecasts: one model per horizon, trained, evaluated and served.

What belongs here: the names that others use, each loaded when first used, since serving needs no XGBoost. What doesn't:
any computation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from energy_ml.lazy import from_homes

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


__getattr__ = from_homes(__name__, _HOMES)
