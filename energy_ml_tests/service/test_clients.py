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


def test_every_snippet_runs(server: Server) -> None:
    """In the order of the page: the socket's example listens to the training that the one before it started."""
    assert [kind for kind, _ in BLOCKS] == ["sh", "sh", "python", "python", "python"]
    said = []
    for kind, code in BLOCKS:
        command = [sys.executable, "-W", "error", "-c", code] if kind == "python" else ["bash", "-euc", code]
        environment = {**os.environ, "ENERGY_ML_URL": server.url, "ENERGY_ML_TOKEN": TRAIN_TOKEN}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert '"horizon":60' in said[0] and '"action"' in said[1]
    assert "422" in said[2] and "Atlantis" in said[2]
    assert said[3].startswith("completed") and said[4].splitlines()[-1].startswith("completed")


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
