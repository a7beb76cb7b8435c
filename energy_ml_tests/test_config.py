"""Configs and settings: promised names and defaults, checks, environment variables."""

import dataclasses
import datetime as dt
import pickle
from pathlib import Path

import pytest

from energy_ml.config import (
    SAMPLE_END,
    SAMPLE_START,
    TABLES,
    BatteryEntry,
    Covariate,
    MLConfig,
    PricePredictionConfig,
    RLBatteryConfig,
    ServiceSettings,
    SettingRow,
    Settings,
    default_config,
    project_root,
    setting_rows,
    settings_schema,
)
from energy_ml.errors import ConfigError
from energy_ml.fields import settings_of
from energy_ml.market_data.lake import ParquetLake
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.provenance import config_digest
from energy_ml.rl_battery import BatteryPolicy


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


def test_every_field_has_a_sentence_and_a_variable_of_its_own() -> None:
    rows = setting_rows({})
    assert len({row.variable for row in rows}) == len(rows)
    assert all(row.sentence.endswith(".") for row in rows)
    for kind in (PricePredictionConfig, RLBatteryConfig):
        assert set(settings_of(kind)) == {field.name for field in dataclasses.fields(kind)} - {"covariates"}


def _another(row_name: str, value: str) -> str:
    special = {
        "target_column": "price",
        "nightly_at": "02:00",
        "nightly_zone": "Europe/Paris",
        "display_zone": "Europe/Paris",
        "input_zone": "Europe/Paris",
        "executor": "celery",
        "parallel": "processes",
        "preset": "fast",
        "update": "sampled",
        "plan_on": "expected",
        "loss_split": "charge",
        "blocking_checks": "data_recent",
        "alert_webhook": "https://example.org/hook",
        "market": "elexon",
        "market_mirror": "https://example.org/mirror",
        "service_url": "https://example.org",
        "regions": "FR",
        "extra_columns": "load",
        "start_date": "2026-01-31",
        "end_date": "2026-02-09",
        "discharge_power_mw": "0.3",
        "final_charge": "0.3",
        "max_cycles_per_day": "2",
        "max_age_minutes": "90",
        "token": "a" * 20,
        "train_token": "b" * 20,
    }
    if row_name in special:
        return special[row_name]
    if value in ("True", "False"):
        return str(value == "False").lower()
    if "," in value:
        return value.split(",")[0]
    try:
        number = float(value)
    except ValueError:
        return value + "x"
    return str(int(number) + 1) if "." not in value else str(number * 0.95 if number else 0.5)


@pytest.mark.parametrize("row", [r for r in setting_rows({}) if r.name != "actions"], ids=lambda r: r.variable)
def test_each_variable_sets_its_field_and_only_that(row: SettingRow) -> None:
    before = {r.variable: r for r in setting_rows({})}
    after = {r.variable: r for r in setting_rows({row.variable: _another(row.name, row.value)})}
    changed = {
        name for name in after if (after[name].value, after[name].source) != (before[name].value, before[name].source)
    }
    allowed = {row.variable} | ({"ENERGY_ML_END_DATE"} if row.name in ("data_dir", "start_date") else set())
    assert row.variable in changed and changed <= allowed
    assert after[row.variable].source == row.variable


def test_file_lies_between_defaults_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        "[run]\nhorizons = [15, 60]\n[battery]\ncapacity_mwh = 4\npower_mw = 2.5\n[prices]\nmax_depth = 4\n"
        "[service]\nmax_sockets = 5\n"
    )
    environ = {"ENERGY_ML_CONFIG": str(file), "ENERGY_ML_BATTERY_POWER_MW": "1.25"}
    config = Settings.from_env(environ).ml_config()
    assert (config.rl_battery.capacity_mwh, config.rl_battery.power_mw) == (4, 1.25)
    assert (config.price_prediction.max_depth, config.price_prediction.horizons) == (4, [15, 60])
    assert ServiceSettings.from_env(environ).max_sockets == 5
    sources = {row.variable: row.source for row in setting_rows(environ)}
    assert sources["ENERGY_ML_BATTERY_POWER_MW"] == "ENERGY_ML_BATTERY_POWER_MW"
    assert sources["ENERGY_ML_BATTERY_CAPACITY_MWH"] == str(file)
    assert sources["ENERGY_ML_BATTERY_EFFICIENCY"] == "default"


def test_entries_are_shown_and_complete_the_reference(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        "[rl_battery]\nefficiency = 0.8\ninitial_charge = 0.1\n[[battery]]\nname = 'A'\nregion = 'FR'\n"
        "capacity_mwh = 4\nmin_reserve = 0.2\n[[battery]]\nname = 'B'\npower_mw = 3\n"
    )
    environ = {"ENERGY_ML_CONFIG": str(file)}
    settings = Settings.from_env(environ)
    rows = [(r.table, r.name, r.value, r.source) for r in setting_rows(environ) if r.table.startswith("battery")]
    assert rows == [
        ("battery 'A'", "region", "FR", str(file)),
        ("battery 'A'", "capacity_mwh", "4", str(file)),
        ("battery 'A'", "min_reserve", "0.2", str(file)),
        ("battery 'B'", "region", "none", str(file)),
        ("battery 'B'", "power_mw", "3", str(file)),
    ]
    a, b = (entry.completed(settings.models.rl_battery) for entry in settings.models.batteries)
    assert (a.capacity_mwh, a.power_mw, a.efficiency, a.initial_charge) == (4, 2.0, 0.8, 0.2)
    assert (b.capacity_mwh, b.power_mw, b.min_reserve) == (1.0, 3, 0.1)
    told = settings.models.batteries[1].completed(settings.models.rl_battery, capacity_mwh=8.0, power_mw=2.0)
    assert (told.capacity_mwh, told.power_mw) == (8.0, 3), "what the entry says comes before telemetry"


def test_where_the_file_lies_is_no_other_configuration(tmp_path: Path) -> None:
    entry = BatteryEntry("A", capacity_mwh=4)
    moved = dataclasses.replace(entry, file_path=str(tmp_path))
    digests = {config_digest(MLConfig(batteries=(one,))) for one in (entry, moved)}
    assert len(digests) == 1 and digests != {config_digest(MLConfig())}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 'A'\nmin_reserve = 0.95", "'A' of .*own.toml: min_reserve is 0.95.*below max_charge.*min_reserve"),
        ("name = 'A'\ncapacity_mwh = 'x'", "'A' of .*own.toml: capacity_mwh is 'x'.*a number, above 0"),
        ("name = 'A'\ncapacity_mhw = 1", "'capacity_mhw' in .*own.toml is no entry of .*'A'.*'capacity_mwh'"),
        ("name = 'A'\npower_mw = -1", "'A' of .*own.toml: power_mw is -1"),
        ("name = 'A'\npower_mw = inf", "'A' of .*own.toml: power_mw is inf.*a finite number"),
        ("name = 'A'\nexecution_delay = 0.5", "'A' of .*own.toml: execution_delay is 0.5.*a whole number"),
        ("power_mw = 1", "own.toml: name is ''"),
        ("name = 'reference'", "'reference' of .*own.toml: name"),
        ("name = 'A'\n[[battery]]\nname = 'A'", "'A' of .*own.toml: name is 'A'.*distinct names"),
        ("name = 'A'\n[battery]\nefficiency = 1", r"\[battery\] is \[rl_battery\]"),
    ],
)
def test_an_entry_is_refused_by_file_name_and_field(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f"[[battery]]\n{text}\n")
    with pytest.raises(ConfigError, match=said):
        Settings.from_env({"ENERGY_ML_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[battery]\ncapacity_mhw = 4", "capacity_mwh"),
        ("[batery]\ncapacity_mwh = 4", "battery"),
        ("[battery]\ncapacity_mwh = 'much'", "ENERGY_ML_BATTERY_CAPACITY_MWH"),
        ("[prices]\nmax_depth = 0", "max_depth"),
        ("[prices", "own.toml"),
    ],
)
def test_the_file_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Settings.from_env({"ENERGY_ML_CONFIG": str(file)})


def test_schema_knows_each_entry_of_each_table() -> None:
    tables = settings_schema()["properties"]
    assert set(tables) == set(TABLES)
    named = {(t, n) for t in tables if t not in ("battery", "covariate") for n in tables[t]["properties"]}
    assert {(r.table, r.name) for r in setting_rows({})} == named
    entry = tables["battery"]["items"]
    assert set(entry["properties"]) == set(settings_of(BatteryEntry)) and entry["required"] == ["name"]


def test_covariates_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[[covariate]]\nname = 'load'\n[[covariate]]\nname = 'da'\nknown = 'ahead'\nis_price = true\n")
    environ = {"ENERGY_ML_CONFIG": str(file)}
    models = Settings.from_env(environ).ml_config()
    assert models.price_prediction.covariates == (Covariate("load"), Covariate("da", "ahead", True))
    told = [(r.name, r.value, r.source) for r in setting_rows(environ) if r.table == "covariate 'da'"]
    assert told[:2] == [("known", "ahead", str(file)), ("is_price", "True", str(file))]
    for text, words in (
        ("name = 'load'\nknown = 'soon'", "'load' of .*own.toml: known is 'soon'"),
        ("name = 'region'", "name is 'region'"),
        ("name = 'a b'", "letters, digits"),
        ("name = 'load'\n[[covariate]]\nname = 'load'", "distinct names"),
    ):
        file.write_text(f"[[covariate]]\n{text}\n")
        with pytest.raises(ConfigError, match=words):
            Settings.from_env(environ)


def test_secrets_are_not_shown() -> None:
    environ = {
        "ENERGY_ML_CELERY_BROKER": "redis://:hunter2secret@host/0",
        "ENERGY_ML_ALERT_WEBHOOK": "https://example.org/hunter2secret",
        "ENERGY_ML_API_TOKEN": "hunter2secret-and-more",
    }
    shown = repr(Settings.from_env(environ)) + repr(ServiceSettings.from_env(environ)) + repr(setting_rows(environ))
    assert "hunter2secret" not in shown
    with pytest.raises(ConfigError) as refused:
        Settings.from_env({"ENERGY_ML_ALERT_WEBHOOK": "ftp://hunter2secret"})
    assert "hunter2secret" not in str(refused.value)


def test_none_fills_defaults_and_configs_are_plain_dataclasses() -> None:
    prices = PricePredictionConfig(price_lags=None, rolling_windows=None)  # type: ignore[arg-type]
    assert prices == PricePredictionConfig()
    assert RLBatteryConfig(actions=None) == RLBatteryConfig()  # type: ignore[arg-type]
    config = MLConfig("m", "r", None, None)  # type: ignore[arg-type]
    assert config == MLConfig("m", "r")
    assert pickle.loads(pickle.dumps(config)) == config
    assert dataclasses.asdict(dataclasses.replace(config, n_jobs=2))["n_jobs"] == 2


def test_one_rule_for_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENERGY_ML_PROJECT_ROOT", str(tmp_path / "project"))
    assert Settings.from_env({"ENERGY_ML_DATA_DIR": "~/x"}).data_dir == str(tmp_path / "x")
    assert str(ParquetLake("~/x").root) == str(tmp_path / "x")
    assert BatteryPolicy().path == tmp_path / "project/models/rl_battery"
    assert PricePredictor().models_dir == tmp_path / "project/models/price_prediction"
    assert ModelRegistry().path == tmp_path / "project/models/registry.json"
