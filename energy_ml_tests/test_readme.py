"""The README's commands and Python example and the notebook, run as they stand on a small project."""

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from energy_ml.config import project_root, setting_rows, settings_page
from energy_ml.market_data.simulator import write_simulation

README = (project_root() / "README.md").read_text()
PAGES = [project_root() / "README.md", *sorted((project_root() / "docs").glob("*.md"))]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with the project's configuration and a few days of half-hourly prices in place of the sample."""
    root = tmp_path_factory.mktemp("readme")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(project_root() / name, root / name)
    write_simulation(str(root / "data/processed"), days=5, regions=2, start=dt.date(2026, 2, 6), interval_minutes=30)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGY_ML_", "DAGSTER"))}
    environment |= {
        "ENERGY_ML_PROJECT_ROOT": str(root),
        "ENERGY_ML_START_DATE": "2026-02-06",
        "ENERGY_ML_HORIZONS": "30,60",
        "ENERGY_ML_TRAINING_WINDOW_DAYS": "4",
        "ENERGY_ML_PRESET": "fast",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    return root, environment


def test_shell_commands_and_python_example(project: tuple[Path, dict[str, str]]) -> None:
    root, environment = project
    commands = [line for block in _blocks("bash") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 8 and commands[0].startswith("energy-ml retrain")
    for command in commands:
        command = command.replace("price_prediction_15m", "price_prediction_60m")
        done = subprocess.run(
            command, shell=True, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert "…" not in done.stdout, "nothing is cut in a pipe"
    assert (root / "results/2026-02-10/report.html").stat().st_size > 50_000
    assert (root / "models/registry.json").is_file()

    (example,) = _blocks("python")
    example = example.replace("horizon=15", "horizon=60")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.search(r"^-?\d+\.\d\d \(-?\d+\.\d\d to -?\d+\.\d\d\)$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^(charge|hold|discharge) ", done.stdout, flags=re.MULTILINE)


def test_the_notebook_runs(project: tuple[Path, dict[str, str]]) -> None:
    """Its cells in their order, on what the README's commands have left behind."""
    root, environment = project
    cells = json.loads((project_root() / "docs/from_python.ipynb").read_text())["cells"]
    assert all(cell.get("outputs", []) == [] for cell in cells), (
        "outputs aren't kept: they would be older than the code"
    )
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "A stored MWh is worth" in done.stdout and "price_stays" in done.stdout and "'rmae'" in done.stdout


def test_no_picture_is_older_than_what_it_shows() -> None:
    """A changed page, graph or part of the report needs new pictures."""
    script = project_root() / "docs/pictures.py"
    code = f"import json, runpy; print(json.dumps(runpy.run_path({str(script)!r})['digests']()))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGY_ML_", "DAGSTER"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    digests = json.loads(done.stdout)
    kept = json.loads(script.with_suffix(".json").read_text())
    old = [name for name, digest in digests.items() if kept.get(name) != digest]
    assert not old, f"{', '.join(old)} show what isn't so any more: make pictures"
    assert kept.keys() == digests.keys() == {path.name for path in script.parent.glob("*.png")}


def test_the_demo_compiles_beside_the_night_only_what_is_new(tmp_path: Path) -> None:
    """With programs that only say that they ran; a night that fails makes the command fail."""
    (tmp_path / "bin").mkdir()
    said, night = tmp_path / "said", tmp_path / "bin/energy-ml"
    for program in (tmp_path / "bin/python", night):
        program.write_text(f'#!/bin/sh\necho "$*" >> {said}\n')
        program.chmod(0o755)
    (tmp_path / ".installed-demo").touch()

    def demo() -> tuple[int, list[str]]:
        said.unlink(missing_ok=True)
        command = ["make", "demo", f"VENV={tmp_path}"]
        done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False)
        return done.returncode, sorted(said.read_text().splitlines())

    both = ["-m energy_ml.rehearsal", "retrain --date latest"]
    assert demo() == (0, both)
    assert demo() == (0, both[1:]), "nothing is left to compile"
    os.utime(tmp_path / ".rehearsed", (0, 0))
    assert demo() == (0, both), "code has changed since"
    night.write_text("#!/bin/sh\nexit 1\n")
    said.touch()
    done = subprocess.run(["make", "demo", f"VENV={tmp_path}"], cwd=project_root(), capture_output=True, check=False)
    assert done.returncode == 2


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_every_setting_of_the_pages_exists() -> None:
    known = {row.variable for row in setting_rows({})} | {"ENERGY_ML_CONFIG", "ENERGY_ML_PROJECT_ROOT"}
    known |= {"ENERGY_ML_POSTGRES_URL"}  # Dagster's own, in deploy/dagster.postgres.yaml
    for page in PAGES:
        assert set(re.findall(r"`(ENERGY_ML_\w+)`", page.read_text())) <= known, page.name


def test_the_page_of_settings_is_made_from_the_fields() -> None:
    assert (project_root() / "docs/settings.md").read_text() == settings_page()


def test_pictures_and_links_are_there() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    assert {page.name for page, _ in links} >= {"README.md", "nightly.md", "architecture.md"}
    for page, target in links:
        path, _, heading = target.partition("#")
        if target.startswith("http"):
            continue
        told = page.parent / path if path else page
        assert told.exists(), (page.name, target)
        if heading:
            headings = re.findall(r"^#+ (.+)$", told.read_text(), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings], target
