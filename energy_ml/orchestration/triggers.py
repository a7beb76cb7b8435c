"""When a retraining is due: the day, the version of its data, and whether somebody has done it already.

What belongs here: what schedule and sensor share, so that both ask for one run per day and data version.
What doesn't: the schedule and the sensor themselves.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence

import dagster as dg

from energy_ml.config import Settings
from energy_ml.errors import DataError, EnergyMLError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import METRICS_FILE, RETRAIN
from energy_ml.orchestration.partitions import PARTITION_TAG
from energy_ml.results import ResultsStore
from energy_ml.training_window import read_window

VERSION_TAG = "energy_ml/data_version"
"""Tag of a run: which version of the day's data it was asked for."""
STALE_TAG = "energy_ml/stale_as_of"
"""Tag of a run: as-of dates that were trained on data which has changed since."""
_SHORT = 16


def data_version(settings: Settings, lake: ParquetLake, day: dt.date) -> str:
    """Digest of the training window's rows of as-of date ``day``. Raises the DataErrors of an unusable window."""
    return read_window(settings, lake, day).fingerprint[:_SHORT]


def version_of_problem(error: DataError) -> str:
    """A stand-in for ``data_version`` where the window is unusable: one run per problem puts it on record."""
    return "unusable-" + hashlib.sha256(str(error).encode()).hexdigest()[:_SHORT]


def trained_on(settings: Settings, day: dt.date, version: str) -> bool:
    """Whether the results of ``day`` say that they were made from this version of its data."""
    try:
        made = ResultsStore(settings.results_dir).read(day, METRICS_FILE)["provenance"]
        return str(made["data_fingerprint"]).startswith(version)
    except (EnergyMLError, KeyError, TypeError):
        return False  # unreadable results are no reason not to make them again


def taken(instance: dg.DagsterInstance, settings: Settings, day: dt.date, version: str) -> str | None:
    """In words, who has trained ``day`` on ``version`` or is at it; None if nobody."""
    if trained_on(settings, day, version):
        return f"{day} is trained on this data (version {version})"
    runs = instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: day.isoformat()}), limit=50)
    newest = next((run for run in runs if VERSION_TAG in run.tags), None)
    if newest is None or newest.tags[VERSION_TAG] != version:
        return None
    return f"run {newest.run_id} for {day} and this data (version {version}) is {newest.status.value}"


def request(day: dt.date, version: str, *, run_key: str, tags: Mapping[str, str] | None = None) -> dg.RunRequest:
    """A run of the retraining for ``day``, tagged with its data version."""
    return dg.RunRequest(
        run_key=run_key,
        job_name=RETRAIN,
        partition_key=day.isoformat(),
        tags={VERSION_TAG: version, **(tags or {})},
    )


def short_days(days: Sequence[dt.date]) -> str:
    """Days in words, runs of them joined: ``2026-02-01..2026-02-03, 2026-02-07``."""
    parts: list[list[dt.date]] = []
    for day in sorted(set(days)):
        if parts and (day - parts[-1][-1]).days == 1:
            parts[-1].append(day)
        else:
            parts.append([day])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}..{p[-1]}" for p in parts)
