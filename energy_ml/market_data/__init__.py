"""Market data: the schema of files, the lake they lie in, cleaning, and a simulator of a real-time market.

What belongs here: prices and battery telemetry up to a clean window. What doesn't: features and models.
"""

from energy_ml.market_data.cleaning import CleanPrices, clean_prices
from energy_ml.market_data.footers import FileInfo
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.schema import DataProblem, read_kind
from energy_ml.market_data.telemetry import CleanBatteries, clean_batteries
from energy_ml.market_data.window import PriceWindow, read_price_window, read_recent_prices

__all__ = [
    "CleanBatteries",
    "CleanPrices",
    "DataProblem",
    "FileInfo",
    "ParquetLake",
    "PriceWindow",
    "clean_batteries",
    "clean_prices",
    "read_kind",
    "read_price_window",
    "read_recent_prices",
]
