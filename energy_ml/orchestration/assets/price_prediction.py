"""Price model assets: one per horizon by a factory, and the out-of-sample forecasts of all of them.

What belongs here: the order of the core's calls, checks, metadata. What doesn't: how a model is trained.
"""

from typing import Any

import dagster as dg
import pandas as pd

from energy_ml.config import Settings
from energy_ml.errors import EnergyMLError
from energy_ml.evaluation.charts import forecast_chart, importance_chart, shown_region
from energy_ml.evaluation.metrics import family_importance, forecast_metrics
from energy_ml.features import feature_columns
from energy_ml.orchestration.assets.features import PRICE_FEATURES, TIME_SPLIT
from energy_ml.orchestration.io_managers import FILE
from energy_ml.orchestration.metadata import columns_of, to_metadata
from energy_ml.orchestration.partitions import as_of_days
from energy_ml.orchestration.resources import ResultsResource, TrainerResource
from energy_ml.provenance import provenance
from energy_ml.splits import TimeSplit

FORECASTS = dg.AssetKey(["price_prediction", "forecasts"])


def model_key(horizon: int) -> dg.AssetKey:
    """The asset key of one horizon's model."""
    return dg.AssetKey(["price_prediction", f"model_{horizon}min"])


def model_id(horizon: int) -> str:
    """The name of one horizon's model in registry and progress."""
    return f"price_prediction_{horizon}m"


def price_prediction_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """One model asset per horizon, and their forecasts."""
    return [*(_model_asset(settings, horizon) for horizon in settings.horizons), _forecasts_asset(settings)]


def _model_asset(settings: Settings, horizon: int) -> dg.AssetsDefinition:
    key, config = model_key(horizon), settings.ml_config()

    @dg.asset(
        key=key,
        ins={"price_features": dg.AssetIn(key=PRICE_FEATURES), "time_split": dg.AssetIn(key=TIME_SPLIT)},
        partitions_def=as_of_days(settings),
        group_name="price_prediction",
        kinds={"xgboost", "python"},
        owners=["team:forecasting"],
        description=f"The price {horizon} minutes ahead, one model for all regions: the change from the price now, "
        "learned on train, stopped on validation, judged on test beside 'the price stays'.",
        metadata={FILE: f"price_prediction/model_{horizon}min.pkl", "horizon_minutes": horizon},
        check_specs=[
            dg.AssetCheckSpec(
                "forecasts_finite", asset=key, blocking=True, description="No forecast is NaN or infinite."
            ),
            dg.AssetCheckSpec(
                "beats_persistence", asset=key, description="Test error below that of 'the price stays'."
            ),
        ],
    )
    def model(
        context: dg.AssetExecutionContext,
        price_features: pd.DataFrame,
        time_split: dict[str, Any],
        results: ResultsResource,
        price_trainer: TrainerResource,
    ):
        progress = results.progress(context.run.run_id)
        try:
            trained = price_trainer.trainer(config).train_for_horizon(
                price_features,
                feature_columns(price_features),
                horizon,
                split=TimeSplit.from_dict(time_split),
                progress=progress.callback(model_id(horizon)),
            )
        except EnergyMLError as error:
            progress.write(model_id(horizon), 0.0, {"error": str(error)}, state="failed")
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
        forecasts = trained["forecasts"]
        record = provenance(
            as_of=context.partition_key,
            data_fingerprint=time_split["fingerprint"],
            config=config.price_prediction,
            metrics=trained["metrics"],
            run_id=context.run.run_id,
        )
        store = results.store()
        store.write(context.partition_key, f"price_prediction/forecasts_{horizon}min.parquet", forecasts)
        store.write(context.partition_key, f"price_prediction/model_{horizon}min.json", record)
        importance = trained["model"].importance_table()
        store.write(context.partition_key, f"price_prediction/importance_{horizon}min.parquet", importance)
        test = forecast_metrics(forecasts[forecasts["split"] == "test"], by=["horizon_minutes"]).iloc[0]
        finite = bool(forecasts[["price_forecast", "lower", "upper"]].notna().all().all())
        progress.write(model_id(horizon), 1.0, {"mae": test["mae"], "rmae": test["rmae"]}, state="completed")
        return dg.MaterializeResult(
            value=trained["model"],
            metadata=to_metadata(
                {
                    "mae": test["mae"],
                    "rmse": test["rmse"],
                    "mae_price_stays": test["persistence_mae"],
                    "rmae": test["rmae"],
                    "coverage": test["coverage"],
                    "rows_left_out": trained["model"].provenance["rows_left_out"],
                    "forecast_chart": forecast_chart(
                        forecasts,
                        region=shown_region(forecasts["region"].unique()),
                        level=config.price_prediction.interval_level,
                    ),
                    "importance_chart": importance_chart(importance),
                    "importance": importance.head(12),  # a longer table would be hidden behind a click
                    "importance_by_family": family_importance(importance),
                    "provenance": record,
                }
            ),
            check_results=[
                dg.AssetCheckResult(check_name="forecasts_finite", passed=finite),
                dg.AssetCheckResult(
                    check_name="beats_persistence",
                    passed=bool(test["rmae"] < 1),
                    severity=dg.AssetCheckSeverity.WARN,
                    description=f"test MAE {test['mae']:.2f} against {test['persistence_mae']:.2f}: {test['rmae']:.3f}",
                    metadata=to_metadata({"rmae": test["rmae"]}),
                ),
            ],
        )

    return model


def _forecasts_asset(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=FORECASTS,
        deps=[model_key(horizon) for horizon in settings.horizons],
        partitions_def=as_of_days(settings),
        group_name="price_prediction",
        kinds={"pandas", "parquet"},
        owners=["team:forecasting"],
        metadata={FILE: "forecasts.parquet"},
        check_specs=[
            dg.AssetCheckSpec(
                "every_horizon_in_every_split",
                asset=FORECASTS,
                blocking=True,
                description="The policy and the evaluation get forecasts of each horizon in each split.",
            )
        ],
    )
    def forecasts(context: dg.AssetExecutionContext, results: ResultsResource):
        """Out-of-sample forecasts of all horizons over the window, cross-fitted in the training part."""
        store = results.store()
        frame = pd.concat(
            [
                store.read(context.partition_key, f"price_prediction/forecasts_{horizon}min.parquet")
                for horizon in settings.horizons
            ],
            ignore_index=True,
        )
        counts = pd.crosstab(frame["horizon_minutes"], frame["split"]).reset_index()
        whole = len(counts) == len(settings.horizons) and bool((counts.drop(columns="horizon_minutes") > 0).all().all())
        return dg.MaterializeResult(
            value=frame,
            metadata=to_metadata(
                {
                    "dagster/row_count": len(frame),
                    "dagster/column_schema": columns_of(frame),
                    "rows": counts,
                    "test": forecast_metrics(frame[frame["split"] == "test"], by=["horizon_minutes"]),
                }
            ),
            check_results=[dg.AssetCheckResult(check_name="every_horizon_in_every_split", passed=whole)],
        )

    return forecasts
