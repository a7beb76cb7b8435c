"""The project's Dagster instance: where runs are on record.

What belongs here: finding and opening it. What doesn't: the graph, so that looking at a run or closing it costs no more
than loading Dagster.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import dagster as dg
from sqlalchemy.exc import DatabaseError

from energy_ml.config import project_root
from energy_ml.errors import EnergyMLError
from energy_ml.orchestration.private import InstanceRef


@contextlib.contextmanager
def project_instance() -> Iterator[dg.DagsterInstance]:
    """The instance that ``dagster dev`` in the project root uses: DAGSTER_HOME if set, else the root's dagster.yaml.

    Raises EnergyMLError when its record of runs can't be read or written.
    """
    # dagster.yaml holds paths relative to the project root, as the dagster command line resolves them.
    with contextlib.chdir(project_root()), _record_in_words():
        if os.environ.get("DAGSTER_HOME"):
            with dg.DagsterInstance.get() as instance:
                yield instance
        else:
            with tempfile.TemporaryDirectory(prefix=".tmp_dagster_home_", dir=".") as folder:
                reference = InstanceRef.from_dir(folder, config_dir=str(project_root()))
                with dg.DagsterInstance.from_ref(reference) as instance:
                    yield instance


@contextlib.contextmanager
def _record_in_words() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        raise EnergyMLError(
            f"Dagster's record of runs can't be read or written: {error.orig}",
            expected="a sound database with free space, where dagster.yaml says",
            remedy="free space, or move a damaged database away (.dagster of the project, unless DAGSTER_HOME is set); "
            "models and results don't depend on it",
        ) from error
