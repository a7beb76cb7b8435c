"""Every number that a user may change, once: model and battery configs, and the settings of a deployment.

What belongs here: plain dataclasses with defaults and checks, and the environment variables that override them.
What doesn't: anything that reads data or trains.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import os
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from energy_ml.blocks import BACKENDS
from energy_ml.display import Display
from energy_ml.errors import ConfigError
from energy_ml.fields import (
    again,
    check,
    default_text,
    given,
    is_list,
    read_file,
    refuse,
    setting,
    settings_of,
    table_schema,
    text_of,
    variable,
)
from energy_ml.names import ACTIONS, AS_USUAL, FLEET, IS_FILLED, POOLED, PRICE, REFERENCE, REGION, TIMESTAMP

__all__ = [
    "BatteryEntry",
    "Covariate",
    "MLConfig",
    "OperationsConfig",
    "PricePredictionConfig",
    "PromotionConfig",
    "RLBatteryConfig",
    "ServiceSettings",
    "Settings",
    "default_config",
    "project_root",
    "resolve_path",
    "setting_rows",
    "settings_file",
    "settings_page",
    "settings_schema",
]

SAMPLE_START = dt.date(2026, 1, 30)
"""First day of the sample that ships in ``data/processed``."""
SAMPLE_END = dt.date(2026, 2, 10)
"""Last day of that sample."""
LOSS_SPLITS = ("sqrt", "charge", "discharge")
"""Where the loss of a round trip may lie; see ``RLBatteryConfig.loss_split``."""
SUPPORTED_INTERVALS = (1, 5, 15, 30, 60)
"""Minutes between two rows that the project works with."""


@contextlib.contextmanager
def _naming(table: str, name: str, file: str | None) -> Iterator[None]:
    entry = f"[[{table}]] {name!r}"
    try:
        yield
    except ConfigError as error:
        if error.found.startswith(entry):
            raise
        where = f"{entry} of {file}" if file else entry
        raise ConfigError(f"{where}: {error.found}", expected=error.expected, remedy=error.remedy) from None


@dataclass(frozen=True)
class Covariate:
    """Something beside prices that models see: a column of files with available_at or, if observed, of price files."""

    ENV: ClassVar[None] = None

    name: str = setting("", "The column's name.")
    known: str = setting(
        "observed",
        "observed: measured, known when its time is over. ahead: said of a time to come, such as a day-ahead price.",
        choices=("observed", "ahead"),
    )
    is_price: bool = setting(False, "Whether it is a price, currency/MWh: then it counts by its distance to the price.")
    delay_minutes: int = setting(0, "Minutes from its time, or from available_at, until it can be used here.", ">= 0")
    minutes: int = setting(60, "Minutes that each of its values is of.", "> 0, <= 1440")
    keep: bool = setting(False, "Whether it stays where it doesn't pay on validation; else models do without it there.")

    def __post_init__(self) -> None:
        check(self)
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII) or self.name in (TIMESTAMP, REGION, PRICE, IS_FILLED):
            refuse(type(self), "name", self.name, "the name of a column of numbers: letters, digits and _")


@dataclass
class PricePredictionConfig:
    """How price models are trained.

    ``price_lags`` and ``rolling_windows`` are counted in intervals of the data, horizons in minutes.
    """

    ENV: ClassVar[str] = "PRICES_"

    data_path: str = setting("data/processed", "Folder or URL of the parquet files.", env="DATA_DIR", elsewhere=True)
    target_column: str = setting("real_time_price", "Column that is forecast.")
    train_end_pct: float = setting(0.70, "Share of the window at which training ends.", "> 0, < 1")
    val_end_pct: float = setting(0.85, "Share of the window at which validation ends and test begins.", "> 0, < 1")
    price_lags: list[int] = setting([1, 5, 10, 15, 30, 60], "Past prices used as features, in intervals.", "> 0")
    rolling_windows: list[int] = setting([5, 10, 15, 30, 60], "Rolling statistics' lengths, in intervals.", "> 0")
    include_time_features: bool = setting(True, "Whether hour, weekday and the like are features.")
    include_regional_features: bool = setting(True, "Whether other regions' prices are features.")
    n_estimators: int = setting(
        200, "Most trees of each member of the ensemble (of each quantile, for the one that learns quantiles).", ">= 1"
    )
    max_depth: int = setting(
        6, "Depth of the brief member's trees; the other members' follow in proportion, as with the next three.", ">= 1"
    )
    learning_rate: float = setting(0.1, "Shrinkage of each tree.", "> 0, <= 1")
    subsample: float = setting(0.8, "Share of rows that a tree sees.", "> 0, <= 1")
    colsample_bytree: float = setting(0.8, "Share of features that a tree sees.", "> 0, <= 1")
    random_state: int = setting(42, "Seed.")
    early_stopping_rounds: int = setting(
        20, "Rounds without gain after which boosting stops; steady members wait twice as long, quantiles less.", ">= 1"
    )
    early_stopping_threshold: float = setting(0.001, "Least relative gain that counts as one.", ">= 0")
    horizons: list[int] = setting(
        [1, 5, 15, 60], "Minutes ahead, one model each.", "> 0", elsewhere=True, env="HORIZONS"
    )
    preset: str = setting(
        "best",
        "How many members the ensemble has and how slowly they learn.",
        choices=("fast", "best"),
        env="PRESET",
        elsewhere=True,
    )
    interval_level: float = setting(0.90, "Nominal coverage of the intervals written and served.", ">= 0.5, < 1")
    spike_quantile: float = setting(
        0.98, "A price above this quantile of the training prices counts as a spike.", "> 0.5, < 1"
    )
    history_days: int = setting(
        60,
        "Days before the window whose prices teach too, as far as the files reach; recent ones more. 0 takes none.",
        ">= 0",
    )
    max_gap_minutes: int = setting(
        30,
        "Gaps up to this long, or of one interval where that is longer, are filled forward and flagged; 0 fills none.",
        ">= 0",
    )
    min_training_days: float = setting(
        5.0,
        "Least days' worth of measured prices in the training part of each region; of a short window, three quarters.",
        ">= 0",
    )
    max_missing_share: float = setting(
        0.5, "Largest share of validation, and of test, whose prices may be missing.", ">= 0, <= 1"
    )
    min_training_rows: int = setting(
        100, "Fewest training rows, of all regions, with a price and what is needed before it.", ">= 1"
    )
    min_recent_share: float = setting(
        0.5, "Least measured share of the recent prices that a live forecast looks at.", ">= 0, <= 1"
    )
    max_abs_price: float = setting(
        50_000.0, "Prices beyond this, currency/MWh either way, are taken for mistakes and refused.", "> 0"
    )
    extra_columns: list[str] = setting([], "Further numeric columns of the price files used as features.")
    covariates: tuple[Covariate, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if self.train_end_pct >= self.val_end_pct:
            refuse(type(self), "train_end_pct", self.train_end_pct, f"below val_end_pct ({self.val_end_pct})")
        for name in ("price_lags", "rolling_windows", "horizons"):
            if not getattr(self, name):
                refuse(type(self), name, [], "at least one whole number")
        self.covariates = tuple(c if isinstance(c, Covariate) else Covariate(**c) for c in self.covariates)
        _check_distinct("covariate", self.covariates)


def _check_distinct(table: str, entries: Sequence[Covariate | BatteryEntry]) -> None:
    names = [entry.name for entry in entries]
    for entry in entries:
        if names.count(entry.name) > 1:
            with _naming(table, entry.name, getattr(entry, "file_path", None)):
                refuse(type(entry), "name", entry.name, "distinct names")


def _check_address(settings: object, name: str) -> None:
    address = getattr(settings, name)
    if address is not None and not address.startswith(("http://", "https://")):
        refuse(type(settings), name, address, "an address that begins with http:// or https://")


@dataclass
class RLBatteryConfig:
    """How battery policies are learned, and the reference battery they are learned for.

    ``discount_factor`` is per HOUR and converted to the data's interval (0.95 per minute would look 20 minutes ahead).
    ``efficiency`` is the round trip, split over both legs by its square root; power is measured at the grid.
    """

    ENV: ClassVar[str | None] = "BATTERY_"

    charge_level_bins: int = setting(10, "Slices of the charge range: the table's charge axis.", ">= 1")
    price_bins: int = setting(
        10, "Bins of the gap between a stored MWh's planned value and the price now: the table's price axis.", ">= 1"
    )
    time_bins: int = setting(24, "Parts of the UTC day by which the table may differ.", ">= 1")
    actions: list[str] = setting(list(ACTIONS), "What a battery can do; these three, in this order.", choices=ACTIONS)
    learning_rate: float = setting(0.1, "Of an entry's first update; it falls as updates ** -0.7.", "> 0, <= 1")
    discount_factor: float = setting(0.95, "Weight, an hour on, of what is earned beyond the plan.", "> 0, <= 1")
    epsilon: float = setting(1.0, "Share of random actions in the first episode of update = sampled.", ">= 0, <= 1")
    epsilon_decay: float = setting(0.995, "What is left of epsilon from one sampled episode to the next.", "> 0, <= 1")
    epsilon_min: float = setting(0.05, "Least epsilon of sampled episodes.", ">= 0, <= 1")
    episodes: int = setting(
        1000, "Passes over the training data at most; learning stops when the table moves no more.", ">= 1"
    )
    max_steps: int = setting(14400, "Intervals of a sampled episode at most.", ">= 1")
    min_reserve: float = setting(0.10, "Least charge, as a fraction of capacity.", ">= 0, <= 1")
    max_charge: float = setting(0.90, "Greatest charge, as a fraction of capacity.", ">= 0, <= 1")
    efficiency: float = setting(0.90, "Share of bought energy that a round trip gives back.", "> 0, <= 1")
    reward_scale: float = setting(
        1.0, "Unit of rewards and of the learned table; the best action doesn't depend on it.", "> 0"
    )
    capacity_mwh: float = setting(1.0, "Energy capacity, MWh.", "> 0")
    power_mw: float = setting(0.5, "Charging limit at the grid, MW; discharging's too unless that has its own.", "> 0")
    discharge_power_mw: float | None = setting(
        None, "Discharging limit at the grid, MW; none means as much as charging.", "> 0"
    )
    initial_charge: float = setting(
        0.5, "Charge at the start of training and backtest, as a fraction of capacity.", ">= 0, <= 1"
    )
    wear_cost_per_mwh: float = setting(0.0, "Currency per MWh discharged at the grid.", ">= 0")
    buy_fee_per_mwh: float = setting(0.0, "Grid fee added to the price when buying, currency/MWh.", ">= 0")
    sell_fee_per_mwh: float = setting(0.0, "Grid fee taken off the price when selling, currency/MWh.", ">= 0")
    max_cycles_per_day: float | None = setting(
        None,
        "Most equivalent full cycles (capacity drawn from the cells) per UTC day, as a warranty's; none: no limit.",
        "> 0",
    )
    loss_split: str = setting(
        "sqrt",
        "Where the round trip is lost: sqrt half on each leg, charge or discharge all on one.",
        choices=LOSS_SPLITS,
    )
    final_charge: float | None = setting(
        None,
        "Least charge at a backtest's end, as a fraction of capacity; none values what is left at a price instead.",
        ">= 0, <= 1",
    )
    execution_delay: int = setting(
        0, "Intervals between seeing a price and acting on it; 0 is a price-contingent bid.", ">= 0"
    )
    plan_on: str = setting(
        "median",
        "Which of the price models' forecasts plans are made on: the median, or the expected price (the mean).",
        choices=("median", "expected"),
    )
    usual_wear_cost_per_mwh: float = setting(
        10.0, "Least wear of the report's second line, which acts at least one interval late too.", ">= 0"
    )
    update: str = setting(
        "counterfactual",
        "counterfactual updates all charges and actions at each price step; sampled is textbook Q-learning.",
        choices=("counterfactual", "sampled"),
    )
    random_state: int = setting(42, "Seed.")

    def __post_init__(self) -> None:
        check(self)
        if list(self.actions) != list(ACTIONS):
            refuse(type(self), "actions", self.actions, str(list(ACTIONS)))
        if self.epsilon_min > self.epsilon:
            refuse(type(self), "epsilon_min", self.epsilon_min, f"at most epsilon ({self.epsilon})")
        if self.min_reserve >= self.max_charge:
            refuse(type(self), "min_reserve", self.min_reserve, f"below max_charge ({self.max_charge})")
        for name in ("initial_charge", "final_charge"):
            value = getattr(self, name)
            if value is not None and not self.min_reserve <= value <= self.max_charge:
                limits = f"{self.min_reserve} to {self.max_charge}"
                refuse(type(self), name, value, f"between min_reserve and max_charge ({limits})")

    def as_usual(self) -> RLBatteryConfig:
        """The reference battery as most people would get it: with wear, and at least one interval late."""
        wear = max(self.wear_cost_per_mwh, self.usual_wear_cost_per_mwh)
        return replace(self, wear_cost_per_mwh=wear, execution_delay=max(self.execution_delay, 1))


class _Completed(RLBatteryConfig):
    """A config made of a ``BatteryEntry``: what is wrong in it has no variable."""

    ENV = None


@dataclass(frozen=True)
class BatteryEntry:
    """A battery of one's own. What it doesn't say is as its telemetry says, or else as the reference battery has it."""

    ENV: ClassVar[None] = None

    name: str = setting("", "What it is called; telemetry of the same battery_id is its own.")
    region: str | None = setting(None, "Whose prices it trades at; needn't be said where telemetry or one region does.")
    capacity_mwh: float | None = again(RLBatteryConfig, "capacity_mwh")
    power_mw: float | None = again(RLBatteryConfig, "power_mw")
    discharge_power_mw: float | None = again(RLBatteryConfig, "discharge_power_mw")
    efficiency: float | None = again(RLBatteryConfig, "efficiency")
    loss_split: str | None = again(RLBatteryConfig, "loss_split")
    min_reserve: float | None = again(RLBatteryConfig, "min_reserve")
    max_charge: float | None = again(RLBatteryConfig, "max_charge")
    initial_charge: float | None = again(RLBatteryConfig, "initial_charge")
    final_charge: float | None = again(RLBatteryConfig, "final_charge")
    wear_cost_per_mwh: float | None = again(RLBatteryConfig, "wear_cost_per_mwh")
    buy_fee_per_mwh: float | None = again(RLBatteryConfig, "buy_fee_per_mwh")
    sell_fee_per_mwh: float | None = again(RLBatteryConfig, "sell_fee_per_mwh")
    max_cycles_per_day: float | None = again(RLBatteryConfig, "max_cycles_per_day")
    execution_delay: int | None = again(RLBatteryConfig, "execution_delay")
    file_path: str | None = field(default=None, repr=False)
    """The settings file that it stands in."""

    def __post_init__(self) -> None:
        with self.named():
            check(self)
            taken = (REFERENCE, AS_USUAL, POOLED, FLEET)
            if not self.name.strip() or self.name in taken:
                refuse(type(self), "name", self.name, f"a name other than {', '.join(taken)}")
            for name, value in self.given.items():
                if isinstance(value, float) and not math.isfinite(value):
                    refuse(type(self), name, value, "a finite number")

    @property
    def given(self) -> dict[str, Any]:
        """What it says of the battery itself, by the names of ``RLBatteryConfig``."""
        own = {name: getattr(self, name) for name in settings_of(type(self)) if name not in ("name", "region")}
        return {name: value for name, value in own.items() if value is not None}

    def named(self) -> contextlib.AbstractContextManager[None]:
        """Within it, errors say which entry of which file they are about."""
        return _naming("battery", self.name, self.file_path)

    def completed(
        self, reference: RLBatteryConfig, *, capacity_mwh: float | None = None, power_mw: float | None = None
    ) -> RLBatteryConfig:
        """The config of this battery; ``capacity_mwh`` and ``power_mw`` as its telemetry says. Power that nobody says
        is the reference battery's in proportion to capacity, as is its initial charge within the limits.

        Raises ConfigError naming file, entry and field if no battery can be so.
        """
        values = vars(reference) | {"capacity_mwh": capacity_mwh or reference.capacity_mwh} | self.given
        if "power_mw" not in self.given:
            times = values["capacity_mwh"] / reference.capacity_mwh
            values["power_mw"] = power_mw or reference.power_mw * times
            if "discharge_power_mw" not in self.given:
                theirs = reference.discharge_power_mw
                values["discharge_power_mw"] = None if power_mw or theirs is None else theirs * times
        elif "discharge_power_mw" not in self.given:
            values["discharge_power_mw"] = None
        if "initial_charge" not in self.given:
            values["initial_charge"] = max(values["min_reserve"], min(reference.initial_charge, values["max_charge"]))
        with self.named():
            return _Completed(**values)


@dataclass
class PromotionConfig:
    """When a new version becomes champion; ``model_management.comparison`` says why the defaults are what they are."""

    ENV: ClassVar[str] = "PROMOTION_"

    min_improvement: float = setting(
        0.0,
        "Share by which error or profit must improve on the champion's; more than this. Negative values refresh ties.",
        "> -1, < 1",
    )
    max_p_value: float = setting(
        0.5,
        'Largest one-sided p-value of "no better"; 0.5 asks for a better mean only, 0.05 for evidence.',
        "> 0, <= 1",
    )
    require_beats_naive: bool = setting(True, 'Whether the first version must beat "price stays" or holding.')
    min_observations: int = setting(24, "Fewest time steps that price errors are compared on.", ">= 1")
    bootstrap_samples: int = setting(2000, "Resamples of the test.", ">= 1")
    random_state: int = setting(42, "Seed.")

    def __post_init__(self) -> None:
        check(self)


def _check_zone(settings: object, name: str) -> None:
    """Refuse a field that names no time zone."""
    try:
        zoneinfo.ZoneInfo(getattr(settings, name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        refuse(type(settings), name, getattr(settings, name), "a name such as Europe/Paris")


CHECK_NAMES = (
    "data_recent",
    "covariates_known",
    "regions_present",
    "features_stable",
    "newest_day_as_promised",
    "intervals_honest",
    "beats_threshold_rule",
)
"""Freshness and drift checks that ``OperationsConfig.blocking_checks`` may name."""

MARKET_NAMES = ("aemo", "caiso", "elexon", "entsoe", "ercot", "nyiso")
"""Markets that ``energy_ml.markets`` knows."""


@dataclass(frozen=True)
class OperationsConfig:
    """When the project fetches and retrains by itself, whom it tells, and which warnings stop a run."""

    ENV: ClassVar[str] = ""

    nightly_at: str = setting(
        "01:30", "Local time of the nightly retraining, HH:MM; until the day's data is there it looks again every hour."
    )
    nightly_zone: str = setting("UTC", "IANA time zone of nightly_at. As-of dates stay UTC days.")
    sensor_seconds: int = setting(30, "Seconds between two looks into the data folder.", ">= 1")
    settle_seconds: float = setting(4.0, "How long a new file's content must stay the same before it is used.", ">= 0")
    alert_webhook: str | None = setting(
        None, "http(s) address that gets a JSON message about each failed run.", secret=True
    )
    service_url: str | None = setting(
        None, "Where people open the service, such as https://prices.example; Dagster links reports there."
    )
    celery_broker: str = setting(
        "redis://localhost:6379/0", "Where the celery executor puts its tasks; must be the workers' own.", secret=True
    )
    celery_backend: str = setting("redis://localhost:6379/1", "Where celery workers put their results.", secret=True)
    blocking_checks: tuple[str, ...] = setting(
        (), "Which freshness and drift checks stop the run instead of warning.", choices=CHECK_NAMES
    )
    max_psi: float = setting(
        0.25, "Population stability index of a feature, newest day against training part, that counts as drift.", "> 0"
    )
    max_error_growth: float = setting(
        1.25,
        "Newest day's error over validation's, both relative to \"the price stays\", that counts as a break.",
        "> 0",
    )
    max_coverage_gap: float = setting(0.05, "Distance between nominal and found coverage of the intervals.", "> 0")
    market: str | None = setting(
        None, "Market whose prices Dagster fetches by itself; none leaves the files to you.", choices=MARKET_NAMES
    )
    fetch_minutes: int = setting(30, "Minutes between two fetches of the market.", ">= 5, <= 60")
    market_mirror: str | None = setting(
        None, "http(s) address that is asked for prices in place of the market's own servers, such as a mirror."
    )

    def __post_init__(self) -> None:
        check(self)
        hours, colon, minutes = self.nightly_at.partition(":")
        if not (colon and hours.isdigit() and minutes.isdigit() and int(hours) < 24 and int(minutes) < 60):
            refuse(type(self), "nightly_at", self.nightly_at, "a time of day as HH:MM")
        _check_zone(self, "nightly_zone")
        for name in ("alert_webhook", "market_mirror", "service_url"):
            _check_address(self, name)


@dataclass
class MLConfig:
    """Both halves together with what they share: where models and results live, cores, backups."""

    ENV: ClassVar[str] = "MODELS_"

    models_path: str = setting("models", "Folder of models.", env="MODELS_DIR", elsewhere=True)
    results_path: str = setting("results", "Folder of results.", env="RESULTS_DIR", elsewhere=True)
    price_prediction: PricePredictionConfig = field(default_factory=PricePredictionConfig)
    rl_battery: RLBatteryConfig = field(default_factory=RLBatteryConfig)
    enable_gpu: bool = setting(False, "Whether XGBoost trains on a GPU.")
    n_jobs: int = setting(4, "Threads at most; -1 takes all cores.", ">= -1")
    verbose: bool = setting(
        True, "Whether trainers write a line for each model to standard error where nobody follows their progress."
    )
    keep_backup: bool = setting(True, "Whether versions that lost their place are kept.")
    max_backups: int = setting(5, "Versions kept beside the champion.", ">= 0")
    parallel: str = setting(
        "threads", "Where blocks of work run side by side.", choices=tuple(BACKENDS), env="PARALLEL"
    )
    batteries: tuple[BatteryEntry, ...] = ()
    promotion: PromotionConfig = field(default_factory=PromotionConfig)

    def __post_init__(self) -> None:
        check(self)
        if self.n_jobs == 0:
            refuse(type(self), "n_jobs", 0, "at least 1, or -1 for all cores")
        if self.price_prediction is None:
            self.price_prediction = PricePredictionConfig()
        if self.rl_battery is None:
            self.rl_battery = RLBatteryConfig()
        for entry in self.batteries:
            entry.completed(self.rl_battery)
        _check_distinct("battery", self.batteries)

    @property
    def threads(self) -> int:
        """Threads to work with: ``n_jobs``, but no more than the cores that this process may use."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cores if self.n_jobs == -1 else min(self.n_jobs, cores)


default_config = MLConfig()


def project_root() -> Path:
    """The folder that relative paths are relative to, whoever calls.

    ``ENERGY_ML_PROJECT_ROOT`` if set, else the checkout this package lies in, else the current folder.
    """
    if root := os.environ.get("ENERGY_ML_PROJECT_ROOT"):
        return Path(root).resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "workspace.yaml").is_file() else Path.cwd()


def resolve_path(path: str | os.PathLike[str]) -> str:
    """The one rule for paths: URLs stay, ``~`` is the home folder, what is relative starts at the project root."""
    text = str(path)
    return text if "://" in text else str((project_root() / Path(text).expanduser()).resolve())


@dataclass(frozen=True)
class Settings:
    """Where data, models and results live and what is computed; one place, read from ``ENERGY_ML_*``.

    Paths are strings, absolute or URLs (``s3://…``). ``end_date`` None means "until yesterday".
    """

    ENV: ClassVar[str] = ""

    data_dir: str = setting("data/processed", "Folder or URL (s3://…) of the parquet files.")
    models_dir: str = setting("models", "Folder of models and registry.")
    results_dir: str = setting("results", "Folder of forecasts, backtests and reports.")
    start_date: dt.date = setting(SAMPLE_START, "First day of the data.")
    end_date: dt.date | None = setting(None, "Last day of the data; none means until yesterday.")
    horizons: tuple[int, ...] = setting((1, 5, 15, 60), "Minutes ahead; multiples of the data's interval.", "> 0")
    regions: tuple[str, ...] | None = setting(None, "Regions that are trained and served; none or all means all.")
    training_window_days: int = setting(10, "Days that an as-of date is trained on.", ">= 3")
    executor: str = setting(
        "in_process", "Where the steps of a run are computed.", choices=("in_process", "multiprocess", "celery", "k8s")
    )
    preset: str = setting(
        "best", "How many members the ensemble has and how slowly they learn.", choices=("fast", "best")
    )
    input_zone: str | None = setting(
        None, "IANA time zone of timestamps that the files hold without one, such as Europe/Paris; none means UTC."
    )
    currency: str = setting("currency", "What prices are in, such as EUR, for people to read.")
    battery_regions: tuple[str, ...] | None = setting(
        None,
        "Regions with a battery policy, backtested, reported: names, every, or own (where batteries of one's own are, "
        "or ten where there are none); none means every one of up to 50, else own.",
    )
    display_zone: str = setting("UTC", "IANA time zone of times that people read; days and all computing stay UTC.")
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    operations: OperationsConfig = field(default_factory=OperationsConfig)
    left_open: frozenset[str] = frozenset()
    """Fields that nobody set and that files of one's own tell better; see ``training_window.deployment``."""
    models: MLConfig = field(default_factory=MLConfig)
    """All else about models; ``ml_config`` puts the paths, horizons and preset from above in."""

    def __post_init__(self) -> None:
        check(self)
        _check_zone(self, "display_zone")
        if self.input_zone is not None:
            _check_zone(self, "input_zone")
        if self.end_date is not None and self.end_date < self.start_date:
            refuse(type(self), "end_date", str(self.end_date), f"on or after start_date ({self.start_date})")
        if not self.horizons:
            refuse(type(self), "horizons", (), "at least one whole number")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings: defaults, then ``energy_ml.toml``, then ``environ`` (the process's by default).

        Raises
        ------
        ConfigError
            A value is impossible, or the file holds an entry that doesn't exist.
        """
        entries = _entries(environ)

        def of(table: str) -> dict[str, Any]:
            return given(TABLES[table], entries.get(table, {}), environ)

        run = of("run")
        # The sample's dates hold only for the sample: whoever names other data or another start gets an open end.
        own_data = bool(run.keys() & {"data_dir", "start_date"})
        left_open = {"start_date", "horizons", "training_window_days"} - run.keys() if own_data else set()
        if not own_data:
            run.setdefault("end_date", SAMPLE_END)
        for name in ("data_dir", "models_dir", "results_dir"):
            run[name] = resolve_path(run.get(name, getattr(cls, name)))
        promotion = PromotionConfig(**of("promotion"))
        return cls(
            **run | {"horizons": tuple(sorted(run.get("horizons", cls.horizons)))},
            left_open=frozenset(left_open),
            promotion=promotion,
            operations=OperationsConfig(**of("operations")),
            models=MLConfig(
                price_prediction=PricePredictionConfig(
                    covariates=_listed("covariate", Covariate, environ), **of("prices")
                ),
                rl_battery=RLBatteryConfig(**of("rl_battery")),
                batteries=_listed("battery", BatteryEntry, environ),
                **of("models"),
            ),
        )

    @property
    def display(self) -> Display:
        """How prices and times are written."""
        return Display(self.currency, self.display_zone)

    @property
    def first_as_of(self) -> dt.date:
        """The first day D whose trailing training window is covered."""
        return self.start_date + dt.timedelta(days=self.training_window_days - 1)

    def check_as_of(self, day: dt.date) -> dt.date:
        """``day``, if a whole window lies before it. Raises ConfigError naming the setting that stands in the way."""
        if day < self.first_as_of:
            raise ConfigError(
                f"as-of date {day} has no whole window of {self.training_window_days} days: "
                f"the data is said to start on {self.start_date}",
                expected=f"{self.first_as_of} or later",
                remedy="set ENERGY_ML_START_DATE to the first day of your data, "
                "or ENERGY_ML_TRAINING_WINDOW_DAYS to fewer",
            )
        last = self.end_date or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        if day > last:
            raise ConfigError(
                f"as-of date {day} lies after {last}", expected=f"{last} or earlier", remedy="set ENERGY_ML_END_DATE"
            )
        return day

    def as_of_range(self, first: dt.date, last: dt.date) -> list[dt.date]:
        """The as-of dates from ``first`` to ``last``, oldest first. Raises ConfigError where that can't be."""
        if last < first:
            raise ConfigError(f"the range ends on {last}, before it begins on {first}", remedy="exchange the two")
        self.check_as_of(first), self.check_as_of(last)
        return [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]

    def ml_config(self) -> MLConfig:
        """The model configs with these settings' paths, horizons and preset in them."""
        return replace(
            self.models,
            models_path=self.models_dir,
            results_path=self.results_dir,
            price_prediction=replace(
                self.models.price_prediction, data_path=self.data_dir, horizons=list(self.horizons), preset=self.preset
            ),
            promotion=self.promotion,
        )


_MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and rights of the service. Tokens never appear in its ``repr``."""

    ENV: ClassVar[str] = "API_"

    token: str | None = setting(None, "Token for reads, forecasts, actions.", secret=True)
    train_token: str | None = setting(None, "Token for the same, and starting and cancelling trainings.", secret=True)
    max_body_bytes: int = setting(4_000_000, "Largest body of a request.", "> 0")
    max_prices: int = setting(100_000, "Prices in one request, all regions together.", "> 0")
    stale_after_minutes: float = setting(30.0, "Older data is flagged stale in the answer.", ">= 0")
    max_age_minutes: float | None = setting(None, "Older data is refused; none never refuses.", ">= 0")
    trainings_per_hour: int = setting(12, "Trainings that may be started in an hour.", "> 0")
    timeout_seconds: float = setting(30.0, "For receiving headers, for a body and for answering.", "> 0, <= 3600")
    dagster_url: str = setting("http://127.0.0.1:3000", "Where Dagster's UI is, for the page's links to runs.")
    max_sockets: int = setting(1000, "WebSocket clients at once.", "> 0")
    max_connections: int = setting(2000, "Connections at once, WebSockets included; more are closed.", "> 0")

    def __post_init__(self) -> None:
        check(self)
        _check_address(self, "dagster_url")
        for name in ("token", "train_token"):
            token = getattr(self, name)
            if token is not None and (len(token) < _MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable()):
                remedy = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                refuse(type(self), name, token, f"at least {_MIN_TOKEN_LENGTH} printable ASCII characters", remedy)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> ServiceSettings:
        """Read the settings as ``Settings.from_env`` does. Raises ConfigError on nonsense."""
        return cls(**given(cls, _entries(environ).get("service", {}), environ))


_Entry = TypeVar("_Entry", Covariate, BatteryEntry)

TABLES: dict[str, type] = {
    "run": Settings,
    "prices": PricePredictionConfig,
    "covariate": Covariate,
    "rl_battery": RLBatteryConfig,
    "battery": BatteryEntry,
    "models": MLConfig,
    "promotion": PromotionConfig,
    "operations": OperationsConfig,
    "service": ServiceSettings,
}
"""Table of ``energy_ml.toml`` -> the settings in it."""


def settings_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The settings file: ``ENERGY_ML_CONFIG`` if set, else ``energy_ml.toml`` in the project root if it is there."""
    named = (os.environ if environ is None else environ).get("ENERGY_ML_CONFIG", "").strip()
    path = Path(resolve_path(named or "energy_ml.toml"))
    return path if named or path.is_file() else None


def _entries(environ: Mapping[str, str] | None) -> dict[str, Any]:
    """What the settings file holds, by table."""
    file = settings_file(environ)
    return {} if file is None else read_file(file, TABLES, {"battery": "rl_battery"})


def _listed(table: str, kind: type[_Entry], environ: Mapping[str, str] | None) -> tuple[_Entry, ...]:
    """The entries ``[[table]]`` of the settings file."""
    file, made = str(settings_file(environ)), []
    for values in _entries(environ).get(table, ()):
        with _naming(table, values.get("name", ""), file):
            place = {"file_path": file} if kind is BatteryEntry else {}
            made.append(kind(**given(kind, values) | place))
    return tuple(made)


@dataclass(frozen=True)
class SettingRow:
    """One setting as it stands: where it is set, its value as text (secrets hidden), and what it means."""

    table: str
    name: str
    variable: str
    value: str
    source: str
    sentence: str


def setting_rows(environ: Mapping[str, str] | None = None) -> list[SettingRow]:
    """Every setting with its value and source (default, file or environment). Raises ConfigError on nonsense."""
    env = os.environ if environ is None else environ
    settings = Settings.from_env(env)
    models = settings.ml_config()
    made: dict[str, object] = {
        "run": settings,
        "prices": models.price_prediction,
        "rl_battery": models.rl_battery,
        "models": models,
        "promotion": settings.promotion,
        "operations": settings.operations,
        "service": ServiceSettings.from_env(env),
    }
    file, entries = str(settings_file(env)), _entries(env)
    rows = []
    for table, kind in TABLES.items():
        for name, meaning in {} if is_list(kind) else settings_of(kind, here=True).items():
            value, where = getattr(made[table], name), variable(kind, name)
            source = where if env.get(where, "").strip() else file if name in entries.get(table, {}) else "default"
            shown = "(hidden)" if meaning.secret and value is not None else text_of(value)
            rows.append(SettingRow(table, name, where, shown, source, meaning.sentence))
    told: list[tuple[str, Covariate | BatteryEntry, dict[str, object]]] = [
        ("covariate", one, dict(vars(one))) for one in models.price_prediction.covariates
    ]
    told += [("battery", one, {"region": one.region or "none", **one.given}) for one in models.batteries]
    for table, entry, values in told:
        where, meanings = f"{table} {entry.name!r}", settings_of(type(entry))
        values.pop("name", None)
        rows += [SettingRow(where, n, "no variable", str(v), file, meanings[n].sentence) for n, v in values.items()]
    return rows


def settings_schema() -> dict[str, object]:
    """JSON schema of ``energy_ml.toml``, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "energy_ml.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            table: {"type": "array", "items": table_schema(kind) | {"required": ["name"]}}
            if is_list(kind)
            else table_schema(kind)
            for table, kind in TABLES.items()
        },
    }


def settings_page() -> str:
    """``docs/settings.md``: every setting of the fields, as a table for readers."""
    lines = [
        "# Settings",
        "",
        "Defaults, then `energy_ml.toml` (its path: `ENERGY_ML_CONFIG`), then the environment; the later one wins.",
        "This page is made from the code by `energy-ml config page`.",
    ]
    for table, kind in TABLES.items():
        if is_list(kind):
            lines += [
                "",
                f"## [[{table}]]",
                "",
                f"{kind.__doc__} Any number of them; their place is the file, no variable.",
                "",
                "| Entry | Meaning |",
                "|---|---|",
                *(f"| `{name}` | {meaning.sentence} |" for name, meaning in settings_of(kind).items()),
            ]
            continue
        lines += ["", f"## [{table}]", "", "| Entry | Variable | Default | Meaning |", "|---|---|---|---|"]
        for name, meaning in settings_of(kind).items():
            if not meaning.elsewhere:
                default = default_text(kind, name)
                lines.append(f"| `{name}` | `{variable(kind, name)}` | {default} | {meaning.sentence} |")
    return "\n".join(lines) + "\n"
