"""The interface that users were promised, called as it was promised: names, types, files and what they mean.

The promises are listed in docs/promises.md with the place where each is kept; the last tests hold that page to the
code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from energy_ml import config
from energy_ml.errors import HorizonError, UnknownRegionError
from energy_ml.features import build_battery_features, build_price_features
from energy_ml.market_data.simulator import write_simulation
from energy_ml.model_management import ModelRegistry
from energy_ml.price_prediction import PricePredictionModel, PricePredictionTrainer, PricePredictor
from energy_ml.rl_battery import BatteryPolicy, BatteryRLTrainer
from energy_ml.service import MLService, tasks, train_model_task, training_tasks
from energy_ml_tests.orchestration.project import FIRST, Project

ACTIONS = ["charge", "hold", "discharge"]
HORIZONS = [1, 5, 15, 60]
NONE = inspect.Parameter.empty

CONFIGS: dict[type, dict[str, Any]] = {
    config.PricePredictionConfig: {
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
    config.RLBatteryConfig: {
        "charge_level_bins": 10,
        "price_bins": 10,
        "time_bins": 24,
        "actions": ACTIONS,
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
    config.MLConfig: {
        "models_path": "models",
        "results_path": "results",
        "price_prediction": config.PricePredictionConfig(),
        "rl_battery": config.RLBatteryConfig(),
        "enable_gpu": False,
        "n_jobs": 4,
        "verbose": True,
        "keep_backup": True,
        "max_backups": 5,
    },
}

SIGNATURES: list[tuple[Callable[..., Any], list[tuple[str, Any]]]] = [
    (
        build_price_features,
        [("df", NONE), ("price_col", "real_time_price"), ("lags", None), ("windows", None), ("regions", None),
         ("include_time", True), ("include_regional", True)],
    ),
    (
        build_battery_features,
        [("df", NONE), ("price_df", NONE), ("battery_col", "charge_level_mwh"), ("capacity_col", "capacity_mwh"),
         ("timestamp_col", "timestamp"), ("battery_id_col", "battery_id")],
    ),
    (PricePredictor, [("models_dir", "models/price_prediction")]),
    (PricePredictor.predict, [("current_data", NONE), ("horizon", 15), ("region", None)]),
    (PricePredictor.predict_all_horizons, [("current_data", NONE), ("region", None)]),
    (PricePredictor.predict_with_confidence, [("current_data", NONE), ("horizon", 15), ("region", None)]),
    (PricePredictor.get_feature_importance, [("horizon", NONE)]),
    (PricePredictionTrainer, [("config", None)]),
    (PricePredictionTrainer.load_data, []),
    (PricePredictionTrainer.prepare_data, [("df", NONE)]),
    (PricePredictionTrainer.train_for_horizon, [("df_features", NONE), ("feature_cols", NONE), ("horizon", NONE)]),
    (PricePredictionTrainer.train_all, [("horizons", None)]),
    (PricePredictionTrainer.save_models, [("output_dir", "models/price_prediction")]),
    (PricePredictionTrainer.load_models, [("models_dir", "models/price_prediction"), ("horizons", None)]),
    (BatteryPolicy, [("policy_path", "models/rl_battery")]),
    (
        BatteryPolicy.get_action,
        [("charge_level", NONE), ("current_price", NONE), ("price_forecast_1m", 0), ("price_forecast_5m", 0),
         ("price_forecast_15m", 0), ("hour", 0)],
    ),
    (BatteryRLTrainer, [("config", None)]),
    (BatteryRLTrainer.load_data, []),
    (BatteryRLTrainer.train, [("n_episodes", 1000), ("region", "FR")]),
    (BatteryRLTrainer.save, [("output_dir", "models/rl_battery")]),
    (ModelRegistry, [("registry_path", "models/registry.json")]),
    (
        ModelRegistry.register_model,
        [("model_type", NONE), ("model_id", NONE), ("version", NONE), ("filepath", NONE), ("metadata", None)],
    ),
    (ModelRegistry.get_latest_version, [("model_id", NONE)]),
    (ModelRegistry.list_models, []),
    (MLService.list_models, []),
    (MLService.get_model_metrics, [("model_id", NONE)]),
    (MLService.predict, [("model_id", NONE), ("timestamp", NONE), ("features", None)]),
    (MLService.get_feature_importance, [("model_id", NONE)]),
    (train_model_task, [("training_id", NONE), ("request", NONE)]),
    (tasks.train_price_prediction, [("training_id", NONE), ("request_dict", NONE)]),
    (tasks.train_rl_battery, [("training_id", NONE), ("request_dict", NONE)]),
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Five days of minutes in two regions with a battery, and what one night makes of them."""
    root = tmp_path_factory.mktemp("promised")
    made = Project.make(root, HORIZONS="1,5,15,60", TRAINING_WINDOW_DAYS="4", END_DATE="2026-01-05")
    for path in (root / "data/processed").glob("*.parquet"):
        path.unlink()
    write_simulation(root / "data/processed", 5, 2, FIRST, 1, days_per_file=5, batteries=1)
    made.night("2026-01-05")
    return made


@pytest.fixture(autouse=True)
def _inside(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The project is where the settings say; the current folder is another."""
    project.enter(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def prices(project: Project) -> pd.DataFrame:
    """The project's prices as its files hold them."""
    files = [pd.read_parquet(path) for path in (project.root / "data/processed").rglob("prices*.parquet")]
    return pd.concat(files, ignore_index=True)


@pytest.fixture(scope="module")
def now(prices: pd.DataFrame) -> Any:
    """The newest instant that has prices."""
    return prices["timestamp"].max().to_pydatetime()


# --- configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_config_has_the_promised_fields_in_their_order_with_their_defaults(kind: type) -> None:
    assert dataclasses.is_dataclass(kind)
    made, wanted = kind(), CONFIGS[kind]
    assert {name: getattr(made, name) for name in wanted} == wanted
    order = [field.name for field in dataclasses.fields(kind) if field.name != "data_path"]
    assert order[: len(wanted)] == list(wanted)


def test_a_star_brings_the_configs_and_overwrites_nothing_else() -> None:
    brought: dict[str, Any] = {"check": "mine", "replace": "mine"}
    exec("from energy_ml.config import *", brought)
    assert brought["MLConfig"] is config.MLConfig and brought["default_config"] is config.default_config
    assert (brought["check"], brought["replace"]) == ("mine", "mine")


def test_none_in_a_config_fills_the_default() -> None:
    prices = config.PricePredictionConfig(price_lags=None, rolling_windows=None)  # type: ignore[arg-type]
    assert (prices.price_lags, prices.rolling_windows) == ([1, 5, 10, 15, 30, 60], [5, 10, 15, 30, 60])
    assert config.RLBatteryConfig(actions=None).actions == ACTIONS  # type: ignore[arg-type]
    whole = config.MLConfig(price_prediction=None, rl_battery=None)  # type: ignore[arg-type]
    assert whole == config.MLConfig() and isinstance(config.default_config, config.MLConfig)


# --- signatures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "promised"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", ""))
def test_a_call_takes_what_was_promised(call: Callable[..., Any], promised: list[tuple[str, Any]]) -> None:
    """Promised arguments come first, by their names and defaults; whatever else there is has a default.

    An argument that was promised without a default may have one.
    """
    found = [p for name, p in inspect.signature(call).parameters.items() if name not in ("self", "cls")]
    own = [
        (p.name, default if default is NONE else p.default) for p, (_, default) in zip(found, promised, strict=False)
    ]
    assert own == promised
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in found[: len(promised)])
    assert all(p.default is not NONE or p.kind is p.VAR_KEYWORD for p in found[len(promised) :])


# --- features -----------------------------------------------------------------------------------------------


def test_features_are_what_pandas_makes_of_lags_and_windows(prices: pd.DataFrame) -> None:
    features = build_price_features(prices, "real_time_price", [1, 60], [5, 60], ["FR"], True, True)
    ours = features[features["region"] == "FR"].set_index("timestamp")
    theirs = prices[prices["region"] == "FR"].set_index("timestamp")["real_time_price"]
    for lag in (1, 60):
        both = pd.concat([ours[f"price_lag_{lag}"], theirs.shift(lag)], axis=1).dropna()
        assert len(both) and np.allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-3)
    for window in (5, 60):
        both = pd.concat([ours[f"rolling_mean_{window}"], theirs.rolling(window).mean()], axis=1).dropna()
        assert len(both) and np.allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-2)


def test_families_of_features_can_be_left_out(prices: pd.DataFrame) -> None:
    bare = build_price_features(df=prices, include_time=False, include_regional=False)
    assert not [name for name in bare if "hour" in name or "spread" in name]


def test_prices_without_a_region_are_one_region(prices: pd.DataFrame) -> None:
    one = prices[prices["region"] == "FR"].drop(columns="region")
    assert len(build_price_features(one)) == len(one)
    assert isinstance(PricePredictor().predict(one, region="FR"), float)


def test_battery_features_have_a_row_for_each_row_whatever_the_columns_are_called(
    project: Project, prices: pd.DataFrame
) -> None:
    files = (project.root / "data/processed").rglob("batteries*.parquet")
    batteries = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
    assert len(build_battery_features(batteries, prices)) == len(batteries)
    names = {"charge_level_mwh": "c", "capacity_mwh": "k", "timestamp": "t", "battery_id": "b"}
    renamed = build_battery_features(batteries.rename(columns=names), prices, "c", "k", "t", "b")
    assert len(renamed) == len(batteries)


# --- price models --------------------------------------------------------------------------------------------


def test_training_as_promised_from_data_to_files_and_back(project: Project, tmp_path: Path) -> None:
    trainer = PricePredictionTrainer(config.PricePredictionConfig(preset="fast"))
    df = trainer.load_data()
    features, names = trainer.prepare_data(df)
    assert isinstance(df, pd.DataFrame) and isinstance(features, pd.DataFrame) and set(names) <= set(features.columns)
    result = trainer.train_for_horizon(features, names, 15)
    assert result["metrics"]["test"]["mae"] > 0
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        trainer.save_models()
    assert (tmp_path / "models/price_prediction/model_15min.pkl").exists(), "not over the registry's champion"
    trainer.save_models("own")  # in the project, wherever one is
    assert {path.name for path in (project.root / "own").iterdir()} == {"model_15min.pkl", "training_results.json"}
    for loaded in (
        PricePredictionTrainer.load_models("own"),
        PricePredictionTrainer.load_models(models_dir="own", horizons=[15]),
        PricePredictionTrainer().load_models("own", [15]),
    ):
        assert set(loaded) == {15} and isinstance(loaded[15], PricePredictionModel)


def test_the_models_of_a_night_load_by_the_default() -> None:
    assert set(PricePredictionTrainer.load_models()) == set(HORIZONS)
    assert set(PricePredictionTrainer.load_models(horizons=[60])) == {60}


def test_forecasts_are_plain_numbers_for_every_horizon(prices: pd.DataFrame) -> None:
    predictor = PricePredictor()
    by_horizon = predictor.predict_all_horizons(prices, "FR")
    assert set(by_horizon) == set(HORIZONS) and all(type(price) is float for price in by_horizon.values())
    for horizon in HORIZONS:
        assert predictor.predict(prices, horizon, "FR") == by_horizon[horizon]
        answer = predictor.predict_with_confidence(current_data=prices, horizon=horizon, region="FR")
        assert answer["prediction"] == answer["price"] == by_horizon[horizon]
        low, high = answer["confidence_interval"]
        assert (low, high) == (answer["lower"], answer["upper"]) and low <= high
        importance = predictor.get_feature_importance(horizon)
        assert isinstance(importance, pd.DataFrame) and len(importance) > 10


def test_a_question_that_has_no_one_answer_is_refused_by_name(prices: pd.DataFrame) -> None:
    with pytest.raises(HorizonError):
        PricePredictor().predict(prices, 30, "FR")
    with pytest.raises(UnknownRegionError, match="FR"):
        PricePredictor().predict(prices)
    assert isinstance(PricePredictor().predict(prices[prices["region"] == "FR"]), float)


# --- battery policy ----------------------------------------------------------------------------------------------


def test_an_action_is_the_one_of_the_highest_value() -> None:
    policy = BatteryPolicy()
    for charge in (0.1, 0.3, 0.5, 0.9):
        for price in (-20.0, 50.0, 200.0):
            answer = policy.get_action(charge, price, price + 1, price + 2, price + 5, 17)
            assert set(answer["q_values"]) <= set(ACTIONS)
            assert answer["action"] == max(answer["q_values"], key=answer["q_values"].get)
            assert answer["action"] != ("discharge" if charge == 0.1 else "charge" if charge == 0.9 else None)


def test_the_three_promised_forecasts_decide() -> None:
    policy, differ = BatteryPolicy(), 0
    states = [(c, p, h) for c in np.linspace(0.1, 0.9, 9) for p in (20.0, 60.0, 100.0) for h in range(0, 24, 3)]
    for charge, price, hour in states:
        high = policy.get_action(float(charge), price, price * 1.5, price * 3, price * 5, hour)
        low = policy.get_action(float(charge), price, price * 0.5, price * 0.2, price * 0.1, hour)
        differ += high["action"] != low["action"]
    assert differ >= len(states) / 3


def test_learning_a_policy_as_promised_from_data_to_files_and_back(project: Project) -> None:
    trainer = BatteryRLTrainer(config.RLBatteryConfig())
    trainer.load_data()
    result = trainer.train(n_episodes=1000, region="FR")
    assert np.isfinite(result["metrics"]["validation_profit"])
    trainer.save("policy")
    assert {path.name for path in (project.root / "policy").iterdir()} == {
        "battery_policy.pkl",
        "training_results.json",
    }
    assert BatteryPolicy("policy").get_action(0.5, 60.0)["action"] in ACTIONS


# --- registry --------------------------------------------------------------------------------------------------------


def test_a_registry_as_printed_is_read_and_extended(tmp_path: Path) -> None:
    printed = {
        "models": {
            "price_prediction_15m": {
                "type": "price_prediction",
                "versions": ["v20260211_134500", "v20260210_100000"],
                "latest": "v20260211_134500",
            },
            "battery_policy": {"type": "rl_battery", "versions": ["v20260211_140000"], "latest": "v20260211_140000"},
        }
    }
    path, artefact = tmp_path / "models/registry.json", tmp_path / "model.pkl"
    path.parent.mkdir()
    path.write_text(json.dumps(printed))
    artefact.write_bytes(b"a model")
    registry = ModelRegistry(str(path))
    assert registry.get_latest_version("price_prediction_15m")["version"] == "v20260211_134500"  # type: ignore[index]
    assert registry.get_latest_version("price_prediction_30m") is None
    registry.register_model("price_prediction", "price_prediction_15m", "v20260301_000000", str(artefact), {"mae": 1.0})
    written = json.loads(path.read_text())["models"]
    assert written["price_prediction_15m"]["versions"] == ["v20260301_000000", "v20260211_134500", "v20260210_100000"]
    assert written["price_prediction_15m"]["latest"] == "v20260301_000000"
    assert written["battery_policy"]["versions"] == ["v20260211_140000"]
    listed = registry.list_models()
    assert isinstance(listed, list) and all(isinstance(model, dict) for model in listed) and len(listed) == 2


def test_the_registry_of_a_night_is_as_printed(project: Project) -> None:
    models = json.loads((project.root / "models/registry.json").read_text())["models"]
    assert set(models) == {*(f"price_prediction_{h}m" for h in HORIZONS), "battery_policy"}
    for model in models.values():
        assert model["versions"] == sorted(model["versions"], reverse=True)
        assert model["latest"] == model["versions"][0] and re.fullmatch(r"v\d{8}_\d{6}", model["latest"])
        assert model["type"] in ("price_prediction", "rl_battery")


@pytest.mark.parametrize(
    "name",
    [
        *(f"price_prediction/model_{h}min.pkl" for h in HORIZONS),
        "price_prediction/training_results.json",
        "rl_battery/battery_policy.pkl",
        "rl_battery/training_results.json",
        "registry.json",
    ],
)
def test_a_night_leaves_the_promised_file(project: Project, name: str) -> None:
    assert (project.root / "models" / name).stat().st_size > 0


# --- service and tasks --------------------------------------------------------------------------------------------


@pytest.fixture
def service(project: Project) -> MLService:
    return MLService(project.settings)


def test_models_are_listed_as_objects_and_as_mappings(service: MLService) -> None:
    listed = service.list_models()
    assert len(listed) == 5
    for info in listed:
        assert not isinstance(info, dict) and info.model_id == info["model_id"]


def test_metrics_and_importance_are_numbers_by_name(service: MLService) -> None:
    for mapping in (
        service.get_model_metrics("price_prediction_15m"),
        service.get_model_metrics("battery_policy"),
        service.get_feature_importance("price_prediction_15m"),
    ):
        assert mapping and all(isinstance(k, str) and type(v) is float for k, v in mapping.items())


def test_the_service_answers_with_the_features_it_is_given(service: MLService, now: Any) -> None:
    answer = service.predict("price_prediction_15m", now, {"region": "FR"})
    assert {"price", "lower", "upper"} <= set(answer)
    assert answer == service.predict("price_prediction_15m", now.replace(tzinfo=None), features={"region": "FR"})
    with pytest.raises(UnknownRegionError):
        service.predict("price_prediction_15m", now)
    state = {"charge_level": 0.5, "current_price": 60.0, "price_forecast_15m": 90.0, "hour": 17}
    assert service.predict("battery_policy", now, state)["action"] in ACTIONS


def test_tasks_have_their_promised_names() -> None:
    assert inspect.iscoroutinefunction(train_model_task)
    assert tasks.train_price_prediction.name == "tasks.train_price_prediction"
    assert tasks.train_rl_battery.name == "tasks.train_rl_battery"


def test_training_by_request_is_awaited(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_tasks, "_BY_SETTINGS", {})
    record = asyncio.run(train_model_task("promised", {"type": "rl_battery", "as_of": "2026-01-05"}))
    assert (record["training_id"], record["state"]) == ("promised", "running")
    (trainings,) = training_tasks._BY_SETTINGS.values()
    trainings.cancel("promised")
    assert trainings.wait("promised")["state"] == "cancelled"


# --- the page that maps them ----------------------------------------------------------------------------------------


def _routes(project: Project) -> set[tuple[str, str | None]]:
    """Path and method of each route, None for a WebSocket; the service's guards stand around the application."""
    from energy_ml.service import create_app

    app: Any = create_app(project.settings)
    while not hasattr(app, "routes"):
        app = next(getattr(app, name) for name in ("app", "_app", "inner") if hasattr(app, name))
    return {(r.path, m.lower() if m else None) for r in app.routes for m in (getattr(r, "methods", None) or [None])}


PAGE = Path(__file__).parent.parent / "docs/promises.md"
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", PAGE.read_text(), re.M)


@pytest.mark.parametrize(("promised", "place"), ROWS, ids=[promised for promised, _ in ROWS])
def test_what_the_page_names_is_there(promised: str, place: str, project: Project) -> None:
    """A place is a file of the package, a name as ``module:Name.attribute``, a route, or a file of a night."""
    package = Path(config.__file__).parent
    if place.startswith("models/"):
        assert (project.root / place).exists()
    elif place.startswith(("POST ", "WS ")):
        method, path = place.split()
        assert (path, "post" if method == "POST" else None) in _routes(project)
    elif ":" in place:
        module, _, names = place.partition(":")
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    else:
        assert (package.parent / place).exists()


def test_the_page_names_every_promised_call() -> None:
    text = PAGE.read_text()
    for call, _ in SIGNATURES:
        assert f"`{call.__qualname__}`" in text, call.__qualname__
