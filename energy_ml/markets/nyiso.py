"""New York: the five-minute prices of the load zones, a CSV file for each local day.

What belongs here: where the files are and what their rows mean. What doesn't: asking again, and files of ours.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import pandas as pd

from energy_ml.markets.session import MarketSession
from energy_ml.names import PRICE, REGION, TIMESTAMP

REGIONS = (
    "CAPITL",
    "CENTRL",
    "DUNWOD",
    "GENESE",
    "HUD VL",
    "LONGIL",
    "MHK VL",
    "MILLWD",
    "N.Y.C.",
    "NORTH",
    "WEST",
)
"""The load zones; the files also hold the neighbours' prices at the border."""
_ZONE = "America/New_York"
_POSTINGS = "https://oasis-postings.prod.nysdi.com/RT_LBMP_ZONE/CSV"
_POSTED_SINCE = pd.Timestamp("2025-12-06")
_ARCHIVE = "http://mis.nyiso.com/public/csv/realtime"
_STEP = pd.Timedelta(minutes=5)


def fetch(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """Prices of [start, end).

    Stamps in the files are interval ends in New York's time, the repeated hour of autumn told by its order alone. A
    running day's file goes on with prices that are only scheduled; they are left out, and so are runs off the
    five-minute grid.
    """
    local = pd.date_range(start.tz_convert(_ZONE).date(), (end - pd.Timedelta(1)).tz_convert(_ZONE).date())
    days = [_rows(text) for day in local if (text := _day_file(day, session)) is not None]
    if local[-1] >= _POSTED_SINCE and (newest := session.read(f"{_POSTINGS}/current.csv")) is not None:
        last = _rows(newest)[TIMESTAMP].max()
        days = [rows[rows[TIMESTAMP] <= last] for rows in days]
    rows = pd.concat(days) if days else pd.DataFrame(columns=[TIMESTAMP, REGION, PRICE])
    return rows[rows[REGION].isin(list(regions))]


def _day_file(day: pd.Timestamp, session: MarketSession) -> bytes | None:
    if day >= _POSTED_SINCE:
        return session.read(f"{_POSTINGS}/{day:%Y/%m/%d}/realtime_zone-{day:%Y%m%d}.csv")
    month = session.read(f"{_ARCHIVE}/{day:%Y%m}01realtime_zone_csv.zip")
    if month is None:
        return None
    with zipfile.ZipFile(io.BytesIO(month)) as files:
        name = f"{day:%Y%m%d}realtime_zone.csv"
        return files.read(name) if name in files.namelist() else None


def _rows(text: bytes) -> pd.DataFrame:
    table = pd.read_csv(io.BytesIO(text))
    ends = pd.to_datetime(table["Time Stamp"])
    if "Time Zone" in table:
        summer = table["Time Zone"] == "EDT"
    else:  # the first time through the repeated hour is summer's; a zone that never steps back can't be told
        back = ends.groupby(table["Name"]).diff() < pd.Timedelta(0)
        summer = ~back.groupby(table["Name"]).cummax()
        ends = ends.mask(_ambiguous(ends) & ~back.groupby(table["Name"]).transform("any"))
    utc = ends.dt.tz_localize(_ZONE, ambiguous=summer.to_numpy(), nonexistent="NaT").dt.tz_convert("UTC")
    price = next(name for name in table.columns if name.startswith("LBMP"))
    rows = pd.DataFrame({TIMESTAMP: utc - _STEP, REGION: table["Name"], PRICE: table[price]})
    return rows[rows[TIMESTAMP].dt.floor(_STEP) == rows[TIMESTAMP]]


def _ambiguous(local: pd.Series) -> pd.Series:
    return local.dt.tz_localize(_ZONE, ambiguous="NaT", nonexistent="shift_forward").isna() & local.notna()
