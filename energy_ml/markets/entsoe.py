"""Europe: imbalance prices of any zone on ENTSO-E's Transparency Platform, by entsoe-py.

What belongs here: which of a zone's prices is the real-time price. What doesn't: documents, which the library reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd

from energy_ml.errors import ConfigError
from energy_ml.markets.session import MarketSession
from energy_ml.names import PRICE, REGION, TIMESTAMP

KEY = "ENTSOE_API_KEY"


def fetch(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Prices of [start, end), whole hours.

    Where a zone has two prices, ``real_time_price`` is that of whoever is long and feeds in, and a further column
    ``short_price`` what is paid for what lacks. A document may leave out a price that repeats the one before it, and
    whether one was left out or never came can't be told.
    """
    from entsoe.entsoe import EntsoePandasClient
    from entsoe.exceptions import NoMatchingDataError
    from entsoe.mappings import lookup_area

    client = EntsoePandasClient(os.environ[KEY], session=session, retry_count=1)
    frames = [pd.DataFrame(columns=[TIMESTAMP, REGION, PRICE])]
    for zone in regions:
        try:
            area = lookup_area(zone)
        except ValueError:
            raise ConfigError(f"there is no zone {zone!r}", expected="names such as BE, NL or DE_LU") from None
        try:
            found = client.query_imbalance_prices(area, start=start, end=end)
        except NoMatchingDataError:
            continue
        prices = [found[name] for name in ("Long", "Price for Consumption") if name in found]
        rows = pd.DataFrame({TIMESTAMP: found.index, REGION: zone, PRICE: prices[0].fillna(prices[-1]).to_numpy()})
        if "Short" in found:
            rows["short_price"] = found["Short"].to_numpy()
        frames.append(rows)
    return pd.concat(frames[1:] or frames)
