"""Australia: dispatch prices of the National Electricity Market and its operator's look-aheads, by nemdatatools.

What belongs here: what AEMO's columns mean. What doesn't: where its tables lie in which month, which the library knows.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import requests

from energy_ml.errors import MarketError
from energy_ml.markets.feed import Feed
from energy_ml.markets.session import MarketSession, cache_folder
from energy_ml.names import AVAILABLE_AT, PRICE, REGION, TIMESTAMP

REGIONS = ("NSW1", "QLD1", "SA1", "TAS1", "VIC1")
_ZONE = "Etc/GMT-10"
"""The market's time: ten hours ahead of UTC all year, whatever clocks in its cities do."""
_STEP = pd.Timedelta(minutes=5)
_KEPT_SECONDS = 8 * 86_400


def fetch(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Prices of [start, end).

    Stamps in the tables are interval ends. Where AEMO intervened there are two rows, of which the one without the
    intervention sets the price. The newest days come in a file for each interval, which are kept in the user's cache
    folder for a week.
    """
    rows = _table("DISPATCHPRICE", start, end, regions, session, _STEP)
    if rows.empty:
        return pd.DataFrame(columns=[TIMESTAMP, REGION, PRICE])
    rows = rows[pd.to_numeric(rows["INTERVENTION"]) == 0].sort_values("RUNNO")
    rows = rows.drop_duplicates([TIMESTAMP, REGION], keep="last")
    return rows[[TIMESTAMP, REGION]].assign(**{PRICE: pd.to_numeric(rows["RRP"])})


def _p5min(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """What each five-minute run said of [start, end): prices and demand of the hour from it on."""
    rows = _table("P5MIN_REGIONSOLUTION", start, end, regions, session, _STEP)
    rows = rows if rows.empty else rows[pd.to_numeric(rows["INTERVENTION"]) == 0]
    return _told(rows, {"RRP": "p5min_price", "TOTALDEMAND": "p5min_demand"})


def _ahead(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """What each half-hourly run said of [start, end), up to the end of the next trading day.

    The archive holds a run in its own month's file, so that a month's first days need the month before.
    """
    half_hour = pd.Timedelta(minutes=30)
    rows = _table("PREDISPATCHPRICE", start - pd.Timedelta(days=2), end, regions, session, half_hour)
    return _told(rows if rows.empty else rows[rows[TIMESTAMP] >= start], {"RRP": "predispatch_price"})


FEEDS = (
    Feed("p5min", ("p5min_price", "p5min_demand"), 5, "each run as it came, an hour ahead", _p5min),
    Feed("predispatch", ("predispatch_price",), 30, "each run as it came, up to 40 hours ahead", _ahead),
)


def _table(
    name: str,
    start: pd.Timestamp,
    end: pd.Timestamp,
    regions: Sequence[str],
    session: MarketSession,
    length: pd.Timedelta,
) -> pd.DataFrame:
    """Rows of a table of intervals of ``length`` within [start, end), with ``timestamp`` (the start) and ``region``."""
    import nemdatatools

    first, last = (moment.tz_convert(_ZONE).tz_localize(None) for moment in (start + length, end))
    try:
        rows = nemdatatools.fetch(name, first, last, list(regions), _payloads(session))
    except nemdatatools.NemDataError as error:
        raise MarketError(str(error)) from error
    if rows.empty:
        return rows
    starts = rows.index.tz_localize(_ZONE).tz_convert("UTC") - length
    return rows.reset_index(drop=True).assign(**{TIMESTAMP: starts, REGION: rows["REGIONID"].to_numpy()})


def _told(rows: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame(columns=[TIMESTAMP, AVAILABLE_AT, REGION, *columns.values()])
    changed = pd.to_datetime(rows["LASTCHANGED"], format="%Y/%m/%d %H:%M:%S").dt.tz_localize(_ZONE)
    values = {name: pd.to_numeric(rows[column]) for column, name in columns.items()}
    return rows[[TIMESTAMP, REGION]].assign(**{AVAILABLE_AT: changed.dt.tz_convert("UTC"), **values})


def _payloads(session: MarketSession) -> object:
    """The library's store of files, which would leave out a file that it can't get or read, made strict."""
    from nemdatatools import Cache

    class Strict(Cache):  # type: ignore[misc] # the library has no types
        def download(self, url: str) -> Path:
            try:
                path = Path(super().download(url))
            except requests.RequestException as error:
                if getattr(error.response, "status_code", None) == 404:  # moved on to the archive since it was listed
                    raise
                raise MarketError("one of its files can't be had") from error
            if not zipfile.is_zipfile(path):
                path.unlink()
                raise MarketError(f"{path.name} is no whole file")
            return path

    folder = cache_folder() / "nemweb"
    for path in folder.rglob("*.*"):
        if path.is_file() and path.stat().st_mtime < time.time() - _KEPT_SECONDS:
            path.unlink(missing_ok=True)
    return Strict(folder, session)
