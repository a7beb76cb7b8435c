"""The client code of docs/clients.md works as it stands, and the page works in a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from energy_ml.progress import open_progress, progress_place
from energy_ml_tests.orchestration.servers import browser_window
from energy_ml_tests.service.conftest import HORIZONS, REPOSITORY, TRAIN_TOKEN, Server, promote

if TYPE_CHECKING:
    from playwright.sync_api import Page

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
def page(server: Server) -> Iterator[Page]:
    """A headless browser window, before the token is given."""
    with browser_window(1360, 900) as window:
        window.goto(server.url)
        yield window


@pytest.mark.servers
def test_the_page(server: Server, artifacts: dict[str, Path], page: Page) -> None:
    """As a trader uses it: gives the token, reads, takes another region, sees another training, trains, cancels."""
    from playwright.sync_api import expect

    promote(server, artifacts)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws:", "http:")))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.reload()

    expect(page.get_by_text("This service asks for its token.")).to_be_visible()
    expect(page.locator("main")).to_be_hidden()
    for token, text in (("wrong-token-0123456789", "This token isn’t right."), (TRAIN_TOKEN, "live")):
        page.get_by_placeholder("ENERGY_ML_API_TOKEN").fill(token)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_text(text, exact=True)).to_be_visible()

    expect(page.get_by_role("img", name="Price of FR and forecasts")).to_be_visible()
    for line in ("past", "band", "ahead"):
        expect(page.locator(f"svg path.{line}")).to_be_visible()
    for horizon in HORIZONS:
        expect(page.locator(".card", has_text=f"+{horizon} min")).to_contain_text(" to ")
    expect(page.locator(".verdict")).to_have_text(re.compile("Hold|Charge|Discharge"))
    for chosen, capacity in (("Site A", "4.00 MWh"), ("-", "1.00 MWh")):
        page.get_by_label("Battery", exact=True).select_option(chosen)
        expect(page.locator("#action")).to_contain_text(f"of {capacity}")
    expect(page.locator("#models tr", has_text="battery_policy")).to_contain_text("serving")
    expect(page.get_by_text(re.compile("stale: .* days old"))).to_be_visible()
    page.get_by_role("button", name="DE", exact=True).click()
    expect(page.get_by_role("img", name="Price of DE and forecasts")).to_be_visible()

    elsewhere = open_progress(progress_place(server.settings.results_dir, server.settings), "of-the-night")
    bar = page.locator(".run", has_text="run started elsewhere").locator(".bar", has_text="price_prediction_7m")
    for share, text in ((0.41, "41 %"), (0.83, "83 %")):
        elsewhere.write("price_prediction_7m", share, {"mae": 1.5})
        expect(bar).to_contain_text(text)
    elsewhere.write("price_prediction_7m", 1.0, state="completed")
    expect(page.locator(".run", has_text="run started elsewhere")).to_contain_text("completed")

    page.get_by_label("What to train").select_option("price_prediction")
    page.get_by_role("button", name="Train", exact=True).click()
    own = page.locator(".run", has_text="price prediction, as of 2025-03-05").first  # the newest stands first
    expect(own).to_contain_text("running")
    page.get_by_role("button", name="Cancel").click()
    expect(own).to_contain_text("cancelled by request")

    assert not wrong, "no script fails"
    assert all(url.startswith(server.url) or url == "data:," for url in asked), "works offline"
    assert TRAIN_TOKEN not in page.content() and not any(TRAIN_TOKEN in url for url in asked)
