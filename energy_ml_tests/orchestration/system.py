"""What ``dagster dev`` starts, in single processes on loopback: code server, web server, daemon.

Single ones, so that a test can kill the daemon alone and start it again.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from energy_ml_tests.orchestration.project import Project
from energy_ml_tests.orchestration.servers import end, free_port, wait_for_port


@dataclass
class System:
    """A project with its running servers; history is that of the project's ``dagster.yaml``."""

    project: Project
    instance: dg.DagsterInstance
    url: str
    log: Path
    _daemon: subprocess.Popen[bytes] | None = field(default=None)

    def start_daemon(self) -> None:
        """Start ``dagster-daemon run``."""
        self._daemon = _start(self.project, self.log, "dagster._daemon", "run", "-w", "servers.yaml")

    def kill_daemon(self) -> None:
        """End the daemon as a power cut would; what it has started goes on."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGKILL)
        self._daemon.wait()
        self._daemon = None

    def runs(self, day: str) -> list[dg.DagsterRun]:
        """Runs of an as-of date, newest first."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": day})))

    def until(self, what: str, found: Callable[[], bool], seconds: float = 300) -> None:
        """Wait for something; an error shows the end of the servers' log."""
        end = time.monotonic() + seconds
        while not found():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.log.read_text()[-4000:]}")
            time.sleep(0.5)


@contextlib.contextmanager
def running(project: Project) -> Iterator[System]:
    """The project's servers, without the daemon; all is ended with the block."""
    log, code, web = project.root / "servers.log", free_port(), free_port()
    (project.root / "servers.yaml").write_text(
        f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {code}, location_name: energy_ml.definitions}}\n"
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(project.root))  # dagster.yaml's paths are relative to it
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(project.root)))
        server = _start(
            project, log, "dagster", "api", "grpc", "-m", "energy_ml.definitions", "-h", "127.0.0.1", "-p", str(code)
        )
        stack.callback(end, server)
        wait_for_port(code, server)
        page = _start(project, log, "dagster_webserver", "-w", "servers.yaml", "-h", "127.0.0.1", "-p", str(web))
        stack.callback(end, page)
        system = System(project, instance, f"http://127.0.0.1:{web}", log)
        stack.callback(lambda: system._daemon is not None and system.kill_daemon())
        system.start_daemon()
        wait_for_port(web, page)
        yield system


def _start(project: Project, log: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=project.root,
            env={**project.env, "DAGSTER_HOME": str(project.root)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
