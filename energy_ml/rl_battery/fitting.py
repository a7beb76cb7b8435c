"""Fitting on a training window: the value model, what it lets one observe, and the Q-table on top.

What belongs here: the two fits and their cross-fitting. What doesn't: which design to take, saving (``trainer``), and
the compiled updates (``learning``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.config import RLBatteryConfig
from energy_ml.errors import ModelError
from energy_ml.rl_battery.agent import (
    BatteryAgent,
    Market,
    Observed,
    base_values,
    describe_market,
    observe_inputs,
    price_levels,
)
from energy_ml.rl_battery.battery import Battery, Floats
from energy_ml.rl_battery.learning import (
    Experience,
    possible_moves,
    returns_of_policy,
    sampled_episode,
    sweep,
)
from energy_ml.rl_battery.state_space import FORECASTS, HISTORY, SIGNALS, Design, StateSpace, table_rows
from energy_ml.rl_battery.training_data import TrainingSeries, TrainingWindow
from energy_ml.rl_battery.value_model import (
    FIRST_FORECAST,
    NO_MODEL,
    SLOPES,
    ValueModel,
    build_inputs,
    cross_fit,
    hindsight_slopes,
    slopes_of,
    tree_inputs,
    value_targets,
)

PRICE_CAP = 20.0
"""In learning, prices count at most so many typical prices, so that one spike doesn't rule a table."""
RATE_POWER = 0.7
TRACE_PER_HOUR = 0.78
"""Weight of what was earned against what was expected, an hour on; see ``learning.returns_of_policy``."""
MIN_PASSES = 3
TOLERANCE = 0.02
"""Learning has converged when a pass moves the table by less than this part of its own size."""
FOLDS = 4
"""Two for a draft where only designs are compared misled the choice: tables then learn from value models of half the
data, and bare tables looked better than they are (57 % of the optimum became 33 % in one window of 25)."""
PURGE_MINUTES = 180
MAX_VALUE_ROWS = 20_000
"""Rows that the value model is trained on at most; longer windows are thinned out evenly."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A region prepared for learning on its first ``known`` starts: what was observed at each information level."""

    series: TrainingSeries
    market: Market
    observed: dict[int, Observed]
    model: ValueModel
    known: int


class LearnedTable(NamedTuple):
    """What learning one design gave: an agent per region (one table), the curve, and what it was learned from."""

    agents: list[BatteryAgent]
    curve: pd.DataFrame
    converged: bool
    passes: int
    updates: int
    experience: Experience


def fit_values(
    window: TrainingWindow,
    config: RLBatteryConfig,
    battery: Battery,
    *,
    with_validation: bool,
    worth: Sequence[Floats] | None = None,
    all_levels: bool = False,
    whole: bool = True,
    threads: int = 1,
) -> list[Fitted]:
    """Fit the value model to train (and validation), cross-fitted within, and observe all rows with it.

    ``worth`` are the slopes to learn, per region (starts, SLOPES) currency/MWh: those of hindsight if None.
    ``all_levels`` observes at each information level, otherwise only at the highest. ``whole``, ``threads``: see
    ``cross_fit``.
    """
    delay, dispatch, count = config.execution_delay, window.dispatch_minutes, len(window.horizons)
    rng = np.random.default_rng(config.random_state)
    markets, inputs, targets, known = [], [], [], []
    for number, s in enumerate(window.series):
        n = len(s.starts) if with_validation else s.train_starts
        held = s.prices[s.starts]
        market = describe_market(held[:n], battery)
        capped = np.clip(held[:n], -PRICE_CAP * market.typical, PRICE_CAP * market.typical)
        slopes = hindsight_slopes(battery.physics, capped, window.hours) if worth is None else worth[number]
        y = value_targets(slopes, capped, market.typical, delay)
        # Near the end nothing is known but the value put on what is left.
        y[max(0, n - PURGE_MINUTES // dispatch) :] = np.nan
        markets.append(market)
        inputs.append(build_inputs(held, s.minutes[s.starts], s.ahead, dispatch, market.typical, 0))
        targets.append(y)
        known.append(n)
    thin = max(1, -(-sum(known) // MAX_VALUE_ROWS))
    rows = [np.arange(0, n, thin) for n in known]
    x = np.concatenate([a[r] for a, r in zip(inputs, rows, strict=True)])
    final, models, edges = cross_fit(
        tree_inputs(x),
        np.concatenate([a[r] for a, r in zip(targets, rows, strict=True)]),
        np.concatenate(rows),
        tree_inputs(_with_gaps(x, count, rng)),
        intervals=max(known),
        folds=FOLDS,
        purge=PURGE_MINUTES // dispatch,
        seed=config.random_state,
        threads=threads,
        pieces=SLOPES,
        delay=delay,
        whole=whole,
    )
    highest = FORECASTS * bool(count) + HISTORY
    levels = [level for level in range(highest, -1, -1) if level & ~highest == 0] if all_levels else [highest]
    fitted = []
    for s, market, x, n in zip(window.series, markets, inputs, known, strict=True):
        held, minutes = s.prices[s.starts], s.minutes[s.starts]
        level = price_levels(held, 1440 // dispatch, market, 0)
        observed = {}
        blocks = [*zip(edges[:-1], edges[1:], models, strict=True), (edges[-1], len(x), final)]
        for known_level in levels:
            masked = _masked(x, known_level, count)
            observed[known_level] = _join(
                [
                    observe_inputs(masked[a:b], held[a:b], minutes[a:b], level[a:b], count, market, model)
                    for a, b, model in blocks
                    if a < min(b, len(x))
                ]
            )
        fitted.append(Fitted(s, market, observed, final, n))
    return fitted


def learn_table(
    fitted: Sequence[Fitted],
    design: Design,
    window: TrainingWindow,
    config: RLBatteryConfig,
    battery: Battery,
    passes: int,
    *,
    score: bool,
) -> LearnedTable:
    """Learn the table of one design on the known rows of all regions, for ``passes`` at most.

    With ``score`` the curve holds each region's profit on validation after passes. Raises ModelError if it diverges.
    """
    delay, nodes = config.execution_delay, config.charge_level_bins + 1
    usable = battery.high_mwh - battery.low_mwh
    signal = SIGNALS.index(design.signal)
    fitted = [_flat(f) for f in fitted] if not design.learned_base else list(fitted)
    highest = max(fitted[0].observed)
    top = [f.observed[highest].rows(slice(0, f.known)) for f in fitted]
    space = StateSpace.fit(
        config.time_bins,
        design,
        np.concatenate([o.information for o in top]),
        np.concatenate([o.signals[signal] for o in top]),
    )
    parts = []
    for f in fitted:
        cap = PRICE_CAP * f.market.typical
        paid = np.clip(f.series.prices[f.series.starts[delay : f.known]], -cap, cap)
        linked = np.ones(len(paid), dtype=bool)
        linked[-1] = False
        for level in f.observed.values():
            o = level.rows(slice(0, f.known - delay))
            state = table_rows(o.information, o.minutes, o.signals[signal], space.edges, space.time_bins)
            base = base_values(o.slopes, usable, nodes)
            parts.append(Experience(np.clip(o.expected, -cap, cap), paid, base, o.level * usable, state, linked))
    experience = Experience(*[np.concatenate(column) for column in zip(*parts, strict=True)])
    table, visits = np.zeros((space.rows, nodes)), np.zeros(space.rows)
    agents = [_agent(f, design, space, table, window, battery, delay) for f in fitted]
    rng = np.random.default_rng(config.random_state)
    moves = possible_moves(battery.physics, window.hours, nodes)
    discount, epsilon = design.discount**window.hours, config.epsilon
    curve: list[dict[str, Any]] = []
    converged, done = False, 0
    while done < passes and not converged:
        done += 1
        before = table.copy()
        if config.update == "counterfactual":
            sweep(table, visits, moves, experience, discount, config.learning_rate, RATE_POWER)
            moved = float(np.sqrt(((table - before) ** 2).mean()))
            converged = done >= MIN_PASSES and moved <= TOLERANCE * float(np.sqrt((table**2).mean()))
        else:
            sampled_episode(
                table,
                battery.physics,
                window.hours,
                experience,
                battery.initial_mwh,
                discount,
                config.learning_rate,
                epsilon,
                config.max_steps,
                rng,
            )
            epsilon = max(config.epsilon_min, epsilon * config.epsilon_decay)
        if score and (done <= 10 or done % 50 == 0 or done == passes):
            for agent, f in zip(agents, fitted, strict=True):
                curve.append({"step": done, "value": validation_profit(agent, f), "region": f.series.region})
    if not np.isfinite(table).all():
        raise ModelError(
            "Q-learning diverged: the table holds values that aren't finite",
            remedy="lower learning_rate or discount_factor",
        )
    choices = int(moves.number.sum()) if config.update == "counterfactual" else 1
    updates = done * int(experience.linked.sum()) * choices
    return LearnedTable(
        agents, pd.DataFrame(curve, columns=["step", "value", "region"]), converged, done, updates, experience
    )


def worth_under_policy(learned: LearnedTable, window: TrainingWindow, config: RLBatteryConfig) -> list[Floats]:
    """What a MWh went on to earn under the learned policy: per region (starts, SLOPES), for another ``fit_values``.

    The table must have been learned at one information level. NaN where a delay left the first intervals without.
    """
    battery = learned.agents[0].battery
    table, moves = learned.agents[0].table, possible_moves(battery.physics, window.hours, learned.agents[0].nodes)
    returns = returns_of_policy(table, moves, learned.experience, TRACE_PER_HOUR**window.hours)
    slopes = slopes_of(returns, battery.high_mwh - battery.low_mwh, SLOPES)
    ends = np.flatnonzero(~learned.experience.linked) + 1
    late = np.full((config.execution_delay, SLOPES), np.nan)
    return [np.concatenate([late, part]) for part in np.split(slopes, ends[:-1])]


def validation_profit(agent: BatteryAgent, fitted: Fitted) -> float:
    """Profit over the rows after train: cash plus the change of what is stored, at the mean training price."""
    s, battery, n = fitted.series, agent.battery, fitted.series.train
    observed = _flat(fitted).observed if not agent.design.learned_base else fitted.observed
    from_row = max(0, n - agent.delay)
    seen = observed[max(observed)].rows(s.place[from_row:])
    if not agent.delay:
        seen = seen._replace(expected=s.prices[from_row:])
    _, cash, end = agent.requests(seen, s.prices[n:], battery, battery.initial_mwh, s.days[n:], delay=agent.delay)
    worth = max(0.0, float(s.prices[:n].mean())) * battery.discharge_efficiency
    return float(cash + (end - battery.initial_mwh) * worth)


def _join(parts: Sequence[Observed]) -> Observed:
    return Observed(
        np.concatenate([p.expected for p in parts]),
        np.concatenate([p.slopes for p in parts]),
        np.concatenate([p.level for p in parts]),
        np.concatenate([p.information for p in parts]),
        np.concatenate([p.signals for p in parts], axis=1),
        np.concatenate([p.minutes for p in parts]),
    )


def _with_gaps(inputs: npt.NDArray[np.float32], horizons: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Copies of input rows with forecasts, history or both missing, so that the model learns to do without.

    Beyond that they keep it from leaning on any one input: without them it earned four points less.
    """
    copies = inputs.copy()
    kind = rng.integers(0, 3, len(inputs)) if horizons else np.full(len(inputs), 1)
    copies[kind != 1, FIRST_FORECAST : FIRST_FORECAST + horizons] = np.nan
    copies[kind != 0, FIRST_FORECAST + horizons :] = np.nan
    return copies


def _masked(inputs: npt.NDArray[np.float32], level: int, horizons: int) -> npt.NDArray[np.float32]:
    """The inputs as they are at an information level."""
    out = inputs.copy()
    if not level & FORECASTS:
        out[:, FIRST_FORECAST : FIRST_FORECAST + horizons] = np.nan
    if not level & HISTORY:
        out[:, FIRST_FORECAST + horizons :] = np.nan
    return out


def _flat(fitted: Fitted) -> Fitted:
    """The same without a learned base: a MWh is worth the mean price."""
    prices = fitted.series.prices[fitted.series.starts]
    observed = {
        level: o._replace(slopes=np.full((len(o.slopes), 1), fitted.market.flat_value), expected=prices)
        for level, o in fitted.observed.items()
    }
    return Fitted(fitted.series, fitted.market, observed, NO_MODEL, fitted.known)


def _agent(
    fitted: Fitted,
    design: Design,
    space: StateSpace,
    table: Floats,
    window: TrainingWindow,
    battery: Battery,
    delay: int,
) -> BatteryAgent:
    observed = fitted.observed[max(fitted.observed)].rows(slice(0, fitted.known))
    time_of_day = observed.minutes * space.time_bins // 1440
    signal = observed.signals[SIGNALS.index(design.signal)]
    slopes = np.zeros((space.time_bins, observed.slopes.shape[1]))
    middle = np.zeros(space.time_bins)
    for b in range(space.time_bins):
        mine = time_of_day == b
        mine = mine if mine.any() else np.ones(fitted.known, dtype=bool)
        slopes[b] = observed.slopes[mine].mean(axis=0)
        middle[b] = np.median(signal[mine])
    return BatteryAgent(
        region=fitted.series.region,
        design=design,
        space=space,
        table=table,
        model=fitted.model,
        market=fitted.market,
        battery=battery,
        horizons=window.horizons,
        interval_minutes=window.interval_minutes,
        dispatch_minutes=window.dispatch_minutes,
        delay=delay,
        typical_slopes=slopes,
        typical_signal=middle,
    )
