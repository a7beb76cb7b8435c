"""The exact value of stored energy under known prices, one interval back at a time.

What belongs here: V and its steps. What doesn't: schedules (``optimum``) and where prices come from.

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

Slopes are never computed by differences, only copied, so rounding doesn't build up over a year of minutes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from energy_ml.arrays import ZERO, Floats, Integers
from energy_ml.kernels import part

EPS = 1e-12
"""Breakpoints closer than this part of the charge range are one."""


class Trade(NamedTuple):
    """What an interval offers: a, b (currency/MWh in the cells), and C, D (MWh in the cells)."""

    buy: float
    sell: float
    stored: float
    drawn: float


class Limits(NamedTuple):
    """The charge range, MWh, and how close two breakpoints are one."""

    low: float
    high: float
    eps: float


class Space(NamedTuple):
    """Work space of ``_general_step`` for V of k pieces: values (k + 1,), cuts (3k + 5,) and two queues (k + 1,)."""

    values: Floats
    cuts: Floats
    queue_up: Integers
    queue_down: Integers


@part
def work_space(capacity: int) -> tuple[Floats, Floats, Floats, Floats, Space]:
    """Room for V after and before an interval (breakpoints, slopes, twice) and what the steps need.

    Up to ``capacity`` pieces go into a step; many more may come out of one.
    """
    space = Space(
        np.empty(capacity + 1),
        np.empty(3 * capacity + 5),
        np.empty(capacity + 1, dtype=np.int64),
        np.empty(capacity + 1, dtype=np.int64),
    )
    points, pieces = 15 * capacity + 26, 15 * capacity + 25
    return np.empty(points), np.empty(pieces), np.empty(points), np.empty(pieces), space


@part
def _concave_step(
    x: Floats, slope: Floats, k: int, trade: Trade, limits: Limits, out_x: Floats, out_slope: Floats
) -> tuple[int, float, float, float]:
    """One backward step where a >= b and V is concave.

    ``x`` (k + 1,) are breakpoints, ``slope`` (k,) the slopes between them. Results go to ``out_*``. Returns (pieces,
    V_t(first point) - V_{t+1}(first point), charge below which to buy up to it, charge above which to sell down to it).
    """
    a, b, c, d = trade
    low, high, eps = limits
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


@part
def _cut_cells(x: Floats, k: int, trade: Trade, limits: Limits, cuts: Floats) -> int:
    """Cut the charges of V_t into cells, in ``cuts``; returns how many.

    A cell ends where this charge, the one reached by charging in full or by discharging in full meets a breakpoint.
    """
    _, _, c, d = trade
    low, high, eps = limits
    first = max(low, x[0] - c)
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
    return n_cuts


@part
def _write_envelope(
    level: Floats,
    tilt: Floats,
    lines: int,
    best: int,
    cell: tuple[float, float, float],
    n: int,
    out_x: Floats,
    out_slope: Floats,
) -> int:
    """Add the upper envelope of ``lines`` in a cell (left, right, eps), on which ``best`` is uppermost at the left, to
    the first ``n`` pieces of V; returns how many there are then."""
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
        if meets - position > eps:
            if n > 0 and out_slope[n - 1] == tilt[best]:
                n -= 1
            out_slope[n] = tilt[best]
            n += 1
            out_x[n] = meets
            position = meets
        if successor < 0:
            return n
        best = successor


@part
def _general_step(
    x: Floats, slope: Floats, k: int, trade: Trade, limits: Limits, space: Space, out_x: Floats, out_slope: Floats
) -> tuple[int, float]:
    """One backward step for any V and any a, b: the upper envelope of five lines in each cell.

    Long, since the two queues and three pointers move from cell to cell.

    Returns (pieces, V_t(first point) - V_{t+1}(first point)).
    """
    a, b, c, d = trade
    _, high, eps = limits
    y, cuts, queue_up, queue_down = space
    y[0] = 0.0
    for i in range(k):
        y[i + 1] = y[i] + slope[i] * (x[i + 1] - x[i])
    n_cuts = _cut_cells(x, k, trade, limits, cuts)
    first = cuts[0]

    level = np.empty(5)
    tilt = np.empty(5)
    hold, charge, discharge = 0, 0, 0
    head_up, tail_up, next_up = 0, 0, 0
    head_down, tail_down, next_down = 0, 0, 0
    n = ZERO
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

        best = ZERO
        for line in range(1, lines):
            if level[line] > level[best] or (level[line] == level[best] and tilt[line] > tilt[best]):
                best = line
        if cell == 0:
            gain = level[best]
        n = _write_envelope(level, tilt, lines, best, (left, right, eps), n, out_x, out_slope)
    out_x[n] = high
    return n, gain


@part
def is_concave(slope: Floats, k: int) -> bool:
    """Whether k slopes never rise."""
    for i in range(k - 1):  # noqa: SIM110 (compiled code knows no generators)
        if slope[i] < slope[i + 1]:
            return False
    return True


@part
def step_back(
    x: Floats,
    slope: Floats,
    k: int,
    concave: bool,
    trade: Trade,
    limits: Limits,
    space: Space,
    out: tuple[Floats, Floats],
) -> tuple[int, float, bool, bool, float, float]:
    """V before an interval from V after it, into ``out`` (breakpoints, slopes), by the cheaper step where it will do.

    ``concave``: whether V after it is. Returns (pieces, rise of the first point, whether V before it is concave,
    whether two levels say what to do, charge to buy up to, charge to sell down to).
    """
    if concave and trade.buy >= trade.sell:
        k, gain, buy_to, sell_to = _concave_step(x, slope, k, trade, limits, out[0], out[1])
        return k, gain, True, True, buy_to, sell_to
    k, gain = _general_step(x, slope, k, trade, limits, space, out[0], out[1])
    return k, gain, is_concave(out[1], k), False, 0.0, 0.0


@part
def best_charge(x: Floats, slope: Floats, k: int, charge: float, trade: Trade, eps: float) -> float:
    """The best charge after this interval, given V after it."""
    a, b, c, d = trade
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
    return float(best)
