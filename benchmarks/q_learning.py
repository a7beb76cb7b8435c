"""Speed of Q-learning and of the policy that comes out of it, on one core.

    python benchmarks/q_learning.py

Measured: counterfactual updates per second beside the same rule in plain Python; 1,000 episodes of 10,080 minutes; a
backtest of a year of minutes; one action by ``get_action``. Prices are random walks with a daily shape; the policy is
trained on ten days of them. Compiling is kept out of the timings (numba caches it on disk).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from energy_ml.config import MLConfig
from energy_ml.rl_battery.baselines import ThresholdRule
from energy_ml.rl_battery.battery import Battery, Floats, step
from energy_ml.rl_battery.learning import Experience, possible_moves, sampled_episode, sweep
from energy_ml.rl_battery.obvious import ObviousQLearning
from energy_ml.rl_battery.policy import BatteryPolicy
from energy_ml.rl_battery.strategy import Context
from energy_ml.rl_battery.trainer import BatteryRLTrainer

NODES = 11


def walk(n: int, minutes: int, seed: int = 0) -> Floats:
    """Prices with a daily shape and persistent noise, (n,) currency/MWh."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 6, n)
    for t in range(1, n):
        noise[t] += 0.97 * noise[t - 1]
    return 60 + 35 * np.sin(np.arange(n) * minutes * 2 * np.pi / 1440) + noise


def experience(n: int, minutes: int) -> Experience:
    """Transitions of ``n`` intervals with 24 states by hour."""
    prices = walk(n, minutes)
    linked = np.ones(n, dtype=bool)
    linked[-1] = False
    hour = (np.arange(n) * minutes // 60) % 24
    return Experience(prices, prices, np.zeros((n, NODES)), np.ones(n), hour.astype(np.int64), linked)


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Shortest of several runs, after one to compile."""
    run()
    best = np.inf
    for _ in range(repeats):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best


def python_sweep(table: Floats, battery: Battery, e: Experience, hours: float, discount: float, rate: float) -> None:
    """The same counterfactual update with Python's own numbers, as a yardstick."""
    physics = battery.physics
    charges = np.linspace(physics.low, physics.high, NODES).tolist()
    width = charges[1] - charges[0]
    rows, prices, states = table.tolist(), e.paid.tolist(), e.state.tolist()
    for t in range(len(prices) - 2, -1, -1):
        ahead, target = rows[states[t + 1]], []
        for charge in charges:
            best = -float("inf")
            for power in (0.0, physics.power, -physics.power):
                after, _, cash, _ = step.py_func(physics, charge, power, hours, prices[t + 1], float("inf"))
                place = (after - physics.low) / width
                i = min(int(place), NODES - 2)
                best = max(best, cash + ahead[i] + (place - i) * (ahead[i + 1] - ahead[i]))
            target.append(discount * best)
        row = rows[states[t]]
        for k in range(1, NODES):
            row[k] += rate * (target[k] - target[0] - row[k])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=5000, help="calls of get_action that are timed")
    options = parser.parse_args()
    battery = Battery()
    print(f"{'what':66s} {'value':>14s}")

    e = experience(10_080, 1)
    moves = possible_moves(battery.physics, 1 / 60, NODES)
    choices = int(moves.number.sum())
    table, visits = np.zeros((24, NODES)), np.zeros(24)
    trust = np.ones(24)
    took = seconds(lambda: [sweep(table, visits, moves, e, 0.9999, 0.996, trust, 0.1, 0.7) for _ in range(100)])
    rate = 100 * (len(e.paid) - 1) * choices / took
    print(f"{'counterfactual (charge, action) updates per second, compiled':66s} {rate / 1e6:11.0f} M/s")
    small = experience(1_000, 1)
    slow = seconds(lambda: python_sweep(np.zeros((24, NODES)), battery, small, 1 / 60, 0.9999, 0.1), repeats=1)
    print(f"{'the same in plain Python':66s} {(len(small.paid) - 1) * 3 * NODES / slow / 1e6:11.2f} M/s")
    print(f"{'1,000 episodes x 10,080 minutes, counterfactual':66s} {10 * took:12.2f} s")

    rng = np.random.default_rng(0)
    arguments = (battery.physics, 1 / 60, e, 0.5, 0.9999, 0.1, 0.3, 20_000)
    took = seconds(lambda: sampled_episode(table, *arguments, rng), repeats=5)
    print(f"{'1,000 episodes x 10,080 minutes, update=sampled':66s} {1000 * took:12.2f} s")

    days = 10
    times = pd.date_range("2026-01-01", periods=days * 1440, freq="1min", tz="UTC")
    prices = pd.DataFrame({"timestamp": times, "region": "FR", "real_time_price": walk(len(times), 1)})
    began = time.process_time()
    policy: BatteryPolicy = BatteryRLTrainer(MLConfig()).train_all(prices=prices)["policy"]
    first = time.process_time() - began
    took = seconds(lambda: BatteryRLTrainer(MLConfig()).train_all(prices=prices), repeats=1)
    print(f"{'training one region on ten days of minutes (first call, with load)':66s} {took:6.2f} ({first:.2f}) s")

    year = pd.date_range("2026-02-01", periods=365 * 1440, freq="1min", tz="UTC")
    context = Context("FR", battery, 0.5, year, walk(len(year), 1, 1), times, walk(len(times), 1), 1)
    for strategy in (policy, ThresholdRule(), ObviousQLearning()):
        took = seconds(lambda s=strategy: s.actions(context), repeats=2)  # type: ignore[misc]
        print(f"{'backtest of a year of minutes with what it learns, ' + strategy.name:66s} {took:12.2f} s")

    recent = walk(2 * 1440, 1)
    for name, keywords in (("price and hour only", {}), ("with two days of recent minutes", {"recent_prices": recent})):
        times_ns = []
        for i in range(options.actions):
            began_ns = time.perf_counter_ns()
            policy.get_action(0.5, 50.0 + i % 40, hour=i % 24, **keywords)  # type: ignore[arg-type]
            times_ns.append(time.perf_counter_ns() - began_ns)
        p50, p99 = np.quantile(times_ns, [0.5, 0.99]) / 1000
        print(f"{'get_action, ' + name + ': p50 (p99)':66s} {p50:6.0f} ({p99:.0f}) µs")


if __name__ == "__main__":
    main()
