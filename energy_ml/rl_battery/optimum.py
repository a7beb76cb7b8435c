"""The exact perfect-foresight optimum: the most that a battery could have earned, and the schedule that earns it.

What belongs here: optimisation with known prices. What doesn't: anything that may be used to trade.

The value of holding a charge is stepped back exactly (``value_function``). The forward pass recomputes it block by
block from checkpoints, so that memory grows with the square root of the span.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energy_ml.arrays import ZERO, Floats, Integers
from energy_ml.errors import BatteryError
from energy_ml.kernels import kernel, part
from energy_ml.rl_battery.battery import Battery, Trajectory, simulate
from energy_ml.rl_battery.value_function import EPS, Limits, Trade, best_charge, is_concave, step_back, work_space


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best schedule of a span of T intervals.

    ``profit`` is the cash of the schedule plus the terminal value of the charge at its end (currency), ``bound`` an
    upper bound on it (equal up to rounding, except under a cycle limit whose mixed-integer program ran out of time),
    ``requests`` (T,) the power in MW at the grid, ``run`` what ``battery.simulate`` makes of it.
    """

    profit: float
    bound: float
    requests: Floats
    run: Trajectory


@part
def _keep(x: Floats, slope: Floats, k: int, kept_x: Floats, kept_slope: Floats) -> None:
    """Copy a function of k pieces. Loops compile in a tenth of the time that slices take."""
    kept_x[k] = x[k]
    for i in range(k):
        kept_x[i] = x[i]
        kept_slope[i] = slope[i]


@kernel
def _optimise(
    buy: Floats,
    sell: Floats,
    most: tuple[float, float],
    limits: Limits,
    final: float,
    terminal: float,
    start: float,
    capacity: int,
) -> tuple[Floats, float, int]:
    """Best charges (T + 1,), value of the start, and the greatest number of pieces, for cell prices (T,).

    ``most`` (MWh in the cells) that is stored and drawn in an interval; other arguments as in ``perfect_foresight``.
    Stops early with more than ``capacity`` pieces as the last result if V needs more of them than fit.
    """
    n_steps = len(buy)
    block = max(16, int(np.sqrt(n_steps)))
    n_blocks = (n_steps + block - 1) // block
    stored, drawn = most
    charges = np.empty(n_steps + 1)
    charges[0] = start

    x, slope, new_x, new_slope, space = work_space(capacity)
    # V after the last interval of each block, and after each interval of the block in hand.
    saved_x, saved_slope = np.empty((n_blocks, capacity + 1)), np.empty((n_blocks, capacity))
    saved_k = np.empty(n_blocks, dtype=np.int64)
    block_x, block_slope = np.empty((block, capacity + 1)), np.empty((block, capacity))
    block_k = np.empty(block, dtype=np.int64)

    k, pieces = ZERO + 1, 1
    x[0], x[1], slope[0] = min(final, limits.high - limits.eps), limits.high, terminal
    value = terminal * x[0]
    # Where V is concave and a >= b two levels say what to do. In blocks with other intervals V itself is needed again.
    buy_to, sell_to = np.empty(n_steps), np.empty(n_steps)
    by_levels = np.ones(n_blocks, dtype=np.bool_)
    # First backward over all blocks, saving V at the end of each; then forward, with V recomputed where it is needed.
    for visit in range(2 * n_blocks):
        backward = visit < n_blocks
        number = n_blocks - 1 - visit if backward else visit - n_blocks
        first, after = number * block, min(n_steps, (number + 1) * block)
        if backward:
            _keep(x, slope, k, saved_x[number], saved_slope[number])
            saved_k[number] = k
        elif by_levels[number]:
            for t in range(first, after):
                if charges[t] < buy_to[t]:
                    charges[t + 1] = min(buy_to[t], charges[t] + stored)
                elif charges[t] > sell_to[t]:
                    charges[t + 1] = max(sell_to[t], charges[t] - drawn)
                else:
                    charges[t + 1] = charges[t]
            continue
        else:
            k = saved_k[number]
            _keep(saved_x[number], saved_slope[number], k, x, slope)
        concave = is_concave(slope, k)
        for t in range(after - 1, first - 1, -1):
            if not backward:
                _keep(x, slope, k, block_x[t - first], block_slope[t - first])
                block_k[t - first] = k
            trade = Trade(buy[t], sell[t], stored, drawn)
            k, gain, concave, levels, buy_to[t], sell_to[t] = step_back(
                x, slope, k, concave, trade, limits, space, (new_x, new_slope)
            )
            if not levels:
                by_levels[number] = False
            pieces = max(pieces, k)
            if pieces > capacity:
                return charges, value, pieces
            x, new_x = new_x, x
            slope, new_slope = new_slope, slope
            if backward:
                value += gain
        if backward and number == 0:
            i, position = 0, x[0]
            while position < start and i < k:
                end = min(start, x[i + 1])
                value += slope[i] * (end - position)
                i, position = i + 1, end
        if not backward:
            for t in range(first, after):
                i = t - first
                trade = Trade(buy[t], sell[t], stored, drawn)
                charges[t + 1] = best_charge(block_x[i], block_slope[i], block_k[i], charges[t], trade, EPS)
    return charges, value, pieces


def _with_cycle_limit(
    buy: Floats,
    sell: Floats,
    most: tuple[float, float],
    battery: Battery,
    terminal: float,
    start: float,
    days: Integers,
    time_limit: float,
) -> tuple[Floats, float]:
    """The same under a limit on cell energy discharged per day, as a mixed-integer program by HiGHS through SciPy.

    Binary variables are needed only where a < b. Returns (charges (T + 1,), upper bound on the value).
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import bmat, coo_matrix, eye

    n = len(buy)
    c, d = most
    paid = np.flatnonzero(buy < sell)
    # Variables: stored (n), drawn (n), charge after (n), charging at all (len(paid)).
    objective = np.concatenate([buy, -sell, np.zeros(n), np.zeros(len(paid))])
    objective[3 * n - 1] -= terminal
    balance = bmat([[eye(n), -eye(n), eye(n, k=-1) - eye(n), coo_matrix((n, len(paid)))]], format="csr")
    first = np.zeros(n)
    first[0] = -start
    numbers = np.unique(days, return_inverse=True)[1]
    per_day = coo_matrix((np.ones(n), (numbers, np.arange(n)))).tocsr()
    limit = coo_matrix((per_day.shape[0], n))
    daily = bmat([[limit, per_day, limit, coo_matrix((per_day.shape[0], len(paid)))]], format="csr")
    constraints = [
        LinearConstraint(balance, first, first),
        LinearConstraint(daily, -np.inf, battery.physics.daily_discharge),
    ]
    if len(paid):
        pick = coo_matrix((np.ones(len(paid)), (np.arange(len(paid)), paid)), shape=(len(paid), n))
        none = coo_matrix((len(paid), n))
        constraints.append(LinearConstraint(bmat([[pick, none, none, -c * eye(len(paid))]]).tocsr(), -np.inf, 0.0))
        constraints.append(LinearConstraint(bmat([[none, pick, none, d * eye(len(paid))]]).tocsr(), -np.inf, d))
    lower = np.concatenate([np.zeros(2 * n), np.full(n, battery.low_mwh), np.zeros(len(paid))])
    lower[3 * n - 1] = battery.final_mwh
    upper = np.concatenate([np.full(n, c), np.full(n, d), np.full(n, battery.high_mwh), np.ones(len(paid))])
    solved = milp(
        objective,
        integrality=np.concatenate([np.zeros(3 * n), np.ones(len(paid))]),
        bounds=Bounds(lower, upper),
        constraints=constraints,
        options={"time_limit": time_limit, "mip_rel_gap": 1e-9},
    )
    if solved.x is None:
        raise BatteryError(
            f"no schedule was found under the cycle limit ({solved.message})",
            expected="a reachable final charge",
            remedy="allow more cycles per day, a lower final charge or more time",
        )
    bound = solved.mip_dual_bound if len(paid) else solved.fun
    return np.concatenate([[start], solved.x[2 * n : 3 * n]]), -bound


def perfect_foresight(
    battery: Battery,
    prices: npt.ArrayLike,
    hours: float,
    *,
    days: Integers | None = None,
    start_mwh: float | None = None,
    terminal_value: float = 0.0,
    time_limit: float = 60.0,
) -> Optimum:
    """The exact optimum over known prices.

    Without a cycle limit the method of this module is used: exact for any sign of prices, about T times the number of
    pieces of V. With ``max_cycles_per_day`` the state would need the day's remaining allowance too; the problem is then
    given to HiGHS as a mixed-integer program (linear where no price is negative), which is exact as well but slower: a
    window of days, not a year of minutes. If ``time_limit`` seconds run out, ``bound`` stays above ``profit``.

    Parameters
    ----------
    prices : (T,) currency/MWh, T >= 1; NaN where none is known: nothing is traded there.
    hours : length of an interval.
    days : (T,) UTC day numbers, needed with a cycle limit.
    start_mwh : charge at the start; the battery's own by default.
    terminal_value : what a MWh in the cells is worth at the end, currency/MWh.

    Raises BatteryError on infinite prices, a start outside the limits or a final charge out of reach.
    """
    price = np.ascontiguousarray(prices, dtype=np.float64)
    # Carrying out nothing checks prices, hours, days and the start in the words of the physics.
    start = float(simulate(battery, np.zeros_like(price), price, hours, days, start_mwh=start_mwh).charge[0])
    if len(price) == 0:
        raise BatteryError("there are no prices", expected="at least one interval")
    p, known = battery.physics, np.isfinite(price)
    if not known.all():
        # The battery waits without a price, so that the schedule is that of the other intervals.
        found = perfect_foresight(
            battery,
            price[known],
            hours,
            days=None if days is None else days[known],
            start_mwh=start_mwh,
            terminal_value=terminal_value,
            time_limit=time_limit,
        )
        requests = np.zeros(len(price))
        requests[known] = found.requests
        run = simulate(battery, requests, price, hours, days, start_mwh=start_mwh)
        return Optimum(profit=found.profit, bound=found.bound, requests=requests, run=run)
    buy = (price + p.buy_fee) / p.charge_eff
    sell = (price - p.sell_fee - p.wear) * p.discharge_eff
    most = (p.power_in * hours * p.charge_eff, p.power_out * hours / p.discharge_eff)
    if start + len(price) * most[0] < battery.final_mwh - EPS:
        raise BatteryError(
            f"a final charge of {battery.final_mwh:g} MWh is out of reach from {start:g} MWh in {len(price)} intervals",
            expected=f"at most {start + len(price) * most[0]:g} MWh",
            remedy="lower final_charge or use a longer span",
        )
    if battery.max_cycles_per_day is not None:
        assert days is not None
        charges, bound = _with_cycle_limit(buy, sell, most, battery, terminal_value, start, days, time_limit)
    else:
        limits = Limits(p.low, p.high, EPS * (p.high - p.low))
        capacity = 128
        pieces = capacity + 1
        while pieces > capacity:
            capacity = max(2 * capacity, int(8 * (p.high - p.low) / min(most)))
            charges, bound, pieces = _optimise(
                buy, sell, most, limits, battery.final_mwh, float(terminal_value), start, capacity
            )
    moved = np.diff(charges)
    requests = np.where(moved > 0, moved / p.charge_eff, moved * p.discharge_eff) / hours
    run = simulate(battery, requests, price, hours, days, start_mwh=start)
    profit = float(run.cash.sum() + terminal_value * run.charge[-1])
    return Optimum(profit=profit, bound=max(float(bound), profit), requests=requests, run=run)
