"""The table of markets: what each publishes, how late, under which terms, and the function that reads it.

What belongs here: the facts that ``energy-ml fetch --list`` shows. What doesn't: asking a server.
"""

from __future__ import annotations

from dataclasses import dataclass

from energy_ml.markets import aemo, elexon, entsoe, north_america, nyiso
from energy_ml.markets.feed import Feed, Fetch


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
    feeds: tuple[Feed, ...] = ()
    """What else it publishes, for ``fetch --with``."""


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
            feeds=aemo.FEEDS,
        ),
        Market(
            "caiso",
            "California (CAISO)",
            "real-time prices of the trading hubs",
            "5 min",
            "minutes",
            "public, caiso.com/legal-and-privacy; fetched by gridstatus in an environment made for it",
            north_america.caiso,
            regions=north_america.CAISO_REGIONS,
            feeds=north_america.CAISO_FEEDS,
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
            feeds=entsoe.FEEDS,
        ),
        Market(
            "ercot",
            "Texas (ERCOT)",
            "real-time settlement prices of hubs and load zones",
            "15 min",
            "minutes; the last days alone",
            "public, ercot.com/help/terms; fetched by gridstatus in an environment made for it",
            north_america.ercot,
            regions=north_america.ERCOT_REGIONS,
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
            feeds=nyiso.FEEDS,
        ),
    )
}
"""By name, as in ``energy-ml fetch NAME``."""
