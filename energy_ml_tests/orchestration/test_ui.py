"""The UI and the daemon as a person uses them: Debian's Chromium clicks, ``dagster-daemon run`` sees files arrive.

The tests of this file follow one running system, in the order of the file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
import pytest
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from energy_ml.market_data.simulator import simulate_market
from energy_ml.orchestration.assets import REGISTRY_ENTRY
from energy_ml.orchestration.schedules import NIGHTLY
from energy_ml.orchestration.sensors import NEW_PARQUET
from energy_ml_tests.orchestration.project import DAYS, FIRST, Project
from energy_ml_tests.orchestration.servers import browser_window, need
from energy_ml_tests.orchestration.system import System, running

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.servers

GROUPS = ("raw", "features", "price_prediction", "rl_battery", "evaluation", "model_management")
DAY_4, DAY_5, TRAINED, NEXT_DAY = (str(Project.day(n)) for n in (4, 5, DAYS, DAYS + 1))
"""The file of the last arrives while the system runs."""
UNTIL_NIGHT = dt.timedelta(seconds=119)
"""From the start of the system to the nightly time, of a whole minute: at least 60 s, longer than to its switch."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A week of data, whose nightly time is in a few minutes."""
    need("chromium", "chromium")
    night = dt.datetime.now(dt.UTC) + UNTIL_NIGHT
    project = Project.make(
        tmp_path_factory.mktemp("ui"),
        END_DATE=NEXT_DAY,
        HORIZONS="60",
        SENSOR_SECONDS="1",
        SETTLE_SECONDS="1",
        NIGHTLY_AT=f"{night:%H:%M}",
    )
    with running(project) as system:
        yield system


@pytest.fixture(scope="module")
def page(system: System) -> Iterator[Page]:
    """A headless browser window."""
    with browser_window(1500, 950) as window:
        yield window


def _launch(page: Page, days: str, button: str) -> None:
    """Choose days in the dialog and launch."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_placeholder("ex: ").fill(days)
    dialog.get_by_placeholder("ex: ").press("Enter")
    dialog.get_by_role("button", name=button).click()


def _switch_on(system: System, page: Page, kind: str, name: str) -> None:
    """Open the page of a sensor or schedule, read what it does, switch it on."""
    from playwright.sync_api import expect

    def is_running() -> bool:
        return any(s.instigator_name == name and s.is_running for s in system.instance.all_instigator_state())

    assert not is_running(), "off until somebody switches it on"
    page.goto(f"{system.url}/locations/energy_ml.definitions/{kind}/{name}")
    expect(page.get_by_role("row", name="Description")).to_contain_text("ENERGY_ML_")
    page.get_by_role("row", name="Running").locator("label").click()
    system.until(f"{name} is on", is_running)


def test_the_schedule_is_switched_on_by_a_click(system: System, page: Page) -> None:
    _switch_on(system, page, "schedules", NIGHTLY)


def test_the_graph_shows_every_group(system: System, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{system.url}/asset-groups")
    expect(page.get_by_role("button", name="Materialize all")).to_be_visible()
    for group in GROUPS:
        expect(page.locator("svg foreignObject").get_by_text(group, exact=True).first).to_be_visible()


def test_one_day_is_materialized_by_clicking_and_turns_green(system: System, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{system.url}/locations/energy_ml.definitions/jobs/retrain")
    page.get_by_role("button", name="Materialize all").click()
    _launch(page, TRAINED, "Launch 1 run")
    page.get_by_role("link", name="View", exact=True).click()
    system.until("the run ends", lambda: any(run.is_finished for run in system.runs(TRAINED)))
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    (run,) = system.runs(TRAINED)
    assert run.status is dg.DagsterRunStatus.SUCCESS and run.run_id in page.url
    assert system.project.store.exists(TRAINED, "report.html")


def test_metadata_shows_a_table_and_a_chart(system: System, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{system.url}/assets/price_prediction/model_60min?view=overview")
    tables = page.get_by_role("table").get_by_role("table").filter(has_text="family")
    expect(tables).to_have_count(2)  # importance by feature and by family
    expect(tables.first).to_be_visible()
    page.get_by_role("row").filter(has_text="forecast_chart").get_by_text("Show Markdown").click()
    chart = page.get_by_role("dialog").locator("img").last
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.complete && image.naturalWidth") > 300


def test_freshness_is_evaluated_by_the_daemon_and_shown(system: System, page: Page) -> None:
    from playwright.sync_api import expect

    def fresh() -> bool:
        state = system.instance.get_freshness_state_records([REGISTRY_ENTRY]).get(REGISTRY_ENTRY)
        return state is not None and state.freshness_state.value == "PASS"

    system.until("the registry entry is fresh", fresh)
    page.goto(f"{system.url}/assets/model_management/registry_entry?view=overview")
    expect(page.get_by_text("Passing").first).to_be_visible()


def test_a_backfill_by_clicking_is_one_run_per_day(system: System, page: Page) -> None:
    page.goto(f"{system.url}/assets/features/price_features")
    page.get_by_role("button", name="Materialize").first.click()
    _launch(page, f"[{DAY_4}...{DAY_5}]", "Launch backfill")
    for day in (DAY_4, DAY_5):
        system.until(f"{day} ends", lambda day=day: any(run.is_finished for run in system.runs(day)))
        (run,) = system.runs(day)
        assert run.status is dg.DagsterRunStatus.SUCCESS and "dagster/backfill" in run.tags
        assert system.project.store.exists(day, "features/price_features.parquet")


def test_the_schedule_has_looked_at_its_time(system: System) -> None:
    """Before the day's file arrives: between that and the sensor's run, the schedule would take the day itself."""
    state = next(s for s in system.instance.all_instigator_state() if s.instigator_name == NIGHTLY)

    def ended() -> list[InstigatorTick]:
        found = system.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        return [tick for tick in found if tick.status is not TickStatus.STARTED]

    system.until("the nightly tick", lambda: bool(ended()), UNTIL_NIGHT.total_seconds() + 60)
    (tick,) = ended()
    assert tick.status is TickStatus.SKIPPED, tick.error
    assert str(tick.skip_reason).startswith(f"{NEXT_DAY} isn't complete")


def test_a_dropped_file_is_trained_once_though_the_daemon_dies_twice(system: System, page: Page) -> None:
    _switch_on(system, page, "sensors", NEW_PARQUET)
    state = next(s for s in system.instance.all_instigator_state() if s.instigator_name == NEW_PARQUET)

    def ticks(status: TickStatus) -> list[InstigatorTick]:
        return list(
            system.instance.get_ticks(state.instigator_origin_id, state.selector_id, statuses=[status], limit=20)
        )

    told = f"{TRAINED} is trained on this data"
    system.until("the first look", lambda: any(told in str(tick.skip_reason) for tick in ticks(TickStatus.SKIPPED)))

    def cursor() -> str | None:
        kept = system.instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
        return getattr(kept.instigator_data, "cursor", None) if kept is not None else None

    # Dagster keeps the cursor after it has told of the look: killed between the two, it would look at all anew.
    system.until("what it saw is kept", lambda: bool(cursor()))

    system.kill_daemon()
    market = simulate_market(DAYS + 1, 2, FIRST, 30)
    arrived = market[market["timestamp"] >= pd.Timestamp(NEXT_DAY, tz="UTC")]
    arrived.to_parquet(system.project.root / "data/processed/arrived.parquet", index=False)
    system.start_daemon()
    system.until(
        "a run begins", lambda: any(run.status is dg.DagsterRunStatus.STARTED for run in system.runs(NEXT_DAY))
    )
    system.kill_daemon()
    system.start_daemon()
    system.until("the run ends", lambda: any(run.is_finished for run in system.runs(NEXT_DAY)))
    last = max(tick.tick_id for tick in ticks(TickStatus.SKIPPED))
    system.until("more looks", lambda: sum(tick.tick_id > last for tick in ticks(TickStatus.SKIPPED)) >= 2)
    (run,) = system.runs(NEXT_DAY)
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.tags["energy_ml/changed_days"] == NEXT_DAY
    assert system.project.store.exists(NEXT_DAY, "report.html")
    days = system.instance.get_materialized_partitions(dg.AssetKey(["raw", "market_prices"]))
    assert days == {str(FIRST + dt.timedelta(days=n)) for n in range(DAYS + 1)}, "which days the files cover"
