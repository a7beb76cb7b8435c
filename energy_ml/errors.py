"""Named errors. Each message says what was found, what was expected and what to do.

What belongs here: every exception that this project raises on purpose. What doesn't: handling them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class EnergyMLError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    found : what was found, in words and numbers.
    expected : what would have been right.
    remedy : what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str | None = None, remedy: str | None = None) -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        parts = [found.rstrip(".") + "."]
        if expected:
            parts.append(f"Expected: {expected.rstrip('.')}.")
        if remedy:
            parts.append(f"Remedy: {remedy.rstrip('.')}.")
        super().__init__(" ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments don't survive pickling between processes by themselves.
        return (_rebuild, (type(self), dict(self.__dict__), self.args))


def _rebuild(kind: type[EnergyMLError], state: dict[str, object], args: tuple[object, ...]) -> EnergyMLError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(EnergyMLError):
    """A setting or config field has an impossible value."""

    exit_code = 2


@contextlib.contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """What is imported within the block belongs to an extra. Raises ConfigError that names it where it isn't there."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{what} needs {error.name}, which isn't installed",
            remedy=f"install the extra: pip install 'energy_ml[{extra}]'",
        ) from error


class SplitError(EnergyMLError):
    """A time split is impossible: the window is too short or its parts would be empty."""


class DataError(EnergyMLError):
    """Input data can't be used.

    Beside the base's parameters: ``file``, ``column``, ``rows`` (how many) and ``example`` (the first one) say where.
    """

    def __init__(
        self,
        found: str,
        *,
        file: object | None = None,
        column: str | None = None,
        rows: int | None = None,
        example: object | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        where = []
        if file is not None:
            where.append(f"file {file}")
        if column is not None:
            where.append(f"column '{column}'")
        if rows is not None:
            where.append(f"{rows:,} row{'' if rows == 1 else 's'}")
        if example is not None:
            where.append(f"first example: {example}")
        super().__init__(
            f"{found.rstrip('.')} ({'; '.join(where)})" if where else found, expected=expected, remedy=remedy
        )
        self.file, self.column, self.rows, self.example = file, column, rows, example


class NoDataError(DataError):
    """There are no files, or none covers what was asked for."""


class UnreadableFileError(DataError):
    """A file is empty, truncated, still being written or not parquet at all."""


class SchemaError(DataError):
    """A column is missing or has a type that can't be converted."""


class TimestampError(DataError):
    """Timestamps are mixed, impossible, in the future or not on the interval's grid."""


class IntervalError(DataError):
    """The interval can't be inferred, is mixed within a window, or doesn't divide a horizon."""


class DuplicateError(DataError):
    """Rows share their key but disagree in their values."""


class GapError(DataError):
    """A gap is longer than the rule for repairing gaps allows."""


class ValueRangeError(DataError):
    """Values are infinite, absurd or physically impossible."""


class IncompleteWindowError(DataError):
    """A window isn't fully covered by the data."""


class StaleDataError(DataError):
    """The newest data is older than the setting allows."""


class HistoryError(DataError):
    """Fewer recent intervals than the features need."""


class UnknownRegionError(DataError):
    """A region that isn't in the data, or that the model hasn't seen."""

    exit_code = 2


class MarketError(EnergyMLError):
    """A market's server can't be asked, or answers what can't be used."""


class ModelError(EnergyMLError):
    """A model can't be trained or used."""


class ModelNotFoundError(ModelError):
    """No trained model where one was expected."""


class HorizonError(ModelError):
    """A horizon that wasn't trained or that the interval doesn't divide."""

    exit_code = 2


class BatteryError(EnergyMLError):
    """Battery parameters or a state of charge that can't exist."""

    exit_code = 2


class RegistryError(EnergyMLError):
    """The model registry refuses an operation."""


class UnknownModelError(RegistryError, ModelNotFoundError):
    """A model or a version that the registry doesn't know."""

    exit_code = 2


class ArtifactError(RegistryError):
    """An artefact is missing or differs from the digest that the registry holds."""


class PromotionError(RegistryError):
    """A version may not become champion; the message says by which rule."""


class ServiceError(EnergyMLError):
    """The service can't do what a request asks; carries an HTTP status of its own."""

    def __init__(
        self, found: str, *, status: int = 400, expected: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(found, expected=expected, remedy=remedy)
        self.status, self.exit_code = status, 2 if status < 500 else 1


def in_one_line(error: BaseException) -> str:
    """What kind of error of another library it is, and the beginning of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
