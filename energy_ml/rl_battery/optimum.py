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

Slopes are never computed by differences, only copied, so rounding doesn't build up over a year of minutes. Forward, two
charges say what to do where V is concave; elsewhere V itself is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from energy_ml.arrays import ZERO, Floats, Integers
from energy_ml.errors import BatteryError
from energy_ml.kernels import kernel, part
from energy_ml.rl_battery.battery import Battery, Trajectory, simulate

_EPS = 1e-12
"""Breakpoints closer than this part of the charge range are one."""


class _Trade(NamedTuple):
    """What an interval offers: a, b (currency/MWh in the cells), and C, D (MWh in the cells)."""

    buy: float
    sell: float
    stored: float
    drawn: float


class _Limits(NamedTuple):
    """The charge range, MWh, and how close two breakpoints are one."""

    low: float
    high: float
    eps: float


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
def _add(x: Floats, slope: Floats, n: int, end: float, tilt: float, eps: float) -> int:
    """Add a piece of slope ``tilt`` up to ``end`` to a function of n pieces; returns how many there are then."""
    if end - x[n] <= eps:
        return n
    if n > 0 and slope[n - 1] == tilt:
        n -= 1
    slope[n], x[n + 1] = tilt, end
    return n + 1


@part
def _concave_step(
    x: Floats, slope: Floats, k: int, trade: _Trade, limits: _Limits, out_x: Floats, out_slope: Floats
) -> tuple[int, float, float, float]:
    """One backward step where a >= b and V is concave.

    ``x`` (k + 1,) are breakpoints, ``slope`` (k,) the slopes between them. Results go to ``out_*``. Returns (pieces,
    V_t(first point) - V_{t+1}(first point), charge below which to buy up to it, charge above which to sell down to it).
    """
    a, b, c, d = trade
    low, high, eps = limits
    up = 0
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
    first, n, i, gain = max(low, x[0] - c), ZERO, 0, 0.0
    out_x[0] = first
    if first < x[up] - c:
        # The shifted left part is reached by charging in full.
        reached = first + c
        while x[i + 1] <= reached:
            gain += slope[i] * (x[i + 1] - x[i])
            i += 1
        gain += slope[i] * (reached - x[i]) - a * c
        for j in range(i, up):
            n = _add(out_x, out_slope, n, x[j + 1] - c, slope[j], eps)
    else:
        for j in range(up):
            gain += slope[j] * (x[j + 1] - x[j])
        gain -= a * (x[up] - first)
    n = _add(out_x, out_slope, n, x[up], a, eps)
    for j in range(up, down):
        n = _add(out_x, out_slope, n, x[j + 1], slope[j], eps)
    n = _add(out_x, out_slope, n, min(x[down] + d, high), b, eps)
    for j in range(down, k):
        n = _add(out_x, out_slope, n, min(x[j + 1] + d, high), slope[j], eps)
    out_x[n] = high
    return n, gain, buy_to, sell_to


@part
def _add_envelope(
    level: Floats,
    tilt: Floats,
    lines: int,
    best: int,
    cell: tuple[float, float, float],
    n: int,
    x: Floats,
    slope: Floats,
) -> int:
    """Add the upper envelope of ``lines`` in a cell (left, right, eps), on which ``best`` is uppermost at the left, to
    a function of n pieces; returns how many there are then."""
    left, right, eps = cell
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
        n = _add(x, slope, n, meets, tilt[best], eps)
        if successor < 0:
            return n
        best, position = successor, max(position, meets)


@part
def _general_step(
    x: Floats, slope: Floats, k: int, trade: _Trade, limits: _Limits, out_x: Floats, out_slope: Floats
) -> tuple[int, float]:
    """One backward step for any V and any a, b: the upper envelope of five lines in each cell.

    A cell ends where this charge, the one reached by charging in full or by discharging in full meets a breakpoint.
    Returns (pieces, V_t(first point) - V_{t+1}(first point)).
    """
    a, b, c, d = trade
    low, high, eps = limits
    y = np.zeros(k + 1)
    for i in range(k):
        y[i + 1] = y[i] + slope[i] * (x[i + 1] - x[i])
    level, tilt, passed = np.empty(5), np.empty(5), np.zeros(3, np.int64)
    # Of each way: how far it leads, and what it earns.
    ways = ((0.0, 0.0), (c, -a * c), (-d, b * d))
    left, n, gain = max(low, x[0] - c), ZERO, 0.0
    out_x[0] = left
    while left < high:
        right, lines = high, ZERO
        for way in range(3):
            shift, cash = ways[way]
            i = passed[way]
            while i <= k and x[i] - shift <= left + eps:
                i += 1
            passed[way] = i
            if i <= k:
                right = min(right, x[i] - shift)
            if 1 <= i <= k:
                level[lines] = y[i - 1] + slope[i - 1] * (left + shift - x[i - 1]) + cash
                tilt[lines] = slope[i - 1]
                lines += 1
        if right >= high - eps:
            right = high
        here, charged, discharged = passed
        # The best breakpoints within reach: above by charging, below by discharging.
        for begin, end, price in ((here, charged, a), (discharged, here, b)):
            if begin < end:
                u = int(begin)
                for i in range(begin + 1, end):
                    if y[i] - price * x[i] >= y[u] - price * x[u]:
                        u = i
                level[lines], tilt[lines] = y[u] - price * (x[u] - left), price
                lines += 1
        best = ZERO
        for line in range(1, lines):
            if level[line] > level[best] or (level[line] == level[best] and tilt[line] > tilt[best]):
                best = line
        if n == 0 and out_x[0] == left:
            gain = level[best]
        n = _add_envelope(level, tilt, lines, best, (left, right, eps), n, out_x, out_slope)
        left = right
    out_x[n] = high
    return n, gain


@part
def _best_charge(x: Floats, slope: Floats, first: int, k: int, charge: float, trade: _Trade) -> float:
    """The best charge after this interval, given V after it: k pieces, the first of which stands at ``first``."""
    a, b, c, d = trade
    after = first + k
    lowest, highest = max(x[first], charge - d), min(x[after], charge + c)
    # Value relative to V at the lowest reachable charge, walking upward over the breakpoints in reach.
    i = first
    while i < after - 1 and x[i + 1] <= lowest:
        i += 1
    position, value = lowest, 0.0
    best, best_value = lowest, (b * (charge - lowest) if lowest <= charge else -a * (lowest - charge))
    held = 0.0 if lowest == charge else -np.inf
    while position < highest:
        end = min(x[i + 1], highest) if i < after - 1 else highest
        if position < charge < end:
            end = charge
        value += slope[i] * (end - position)
        position = end
        if i < after - 1 and position >= x[i + 1]:
            i += 1
        total = value + (b * (charge - position) if position <= charge else -a * (position - charge))
        if total > best_value:
            best, best_value = position, total
        if position == charge:
            held = total
    # Rounding alone must not make the battery move.
    if held >= best_value - _EPS * (1.0 + abs(best_value)):
        return charge
    return float(best)


@kernel
def _optimise(
    buy: Floats, sell: Floats, most: tuple[float, float], limits: _Limits, final: float, terminal: float, start: float
) -> tuple[Floats, float]:
    """Best charges (T + 1,) and value of the start, for cell prices (T,).

    ``most`` (MWh in the cells) that is stored and drawn in an interval; other arguments as in ``perfect_foresight``.
    """
    n_steps = len(buy)
    stored, drawn = most
    x, slope, new_x, new_slope = np.empty(64), np.empty(64), np.empty(64), np.empty(64)
    x[0], x[1], slope[0] = min(final, limits.high - limits.eps), limits.high, terminal
    k, concave, value = ZERO + 1, True, terminal * x[0]
    # Where V is concave and a >= b two levels say what to do; elsewhere V after it is kept, k pieces at a place.
    buy_to, sell_to = np.empty(n_steps), np.empty(n_steps)
    place, pieces = np.zeros(n_steps, np.int64), np.zeros(n_steps, np.int64)
    kept_x, kept_slope, used = np.empty(1024), np.empty(1024), 0
    for t in range(n_steps - 1, -1, -1):
        trade = _Trade(buy[t], sell[t], stored, drawn)
        if len(new_x) < 15 * k + 26:
            new_x, new_slope = np.empty(30 * k + 26), np.empty(30 * k + 26)
        if concave and trade.buy >= trade.sell:
            k, gain, buy_to[t], sell_to[t] = _concave_step(x, slope, k, trade, limits, new_x, new_slope)
        else:
            if used + k + 1 > len(kept_x):
                room = np.empty(len(kept_x) + k)
                kept_x, kept_slope = np.concatenate((kept_x, room)), np.concatenate((kept_slope, room))
            for i in range(k):
                kept_x[used + i], kept_slope[used + i] = x[i], slope[i]
            kept_x[used + k] = x[k]
            place[t], pieces[t] = used, k
            used += k + 1
            k, gain = _general_step(x, slope, k, trade, limits, new_x, new_slope)
            concave = True
            for i in range(k - 1):
                concave &= new_slope[i] >= new_slope[i + 1]
        value += gain
        x, new_x, slope, new_slope = new_x, x, new_slope, slope
    i, position = 0, x[0]
    while position < start and i < k:
        end = min(start, x[i + 1])
        value += slope[i] * (end - position)
        i, position = i + 1, end
    charges = np.empty(n_steps + 1)
    charges[0] = start
    for t in range(n_steps):
        charge = charges[t]
        if pieces[t]:
            trade = _Trade(buy[t], sell[t], stored, drawn)
            charge = _best_charge(kept_x, kept_slope, place[t], pieces[t], charge, trade)
        elif charge < buy_to[t]:
            charge = min(buy_to[t], charge + stored)
        elif charge > sell_to[t]:
            charge = max(sell_to[t], charge - drawn)
        charges[t + 1] = charge
    return charges, value


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
    if start + len(price) * most[0] < battery.final_mwh - _EPS:
        raise BatteryError(
            f"a final charge of {battery.final_mwh:g} MWh is out of reach from {start:g} MWh in {len(price)} intervals",
            expected=f"at most {start + len(price) * most[0]:g} MWh",
            remedy="lower final_charge or use a longer span",
        )
    if battery.max_cycles_per_day is not None:
        assert days is not None
        charges, bound = _with_cycle_limit(buy, sell, most, battery, terminal_value, start, days, time_limit)
    else:
        limits = _Limits(p.low, p.high, _EPS * (p.high - p.low))
        charges, bound = _optimise(buy, sell, most, limits, battery.final_mwh, float(terminal_value), start)
    moved = np.diff(charges)
    requests = np.where(moved > 0, moved / p.charge_eff, moved * p.discharge_eff) / hours
    run = simulate(battery, requests, price, hours, days, start_mwh=start)
    profit = float(run.cash.sum() + terminal_value * run.charge[-1])
    return Optimum(profit=profit, bound=max(float(bound), profit), requests=requests, run=run)
