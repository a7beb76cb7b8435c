"""Starting jobs from Python: the same job that the UI, the schedule and the sensor run.

What belongs here: the project's Dagster instance and running a job in this process. What doesn't: printing.
"""

import contextlib
import datetime as dt
import os
import tempfile
import uuid
from collections.abc import Iterator

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from energy_ml.config import Settings, project_root
from energy_ml.market_data.lake import ParquetLake
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.jobs import RETRAIN


@contextlib.contextmanager
def project_instance() -> Iterator[dg.DagsterInstance]:
    """The instance that ``dagster dev`` in the project root uses: DAGSTER_HOME if set, else the root's dagster.yaml."""
    # dagster.yaml holds paths relative to the project root, as the dagster command line resolves them.
    with contextlib.chdir(project_root()):
        if os.environ.get("DAGSTER_HOME"):
            with dg.DagsterInstance.get() as instance:
                yield instance
        else:
            with tempfile.TemporaryDirectory(prefix=".tmp_dagster_home_", dir=".") as folder:
                reference = InstanceRef.from_dir(folder, config_dir=str(project_root()))
                with dg.DagsterInstance.from_ref(reference) as instance:
                    yield instance


def newest_as_of(settings: Settings) -> dt.date:
    """The newest complete day of the data. Raises NoDataError if no as-of date can be made of it."""
    day = ParquetLake(settings.data_dir).latest_complete_day()
    return check_as_of(settings, min(day, settings.end_date) if settings.end_date else day)


def check_as_of(settings: Settings, day: dt.date) -> dt.date:
    """``day``, if it is one of the partitions. Raises ConfigError naming the setting that stands in the way."""
    return settings.check_as_of(day)


def run_job(as_of: dt.date, *, job: str = RETRAIN, run_id: str | None = None) -> dg.ExecuteInProcessResult:
    """Run ``job`` for one as-of date in this process, on the project's record. Doesn't raise when the run fails."""
    with project_instance() as instance:
        return (
            build_definitions()
            .resolve_job_def(job)
            .execute_in_process(
                partition_key=as_of.isoformat(),
                instance=instance,
                raise_on_error=False,
                run_id=run_id or str(uuid.uuid4()),
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        )
