"""Australia: dispatch prices of the National Electricity Market, by nemdatatools.

What belongs here: what AEMO's columns mean. What doesn't: where its tables lie in which month, which the library knows.
"""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import requests

from energy_ml.errors import MarketError
from energy_ml.markets.session import MarketSession
from energy_ml.names import PRICE, REGION, TIMESTAMP

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
    import nemdatatools

    first, last = (moment.tz_convert(_ZONE).tz_localize(None) for moment in (start + _STEP, end))
    try:
        rows = nemdatatools.fetch("DISPATCHPRICE", first, last, list(regions), _payloads(session))
    except nemdatatools.NemDataError as error:
        raise MarketError(str(error)) from error
    if rows.empty:
        return pd.DataFrame(columns=[TIMESTAMP, REGION, PRICE])
    rows = rows[pd.to_numeric(rows["INTERVENTION"]) == 0].reset_index()
    rows = rows.sort_values("RUNNO").drop_duplicates(["SETTLEMENTDATE", "REGIONID"], keep="last")
    return pd.DataFrame(
        {
            TIMESTAMP: rows["SETTLEMENTDATE"].dt.tz_localize(_ZONE).dt.tz_convert("UTC") - _STEP,
            REGION: rows["REGIONID"],
            PRICE: pd.to_numeric(rows["RRP"]),
        }
    )


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

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "energy_ml/nemweb"
    for path in folder.rglob("*.*"):
        if path.is_file() and path.stat().st_mtime < time.time() - _KEPT_SECONDS:
            path.unlink(missing_ok=True)
    return Strict(folder, session)
