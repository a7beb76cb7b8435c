"""The record of runs on SQLite, without a wait for the disk at every event.

What belongs here: how its files are opened while a run is at work. What doesn't: where they are (``instance``).

Dagster opens a database anew for each look and each event. Every commit waits for the disk, and the last to close one
writes its log into the file and waits again: some 2,300 waits in a night of 230 events, seven to ten seconds.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator

from sqlalchemy import event
from sqlalchemy.engine import Engine

_held: dict[str, sqlite3.Connection] = {}
_users = 0
_lock = threading.Lock()


@contextlib.contextmanager
def kept_open() -> Iterator[None]:
    """Within, a database with a write-ahead log that was opened stays open, and only its checkpoints wait for the disk.

    That is what SQLite advises for such a log (https://www.sqlite.org/pragma.html#pragma_synchronous): a killed process
    loses nothing, a power cut may lose the newest events, neither harms the file. May be entered in each other.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            event.listen(Engine, "connect", _opened)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                event.remove(Engine, "connect", _opened)
                while _held:
                    _held.popitem()[1].close()


def _opened(connection: object, _: object) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        return
    connection.execute("PRAGMA synchronous = NORMAL")
    (_, _, file), *_ = connection.execute("PRAGMA database_list")
    with _lock:
        if file not in _held:
            _held[file] = sqlite3.connect(file, check_same_thread=False)
            _held[file].execute("SELECT 1 FROM sqlite_master").fetchall()  # only a read opens the log
