"""The IO manager: an asset's value goes to ``results/<D>/<file>``, the file its definition names.

What belongs here: the way between an asset and the results store, and that one run at a time takes it. What doesn't:
formats (``energy_ml.results``).
Concept: https://docs.dagster.io/guides/build/io-managers
"""

import contextlib
from collections.abc import Callable

import dagster as dg
from pydantic import PrivateAttr

from energy_ml.orchestration.day_lock import day_lock
from energy_ml.orchestration.jobs import FETCH_PRICES
from energy_ml.orchestration.partitions import days_of
from energy_ml.results import ResultsStore

FILE = "energy_ml/file"
"""Definition metadata of an asset: the relative name of its result."""
_OF_HORIZON = "price_prediction/forecasts_"
_SHA256 = "sha256"
"""Metadata of a materialization: the digest of the file."""
Reader = Callable[[str], object]
"""What an asset gets as an input: the value of an as-of date, read when it is called for."""


class ResultsIOManager(dg.ConfigurableIOManager):
    """Writes and reads asset values through the results store.

    With ``locks_dir``, the process of a run holds the locks of its as-of dates from its first step to its last.
    """

    results_dir: str
    locks_dir: str | None = None
    _written: dict[str, object] = PrivateAttr(default_factory=dict)
    _locks: contextlib.ExitStack = PrivateAttr(default_factory=contextlib.ExitStack)
    _instance: dg.DagsterInstance | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Wait for other runs of the days, then clear away what a killed one left."""
        self._instance = context.instance
        if self.locks_dir is None or context.run is None:
            return
        if context.run.job_name == FETCH_PRICES:
            return  # it writes no results, and prices shouldn't wait for a training
        with contextlib.ExitStack() as locks:
            for day in days_of(context.run.tags):  # oldest first everywhere, so that no two runs wait for each other
                locks.enter_context(day_lock(self.locks_dir, day, context.log.info if context.log else print))
                ResultsStore(self.results_dir).sweep(day)
            self._locks = locks.pop_all()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Let the next runs of the days begin."""
        self._locks.close()

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write the value of the newest partition whole; a step writes those before it in a range itself."""
        written = keep(
            ResultsStore(self.results_dir), context.asset_partition_keys[-1], context.definition_metadata[FILE], obj
        )
        self._written[str(written["path"])] = obj
        context.add_output_metadata(written)

    def load_input(self, context: dg.InputContext) -> Reader:
        """A reader of the upstream values by partition."""
        upstream, store = context.upstream_output, ResultsStore(self.results_dir)
        if upstream is None:
            raise dg.DagsterInvariantViolationError("an input without an upstream asset can't be loaded")
        name, newest = str(upstream.definition_metadata[FILE]), context.asset_partition_keys[-1]

        def read(day: str) -> object:
            # Steps of one process share what was just written; assets never change their inputs.
            path = str(store.path(day, name))
            if path in self._written:
                # One step reads a horizon's forecasts, and hands on those of all.
                return (self._written.pop if name.startswith(_OF_HORIZON) else self._written.get)(path)
            value = store.read(day, name, recorded_digest(self._instance, upstream.asset_key, day))
            if day == newest:  # all days of a range at once would fill the memory
                self._written[path] = value
            return value

        return read


def keep(store: ResultsStore, day: str, name: str, value: object) -> dict[str, str | int]:
    """Write a value; returns what is recorded of its file."""
    sha256, path = store.write(day, name, value), store.path(day, name)
    return {"path": str(path), "bytes": int(path.stat().st_size), _SHA256: sha256}


def recorded_digest(instance: dg.DagsterInstance | None, key: dg.AssetKey, partition: str) -> str | None:
    """SHA-256 of what was last written for an asset, by Dagster's record: who can write results can't reach it."""
    if instance is None:
        return None
    found = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1).records
    made = found[0].asset_materialization if found else None
    return None if made is None or _SHA256 not in made.metadata else str(made.metadata[_SHA256].value)
