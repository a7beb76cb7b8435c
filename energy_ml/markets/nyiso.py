"""New York: the five-minute and the day-ahead prices of the load zones, a CSV file for each local day.

What belongs here: where the files are and what their rows mean. What doesn't: asking again, and files of ours.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import pandas as pd

from energy_ml.markets.feed import Feed, day_before
from energy_ml.markets.session import MarketSession
from energy_ml.names import AVAILABLE_AT, PRICE, REGION, TIMESTAMP

REGIONS = ("CAPITL", "CENTRL", "DUNWOD", "GENESE", "HUD VL", "LONGIL", "MHK VL", "MILLWD", "N.Y.C.", "NORTH", "WEST")
"""The load zones; the files also hold the neighbours' prices at the border."""
_ZONE = "America/New_York"
_POSTINGS = "https://oasis-postings.prod.nysdi.com"
_REAL_TIME = f"{_POSTINGS}/RT_LBMP_ZONE/CSV"
_POSTED_SINCE = pd.Timestamp("2025-12-06")
_ARCHIVE = "http://mis.nyiso.com/public/csv/realtime"
_STEP = pd.Timedelta(minutes=5)
_COLUMNS = [TIMESTAMP, REGION, PRICE]


def fetch(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Prices of [start, end).

    Stamps in the files are interval ends in New York's time, the repeated hour of autumn told by its order alone. A
    running day's file goes on with prices that are only scheduled; they are left out, and so are runs off the
    five-minute grid.
    """
    local = _local_days(start, end)
    days = [_rows(text) for day in local if (text := _day_file(day, session)) is not None]
    if local[-1] >= _POSTED_SINCE and (newest := session.read(f"{_REAL_TIME}/current.csv")) is not None:
        last = _rows(newest)[TIMESTAMP].max()
        days = [rows[rows[TIMESTAMP] <= last] for rows in days]
    rows = pd.concat(days) if days else pd.DataFrame(columns=_COLUMNS)
    return rows[rows[REGION].isin(list(regions))]


def _day_ahead(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Hourly prices of the auction for [start, end), stamped by the hour's start; posted by 11:00 of the day before."""
    files = [f"DAM_LBMP_ZONE/CSV/{day:%Y/%m/%d}/damlbmp_zone-{day:%Y%m%d}.csv" for day in _local_days(start, end)]
    texts = [text for name in files if (text := session.read(f"{_POSTINGS}/{name}")) is not None]
    rows = pd.concat([_rows(text, late=pd.Timedelta(0)) for text in texts]) if texts else pd.DataFrame(columns=_COLUMNS)
    rows = rows[rows[REGION].isin(list(regions))].rename(columns={PRICE: "day_ahead_price"})
    return rows.assign(**{AVAILABLE_AT: day_before(pd.to_datetime(rows[TIMESTAMP], utc=True), _ZONE, 11)})


FEEDS = (Feed("day_ahead", ("day_ahead_price",), 60, "11:00 of the day before", _day_ahead),)


def _local_days(start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
    return pd.date_range(start.tz_convert(_ZONE).date(), (end - pd.Timedelta(1)).tz_convert(_ZONE).date())


def _day_file(day: pd.Timestamp, session: MarketSession) -> bytes | None:
    if day >= _POSTED_SINCE:
        return session.read(f"{_REAL_TIME}/{day:%Y/%m/%d}/realtime_zone-{day:%Y%m%d}.csv")
    month = session.read(f"{_ARCHIVE}/{day:%Y%m}01realtime_zone_csv.zip")
    if month is None:
        return None
    with zipfile.ZipFile(io.BytesIO(month)) as files:
        name = f"{day:%Y%m%d}realtime_zone.csv"
        return files.read(name) if name in files.namelist() else None


def _rows(text: bytes, late: pd.Timedelta = _STEP) -> pd.DataFrame:
    """Rows of a file whose stamps are ``late`` after the interval's start."""
    table = pd.read_csv(io.BytesIO(text))
    stamps = pd.to_datetime(table["Time Stamp"])
    if "Time Zone" in table:
        summer = table["Time Zone"] == "EDT"
    else:  # the first time through the repeated hour is summer's; a zone that never steps back can't be told
        twice = _ambiguous(stamps)
        back = twice & (stamps.groupby(table["Name"]).diff() <= pd.Timedelta(0))
        summer = ~back.groupby(table["Name"]).cummax()
        stamps = stamps.mask(twice & ~back.groupby(table["Name"]).transform("any"))
    utc = stamps.dt.tz_localize(_ZONE, ambiguous=summer.to_numpy(), nonexistent="NaT").dt.tz_convert("UTC")
    price = next(name for name in table.columns if name.startswith("LBMP"))
    rows = pd.DataFrame({TIMESTAMP: utc - late, REGION: table["Name"], PRICE: table[price]})
    return rows[rows[TIMESTAMP].dt.floor(_STEP) == rows[TIMESTAMP]]


def _ambiguous(local: pd.Series) -> pd.Series:
    return local.dt.tz_localize(_ZONE, ambiguous="NaT", nonexistent="shift_forward").isna() & local.notna()
