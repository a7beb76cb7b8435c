"""The agent: what a learned policy is made of, and how it turns prices and forecasts into actions.

What belongs here: observing (signals, state, base value), acting, and views of the table. What doesn't: training
(``trainer``), loading and the face to users (``policy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from energy_ml.arrays import Floats, Floats32, Integers
from energy_ml.artifacts import Complete
from energy_ml.rl_battery.battery import Battery, Physics, step
from energy_ml.rl_battery.learning import decide, follow
from energy_ml.rl_battery.lookahead import Lookahead, expected_paths, plan_slopes, usual_path
from energy_ml.rl_battery.state_space import FORECASTS, HISTORY, SIGNALS, Design, StateSpace, table_rows
from energy_ml.rl_battery.strategy import end_value
from energy_ml.rl_battery.value_model import FIRST_FORECAST, ValueModel, build_inputs, predict_values

CAP = 6.0
"""Prices count at most so many typical prices in the price level of a day."""
FLOOR = 0.25
"""The price level of a day is at least so many typical prices."""
PIECES = 20
"""Pieces of the value of stored energy, from the empty to the full battery."""


class Market(NamedTuple):
    """What normalises a region's prices, currency/MWh, from its training prices.

    ``typical``: median of absolute prices; ``usual_level``: their capped mean, the price level where no history is
    given; ``flat_value``: what a MWh in the cells is worth to a table without a value model to start from.
    """

    typical: float
    usual_level: float
    flat_value: float


def describe_market(prices: Floats, battery: Battery) -> Market:
    """The market of training prices (N,)."""
    size = np.abs(prices)
    typical = max(float(np.median(size)), 0.1 * float(size.mean())) or 1.0
    level = max(float(np.minimum(size, CAP * typical).mean()), FLOOR * typical)
    return Market(typical, level, end_value(prices, battery))


@njit(cache=True)
def price_levels(prices: Floats, per_day: int, market: Market, first: int) -> Floats:
    """Mean absolute price (capped) of the last day, for intervals ``first`` to the end; a short past is filled up."""
    begin = max(0, first - per_day)
    sums = np.zeros(len(prices) - begin + 1)
    for i in range(begin, len(prices)):
        sums[i - begin + 1] = sums[i - begin] + min(abs(prices[i]), CAP * market.typical)
    out = np.empty(len(prices) - first)
    for t in range(first, len(prices)):
        a = max(begin, t + 1 - per_day)
        missing = per_day - (t + 1 - a)
        mean = (sums[t + 1 - begin] - sums[a - begin] + missing * market.usual_level) / per_day
        out[t - first] = max(mean, FLOOR * market.typical)
    return out


class Observed(NamedTuple):
    """What is known at each of N intervals.

    ``expected`` (N,): price of the interval that is acted in. ``slopes`` (N, pieces): forecast value of a MWh, from the
    empty to the full battery, currency/MWh. ``level`` (N,): price level, currency/MWh. ``information`` (N,): see
    ``state_space.INFORMATION``. ``signals`` (signals, N): see ``SIGNALS``. ``minutes`` (N,): of the UTC day.
    """

    expected: Floats
    slopes: Floats
    level: Floats
    information: Integers
    signals: Floats
    minutes: Integers

    def rows(self, rows: slice | Integers) -> Observed:
        """These rows only."""
        return Observed(
            self.expected[rows],
            self.slopes[rows],
            self.level[rows],
            self.information[rows],
            self.signals[:, rows],
            self.minutes[rows],
        )


@njit(cache=True, nogil=True)
def observe_inputs(
    inputs: Floats32,
    prices: Floats,
    minutes: Integers,
    levels: Floats,
    horizons: int,
    market: Market,
    outputs: Floats,
    planned: tuple[Floats, Floats],
    share: float,
) -> Observed:
    """Put together what N rows of inputs, prices, minutes, price levels, of ``predict_values`` and ``plans_of`` say.

    Energy is worth the weighted mean of what the plan and the value model say. The plan takes the expected prices for
    certain and so sees no worth in waiting for better ones; the model learned from hindsight, which never misses one.
    Their errors differ, and the mean is nearer to the truth than either.

    Without ``outputs`` (N, 0) there is no value model: energy is then worth ``market.flat_value``.
    """
    n, pieces = outputs.shape
    learned = pieces > 0
    expected, plans = planned
    slopes = np.full((n, plans.shape[1] if learned else 1), market.flat_value)
    if learned:
        for i in range(n):
            for j in range(plans.shape[1]):
                said = outputs[i, j * pieces // plans.shape[1]]
                slopes[i, j] = said + share * (plans[i, j] - said)
    level, information = np.empty(n), np.zeros(n, np.int64)
    signals = np.empty((3, n))
    for i in range(n):
        level[i] = market.usual_level
        if not np.isnan(inputs[i, FIRST_FORECAST + horizons]):
            information[i] += HISTORY
            level[i] = levels[i]
        longest = prices[i]
        if horizons and not np.isnan(inputs[i, FIRST_FORECAST]):
            information[i] += FORECASTS
            change = inputs[i, FIRST_FORECAST + horizons - 1]
            longest = np.sinh(change + inputs[i, 0]) * market.typical
        signals[0, i] = slopes[i].mean() / level[i]
        signals[1, i] = prices[i] / level[i]
        signals[2, i] = longest / level[i]
    return Observed(expected, slopes, level, information, signals, minutes)


@njit(cache=True)
def base_values(slopes: Floats, usable_mwh: float, nodes: int) -> Floats:
    """Value of the charge at each node above the empty battery, (N, nodes) currency, from slopes (N, pieces)."""
    n, pieces = slopes.shape
    width = usable_mwh / pieces
    out = np.zeros((n, nodes))
    for i in range(n):
        passed, below = 0, 0.0
        for k in range(1, nodes):
            place = k * pieces / (nodes - 1)
            while passed + 1 <= place:
                below += slopes[i, passed] * width
                passed += 1
            out[i, k] = below
            if passed < pieces:
                out[i, k] += slopes[i, passed] * (place - passed) * width
    return out


@njit(cache=True, nogil=True)
def plans_of(
    look: Lookahead,
    prices: Floats,
    usual: Floats,
    ahead: Floats,
    interval: int,
    market: Market,
    physics: Physics,
    first: int,
    history: bool,
) -> tuple[Floats, Floats]:
    """What plans made in the intervals ``first`` to the end say; arguments as in ``lookahead.expected_paths``.

    Returns (expected price of the interval that is acted in (N - first,), slopes (N - first, PIECES)), currency/MWh.
    """
    paths = expected_paths(look, prices, usual, ahead, interval, market.typical, first, history)
    expected = paths[:, look.delay - 1].copy() if look.delay > 0 else prices[first:].copy()
    return expected, plan_slopes(look, paths, physics, interval / 60.0, PIECES)


class Brain(NamedTuple):
    """An agent's numbers as compiled code takes them; see ``BatteryAgent``."""

    table: Floats
    edges: Floats
    time_bins: int
    signal: int
    market: Market
    model: ValueModel
    look: Lookahead
    horizons: int
    dispatch_minutes: int


@njit(cache=True)
def see_now(brain: Brain, prices: Floats, minute: int, ahead: Floats, physics: Physics) -> Observed:
    """What is known at a refresh, (1,) each: prices at it and at N - 1 before it, its minute, forecasts (H,)."""
    n = len(prices)
    minutes = np.empty(n, np.int64)
    for i in range(n):
        minutes[i] = (minute - (n - 1 - i) * brain.dispatch_minutes) % 1440
    columns = np.full((brain.horizons, n), np.nan)
    columns[:, n - 1] = ahead
    inputs = build_inputs(prices, minutes, columns, brain.dispatch_minutes, brain.market.typical, n - 1)
    levels = price_levels(prices, 1440 // brain.dispatch_minutes, brain.market, n - 1)
    usual = usual_path(brain.look.usual, minutes, brain.dispatch_minutes, brain.look.lengths.sum())
    planned = plans_of(brain.look, prices, usual, columns, brain.dispatch_minutes, brain.market, physics, n - 1, n > 1)
    return observe_inputs(
        inputs,
        prices[n - 1 :],
        minutes[n - 1 :],
        levels,
        brain.horizons,
        brain.market,
        predict_values(brain.model, inputs, brain.market.typical),
        planned,
        brain.look.share,
    )


@njit(cache=True)
def act_now(
    brain: Brain,
    prices: Floats,
    minute: int,
    ahead: Floats,
    price: float,
    physics: Physics,
    charge: float,
    hours: float,
) -> tuple[float, float, float, float, Floats, float, float]:
    """One decision at ``price``; the other arguments as in ``see_now``.

    Returns what ``decide`` does, the value row (K,), currency, the charge after (MWh) and the energy at the grid (MWh).
    """
    seen = see_now(brain, prices, minute, ahead, physics)
    usable = physics.high - physics.low
    state = table_rows(seen.information, seen.minutes, seen.signals[brain.signal], brain.edges, brain.time_bins)
    row = base_values(seen.slopes, usable, brain.table.shape[1])[0] + seen.level[0] * usable * brain.table[state[0]]
    met = seen.expected[0] if brain.look.delay > 0 else price
    power, up, stay, down = decide(physics, charge, hours, met, row, np.inf)
    after, energy, _, _ = step(physics, charge, power, hours, price, np.inf)
    return power, up, stay, down, row, after, energy


def refresh_rows(minutes: Integers, dispatch_minutes: int) -> tuple[Integers, Integers]:
    """At which of N intervals the state is refreshed, (B,), and which of them is the newest in each interval, (N,).

    ``minutes`` (N,) of the UTC day. The first interval always counts as one.
    """
    fresh = minutes % dispatch_minutes == 0
    fresh[0] = True
    return np.flatnonzero(fresh), np.cumsum(fresh) - 1


@dataclass(frozen=True, eq=False)
class BatteryAgent(Complete):
    """A learned policy of one region.

    ``table`` (X, K) is the Q-table of after-states in units of price level x usable MWh; X runs over the axes of
    ``space``, K over charge nodes from the lower to the upper limit:
    Q(s, a) = cash(a) + base(s') + level x usable x table[x, s'].

    Intervals are ``interval_minutes`` long; the state is refreshed every ``dispatch_minutes``. ``delay`` is the
    execution delay (intervals) that it was trained for.
    """

    region: str
    design: Design
    space: StateSpace
    table: Floats
    model: ValueModel
    look: Lookahead
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
    def brain(self) -> Brain:
        """The agent for compiled code."""
        return Brain(
            self.table,
            self.space.edges,
            self.space.time_bins,
            SIGNALS.index(self.design.signal),
            self.market,
            self.model,
            self.look,
            len(self.horizons),
            self.dispatch_minutes,
        )

    def observe(
        self,
        prices: Floats,
        minutes: Integers,
        forecasts: Mapping[int, Floats],
        *,
        first: int = 0,
        battery: Battery | None = None,
    ) -> Observed:
        """What is known in the intervals ``first`` to the end of a series of prices (N,) (newest last).

        Plans are those of ``battery``, or of the one that the agent learned with.

        The state is that of the newest multiple of ``dispatch_minutes``; only the price is always the newest.
        """
        starts, place = refresh_rows(minutes, self.dispatch_minutes)
        begin = int(place[first])
        held, when = prices[starts], minutes[starts]
        ahead = np.full((len(self.horizons), len(starts)), np.nan)
        for i, h in enumerate(self.horizons):
            if h in forecasts:
                ahead[i] = forecasts[h][starts]
        inputs = build_inputs(held, when, ahead, self.dispatch_minutes, self.market.typical, begin)
        levels = price_levels(held, 1440 // self.dispatch_minutes, self.market, begin)
        usual = usual_path(self.look.usual, when, self.dispatch_minutes, int(self.look.lengths.sum()))
        physics = (battery or self.battery).physics
        planned = plans_of(self.look, held, usual, ahead, self.dispatch_minutes, self.market, physics, begin, True)
        outputs = predict_values(self.model, inputs, self.market.typical)
        seen = observe_inputs(
            inputs, held[begin:], when[begin:], levels, len(ahead), self.market, outputs, planned, self.look.share
        )
        if len(starts) < len(prices):
            seen = seen.rows(place[first:] - begin)
        return seen if self.delay else seen._replace(expected=prices[first:])

    def arrays(self, seen: Observed, battery: Battery) -> tuple[Floats, Floats, Integers]:
        """(base (N, K) currency, scale (N,) currency, table row (N,)) of observations, for this battery."""
        usable = battery.high_mwh - battery.low_mwh
        signal = seen.signals[SIGNALS.index(self.design.signal)]
        state = table_rows(seen.information, seen.minutes, signal, self.space.edges, self.space.time_bins)
        return base_values(seen.slopes, usable, self.nodes), seen.level * usable, state

    def requests(
        self, seen: Observed, prices: Floats, battery: Battery, start_mwh: float, days: Integers, *, delay: int
    ) -> tuple[Floats, float, float]:
        """Act in N intervals. ``seen`` has a row for each of them, preceded by up to ``delay`` rows of history; the
        action in an interval uses the row ``delay`` before.

        Returns (requested power (N,) MW, cash, charge at the end MWh).
        """
        base, scale, state = self.arrays(seen, battery)
        n = len(prices)
        missing = n + delay - len(seen.expected)
        rows = np.maximum(np.arange(n) - missing, 0)
        expected = np.where(np.arange(n) < missing, np.nan, seen.expected[rows])
        return follow(
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

    def heat_maps(self, prices: int = 41) -> dict[str, Any]:
        """Views of the table at typical conditions, for charts.

        Returns ``charge`` (C,) MWh, ``hour`` (H,) UTC, ``value`` (C, H) currency per MWh more in the cells, ``price``
        (P,) currency/MWh, and ``action`` (C, P) in -1 (discharge), 0, 1 (charge), for the mean over the hours.
        """
        battery, bins = self.battery, self.space.time_bins
        usable = battery.high_mwh - battery.low_mwh
        highest = FORECASTS * bool(self.horizons) + HISTORY
        minutes = (np.arange(bins) * 1440 + 720) // bins
        state = table_rows(np.full(bins, highest), minutes, self.typical_signal, self.space.edges, bins)
        worth = base_values(self.typical_slopes, usable, self.nodes)
        worth = worth + self.market.usual_level * usable * self.table[state]
        charge = np.linspace(battery.low_mwh, battery.high_mwh, self.nodes)
        slopes = np.diff(worth, axis=1) / np.diff(charge)
        middle = (charge[1:] + charge[:-1]) / 2
        grid = np.linspace(-1.0, 4.0, prices) * self.market.typical
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
