"""The asset graph: which steps a day has, what each reads and leaves, and what is checked of it.

What belongs here: the table of steps, the user's files as external assets, the leaderboard. What doesn't: what a step
does (``energy_ml.day``), and how it becomes an asset (``steps``).
"""

import datetime as dt
import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace

import dagster as dg
import pandas as pd

from energy_ml import __version__, day
from energy_ml.config import Settings
from energy_ml.errors import ConfigError
from energy_ml.model_management.registry import registry_of
from energy_ml.names import (
    BACKTEST_FILE,
    FORECASTS_FILE,
    METRICS_FILE,
    POLICY_FILE,
    POLICY_ID,
    REPORT_FILE,
    price_model_id,
    price_model_name,
)
from energy_ml.orchestration.metadata import to_metadata
from energy_ml.orchestration.partitions import as_of_days, raw_days
from energy_ml.orchestration.shell import backfill_policy
from energy_ml.orchestration.steps import OWNERS, ROLE, Step, asset_of, key_of
from energy_ml.results import ResultsStore
from energy_ml.training_window import fetch_window

MARKET_PRICES, BATTERY_TELEMETRY = key_of("raw/market_prices"), key_of("raw/battery_telemetry")
REPORT, REGISTRY_ENTRY = key_of("evaluation/report"), key_of("model_management/registry_entry")

_PRICES = """Real-time prices, one row per interval and region: `timestamp` (start of the interval, UTC), `region`,
`real_time_price` (currency/MWh). Any `*.parquet` in the data folder that has these columns. The sensor `new_parquet`
reports which days the files cover."""
_TELEMETRY = """Battery telemetry: `timestamp`, `battery_id`, `charge_level_mwh`, `capacity_mwh`, optionally `region`
and `power_mw`. Optional: without it the policy is judged on the reference battery alone."""


def all_assets(settings: Settings) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """The whole graph: the user's files, a day's steps, and the leaderboard over all days."""
    return [
        *_raw_assets(settings),
        *(asset_of(settings, step, turn) for turn, step in enumerate(day_steps(settings))),
        _leaderboard(settings),
    ]


def _raw_assets(settings: Settings) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """The user's parquet files as external assets, which nothing here computes; prices of a market are fetched."""
    external = [
        dg.AssetSpec(
            key,
            description=description,
            group_name="raw",
            partitions_def=raw_days(settings),
            kinds={"parquet"},
            owners=[OWNERS["raw"]],
            code_version=__version__,
            tags={ROLE: "input"},
            metadata={"data_dir": settings.data_dir},
        )
        for key, description in ((MARKET_PRICES, _PRICES), (BATTERY_TELEMETRY, _TELEMETRY))
    ]
    if settings.operations.market is None:
        return [*external]
    return [_fetched_prices(settings, external[0]), external[1]]


def _fetched_prices(settings: Settings, spec: dg.AssetSpec) -> dg.AssetsDefinition:
    """``spec`` as an asset that fetches what as-of dates are made from: a range of them in one run, one run at a time.

    Its partitions are as-of dates, as of all that is computed, so that one run can hold it and what comes of it.
    """
    market = str(settings.operations.market)
    fetched = f"Fetched from {market}: an as-of date's window, as far as it isn't there, and its newest days anew."

    @dg.multi_asset(
        name="raw__market_prices",
        specs=[spec.replace_attributes(description=f"{_PRICES} {fetched}", partitions_def=as_of_days(settings))],
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL),
        pool="market",
    )
    def market_prices(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        try:
            days = pd.DataFrame(fetch_window(settings, *map(dt.date.fromisoformat, context.partition_key_range)))
        except ConfigError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        return dg.MaterializeResult(metadata=to_metadata({"market": market, "days": days}))

    return market_prices


def day_steps(settings: Settings) -> list[Step]:
    """The steps of one as-of date, in the order of the day."""
    horizons = settings.horizons
    steps = [
        *_feature_steps(settings),
        *(_model_step(horizon) for horizon in horizons),
        Step(
            "price_prediction/forecasts",
            FORECASTS_FILE,
            day.forecasts,
            {"pandas", "parquet"},
            inputs=_of_each("forecasts", horizons),
            after=tuple(_model_key(h) for h in horizons),
            checks={
                "every_horizon_in_every_split": "Policy and evaluation get forecasts of each horizon in each split."
            },
            must_pass=frozenset({"every_horizon_in_every_split"}),
        ),
        _policy_step(),
        *_evaluation_steps(),
        Step(
            "model_management/registry_entry",
            "model_management/decisions.json",
            day.decide,
            {"json", "python"},
            inputs={"policy_provenance": "rl_battery/provenance", **_of_each("provenance", horizons)},
            after=(
                *(_model_key(h) for h in horizons),
                "rl_battery/battery_policy",
                "evaluation/price_evaluation",
                "evaluation/battery_backtest",
            ),
            # The nightly run has until noon. A backfill of an old day counts too: data_recent sees through that.
            freshness=dg.FreshnessPolicy.cron(
                deadline_cron="0 12 * * *", lower_bound_delta=dt.timedelta(hours=12), timezone="UTC"
            ),
        ),
        Step(
            "evaluation/report",
            REPORT_FILE,
            day.report,
            {"html"},
            inputs={**_of_each("provenance", horizons), **_of_each("importance", horizons)},
            beside={"metrics": ("evaluation/metrics", METRICS_FILE)},
            share=3.0,
        ),
    ]
    made = {path.rpartition("/")[2]: path for step in steps for path, _ in step.outputs.values()}
    return [replace(step, inputs={**_called_as(step, made), **step.inputs}) for step in steps]


def _called_as(step: Step, made: Mapping[str, str]) -> dict[str, str]:
    """The arguments of the step's function that are called as what a step has ``made``."""
    told = inspect.signature(step.run).parameters.values()
    return {one.name: made[one.name] for one in told if one.name in made and one.kind is not one.VAR_KEYWORD}


def _of_each(what: str, horizons: Iterable[int]) -> dict[str, str]:
    """An input for what each horizon's model leaves beside it."""
    return {f"{what}_{h}": f"price_prediction/{what}_{h}min" for h in horizons}


def _file(name: str) -> tuple[str, str]:
    """An output whose key is the file's name without its ending."""
    return name.rpartition(".")[0], name


def _model_key(horizon: int) -> str:
    return f"price_prediction/{price_model_name(horizon)}"


def _feature_steps(settings: Settings) -> list[Step]:
    files = {"raw": MARKET_PRICES} if settings.operations.market is None else {"after": ("raw/market_prices",)}
    return [
        Step(
            *_file("features/price_features.parquet"),
            day.price_features,
            {"pandas", "parquet"},
            **files,
            beside={"data": _file("features/data.json"), "history": _file("features/price_history.parquet")},
            checks={
                "window_complete": "The window is readable, on one interval, and holds enough of each region.",
                "few_repairs": "Under 1 % of the window's prices weren't measured.",
                "data_recent": "The day that should be there by now is there.",
                "covariates_known": "Something is known of each covariate at nearly all of the newest day's prices.",
                "regions_present": "Every region that the files know has prices.",
                "features_stable": "The newest day's features are distributed as in training.",
            },
            must_pass=frozenset({"window_complete"}),
            gate="window_complete",
        ),
        Step(
            *_file("features/battery_features.parquet"),
            day.battery_features,
            {"pandas", "parquet"},
            raw=BATTERY_TELEMETRY,
            checks={"telemetry_plausible": "No charge above capacity, no jump beyond power."},
        ),
        Step(
            *_file("features/time_split.json"),
            day.time_split,
            {"json"},
            checks={"parts_filled": "Every part has rows at every horizon after the purge."},
            must_pass=frozenset({"parts_filled"}),
        ),
    ]


def _model_step(horizon: int) -> Step:
    name = price_model_name(horizon)
    return Step(
        _model_key(horizon),
        f"price_prediction/{name}.pkl",
        functools.partial(day.train_price, horizon=horizon),
        {"xgboost", "python"},
        beside={
            "forecasts": _file(f"price_prediction/forecasts_{horizon}min.parquet"),
            "importance": _file(f"price_prediction/importance_{horizon}min.parquet"),
            "provenance": (f"price_prediction/provenance_{horizon}min", f"price_prediction/{name}.json"),
        },
        checks={
            "forecasts_finite": "No forecast is NaN or infinite.",
            "beats_persistence": "Test error below that of 'the price stays'.",
        },
        must_pass=frozenset({"forecasts_finite"}),
        told_as=price_model_id(horizon),
        share=10.0,
        description=f"The price {horizon} minutes ahead, one model for all regions: the change from the price now, "
        "learned on train, stopped on validation, judged on test beside 'the price stays'.",
    )


def _policy_step() -> Step:
    return Step(
        "rl_battery/battery_policy",
        f"rl_battery/{POLICY_FILE}",
        day.train_policy,
        {"numba", "python"},
        beside={
            "learning": _file("rl_battery/learning.parquet"),
            "provenance": ("rl_battery/provenance", f"rl_battery/{POLICY_ID}.json"),
        },
        checks={
            "values_finite": "No value in the tables is NaN.",
            "earns_on_validation": "Validation profit above that of holding.",
        },
        must_pass=frozenset({"values_finite"}),
        told_as=POLICY_ID,
        share=4.0,
    )


def _evaluation_steps() -> list[Step]:
    return [
        Step(
            *_file("evaluation/price_evaluation.json"),
            day.evaluate,
            {"pandas", "json"},
            after=("features/time_split",),
            checks={
                "metrics_finite": "Every horizon has an error.",
                "intervals_honest": "Intervals cover about as much as they promise, at every horizon.",
                "newest_day_as_promised": "The newest day's error is about that of validation, both relative to "
                "'the price stays'.",
            },
            must_pass=frozenset({"metrics_finite"}),
            share=2.0,
        ),
        Step(
            "evaluation/battery_backtest",
            BACKTEST_FILE,
            day.backtest,
            {"pandas", "parquet"},
            beside={"summary": _file("evaluation/battery_summary.json")},
            checks={
                "within_limits": "No strategy ever leaves the charge limits.",
                "beats_threshold_rule": "The policy earns more than the threshold rule.",
            },
            must_pass=frozenset({"within_limits"}),
            share=6.0,
        ),
    ]


def _leaderboard(settings: Settings) -> dg.AssetsDefinition:
    """All as-of dates at a glance.

    It has no partitions, being about all of them, and so is no part of the partitioned jobs; a run of ``'*'`` has it.
    """

    @dg.asset(
        key=key_of("evaluation/leaderboard"),
        deps=[REPORT],
        group_name="evaluation",
        kinds={"html"},
        owners=[OWNERS["evaluation"]],
        code_version=__version__,
        tags={ROLE: "overview"},
        description=day.leaderboard.__doc__,
        backfill_policy=backfill_policy(),  # all of a selection must have it
    )
    def leaderboard() -> dg.MaterializeResult[None]:
        made = day.leaderboard(ResultsStore(settings.results_dir), registry_of(settings))
        return dg.MaterializeResult(metadata=to_metadata(made.facts))

    return leaderboard
