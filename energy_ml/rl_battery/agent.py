"""The agent: what a learned policy is made of, and how it turns prices and forecasts into actions.

What belongs here: observing (signals, state, base value), acting, and views of the table. What doesn't: training
(``trainer``), loading and the face to users (``policy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from energy_ml.rl_battery.battery import Battery, Floats
from energy_ml.rl_battery.learning import Integers, decide, follow
from energy_ml.rl_battery.state_space import FORECASTS, HISTORY, Design, StateSpace
from energy_ml.rl_battery.value_model import ValueModel, build_inputs

FIRST_FORECAST = 4
"""Column of the first forecast among the inputs of the value model."""
CAP = 6.0
"""Prices count at most so many typical prices in the price level of a day."""
FLOOR = 0.25
"""The price level of a day is at least so many typical prices."""


@dataclass(frozen=True)
class Market:
    """What normalises a region's prices: the typical price (median of absolute training prices) and the usual level."""

    typical_price: float
    usual_level: float
    mean_price: float

    @classmethod
    def of(cls, prices: Floats) -> Market:
        """Of training prices (N,)."""
        size = np.abs(prices)
        typical = max(float(np.median(size)), 0.1 * float(size.mean()))
        typical = typical if typical > 0 else 1.0
        level = float(np.clip(np.minimum(size, CAP * typical).mean(), FLOOR * typical, None))
        return cls(typical, level, float(prices.mean()))

    def levels(self, prices: Floats, per_day: int) -> Floats:
        """Mean absolute price (capped) of the last day at each interval, (N,); a shorter past is filled up as usual."""
        size = np.minimum(np.abs(prices), CAP * self.typical_price)
        sums = np.concatenate([[0.0], np.cumsum(size)])
        last = np.arange(1, len(prices) + 1)
        first = np.maximum(0, last - per_day)
        missing = per_day - (last - first)
        levels = (sums[last] - sums[first] + missing * self.usual_level) / per_day
        return np.maximum(levels, FLOOR * self.typical_price)


class Observed(NamedTuple):
    """What is known at each of N intervals.

    ``expected`` (N,) the price of the interval that is acted in, ``slopes`` (N, pieces) forecast value of a MWh from
    empty to full (currency/MWh), ``level`` (N,) currency/MWh, ``information`` (N,) see ``state_space.INFORMATION``,
    ``signals`` name -> (N,), ``minutes`` (N,) of the UTC day.
    """

    expected: Floats
    slopes: Floats
    level: Floats
    information: Integers
    signals: dict[str, Floats]
    minutes: Integers

    def take(self, rows: slice) -> Observed:
        """These rows only."""
        return Observed(
            self.expected[rows],
            self.slopes[rows],
            self.level[rows],
            self.information[rows],
            {name: values[rows] for name, values in self.signals.items()},
            self.minutes[rows],
        )


def dispatch_starts(minutes: Integers, dispatch_minutes: int) -> Integers:
    """For each interval the index of the first one of its dispatch interval, (N,)."""
    index = np.arange(len(minutes))
    starts = minutes % dispatch_minutes == 0
    starts[0] = True
    return np.maximum.accumulate(np.where(starts, index, 0))


def inputs_of(
    prices: Floats,
    minutes: Integers,
    forecasts: Mapping[int, Floats],
    horizons: tuple[int, ...],
    dispatch_minutes: int,
    typical_price: float,
    *,
    first: int = 0,
) -> npt.NDArray[np.float32]:
    """Inputs of the value model of intervals ``first`` to the end. (N - first, F); see ``value_model.build_inputs``.

    Where prices are held for a dispatch interval of several data intervals, everything but the forecasts is taken at
    its start, so that all of its intervals see the same state. A row in which a forecast is missing gets none.
    """
    starts = dispatch_starts(minutes, dispatch_minutes)
    boundaries = np.unique(starts)
    wanted = np.searchsorted(boundaries, starts[first:])
    from_row = int(wanted[0])
    ahead = [np.asarray(forecasts.get(h, np.full(len(prices), np.nan)), dtype=np.float64) for h in horizons]
    inputs = build_inputs(
        prices[boundaries],
        minutes[boundaries],
        [f[boundaries] for f in ahead],
        dispatch_minutes,
        typical_price,
        first=from_row,
    )[wanted - from_row]
    if len(ahead):
        forecast_columns = slice(FIRST_FORECAST, FIRST_FORECAST + len(ahead))
        if len(boundaries) < len(prices):
            now = np.column_stack([np.arcsinh(f[first:] / typical_price) for f in ahead])
            levels = np.arcsinh(prices[starts[first:]] / typical_price)
            inputs[:, forecast_columns] = np.round(now - levels[:, None], 5)
        inputs[np.isnan(inputs[:, forecast_columns]).any(axis=1), forecast_columns] = np.nan
    return inputs


def observe(
    inputs: npt.NDArray[np.float32],
    prices: Floats,
    minutes: Integers,
    levels: Floats,
    horizons: tuple[int, ...],
    market: Market,
    model: ValueModel | None,
    flat_value: float,
) -> Observed:
    """Put together what rows of inputs, prices (N,), minutes (N,) and price levels (N,) say."""
    n, count = len(inputs), len(horizons)
    has_history = np.isfinite(inputs[:, FIRST_FORECAST + count])
    has_forecasts = np.isfinite(inputs[:, FIRST_FORECAST]) if count else np.zeros(n, dtype=bool)
    level = np.where(has_history, levels, market.usual_level)
    expected = prices
    if model is None:
        slopes = np.full((n, 1), flat_value)
    else:
        slopes, ahead = model.predict(inputs, market.typical_price)
        if ahead is not None:
            expected = ahead
    longest = prices
    if count:
        last = inputs[:, FIRST_FORECAST + count - 1].astype(np.float64) + inputs[:, 0]
        longest = np.where(has_forecasts, np.sinh(last) * market.typical_price, prices)
    signals = {
        "none": np.zeros(n),
        "value": slopes.mean(axis=1) / level,
        "price": prices / level,
        "forecast": longest / level,
    }
    information = has_forecasts.astype(np.int64) * FORECASTS + has_history.astype(np.int64) * HISTORY
    return Observed(expected, slopes, level, information, signals, minutes)


def base_values(slopes: Floats, usable_mwh: float, nodes: int) -> Floats:
    """Value of the charge at each node above the empty battery, (N, nodes) currency, from slopes (N, pieces)."""
    pieces = slopes.shape[1]
    share = np.linspace(0.0, 1.0, nodes)[:, None] * pieces - np.arange(pieces)[None, :]
    weights = np.clip(share, 0.0, 1.0) / pieces * usable_mwh
    return np.ascontiguousarray(slopes @ weights.T)


@dataclass(frozen=True, eq=False)
class BatteryAgent:
    """A learned policy of one region.

    ``table`` (X, K) is the Q-table of after-states in units of price level x usable MWh; X runs over the axes of
    ``space``, K over charge nodes from the lower to the upper limit:
    Q(s, a) = cash(a) + base(s') + level x usable x table[x, s'].

    Intervals are ``interval_minutes`` long; prices hold for ``dispatch_minutes``. ``delay`` is the execution delay
    (intervals) that it was trained for.
    """

    region: str
    design: Design
    space: StateSpace
    table: Floats
    model: ValueModel | None
    market: Market
    battery: Battery
    horizons: tuple[int, ...]
    interval_minutes: int
    dispatch_minutes: int
    delay: int
    typical_slopes: Floats
    """(time bins, pieces): mean forecast value in training, the backdrop of the heat maps."""
    typical_signal: Floats
    """(time bins,): median signal in training."""

    @property
    def nodes(self) -> int:
        """Charge nodes."""
        return self.table.shape[1]

    @property
    def q_table(self) -> Floats:
        """The table with one axis per entry of ``axes``."""
        return self.table.reshape(-1, self.space.time_bins, self.space.bins, self.nodes)

    @property
    def axes(self) -> dict[str, Any]:
        """Names and labels of the axes of ``q_table``, in order; charge as a fraction of the usable range."""
        return self.space.axes(self.nodes, self.design.signal)

    @property
    def flat_value(self) -> float:
        """What a MWh in the cells is worth to a table without a value model to start from."""
        return max(0.0, self.market.mean_price) * self.battery.discharge_efficiency

    def observe(
        self, prices: Floats, minutes: Integers, forecasts: Mapping[int, Floats], *, first: int = 0
    ) -> Observed:
        """What is known in the intervals ``first`` to the end of a series of prices (N,) (newest last)."""
        inputs = inputs_of(
            prices,
            minutes,
            forecasts,
            self.horizons,
            self.dispatch_minutes,
            self.market.typical_price,
            first=first,
        )
        recent = max(0, first - 1440 // self.interval_minutes)
        levels = self.market.levels(prices[recent:], 1440 // self.interval_minutes)[first - recent :]
        return observe(
            inputs, prices[first:], minutes[first:], levels, self.horizons, self.market, self.model, self.flat_value
        )

    def arrays(self, seen: Observed, battery: Battery) -> tuple[Floats, Floats, Integers]:
        """(base (N, K) currency, scale (N,) currency, table row (N,)) of observations, for this battery."""
        usable = battery.high_mwh - battery.low_mwh
        state = self.space.index(seen.information, seen.minutes, seen.signals[self.design.signal])
        return base_values(seen.slopes, usable, self.nodes), seen.level * usable, state

    def values(self, seen: Observed, battery: Battery) -> Floats:
        """Value of holding each node's charge after the interval, above the empty battery's, (N, K) currency."""
        base, scale, state = self.arrays(seen, battery)
        return base + scale[:, None] * self.table[state]

    def requests(
        self,
        seen: Observed,
        prices: Floats,
        battery: Battery,
        start_mwh: float,
        days: Integers,
        *,
        delay: int,
    ) -> tuple[Floats, float, float]:
        """Act in N intervals. ``seen`` has N rows, the last ``delay`` of which come too late to be used, preceded by
        as many rows of history as there were, up to ``delay``.

        Returns (requested power (N,) MW, cash, charge at the end MWh).
        """
        base, scale, state = self.arrays(seen, battery)
        n = len(prices)
        expected = seen.expected
        missing = n + delay - len(expected)
        rows = np.clip(np.arange(n) - missing, 0, None)
        expected = np.where(np.arange(n) < missing, np.nan, expected[rows])
        requests, cash, end = follow(
            battery.physics,
            start_mwh,
            self.interval_minutes / 60.0,
            expected,
            prices,
            base[rows],
            scale[rows],
            state[rows],
            self.table,
            days,
        )
        return requests, cash, end

    def action(self, seen: Observed, charge_mwh: float, battery: Battery) -> tuple[float, dict[str, float], Floats]:
        """The action for the newest row of ``seen``: (power MW, Q-value of each possible action, value row (K,))."""
        row = self.values(seen.take(slice(-1, None)), battery)[0]
        power, charge, hold, discharge = decide(
            battery.physics, charge_mwh, self.interval_minutes / 60.0, float(seen.expected[-1]), row, np.inf
        )
        return power, {"charge": charge, "hold": hold, "discharge": discharge}, row

    def heat_maps(self, prices: int = 41) -> dict[str, Any]:
        """Views of the table at typical conditions, for charts.

        Returns ``charge`` (C,) MWh, ``hour`` (H,) UTC, ``value`` (C, H) currency per MWh more in the cells, ``price``
        (P,) currency/MWh, and ``action`` (C, P) in -1 (discharge), 0, 1 (charge), averaged over the hours.
        """
        battery, bins = self.battery, self.space.time_bins
        usable = battery.high_mwh - battery.low_mwh
        highest = FORECASTS * bool(self.horizons) + HISTORY
        minutes = (np.arange(bins) * 1440 + 720) // bins
        state = self.space.index(np.full(bins, highest), minutes, self.typical_signal)
        worth = base_values(self.typical_slopes, usable, self.nodes)
        worth = worth + self.market.usual_level * usable * self.table[state]
        charge = np.linspace(battery.low_mwh, battery.high_mwh, self.nodes)
        slopes = np.diff(worth, axis=1) / np.diff(charge)
        middle = (charge[1:] + charge[:-1]) / 2
        grid = np.linspace(-1.0, 4.0, prices) * self.market.typical_price
        row = worth.mean(axis=0)
        action = np.zeros((len(middle), prices), dtype=np.int64)
        for i, level in enumerate(middle):
            for j, price in enumerate(grid):
                power, *_ = decide(battery.physics, level, self.interval_minutes / 60.0, price, row, np.inf)
                action[i, j] = int(np.sign(power))
        return {
            "charge": middle,
            "hour": np.arange(bins) * 24.0 / bins,
            "value": slopes.T,
            "price": grid,
            "action": action,
        }
