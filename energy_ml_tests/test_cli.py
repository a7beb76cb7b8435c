"""The command line: help that teaches, tables and JSON, one-line errors with the right exit code."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from energy_ml import cli
from energy_ml.artifacts import save_artifact
from energy_ml.market_data.simulator import write_simulation
from energy_ml.model_management.registry import ModelRegistry

COMMANDS = ("simulate", "data", "retrain", "predict", "act", "report", "backtest", "backfill", "serve", "models")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Call the program in this process: ``run("data", "--json") -> (exit code, stdout, stderr)``."""
    for name in ("DATA_DIR", "MODELS_DIR", "RESULTS_DIR"):
        monkeypatch.setenv(f"ENERGY_ML_{name}", str(tmp_path / name.lower()))
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "width", 100)
        monkeypatch.setattr(console, "file", None)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["energy-ml", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0 and "Usage" in out
    assert command in run("--help")[1]


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from energy_ml.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "numba", "joblib", "dagster", "asyncio"} & set(done.stdout.split())


def test_wrong_use_is_exit_code_two(run) -> None:
    assert run("retrian")[0] == 2
    assert run("retrain", "--date")[0] == 2
    code, _, err = run("retrain", "--date", "yesterday")
    assert code == 2 and "'yesterday' isn't a date. Expected: YYYY-MM-DD" in err
    assert "Traceback" not in err


def test_what_no_one_knows_is_wrong_use(run, registry: tuple[ModelRegistry, list[str]], tmp_path: Path) -> None:
    (tmp_path / "results_dir/2026-02-09").mkdir(parents=True)
    (tmp_path / "results_dir/2026-02-09/report.html").write_text("<html>")
    model, version = "price_prediction_15m", registry[1][0]
    for command in (
        f"models show {model}x",
        f"models compare {model} {version} v1",
        f"models promote {model} v20000101_000000 --reason x",
        f"models rollback {model}x --reason x",
        "report --date 2026-02-08",
        "predict --file nowhere.parquet",
        "act --battery nobodys",
        "serve --log-level loud",
        "simulate --interval-minutes 7",
    ):
        code, _, err = run(*command.split())
        assert code == 2 and "Traceback" not in err, (command, err)


def test_failure_is_one_line_with_a_remedy_and_exit_code_one(run) -> None:
    for command in (["data"], ["predict"], ["report"]):
        code, _, err = run(*command)
        assert code == 1 and err.startswith("error:") and "Remedy:" in err
        assert len(err.strip().splitlines()) == 1


def test_simulate_and_data(run, tmp_path: Path) -> None:
    folder = tmp_path / "data_dir"
    code, out, _ = run(
        "simulate",
        "--output",
        str(folder),
        "--days",
        "3",
        "--regions",
        "2",
        "--start",
        "2026-03-01",
        "--interval",
        "15",
    )
    assert code == 0 and str(folder) in out
    facts = json.loads(run("data", "--json")[1])
    assert facts["latest_complete_day"] == "2026-03-03"
    assert {f["kind"] for f in facts["files"]} == {"prices", "batteries"}
    assert [day["FR"] for day in facts["coverage"]] == [96, 96, 96]
    assert run("compact", str(tmp_path / "new"))[0] == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "batteries_2026-03_000_all.parquet",
        "prices_2026-03_000_all.parquet",
    ]
    code, table, _ = run("data")
    assert code == 0 and "newest complete day: 2026-03-03" in table
    assert max(map(len, table.splitlines())) <= 100

    again = tmp_path / "again"
    write_simulation(str(again), days=3, regions=2, start=dt.date(2026, 3, 1), interval_minutes=15)
    for path in again.iterdir():
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(folder / path.name))

    folder, what = tmp_path / "nodal", "--days 1 --interval 60 --nodes 30 --zones 3"
    assert run("simulate", "--output", str(folder), *what.split())[0] == 0
    assert pd.read_parquet(folder / "nodes.parquet")["zone"].nunique() == 3
    assert run("simulate", "--nodes", "3", "--zones", "4")[0] == 2


def test_days_outside_the_data_name_the_setting(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_simulation(str(tmp_path / "data_dir"), days=3, regions=1, start=dt.date(2026, 3, 1), interval_minutes=60)
    monkeypatch.setenv("ENERGY_ML_START_DATE", "2026-03-01")
    code, _, err = run("retrain", "--date", "2026-03-03")
    assert code == 2 and "ENERGY_ML_START_DATE" in err and "ENERGY_ML_TRAINING_WINDOW_DAYS" in err


@pytest.fixture
def registry(tmp_path: Path) -> tuple[ModelRegistry, list[str]]:
    registry, versions = ModelRegistry(tmp_path / "models_dir" / "registry.json"), []
    for number in range(3):
        versions.append(registry.new_version())
        artefact = tmp_path / f"{number}.pkl"
        save_artifact({"number": number}, artefact)
        registry.register_model(
            "price_prediction",
            "price_prediction_15m",
            versions[-1],
            artefact,
            {"as_of": f"2026-02-0{number + 1}", "metrics": {"test": {"mae": 10.0 - number}}},
        )
    return registry, versions


def test_models(run, registry: tuple[ModelRegistry, list[str]]) -> None:
    store, versions = registry
    model = "price_prediction_15m"
    for version in versions[1:]:
        code, out, _ = run("models", "promote", model, version, "--reason", "trusted more", "--who", "ada")
        assert code == 0 and f"champion is now {version}" in out
    assert store.load(model) == {"number": 2}
    code, out, _ = run("models", "rollback", model, "--reason", "odd nights", "--who", "ada")
    assert code == 0 and store.champion(model)["version"] == versions[1]
    assert versions[1] in run("models", "list")[1]
    shown = run("models", "show", model)[1]
    assert f"* {versions[1]}" in shown and "odd nights" in shown and "ada" in shown
    compared = json.loads(run("models", "compare", model, versions[0], versions[2], "--json")[1])
    assert compared["numbers"]["metrics.test.mae"]["difference"] == -2.0
    assert (
        next(row["champion"] for row in json.loads(run("models", "list", "--json")[1]) if row["model_id"] == model)
        == versions[1]
    )


def test_compare_shows_what_differs_and_leaves_the_rest_to_json(run, registry: tuple[ModelRegistry, list[str]]) -> None:
    model, versions = "price_prediction_15m", []
    for mae, preset in ((10.0, "fast"), (9.0, "best")):
        metrics = {"test": {"mae": mae, "rmse": 12.0}, "train": {"mae": mae}}
        metadata = {"config": {"preset": preset, "trees": 200, "lags": [1, 5]}, "metrics": metrics, "run_id": preset}
        versions.append(registry[0].new_version())
        path = registry[0].artifact_path(model, registry[1][0])
        registry[0].register_model("price_prediction", model, versions[-1], path, metadata)
    code, out, _ = run("models", "compare", model, *versions)
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["config.preset", "fast", "best"],
        ["metrics.test.mae", "10", "9"],
        ["2", "more", "differ:"],
    ]


def test_leaderboard(run, tmp_path: Path) -> None:
    code, _, err = run("leaderboard")
    assert code == 1 and "train at least one as-of date" in err
    for day, rmae in (("2026-02-09", 0.75), ("2026-02-10", 0.8)):
        (tmp_path / "results_dir" / day).mkdir(parents=True)
        prices = [{"horizon_minutes": 15, "region": "all", "rmae": rmae}]
        summary = [{"strategy": "q_learning", "battery_id": "all", "region": "all", "share": 0.5}]
        (tmp_path / "results_dir" / day / "metrics.json").write_text(json.dumps({"prices": prices}))
        (tmp_path / "results_dir" / day / "evaluation").mkdir()
        (tmp_path / "results_dir" / day / "evaluation/battery_summary.json").write_text(
            json.dumps({"summary": summary})
        )
    code, out, err = run("leaderboard")
    assert code == 0, err
    assert [line.split() for line in out.splitlines()[1:4]] == [
        ["as_of", "15", "min"],
        ["2026-02-10", "0.8"],
        ["2026-02-09", "0.75"],
    ]
    assert str(tmp_path / "results_dir/leaderboard.html") in out
    assert {row["metric"] for row in json.loads(run("leaderboard", "--json")[1])} >= {"rmae"}


def test_a_pipe_gets_whole_lines(run, tmp_path: Path) -> None:
    """Outside of this process, where nobody sets a width."""
    name = "prices_of_a_very_long_name_that_a_narrow_terminal_would_have_to_cut_somewhere_in_the_middle.parquet"
    write_simulation(str(tmp_path / "data_dir"), days=1, regions=1, start=dt.date(2026, 3, 1), interval_minutes=60)
    next((tmp_path / "data_dir").glob("*price*")).rename(tmp_path / "data_dir" / name)
    piped = subprocess.run(
        [sys.executable, "-c", "from energy_ml.cli import main; main()", "data"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert name in piped.stdout and "…" not in piped.stdout and "first (UTC)" in piped.stdout


def test_models_repair_puts_a_damaged_champion_back_and_says_what_it_cannot(
    run, registry: tuple[ModelRegistry, list[str]], tmp_path: Path
) -> None:
    store, versions = registry
    model, folder = "price_prediction_15m", tmp_path / "models_dir/price_prediction"
    store.promote(model, versions[2], reason="better", who="ada")
    assert run("models", "repair")[1].strip() == "every file is as the registry knows it"
    champion = folder / "model_15min.pkl"
    champion.write_bytes(champion.read_bytes() + b"x")
    code, out, _ = run("models", "repair")
    assert code == 0 and out.splitlines()[0].startswith("moved price_prediction/model_15min.pkl to quarantine/")
    assert out.splitlines()[1:] == [f"put {versions[2]} at price_prediction/model_15min.pkl"]
    assert store.load(model) == {"number": 2}
    (folder / "versions" / versions[0] / "model_15min.pkl").write_bytes(b"lost for good")
    code, out, _ = run("models", "repair")
    assert code == 1 and "still wrong" in out and versions[0] in out


def test_models_that_registry_json_does_not_know_are_adopted_and_retired_ones_say_why(
    run, registry: tuple[ModelRegistry, list[str]], tmp_path: Path
) -> None:
    store, versions = registry
    model = "price_prediction_15m"
    store.promote(model, versions[2], reason="better", who="ada")
    for name in ("registry.json", "registry.json.bak"):
        (tmp_path / "models_dir" / name).unlink()
    code, _, err = run("models", "repair")
    assert code == 1 and "doesn't know 3 artefacts" in err and "energy-ml models adopt" in err
    code, out, _ = run("models", "adopt", "--who", "ada")
    assert code == 0 and f"promoted {model} {versions[2]}" in out
    assert store.load(model) == {"number": 2} and run("models", "repair")[0] == 0
    assert "knows every artefact" in run("models", "adopt")[1]
    code, out, _ = run("models", "retire", model, "--reason", "half-hours ended", "--who", "ada")
    assert code == 0 and f"{versions[2]} is retired" in out
    assert "half-hours ended" in run("models", "show", model)[1] and store.champion(model) is None
    assert "retired" in run("models", "list")[1]


def test_report_opens_the_newest_or_says_which_there_are(run, tmp_path: Path) -> None:
    for day in ("2026-02-09", "2026-02-10"):
        (tmp_path / "results_dir" / day).mkdir(parents=True)
        (tmp_path / "results_dir" / day / "report.html").write_text("<html>")
    assert run("report")[1].strip().endswith("2026-02-10/report.html")
    assert run("report", "--date", "2026-02-09")[1].strip().endswith("2026-02-09/report.html")
    code, _, err = run("report", "--date", "2026-02-08")
    assert code == 2 and "2026-02-09, 2026-02-10" in err


def quarters(days: int, region: str = "AA") -> pd.DataFrame:
    """Quarter-hourly prices from 2026-10-01 on."""
    times = pd.date_range("2026-10-01", periods=96 * days, freq="15min", tz="UTC")
    return pd.DataFrame({"timestamp": times, "region": region, "real_time_price": range(len(times))}).astype(
        {"real_time_price": float}
    )


def test_data_shows_many_files_by_folder_and_what_is_wrong_by_itself(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.out, "width", 200)
    folder = tmp_path / "data_dir"
    for (day, hour), rows in quarters(2).groupby(lambda i: divmod(i // 4, 24)):
        part = folder / f"region=AA/day=2026-10-0{day + 1}"
        part.mkdir(parents=True, exist_ok=True)
        rows.drop(columns="region").to_parquet(part / f"{hour}.parquet", index=False)
    (folder / "cut.parquet").write_bytes(b"PAR1 and no more")
    code, out, _ = run("data")
    assert code == 0 and len(out.splitlines()) < 20
    told = [" ".join(line.split()) for line in out.splitlines()]
    for day in ("2026-10-01", "2026-10-02"):
        assert f"region=AA/day={day}/24 files prices 96 {day} 00:00 {day} 23:45" in told
    assert any(line.startswith("cut.parquet – 0 – – the file has no footer") for line in told)
    assert "interval: 15 minutes" in told and "horizons: 15, 60 minutes" in told
    for number in range(30):
        (folder / f"day={number}").mkdir()
        quarters(1, f"R{number}").to_parquet(folder / f"day={number}/x.parquet", index=False)
    code, out, _ = run("data")
    assert code == 0 and "78 files" in out and "regions  fewest rows" in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("prices.csv", "pandas.read_csv('prices.csv'"),
        ("_later/prices.parquet", "rename it if it is meant"),
        ("prices.feather", "doesn't end with .parquet"),
    ],
)
def test_data_names_what_it_does_not_read(run, tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / "data_dir" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    code, out, err = run("data")
    assert code == 1 and f"not read: {name}: " in out and words in out and words in err


def test_data_names_many_alike_in_one_line(run, tmp_path: Path) -> None:
    for number in range(40):
        for name in (f"{number}.csv", f".{number}.crc"):
            (path := tmp_path / "data_dir" / name).parent.mkdir(exist_ok=True)
            path.write_text("")
    out = run("data")[1]
    assert out.count("not read: ") == 2 and out.count(" and 39 like it: ") == 2


def test_the_advice_for_a_csv_file_can_be_followed(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data_dir"
    folder.mkdir()
    quarters(12).to_csv(folder / "prices of mine.csv", index=False, sep=";")
    advice = run("data")[1].partition("in its folder: ")[2].splitlines()[0]
    monkeypatch.chdir(folder)
    exec(advice.removeprefix('python -c "').removesuffix('"'))
    code, out, _ = run("data")
    assert code == 0 and "newest complete day: 2026-10-12" in out


def test_data_lists_files_whatever_is_wrong_with_them(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data_dir"
    folder.mkdir()
    monkeypatch.setenv("ENERGY_ML_HORIZONS", "5,15")
    frame = quarters(3)
    for name in ("upper.PARQUET", "short.pq"):
        frame[frame["timestamp"].dt.day == (1 if name == "short.pq" else 2)].to_parquet(folder / name, index=False)
    frame.rename(columns={"real_time_price": "Price"}).to_parquet(folder / "renamed.parquet", index=False)
    frame.assign(real_time_price="dear").to_parquet(folder / "words.parquet", index=False)
    code, out, err = run("data")
    assert code == 0, err
    for name in ("upper.PARQUET", "short.pq", "renamed.parquet", "words.parquet"):
        assert name in out
    assert "not multiples of the interval: 5 (ENERGY_ML_HORIZONS)" in out and "real_time_price isn't numeric" in out
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    code, out, err = run("data")
    assert code == 1 and out.count("no footer") == 4 and err.startswith("error:")
    assert json.loads(run("data", "--json")[1])["latest_complete_day"] is None
