"""Version names sort by time and are never given twice."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_ml.errors import RegistryError
from energy_ml.model_management import VERSION_FORMAT, new_version, parse_version

NOW = dt.datetime(2026, 2, 10, 23, 59, 58, tzinfo=dt.UTC)


def test_a_version_is_the_second_it_was_named_in_utc():
    east = NOW.astimezone(dt.timezone(dt.timedelta(hours=5)))
    assert new_version(now=east) == "v20260210_235958"
    assert parse_version("v20260210_235958") == NOW


def test_the_next_free_second_is_taken_across_midnight():
    taken = ["v20260210_235958", "v20260210_235959", "v20260211_000001"]
    assert new_version(taken, now=NOW) == "v20260211_000000"


@given(st.sets(st.integers(0, 40)), st.integers(0, 30))
def test_a_new_version_is_always_free_and_in_format(offsets, start):
    taken = {(NOW + dt.timedelta(seconds=s)).strftime(VERSION_FORMAT) for s in offsets}
    version = new_version(taken, now=NOW + dt.timedelta(seconds=start))
    assert version not in taken
    free = next(s for s in range(start, 100) if s not in offsets)
    assert parse_version(version) == NOW + dt.timedelta(seconds=free)


@given(st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2099, 1, 1)), st.datetimes(dt.datetime(2000, 1, 1)))
def test_text_order_is_time_order(a, b):
    a, b = a.replace(tzinfo=dt.UTC, microsecond=0), b.replace(tzinfo=dt.UTC, microsecond=0)
    assert (new_version(now=a) < new_version(now=b)) == (a < b)


@pytest.mark.parametrize(
    "text",
    ["v1", "", "20260210_013000", "v20260230_013000", "v20260210_013000/..", "v20260210_0130000", "V20260210_013000"],
)
def test_other_names_are_refused(text):
    with pytest.raises(RegistryError, match="is no version"):
        parse_version(text)
