"""Price forecasts: one model per horizon, trained, evaluated and served.

What belongs here: the names that others use. What doesn't: any computation.
"""

from energy_ml.price_prediction.evaluator import PricePredictionEvaluator
from energy_ml.price_prediction.model import PricePredictionModel
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.price_prediction.trainer import PricePredictionTrainer
from energy_ml.price_prediction.walk_forward import walk_forward

__all__ = [
    "PricePredictionEvaluator",
    "PricePredictionModel",
    "PricePredictionTrainer",
    "PricePredictor",
    "walk_forward",
]
