"""A project of its own in a temporary folder: a week and a day of half-hourly prices in two regions.

Windows are small and training is fast. Its processes are real ones, started as a user starts them; what needs no
process of its own can work in it directly.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import energy_ml
from energy_ml.config import Settings
from energy_ml.market_data.simulator import write_simulation
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.price_prediction import PricePredictor
from energy_ml.results import ResultsStore
from energy_ml.rl_battery import BatteryPolicy

SOURCE = Path(energy_ml.__file__).parents[1]
FIRST = dt.date(2026, 1, 1)
DAYS = 8
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

    @property
    def registry(self) -> ModelRegistry:
        """The registry."""
        return ModelRegistry(self.root / "models/registry.json")

    def champions(self) -> dict[str, str]:
        """Model -> version of its champion."""
        return {model["model_id"]: model["champion"] for model in self.registry.list_models()}

    def assert_champions_serve(self, versions: Mapping[str, str]) -> None:
        """Champions are these versions and answer; loading compares them with their digests."""
        assert self.champions() == versions
        predictor = PricePredictor(self.root / "models/price_prediction")
        assert all(len(predictor.get_feature_importance(horizon)) for horizon in (30, 60))
        assert BatteryPolicy(self.root / "models/rl_battery").get_action(0.5, 40.0)["action"]

    @staticmethod
    def day(number: int) -> dt.date:
        """The n-th day of the data, from 1."""
        return FIRST + dt.timedelta(days=number - 1)

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process work in the project: its commands, in the project's folder, without starting anew."""
        for name in [n for n in os.environ if n.startswith(("ENERGY_ML_", "DAGSTER_"))]:
            monkeypatch.delenv(name)
        for name, value in self.env.items():
            if name.startswith("ENERGY_ML_"):
                monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.root)
        monkeypatch.delitem(sys.modules, "energy_ml.definitions", raising=False)

    def night(self, day: dt.date | str) -> None:
        """A whole night of ``day`` in this process: what ``energy-ml retrain`` does, without starting anew."""
        from energy_ml.orchestration.launch import run_job, what_failed

        with pytest.MonkeyPatch.context() as patch:
            self.enter(patch)
            ran = run_job(dt.date.fromisoformat(str(day)))
        assert ran.success, what_failed(ran.all_events)

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

    def run_on_terminal(
        self, *arguments: str, interrupt_at: str | None = None
    ) -> tuple[subprocess.CompletedProcess[str], str]:
        """Run a command with a terminal for its errors and progress; gives what that was sent too.

        Once ``interrupt_at`` has appeared there, all of its processes get what Ctrl-C sends.
        """
        terminal, end = pty.openpty()
        with subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env={**self.env, "TERM": "xterm", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=end,
            text=True,
            start_new_session=True,
        ) as running:
            os.close(end)
            shown = b""
            with contextlib.suppress(OSError):  # the kernel's word for: nobody writes any more
                while more := os.read(terminal, 65536):
                    shown += more
                    if interrupt_at is not None and interrupt_at in shown.decode(errors="ignore"):
                        interrupt_at = os.killpg(running.pid, signal.SIGINT)
            os.close(terminal)
            out, _ = running.communicate()
        return subprocess.CompletedProcess(running.args, running.returncode, out), shown.decode()

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
