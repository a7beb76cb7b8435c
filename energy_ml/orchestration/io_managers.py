"""The IO manager: an asset's value goes to ``results/<D>/<file>``, the file its definition names.

What belongs here: the way between an asset and the results store, and that one run at a time takes it. What doesn't:
formats (``energy_ml.results``).
Concept: https://docs.dagster.io/guides/build/io-managers
"""

from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from energy_ml.orchestration.day_lock import DayLock
from energy_ml.orchestration.partitions import PARTITION_TAG
from energy_ml.orchestration.resources import ResultsResource
from energy_ml.orchestration.run_lock import hold

FILE = "energy_ml/file"
"""Definition metadata of an asset: the relative name of its result."""
SHA256 = "sha256"
"""Metadata of a materialization: the digest of the file."""


class ResultsIOManager(dg.ConfigurableIOManager):
    """Writes and reads asset values through the results store.

    With ``locks_dir``, the process of a run holds the lock of its as-of date from its first step to its last.
    """

    results: dg.ResourceDependency[ResultsResource]
    locks_dir: str | None = None
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)
    _lock: DayLock | None = PrivateAttr(default=None)
    _instance: dg.DagsterInstance | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Wait for other runs of the day, then clear away what a killed one left."""
        self._instance = context.instance
        if self.locks_dir is not None and context.run is not None and context.instance is not None:
            hold(context.instance, context.run.run_id)  # also runs that the code server has started
        day = context.run.tags.get(PARTITION_TAG) if context.run is not None else None
        if self.locks_dir is None or day is None:
            return
        self._lock = DayLock(self.locks_dir, day)
        self._lock.acquire(context.log.info if context.log is not None else print)
        self.results.store().sweep(day)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Let the next run of the day begin."""
        if self._lock is not None:
            self._lock.release()

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the value of one partition whole."""
        store, name = self.results.store(), str(context.definition_metadata[FILE])
        sha256, path = store.write(context.partition_key, name, obj), store.path(context.partition_key, name)
        self._written[str(path)] = obj
        context.add_output_metadata({"path": str(path), "bytes": int(path.stat().st_size), SHA256: sha256})

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the upstream value of the same partition."""
        upstream = context.upstream_output
        if upstream is None:
            raise dg.DagsterInvariantViolationError("an input without an upstream asset can't be loaded")
        store, name = self.results.store(), str(upstream.definition_metadata[FILE])
        # Steps of one process share what was just written; assets never change their inputs.
        path = str(store.path(context.partition_key, name))
        if path not in self._written:
            sha256 = recorded_digest(self._instance, upstream.asset_key, context.partition_key)
            self._written[path] = store.read(context.partition_key, name, sha256)
        return self._written[path]


def recorded_digest(instance: dg.DagsterInstance | None, key: dg.AssetKey, partition: str) -> str | None:
    """SHA-256 of what was last written for an asset, by Dagster's record: who can write results can't reach it."""
    if instance is None:
        return None
    found = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1).records
    made = found[0].asset_materialization if found else None
    return None if made is None or SHA256 not in made.metadata else str(made.metadata[SHA256].value)
