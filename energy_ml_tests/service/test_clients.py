"""The client code of docs/clients.md works as it stands, and the page works in a browser."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from energy_ml.evaluation.leaderboard import daily_cash
from energy_ml.names import BACKTEST_FILE, OUR_POLICY
from energy_ml.progress import open_progress, progress_place
from energy_ml.results import ResultsStore
from energy_ml_tests.orchestration.servers import browser_window
from energy_ml_tests.service.conftest import HORIZONS, REPOSITORY, TOKEN, TRAIN_TOKEN, Server, promote

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

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
        expect(page.locator(f"#chart path.{line}")).to_be_visible()
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

    elsewhere = open_progress(progress_place(server.settings), "of-the-night")
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
    expect(own.get_by_role("link", name="the run in Dagster")).to_have_attribute(
        "href", re.compile("/runs/[0-9a-f-]+$")
    )
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="Already running: price prediction")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(own).to_contain_text("cancelled by request")

    page.get_by_text("REST, to try out").click()
    expect(page.locator("#docs .info")).to_be_visible()

    assert not wrong, "no script fails"
    assert all(url.startswith(server.url) or url.startswith("data:") for url in asked), "works offline"
    assert TRAIN_TOKEN not in page.content() and not any(TRAIN_TOKEN in url for url in asked)


@pytest.mark.servers
def test_the_page_by_keyboard(server: Server, page: Page) -> None:
    """Focus stays where it is over polls, the choice of a region and steps of the slider; charts can be read."""
    from playwright.sync_api import expect

    page.get_by_placeholder("ENERGY_ML_API_TOKEN").fill(TRAIN_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_be_visible()
    focused = "() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"

    def polled() -> None:
        with page.expect_response("**/api/v1/models/plan"):
            page.evaluate("refresh()")
        page.wait_for_timeout(100)

    page.get_by_role("button", name="DE", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="Price of DE and forecasts")).to_be_visible()
    polled()
    assert page.evaluate(focused) == "DE"

    page.get_by_label("Battery", exact=True).select_option("-")
    slider = page.get_by_role("slider")
    slider.focus()
    for step in (0.51, 0.52, 0.53):
        page.keyboard.press("ArrowRight")
        expect(page.locator("#action")).to_contain_text(f"{step:.2f} of 1.00 MWh")
    polled()
    expect(slider).to_be_focused()
    expect(slider).to_have_value("0.53")

    for chart, told in (("Price chart", "measured"), ("Plan of the coming day", "MW|Hold")):
        page.get_by_label(chart).focus()
        page.keyboard.press("ArrowRight")
        reading = page.locator("#read-chart" if chart == "Price chart" else "#read-plan")
        expect(reading).to_contain_text(re.compile(told))
        first = reading.text_content()
        page.keyboard.press("ArrowRight")
        expect(reading).not_to_have_text(str(first))
        polled()
        expect(page.get_by_label(chart)).to_be_focused()
        expect(reading).not_to_contain_text("Point at the chart")


@pytest.mark.servers
def test_of_a_thousand_regions_one_is_typed_and_none_listed(server: Server, page: Page) -> None:
    from playwright.sync_api import expect

    def many(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        found["regions"] |= {f"N{number:04}": found["regions"]["DE"] for number in range(1000)}
        route.fulfill(response=answer, json=found)

    page.route("**/api/v1/prices*", many)
    page.get_by_placeholder("ENERGY_ML_API_TOKEN").fill(TRAIN_TOKEN)
    page.keyboard.press("Enter")
    field = page.get_by_label(re.compile("One of 1,?0.* regions"))
    expect(field).to_have_value("FR")
    assert not page.locator("#regions button").count()
    field.fill("N00")  # no region yet
    expect(page.get_by_role("img", name="Price of FR and forecasts")).to_be_visible()
    field.fill("DE")
    expect(page.get_by_role("img", name="Price of DE and forecasts")).to_be_visible()


@pytest.mark.servers
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_on_the_page_is_out_of_reach(server: Server, width: int) -> None:
    """By axe-core's rules, in both colour schemes; and nothing is wider than the window."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    with browser_window(width, 900) as window:
        for scheme in ("light", "dark"):
            window.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            window.goto(server.url)
            if scheme == "light":
                window.get_by_placeholder("ENERGY_ML_API_TOKEN").fill(TRAIN_TOKEN)
                window.keyboard.press("Enter")
            expect(window.locator("#plan path.filled")).to_be_visible()
            expect(window.locator("#fleet tbody tr").first).to_be_visible()
            found = Axe().run(window).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
            assert window.evaluate("document.documentElement.scrollWidth") <= width


def test_reports_are_served_with_the_right_to_read(server: Server) -> None:
    """With a header, or with the cookie that the page sets, which opens nothing else; away from the page's origin."""
    report = server.root / "results/2025-03-04/report.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("<p>how the day went</p>")
    (report.parent / "battery_backtest.parquet").write_bytes(b"")
    cookie = {"Cookie": "other=1; energy_ml_token=" + base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")}
    with server.client(None) as client:
        url = f"{server.url}/reports/2025-03-04"
        assert client.get(url).status_code == 401
        assert client.get(f"{server.url}/api/v1/models", headers=cookie).status_code == 401
        answer = client.get(url, headers=cookie)
        assert answer.text == "<p>how the day went</p>" and "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers.get_list("content-security-policy") == [answer.headers["content-security-policy"]]
        assert client.get(f"{server.url}/reports/2025-03-03", headers=cookie).status_code == 404
        assert client.get(f"{server.url}/reports/..%2f..%2fmodels", headers=cookie).status_code in (404, 422)
    with server.client() as client:
        told = client.get("/results").raise_for_status().json()
    assert told["reports"] == ["2025-03-04"] and told["earned"] == [], "a day that can't be read is left out"


def test_cash_of_a_day_is_that_day_of_its_own_backtest(tmp_path: Path) -> None:
    store = ResultsStore(str(tmp_path))
    for day, value in (("2026-02-01", 9.0), ("2026-02-09", 1.0), ("2026-02-10", 2.0)):
        times = pd.date_range(pd.Timestamp(day, tz="UTC") - pd.Timedelta(hours=12), periods=36, freq="h")
        rows = [
            {"timestamp": t, "region": "FR", "battery_id": "A", "strategy": name, "cash": value}
            for t in times
            for name in (OUR_POLICY, "threshold")
        ]
        store.write(day, BACKTEST_FILE, pd.DataFrame(rows))
    found = daily_cash(store)
    assert found[["day", "cash"]].to_numpy().tolist() == [["2026-02-09", 24.0], ["2026-02-10", 48.0]]
