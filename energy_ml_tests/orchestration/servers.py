"""PostgreSQL, Redis and a browser for tests, from the programs that Debian's packages install.

Where they are missing, tests skip with a reason; in CI a skip is a failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page


def need(program: str, package: str) -> str:
    """The path of ``program``; skips the test where it is missing, and fails it in CI."""
    found = shutil.which(program)
    if found is None:
        candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        found = str(candidates[-1]) if candidates else None
    if found is None:
        missing(f"there is no {program}: apt-get install {package}")
    return str(found)


def missing(reason: str) -> None:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a skip is a failure in CI)")
    pytest.skip(reason)


@contextlib.contextmanager
def browser_window(width: int, height: int) -> Iterator[Page]:
    """A headless browser window of so many pixels."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError as error:
        missing(f"{error}: pip install 'energy_ml[test]'")
    expect.set_options(timeout=60_000)  # the first answers of a busy machine
    with sync_playwright() as driver:
        # Root has no sandbox; there is nothing here but our own pages.
        browser = driver.chromium.launch(executable_path=need("chromium", "chromium"), args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": width, "height": height})
        window.set_default_timeout(60_000)
        yield window
        browser.close()


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block, however it ends, and all that it has started."""
    running = subprocess.Popen(command, start_new_session=True, **more)  # type: ignore[call-overload]
    try:
        yield running
    finally:
        end(running)


def end(running: subprocess.Popen[bytes], seconds: float = 10) -> None:
    """End a process that leads its own session, and all that it has started."""
    running.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(timeout=seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def wait_for_port(port: int, running: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until something listens on ``port``; raises if the process has ended or time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if running.poll() is not None:
            raise RuntimeError(f"{running.args} ended with code {running.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{running.args} doesn't listen on {port} after {seconds:.0f} s")


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis that forgets everything; yields its URL without database number."""
    program, port = need("redis-server", "redis-server"), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with process(command, stdout=subprocess.DEVNULL) as running:
        wait_for_port(port, running)
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A fresh PostgreSQL; yields the URL of an empty database."""
    initdb, server = need("initdb", "postgresql"), need("postgres", "postgresql")
    data, port = folder / "data", free_port()
    folder.mkdir(parents=True, exist_ok=True)
    prefix: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        for parent in folder.parents:  # its user must be able to walk to the folder
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run(
        [*prefix, initdb, "-D", str(data), "-U", "dagster", "--auth=trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    command = [*prefix, server, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    with process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as running:
        wait_for_port(port, running)
        yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
