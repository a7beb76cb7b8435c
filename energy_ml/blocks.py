"""The one seam for work side by side: in threads, in processes, or on a cluster's workers, with the same results.

What belongs here: ``map``, and joining a cluster. What doesn't: what a block is, and what is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from energy_ml.errors import needing

BACKENDS = {"threads": "threading", "processes": "loky", "dask": "dask", "ray": "ray"}
"""Joblib's names of what ENERGY_ML_PARALLEL may be."""
Block = TypeVar("Block")
Result = TypeVar("Result")


def map(
    function: Callable[[Block], Result], blocks: Iterable[Block], *, parallel: str = "threads", workers: int = 1
) -> Iterable[Result]:
    """``function`` of each block, in order; threads and processes hand results over one by one.

    ``workers`` blocks at a time, or as many as the cluster has. Beyond threads, function, blocks and results are
    pickled: they should be small. Dask's scheduler is that of ``DASK_SCHEDULER_ADDRESS``, Ray's of ``RAY_ADDRESS``;
    without, each starts workers on this machine.

    Raises ConfigError where the extra of ``parallel`` isn't installed.
    """
    import joblib  # here, as whoever asks for help loads the settings, and they this module

    jobs = (joblib.delayed(function)(block) for block in blocks)
    if parallel in ("threads", "processes"):
        with joblib.parallel_config(BACKENDS[parallel], n_jobs=workers):
            return cast(Iterable[Result], joblib.Parallel(return_as="generator")(jobs))
    _join(parallel)
    with joblib.parallel_config(BACKENDS[parallel], n_jobs=-1):
        return cast(Iterable[Result], joblib.Parallel()(jobs))


def _join(cluster: str) -> None:
    """Become a client of the cluster, which this process then stays."""
    with needing(cluster, f"ENERGY_ML_PARALLEL={cluster}"):
        if cluster == "ray":
            from ray.util.joblib import register_ray

            register_ray()
            return
        import distributed
    try:
        distributed.get_client()
    except ValueError:
        distributed.Client()
