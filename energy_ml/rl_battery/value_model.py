"""A forecast of what stored energy is worth, learned from hindsight: the base that the Q-table corrects.

What belongs here: its inputs, its targets, boosted trees and their compiled evaluation. What doesn't: Q-learning
(``learning``) and price forecasts as such, which come in as columns.

For each past interval the value function of perfect foresight says what a MWh in the cells was worth afterwards. Trees
regress those slopes on what was known at the time (Zheng, Liu, Xu and Shi, arXiv 2211.07797, with a neural network).
Hindsight flatters the value a little: a plan on expected prices (``lookahead``), which does the opposite, is averaged
in, and Q-learning corrects what is left.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from energy_ml.arrays import Booleans, Floats, Floats32, Integers
from energy_ml.errors import ModelError
from energy_ml.rl_battery.battery import Physics
from energy_ml.rl_battery.learning import Moves, possible_moves

LAGS = (5, 15, 30, 60, 180)
"""Price changes over so many minutes."""
MEANS = (60, 360, 1440)
"""Trailing means over so many minutes."""
DEVIATIONS = (60, 1440)
"""Trailing standard deviations over so many minutes."""
YESTERDAY = ((0, 60), (60, 240), (240, 480))
"""What yesterday's price did over the coming (from, to) minutes."""
HISTORY_MINUTES = 2 * 1440
"""How far back the inputs reach."""
ENOUGH_HISTORY_MINUTES = 60
"""With less than this before the newest price, inputs from history count as missing."""
SLOPES = 4
"""Pieces of the value: the worth of a MWh in each quarter of the usable range, from empty to full."""
HINDSIGHT_NODES = 17
_ROUNDING = 1e5
_BLOCK = 128


def input_names(horizons: Sequence[int]) -> list[str]:
    """Names of the inputs, in order; ``horizons`` in minutes."""
    names = ["level", "hour_sin", "hour_cos", "minute_of_day"]
    names += [f"forecast_{h}min" for h in horizons]
    names += [f"change_{m}min" for m in LAGS] + [f"mean_{m}min" for m in MEANS]
    names += [f"deviation_{m}min" for m in DEVIATIONS] + [f"yesterday_{a}_{b}min" for a, b in YESTERDAY]
    names += [f"two_days_{a}_{b}min" for a, b in YESTERDAY]
    return names


_HISTORY_INPUTS = len(LAGS) + len(MEANS) + len(DEVIATIONS) + 2 * len(YESTERDAY)
FIRST_FORECAST = 4
"""Column of the first forecast; the columns after the last one come from history."""


@njit(cache=True)
def _mean(sums: Floats, first: int, last: int) -> float:
    """Mean of the values [first, last) given their cumulative sums; NaN if it reaches before the series."""
    if first < 0 or last <= first:
        return np.nan
    return (sums[last] - sums[first]) / (last - first)


@njit(cache=True, nogil=True)
def build_inputs(
    prices: Floats, minutes: Integers, ahead: Floats, interval: int, price_scale: float, first: int
) -> Floats32:
    """Inputs of intervals ``first`` to the end: (N - first, F) float32, NaN where history or forecasts are missing.

    Parameters
    ----------
    prices : (N,) currency/MWh, the newest last; row t uses prices up to t only.
    minutes : (N,) minute of the UTC day at which each interval starts.
    ahead : (H, N) forecasts made at t; NaN where there is none. A row in which one is missing gets none.
    interval : minutes.
    price_scale : a typical price of the market; prices enter as asinh(price / scale), which tames spikes.

    Values are rounded to 1e-5, so that sums over a longer or a shorter series give the same input.
    """
    n, horizons = len(prices), ahead.shape[0]
    levels = np.arcsinh(prices / price_scale)
    sums, squares = np.zeros(n + 1), np.zeros(n + 1)
    for i in range(n):
        sums[i + 1] = sums[i] + levels[i]
        squares[i + 1] = squares[i] + levels[i] * levels[i]
    day = 1440 // interval
    out = np.empty((n - first, FIRST_FORECAST + horizons + _HISTORY_INPUTS), np.float32)
    row = np.empty(out.shape[1])
    for t in range(first, n):
        now = levels[t]
        angle = 2.0 * np.pi * minutes[t] / 1440.0
        row[0], row[1], row[2], row[3] = now, np.sin(angle), np.cos(angle), minutes[t]
        c = FIRST_FORECAST
        for h in range(horizons):
            row[c] = np.arcsinh(ahead[h, t] / price_scale) - now
            c += 1
        for h in range(horizons):
            if np.isnan(row[FIRST_FORECAST + h]):
                row[FIRST_FORECAST:c] = np.nan
        if t * interval < ENOUGH_HISTORY_MINUTES:
            row[c:] = np.nan
        else:
            for m in LAGS:
                s = max(1, m // interval)
                row[c] = now - levels[t - s] if t >= s else np.nan
                c += 1
            for m in MEANS:
                s = max(1, m // interval)
                row[c] = _mean(sums, max(0, t + 1 - s), t + 1) - now
                c += 1
            for m in DEVIATIONS:
                a = max(0, t + 1 - max(2, m // interval))
                mean = _mean(sums, a, t + 1)
                row[c] = np.sqrt(max(0.0, _mean(squares, a, t + 1) - mean * mean))
                c += 1
            for back in range(1, 3):
                for start, stop in YESTERDAY:
                    a = t + 1 - back * day + start // interval
                    b = t + 1 - back * day + max(stop // interval, start // interval + 1)
                    row[c] = _mean(sums, a, b) - now
                    c += 1
        for i in range(len(row)):
            out[t - first, i] = np.round(row[i] * _ROUNDING) / _ROUNDING
    return out


@njit(cache=True, nogil=True)
def _hindsight(moves: Moves, prices: Floats, terminal: Floats) -> Floats:
    n, nodes = len(prices), len(terminal)
    values = np.empty((n, nodes))
    values[n - 1] = terminal
    for t in range(n - 2, -1, -1):
        for k in range(nodes):
            if np.isnan(prices[t + 1]):
                values[t, k] = values[t + 1, k]
                continue
            best = -np.inf
            for j in range(moves.number[k]):
                i = moves.lower[j, k]
                worth = values[t + 1, i] + moves.share[j, k] * (values[t + 1, i + 1] - values[t + 1, i])
                best = max(best, worth + moves.fixed[j, k] + moves.per_price[j, k] * prices[t + 1])
            values[t, k] = best
    return values


def hindsight_slopes(physics: Physics, prices: Floats, hours: float, pieces: int = SLOPES) -> Floats:
    """What a MWh in the cells was worth after each interval, had all later prices been known: (N, pieces) currency/MWh.

    Piece 0 is the emptiest part of the battery. Charge left after the last price is worth the mean price. Where a price
    is NaN nothing could be traded.
    """
    nodes = HINDSIGHT_NODES
    width = (physics.high - physics.low) / (nodes - 1)
    worth = max(0.0, float(prices[np.isfinite(prices)].mean())) * physics.discharge_eff
    terminal = np.linspace(0.0, (nodes - 1) * width * worth, nodes)
    values = _hindsight(possible_moves(physics, hours, nodes), prices, terminal)
    return slopes_of(values, physics.high - physics.low, pieces)


@njit(cache=True, nogil=True)
def tree_inputs(inputs: Floats32) -> Floats32:
    """Inputs (N, F) as trees get them: without the price level in rows that know yesterday.

    Months after training the level lies where training never was; where the price stands among those of the last days
    says as much and holds. On 60 + 30 days this won 9 points. Rows with less history have nothing but the level.
    """
    out = inputs.copy()
    for i in range(len(out)):
        if not np.isnan(out[i, out.shape[1] - 2 * len(YESTERDAY)]):
            out[i, 0] = np.nan
    return out


def slopes_of(values: Floats, usable_mwh: float, pieces: int) -> Floats:
    """Slopes of values at evenly spaced charges, (N, K) currency -> (N, pieces) currency/MWh."""
    nodes = values.shape[1]
    ends = np.linspace(0, nodes - 1, pieces + 1)
    lower = np.minimum(ends.astype(np.int64), nodes - 2)
    at_ends = values[:, lower] + (ends - lower) * (values[:, lower + 1] - values[:, lower])
    return np.diff(at_ends, axis=1) * pieces / usable_mwh


class BoostedTrees(NamedTuple):
    """Boosted regression trees as flat arrays: a row takes a few microseconds, without a call into XGBoost.

    ``roots``, ``groups`` (R,): first node and output of each tree. Of the nodes (M,): ``feature``, ``threshold`` (below
    goes left; at a leaf its value), ``missing_left``, and (M, 2) ``children``, right and left; a leaf's are itself, so
    that ``depth`` steps end at a leaf from everywhere.
    """

    roots: npt.NDArray[np.int32]
    groups: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int16]
    threshold: Floats32
    missing_left: Booleans
    children: npt.NDArray[np.int32]
    depth: int
    outputs: int

    @classmethod
    def fit(cls, inputs: Floats32, targets: Floats, *, rounds: int = 80, seed: int = 42) -> BoostedTrees:
        """Fit (N, F) inputs to (N, outputs) targets: squared error, XGBoost, one thread, deterministic by ``seed``.

        Trees of their own for each output: trees with a vector in each leaf were a point worse on plain days and ten on
        days with spikes.
        """
        import xgboost  # here, because loading a saved policy needs only the arrays

        parameters = {
            "objective": "reg:squarederror",
            "base_score": 0.0,
            "eta": 0.06,
            "max_depth": 5,
            "min_child_weight": 40,
            "subsample": 0.7,
            "colsample_bytree": 0.6,
            "reg_lambda": 5.0,
            "max_bin": 128,
            "tree_method": "hist",
            "seed": seed,
            "nthread": 1,
        }
        booster = xgboost.train(parameters, xgboost.DMatrix(inputs, targets, nthread=1), rounds)
        return cls.from_xgboost(booster, targets.shape[1])

    @classmethod
    def empty(cls) -> BoostedTrees:
        """No trees, no outputs."""
        none = np.zeros(0, np.int32)
        children = np.zeros((0, 2), np.int32)
        return cls(none, none, none.astype(np.int16), none.astype(np.float32), none.astype(np.bool_), children, 0, 0)

    @classmethod
    def from_xgboost(cls, booster: Any, outputs: int) -> BoostedTrees:
        """The arrays of a trained ``xgboost.Booster`` with base score 0 and one output per tree."""
        model = json.loads(bytes(booster.save_raw(raw_format="json")))["learner"]["gradient_booster"]["model"]
        trees = model["trees"]
        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
        shift = np.repeat(roots, sizes)

        def column(key: str, kind: type) -> npt.NDArray:
            return np.concatenate([np.asarray(tree[key]).astype(kind) for tree in trees])

        children = np.column_stack([column("right_children", np.int32), column("left_children", np.int32)])
        leaf = children[:, 1] < 0
        itself = np.arange(len(leaf), dtype=np.int32)
        children = np.where(leaf[:, None], itself[:, None], children + shift[:, None]).astype(np.int32)
        depth, reached = 0, roots
        while not leaf[reached].all():
            depth, reached = depth + 1, np.unique(children[reached])
        return cls(
            roots=roots,
            groups=np.asarray(model["tree_info"], dtype=np.int32),
            feature=np.where(leaf, 0, column("split_indices", np.int16)).astype(np.int16),
            threshold=column("split_conditions", np.float32),
            missing_left=column("default_left", np.bool_),
            children=children,
            depth=depth,
            outputs=outputs,
        )


@njit(cache=True)
def evaluate_trees(trees: BoostedTrees, inputs: Floats32) -> Floats:
    """(N, F) float32 -> (N, outputs)."""
    roots, groups, feature, threshold, missing_left, children, depth, outputs = trees
    out = np.zeros((inputs.shape[0], outputs))
    nodes = np.empty(_BLOCK, np.int64)
    # Tree by tree over a block of rows, level by level and without a branch: a tree fits into the fastest cache, and
    # the walks of the rows don't wait for each other.
    for begin in range(0, inputs.shape[0], _BLOCK):
        rows = min(_BLOCK, inputs.shape[0] - begin)
        for r in range(len(roots)):
            for i in range(rows):
                nodes[i] = roots[r]
            for _ in range(depth):
                for i in range(rows):
                    node = nodes[i]
                    value = inputs[begin + i, feature[node]]
                    left = (value < threshold[node]) | (np.isnan(value) & missing_left[node])
                    nodes[i] = children[node, np.int64(left)]
            for i in range(rows):
                out[begin + i, groups[r]] += threshold[nodes[i]]
    return out


class ValueModel(NamedTuple):
    """Forecasts slopes of the value of stored energy, one output per piece of the charge range.

    Everything is learned in the asinh of price / typical price of the region, so that regions can be trained together.
    """

    trees: BoostedTrees


NO_MODEL = ValueModel(BoostedTrees.empty())
"""No value model: a MWh is worth the market's flat value."""


@njit(cache=True)
def predict_values(model: ValueModel, inputs: Floats32, price_scale: float) -> Floats:
    """(N, F) inputs -> (N, pieces) currency/MWh, falling with charge."""
    out = evaluate_trees(model.trees, tree_inputs(inputs))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = np.sinh(out[i, j] + inputs[i, 0]) * price_scale
            if j > 0:
                out[i, j] = min(out[i, j], out[i, j - 1])
    return out


def value_targets(slopes: Floats, prices: Floats, price_scale: float, delay: int) -> Floats:
    """What trees learn, per row t: asinh of the slopes of interval t + delay, as change from the price at t.

    ``slopes`` (N, pieces), ``prices`` (N,) -> (N, pieces); NaN in the last ``delay`` rows.
    """
    levels = np.arcsinh(slopes / price_scale)
    out = np.full_like(levels, np.nan)
    out[: len(out) - delay] = levels[delay:]
    return np.clip(out - np.arcsinh(prices / price_scale)[:, None], -4.0, 4.0)


def cross_fit(
    inputs: Floats32,
    targets: Floats,
    when: Integers,
    copies: Floats32,
    *,
    intervals: int,
    folds: int,
    purge: int,
    rounds: int = 80,
    seed: int,
    threads: int = 1,
) -> tuple[ValueModel, list[ValueModel], Integers]:
    """A model on all rows, and one per contiguous block of time that hasn't seen the block.

    In-sample forecasts would look better than those that the policy meets, and Q-learning would trust them too much.

    Parameters
    ----------
    inputs, targets : (N, F), (N, outputs); rows with NaN targets are left out of training.
    when : (N,) number of the interval of each row (regions share numbers).
    copies : (N, F) the same rows with some inputs missing, trained on as well.
    intervals : how many there are; ``when`` lies below.
    purge : intervals left out on both sides of a block.
    threads : fits at a time; doesn't change a number.

    Returns (final model, one model per block, ends of the blocks in interval numbers (folds + 1,)).
    """
    usable = np.asarray(np.isfinite(targets).all(axis=1))
    if usable.sum() < 25 * folds:
        raise ModelError(
            f"{int(usable.sum())} rows are too few to learn the value of stored energy",
            expected=f"at least {25 * folds}",
            remedy="train on a longer window",
        )
    edges = np.linspace(0, intervals, folds + 1).astype(np.int64)

    def fit(rows: Booleans) -> ValueModel:
        x = np.concatenate([inputs[rows], copies[rows]])
        y = np.concatenate([targets[rows], targets[rows]])
        return ValueModel(BoostedTrees.fit(x, y, rounds=rounds, seed=seed))

    outside = [usable & ((when < edges[i] - purge) | (when >= edges[i + 1] + purge)) for i in range(folds)]
    # The longest fit goes first, so that no core waits for it at the end.
    with ThreadPoolExecutor(threads) as pool:
        final, *models = pool.map(fit, [usable, *outside])
    return final, models, edges
