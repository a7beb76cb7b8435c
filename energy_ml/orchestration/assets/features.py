"""Feature assets: the training window of an as-of date with features, and its split.

What belongs here: reading the window, checks that stop a bad one, metadata. What doesn't: how features are made.
"""

import datetime as dt
from typing import Any

import dagster as dg
import pandas as pd

from energy_ml.config import Settings
from energy_ml.errors import DataError
from energy_ml.evaluation.charts import split_timeline
from energy_ml.features import (
    build_battery_features,
    feature_family,
)
from energy_ml.market_data.cleaning import clean_batteries
from energy_ml.orchestration import checks
from energy_ml.orchestration.assets.raw import BATTERY_TELEMETRY, MARKET_PRICES
from energy_ml.orchestration.io_managers import FILE
from energy_ml.orchestration.metadata import columns_of, to_metadata
from energy_ml.orchestration.partitions import as_of_days, trailing_window
from energy_ml.orchestration.resources import LakeResource, ResultsResource
from energy_ml.splits import PARTS, split_window, window_of
from energy_ml.training_window import open_day

PRICE_FEATURES = dg.AssetKey(["features", "price_features"])
BATTERY_FEATURES = dg.AssetKey(["features", "battery_features"])
TIME_SPLIT = dg.AssetKey(["features", "time_split"])


def feature_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The three feature assets."""
    common: dict[str, Any] = {
        "group_name": "features",
        "partitions_def": as_of_days(settings),
        "owners": ["team:forecasting"],
    }
    config = settings.ml_config().price_prediction

    @dg.asset(
        key=PRICE_FEATURES,
        deps=[dg.AssetDep(MARKET_PRICES, partition_mapping=trailing_window(settings))],
        kinds={"pandas", "parquet"},
        metadata={FILE: "features/price_features.parquet"},
        check_specs=[
            dg.AssetCheckSpec(
                "window_complete",
                asset=PRICE_FEATURES,
                blocking=True,
                description="The window is readable, on one interval, and holds enough of each region.",
            ),
            dg.AssetCheckSpec(
                "few_repairs",
                asset=PRICE_FEATURES,
                description="Under 1 % of the window's prices weren't measured.",
            ),
            checks.spec(settings, "data_recent", PRICE_FEATURES, "The day that should be there by now is there."),
            checks.spec(settings, "regions_present", PRICE_FEATURES, "Every region that the files know has prices."),
            checks.spec(
                settings, "features_stable", PRICE_FEATURES, "The newest day's features are distributed as in training."
            ),
        ],
        **common,
    )
    def price_features(context: dg.AssetExecutionContext, lake: LakeResource, results: ResultsResource):
        """The cleaned price window of the as-of date with every feature, one row per interval and region.

        Rows cover [D - window + 1 day, D + 1 day) UTC; a feature at t uses prices up to t alone.
        """
        try:
            day = open_day(settings, lake.lake(), _day(context))
        except DataError as error:
            # The check is on record in the UI, and nothing downstream runs on half a window.
            yield dg.AssetCheckResult(check_name="window_complete", passed=False, description=str(error))
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
        window, features, names, repaired = day.window, day.features, day.feature_names, day.repaired_rows
        results.store().write(
            context.partition_key,
            "features/data.json",
            {
                "fingerprint": window.fingerprint,
                "interval_minutes": window.interval_minutes,
                "problems": [problem.to_dict() for problem in window.problems],
            },
        )
        families = pd.Series([feature_family(name) for name in names]).value_counts()
        yield dg.MaterializeResult(
            value=features,
            metadata=to_metadata(
                {
                    "dagster/row_count": len(features),
                    "dagster/column_schema": columns_of(features),
                    "window": f"{window.start} … {window.end}",
                    "interval_minutes": window.interval_minutes,
                    "regions": ", ".join(sorted(features["region"].unique())),
                    "features": len(names),
                    "families": pd.DataFrame({"family": families.index, "features": families.to_numpy()}),
                    "prices": features.groupby("region")[config.target_column].describe().reset_index(),
                    "warm_up_rows": int((~window.in_window).sum()),
                    "data_fingerprint": window.fingerprint,
                    "problems": "\n".join(p.message for p in window.problems) or "none",
                }
            ),
            check_results=[
                dg.AssetCheckResult(
                    check_name="window_complete",
                    passed=True,
                    description=f"{len(features):,} rows, every {window.interval_minutes} min; "
                    + (window.holes or "no gap left"),
                ),
                dg.AssetCheckResult(
                    check_name="few_repairs",
                    passed=bool(repaired < 0.01 * len(features)),
                    severity=dg.AssetCheckSeverity.WARN,
                    description=f"{repaired:,} of {len(features):,} prices weren't measured",
                ),
                checks.data_recent(settings, lake.lake(), dt.datetime.now(dt.UTC)),
                checks.regions_present(settings, features, window.problems),
                checks.features_stable(settings, features, names, day.split),
            ],
        )

    @dg.asset(
        key=BATTERY_FEATURES,
        deps=[dg.AssetDep(BATTERY_TELEMETRY, partition_mapping=trailing_window(settings))],
        ins={"price_features": dg.AssetIn(key=PRICE_FEATURES)},
        kinds={"pandas", "parquet"},
        metadata={FILE: "features/battery_features.parquet"},
        check_specs=[
            dg.AssetCheckSpec(
                "telemetry_plausible",
                asset=BATTERY_FEATURES,
                description="No charge above capacity, no jump beyond power.",
            )
        ],
        **common,
    )
    def battery_features(context: dg.AssetExecutionContext, price_features: pd.DataFrame, lake: LakeResource):
        """Battery telemetry of the window with features of its state; empty where there is no telemetry."""
        start, end = window_of(_day(context), settings.training_window_days)
        telemetry, messages = lake.lake().read_batteries(start, end), []
        if len(telemetry):
            cleaned = clean_batteries(telemetry)
            messages = [problem.message for problem in cleaned.problems]
            features = build_battery_features(cleaned.frame, price_features)
        else:
            features = pd.DataFrame(columns=list(_NO_TELEMETRY)).astype(_NO_TELEMETRY)
        return dg.MaterializeResult(
            value=features,
            metadata=to_metadata(
                {
                    "dagster/row_count": len(features),
                    "dagster/column_schema": columns_of(features),
                    "batteries": ", ".join(sorted(features["battery_id"].unique())) or "no telemetry",
                    "problems": "\n".join(messages) or "none",
                }
            ),
            check_results=[
                dg.AssetCheckResult(
                    check_name="telemetry_plausible",
                    passed=not messages,
                    severity=dg.AssetCheckSeverity.WARN,
                    description="; ".join(messages) or "no problem found",
                )
            ],
        )

    @dg.asset(
        key=TIME_SPLIT,
        ins={"price_features": dg.AssetIn(key=PRICE_FEATURES)},
        kinds={"json"},
        metadata={FILE: "features/time_split.json"},
        check_specs=[
            dg.AssetCheckSpec(
                "parts_filled",
                asset=TIME_SPLIT,
                blocking=True,
                description="Every part has rows at every horizon after the purge.",
            )
        ],
        **common,
    )
    def time_split(context: dg.AssetExecutionContext, price_features: pd.DataFrame, results: ResultsResource):
        """Train | validation | test by time (70 / 15 / 15 %), purged by each horizon before each boundary."""
        split = split_window(
            *window_of(_day(context), settings.training_window_days), config.train_end_pct, config.val_end_pct
        )
        counts = {
            str(horizon): {part: int(split.mask(price_features["timestamp"], part, horizon).sum()) for part in PARTS}
            for horizon in settings.horizons
        }
        data = results.store().read(context.partition_key, "features/data.json")
        empty = [f"{part} at {horizon} min" for horizon, n in counts.items() for part in PARTS if not n[part]]
        return dg.MaterializeResult(
            value={**split.to_dict(), "rows": counts, **data},
            metadata=to_metadata(
                {
                    **split.to_dict(),
                    "rows": pd.DataFrame([{"horizon": f"{h} min", **n} for h, n in counts.items()]),
                    "timeline": split_timeline(split.to_dict(), settings.horizons),
                    "data_fingerprint": data["fingerprint"],
                }
            ),
            check_results=[
                dg.AssetCheckResult(
                    check_name="parts_filled",
                    passed=not empty,
                    description=f"no rows: {', '.join(empty)}" if empty else "all parts have rows",
                )
            ],
        )

    return [price_features, battery_features, time_split]


_NO_TELEMETRY = {
    "timestamp": "datetime64[ns, UTC]",
    "battery_id": "str",
    "region": "str",
    "charge_level_mwh": "float64",
    "capacity_mwh": "float64",
    "power_mw": "float64",
}


def _day(context: dg.AssetExecutionContext) -> Any:
    return context.partition_time_window.start.date()
