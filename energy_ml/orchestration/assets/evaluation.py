"""Evaluation assets: metrics of the forecasts, the battery backtest, and the report that people open.

What belongs here: which tables are made and shown. What doesn't: metrics, strategies, drawing.
"""

from typing import Any

import dagster as dg
import pandas as pd

from energy_ml.config import Settings
from energy_ml.evaluation.backtest_evaluator import (
    backtest,
    mark_to_market,
    pool_summary,
    reference_units,
    telemetry_units,
)
from energy_ml.evaluation.charts import cumulative_profit, error_by_hour, rmae_by_horizon, share_of_optimum
from energy_ml.evaluation.metrics import ForecastScores
from energy_ml.evaluation.reports import BatteryResults, ForecastResults, render_report
from energy_ml.features import prices_of
from energy_ml.orchestration import checks
from energy_ml.orchestration.assets.features import BATTERY_FEATURES, PRICE_FEATURES, TIME_SPLIT
from energy_ml.orchestration.assets.price_prediction import FORECASTS
from energy_ml.orchestration.assets.rl_battery import BATTERY_POLICY
from energy_ml.orchestration.io_managers import FILE
from energy_ml.orchestration.metadata import columns_of, to_metadata
from energy_ml.orchestration.partitions import as_of_days
from energy_ml.orchestration.resources import ResultsResource
from energy_ml.provenance import provenance
from energy_ml.rl_battery import BatteryPolicy
from energy_ml.rl_battery.baselines import baselines
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.obvious import ObviousQLearning
from energy_ml.rl_battery.strategy import Blind
from energy_ml.splits import TimeSplit

PRICE_EVALUATION = dg.AssetKey(["evaluation", "price_evaluation"])
BATTERY_BACKTEST = dg.AssetKey(["evaluation", "battery_backtest"])
REPORT = dg.AssetKey(["evaluation", "report"])
REGISTRY_ENTRY = dg.AssetKey(["model_management", "registry_entry"])


def evaluation_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Price evaluation, battery backtest and report."""
    config = settings.ml_config()
    level = config.price_prediction.interval_level
    common: dict[str, Any] = {
        "group_name": "evaluation",
        "partitions_def": as_of_days(settings),
        "owners": ["team:evaluation"],
    }
    split_in = dg.AssetIn(key=TIME_SPLIT)
    forecasts_in = dg.AssetIn(key=FORECASTS)

    @dg.asset(
        key=PRICE_EVALUATION,
        ins={"forecasts": forecasts_in, "time_split": split_in},
        kinds={"pandas", "json"},
        metadata={FILE: "evaluation/price_evaluation.json"},
        check_specs=[
            dg.AssetCheckSpec(
                "metrics_finite", asset=PRICE_EVALUATION, blocking=True, description="Every horizon has an error."
            ),
            checks.spec(
                settings,
                "intervals_honest",
                PRICE_EVALUATION,
                "Intervals cover about as much as they promise, at every horizon.",
            ),
            checks.spec(
                settings,
                "newest_day_as_promised",
                PRICE_EVALUATION,
                "The newest day's error is about that of validation, both relative to 'the price stays'.",
            ),
        ],
        **common,
    )
    def price_evaluation(context: dg.AssetExecutionContext, forecasts: pd.DataFrame, time_split: dict[str, Any]):
        """Errors, intervals, spikes and significance of the forecasts, beside "the price stays" and yesterday."""
        scores = ForecastScores.of(
            forecasts, interval_level=level, spike_quantile=config.price_prediction.spike_quantile
        )
        tested = scores.part("test")
        test = tested.overall
        limit = settings.operations.max_coverage_gap
        off = test[(test["coverage"] - level).abs() > limit]
        kept, kept_words, kept_table = checks.newest_day_as_promised(settings.operations, forecasts)
        return dg.MaterializeResult(
            value=scores.to_records(),
            metadata=to_metadata(
                {
                    "test": test[
                        [
                            "horizon_minutes",
                            "mae",
                            "persistence_mae",
                            "rmae",
                            "rmse",
                            "dm_p_value",
                            "coverage",
                            "winkler",
                        ]
                    ],
                    "error_relative_to_price_stays": rmae_by_horizon(test, tested.by_region),
                    "error_by_hour": error_by_hour(tested.by_hour),
                }
            ),
            check_results=[
                dg.AssetCheckResult(
                    check_name="metrics_finite",
                    passed=bool(test["mae"].notna().all() and len(test) == len(settings.horizons)),
                ),
                checks.result(
                    settings,
                    "intervals_honest",
                    off.empty,
                    f"{level:.0%} promised, {limit:.0%} either way allowed; "
                    + ", ".join(f"{r['horizon_minutes']} min: {r['coverage']:.1%}" for r in test.to_dict("records")),
                ),
                checks.result(settings, "newest_day_as_promised", kept, kept_words, {"by_horizon": kept_table}),
            ],
        )

    @dg.asset(
        key=BATTERY_BACKTEST,
        ins={
            "price_features": dg.AssetIn(key=PRICE_FEATURES),
            "battery_features": dg.AssetIn(key=BATTERY_FEATURES),
            "time_split": split_in,
            "forecasts": forecasts_in,
            "battery_policy": dg.AssetIn(key=BATTERY_POLICY),
        },
        kinds={"pandas", "parquet"},
        metadata={FILE: "battery_backtest.parquet"},
        check_specs=[
            dg.AssetCheckSpec(
                "within_limits",
                asset=BATTERY_BACKTEST,
                blocking=True,
                description="No strategy ever leaves the charge limits.",
            ),
            checks.spec(
                settings, "beats_threshold_rule", BATTERY_BACKTEST, "The policy earns more than the threshold rule."
            ),
        ],
        **common,
    )
    def battery_backtest(
        context: dg.AssetExecutionContext,
        price_features: pd.DataFrame,
        battery_features: pd.DataFrame,
        time_split: dict[str, Any],
        forecasts: pd.DataFrame,
        battery_policy: Any,
        results: ResultsResource,
    ):
        """Every strategy on the test days: the policy, with forecasts and without, baselines and the optimum.

        One reference battery in each region, and every battery of the telemetry.
        """
        split = TimeSplit.from_dict(time_split)
        prices = prices_of(price_features, config.price_prediction.target_column)
        regions = sorted(prices["region"].unique())
        units = reference_units(regions, Battery.from_config(config.rl_battery))
        fleet, problems = (
            telemetry_units(battery_features, split, config.rl_battery, regions) if len(battery_features) else ([], [])
        )
        policy = BatteryPolicy.of(battery_policy)
        frame, summary = backtest(
            prices,
            [policy, Blind(policy), *baselines(with_forecasts=True), ObviousQLearning()],
            [*units, *fleet],
            split,
            forecasts=forecasts,
            execution_delay=config.rl_battery.execution_delay,
        )
        results.store().write(
            context.partition_key,
            "evaluation/battery_summary.json",
            {"summary": summary.to_dict("records"), "problems": [problem.to_dict() for problem in problems]},
        )
        pooled = pool_summary(summary)
        share = pooled.set_index("strategy")["share"]
        limits = {(u.region, u.battery_id): (u.battery.low_mwh, u.battery.high_mwh) for u in [*units, *fleet]}
        inside = all(
            rows["charge_level_end_mwh"].between(limits[key][0] - 1e-9, limits[key][1] + 1e-9).all()
            for key, rows in frame.groupby(["region", "battery_id"])
        )
        return dg.MaterializeResult(
            value=frame,
            metadata=to_metadata(
                {
                    "dagster/row_count": len(frame),
                    "dagster/column_schema": columns_of(frame),
                    "strategies": pooled[["strategy", "profit", "share", "cycles_per_day"]],
                    "share_of_optimum": share_of_optimum(pooled),
                    "cumulative_profit": cumulative_profit(mark_to_market(frame, summary)),
                    "batteries": ", ".join(u.battery_id for u in fleet) or "no telemetry: reference battery only",
                }
            ),
            check_results=[
                dg.AssetCheckResult(check_name="within_limits", passed=bool(inside)),
                checks.result(
                    settings,
                    "beats_threshold_rule",
                    share["q_learning"] > share["threshold"],
                    f"{share['q_learning']:.1%} of the optimum against {share['threshold']:.1%}",
                    {"share_of_optimum": share["q_learning"], "share_of_threshold_rule": share["threshold"]},
                ),
            ],
        )

    @dg.asset(
        key=REPORT,
        ins={
            "battery_policy": dg.AssetIn(key=BATTERY_POLICY),
            "forecasts": forecasts_in,
            "time_split": split_in,
            "price_evaluation": dg.AssetIn(key=PRICE_EVALUATION),
            "battery_backtest": dg.AssetIn(key=BATTERY_BACKTEST),
            "registry_entry": dg.AssetIn(key=REGISTRY_ENTRY),
        },
        kinds={"html"},
        metadata={FILE: "report.html"},
        **common,
    )
    def report(
        context: dg.AssetExecutionContext,
        forecasts: pd.DataFrame,
        time_split: dict[str, Any],
        price_evaluation: dict[str, Any],
        battery_backtest: pd.DataFrame,
        registry_entry: dict[str, Any],
        battery_policy: Any,
        results: ResultsResource,
    ):
        """One self-contained HTML page: verdicts, forecasts, intervals, the battery's day, what was decided and why."""
        store, day = results.store(), context.partition_key
        batteries = store.read(day, "evaluation/battery_summary.json")
        summary = pd.DataFrame(batteries["summary"])
        scores = ForecastScores.from_records(price_evaluation)
        test = scores.overall[scores.overall["split"] == "test"]
        importance = pd.concat(
            [
                store.read(day, f"price_prediction/importance_{h}min.parquet").assign(horizon_minutes=h)
                for h in settings.horizons
            ],
            ignore_index=True,
        )
        record = provenance(
            as_of=day, data_fingerprint=time_split["fingerprint"], config=config, run_id=context.run.run_id
        )
        html = render_report(
            as_of=day,
            split=time_split,
            forecasts=ForecastResults(forecasts, scores, importance, level),
            battery=BatteryResults(
                battery_backtest,
                summary,
                {name: agent.heat_maps() for name, agent in battery_policy.agents.items()},
                store.read(day, "rl_battery/learning.parquet"),
            ),
            decisions=registry_entry,
            problems=[*time_split["problems"], *batteries["problems"]],
            provenance=record,
        )
        pooled = pool_summary(summary)
        store.write(
            day,
            "metrics.json",
            {
                "as_of": day,
                "prices": test.to_dict("records"),
                "battery": pooled.to_dict("records"),
                "batteries": summary[summary["region"] != "all"].to_dict("records"),
                "decisions": [f"{model_id}: {decision['reason']}" for model_id, decision in registry_entry.items()],
                "provenance": record,
            },
        )
        return dg.MaterializeResult(
            value=html,
            metadata=to_metadata(
                {
                    "report": dg.MetadataValue.path(str(store.path(day, "report.html"))),
                    "prices": test[["horizon_minutes", "mae", "persistence_mae", "rmae"]],
                    "battery": pooled[["strategy", "profit", "share"]],
                }
            ),
        )

    return [price_evaluation, battery_backtest, report]
