"""How fast the service answers: in process, over HTTP under load from another process, to 200 sockets, beside MLflow.

Needs champions (``energy-ml retrain``) and, for the load, ``wrk``. All runs on this machine: the load generator
takes its share of the cores. Wall time is what a caller waits, CPU time what it costs; beside both stands the load
average of the last minute, for a machine that is busy with other things shows in the tail of every wall time.
``--quiet-below 1.5`` waits for a quiet moment before each measurement, an hour at most.

    python benchmarks/service.py --seconds 60
    python benchmarks/service.py --promotions 10 --training    # swaps under load; 200 WebSocket clients
    python benchmarks/service.py --mlflow VENV                 # the same models behind MLflow: see mlflow_peer.py
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from energy_ml.config import Settings
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.service import MLService

CLIENTS = 200
CONNECTIONS = 8
JSON = {"Content-Type": "application/json"}
HERE = Path(__file__).parent


@dataclass
class Server:
    """A server in a process of its own: where it listens and what it has cost."""

    url: str
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """Of the process and its children, so far."""
        pids = [self.process.pid]
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            pids += [int(pid) for pid in task.read_text().split()]
        ticks = 0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Print rows under a title."""
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for first, *others in rows:
        print(
            "  " + "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])
        )
    sys.stdout.flush()


def wait_for_quiet(below: float | None) -> None:
    """Until the load average is below ``below``, an hour at most."""
    end = time.monotonic() + 3600
    while below is not None and os.getloadavg()[0] >= below and time.monotonic() < end:
        time.sleep(5)


def load() -> str:
    """The load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def measure(call: Callable[[], Any], runs: int) -> tuple[str, ...]:
    """p50 and p99 of the wall time and of this thread's CPU time in ms, after a warm-up, and the load average."""
    for _ in range(min(runs, 20)):
        call()
    wall, cpu = np.empty(runs), np.empty(runs)
    for i in range(runs):
        began, spent = time.perf_counter(), time.thread_time()
        call()
        cpu[i], wall[i] = time.thread_time() - spent, time.perf_counter() - began
    return (*(f"{np.quantile(times, q) * 1e3:.3f}" for times in (wall, cpu) for q in (0.5, 0.99)), load())


def in_process(service: MLService, runs: int) -> dict[str, Any]:
    """Forecasts from 120 recent rows, and battery actions; returns the request body that HTTP gets."""
    recent, _ = service.recent_prices(120 * service.market.prices(2880).interval_minutes)
    prices = recent.frame[["timestamp", "region", "real_time_price"]]
    region = recent.regions[0]
    own = prices[prices["region"] == region].reset_index(drop=True)
    policy = service.champions.get("battery_policy").model
    made = {row["horizon"]: row["price"] for row in service.forecast(regions=[region])}
    gc.collect()
    gc.freeze()  # as the service does
    rows = [("", "wall p50", "p99 ms", "CPU p50", "p99 ms", "load")]
    for name, call in (
        ("one region from its prices, all horizons, intervals", lambda: service.forecast(own, None, [region])),
        ("one region from all prices", lambda: service.forecast(prices, None, [region])),
        ("all regions from all prices", lambda: service.forecast(prices)),
        ("all regions, newest prices of the lake", lambda: service.forecast()),
        ("battery action (policy alone)", lambda: policy.get_action(0.5, 50.0, hour=12, forecasts=made)),
        ("battery action (act, lake)", lambda: service.act(0.5, region=region)),
    ):
        rows.append((name, *measure(call, runs)))
    table(f"in process, {runs} calls each, {len(recent.regions)} regions", rows)
    wide = prices.pivot_table(index="timestamp", columns="region", values="real_time_price", dropna=False)
    columns = {str(n): [None if pd.isna(v) else v for v in wide[n].tolist()] for n in wide.columns}
    return {"regions": [region], "prices": {"timestamps": [t.isoformat() for t in wide.index], "regions": columns}}


def one_client(server: Server, path: str, body: dict[str, Any], runs: int) -> tuple[str, ...]:
    """Latency of one client that asks again and again: p50 and p99 in ms, and the load average."""
    raw = json.dumps(body)
    with httpx.Client(base_url=server.url, headers=JSON, timeout=60) as client:
        p50, p99, *_ = measure(lambda: client.post(path, content=raw).raise_for_status(), runs)
    return p50, p99, load()


def under_load(server: Server, path: str, body: dict[str, Any], seconds: int) -> tuple[str, ...]:
    """What ``wrk`` gets out of it: requests/s, p50, p99, errors, server's CPU ms per request, load average."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n')
        script.write(f"wrk.body = [==[{json.dumps(body)}]==]")
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", script.name]
        spent = server.cpu_seconds()
        said = subprocess.run([*command, server.url + path], capture_output=True, text=True, check=True).stdout
        spent = server.cpu_seconds() - spent
    found = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", said, flags=re.MULTILINE))
    rate = re.search(r"Requests/sec:\s+(\S+)", said)
    count = re.search(r"(\d+) requests in", said)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    broken = re.search(r"Socket errors: (.*)", said)
    errors = (wrong[1] if wrong else "0") + (f", {broken[1]}" if broken else "")
    each = f"{spent / int(count[1]) * 1e3:.2f}" if count and int(count[1]) else "?"
    return rate[1] if rate else "?", found.get("50", "?"), found.get("99", "?"), errors, each, load()


def over_http(server: Server, body: dict[str, Any], seconds: int, runs: int, quiet: float | None) -> None:
    """One client's latency, then what ``wrk`` gets out of it."""
    region = body["regions"][0]
    own = {**body, "prices": {**body["prices"], "regions": {region: body["prices"]["regions"][region]}}}
    rows = [("", "p50 ms", "p99 ms", "load")]
    predict = "/api/v1/models/predict"
    for name, path, content in (
        ("predict, 120 rows of one region", predict, own),
        ("predict, 120 rows of all regions", predict, body),
        ("predict, newest prices of the lake", predict, {"regions": [region]}),
        ("act, lake", "/api/v1/models/act", {"charge_level_mwh": 0.5, "region": region}),
    ):
        wait_for_quiet(quiet)
        rows.append((name, *one_client(server, path, content, runs)))
    table("over HTTP, one client", rows)
    if shutil.which("wrk") is None:
        print("\nwrk isn't installed: no load")
        return
    rows = [(f"wrk, {CONNECTIONS} connections", "requests/s", "p50", "p99", "errors", "CPU ms each", "load")]
    for name, asked in (("predict, 120 rows of one region", own), ("predict, 120 rows of all regions", body)):
        wait_for_quiet(quiet)
        rows.append((name, *under_load(server, predict, asked, seconds)))
    table(f"under load for {seconds} s", rows)


def beside_mlflow(
    server: Server, body: dict[str, Any], seconds: int, runs: int, peer: Path, quiet: float | None
) -> None:
    """The same models, the same prices, the same load: our service and MLflow's, one after the other."""
    names = list(body["prices"]["regions"])
    wide = zip(body["prices"]["timestamps"], *body["prices"]["regions"].values(), strict=True)
    asked = {"dataframe_split": {"columns": ["timestamp", *names], "data": [list(row) for row in wide]}}
    rows = [("", "one client p50", "p99 ms", "requests/s", "p50", "p99", "errors", "CPU ms each", "load")]
    with mlflow_server(peer) as other:
        for name, one, path, content in (
            ("energy_ml", server, "/api/v1/models/predict", body),
            ("MLflow", other, "/invocations", asked),
        ):
            wait_for_quiet(quiet)
            rows.append((name, *one_client(one, path, content, runs)[:2], *under_load(one, path, content, seconds)))
        ours = httpx.post(server.url + "/api/v1/models/predict", json=body).json()["forecasts"]
        theirs = httpx.post(other.url + "/invocations", json=asked).json()["predictions"]
    worst = max(abs(a["price"] - b["price"]) for a, b in zip(ours, theirs, strict=True))
    table(f"the same models behind MLflow's server, prices differ by at most {worst:.0e}", rows)


async def listen_all(url: str, training_id: str) -> list[tuple[int, str, bool, float]]:
    """What each of many clients heard of one training: how many events, how it ended, whether progress ever fell, and
    when it heard the end."""
    from websockets.asyncio.client import connect

    async def one() -> tuple[int, str, bool, float]:
        count, last, monotone = 0, {}, True
        async with connect(f"{url.replace('http', 'ws', 1)}/api/v1/ws?training_id={training_id}", proxy=None) as ws:
            async for message in ws:
                event = json.loads(message)
                count += 1
                if "model_id" in event:
                    monotone &= event["progress"] >= last.get(event["model_id"], 0.0)
                    last[event["model_id"]] = event["progress"]
                elif event["state"] != "running":
                    return count, event["state"], monotone, time.monotonic()
        return count, "closed", monotone, time.monotonic()

    return await asyncio.gather(*(one() for _ in range(CLIENTS)))


def to_sockets(server: Server) -> None:
    """Train one horizon, narrowed, while many clients listen and one asks whether the service is still live."""
    worst, stop = [0.0], threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.wait(0.1):
                began = time.monotonic()
                client.get(f"{server.url}/api/v1/health/live").raise_for_status()
                worst[0] = max(worst[0], time.monotonic() - began)

    with httpx.Client(base_url=server.url + "/api/v1", timeout=30) as client:
        models = client.get("/models").json()["models"]
        horizon = min(int(m["model_id"].split("_")[-1][:-1]) for m in models if m["type"] == "price_prediction")
        asked = {"type": "price_prediction", "horizons": [horizon]}
        began, asking = time.monotonic(), threading.Thread(target=ask)
        training_id = client.post("/models/train", json=asked).raise_for_status().json()["training_id"]
        asking.start()
        heard = asyncio.run(listen_all(server.url, training_id))
        stop.set()
        asking.join()
    ends = {end: sum(e == end for _, e, _, _ in heard) for end in {e for _, e, _, _ in heard}}
    counts, times = [row[0] for row in heard], [row[3] for row in heard]
    table(
        f"{CLIENTS} WebSocket clients during a training of {time.monotonic() - began:.0f} s, load {load()}",
        [
            ("heard the end", str(ends)),
            ("the last heard it after the first by", f"{max(times) - min(times):.2f} s"),
            ("events per client", f"{min(counts)} to {max(counts)}"),
            ("progress ever fell", str(not all(row[2] for row in heard))),
            ("slowest /health/live meanwhile", f"{worst[0] * 1e3:.0f} ms"),
        ],
    )


def promotions(server: Server, body: dict[str, Any], models_dir: Path, count: int) -> None:
    """Promote the champion of a horizon again and again, as new versions, while a client asks: how soon each serves."""
    registry = ModelRegistry(f"{models_dir}/registry.json")
    model_id = "price_prediction_15m"
    entry = json.loads((models_dir / "registry.json").read_text())["models"][model_id]
    asked, seen, failed = {**body, "model_id": model_id}, {}, 0
    stop = threading.Event()

    def ask() -> None:
        nonlocal failed
        with httpx.Client(headers=JSON, timeout=60) as client:
            while not stop.is_set():
                answer = client.post(f"{server.url}/api/v1/models/predict", json=asked)
                if answer.status_code == 200:
                    seen.setdefault(answer.json()["forecasts"][0]["version"], time.monotonic())
                else:
                    failed += 1

    asking, waits = threading.Thread(target=ask), []
    asking.start()
    for _ in range(count):
        version = registry.new_version()
        registry.register_model("price_prediction", model_id, version, models_dir / entry["champion_path"], {})
        registry.promote(model_id, version, reason="benchmark", who="benchmark")
        promoted = time.monotonic()
        while version not in seen and time.monotonic() - promoted < 30:
            time.sleep(0.005)
        waits.append(seen.get(version, float("inf")) - promoted)
    stop.set()
    asking.join()
    table(
        f"{count} promotions while a client asks, load {load()}",
        [
            ("first answer of the new version after", f"p50 {np.median(waits):.2f} s, at most {max(waits):.2f} s"),
            ("failed requests", str(failed)),
        ],
    )


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, ready: str, environment: dict[str, str]) -> Iterator[Server]:
    """A server from its start, through the first good answer to ``ready``, to its end."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            for _ in range(1200):
                if process.poll() is not None:
                    said.seek(0)
                    raise SystemExit(f"{command[0]} ended: {said.read().decode()[-2000:]}")
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(server.url + ready).status_code == 200:
                        break
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait()


def our_server(models_dir: Path) -> contextlib.AbstractContextManager[Server]:
    """``energy-ml serve`` on loopback over these models."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ENERGY_ML_API_")}
    environment["ENERGY_ML_MODELS_DIR"] = str(models_dir)
    code = f"from energy_ml.service import serve; serve(port={port}, log_level='warning')"
    return running([sys.executable, "-c", code], port, "/api/v1/health/ready", environment)


@contextlib.contextmanager
def mlflow_server(venv: Path) -> Iterator[Server]:
    """MLflow's own server, one worker, over the same models, from the environment ``venv``."""
    port, binaries = free_port(), venv.absolute() / "bin"
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment |= {"ENERGY_ML_MODELS_DIR": Settings.from_env().models_dir}
        save = (
            f"import mlflow; mlflow.pyfunc.save_model({folder + '/m'!r}, python_model={str(HERE / 'mlflow_peer.py')!r})"
        )
        subprocess.run([binaries / "python", "-c", save], env=environment, check=True, capture_output=True)
        command = [str(binaries / "mlflow"), "models", "serve", "--model-uri", f"{folder}/m", "--env-manager", "local"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        with running(command, port, "/ping", environment) as server:
            yield server


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="of each call")
    parser.add_argument("--seconds", type=int, default=60, help="of load; 0 leaves the load out")
    parser.add_argument("--training", action="store_true", help="a training with 200 WebSocket clients")
    parser.add_argument("--promotions", type=int, default=0, help="how many, while a client asks")
    parser.add_argument("--mlflow", type=Path, help="environment that has MLflow, see mlflow_peer.py")
    parser.add_argument("--quiet-below", type=float, help="wait until the load average is below this")
    given = parser.parse_args()
    wait_for_quiet(given.quiet_below)
    service = MLService().start()
    body = in_process(service, given.runs)
    service.stop()
    with tempfile.TemporaryDirectory() as folder:  # promotions and trainings leave the user's models alone
        models = Path(shutil.copytree(Settings.from_env().models_dir, Path(folder) / "models"))
        with our_server(models) as server:
            if given.seconds:
                over_http(server, body, given.seconds, min(given.runs, 500), given.quiet_below)
            if given.mlflow is not None:
                beside_mlflow(server, body, given.seconds or 10, min(given.runs, 500), given.mlflow, given.quiet_below)
            if given.promotions:
                promotions(server, body, models, given.promotions)
            if given.training:
                to_sockets(server)


if __name__ == "__main__":
    main()
