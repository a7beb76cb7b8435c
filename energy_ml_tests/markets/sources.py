"""What markets publish, made here: every price is a function of region and time, written in each source's own format.

A server on loopback answers as the source does, and misbehaves as told.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from zoneinfo import ZoneInfo

import pandas as pd

NEW_YORK = ZoneInfo("America/New_York")
Answer = tuple[int, dict[str, str], bytes]


def price(region: str, moment: pd.Timestamp) -> float:
    """The one price of an interval (by its start, UTC)."""
    return (zlib.crc32(f"{region} {moment:%Y-%m-%d %H:%M}".encode()) % 20_000 - 3_000) / 100


def expected(start: str, end: str, minutes: int, regions: Iterable[str]) -> pd.DataFrame:
    """What fetching [start, end) has to give."""
    times = pd.date_range(start, end, freq=f"{minutes}min", tz="UTC", inclusive="left", unit="ns")
    rows = [(time, region, price(region, time)) for time in times for region in sorted(regions)]
    return pd.DataFrame(rows, columns=["timestamp", "region", "real_time_price"]).astype({"region": "str"})


def ahead(what: str, region: str, moment: pd.Timestamp) -> float:
    """What is said beforehand of an interval (by its start, UTC)."""
    return price(f"{what} {region}", moment)


@dataclass
class Source:
    """A server: ``answer(path with query)`` is what the source would say, or a part of it; ``faults`` come first."""

    answer: Callable[[str], bytes | int | Answer | None]
    faults: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[Source]:
        """Listen on loopback within the block."""
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.asked.append(unquote(self.path))
                status, headers, body = source.faults.pop(0) if source.faults else source.usual(unquote(self.path))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def usual(self, path: str) -> Answer:
        """The answer where nothing is wrong."""
        found = self.answer(path)
        found = 404 if found is None else found
        if isinstance(found, tuple):
            return found
        return (found, {}, b"") if isinstance(found, int) else (200, {}, found)


def zipped(**files: bytes) -> bytes:
    """A ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


# --- New York -----------------------------------------------------------------------------------------------------


def nyiso_day(
    day: dt.date,
    zones: Iterable[str] = ("N.Y.C.", "WEST", "PJM"),
    *,
    without: Callable[[pd.Timestamp], bool] = lambda _: False,
    until: pd.Timestamp | None = None,
    extra: Iterable[str] = (),
) -> bytes:
    """The file of a local day: interval ends without a zone; ``without`` says which interval starts it lacks."""
    midnight = pd.Timestamp(day, tz=NEW_YORK)
    times = pd.date_range(
        midnight, pd.Timestamp(day + dt.timedelta(days=1), tz=NEW_YORK), freq="5min", inclusive="left"
    )
    lines = [
        '"Time Stamp","Name","PTID","LBMP ($/MWHr)","Marginal Cost Losses ($/MWHr)","Marginal Cost Congestion ($/MWHr)"'
    ]
    for start in times:
        utc = start.tz_convert("UTC")
        if without(utc) or (until is not None and utc >= until):
            continue
        stamp = (utc + pd.Timedelta(minutes=5)).tz_convert(NEW_YORK)
        lines += [f'"{stamp:%m/%d/%Y %H:%M:%S}","{zone}",61761,{price(zone, utc):.2f},1.20,-0.50' for zone in zones]
    return "\n".join([*lines, *extra, ""]).encode()


def nyiso_day_ahead(day: dt.date, zones: Iterable[str] = ("N.Y.C.", "WEST", "PJM")) -> bytes:
    """The auction's file of a local day: starts of its 23 to 25 hours without a zone or seconds."""
    days = (pd.Timestamp(day + dt.timedelta(days=n), tz=NEW_YORK) for n in (0, 1))
    lines = ['"Time Stamp","Name","PTID","LBMP ($/MWHr)","Marginal Cost Losses ($/MWHr)"']
    for start in pd.date_range(*days, freq="h", inclusive="left"):
        utc = start.tz_convert("UTC")
        lines += [f'"{start:%m/%d/%Y %H:%M}","{zone}",61761,{ahead("da", zone, utc):.2f},1.20' for zone in zones]
    return "\n".join([*lines, ""]).encode()


def nyiso(day_file: Callable[[dt.date], bytes | None] = nyiso_day, current: str = "12/31/2030 00:00:00") -> Source:
    """Both places of the files: postings by day, and the archive by month before December 2025."""

    def answer(path: str) -> bytes | None:
        if path.endswith("/current.csv"):
            return f'"Time Stamp","Name","PTID","LBMP ($/MWHr)"\n"{current}","WEST",61752,1.00\n'.encode()
        if path.startswith("/DAM_LBMP_ZONE/CSV/"):
            day = dt.datetime.strptime(path[-12:-4], "%Y%m%d").date()
            assert path == f"/DAM_LBMP_ZONE/CSV/{day:%Y/%m/%d}/damlbmp_zone-{day:%Y%m%d}.csv"
            return nyiso_day_ahead(day) if day_file(day) is not None else None
        if path.startswith("/RT_LBMP_ZONE/CSV/"):
            day = dt.datetime.strptime(path[-12:-4], "%Y%m%d").date()
            assert path == f"/RT_LBMP_ZONE/CSV/{day:%Y/%m/%d}/realtime_zone-{day:%Y%m%d}.csv"
            return day_file(day) if day >= dt.date(2025, 12, 6) else None
        assert path.startswith("/public/csv/realtime/") and path.endswith("01realtime_zone_csv.zip")
        month = pd.Period(path.split("/")[-1][:6], "M")
        days = [moment.date() for moment in pd.date_range(month.start_time, month.end_time)]
        return zipped(**{f"{day:%Y%m%d}realtime_zone.csv": text for day in days if (text := day_file(day)) is not None})

    return Source(answer)


# --- Australia ----------------------------------------------------------------------------------------------------


def dispatch_rows(ends: Iterable[pd.Timestamp], regions: Iterable[str], interventions: Iterable[str] = ()) -> bytes:
    """A payload in AEMO's format: stamps are interval ends at UTC+10; an intervention adds a row of another price."""
    lines = [
        "C,NEMP.WORLD,DISPATCHIS,AEMO,PUBLIC,2026/01/01,00:05:00,1,DISPATCHIS,1",
        "I,DISPATCH,CASE_SOLUTION,2,SETTLEMENTDATE,RUNNO,INTERVENTION",
        'D,DISPATCH,CASE_SOLUTION,2,"2026/01/01 00:05:00",1,0',
        "I,DISPATCH,PRICE,5,SETTLEMENTDATE,RUNNO,REGIONID,DISPATCHINTERVAL,INTERVENTION,RRP,EEP",
    ]
    for end in ends:
        start, stamp = end.tz_convert("UTC") - pd.Timedelta(minutes=5), end.tz_convert("Etc/GMT-10")
        for region in regions:
            row = f'D,DISPATCH,PRICE,5,"{stamp:%Y/%m/%d %H:%M:%S}",1,{region},{stamp:%Y%m%d}001'
            lines.append(f"{row},0,{price(region, start):.5f},0")
            if f"{start:%Y-%m-%d %H:%M}" in interventions:
                lines.append(f"{row},1,{price(region, start) + 999:.5f},0")
    return "\n".join([*lines, f"C,END OF REPORT,{len(lines) + 1}", ""]).encode()


def told_rows(table: str, runs: Iterable[pd.Timestamp], region: str = "SA1") -> bytes:
    """What runs say: of each of the next 12 five minutes, or of each half hour to the end of the next trading day."""
    ends = "RUN_DATETIME,INTERVENTION,INTERVAL_DATETIME,REGIONID,RRP,TOTALDEMAND,LASTCHANGED"
    half_hours = "PREDISPATCHSEQNO,RUNNO,REGIONID,INTERVENTION,RRP,LASTCHANGED,DATETIME"
    columns = {
        "P5MIN": f"P5MIN,REGIONSOLUTION,9,{ends}",
        "PREDISPATCH": f"PREDISPATCH,REGION_PRICES,2,{half_hours}",
    }
    lines = ["C,NEMP.WORLD,P5MIN,AEMO,PUBLIC,2026/01/01,00:05:00,1,P5MIN,1", f"I,{columns[table]}"]
    head = ",".join(columns[table].split(",")[:3])
    for run in runs:
        local = run.tz_convert("Etc/GMT-10")
        step, count = (5, 12) if table == "P5MIN" else (30, 56)
        changed = f'"{local - pd.Timedelta(minutes=step) + pd.Timedelta(seconds=40):%Y/%m/%d %H:%M:%S}"'
        for n in range(count):
            end = local + n * pd.Timedelta(minutes=step)
            said = ahead(f"{run:%d %H:%M}", region, end.tz_convert("UTC") - pd.Timedelta(minutes=step))
            stamp, of = f'"{end:%Y/%m/%d %H:%M:%S}"', f'"{local:%Y/%m/%d %H:%M:%S}"'
            if table == "P5MIN":
                row = f"{of},0,{stamp},{region},{said:.5f},{said + 5000:.2f},{changed}"
            else:
                sequence = f"{local:%Y%m%d}{local.hour * 2 + local.minute // 30:02d}"
                row = f'"{sequence}",1,{region},0,{said:.5f},{changed},{stamp}'
            lines.append(f"D,{head},{row}")
    return "\n".join([*lines, f"C,END OF REPORT,{len(lines) + 1}", ""]).encode()


def aemo_told(table: str, runs: pd.DatetimeIndex) -> Source:
    """A month's archive up to the end of January 2026, and a file for each run from February on."""
    name = {"P5MIN": "P5MIN_REGIONSOLUTION", "PREDISPATCH": "PREDISPATCHPRICE"}[table]
    inside = {"P5MIN": "P5MIN_ALL_DATA", "PREDISPATCH": "PREDISP_ALL_DATA"}[table]
    package, prefix = {"P5MIN": ("P5_Reports", "P5MIN"), "PREDISPATCH": ("PredispatchIS_Reports", "PREDISPATCHIS")}[
        table
    ]
    root, current = "/Data_Archive/Wholesale_Electricity/MMSDM/", f"/Reports/Current/{package}/"
    folder = f"{root}2026/MMSDM_2026_01/MMSDM_Historical_Data_SQLLoader/{inside}/"
    split = pd.Timestamp("2026-02-01", tz="Etc/GMT-10")
    january = f"PUBLIC_ARCHIVE#{name}#ALL#FILE01#202601010000.zip"
    newest = {
        f"PUBLIC_{prefix}_{run.tz_convert('Etc/GMT-10'):%Y%m%d%H%M}_20260201123456.zip": run
        for run in runs[runs > split]
    }

    def answer(path: str) -> bytes | None:
        listings = {
            root: ["2026"],
            f"{root}2026/": ["MMSDM_2026_01"],
            folder: [january],
            current: list(newest),
            f"/Reports/Archive/{package}/": [],
        }
        if path in listings:
            return listing(path, listings[path], folders=path in (root, f"{root}2026/"))
        of = runs[runs <= split] if path == folder + january else [newest[path.removeprefix(current)]]
        return zipped(**{"PUBLIC.CSV": told_rows(table, of)})

    return Source(answer)


def listing(folder: str, names: Iterable[str], *, folders: bool = False) -> bytes:
    """A directory page as AEMO's server writes it."""
    mark, slash = ("&lt;dir&gt;", "/") if folders else ("1234", "")
    parent = folder.rstrip("/").rpartition("/")[0]
    links = "".join(
        f'  1/1/2026  1:00 AM {mark} <A HREF="{folder}{quote(name)}{slash}">{name}</A><br>' for name in names
    )
    return f'<html><pre><A HREF="{parent}/">[To Parent Directory]</A><br><br>{links}</pre></html>'.encode()


def aemo(
    months: Iterable[str] = (),
    archived: Iterable[dt.date] = (),
    current: Iterable[pd.Timestamp] = (),
    regions: Iterable[str] = ("NSW1", "QLD1", "SA1", "TAS1", "VIC1"),
    interventions: Iterable[str] = (),
) -> Source:
    """The monthly archive, daily bundles of five-minute files, and the five-minute files of today."""
    root, stores = (
        "/Data_Archive/Wholesale_Electricity/MMSDM/",
        ("/Reports/Archive/DispatchIS_Reports/", "/Reports/Current/DispatchIS_Reports/"),
    )
    months = {pd.Period(month, "M") for month in months}
    files: dict[str, Callable[[], bytes]] = {}

    def payload(ends: Iterable[pd.Timestamp]) -> bytes:
        return zipped(**{"PUBLIC.CSV": dispatch_rows(ends, regions, interventions)})

    def month_of(month: pd.Period) -> bytes:
        first = pd.Timestamp(month.start_time, tz="Etc/GMT-10")
        return payload(pd.date_range(first, first + pd.DateOffset(months=1), freq="5min", inclusive="right"))

    def bundle(day: dt.date) -> bytes:
        first = pd.Timestamp(day, tz="Etc/GMT-10")
        ends = pd.date_range(first, first + pd.Timedelta(days=1), freq="5min", inclusive="right")
        return zipped(**{f"PUBLIC_{i}.zip": payload(ends[i : i + 96]) for i in range(0, len(ends), 96)})

    for month in months:
        inside = f"{root}{month.year}/MMSDM_{month.year}_{month.month:02d}/MMSDM_Historical_Data_SQLLoader/DATA/"
        new = month >= pd.Period("2024-08", "M")
        name = f"PUBLIC_{'ARCHIVE#DISPATCHPRICE#FILE01#' if new else 'DVD_DISPATCHPRICE_'}{month:%Y%m}010000.zip"
        files[inside + name] = lambda month=month: month_of(month)
    for day in archived:
        files[f"{stores[0]}PUBLIC_DISPATCHIS_{day:%Y%m%d}.zip"] = lambda day=day: bundle(day)
    for end in current:
        name = f"PUBLIC_DISPATCHIS_{end.tz_convert('Etc/GMT-10'):%Y%m%d%H%M}_0000000490123456.zip"
        files[stores[1] + name] = lambda end=end: payload([end])

    def answer(path: str) -> bytes | None:
        if path in files:
            return files[path]()
        if path == root:
            return listing(root, sorted({str(month.year) for month in months} or {"2009"}), folders=True)
        if path.startswith(root) and path.count("/") == 5:
            names = [f"MMSDM_{month:%Y_%m}" for month in sorted(months)] or ["MMSDM_2009_07"]
            return listing(path, [name for name in names if name[6:10] == path.split("/")[-2]], folders=True)
        inside = [name for name in files if name.rpartition("/")[0] + "/" == path]
        return listing(path, [name.rpartition("/")[2] for name in inside]) if inside or path in stores else None

    return Source(answer)


# --- California and Texas ------------------------------------------------------------------------------------------


def caiso(throttled: int = 0) -> Source:
    """Answers of OASIS: a zipped CSV file with all parts of each price, as an attachment; 429 ``throttled`` times."""

    def answer(path: str) -> Answer:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        ahead_of = asked["queryname"] == "PRC_LMP"
        assert path.startswith("/oasisapi/SingleZip?") and (ahead_of or asked["queryname"] == "PRC_INTVL_LMP")
        span = [
            pd.to_datetime(asked[name], format="%Y%m%dT%H:%M-0000", utc=True)
            for name in ("startdatetime", "enddatetime")
        ]
        lines = [
            f"INTERVALSTARTTIME_GMT,INTERVALENDTIME_GMT,OPR_DT,NODE,LMP_TYPE,GROUP,{'MW' if ahead_of else 'VALUE'}"
        ]
        for time in pd.date_range(*span, freq="h" if ahead_of else "5min", inclusive="left"):
            end = time + pd.Timedelta(hours=1) if ahead_of else time + pd.Timedelta(minutes=5)
            stamps = f"{time:%Y-%m-%dT%H:%M:%S}-00:00,{end:%Y-%m-%dT%H:%M:%S}-00:00,2026-01-01"
            for node in asked["node"].split(","):
                of = ahead("da", node, time) if ahead_of else price(node, time)
                for kind, value in (("LMP", of), ("MCE", of + 1), ("MCC", -1.0), ("MCL", 0.5), ("MGHG", 0.0)):
                    lines.append(f"{stamps},{node},{kind},1,{value:.5f}")
        name = {"Content-Disposition": "attachment; filename=prices.csv.zip;"}
        return 200, name, zipped(**{"prices.csv": "\n".join([*lines, ""]).encode()})

    return Source(answer, faults=[(429, {}, b"")] * throttled)


def ercot(first: str, last: str) -> Source:
    """A list of documents, one for each quarter of an hour of [first, last) (UTC), and those files."""
    starts = pd.date_range(first, last, freq="15min", tz="UTC", inclusive="left")
    of = {f"{number}": start for number, start in enumerate(starts, 100)}

    def local(moment: pd.Timestamp) -> pd.Timestamp:
        return moment.tz_convert("US/Central")

    def listed(number: str, name: str, published: pd.Timestamp) -> dict[str, dict[str, str]]:
        facts = {"DocID": number, "FriendlyName": name, "ConstructedName": f"x.{name}.csv.zip".replace("_csv.", ".")}
        return {"Document": {**facts, "PublishDate": f"{local(published):%Y-%m-%dT%H:%M:%S-06:00}"}}

    def answer(path: str) -> bytes:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        if path.startswith("/misapp/"):
            prices = asked["reportTypeId"] == "12301"
            quarter = pd.Timedelta(minutes=15)
            found = [
                listed(number, f"SPPHLZNP6905_{local(start + quarter):%Y%m%d_%H%M}_csv", start + quarter)
                for number, start in of.items()
            ]
            found = found if prices else [listed("1", "Settlement_Points_x", starts[0])]
            return json.dumps({"ListDocsByRptTypeRes": {"DocumentList": found}}).encode()
        if asked["doclookupId"] == "1":
            return zipped(**{"Settlement_Points_x.csv": b"RESOURCE_NODE\nNODE_1\n"})
        start = of[asked["doclookupId"]]
        at = local(start)
        again = "Y" if local(start - pd.Timedelta(hours=1)).hour == at.hour else "N"
        head = f"{at:%m/%d/%Y},{at.hour + 1},{at.minute // 15 + 1}"
        rows = [
            f"{head},{name},{kind},{price(name, start) + wrong:.2f},{again}"
            for name, kind, wrong in (
                ("HB_NORTH", "HU", 0),
                ("LZ_WEST", "LZ", 0),
                ("LZ_WEST", "LZEW", 9),
                ("NODE_1", "RN", 0),
            )
        ]
        columns = "DeliveryDate,DeliveryHour,DeliveryInterval,SettlementPointName,SettlementPointType,"
        return zipped(**{"x.csv": "\n".join([f"{columns}SettlementPointPrice,DSTFlag", *rows, ""]).encode()})

    return Source(answer)


# --- Great Britain ------------------------------------------------------------------------------------------------


def elexon(without: Callable[[pd.Timestamp], bool] = lambda _: False) -> Source:
    """Settlement days of London, newest period first; each price was published before, wrongly."""

    def answer(path: str) -> bytes | None:
        day = path.partition("?")[0].rpartition("/")[2]
        assert path == f"/bmrs/api/v1/balancing/settlement/system-prices/{day}?format=json"
        first = pd.Timestamp(day, tz="Europe/London")
        times = pd.date_range(first, first + pd.DateOffset(days=1), freq="30min", inclusive="left").tz_convert("UTC")
        rows = [
            {
                "settlementDate": day,
                "settlementPeriod": period,
                "startTime": f"{time:%Y-%m-%dT%H:%M:%SZ}",
                "createdDateTime": f"{time + delay:%Y-%m-%dT%H:%M:%S}{fraction}Z",
                "systemSellPrice": price("GB", time) + wrong,
                "systemBuyPrice": price("GB", time) + wrong,
            }
            for period, time in enumerate(times, 1)
            if not without(time)
            # As text, the fraction sorts before the bare second that came earlier.
            for delay, fraction, wrong in (
                (pd.Timedelta(hours=1), ".5", 0.0),
                (pd.Timedelta(hours=1), "", 99.0),
                (pd.Timedelta(minutes=40), "", 55.0),
            )
        ]
        return json.dumps({"metadata": {"datasets": ["SYSPRICE"]}, "data": rows[::-1]}).encode()

    return Source(answer)


# --- Europe -------------------------------------------------------------------------------------------------------

ZONES = {"10YBE----------2": ("BE", 15, ("None",)), "10YFR-RTE------C": ("FR", 30, ("A04", "A05"))}
"""EIC code -> name, minutes, categories of price; the second is 7 above the first."""


def _period(start: pd.Timestamp, end: pd.Timestamp, minutes: int, values: list[str]) -> str:
    """The points of a series, each with the XML of its values."""
    points = "".join(f"<Point><position>{i}</position>{value}</Point>" for i, value in enumerate(values, 1))
    return (
        f"<Period><timeInterval><start>{start:%Y-%m-%dT%H:%MZ}</start><end>{end:%Y-%m-%dT%H:%MZ}</end></timeInterval>"
        f"<resolution>PT{minutes}M</resolution>{points}</Period>"
    )


def _told_document(asked: dict[str, str], start: pd.Timestamp, end: pd.Timestamp) -> bytes:
    """Day-ahead prices of 15 minutes, or forecasts of load, wind and sun of an hour, of the days that are asked for."""
    kind, what, minutes = {
        "A44": ("price.amount", ("da",), 15),
        "A65": ("quantity", ("load",), 60),
        "A69": ("quantity", ("B16", "B18", "B19"), 60),
    }[asked["documentType"]]
    zone = ZONES[asked.get("in_Domain") or asked["outBiddingZone_Domain"]][0]
    series = ""
    for name in what:
        times = pd.date_range(start, end, freq=f"{minutes}min", inclusive="left")
        period = _period(start, end, minutes, [f"<{kind}>{ahead(name, zone, time):.2f}</{kind}>" for time in times])
        series += (
            f"<TimeSeries><inBiddingZone_Domain.mRID>x</inBiddingZone_Domain.mRID><curveType>A01</curveType>"
            f"<MktPSRType><psrType>{name}</psrType></MktPSRType>{period}</TimeSeries>"
        )
    return f"<Publication_MarketDocument>{series}</Publication_MarketDocument>".encode()


def entsoe(key: str, until: pd.Timestamp | None = None) -> Source:
    """Imbalance prices: XML in a ZIP file; XML alone, with a reason, where there are none."""

    def refusal(status: int, reason: str) -> Answer:
        text = f"<Reason><code>999</code><text>{reason}</text></Reason>"
        return (
            status,
            {"Content-Type": "text/xml"},
            f"<Acknowledgement_MarketDocument>{text}</Acknowledgement_MarketDocument>".encode(),
        )

    def answer(path: str) -> bytes | Answer:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        if asked["securityToken"] != key:
            return refusal(401, "Unauthorized. Missing or invalid security token.")
        start, end = (
            pd.to_datetime(asked[name], format="%Y%m%d%H%M", utc=True) for name in ("periodStart", "periodEnd")
        )
        end = end if until is None else min(end, until)
        if end <= start:
            return refusal(200, "No matching data found for Data item Imbalance Prices")
        if asked["documentType"] != "A85":
            return (
                _told_document(asked, start, end)
                if asked.get("offset", "0") == "0"
                else refusal(200, "No matching data found")
            )
        zone, minutes, categories = ZONES[asked["controlArea_Domain"]]
        series = ""
        for number, category in enumerate(categories):
            values = [
                f"<imbalance_Price.amount>{price(zone, time) + 7 * number:.2f}</imbalance_Price.amount>"
                f"<imbalance_Price.category>{category}</imbalance_Price.category>"
                for time in pd.date_range(start, end, freq=f"{minutes}min", inclusive="left")
            ]
            period = _period(start, end, minutes, values)
            series += f"<TimeSeries><businessType>A19</businessType><curveType>A01</curveType>{period}</TimeSeries>"
        return zipped(**{"imbalance.xml": f"<Balancing_MarketDocument>{series}</Balancing_MarketDocument>".encode()})

    return Source(answer)
