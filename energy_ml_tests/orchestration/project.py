"""A project of its own in a temporary folder: a week of half-hourly prices in two regions, small windows, fast preset.

Its processes are real ones, started as a user starts them.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import energy_ml
from energy_ml.config import Settings
from energy_ml.market_data.simulator import write_simulation
from energy_ml.results import ResultsStore

SOURCE = Path(energy_ml.__file__).parents[1]
FIRST = dt.date(2026, 1, 1)
DAYS = 7
WINDOW = 4


@dataclass(frozen=True)
class Project:
    """The folder and the settings in it."""

    root: Path
    more: Mapping[str, str]

    @classmethod
    def make(cls, root: Path, **more: str) -> Project:
        """A new project below ``root``, with the configuration files of this one."""
        root.mkdir(parents=True, exist_ok=True)
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(SOURCE / name, root / name)
        write_simulation(root / "data/processed", DAYS, 2, FIRST, 30, days_per_file=DAYS, batteries=1)
        return cls(root, more)

    @property
    def env(self) -> dict[str, str]:
        """The environment of the project's processes."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGY_ML_", "DAGSTER_"))}
        return {
            **inherited,
            "OMP_NUM_THREADS": "1",
            "ENERGY_ML_PROJECT_ROOT": str(self.root),
            "ENERGY_ML_START_DATE": FIRST.isoformat(),
            "ENERGY_ML_END_DATE": self.day(DAYS).isoformat(),
            "ENERGY_ML_TRAINING_WINDOW_DAYS": str(WINDOW),
            "ENERGY_ML_HORIZONS": "30,60",
            "ENERGY_ML_PRESET": "fast",
            **{f"ENERGY_ML_{name}": value for name, value in self.more.items()},
        }

    @property
    def settings(self) -> Settings:
        """The settings that the processes see."""
        with_root = dict(self.env)
        for name in ("DATA_DIR", "MODELS_DIR", "RESULTS_DIR"):
            default = {"DATA_DIR": "data/processed", "MODELS_DIR": "models", "RESULTS_DIR": "results"}[name]
            with_root.setdefault(f"ENERGY_ML_{name}", str(self.root / default))
        return Settings.from_env(with_root)

    @property
    def store(self) -> ResultsStore:
        """The results."""
        return ResultsStore(self.settings.results_dir)

    @staticmethod
    def day(number: int) -> dt.date:
        """The n-th day of the data, from 1."""
        return FIRST + dt.timedelta(days=number - 1)

    def command(self, *arguments: str) -> list[str]:
        """``energy-ml …`` or ``dagster …`` by the interpreter of this test."""
        modules = {
            "energy-ml": "from energy_ml.cli import main; main()",
            "dagster": "from dagster._cli import main; main()",
        }
        return [sys.executable, "-c", modules[arguments[0]], *arguments[1:]]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder to its end."""
        return subprocess.run(
            self.command(*arguments), cwd=self.root, env=self.env, capture_output=True, text=True, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command in the project's folder, in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
