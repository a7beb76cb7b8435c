"""Progress events: monotone, whole lines only, many writers, safe names."""

import io
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from energy_ml.config import Settings
from energy_ml.progress import ProgressLog, progress_place, recent_runs
from energy_ml.screen import NightScreen


def test_progress_never_falls_and_ends(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path, "run-1")
    for value in (0.0, 0.5, 0.3, 0.9):
        log.write("price_prediction_15m", value, {"mae": value})
    log.write("price_prediction_15m", 1.0, state="completed")
    values = [event.progress for event in log.read()[0]]
    assert values == sorted(values) and values[-1] == 1.0
    assert log.latest()["price_prediction_15m"].state == "completed"


def test_small_steps_are_dropped_but_never_the_end(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path, "run-1")
    for i in range(10_000):
        log.write("m", i / 10_000)
    log.write("m", 0.9999, state="failed")
    events = log.read()[0]
    assert 90 <= len(events) <= 200
    assert events[-1].state == "failed"


def test_reader_waits_for_whole_lines(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path, "run-1")
    log.write("m", 0.1)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[:10])
    events, offset = log.read()
    assert len(events) == 1 and int(offset) == len(whole)
    log.path.write_bytes(whole + whole)
    assert len(log.read(offset)[0]) == 1


def _write_many(folder: str, name: str) -> None:
    log = ProgressLog(folder, "shared")
    for i in range(50):
        log.write(name, i / 50, {"text": "x" * 200})


def test_lines_of_many_processes_do_not_interleave(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(str(tmp_path), f"m{k}")) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    events = ProgressLog(tmp_path, "shared").read()[0]
    assert len(events) == 150


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\0b"])
def test_run_ids_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="run id"):
        ProgressLog(tmp_path, name)


def test_metrics_become_plain_json(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path, "run-1")
    log.write("m", 0.5, {"nan": float("nan"), "number": np.float32(0.5), "path": tmp_path, "epoch": 3})
    assert log.read()[0][0].metrics == {"nan": None, "number": 0.5, "path": str(tmp_path), "epoch": 3}


def test_a_second_try_goes_on_from_where_the_first_came_to(tmp_path: Path) -> None:
    ProgressLog(tmp_path, "run-1").write("m", 0.6)
    again = ProgressLog(tmp_path, "run-1")
    for value in (0.0, 0.3, 0.9):
        again.write("m", value, state="failed" if value == 0.3 else "running")
    assert [event.progress for event in again.read()[0]] == [0.6, 0.6, 0.9]


def test_only_runs_with_news_are_recent(tmp_path: Path) -> None:
    ProgressLog(tmp_path, "old").write("m", 0.5)
    os.utime(tmp_path / "old.jsonl", (1, 1))
    ProgressLog(tmp_path, "new").write("m", 0.5)
    assert recent_runs(str(tmp_path), 60) == ["new"]


def test_logs_lie_with_the_results_or_on_the_local_disk() -> None:
    assert progress_place(Settings(results_dir="/srv/results")) == "/srv/results/.progress"
    first, second = (Path(progress_place(Settings(results_dir=f"s3://bucket/{name}"))) for name in "ab")
    assert first != second and first.is_absolute() and "s3" not in str(first)


def test_a_disk_that_takes_no_progress_does_not_stop_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    log = ProgressLog(tmp_path / "file" / ".progress", "run")
    log.callback("model")(0.5, {"mae": 1.0})
    log.write("model", 1.0, state="completed")
    assert log.latest() == {}


def test_without_a_terminal_each_step_that_ends_is_a_line(tmp_path: Path) -> None:
    log, written = ProgressLog(tmp_path, "run-1"), io.StringIO()
    steps = {"features__data": (1.0, None), "price_prediction__model_5min": (10.0, "price_prediction_5m")}
    with NightScreen(Console(file=written), "retrain", steps, log) as screen:
        for name in steps:
            screen.step(name, "running")
            log.write("price_prediction_5m", 1.0, {"mae": 1.5}, state="completed")
            screen.step(name, "completed")
        screen.step("features__data", "running")
        screen.step("features__data", "failed")
    first, second, third = written.getvalue().splitlines()
    assert first.split() == ["features/data", "0.0", "s"] and third.split()[-1] == "failed"
    assert second.split() == ["price_prediction/model_5min", "0.0", "s", "mae", "1.5"]
