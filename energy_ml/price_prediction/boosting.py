"""Boosting on binned matrices that members, folds and horizons share.

What belongs here: the binned matrices, early stopping, fitting one booster. What doesn't: which members there are.

Binning costs as much as dozens of trees and keeps the largest array in memory, so it is done once per set of rows;
labels and weights are set anew for each fit. Rows that a horizon purges get weight zero rather than a matrix of their
own. Bin edges come from training rows only.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import xgboost as xgb

from energy_ml.arrays import Floats, Floats32, Integers
from energy_ml.price_prediction.ensemble import LARGEST_LEAF, Member

Inputs = Callable[[Integers], Floats32]
"""Input rows (k, columns) of row numbers (k,)."""
Parameters = dict[str, Any]
"""Of XGBoost."""
RoundCallback = Callable[[int, float], None]
"""Called after each boosting round with its number and the score on the validation rows (NaN without)."""


class BinnedRows:
    """Subsets of a window's rows as XGBoost matrices, each binned once.

    ``inputs`` gives the input rows (k, columns) float32 of k row numbers; ``reference`` (k,) are those that the bin
    edges are fitted on.
    """

    def __init__(self, inputs: Inputs, reference: Integers, max_bin: int) -> None:
        self._inputs, self._max_bin = inputs, max_bin
        self._reference = self._bin(reference, None)
        self._made: dict[bytes, xgb.QuantileDMatrix] = {reference.tobytes(): self._reference}

    def _bin(self, chosen: Integers, reference: xgb.QuantileDMatrix | None) -> xgb.QuantileDMatrix:
        return xgb.QuantileDMatrix(self._inputs(chosen), max_bin=self._max_bin, nthread=1, ref=reference)

    def labelled(self, chosen: Integers, target: Floats, weight: Floats) -> xgb.QuantileDMatrix:
        """The matrix of rows ``chosen`` (k,) with their ``target`` and ``weight`` (k,); NaN targets weigh 0."""
        key = chosen.tobytes()
        if key not in self._made:
            self._made[key] = self._bin(chosen, self._reference)
        matrix = self._made[key]
        known = np.isfinite(target)
        matrix.set_label(np.where(known, target, 0.0).astype(np.float32))
        matrix.set_weight(np.where(known, weight, 0.0).astype(np.float32))
        return matrix


class BinnedPool:
    """As many equal ``BinnedRows`` as fits run at a time, since a fit's labels live in its matrices."""

    def __init__(self, inputs: Inputs, reference: Integers, max_bin: int) -> None:
        self._make = partial(BinnedRows, inputs, reference, max_bin)
        self._free: list[BinnedRows] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[BinnedRows]:
        """Matrices for one fit, the caller's alone until the ``with`` block ends."""
        with self._lock:
            binned = self._free.pop() if self._free else None
        binned = binned or self._make()
        try:
            yield binned
        finally:
            with self._lock:
                self._free.append(binned)


class _RelativeEarlyStopping(xgb.callback.TrainingCallback):
    """Stop when ``patience`` rounds brought no relative improvement of ``threshold``; remembers the best round."""

    def __init__(self, patience: int, threshold: float, report: RoundCallback) -> None:
        self._patience, self._threshold, self._report = patience, threshold, report
        self._mark, self._mark_round = np.inf, 0
        self.best_score, self.best_round = np.inf, 0

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: Parameters) -> bool:
        """True ends training."""
        (scores,) = next(iter(evals_log.values())).values()
        score = float(scores[-1])
        if score < self.best_score:
            self.best_score, self.best_round = score, epoch
        if score < self._mark * (1 - self._threshold):
            self._mark, self._mark_round = score, epoch
        self._report(epoch + 1, score)
        return epoch - self._mark_round >= self._patience


class _Report(xgb.callback.TrainingCallback):
    def __init__(self, report: RoundCallback) -> None:
        self._report = report

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: object) -> bool:
        self._report(epoch + 1, float("nan"))
        return False


def booster_parameters(member: Member, rows: int, *, seed: int, max_bin: int, device: str) -> Parameters:
    """XGBoost parameters of a member for a fit on so many rows (of mean weight one)."""
    parameters = dict(member.params)
    if member.leaf_share:
        parameters["min_child_weight"] = min(max(member.leaf_share * rows, 1.0), LARGEST_LEAF)
    if "quantile_alpha" in parameters:
        parameters["quantile_alpha"] = np.asarray(parameters["quantile_alpha"])
    return parameters | {
        "tree_method": "hist",
        "max_bin": max_bin,
        "seed": seed,
        # Fits run side by side instead (see the trainer): on so few rows threads of one fit mostly wait for each other,
        # and one thread gives the same trees on every machine.
        "nthread": 1,
        "device": device,
        "verbosity": 1,
    }


def fit_stopped(
    member: Member,
    parameters: Parameters,
    train: xgb.QuantileDMatrix,
    validation: xgb.QuantileDMatrix,
    threshold: float,
    report: RoundCallback,
) -> tuple[xgb.Booster, int]:
    """Boost until validation rows stop improving. Returns the booster cut at its best round, and the rounds it has."""
    stopping = _RelativeEarlyStopping(member.patience, threshold, report)
    booster = xgb.train(
        parameters,
        train,
        member.rounds,
        evals=[(validation, "validation")],
        callbacks=[stopping],
        verbose_eval=False,
    )
    rounds = stopping.best_round + 1
    return booster[:rounds], rounds


def fit_rounds(parameters: Parameters, matrix: xgb.QuantileDMatrix, rounds: int, report: RoundCallback) -> xgb.Booster:
    """Boost a fixed number of rounds."""
    return xgb.train(parameters, matrix, rounds, callbacks=[_Report(report)])


def choose_device(enable_gpu: bool) -> str:
    """``cuda`` if wanted and there, else ``cpu``; warns when a wanted GPU isn't there."""
    if not enable_gpu:
        return "cpu"
    reason = "this build of XGBoost has no CUDA"
    if xgb.build_info().get("USE_CUDA", False):
        # XGBoost itself only warns and goes on without; raising inside its log callback would get lost.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            probe = xgb.QuantileDMatrix(np.zeros((2, 1), dtype=np.float32), label=np.array([0.0, 1.0]))
            try:
                xgb.train({"device": "cuda", "tree_method": "hist", "verbosity": 1}, probe, 1)
                complaints = [str(warning.message) for warning in caught]
            except xgb.core.XGBoostError as error:
                complaints = [str(error)]
        if not complaints:
            return "cuda"
        reason = complaints[0].strip().splitlines()[0]
    warnings.warn(
        f"enable_gpu is set but no GPU can be used ({reason}); training on the CPU. XGBoost with GPU code: "
        "pip uninstall xgboost-cpu, then pip install xgboost",
        stacklevel=2,
    )
    return "cpu"
