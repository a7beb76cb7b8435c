"""The table of markets: what each publishes, how late, under which terms, and the function that reads it.

What belongs here: the facts that ``energy-ml fetch --list`` shows. What doesn't: asking a server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from energy_ml.markets import aemo, elexon, entsoe, nyiso
from energy_ml.markets.session import MarketSession

Fetch = Callable[[pd.Timestamp, pd.Timestamp, Sequence[str], MarketSession], pd.DataFrame]
"""``fetch(start_utc, end_utc, regions, session)``: rows of [start, end) as the contract of prices has them (timestamp
UTC, region, real_time_price), in any order; without what the source doesn't have."""


@dataclass(frozen=True)
class Market:
    """One market. ``regions``: those it has, and fetched unless others are named; none: they have to be named."""

    name: str
    title: str
    prices: str
    interval: str
    delay: str
    terms: str
    fetch: Fetch
    regions: tuple[str, ...] = ()
    key: str | None = None
    """Environment variable of the key, where one is needed."""


MARKETS = {
    market.name: market
    for market in (
        Market(
            "aemo",
            "Australia, National Electricity Market (AEMO)",
            "dispatch prices",
            "5 min",
            "minutes",
            "free with attribution, aemo.com.au/privacy-and-legal-notices/copyright-permissions",
            aemo.fetch,
            regions=aemo.REGIONS,
        ),
        Market(
            "elexon",
            "Great Britain (Elexon)",
            "system prices",
            "30 min",
            "half an hour; corrected for weeks",
            "free with attribution, bmreports.com/terms",
            elexon.fetch,
            regions=elexon.REGIONS,
        ),
        Market(
            "entsoe",
            "Europe (ENTSO-E Transparency Platform)",
            "imbalance prices",
            "15, 30 or 60 min",
            "minutes to days, by zone",
            "free key on request, transparency.entsoe.eu",
            entsoe.fetch,
            key=entsoe.KEY,
        ),
        Market(
            "nyiso",
            "New York (NYISO)",
            "real-time prices of the load zones",
            "5 min",
            "minutes",
            "public, nyiso.com/legal-notice",
            nyiso.fetch,
            regions=nyiso.REGIONS,
        ),
    )
}
"""By name, as in ``energy-ml fetch NAME``."""
