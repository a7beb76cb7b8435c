"""Fitting on a training window: price path and value model, what they let one observe, and the Q-table on top.

What belongs here: the fits, their cross-fitting, how much the plan weighs. What doesn't: which design to take, saving
(``trainer``), and the compiled updates (``learning``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats, Floats32, Integers
from energy_ml.config import RLBatteryConfig
from energy_ml.errors import ModelError
from energy_ml.rl_battery.agent import (
    BatteryAgent,
    Market,
    Observed,
    base_values,
    describe_market,
    observe_inputs,
    plans_of,
    price_levels,
)
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.learning import (
    Experience,
    follow,
    possible_moves,
    sampled_episode,
    sweep,
)
from energy_ml.rl_battery.lookahead import Lookahead, fit_lookahead, usual_path
from energy_ml.rl_battery.state_space import FORECASTS, HISTORY, SIGNALS, Design, StateSpace, table_rows
from energy_ml.rl_battery.strategy import end_value
from energy_ml.rl_battery.strategy import known as known_of
from energy_ml.rl_battery.training_data import TrainingSeries, TrainingWindow
from energy_ml.rl_battery.value_model import (
    FIRST_FORECAST,
    NO_MODEL,
    ValueModel,
    build_inputs,
    cross_fit,
    hindsight_slopes,
    predict_values,
    tree_inputs,
    value_targets,
)

PRICE_CAP = 20.0
"""In learning, prices count at most so many typical prices, so that one spike doesn't rule a table."""
RATE_POWER = 0.7
TRACE_PER_HOUR = 0.78
"""Weight of what was earned against what was expected, an hour on; see ``learning.sweep``."""
PRIOR_INTERVALS = 1000.0
"""The table's correction of a learned value is believed half where a state was met so often, less where less often."""
MIN_PASSES = 3
TOLERANCE = 0.02
"""Learning has converged when a pass moves the table by less than this part of its own size."""
PLAN_SHARES = (0.0, 0.25, 0.5)
"""Weights that the plan may get against the value model."""
PLAN_MARGIN = 0.01
"""By how much of the profit a plan must help on the rows learned from to be heard at all. There it looks better than it
is, since its path has seen them: in quiet simulated markets half a percent won there was a percent lost on new days, in
the Australian market three to eight percent were two to four. For the same reason it weighs at most half."""
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
    look: Lookahead
    known: int


class LearnedTable(NamedTuple):
    """What learning one design gave: an agent per region (one table) and the curve."""

    agents: list[BatteryAgent]
    curve: pd.DataFrame
    converged: bool
    passes: int
    updates: int


def fit_values(
    window: TrainingWindow,
    config: RLBatteryConfig,
    battery: Battery,
    *,
    with_validation: bool,
    all_levels: bool = False,
    threads: int = 1,
) -> list[Fitted]:
    """Fit path and value model to train (and validation), cross-fitted within, and observe all rows with them.

    ``all_levels`` observes at each information level, otherwise only at the highest. ``threads``: see ``cross_fit``.
    """
    delay, dispatch, count = config.execution_delay, window.dispatch_minutes, len(window.horizons)
    rng = np.random.default_rng(config.random_state)
    markets, inputs, targets, known = [], [], [], []
    for s in window.series:
        n = len(s.starts) if with_validation else s.train_starts
        held = s.seen[s.starts]
        market = describe_market(known_of(s.prices[s.starts[:n]]), battery)
        cap = PRICE_CAP * market.typical
        paid, capped = np.clip(s.prices[s.starts[:n]], -cap, cap), np.clip(held[:n], -cap, cap)
        y = value_targets(hindsight_slopes(battery.physics, paid, window.hours), capped, market.typical, delay)
        y[np.isnan(paid)] = np.nan
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
    )
    looks, usual_others = fit_lookahead(
        [np.arcsinh(s.seen[s.starts[:n]] / m.typical) for s, m, n in zip(window.series, markets, known, strict=True)],
        [s.minutes[s.starts[:n]] for s, n in zip(window.series, known, strict=True)],
        [np.arcsinh(s.ahead[:, :n] / m.typical) for s, m, n in zip(window.series, markets, known, strict=True)],
        [np.isfinite(s.prices[s.starts[:n]]) for s, n in zip(window.series, known, strict=True)],
        interval=dispatch,
        horizons=window.horizons,
        delay=delay,
        most_rows=MAX_VALUE_ROWS,
    )
    regions = [
        _Region(
            s,
            market,
            x,
            n,
            look,
            others,
            [*zip(edges[:-1], edges[1:], models, strict=True), (edges[-1], len(x), final)],
        )
        for s, market, x, n, look, others in zip(
            window.series, markets, inputs, known, looks, usual_others, strict=True
        )
    ]
    highest = FORECASTS * bool(count) + HISTORY
    sights = [_look_at(r, highest, window, battery) for r in regions]
    share = _best_share(regions, sights, window, config, battery, with_validation=with_validation)
    levels = [level for level in range(highest, -1, -1) if level & ~highest == 0] if all_levels else [highest]
    return [
        Fitted(
            r.series,
            r.market,
            {
                level: (sight if level == highest else _look_at(r, level, window, battery)).observed(share)
                for level in levels
            },
            final,
            r.look._replace(share=share),
            r.known,
        )
        for r, sight in zip(regions, sights, strict=True)
    ]


class _Region(NamedTuple):
    """What ``fit_values`` knows of a region: ``blocks`` are (first, end, model that hasn't seen these starts)."""

    series: TrainingSeries
    market: Market
    inputs: Floats32
    known: int
    look: Lookahead
    usual_others: Floats
    blocks: list[tuple[int, int, ValueModel]]


class _Sight(NamedTuple):
    """What all starts of a region show at an information level, whatever the plan weighs."""

    inputs: Floats32
    prices: Floats
    minutes: Integers
    levels: Floats
    horizons: int
    market: Market
    outputs: Floats
    planned: tuple[Floats, Floats]

    def observed(self, share: float) -> Observed:
        """With the plan weighing ``share``."""
        return observe_inputs(*self, share)


def _look_at(region: _Region, level: int, window: TrainingWindow, battery: Battery) -> _Sight:
    """A region at an information level, each start by the model that hasn't seen it."""
    s, market, look, dispatch = region.series, region.market, region.look, window.dispatch_minutes
    count = len(window.horizons)
    held, minutes = s.seen[s.starts], s.minutes[s.starts]
    usual = usual_path(look.usual, minutes, dispatch, int(look.lengths.sum()))
    usual[: region.known] = region.usual_others
    masked = _masked(region.inputs, level, count)
    ahead = s.ahead if level & FORECASTS else np.full_like(s.ahead, np.nan)
    planned = plans_of(look, held, usual, ahead, dispatch, market, battery.physics, 0, bool(level & HISTORY))
    outputs = [
        predict_values(model, masked[a:b], market.typical) for a, b, model in region.blocks if a < min(b, len(held))
    ]
    levels = price_levels(held, 1440 // dispatch, market, 0)
    return _Sight(masked, held, minutes, levels, count, market, np.concatenate(outputs), planned)


def _best_share(
    regions: Sequence[_Region],
    sights: Sequence[_Sight],
    window: TrainingWindow,
    config: RLBatteryConfig,
    battery: Battery,
    *,
    with_validation: bool,
) -> float:
    """The plan's weight that earns most on the rows learned from, each seen by models that haven't seen it.

    Regions weigh the same. Prices count up to the cap of learning, so that one spike doesn't decide.
    """
    usable, nodes, delay = battery.high_mwh - battery.low_mwh, config.charge_level_bins + 1, config.execution_delay
    profits = np.zeros((len(regions), len(PLAN_SHARES)))
    for row, (r, sight) in enumerate(zip(regions, sights, strict=True)):
        s = r.series
        n = len(s.prices) if with_validation else s.train
        prices = np.clip(s.prices[:n], -PRICE_CAP * r.market.typical, PRICE_CAP * r.market.typical)
        place = s.place[np.maximum(np.arange(n) - delay, 0)]
        for column, share in enumerate(PLAN_SHARES):
            seen = sight.observed(share)
            met = seen.expected[place] if delay else s.seen[:n]
            _, cash, end = follow(
                battery.physics,
                battery.initial_mwh,
                window.interval_minutes / 60.0,
                met,
                prices,
                base_values(seen.slopes, usable, nodes)[place],
                np.zeros(n),
                np.zeros(n, np.int64),
                np.zeros((1, nodes)),
                s.days[:n],
            )
            profits[row, column] = cash + r.market.flat_value * (end - battery.initial_mwh)
    score = (profits / np.maximum(profits.max(axis=1, keepdims=True), 1e-9)).mean(axis=0)
    return PLAN_SHARES[int(score.argmax())] if score.max() > score[0] + PLAN_MARGIN else 0.0


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
        # Nothing is learned from an interval without a price, nor about the one before it.
        linked = np.isfinite(paid)
        linked[:-1] &= linked[1:].copy()
        linked[-1] = False
        for level in f.observed.values():
            o = level.rows(slice(0, f.known - delay))
            state = table_rows(o.information, o.minutes, o.signals[signal], space.edges, space.time_bins)
            base = base_values(o.slopes, usable, nodes)
            parts.append(Experience(np.clip(o.expected, -cap, cap), paid, base, o.level * usable, state, linked))
    experience = Experience(*[np.concatenate(column) for column in zip(*parts, strict=True)])
    table, visits = np.zeros((space.rows, nodes)), np.zeros(space.rows)
    met = np.bincount(experience.state, minlength=space.rows)
    trust = met / (met + PRIOR_INTERVALS) if design.learned_base else np.ones(space.rows)
    agents = [_agent(f, design, space, table, window, battery, delay) for f in fitted]
    rng = np.random.default_rng(config.random_state)
    moves = possible_moves(battery.physics, window.hours, nodes)
    discount, trace, epsilon = design.discount**window.hours, TRACE_PER_HOUR**window.hours, config.epsilon
    curve: list[dict[str, Any]] = []
    converged, done = False, 0
    while done < passes and not converged:
        done += 1
        before = table.copy()
        if config.update == "counterfactual":
            sweep(table, visits, moves, experience, discount, trace, trust, config.learning_rate, RATE_POWER)
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
    return LearnedTable(agents, pd.DataFrame(curve, columns=["step", "value", "region"]), converged, done, updates)


def validation_profit(agent: BatteryAgent, fitted: Fitted) -> float:
    """Profit over the rows after train: cash plus the change of what is stored, at the mean training price."""
    s, battery, n = fitted.series, agent.battery, fitted.series.train
    observed = _flat(fitted).observed if not agent.design.learned_base else fitted.observed
    from_row = max(0, n - agent.delay)
    seen = observed[max(observed)].rows(s.place[from_row:])
    if not agent.delay:
        seen = seen._replace(expected=s.seen[from_row:])
    _, cash, end = agent.requests(seen, s.prices[n:], battery, battery.initial_mwh, s.days[n:], delay=agent.delay)
    return float(cash + (end - battery.initial_mwh) * end_value(s.prices[:n], battery))


def _with_gaps(inputs: Floats32, horizons: int, rng: np.random.Generator) -> Floats32:
    """Copies of input rows with forecasts, history or both missing, so that the model learns to do without.

    Beyond that they keep it from leaning on any one input: without them it earned four points less.
    """
    copies = inputs.copy()
    kind = rng.integers(0, 3, len(inputs)) if horizons else np.full(len(inputs), 1)
    copies[kind != 1, FIRST_FORECAST : FIRST_FORECAST + horizons] = np.nan
    copies[kind != 0, FIRST_FORECAST + horizons :] = np.nan
    return copies


def _masked(inputs: Floats32, level: int, horizons: int) -> Floats32:
    """The inputs as they are at an information level."""
    out = inputs.copy()
    if not level & FORECASTS:
        out[:, FIRST_FORECAST : FIRST_FORECAST + horizons] = np.nan
    if not level & HISTORY:
        out[:, FIRST_FORECAST + horizons :] = np.nan
    return out


def _flat(fitted: Fitted) -> Fitted:
    """The same without a learned base: a MWh is worth the mean price."""
    prices = fitted.series.seen[fitted.series.starts]
    observed = {
        level: o._replace(slopes=np.full((len(o.slopes), 1), fitted.market.flat_value), expected=prices)
        for level, o in fitted.observed.items()
    }
    return Fitted(fitted.series, fitted.market, observed, NO_MODEL, fitted.look, fitted.known)


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
        look=fitted.look,
        market=fitted.market,
        battery=battery,
        horizons=window.horizons,
        interval_minutes=window.interval_minutes,
        dispatch_minutes=window.dispatch_minutes,
        delay=delay,
        typical_slopes=slopes,
        typical_signal=middle,
    )
