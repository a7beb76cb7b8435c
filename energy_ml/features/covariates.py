"""What else is known beside prices: measured before, or said of a time to come, as it was known at each price.

What belongs here: the columns that covariates become, made row by row. What doesn't: reading files (``lake``), and
which covariates pay (``price_prediction``).

Every column of a price at t uses what was available at t alone, and depends on nothing but that: however many rows are
asked for at once, each gets the same bits. They stand beside the prices, as extra columns do.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.config import Covariate
from energy_ml.features.panel import NS_PER_MINUTE, timestamps_ns, with_region
from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import AVAILABLE_AT, HORIZON, POOLED, PRICE, PRICE_EXPECTED, PRICE_FORECAST, REGION, TIMESTAMP

log = logging.getLogger("energy_ml")

PREFIX = "covariate_"
_COLUMN = re.compile(PREFIX + r"(?:price_|value_)(.+?)_(?:level|gap|change|distance|move)(?:_(\d+)m)?")
_HOUR, _DAY = 60 * NS_PER_MINUTE, 1440 * NS_PER_MINUTE
OUTLOOK = tuple(range(120, 1441, 60))
"""Minutes ahead at which a battery's plan takes what prices known ahead say."""


def covariate_columns(covariates: Sequence[Covariate], horizons: Sequence[int]) -> list[str]:
    """Names of the columns of ``covariates``, for models of these ``horizons`` (minutes)."""
    names = []
    for covariate in covariates:
        stem, level = _stem(covariate), "gap" if covariate.is_price else "level"
        if covariate.known == "observed":
            names += [f"{stem}_{what}" for what in (level, "change", "distance")]
        else:
            names += [f"{stem}_{what}_{horizon}m" for horizon in horizons for what in (level, "move")]
    return names


def covariate_of(column: str) -> str | None:
    """Name of the covariate that a column is of; None for any other column."""
    found = _COLUMN.fullmatch(column)
    return None if found is None else found[1]


def of_horizon(columns: Iterable[str], horizon: int) -> list[str]:
    """The columns that a model of ``horizon`` minutes sees: all but those of other horizons' covariates."""
    return [c for c in columns if (found := _COLUMN.fullmatch(c)) is None or found[2] in (None, str(horizon))]


def with_unknown(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The frame with those of covariates' ``columns`` that it lacks, empty: models do without what is unknown."""
    lacking = [name for name in columns if name.startswith(PREFIX) and name not in frame.columns]
    return frame.assign(**dict.fromkeys(lacking, np.nan)) if lacking else frame


def add_covariates(
    prices: pd.DataFrame, lake: ParquetLake, covariates: Sequence[Covariate], horizons: Sequence[int]
) -> pd.DataFrame:
    """``with_covariates`` of what the lake's files say; the frame itself where there are no covariates.

    A file that can't be read takes nothing else with it: what it says is unknown then, and a warning tells.
    """
    if not covariates or not len(prices):
        return prices
    return with_covariates(prices, _read(prices, lake, covariates, max(horizons)), covariates, horizons)


def outlook(prices: pd.DataFrame, lake: ParquetLake, covariates: Sequence[Covariate]) -> pd.DataFrame:
    """What prices known ahead say of the coming day, hour by hour from the second on, as rows of a forecasts frame.

    Parameters
    ----------
    prices : ``timestamp`` and ``region``; n rows.
    covariates : those that are prices known ahead count; of several the first that says something.

    Returns
    -------
    ``timestamp, region, horizon_minutes, price_forecast, price_expected`` (the same) for each row and each of
    ``OUTLOOK``, as known at the row's time, NaN where nothing was known; no rows where no covariate is such a price.
    """
    ahead = [covariate for covariate in covariates if covariate.known == "ahead" and covariate.is_price]
    made = [pd.DataFrame(columns=[TIMESTAMP, REGION, HORIZON, PRICE_FORECAST, PRICE_EXPECTED])]
    rows = _read(prices, lake, ahead, OUTLOOK[-1]) if ahead and len(prices) else pd.DataFrame()
    now, leads = timestamps_ns(prices[TIMESTAMP]), np.array(OUTLOOK, dtype=np.int64)
    for name, of in prices.groupby(REGION, sort=False).indices.items() if len(rows) else ():
        moment = np.repeat(now[of], len(leads))
        then = moment + np.tile(leads, len(of)) * NS_PER_MINUTE
        value = np.full(len(moment), np.nan)
        for covariate in ahead:
            value = np.where(np.isnan(value), _Told(_of_region(rows, name), covariate).at(then, moment), value)
        at = prices[TIMESTAMP].iloc[np.repeat(of, len(leads))].reset_index(drop=True)
        told = {PRICE_FORECAST: value, PRICE_EXPECTED: value}
        made.append(pd.DataFrame({TIMESTAMP: at, REGION: name, HORIZON: np.tile(leads, len(of)), **told}))
    return pd.concat(made[1:] or made, ignore_index=True)


def _read(prices: pd.DataFrame, lake: ParquetLake, covariates: Sequence[Covariate], reach: int) -> pd.DataFrame:
    """What files say of the covariates around ``prices`` and up to ``reach`` minutes after them."""
    longest = max(c.delay_minutes + c.minutes for c in covariates)
    # An observed value counts for a day, and so does each that its mean is taken over.
    before = pd.Timedelta(days=3 * any(c.known == "observed" for c in covariates), minutes=longest)
    after = pd.Timedelta(minutes=reach + 1)
    rows = lake.read_covariates(
        prices[TIMESTAMP].min() - before, prices[TIMESTAMP].max() + after, [c.name for c in covariates]
    )
    for problem in rows.attrs["problems"]:
        log.warning("a covariate's file is left out: %s", problem)
    return rows


def with_covariates(
    prices: pd.DataFrame, rows: pd.DataFrame, covariates: Sequence[Covariate], horizons: Sequence[int]
) -> pd.DataFrame:
    """Long prices with the columns of ``covariates``, each as it was known at the price's own time.

    Parameters
    ----------
    prices : ``timestamp``, ``region`` (may be left out for one region), ``real_time_price``; n rows in any order.
    rows : ``timestamp`` (the time spoken of), ``available_at`` (NaT: when that time is over), ``region`` (``all``:
        every region that has none of its own) and the covariates' columns.
    horizons : of the models, minutes.

    Returns
    -------
    The same rows with ``covariate_columns``; NaN where nothing was known. A price's move and distance are those from
    its present value and from the price now.
    """
    keyed = with_region(prices)
    now, region = timestamps_ns(keyed[TIMESTAMP]), keyed[REGION].to_numpy(dtype=object)
    columns = {name: np.full(len(prices), np.nan) for name in covariate_columns(covariates, horizons)}
    for covariate in covariates:
        for name in dict.fromkeys(region):
            here = region == name
            told = _of_region(rows, name)
            price = keyed[PRICE].to_numpy(dtype=np.float64)[here]
            for column, values in _columns_of(_Told(told, covariate), covariate, now[here], price, horizons).items():
                columns[column][here] = values
    return prices.assign(**columns)


def _of_region(rows: pd.DataFrame, name: object) -> pd.DataFrame:
    own = rows[REGION] == name
    return rows[own if own.any() else rows[REGION] == POOLED]


def _stem(covariate: Covariate) -> str:
    return f"{PREFIX}{'price' if covariate.is_price else 'value'}_{covariate.name}"


class _Told:
    """What is said of one covariate in one region: what holds at a time, as known at a moment."""

    def __init__(self, rows: pd.DataFrame, covariate: Covariate) -> None:
        rows = rows[np.isfinite(rows[covariate.name].to_numpy(dtype=np.float64))]
        times = rows[TIMESTAMP].to_numpy(dtype="datetime64[ns]").view(np.int64)
        said = rows[AVAILABLE_AT].to_numpy(dtype="datetime64[ns]")
        over = times + covariate.minutes * NS_PER_MINUTE
        since = np.where(np.isnat(said), over, said.view(np.int64))
        if covariate.known == "observed":
            since = np.maximum(since, over)
        since = since + covariate.delay_minutes * NS_PER_MINUTE
        order = np.lexsort((since, times))  # of equal ones the file's later row is last
        self.minutes = covariate.minutes
        self.times, place = np.unique(times[order], return_inverse=True)
        self._values = rows[covariate.name].to_numpy(dtype=np.float64)[order]
        self._moments, rank = np.unique(since[order], return_inverse=True)
        self._keys = place * (len(self._moments) + 1) + rank + 1
        # From each moment on, the newest time that anything was said of.
        first = np.full(len(self._moments), -1, dtype=np.int64)
        np.maximum.at(first, rank, place)
        self._newest = np.maximum.accumulate(first) if len(first) else first

    def at(self, time: Integers, moment: Integers) -> Floats:
        """The value that holds at ``time`` (n,), as it was known at ``moment`` (n,); NaN where none was."""
        out = np.full(len(time), np.nan)
        if not len(self.times):
            return out
        place = np.searchsorted(self.times, time, side="right") - 1
        key = place * (len(self._moments) + 1) + np.searchsorted(self._moments, moment, side="right")
        found = np.searchsorted(self._keys, key, side="right") - 1
        holds = (place >= 0) & (found >= 0)
        holds[holds] &= self._keys[found[holds]] // (len(self._moments) + 1) == place[holds]
        holds[holds] &= time[holds] - self.times[place[holds]] < self.minutes * NS_PER_MINUTE
        out[holds] = self._values[found[holds]]
        return out

    def newest(self, moment: Integers) -> Integers:
        """The newest time that was spoken of by ``moment`` (n,), at most a day before it; else long ago."""
        out = np.full(len(moment), np.iinfo(np.int64).min // 2)
        seen = np.searchsorted(self._moments, moment, side="right") - 1
        known = seen >= 0
        out[known] = self.times[self._newest[seen[known]]]
        return np.where(moment - out <= _DAY + self.minutes * NS_PER_MINUTE, out, np.iinfo(np.int64).min // 2)


def _columns_of(
    told: _Told, covariate: Covariate, now: Integers, price: Floats, horizons: Sequence[int]
) -> dict[str, Floats]:
    """The covariate's columns at ``now`` (n,), where the price is ``price`` (n,)."""
    stem, level = _stem(covariate), "gap" if covariate.is_price else "level"
    base = price if covariate.is_price else 0.0
    if covariate.known == "ahead":
        present, columns = told.at(now, now), dict[str, Floats]()
        for horizon in horizons:
            then = told.at(now + horizon * NS_PER_MINUTE, now)
            columns |= {f"{stem}_{level}_{horizon}m": then - base, f"{stem}_move_{horizon}m": then - present}
        return columns
    newest = told.newest(now)
    value = told.at(newest, now)
    total, count = np.zeros(len(now)), np.zeros(len(now))
    step = max(_HOUR, told.minutes * NS_PER_MINUTE)
    for back in range(_DAY // step):
        one = told.at(newest - back * step, now)
        known = np.isfinite(one)
        total, count = total + np.where(known, one, 0.0), count + known
    mean = total / np.where(count > 0, count, np.nan)
    change = value - told.at(newest - step, now)
    return {f"{stem}_{level}": value - base, f"{stem}_change": change, f"{stem}_distance": value - mean}
