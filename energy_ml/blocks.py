"""The one seam for work side by side: in threads, in processes, or on a cluster's workers, with the same results.

What belongs here: ``map``, and joining a cluster. What doesn't: what a block is, and what is made of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from energy_ml.errors import needing

if TYPE_CHECKING:
    from energy_ml.arrays import Floats

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


class Kept(Sequence["Floats"]):
    """Arrays in files, each read when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> Floats:  # type: ignore[override]
        import numpy as np  # here, as joblib below

        return cast("Floats", np.load(self._paths[place]))


def kept(
    function: Callable[[Block], Floats],
    blocks: Iterable[Block],
    folder: Path,
    *,
    parallel: str = "threads",
    workers: int = 1,
) -> Kept:
    """``map`` whose results are files of ``folder``. Of equal blocks that a killed run has left there nothing is made
    again; who uses a folder says by its name by which code."""
    import joblib

    paths: list[Path] = []
    missing: list[Path] = []
    here = parallel in ("threads", "processes")  # workers of a cluster may not see the folder

    def wanted() -> Iterator[tuple[Block, Path | None]]:
        for block in blocks:
            paths.append(folder / f"{joblib.hash(block)}.npy")
            if not paths[-1].is_file():
                missing.append(paths[-1])
                yield block, paths[-1] if here else None

    made = map(functools.partial(_made, function), wanted(), parallel=parallel, workers=workers)
    for number, result in enumerate(made):
        if result is not None:
            _save(result, missing[number])
    return Kept(paths)


def _made(function: Callable[[Block], Floats], task: tuple[Block, Path | None]) -> Floats | None:
    block, path = task
    result = function(block)
    if path is None:
        return result
    _save(result, path)
    return None


def _save(array: Floats, path: Path) -> None:
    import numpy as np

    from energy_ml.artifacts import write_atomically

    write_atomically(path, lambda handle: np.save(handle, array), durable=False)


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
