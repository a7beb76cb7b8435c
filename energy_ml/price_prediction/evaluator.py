"""How good forecasts are: tables per horizon, region and hour beside the baselines, with significance.

What belongs here: choosing groups of a forecasts frame. What doesn't: the metrics themselves, charts, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.errors import SchemaError
from energy_ml.evaluation.metrics import forecast_metrics, spike_thresholds

GROUPS: dict[str, tuple[str, ...]] = {
    "horizon": ("horizon_minutes",),
    "region": ("horizon_minutes", "region"),
    "hour": ("horizon_minutes", "hour"),
}


class PricePredictionEvaluator:
    """Scores forecasts frames against persistence ("the price stays") and the same time yesterday."""

    def __init__(self, config: PricePredictionConfig | MLConfig | None = None) -> None:
        self.config = config.price_prediction if isinstance(config, MLConfig) else config or PricePredictionConfig()

    def evaluate(self, forecasts: pd.DataFrame, split: str | None = "test") -> dict[str, pd.DataFrame]:
        """Tables ``horizon``, ``region`` and ``hour`` with the columns of ``evaluation.metrics.forecast_metrics``.

        Parameters
        ----------
        forecasts : forecasts frame; ``price_seasonal`` adds the seasonal baseline. Spikes are prices above the
            config's quantile of the frame's own training rows, per region.
        split : part that is scored; None for all rows.

        Raises SchemaError when the frame lacks columns or rows of that part.
        """
        return {name: self.table(forecasts, by, split=split) for name, by in GROUPS.items()}

    def table(self, forecasts: pd.DataFrame, by: Sequence[str], *, split: str | None = "test") -> pd.DataFrame:
        """One table grouped by columns of the frame, ``hour`` or ``day``."""
        thresholds = spike_thresholds(forecasts, self.config.spike_quantile) if "split" in forecasts else None
        rows = forecasts if split is None else forecasts[forecasts["split"] == split]
        if not len(rows):
            raise SchemaError(
                f"the forecasts frame has no rows of the part {split!r}",
                expected="a frame that a trainer made",
                remedy="train first, or name another part",
            )
        return forecast_metrics(
            rows, list(by), interval_level=self.config.interval_level, spike_threshold=thresholds or None
        )

    def summary(self, forecasts: pd.DataFrame, split: str | None = "test") -> dict[int, dict[str, Any]]:
        """The numbers a person looks at first, per horizon, plus the coverage of the worst region."""
        by_horizon = self.table(forecasts, GROUPS["horizon"], split=split).set_index("horizon_minutes")
        by_region = self.table(forecasts, GROUPS["region"], split=split)
        worst = by_region.groupby("horizon_minutes")["coverage"].min()
        names = ["n", "mae", "rmse", "bias", "rmae", "persistence_mae", "coverage", "mean_width", "winkler"]
        names.append("dm_p_value")
        return {
            int(horizon): {name: row[name] for name in names} | {"coverage_worst_region": float(worst[horizon])}
            for horizon, row in by_horizon.iterrows()
        }


def geometric_mean(ratios: Sequence[float]) -> float:
    """Geometric mean of error ratios over windows: one wild window doesn't own it."""
    return float(np.exp(np.mean(np.log(np.asarray(ratios, dtype=np.float64)))))
