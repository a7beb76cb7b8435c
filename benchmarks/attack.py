"""Kills at random moments, and what they leave: nothing may be lost, torn or left open. Exit code 1 is a finding.

What belongs here: the wide attack, for an hour of one's own. What doesn't: its small form, which the tests run.

    python -m benchmarks.attack retrain [--kills 100]       energy-ml retrain, every second one while it publishes
    python -m benchmarks.attack promote [--seconds 10]      four writers of the registry, about 30 kills a second
    python -m benchmarks.attack registry [--operations 1000]  eight processes, so many each; four are killed
    python -m benchmarks.attack load [--seconds 60]         the service at 300 requests a second, during promotions
    python -m benchmarks.attack soak [--seconds 3600]       at 50, with one training of everything in the middle
    python -m benchmarks.attack slow [--connections 1000]   that many which never finish their headers
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from energy_ml.model_management import ModelRegistry
from energy_ml.orchestration.run_lock import close_dead
from energy_ml_tests.model_management.under_fire import leftovers, massacre, storm
from energy_ml_tests.orchestration.project import DAYS, Project
from energy_ml_tests.orchestration.servers import end, free_port

API = "/api/v1"
GIGABYTE = 1e9


def retrain(folder: Path, kills: int) -> dict[str, Any]:
    """Kill the command; champions must serve, results be whole, and at the end no run be left open."""
    project, day, found, killed = Project.make(folder), str(Project.day(DAYS)), list[str](), 0
    began = time.monotonic()
    assert project.run("energy-ml", "retrain", "--date", day).returncode == 0
    whole, results = time.monotonic() - began, [p for p in (folder / "results" / day).rglob("*") if p.is_file()]
    for number in range(kills):
        champions, process = project.champions(), project.start("energy-ml", "retrain", "--date", day)
        changed = project.registry.path.stat().st_mtime_ns
        if number % 2:
            while process.poll() is None and project.registry.path.stat().st_mtime_ns == changed:
                time.sleep(0.001)  # it publishes from here on
            time.sleep(random.uniform(0, whole / 20))
        else:
            time.sleep(random.uniform(0, whole))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        try:
            assert project.registry.verify() == [], project.registry.verify()
            now = project.champions()
            assert now.keys() == champions.keys() and None not in now.values(), (champions, now)
            project.assert_champions_serve(now)
            for path in results:
                if path.suffix in (".json", ".parquet"):
                    project.store.read(day, str(path.relative_to(folder / "results" / day)))
        except Exception as error:
            found.append(f"kill {number}: {error!r}")
        print(f"{killed} killed, {number + 1 - killed} came to their end before, {len(found)} findings", flush=True)
    assert project.run("energy-ml", "retrain", "--date", day).returncode == 0
    with contextlib.chdir(folder), dg.DagsterInstance.from_config(str(folder)) as instance:
        close_dead(instance)
        statuses = Counter(run.status.value for run in instance.get_runs())
    found += [f"{n} runs are left {status}" for status, n in statuses.items() if status not in ("SUCCESS", "FAILURE")]
    return {"killed": killed, "runs": dict(statuses), "found": found, **leftovers(folder / "models")}


def promote(folder: Path, seconds: int) -> dict[str, Any]:
    """Kill writers while they register, promote and prune; there is a champion for the reader all the time."""
    return massacre(folder / "models", seconds=seconds)


def registry(folder: Path, operations: int) -> dict[str, Any]:
    """Everything that a survivor was told was done is in the history."""
    result = storm(folder / "models", 8, operations, killed=4)
    survivors, history = result.pop("logs"), ModelRegistry(folder / "models/registry.json").history()
    names = {"registered": "register", "pruned": "prune", "rolled_back": "rollback"}
    recorded = Counter((names[e["event"]], e["model_id"], e["version"]) for e in history if e["event"] in names)
    told = Counter(tuple(entry) for log in survivors for entry in log if entry[0] in names.values())
    problems = ModelRegistry(folder / "models/registry.json").verify()
    missing = [str(entry) for entry in (told - recorded)]
    return {**result, "events": len(history), "found": missing, "problems": problems, **leftovers(folder / "models")}


class Served:
    """A started service over a small project with champions."""

    def __init__(self, folder: Path) -> None:
        self.project, self.port = Project.make(folder, END_DATE=""), free_port()
        assert self.project.run("energy-ml", "retrain", "--date", str(Project.day(DAYS))).returncode == 0
        self.process = self.project.start("energy-ml", "serve", "--port", str(self.port), "--log-level", "warning")
        while asyncio.run(self._first()) != 200:
            time.sleep(0.2)

    async def _first(self) -> int:
        with contextlib.suppress(OSError):
            return (await self.ask(*await self.connect(), "GET", "/health/ready"))[0]
        return 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection, which stays open."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: object = None
    ) -> tuple[int, Any]:
        """Status and body of one answer."""
        raw = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {API}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(raw)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + raw)
        said = (await reader.readuntil(b"\r\n\r\n")).lower()
        content = await reader.readexactly(int(said.partition(b"content-length: ")[2].partition(b"\r")[0]))
        return int(said[9:12]), content

    def memory(self, name: str = "VmRSS") -> float:
        """Bytes, now or (VmHWM) at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1e3 * int(status.partition(f"{name}:")[2].split()[0])

    async def under(self, seconds: float, rate: float) -> dict[str, Any]:
        """Questions of all kinds at this rate, on 32 connections; what came back, and how long it took."""
        prices = json.loads((await self.ask(*await self.connect(), "GET", "/prices?minutes=2880"))[1])
        given = {"prices": {name: prices[name] for name in ("timestamps", "regions")}}
        kinds: list[tuple[str, str, object]] = [
            *[("POST", "/models/predict", {})] * 3, ("POST", "/models/predict", given), ("GET", "/health", None),
            *[("POST", "/models/act", {"charge_level_mwh": 0.5, "region": min(prices["regions"])})] * 3,
            ("GET", "/models", None), ("GET", "/metrics", None),
        ]  # fmt: skip
        came, waits, began, total = Counter[str](), list[float](), time.monotonic(), int(seconds * rate)

        async def client(first: int) -> None:
            connection = None
            for number in range(first, total, 32):
                await asyncio.sleep(began + number / rate - time.monotonic())
                asked = time.monotonic()
                try:
                    connection = connection or await self.connect()
                    status, _ = await self.ask(*connection, *kinds[number % len(kinds)])
                    came[str(status)] += 1
                    waits.append(time.monotonic() - asked)
                except (OSError, asyncio.IncompleteReadError) as error:
                    connection = None
                    came[type(error).__name__] += 1

        await asyncio.gather(*(client(first) for first in range(32)))
        p50, p99 = (1e3 * float(np.quantile(waits, q)) for q in (0.5, 0.99))
        rate = sum(came.values()) / (time.monotonic() - began)
        return {"answers": dict(came), "per second": round(rate), "p50 ms": round(p50), "p99 ms": round(p99)}


@contextlib.contextmanager
def served(folder: Path, told: dict[str, Any]) -> Iterator[Served]:
    """The service, and what it took; anything but good answers, or a gigabyte, is a finding."""
    service = Served(folder)
    try:
        asyncio.run(service.under(3, 30))  # all that it loads when it is first asked for
        told["MB before"] = round(service.memory() / 1e6)
        yield service
        told |= {"MB after": round(service.memory() / 1e6), "MB at most": round(service.memory("VmHWM") / 1e6)}
        bad = {what: n for what, n in told.get("answers", {}).items() if what != "200"}
        told["found"] = [str(bad)] if bad else ["memory"] if service.memory("VmHWM") > GIGABYTE else []
    finally:
        end(service.process, 60)


async def _beside(service: Served, seconds: int, rate: float, work: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    return tuple(await asyncio.gather(service.under(seconds, rate), asyncio.to_thread(work)))  # type: ignore[return-value]


def load(folder: Path, seconds: int) -> dict[str, Any]:
    """Promotions of new versions and back, about two a second, while 300 requests a second come."""
    told: dict[str, Any] = {}
    with served(folder, told) as service:
        registry, model = service.project.registry, "price_prediction_30m"

        def promote_all() -> int:
            stop, count = time.monotonic() + seconds, 0
            while time.monotonic() < stop:
                version = registry.new_version()
                path = folder / "models/price_prediction/model_30min.pkl"
                registry.register_model("price_prediction", model, version, path, {})
                registry.promote(model, version, reason="attack", who="attack")
                registry.prune(model, 5)
                count += 1
                time.sleep(0.5)
            return count

        asked, told["promotions"] = asyncio.run(_beside(service, seconds, 300, promote_all))
        told |= asked
    return told


def soak(folder: Path, seconds: int) -> dict[str, Any]:
    """Fifty requests a second, and in the middle a training, which must come to its end."""
    told: dict[str, Any] = {}
    with served(folder, told) as service:

        async def train() -> str:
            await asyncio.sleep(seconds / 3)
            connection = await service.connect()
            status, said = await service.ask(*connection, "POST", "/models/train", {"type": "all"})
            assert status == 202, said
            state = json.loads(said)
            while state["state"] == "running":
                await asyncio.sleep(1)
                path = f"/models/train/{state['training_id']}"
                state = json.loads((await service.ask(*connection, "GET", path))[1])
            return str(state["state"])

        asked, told["training"] = asyncio.run(_beside(service, seconds, 50, lambda: asyncio.run(train())))
        told |= asked
    told["found"] += [] if told["training"] == "completed" else [f"training {told['training']}"]
    return told


def slow(folder: Path, connections: int) -> dict[str, Any]:
    """Half a request each; whoever asks a whole one meanwhile is answered, and in the end none is left open."""
    told: dict[str, Any] = {}
    with served(folder, told) as service:

        async def attack() -> dict[str, Any]:
            opened = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
            for _ in range(connections):
                opened.append(await service.connect())
                opened[-1][1].write(b"GET /api/v1/health/live HTTP/1.1\r\nHost: ")
            began = time.monotonic()

            async def ended(reader: asyncio.StreamReader) -> float:
                with contextlib.suppress(OSError):
                    await reader.read()
                return time.monotonic() - began

            over = [asyncio.create_task(ended(reader)) for reader, _ in opened]
            asked = await service.under(20, 20)
            longest = max(await asyncio.wait_for(asyncio.gather(*over), 60))
            return {**asked, "slow connections": connections, "the last closed after s": round(longest, 1)}

        told |= asyncio.run(attack())
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sizes: list[tuple[Callable[[Path, int], dict[str, Any]], str, int]] = [
        (retrain, "--kills", 100), (promote, "--seconds", 10), (registry, "--operations", 1000),
        (load, "--seconds", 60), (soak, "--seconds", 3600), (slow, "--connections", 1000),
    ]  # fmt: skip
    for attack, size, default in sizes:
        command = commands.add_parser(attack.__name__)
        command.add_argument(size, type=int, default=default, dest="size")
        command.set_defaults(attack=attack)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="energy-ml-attack-") as folder:
        told = given.attack(Path(folder), given.size)
    print(told)
    sys.exit(any(told.get(name) for name in ("found", "problems", "leftovers", "lost", "none")))


if __name__ == "__main__":
    main()
