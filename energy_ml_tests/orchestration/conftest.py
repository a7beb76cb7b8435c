"""One Dagster instance for the tests of this folder, empty at the start of each."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage


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
