"""Freshness and drift: checks that tell, in words and numbers, whether a day's input and results are as usual.

What belongs here: what is compared and how it is said; which checks block is a setting. What doesn't: statistics
(``evaluation.metrics``), and checks of a step's own correctness, which stand in the step (``day``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats
from energy_ml.config import Settings
from energy_ml.display import shown_names
from energy_ml.errors import DataError
from energy_ml.evaluation.metrics import forecast_metrics, ks_distance, population_stability_index
from energy_ml.features import feature_family
from energy_ml.features.covariates import covariate_of
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.schema import DataProblem
from energy_ml.names import TIMESTAMP
from energy_ml.parts import Frames, chosen, frames_of
from energy_ml.splits import TimeSplit
from energy_ml.training_window import due_day, newest

_SAMPLE = 4000
"""Rows that a feature's distribution is taken from; more change the index by less than it wavers from day to day."""
_CALENDAR = "time"
_KNOWN_SHARE = 0.9


@dataclass(frozen=True)
class Check:
    """What a check found: whether it passed, in words, with figures. Whether it stops a run is not its affair."""

    name: str
    passed: bool
    words: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


def data_recent(settings: Settings, lake: ParquetLake, now: dt.datetime) -> Check:
    """Whether the newest day that should be there by ``now`` is there, whichever day is being trained."""
    expected = due_day(settings, now)
    try:
        last = newest(settings, lake)
    except DataError as error:
        return Check("data_recent", False, str(error))
    late = (expected - last).days
    words = f"the newest complete day is {last}; {expected} was expected by now"
    return Check(
        "data_recent",
        late <= 0,
        words if late <= 0 else f"input is {late} day{'s' if late > 1 else ''} late: {words}",
        {"days_late": max(late, 0)},
    )


def covariates_known(prices: pd.DataFrame) -> Check:
    """Whether at most of the newest day's prices something is known of each covariate; forecasts do without it."""
    newest = prices[prices[TIMESTAMP] >= prices[TIMESTAMP].max().floor("D")]
    columns = {name: c for c in prices.columns if (name := covariate_of(str(c))) is not None}
    shares = {name: float(newest[column].notna().mean()) for name, column in columns.items()}
    words = ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "no covariates"
    return Check(
        "covariates_known",
        all(share >= _KNOWN_SHARE for share in shares.values()),
        f"known at the newest day's prices: {words}",
    )


def regions_present(prices: pd.DataFrame, problems: Sequence[DataProblem]) -> Check:
    """Whether every region that is chosen, or that any file knows, is in the window."""
    found = sorted(map(str, prices["region"].unique()))
    absent = sorted({str(p.example) for p in problems if p.kind == "region_absent"})
    total = len(found) + len(absent)
    words = f"{len(found)} of {total} regions in the window: {shown_names(found)}"
    return Check(
        "regions_present", not absent, words if not absent else f"{words}; without prices: {shown_names(absent)}"
    )


def features_stable(settings: Settings, features: pd.DataFrame, names: Sequence[str], split: TimeSplit) -> Check:
    """Whether the newest day's features are distributed as in the training part.

    Days differ, and a day's values hang together, so single features beyond the threshold are usual; the check fails
    when their median is beyond it. Calendar features are left out: one day can't be distributed as a week.
    """
    limit = settings.operations.max_psi
    newest = features["timestamp"] >= split.end - pd.Timedelta(days=1)
    train = split.mask(features["timestamp"], "train")
    rows = []
    for name in names:
        if feature_family(name) == _CALENDAR:
            continue
        before, after = (_sample(features.loc[mask, name]) for mask in (train, newest))
        if len(before) and len(after):
            rows.append(
                {
                    "feature": name,
                    "psi": population_stability_index(before, after),
                    "ks": ks_distance(before, after),
                    "train_median": float(np.median(before)),
                    "newest_median": float(np.median(after)),
                }
            )
    table = pd.DataFrame(rows, columns=["feature", "psi", "ks", "train_median", "newest_median"])
    table = table.sort_values("psi", ascending=False, ignore_index=True)
    beyond = int((table["psi"] > limit).sum())
    middle = float(table["psi"].median()) if len(table) else 0.0
    top = "; ".join(f"{r['feature']} {r['psi']:.2f}" for r in table.head(3).to_dict("records"))
    return Check(
        "features_stable",
        middle <= limit,
        f"newest day against training part: median PSI {middle:.2f} (limit {limit:g}), {beyond} of {len(table)} "
        f"features beyond it; most moved: {top}",
        {"median_psi": middle, "features_beyond": beyond, "most_moved": table.head(15)},
    )


def intervals_honest(settings: Settings, test: pd.DataFrame, level: float) -> Check:
    """Whether intervals cover about as much as they promise; ``test`` has a row with ``coverage`` per horizon."""
    limit = settings.operations.max_coverage_gap
    found = ", ".join(f"{r['horizon_minutes']} min: {r['coverage']:.1%}" for r in test.to_dict("records"))
    honest = bool((test["coverage"] - level).abs().le(limit).all())
    return Check("intervals_honest", honest, f"{level:.0%} promised, {limit:.0%} either way allowed; {found}")


def beats_threshold_rule(policy: float, threshold: float) -> Check:
    """Whether the policy's share of the optimum is above that of the threshold rule."""
    return Check(
        "beats_threshold_rule",
        bool(policy > threshold),
        f"{policy:.1%} of the optimum against {threshold:.1%}",
        {"share_of_optimum": policy, "share_of_threshold_rule": threshold},
    )


def newest_day_as_promised(settings: Settings, forecasts: Frames) -> Check:
    """The newest day's error beside that on validation, both relative to "the price stays", by horizon."""
    tested = chosen(forecasts, {"split": ["test"]})
    day = max(frame["timestamp"].max() for frame in frames_of(tested)).floor("D")
    parts = {
        "promised": chosen(forecasts, {"split": ["validation"]}),
        "newest": pd.concat([frame[frame["timestamp"] >= day] for frame in frames_of(tested)]),
    }
    ratios = {
        name: forecast_metrics(part, by=["horizon_minutes"], significance=False).set_index("horizon_minutes")["rmae"]
        for name, part in parts.items()
    }
    table = pd.DataFrame(ratios)
    table["growth"] = table["newest"] / table["promised"]
    kept = bool((table["growth"] <= settings.operations.max_error_growth).all())
    words = ", ".join(
        f"{h} min: {row['newest']:.3f} against {row['promised']:.3f}" for h, row in table.to_dict("index").items()
    )
    said = f"newest day's error over that of 'the price stays', against validation: {words}"
    return Check("newest_day_as_promised", kept, said, {"by_horizon": table.reset_index()})


def _sample(values: pd.Series) -> Floats:
    found = values.to_numpy(dtype=np.float64)
    found = found[np.isfinite(found)]
    return np.asarray(found[:: max(len(found) // _SAMPLE, 1)])
