"""Names that several rooms use, spelled here alone: columns, models, files, strategies.

What belongs here: the words themselves, and the two patterns that make and read a model's name. What doesn't: anything
that reads a file or knows what a column means.
"""

from __future__ import annotations

import re
from typing import Final

# --- columns of prices and telemetry (the user's files, cleaned) ----------------------------------
TIMESTAMP: Final = "timestamp"
REGION: Final = "region"
PRICE: Final = "real_time_price"
BATTERY_ID: Final = "battery_id"
CHARGE: Final = "charge_level_mwh"
CAPACITY: Final = "capacity_mwh"
POWER: Final = "power_mw"
"""The measured flow at the grid."""
RATED_POWER: Final = "rated_power_mw"
"""What the battery can do at most, at the grid."""
IS_FILLED: Final = "is_filled"
AVAILABLE_AT: Final = "available_at"
"""Of what is said of a time: from when on it could be known."""

# --- columns of forecasts.parquet and battery_backtest.parquet ------------------------------------
HORIZON: Final = "horizon_minutes"
SPLIT: Final = "split"
PRICE_NOW: Final = "price_now"
PRICE_ACTUAL: Final = "price_actual"
PRICE_FORECAST: Final = "price_forecast"
"""The middle of what may come: as likely too high as too low."""
PRICE_EXPECTED: Final = "price_expected"
"""The mean of what may come, which spikes pull up."""
SPIKE_PROBABILITY: Final = "spike_probability"
LOWER: Final = "lower"
UPPER: Final = "upper"
STRATEGY: Final = "strategy"
ACTION: Final = "action"
CHARGE_END: Final = "charge_level_end_mwh"
"""Charge when the interval ends; ``CHARGE`` is when it begins."""

# --- models: types, ids, files --------------------------------------------------------------------
PRICE_PREDICTION: Final = "price_prediction"
"""Type of the price models; also their folder."""
RL_BATTERY: Final = "rl_battery"

# --- Dagster's jobs --------------------------------------------------------------------------------
RETRAIN: Final = "retrain"
TRAIN_PRICE_PREDICTION: Final = "train_price_prediction"
TRAIN_RL_BATTERY: Final = "train_rl_battery"
"""Type of the policy; also its folder."""
POLICY_ID: Final = "battery_policy"
"""The policy's name in registry, progress and as a file."""
POLICY_FILE: Final = f"{POLICY_ID}.pkl"
REGISTRY_FILE: Final = "registry.json"
TRAINING_RESULTS_FILE: Final = "training_results.json"

# --- results of an as-of date ---------------------------------------------------------------------
FORECASTS_FILE: Final = "forecasts.parquet"
BACKTEST_FILE: Final = "battery_backtest.parquet"
METRICS_FILE: Final = "metrics.json"
REPORT_FILE: Final = "report.html"
NODES_FILE: Final = "nodes.parquet"
LEADERBOARD_FILE: Final = "leaderboard.html"
"""Over all as-of dates, beside their folders."""

# --- actions and strategies -----------------------------------------------------------------------
ACTIONS: Final = ("charge", "hold", "discharge")
OUR_POLICY: Final = "q_learning"
BLIND_SUFFIX: Final = "_without_forecasts"
OUR_POLICY_BLIND: Final = f"{OUR_POLICY}{BLIND_SUFFIX}"
HOLD: Final = "hold"
THRESHOLD: Final = "threshold"
MPC: Final = "mpc"
MPC_FORECAST: Final = "mpc_forecast"
PLAN_ALONE: Final = "plan_alone"
"""Our policy without its Q-table."""
PERFECT_FORESIGHT: Final = "perfect_foresight"

# --- groups of a table ----------------------------------------------------------------------------
POOLED: Final = "all"
"""Region (or battery) of a row that sums over all of them."""
ONE_REGION: Final = "single"
"""Region of prices whose frame has no region column."""
FLEET: Final = "fleet"
"""Region of a row that sums over the batteries of one's own."""
REFERENCE: Final = "reference"
"""Battery of a row that is of the reference battery."""
AS_USUAL: Final = "as usual"
"""The reference battery as most people would get it: with wear, and late."""

_PRICE_MODEL_ID = re.compile(r"price_prediction_(\d+)m", re.ASCII)
_PRICE_MODEL_FILE = re.compile(r"model_(\d+)min\.pkl", re.ASCII)


def price_model_id(horizon: int) -> str:
    """Name of one horizon's model in registry and progress.

    >>> price_model_id(15)
    'price_prediction_15m'
    """
    return f"price_prediction_{horizon}m"


def model_id_of_file(name: str) -> str:
    """Name in the registry of the model in a file of that name.

    >>> model_id_of_file("model_15min.pkl"), model_id_of_file("battery_policy.pkl")
    ('price_prediction_15m', 'battery_policy')
    """
    horizon = horizon_of_file(name)
    return name.removesuffix(".pkl") if horizon is None else price_model_id(horizon)


def price_model_name(horizon: int) -> str:
    """Name of one horizon's model as asset and as a file without its suffix.

    >>> price_model_name(15)
    'model_15min'
    """
    return f"model_{horizon}min"


def horizon_of_id(model_id: str) -> int | None:
    """Minutes ahead of the price model of that name; None for other models.

    >>> horizon_of_id("price_prediction_15m")
    15
    """
    return int(found[1]) if (found := _PRICE_MODEL_ID.fullmatch(model_id)) else None


def horizon_of_file(name: str) -> int | None:
    """Minutes ahead of the price model in a file of that name; None for other files.

    >>> horizon_of_file("model_15min.pkl")
    15
    """
    return int(found[1]) if (found := _PRICE_MODEL_FILE.fullmatch(name)) else None
