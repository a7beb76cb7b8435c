"""Resources: thin, string-typed handles that hand out the core's own objects.

What belongs here: where data, results and models are, and the progress log of a run. What doesn't: working with them.
Concept: https://docs.dagster.io/guides/build/external-resources
"""

from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from energy_ml.config import MLConfig, Settings
from energy_ml.market_data.lake import ParquetLake
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.progress import ProgressLog, open_progress, progress_place
from energy_ml.results import ResultsStore


class LakeResource(dg.ConfigurableResource[None]):
    """The user's parquet files."""

    root: str
    zone: str | None = None

    def lake(self) -> ParquetLake:
        """The lake at ``root``."""
        return ParquetLake(self.root, self.zone)


class ResultsResource(dg.ConfigurableResource[None]):
    """Results by as-of date, and the progress log of a run beside them."""

    root: str

    def store(self) -> ResultsStore:
        """The store at ``root``."""
        return ResultsStore(self.root)

    def progress(self, run_id: str) -> ProgressLog:
        """The progress log of one run: a file beside the results, or Redis where Celery is used."""
        return open_progress(progress_place(self.root), run_id)


class TrainerResource(dg.ConfigurableResource[None]):
    """One price trainer per run and process, so that the horizons share the binned features."""

    _trainer: PricePredictionTrainer | None = PrivateAttr(default=None)

    def trainer(self, config: MLConfig) -> PricePredictionTrainer:
        """The trainer; ``config`` is that of the first call."""
        if self._trainer is None:
            self._trainer = PricePredictionTrainer(config)
        return self._trainer


class TrainingResource(dg.ConfigurableResource[None]):
    """What a run may do otherwise than the settings say, in the launchpad; its horizons are the assets selected."""

    preset: str | None = Field(None, description="fast or best; none as the settings say")
    training_window_days: int | None = Field(None, description="days that are trained on; none as the settings say")

    def of(self, settings: Settings) -> Settings:
        """The settings of this run. Raises ConfigError for what can't be."""
        said: dict[str, Any] = {"preset": self.preset, "training_window_days": self.training_window_days}
        return replace(settings, **{name: value for name, value in said.items() if value is not None})


class RegistryResource(dg.ConfigurableResource[None]):
    """The model registry."""

    models_dir: str

    def registry(self) -> ModelRegistry:
        """The registry under ``models_dir``."""
        return ModelRegistry(f"{self.models_dir}/registry.json")
