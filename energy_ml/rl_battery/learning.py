"""Q-learning itself: the compiled updates of the table, and the greedy decision that reads it.

What belongs here: updates and decisions on plain arrays. What doesn't: what the state is (``state_space``), where
planned values come from (``lookahead``), physics (``battery.step`` is called, never repeated).

The action value is split at the state after the action, since a battery doesn't move prices (after-states: Sutton and
Barto, Reinforcement Learning, 2nd ed., section 6.8; Powell, Approximate Dynamic Programming, section 4.6):

    Q(t, s, a) = cash(price_t, a) + W_t(s'),    dW_t/ds in slice j = planned_t[j] + scale_t * table[x_t, gap_t[j], j]

The table learns by slices of the charge range, as what a MWh more is worth (separable approximations of a value
function: Powell, chapter 13). Rewards are cash plus the change of what the plan says the stored energy is worth, so
that a discount weighs later corrections of the plan less, and energy doesn't lose its worth by being kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from energy_ml.arrays import Booleans, Floats, Integers
from energy_ml.kernels import kernel, part
from energy_ml.rl_battery.battery import Physics, step
from energy_ml.rl_battery.state_space import Places

_TINY = 1e-9
_RATE_POWER = 0.7


class Moves(NamedTuple):
    """Where full power, or stopping at a node on the way, leads from each of K charge nodes, for up to M moves each.

    ``number`` (K,) of moves per node; the rest is (M, K), filled up with holding, which is move 0: ``lower`` node below
    the charge reached, ``share`` of the way to the next one, ``fixed`` and ``per_price``: cash = fixed + per_price x
    price.
    """

    number: Integers
    lower: Integers
    share: Floats
    fixed: Floats
    per_price: Floats


class Experience(NamedTuple):
    """What happened in N intervals, as learning needs it.

    ``expected`` and ``paid`` (N,): the price that the decision sees, and the interval's (they differ under a delay).
    ``planned`` (N, slices): planned value of a MWh held after the interval, currency/MWh. ``scale`` (N,): currency/MWh
    of a unit of the table. ``places``: rows of the table. ``linked`` (N,): whether the next row is the next interval
    (False at the end of a region).
    """

    expected: Floats
    paid: Floats
    planned: Floats
    scale: Floats
    places: Places
    linked: Booleans


class Part(NamedTuple):
    """A table in the making (information, time, gap, slices), changed in place.

    ``visits``: updates so far, parts of one between two bins. ``trust``: part of a correction that is believed, 0 to 1.
    """

    values: Floats
    visits: Floats
    trust: Floats


class Learner(NamedTuple):
    """A table in two parts that are added up: one for all day (its time axis is 1 long), and what a time of day differs
    by, which sees less and is believed less."""

    day: Part
    hours: Part


class Schedule(NamedTuple):
    """How fast is learned and how far ahead: ``learning_rate`` of the first update, which falls as visits ** -0.7;
    ``discount`` and ``trace`` per interval. ``trace`` (lambda) weighs what was earned against what was expected."""

    learning_rate: float
    discount: float
    trace: float


@kernel
def _position(charge: float, low: float, width: float, nodes: int) -> tuple[int, float]:
    place = (charge - low) / width
    lower = min(max(int(place), 0), nodes - 2)
    return lower, place - lower


def possible_moves(physics: Physics, hours: float, nodes: int) -> Moves:
    """All moves from each of ``nodes`` evenly spaced charges."""
    width = (physics.high - physics.low) / (nodes - 1)
    number = np.zeros(nodes, np.int64)
    shape = (nodes + 2, nodes)
    lower = np.zeros(shape, np.int64)
    share, fixed, per_price = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for k in range(nodes):
        charge = physics.low + k * width
        lower[:, k], share[:, k] = _position(charge, physics.low, width, nodes)
        number[k] = 1
        # Every node as a stop, then full power both ways.
        for goal in range(nodes + 2):
            power = physics.power_in if goal == nodes else -physics.power_out
            if goal < nodes:
                change = (goal - k) * width
                power = change / (hours * physics.charge_eff) if change > 0 else change * physics.discharge_eff / hours
                if power >= physics.power_in or power <= -physics.power_out:
                    continue
            after, _, free, _ = step(physics, charge, power, hours, 0.0, np.inf)
            _, _, priced, _ = step(physics, charge, power, hours, 1.0, np.inf)
            if after == charge:
                continue
            n = number[k]
            lower[n, k], share[n, k] = _position(after, physics.low, width, nodes)
            fixed[n, k], per_price[n, k] = free, priced - free
            number[k] += 1
    most = number.max()
    return Moves(number, lower[:most], share[:most], fixed[:most], per_price[:most])


@kernel
def count_places(places: Places, shape: tuple[int, int, int, int]) -> Floats:
    """How often each entry of a table of that shape was met; between two bins an interval counts for both in parts."""
    met = np.zeros(shape)
    for t in range(len(places.time)):
        row = met[places.information[t], places.time[t]]
        for j in range(shape[3]):
            i, share = places.lower[t, j], places.share[t, j]
            row[i, j] += 1.0 - share
            if share > 0.0:
                row[i + 1, j] += share
    return met


@part
def _entry(learner: Learner, places: Places, t: int, j: int) -> float:
    """What the table says of slice j of interval t so far."""
    information, i, share = places.information[t], places.lower[t, j], places.share[t, j]
    day, hours = learner.day.values[information, 0], learner.hours.values[information, places.time[t]]
    value = day[i, j] + hours[i, j]
    return float(value + share * (day[i + 1, j] + hours[i + 1, j] - value) if share > 0.0 else value)


@part
def _move(part: Part, at: tuple[int, int, int, int], weight: float, target: float, first_rate: float) -> float:
    """Move an entry towards the trusted part of ``target``, counting as ``weight`` updates; returns its new value."""
    visits, value = part.visits[at], part.values[at]
    value += weight * (1.0 / first_rate + visits) ** -_RATE_POWER * (part.trust[at] * target - value)
    part.visits[at], part.values[at] = visits + weight, value
    return float(value)


@part
def _update(learner: Learner, places: Places, t: int, j: int, target: float, first_rate: float) -> None:
    """Move the entries of slice j of interval t towards ``target``."""
    information, lower, share = places.information[t], places.lower[t, j], places.share[t, j]
    for i, weight in ((lower, 1.0 - share), (lower + 1, share)):
        if weight > 0.0:
            of_day = _move(learner.day, (information, 0, i, j), weight, target, first_rate)
            _move(learner.hours, (information, places.time[t], i, j), weight, target - of_day, first_rate)


@kernel
def sweep(learner: Learner, moves: Moves, experience: Experience, schedule: Schedule, width: float) -> None:
    """One pass of counterfactual Q-learning over N intervals, newest first; changes ``learner``.

    The price doesn't depend on what the battery does, so each observed transition updates every slice of the charge
    (``width`` MWh) and weighs every action, with the same noise for all: advantages of a few cents stay visible under
    price noise of hundreds.

    What a charge is worth is learned from what the greedy policy went on to earn with it, as in Q(lambda) (Sutton and
    Barto, 2nd ed., chapter 12). The best of several values that are partly noise is too high (Lee and Powell, AAAI
    2012), and one step at a time that error would be learned, handed on and grow.
    """
    expected, paid, planned, scale, places, linked = experience
    _, lower, share, fixed, per_price = moves
    slices = planned.shape[1]
    nodes = slices + 1
    # Of each node: the plan's value, what the table adds, what was earned beyond the plan; values relative to empty.
    plan, row, gained = np.zeros(nodes), np.zeros(nodes), np.zeros(nodes)
    went, best, earned = np.empty(nodes), np.empty(nodes), np.empty(nodes)
    for t in range(len(paid) - 1, -1, -1):
        if not linked[t]:
            for j in range(slices):
                gained[j + 1] = gained[j] + width * scale[t] * _entry(learner, places, t, j)
            continue
        for j in range(slices):
            plan[j + 1] = plan[j] + width * planned[t + 1, j]
            row[j + 1] = row[j] + width * (planned[t + 1, j] + scale[t + 1] * _entry(learner, places, t + 1, j))
        for k in range(nodes):
            added = row[k] - plan[k]
            went[k] = plan[k] + schedule.discount * (added + schedule.trace * (gained[k] - added))
            best[k], earned[k] = row[k], went[k]
        # The decision is made on the price that is seen; what is earned follows the one that is paid.
        sees, pays = expected[t + 1], paid[t + 1]
        for m in range(1, lower.shape[0]):
            for k in range(nodes):
                i = lower[m, k]
                worth = row[i] + share[m, k] * (row[i + 1] - row[i]) + fixed[m, k] + per_price[m, k] * sees
                if worth > best[k]:
                    best[k] = worth
                    earned[k] = went[i] + share[m, k] * (went[i + 1] - went[i]) + fixed[m, k] + per_price[m, k] * pays
        here = 0.0
        for k in range(nodes):
            gained[k] = earned[k] - earned[0] - here
            if k < slices:
                here += width * planned[t, k]
        for j in range(slices):
            target = (gained[j + 1] - gained[j]) / (width * scale[t])
            _update(learner, places, t, j, target, schedule.learning_rate)


@kernel
def decide(
    physics: Physics, charge: float, hours: float, price: float, row: Floats, allowance: float
) -> tuple[float, float, float, float]:
    """The greedy action at ``price`` (currency/MWh) with the after-state values ``row`` (K,), currency.

    Considered are full power both ways and stopping at each node on the way; with a piecewise-linear value one of them
    is the best. A charge outside the limits is valued on the line of the nearest slice. Returns (power MW, best value
    of charging, of holding, of discharging); impossible ones are -inf.
    """
    nodes = len(row)
    width = (physics.high - physics.low) / (nodes - 1)
    values, powers = np.empty(3), np.zeros(3)
    values[0] = values[2] = -np.inf
    i, part = _position(charge, physics.low, width, nodes)
    values[1] = row[i] + part * (row[i + 1] - row[i])
    for way in range(2):
        a = 2 * way
        full = physics.power_in if way == 0 else -physics.power_out
        end, energy, cash, _ = step(physics, charge, full, hours, price, allowance)
        if energy == 0.0:
            continue
        i, part = _position(end, physics.low, width, nodes)
        values[a] = cash + row[i] + part * (row[i + 1] - row[i])
        powers[a] = full
        low, high = (charge, end) if way == 0 else (end, charge)
        k = max(0, int((low - physics.low) / width))
        while k < nodes and physics.low + k * width < high - _TINY:
            node = physics.low + k * width
            if node > low + _TINY:
                if way == 0:
                    power = (node - charge) / (hours * physics.charge_eff)
                else:
                    power = (node - charge) * physics.discharge_eff / hours
                _, _, cash, _ = step(physics, charge, power, hours, price, allowance)
                if cash + row[k] > values[a]:
                    values[a], powers[a] = cash + row[k], power
            k += 1
    best = 1
    for a in (0, 2):
        if values[a] > values[best] + _TINY:
            best = a
    return powers[best], values[0], values[1], values[2]


@part
def _worth(physics: Physics, charge: float, hours: float, sees: float, pays: float, row: Floats) -> float:
    """What the greedy action at price ``sees`` makes of a charge at price ``pays``: cash and after-state value."""
    power, _, _, _ = decide(physics, charge, hours, sees, row, np.inf)
    after, _, cash, _ = step(physics, charge, power, hours, pays, np.inf)
    i, part = _position(after, physics.low, (physics.high - physics.low) / (len(row) - 1), len(row))
    return float(cash + row[i] + part * (row[i + 1] - row[i]))


@kernel
def sampled_episode(
    learner: Learner,
    physics: Physics,
    hours: float,
    experience: Experience,
    schedule: Schedule,
    start: float,
    epsilon: float,
    max_steps: int,
    rng: np.random.Generator,
) -> float:
    """One episode of textbook Q-learning (``update="sampled"``): walk with an epsilon-greedy policy and learn from the
    one transition of each step. Returns the cash of the walk.

    The slice that an action led to learns what the best actions in the next interval make of its two ends. The episode
    starts at a random interval and lasts until the data or ``max_steps`` end. Arguments as in ``sweep``.
    """
    expected, paid, planned, scale, places, linked = experience
    n, slices = planned.shape
    width = (physics.high - physics.low) / slices
    row, after = np.zeros(slices + 1), np.zeros(slices + 1)
    t = rng.integers(0, n - 1) if n - 1 > max_steps else 0
    charge, total, steps = start, 0.0, 0
    while t < n and steps < max_steps:
        for j in range(slices):
            row[j + 1] = row[j] + width * (planned[t, j] + scale[t] * _entry(learner, places, t, j))
        if rng.random() < epsilon:
            power = (-physics.power_out, 0.0, physics.power_in)[rng.integers(0, 3)]
        else:
            power, _, _, _ = decide(physics, charge, hours, expected[t], row, np.inf)
        charge, _, cash, _ = step(physics, charge, power, hours, paid[t], np.inf)
        total += cash
        if linked[t]:
            u = t + 1
            for j in range(slices):
                # Later corrections of the plan count less by the discount, as in ``sweep``.
                added = schedule.discount * scale[u] * _entry(learner, places, u, j)
                after[j + 1] = after[j] + width * (planned[u, j] + added)
            j, _ = _position(charge, physics.low, width, slices + 1)
            low, high = physics.low + j * width, physics.low + (j + 1) * width
            rise = _worth(physics, high, hours, expected[u], paid[u], after)
            rise -= _worth(physics, low, hours, expected[u], paid[u], after)
            target = (rise - width * planned[t, j]) / (width * scale[t])
            _update(learner, places, t, j, target, schedule.learning_rate)
        t += 1
        steps += 1
    return total


@kernel
def follow(
    physics: Physics, start: float, hours: float, expected: Floats, paid: Floats, rows: Floats, days: Integers
) -> tuple[Floats, float, float]:
    """Follow the greedy policy over N intervals with after-state values ``rows`` (N, K), currency.

    Returns (requests (N,) MW, cash in all, charge at the end MWh). ``expected`` NaN means that nothing is known yet
    (the first intervals under a delay): hold.
    """
    requests = np.zeros(len(paid))
    charge, total = start, 0.0
    allowance = physics.daily_discharge
    for t in range(len(paid)):
        if t > 0 and days[t] != days[t - 1]:
            allowance = physics.daily_discharge
        if np.isnan(expected[t]):
            continue
        requests[t], _, _, _ = decide(physics, charge, hours, expected[t], rows[t], allowance)
        charge, _, cash, allowance = step(physics, charge, requests[t], hours, paid[t], allowance)
        total += cash
    return requests, total, charge
