"""Sensors: new files in the data folder, new reports, and failed runs.

What belongs here: what a tick does. What doesn't: how files are compared (``market_data.watch``), what a message says
(``alerts``).
Concept: https://docs.dagster.io/guides/automate/sensors
"""

import datetime as dt
import time
from collections.abc import Sequence

import dagster as dg

from energy_ml.config import Settings
from energy_ml.errors import ConfigError, DataError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.watch import DayChange, Look, WatchState, look
from energy_ml.names import RETRAIN
from energy_ml.orchestration.alerts import failure_message, post
from energy_ml.orchestration.assets import BATTERY_TELEMETRY, MARKET_PRICES, REPORT
from energy_ml.orchestration.jobs import REFRESH_LEADERBOARD
from energy_ml.orchestration.triggers import STALE_TAG, data_version, request, short_days, taken, trained_on
from energy_ml.results import ResultsStore
from energy_ml.training_window import lake_of, newest_as_of

NEW_PARQUET = "new_parquet"
RUN_FAILURES = "run_failures"
_LONGEST_REST = 10.0
"""Seconds that a tick may rest until files have settled; Dagster gives it sixty."""
LONGEST_COMPARISON = 20.0
"""Seconds that it may read windows of old results, of which a first look may find a year's."""


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """All sensors; off until somebody switches them on, but for alerts that were asked for by their setting."""
    return [_new_parquet(settings), _leaderboard(), _run_failures(settings)]


def _new_parquet(settings: Settings) -> dg.SensorDefinition:
    operations = settings.operations
    lake = lake_of(settings)  # kept, so that unchanged files aren't opened at every tick

    @dg.sensor(
        name=NEW_PARQUET,
        job_name=RETRAIN,
        # The daemon looks every five seconds at who is due; a sensor of exactly so many would miss every other round.
        minimum_interval_seconds=max(operations.sensor_seconds - 1, 1),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Watches {settings.data_dir}. New or changed prices retrain the newest complete day, once however "
        "many files came; days and regions they cover are reported on the raw assets. Files that are being written "
        "wait, unreadable ones are named and left alone. As-of dates whose window holds a changed old day are named "
        f"in the run's tag {STALE_TAG}; a backfill renews them. Interval: ENERGY_ML_SENSOR_SECONDS.",
    )
    def new_parquet(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before, settle = WatchState.from_json(context.cursor), operations.settle_seconds
        try:
            found = look(lake, before, now=time.time(), settle_seconds=settle)
            nothing_taken = found.state.batch == before.batch
            if found.waiting and nothing_taken and settle <= _LONGEST_REST:  # rather than a whole interval
                time.sleep(found.rest)
                found = look(lake, found.state, now=time.time(), settle_seconds=settle)
        except DataError as error:
            return dg.SensorResult(skip_reason=f"looks again: {error}")  # a file went away while it was looked at
        cursor = found.state.to_json()
        left_alone = [f"left alone: {name}: {problem}" for name, problem in found.unreadable]
        for line in left_alone:
            context.log.warning(line)
        if not found.changes:
            reason = "; ".join([*left_alone, *_waits_for(found.waiting)]) or "nothing new"
            return dg.SensorResult(skip_reason=reason, cursor=cursor)
        try:
            day, why = newest_as_of(settings, lake), ""
        except (DataError, ConfigError) as error:
            day, why = None, f"nothing to train: {error}"
        stale = _stale(context, lake, settings, found.changes, day)
        events = _events(settings, found.changes, stale)
        decided = why if day is None else _decide(context, lake, settings, day, found, stale)
        if isinstance(decided, dg.RunRequest):
            return dg.SensorResult(run_requests=[decided], cursor=cursor, asset_events=events)
        notes = [decided, *left_alone]
        if stale:
            notes.append(f"trained on data that has changed since: {short_days(stale)}")
        return dg.SensorResult(skip_reason="; ".join(notes), cursor=cursor, asset_events=events)

    return new_parquet


def _waits_for(names: Sequence[str]) -> list[str]:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"waits until {', '.join(names[:3])}{more} settle{'s' if len(names) == 1 else ''}"] if names else []


def _decide(
    context: dg.SensorEvaluationContext,
    lake: ParquetLake,
    settings: Settings,
    day: dt.date,
    found: Look,
    stale: Sequence[dt.date],
) -> str | dg.RunRequest:
    """A reason not to run, or the run."""
    first = day - dt.timedelta(days=settings.training_window_days - 1)
    changed = [c.day for c in found.changes if c.kind == "prices"]
    inside = [d for d in changed if first <= d <= day]
    if not changed:
        return "only telemetry changed: the next run takes it in"
    if not inside:
        return f"{short_days(changed)} lies outside of the window of {day} ({first}..{day})"
    try:
        version = data_version(settings, lake, day)
    except DataError as error:
        return f"{day} can't be trained: {error}"
    if done := taken(context.instance, settings, day, version):
        return done
    tags = {"energy_ml/changed_days": short_days(inside)}
    if stale:
        tags[STALE_TAG] = short_days(stale)
    # The batch makes the key new when data goes back to what it was; a tick that is repeated after a crash has the
    # same batch and asks for the same run.
    return request(day, version, run_key=f"{day}:{version}:{found.state.batch}", tags=tags)


def _stale(
    context: dg.SensorEvaluationContext,
    lake: ParquetLake,
    settings: Settings,
    changes: Sequence[DayChange],
    newest: dt.date | None,
) -> list[dt.date]:
    """As-of dates whose results are of other data than their window holds now, the one to be trained now aside.

    Only where the window holds a changed day: a first look takes every day for changed, so data is what is compared.
    """
    changed = [c.day for c in changes if c.kind == "prices"]
    length, began, found = dt.timedelta(days=settings.training_window_days - 1), time.monotonic(), []
    for as_of in reversed(ResultsStore(settings.results_dir).as_of_dates()):
        if as_of == newest or not any(day <= as_of <= day + length for day in changed):
            continue
        if time.monotonic() - began > LONGEST_COMPARISON:
            context.log.warning(f"not compared with their data, for lack of time: results of {as_of} and before")
            break
        try:
            same = trained_on(settings, as_of, data_version(settings, lake, as_of))
        except DataError:
            same = False  # it can't be trained any more
        if not same:
            found.append(as_of)
    return found[::-1]


def _events(
    settings: Settings, changes: Sequence[DayChange], stale: Sequence[dt.date]
) -> list[dg.AssetMaterialization | dg.AssetObservation]:
    """Per raw asset and day: what is there now; days outside of the partitions have no place in the UI."""
    length = dt.timedelta(days=settings.training_window_days - 1)
    last = settings.end_date or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    events: list[dg.AssetMaterialization | dg.AssetObservation] = []
    for change in changes:
        fetched = change.kind == "prices" and settings.operations.market is not None
        if not (settings.first_as_of if fetched else settings.start_date) <= change.day <= last:
            continue
        metadata: dict[str, str | int | dg.JsonMetadataValue] = {
            "regions" if change.kind == "prices" else "batteries": ", ".join(change.rows) or "none",
            "rows": dg.MetadataValue.json(dict(change.rows)),
            "dagster/partition_row_count": sum(change.rows.values()),
            "files": ", ".join(change.files) or "none",
            "change": "gone" if not change.files else "changed" if change.was_there else "new",
        }
        touched = [as_of for as_of in stale if change.day <= as_of <= change.day + length]
        if touched and change.kind == "prices":
            metadata["stale_as_of"] = short_days(touched)
        key = MARKET_PRICES if change.kind == "prices" else BATTERY_TELEMETRY
        if not change.files:
            events.append(dg.AssetObservation(key, partition=change.day.isoformat(), metadata=metadata))
            continue
        events.append(
            dg.AssetMaterialization(
                key,
                partition=change.day.isoformat(),
                metadata=metadata,
                tags={"dagster/data_version": change.fingerprint},
            )
        )
    return events


def _leaderboard() -> dg.SensorDefinition:
    @dg.asset_sensor(
        asset_key=REPORT,
        name=REFRESH_LEADERBOARD,
        job_name=REFRESH_LEADERBOARD,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Makes the leaderboard anew when a report was made; several at once count as one.",
    )
    def refresh_leaderboard(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return dg.RunRequest()

    return refresh_leaderboard


def _run_failures(settings: Settings) -> dg.SensorDefinition:
    webhook = settings.operations.alert_webhook

    @dg.run_failure_sensor(
        name=RUN_FAILURES,
        default_status=dg.DefaultSensorStatus.RUNNING if webhook else dg.DefaultSensorStatus.STOPPED,
        description="Writes one line about each failed run and posts it as JSON to ENERGY_ML_ALERT_WEBHOOK, if that is "
        "set; it is then on by default.",
    )
    def run_failures(context: dg.RunFailureSensorContext) -> None:
        message = failure_message(context)
        context.log.error(message["text"])
        if webhook and (trouble := post(webhook, message)):
            context.log.error(f"the alert webhook didn't take the message: {trouble}")

    return run_failures
