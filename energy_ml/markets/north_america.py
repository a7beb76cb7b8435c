"""California and Texas, by gridstatus in an environment of its own, since it needs another pandas than ours.

What belongs here: that environment, and asking in it. What doesn't: what gridstatus' columns mean
(``north_america_worker``).
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from energy_ml.errors import MarketError
from energy_ml.markets.feed import Feed, Fetch, day_before
from energy_ml.markets.session import MarketSession, cache_folder
from energy_ml.names import AVAILABLE_AT, PRICE, REGION, TIMESTAMP

VERSION = "0.37.0"
CAISO_REGIONS = ("TH_NP15_GEN-APND", "TH_SP15_GEN-APND", "TH_ZP26_GEN-APND")
"""The trading hubs."""
ERCOT_REGIONS = (
    *("HB_BUSAVG", "HB_HOUSTON", "HB_HUBAVG", "HB_NORTH", "HB_PAN", "HB_SOUTH", "HB_WEST"),
    *("LZ_AEN", "LZ_CPS", "LZ_HOUSTON", "LZ_LCRA", "LZ_NORTH", "LZ_RAYBN", "LZ_SOUTH", "LZ_WEST"),
)
"""The hubs and the load zones."""
_WORKER = Path(__file__).with_name("north_america_worker.py")
_LONGEST_SECONDS = 3600


def _ask(
    what: str, start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession
) -> pd.DataFrame:
    """Rows of [start, end) by the worker's ``what``. Raises MarketError with the last line that it left."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "rows.csv"
        asked = {"what": what, "start": start.isoformat(), "end": end.isoformat(), "regions": [*regions]}
        command = [_python(), "-P", str(_WORKER), json.dumps({**asked, "mirror": session.mirror, "to": str(to)})]
        done = _run(command)
        if done.returncode:
            raise MarketError(f"gridstatus {VERSION}: {_last_line(done)}")
        rows = pd.read_csv(to, parse_dates=[TIMESTAMP])
    return rows.astype({REGION: "str", PRICE: "float64"})


def _day_ahead(start: pd.Timestamp, end: pd.Timestamp, regions: Sequence[str], session: MarketSession) -> pd.DataFrame:
    """California's auction, out at 13:00 of the day before."""
    rows = _ask("caiso_day_ahead", start, end, regions, session).rename(columns={PRICE: "day_ahead_price"})
    return rows.assign(**{AVAILABLE_AT: day_before(pd.to_datetime(rows[TIMESTAMP], utc=True), "US/Pacific", 13)})


caiso: Fetch = functools.partial(_ask, "caiso")
ercot: Fetch = functools.partial(_ask, "ercot")
CAISO_FEEDS = (Feed("day_ahead", ("day_ahead_price",), 60, "13:00 of the day before", _day_ahead),)


def _python() -> str:
    """The interpreter of the environment, which is made where it isn't there. Takes a minute, about 300 MB."""
    folder = cache_folder() / f"gridstatus-{VERSION}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / "whole").exists():
        venv.create(folder, clear=True, with_pip=True)
        done = _run([str(python), "-m", "pip", "install", "--quiet", f"gridstatus=={VERSION}"])
        if done.returncode:
            raise MarketError(f"gridstatus {VERSION} can't be installed: {_last_line(done)}")
        (folder / "whole").touch()
    return str(python)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise MarketError(f"gridstatus {VERSION} took more than an hour") from error


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or "it stopped").splitlines()[-1][:300]
