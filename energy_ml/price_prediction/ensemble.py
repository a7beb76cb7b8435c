"""The members of the ensemble and the presets that choose them.

What belongs here: what each member learns and how slowly, and how members are combined. What doesn't: fitting, gating.

The median of members that err differently is worth two to five points of relative error over the best single member; a
linear member is bad alone and good company. Slow learning with few columns per tree suits the few independent hours
that ten days hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from energy_ml.config import PricePredictionConfig
from energy_ml.price_prediction.conformal import QUANTILES

Array = npt.NDArray[np.float64]

VOLATILITY, ARCSINH = "volatility", "arcsinh"


@dataclass(frozen=True)
class Member:
    """One boosted member: its target space, XGBoost parameters, and limits of boosting."""

    name: str
    space: str
    params: tuple[tuple[str, Any], ...]
    rounds: int
    patience: int
    weight_power: float = 0.0
    """Rows are weighted by ``vol`` to this power: 0 learns relative moves, 1 learns currency."""

    @property
    def outputs(self) -> int:
        """Columns that the booster gives."""
        return len(QUANTILES) if self.name == "quantiles" else 1


@dataclass(frozen=True)
class Preset:
    """Everything that ``fast`` and ``best`` differ in."""

    members: tuple[Member, ...]
    quantiles: Member
    folds: int
    """Contiguous blocks of the cross-fit on training rows."""
    max_rows: int
    """Training rows per fit; more are thinned at random, as neighbouring minutes are nearly the same."""
    max_bin: int


def preset_of(config: PricePredictionConfig) -> Preset:
    """The preset that the config names. Its own numbers (trees, depth, rate, sampling) drive the ``brief`` member;
    the other members' limits of boosting are multiples of them."""
    own = (
        ("eta", config.learning_rate),
        ("max_depth", config.max_depth),
        ("subsample", config.subsample),
        ("colsample_bytree", config.colsample_bytree),
    )
    median = (("objective", "reg:absoluteerror"), ("eval_metric", "mae"))
    slow = (
        *median,
        ("eta", 0.04),
        ("max_depth", 6),
        ("min_child_weight", 20),
        ("subsample", 0.7),
        ("colsample_bytree", 0.4),
    )
    # A third of the rate needs some three times the trees, and a longer look before giving up.
    slowly = 3 * config.n_estimators, 2 * config.early_stopping_rounds
    brief = Member(
        "brief", VOLATILITY, (*median, *own, ("min_child_weight", 5)), config.n_estimators, config.early_stopping_rounds
    )
    quantiles = Member(
        "quantiles",
        ARCSINH,
        (
            ("objective", "reg:quantileerror"),
            ("quantile_alpha", QUANTILES),
            ("eval_metric", "quantile"),
            ("eta", 0.1),
            ("max_depth", 5),
            ("min_child_weight", 10),
            ("subsample", 0.7),
            ("colsample_bytree", 0.4),
        ),
        config.n_estimators,
        max(config.early_stopping_rounds * 3 // 4, 1),
    )
    if config.preset == "fast":
        return Preset((brief,), quantiles, folds=3, max_rows=12_000, max_bin=128)
    return Preset(
        (
            Member("volatility", VOLATILITY, slow, *slowly, weight_power=0.5),
            Member("arcsinh", ARCSINH, slow, *slowly),
            brief,
        ),
        quantiles,
        folds=3,
        max_rows=16_000,
        max_bin=128,
    )


def combine(members: Array) -> Array:
    """The ensemble's forecast from its members' (n, members): their median, shape (n,)."""
    return np.asarray(np.median(members, axis=1))
