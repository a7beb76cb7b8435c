"""The registry asset: every model of the run registered, judged against its champion, promoted or kept.

What belongs here: which models, and what is recorded of them. What doesn't: scores, the rule, the registry.
"""

import datetime as dt
import functools
from typing import Any

import dagster as dg
import pandas as pd

from energy_ml.config import Settings
from energy_ml.features import prices_of
from energy_ml.model_management.challenge import judge_policy, judge_price_model
from energy_ml.model_management.comparison import Decision
from energy_ml.model_management.promotion import register_and_decide, write_training_results
from energy_ml.orchestration.assets.evaluation import BATTERY_BACKTEST, PRICE_EVALUATION, REGISTRY_ENTRY
from energy_ml.orchestration.assets.features import PRICE_FEATURES, TIME_SPLIT
from energy_ml.orchestration.assets.price_prediction import FORECASTS, model_id, model_key
from energy_ml.orchestration.assets.rl_battery import BATTERY_POLICY
from energy_ml.orchestration.assets.rl_battery import MODEL_ID as POLICY_ID
from energy_ml.orchestration.io_managers import FILE
from energy_ml.orchestration.metadata import to_metadata
from energy_ml.orchestration.partitions import as_of_days
from energy_ml.orchestration.resources import RegistryResource, ResultsResource
from energy_ml.rl_battery.battery import Battery
from energy_ml.splits import TimeSplit


def model_management_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The one registry asset."""
    config = settings.ml_config()

    @dg.asset(
        key=REGISTRY_ENTRY,
        ins={
            "price_features": dg.AssetIn(key=PRICE_FEATURES),
            "time_split": dg.AssetIn(key=TIME_SPLIT),
            "forecasts": dg.AssetIn(key=FORECASTS),
        },
        deps=[
            *(model_key(horizon) for horizon in settings.horizons),
            BATTERY_POLICY,
            PRICE_EVALUATION,
            BATTERY_BACKTEST,
        ],
        partitions_def=as_of_days(settings),
        group_name="model_management",
        kinds={"json", "python"},
        owners=["team:operations"],
        metadata={FILE: "model_management/decisions.json"},
        # The nightly run has until noon. A backfill of an old day counts too: the check data_recent sees through that.
        freshness_policy=dg.FreshnessPolicy.cron(
            deadline_cron="0 12 * * *", lower_bound_delta=dt.timedelta(hours=12), timezone="UTC"
        ),
    )
    def registry_entry(
        context: dg.AssetExecutionContext,
        price_features: pd.DataFrame,
        time_split: dict[str, Any],
        forecasts: pd.DataFrame,
        registry: RegistryResource,
        results: ResultsResource,
    ):
        """New versions of all models, each compared with its champion on the same newest test window.

        A version becomes champion only if it is better and its as-of date isn't older; the reason is on record.
        """
        store, day, models = results.store(), context.partition_key, registry.registry()
        split, rule, version = TimeSplit.from_dict(time_split), config.promotion, models.new_version()
        prices = prices_of(price_features, config.price_prediction.target_column)
        decisions: dict[str, dict[str, Any]] = {}

        def submit(model_type: str, name: str, file: str, judge: Any) -> None:
            artefact = f"{model_type}/{file}.pkl"
            decision: Decision = register_and_decide(
                models,
                model_type=model_type,
                model_id=name,
                version=version,
                filepath=str(store.path(day, artefact)),
                metadata=store.read(day, f"{model_type}/{file}.json"),
                judge=lambda champion: judge(
                    store.read(day, artefact),
                    None if champion is None else functools.partial(models.load, name, champion["version"]),
                    as_of=day,
                    as_of_champion=None if champion is None else champion["metadata"].get("as_of"),
                    rule=rule,
                ),
                who="energy_ml",
                max_backups=config.max_backups if config.keep_backup else 0,
            )
            decisions[name] = {
                "promote": decision.promote,
                "reason": decision.reason,
                "version": version,
                "numbers": decision.numbers,
            }

        for horizon in settings.horizons:
            judge = functools.partial(judge_price_model, features=price_features, forecasts=forecasts, split=split)
            submit("price_prediction", model_id(horizon), f"model_{horizon}min", judge)
        submit(
            "rl_battery",
            POLICY_ID,
            "battery_policy",
            functools.partial(
                judge_policy,
                prices=prices,
                forecasts=forecasts,
                split=split,
                battery=Battery.from_config(config.rl_battery),
                execution_delay=config.rl_battery.execution_delay,
            ),
        )
        write_training_results(models)
        shown = [{"model": name, "promoted": d["promote"], "why": d["reason"]} for name, d in decisions.items()]
        return dg.MaterializeResult(
            value=decisions,
            metadata=to_metadata(
                {
                    "version": version,
                    "promoted": sum(d["promote"] for d in decisions.values()),
                    "decisions": pd.DataFrame(shown),
                    "registry": dg.MetadataValue.path(str(models.path)),
                }
            ),
        )

    return [registry_entry]
