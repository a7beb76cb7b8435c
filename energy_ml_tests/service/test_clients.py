"""The client code of docs/clients.md works as it stands, and the page works in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from energy_ml_tests.service.conftest import REPOSITORY, TOKEN, TRAIN_TOKEN, Server, promote

TEXT = (REPOSITORY / "docs/clients.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


SNIPPETS = dict(zip(("forecast", "action", "prices", "training", "socket"), BLOCKS, strict=True))


def run_snippet(snippet: tuple[str, str], server: Server) -> subprocess.Popen[str]:
    """The code as a program of its own that speaks to ``server``."""
    kind, code = snippet
    command = [sys.executable, "-W", "error", "-c", code] if kind == "python" else ["bash", "-euc", code]
    environment = {**os.environ, "ENERGY_ML_URL": server.url, "ENERGY_ML_TOKEN": TRAIN_TOKEN}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def said(running: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    told, wrong = running.communicate(timeout=300)
    assert running.returncode == 0, wrong
    return told


def test_client_code_that_asks(server: Server) -> None:
    """The snippets about trainings run in ``test_trainings``, beside a training that runs there anyway."""
    assert '"horizon":60' in said(run_snippet(SNIPPETS["forecast"], server))
    assert '"action"' in said(run_snippet(SNIPPETS["action"], server))
    told = said(run_snippet(SNIPPETS["prices"], server))
    assert told.count("(") == 2 and "422" in told and "Atlantis" in told


@pytest.fixture
def chromium() -> Iterator[str]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here")
    yield found


@pytest.mark.servers
def test_the_page_shows_what_the_service_says(
    server: Server, artifacts: dict[str, Path], chromium: str, tmp_path: Path
) -> None:
    """Without tokens, as on a trader's own machine: loaded offline, and read as the browser has it."""
    promote(server, artifacts)
    own = {k: v for k, v in server.environment.items() if k not in ("ENERGY_ML_API_TOKEN", "ENERGY_ML_API_TRAIN_TOKEN")}
    open_server = Server(server.root, own).start()
    try:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=8000"]
        command += [f"--user-data-dir={tmp_path}", "--disable-background-networking", "--no-first-run", open_server.url]
        page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    finally:
        open_server.stop()
    assert 'class="past"' in page and 'class="band"' in page, "the chart is drawn"
    assert "+15 min" in page and "+60 min" in page
    assert re.search(r'class="verdict (charge|hold|discharge)"', page)
    assert "battery_policy" in page and ">serving<" in page
    assert "stale:" in page and TOKEN not in page
