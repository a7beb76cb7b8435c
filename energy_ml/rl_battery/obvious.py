"""The obvious tabular Q-learning: what a textbook gives, as a baseline that shows what the rest is worth.

What belongs here: equal-width bins of charge and price, the hour, 0.95 per step, one sampled transition per step and
cash as reward. What doesn't: anything that makes it better (``learning``, ``lookahead``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import njit

from energy_ml.arrays import Floats, Integers
from energy_ml.config import RLBatteryConfig
from energy_ml.names import OBVIOUS
from energy_ml.rl_battery.battery import Physics, step
from energy_ml.rl_battery.strategy import Context


class Schedule(NamedTuple):
    """How fast is learned and how much is explored: per step, but the decay of epsilon, which is per episode."""

    learning_rate: float
    discount: float
    epsilon: float
    epsilon_decay: float
    epsilon_min: float


@njit(cache=True)
def _bin(value: float, low: float, high: float, bins: int) -> int:
    return min(max(int((value - low) / (high - low) * bins), 0), bins - 1)


@njit(cache=True, nogil=True)
def _train(
    q: Floats,
    physics: Physics,
    prices: Floats,
    cell: Integers,
    hours: float,
    start: float,
    episodes: int,
    schedule: Schedule,
    rng: np.random.Generator,
) -> None:
    """Learn ``q`` (charge bins, cells of price x hour, actions) in place; ``cell`` (T,) is where each price falls."""
    bins, most = q.shape[0], max(physics.power_in, physics.power_out)
    rate, discount, epsilon, decay, least = schedule
    for _ in range(episodes):
        charge = start
        c = _bin(charge, physics.low, physics.high, bins)
        for t in range(len(prices) - 1):
            here, after = cell[t], cell[t + 1]
            if rng.random() < epsilon:
                action = int(rng.integers(0, 3))
            else:
                # The first of the greatest, as argmax has it, without a call that takes longer than the rest.
                action = 1 if q[c, here, 1] > q[c, here, 0] else 0
                if q[c, here, 2] > q[c, here, action]:
                    action = 2
            charge, _, cash, _ = step(physics, charge, (1 - action) * most, hours, prices[t], np.inf)
            d = _bin(charge, physics.low, physics.high, bins)
            ahead = max(q[d, after, 0], q[d, after, 1], q[d, after, 2])
            q[c, here, action] += rate * (cash + discount * ahead - q[c, here, action])
            c = d
        epsilon = max(least, epsilon * decay)


@njit(cache=True, nogil=True)
def _act(
    q: Floats,
    physics: Physics,
    prices: Floats,
    cell: Integers,
    days: Integers,
    hours: float,
    start: float,
) -> Floats:
    requests = np.zeros(len(prices))
    charge, allowance = start, physics.daily_discharge
    most = max(physics.power_in, physics.power_out)
    for t in range(len(prices)):
        if t > 0 and days[t] != days[t - 1]:
            allowance = physics.daily_discharge
        if cell[t] < 0:
            continue
        c = _bin(charge, physics.low, physics.high, q.shape[0])
        requests[t] = (1 - int(np.argmax(q[c, cell[t]]))) * most
        charge, _, _, allowance = step(physics, charge, requests[t], hours, prices[t], allowance)
    return requests


@dataclass(frozen=True)
class ObviousQLearning:
    """Q(charge bin, price bin, hour, action), epsilon-greedy, learned from the context's history.

    Takes ``config`` to the letter, its discount per step instead of per hour."""

    config: RLBatteryConfig = field(default_factory=RLBatteryConfig)
    name: str = OBVIOUS

    def actions(self, context: Context) -> Floats:
        """Requested power in each interval, (T,) MW, positive buys."""
        physics, config = context.battery.physics, self.config
        history, delay = context.history_prices, context.execution_delay
        low, high = float(np.nanmin(history)), float(np.nanmax(history))
        prices = context.seen_prices
        times = context.history_timestamps.append(context.timestamps)
        hour = np.asarray((times.hour * 60 + times.minute) * config.time_bins // 1440, dtype=np.int64)
        width = (high - low) or 1.0
        place = np.clip((prices - low) / width * config.price_bins, 0, config.price_bins - 1).astype(np.int64)
        # Under a delay the first intervals know no price yet.
        place = np.concatenate([np.full(delay, -1), place[: len(place) - delay]])
        cell = np.where(place < 0, -1, place * config.time_bins + hour)
        n = len(history)
        lived = delay + np.flatnonzero(np.isfinite(history[delay:]))
        q = np.zeros((config.charge_level_bins, config.price_bins * config.time_bins, 3))
        _train(
            q,
            physics,
            history[lived],
            cell[lived],
            context.hours,
            context.battery.initial_mwh,
            config.episodes,
            Schedule(
                config.learning_rate, config.discount_factor, config.epsilon, config.epsilon_decay, config.epsilon_min
            ),
            np.random.default_rng(config.random_state),
        )
        return _act(q, physics, context.prices, cell[n:], context.days, context.hours, context.start_mwh)
