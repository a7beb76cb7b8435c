"""What every strategy is given and must return, so that a backtest can treat them alike.

What belongs here: the protocol and the context with its builder. What doesn't: strategies (baselines, policy) and
the backtest itself (``energy_ml.evaluation.backtest_evaluator``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.config import RLBatteryConfig
from energy_ml.errors import GapError, IntervalError, NoDataError, UnknownRegionError
from energy_ml.names import (
    BLIND_SUFFIX,
    HORIZON,
    IS_FILLED,
    PRICE,
    PRICE_EXPECTED,
    PRICE_FORECAST,
    REGION,
    TIMESTAMP,
)
from energy_ml.rl_battery.battery import Battery, utc_days
from energy_ml.splits import TimeSplit


@dataclass(frozen=True, eq=False)
class Context:
    """One battery in one region over a span of T intervals, with H intervals of history directly before it.

    A strategy may use, for its request in interval t: everything of ``history``; ``prices`` and ``forecasts`` of
    intervals up to and including ``t - execution_delay``; the charge at the start of t, which follows from its own
    requests by ``battery.step``. Nothing else: backtests of look-ahead are worthless.

    Attributes
    ----------
    region : name of the region.
    battery : its parameters.
    start_mwh : charge at the start of the span.
    timestamps, prices : (T,) starts of the intervals (UTC) and currency/MWh; NaN where no price was measured: nothing
        is traded there.
    history_timestamps, history_prices : (H,) the same before the span: training and validation.
    forecasts, history_forecasts : horizon in minutes -> (T,) or (H,): the price of the interval that starts
        ``horizon`` after this one, as forecast when this one's price was the newest known; NaN where there is none.
    interval_minutes : length of an interval.
    execution_delay : intervals between the newest price that a request may use and the interval that it is for.
    terminal_value : what a MWh left in the cells at the end is worth, currency/MWh.
    battery_id : the battery's name, by which a policy of its own may have been learned.
    """

    region: str
    battery: Battery
    start_mwh: float
    timestamps: pd.DatetimeIndex
    prices: Floats
    history_timestamps: pd.DatetimeIndex
    history_prices: Floats
    interval_minutes: int
    execution_delay: int = 0
    terminal_value: float = 0.0
    forecasts: Mapping[int, Floats] = field(default_factory=dict)
    history_forecasts: Mapping[int, Floats] = field(default_factory=dict)
    battery_id: str | None = None

    @property
    def hours(self) -> float:
        """Length of an interval in hours."""
        return self.interval_minutes / 60.0

    @property
    def days(self) -> Integers:
        """Number of the UTC day of each interval, (T,)."""
        return utc_days(self.timestamps)

    @property
    def seen_prices(self) -> Floats:
        """What a trader sees, (H + T,): history and span, the last known price where none was measured."""
        return last_known(np.concatenate([self.history_prices, self.prices]))

    @property
    def per_day(self) -> int:
        """Intervals in a day."""
        return 1440 // self.interval_minutes


@runtime_checkable
class Strategy(Protocol):
    """Something that decides what a battery does; ``name`` is its key in every table."""

    @property
    def name(self) -> str:
        """Key in tables, such as ``q_learning``, ``threshold``, ``mpc``."""
        ...

    def actions(self, context: Context) -> Floats:
        """Requested power in each interval of the span: (T,) MW at the grid, positive buys; the physics clips it."""
        ...


@dataclass(frozen=True)
class Blind:
    """Another strategy as it acts without forecasts: what the forecasts are worth to it is the difference."""

    strategy: Strategy

    @property
    def name(self) -> str:
        """Its name with ``_without_forecasts`` after it."""
        return f"{self.strategy.name}{BLIND_SUFFIX}"

    def actions(self, context: Context) -> Floats:
        """Requests of the strategy in a context whose forecasts are taken away, (T,) MW."""
        return self.strategy.actions(replace(context, forecasts={}, history_forecasts={}))


def known(prices: Floats) -> Floats:
    """The prices that are known, of (N,)."""
    return prices[np.isfinite(prices)]


def last_known(prices: Floats) -> Floats:
    """(N,) prices with the last known one where there is none; before the first one, that."""
    there = np.isfinite(prices)
    if there.all():
        return prices
    newest = np.maximum.accumulate(np.where(there, np.arange(len(prices)), -1))
    return prices[np.where(newest < 0, int(there.argmax()), newest)]


def region_series(prices: pd.DataFrame, region: str, *, price_col: str = PRICE) -> tuple[pd.DatetimeIndex, Floats, int]:
    """One region's prices: (timestamps (N,), prices (N,), interval in minutes), on a whole grid.

    A price is NaN where none was measured: where it is missing, and where the frame's ``is_filled`` says so.
    Raises UnknownRegionError, NoDataError, GapError (missing rows, infinite prices) or IntervalError.
    """
    names = [TIMESTAMP, price_col, *([IS_FILLED] if IS_FILLED in prices.columns else [])]
    rows = prices.loc[prices[REGION].astype(str) == region, names]
    if rows.empty:
        raise UnknownRegionError(
            f"no prices of region {region!r}",
            expected=f"one of {', '.join(sorted(map(str, prices['region'].unique()))) or 'no region at all'}",
            remedy="name a region of the data, or correct the battery's region",
        )
    rows = rows.sort_values(TIMESTAMP)
    times = pd.DatetimeIndex(rows[TIMESTAMP])
    times = times.tz_localize("UTC") if times.tz is None else times.tz_convert("UTC")
    values = np.array(rows[price_col], dtype=np.float64)  # one that may be written: a kernel is compiled for that too
    if IS_FILLED in rows.columns:
        values = np.where(rows[IS_FILLED].to_numpy(dtype=bool), np.nan, values)
    if len(times) < 2 or np.isnan(values).all():
        count = int(np.isfinite(values).sum())
        raise NoDataError(f"region {region!r} has {count} prices", rows=len(values), expected="a series of days")
    gaps = np.diff(times.as_unit("ns").asi8) // 60_000_000_000
    interval = int(gaps.min())
    if interval <= 0 or 1440 % interval:
        raise IntervalError(
            f"region {region!r} has prices {interval} minutes apart",
            example=times[int(gaps.argmin())],
            expected="one price per interval, the interval a divisor of a day",
        )
    if (gaps != interval).any():
        first = int(np.flatnonzero(gaps != interval)[0])
        raise GapError(
            f"prices of region {region!r} have gaps",
            rows=int((gaps != interval).sum()),
            example=f"{gaps[first]} minutes after {times[first]}",
            expected=f"a price every {interval} minutes",
            remedy="clean the prices first (energy_ml.market_data.clean_prices)",
        )
    if np.isinf(values).any():
        bad = np.flatnonzero(np.isinf(values))
        raise GapError(
            f"prices of region {region!r} are infinite",
            column=price_col,
            rows=len(bad),
            example=times[int(bad[0])],
            expected="finite prices, NaN where there is none",
            remedy="clean the prices first, or leave the region out",
        )
    return times, values, interval


def end_value(prices: Floats, battery: Battery) -> float:
    """What a MWh left in the cells is worth at the end of a span, currency/MWh: what the mean of the known among
    ``prices`` (N,) sells it for, at least 0. The one rule of backtest, learning and baselines."""
    return max(0.0, float(known(prices).mean())) * battery.discharge_efficiency


def planned_on(forecasts: pd.DataFrame, config: RLBatteryConfig) -> pd.DataFrame:
    """The forecasts frame as batteries see it: what ``plan_on`` names stands in ``price_forecast``."""
    return forecasts if config.plan_on == "median" else forecasts.assign(**{PRICE_FORECAST: forecasts[PRICE_EXPECTED]})


def aligned_forecasts(forecasts: pd.DataFrame | None, region: str, times: pd.DatetimeIndex) -> dict[int, Floats]:
    """One region's rows of a forecasts frame as columns, horizon -> (N,) at ``times``, NaN where there is none."""
    if forecasts is None or forecasts.empty:
        return {}
    mine = forecasts.loc[forecasts[REGION].astype(str) == region]
    made = pd.DatetimeIndex(mine[TIMESTAMP])
    made = made.tz_localize("UTC") if made.tz is None else made.tz_convert("UTC")
    rows = times.as_unit("ns").get_indexer(made.as_unit("ns"))
    horizon, values = mine[HORIZON].to_numpy(), mine[PRICE_FORECAST].to_numpy(dtype=np.float64)
    columns = {}
    for h in sorted({int(h) for h in horizon}):
        chosen = (horizon == h) & (rows >= 0)
        columns[h] = np.full(len(times), np.nan)
        columns[h][rows[chosen]] = values[chosen]
    return columns


def build_context(
    prices: pd.DataFrame,
    region: str,
    split: TimeSplit,
    battery: Battery,
    *,
    forecasts: pd.DataFrame | None = None,
    start_mwh: float | None = None,
    execution_delay: int = 0,
    battery_id: str | None = None,
) -> Context:
    """The context of the test part of a long price frame, with the window's earlier rows as history.

    The terminal value is the mean training price times the discharge efficiency, not below 0. Of ``forecasts`` (the
    project's forecasts frame) this region's rows are aligned to the prices by timestamp and horizon.

    Raises what ``region_series`` raises, NoDataError if a part is empty or the history shorter than a day, and
    BatteryError if the start lies outside the limits.
    """
    times, values, interval = region_series(prices, region)
    first, after = split.bounds("test")
    span = np.asarray((times >= first) & (times < after))
    before = np.asarray((times >= split.start) & (times < first))
    training = known(values[np.asarray((times >= split.start) & (times < split.train_end))])
    priced = np.isfinite(values)
    here, earlier = int((span & priced).sum()), int((before & priced).sum())
    if not here or not len(training) or earlier * interval < 1440:
        raise NoDataError(
            f"region {region!r} has {here:,} prices in test and {earlier:,} before it",
            expected=f"prices in test [{first}, {after}) and at least a day of history before it",
            remedy="use a longer window or a window that the data covers",
        )
    by_horizon = aligned_forecasts(forecasts, region, times)
    return Context(
        region=region,
        battery=battery,
        start_mwh=battery.check_charge(battery.initial_mwh if start_mwh is None else start_mwh),
        timestamps=times[span],
        prices=np.ascontiguousarray(values[span]),
        history_timestamps=times[before],
        history_prices=np.ascontiguousarray(values[before]),
        interval_minutes=interval,
        execution_delay=execution_delay,
        terminal_value=end_value(training, battery),
        forecasts={h: v[span] for h, v in by_horizon.items()},
        history_forecasts={h: v[before] for h, v in by_horizon.items()},
        battery_id=battery_id,
    )
