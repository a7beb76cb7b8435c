"""Where blocks are worked on changes no number: a whole retrain in threads, processes, and on real local clusters."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from energy_ml import blocks
from energy_ml.artifacts import digest
from energy_ml.errors import ConfigError
from energy_ml.names import BACKTEST_FILE, FORECASTS_FILE
from energy_ml_tests.orchestration.project import DAYS, Project

MISSING = "it isn't installed here: pip install 'energy_ml[dask]', or [ray]"


def retrained(root: Path, **settings: str) -> list[str]:
    """Digests of forecasts and backtest of a night in a project of its own."""
    project = Project.make(root, HORIZONS="60", PRICES_N_ESTIMATORS="20", **settings)
    project.night(project.day(DAYS))
    return [
        digest(project.store.path(project.day(DAYS), name).read_bytes()) for name in (FORECASTS_FILE, BACKTEST_FILE)
    ]


@pytest.fixture(scope="module")
def in_threads(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return retrained(tmp_path_factory.mktemp("threads"))


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Address of a Dask scheduler with two workers, processes of their own."""
    code = (
        "import sys; from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)\n"
        "    print(cluster.scheduler_address, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdin is not None and run.stdout is not None
        yield run.stdout.readline().strip()
        run.stdin.close()


def test_processes_change_no_number(tmp_path: Path, in_threads: list[str]) -> None:
    assert retrained(tmp_path / "processes", PARALLEL="processes", MODELS_N_JOBS="2") == in_threads


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason=MISSING)
def test_a_dask_cluster_of_two_workers_changes_no_number(
    tmp_path: Path, scheduler: str, in_threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", scheduler)
    assert retrained(tmp_path / "dask", PARALLEL="dask") == in_threads


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=MISSING)
def test_ray_changes_no_number(tmp_path: Path, in_threads: list[str]) -> None:
    assert retrained(tmp_path / "ray", PARALLEL="ray") == in_threads


@pytest.mark.parametrize("cluster", ["dask", "ray"])
def test_a_cluster_that_is_not_installed_is_refused(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("distributed", "ray", "ray.util.joblib"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"energy_ml\[{cluster}\]"):
        blocks.map(str, [1], parallel=cluster)


def test_results_come_in_order_whatever_runs_first() -> None:
    assert list(blocks.map(abs, range(-9, 0), workers=3)) == list(range(9, 0, -1))
