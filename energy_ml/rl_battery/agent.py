"""The agent: what a learned policy is made of, and how it turns prices and forecasts into actions.

What belongs here: observing, acting, and views of the table. What doesn't: training (``trainer``), loading and the face
to users (``policy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from energy_ml.arrays import ZERO, Floats, Integers
from energy_ml.artifacts import Complete
from energy_ml.kernels import kernel
from energy_ml.rl_battery.battery import Battery, Physics, step
from energy_ml.rl_battery.learning import decide, follow
from energy_ml.rl_battery.lookahead import Lookahead, expected_paths, plan_slopes, usual_path
from energy_ml.rl_battery.state_space import (
    FORECASTS,
    HISTORY,
    INFORMATION,
    QTable,
    Seen,
    find_places,
    joined,
    read,
    stored_values,
)
from energy_ml.rl_battery.strategy import known

CAP = 6.0
"""Prices count at most so many typical prices in the price level of a day."""
FLOOR = 0.25
"""The price level of a day is at least so many typical prices."""
HISTORY_MINUTES = 2 * 1440
"""How far back is looked."""
_ENOUGH_HISTORY_MINUTES = 60
"""With less than this before the newest price, history counts as missing."""


class Market(NamedTuple):
    """What normalises a region's prices, currency/MWh, from its training prices.

    ``typical``: median of absolute prices; ``usual_level``: their capped mean, the price level where no history is
    given.
    """

    typical: float
    usual_level: float


def describe_market(prices: Floats) -> Market:
    """The market of training prices (N,), NaN where none was measured."""
    size = np.abs(known(prices))
    typical = max(float(np.median(size)), 0.1 * float(size.mean())) or 1.0
    level = max(float(np.minimum(size, CAP * typical).mean()), FLOOR * typical)
    return Market(typical, level)


@kernel
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


class Eyes(NamedTuple):
    """What observing needs: the expected path, the market, minutes between prices looked at, slices of the charge."""

    look: Lookahead
    market: Market
    dispatch_minutes: int
    slices: int


@kernel
def observe(
    eyes: Eyes,
    prices: Floats,
    minutes: Integers,
    usual: Floats,
    when: Floats,
    ahead: Floats,
    physics: Physics,
    first: int,
    history: bool,
) -> Seen:
    """What is known at the intervals ``first`` to the end of prices (N,): the one way in learning, backtest and
    service.

    ``minutes`` (N,) of the UTC day; ``usual``, ``when``, ``ahead``, ``history`` as in ``lookahead.expected_paths``.
    """
    look, market, interval, slices = eyes
    paths = expected_paths(look, prices, usual, when, ahead, interval, market.typical, first, history)
    planned = plan_slopes(look.lengths, look.delay, paths, physics, interval / 60.0, slices)
    level = price_levels(prices, 1440 // interval, market, first)
    information = np.zeros(len(level), np.int64)
    for i in range(len(level)):
        if history and (first + i) * interval >= _ENOUGH_HISTORY_MINUTES:
            information[i] += HISTORY
        else:
            level[i] = market.usual_level
        for g in range(len(when)):
            if not np.isnan(ahead[g, first + i]):
                information[i] += FORECASTS
                break
    newest = prices[first:]
    expected = paths[:, look.delay - 1].copy() if look.delay > 0 else newest.copy()
    return Seen(newest, expected, planned, level, information, minutes[first:])


class Brain(NamedTuple):
    """An agent's numbers as compiled code takes them; see ``BatteryAgent``."""

    eyes: Eyes
    table: QTable
    reward_scale: float


@kernel
def _moment(eyes: Eyes, n: int, minute: int, ahead: Floats) -> tuple[Integers, Floats, Floats]:
    """What goes with n prices, the newest of which came at ``minute``: their minutes, the usual day from the first one
    on, and forecasts (G, 1) made at the newest, (G, n)."""
    minutes, given = np.empty(n, np.int64), np.full((len(ahead), n), np.nan)
    for i in range(n):
        minutes[i] = (minute - (n - 1 - i) * eyes.dispatch_minutes) % 1440
    for g in range(len(ahead)):  # a slice would cost two seconds of compiling
        given[g, n - 1] = ahead[g, 0]
    reach = ZERO
    for length in eyes.look.whole:
        reach += length
    return minutes, usual_path(eyes.look.usual, minutes, eyes.dispatch_minutes, reach), given


@kernel
def act_now(
    brain: Brain,
    prices: Floats,
    minute: int,
    when: Floats,
    ahead: Floats,
    physics: Physics,
    charge: float,
    hours: float,
    allowance: float,
) -> tuple[float, float, float, Floats, Floats, float, float]:
    """One decision at the newest of N prices, ``dispatch_minutes`` apart, given its minute of the day, and forecasts
    (G, 1), see ``observe``; ``allowance`` as in ``battery.step``.

    Returns the values of charging, holding, discharging and of each node (K,), currency, the planned value of each
    slice (K - 1,), currency/MWh, the charge after (MWh) and the energy at the grid (MWh).
    """
    eyes, n = brain.eyes, len(prices)
    minutes, usual, given = _moment(eyes, n, minute, ahead)
    seen = observe(eyes, prices, minutes, usual, when, given, physics, n - 1, n > 1)
    places = find_places(seen, brain.table.middles, brain.table.values.shape[1])
    width = (physics.high - physics.low) / eyes.slices
    row = stored_values(seen, brain.table.values, places, seen.level / brain.reward_scale, width)[0]
    power, up, stay, down = decide(physics, charge, hours, seen.expected[0], row, allowance)
    after, energy, _, _ = step(physics, charge, power, hours, prices[n - 1], allowance)
    return up, stay, down, row, seen.planned[0], after, energy


@dataclass(frozen=True, eq=False)
class BatteryAgent(Complete):
    """A learned policy of one region.

    ``table`` is the Q-table, see ``state_space.QTable`` and ``learning``: with the plan's value of a MWh it gives the
    value of each action. It is in price levels x ``reward_scale``.

    Intervals are ``interval_minutes`` long; prices are looked at, and learning walks, in steps of ``dispatch_minutes``.
    ``horizons`` (minutes) and the execution ``delay`` (intervals) are those of training. ``typical_plan`` (24, slices):
    mean planned value in training by UTC hour, the backdrop of the heat maps.
    """

    region: str
    table: QTable
    look: Lookahead
    market: Market
    battery: Battery
    horizons: tuple[int, ...]
    interval_minutes: int
    dispatch_minutes: int
    delay: int
    reward_scale: float
    typical_plan: Floats

    @property
    def eyes(self) -> Eyes:
        """What observing needs."""
        return Eyes(self.look, self.market, self.dispatch_minutes, self.table.values.shape[3])

    @property
    def brain(self) -> Brain:
        """The agent for compiled code."""
        return Brain(self.eyes, self.table, self.reward_scale)

    def expected_path(self, prices: Floats, minute: int, when: Floats, ahead: Floats) -> Floats:
        """The prices it plans on, (S,) currency/MWh in the steps of ``look.lengths``; arguments as ``act_now``'s."""
        n, (look, market, dispatch, _) = len(prices), self.eyes
        _, usual, given = _moment(self.eyes, n, minute, ahead)
        (path,) = expected_paths(look, prices, usual, when, given, dispatch, market.typical, n - 1, n > 1)
        return np.asarray(path)

    def without_table(self) -> BatteryAgent:
        """The plan alone: the same agent with a table of zeros."""
        return replace(self, table=self.table._replace(values=np.zeros_like(self.table.values)))

    def observe(
        self,
        prices: Floats,
        minutes: Integers,
        forecasts: Mapping[int, Floats],
        *,
        first: int = 0,
        battery: Battery | None = None,
    ) -> Seen:
        """What is known in the intervals ``first`` to the end of a series of prices (N,) (newest last).

        ``forecasts`` (minutes ahead -> (N,), NaN where there is none) may be of any horizons. Plans are those of
        ``battery``, or of the one that the agent learned with. Each interval looks back and ahead from itself in steps
        of ``dispatch_minutes``.
        """
        step = self.dispatch_minutes // self.interval_minutes
        horizons = sorted(forecasts)
        ahead = np.array([forecasts[h] for h in horizons]).reshape(len(horizons), len(prices))
        when = np.array(horizons, dtype=np.float64) / self.dispatch_minutes
        physics, steps = (battery or self.battery).physics, int(self.look.whole.sum())
        parts, order = [], []
        for phase in range(min(step, len(prices))):
            rows = np.arange(phase, len(prices), step)
            begin = int(np.searchsorted(rows, first))
            if begin == len(rows):
                continue
            usual = usual_path(self.look.usual, minutes[rows], self.dispatch_minutes, steps)
            given = np.ascontiguousarray(ahead[:, rows])
            parts.append(observe(self.eyes, prices[rows], minutes[rows], usual, when, given, physics, begin, True))
            order.append(rows[begin:])
        return joined(parts).rows(np.argsort(np.concatenate(order)))

    def values(self, seen: Seen, battery: Battery) -> Floats:
        """Value of the charge at each node above the empty battery, (N, slices + 1) currency."""
        places = find_places(seen, self.table.middles, self.table.values.shape[1])
        width = (battery.high_mwh - battery.low_mwh) / self.table.values.shape[3]
        return stored_values(seen, self.table.values, places, seen.level / self.reward_scale, width)

    def requests(
        self, seen: Seen, prices: Floats, battery: Battery, start_mwh: float, days: Integers, *, delay: int
    ) -> tuple[Floats, float, float]:
        """Act in N intervals. ``seen`` has a row for each of them, preceded by up to ``delay`` rows of history; the
        action in an interval uses the row ``delay`` before.

        Returns (requested power (N,) MW, cash, charge at the end MWh).
        """
        n = len(prices)
        missing = n + delay - len(seen.expected)
        rows = np.maximum(np.arange(n) - missing, 0)
        expected = np.where(np.arange(n) < missing, np.nan, seen.expected[rows])
        values = self.values(seen, battery)[rows]
        return follow(battery.physics, start_mwh, self.interval_minutes / 60.0, expected, prices, values, days)

    def heat_maps(self) -> dict[str, object]:
        """Views of the table with everything known, at the usual price level, for charts; means over its time bins.

        Returns ``charge`` (C,) MWh and ``hour`` (24,) UTC, ``value`` (C, 24) currency per MWh more in the cells;
        ``gap`` (G,), planned value minus price over the price level, ``correction`` (C, G) of the table in price
        levels, and ``action`` (C, G) in -1 (discharge), 0, 1 (charge) at the typical price.
        """
        battery, slices = self.battery, self.table.values.shape[3]
        level, price = self.market.usual_level, self.market.typical
        highest = len(INFORMATION) - 1 if self.horizons else HISTORY
        edges = self.table.middles[highest]
        gaps = np.linspace(min(-1.0, edges[0]), max(1.0, edges[-1]), 41)
        correction = self._entries(price + level * np.repeat(gaps[:, None], slices, axis=1), price, highest)
        worth = price + level * (gaps[:, None] + correction)
        buy = (price + battery.buy_fee_per_mwh) / battery.charge_efficiency
        sell = (price - battery.sell_fee_per_mwh - battery.wear_cost_per_mwh) * battery.discharge_efficiency
        width = (battery.high_mwh - battery.low_mwh) / slices
        return {
            "charge": battery.low_mwh + width * (np.arange(slices) + 0.5),
            "hour": np.arange(24),
            "value": (self.typical_plan + level * self._entries(self.typical_plan, price, highest)).T,
            "gap": gaps,
            "correction": correction.T,
            "action": ((worth > buy).astype(np.int64) - (worth < sell)).T,
        }

    def _entries(self, planned: Floats, price: float, information: int) -> Floats:
        """The table's entries, in price levels, at planned values (N, slices) of a MWh and one price."""
        n, level = len(planned), np.full(len(planned), self.market.usual_level)
        of = np.full(n, price)
        seen = Seen(of, of, planned, level, np.full(n, information), np.zeros(n, dtype=np.int64))
        places = find_places(seen, self.table.middles, 1)
        mean = self.table.values.mean(axis=1, keepdims=True) / self.reward_scale
        return np.array([[read(mean, places, t, j) for j in range(planned.shape[1])] for t in range(n)])
