"""One night, told once: what is made of an as-of date, from its price window to the report, in plain functions.

What belongs here: the order of the core's calls, and what each step leaves behind (its value, files beside it, facts
for people, checks). What doesn't: the work itself, and who calls: Dagster's assets are these functions, one each.

An as-of date D means "everything known at the end of day D". ``price_features`` reads the days up to D,
``train_price`` learns one model per horizon, ``train_policy`` a battery policy on their out-of-sample forecasts,
``evaluate`` and ``backtest`` judge both on days that neither has seen, ``decide`` makes a new version champion if it is
better, ``report`` writes the page.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from energy_ml import checks
from energy_ml.artifacts import write_atomically
from energy_ml.checks import Check
from energy_ml.config import MLConfig, PricePredictionConfig, RLBatteryConfig, Settings
from energy_ml.display import shown, shown_names
from energy_ml.evaluation import charts
from energy_ml.evaluation.backtest_evaluator import backtest as run_backtest
from energy_ml.evaluation.backtest_evaluator import (
    mark_to_market,
    own_units,
    pool_summary,
    reference_units,
)
from energy_ml.evaluation.leaderboard import leaderboard as gather_leaderboard
from energy_ml.evaluation.leaderboard import succession
from energy_ml.evaluation.metrics import ForecastScores, family_importance, forecast_metrics, spike_thresholds
from energy_ml.evaluation.reports import BatteryResults, ForecastResults, render_leaderboard, render_report
from energy_ml.evaluation.verdicts import battery_words
from energy_ml.features import build_battery_features, feature_columns, feature_family, prices_of
from energy_ml.features.covariates import outlook
from energy_ml.features.feature_rows import frames
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.telemetry import clean_batteries
from energy_ml.market_data.window import fingerprint_of
from energy_ml.model_management import mlflow_mirror
from energy_ml.model_management.challenge import judge_policy, judge_price_model
from energy_ml.model_management.comparison import Decision
from energy_ml.model_management.promotion import register_and_decide, retire_unfit
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.names import (
    AS_USUAL,
    BATTERY_ID,
    CHARGE_END,
    FORECASTS_FILE,
    HORIZON,
    LEADERBOARD_FILE,
    LOWER,
    OUR_POLICY,
    POLICY_FILE,
    POLICY_ID,
    POOLED,
    PRICE_FORECAST,
    PRICE_PREDICTION,
    REGION,
    REPORT_FILE,
    RL_BATTERY,
    SPLIT,
    STRATEGY,
    THRESHOLD,
    TIMESTAMP,
    UPPER,
    price_model_id,
    price_model_name,
)
from energy_ml.parts import Frames, chosen, frames_of, in_memory, write_parts
from energy_ml.progress import ProgressLog
from energy_ml.provenance import provenance
from energy_ml.results import ResultsStore
from energy_ml.rl_battery import BatteryPolicy, BatteryRLTrainer
from energy_ml.rl_battery.baselines import baselines
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.policy import LearnedPolicy
from energy_ml.rl_battery.strategy import Blind, planned_on
from energy_ml.splits import PARTS, TimeSplit, window_of
from energy_ml.training_window import newest, open_day, policy_regions, split_of

if TYPE_CHECKING:  # XGBoost and all that it loads make up a third of loading the asset graph
    from energy_ml.price_prediction import PricePredictionModel, PricePredictionTrainer

__all__ = [
    "Made",
    "Night",
    "backtest",
    "battery_features",
    "decide",
    "evaluate",
    "forecasts",
    "leaderboard",
    "newest",
    "open_day",
    "price_features",
    "report",
    "time_split",
    "train_policy",
    "train_price",
]

_NO_TELEMETRY = {
    "timestamp": "datetime64[ns, UTC]",
    "battery_id": "str",
    "region": "str",
    "charge_level_mwh": "float64",
    "capacity_mwh": "float64",
    "power_mw": "float64",
    "rated_power_mw": "float64",
}


@dataclass(frozen=True)
class Made:
    """What a step made: its ``value``, ``files`` beside it by name, ``facts`` for people, ``checks``."""

    value: object
    files: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class Night:
    """What the steps of one as-of date share: settings, where things lie, and where progress is told."""

    settings: Settings
    as_of: dt.date
    run_id: str
    lake: ParquetLake
    store: ResultsStore
    registry: ModelRegistry
    trainer: Callable[[], PricePredictionTrainer]
    """The one of all horizons, so that they share the binned features; only a step that trains loads XGBoost for it."""
    progress: ProgressLog
    digest_of: Callable[[str], str | None] = lambda file: None
    """SHA-256 of a model among the results, by its file, as the run that made it has on record."""

    @property
    def config(self) -> MLConfig:
        """The model configs of the settings."""
        return self.settings.ml_config()

    @property
    def window(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """The trailing window, [start, end) in UTC."""
        return window_of(self.as_of, self.settings.training_window_days)

    def prices_of(self, price_features: pd.DataFrame) -> pd.DataFrame:
        """The prices alone, as battery strategies see them."""
        return prices_of(price_features, self.config.price_prediction.target_column)

    def planned(self, price_features: pd.DataFrame, forecasts: Frames, regions: Collection[str]) -> pd.DataFrame:
        """What batteries of these regions plan on: forecasts, and beyond their last horizon prices known ahead."""
        where = {REGION: regions}
        made = planned_on(in_memory(forecasts, where), self.config.rl_battery)
        prices = in_memory(price_features[[TIMESTAMP, REGION]], where)
        beyond = outlook(prices, self.lake, self.config.price_prediction.covariates)
        beyond = beyond[beyond[HORIZON] > max(self.settings.horizons)]
        return pd.concat([made, beyond], ignore_index=True) if len(beyond) else made

    def blocks_of(self, what: str) -> Path:
        """Where finished blocks of a large market lie until all of ``what`` is made."""
        return Path(self.registry.path).parent / ".blocks" / str(self.as_of) / what

    def record(
        self, fingerprint: object, config: PricePredictionConfig | RLBatteryConfig | MLConfig, **more: object
    ) -> dict[str, object]:
        """Provenance of something made from data of that fingerprint with this config."""
        return provenance(
            as_of=str(self.as_of), data_fingerprint=str(fingerprint), config=config, run_id=self.run_id, **more
        )


def price_features(night: Night) -> Made:
    """The cleaned price window of the as-of date with every feature, one row per interval and region.

    Rows cover [D - window + 1 day, D + 1 day) UTC; a feature at t uses prices up to t alone.
    """
    day = open_day(night.settings, night.lake, night.as_of)
    window, features, names, repaired = day.window, day.features, day.feature_names, day.repaired_rows
    looked_at = next(frames(features, night.config.price_prediction.target_column, window.start, day.history))
    families = pd.Series([feature_family(name) for name in names]).value_counts()
    facts = {
        "window": f"{shown().minute(window.start)} … {shown().minute(window.end)} {shown().zone}",
        "price_unit": shown().price,
        "interval_minutes": window.interval_minutes,
        "regions": shown_names(features[REGION].unique()),
        "features": len(names),
        "families": pd.DataFrame({"family": families.index, "features": families.to_numpy()}),
        "prices": features.groupby(REGION)[night.config.price_prediction.target_column].describe()[:50].reset_index(),
        "warm_up_rows": int((~window.in_window).sum()),
        "data_fingerprint": window.fingerprint,
        "problems": "\n".join(p.message for p in window.problems) or "none",
    }
    whole = f"{len(features):,} rows, every {window.interval_minutes} min; {window.holes or 'no gap left'}"
    data = {
        "fingerprint": window.fingerprint,
        "history_fingerprint": fingerprint_of(day.history),
        "interval_minutes": window.interval_minutes,
        "problems": [problem.to_dict() for problem in window.problems],
    }
    return Made(
        features,
        {"data": data, "history": day.history},
        facts,
        [
            Check("window_complete", True, whole),
            Check(
                "few_repairs",
                repaired < 0.01 * len(features),
                f"{repaired:,} of {len(features):,} prices weren't measured",
            ),
            checks.data_recent(night.settings, night.lake, dt.datetime.now(dt.UTC)),
            checks.covariates_known(features),
            checks.regions_present(features, window.problems),
            checks.features_stable(night.settings, looked_at, names, day.split),  # of a large market one block
        ],
    )


def battery_features(night: Night, price_features: pd.DataFrame) -> Made:
    """Battery telemetry of the window with features of its state; empty where there is no telemetry."""
    telemetry, messages = night.lake.read_batteries(*night.window), []
    if len(telemetry):
        cleaned = clean_batteries(telemetry)
        messages = [problem.message for problem in cleaned.problems]
        features = build_battery_features(cleaned.frame, price_features)
    else:
        features = pd.DataFrame(columns=list(_NO_TELEMETRY)).astype(_NO_TELEMETRY)
    facts = {
        "batteries": ", ".join(sorted(features[BATTERY_ID].unique())) or "no telemetry",
        "problems": "\n".join(messages) or "none",
    }
    plausible = Check("telemetry_plausible", not messages, "; ".join(messages) or "no problem found")
    return Made(features, facts=facts, checks=[plausible])


def time_split(night: Night, price_features: pd.DataFrame, data: Mapping[str, object]) -> Made:
    """Train | validation | test by time (70 / 15 / 15 %), purged by each horizon before each boundary."""
    config, horizons = night.config.price_prediction, night.settings.horizons
    split = split_of(*night.window, config)
    counts = {
        str(horizon): {part: int(split.mask(price_features[TIMESTAMP], part, horizon).sum()) for part in PARTS}
        for horizon in horizons
    }
    empty = [f"{part} at {horizon} min" for horizon, n in counts.items() for part in PARTS if not n[part]]
    facts = {
        **{name: pd.Timestamp(moment) for name, moment in split.to_dict().items()},
        "rows": pd.DataFrame([{"horizon": f"{h} min", **n} for h, n in counts.items()]),
        "timeline": charts.split_timeline(split.to_dict(), horizons),
        "data_fingerprint": data["fingerprint"],
    }
    words = f"no rows: {', '.join(empty)}" if empty else "all parts have rows"
    return Made(
        {**split.to_dict(), "rows": counts, **data},
        facts=facts,
        checks=[Check("parts_filled", not empty, words)],
    )


def train_price(
    night: Night,
    horizon: int,
    price_features: pd.DataFrame,
    price_history: pd.DataFrame,
    time_split: dict[str, object],
) -> Made:
    """One horizon's model for all regions, its forecasts of the whole window, and what it looked at."""
    config, name = night.config.price_prediction, price_model_id(horizon)
    trainer = night.trainer()
    trained = trainer.train_for_horizon(
        price_features,
        feature_columns(price_features),
        horizon,
        split=TimeSplit.from_dict(time_split),
        history=price_history,
        progress=night.progress.callback(name),
        kept_in=night.blocks_of(name),
    )
    trainer.results.pop(horizon)  # a year's forecasts are no small thing to have twice
    model: PricePredictionModel = trained["model"]
    forecasts: Frames = trained["forecasts"]
    tested = in_memory(forecasts, {SPLIT: ["test"]})
    importance = model.importance_table()
    history = {**model.provenance["history"], "fingerprint": time_split["history_fingerprint"]}
    covariates = model.provenance["covariates"]
    record = night.record(
        time_split["fingerprint"], config, metrics=trained["metrics"], history=history, covariates=covariates
    )
    test = forecast_metrics(tested, by=[HORIZON]).iloc[0]
    night.progress.write(name, 1.0, {"mae": test["mae"], "rmae": test["rmae"]}, state="completed")
    facts = {
        "price_unit": shown().price,
        "mae": test["mae"],
        "rmse": test["rmse"],
        "mae_price_stays": test["persistence_mae"],
        "rmae": test["rmae"],
        "coverage": test["coverage"],
        "rows_left_out": model.provenance["rows_left_out"],
        "history": history,
        "covariates": pd.DataFrame(covariates) if covariates else "none",
        "forecast_chart": charts.forecast_chart(tested, level=config.interval_level),
        "importance_chart": charts.importance_chart(importance),
        "importance": importance.head(12),  # a longer table would be hidden behind a click
        "importance_by_family": family_importance(importance),
        "provenance": record,
    }
    finite = all(frame[[PRICE_FORECAST, LOWER, UPPER]].notna().all().all() for frame in frames_of(forecasts))
    words = f"test MAE {test['mae']:.2f} against {test['persistence_mae']:.2f}: {test['rmae']:.3f}"
    return Made(
        model,
        {"forecasts": forecasts, "importance": importance, "provenance": record},
        facts,
        [
            Check("forecasts_finite", finite),
            Check("beats_persistence", bool(test["rmae"] < 1), words, {"rmae": test["rmae"]}),
        ],
    )


def forecasts(night: Night, **by_horizon: Frames) -> Made:
    """Out-of-sample forecasts of all horizons over the window, cross-fitted in the training part."""
    every = [by_horizon[f"forecasts_{horizon}"] for horizon in night.settings.horizons]
    if all(isinstance(one, pd.DataFrame) for one in every):
        made: Frames = pd.concat(every, ignore_index=True)
    else:
        made = write_parts(night.blocks_of(FORECASTS_FILE), (frame for one in every for frame in frames_of(one)))
    counts = pd.concat([pd.crosstab(frame[HORIZON], frame[SPLIT]) for frame in frames_of(made)])
    counts = counts.fillna(0).groupby(level=0).sum().astype(int).reset_index()
    filled = len(counts) == len(every) and bool((counts.drop(columns=HORIZON) > 0).all().all())
    facts = {"rows": counts, "test": forecast_metrics(chosen(made, {SPLIT: ["test"]}), by=[HORIZON])}
    return Made(made, facts=facts, checks=[Check("every_horizon_in_every_split", filled)])


def train_policy(
    night: Night,
    price_features: pd.DataFrame,
    battery_features: pd.DataFrame,
    time_split: dict[str, object],
    forecasts: Frames,
) -> Made:
    """When to charge, hold and discharge: a plan on out-of-sample forecasts, corrected by tabular Q-learning."""
    regions, homes = price_features[REGION].unique(), battery_features.get(REGION, pd.Series(dtype=object))
    wanted = policy_regions(night.settings, list(regions), homes.dropna().unique())
    trained = BatteryRLTrainer(night.config).train_all(
        wanted,
        prices=in_memory(night.prices_of(price_features), {REGION: wanted}),
        forecasts=night.planned(price_features, forecasts, wanted),
        split=TimeSplit.from_dict(time_split),
        progress=night.progress.callback(POLICY_ID),
    )
    metrics = trained["metrics"]
    batteries = [asdict(entry) for entry in night.config.batteries]
    record = night.record(time_split["fingerprint"], night.config.rl_battery, metrics=metrics, batteries=batteries)
    night.progress.write(POLICY_ID, 1.0, metrics, state="completed")
    tables, profit = trained["tables"], metrics["validation_profit"]
    region = charts.shown_region(tables)
    facts = {
        "regions": trained["regions"],
        "value_map": charts.value_map(tables[region], title=region),
        "action_map": charts.action_map(tables[region], title=region),
        "learning_curve": charts.learning_curve(trained["learning"]),
        "provenance": record,
    }
    return Made(
        trained["policy"].learned,
        {"learning": trained["learning"], "provenance": record},
        facts,
        [
            Check("values_finite", bool(trained["finite"])),
            Check("earns_on_validation", profit > 0, f"validation profit {profit:,.2f} over all regions"),
        ],
    )


def evaluate(night: Night, forecasts: Frames) -> Made:
    """Errors, intervals, spikes and significance of the forecasts, beside "the price stays" and yesterday."""
    config, settings = night.config.price_prediction, night.settings
    scores = ForecastScores.of(forecasts, interval_level=config.interval_level, spike_quantile=config.spike_quantile)
    tested = scores.part("test")
    test = tested.overall
    columns = [HORIZON, "mae", "persistence_mae", "rmae", "rmse", "dm_p_value", "coverage", "winkler"]
    facts = {
        "test": test[columns],
        "price_unit": shown().price,
        "error_relative_to_price_stays": charts.rmae_by_horizon(test, tested.by_region),
        "error_by_hour": charts.error_by_hour(tested.by_hour),
    }
    finite = bool(test["mae"].notna().all() and len(test) == len(settings.horizons))
    return Made(
        scores.to_records(),
        facts=facts,
        checks=[
            Check("metrics_finite", finite),
            checks.intervals_honest(settings, test, config.interval_level),
            checks.newest_day_as_promised(settings, forecasts),
        ],
    )


def backtest(
    night: Night,
    price_features: pd.DataFrame,
    battery_features: pd.DataFrame,
    time_split: dict[str, object],
    forecasts: Frames,
    battery_policy: LearnedPolicy,
) -> Made:
    """Every strategy on the test days: the policy, with forecasts and without, baselines and the optimum.

    One reference battery in each region of the policy, and every battery of the settings and of the telemetry. Beside
    them the policy alone, with the reference battery as most people would get it.
    """
    split, config = TimeSplit.from_dict(time_split), night.config.rl_battery
    regions = sorted(battery_policy.agents)
    prices = in_memory(night.prices_of(price_features), {REGION: regions})
    units = reference_units(regions, Battery.from_config(config), config.execution_delay)
    fleet, problems = own_units(battery_features, split, config, regions, night.config.batteries)
    policy = BatteryPolicy.of(battery_policy)
    side_by_side = functools.partial(
        run_backtest,
        prices,
        split=split,
        forecasts=night.planned(price_features, forecasts, regions),
        threads=night.config.threads,
        parallel=night.config.parallel,
    )
    strategies = [policy, Blind(policy), *baselines(with_forecasts=True)]
    frame, summary = side_by_side(strategies, [*units, *fleet])
    usual = config.as_usual()
    usual_units = [
        replace(unit, battery_id=AS_USUAL)
        for unit in reference_units(regions, Battery.from_config(usual), usual.execution_delay)
    ]
    as_usual = pool_summary(side_by_side([policy], usual_units).summary)
    pooled = pool_summary(summary)
    own = summary[(summary[STRATEGY] == OUR_POLICY) & (summary[REGION] != POOLED)]
    share = pooled.set_index("strategy")["share"]
    limits = {(u.region, u.battery_id): (u.battery.low_mwh, u.battery.high_mwh) for u in [*units, *fleet]}
    inside = all(
        rows[CHARGE_END].between(limits[key][0] - 1e-9, limits[key][1] + 1e-9).all()
        for key, rows in frame.groupby([REGION, BATTERY_ID])
    )
    facts = {
        "currency": shown().currency,
        "strategies": pooled[["strategy", "profit", "share", "cycles_per_day"]],
        "share_of_optimum": charts.share_of_optimum(pooled),
        "cumulative_profit": charts.cumulative_profit(mark_to_market(frame, summary)),
        "batteries": own[[BATTERY_ID, REGION, "profit", "share", "profit_per_mw_year"]],
    }
    return Made(
        frame,
        {
            "summary": {
                "summary": summary.to_dict("records"),
                "as_usual": as_usual.to_dict("records"),
                "described": {
                    u.battery_id: battery_words(u.battery, u.execution_delay) for u in [*units, *usual_units, *fleet]
                },
                "problems": [p.to_dict() for p in problems],
            }
        },
        facts,
        [
            Check("within_limits", bool(inside)),
            checks.beats_threshold_rule(share[OUR_POLICY], share[THRESHOLD]),
        ],
    )


def decide(
    night: Night,
    price_features: pd.DataFrame,
    time_split: dict[str, object],
    forecasts: Frames,
    policy_provenance: dict[str, object],
    **provenance: dict[str, object],
) -> Made:
    """New versions of all models, each compared with its champion on the same newest test window.

    A version becomes champion only if it is better and its as-of date isn't older; the reason is on record. Champions
    that can't serve the day's prices any more, because their interval has changed, are retired, and so are those of
    horizons that the settings have no more.
    """
    models, config, split = night.registry, night.config, TimeSplit.from_dict(time_split)
    version, decisions = models.new_version(), {}

    def submit(artefact: str, model_id: str, metadata: dict[str, object], judge: Callable[..., Decision]) -> None:
        sha256 = night.digest_of(artefact)
        candidate = night.store.read(night.as_of, artefact, sha256)
        decision = register_and_decide(
            models,
            model_type=artefact.partition("/")[0],
            model_id=model_id,
            version=version,
            filepath=str(night.store.path(night.as_of, artefact)),
            sha256=sha256,
            metadata=metadata,
            judge=lambda champion: judge(
                candidate,
                None if champion is None else functools.partial(models.load, model_id, champion["version"]),
                as_of=str(night.as_of),
                as_of_champion=None if champion is None else champion["metadata"].get("as_of"),
                rule=config.promotion,
            ),
            who="energy_ml",
            max_backups=config.max_backups if config.keep_backup else 0,
        )
        decisions[model_id] = {
            "promote": decision.promote,
            "reason": decision.reason,
            "version": version,
            "numbers": decision.numbers,
        }

    for horizon in night.settings.horizons:
        artefact = f"{PRICE_PREDICTION}/{price_model_name(horizon)}.pkl"
        tested = in_memory(forecasts, {SPLIT: ["test"], HORIZON: [horizon]})
        judge = functools.partial(judge_price_model, features=price_features, forecasts=tested, split=split)
        submit(artefact, price_model_id(horizon), provenance[f"provenance_{horizon}"], judge)

    def judge_battery(candidate: LearnedPolicy, *others: Any, **how: Any) -> Decision:
        return judge_policy(
            candidate,
            *others,
            prices=night.prices_of(price_features),
            forecasts=night.planned(price_features, forecasts, candidate.agents),
            split=split,
            battery=Battery.from_config(config.rl_battery),
            execution_delay=config.rl_battery.execution_delay,
            **how,
        )

    submit(f"{RL_BATTERY}/{POLICY_FILE}", POLICY_ID, policy_provenance, judge_battery)
    interval = int(time_split["interval_minutes"])  # type: ignore[call-overload]
    retired = retire_unfit(models, interval, night.settings.horizons, as_of=str(night.as_of), who="energy_ml")
    for model_id, (old, reason) in retired.items():
        kept = decisions.setdefault(model_id, {"promote": False, "reason": "", "version": old, "numbers": {}})
        kept["reason"] = f"{kept['reason']}; {old} {reason}" if kept["reason"] else reason
    models.write_training_results()
    rows = [{"model": name, "promoted": d["promote"], "why": d["reason"]} for name, d in decisions.items()]
    facts = {
        "version": version,
        "promoted": sum(bool(d["promote"]) for d in decisions.values()),
        "retired": ", ".join(retired) or "none",
        "decisions": pd.DataFrame(rows),
        "registry": models.path,
    }
    return Made(decisions, facts=facts)


def report(
    night: Night,
    battery_policy: LearnedPolicy,
    forecasts: Frames,
    time_split: Mapping[str, Any],
    price_evaluation: Mapping[str, list[dict[str, object]]],
    battery_backtest: pd.DataFrame,
    battery_summary: dict[str, Any],
    learning: pd.DataFrame,
    registry_entry: dict[str, dict[str, object]],
    **by_horizon: Any,
) -> Made:
    """One self-contained HTML page: verdicts, forecasts, intervals, the battery's day, what was decided and why."""
    config, summary = night.config, pd.DataFrame(battery_summary["summary"])
    scores = ForecastScores.from_records(price_evaluation)
    test = scores.part("test").overall
    looked_at = [by_horizon[f"importance_{h}"].assign(**{HORIZON: h}) for h in night.settings.horizons]
    told = {h: by_horizon[f"provenance_{h}"] for h in night.settings.horizons}
    covariates = [{HORIZON: h, **trial} for h, record in told.items() for trial in record.get("covariates", ())]
    history = next(iter(told.values()))["history"]
    record = night.record(time_split["fingerprint"], config, history=history, covariates=covariates)
    html = render_report(
        as_of=str(night.as_of),
        split=time_split,
        forecasts=ForecastResults(
            in_memory(forecasts, {SPLIT: ["test"]}),
            scores,
            pd.concat(looked_at, ignore_index=True),
            config.price_prediction.interval_level,
            spike_thresholds(forecasts, config.price_prediction.spike_quantile),
        ),
        battery=BatteryResults(
            battery_backtest,
            summary,
            {name: cast("charts.PolicyTable", agent.heat_maps()) for name, agent in battery_policy.agents.items()},
            learning,
            pd.DataFrame(battery_summary["as_usual"]),
            battery_summary["described"],
        ),
        decisions=registry_entry,
        problems=[*time_split["problems"], *battery_summary["problems"]],
        provenance=record,
    )
    pooled, page = pool_summary(summary), night.settings.operations.service_url
    metrics = {
        "as_of": str(night.as_of),
        "prices": scores.overall[scores.overall[SPLIT] == "test"].to_dict("records"),
        "battery": pooled.to_dict("records"),
        "battery_as_usual": battery_summary["as_usual"],
        "described": battery_summary["described"],
        "batteries": summary[summary[REGION] != POOLED].to_dict("records"),
        "decisions": [f"{model_id}: {decision['reason']}" for model_id, decision in registry_entry.items()],
        "provenance": record,
    }
    facts = {
        "report": night.store.path(night.as_of, REPORT_FILE),
        "mlflow": mlflow_mirror.mirror(night.registry, str(night.as_of), registry_entry, html, night.run_id),
        "report_page": f"{page.rstrip('/')}/reports/{night.as_of}" if page else None,
        "price_unit": shown().price,
        "prices": test[[HORIZON, "mae", "persistence_mae", "rmae"]],
        "battery": pooled[["strategy", "profit", "share"]],
    }
    return Made(html, {"metrics": metrics}, facts)


def leaderboard(store: ResultsStore, registry: ModelRegistry) -> Made:
    """Over all as-of dates: forecast skill by horizon, share of the optimum by region, who was champion when.

    A backfill fills it; ``results/leaderboard.html`` is the same as a page.
    """
    listed = registry.list_models()
    frame, unreadable = gather_leaderboard(store, listed)
    reigns = succession(listed, registry.history())
    page = store.root / LEADERBOARD_FILE
    write_atomically(str(page), render_leaderboard(frame, reigns).encode())
    skill, shares = (frame[frame["metric"] == metric] for metric in ("rmae", "share"))
    by_horizon = (
        skill.astype({HORIZON: int}).pivot_table(index="as_of", columns=HORIZON, values="value").add_suffix(" min")
    )
    by_region = shares.pivot_table(index="as_of", columns=REGION, values="value")
    facts = {
        "as_of_dates": int(frame["as_of"].nunique()),
        "skill_over_time": charts.skill_over_time(skill.rename(columns={"value": "rmae"})),
        "error_relative_to_price_stays": by_horizon.sort_index(ascending=False).reset_index(),
        "share_of_optimum": by_region.sort_index(ascending=False).reset_index(),
        "champions": reigns.drop(columns=["who"]),
        "page": page,
        "unreadable": "; ".join(unreadable) or "none",
    }
    return Made(frame, facts=facts)
