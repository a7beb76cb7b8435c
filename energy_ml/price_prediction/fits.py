"""The fits of one horizon: their order, which rows each may see, and the out-of-sample forecasts that they make.

What belongs here: targets, weights, folds, early stopping and refit of the members. What doesn't: gate, calibration,
how a booster is fitted.

Train rows are forecast by cross-fitted members (contiguous blocks, purged) or, where there is history, by members that
saw that alone; validation rows by members that saw nothing later; test rows by the final members, refitted on
validation rows too.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb
from threadpoolctl import threadpool_limits

from energy_ml import blocks
from energy_ml.arrays import Booleans, Floats, Floats32, Integers
from energy_ml.config import PricePredictionConfig
from energy_ml.features.feature_rows import BlockMaker, Given
from energy_ml.price_prediction.boosting import Parameters, RoundCallback, booster_parameters, fit_rounds, fit_stopped
from energy_ml.price_prediction.conformal import QUANTILES
from energy_ml.price_prediction.design import Design, from_volatility, to_arcsinh, to_volatility
from energy_ml.price_prediction.ensemble import ARCSINH, VOLATILITY, Member, Preset
from energy_ml.price_prediction.linear import MedianRegression
from energy_ml.price_prediction.model import Fitted
from energy_ml.price_prediction.prepared import HISTORY, PreparedWindow
from energy_ml.progress import ProgressCallback

_REFIT_FACTOR = 1.1
"""The refit sees more rows, so it gets that many more trees than early stopping found, up to ``n_estimators``."""

BLOCK_ROWS = 65_536
"""Rows forecast at a time."""


def refit_rounds(member: Member, stopped: int) -> int:
    """Rounds of the final fit.

    Stopping on a day and a half is a noisy measurement: for members with a recency (wide leaves, no harm in more trees)
    the count is the geometric mean of what was measured and of the limit.
    """
    scaled = stopped * _REFIT_FACTOR
    wanted = round((scaled * member.rounds) ** 0.5 if member.recency is not None else scaled)
    return min(max(wanted, 1), member.rounds)


class Meter:
    """Turns the boosting rounds of fits that run side by side into one fraction: each fit has a fixed share of it."""

    def __init__(self, progress: ProgressCallback | None, preset: Preset) -> None:
        self._progress = progress
        self._total = sum(member.rounds * member.outputs for member in [*preset.members, preset.quantiles])
        self._done = 0.0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def fit(self, stage: str, member: Member, share: float, rounds: int) -> Iterator[RoundCallback]:
        """What one fit calls after each round: it is ``share`` of the member's whole work and may take ``rounds``.

        At the end the rest is counted, since early stopping skips rounds.
        """
        share *= member.rounds * member.outputs / self._total
        reported = 0.0

        def report(number: int, score: float) -> None:
            nonlocal reported
            part = max(min(number / rounds, 1.0) - reported, 0.0)
            reported += part
            known = {"score": score} if np.isfinite(score) else {}
            self._add(share * part, {"stage": stage, "round": number} | known)

        yield report
        self._add(share * (1.0 - reported), {"stage": stage})

    def _add(self, part: float, metrics: dict[str, object]) -> None:
        with self._lock:
            self._done += part
            if self._progress is not None:
                self._progress(min(self._done, 1.0), metrics)


class OutOfSample:
    """What the fits forecast of rows that they haven't seen: ``ensemble`` (R, T), prices, and quantiles by block.

    ``rows`` are the block and the rows of each array of ``made``: (k, 1 + quantiles).
    """

    def __init__(
        self, window: PreparedWindow, rows: list[tuple[int, Integers]], made: list[Floats] | blocks.Kept
    ) -> None:
        self._window, self._rows, self._made = window, rows, made
        self.ensemble = np.full(window.price.shape[::-1], np.nan)
        for (_, own), part in zip(rows, made, strict=True):
            self.ensemble[window.places(own)] = part[:, 0]

    def quantiles(self, block: int) -> Floats:
        """Of a block's regions, (regions, T, quantiles); NaN where there are none. What memory holds is given once."""
        regions = self._window.rows.places[block]
        spread = np.full((len(regions), len(self._window.times), len(QUANTILES)), np.nan)
        for number, (own_block, own) in enumerate(self._rows):
            if own_block == block:
                places, instants = self._window.places(own)
                spread[np.searchsorted(regions, places), instants] = self._made[number][:, 1:]
                if isinstance(self._made, list):
                    self._made[number] = np.empty((0, 0))
        return spread


class HorizonFits:
    """All fits of one horizon of ``steps`` intervals, and the out-of-sample forecasts they make."""

    def __init__(
        self,
        window: PreparedWindow,
        steps: int,
        config: PricePredictionConfig,
        threads: int = 1,
        parallel: str = "threads",
        device: str = "cpu",
        progress: ProgressCallback | None = None,
    ) -> None:
        self.window, self.steps, self.config, self.device = window, steps, config, device
        self.parallel = parallel
        self.threads = 1 if device == "cuda" else threads
        self.meter = Meter(progress, window.preset)
        self.members, self.quantiles = window.preset.members, window.preset.quantiles
        stamps = window.times
        minutes = steps * window.interval_minutes
        # Instants (T,) in whose part the target lies too: only their rows may teach.
        self.inside = {name: window.split.mask(stamps, name, minutes) for name in ("train", "validation")}
        ahead, old = stamps + pd.Timedelta(minutes=minutes), window.part == HISTORY
        teaches = old | (stamps >= window.split.start)
        self.history = np.asarray(old & (ahead < window.split.start))
        self.before_validation = np.asarray(teaches & (ahead < window.split.train_end))
        self.before_test = np.asarray(teaches & (ahead < window.split.val_end))
        # Where there is history, that alone forecasts the training part.
        self.teachers = "history" if len(window.chosen["history"]) else "train"
        self.folds = [(window.part == 0, self.history)] if self.teachers == "history" else self._folds()

    def run(self, kept_in: Path | None = None) -> tuple[OutOfSample, Fitted, dict[str, int]]:
        """What is forecast out of sample, the final fit, rounds per member. ``kept_in``: see ``blocks.kept``."""
        window, chosen, teachers = self.window, self.window.chosen, self.window.chosen[self.teachers]
        every = [*self.members, self.quantiles]
        # Each fit has one thread of its own and shares nothing that it writes: their order can't change a number.
        # BLAS would start threads of its own in each, which wait for each other at full load: twice the time.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self.threads) as pool:
            # A member whose rounds are known needn't wait for the others': quantiles, the last, take longest.
            first, rounds, final_jobs = [], {}, []
            fold_jobs: list[list[Future[xgb.Booster]]] = [[] for _ in self.folds]
            for member, stopping in [(member, pool.submit(self._stop, member)) for member in every]:
                booster, count = stopping.result()
                first.append(booster)
                rounds[member.name], most = count, refit_rounds(member, count)
                final_jobs.append(pool.submit(self._fit, member, "refit", self.before_test, most))
                for jobs_of_fold, (_, allowed) in zip(fold_jobs, self.folds, strict=True):
                    jobs_of_fold.append(pool.submit(self._fit, member, "cross-fit", allowed, count))
            made = [(pool.submit(self._fitted, first, chosen["before"], self.before_validation), window.part == 1)]
            boosters = [job.result() for job in final_jobs]
            final = pool.submit(self._fitted, boosters, chosen["all"], self.before_test)
            made.append((final, window.part == 2))
            for (held_out, allowed), fold in zip(self.folds, fold_jobs, strict=True):
                boosters = [job.result() for job in fold]
                made.append((pool.submit(self._fitted, boosters, teachers, allowed), held_out))
            fitted = [(job.result(), where) for job, where in made]
            # Several blocks are made once each; of one, its parts are shared out.
            jobs = [
                (block, pairs)
                for block in range(len(window.rows.blocks))
                for pairs in ([fitted] if len(window.rows.blocks) > 1 else [[pair] for pair in fitted])
            ]
            work = (self._job(*job) for job in jobs)
            done: list[Floats] | blocks.Kept
            if kept_in is None:
                done = list(blocks.map(_forecast, work, parallel=self.parallel, workers=self.threads))
            else:
                done = blocks.kept(_forecast, work, kept_in, parallel=self.parallel, workers=self.threads)
        rows = [(block, np.concatenate([self._rows(block, where) for _, where in pairs])) for block, pairs in jobs]
        return OutOfSample(window, rows, done), final.result(), rounds

    def validation_losses(self) -> Floats:
        """Mean absolute error over regions at each instant of the validation part with an outcome, (n,), of the first
        member alone, which saw nothing later than training."""
        window = self.window
        booster, _ = self._stop(self.members[0])
        rows = window.chosen["validation"]
        rows = rows[self.inside["validation"][window.places(rows)[1]]]
        made = from_volatility(
            window.ahead(rows, 0), booster.inplace_predict(window.inputs(rows)), window.volatility(rows)
        )
        loss = pd.Series(np.abs(made - window.ahead(rows, self.steps, measured=True)))
        return np.asarray(loss.groupby(window.places(rows)[1]).mean().dropna(), dtype=np.float64)

    def _folds(self) -> list[tuple[Booleans, Booleans]]:
        """(held-out instants, instants that may teach) of each contiguous block of training time, purged on both
        sides; (T,) each."""
        train = self.window.part == 0
        taught = self.window.places(np.flatnonzero(train[self.window.places()[1]]))[1]
        low, high = int(taught.min()), int(taught.max()) + 1
        edges = np.linspace(low, high, self.window.preset.folds + 1).astype(np.int64)
        instant = np.arange(len(train))
        folds = []
        for begin, end in pairwise(edges):
            inside = (instant >= begin) & (instant < end)
            # Before the block targets may not reach into it; after it, features still show its last targets.
            near = (instant >= begin - self.steps) & (instant < end + self.steps)
            folds.append((train & inside, self.inside["train"] & ~near))
        return folds

    def _parameters(self, member: Member, rows: Integers) -> Parameters:
        seed, max_bin = self.config.random_state, self.window.preset.max_bin
        return booster_parameters(member, len(rows), seed=seed, max_bin=max_bin, device=self.device)

    def _target(self, space: str, rows: Integers) -> Floats:
        """What a member of this space learns for each of ``rows``, (len(rows),)."""
        window = self.window
        now, future = window.ahead(rows, 0), window.ahead(rows, self.steps, measured=True)
        if space == ARCSINH:
            return to_arcsinh(now, future, window.design.price_scale)
        return to_volatility(now, future, window.volatility(rows))

    def _weights(self, member: Member, rows: Integers, teaches: Booleans, recent: bool) -> Floats:
        """Weights (len(rows),) with mean one over the rows that teach."""
        window = self.window
        weight = np.ones(len(rows))
        if member.weight_power:
            # A few wild hours must not own the fit.
            cap = np.nanquantile(window.volatility(window.chosen["train"]), 0.995)
            weight = np.minimum(np.nan_to_num(window.volatility(rows), nan=0.0), cap) ** member.weight_power
        if recent and member.recency is not None:
            instant = window.places(rows)[1]
            newest, oldest = instant.max(), instant.min()
            half_life = max(member.recency * float(newest - oldest), 1.0)
            weight = weight * 0.5 ** ((newest - instant) / half_life)
        weight = np.where(teaches, weight, 0.0)
        mean = weight.sum() / max(np.count_nonzero(weight), 1)
        return weight / mean if mean > 0 else weight

    def _labels(
        self, member: Member, rows: Integers, allowed: Booleans, *, recent: bool
    ) -> tuple[Integers, Floats, Floats]:
        """Rows with their targets and weights."""
        target = self._target(member.space, rows)
        teaches = allowed[self.window.places(rows)[1]] & np.isfinite(target)
        return rows, target, self._weights(member, rows, teaches, recent)

    def _stop(self, member: Member) -> tuple[xgb.Booster, int]:
        before, later = self.window.chosen["before"], self.window.chosen["validation"]
        with (
            self.meter.fit(f"{member.name}: early stopping", member, 0.4, member.rounds) as report,
            self.window.binned.borrow() as binned,
        ):
            train = binned.labelled(*self._labels(member, before, self.before_validation, recent=True))
            judge = binned.labelled(*self._labels(member, later, self.inside["validation"], recent=False))
            threshold = self.config.early_stopping_threshold
            return fit_stopped(member, self._parameters(member, before), train, judge, threshold, report)

    def _fit(self, member: Member, stage: str, allowed: Booleans, rounds: int) -> xgb.Booster:
        refit = stage == "refit"
        rows = self.window.chosen["all" if refit else self.teachers]
        with (
            self.meter.fit(
                f"{member.name}: {stage}", member, 0.3 if refit else 0.3 / len(self.folds), rounds
            ) as report,
            self.window.binned.borrow() as binned,
        ):
            matrix = binned.labelled(*self._labels(member, rows, allowed, recent=refit))
            return fit_rounds(self._parameters(member, rows), matrix, rounds, report)

    def _fitted(self, boosters: list[xgb.Booster], rows: Integers, allowed: Booleans) -> Fitted:
        target = self._target(VOLATILITY, rows)
        used = allowed[self.window.places(rows)[1]] & np.isfinite(target)
        linear = MedianRegression.fit(self.window.inputs(rows[used]), np.clip(target[used], -30.0, 30.0))
        return Fitted.of(self.members, self.quantiles, boosters, linear)

    def _rows(self, block: int, where: Booleans) -> Integers:
        """Rows of a block at the instants ``where`` (T,)."""
        rows = self.window.rows.blocks[block]
        return np.asarray(rows.start + np.flatnonzero(where[self.window.places(rows)[1]]))

    def _job(self, block: int, pairs: Sequence[tuple[Fitted, Booleans]]) -> _Job:
        rows = self.window.rows
        first = rows.blocks[block].start
        return rows.maker(block), self.window.design, [(one, self._rows(block, where) - first) for one, where in pairs]


_Job = tuple[Given | BlockMaker, Design, list[tuple[Fitted, Integers]]]
"""What makes a block's features, and who forecasts which of its rows."""


def _forecast(job: _Job) -> Floats:
    """Price and quantiles (k, 1 + quantiles) of the k rows of the job's sets, one set after the other."""
    make, design, pairs = job
    frame, done = make(), []
    for fitted, rows in pairs:
        for start in range(0, max(len(rows), 1), BLOCK_ROWS):
            asked = _asked(design, frame.iloc[rows[start : start + BLOCK_ROWS]], make.price_col)
            done.append(np.column_stack(fitted.forecast(*asked)))
    return np.concatenate(done)


def _asked(design: Design, frame: pd.DataFrame, price_col: str) -> tuple[Floats32, Floats, Floats, Design, Integers]:
    price = frame[price_col].to_numpy(dtype=np.float64)
    return design.rows(frame, price_col), price, design.volatility(frame), design, design.region_codes(frame)
