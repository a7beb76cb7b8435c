"""The compiled Q-learning against plain Python, and against problems whose best policy is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.rl_battery.battery import Battery, step
from energy_ml.rl_battery.learning import (
    Experience,
    Learner,
    Part,
    Schedule,
    decide,
    follow,
    possible_moves,
    sampled_episode,
    sweep,
)
from energy_ml.rl_battery.state_space import Places, Seen, find_places, stored_values

HOURS = 0.5
SLICES = 4
NODES = SLICES + 1


def places_of(rng, n, bins, times, slices=SLICES):
    lower = rng.integers(0, bins, (n, slices))
    share = np.where(lower < bins - 1, rng.choice([0.0, 0.3, 0.8], (n, slices)), 0.0)
    return Places(rng.integers(0, 4, n), rng.integers(0, times, n), lower, share)


def make_experience(rng, n=40, bins=3, times=2):
    prices = rng.normal(50, 60, n)
    linked = np.ones(n, dtype=bool)
    linked[[n // 2, n - 1]] = False
    planned = rng.normal(50, 20, (n, SLICES))
    places = places_of(rng, n, bins, times)
    return Experience(prices + rng.normal(0, 1, n), prices, planned, rng.uniform(20, 60, n), places, linked)


def empty(bins, times, slices=SLICES, trust=None):
    day, hours = (4, 1, bins, slices), (4, times, bins, slices)
    ones = (np.ones(day), np.ones(hours)) if trust is None else trust
    return Learner(*(Part(np.zeros_like(t), np.zeros_like(t), t) for t in ones))


def python_sweep(learner, battery, e, schedule, power=0.7):
    """The update rule in the plainest words: every move by ``step``, values by ``np.interp``."""
    physics = battery.physics
    charges = np.linspace(physics.low, physics.high, NODES)
    width = charges[1] - charges[0]

    def cells(t, j):
        i, share = e.places.lower[t, j], e.places.share[t, j]
        return [(i, 1 - share)] + ([(i + 1, share)] if share > 0 else [])

    def added(t):
        level, time = e.places.information[t], e.places.time[t]
        entries = [
            sum(
                w * (learner.day.values[level, 0, i, j] + learner.hours.values[level, time, i, j])
                for i, w in cells(t, j)
            )
            for j in range(SLICES)
        ]
        return np.concatenate([[0.0], np.cumsum(width * e.scale[t] * np.array(entries))])

    for t in range(len(e.paid) - 1, -1, -1):
        if not e.linked[t]:
            gained = added(t)
            continue
        plan = np.concatenate([[0.0], np.cumsum(width * e.planned[t + 1])])
        row = plan + added(t + 1)
        went = plan + schedule.discount * ((1 - schedule.trace) * added(t + 1) + schedule.trace * gained)
        earned = np.empty(NODES)
        for k, charge in enumerate(charges):
            powers = [0.0, physics.power_in, -physics.power_out]
            for goal in charges:
                change = goal - charge
                wanted = change / HOURS / physics.charge_eff if change > 0 else change / HOURS * physics.discharge_eff
                if -physics.power_out < wanted < physics.power_in and goal != charge:
                    powers.append(wanted)
            best = -np.inf
            for wanted in powers:
                after, _, cash, _ = step(physics, charge, wanted, HOURS, e.expected[t + 1], np.inf)
                worth = cash + np.interp(after, charges, row)
                if worth > best + 1e-12:
                    _, _, paid, _ = step(physics, charge, wanted, HOURS, e.paid[t + 1], np.inf)
                    best, earned[k] = worth, paid + np.interp(after, charges, went)
        gained = earned - earned[0] - np.concatenate([[0.0], np.cumsum(width * e.planned[t])])
        for j in range(SLICES):
            target = (gained[j + 1] - gained[j]) / width / e.scale[t]
            level, time = e.places.information[t], e.places.time[t]
            for i, weight in cells(t, j):
                visits = learner.day.visits[level, 0, i, j]
                old = learner.day.values[level, 0, i, j]
                rate = weight * (1 / schedule.learning_rate + visits) ** -power
                new = old + rate * (learner.day.trust[level, 0, i, j] * target - old)
                learner.day.values[level, 0, i, j] = new
                learner.day.visits[level, 0, i, j] += weight
                visits = learner.hours.visits[level, time, i, j]
                old = learner.hours.values[level, time, i, j]
                rate = weight * (1 / schedule.learning_rate + visits) ** -power
                learner.hours.values[level, time, i, j] += rate * (
                    learner.hours.trust[level, time, i, j] * (target - new) - old
                )
                learner.hours.visits[level, time, i, j] += weight


@pytest.mark.parametrize("seed", range(4))
def test_sweep_equals_plain_python(seed):
    rng = np.random.default_rng(seed)
    battery = Battery(
        wear_cost_per_mwh=3.0,
        buy_fee_per_mwh=1.0,
        sell_fee_per_mwh=2.0,
        power_mw=0.3 + 0.3 * seed,
        discharge_power_mw=0.8,
    )
    e = make_experience(rng)
    trust = rng.uniform(0, 1, (4, 1, 3, SLICES)), rng.uniform(0, 1, (4, 2, 3, SLICES))
    fast, slow = empty(3, 2, trust=trust), empty(3, 2, trust=trust)
    moves = possible_moves(battery.physics, HOURS, NODES)
    schedule = Schedule(0.2, 0.97, 0.3 * seed)
    for _ in range(3):
        sweep(fast, moves, e, schedule, (battery.high_mwh - battery.low_mwh) / SLICES)
        python_sweep(slow, battery, e, schedule)
    for ours, theirs in zip((*fast.day, *fast.hours), (*slow.day, *slow.hours), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert (fast.day.values != 0).any() and (fast.hours.values != 0).any()


@settings(max_examples=60)
@given(
    st.floats(0.0, 1.0),
    st.floats(-500, 2000),
    st.lists(st.floats(-100, 300), min_size=4, max_size=12),
    st.floats(0.05, 3.0),
    st.floats(0.0, 2.0),
    st.sampled_from([1 / 60, 1 / 12, 0.5, 1.0]),
)
def test_decide_is_the_best_of_many_powers(share, price, slopes, power, allowance, hours):
    battery = Battery(power_mw=power, wear_cost_per_mwh=2.0, sell_fee_per_mwh=1.0)
    physics = battery.physics
    row = np.concatenate([[0.0], np.cumsum(slopes)]) / len(slopes)
    charges = np.linspace(physics.low, physics.high, len(row))
    charge = physics.low + share * (physics.high - physics.low)
    chosen, up, hold, down = decide(physics, charge, hours, price, row, allowance)

    def worth(wanted):
        after, _, cash, _ = step(physics, charge, wanted, hours, price, allowance)
        return cash + np.interp(after, charges, row)

    best = max(worth(p) for p in np.concatenate([[0.0, power, -power], np.linspace(-power, power, 101)]))
    assert worth(chosen) >= best - 1e-6
    assert abs(max(up, hold, down) - worth(chosen)) < 1e-6
    assert abs(chosen) <= power + 1e-12
    after = step(physics, charge, chosen, hours, price, allowance)[0]
    assert physics.low - 1e-12 <= after <= physics.high + 1e-12


def learn(prices, hour, slices=5, passes=60, sampled=False):
    """Learn from a plan that says nothing: every MWh is worth the mean price. ``hour`` (N,) is the state."""
    battery, n = Battery(), len(prices)
    linked = np.ones(n, dtype=bool)
    linked[-1] = False
    planned = np.full((n, slices), prices.mean())
    minutes = np.asarray(hour, dtype=np.int64) * 60
    seen = Seen(prices, prices, planned, np.ones(n), np.zeros(n, dtype=np.int64), minutes)
    places = find_places(seen, np.zeros((4, 1)), 24)
    e = Experience(prices, prices, planned, np.ones(n), places, linked)
    learner, schedule = empty(1, 24, slices), Schedule(0.5, 0.999, 0.5)
    moves = possible_moves(battery.physics, 1.0, slices + 1)
    width, rng = (battery.high_mwh - battery.low_mwh) / slices, np.random.default_rng(0)
    for episode in range(passes):
        if sampled:
            sampled_episode(learner, battery.physics, 1.0, e, schedule, 0.5, max(0.05, 0.99**episode), 500, rng)
        else:
            sweep(learner, moves, e, schedule, width)
    values = learner.day.values + learner.hours.values
    rows = stored_values(seen, values, places, np.ones(n), width)
    requests, cash, end = follow(battery.physics, 0.5, 1.0, prices, prices, rows, np.zeros(n, dtype=np.int64))
    return prices.mean() + values[0, :, 0], requests, cash, end


def test_alternating_prices_are_bought_low_and_sold_high():
    prices = np.tile([20.0, 80.0], 100)
    worth, requests, cash, _ = learn(prices, np.tile([0, 1], 100))
    assert (requests[2::2] > 0).all() and (requests[3::2] < 0).all()
    per_cycle = 0.5 * (80.0 * 0.9 - 20.0)
    assert cash > 0.95 * 99 * per_cycle
    assert (worth[:2] > 0).all(), "stored energy is worth something at any time"


def test_spread_below_the_losses_is_left_alone():
    prices = np.tile([50.0, 54.0], 100)
    _, requests, _, _ = learn(prices, np.tile([0, 1], 100), passes=200)
    # What was in store at the start may be sold; cycling would lose money.
    assert np.clip(requests, 0, None).sum() == 0


def test_a_constant_price_is_never_bought():
    _, requests, _, _ = learn(np.full(200, 60.0), np.zeros(200, dtype=np.int64), passes=100)
    assert (requests <= 0).all()


def test_negative_prices_are_used_to_charge():
    prices = np.tile([-30.0, -30.0, 50.0, 50.0], 50)
    _, requests, cash, _ = learn(prices, np.tile([0, 1, 2, 3], 50))
    assert (requests[8::4] > 0).all() and cash > 0


def test_sampled_learning_finds_the_alternation_too():
    _, _, cash, _ = learn(np.tile([20.0, 80.0], 100), np.tile([0, 1], 100), passes=300, sampled=True)
    assert cash > 0.9 * 99 * 0.5 * (80.0 * 0.9 - 20.0)


def test_a_charge_outside_the_limits_is_valued_by_the_same_function():
    battery = Battery()
    worth = np.linspace(0.0, 80.0, 6)
    for charge in (0.0, 0.05, 0.09):
        assert decide(battery.physics, charge, 1 / 12, -5.0, worth, np.inf)[0] > 0
        assert decide(battery.physics, charge, 1 / 12, 120.0, worth, np.inf)[0] == 0
    for charge in (0.91, 1.0):
        assert decide(battery.physics, charge, 1 / 12, 1.0, worth, np.inf)[0] == 0
        assert decide(battery.physics, charge, 1 / 12, 120.0, worth, np.inf)[0] < 0
