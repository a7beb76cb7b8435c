"""Rules of the house that a reader of the design relies on: who may import whom, and what importing costs."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import energy_ml

ROOT = Path(energy_ml.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
CORE = sorted(
    "energy_ml." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in MODULES
    if path.relative_to(ROOT).parts[0] not in ("orchestration", "__init__.py", "definitions.py")
)

FORBIDDEN = {
    "config.py": {"market_data", "features", "price_prediction", "rl_battery", "evaluation", "model_management"},
    "errors.py": {"config", "market_data", "features", "price_prediction", "rl_battery", "evaluation"},
    "splits.py": {"config", "market_data", "features", "price_prediction", "rl_battery", "evaluation"},
    "market_data": {"features", "price_prediction", "rl_battery", "evaluation", "model_management"},
    "features": {"price_prediction", "rl_battery", "evaluation", "model_management"},
    "price_prediction": {"rl_battery"},
    "rl_battery": {"price_prediction"},
    "model_management": {"service", "orchestration"},
    "service": {"orchestration"},
    "orchestration": {"service", "cli"},
}
FACES = {"service", "orchestration", "cli", "definitions"}


def _imports(path: Path) -> set[str]:
    """First part below energy_ml of everything that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("energy_ml.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_imports_what_lies_above(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    imported = _imports(path)
    assert not imported & FORBIDDEN.get(room, set())
    if path.stem not in FACES and room not in FACES:
        assert not imported & FACES, "the faces are imported by nobody"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring and len(docstring.splitlines()[0]) > 20


def test_only_orchestration_loads_dagster() -> None:
    """A fresh interpreter that has imported all else, and made a predictor, hasn't loaded Dagster."""
    code = (
        f"import sys, importlib\nfor name in {CORE!r}: importlib.import_module(name)\n"
        "from energy_ml.price_prediction import PricePredictor\nPricePredictor('models/none')\n"
        "loaded = sorted(m for m in sys.modules if m.split('.')[0] == 'dagster')\n"
        "assert not loaded, loaded[:5]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_graph_is_loaded_without_what_trains() -> None:
    """Code server, daemon and each look at the definitions wait for it: a third of their start."""
    code = "import energy_ml.definitions, sys; print({'xgboost', 'sklearn', 'scipy.stats'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_assets_are_thin() -> None:
    """An asset hands over and records; what a step does stands in ``day``."""
    for name in ("assets", "steps"):
        for node in ast.walk(ast.parse((ROOT / f"orchestration/{name}.py").read_text())):
            if isinstance(node, ast.FunctionDef) and any("asset" in ast.unparse(d) for d in node.decorator_list):
                assert (node.end_lineno or 0) - node.lineno < 20, node.name


def test_what_is_private_of_dagster_stands_in_one_file() -> None:
    users = {path.name for path in MODULES if "dagster._" in path.read_text()}
    assert users == {"private.py"}


def test_the_day_knows_no_face() -> None:
    assert not _imports(ROOT / "day.py") & FACES


def test_asset_modules_keep_their_annotations() -> None:
    """Postponed annotations break Dagster's reading of asset and resource signatures."""
    for path in (ROOT / "orchestration").rglob("*.py"):
        assert "from __future__ import annotations" not in path.read_text(), path


@pytest.mark.parametrize("asked", ["latest_complete_day", "read_price_window"])
def test_one_room_asks_the_lake_for_a_day_and_its_window(asked: str) -> None:
    """Five copies of the rule gave two answers."""
    callers = {
        str(path.relative_to(ROOT))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) == asked
    }
    assert callers == {"training_window.py"}


WIDE = {
    "get_action": "six are promised by position, the rest are what a live call knows by name",
}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_can_be_taken_in_at_one_look(path: Path) -> None:
    """At most 100 lines and 10 parameters, but for those that are listed with their reason."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            width = sum(argument.arg not in ("self", "cls") for argument in arguments)
            assert (node.end_lineno or 0) - node.lineno < 100, f"{node.name} is long"
            assert node.name in WIDE or width <= 10, f"{node.name} takes {width} parameters"


def test_types_say_what_a_value_is() -> None:
    """At most 5 ``Any`` in 1,000 lines: what is only passed on is an ``object``."""
    texts = [path.read_text() for path in MODULES]
    anys = sum(len(re.findall(r"\bAny\b", text)) for text in texts)
    assert anys <= 5 * sum(text.count("\n") for text in texts) / 1000, anys


def test_what_only_its_module_uses_begins_with_an_underscore() -> None:
    """Functions and constants, so that a reader sees what others rely on; promised ones are asked for by a test."""
    others = [p for folder in ("energy_ml_tests", "benchmarks") for p in (ROOT.parent / folder).rglob("*.py")]
    pages = [*ROOT.parent.glob("*.md"), *(ROOT.parent / "docs").rglob("*.md")]
    files = Counter(word for path in [*MODULES, *others, *pages] for word in set(re.findall(r"\w+", path.read_text())))
    lonely = []
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [t.id for t in targets if isinstance(t, ast.Name) and t.id.isupper()]
            if isinstance(node, ast.FunctionDef) and not node.decorator_list:
                names.append(node.name)
            lonely += [f"{path.stem}.{name}" for name in names if not name.startswith("_") and files[name] < 2]
    assert not lonely


def test_array_types_are_named_in_one_place() -> None:
    named = {path.name for path in MODULES if re.search(r"^\w+ = npt\.NDArray\[", path.read_text(), re.M)}
    assert named == {"arrays.py"}


@pytest.mark.parametrize("path", [p for p in MODULES if ">>> " in p.read_text()], ids=lambda p: p.stem)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed
