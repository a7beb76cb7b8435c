"""The pictures of README and docs, made from today's code: ``make pictures`` (some minutes; needs Debian's chromium).

What belongs here: a night on the sample, the servers around it, and what is photographed. Beside each picture
``pictures.json`` keeps a digest of what it shows; a test compares it with the code.

    python docs/pictures.py [FOLDER]    # FOLDER: where the night is, or is to be; else one that is thrown away
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS, DAY = ROOT / "docs", "2026-02-10"
PROGRAMS = Path(sys.executable).parent
MODEL = "price_prediction/model_15min"


def shown() -> dict[str, str]:
    """What each picture shows, as text that changes with it: the page's own files, the report's parts, the graph."""
    from energy_ml.definitions import defs

    page, report = ROOT / "energy_ml/service/static", ROOT / "energy_ml/evaluation/templates/report.html.j2"
    graph = defs.resolve_asset_graph()
    nodes = [
        f"{node.group_name} {node.key.to_user_string()} {sorted(k.to_user_string() for k in node.parent_keys)}"
        for node in sorted(graph.asset_nodes, key=lambda node: node.key)
    ]
    checks = [check.name for check in sorted(graph.asset_check_keys) if check.asset_key.to_user_string() == MODEL]
    return {
        "page.png": "".join((page / f"{name}").read_text() for name in ("index.html", "page.css", "page.js")),
        "report.png": " ".join(re.findall(r"<h\d>.*?</h\d>|chart\(.*?\)|table\(.*?\)", report.read_text())),
        "graph.png": "\n".join(nodes),
        "asset.png": f"{MODEL} {checks}",
    }


def digests() -> dict[str, str]:
    """Picture -> SHA-256 of what it shows."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in shown().items()}


@contextlib.contextmanager
def _server(root: Path, environment: dict[str, str], *command: str) -> Iterator[str]:
    """The address of a server, which is ended with the block; ``{port}`` in the command is a free one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [part.replace("{port}", str(port)) for part in command]
    with (
        (root / "pictures.log").open("a") as log,
        subprocess.Popen(
            [PROGRAMS / arguments[0], *arguments[1:]], cwd=root, env=environment, stdout=log, stderr=log
        ) as running,
    ):
        try:
            while running.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()


def _photograph(driver: Any, name: str, address: str, size: tuple[int, int], ready: Callable[[Any], object]) -> None:
    browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    window = browser.new_page(viewport={"width": size[0], "height": size[1]})
    window.set_default_timeout(120_000)
    window.goto(address)
    ready(window)
    window.wait_for_timeout(2000)
    window.screenshot(path=DOCS / name)
    browser.close()
    print(name, flush=True)


def _graph(window: Any) -> None:
    """Groups as they open; with every asset shown no window holds the graph legibly."""
    window.locator("svg foreignObject").get_by_text("model_management", exact=True).first.wait_for()
    window.get_by_text("Hide navigation").click()


def _asset(window: Any) -> None:
    """Figures of a model, and its chart before them."""
    window.get_by_role("row").filter(has_text="forecast_chart").get_by_text("Show Markdown").click()
    window.get_by_role("dialog").locator("img").last.wait_for()


def main() -> None:
    """Make every picture, and write down what it shows."""
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        root = Path(sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(ROOT / name, root / name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGY_ML_", "DAGSTER_"))}
        environment |= {
            "ENERGY_ML_PROJECT_ROOT": str(root),
            "ENERGY_ML_DATA_DIR": str(ROOT / "data/processed"),
            "DAGSTER_HOME": str(root),
        }
        if not (root / "results" / DAY).exists():
            subprocess.run([PROGRAMS / "energy-ml", "retrain", "--date", DAY], env=environment, check=True)
        driver = stack.enter_context(sync_playwright())
        _photograph(driver, "report.png", (root / f"results/{DAY}/report.html").as_uri(), (1180, 1460), lambda _: None)
        page = ("energy-ml", "serve", "--port", "{port}", "--log-level", "warning")
        with _server(root, environment, *page) as address:
            wait = "#plan path.filled"
            _photograph(driver, "page.png", address, (1360, 1120), lambda window: window.locator(wait).wait_for())
        ui = ("dagster-webserver", "-m", "energy_ml.definitions", "-h", "127.0.0.1", "-p", "{port}")
        with _server(root, environment, *ui) as address:
            _photograph(driver, "graph.png", f"{address}/asset-groups", (1360, 560), _graph)
            _photograph(driver, "asset.png", f"{address}/assets/{MODEL}?view=overview", (1500, 1000), _asset)
    (DOCS / "pictures.json").write_text(json.dumps(digests(), indent=2) + "\n")


if __name__ == "__main__":
    main()
