"""Champions in memory: swapped soon after a promotion while requests run, never by something broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest

from energy_ml.artifacts import read_registry
from energy_ml.errors import EnergyMLError, ModelNotFoundError, ServiceError, StaleDataError, TimestampError
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.service import MLService, ServiceSettings, champions
from energy_ml.service.problems import problem_of
from energy_ml_tests.service.conftest import Server, inline, promote


@pytest.fixture
def service(market: Server, artifacts: dict[str, Path], tmp_path: Path) -> MLService:
    """A service over the market's data with models of its own."""
    own = Server(tmp_path, {**market.environment, "ENERGY_ML_MODELS_DIR": str(tmp_path / "models")})
    promote(own, artifacts)
    return MLService(own.settings)


def other(service: MLService) -> Server:
    return Server(Path(), {"ENERGY_ML_MODELS_DIR": service.settings.models_dir})


def wait_for(what: object, seconds: float) -> float:
    """Seconds until ``what()`` is true; fails after ``seconds``."""
    began = time.monotonic()
    while not what():  # type: ignore[operator]
        assert time.monotonic() - began < seconds, "it didn't happen in time"
        time.sleep(0.01)
    return time.monotonic() - began


def test_promotions_arrive_while_requests_run(server: Server, artifacts: dict[str, Path], prices: pd.DataFrame) -> None:
    """Requests from several threads meet five promotions and a folder that is gone for a while: each is answered, and
    versions only ever move forward."""
    seen: list[list[str]] = [[], [], []]
    failures: list[str] = []
    stop = threading.Event()

    def ask(place: int) -> None:
        with server.client() as client:
            while not stop.is_set():
                answer = client.post("/models/predict", json={"prices": inline(prices), "regions": ["FR"]})
                if answer.status_code != 200:
                    failures.append(answer.text)
                else:
                    seen[place].append(max(f["version"] for f in answer.json()["forecasts"]))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    try:
        with server.client() as client:
            for _ in range(5):
                version = promote(server, artifacts)
                wait_for(
                    lambda version=version: set(client.get("/health").json()["models"].values()) == {version},
                    seconds=10,
                )
            models = Path(server.settings.models_dir)
            away = models.rename(models.with_name("away"))
            wait_for(lambda: "registry" in client.get("/health").json()["problems"], seconds=10)
            assert client.get("/health/ready").status_code == 200
            answered = [len(versions) for versions in seen]
            wait_for(lambda: all(len(v) > n for v, n in zip(seen, answered, strict=True)), seconds=10)
            away.rename(models)
            wait_for(lambda: client.get("/health").json()["problems"] == {}, seconds=10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    for versions in seen:
        assert versions and versions == sorted(versions)


COMPILED = """
import sys
from energy_ml.artifacts import read_registry
from energy_ml.service import MLService, ServiceSettings, champions

def compiled():
    own = [module for name, module in sys.modules.items() if name.startswith("energy_ml")]
    found = {id(it): it for module in own for it in vars(module).values()}
    return sum(len(it.signatures) for it in found.values() if hasattr(it, "py_func"))

service = MLService()
service.start()
before = compiled()
prices = service.market.prices(2880).frame
assert service.forecast() and service.act(0.5, region="FR") and service.forecast(prices.tail(600), level=0.8)
print(before, compiled())
"""


def test_nothing_is_left_to_compile_for_the_first_request(server: Server) -> None:
    told = subprocess.run(
        [sys.executable, "-c", COMPILED], env=server.environment, capture_output=True, text=True, check=True
    )
    before, after = map(int, told.stdout.split())
    assert before == after > 5


def test_a_broken_artefact_leaves_the_old_one_serving(
    server: Server, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    with server.client() as client:
        before = client.get("/health").json()["models"]["price_prediction_15m"]
        joblib.dump({"not": "a model"}, tmp_path / "wrong.pkl")
        broken = promote(server, {"price_prediction_15m": tmp_path / "wrong.pkl"})
        wait_for(lambda: "price_prediction_15m" in client.get("/health").json()["problems"], seconds=10)
        health = client.get("/health").json()
        assert health["ready"] and health["models"]["price_prediction_15m"] == before
        assert "holds a dict" in health["problems"]["price_prediction_15m"]
        answer = client.post("/models/predict", json={"model_id": "price_prediction_15m"}).raise_for_status().json()
        assert answer["forecasts"][0]["version"] == before != broken
        assert "price_prediction_15m: the champion can't be loaded" in server.log()
        assert client.get("/health/ready").status_code == 200
        good = promote(server, artifacts)
        wait_for(lambda: not client.get("/health").json()["problems"], seconds=10)
        assert client.get("/models/price_prediction_15m").json()["serving"] == good


def test_a_tampered_file_is_refused_and_a_repaired_one_taken(service: MLService, artifacts: dict[str, Path]) -> None:
    assert service.forecast()
    path = Path(service.settings.models_dir) / "price_prediction/model_15min.pkl"
    good = path.read_bytes()
    version = promote(other(service), artifacts, "price_prediction_60m")
    path.write_bytes(good[:-100])
    time.sleep(0.3)
    assert {row["version"] for row in service.forecast(horizons=[60])} == {version}
    assert service.health()["models"]["price_prediction_15m"] != version
    path.write_bytes(good)
    assert service.forecast(horizons=[15])


def test_a_champions_file_that_is_gone_is_told_while_its_copy_serves(service: MLService) -> None:
    path = Path(service.settings.models_dir) / "price_prediction/model_15min.pkl"
    data = path.read_bytes()
    path.unlink()
    assert {row["horizon"] for row in service.forecast()} == {15, 60}
    assert "model_15min.pkl is missing" in service.health()["problems"]["price_prediction_15m"]
    path.write_bytes(data)
    assert service.health()["problems"] == {}


def test_when_all_are_retired_the_reason_is_said(service: MLService) -> None:
    registry = ModelRegistry(f"{service.settings.models_dir}/registry.json")
    for model in registry.list_models():
        registry.retire(model["model_id"], reason="half-hours ended", who="test")
    for call in (service.forecast, lambda: service.act(0.5), lambda: service.predict("price_prediction_15m")):
        with pytest.raises(ModelNotFoundError, match="was retired: half-hours ended"):
            call()


def test_loses_nothing_when_the_registry_vanishes(service: MLService, artifacts: dict[str, Path]) -> None:
    before = [row["price"] for row in service.forecast()]
    shutil.rmtree(service.settings.models_dir)
    time.sleep(0.3)
    assert [row["price"] for row in service.forecast()] == before
    assert "gone" in service.health()["problems"]["registry"]
    version = promote(other(service), artifacts)
    time.sleep(0.3)
    assert service.forecast()[0]["version"] == version
    assert service.health()["problems"] == {}


def test_without_models_it_says_what_to_do(market: Server, tmp_path: Path) -> None:
    service = MLService(Server(tmp_path, {**market.environment, "ENERGY_ML_MODELS_DIR": str(tmp_path)}).settings)
    assert service.list_models() == [] and not service.health()["ready"]
    for call in (
        service.forecast,
        lambda: service.act(0.5),
        lambda: service.predict("price_prediction_15m"),
        lambda: service.get_model_metrics("price_prediction_15m"),
    ):
        with pytest.raises(ModelNotFoundError, match="train") as caught:
            call()
        assert problem_of(caught.value).status == 404


def test_a_broken_first_model_is_a_503_in_words(market: Server, tmp_path: Path) -> None:
    own = Server(tmp_path, {**market.environment, "ENERGY_ML_MODELS_DIR": str(tmp_path / "models")})
    (tmp_path / "wrong.pkl").write_bytes(b"no pickle")
    promote(own, {"price_prediction_15m": tmp_path / "wrong.pkl", "battery_policy": tmp_path / "wrong.pkl"})
    service = MLService(own.settings)
    for call in (service.forecast, lambda: service.act(0.5), lambda: service.predict("price_prediction_15m")):
        with pytest.raises(ServiceError, match="can't be loaded") as caught:
            call()
        assert caught.value.status == 503


def test_promised_methods(service: MLService, prices: pd.DataFrame) -> None:
    now = prices["timestamp"].max()
    given = service.predict("price_prediction_15m", now, prices, region="FR")
    assert given["horizon"] == 15 and given["lower"] <= given["price"] <= given["upper"]
    lake = service.predict("price_prediction_15m", None, region="FR")
    # The lake's answer also knows what outcomes taught the calibration since training; the trees are the same.
    assert lake["price_now"] == given["price_now"] and lake["timestamp"] == given["timestamp"]
    action = service.predict("battery_policy", None, {"charge_level_mwh": 0.5}, region="FR")
    assert action["action"] in ("charge", "hold", "discharge")
    with pytest.raises(ServiceError, match="charge_level_mwh"):
        service.predict("battery_policy")
    assert {m["model_id"] for m in service.list_models()} >= {"battery_policy", "price_prediction_15m"}
    assert service.get_model_metrics("battery_policy") == {"test.mae": 1.5}
    shares = service.get_feature_importance("price_prediction_15m")
    assert sum(shares.values()) == pytest.approx(1) and list(shares.values()) == sorted(shares.values(), reverse=True)


def test_features_are_taken_by_name_or_refused_by_name(service: MLService, prices: pd.DataFrame) -> None:
    now = prices["timestamp"].max().to_pydatetime()
    model = "price_prediction_15m"
    assert service.predict(model, now, {"region": "DE"}) == service.predict(model, now, region="DE")
    assert service.predict(model, now, {"region": "DE", "prices": prices}) == (
        service.predict(model, now, prices, region="DE")
    )
    columns = {name: prices[name].tolist() for name in ("timestamp", "region", "real_time_price")}
    assert (
        service.predict(model, now, columns, region="DE")["price"]
        == (service.predict(model, now, prices, region="DE")["price"])
    )
    asked = {"charge_level": 0.5, "current_price": 60.0, "price_forecast_15m": 90.0, "price_forecast_60m": 95.0}
    action = service.predict("battery_policy", now, {**asked, "hour": 7})
    assert action["price"] == 60.0 and action["forecasts"] == {15: 90.0, 60: 95.0}
    assert action["timestamp"].hour == 7 and action["forecast_source"] == "request"
    assert service.predict("battery_policy", now, {**asked, "hour": 7.0}) == action, "as pandas gives whole numbers"
    for model_id, features, name in (
        ("battery_policy", {**asked, "hour": 23.9}, "hour"),
        (model, {"regoin": "FR"}, "regoin"),
        (model, {"region": 5}, "region"),
        (model, {"level": 2.0}, "level"),
        (model, {"real_time_price": [1.0, 2.0], "timestamp": ["x"]}, "same length"),
        (model, {"prices": pd.DataFrame({"a": [1]})}, "timestamp"),
        ("battery_policy", {"charge_level": "much"}, "charge_level"),
        ("battery_policy", {"charge_level": float("nan")}, "charge_level"),
        ("battery_policy", {"charge_level": 0.5, "hour": 24, "current_price": 1.0}, "hour"),
        ("battery_policy", {"charge_level": 0.5, "hour": 5}, "hour"),
        ("battery_policy", {"charge_level": 0.5, "price_forecast_0m": 5.0}, "price_forecast_0m"),
        ("battery_policy", {"charge_level": 0.5, "prices": pd.DataFrame({"a": [1]})}, "timestamp"),
    ):
        with pytest.raises(EnergyMLError, match=name):
            service.predict(model_id, now, features)
    with pytest.raises(TimestampError, match="yesterday"):
        service.predict(model, "yesterday", {"region": "FR"})


def test_a_listed_model_has_attributes_and_keys(service: MLService) -> None:
    info = next(info for info in service.list_models() if info.model_id == "battery_policy")
    assert info.champion == info["champion"] == info.serving or info.serving is None
    assert dict(info)["type"] == info.type == "rl_battery"
    with pytest.raises(KeyError):
        info["no such"]


def numbers(rows: list[dict[str, Any]]) -> list[list[object]]:
    return [[row[name] for name in ("region", "horizon", "price", "lower", "upper")] for row in rows]


def test_many_threads_get_the_numbers_of_one(
    service: MLService, artifacts: dict[str, Path], prices: pd.DataFrame
) -> None:
    """From cold, with promotions of the same models in between: nobody sees half of anything."""
    given = prices.tail(600)
    alone = MLService(service.settings)
    wanted, lake = numbers(alone.forecast(given)), numbers(alone.forecast())
    action = alone.act(0.5, region="FR")["q_values"]
    failures: list[object] = []

    def ask() -> None:
        try:
            for _ in range(20):
                assert numbers(service.forecast(given)) == wanted and numbers(service.forecast()) == lake
                assert service.act(0.5, region="FR")["q_values"] == action
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        promote(other(service), artifacts)
    for thread in threads:
        thread.join()
    assert not failures


def test_the_first_look_is_awaited_by_everybody(service: MLService, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> Any:
        reading.set()
        go_on.wait(10)
        return read_registry(path)

    monkeypatch.setattr(champions, "read_registry", slowly)
    cold, seen = champions.Champions(service.settings.models_dir), []
    threads = [threading.Thread(target=lambda: seen.append(len(cold.current().listed))) for _ in range(3)]
    for thread in threads:
        thread.start()
        reading.wait(10)  # the others ask while the first one reads
    time.sleep(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(seen) == 3 and all(seen), "nobody was told that there are no models"


def test_stale_data_is_flagged_or_refused(service: MLService) -> None:
    assert all(row["stale"] for row in service.forecast())
    service.limits = ServiceSettings(max_age_minutes=60)
    for call in (service.forecast, lambda: service.act(0.5)):
        with pytest.raises(StaleDataError, match="minutes old") as caught:
            call()
        assert problem_of(caught.value).status == 409
    assert service.forecast(timestamp="2025-03-04T00:00Z"), "a question about the past isn't stale"


def test_new_prices_are_noticed(service: MLService, market: Server, prices: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    end = pd.Timestamp("2025-03-05T12:00Z")
    prices[prices["timestamp"] < end].to_parquet(folder / "a.parquet", index=False)
    own = MLService(Server(tmp_path, {**market.environment, "ENERGY_ML_MODELS_DIR": service.settings.models_dir,
                                      "ENERGY_ML_DATA_DIR": str(folder)}).settings)  # fmt: skip
    assert own.forecast()[0]["timestamp"] == end - pd.Timedelta(minutes=15)
    prices[prices["timestamp"] == end].to_parquet(folder / "b.parquet", index=False)
    wait_for(lambda: own.forecast()[0]["timestamp"] == end, seconds=10)
