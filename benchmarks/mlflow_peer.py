"""Our price models as an MLflow model ("models from code"), for benchmarks/service.py to serve beside our own service.

MLflow wants other versions of some libraries than constraints.txt pins, so it gets an environment of its own:

    python3 -m venv VENV && VENV/bin/pip install mlflow .
"""

from __future__ import annotations

import os
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from energy_ml.features import Panel
from energy_ml.features.panel import NS_PER_MINUTE
from energy_ml.price_prediction import PricePredictor


class Forecasts(mlflow.pyfunc.PythonModel):
    """Recent prices, one row per time and one column per region, in; forecasts of all horizons with intervals out."""

    def load_context(self, context: Any) -> None:
        """Load the champions once."""
        self.predictor = PricePredictor(f"{os.environ['ENERGY_ML_MODELS_DIR']}/price_prediction")
        self.predictor.warm_up()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """As ``POST /api/v1/models/predict``: one row per horizon, of the first region."""
        times = pd.to_datetime(model_input["timestamp"], utc=True).to_numpy(dtype="datetime64[ns]").view(np.int64)
        names = tuple(str(name) for name in model_input.columns if name != "timestamp")
        prices = np.ascontiguousarray(model_input[list(names)].to_numpy(dtype=np.float64))
        panel = Panel(times, names, int(times[1] - times[0]) // NS_PER_MINUTE, {"real_time_price": prices})
        return pd.DataFrame(self.predictor.predict_rows(panel, None, names[:1])).astype(
            {"timestamp": str, "target_time": str}
        )


mlflow.models.set_model(Forecasts())
