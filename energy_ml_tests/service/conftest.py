"""A small project root with data and champions, and a really started server on loopback; made once for all tests."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import joblib
import pandas as pd
import pytest

from energy_ml.config import MLConfig, PricePredictionConfig, RLBatteryConfig, Settings
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.simulator import write_simulation
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.rl_battery import BatteryRLTrainer
from energy_ml.service.training_tasks import Trainings
from energy_ml.splits import split_window

REPOSITORY = Path(__file__).parents[2]
TOKEN, TRAIN_TOKEN = "read-token-0123456789", "train-token-0123456789"
HORIZONS = (15, 60)
INTERVAL = 15
DAYS = 5
START = "2025-03-01"


@dataclass
class Server:
    """A server process: its address, its settings and how to speak to it."""

    root: Path
    environment: dict[str, str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/ws"

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.environment)

    def start(self) -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-c", "from energy_ml.cli import main; main()"]
        command += ["serve", "--port", str(self.port), "--log-level", "warning"]
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        with self.client() as client:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, self.log()
                try:
                    if client.get("/health/ready").status_code == 200:
                        return self
                except httpx.TransportError:
                    time.sleep(0.1)
        self.stop(signal.SIGKILL)
        raise AssertionError(f"the server didn't start: {self.log()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)

    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def client(self, token: str | None = TRAIN_TOKEN) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # There is no TLS here, and loading certificates would cost more than the requests.
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30, verify=False)


def make_root(folder: Path, **more: str) -> Server:
    """A project root with simulated prices; no models yet."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    (folder / "energy_ml.toml").write_text(
        '[[battery]]\nname = "Site A"\nregion = "FR"\ncapacity_mwh = 4\npower_mw = 2\n'
    )
    write_simulation(
        str(folder / "data/processed"),
        days=DAYS,
        regions=2,
        start=dt.date.fromisoformat(START),
        interval_minutes=INTERVAL,
        seed=1,
    )
    own = {
        "ENERGY_ML_PROJECT_ROOT": str(folder),
        "ENERGY_ML_DATA_DIR": str(folder / "data/processed"),
        "ENERGY_ML_MODELS_DIR": str(folder / "models"),
        "ENERGY_ML_RESULTS_DIR": str(folder / "results"),
        "ENERGY_ML_START_DATE": START,
        "ENERGY_ML_END_DATE": "2025-03-05",
        "ENERGY_ML_TRAINING_WINDOW_DAYS": "4",
        "ENERGY_ML_HORIZONS": ",".join(map(str, HORIZONS)),
        "ENERGY_ML_PRESET": "fast",
        "ENERGY_ML_API_TOKEN": TOKEN,
        "ENERGY_ML_API_TRAIN_TOKEN": TRAIN_TOKEN,
        "ENERGY_ML_API_TRAININGS_PER_HOUR": "100",
        "DAGSTER_HOME": "",
        "OMP_NUM_THREADS": "1",
        **more,
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGY_ML_", "DAGSTER_"))}
    return Server(folder, kept | own)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A project root with data and no models."""
    return make_root(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def prices(market: Server) -> pd.DataFrame:
    """All simulated prices, long."""
    lake = ParquetLake(market.settings.data_dir)
    frame = lake.read_prices(pd.Timestamp(START, tz="UTC"), pd.Timestamp("2025-03-06", tz="UTC"))
    return frame.sort_values(["timestamp", "region"], ignore_index=True)


@pytest.fixture(scope="session")
def artifacts(prices: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artefacts by model id, trained on four days, as small as they get."""
    config = MLConfig(
        price_prediction=PricePredictionConfig(
            horizons=list(HORIZONS), n_estimators=12, early_stopping_rounds=4, preset="fast"
        ),
        rl_battery=RLBatteryConfig(episodes=20),
        n_jobs=1,
    )
    end = pd.Timestamp("2025-03-05", tz="UTC")
    known = prices[prices["timestamp"] < end]
    trainer = PricePredictionTrainer(config)
    features, names = trainer.prepare_data(known)
    split = split_window(end - pd.Timedelta(days=4), end)
    folder = tmp_path_factory.mktemp("artifacts")
    made: dict[str, Any] = {}
    forecasts = []
    for horizon in HORIZONS:
        trained = trainer.train_for_horizon(features, names, horizon, split=split)
        made[f"price_prediction_{horizon}m"] = trained["model"]
        forecasts.append(trained["forecasts"])
    policy = BatteryRLTrainer(config).train_all(
        sorted(known["region"].unique()), prices=known, forecasts=pd.concat(forecasts, ignore_index=True), split=split
    )
    made["battery_policy"] = policy["policy"].learned
    paths = {}
    for model_id, model in made.items():
        paths[model_id] = folder / f"{model_id}.pkl"
        joblib.dump(model, paths[model_id])
    return paths


def promote(server: Server, artifacts: dict[str, Path], only: str | None = None) -> str:
    """Register every artefact (or one) as a new version and make it champion; returns the version."""
    registry = ModelRegistry(f"{server.settings.models_dir}/registry.json")
    version = registry.new_version()
    for model_id, path in artifacts.items():
        if only in (None, model_id):
            kind = "rl_battery" if model_id == "battery_policy" else "price_prediction"
            metadata = {"as_of": "2025-03-04", "metrics": {"test": {"mae": 1.5}}}
            registry.register_model(kind, model_id, version, path, metadata)
            registry.promote(model_id, version, reason="test", who="test")
    return version


@pytest.fixture(scope="session")
def server(market: Server, artifacts: dict[str, Path]) -> Iterator[Server]:
    """The market's server with champions."""
    promote(market, artifacts)
    market.start()
    yield market
    trainings = Trainings(market.settings)
    for state in trainings.newest():  # they outlive their server, but not their tests
        trainings.cancel(state["training_id"])
    market.stop()


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    """A client with all rights."""
    with server.client() as client:
        yield client


def inline(prices: pd.DataFrame, rows: int = 120) -> dict[str, Any]:
    """The newest prices as a request carries them."""
    table = prices.pivot_table(index="timestamp", columns="region", values="real_time_price").tail(rows)
    return {
        "timestamps": [t.isoformat() for t in table.index],
        "regions": {str(name): table[name].tolist() for name in table.columns},
    }
