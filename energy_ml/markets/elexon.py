"""Great Britain: the system price of each half hour, by Elexon's public interface.

What belongs here: which of its answers count. What doesn't: asking again, and files of ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from energy_ml.markets.session import MarketSession
from energy_ml.names import PRICE, REGION, TIMESTAMP

REGIONS = ("GB",)
_ZONE = "Europe/London"
_ADDRESS = "https://data.elexon.co.uk/bmrs/api/v1/balancing/settlement/system-prices"


def fetch(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Prices of [start, end).

    A settlement day is London's, of 46 to 50 half hours. Prices are published again for days; the newest counts.
    Whoever is long and whoever is short pays the same price.
    """
    days = pd.date_range(start.tz_convert(_ZONE).date(), (end - pd.Timedelta(1)).tz_convert(_ZONE).date())
    answers = [session.read(f"{_ADDRESS}/{day:%Y-%m-%d}?format=json") for day in days]
    found = [row for answer in answers if answer is not None for row in json.loads(answer)["data"]]
    columns = ["startTime", "createdDateTime", "systemSellPrice"]
    rows = pd.DataFrame([[row[name] for name in columns] for row in found], columns=columns)
    for name in columns[:2]:
        rows[name] = pd.to_datetime(rows[name], utc=True, format="ISO8601")
    rows = rows.sort_values("createdDateTime", kind="stable").drop_duplicates("startTime", keep="last")
    return pd.DataFrame({TIMESTAMP: rows["startTime"], REGION: REGIONS[0], PRICE: rows["systemSellPrice"]})
