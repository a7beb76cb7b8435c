"""The battery as a Gymnasium environment, for people who bring their own learner.

What belongs here: the interface around ``battery.step``. What doesn't: physics, and the project's own learner, which
needs no environment (it updates every charge and action from each price step).

Gymnasium is an extra: ``pip install energy_ml[gym]``.
"""

from __future__ import annotations

import math

import numpy as np

from energy_ml.arrays import Floats, Floats32
from energy_ml.errors import BatteryError, ConfigError
from energy_ml.rl_battery.battery import CHARGE, DISCHARGE, Battery, step, utc_days
from energy_ml.rl_battery.strategy import Context, known

try:
    import gymnasium
except ImportError as error:  # pragma: no cover (the tests run with the extra)
    raise ConfigError(
        "the battery environment needs gymnasium, which isn't installed",
        expected="the extra 'gym'",
        remedy="pip install energy_ml[gym]",
    ) from error


class BatteryEnv(gymnasium.Env[Floats32, int]):
    """One battery against the prices of a context; an episode runs over ``max_steps`` intervals or to their end.

    Actions: 0 charge, 1 hold, 2 discharge, in full power; the physics clips them.
    Observation, float32 (5 + H,): charge as a fraction of the usable range [0, 1]; the price that the action meets,
    minus the mean and over the mean absolute deviation of the history, cut off at ±50; sine and cosine of the UTC time
    of day; what is left of the day's discharge allowance (1 without a cycle limit); then the forecasts of the H
    horizons on the price's scale, 0 where there is none. With ``execution_delay`` price and forecasts are that many
    intervals old, and as many intervals at the start of the context have no action.
    Reward: cash in the interval plus, in the last one, the change of charge since the start times the terminal value,
    all times ``reward_scale``; over an episode the rewards add up to the profit of the backtest.
    ``info``: ``energy_mwh``, ``cash``, ``charge_level_mwh``, ``price``.

    With ``random_start`` an episode begins at a random interval with a random charge, else at the context's start.

    Raises BatteryError if the context holds fewer intervals than an episode needs (one, plus the delay).
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(
        self,
        context: Context,
        *,
        max_steps: int | None = None,
        random_start: bool = False,
        reward_scale: float = 1.0,
    ) -> None:
        if len(context.prices) <= context.execution_delay:
            raise BatteryError(
                f"the context holds {len(context.prices)} intervals",
                expected=f"more than the execution delay of {context.execution_delay}",
                remedy="use a longer span",
            )
        self.context = context
        self.battery: Battery = context.battery
        self._physics = context.battery.physics
        self._days = utc_days(context.timestamps)
        self._random_start = random_start
        self._scale = reward_scale
        self._steps = min(max_steps or len(context.prices), len(context.prices) - context.execution_delay)
        past = known(context.history_prices if len(context.history_prices) else context.prices)
        centre = float(past.mean())
        spread = float(np.abs(past - centre).mean()) or 1.0
        seen = context.seen_prices[len(context.history_prices) :]
        self._prices = self._scaled(seen, centre, spread)
        self._forecasts = [self._scaled(context.forecasts[h], centre, spread) for h in sorted(context.forecasts)]
        minutes = np.asarray(context.timestamps.hour * 60 + context.timestamps.minute, dtype=np.float64)
        self._clock = np.column_stack([np.sin(minutes * math.tau / 1440), np.cos(minutes * math.tau / 1440)])
        low = [0.0, -50.0, -1.0, -1.0, 0.0] + [-50.0] * len(self._forecasts)
        high = [1.0, 50.0, 1.0, 1.0, 1.0] + [50.0] * len(self._forecasts)
        self.observation_space = gymnasium.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        self.action_space = gymnasium.spaces.Discrete(3)  # type: ignore[assignment]
        self._start(0, context.start_mwh)

    @staticmethod
    def _scaled(values: Floats, centre: float, spread: float) -> Floats:
        return np.clip(np.nan_to_num((values - centre) / spread), -50.0, 50.0)

    def _start(self, first: int, charge: float) -> None:
        self._first, self._t = first, first
        self._charge = self._started_with = charge
        self._allowance = self._physics.daily_discharge

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[Floats32, dict[str, object]]:
        """Begin an episode; see the class for where."""
        super().reset(seed=seed)
        first, charge = self.context.execution_delay, self.context.start_mwh
        if self._random_start:
            first = int(self.np_random.integers(first, len(self.context.prices) - self._steps + 1))
            charge = float(self.np_random.uniform(self._physics.low, self._physics.high))
        self._start(first, charge)
        return self._observe(), {"charge_level_mwh": self._charge, "price": float(self.context.prices[first])}

    def step(self, action: int) -> tuple[Floats32, float, bool, bool, dict[str, object]]:
        """Carry out one action for one interval; raises BatteryError for an action that doesn't exist."""
        if action not in (0, 1, 2):
            raise BatteryError(f"action {action!r} doesn't exist", expected="0 charge, 1 hold or 2 discharge")
        if self._t >= self._first + self._steps:
            raise BatteryError("the episode is over", remedy="call reset() first")
        request = {CHARGE: self._physics.power_in, DISCHARGE: -self._physics.power_out}.get(int(action), 0.0)
        price = float(self.context.prices[self._t])
        self._charge, energy, cash, self._allowance = step(
            self._physics, self._charge, request, self.context.hours, price, self._allowance
        )
        self._t += 1
        over = self._t >= self._first + self._steps
        if not over and self._days[self._t] != self._days[self._t - 1]:
            self._allowance = self._physics.daily_discharge
        gained = cash + (self.context.terminal_value * (self._charge - self._started_with) if over else 0.0)
        info: dict[str, object] = {"energy_mwh": energy, "cash": cash, "charge_level_mwh": self._charge, "price": price}
        # The span ends, the battery doesn't: for a learner that is a truncation, not a terminal state.
        return self._observe(), gained * self._scale, False, over, info

    def _observe(self) -> Floats32:
        now = min(self._t, len(self._prices) - 1)
        seen = max(0, now - self.context.execution_delay)
        p = self._physics
        left = 1.0 if math.isinf(p.daily_discharge) else self._allowance / p.daily_discharge
        charge = min(max((self._charge - p.low) / (p.high - p.low), 0.0), 1.0)
        values = [charge, self._prices[seen], *self._clock[now], min(max(left, 0.0), 1.0)]
        return np.array([*values, *(f[seen] for f in self._forecasts)], dtype=np.float32)
