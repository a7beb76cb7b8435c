"""Version names: ``v%Y%m%d_%H%M%S`` in UTC, so that sorting them as text sorts them by time.

What belongs here: making and reading such a name. What doesn't: which versions exist (``registry``).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable

from energy_ml.errors import RegistryError

VERSION_FORMAT = "v%Y%m%d_%H%M%S"
_PATTERN = re.compile(r"v\d{8}_\d{6}", re.ASCII)


def new_version(existing: Iterable[str] = (), *, now: dt.datetime | None = None) -> str:
    """The version of this second, or of the next second that isn't in ``existing``.

    ``now`` is aware and defaults to the present time. Two processes that ask at once may get the same name; those who
    need it to be theirs ask ``ModelRegistry.new_version``.
    """
    moment = dt.datetime.now(dt.UTC) if now is None else now.astimezone(dt.UTC)
    taken = frozenset(existing)
    while (version := moment.strftime(VERSION_FORMAT)) in taken:
        moment += dt.timedelta(seconds=1)
    return version


def parse_version(version: str) -> dt.datetime:
    """When a version was named, UTC. Raises RegistryError when it isn't one."""
    if isinstance(version, str) and _PATTERN.fullmatch(version):
        try:
            return dt.datetime.strptime(version, VERSION_FORMAT).replace(tzinfo=dt.UTC)
        except ValueError:
            pass
    raise RegistryError(
        f"{version!r} is no version",
        expected="vYYYYMMDD_HHMMSS in UTC, such as v20260210_013000",
        remedy="make one with energy_ml.model_management.new_version or ModelRegistry.new_version",
    )
