"""Jobs: named selections of the one asset graph.

What belongs here: what each button and command runs. What doesn't: when (schedules, sensors) and how (launch).
Concept: https://docs.dagster.io/guides/build/jobs
"""

from typing import Any

import dagster as dg

from energy_ml.config import Settings
from energy_ml.names import RETRAIN, TRAIN_PRICE_PREDICTION, TRAIN_RL_BATTERY

REFRESH_LEADERBOARD = "refresh_leaderboard"
FETCH_PRICES = "fetch_prices"


def build_jobs(settings: Settings) -> list[Any]:
    """Every job; each but the leaderboard's takes as-of dates as its partitions."""
    leaderboard = dg.AssetSelection.assets(["evaluation", "leaderboard"])
    features = dg.AssetSelection.groups("features")
    prices = features | dg.AssetSelection.groups("price_prediction")
    jobs: list[Any] = [
        dg.define_asset_job(
            RETRAIN,
            selection=dg.AssetSelection.groups(
                "features", "price_prediction", "rl_battery", "evaluation", "model_management"
            )
            - leaderboard,
            description="Everything for one as-of date: features, price models, policy, evaluation, promotion, report.",
        ),
        dg.define_asset_job(
            TRAIN_PRICE_PREDICTION,
            selection=prices | dg.AssetSelection.assets(["evaluation", "price_evaluation"]),
            description="Features, price models and their evaluation for one as-of date; promotes nothing.",
        ),
        dg.define_asset_job(
            TRAIN_RL_BATTERY,
            selection=prices
            | dg.AssetSelection.groups("rl_battery")
            | dg.AssetSelection.assets(["evaluation", "battery_backtest"]),
            description="The battery policy with the forecasts it needs, and its backtest; promotes nothing.",
        ),
        dg.define_asset_job(
            REFRESH_LEADERBOARD,
            selection=leaderboard,
            description="The leaderboard over all as-of dates; the sensor of the same name keeps it up to date.",
        ),
    ]
    if (market := settings.operations.market) is not None:
        told = f"Prices of {market}, up to an as-of date; the schedule of the same name keeps them up to date."
        fetched = dg.AssetSelection.assets(["raw", "market_prices"])
        jobs.append(dg.define_asset_job(FETCH_PRICES, selection=fetched, description=told))
    return jobs
