"""Files of the record of runs stay open while a run is at work; nothing is lost though its process is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text

from energy_ml.orchestration.record import kept_open

WRITER = """
import sys
from sqlalchemy import NullPool, create_engine, text
from energy_ml.orchestration.record import kept_open
engine = create_engine(f"sqlite:///{sys.argv[1]}", poolclass=NullPool)
with kept_open():
    for number in range(100):
        with engine.begin() as connection:
            connection.execute(text(f"INSERT INTO events VALUES ({number})"))
    print("written", flush=True)
    sys.stdin.read()
"""


def _database(folder: Path) -> Path:
    file = folder / "index.db"
    with sqlite3.connect(file) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE events (number INTEGER)")
    made.close()
    return file


def _log(file: Path) -> Path:
    return file.with_name("index.db-wal")


def test_a_database_stays_open_within_and_is_whole_after(tmp_path: Path) -> None:
    file = _database(tmp_path)
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)

    def write() -> tuple[int, bool]:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO events VALUES (1)"))
            (synchronous,) = connection.execute(text("PRAGMA synchronous")).one()
        return synchronous, _log(file).exists()

    full, normal = 2, 1
    assert write() == (full, False)
    with kept_open():
        with kept_open():
            assert write() == (normal, True)
        assert write() == (normal, True), "the outer one goes on"
    assert not _log(file).exists(), "the log is in the file"
    assert write() == (full, False)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM events")).scalar() == 4
    memory = create_engine("sqlite://")
    with kept_open(), memory.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == full, (
            "without a log to write ahead: as it was"
        )


def test_a_killed_process_loses_no_event(tmp_path: Path) -> None:
    file = _database(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"written\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert _log(file).exists(), "what it left"
    with sqlite3.connect(file) as found:
        assert found.execute("SELECT count(*) FROM events").fetchone() == (100,)
    found.close()
