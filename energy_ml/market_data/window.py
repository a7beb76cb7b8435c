"""The data of one as-of date: its training window, whole and clean, with warm-up before it where the files have any.

What belongs here: putting lake and cleaning together for a window. What doesn't: features, models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from energy_ml.errors import DataError, IncompleteWindowError, NoDataError
from energy_ml.market_data.cleaning import MAX_ABS_PRICE, CleanPrices, clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.rows import rows_by_code
from energy_ml.market_data.schema import DataProblem, as_text
from energy_ml.names import PRICE, REGION, TIMESTAMP
from energy_ml.splits import PARTS, TimeSplit

_MOST_OF_TRAINING = 0.75
"""A short window can't have many days: of its training part so much is enough."""
_DAY_MINUTES = 1440
_CENTURY_MINUTES = 36_525 * 1440


@dataclass(frozen=True)
class PriceWindow:
    """Clean long prices of [start - warm-up, end), their interval, what was found wrong, and a digest of the window."""

    prices: pd.DataFrame
    start: pd.Timestamp
    end: pd.Timestamp
    interval_minutes: int
    problems: list[DataProblem]
    fingerprint: str

    @property
    def holes(self) -> str:
        """In words, what is missing of the window and couldn't be filled; empty if nothing is."""
        return "; ".join(
            f"{p.message}; {p.rows:,} prices, the first {p.example}" for p in self.problems if p.kind == "hole"
        )

    @property
    def in_window(self) -> pd.Series:
        """Boolean mask of the rows inside [start, end); the others are warm-up."""
        return self.prices["timestamp"] >= self.start


def read_price_window(
    lake: ParquetLake,
    start: pd.Timestamp,
    end: pd.Timestamp,
    *,
    warmup_minutes: int = 0,
    regions: Sequence[str] | None = None,
    extra_columns: Sequence[str] = (),
    max_gap_minutes: int = 30,
    max_abs_price: float = MAX_ABS_PRICE,
) -> PriceWindow:
    """Read and clean [start, end), and up to ``warmup_minutes`` before it.

    The warm-up need not exist, and what is wrong only there refuses nothing: of it so many whole days are kept as are
    right together with the window. Raises the DataErrors of the lake and of ``clean_prices``.
    """

    def read(warm: int) -> CleanPrices:
        return clean_prices(
            lake.read_prices(start - pd.Timedelta(minutes=warm), end, regions=regions, columns=list(extra_columns)),
            start=start,
            end=end,
            max_gap_minutes=max_gap_minutes,
            regions=regions,
            warmup_minutes=warm,
            max_abs_price=max_abs_price,
        )

    try:
        cleaned = read(warmup_minutes)
    except DataError as error:
        if not warmup_minutes:
            raise
        cleaned, warm, reason = read(0), 0, error
        for longer in range(_DAY_MINUTES, warmup_minutes, _DAY_MINUTES):
            try:
                cleaned, warm = read(longer), longer
            except DataError as nearer:
                reason = nearer
                break
        message = f"{warm // _DAY_MINUTES} days before the window were used, not those before: {reason.found}"
        cleaned.problems.append(
            DataProblem("warm_up", message, 0, True, column=reason.column, file=as_text(reason.file))
        )
    inside = cleaned.frame["timestamp"] >= start
    return PriceWindow(
        prices=cleaned.frame,
        start=start,
        end=end,
        interval_minutes=cleaned.interval_minutes,
        problems=cleaned.problems,
        fingerprint=fingerprint_of(cleaned.frame[inside]),
    )


def refuse_too_few(
    window: PriceWindow, split: TimeSplit, *, min_training_days: float, max_missing_share: float
) -> PriceWindow:
    """The window, if each region has prices enough to learn from and to be judged by.

    Parameters
    ----------
    min_training_days : days' worth of measured prices in the training part, at most three quarters of it.
    max_missing_share : largest share of the validation part, and of the test part, that may not have been measured.

    Raises
    ------
    IncompleteWindowError
        Naming each region that lacks too much, and where it begins or ends if it doesn't cover the window.
    """
    inside = window.prices[window.in_window]
    measured = inside[~inside["is_filled"]]
    times, (codes, found) = pd.DatetimeIndex(measured["timestamp"]), pd.factorize(measured["region"])
    own = dict(zip(map(str, found), rows_by_code(codes, len(found)), strict=True))
    names = sorted(map(str, inside["region"].unique()))
    per_day = _DAY_MINUTES / window.interval_minutes
    length = {name: (np.subtract(*reversed(split.bounds(name)))) / pd.Timedelta(days=1) for name in PARTS}
    least = min(min_training_days, _MOST_OF_TRAINING * length["train"])
    bad: dict[str, str] = {}
    lost = 0
    for name in names:
        mine = times[own.get(name, [])]
        days = {part: int(split.mask(mine, part).sum()) / per_day for part in PARTS}
        words = [] if days["train"] >= least else [f"has {days['train']:.1f} days to train on"]
        for part in ("validation", "test"):
            missing = 1 - days[part] / length[part]
            if missing > max_missing_share:
                words.append(f"lacks {missing:.0%} of the {part} part")
        if words:
            if len(mine) and mine[0] > window.start:
                words.append(f"starts only at {mine[0]}")
            last = window.end - pd.Timedelta(minutes=window.interval_minutes)
            if len(mine) and mine[-1] < last:
                words.append(f"stops after {mine[-1]}")
            bad[name] = f"{name} {' and '.join(words) if len(mine) else 'has no price at all'}"
            lost += round(sum(length.values()) * per_day) - len(mine)
    if not bad:
        return window
    good = [name for name in names if name not in bad]
    unreadable = [p.file for p in window.problems if p.kind == "unreadable_file" and p.file]
    remedy = "add the missing prices or choose a window that the files cover"
    if good:
        remedy = f"add the missing prices, or train without: ENERGY_ML_REGIONS={','.join(good)}"
    if unreadable:
        remedy = f"the rows may be in files that can't be read: {', '.join(unreadable)}. Else {remedy}"
    raise IncompleteWindowError(
        f"{len(bad)} of {len(names)} regions lack too many prices from {window.start} to {window.end}: "
        f"{'; '.join(bad.values())}",
        column=PRICE,
        rows=lost,
        expected=f"at least {least:.3g} days to train on (ENERGY_ML_PRICES_MIN_TRAINING_DAYS), and "
        f"missing in validation and in test at most {max_missing_share:.0%} (ENERGY_ML_PRICES_MAX_MISSING_SHARE)",
        remedy=remedy,
    )


def fingerprint_of(prices: pd.DataFrame) -> str:
    """SHA-256 of a clean long frame's contents: equal rows give equal digests, wherever they came from."""
    digest = hashlib.sha256()
    for name in sorted(prices.columns):
        digest.update(name.encode())
        digest.update(pd.util.hash_pandas_object(prices[name], index=False).to_numpy().tobytes())
    return digest.hexdigest()


def read_recent_prices(
    lake: ParquetLake,
    *,
    minutes: int = 2 * 1440,
    until: pd.Timestamp | None = None,
    regions: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    max_gap_minutes: int = 30,
    max_abs_price: float = MAX_ABS_PRICE,
) -> pd.DataFrame:
    """Clean long prices of the last ``minutes`` in the files (or before ``until``): what a predictor is asked with.

    What the files hold of the time to come, by the clock, isn't known yet and left out. The newest row has a price;
    regions that stop earlier than the others keep NaN at their end, or aren't there. ``columns``: further ones to read.

    Raises
    ------
    NoDataError
        There are no prices, or none in these minutes.
    DataError
        ``minutes`` isn't between one and a century; and as the lake and ``clean_prices`` raise.
    """
    if not 1 <= minutes <= _CENTURY_MINUTES:
        raise DataError(f"{minutes} minutes of prices asked for", expected=f"1 to {_CENTURY_MINUTES:,}")
    moment = pd.Timedelta(nanoseconds=1)  # the interval that begins now is known
    newest = lake.newest_row(regions)
    end = min(newest + moment, pd.Timestamp.now("UTC") + moment if until is None else until)
    rows = lake.read_prices(end - pd.Timedelta(minutes=minutes), end, regions=regions, columns=columns)
    if not len(rows):
        raise NoDataError(
            f"there are no prices in the {minutes} minutes before {end.floor('s')}",
            file=lake.root,
            expected=f"prices up to {newest}",
            remedy="ask for a time that the files cover",
        )
    there = None if regions is None else [name for name in regions if (rows[REGION] == name).any()]
    frame = clean_prices(rows, regions=there, max_gap_minutes=max_gap_minutes, max_abs_price=max_abs_price).frame
    last = frame.loc[frame[PRICE].notna(), TIMESTAMP].max()
    return frame[frame[TIMESTAMP] <= last].reset_index(drop=True)
