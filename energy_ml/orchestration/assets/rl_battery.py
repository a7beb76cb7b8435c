"""The battery policy asset.

What belongs here: handing prices and forecasts to the learner, checks, metadata. What doesn't: learning.
"""

from typing import Any

import dagster as dg
import pandas as pd

from energy_ml.config import Settings
from energy_ml.errors import EnergyMLError
from energy_ml.evaluation.charts import learning_curve, policy_maps, shown_region
from energy_ml.features import prices_of
from energy_ml.orchestration.assets.features import PRICE_FEATURES, TIME_SPLIT
from energy_ml.orchestration.assets.price_prediction import FORECASTS
from energy_ml.orchestration.io_managers import FILE
from energy_ml.orchestration.metadata import to_metadata
from energy_ml.orchestration.partitions import as_of_days
from energy_ml.orchestration.resources import ResultsResource
from energy_ml.provenance import provenance
from energy_ml.rl_battery import BatteryRLTrainer
from energy_ml.splits import TimeSplit

BATTERY_POLICY = dg.AssetKey(["rl_battery", "battery_policy"])
MODEL_ID = "battery_policy"


def rl_battery_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The one policy asset; it covers all regions."""
    config = settings.ml_config()

    @dg.asset(
        key=BATTERY_POLICY,
        ins={
            "price_features": dg.AssetIn(key=PRICE_FEATURES),
            "time_split": dg.AssetIn(key=TIME_SPLIT),
            "forecasts": dg.AssetIn(key=FORECASTS),
        },
        partitions_def=as_of_days(settings),
        group_name="rl_battery",
        kinds={"numba", "python"},
        owners=["team:storage"],
        metadata={FILE: "rl_battery/battery_policy.pkl"},
        check_specs=[
            dg.AssetCheckSpec(
                "values_finite", asset=BATTERY_POLICY, blocking=True, description="No value in the tables is NaN."
            ),
            dg.AssetCheckSpec(
                "earns_on_validation", asset=BATTERY_POLICY, description="Validation profit above that of holding."
            ),
        ],
    )
    def battery_policy(
        context: dg.AssetExecutionContext,
        price_features: pd.DataFrame,
        time_split: dict[str, Any],
        forecasts: pd.DataFrame,
        results: ResultsResource,
    ):
        """When to charge, hold and discharge: a plan on out-of-sample forecasts, corrected by tabular Q-learning."""
        progress = results.progress(context.run.run_id)
        try:
            trained = BatteryRLTrainer(config).train_all(
                sorted(price_features["region"].unique()),
                prices=prices_of(price_features, config.price_prediction.target_column),
                forecasts=forecasts,
                split=TimeSplit.from_dict(time_split),
                progress=progress.callback(MODEL_ID),
            )
        except EnergyMLError as error:
            progress.write(MODEL_ID, 0.0, {"error": str(error)}, state="failed")
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
        record = provenance(
            as_of=context.partition_key,
            data_fingerprint=time_split["fingerprint"],
            config=config.rl_battery,
            metrics=trained["metrics"],
            run_id=context.run.run_id,
        )
        results.store().write(context.partition_key, "rl_battery/battery_policy.json", record)
        results.store().write(context.partition_key, "rl_battery/learning.parquet", trained["learning"])
        progress.write(MODEL_ID, 1.0, trained["metrics"], state="completed")
        tables = trained["tables"]
        shown = shown_region(tables)
        return dg.MaterializeResult(
            value=trained["policy"].learned,
            metadata=to_metadata(
                {
                    "regions": trained["regions"],
                    "policy_map": policy_maps(tables[shown], title=shown),
                    "learning_curve": learning_curve(trained["learning"]),
                    "provenance": record,
                }
            ),
            check_results=[
                dg.AssetCheckResult(check_name="values_finite", passed=bool(trained["finite"])),
                dg.AssetCheckResult(
                    check_name="earns_on_validation",
                    passed=bool(trained["metrics"]["validation_profit"] > 0),
                    severity=dg.AssetCheckSeverity.WARN,
                    description=f"validation profit {trained['metrics']['validation_profit']:,.2f} over all regions",
                ),
            ],
        )

    return [battery_policy]
