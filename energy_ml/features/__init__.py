"""Features of prices and batteries: dense, leak-free, the same numbers in batch and live.

What belongs here: the names that others use. What doesn't: any computation.
"""

from energy_ml.features.battery_features import BATTERY_COLUMNS, build_battery_features
from energy_ml.features.panel import Panel, to_panel
from energy_ml.features.price_features import (
    FAMILIES,
    WARM_UP_MINUTES,
    PriceFeatureSpec,
    build_price_features,
    feature_columns,
    feature_description,
    feature_family,
    feature_names,
    follows_hole,
    measured_prices,
    price_feature_cube,
    prices_of,
    recent_reach,
    required_history,
)

__all__ = [
    "BATTERY_COLUMNS",
    "FAMILIES",
    "WARM_UP_MINUTES",
    "Panel",
    "PriceFeatureSpec",
    "build_battery_features",
    "build_price_features",
    "feature_columns",
    "feature_description",
    "feature_family",
    "feature_names",
    "follows_hole",
    "measured_prices",
    "price_feature_cube",
    "prices_of",
    "recent_reach",
    "required_history",
    "to_panel",
]
