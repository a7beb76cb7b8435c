"""What the tests of this folder share: a Dagster instance, empty at the start of each, and one trained project."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage

from energy_ml_tests.orchestration.project import Project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose sixth day was materialized by Dagster's own command.

    The tests that share it, in one worker of xdist, leave its champions loadable.
    """
    made = Project.make(tmp_path_factory.mktemp("project"), SERVICE_URL="http://trader.example:8000/")
    done = made.run(
        "dagster", "asset", "materialize", "-m", "energy_ml.definitions", "--select", "*", "--partition", "2026-01-06"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return made


@pytest.fixture
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """This process works in the project."""
    project.enter(monkeypatch)
    return project


@pytest.fixture(scope="session")
def _instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def instance(_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """A persistent instance without runs."""
    _instance.wipe()
    return _instance


@pytest.fixture(autouse=True)
def _no_instance_of_another_test() -> Iterator[None]:
    """Dagster keeps the last instance's state storage in a global, where it may outlive an instance of another test."""
    with set_defs_state_storage(None):
        yield
