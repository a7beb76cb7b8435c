"""These tests write thousands of files that nobody needs after a power cut."""

import os

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
