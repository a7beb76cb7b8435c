"""How good forecasts are: the part of a forecasts frame that counts, scored as the config says.

What belongs here: the config's choices. What doesn't: the metrics themselves, charts, files.
"""

from __future__ import annotations

import pandas as pd

from energy_ml.config import PricePredictionConfig
from energy_ml.errors import SchemaError
from energy_ml.evaluation.metrics import ForecastScores


class PricePredictionEvaluator:
    """Scores forecasts frames against persistence ("the price stays") and the same time yesterday."""

    def __init__(self, config: PricePredictionConfig | None = None) -> None:
        self.config = config or PricePredictionConfig()

    def evaluate(self, forecasts: pd.DataFrame, split: str = "test") -> ForecastScores:
        """Score one part of a forecasts frame per horizon, and below that by region and by UTC hour.

        Spikes are prices above the config's quantile of the frame's own training rows, per region. Raises SchemaError
        when the frame lacks columns or rows of that part.
        """
        config = self.config
        scores = ForecastScores.of(
            forecasts, interval_level=config.interval_level, spike_quantile=config.spike_quantile
        ).part(split)
        if scores.overall.empty:
            raise SchemaError(
                f"the forecasts frame has no rows of the part {split!r}",
                expected="a frame that a trainer made",
                remedy="train first, or name another part",
            )
        return scores
