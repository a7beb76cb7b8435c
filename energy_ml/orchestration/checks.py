"""Freshness and drift: checks that tell, in words and numbers, whether a day's input and results are as usual.

What belongs here: what is compared and how it is said; which checks block is a setting. What doesn't: statistics
(``evaluation.metrics``), and checks of an asset's own correctness, which stand beside the asset.
Concept: https://docs.dagster.io/guides/test/asset-checks
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from energy_ml.config import OperationsConfig, Settings
from energy_ml.errors import DataError
from energy_ml.evaluation.metrics import forecast_metrics, ks_distance, population_stability_index
from energy_ml.features import feature_family
from energy_ml.market_data.lake import ParquetLake
from energy_ml.orchestration.metadata import to_metadata
from energy_ml.orchestration.triggers import expected_day
from energy_ml.splits import TimeSplit
from energy_ml.training_window import newest

_SAMPLE = 4000
"""Rows that a feature's distribution is taken from; more change the index by less than it wavers from day to day."""
_CALENDAR = "time"


def spec(settings: Settings, name: str, asset: dg.AssetKey, description: str) -> dg.AssetCheckSpec:
    """The check ``name`` on ``asset``; it blocks if the settings say so."""
    return dg.AssetCheckSpec(
        name, asset=asset, blocking=name in settings.operations.blocking_checks, description=description
    )


def result(
    settings: Settings, name: str, passed: Any, description: str, metadata: dict[str, Any] | None = None
) -> dg.AssetCheckResult:
    """The outcome: a warning, or an error if the settings let the check block."""
    blocks = name in settings.operations.blocking_checks
    return dg.AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        severity=dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=to_metadata(metadata or {}),
    )


def data_recent(settings: Settings, lake: ParquetLake, now: dt.datetime) -> dg.AssetCheckResult:
    """Whether the newest day that should be there by ``now`` is there, whichever day is being trained."""
    expected = expected_day(settings.operations, now)
    if settings.end_date is not None:
        expected = min(expected, settings.end_date)
    try:
        last = newest(settings, lake)
    except DataError as error:
        return result(settings, "data_recent", False, str(error))
    late = (expected - last).days
    words = f"the newest complete day is {last}; {expected} was expected by now"
    return result(
        settings,
        "data_recent",
        late <= 0,
        words if late <= 0 else f"input is {late} day{'s' if late > 1 else ''} late: {words}",
        {"days_late": max(late, 0)},
    )


def regions_present(settings: Settings, prices: pd.DataFrame, problems: Sequence[Any]) -> dg.AssetCheckResult:
    """Whether every region that is chosen, or that any file knows, is in the window."""
    found = sorted(map(str, prices["region"].unique()))
    absent = sorted({str(p.example) for p in problems if p.kind == "region_absent"})
    total = len(found) + len(absent)
    words = f"{len(found)} of {total} regions in the window: {', '.join(found)}"
    return result(
        settings,
        "regions_present",
        not absent,
        words if not absent else f"{words}; without prices: {', '.join(absent)}",
    )


def features_stable(
    settings: Settings, features: pd.DataFrame, names: Sequence[str], split: TimeSplit
) -> dg.AssetCheckResult:
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
    return result(
        settings,
        "features_stable",
        middle <= limit,
        f"newest day against training part: median PSI {middle:.2f} (limit {limit:g}), {beyond} of {len(table)} "
        f"features beyond it; most moved: {top}",
        {"median_psi": middle, "features_beyond": beyond, "most_moved": table.head(15)},
    )


def newest_day_as_promised(operations: OperationsConfig, forecasts: pd.DataFrame) -> tuple[bool, str, pd.DataFrame]:
    """The newest day's error beside that on validation, both relative to "the price stays", by horizon."""
    newest = forecasts["timestamp"] >= forecasts["timestamp"].max().floor("D")
    parts = {
        "promised": forecasts[forecasts["split"] == "validation"],
        "newest": forecasts[(forecasts["split"] == "test") & newest],
    }
    ratios = {
        name: forecast_metrics(part, by=["horizon_minutes"], significance=False).set_index("horizon_minutes")["rmae"]
        for name, part in parts.items()
    }
    table = pd.DataFrame(ratios)
    table["growth"] = table["newest"] / table["promised"]
    bad = table[table["growth"] > operations.max_error_growth]
    words = ", ".join(
        f"{h} min: {row['newest']:.3f} against {row['promised']:.3f}" for h, row in table.to_dict("index").items()
    )
    said = f"newest day's error over that of 'the price stays', against validation: {words}"
    return bad.empty, said, table.reset_index()


def _sample(values: pd.Series) -> np.ndarray:
    found = values.to_numpy(dtype=np.float64)
    found = found[np.isfinite(found)]
    return found[:: max(len(found) // _SAMPLE, 1)]
