"""Resources: what a run may say otherwise than the settings, and what its steps share.

What belongs here: the launchpad's fields, and one trainer per run. What doesn't: where things lie (the settings say).
Concept: https://docs.dagster.io/guides/build/external-resources
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from energy_ml.config import MLConfig, Settings

if TYPE_CHECKING:
    from energy_ml.price_prediction import PricePredictionTrainer


class TrainingResource(dg.ConfigurableResource[None]):
    """What a run may do otherwise than the settings say, in the launchpad; its horizons are the assets selected."""

    preset: str | None = Field(None, description="fast or best; none as the settings say")
    training_window_days: int | None = Field(None, description="days that are trained on; none as the settings say")
    _trainer: "PricePredictionTrainer | None" = PrivateAttr(default=None)

    def of(self, settings: Settings) -> Settings:
        """The settings of this run. Raises ConfigError for what can't be."""
        preset, days = self.preset, self.training_window_days
        settings = settings if preset is None else replace(settings, preset=preset)
        return settings if days is None else replace(settings, training_window_days=days)

    def trainer(self, config: MLConfig) -> "PricePredictionTrainer":
        """One price trainer per run and process, of the first config, so that horizons share the binned features."""
        from energy_ml.price_prediction import PricePredictionTrainer  # loads XGBoost

        if self._trainer is None:
            self._trainer = PricePredictionTrainer(config)
        return self._trainer
