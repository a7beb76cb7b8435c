"""What changed in the data folder since the last look: files, and the days whose rows are others now.

What belongs here: comparing two looks at a lake by content, files that haven't settled, files that can't be read.
What doesn't: what to do about it (``orchestration.sensors``).

Files are told apart by content fingerprint and days by a digest of their rows. So a touched, renamed, moved, split or
copied file changes nothing, and a file that grows by a day changes that day alone.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from energy_ml.errors import DataError
from energy_ml.market_data.footers import FileInfo
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.schema import Kind
from energy_ml.names import TIMESTAMP

PATIENCE = 15
"""A file that keeps changing holds the others up for at most this many settle times."""
_CHUNK = pd.Timedelta(days=31)


@dataclass(frozen=True)
class _KnownFile:
    """A file as it was when last taken in: its fingerprint, kind, and a digest of the rows of each day."""

    fingerprint: str
    kind: Kind | None = None
    days: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class WatchState:
    """What is remembered between looks; plain JSON. ``batch`` counts the looks that took something in."""

    files: Mapping[str, _KnownFile] = field(default_factory=dict)
    pending: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """File -> fingerprint and since when (seconds since 1970) it has it, as far as is known."""
    waiting_since: float | None = None
    batch: int = 0

    def to_json(self) -> str:
        """The state as text."""
        return _STATE.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | None) -> WatchState:
        """The inverse; what isn't such a text counts as no memory, so that a damaged cursor heals itself."""
        try:
            return _STATE.validate_json(text or "{}")
        except ValidationError:
            return cls()


_STATE = TypeAdapter(WatchState)


@dataclass(frozen=True)
class DayChange:
    """One day whose rows are new, others or gone.

    ``rows`` counts timestamps by region (battery id for telemetry), empty if the day is gone; ``files`` hold the day.
    """

    kind: Kind
    day: dt.date
    rows: Mapping[str, int]
    files: tuple[str, ...]
    fingerprint: str
    was_there: bool


@dataclass(frozen=True)
class Look:
    """What a look found. ``waiting`` files haven't settled; ``unreadable`` ones, with the reason, are new as such."""

    state: WatchState
    changes: tuple[DayChange, ...] = ()
    waiting: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    rest: float = 0.0
    """Seconds until all that waits has settled, if nothing changes meanwhile."""


def look(lake: ParquetLake, before: WatchState, *, now: float, settle_seconds: float) -> Look:
    """Compare the folder with ``before``; ``now`` in seconds since 1970. Raises DataError if a file vanishes meanwhile.

    Nothing is taken in while a file is still changing, so that a rename (one file gone, one new) or a hundred files
    at once are one change; a file that never rests holds the others up for ``PATIENCE`` settle times at most.
    """
    root = str(lake.root)
    infos = {info.path.removeprefix(root).lstrip("/"): info for info in lake.inventory() if info.kind != "forecasts"}
    known = {name: file.fingerprint for name, file in before.files.items()}
    fresh = {name: info for name, info in infos.items() if known.get(name) != info.fingerprint}
    pending = {
        name: before.pending[name]
        if name in before.pending and before.pending[name][0] == info.fingerprint
        else (info.fingerprint, _unchanged_since(info, now))
        for name, info in fresh.items()
    }
    waiting = {name for name, (_, since) in pending.items() if now - since < settle_seconds}
    gone = before.files.keys() - infos.keys()
    waiting_since, rest = None, 0.0
    if waiting:
        rest = max(pending[name][1] for name in waiting) + settle_seconds - now
        waiting_since = now if before.waiting_since is None else before.waiting_since
        if now - waiting_since < PATIENCE * settle_seconds or not (fresh.keys() - waiting or gone):
            state = replace(before, pending=pending, waiting_since=waiting_since)
            return Look(state, waiting=tuple(sorted(waiting)), rest=rest)
    if not fresh and not gone:
        return Look(replace(before, pending={}, waiting_since=None))
    taken = {name: _take_in(info, lake.zone) for name, info in fresh.items() if name not in waiting}
    files = {name: known for name, known in before.files.items() if name in infos} | taken
    state = WatchState(files, {n: p for n, p in pending.items() if n in waiting}, waiting_since, before.batch + 1)
    return Look(
        state,
        changes=_changes(lake, infos, before.files, files),
        waiting=tuple(sorted(waiting)),
        unreadable=tuple((name, known.problem) for name, known in sorted(taken.items()) if known.problem),
        rest=rest,
    )


def _unchanged_since(info: FileInfo, now: float) -> float:
    """A whole file has settled since it was last written or moved; one that can't be read may be a copy under way."""
    return now if info.changed_at is None or info.problem is not None else min(now, info.changed_at)


def _take_in(info: FileInfo, zone: str | None) -> _KnownFile:
    if info.problem is not None:
        return _KnownFile(info.fingerprint, problem=info.problem)
    try:
        return _KnownFile(info.fingerprint, info.kind, _day_digests(info, zone))
    except DataError as error:
        return _KnownFile(info.fingerprint, problem=str(error))


def _day_digests(info: FileInfo, zone: str | None) -> dict[str, str]:
    """Digest of the rows of each day, whatever their order; reads the file in months."""
    if info.first is None or info.last is None or info.kind is None:
        return {}
    lake, digests = ParquetLake(info.path, zone), {}
    start, after = info.first.floor("D"), info.last.floor("D") + pd.Timedelta(days=1)
    while start < after:
        end = min(start + _CHUNK, after)
        frame = lake.read_prices(start, end) if info.kind == "prices" else lake.read_batteries(start, end)
        frame = frame.reindex(columns=sorted(frame.columns))
        rows = pd.util.hash_pandas_object(frame, index=False).to_numpy()
        days, names = pd.factorize(frame[TIMESTAMP].dt.strftime("%Y-%m-%d"))
        for code, name in enumerate(names):
            own = rows[days == code]
            total = np.add.reduce(own, dtype=np.uint64)  # wraps; the sum doesn't depend on the order
            digests[str(name)] = f"{int(total):016x}{len(own):x}"
        start = end
    return digests


def _changes(
    lake: ParquetLake, infos: Mapping[str, FileInfo], before: Mapping[str, _KnownFile], after: Mapping[str, _KnownFile]
) -> tuple[DayChange, ...]:
    old, new = _by_day(before), _by_day(after)
    days_of_file, changes = functools.cache(lake.days_of_file), []
    for kind, day in sorted(old.keys() | new.keys()):
        was, now = old.get((kind, day), {}), new.get((kind, day), {})
        if set(was.values()) == set(now.values()):
            continue
        date = dt.date.fromisoformat(day)
        counts = [days_of_file(infos[name].path).reindex([date], fill_value=0) for name in sorted(now)]
        rows = pd.concat(counts).max() if counts else pd.Series(dtype=np.int64)
        mark = hashlib.sha256("\n".join(sorted(set(now.values()))).encode()).hexdigest()
        changes.append(
            DayChange(
                kind,
                date,
                {str(region): int(n) for region, n in rows.items() if n},
                tuple(sorted(now)),
                mark if now else "",
                bool(was),
            )
        )
    return tuple(changes)


def _by_day(files: Mapping[str, _KnownFile]) -> dict[tuple[Kind, str], dict[str, str]]:
    found: dict[tuple[Kind, str], dict[str, str]] = {}
    for name, known in files.items():
        for day, mark in known.days.items():
            if known.kind is not None:
                found.setdefault((known.kind, day), {})[name] = mark
    return found
