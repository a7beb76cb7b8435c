"""Raw data: the user's parquet files as external assets.

What belongs here: their keys, days and contract. What doesn't: reading them (``energy_ml.market_data``).
Concept: https://docs.dagster.io/guides/build/assets/external-assets
"""

import dagster as dg

from energy_ml.config import Settings
from energy_ml.orchestration.partitions import raw_days

MARKET_PRICES = dg.AssetKey(["raw", "market_prices"])
BATTERY_TELEMETRY = dg.AssetKey(["raw", "battery_telemetry"])

_PRICES = """Real-time prices, one row per interval and region: `timestamp` (start of the interval, UTC), `region`,
`real_time_price` (currency/MWh). Any `*.parquet` in the data folder that has these columns. The sensor `new_parquet`
reports which days the files cover."""
_TELEMETRY = """Battery telemetry: `timestamp`, `battery_id`, `charge_level_mwh`, `capacity_mwh`, optionally `region`
and `power_mw`. Optional: without it the policy is judged on the reference battery alone."""


def raw_assets(settings: Settings) -> list[dg.AssetSpec]:
    """Both raw assets; nothing here computes them."""
    return [
        dg.AssetSpec(
            key,
            description=description,
            group_name="raw",
            partitions_def=raw_days(settings),
            kinds={"parquet"},
            owners=["team:market-data"],
            metadata={"data_dir": settings.data_dir},
        )
        for key, description in ((MARKET_PRICES, _PRICES), (BATTERY_TELEMETRY, _TELEMETRY))
    ]
