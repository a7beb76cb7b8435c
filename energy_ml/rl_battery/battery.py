"""The battery: its parameters and the one step function that is the physics everywhere.

What belongs here: limits, losses, costs, and stepping or simulating given requests. What doesn't: deciding what to
request (agent, policy, baselines, optimum). Environment, learner, policy, backtest and optimum all use ``step``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.config import LOSS_SPLITS, RLBatteryConfig
from energy_ml.errors import BatteryError
from energy_ml.kernels import kernel

CHARGE, HOLD, DISCHARGE = range(3)
"""Numbers of the actions: their places in ``names.ACTIONS``."""


class Physics(NamedTuple):
    """A battery as plain floats, the form that compiled code takes.

    ``low`` and ``high`` bound the charge (MWh in the cells), ``power_in`` and ``power_out`` buying and selling (MW at
    the grid). ``charge_eff`` and ``discharge_eff`` turn grid into cell energy and back, costs are currency/MWh at the
    grid and ``daily_discharge`` is the cell energy (MWh) that may be discharged per UTC day (infinite without a limit).
    """

    low: float
    high: float
    power_in: float
    power_out: float
    charge_eff: float
    discharge_eff: float
    wear: float
    buy_fee: float
    sell_fee: float
    daily_discharge: float


@kernel
def step(
    physics: Physics, charge: float, power: float, hours: float, price: float, allowance: float
) -> tuple[float, float, float, float]:
    """One interval of the battery's life; the only place where its physics is written down.

    The request is clipped to the power limit, to the room (so that its last bit is used) and, when discharging, to
    ``allowance``. Within one interval the battery either charges or discharges; without a price (NaN) it waits.

    Parameters
    ----------
    physics : limits, losses and costs.
    charge : energy in the cells at the start, MWh.
    power : requested mean power at the grid over the interval, MW; positive buys.
    hours : length of the interval.
    price : currency/MWh of this interval.
    allowance : cell energy that may still be discharged today, MWh.

    Returns
    -------
    (charge at the end MWh, energy at the grid MWh bought positive, cash received with fees and wear taken off,
    allowance left MWh).
    """
    if np.isnan(price):
        return charge, 0.0, 0.0, allowance
    if power > 0.0:
        room = physics.high - charge
        if room <= 0.0:
            return charge, 0.0, 0.0, allowance
        stored = min(power, physics.power_in) * hours * physics.charge_eff
        after = charge + stored
        if stored >= room:
            stored, after = room, physics.high
        energy = stored / physics.charge_eff
        return after, energy, -energy * (price + physics.buy_fee), allowance
    if power < 0.0:
        room = min(charge - physics.low, allowance)
        if room <= 0.0:
            return charge, 0.0, 0.0, allowance
        drawn = min(-power, physics.power_out) * hours / physics.discharge_eff
        after = charge - drawn
        if drawn >= room:
            drawn = room
            after = physics.low if charge - physics.low <= allowance else charge - drawn
        energy = drawn * physics.discharge_eff
        return after, -energy, energy * (price - physics.sell_fee - physics.wear), allowance - drawn
    return charge, 0.0, 0.0, allowance


@kernel
def _simulate(
    physics: Physics,
    start: float,
    requests: Floats,
    prices: Floats,
    hours: float,
    days: Integers,
    final: float,
) -> tuple[Floats, Floats, Floats]:
    n = len(prices)
    charge, energy, cash = np.empty(n + 1), np.empty(n), np.empty(n)
    charge[0] = start
    allowance = physics.daily_discharge
    refill = physics.power_in * hours * physics.charge_eff
    left = 0
    for t in range(n):
        left += not np.isnan(prices[t])
    for t in range(n):
        left -= not np.isnan(prices[t])
        if t == 0 or days[t] != days[t - 1]:
            allowance = physics.daily_discharge
        power = requests[t]
        if final > physics.low:
            # From below this level the required final charge could no longer be reached by the end.
            needed = final - left * refill
            lowest = (needed - charge[t]) / hours
            lowest = lowest / physics.charge_eff if lowest > 0.0 else lowest * physics.discharge_eff
            power = max(power, lowest)
        charge[t + 1], energy[t], cash[t], allowance = step(physics, charge[t], power, hours, prices[t], allowance)
    return charge, energy, cash


@dataclass(frozen=True)
class Battery:
    """One battery. Charge limits are fractions of capacity; power is at the grid.

    ``power_mw`` limits charging, and discharging too where ``discharge_power_mw`` is None.

    ``efficiency`` is the round trip; ``loss_split`` says where it is lost: ``sqrt`` (default) half on each leg,
    ``charge`` or ``discharge`` all on one. An equivalent full cycle is ``capacity_mwh`` drawn from the cells.
    ``final_charge`` (fraction, or None) is the least charge at the end of a simulated or optimised span.

    Raises BatteryError on numbers that no battery can have.
    """

    capacity_mwh: float = 1.0
    power_mw: float = 0.5
    min_reserve: float = 0.10
    max_charge: float = 0.90
    efficiency: float = 0.90
    loss_split: str = "sqrt"
    wear_cost_per_mwh: float = 0.0
    buy_fee_per_mwh: float = 0.0
    sell_fee_per_mwh: float = 0.0
    max_cycles_per_day: float | None = None
    initial_charge: float = 0.5
    final_charge: float | None = None
    discharge_power_mw: float | None = None

    def __post_init__(self) -> None:
        within = f"between min_reserve {self.min_reserve} and max_charge {self.max_charge}"
        costs = (self.wear_cost_per_mwh, self.buy_fee_per_mwh, self.sell_fee_per_mwh)
        names = ("wear_cost_per_mwh", "buy_fee_per_mwh", "sell_fee_per_mwh")
        cycles, final = self.max_cycles_per_day, self.final_charge
        for name, right, expected in (
            ("capacity_mwh", 0 < self.capacity_mwh < math.inf, "a finite number above 0"),
            ("power_mw", 0 < self.power_mw < math.inf, "a finite number above 0"),
            ("discharge_power_mw", 0 < self.power_out_mw < math.inf, "a finite number above 0"),
            ("efficiency", 0 < self.efficiency <= 1, "a round trip above 0 and at most 1"),
            ("loss_split", self.loss_split in LOSS_SPLITS, f"one of {', '.join(LOSS_SPLITS)}"),
            ("min_reserve", 0 <= self.min_reserve < 1, "a fraction of capacity from 0 to below 1"),
            ("max_charge", self.min_reserve < self.max_charge <= 1, "a fraction above min_reserve and at most 1"),
            *((n, 0 <= c < math.inf, "a finite number of 0 or more") for n, c in zip(names, costs, strict=True)),
            ("max_cycles_per_day", cycles is None or 0 < cycles < math.inf, "above 0, or None for no limit"),
            ("initial_charge", self.min_reserve <= self.initial_charge <= self.max_charge, within),
            ("final_charge", final is None or self.min_reserve <= final <= self.max_charge, f"{within}, or None"),
        ):
            if not right:
                raise BatteryError(
                    f"{name} is {getattr(self, name)!r}",
                    expected=expected,
                    remedy=f"correct {name} in the battery's configuration or telemetry",
                )

    @classmethod
    def from_config(cls, config: RLBatteryConfig, **changes: Any) -> Battery:
        """The reference battery of a config; keyword arguments replace fields."""
        return cls(**{f.name: getattr(config, f.name) for f in fields(cls)} | changes)

    def sized(self, capacity_mwh: float | None, power_mw: float | None) -> Battery:
        """The same battery in another size; power scales with capacity unless it is given."""
        capacity = self.capacity_mwh if capacity_mwh is None else float(capacity_mwh)
        power = self.power_mw / self.capacity_mwh * capacity if power_mw is None else float(power_mw)
        return replace(self, capacity_mwh=capacity, power_mw=power)

    @property
    def power_out_mw(self) -> float:
        """Discharging limit at the grid, MW."""
        return self.power_mw if self.discharge_power_mw is None else self.discharge_power_mw

    @property
    def kind(self) -> tuple[float, ...]:
        """What a policy depends on: equal batteries but for their size have equal kinds."""
        p, usable = self.physics, self.high_mwh - self.low_mwh
        numbers = (p.power_in / usable, p.power_out / usable, *p[4:-1])
        return tuple(round(number, 9) for number in numbers)

    @property
    def charge_efficiency(self) -> float:
        """Cell energy stored per grid energy bought."""
        return {"sqrt": math.sqrt(self.efficiency), "charge": self.efficiency, "discharge": 1.0}[self.loss_split]

    @property
    def discharge_efficiency(self) -> float:
        """Grid energy sold per cell energy drawn."""
        return self.efficiency / self.charge_efficiency

    @property
    def low_mwh(self) -> float:
        """Least charge, MWh."""
        return self.min_reserve * self.capacity_mwh

    @property
    def high_mwh(self) -> float:
        """Greatest charge, MWh."""
        return self.max_charge * self.capacity_mwh

    @property
    def initial_mwh(self) -> float:
        """Charge at the start, MWh."""
        return self.initial_charge * self.capacity_mwh

    @property
    def final_mwh(self) -> float:
        """Least charge at the end of a span, MWh."""
        return self.low_mwh if self.final_charge is None else self.final_charge * self.capacity_mwh

    @property
    def physics(self) -> Physics:
        """The battery as plain floats for compiled code."""
        limit = self.max_cycles_per_day
        return Physics(
            low=self.low_mwh,
            high=self.high_mwh,
            power_in=float(self.power_mw),
            power_out=float(self.power_out_mw),
            charge_eff=self.charge_efficiency,
            discharge_eff=self.discharge_efficiency,
            wear=float(self.wear_cost_per_mwh),
            buy_fee=float(self.buy_fee_per_mwh),
            sell_fee=float(self.sell_fee_per_mwh),
            daily_discharge=math.inf if limit is None else float(limit * self.capacity_mwh),
        )

    def check_charge(self, charge_mwh: float) -> float:
        """``charge_mwh`` if it lies within the limits (1e-9 MWh of rounding is cut off), else BatteryError."""
        slack = 1e-9 * max(1.0, self.capacity_mwh)
        if not self.low_mwh - slack <= charge_mwh <= self.high_mwh + slack:
            raise BatteryError(
                f"charge {charge_mwh!r} MWh lies outside the limits",
                expected=f"{self.low_mwh:g} to {self.high_mwh:g} MWh ({self.min_reserve:.0%} to "
                f"{self.max_charge:.0%} of {self.capacity_mwh:g} MWh)",
                remedy="start within the limits, or set min_reserve and max_charge to what the battery really does",
            )
        return min(max(float(charge_mwh), self.low_mwh), self.high_mwh)


class Trajectory(NamedTuple):
    """What a battery did over T intervals: ``charge`` (T+1,) MWh, ``energy`` (T,) MWh at the grid, ``cash`` (T,)."""

    charge: Floats
    energy: Floats
    cash: Floats

    @property
    def actions(self) -> Integers:
        """Number of the action carried out in each interval, (T,): see ``ACTIONS``."""
        return np.where(self.energy > 0, CHARGE, np.where(self.energy < 0, DISCHARGE, HOLD)).astype(np.int64)


def utc_days(timestamps: pd.DatetimeIndex | pd.Series) -> Integers:
    """Number of the UTC day of each timestamp (days since 1970), (T,); naive timestamps are taken as UTC."""
    index = pd.DatetimeIndex(timestamps)
    if index.tz is not None:
        index = index.tz_convert("UTC").tz_localize(None)
    return np.asarray(index.values.astype("datetime64[D]").astype(np.int64))


def simulate(
    battery: Battery,
    requests: npt.ArrayLike,
    prices: npt.ArrayLike,
    hours: float,
    days: npt.ArrayLike | None = None,
    *,
    start_mwh: float | None = None,
) -> Trajectory:
    """Carry out requested powers.

    Parameters
    ----------
    requests : (T,) MW at the grid, bought positive; clipped by ``step``.
    prices : (T,) currency/MWh; NaN where none is known: nothing is traded there.
    hours : length of an interval.
    days : (T,) number of the UTC day of each interval (``utc_days``); needed only with a cycle limit.
    start_mwh : charge at the start; the battery's own by default.

    Raises BatteryError if the start lies outside the limits, shapes differ, a price is infinite or a request not
    finite.
    """
    power = np.ascontiguousarray(requests, dtype=np.float64)
    price = np.ascontiguousarray(prices, dtype=np.float64)
    if days is None:
        if battery.max_cycles_per_day is not None:
            raise BatteryError(
                "a cycle limit per day without the days of the intervals",
                expected="days, one number per interval",
                remedy="pass days=utc_days(timestamps)",
            )
        day = np.zeros(len(price), dtype=np.int64)
    else:
        day = np.ascontiguousarray(days, dtype=np.int64)
    if not power.shape == price.shape == day.shape or price.ndim != 1:
        raise BatteryError(
            f"requests, prices and days have shapes {power.shape}, {price.shape} and {day.shape}",
            expected="one of each per interval",
        )
    for name, wrong in (("requests", ~np.isfinite(power)), ("prices", np.isinf(price))):
        if wrong.any():
            raise BatteryError(
                f"{name} hold {int(wrong.sum()):,} values that aren't finite, first at interval {int(wrong.argmax())}",
                expected="finite numbers; NaN for a price that isn't known",
                remedy="clean the prices first",
            )
    if not hours > 0:
        raise BatteryError(f"an interval of {hours!r} hours", expected="above 0")
    start = battery.check_charge(battery.initial_mwh if start_mwh is None else start_mwh)
    return Trajectory(*_simulate(battery.physics, start, power, price, float(hours), day, battery.final_mwh))
