"""Days of a market on disk: which are there, which to ask for, and a file for each.

What belongs here: one parquet file per UTC day under the data folder. What doesn't: what a source's answer means.
"""

from __future__ import annotations

import datetime as dt
import io
import logging
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import requests
from upath import UPath

from energy_ml.artifacts import write_atomically
from energy_ml.config import Settings, resolve_path
from energy_ml.errors import ConfigError, DuplicateError, MarketError, needing
from energy_ml.market_data.footers import FileInfo
from energy_ml.market_data.lake import ParquetLake
from energy_ml.markets.feed import Feed, Fetch
from energy_ml.markets.market import MARKETS, Market
from energy_ml.markets.session import MarketSession
from energy_ml.names import AVAILABLE_AT, PRICE, REGION, TIMESTAMP

log = logging.getLogger("energy_ml")

_ANEW_DAYS = 3
"""The newest days, today among them, are fetched each time: sources correct them."""


@dataclass(frozen=True)
class FetchedDay:
    """What became of a UTC day ``of`` prices or a feed: ``rows`` in its file; prices ``missing`` up to the last."""

    of: str
    day: dt.date
    outcome: Literal["new", "changed", "as before", "already there", "nothing published", "not had"]
    rows: int = 0
    missing: int = 0


@dataclass(frozen=True)
class _Files:
    """One kind of files of a market: where they lie, who reads their rows, columns that tell rows apart and values."""

    of: str
    folder: str
    fetch: Fetch
    key: tuple[str, ...]
    values: tuple[str, ...]


def fetch_days(
    market: str,
    first: dt.date,
    last: dt.date,
    settings: Settings,
    regions: Sequence[str] | None = None,
    feeds: Sequence[str] = (),
    *,
    session: MarketSession | None = None,
    now: pd.Timestamp | None = None,
) -> Iterator[FetchedDay]:
    """Fetch the UTC days from ``first`` to ``last`` into ``<data folder>/<market>/<day>.parquet``, oldest first.

    A whole day with all regions that is older than ``_ANEW_DAYS`` isn't asked for again. A file is written beside and
    renamed, and only if it differs, so that fetching again starts nothing. Regions that a day's file has stay in it.
    After the prices come ``feeds`` and those that the settings' covariates need, each into ``<market>_<feed>`` and with
    the day after ``last``. A day of a feed that can't be had is told and stops nothing.

    Parameters
    ----------
    regions : those of the settings by default, else all that the market has.
    now : the moment it is, by default; prices of intervals that haven't begun are no prices.

    Yields
    ------
    One FetchedDay for each, as soon as its file is there.

    Raises
    ------
    ConfigError : no such market, region or feed, no key or a wrong one, an impossible range, or the sample's folder.
    MarketError : a day's prices can't be had; days before it stay.
    """
    now = pd.Timestamp.now("UTC") if now is None else now
    chosen, regions = _choose(market, regions or settings.regions)
    wanted = _feeds(chosen, feeds, settings)
    _refuse(chosen, first, last, now, settings)
    session = session or MarketSession(settings.operations.market_mirror)
    folder = f"{settings.data_dir.rstrip('/')}/{chosen.name}"
    prices = _Files("prices", folder, chosen.fetch, (TIMESTAMP, REGION), (PRICE,))
    yield from _fetch(chosen, prices, pd.date_range(first, last, tz="UTC"), regions, session, now)
    for feed in wanted:
        key = (TIMESTAMP, REGION, AVAILABLE_AT)
        said = _Files(feed.name, f"{folder}_{feed.name}", feed.fetch, key, feed.columns)
        days = pd.date_range(first, last + dt.timedelta(days=1), tz="UTC")
        yield from _fetch(chosen, said, days, regions, session, now)


def _fetch(
    market: Market,
    files: _Files,
    days: pd.DatetimeIndex,
    regions: Sequence[str],
    session: MarketSession,
    now: pd.Timestamp,
) -> Iterator[FetchedDay]:
    there = {UPath(info.path).stem: info for info in ParquetLake(files.folder).inventory() if info.problem is None}
    for moment in days:
        day, info = moment.date(), there.get(f"{moment:%Y-%m-%d}")
        known = () if info is None else info.regions
        old = moment < now - pd.Timedelta(days=_ANEW_DAYS)
        if info and old and set(regions) <= set(known) and (files.of != "prices" or _whole(info)):
            yield FetchedDay(files.of, day, "already there", info.rows)
        else:
            try:
                rows = _ask(market, files, moment, sorted({*regions, *known}), session, now)
            except (MarketError, DuplicateError) as error:
                if files.of == "prices":
                    raise
                log.warning("%s", error)
                yield FetchedDay(files.of, day, "not had")
                continue
            yield _write(files, day, rows)


def _feeds(market: Market, named: Sequence[str], settings: Settings) -> list[Feed]:
    """The feeds that are named, and those with a column that is a covariate of the settings."""
    if unknown := sorted(set(named) - {feed.name for feed in market.feeds}):
        raise ConfigError(
            f"{market.title} has no {', '.join(unknown)} to fetch with its prices",
            expected=", ".join(feed.name for feed in market.feeds) or "none",
            remedy="see energy-ml fetch --list",
        )
    covariates = {covariate.name for covariate in settings.models.price_prediction.covariates}
    return [feed for feed in market.feeds if feed.name in named or covariates & set(feed.columns)]


def _choose(name: str, named: Sequence[str] | None) -> tuple[Market, Sequence[str]]:
    if name not in MARKETS:
        raise ConfigError(
            f"there is no market {name!r}", expected=", ".join(sorted(MARKETS)), remedy="see energy-ml fetch --list"
        )
    market = MARKETS[name]
    if market.regions and named and (unknown := sorted(set(named) - set(market.regions))):
        raise ConfigError(
            f"{market.title} has no region {', '.join(unknown)}",
            expected=", ".join(market.regions),
            remedy="correct --regions, or ENERGY_ML_REGIONS",
        )
    if not (named or market.regions):
        raise ConfigError(
            f"{market.title} has too many regions to fetch all", remedy="name some: --regions, or ENERGY_ML_REGIONS"
        )
    return market, named or market.regions


def _refuse(market: Market, first: dt.date, last: dt.date, now: pd.Timestamp, settings: Settings) -> None:
    if not first <= last <= now.date():
        raise ConfigError(f"the days {first} to {last} can't be fetched", expected=f"days in order, up to {now.date()}")
    if settings.data_dir == resolve_path(Settings.data_dir):
        raise ConfigError(
            f"{settings.data_dir} is the sample's folder, and markets don't mix",
            remedy="name another folder: export ENERGY_ML_DATA_DIR=…",
        )
    if market.key and not os.environ.get(market.key):
        raise ConfigError(
            f"{market.title} needs a key, and {market.key} isn't set", remedy=f"export {market.key}=…; {market.terms}"
        )


def _whole(info: FileInfo) -> bool:
    """Whether a day's file has every interval of its regions, whatever their length."""
    assert info.first is not None and info.last is not None
    midnight = info.first.floor("D")
    minutes = (midnight + pd.Timedelta(days=1) - info.last) / pd.Timedelta(minutes=1)
    return bool(info.first == midnight and minutes <= 60 and info.rows * minutes == 1440 * len(info.regions))


def _ask(
    market: Market, files: _Files, start: pd.Timestamp, regions: list[str], session: MarketSession, now: pd.Timestamp
) -> pd.DataFrame:
    """The day's rows by the contract, in order. Raises MarketError naming the day, why, and what to do."""
    end = start + pd.Timedelta(days=1)
    which = f"{market.title}: no {files.of} of {start:%Y-%m-%d}"
    again = "run it again, days that were fetched stay; if it goes on, see whether a firewall or a proxy is in the way"
    try:
        with needing("markets", market.title):
            rows = files.fetch(start, end, regions, session)
        times = {
            name: pd.to_datetime(rows[name], utc=True).astype("datetime64[ns, UTC]")
            for name in files.key
            if name != REGION
        }
        numbers = {name: rows[name].astype(float) if name in rows else np.nan for name in files.values}
        rows = rows.assign(**{**times, **numbers, REGION: rows[REGION].astype("str")})
    except MarketError as error:
        raise MarketError(f"{which}: {error.found}", remedy=again) from None
    except requests.RequestException as error:  # its own text may hold the key
        status = getattr(error.response, "status_code", None)
        why = f"the server answers {status}" if status else f"the server doesn't answer ({type(error).__name__})"
        if status in (401, 403) and market.key:
            remedy = f"correct {market.key}, or ask for access: {market.terms}"
            raise ConfigError(f"{which}: {why}", remedy=remedy) from None
        raise MarketError(f"{which}: {why}", remedy=f"wait some minutes; {again}" if status == 429 else again) from None
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, zipfile.BadZipFile) as error:
        raise MarketError(
            f"{which}: the answer can't be read ({type(error).__name__}: {str(error).partition(chr(10))[0][:100]})",
            remedy=f"{again}; if the source's format has changed, update energy_ml[markets]",
        ) from error
    key, until = list(files.key), min(end, now) if files.of == "prices" else end
    told = rows[list(files.values)].notna().any(axis=1)
    rows = rows[rows[TIMESTAMP].between(start, until, inclusive="left") & told]
    rows = rows.drop_duplicates().sort_values(key, ignore_index=True)
    if (twice := rows.duplicated(key, keep=False)).any():
        raise DuplicateError(
            f"{which}: it tells two {'prices' if files.of == 'prices' else 'values'} for one interval",
            rows=int(twice.sum()),
            example=" ".join(map(str, rows.loc[twice, [*key, *files.values]].iloc[0])),
            remedy=again,
        )
    return rows


def _write(files: _Files, day: dt.date, rows: pd.DataFrame) -> FetchedDay:
    if rows.empty:
        return FetchedDay(files.of, day, "nothing published")
    grid = rows[TIMESTAMP].drop_duplicates()
    step = grid.diff().min() if len(grid) > 1 else pd.Timedelta(days=1)
    span = round((grid.iloc[-1] - grid.iloc[0].floor("D")) / step) + 1
    missing = span * rows[REGION].nunique() - len(rows) if files.of == "prices" else 0
    made = FetchedDay(files.of, day, "new", len(rows), missing)
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    target = UPath(f"{files.folder}/{day}.parquet")
    before = target.read_bytes() if target.exists() else None
    if before == buffer.getvalue():
        return replace(made, outcome="as before")
    write_atomically(str(target), buffer.getvalue())
    return made if before is None else replace(made, outcome="changed")
