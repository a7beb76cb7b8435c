"""Partitions: one key is one as-of date D, "everything known at the end of day D" (UTC).

What belongs here: the two daily definitions and the one mapping between them. What doesn't: assets.

All assets that we compute share ONE identical definition, so that a single run can hold them all; the trailing window
is declared once, on the edge from the external raw files, where a backfill can't fan out through it.
Concept: https://docs.dagster.io/guides/build/partitions-and-backfills
"""

import datetime as dt
from collections.abc import Mapping

import dagster as dg

from energy_ml.config import Settings

PARTITION_TAG = "dagster/partition"
"""Tag of a run: its partition key, by Dagster's own name."""
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Tags of a run over a range: its first and last partition key."""


def days_of(tags: Mapping[str, str]) -> list[str]:
    """The as-of dates of a run by its tags, oldest first: one, all of a range, or none."""
    if all(tag in tags for tag in RANGE_TAGS):
        first, last = (dt.date.fromisoformat(tags[tag]) for tag in RANGE_TAGS)
        return [str(first + dt.timedelta(days=n)) for n in range((last - first).days + 1)]
    return [tags[PARTITION_TAG]] if PARTITION_TAG in tags else []


def _daily(first: dt.date, last: dt.date | None) -> dg.DailyPartitionsDefinition:
    return dg.DailyPartitionsDefinition(
        start_date=first.isoformat(),
        # Dagster's end is exclusive.
        end_date=None if last is None else (last + dt.timedelta(days=1)).isoformat(),
        timezone="UTC",
    )


def raw_days(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Days of raw data, from the settings' start (never from a look into the folder at import)."""
    return _daily(settings.start_date, settings.end_date)


def as_of_days(settings: Settings) -> dg.DailyPartitionsDefinition:
    """As-of dates: those whose whole training window lies after the start of the data."""
    return _daily(settings.first_as_of, settings.end_date)


def trailing_window(settings: Settings) -> dg.TimeWindowPartitionMapping:
    """As-of date D reads the raw days D - window + 1 … D."""
    return dg.TimeWindowPartitionMapping(start_offset=-(settings.training_window_days - 1), end_offset=0)
