"""The nightly retraining, and fetching a market.

What belongs here: the schedules and their reasons to skip. What doesn't: what a run does (jobs, assets).
Concept: https://docs.dagster.io/guides/automate/schedules
"""

import datetime as dt

import dagster as dg
import pandas as pd

from energy_ml.config import Settings
from energy_ml.errors import ConfigError, DataError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import RETRAIN
from energy_ml.orchestration.jobs import FETCH_PRICES
from energy_ml.orchestration.partitions import RANGE_TAGS
from energy_ml.orchestration.triggers import data_version, request, taken, version_of_problem
from energy_ml.training_window import due_day, lake_of, newest

NIGHTLY = "nightly_retrain"


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The nightly one, off until somebody switches it on; with a market, which is asked for by its setting, its own."""
    return [_nightly(settings), *([] if settings.operations.market is None else [_fetching(settings)])]


def _nightly(settings: Settings) -> dg.ScheduleDefinition:
    operations = settings.operations
    hour, minute = map(int, operations.nightly_at.split(":"))
    lake = lake_of(settings)  # kept, so that unchanged files aren't opened at every tick

    @dg.schedule(
        name=NIGHTLY,
        job_name=RETRAIN,
        # First what it is for; every hour it looks whether late data has come. A moment of both is one tick.
        cron_schedule=[f"{minute} {hour} * * *", f"{minute} * * * *"],
        execution_timezone=operations.nightly_zone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Every night at {operations.nightly_at} {operations.nightly_zone}: retrains for the UTC day that "
        "has ended. Its other ticks, every hour, only look for data that was late or has changed, skip, and say why. "
        "One run per day and data version. Time and zone: ENERGY_ML_NIGHTLY_AT, ENERGY_ML_NIGHTLY_ZONE.",
    )
    def nightly_retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = due_day(settings, context.scheduled_execution_time)
        try:
            settings.check_as_of(day)
            last = newest(settings, lake)
        except (ConfigError, DataError) as error:
            return dg.SkipReason(f"{day} can't be trained: {error}")
        if last < day:
            return dg.SkipReason(
                f"{day} isn't complete: {_rows_in_words(lake, day)}; the newest complete day is {last}. "
                "Looks again in an hour."
            )
        try:
            version = data_version(settings, lake, day)
        except DataError as error:
            # The day is there but its window is not usable: a run that fails by its check puts that on record and
            # tells the failure sensor.
            version = version_of_problem(error)
            context.log.warning(f"{day}: {error}")
        if done := taken(context.instance, settings, day, version):
            return dg.SkipReason(done)
        return request(day, version, run_key=f"{day}:{version}")

    return nightly_retrain


def _fetching(settings: Settings) -> dg.ScheduleDefinition:
    market, minutes = str(settings.operations.market), settings.operations.fetch_minutes

    @dg.schedule(
        name=FETCH_PRICES,
        job_name=FETCH_PRICES,
        cron_schedule=f"*/{minutes} * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Fetches {market} up to now: the newest days each time, and what the newest window lacks. "
        "Market and minutes: ENERGY_ML_MARKET, ENERGY_ML_FETCH_MINUTES.",
    )
    def fetch_prices(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = context.scheduled_execution_time.astimezone(dt.UTC).date() - dt.timedelta(days=1)
        try:
            settings.check_as_of(day)
        except ConfigError as error:
            return dg.SkipReason(str(error))
        before = context.instance.get_runs(dg.RunsFilter(job_name=FETCH_PRICES), limit=1)
        if before and not before[0].is_finished:
            return dg.SkipReason(f"the fetch before, run {before[0].run_id}, isn't done yet")
        # A range of one: a tag of the partition would count it among the trainings of that day.
        return dg.RunRequest(tags=dict.fromkeys(RANGE_TAGS, day.isoformat()))

    return fetch_prices


def _rows_in_words(lake: ParquetLake, day: dt.date) -> str:
    """How many prices ``day`` has by region."""
    start = pd.Timestamp(day, tz="UTC")
    try:
        counts = lake.read_prices(start, start + pd.Timedelta(days=1)).groupby("region")["timestamp"].nunique()
    except DataError as error:
        return str(error)
    return ", ".join(f"{region} {n} prices" for region, n in counts.items()) or "it has no prices"
