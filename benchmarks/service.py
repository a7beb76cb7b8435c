"""How fast the service answers: in process, over HTTP under load from another process, and to 200 sockets.

Needs champions (``energy-ml retrain``) and, for the load, ``wrk``. All runs on this machine: the load generator
takes its share of the cores. With ``--training`` a training is started and 200 WebSocket clients wait for its end.

    python benchmarks/service.py --seconds 60 --training
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from energy_ml.service import MLService

CLIENTS = 200


def table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Print rows under a title."""
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for first, *others in rows:
        print(
            "  " + "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])
        )


def measure(call: Callable[[], Any], runs: int) -> tuple[float, float, float]:
    """p50 and p99 of the wall time in ms, and CPU ms per call, after a warm-up."""
    for _ in range(min(runs, 20)):
        call()
    times = np.empty(runs)
    cpu = time.process_time()
    for i in range(runs):
        began = time.perf_counter()
        call()
        times[i] = time.perf_counter() - began
    cpu = (time.process_time() - cpu) / runs
    return float(np.median(times)) * 1e3, float(np.quantile(times, 0.99)) * 1e3, cpu * 1e3


def in_process(service: MLService, runs: int) -> dict[str, Any]:
    """Forecasts from 120 recent rows of all regions, and battery actions; returns the request body that HTTP gets."""
    recent, _ = service.recent_prices(120 * service.market.prices(2880).interval_minutes)
    prices = recent.frame[["timestamp", "region", "real_time_price"]]
    region = recent.regions[0]
    rows = [("", "p50 ms", "p99 ms", "CPU ms")]

    def line(name: str, call: Callable[[], Any], count: int) -> None:
        p50, p99, cpu = measure(call, count)
        rows.append((name, f"{p50:.3f}", f"{p99:.3f}", f"{cpu:.3f}"))

    line("one region, all horizons, intervals", lambda: service.forecast(prices, None, [region]), runs)
    line("all regions, all horizons, intervals", lambda: service.forecast(prices), runs)
    line("the same, newest prices of the lake", lambda: service.forecast(), runs)
    policy = service.champions.get("battery_policy").model
    made = {row["horizon"]: row["price"] for row in service.forecast(regions=[region])}
    line("battery action (policy alone)", lambda: policy.get_action(0.5, 50.0, hour=12, forecasts=made), runs)
    line("battery action (act, lake)", lambda: service.act(0.5, region=region), runs)
    table(f"in process, {runs} calls each", rows)
    wide = prices.pivot_table(index="timestamp", columns="region", values="real_time_price", dropna=False)
    columns = {str(n): [None if pd.isna(v) else v for v in wide[n].tolist()] for n in wide.columns}
    return {"regions": [region], "prices": {"timestamps": [t.isoformat() for t in wide.index], "regions": columns}}


def over_http(url: str, body: dict[str, Any], seconds: int, runs: int) -> None:
    """One client's latency, then what ``wrk`` gets out of it."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=url + "/api/v1", headers=headers) as client:
        raw = json.dumps(body)
        rows = [("", "p50 ms", "p99 ms")]
        for name, path, content in (
            ("predict, 120 rows of all regions", "/models/predict", raw),
            ("predict, newest prices of the lake", "/models/predict", json.dumps({"regions": body["regions"]})),
            ("act, lake", "/models/act", json.dumps({"charge_level_mwh": 0.5, "region": body["regions"][0]})),
        ):
            p50, p99, _ = measure(lambda p=path, c=content: client.post(p, content=c).raise_for_status(), runs)
            rows.append((name, f"{p50:.2f}", f"{p99:.2f}"))
        table("over HTTP, one client", rows)
    if shutil.which("wrk") is None:
        print("\nwrk isn't installed: no load")
        return
    rows = [("wrk, 8 connections", "requests/s", "p50 ms", "p99 ms", "errors")]
    for name, asked in (("predict, 120 rows", body), ("predict, lake", {"regions": body["regions"]})):
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            kind = 'wrk.headers["Content-Type"] = "application/json"'
            script.write(f'wrk.method = "POST"\n{kind}\nwrk.body = [[{json.dumps(asked)}]]')
            script.flush()
            command = [
                "wrk",
                "-t1",
                "-c8",
                f"-d{seconds}s",
                "--latency",
                "-s",
                script.name,
                url + "/api/v1/models/predict",
            ]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", said, flags=re.MULTILINE))
        rate = re.search(r"Requests/sec:\s+(\S+)", said)
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        broken = re.search(r"Socket errors: (.*)", said)
        errors = (wrong[1] if wrong else "0") + (f", {broken[1]}" if broken else "")
        rows.append((name, rate[1] if rate else "?", found.get("50", "?"), found.get("99", "?"), errors))
    table(f"under load for {seconds} s", rows)


async def listen_all(url: str, training_id: str) -> list[tuple[int, str, bool]]:
    """What each of many clients heard of one training: how many events, how it ended, whether progress ever fell."""
    from websockets.asyncio.client import connect

    async def one() -> tuple[int, str, bool]:
        count, last, monotone = 0, {}, True
        async with connect(f"{url.replace('http', 'ws', 1)}/api/v1/ws?training_id={training_id}", proxy=None) as ws:
            async for message in ws:
                event = json.loads(message)
                count += 1
                if "model_id" in event:
                    monotone &= event["progress"] >= last.get(event["model_id"], 0.0)
                    last[event["model_id"]] = event["progress"]
                elif event["state"] != "running":
                    return count, event["state"], monotone
        return count, "closed", monotone

    return await asyncio.gather(*(one() for _ in range(CLIENTS)))


def to_sockets(url: str) -> None:
    """Train one horizon, narrowed, while 200 clients listen and one asks for the page's health."""
    with httpx.Client(base_url=url + "/api/v1", timeout=30) as client:
        models = client.get("/models").json()["models"]
        horizon = min(int(m["model_id"].split("_")[-1][:-1]) for m in models if m["type"] == "price_prediction")
        asked = {"type": "price_prediction", "horizons": [horizon]}
        began = time.monotonic()
        training_id = client.post("/models/train", json=asked).raise_for_status().json()["training_id"]
        heard = asyncio.run(listen_all(url, training_id))
    ends = {end: sum(e == end for _, e, _ in heard) for end in {e for _, e, _ in heard}}
    counts = [count for count, _, _ in heard]
    table(
        f"{CLIENTS} WebSocket clients during a training of {time.monotonic() - began:.0f} s",
        [
            ("heard the end", str(ends)),
            ("events per client", f"{min(counts)} to {max(counts)}"),
            ("progress ever fell", str(not all(monotone for _, _, monotone in heard))),
        ],
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60, help="of load")
    parser.add_argument("--training", action="store_true", help="also start a training for 200 WebSocket clients")
    given = parser.parse_args()
    body = in_process(MLService().start(), given.runs)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ENERGY_ML_API_")}
    code = f"from energy_ml.service import serve; serve(port={port}, log_level='warning')"
    server = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=Path.cwd())
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/api/v1/health/live")
                break
            except httpx.TransportError:
                time.sleep(0.2)
        over_http(url, body, given.seconds, min(given.runs, 500))
        if given.training:
            to_sockets(url)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
