"""The obvious tabular Q-learning: what a textbook gives, as a baseline that shows what the rest is worth.

What belongs here: equal-width bins of charge and price, the hour, 0.95 per step, one sampled transition per step and
cash as reward. What doesn't: anything that makes it better (``learning``, ``value_model``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from energy_ml.rl_battery.battery import Floats, Physics, step
from energy_ml.rl_battery.strategy import Context

Integers = npt.NDArray[np.int64]


@njit(cache=True)
def _bin(value: float, low: float, high: float, bins: int) -> int:
    return min(max(int((value - low) / (high - low) * bins), 0), bins - 1)


@njit(cache=True)
def _train(
    q: Floats,
    physics: Physics,
    prices: Floats,
    price_bin: Integers,
    hour: Integers,
    hours: float,
    start: float,
    episodes: int,
    rate: float,
    discount: float,
    epsilon: float,
    decay: float,
    least: float,
    rng: np.random.Generator,
) -> None:
    for _ in range(episodes):
        charge = start
        c = _bin(charge, physics.low, physics.high, q.shape[0])
        for t in range(len(prices) - 1):
            values = q[c, price_bin[t], hour[t]]
            action = rng.integers(0, 3) if rng.random() < epsilon else int(np.argmax(values))
            charge, _, cash, _ = step(physics, charge, (1 - action) * physics.power, hours, prices[t], np.inf)
            c = _bin(charge, physics.low, physics.high, q.shape[0])
            ahead = q[c, price_bin[t + 1], hour[t + 1]].max()
            values[action] += rate * (cash + discount * ahead - values[action])
        epsilon = max(least, epsilon * decay)


@njit(cache=True)
def _act(
    q: Floats,
    physics: Physics,
    prices: Floats,
    price_bin: Integers,
    hour: Integers,
    days: Integers,
    hours: float,
    start: float,
) -> Floats:
    requests = np.zeros(len(prices))
    charge, allowance = start, physics.daily_discharge
    for t in range(len(prices)):
        if t > 0 and days[t] != days[t - 1]:
            allowance = physics.daily_discharge
        if price_bin[t] < 0:
            continue
        c = _bin(charge, physics.low, physics.high, q.shape[0])
        requests[t] = (1 - int(np.argmax(q[c, price_bin[t], hour[t]]))) * physics.power
        charge, _, _, allowance = step(physics, charge, requests[t], hours, prices[t], allowance)
    return requests


@dataclass(frozen=True)
class ObviousQLearning:
    """Q(charge bin, price bin, hour, action), epsilon-greedy, learned from the context's history; discount per step."""

    name: str = "obvious_q_learning"
    charge_bins: int = 10
    price_bins: int = 10
    time_bins: int = 24
    learning_rate: float = 0.1
    discount: float = 0.95
    epsilon: float = 1.0
    epsilon_decay: float = 0.995
    epsilon_min: float = 0.05
    episodes: int = 1000
    random_state: int = 42

    def actions(self, context: Context) -> Floats:
        """Requested power in each interval, (T,) MW, positive buys."""
        physics = context.battery.physics
        history, delay = context.history_prices, context.execution_delay
        low, high = float(history.min()), float(history.max())
        prices = np.concatenate([history, context.prices])
        times = context.history_timestamps.append(context.timestamps)
        hour = np.asarray((times.hour * 60 + times.minute) * self.time_bins // 1440, dtype=np.int64)
        width = (high - low) or 1.0
        place = np.clip((prices - low) / width * self.price_bins, 0, self.price_bins - 1).astype(np.int64)
        place = np.concatenate([np.full(delay, -1), place[: len(place) - delay]])
        n = len(history)
        q = np.zeros((self.charge_bins, self.price_bins, self.time_bins, 3))
        _train(
            q,
            physics,
            history[delay:],
            place[delay:n],
            hour[delay:n],
            context.hours,
            context.battery.initial_mwh,
            self.episodes,
            self.learning_rate,
            self.discount,
            self.epsilon,
            self.epsilon_decay,
            self.epsilon_min,
            np.random.default_rng(self.random_state),
        )
        return _act(q, physics, context.prices, place[n:], hour[n:], context.days, context.hours, context.start_mwh)
