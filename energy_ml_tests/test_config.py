"""Configs and settings: promised names and defaults, checks, environment variables."""

import datetime as dt
import inspect
from pathlib import Path

import pytest

from energy_ml.config import (
    SAMPLE_END,
    SAMPLE_START,
    MLConfig,
    PricePredictionConfig,
    RLBatteryConfig,
    Settings,
    default_config,
    project_root,
)
from energy_ml.errors import ConfigError

PROMISED = {
    PricePredictionConfig: {
        "target_column": "real_time_price",
        "train_end_pct": 0.70,
        "val_end_pct": 0.85,
        "price_lags": [1, 5, 10, 15, 30, 60],
        "rolling_windows": [5, 10, 15, 30, 60],
        "include_time_features": True,
        "include_regional_features": True,
        "n_estimators": 200,
        "max_depth": 6,
        "learning_rate": 0.1,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "random_state": 42,
        "early_stopping_rounds": 20,
        "early_stopping_threshold": 0.001,
    },
    RLBatteryConfig: {
        "charge_level_bins": 10,
        "price_bins": 10,
        "time_bins": 24,
        "actions": ["charge", "hold", "discharge"],
        "learning_rate": 0.1,
        "discount_factor": 0.95,
        "epsilon": 1.0,
        "epsilon_decay": 0.995,
        "epsilon_min": 0.05,
        "episodes": 1000,
        "max_steps": 14400,
        "min_reserve": 0.10,
        "max_charge": 0.90,
        "efficiency": 0.90,
        "reward_scale": 1.0,
    },
    MLConfig: {
        "models_path": "models",
        "results_path": "results",
        "enable_gpu": False,
        "n_jobs": 4,
        "verbose": True,
        "keep_backup": True,
        "max_backups": 5,
    },
}


@pytest.mark.parametrize("kind", PROMISED, ids=lambda k: k.__name__)
def test_promised_names_defaults_and_order(kind: type) -> None:
    made = kind()
    for name, value in PROMISED[kind].items():
        assert getattr(made, name) == value, name
    order = [name for name in inspect.signature(kind).parameters if name in PROMISED[kind]]
    assert order == list(PROMISED[kind])


def test_data_path_comes_first_and_lists_are_not_shared() -> None:
    first, second = PricePredictionConfig("elsewhere"), PricePredictionConfig()
    assert first.data_path == "elsewhere"
    first.price_lags.append(99)
    assert 99 not in second.price_lags
    assert isinstance(default_config, MLConfig)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (PricePredictionConfig, "train_end_pct", 0.9),
        (PricePredictionConfig, "price_lags", []),
        (PricePredictionConfig, "price_lags", [1, 1]),
        (PricePredictionConfig, "horizons", [0]),
        (PricePredictionConfig, "learning_rate", 0.0),
        (PricePredictionConfig, "subsample", 1.5),
        (PricePredictionConfig, "preset", "slow"),
        (PricePredictionConfig, "interval_level", 1.0),
        (RLBatteryConfig, "efficiency", 0.0),
        (RLBatteryConfig, "efficiency", 1.1),
        (RLBatteryConfig, "min_reserve", 0.95),
        (RLBatteryConfig, "power_mw", -1.0),
        (RLBatteryConfig, "initial_charge", 0.95),
        (RLBatteryConfig, "update", "magic"),
        (RLBatteryConfig, "actions", ["buy"]),
        (MLConfig, "max_backups", -1),
        (MLConfig, "n_jobs", 0),
    ],
)
def test_impossible_values_are_refused_by_name(kind: type, field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        kind(**{field: value})


def test_settings_of_the_sample() -> None:
    settings = Settings.from_env({})
    assert (settings.start_date, settings.end_date) == (SAMPLE_START, SAMPLE_END)
    assert settings.first_as_of == dt.date(2026, 2, 8)
    assert settings.horizons == (1, 5, 15, 60)
    assert settings.regions is None
    assert Path(settings.data_dir) == project_root() / "data" / "processed"


def test_settings_from_the_environment() -> None:
    settings = Settings.from_env(
        {
            "ENERGY_ML_DATA_DIR": "s3://bucket/prices",
            "ENERGY_ML_MODELS_DIR": "/srv/models",
            "ENERGY_ML_RESULTS_DIR": "out",
            "ENERGY_ML_START_DATE": "2024-12-01",
            "ENERGY_ML_HORIZONS": "60, 5,15",
            "ENERGY_ML_REGIONS": "NSW1, VIC1",
            "ENERGY_ML_TRAINING_WINDOW_DAYS": "30",
            "ENERGY_ML_EXECUTOR": "multiprocess",
            "ENERGY_ML_PRESET": "fast",
        }
    )
    assert settings.data_dir == "s3://bucket/prices"
    assert settings.models_dir == "/srv/models"
    assert settings.results_dir == str(project_root() / "out")
    assert settings.end_date is None, "the sample's end doesn't hold for other data"
    assert settings.horizons == (5, 15, 60)
    assert settings.regions == ("NSW1", "VIC1")
    assert settings.first_as_of == dt.date(2024, 12, 30)
    assert settings.ml_config().price_prediction.horizons == [5, 15, 60]
    assert settings.ml_config().price_prediction.preset == "fast"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("START_DATE", "1.12.2024"),
        ("HORIZONS", "1,two"),
        ("HORIZONS", "5,5"),
        ("HORIZONS", "-5"),
        ("TRAINING_WINDOW_DAYS", "1"),
        ("EXECUTOR", "slurm"),
        ("PRESET", "quick"),
        ("END_DATE", "2020-01-01"),
    ],
)
def test_nonsense_in_the_environment_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"ENERGY_ML_{name}"):
        Settings.from_env({f"ENERGY_ML_{name}": value})
