"""Run by the interpreter of gridstatus' own environment, which has no energy_ml: prices of a market into a CSV file.

What belongs here: which of gridstatus' rows count. What doesn't: that environment (``north_america``).
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
import warnings
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import requests

_AGAIN = (429, 500, 502, 503, 504)
_WAITS = (5, 20, 60)


def _caiso(asked: dict[str, Any], market: str) -> pd.DataFrame:
    import gridstatus

    span = [moment.tz_convert("US/Pacific") for moment in (asked["start"], asked["end"])]
    return gridstatus.CAISO().get_lmp(span[0], end=span[1], market=market, locations=asked["regions"])


def _ercot(asked: dict[str, Any]) -> pd.DataFrame:
    """Settlement prices of 15 minutes; a load zone's energy-weighted price, under the same name, is another one.

    Files are chosen by the local time in their names, which doesn't tell the repeated hour: an hour more either side.
    """
    import gridstatus

    hour = pd.Timedelta(hours=1)
    span = [moment.tz_convert("US/Central") for moment in (asked["start"] - hour, asked["end"] + hour)]
    rows = gridstatus.Ercot().get_spp(span[0], end=span[1], market="REAL_TIME_15_MIN", locations=asked["regions"])
    return rows[rows["Location Type"].isin(["Trading Hub", "Load Zone"])].rename(columns={"SPP": "LMP"})


_MARKETS = {
    "caiso": lambda asked: _caiso(asked, "REAL_TIME_5_MIN"),
    "caiso_day_ahead": lambda asked: _caiso(asked, "DAY_AHEAD_HOURLY"),
    "ercot": _ercot,
}


def _strict(mirror: str | None) -> None:
    """Let no refusal pass for "no data", as gridstatus does, and ask ``mirror`` in place of every server."""
    send, waits = requests.Session.send, (0, 0) if mirror else _WAITS

    def at(url: str) -> str:
        parts = urlsplit(url)
        return f"{mirror.rstrip('/')}{parts.path}?{parts.query}" if mirror else url

    def strict(session: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        request.url = at(str(request.url))
        for wait in (*waits, None):
            answer = send(session, request, **more)
            if answer.status_code not in _AGAIN:
                return answer
            if wait is not None:
                time.sleep(wait)
        sys.exit(f"the server answers {answer.status_code}")

    requests.Session.send = strict  # type: ignore[method-assign,assignment]
    if mirror:  # pandas reads addresses by itself
        opened = urllib.request.urlopen

        def elsewhere(asked: Any, *more: Any, **named: Any) -> Any:
            return opened(at(asked if isinstance(asked, str) else asked.full_url), *more, **named)

        urllib.request.urlopen = elsewhere  # type: ignore[assignment]


def main() -> None:
    """Write the rows that ``argv`` (JSON: what, start, end, regions, mirror, to) asks for."""
    asked = json.loads(sys.argv[1])
    asked |= {name: pd.Timestamp(asked[name]) for name in ("start", "end")}
    _strict(asked["mirror"])
    warnings.simplefilter("ignore")
    try:
        rows = _MARKETS[asked["what"]](asked)
    except Exception as error:
        if type(error).__name__ != "NoDataFoundException":
            sys.exit(f"{type(error).__name__}: {error}")
        rows = pd.DataFrame({"Interval Start": pd.to_datetime([], utc=True), "Location": [], "LMP": []})
    told = {"timestamp": pd.to_datetime(rows["Interval Start"], utc=True), "region": rows["Location"]}
    pd.DataFrame({**told, "real_time_price": rows["LMP"]}).to_csv(asked["to"], index=False)


if __name__ == "__main__":
    main()
