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

from energy_ml.arrays import Floats
from energy_ml.config import MLConfig
from energy_ml.rl_battery.baselines import ThresholdRule
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.learning import Experience, Learner, Part, Schedule, possible_moves, sampled_episode, sweep
from energy_ml.rl_battery.policy import BatteryPolicy
from energy_ml.rl_battery.state_space import Seen, find_places
from energy_ml.rl_battery.strategy import Context
from energy_ml.rl_battery.trainer import BatteryRLTrainer

SLICES = 10


def walk(n: int, minutes: int, seed: int = 0) -> Floats:
    """Prices with a daily shape and persistent noise, (n,) currency/MWh."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 6, n)
    for t in range(1, n):
        noise[t] += 0.97 * noise[t - 1]
    return 60 + 35 * np.sin(np.arange(n) * minutes * 2 * np.pi / 1440) + noise


def experience(n: int, minutes: int) -> tuple[Learner, Experience]:
    """An empty table and transitions of ``n`` intervals in states by hour, the plan saying the mean price."""
    prices = walk(n, minutes)
    linked = np.ones(n, dtype=bool)
    linked[-1] = False
    minute = np.arange(n) * minutes % 1440
    planned, level = np.full((n, SLICES), prices.mean()), np.full(n, 60.0)
    seen = Seen(prices, prices, planned, level, np.full(n, 3), minute)
    places = find_places(seen, np.tile(np.linspace(-0.5, 0.5, 10), (4, 1)), 24)
    shapes = (4, 1, 10, SLICES), (4, 24, 10, SLICES)
    learner = Learner(*(Part(np.zeros(shape), np.zeros(shape), np.ones(shape)) for shape in shapes))
    return learner, Experience(prices, prices, planned, level, places, linked)


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Shortest of several runs, after one to compile."""
    run()
    best = np.inf
    for _ in range(repeats):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=5000, help="calls of get_action that are timed")
    options = parser.parse_args()
    battery = Battery()
    print(f"{'what':66s} {'value':>14s}")

    learner, e = experience(10_080, 1)
    moves = possible_moves(battery.physics, 1 / 60, SLICES + 1)
    choices, schedule = int(moves.number.sum()), Schedule(0.1, 0.9999, 0.996)
    width = (battery.high_mwh - battery.low_mwh) / SLICES
    took = seconds(lambda: [sweep(learner, moves, e, schedule, width) for _ in range(100)])
    rate = 100 * (len(e.paid) - 1) * choices / took
    print(f"{'counterfactual (charge, action) updates per second, compiled':66s} {rate / 1e6:11.0f} M/s")
    print(f"{'1,000 episodes x 10,080 minutes, counterfactual':66s} {10 * took:12.2f} s")

    rng = np.random.default_rng(0)
    arguments = (learner, battery.physics, 1 / 60, e, schedule, 0.5, 0.3, 20_000, rng)
    took = seconds(lambda: sampled_episode(*arguments), repeats=5)
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
    for strategy in (policy, ThresholdRule()):
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
