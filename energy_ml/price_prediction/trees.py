"""Boosted trees as flat arrays, for prediction without XGBoost's call overhead.

What belongs here: turning boosters into arrays and walking them. What doesn't: training, target spaces.

A booster call costs about 0.4 ms for one row whatever its size; the walk below costs some 15 ns per tree. The batch
path and the live path both use it, so that their numbers agree bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from energy_ml.arrays import Floats32, Unsigned32
from energy_ml.artifacts import Complete
from energy_ml.kernels import kernel, part

if TYPE_CHECKING:
    import xgboost as xgb


@dataclass(frozen=True)
class Forest(Complete):
    """Trees of one or more boosters over the same columns; output ``j`` is the sum of the trees of group ``j``.

    ``feature`` (n,) is the split column or -1 at a leaf; ``value`` (n,) the threshold or the leaf's weight; ``left``,
    ``right``, ``missing`` (n,) are node numbers; ``roots``, ``group`` (t,) belong to trees; ``base`` (k,) starts each
    sum.
    """

    feature: npt.NDArray[np.int32]
    value: Floats32
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    missing: npt.NDArray[np.int32]
    roots: npt.NDArray[np.int32]
    group: npt.NDArray[np.int32]
    base: Floats32

    def predict(self, rows: Floats32) -> Floats32:
        """Sums of leaf weights, shape (n, k), for ``rows`` (n, columns) float32; NaN follows the learned default."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        out = np.empty((len(rows), len(self.base)), dtype=np.float32)
        _walk(rows, *self._steps, self.group, self.base, out)
        return out

    @cached_property
    def _steps(self) -> tuple[Unsigned32, Floats32, Unsigned32, npt.NDArray[np.int32], Unsigned32]:
        """Columns, values, next nodes (4 n,), depths (t,) and roots (t,), laid out for stepping.

        Every node is a step, a leaf to itself, so that trees can be stepped side by side without asking which have
        ended; the next node stands at 4 * node + below the threshold + 2 * missing. Unsigned, as a compiled loop asks
        of any other number whether it is negative.
        """
        leaf = self.feature < 0
        own = np.arange(len(leaf))
        children = np.stack([self.right, self.left, self.missing, self.missing], axis=1)
        following = np.where(leaf[:, None], own[:, None], children).astype(np.uint32).reshape(-1)
        depths = np.zeros(len(self.roots), dtype=np.int32)
        trees, nodes = np.arange(len(self.roots)), self.roots
        while len(nodes):
            inner = ~leaf[nodes]
            trees, nodes = trees[inner], nodes[inner]
            depths[np.unique(trees)] += 1
            trees, nodes = np.tile(trees, 2), np.concatenate([self.left[nodes], self.right[nodes]])
        columns = np.where(leaf, 0, self.feature).astype(np.uint32)
        return columns, self.value, following, depths, self.roots.astype(np.uint32)


def flatten(boosters: Sequence[xgb.Booster]) -> Forest:
    """Concatenate boosters trained on the same columns; a booster with q outputs takes q consecutive groups."""
    trees: list[tuple[npt.NDArray[np.generic], ...]] = []
    roots: list[int] = []
    group: list[int] = []
    base: list[float] = []
    nodes = 0
    for booster in boosters:
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        outputs = _base_scores(learner["learner_model_param"])
        model = learner["gradient_booster"]["model"]
        for tree, output in zip(model["trees"], model["tree_info"], strict=True):
            lefts = np.asarray(tree["left_children"], dtype=np.int32)
            rights = np.asarray(tree["right_children"], dtype=np.int32)
            leaf, missing = lefts < 0, np.where(np.asarray(tree["default_left"]).astype(bool), lefts, rights)
            feature = np.where(leaf, -1, np.asarray(tree["split_indices"])).astype(np.int32)
            value = np.asarray(tree["split_conditions"], dtype=np.float32)
            following = [np.where(leaf, 0, to + nodes).astype(np.int32) for to in (lefts, rights, missing)]
            trees.append((feature, value, *following))
            roots.append(nodes)
            group.append(len(base) + int(output))
            nodes += len(lefts)
        base.extend(outputs)
    feature, value, left, right, missing = (np.concatenate(parts) for parts in zip(*trees, strict=True))
    of_trees = np.asarray(roots, dtype=np.int32), np.asarray(group, dtype=np.int32)
    return Forest(feature, value, left, right, missing, *of_trees, np.asarray(base, dtype=np.float32))


def _base_scores(parameters: dict[str, str]) -> list[float]:
    # XGBoost 3.1 began to write one score per output as "[a,b]"; before, one number served all outputs.
    scores = [float(part) for part in parameters["base_score"].strip("[]").split(",")]
    outputs = max(int(parameters.get("num_target", "1")), int(parameters.get("num_class", "0")), 1)
    return scores if len(scores) == outputs else scores[:1] * outputs


@part
def _turn(x: float, threshold: float) -> np.uint64:
    return np.uint64(x < threshold) + np.uint64(2) * np.uint64(x != x)


@kernel
def _walk(
    rows: Floats32,
    feature: Unsigned32,
    value: Floats32,
    following: Unsigned32,
    depths: npt.NDArray[np.int32],
    roots: Unsigned32,
    group: npt.NDArray[np.int32],
    base: Floats32,
    out: Floats32,
) -> None:
    for i in range(rows.shape[0]):
        for j in range(base.shape[0]):
            out[i, j] = base[j]
    trees, four = roots.shape[0], np.uint64(4)
    # Blocks of rows keep both the rows and the trees' nodes in cache.
    block = 256
    for start in range(0, rows.shape[0], block):
        stop = min(start + block, rows.shape[0])
        for t in range(0, trees, 4):
            # Four trees side by side: a processor waits for one tree's nodes while it steps the others.
            t1, t2, t3 = min(t + 1, trees - 1), min(t + 2, trees - 1), min(t + 3, trees - 1)
            depth = max(depths[t], depths[t1], depths[t2], depths[t3])
            for i in range(start, stop):
                a, b, c, d = roots[t], roots[t1], roots[t2], roots[t3]
                for _ in range(depth):
                    x, y, z, w = rows[i, feature[a]], rows[i, feature[b]], rows[i, feature[c]], rows[i, feature[d]]
                    a = following[four * a + _turn(x, value[a])]
                    b = following[four * b + _turn(y, value[b])]
                    c = following[four * c + _turn(z, value[c])]
                    d = following[four * d + _turn(w, value[d])]
                # One after the other: the order of a sum is part of its value.
                out[i, group[t]] += value[a]
                if t + 1 < trees:
                    out[i, group[t1]] += value[b]
                if t + 2 < trees:
                    out[i, group[t2]] += value[c]
                if t + 3 < trees:
                    out[i, group[t3]] += value[d]
