"""The face of a learned policy: load it, ask it for one action, or let it run through a backtest.

What belongs here: loading, checking what callers give, explaining. What doesn't: learning, the state, the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from energy_ml.arrays import Floats
from energy_ml.artifacts import Complete, load_champion
from energy_ml.config import PricePredictionConfig, resolve_path
from energy_ml.errors import BatteryError, ModelError, UnknownRegionError
from energy_ml.names import ACTIONS, AS_USUAL, OUR_POLICY, PLAN_ALONE, POLICY_FILE
from energy_ml.rl_battery.agent import HISTORY_MINUTES, BatteryAgent, Brain, act_now
from energy_ml.rl_battery.battery import Battery, Physics, step
from energy_ml.rl_battery.learning import decide
from energy_ml.rl_battery.lookahead import CELLS, PATH_HOURS, slopes_on_the_way
from energy_ml.rl_battery.strategy import Context


@dataclass(frozen=True, eq=False)
class LearnedPolicy(Complete):
    """The artefact: an agent per region, the battery they were learned for and the configuration (plain dict).

    ``own``: battery_id -> agents of batteries that a policy of their own was learned for.
    """

    agents: dict[str, BatteryAgent]
    battery: Battery
    config: dict[str, Any]
    own: dict[str, dict[str, BatteryAgent]] | None = None

    @property
    def kinds(self) -> dict[str, tuple[float, ...]]:
        """battery_id -> delay and kind (``Battery.kind``) that its own policy was learned for."""
        agents = {name: next(iter(of.values())) for name, of in (self.own or {}).items() if name != AS_USUAL}
        return {name: (agent.delay, *agent.battery.kind) for name, agent in agents.items()}

    @property
    def interval_minutes(self) -> int:
        """Minutes between the prices that it was trained on."""
        return next(iter(self.agents.values())).interval_minutes

    @property
    def max_abs_price(self) -> float:
        """Beyond it, either way, a price is a mistake."""
        return float(self.config.get("max_abs_price", PricePredictionConfig.max_abs_price))


@dataclass(frozen=True, eq=False)
class Known:
    """What a decision is made from; attributes as the arguments of ``BatteryPolicy.get_action``."""

    charge: float
    price: float
    hour: float
    minute: float | None = None
    region: str | None = None
    recent_prices: Sequence[float] | Floats = ()
    forecasts: Mapping[int, float] | Mapping[float, float] = field(default_factory=dict)
    battery: Battery | None = None
    battery_id: str | None = None
    discharged_mwh: float = 0.0


class PlannedStep(NamedTuple):
    """A stretch of a plan: ``begin`` minutes from now, ``minutes`` long, the price expected there (currency/MWh), mean
    power and energy at the grid (bought positive), charge after it, cash."""

    begin: int
    minutes: int
    price: float
    power_mw: float
    energy_mwh: float
    charge_after_mwh: float
    cash: float


class _Moment(NamedTuple):
    """What is known, checked and in the form that compiled code takes."""

    agent: BatteryAgent
    brain: Brain
    battery: Battery
    physics: Physics
    prices: Floats
    minute: int
    ahead: dict[int, float]
    allowance: float

    @property
    def given(self) -> tuple[Floats, Floats]:
        """The forecasts' times (G,), in steps of the agent, and their prices (G, 1)."""
        when, prices = (np.array(list(part), dtype=np.float64) for part in (self.ahead, self.ahead.values()))
        return when / self.agent.dispatch_minutes, prices[:, None]


class BatteryPolicy:
    """A trained policy. ``policy_path`` is the folder of ``battery_policy.pkl`` or the file itself.

    It is loaded when first asked, with the registry's digest checked if there is a ``registry.json`` beside the folder.
    The policy is a ``Strategy``: ``actions(context)`` runs it through a backtest.
    """

    name: str = OUR_POLICY

    def __init__(self, policy_path: str | Path = "models/rl_battery") -> None:
        self.path = Path(resolve_path(policy_path))
        self._learned: LearnedPolicy | None = None
        self._prepared: dict[tuple[str | None, str | None], tuple[BatteryAgent, Brain, Physics, Battery]] = {}

    @classmethod
    def of(cls, learned: LearnedPolicy) -> BatteryPolicy:
        """A policy that was just trained, or loaded elsewhere."""
        policy = cls()
        policy._learned = learned
        return policy

    @property
    def learned(self) -> LearnedPolicy:
        """The artefact. Raises ModelNotFoundError or ArtifactError if it can't be loaded."""
        if self._learned is None:
            file = self.path if self.path.suffix == ".pkl" else self.path / POLICY_FILE
            loaded = load_champion(file.parent.parent, f"{file.parent.name}/{file.name}")
            loaded = loaded.learned if isinstance(loaded, BatteryPolicy) else loaded
            if not isinstance(loaded, LearnedPolicy):
                raise ModelError(
                    f"{file} holds a {type(loaded).__name__}", expected="a battery policy", remedy="train a policy"
                )
            self._learned = loaded
        return self._learned

    @property
    def regions(self) -> list[str]:
        """Regions that it was trained for."""
        return list(self.learned.agents)

    def agent(self, region: str | None = None, battery_id: str | None = None) -> BatteryAgent:
        """The agent of ``region``, of this battery where one was learned for it.

        ``region`` None takes FR if it is there, else the first one. Raises UnknownRegionError.
        """
        agents = self.learned.agents
        if battery_id is not None:
            agents = (self.learned.own or {}).get(battery_id, agents)
        if region is None:
            region = "FR" if "FR" in agents else next(iter(agents))
        if region not in agents:
            raise UnknownRegionError(
                f"the policy wasn't trained for region {region!r}",
                expected=f"one of {', '.join(agents)}",
                remedy="train with prices of that region",
            )
        return agents[region]

    def _ready(self, region: str | None, own: str | None) -> tuple[BatteryAgent, Brain, Physics, Battery]:
        """What one decision needs, put together once per region and battery."""
        if (region, own) not in self._prepared:
            agent = self.agent(region, own)
            self._prepared[region, own] = agent, agent.brain, agent.battery.physics, agent.battery
        return self._prepared[region, own]

    def without_table(self) -> BatteryPolicy:
        """The plan alone: the same policy with a Q-table of zeros, named ``plan_alone``."""
        learned = self.learned

        def plan(agents: dict[str, BatteryAgent]) -> dict[str, BatteryAgent]:
            return {region: agent.without_table() for region, agent in agents.items()}

        own = {name: plan(agents) for name, agents in (learned.own or {}).items()}
        alone = BatteryPolicy.of(replace(learned, agents=plan(learned.agents), own=own))
        alone.name = PLAN_ALONE
        return alone

    def actions(self, context: Context) -> Floats:
        """Requested power in each interval of a backtest's span, (T,) MW at the grid, positive buys.

        Uses the forecasts that the context has, of whichever horizons, and does without where it has none.
        Raises UnknownRegionError, or ModelError if interval or delay differ from those of training.
        """
        agent = self.agent(context.region, context.battery_id)
        delay = context.execution_delay
        if context.interval_minutes != agent.interval_minutes:
            raise ModelError(
                f"the policy was trained on {agent.interval_minutes}-minute prices, not {context.interval_minutes}",
                remedy="train on prices of the same interval",
            )
        if agent.delay not in (0, delay):
            raise ModelError(
                f"the policy was trained for a delay of {agent.delay} intervals, not {delay}",
                remedy="train with the same execution_delay, or with 0",
            )
        before = len(context.history_prices)
        times = context.history_timestamps.append(context.timestamps)
        seen = agent.observe(
            context.seen_prices,
            np.asarray(times.hour * 60 + times.minute, dtype=np.int64),
            {
                h: np.concatenate([context.history_forecasts.get(h, np.full(before, np.nan)), values])
                for h, values in context.forecasts.items()
            },
            first=max(0, before - delay),
            battery=context.battery,
        )
        requests, _, _ = agent.requests(
            seen, context.prices, context.battery, context.start_mwh, context.days, delay=delay
        )
        return requests

    def get_action(
        self,
        charge_level: float,
        current_price: float,
        price_forecast_1m: float | None = 0,
        price_forecast_5m: float | None = 0,
        price_forecast_15m: float | None = 0,
        hour: float = 0,
        *,
        region: str | None = None,
        recent_prices: Sequence[float] | None = None,
        price_forecast_60m: float | None = None,
        forecasts: Mapping[int, float] | None = None,
        minute: int | None = None,
        capacity_mwh: float | None = None,
        power_mw: float | None = None,
        battery_id: str | None = None,
        battery: Battery | None = None,
        discharged_mwh: float = 0.0,
    ) -> dict[str, Any]:
        """The action for the interval that has just begun, or as many later as the policy's execution delay says.

        Parameters
        ----------
        charge_level : energy in the cells, MWh, from 0 to the capacity (of 1 MWh by default, where it is the fraction
            as well). For a battery of another size give ``capacity_mwh``; power then scales with it unless given.
        current_price : currency/MWh of this interval.
        price_forecast_1m, _5m, _15m, _60m : forecasts made now. 0 and None mean "not given": a forecast of exactly 0
            must come in ``forecasts``.
        hour, minute : UTC; ``minute`` sharpens the time of day (the middle of the hour if None).
        region : one of the policy's regions; FR or the first one if None.
        battery_id, battery : another battery, and the name by which a policy may have been learned for it.
        discharged_mwh : from the cells, today; counts for a battery with a limit on cycles.
        recent_prices : prices before this interval, one per interval, oldest first; two days are used.
        forecasts : minutes ahead -> price, for any horizons up to a day, those of training or others.

        Returns a dict with ``action`` (charge, hold, discharge), ``q_values`` (action -> currency x reward_scale, above
        the empty battery; impossible actions left out), ``power_mw`` and ``energy_mwh`` (at the grid, positive buys),
        ``charge_after_mwh``, ``forecasts_used`` (minutes ahead -> price) and ``why`` (one sentence).

        Raises BatteryError (charge outside 0..capacity, or what can't be a price), UnknownRegionError, ModelError.
        """
        given = {1: price_forecast_1m, 5: price_forecast_5m, 15: price_forecast_15m, 60: price_forecast_60m}
        try:
            ahead = {float(h): float(v) for h, v in given.items() if v}
            ahead.update((float(h), float(v)) for h, v in (forecasts or {}).items() if v is not None)
            past = np.array(() if recent_prices is None else recent_prices, dtype=np.float64)
            numbers = [float(value) for value in (charge_level, current_price, hour, discharged_mwh)]
            minutes = None if minute is None else float(minute)
        except (TypeError, ValueError, AttributeError) as error:
            raise BatteryError(f"what was given can't be read: {error}", expected="numbers") from error
        if battery is None and (capacity_mwh is not None or power_mw is not None):
            battery = self.agent(region, battery_id).battery.sized(capacity_mwh, power_mw)
        charge, price, hours, spent = numbers
        return self.act(Known(charge, price, hours, minutes, region, past, ahead, battery, battery_id, spent))

    def act(self, known: Known) -> dict[str, Any]:
        """What ``get_action`` answers, and raises."""
        moment = self._moment(known)
        hours = moment.agent.interval_minutes / 60.0
        up, stay, down, row, planned, after, energy = act_now(
            moment.brain,
            moment.prices,
            moment.minute,
            *moment.given,
            moment.physics,
            known.charge,
            hours,
            moment.allowance,
        )
        values = {"charge": up, "hold": stay, "discharge": down}
        chosen = ACTIONS[0 if energy > 0 else 2 if energy < 0 else 1]
        scale = moment.agent.reward_scale
        return {
            "action": chosen,
            "q_values": {name: value * scale for name, value in values.items() if math.isfinite(value)},
            "power_mw": energy / hours,
            "energy_mwh": energy,
            "charge_after_mwh": after,
            "forecasts_used": moment.ahead,
            "why": _explain(chosen, moment.battery, known.charge, known.price, row, planned),
        }

    def plan(self, known: Known) -> list[PlannedStep]:
        """What it means to do over the coming day if prices come as it expects them; the first step is ``act``'s.

        After that it follows the plan alone; what the table will say of later prices isn't known yet. Steps are as long
        as the path's: minutes at first, hours at the end. Raises what ``get_action`` raises.
        """
        moment, first = self._moment(known), self.act(known)
        agent, physics, dispatch = moment.agent, moment.physics, moment.agent.dispatch_minutes
        path = agent.expected_path(moment.prices, moment.minute, *moment.given)
        slopes = slopes_on_the_way(agent.look.lengths, agent.delay, path, physics, dispatch / 60.0, CELLS)
        # What can be acted in comes after the delay; until then other actions are under way.
        delay, begin = agent.delay, agent.delay * agent.interval_minutes
        lengths = [agent.interval_minutes, *np.rint(agent.look.lengths[delay:] * dispatch).astype(int).tolist()]
        prices = [known.price if delay == 0 else float(path[delay - 1]), *path[delay:].tolist()]
        charge, allowance, steps = known.charge, moment.allowance, list[PlannedStep]()
        for i, (minutes, price) in enumerate(zip(lengths, prices, strict=True)):
            hours, power = minutes / 60.0, first["power_mw"]
            if i:
                values = np.concatenate([[0.0], slopes[i].cumsum()]) * (physics.high - physics.low) / len(slopes[0])
                power, *_ = decide(physics, charge, hours, price, values, allowance)
            charge, energy, cash, allowance = step(physics, charge, power, hours, price, allowance)
            steps.append(PlannedStep(begin, minutes, price, energy / hours, energy, charge, cash))
            if (moment.minute + begin) // 1440 < (moment.minute + begin + minutes) // 1440:
                allowance = physics.daily_discharge
            begin += minutes
        return steps

    def _moment(self, known: Known) -> _Moment:
        """What is known, checked. Raises what ``get_action`` raises."""
        agent, brain, physics, reference = self._ready(known.region, known.battery_id)
        charge, price, hour, minute = known.charge, known.price, known.hour, known.minute
        battery = known.battery or reference
        physics = physics if known.battery is None else battery.physics
        limit = self.learned.max_abs_price
        if not 0.0 <= charge <= battery.capacity_mwh:
            raise BatteryError(
                f"charge_level is {charge!r}",
                expected=f"MWh from 0 to the capacity of {battery.capacity_mwh:g}",
                remedy="give the charge in MWh, and capacity_mwh if the battery is another one",
            )
        whole = float(hour).is_integer() and 0 <= hour < 24  # pandas makes whole numbers of an incomplete column 17.0
        if not (abs(price) <= limit and whole and (minute is None or 0 <= minute < 60)):
            raise BatteryError(
                f"current_price is {price!r}, hour {hour!r}, minute {minute!r}",
                expected=f"a price of at most {limit:,.0f} either way, a whole hour 0 to 23, minute 0 to 59",
            )
        dimensions = np.ndim(known.recent_prices)
        if not (known.discharged_mwh >= 0.0 and dimensions == 1):
            raise BatteryError(
                f"discharged_mwh is {known.discharged_mwh!r}, recent_prices have {dimensions} dimensions",
                expected="energy of 0 or more, and one row of prices",
            )
        ahead = dict(sorted(known.forecasts.items()))
        for horizon, value in ahead.items():
            if not (0 < horizon <= PATH_HOURS * 60 and float(horizon).is_integer() and abs(value) <= limit):
                raise BatteryError(
                    f"the forecast for {horizon:g} minutes ahead is {value!r}",
                    expected=f"a price of at most {limit:,.0f} either way for 1 to {PATH_HOURS * 60} minutes ahead",
                    remedy="leave out what isn't known",
                )
        past = known.recent_prices[-(HISTORY_MINUTES // agent.interval_minutes) :]
        prices = np.empty(len(past) + 1)
        prices[:-1] = past
        prices[-1] = price
        each = agent.dispatch_minutes // agent.interval_minutes
        prices = np.ascontiguousarray(prices[len(past) % each :: each])
        if not (np.abs(prices) <= limit).all():
            raise BatteryError(
                "recent_prices hold values that aren't prices",
                expected=f"at most {limit:,.0f} either way",
                remedy="fill or leave out gaps",
            )
        return _Moment(
            agent,
            brain,
            battery,
            physics,
            prices,
            int(hour) * 60 + (30 if minute is None else int(minute)),  # whole, or all would be compiled again for it
            {int(h): v for h, v in ahead.items()},
            max(0.0, physics.daily_discharge - known.discharged_mwh),
        )


def _explain(chosen: str, battery: Battery, charge: float, price: float, row: Floats, planned: Floats) -> str:
    """Compare the price with what stored energy is worth around this charge, by the plan and by the table."""
    width = (battery.high_mwh - battery.low_mwh) / len(planned)
    i = min(max(int((charge - battery.low_mwh) / width), 0), len(planned) - 1)
    worth, plan = float(row[i + 1] - row[i]) / width, float(planned[i])
    buy = (price + battery.buy_fee_per_mwh) / battery.charge_efficiency
    sell = (price - battery.sell_fee_per_mwh - battery.wear_cost_per_mwh) * battery.discharge_efficiency
    table = f"{abs(worth - plan):.2f} {'more' if worth >= plan else 'less'} by the table"
    stored = f"A stored MWh is worth about {worth:.2f} later, {plan:.2f} by the plan and {table}"
    if chosen == "charge":
        return f"{stored}; storing one costs {buy:.2f} at {price:.2f}, so buy."
    if chosen == "discharge":
        return f"{stored}; it sells for {sell:.2f} at {price:.2f}, so sell."
    if charge >= battery.high_mwh - 1e-9 and worth > buy:
        return f"{stored}; buying at {price:.2f} would pay, but the battery is at its upper limit."
    if charge <= battery.low_mwh + 1e-9 and worth < sell:
        return f"{stored}; selling at {price:.2f} would pay, but the battery is at its lower limit."
    return f"{stored}, between what selling yields ({sell:.2f}) and what buying costs ({buy:.2f}), so wait."
