"""Q-learning itself: the compiled updates of the table, and the greedy decision that reads it.

What belongs here: updates and decisions on plain arrays. What doesn't: what the state is (``state_space``), where the
value forecast comes from (``value_model``), physics (``battery.step`` is called, never repeated).

The action value is split at the state after the action, since a battery doesn't move prices (after-states: Sutton and
Barto, Reinforcement Learning, 2nd ed., section 6.8; Powell, Approximate Dynamic Programming, section 4.6):

    Q(t, s, a) = cash(price_t, a) + W_t(s'),      W_t(s') = base_t(s') + scale_t * table[x_t, s']

``base`` is a forecast of the value of stored energy (zero table = trust it), ``x`` the discrete state and ``scale`` the
price level of the last day, so that what is learned at one level holds at another. Between charge nodes W is linear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from energy_ml.arrays import Booleans, Floats, Integers
from energy_ml.rl_battery.battery import Physics, step

TINY = 1e-9


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

    ``seen`` and ``paid`` (N,): the price that the decision sees, and the interval's (they differ under a delay).
    ``base`` (N, K): forecast value of the charge held after the interval, currency. ``scale`` (N,): price level x
    usable MWh. ``state`` (N,): row of the table. ``linked`` (N,): whether the next row is the next interval (False at
    the end of a region).
    """

    seen: Floats
    paid: Floats
    base: Floats
    scale: Floats
    state: Integers
    linked: Booleans


@njit(cache=True)
def _position(charge: float, low: float, width: float, nodes: int) -> tuple[int, float]:
    place = (charge - low) / width
    lower = min(max(int(place), 0), nodes - 2)
    return lower, place - lower


@njit(cache=True)
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
            power = physics.power if goal == nodes else -physics.power
            if goal < nodes:
                change = (goal - k) * width
                power = change / (hours * physics.charge_eff) if change > 0 else change * physics.discharge_eff / hours
                if abs(power) >= physics.power:
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
    return Moves(number, lower[:most].copy(), share[:most].copy(), fixed[:most].copy(), per_price[:most].copy())


@njit(cache=True, nogil=True)
def sweep(
    table: Floats,
    visits: Floats,
    moves: Moves,
    experience: Experience,
    discount: float,
    trace: float,
    trust: Floats,
    first_rate: float,
    rate_power: float,
) -> None:
    """One pass of counterfactual Q-learning over N intervals, newest first; changes ``table`` and ``visits``.

    The price doesn't depend on what the battery does, so each observed transition updates every charge node and weighs
    every action, with the same noise for all: advantages of a few cents stay visible under price noise of hundreds.

    What a charge is worth is learned from what the greedy policy went on to earn with it, as in Q(lambda) (Sutton and
    Barto, 2nd ed., chapter 12). The best of several values that are partly noise is too high (Lee and Powell, AAAI
    2012), and one step at a time that error would be learned, handed on and grow.

    Parameters
    ----------
    table : (X, K) what Q-learning adds to the base, in units of ``scale``. Values are relative to the empty
        battery (column 0 stays 0): only differences between charges matter to a decision.
    visits : (X,) updates so far; the learning rate is (1 / first_rate + visits) ** -rate_power.
    experience : N intervals.
    discount : per interval.
    trace : weight, per interval, of what was earned against what the next interval's value expects: lambda.
    trust : (X,) part of the correction that is believed, 0 to 1.
    """
    seen, paid, base, scale, state, linked = experience
    _, lower, share, fixed, per_price = moves
    nodes = table.shape[1]
    row, went, best, earned = np.empty(nodes), np.empty(nodes), np.empty(nodes), np.empty(nodes)
    for t in range(len(paid) - 1, -1, -1):
        if not linked[t]:
            for k in range(nodes):
                earned[k] = base[t, k] + scale[t] * table[state[t], k]
            continue
        ahead, level = state[t + 1], scale[t + 1]
        for k in range(nodes):
            row[k] = base[t + 1, k] + level * table[ahead, k]
            went[k] = row[k] + trace * (earned[k] - row[k])
            best[k] = row[k]
        for k in range(nodes):
            earned[k] = went[k]
        # The decision is made on the price that is seen; what is earned follows the one that is paid.
        sees, pays = seen[t + 1], paid[t + 1]
        for j in range(1, lower.shape[0]):
            for k in range(nodes):
                i = lower[j, k]
                worth = row[i] + share[j, k] * (row[i + 1] - row[i]) + fixed[j, k] + per_price[j, k] * sees
                if worth > best[k]:
                    best[k] = worth
                    earned[k] = went[i] + share[j, k] * (went[i + 1] - went[i]) + fixed[j, k] + per_price[j, k] * pays
        x = state[t]
        rate = (1.0 / first_rate + visits[x]) ** -rate_power
        visits[x] += 1.0
        level, empty = trust[x] / scale[t], earned[0]
        earned[0] = 0.0
        for k in range(1, nodes):
            earned[k] = discount * (earned[k] - empty)
            table[x, k] += rate * ((earned[k] - base[t, k]) * level - table[x, k])


@njit(cache=True)
def decide(
    physics: Physics, charge: float, hours: float, price: float, row: Floats, allowance: float
) -> tuple[float, float, float, float]:
    """The greedy action at ``price`` (currency/MWh) with the after-state values ``row`` (K,), currency.

    Considered are full power both ways and stopping at each node on the way; with a piecewise-linear value one of them
    is the best. Returns (power MW, best value of charging, of holding, of discharging); impossible ones are -inf.
    """
    nodes = len(row)
    width = (physics.high - physics.low) / (nodes - 1)
    values = np.full(3, -np.inf)
    powers = np.zeros(3)
    i, part = _position(min(max(charge, physics.low), physics.high), physics.low, width, nodes)
    values[1] = row[i] + part * (row[i + 1] - row[i])
    for way in range(2):
        a = 2 * way
        full = physics.power if way == 0 else -physics.power
        end, energy, cash, _ = step(physics, charge, full, hours, price, allowance)
        if energy == 0.0:
            continue
        i, part = _position(end, physics.low, width, nodes)
        values[a] = cash + row[i] + part * (row[i + 1] - row[i])
        powers[a] = full
        low, high = (charge, end) if way == 0 else (end, charge)
        k = max(0, int((low - physics.low) / width))
        while k < nodes and physics.low + k * width < high - TINY:
            node = physics.low + k * width
            if node > low + TINY:
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
        if values[a] > values[best] + TINY:
            best = a
    return powers[best], values[0], values[1], values[2]


@njit(cache=True, nogil=True)
def follow(
    physics: Physics,
    start: float,
    hours: float,
    seen: Floats,
    paid: Floats,
    base: Floats,
    scale: Floats,
    state: Integers,
    table: Floats,
    days: Integers,
) -> tuple[Floats, float, float]:
    """Follow the greedy policy over N intervals. Returns (requests (N,) MW, cash in all, charge at the end MWh).

    ``seen`` NaN means that nothing is known yet (the first intervals under a delay): hold.
    """
    n, nodes = len(paid), table.shape[1]
    requests, row = np.zeros(n), np.empty(nodes)
    charge, total = start, 0.0
    allowance = physics.daily_discharge
    for t in range(n):
        if t > 0 and days[t] != days[t - 1]:
            allowance = physics.daily_discharge
        if np.isnan(seen[t]):
            continue
        for k in range(nodes):
            row[k] = base[t, k] + scale[t] * table[state[t], k]
        requests[t], _, _, _ = decide(physics, charge, hours, seen[t], row, allowance)
        charge, _, cash, allowance = step(physics, charge, requests[t], hours, paid[t], allowance)
        total += cash
    return requests, total, charge


@njit(cache=True)
def sampled_episode(
    table: Floats,
    physics: Physics,
    hours: float,
    experience: Experience,
    start: float,
    discount: float,
    learning_rate: float,
    epsilon: float,
    max_steps: int,
    rng: np.random.Generator,
) -> float:
    """One episode of textbook Q-learning: walk with an epsilon-greedy policy, update the one transition of each step.

    Kept for comparison (``update="sampled"``). The episode starts at a random linked interval and lasts until the data
    or ``max_steps`` end. Arguments as in ``sweep``. Returns the cash of the walk.
    """
    seen, paid, base, scale, state, linked = experience
    nodes = table.shape[1]
    width = (physics.high - physics.low) / (nodes - 1)
    row = np.empty(nodes)
    n = len(paid)
    t = rng.integers(0, n - 1) if n - 1 > max_steps else 0
    charge, total, steps = start, 0.0, 0
    here, share, x, level, before = 0, 0.0, -1, 1.0, 0.0
    while t < n and steps < max_steps:
        for k in range(nodes):
            row[k] = base[t, k] + scale[t] * table[state[t], k]
        power, up, stay, down = decide(physics, charge, hours, seen[t], row, np.inf)
        if x >= 0:
            # The previous after-state learns from the best action here (relative to the empty battery's value).
            value = discount * max(up, stay, down)
            _, up, stay, down = decide(physics, physics.low, hours, seen[t], row, np.inf)
            value -= discount * max(up, stay, down)
            now = (1.0 - share) * table[x, here] + share * table[x, here + 1]
            change = learning_rate * ((value - before) / level - now)
            if here > 0:
                table[x, here] += (1.0 - share) * change
            table[x, here + 1] += share * change
        if rng.random() < epsilon:
            power = physics.power * (rng.integers(0, 3) - 1)
        charge, _, cash, _ = step(physics, charge, power, hours, paid[t], np.inf)
        total += cash
        here, share = _position(charge, physics.low, width, nodes)
        x, level = state[t], scale[t]
        before = base[t, here] + share * (base[t, here + 1] - base[t, here])
        if not linked[t]:
            x = -1
        t += 1
        steps += 1
    return total
