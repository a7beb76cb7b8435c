"""The whole job as users start it, in a folder of its own: results, history, a second version, a killed run, backfill.

The tests of this file follow the shared project through its days, in the order of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import click
import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner
from dagster._cli.asset import asset_cli

from energy_ml.features.price_features import FAMILIES
from energy_ml.orchestration.assets import BATTERY_TELEMETRY, MARKET_PRICES, REGISTRY_ENTRY
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.launch import backfill, project_instance
from energy_ml.progress import ProgressLog
from energy_ml_tests.orchestration.project import Project

PRICE_FEATURES = dg.AssetKey(["features", "price_features"])

RESULTS = (
    "forecasts.parquet",
    "battery_backtest.parquet",
    "report.html",
    "metrics.json",
    "features/price_features.parquet",
    "features/time_split.json",
    "price_prediction/model_30min.pkl",
    "rl_battery/battery_policy.pkl",
    "model_management/decisions.json",
)
MATERIALIZE = ("dagster", "asset", "materialize", "-m", "energy_ml.definitions")
MODELS = {"price_prediction_30m", "price_prediction_60m", "battery_policy"}


def _digest(project: Project, day: str, name: str = "forecasts.parquet") -> str:
    return hashlib.sha256((project.root / "results" / day / name).read_bytes()).hexdigest()


def test_one_command_leaves_everything_behind(project: Project) -> None:
    for name in RESULTS:
        assert project.store.exists("2026-01-06", name), name
    forecasts = project.store.read("2026-01-06", "forecasts.parquet")
    assert set(forecasts["split"]) == {"train", "validation", "test"}
    assert set(forecasts["horizon_minutes"]) == {30, 60}
    assert forecasts["timestamp"].min() >= pd.Timestamp("2026-01-03", tz="UTC")
    assert set(project.champions()) == MODELS
    project.assert_champions_serve(project.champions())


def test_history_is_on_record_in_the_project(inside: Project) -> None:
    with project_instance() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "2026-01-06"}))
        assert run.status is dg.DagsterRunStatus.SUCCESS
        event = instance.get_latest_materialization_event(dg.AssetKey(["evaluation", "report"]))
        assert event is not None and event.run_id == run.run_id and event.asset_materialization is not None
        link = dg.MetadataValue.url("http://trader.example:8000/reports/2026-01-06")
        assert event.asset_materialization.metadata["report_page"] == link
        made = instance.get_latest_materialization_event(dg.AssetKey(["price_prediction", "forecasts"]))
        assert made is not None and made.asset_materialization is not None
        origin = made.asset_materialization.metadata["dagster/column_lineage"].value.deps_by_column["price_forecast"]
        assert {dep.asset_key.path[-1] for dep in origin} == {"forecasts_30min", "forecasts_60min"}
        for raw in (MARKET_PRICES, BATTERY_TELEMETRY):
            days = [f"2026-01-{day:02d}" for day in range(3, 7)]
            assert instance.get_materialized_partitions(raw) == set(days), "the window's days are there, each once"
            reported = instance.fetch_materializations(raw, limit=9).records
            assert len(reported) == len(days)
            for one in reported:
                assert one.asset_materialization is not None and one.run_id == "", "no run of ours made them"
                assert int(str(one.asset_materialization.metadata["dagster/partition_row_count"].value)) >= 48
    assert (inside.root / ".dagster").is_dir()
    assert not list(inside.root.glob(".tmp_dagster_home_*")), "nothing stays behind"


def test_importance_by_family_is_in_the_ui_and_in_the_report(inside: Project) -> None:
    """By SHAP, and the same numbers in both places."""
    tables = []
    with project_instance() as instance:
        for horizon in (30, 60):
            event = instance.get_latest_materialization_event(dg.AssetKey(["price_prediction", f"model_{horizon}min"]))
            assert event is not None and event.asset_materialization is not None
            shown = event.asset_materialization.metadata["importance_by_family"]
            lines = [line.strip("| ").split(" | ") for line in str(shown.value).splitlines()]
            assert lines[0] == ["family", "shap", "gain"]
            shares = pd.Series({family: float(share) for family, share, _ in lines[2:]})
            assert shares.sum() == pytest.approx(1.0, abs=0.01) and shares.is_monotonic_decreasing
            assert set(shares.index) <= set(FAMILIES)
            tables.append(shares)
    both = pd.concat(tables).groupby(level=0).mean()
    page = (inside.root / "results/2026-01-06/report.html").read_text(encoding="utf-8")
    said = page.split("Largest families by their share of mean absolute SHAP values")[1].split("</figcaption>")[0]
    assert f"{both.idxmax()} {both.max():.0%}" in said


def test_a_killed_run_leaves_champions_and_nothing_half_written(project: Project) -> None:
    before = project.champions()
    known = set((project.root / "results/.progress").glob("*.jsonl"))
    process = project.start("energy-ml", "retrain", "--date", "2026-01-06")
    log: Path | None = None
    while process.poll() is None:  # until the first model is being trained
        new = set((project.root / "results/.progress").glob("*.jsonl")) - known
        log = next(iter(new), None)
        if log is not None and ProgressLog(log.parent, log.stem).latest():
            break
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    project.assert_champions_serve(before)
    assert project.registry.verify() == []
    for name in RESULTS:
        if not name.endswith(".pkl"):
            project.store.read("2026-01-06", name)  # each file is a whole one, of this run or of the one before


def test_ctrl_c_is_one_line_and_a_canceled_run(inside: Project) -> None:
    before = inside.champions()
    done, shown = inside.run_on_terminal(
        "energy-ml", "retrain", "--date", "2026-01-06", interrupt_at="  price_prediction/model_30min"
    )
    assert done.returncode == 130 and done.stdout == "", shown[-3000:]
    assert "interrupted: what was written is whole" in shown.splitlines()[-1]
    assert not any(word in shown for word in ("Traceback", "error", "failed"))
    assert not [path for folder in ("models", "results") for path in (inside.root / folder).rglob("*.tmp")]
    inside.assert_champions_serve(before)
    with project_instance() as instance:
        assert instance.get_runs(limit=1)[0].status is dg.DagsterRunStatus.CANCELED


def _drawn_while_it_ran(shown: str) -> None:
    """Bars of steps under way, each above the line of its end; horizons in order, and the time left of the whole."""
    ended = [shown.index(found.group()) for found in re.finditer(r"\w+/\w+ +\d+\.\d s", shown)]
    assert len(ended) == 11 and ended == sorted(ended)
    for step in ("features/price_features", "evaluation/battery_backtest", "model_management/registry_entry"):
        end = re.search(rf"(?<!  ){step} +\d+\.\d s", shown)
        assert end is not None and re.search(rf"retrain 2026-01-06 .*\r?\n  {step} .*━", shown[: end.start()]), step
    assert re.search(r"model_30min +\d+\.\d s  mae .*model_60min +\d+\.\d s  mae ", shown, re.DOTALL)
    assert len(set(re.findall(r"\d:\d\d:\d\d", shown))) > 1, "the time left moves"


def test_the_next_run_works_adds_a_version_and_gives_equal_numbers(inside: Project) -> None:
    before = {name: _digest(inside, "2026-01-06", name) for name in ("forecasts.parquet", "battery_backtest.parquet")}
    stray = inside.root / "results/2026-01-06/evaluation/.tmp-report.html.1.tmp"
    stray.write_text("half a rep")
    done, shown = inside.run_on_terminal("energy-ml", "retrain", "--date", "2026-01-06", "--json")
    assert done.returncode == 0, shown[-3000:]
    _drawn_while_it_ran(shown)
    assert json.loads(done.stdout)["as_of"] == "2026-01-06"
    assert {name: _digest(inside, "2026-01-06", name) for name in before} == before, "same data, config and seed"
    assert not stray.exists()
    with project_instance() as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "2026-01-06"}))
    told = [run.status.value for run in runs]
    assert told == ["SUCCESS", "CANCELED", "FAILURE", "SUCCESS"], "the killed one is closed"
    for model in inside.registry.list_models():
        assert len(model["versions"]) == 2, model["model_id"]
    inside.assert_champions_serve(inside.champions())
    assert inside.registry.verify() == []


def test_a_backfill_is_one_run_per_day_and_never_dethrones_a_newer_champion(inside: Project) -> None:
    before = inside.champions()
    told = []
    runs = backfill(inside.day(4), inside.day(5), progress=told.append)
    assert [(str(r.as_of), r.error) for r in runs] == [("2026-01-04", None), ("2026-01-05", None)]
    assert told == runs
    with project_instance() as instance:
        found = instance.get_runs(dg.RunsFilter(tags={"energy_ml/backfill": "2026-01-04..2026-01-05"}))
        assert {r.run_id for r in found} == {r.run_id for r in runs}
        graph = build_definitions(inside.settings).resolve_asset_graph()
        for key in graph.materializable_asset_keys:
            if graph.get(key).partitions_def is not None:
                assert {"2026-01-04", "2026-01-05"} <= instance.get_materialized_partitions(key), key
    assert inside.champions() == before
    decisions = inside.store.read("2026-01-05", "model_management/decisions.json")
    assert not any(d["promote"] for d in decisions.values())
    assert all("backfill" in d["reason"] for d in decisions.values())
    page = (inside.root / "results/leaderboard.html").read_text()
    assert "3 as-of dates" in page and "Who was champion when" in page
    assert backfill(inside.day(4), inside.day(5), only_missing=True) == []


def test_a_range_from_the_shell_makes_each_day_as_its_own_run_does(inside: Project) -> None:
    names = [name for name in RESULTS if not name.endswith((".html", ".json", ".pkl"))]
    days, before = [str(inside.day(4)), str(inside.day(5))], inside.champions()
    alone = {(day, name): _digest(inside, day, name) for day in days for name in names}
    known = inside.registry.list_models()
    done = inside.run(*MATERIALIZE, "--select", "*", "--partition-range", "...".join(days))
    assert done.returncode == 0, done.stderr[-3000:]
    assert {(day, name): _digest(inside, day, name) for day, name in alone} == alone
    assert inside.champions() == before
    for was, now in zip(known, inside.registry.list_models(), strict=True):
        assert len(now["versions"]) == len(was["versions"]) + 2, "one version of each day"
    with project_instance() as instance:
        found = instance.fetch_materializations(PRICE_FEATURES, limit=2).records
        told = {r.partition_key: r.asset_materialization.metadata for r in found if r.asset_materialization}
        assert len({record.run_id for record in found}) == 1 and set(told) == set(days)
        for day, metadata in told.items():
            assert f"/{day}/" in str(metadata["path"].value)
            assert metadata["data_fingerprint"].value == inside.store.read(day, "features/data.json")["fingerprint"]
        (board,) = instance.fetch_materializations(dg.AssetKey(["evaluation", "leaderboard"]), limit=1).records
        assert board.run_id == found[0].run_id


@pytest.mark.filterwarnings("ignore:.*(superseded|beta)")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("group:features",), "no as-of date was given. Expected: 2026-01-04 or later. Remedy: add --partition"),
        (("group:features", "--partition", "2030-01-01"), "as-of date 2030-01-01 lies after 2026-01-08."),
        (("group:features", "--partition", "20260105"), "'20260105' isn't a date. Expected: YYYY-MM-DD."),
        (("group:features", "--partition-range", "2026-01-06...2026-01-05"), "the range ends on 2026-01-05, before it"),
        (("group:features", "--partition-range", "2026-01-03...2026-01-05"), "as-of date 2026-01-03 has no whole"),
        (("group:features", "--partition-range", "2026-01-05"), "'2026-01-05' isn't a range of days."),
        (("price_prediction/*", "--partition", "2026-01-05"), "A whole group is selected by group:NAME."),
    ],
)
def test_what_cannot_be_materialized_is_refused_in_one_line(
    inside: Project, options: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(asset_cli, [*MATERIALIZE[2:], "--select", *options])
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith("Error: ") and said in line


@pytest.mark.filterwarnings("ignore:.*beta")
def test_dg_launch_is_refused_as_dagster_is(inside: Project) -> None:
    with click.Context(click.Command("launch")) as asked:
        asked.params = {"assets": "group:features", "partition": "2030-01-01"}
        with pytest.raises(click.ClickException, match="as-of date 2030-01-01 lies after"):
            build_definitions(inside.settings)


@pytest.mark.filterwarnings("ignore:.*superseded")
def test_a_window_without_most_of_its_test_part_is_a_failed_check_and_exit_code_one(inside: Project) -> None:
    path = next((inside.root / "data/processed").glob("prices*.parquet"))
    whole = path.read_bytes()
    frame = pd.read_parquet(path)
    gone = frame["timestamp"].between("2026-01-07 02:00", "2026-01-07 23:00")
    frame[~gone].to_parquet(path, index=False)
    try:
        done = inside.run(*MATERIALIZE, "--select", "*", "--partition-range", f"{inside.day(6)}...{inside.day(7)}")
    finally:
        path.write_bytes(whole)
    assert done.returncode == 1, done.stderr[-3000:]
    assert not inside.store.exists(inside.day(7), "forecasts.parquet"), "no model on half a window"


def test_the_failed_check_is_on_record(inside: Project) -> None:
    with project_instance() as instance:
        records = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(PRICE_FEATURES, "window_complete"), limit=1
        )
    evaluation = records[0].event.dagster_event.asset_check_evaluation_data
    assert not evaluation.passed and evaluation.blocking
    said = evaluation.description or ""
    assert said.startswith("2026-01-07: ") and "DE lacks" in said, "of a range it names the day"


def test_a_second_run_of_the_day_waits_for_the_first(inside: Project) -> None:
    day = str(inside.day(7))
    results: list[dg.ExecuteInProcessResult] = []

    def materialize() -> None:
        job = build_definitions(inside.settings).resolve_implicit_global_asset_job_def()
        results.append(
            job.execute_in_process(partition_key=day, asset_selection=[PRICE_FEATURES], raise_on_error=False)
        )

    hold = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(inside.root / f"models/.locks/{day}.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "1\n"
        waiting = threading.Thread(target=materialize)
        waiting.start()
        waiting.join(timeout=3)
        assert waiting.is_alive() and not inside.store.exists(day, "features/price_features.parquet")
    finally:
        other.kill()  # a killed run holds nobody up
        other.communicate()
    waiting.join(timeout=60)
    assert results and results[0].success
    assert inside.store.exists(day, "features/price_features.parquet")


def test_without_backups_the_champion_and_the_one_before_it_are_kept(inside: Project) -> None:
    assert all(len(model["versions"]) > 3 for model in inside.registry.list_models())
    settings = replace(inside.settings, models=replace(inside.settings.models, keep_backup=False))
    job = build_definitions(settings).resolve_implicit_global_asset_job_def()
    with project_instance() as instance:
        chosen = [REGISTRY_ENTRY]
        assert job.execute_in_process(instance=instance, partition_key="2026-01-06", asset_selection=chosen).success
    for model in inside.registry.list_models():
        assert model["champion"] in model["versions"] and len(model["versions"]) <= 2, model["model_id"]
    inside.assert_champions_serve(inside.champions())
