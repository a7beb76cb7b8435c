"""Every number that a user may change, once: model and battery configs, and the settings of a deployment.

What belongs here: plain dataclasses with defaults and checks, and the environment variables that override them.
What doesn't: anything that reads data or trains.
"""

from __future__ import annotations

import datetime as dt
import os
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from energy_ml.errors import ConfigError

SAMPLE_START = dt.date(2026, 1, 30)
"""First day of the sample that ships in ``data/processed``."""
SAMPLE_END = dt.date(2026, 2, 10)
"""Last day of that sample."""
SUPPORTED_INTERVALS = (1, 5, 15, 30, 60)
"""Minutes between two rows that the project works with."""


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}", expected=expected, remedy=f"set {name} accordingly")


@dataclass
class PricePredictionConfig:
    """How price models are trained.

    ``price_lags`` and ``rolling_windows`` are counted in intervals of the data, horizons in minutes.
    """

    data_path: str = "data/processed"
    target_column: str = "real_time_price"
    train_end_pct: float = 0.70
    val_end_pct: float = 0.85
    price_lags: list[int] = field(default_factory=lambda: [1, 5, 10, 15, 30, 60])
    rolling_windows: list[int] = field(default_factory=lambda: [5, 10, 15, 30, 60])
    include_time_features: bool = True
    include_regional_features: bool = True
    n_estimators: int = 200
    """Most trees of each member of the ensemble (of each quantile, for the one that learns quantiles)."""
    max_depth: int = 6
    """Depth of trees. This and the next three are the ``brief`` member's; the others' follow in proportion."""
    learning_rate: float = 0.1
    subsample: float = 0.8
    colsample_bytree: float = 0.8
    random_state: int = 42
    early_stopping_rounds: int = 20
    """Rounds without gain after which boosting stops; steady members wait twice as long, quantiles less."""
    early_stopping_threshold: float = 0.001
    """Least relative gain that counts as one."""
    horizons: list[int] = field(default_factory=lambda: [1, 5, 15, 60])
    """Minutes ahead, one model each."""
    preset: str = "best"
    """``fast`` or ``best``: how many members the ensemble has and how slowly they learn."""
    interval_level: float = 0.90
    """Nominal coverage of the interval written to forecasts and served by default."""
    spike_quantile: float = 0.98
    """A price above this quantile of the training prices counts as a spike."""
    max_gap_minutes: int = 30
    """Gaps up to this long, or of one interval where that is longer, are filled forward and flagged; 0 fills none.
    Longer ones stay holes: nothing is learned, judged or traded there."""
    min_training_days: float = 5.0
    """Least days' worth of measured prices that the training part must have of each region; of a short window's three
    quarters are enough."""
    max_missing_share: float = 0.5
    """Largest share of validation, and of test, whose prices may be missing."""
    min_training_rows: int = 100
    """Fewest training rows, of all regions, with a price and what is needed before it."""
    min_recent_share: float = 0.5
    """Least share of the recent prices that a live forecast's lags and windows look at that must have been measured."""
    max_abs_price: float = 50_000.0
    """Prices beyond this, currency/MWh either way, are taken for mistakes and refused; raise it for currencies of large
    numbers."""
    extra_columns: list[str] = field(default_factory=list)
    """Further numeric columns of the price files that are used as features."""

    def __post_init__(self) -> None:
        _require(
            0 < self.train_end_pct < self.val_end_pct < 1,
            "train_end_pct/val_end_pct",
            (self.train_end_pct, self.val_end_pct),
            "0 < train_end_pct < val_end_pct < 1",
        )
        for name in ("price_lags", "rolling_windows", "horizons"):
            values = getattr(self, name)
            _require(
                bool(values) and all(isinstance(v, int) and v > 0 for v in values) and len(set(values)) == len(values),
                name,
                values,
                "a non-empty list of distinct positive whole numbers",
            )
        for name in ("n_estimators", "max_depth", "early_stopping_rounds"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number of at least 1")
        _require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, at most 1")
        for name in ("subsample", "colsample_bytree"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "above 0, at most 1")
        _require(
            self.early_stopping_threshold >= 0, "early_stopping_threshold", self.early_stopping_threshold, "0 or more"
        )
        _require(self.preset in ("fast", "best"), "preset", self.preset, "'fast' or 'best'")
        _require(0.5 <= self.interval_level < 1, "interval_level", self.interval_level, "from 0.5 to below 1")
        _require(0.5 < self.spike_quantile < 1, "spike_quantile", self.spike_quantile, "between 0.5 and 1")
        for name in ("max_gap_minutes", "min_training_days"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("max_missing_share", "min_recent_share"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")
        _require(self.min_training_rows >= 1, "min_training_rows", self.min_training_rows, "at least 1")
        _require(self.max_abs_price > 0, "max_abs_price", self.max_abs_price, "above 0")


@dataclass
class RLBatteryConfig:
    """How battery policies are learned, and the reference battery they are learned for.

    ``discount_factor`` is per HOUR and converted to the data's interval (0.95 per minute would look 20 minutes ahead).
    ``efficiency`` is the round trip, split over both legs by its square root; power is measured at the grid.
    """

    charge_level_bins: int = 10
    """Slices of the charge range: the table's charge axis."""
    price_bins: int = 10
    """Bins of the gap between a stored MWh's planned value and the price now: the table's price axis."""
    time_bins: int = 24
    """Parts of the UTC day by which the table may differ."""
    actions: list[str] = field(default_factory=lambda: ["charge", "hold", "discharge"])
    learning_rate: float = 0.1
    """Of an entry's first update; it falls as updates ** -0.7."""
    discount_factor: float = 0.95
    """Weight, an hour on, of what is earned beyond the plan."""
    epsilon: float = 1.0
    """Share of random actions in the first episode of ``update="sampled"``."""
    epsilon_decay: float = 0.995
    """What is left of epsilon from one sampled episode to the next."""
    epsilon_min: float = 0.05
    """Least epsilon of sampled episodes."""
    episodes: int = 1000
    """Passes over the training data at most; learning stops when the table moves no more."""
    max_steps: int = 14400
    """Intervals of a sampled episode at most."""
    min_reserve: float = 0.10
    max_charge: float = 0.90
    efficiency: float = 0.90
    reward_scale: float = 1.0
    """Unit of rewards, and so of the learned table and of Q-values; the best action doesn't depend on it."""
    capacity_mwh: float = 1.0
    """Energy capacity of the reference battery, MWh."""
    power_mw: float = 0.5
    """Charging and discharging limit at the grid, MW."""
    initial_charge: float = 0.5
    """Charge at the start of training and backtest, as a fraction of capacity."""
    wear_cost_per_mwh: float = 0.0
    """Currency per MWh discharged at the grid."""
    buy_fee_per_mwh: float = 0.0
    """Grid fee added to the price when buying, currency/MWh."""
    sell_fee_per_mwh: float = 0.0
    """Grid fee taken off the price when selling, currency/MWh."""
    max_cycles_per_day: float | None = None
    """Limit on equivalent full cycles (capacity drawn from the cells) per UTC day; None means no limit."""
    loss_split: str = "sqrt"
    """Where the round trip is lost: ``sqrt`` half on each leg, ``charge`` or ``discharge`` all on one."""
    final_charge: float | None = None
    """Least charge at the end of a backtest, as a fraction of capacity; None values what is left at a price instead."""
    execution_delay: int = 0
    """Intervals between seeing a price and acting on it; 0 is a price-contingent bid."""
    update: str = "counterfactual"
    """``counterfactual`` updates all charges and actions at each price step; ``sampled`` is textbook Q-learning."""
    random_state: int = 42

    def __post_init__(self) -> None:
        for name in ("charge_level_bins", "price_bins", "time_bins", "episodes", "max_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number of at least 1")
        _require(
            list(self.actions) == ["charge", "hold", "discharge"],
            "actions",
            self.actions,
            "['charge', 'hold', 'discharge']",
        )
        _require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, at most 1")
        _require(0 < self.discount_factor <= 1, "discount_factor", self.discount_factor, "above 0, at most 1, per hour")
        _require(
            0 <= self.epsilon_min <= self.epsilon <= 1,
            "epsilon/epsilon_min",
            (self.epsilon, self.epsilon_min),
            "0 <= epsilon_min <= epsilon <= 1",
        )
        _require(0 < self.epsilon_decay <= 1, "epsilon_decay", self.epsilon_decay, "above 0, at most 1")
        _require(
            0 <= self.min_reserve < self.max_charge <= 1,
            "min_reserve/max_charge",
            (self.min_reserve, self.max_charge),
            "0 <= min_reserve < max_charge <= 1",
        )
        _require(0 < self.efficiency <= 1, "efficiency", self.efficiency, "above 0, at most 1")
        for name in ("capacity_mwh", "power_mw", "reward_scale"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        _require(
            self.min_reserve <= self.initial_charge <= self.max_charge,
            "initial_charge",
            self.initial_charge,
            "between min_reserve and max_charge",
        )
        for name in ("wear_cost_per_mwh", "buy_fee_per_mwh", "sell_fee_per_mwh", "execution_delay"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(
            self.max_cycles_per_day is None or self.max_cycles_per_day > 0,
            "max_cycles_per_day",
            self.max_cycles_per_day,
            "above 0, or None",
        )
        _require(
            self.loss_split in ("sqrt", "charge", "discharge"),
            "loss_split",
            self.loss_split,
            "'sqrt', 'charge' or 'discharge'",
        )
        _require(
            self.final_charge is None or self.min_reserve <= self.final_charge <= self.max_charge,
            "final_charge",
            self.final_charge,
            "between min_reserve and max_charge, or None",
        )
        _require(self.update in ("counterfactual", "sampled"), "update", self.update, "'counterfactual' or 'sampled'")


@dataclass
class PromotionConfig:
    """When a new version becomes champion; ``model_management.comparison`` says why the defaults are what they are."""

    min_improvement: float = 0.0
    """Share by which error or profit must improve on the champion's; more than this. Negative values refresh ties."""
    max_p_value: float = 0.5
    """Largest one-sided p-value of "no better"; 0.5 asks for a better mean only, 0.05 for evidence."""
    require_beats_naive: bool = True
    """Whether the first version must beat "price stays" or holding."""
    min_observations: int = 24
    """Fewest time steps that price errors are compared on."""
    bootstrap_samples: int = 2000
    random_state: int = 42

    def __post_init__(self) -> None:
        _require(-1 < self.min_improvement < 1, "min_improvement", self.min_improvement, "between -1 and 1")
        _require(0 < self.max_p_value <= 1, "max_p_value", self.max_p_value, "above 0, at most 1")
        for name in ("min_observations", "bootstrap_samples"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number of at least 1")


CHECK_NAMES = (
    "data_recent",
    "regions_present",
    "features_stable",
    "newest_day_as_promised",
    "intervals_honest",
    "beats_threshold_rule",
)
"""Freshness and drift checks that ``OperationsConfig.blocking_checks`` may name."""


@dataclass(frozen=True)
class OperationsConfig:
    """When the project retrains by itself, whom it tells, and which warnings stop a run."""

    nightly_at: str = "01:30"
    """Local time of the nightly retraining, HH:MM; until the day's data is there it looks again every hour."""
    nightly_zone: str = "UTC"
    """IANA time zone of ``nightly_at``. As-of dates stay UTC days."""
    sensor_seconds: int = 30
    """Seconds between two looks into the data folder."""
    settle_seconds: float = 4.0
    """How long a new file's content must stay the same before it is used."""
    alert_webhook: str | None = None
    """http(s) address that gets a JSON message about each failed run."""
    celery_broker: str = "redis://localhost:6379/0"
    """Where the celery executor puts its tasks; must be the workers' own."""
    celery_backend: str = "redis://localhost:6379/1"
    """Where celery workers put their results."""
    blocking_checks: tuple[str, ...] = ()
    """Which of ``CHECK_NAMES`` stop the run instead of warning."""
    max_psi: float = 0.25
    """Population stability index of a feature, newest day against training part, that counts as drift."""
    max_error_growth: float = 1.25
    """Newest day's error over the error on validation, both relative to "the price stays", that counts as a break."""
    max_coverage_gap: float = 0.05
    """Distance between nominal and found coverage of the intervals."""

    def __post_init__(self) -> None:
        hours, colon, minutes = self.nightly_at.partition(":")
        _require(
            bool(colon) and hours.isdigit() and minutes.isdigit() and int(hours) < 24 and int(minutes) < 60,
            "nightly_at (ENERGY_ML_NIGHTLY_AT)",
            self.nightly_at,
            "a time of day as HH:MM",
        )
        try:
            zoneinfo.ZoneInfo(self.nightly_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            _require(False, "nightly_zone (ENERGY_ML_NIGHTLY_ZONE)", self.nightly_zone, "a name such as Europe/Paris")
        _require(self.sensor_seconds >= 1, "sensor_seconds", self.sensor_seconds, "at least 1")
        _require(self.settle_seconds >= 0, "settle_seconds", self.settle_seconds, "0 or more")
        _require(
            self.alert_webhook is None or self.alert_webhook.startswith(("http://", "https://")),
            "alert_webhook (ENERGY_ML_ALERT_WEBHOOK)",
            self.alert_webhook,
            "an address that begins with http:// or https://",
        )
        unknown = sorted(set(self.blocking_checks) - set(CHECK_NAMES))
        _require(
            not unknown, "blocking_checks (ENERGY_ML_BLOCKING_CHECKS)", unknown, f"some of {', '.join(CHECK_NAMES)}"
        )
        for name in ("max_psi", "max_error_growth", "max_coverage_gap"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")


@dataclass
class MLConfig:
    """Both halves together with what they share: where models and results live, cores, backups."""

    models_path: str = "models"
    results_path: str = "results"
    price_prediction: PricePredictionConfig = field(default_factory=PricePredictionConfig)
    rl_battery: RLBatteryConfig = field(default_factory=RLBatteryConfig)
    enable_gpu: bool = False
    n_jobs: int = 4
    verbose: bool = True
    keep_backup: bool = True
    max_backups: int = 5
    promotion: PromotionConfig = field(default_factory=PromotionConfig)

    def __post_init__(self) -> None:
        _require(self.n_jobs == -1 or self.n_jobs >= 1, "n_jobs", self.n_jobs, "at least 1, or -1 for all cores")
        _require(self.max_backups >= 0, "max_backups", self.max_backups, "0 or more")

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


@dataclass(frozen=True)
class Settings:
    """Where data, models and results live and what is computed; one place, read from ``ENERGY_ML_*``.

    Paths are strings, absolute or URLs (``s3://…``). ``end_date`` None means "until yesterday".
    """

    data_dir: str
    models_dir: str
    results_dir: str
    start_date: dt.date
    end_date: dt.date | None
    horizons: tuple[int, ...]
    regions: tuple[str, ...] | None
    training_window_days: int
    executor: str
    preset: str
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    operations: OperationsConfig = field(default_factory=OperationsConfig)
    left_open: frozenset[str] = frozenset()
    """Fields that nobody set and that files of one's own tell better; see ``training_window.deployment``."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; ``environ`` defaults to the process's environment. Raises ConfigError on nonsense."""
        env = os.environ if environ is None else environ

        def text(name: str, default: str) -> str:
            return env.get(f"ENERGY_ML_{name}", "").strip() or default

        def path(name: str, default: str) -> str:
            value = text(name, default)
            return value if "://" in value else str((project_root() / value).resolve())

        def date(name: str) -> dt.date | None:
            value = text(name, "")
            try:
                return dt.date.fromisoformat(value) if value else None
            except ValueError:
                raise ConfigError(
                    f"ENERGY_ML_{name} is {value!r}", expected="a date as YYYY-MM-DD", remedy="correct or unset it"
                ) from None

        def integers(name: str, default: str) -> tuple[int, ...]:
            value = text(name, default)
            try:
                numbers = tuple(int(part) for part in value.split(","))
            except ValueError:
                numbers = ()
            if not numbers or any(n <= 0 for n in numbers) or len(set(numbers)) != len(numbers):
                raise ConfigError(
                    f"ENERGY_ML_{name} is {value!r}",
                    expected="distinct positive whole numbers with commas between, such as 1,5,15,60",
                    remedy="correct or unset it",
                )
            return numbers

        def number(name: str, default: float) -> float:
            value = text(name, str(default))
            try:
                return float(value)
            except ValueError:
                raise ConfigError(
                    f"ENERGY_ML_{name} is {value!r}", expected="a number", remedy="correct or unset it"
                ) from None

        def flag(name: str, default: bool) -> bool:
            value = text(name, str(default)).lower()
            if value not in ("true", "false", "1", "0", "yes", "no"):
                raise ConfigError(
                    f"ENERGY_ML_{name} is {value!r}", expected="true or false", remedy="correct or unset it"
                )
            return value in ("true", "1", "yes")

        # The sample's dates hold only for the sample: whoever names other data or another start gets an open end.
        own_data = bool(text("DATA_DIR", "") or text("START_DATE", ""))
        start = date("START_DATE") or SAMPLE_START
        end = date("END_DATE") or (None if own_data else SAMPLE_END)
        if end is not None and end < start:
            raise ConfigError(
                f"ENERGY_ML_END_DATE {end} lies before ENERGY_ML_START_DATE {start}",
                expected="an end on or after the start",
                remedy="correct one of them",
            )
        told_by_files = ("START_DATE", "HORIZONS", "TRAINING_WINDOW_DAYS")
        left_open = frozenset(name.lower() for name in told_by_files if own_data and not text(name, ""))
        regions = tuple(r.strip() for r in text("REGIONS", "all").split(",") if r.strip())
        (window,) = integers("TRAINING_WINDOW_DAYS", "10")[:1]
        if window < 3:
            raise ConfigError(
                f"ENERGY_ML_TRAINING_WINDOW_DAYS is {window}", expected="at least 3 days", remedy="use 10 or more"
            )
        executor = text("EXECUTOR", "in_process")
        if executor not in ("in_process", "multiprocess", "celery"):
            raise ConfigError(
                f"ENERGY_ML_EXECUTOR is {executor!r}",
                expected="in_process, multiprocess or celery",
                remedy="correct or unset it",
            )
        preset = text("PRESET", PricePredictionConfig.preset)
        if preset not in ("fast", "best"):
            raise ConfigError(f"ENERGY_ML_PRESET is {preset!r}", expected="fast or best", remedy="correct or unset it")
        return cls(
            data_dir=path("DATA_DIR", "data/processed"),
            models_dir=path("MODELS_DIR", "models"),
            results_dir=path("RESULTS_DIR", "results"),
            start_date=start,
            end_date=end,
            horizons=tuple(sorted(integers("HORIZONS", "1,5,15,60"))),
            regions=None if regions == ("all",) else regions,
            training_window_days=window,
            executor=executor,
            preset=preset,
            left_open=left_open,
            promotion=PromotionConfig(
                min_improvement=number("PROMOTION_MIN_IMPROVEMENT", PromotionConfig.min_improvement),
                max_p_value=number("PROMOTION_MAX_P_VALUE", PromotionConfig.max_p_value),
                require_beats_naive=flag("PROMOTION_REQUIRE_BEATS_NAIVE", PromotionConfig.require_beats_naive),
            ),
            operations=OperationsConfig(
                nightly_at=text("NIGHTLY_AT", OperationsConfig.nightly_at),
                nightly_zone=text("NIGHTLY_ZONE", OperationsConfig.nightly_zone),
                sensor_seconds=int(number("SENSOR_SECONDS", OperationsConfig.sensor_seconds)),
                settle_seconds=number("SETTLE_SECONDS", OperationsConfig.settle_seconds),
                alert_webhook=text("ALERT_WEBHOOK", "") or None,
                celery_broker=text("CELERY_BROKER", OperationsConfig.celery_broker),
                celery_backend=text("CELERY_BACKEND", OperationsConfig.celery_backend),
                blocking_checks=tuple(c.strip() for c in text("BLOCKING_CHECKS", "").split(",") if c.strip()),
                max_psi=number("MAX_PSI", OperationsConfig.max_psi),
                max_error_growth=number("MAX_ERROR_GROWTH", OperationsConfig.max_error_growth),
                max_coverage_gap=number("MAX_COVERAGE_GAP", OperationsConfig.max_coverage_gap),
            ),
        )

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

    def ml_config(self) -> MLConfig:
        """The model configs with these settings' paths, horizons and preset in them."""
        return MLConfig(
            models_path=self.models_dir,
            results_path=self.results_dir,
            price_prediction=PricePredictionConfig(
                data_path=self.data_dir, horizons=list(self.horizons), preset=self.preset
            ),
            promotion=self.promotion,
        )
