"""The members of the ensemble and the presets that choose them.

What belongs here: what each member learns and how slowly, and how members are combined. What doesn't: fitting, gating.

Members that err differently are worth one to five points of relative error over a single one; a linear member is bad
alone and good company. Slow learning with few columns per tree suits the few independent hours that ten days hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from energy_ml.arrays import Floats
from energy_ml.config import PricePredictionConfig
from energy_ml.price_prediction.conformal import QUANTILES

VOLATILITY, ARCSINH = "volatility", "arcsinh"
LARGEST_LEAF = 150.0
USUAL_DAYS = 7.0
"""Days of the training part that the presets' rows and trees are meant for: those of a ten-day window."""
_LARGEST_GROWTH = 4.0
"""A longer training part has at most so many times these rows."""


@dataclass(frozen=True)
class Member:
    """One boosted member: its target space, XGBoost parameters, and limits of boosting."""

    name: str
    space: str
    params: tuple[tuple[str, object], ...]
    rounds: int
    patience: int
    weight_power: float = 0.0
    """Rows are weighted by ``vol`` to this power: 0 learns relative moves, 1 learns currency."""
    recency: float | None = None
    """Half-life of a row's weight as a fraction of the time that the fit spans; None weighs all times alike."""
    leaf_share: float = 0.0
    """Smallest weight of a leaf as a share of all rows, at most ``LARGEST_LEAF`` rows."""

    @property
    def outputs(self) -> int:
        """Columns that the booster gives."""
        return len(QUANTILES) if self.name == "quantiles" else 1


@dataclass(frozen=True)
class Preset:
    """Everything that ``fast`` and ``best`` differ in."""

    members: tuple[Member, ...]
    quantiles: Member
    with_history: Member
    """The quantiles' member where the time before the window teaches too."""
    folds: int
    """Contiguous blocks of the cross-fit on training rows."""
    max_rows: int
    """Training rows per fit; more are thinned at random, as neighbouring minutes are nearly the same."""
    max_bin: int

    def for_span(self, days: float, *, history: bool = False) -> Preset:
        """The preset for a training part of so many days, with ``history`` before it or without.

        Neighbouring minutes are nearly the same, other days aren't: a longer part may use more rows. Thinned to the
        rows of a week, a month teaches little more than a week (measured on 30 and 60 days: half of the gain of the
        longer window, or all of it, was lost).
        """
        growth = min(max(days / USUAL_DAYS, 1.0), _LARGEST_GROWTH)
        quantiles = self.with_history if history else self.quantiles
        return replace(self, max_rows=round(self.max_rows * growth), quantiles=quantiles)


def preset_of(config: PricePredictionConfig) -> Preset:
    """The preset that the config names. Its own numbers (depth, rate, sampling) are those of the ``brief`` member; the
    others' follow them in proportion. ``n_estimators`` is every member's most trees."""
    median = (("objective", "reg:absoluteerror"), ("eval_metric", "mae"))
    own = _proportional(config)
    rounds, patience = config.n_estimators, config.early_stopping_rounds
    brief = Member("brief", VOLATILITY, (*median, *own, ("min_child_weight", 5)), rounds, patience)
    # Wide leaves: ten days hold only some hundred independent hours, and narrow leaves remember single ones.
    steady = _proportional(config, eta=0.06, max_depth=4, subsample=0.5, colsample_bytree=0.3)
    volatility = Member(
        "volatility",
        VOLATILITY,
        (*median, *steady),
        rounds,
        2 * patience,
        weight_power=0.3,
        recency=0.35,
        leaf_share=0.012,
    )
    arcsinh = Member("arcsinh", ARCSINH, (*median, *steady), rounds, 2 * patience, recency=0.35, leaf_share=0.012)

    def quantiles(patience: float, eta: float, max_depth: int, subsample: float, colsample: float) -> Member:
        own = _proportional(config, eta, max_depth, subsample, colsample)
        objective = ("objective", "reg:quantileerror"), ("quantile_alpha", QUANTILES), ("eval_metric", "quantile")
        params = (*objective, ("min_child_weight", 10), *own)
        return Member("quantiles", ARCSINH, params, rounds, max(int(config.early_stopping_rounds * patience), 1))

    # Seven outputs make the quantiles half of all work; at double the rate it is halved. With history nothing
    # is lost; in ten days the online calibration makes good most of the difference (Winkler score 1 to 2 % wider).
    if config.preset == "fast":
        quick = quantiles(0.375, 0.2, 4, 0.5, 0.25)
        return Preset((volatility, brief), quick, quick, folds=3, max_rows=12_000, max_bin=64)
    slow, quick = quantiles(0.75, 0.1, 5, 0.7, 0.4), quantiles(0.375, 0.2, 5, 0.7, 0.4)
    return Preset((volatility, arcsinh, brief), slow, quick, folds=3, max_rows=16_000, max_bin=128)


def _proportional(
    config: PricePredictionConfig,
    eta: float = PricePredictionConfig.learning_rate,
    max_depth: int = PricePredictionConfig.max_depth,
    subsample: float = PricePredictionConfig.subsample,
    colsample_bytree: float = PricePredictionConfig.colsample_bytree,
) -> tuple[tuple[str, float], ...]:
    """A member's parameters: those given at the config's defaults, else as many times them as the config's are its
    defaults."""
    usual = PricePredictionConfig
    return (
        ("eta", min(eta * (config.learning_rate / usual.learning_rate), 1.0)),
        ("max_depth", max(round(max_depth * (config.max_depth / usual.max_depth)), 1)),
        ("subsample", min(subsample * (config.subsample / usual.subsample), 1.0)),
        ("colsample_bytree", min(colsample_bytree * (config.colsample_bytree / usual.colsample_bytree), 1.0)),
    )


def combine(forecasts: Floats, members: Sequence[Member]) -> Floats:
    """The ensemble's forecast (n,) from its members' (n, members + linear); NaN where one is NaN.

    Half the median of all and half the mean of the steady members: where there are only three, the median alone gives
    the weak ones too much say.
    """
    ordered = np.sort(forecasts, axis=1)
    half = forecasts.shape[1] // 2
    # numpy's own median does the same and takes twenty times longer for one row.
    median = ordered[:, half] if forecasts.shape[1] % 2 else (ordered[:, half - 1] + ordered[:, half]) / 2
    steady = [place for place, member in enumerate(members) if member.recency is not None]
    # Added one by one, so that one row gives the same bits as many.
    total = forecasts[:, steady[0]]
    for place in steady[1:]:
        total = total + forecasts[:, place]
    return np.where(np.isnan(ordered[:, -1]), np.nan, (median + total / len(steady)) / 2)
