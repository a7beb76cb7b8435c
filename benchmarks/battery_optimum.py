"""Speed of the perfect-foresight optimum beside HiGHS, and of the backtest per strategy.

python benchmarks/battery_optimum.py [--steps 14400] [--mip-seconds 120] [--skip-highs] [--skip-backtest]

Both solve the same problem on the same one-minute prices of a simulated market; HiGHS runs on one thread. The linear
program may charge and discharge at once, which pays at negative prices and no battery can: the mixed-integer program is
the same problem as ours. Times are CPU seconds, the compiled code warm.
"""

from __future__ import annotations

import argparse
import time

import highspy
import numpy as np
import pandas as pd
from scipy.sparse import bmat, coo_matrix, eye

from energy_ml.evaluation.backtest_evaluator import run_strategy
from energy_ml.names import REFERENCE
from energy_ml.rl_battery.baselines import Hold, PerfectForesight, RollingMPC, ThresholdRule
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.optimum import perfect_foresight
from energy_ml.rl_battery.strategy import build_context
from energy_ml.splits import TimeSplit

MINUTE = 1 / 60


def simulated_prices(n: int, negative: bool, seed: int = 0) -> np.ndarray:
    """One-minute prices (n,): daily shape, five-minute settlement, spikes and, if wanted, a midday dip below zero."""
    rng = np.random.default_rng(seed)
    fives = -(-n // 5)
    hours = np.arange(fives) / 12 % 24
    shock = rng.normal(0, 8, fives)
    for t in range(1, fives):
        shock[t] += 0.9 * shock[t - 1]
    dip = 85 if negative else 45
    prices = 60 - 25 * np.cos((hours - 7) * np.pi / 6) - dip * np.exp(-(((hours - 13) / 2.5) ** 2)) + shock
    prices += (rng.random(fives) < 0.004) * rng.gamma(2, 150, fives)
    return np.repeat(prices if negative else np.maximum(prices, 0.0), 5)[:n]


def by_highs(battery: Battery, prices: np.ndarray, hours: float, integer: bool, seconds: float) -> tuple[float, str]:
    """(objective, status) of the same problem as a program for HiGHS."""
    p, n = battery.physics, len(prices)
    buy, sell = prices / p.charge_eff, prices * p.discharge_eff
    c, d = p.power_in * hours * p.charge_eff, p.power_out * hours / p.discharge_eff
    paid = np.flatnonzero(buy < sell) if integer else np.empty(0, dtype=int)
    m = len(paid)
    pick = coo_matrix((np.ones(m), (np.arange(m), paid)), shape=(m, n))
    none = coo_matrix((m, n))
    matrix = bmat(
        [
            [eye(n), -eye(n), eye(n, k=-1) - eye(n), coo_matrix((n, m))],
            [pick, none, none, -c * eye(m)],
            [none, pick, none, d * eye(m)],
        ],
        format="csc",
    )
    balance = np.zeros(n)
    balance[0] = -battery.initial_mwh
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = matrix.shape[1], matrix.shape[0]
    lp.col_cost_ = np.concatenate([buy, -sell, np.zeros(n + m)])
    lp.col_lower_ = np.concatenate([np.zeros(2 * n), np.full(n, p.low), np.zeros(m)])
    lp.col_upper_ = np.concatenate([np.full(n, c), np.full(n, d), np.full(n, p.high), np.ones(m)])
    lp.row_lower_ = np.concatenate([balance, np.full(2 * m, -np.inf)])
    lp.row_upper_ = np.concatenate([balance, np.zeros(m), np.full(m, d)])
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    if m:
        kinds = [highspy.HighsVarType.kContinuous] * (3 * n) + [highspy.HighsVarType.kInteger] * m
        lp.integrality_ = kinds
    solver = highspy.Highs()
    solver.silent()
    for option, value in (("threads", 1), ("time_limit", seconds if integer else 600.0), ("mip_rel_gap", 1e-9)):
        solver.setOptionValue(option, value)
    solver.passModel(lp)
    solver.run()
    return -solver.getInfo().objective_function_value, solver.modelStatusToString(solver.getModelStatus())


def cpu(work, repeat: int = 1) -> tuple[float, object]:
    """(least CPU seconds of ``repeat`` runs, result)."""
    best, result = np.inf, None
    for _ in range(repeat):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def compare(steps: int, mip_seconds: float, skip_highs: bool) -> None:
    """Print the optimum's time and value beside HiGHS's."""
    battery = Battery()
    perfect_foresight(battery, simulated_prices(100, True), MINUTE)
    print(f"{'prices':34s} {'method':22s} {'CPU s':>9s} {'profit':>14s}  note")
    for label, n, negative in (
        (f"{steps:,} minutes, none negative", steps, False),
        (f"{steps:,} minutes, negative middays", steps, True),
        ("525,600 minutes, none negative", 525_600, False),
        ("525,600 minutes, negative middays", 525_600, True),
    ):
        prices = simulated_prices(n, negative)
        label = f"{label}" if not negative else f"{label} ({(prices < 0).mean():.0%})"
        ours, found = cpu(lambda p=prices: perfect_foresight(battery, p, MINUTE), 5 if n < 1e5 else 1)
        print(f"{label:34s} {'this project':22s} {ours:9.4f} {found.profit:14.6f}")
        if skip_highs or n > steps:
            continue
        for method, integer in (("HiGHS, linear", False), ("HiGHS, mixed-integer", True)):
            if integer and not negative:
                continue
            seconds, (profit, status) = cpu(lambda p=prices, i=integer: by_highs(battery, p, MINUTE, i, mip_seconds))
            note = f"{seconds / ours:,.0f} times our time; {status}; differs by {profit - found.profit:+.2e}"
            print(f"{label:34s} {method:22s} {seconds:9.4f} {profit:14.6f}  {note}", flush=True)


def backtest_year(days: int) -> None:
    """Print CPU seconds per strategy for one battery over ``days`` of minutes, requests, physics and rows included."""
    start = pd.Timestamp("2025-01-01", tz="UTC")
    history = 10
    times = pd.date_range(start, periods=(history + days) * 1440, freq="1min")
    prices = pd.DataFrame({"timestamp": times, "region": "FR", "real_time_price": simulated_prices(len(times), True)})
    split = TimeSplit(start, start + pd.Timedelta(days=8), start + pd.Timedelta(days=history), times[-1])
    short = TimeSplit(start, start + pd.Timedelta(days=2), start + pd.Timedelta(days=3), start + pd.Timedelta(days=4))
    print(f"\nbacktest of {days} days of minutes, one battery\n{'strategy':22s} {'CPU s':>9s} {'rows':>9s}")
    warm = build_context(prices[prices.timestamp < short.end], "FR", short, Battery())
    context = build_context(prices, "FR", split, Battery())
    for strategy in (Hold(), ThresholdRule(), RollingMPC(), PerfectForesight()):
        run_strategy(warm, strategy, REFERENCE)
        seconds, frame = cpu(lambda s=strategy: run_strategy(context, s, REFERENCE))
        print(f"{strategy.name:22s} {seconds:9.3f} {len(frame):9,d}", flush=True)


def main() -> None:
    """Parse arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=14_400, help="length of the comparison with HiGHS")
    parser.add_argument("--mip-seconds", type=float, default=120.0, help="time limit of the mixed-integer program")
    parser.add_argument("--days", type=int, default=365, help="length of the backtest")
    parser.add_argument("--skip-highs", action="store_true", help="measure only this project")
    parser.add_argument("--skip-backtest", action="store_true", help="measure only the optimum")
    arguments = parser.parse_args()
    compare(arguments.steps, arguments.mip_seconds, arguments.skip_highs)
    if not arguments.skip_backtest:
        backtest_year(arguments.days)


if __name__ == "__main__":
    main()
