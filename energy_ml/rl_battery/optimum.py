"""The exact perfect-foresight optimum: the most that a battery could have earned, and the schedule that earns it.

What belongs here: optimisation with known prices. What doesn't: anything that may be used to trade.

Method. Backward dynamic programming on the value V_t(s) of holding charge s before interval t, kept exactly as a
piecewise-linear function. Storing one more MWh costs a = (price + buy fee) / charge efficiency, drawing one earns
b = (price - sell fee - wear) x discharge efficiency, and at most C is stored or D drawn in an interval.

* Where a >= b and V is concave, V_t is V_{t+1} cut open at the two charges where its slope passes a and b, with a piece
  of slope a and length C and one of slope b and length D put in, and both ends cut off at the limits (the
  sup-convolution of two concave functions merges their slopes: Rockafellar, Convex Analysis, section 16). The same
  thresholds drive the analytical storage valuation of Zheng, Jaworski and Xu (arXiv 2108.06000).
* At negative prices a < b: a battery would like to charge and discharge at once and burn energy, which it can't. The
  problem is then not convex and V not concave. Between breakpoints V_t is the greatest of five lines: hold, charge in
  full, discharge in full, charge to the best breakpoint in reach, discharge to the best breakpoint in reach. Their
  upper envelope is computed exactly, so no binary variables and no grid are needed.

Slopes are never computed by differences, only copied, so rounding doesn't build up over a year of minutes. The forward
pass recomputes V block by block from checkpoints, so that memory grows with the square root of the span.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from energy_ml.errors import BatteryError
from energy_ml.rl_battery.battery import Battery, Floats, Trajectory, simulate

EPS = 1e-12
"""Breakpoints closer than this part of the charge range are one."""


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


@njit(cache=True)
def concave_step(x, slope, k, a, b, c, d, low, high, eps, out_x, out_slope):
    """One backward step where a >= b and V is concave.

    ``x`` (k + 1,) are breakpoints, ``slope`` (k,) the slopes between them. Results go to ``out_*``. Returns (pieces,
    V_t(first point) - V_{t+1}(first point), charge below which to buy up to it, charge above which to sell down to it).
    """
    up, down = 0, 0
    while up < k and slope[up] > a:
        up += 1
    buy_to = x[up]
    while up < k and slope[up] == a:
        up += 1
    down = up
    while down < k and slope[down] >= b:
        down += 1
    # Where trading earns exactly nothing the battery is left alone.
    sell_to = x[down]
    first = max(low, x[0] - c)
    n = 0
    out_x[0] = first
    last = first
    gain = 0.0
    if first < x[up] - c:
        # The shifted left part is reached by charging in full.
        reached = first + c
        i = 0
        while x[i + 1] <= reached:
            gain += slope[i] * (x[i + 1] - x[i])
            i += 1
        gain += slope[i] * (reached - x[i]) - a * c
        while i < up:
            end = x[i + 1] - c
            if end - last > eps:
                out_slope[n] = slope[i]
                n += 1
                out_x[n] = end
                last = end
            i += 1
    else:
        for i in range(up):
            gain += slope[i] * (x[i + 1] - x[i])
        gain -= a * (x[up] - first)
    if x[up] - last > eps:
        if n > 0 and out_slope[n - 1] == a:
            n -= 1
        out_slope[n] = a
        n += 1
        out_x[n] = x[up]
        last = x[up]
    for i in range(up, down):
        if x[i + 1] - last > eps:
            if n > 0 and out_slope[n - 1] == slope[i]:
                n -= 1
            out_slope[n] = slope[i]
            n += 1
            out_x[n] = x[i + 1]
            last = x[i + 1]
    end = min(x[down] + d, high)
    if end - last > eps:
        if n > 0 and out_slope[n - 1] == b:
            n -= 1
        out_slope[n] = b
        n += 1
        out_x[n] = end
        last = end
    for i in range(down, k):
        if last >= high - eps:
            break
        end = min(x[i + 1] + d, high)
        if end - last > eps:
            if out_slope[n - 1] == slope[i]:
                n -= 1
            out_slope[n] = slope[i]
            n += 1
            out_x[n] = end
            last = end
    out_x[n] = high
    return n, gain, buy_to, sell_to


@njit(cache=True)
def general_step(x, slope, k, a, b, c, d, low, high, eps, y, cuts, queue_up, queue_down, out_x, out_slope):
    """One backward step for any V and any a, b: the upper envelope of five lines in each cell. Returns as above.

    ``y`` (k + 1,), ``cuts`` (3k + 5,), ``queue_up``, ``queue_down`` (k + 1,) are work space.
    """
    y[0] = 0.0
    for i in range(k):
        y[i + 1] = y[i] + slope[i] * (x[i + 1] - x[i])
    first = max(low, x[0] - c)
    # Cells end where this charge, the one reached by charging in full or by discharging in full meets a breakpoint.
    i, j, m = 0, 0, 0
    while i <= k and x[i] - c <= first + eps:
        i += 1
    while j <= k and x[j] <= first + eps:
        j += 1
    n_cuts = 0
    cuts[0] = first
    last = first
    while True:
        nearest = high
        if i <= k and x[i] - c < nearest:
            nearest = x[i] - c
        if j <= k and x[j] < nearest:
            nearest = x[j]
        if m <= k and x[m] + d < nearest:
            nearest = x[m] + d
        if nearest >= high - eps:
            break
        if nearest - last > eps:
            n_cuts += 1
            cuts[n_cuts] = nearest
            last = nearest
        while i <= k and x[i] - c <= nearest:
            i += 1
        while j <= k and x[j] <= nearest:
            j += 1
        while m <= k and x[m] + d <= nearest:
            m += 1
    n_cuts += 1
    cuts[n_cuts] = high

    level = np.empty(5)
    tilt = np.empty(5)
    hold, charge, discharge = 0, 0, 0
    head_up, tail_up, next_up = 0, 0, 0
    head_down, tail_down, next_down = 0, 0, 0
    n = 0
    out_x[0] = first
    gain = 0.0
    for cell in range(n_cuts):
        left, right = cuts[cell], cuts[cell + 1]
        middle = 0.5 * (left + right)
        lines = 0
        if middle >= x[0]:
            while hold < k - 1 and x[hold + 1] <= middle:
                hold += 1
            level[lines] = y[hold] + slope[hold] * (left - x[hold])
            tilt[lines] = slope[hold]
            lines += 1
        if x[0] <= middle + c <= high:
            while charge < k - 1 and x[charge + 1] <= middle + c:
                charge += 1
            level[lines] = y[charge] + slope[charge] * (left + c - x[charge]) - a * c
            tilt[lines] = slope[charge]
            lines += 1
        if middle - d >= x[0]:
            while discharge < k - 1 and x[discharge + 1] <= middle - d:
                discharge += 1
            level[lines] = y[discharge] + slope[discharge] * (left - d - x[discharge]) + b * d
            tilt[lines] = slope[discharge]
            lines += 1
        # Best breakpoint above within reach of charging: queue of indices with falling V(u) - a u.
        while next_up <= k and x[next_up] <= middle + c:
            worth = y[next_up] - a * x[next_up]
            while tail_up > head_up and y[queue_up[tail_up - 1]] - a * x[queue_up[tail_up - 1]] <= worth:
                tail_up -= 1
            queue_up[tail_up] = next_up
            tail_up += 1
            next_up += 1
        while tail_up > head_up and x[queue_up[head_up]] < middle:
            head_up += 1
        if tail_up > head_up:
            u = queue_up[head_up]
            level[lines] = y[u] - a * (x[u] - left)
            tilt[lines] = a
            lines += 1
        # Best breakpoint below within reach of discharging: queue with falling V(u) - b u.
        while next_down <= k and x[next_down] <= middle:
            worth = y[next_down] - b * x[next_down]
            while tail_down > head_down and y[queue_down[tail_down - 1]] - b * x[queue_down[tail_down - 1]] <= worth:
                tail_down -= 1
            queue_down[tail_down] = next_down
            tail_down += 1
            next_down += 1
        while tail_down > head_down and x[queue_down[head_down]] < middle - d:
            head_down += 1
        if tail_down > head_down:
            u = queue_down[head_down]
            level[lines] = y[u] + b * (left - x[u])
            tilt[lines] = b
            lines += 1

        best = 0
        for line in range(1, lines):
            if level[line] > level[best] or (level[line] == level[best] and tilt[line] > tilt[best]):
                best = line
        if cell == 0:
            gain = level[best]
        position = left
        while True:
            # The envelope is convex within a cell: only steeper lines can overtake, the one that meets first wins.
            meets, successor = right, -1
            for line in range(lines):
                if tilt[line] > tilt[best]:
                    at = left + (level[best] - level[line]) / (tilt[line] - tilt[best])
                    at = max(at, position)
                    if at < meets or (successor >= 0 and at == meets and tilt[line] > tilt[successor]):
                        meets, successor = at, line
            if meets >= right - eps:
                meets, successor = right, -1
            if meets - position > eps:
                if n > 0 and out_slope[n - 1] == tilt[best]:
                    n -= 1
                out_slope[n] = tilt[best]
                n += 1
                out_x[n] = meets
                position = meets
            if successor < 0:
                break
            best = successor
    out_x[n] = high
    return n, gain


@njit(cache=True)
def is_concave(slope, k):
    for i in range(k - 1):  # noqa: SIM110 (compiled code knows no generators)
        if slope[i] < slope[i + 1]:
            return False
    return True


@njit(cache=True)
def decide(x, slope, k, charge, a, b, c, d, eps):
    """The best charge after this interval, given V after it."""
    lowest, highest = max(x[0], charge - d), min(x[k], charge + c)
    # Value relative to V at the lowest reachable charge, walking upward over the breakpoints in reach.
    i = 0
    while i < k - 1 and x[i + 1] <= lowest:
        i += 1
    position = lowest
    value = 0.0
    best, best_value = lowest, (b * (charge - lowest) if lowest <= charge else -a * (lowest - charge))
    held = -np.inf
    while position < highest:
        end = min(x[i + 1], highest) if i < k - 1 else highest
        if position < charge < end:
            end = charge
        value += slope[i] * (end - position)
        position = end
        if i < k - 1 and position >= x[i + 1]:
            i += 1
        total = value + (b * (charge - position) if position <= charge else -a * (position - charge))
        if total > best_value:
            best, best_value = position, total
        if position == charge:
            held = total
    if lowest == charge:
        held = 0.0
    # Rounding alone must not make the battery move.
    if held >= best_value - eps * (1.0 + abs(best_value)):
        return charge
    return best


@njit(cache=True)
def _keep(x, slope, k, kept_x, kept_slope):
    """Copy a function of k pieces. Loops compile in a tenth of the time that slices take."""
    kept_x[k] = x[k]
    for i in range(k):
        kept_x[i] = x[i]
        kept_slope[i] = slope[i]


@njit(cache=True, nogil=True)
def _optimise(buy, sell, c, d, low, high, final, terminal, start, capacity):
    """Best charges (T + 1,), value of the start, and the greatest number of pieces, for cell prices (T,).

    Stops early with more than ``capacity`` pieces as the last result if V needs more of them than fit.
    """
    n_steps = len(buy)
    block = max(16, int(np.sqrt(n_steps)))
    n_blocks = (n_steps + block - 1) // block
    eps = EPS * (high - low)
    charges = np.empty(n_steps + 1)
    charges[0] = start

    x, slope = np.empty(15 * capacity + 26), np.empty(15 * capacity + 25)
    new_x, new_slope = np.empty(15 * capacity + 26), np.empty(15 * capacity + 25)
    y, cuts = np.empty(capacity + 1), np.empty(3 * capacity + 5)
    queue_up, queue_down = np.empty(capacity + 1, dtype=np.int64), np.empty(capacity + 1, dtype=np.int64)
    # V after the last interval of each block, and after each interval of the block in hand.
    saved_x, saved_slope = np.empty((n_blocks, capacity + 1)), np.empty((n_blocks, capacity))
    saved_k = np.empty(n_blocks, dtype=np.int64)
    block_x, block_slope = np.empty((block, capacity + 1)), np.empty((block, capacity))
    block_k = np.empty(block, dtype=np.int64)

    k, most = 1, 1
    x[0], x[1], slope[0] = min(final, high - eps), high, terminal
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
                    charges[t + 1] = min(buy_to[t], charges[t] + c)
                elif charges[t] > sell_to[t]:
                    charges[t + 1] = max(sell_to[t], charges[t] - d)
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
            if concave and buy[t] >= sell[t]:
                k, gain, buy_to[t], sell_to[t] = concave_step(
                    x, slope, k, buy[t], sell[t], c, d, low, high, eps, new_x, new_slope
                )
            else:
                k, gain = general_step(
                    x, slope, k, buy[t], sell[t], c, d, low, high, eps,
                    y, cuts, queue_up, queue_down, new_x, new_slope,
                )  # fmt: skip
                concave = is_concave(new_slope, k)
                by_levels[number] = False
            most = max(most, k)
            if most > capacity:
                return charges, value, most
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
                pieces = block_k[t - first]
                charges[t + 1] = decide(
                    block_x[t - first], block_slope[t - first], pieces, charges[t], buy[t], sell[t], c, d, EPS
                )
    return charges, value, most


def _with_cycle_limit(buy, sell, c, d, battery, terminal, start, days, time_limit):
    """The same under a limit on cell energy discharged per day, as a mixed-integer program by HiGHS through SciPy.

    Binary variables are needed only where a < b. Returns (charges (T + 1,), upper bound on the value).
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import bmat, coo_matrix, eye

    n = len(buy)
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
    days: npt.NDArray[np.int64] | None = None,
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
    c, d = p.power * hours * p.charge_eff, p.power * hours / p.discharge_eff
    if start + len(price) * c < battery.final_mwh - EPS:
        raise BatteryError(
            f"a final charge of {battery.final_mwh:g} MWh is out of reach from {start:g} MWh in {len(price)} intervals",
            expected=f"at most {start + len(price) * c:g} MWh",
            remedy="lower final_charge or use a longer span",
        )
    if battery.max_cycles_per_day is not None:
        assert days is not None
        charges, bound = _with_cycle_limit(buy, sell, c, d, battery, terminal_value, start, days, time_limit)
    else:
        capacity = 128
        most = capacity + 1
        while most > capacity:
            capacity = max(2 * capacity, int(8 * (p.high - p.low) / min(c, d)))
            charges, bound, most = _optimise(
                buy, sell, c, d, p.low, p.high, battery.final_mwh, float(terminal_value), start, capacity
            )
    moved = np.diff(charges)
    requests = np.where(moved > 0, moved / p.charge_eff, moved * p.discharge_eff) / hours
    run = simulate(battery, requests, price, hours, days, start_mwh=start)
    profit = float(run.cash.sum() + terminal_value * run.charge[-1])
    return Optimum(profit=profit, bound=max(float(bound), profit), requests=requests, run=run)
