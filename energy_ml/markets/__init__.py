"""Markets whose public prices can be fetched into the lake.

What belongs here: what each market publishes and how it is read (a module each), asking servers politely (``session``),
and days on disk (``days``). What doesn't: cleaning, which ``market_data`` does with any file.
"""

from energy_ml.markets.days import FetchedDay, fetch_days
from energy_ml.markets.market import MARKETS, Market
from energy_ml.markets.session import MarketSession

__all__ = ["MARKETS", "FetchedDay", "Market", "MarketSession", "fetch_days"]
