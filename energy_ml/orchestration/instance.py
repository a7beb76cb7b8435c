"""The project's Dagster instance: where runs are on record.

What belongs here: finding and opening it. What doesn't: the graph, so that looking at a run or closing it costs no more
than loading Dagster.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import DatabaseError

from energy_ml.config import project_root
from energy_ml.errors import EnergyMLError
from energy_ml.orchestration.private import InstanceRef
from energy_ml.orchestration.record import kept_open
from energy_ml.orchestration.run_lock import close_dead

_HOME = """\
run_launcher: {module: energy_ml.orchestration.run_lock, class: RunLauncher}
run_monitoring: {enabled: true, poll_interval_seconds: 10}
telemetry: {enabled: false}
nux: {enabled: false}
"""


def record_home() -> Path | None:
    """The folder that keeps the record of runs where the project's own ``dagster.yaml`` can't say so, else None.

    That is ``DAGSTER_HOME`` if set. Without it, a project folder that can't be written, or that has no ``dagster.yaml``
    (the package is installed, not checked out), leaves the record in the user's state folder, one for each project.
    """
    if home := os.environ.get("DAGSTER_HOME"):
        return Path(home)
    root = project_root()
    if (root / "dagster.yaml").is_file() and os.access(root, os.W_OK):
        return None
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return state / "energy_ml" / hashlib.sha256(str(root).encode()).hexdigest()[:12]


def how_to_look() -> str:
    """The command that shows the project's runs, for messages."""
    home = record_home()
    return "dagster dev" if home is None or os.environ.get("DAGSTER_HOME") else f"DAGSTER_HOME={home} dagster dev"


@contextlib.contextmanager
def project_instance() -> Iterator[dg.DagsterInstance]:
    """The instance that ``how_to_look`` shows: that of ``record_home``, else of the root's ``dagster.yaml``.

    Runs on it whose process is gone are closed first.

    Raises EnergyMLError when its record of runs can't be read or written.
    """
    home = record_home()
    # dagster.yaml holds paths relative to the project root, as the dagster command line resolves them.
    with contextlib.chdir(project_root()), _record_in_words(), kept_open(), contextlib.ExitStack() as stack:
        if home is not None:
            if not os.environ.get("DAGSTER_HOME"):
                home.mkdir(parents=True, exist_ok=True)
                (home / "dagster.yaml").write_text(_HOME)
            opened = dg.DagsterInstance.from_config(str(home))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".tmp_dagster_home_", dir="."))
            opened = dg.DagsterInstance.from_ref(InstanceRef.from_dir(folder, config_dir=str(project_root())))
        instance = stack.enter_context(opened)
        close_dead(instance)
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
