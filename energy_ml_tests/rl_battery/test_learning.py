"""The compiled Q-learning against plain Python, and against problems whose best policy is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.rl_battery.battery import Battery, step
from energy_ml.rl_battery.learning import Experience, decide, follow, possible_moves, sampled_episode, sweep

HOURS = 0.5
NODES = 5


def make_experience(rng, n=40, states=3, nodes=NODES, prices=None):
    prices = rng.normal(50, 60, n) if prices is None else prices
    base = np.cumsum(rng.normal(8, 3, (n, nodes)), axis=1)
    base -= base[:, :1]
    linked = np.ones(n, dtype=bool)
    linked[[n // 2, n - 1]] = False
    return Experience(
        prices + rng.normal(0, 1, n), prices, base, rng.uniform(0.5, 2, n), rng.integers(0, states, n), linked
    )


def python_sweep(table, visits, battery, nodes, e, discount, trace, trust, first_rate, power):
    """The update rule in the plainest words: every move by ``step``, values by ``np.interp``."""
    physics = battery.physics
    charges = np.linspace(physics.low, physics.high, nodes)
    for t in range(len(e.paid) - 1, -1, -1):
        if not e.linked[t]:
            later = e.base[t] + e.scale[t] * table[e.state[t]]
            continue
        row = e.base[t + 1] + e.scale[t + 1] * table[e.state[t + 1]]
        went = (1 - trace) * row + trace * later
        target = np.empty(nodes)
        for k, charge in enumerate(charges):
            powers = [0.0, physics.power, -physics.power]
            for goal in charges:
                change = goal - charge
                wanted = change / HOURS / physics.charge_eff if change > 0 else change / HOURS * physics.discharge_eff
                if abs(wanted) < physics.power and goal != charge:
                    powers.append(wanted)
            best, value = -np.inf, np.nan
            for wanted in powers:
                after, _, cash, _ = step(physics, charge, wanted, HOURS, e.seen[t + 1], np.inf)
                worth = cash + np.interp(after, charges, row)
                if worth > best + 1e-12:
                    _, _, earned, _ = step(physics, charge, wanted, HOURS, e.paid[t + 1], np.inf)
                    best, value = worth, earned + np.interp(after, charges, went)
            target[k] = discount * value
        later = target - target[0]
        x = e.state[t]
        rate = (1 / first_rate + visits[x]) ** -power
        visits[x] += 1
        for k in range(1, nodes):
            table[x, k] += rate * (trust[x] * (later[k] - e.base[t, k]) / e.scale[t] - table[x, k])


@pytest.mark.parametrize("seed", range(4))
def test_sweep_equals_plain_python(seed):
    rng = np.random.default_rng(seed)
    battery = Battery(wear_cost_per_mwh=3.0, buy_fee_per_mwh=1.0, sell_fee_per_mwh=2.0, power_mw=0.3 + 0.3 * seed)
    e = make_experience(rng)
    fast, slow = np.zeros((3, NODES)), np.zeros((3, NODES))
    fast_visits, slow_visits = np.zeros(3), np.zeros(3)
    moves = possible_moves(battery.physics, HOURS, NODES)
    trace, trust = 0.3 * seed, rng.uniform(0, 1, 3)
    for _ in range(3):
        sweep(fast, fast_visits, moves, e, 0.97, trace, trust, 0.2, 0.7)
        python_sweep(slow, slow_visits, battery, NODES, e, 0.97, trace, trust, 0.2, 0.7)
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(fast_visits, slow_visits)
    assert (fast[:, 0] == 0).all()


@settings(max_examples=60, deadline=None)
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


def learn(prices, states, hours=1.0, nodes=6, passes=60, battery=None, discount=0.999):
    battery = battery or Battery()
    n = len(prices)
    linked = np.ones(n, dtype=bool)
    linked[-1] = False
    e = Experience(prices, prices, np.zeros((n, nodes)), np.ones(n), states, linked)
    table, visits = np.zeros((int(states.max()) + 1, nodes)), np.zeros(int(states.max()) + 1)
    moves = possible_moves(battery.physics, hours, nodes)
    for _ in range(passes):
        sweep(table, visits, moves, e, discount, 0.5, np.ones(len(table)), 0.5, 0.7)
    requests, cash, end = follow(
        battery.physics, battery.initial_mwh, hours, prices, prices, e.base, e.scale, states, table, np.zeros(n, int)
    )
    return table, requests, cash, end


def test_alternating_prices_are_bought_low_and_sold_high():
    prices = np.tile([20.0, 80.0], 100)
    battery = Battery()
    table, requests, cash, _ = learn(prices, np.tile([0, 1], 100))
    assert (requests[2::2] > 0).all() and (requests[3::2] < 0).all()
    per_cycle = 0.5 * (80.0 * 0.9 - 20.0)
    assert cash > 0.95 * 99 * per_cycle
    assert (np.diff(table[1]) > 0).all(), "stored energy is worth something before a cheap hour"
    assert battery.low_mwh < battery.high_mwh


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
    rng = np.random.default_rng(0)
    battery, nodes = Battery(), 6
    prices, states = np.tile([20.0, 80.0], 100), np.tile([0, 1], 100)
    linked = np.ones(200, dtype=bool)
    linked[-1] = False
    e = Experience(prices, prices, np.zeros((200, nodes)), np.ones(200), states, linked)
    table = np.zeros((2, nodes))
    for episode in range(300):
        sampled_episode(
            table, battery.physics, 1.0, e, battery.initial_mwh, 0.99, 0.1, max(0.05, 0.99**episode), 500, rng
        )
    _, cash, _ = follow(
        battery.physics, 0.5, 1.0, prices, prices, e.base, e.scale, states, table, np.zeros(200, dtype=np.int64)
    )
    assert cash > 0.9 * 99 * 0.5 * (80.0 * 0.9 - 20.0)
