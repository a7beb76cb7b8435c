"""Fitting on a training window: the price path, what it lets one observe, and the Q-table on top.

What belongs here: the fits. What doesn't: the course of training, saving (``trainer``), and the compiled updates
(``learning``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats
from energy_ml.config import RLBatteryConfig
from energy_ml.errors import ModelError
from energy_ml.names import OUR_POLICY, OUR_POLICY_BLIND, PLAN_ALONE
from energy_ml.rl_battery.agent import BatteryAgent, Eyes, Market, describe_market, observe
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.learning import (
    Experience,
    Learner,
    Part,
    Schedule,
    count_places,
    possible_moves,
    sampled_episode,
    sweep,
)
from energy_ml.rl_battery.lookahead import Lookahead, fit_lookahead, usual_path
from energy_ml.rl_battery.state_space import (
    FORECASTS,
    HISTORY,
    INFORMATION,
    Places,
    QTable,
    Seen,
    find_places,
    gap_bins,
    joined,
    rising,
)
from energy_ml.rl_battery.strategy import end_value
from energy_ml.rl_battery.training_data import TrainingSeries, TrainingWindow

_PRICE_CAP = 20.0
"""In learning, prices count at most so many typical prices, so that one spike doesn't rule a table."""
_TRACE_PER_HOUR = 0.78
"""Weight of what was earned against what was expected, an hour on; see ``learning.sweep``."""
_PRIOR_INTERVALS = 100.0
"""A correction of the plan is believed half where a state was met so often, less where less often."""
_MIN_PASSES = 3
_TOLERANCE = 0.02
"""Learning has converged when a pass moves the table by less than this part of its own size."""
_MAX_ROWS = 20_000
"""Rows that the price path is learned from at most; longer windows are thinned out evenly."""


@dataclass(frozen=True, eq=False)
class _Region:
    """A region prepared for learning on its first ``known`` starts: what was observed at each level of information."""

    series: TrainingSeries
    market: Market
    seen: dict[int, Seen]
    look: Lookahead
    known: int

    @property
    def typical_plan(self) -> Floats:
        """See ``BatteryAgent``."""
        seen = self.seen[max(self.seen)].rows(slice(0, self.known))
        of_hour = [seen.planned[seen.minutes // 60 == hour] for hour in range(24)]
        return np.array([(rows if len(rows) else seen.planned).mean(axis=0) for rows in of_hour])

    def after_train(self, agent: BatteryAgent, *, blind: bool = False) -> Seen:
        """What is known in the rows after train, and as many before them as the agent is late; it needs no table.

        ``blind``: with the forecasts withheld.
        """
        s = self.series
        forecasts = {} if blind else dict(zip(agent.horizons, s.ahead, strict=True))
        return agent.observe(s.seen, s.minutes, forecasts, first=max(0, s.train - agent.delay))

    def profit(self, agent: BatteryAgent, seen: Seen) -> float:
        """Profit over the rows after train: cash plus the change of what is stored, at the mean training price."""
        s, battery, n = self.series, agent.battery, self.series.train
        _, cash, end = agent.requests(seen, s.prices[n:], battery, battery.initial_mwh, s.days[n:], delay=agent.delay)
        return float(cash + (end - battery.initial_mwh) * end_value(s.prices[:n], battery))


class Learned(NamedTuple):
    """What learning gave: an agent per region (one table), and where validation wasn't learned from, the curve of each
    region's profit on it (step, value, region) and the profits at the end (strategy -> region)."""

    agents: list[BatteryAgent]
    curve: pd.DataFrame
    validation: dict[str, dict[str, float]]
    converged: bool
    passes: int
    updates: int


def _fit_paths(
    window: TrainingWindow, config: RLBatteryConfig, battery: Battery, with_validation: bool
) -> list[_Region]:
    """Learn the price path of train (and validation) and observe all rows with it, at each level of information."""
    dispatch = window.dispatch_minutes
    known = [len(s.starts) if with_validation else s.train_starts for s in window.series]
    regions = list(zip(window.series, known, strict=True))
    markets = [describe_market(s.prices[s.starts[:n]]) for s, n in regions]
    looks, usual_others = fit_lookahead(
        [np.arcsinh(s.seen[s.starts[:n]] / m.typical) for (s, n), m in zip(regions, markets, strict=True)],
        [s.minutes[s.starts[:n]] for s, n in regions],
        [np.arcsinh(s.ahead[:, s.starts[:n]] / m.typical) for (s, n), m in zip(regions, markets, strict=True)],
        [np.isfinite(s.prices[s.starts[:n]]) for s, n in regions],
        interval=dispatch,
        lead=window.interval_minutes / dispatch,
        horizons=window.horizons,
        delay=config.execution_delay,
        most_rows=_MAX_ROWS,
    )
    levels = [n for n in range(len(INFORMATION)) if window.horizons or not n & FORECASTS]
    fitted = []
    for (s, n), market, look, others in zip(regions, markets, looks, usual_others, strict=True):
        held, minutes = s.seen[s.starts], s.minutes[s.starts]
        usual = usual_path(look.usual, minutes, dispatch, int(look.whole.sum()))
        usual[:n] = others
        eyes = Eyes(look, market, dispatch, config.charge_level_bins)
        seen = {}
        for level in levels:
            ahead = np.ascontiguousarray(s.ahead[: len(s.ahead) if level & FORECASTS else 0, s.starts])
            when = look.horizons[: len(ahead)]
            seen[level] = observe(eyes, held, minutes, usual, when, ahead, battery.physics, 0, bool(level & HISTORY))
        fitted.append(_Region(s, market, seen, look, n))
    return fitted


def _experience(regions: Sequence[_Region], middles: Floats, config: RLBatteryConfig) -> Experience:
    """What happened in the known rows of all regions, once per level of information."""
    delay, parts = config.execution_delay, []
    for f in regions:
        cap = _PRICE_CAP * f.market.typical
        paid = np.clip(f.series.prices[f.series.starts[delay : f.known]], -cap, cap)
        # Nothing is learned from an interval without a price, nor about the one before it.
        linked = np.isfinite(paid)
        linked[:-1] &= linked[1:].copy()
        linked[-1] = False
        for level in f.seen.values():
            seen = level.rows(slice(0, f.known - delay))
            places = find_places(seen, middles, config.time_bins)
            expected = np.clip(seen.expected, -cap, cap)
            parts.append(Experience(expected, paid, seen.planned, seen.level / config.reward_scale, places, linked))
    return joined(parts)


def _empty_table(places: Places, config: RLBatteryConfig) -> Learner:
    """A table of zeros with the trust that its states' numbers allow."""
    met = count_places(places, (len(INFORMATION), config.time_bins, config.price_bins, config.charge_level_bins))
    all_day = met.sum(axis=1, keepdims=True)
    return Learner(*(Part(0.0 * n, 0.0 * n, n / (n + _PRIOR_INTERVALS)) for n in (all_day, met)))


def learn(window: TrainingWindow, config: RLBatteryConfig, passes: int, *, with_validation: bool) -> Learned:
    """Learn price path and table of all regions on train, or on train and validation, in ``passes`` at most.

    Raises ModelError if it diverges.
    """
    battery, sampled = Battery.from_config(config), config.update == "sampled"
    regions = _fit_paths(window, config, battery, with_validation)
    middles = gap_bins([seen.rows(slice(0, f.known)) for f in regions for seen in f.seen.values()], config.price_bins)
    experience = _experience(regions, middles, config)
    learner = _empty_table(experience.places, config)
    moves = possible_moves(battery.physics, window.hours, config.charge_level_bins + 1)
    width = (battery.high_mwh - battery.low_mwh) / config.charge_level_bins
    schedule = Schedule(config.learning_rate, config.discount_factor**window.hours, _TRACE_PER_HOUR**window.hours)
    rng, epsilon = np.random.default_rng(config.random_state), config.epsilon
    plans = [f.typical_plan for f in regions]

    def agents() -> list[BatteryAgent]:
        values = (learner.day.values + learner.hours.values) / config.reward_scale
        values = rising(values, middles, learner.hours.trust) * config.reward_scale
        return [
            BatteryAgent(
                region=f.series.region,
                table=QTable(values, middles),
                look=f.look,
                market=f.market,
                battery=battery,
                horizons=window.horizons,
                interval_minutes=window.interval_minutes,
                dispatch_minutes=window.dispatch_minutes,
                delay=config.execution_delay,
                reward_scale=config.reward_scale,
                typical_plan=plan,
            )
            for f, plan in zip(regions, plans, strict=True)
        ]

    later = [] if with_validation else [f.after_train(a) for a, f in zip(agents(), regions, strict=True)]
    curve: list[dict[str, object]] = []
    converged, done, before = False, 0, np.zeros_like(learner.hours.values)
    while done < passes and not converged:
        done += 1
        if sampled:
            start, steps = battery.initial_mwh, config.max_steps
            sampled_episode(learner, battery.physics, window.hours, experience, schedule, start, epsilon, steps, rng)
            epsilon = max(config.epsilon_min, epsilon * config.epsilon_decay)
        else:
            sweep(learner, moves, experience, schedule, width)
        now = learner.day.values + learner.hours.values
        moved, size = float(np.sqrt(((now - before) ** 2).mean())), float(np.sqrt((now**2).mean()))
        # What exploring still has to find keeps a sampled table moving.
        converged = not sampled and done >= _MIN_PASSES and moved <= _TOLERANCE * size
        before = now
        if later and (done <= 10 or done % 50 == 0 or done == passes):
            for a, f, seen in zip(agents(), regions, later, strict=True):
                curve.append({"step": done, "value": f.profit(a, seen), "region": a.region})
    if not np.isfinite(before).all():
        raise ModelError(
            "Q-learning diverged: the table holds values that aren't finite",
            remedy="lower learning_rate or discount_factor",
        )
    learned = agents()
    validation: dict[str, dict[str, float]] = {OUR_POLICY: {}, PLAN_ALONE: {}, OUR_POLICY_BLIND: {}}
    for a, f, seen in zip(learned, regions, later, strict=False):
        validation[OUR_POLICY][a.region] = f.profit(a, seen)
        validation[PLAN_ALONE][a.region] = f.profit(a.without_table(), seen)
        validation[OUR_POLICY_BLIND][a.region] = f.profit(a, f.after_train(a, blind=True))
    updates = done * int(experience.linked.sum()) * (1 if sampled else int(moves.number.sum()))
    frame = pd.DataFrame(curve, columns=["step", "value", "region"])
    return Learned(learned, frame, validation, converged, done, updates)
