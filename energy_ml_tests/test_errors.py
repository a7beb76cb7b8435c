"""Errors say what was found, expected and to do, and survive the way between processes."""

import importlib
import pickle

import pytest

from energy_ml import errors

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EnergyMLError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.__name__)
def test_message_and_pickle(kind: type[errors.EnergyMLError]) -> None:
    error = kind("3 prices are NaN", expected="numbers", remedy="fill them")
    assert str(error) == "3 prices are NaN. Expected: numbers. Remedy: fill them."
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.remedy == "fill them"


def test_data_error_names_file_column_rows_and_example() -> None:
    error = errors.SchemaError(
        "not numbers", file="a.parquet", column="price", rows=1200, example="row 7: 'abc'", remedy="convert"
    )
    assert str(error) == (
        "not numbers (file a.parquet; column 'price'; 1,200 rows; first example: row 7: 'abc'). Remedy: convert."
    )
    assert pickle.loads(pickle.dumps(error)).rows == 1200


def test_a_missing_extra_is_named() -> None:
    said = r"the worker needs no_such_library, which isn't installed.*energy_ml\[celery\]"
    with pytest.raises(errors.ConfigError, match=said), errors.needing("celery", "the worker"):
        importlib.import_module("no_such_library")
