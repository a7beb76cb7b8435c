"""Europe, from ENTSO-E's Transparency Platform: imbalance prices of any zone, day-ahead prices, forecasts.

What belongs here: which of a zone's prices is the real-time price, and when the others were known. What doesn't:
documents, which entsoe-py reads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from energy_ml.errors import ConfigError
from energy_ml.markets.feed import Feed, day_before
from energy_ml.markets.session import MarketSession
from energy_ml.names import AVAILABLE_AT, PRICE, REGION, TIMESTAMP

KEY = "ENTSOE_API_KEY"


def fetch(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Prices of [start, end), whole hours.

    Where a zone has two prices, ``real_time_price`` is that of whoever is long and feeds in, and a further column
    ``short_price`` what is paid for what lacks. A document may leave out a price that repeats the one before it, and
    whether one was left out or never came can't be told.
    """
    frames = [pd.DataFrame(columns=[TIMESTAMP, REGION, PRICE])]
    for zone, _, found in _answers("query_imbalance_prices", start, end, regions, session):
        prices = [found[name] for name in ("Long", "Price for Consumption") if name in found]
        rows = pd.DataFrame({TIMESTAMP: found.index, REGION: zone, PRICE: prices[0].fillna(prices[-1]).to_numpy()})
        if "Short" in found:
            rows["short_price"] = found["Short"].to_numpy()
        frames.append(rows)
    return pd.concat(frames[1:] or frames)


def _day_ahead(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Prices of the coupled auction for [start, end): out at 13:00 in Brussels, late ones by 14:00."""
    answers = _answers("query_day_ahead_prices", start, end, regions, session)
    return _told([(zone, "Europe/Brussels", {"day_ahead_price": found}) for zone, _, found in answers], 14)


def _load(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Forecasts of load that are due by noon of the day before, MW."""
    answers = _answers("query_load_forecast", start, end, regions, session)
    return _told([(zone, of, {"load_forecast": found.iloc[:, 0]}) for zone, of, found in answers], 12)


def _wind_solar(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Forecasts of wind and sun that are due by 18:00 of the day before, MW."""
    parts = []
    for zone, of, found in _answers("query_wind_and_solar_forecast", start, end, regions, session):
        kinds = {"wind_forecast": "Wind", "solar_forecast": "Solar"}
        parts.append(
            (zone, of, {name: found.filter(like=kind).sum(axis=1, min_count=1) for name, kind in kinds.items()})
        )
    return _told(parts, 18)


FEEDS = (
    Feed("day_ahead", ("day_ahead_price",), 60, "14:00 of the day before", _day_ahead),
    Feed("load", ("load_forecast",), 60, "noon of the day before", _load),
    Feed("wind_solar", ("wind_forecast", "solar_forecast"), 60, "18:00 of the day before", _wind_solar),
)


def _answers(
    query: str, start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession
) -> Iterator[tuple[str, str, Any]]:
    """(zone, its time zone, what the library makes of the answer) for each zone that has one."""
    from entsoe.entsoe import EntsoePandasClient
    from entsoe.exceptions import NoMatchingDataError
    from entsoe.mappings import lookup_area

    client = EntsoePandasClient(os.environ[KEY], session=session, retry_count=1)
    for zone in regions:
        try:
            area = lookup_area(zone)
        except ValueError:
            raise ConfigError(f"there is no zone {zone!r}", expected="names such as BE, NL or DE_LU") from None
        with contextlib.suppress(NoMatchingDataError):
            yield zone, area.tz, getattr(client, query)(area, start=start, end=end)


def _told(parts: list[tuple[str, str, dict[str, pd.Series]]], hour: int) -> pd.DataFrame:
    """Rows of (zone, the time zone of its days, values), known by ``hour`` of the day before.

    When they really came, and whether they were corrected since, the platform doesn't tell.
    """
    frames = [pd.DataFrame(columns=[TIMESTAMP, AVAILABLE_AT, REGION])]
    for zone, of, values in parts:
        rows = pd.DataFrame(values).rename_axis(TIMESTAMP).reset_index()
        rows[TIMESTAMP] = rows[TIMESTAMP].dt.tz_convert("UTC")
        frames.append(rows.assign(**{REGION: zone, AVAILABLE_AT: day_before(rows[TIMESTAMP], of, hour)}))
    return pd.concat(frames[1:] or frames)
