"""Forecasts and actions over HTTP: the numbers of in process, and a clear refusal of what can't be answered."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from energy_ml.errors import ServiceError, ValueRangeError
from energy_ml.price_prediction import PricePredictor
from energy_ml.service import MLService
from energy_ml.service.schemas import Prices
from energy_ml_tests.service.conftest import HORIZONS, Server, inline


def test_forecasts_equal_those_in_process(server: Server, api: httpx.Client, prices: pd.DataFrame) -> None:
    sent = inline(prices)
    body = api.post("/models/predict", json={"prices": sent, "level": 0.8}).raise_for_status().json()
    recent = prices[prices["timestamp"] >= pd.Timestamp(sent["timestamps"][0])]
    predictor = PricePredictor(f"{server.settings.models_dir}/price_prediction")
    expected = predictor.predict_many(recent, HORIZONS, level=0.8)
    found = pd.DataFrame(body["forecasts"])
    for column in ("price", "lower", "upper"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-9)
    assert list(found["region"]) == list(expected["region"])
    assert body["source"] == "request" and body["stale"] and body["data_age_minutes"] > 0
    assert body["as_of"] == sent["timestamps"][-1]


def test_forecasts_of_the_data_folder(api: httpx.Client, prices: pd.DataFrame) -> None:
    body = api.post("/models/predict", json={}).raise_for_status().json()
    assert body["source"] == "lake" and pd.Timestamp(body["as_of"]) == prices["timestamp"].max()
    assert {(f["horizon"], f["region"]) for f in body["forecasts"]} == {
        (h, r) for h in HORIZONS for r in prices["region"].unique()
    }
    assert all(f["lower"] <= f["price"] <= f["upper"] for f in body["forecasts"])
    one = api.post("/models/predict", json={"model_id": "price_prediction_60m", "regions": ["FR"]}).json()
    assert one["forecasts"] == [f for f in body["forecasts"] if f["horizon"] == 60 and f["region"] == "FR"]


def test_a_past_moment_sees_nothing_later(api: httpx.Client, prices: pd.DataFrame) -> None:
    moment = pd.Timestamp("2025-03-03T12:00Z")
    body = api.post("/models/predict", json={"timestamp": moment.isoformat()}).raise_for_status().json()
    assert pd.Timestamp(body["as_of"]) == moment and not body["stale"]
    now = {f["region"]: f["price_now"] for f in body["forecasts"]}
    there = prices[prices["timestamp"] == moment].set_index("region")["real_time_price"]
    assert now == pytest.approx(there.to_dict())


@pytest.mark.parametrize("charge", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_actions_keep_the_battery_within_its_bounds(api: httpx.Client, charge: float) -> None:
    for region in ("FR", None):
        asked: dict[str, Any] = {"charge_level_mwh": charge} | ({"region": region} if region else {})
        body = api.post("/models/act", json=asked).raise_for_status().json()
        low, high = body["bounds_mwh"]
        assert min(low, charge) - 1e-9 <= body["charge_after_mwh"] <= max(high, charge) + 1e-9
        assert body["action"] in body["q_values"] and body["why"] and body["forecast_source"] == "models"
        assert (body["charge_after_mwh"] - charge) * body["power_mw"] >= 0


def test_action_from_given_prices_and_forecasts(api: httpx.Client, prices: pd.DataFrame) -> None:
    one = {"timestamps": ["2025-03-05T12:00:00Z"], "regions": {"FR": [42.0]}}
    body = api.post("/models/act", json={"charge_level_mwh": 0.5, "prices": one}).raise_for_status().json()
    assert body["price"] == 42.0 and body["forecast_source"].startswith("none") and body["source"] == "request"
    given = {"charge_level_mwh": 5.0, "capacity_mwh": 10.0, "prices": one, "forecasts": {"15": 50.0, "60": 60.0}}
    body = api.post("/models/act", json=given).raise_for_status().json()
    assert body["forecast_source"] == "request" and body["bounds_mwh"] == pytest.approx([1.0, 9.0])


def change(prices: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {**prices, **columns}


BAD = {
    "empty": lambda p: {"timestamps": [], "regions": {"FR": []}},
    "no region": lambda p: {"timestamps": p["timestamps"], "regions": {}},
    "lengths differ": lambda p: change(p, regions={"FR": [1.0]}),
    "not a number": lambda p: change(p, regions={"FR": ["x"] * 120}),
    "number as text": lambda p: change(p, regions={"FR": ["1.5"] * 120}),
    "absurd": lambda p: change(p, regions={"FR": [1e300] * 120}),
    "too short": lambda p: {"timestamps": p["timestamps"][-5:], "regions": {"FR": [1.0] * 5}},
    "all unknown": lambda p: change(p, regions={"FR": [None] * 120}),
    "newest unknown": lambda p: change(p, regions={"FR": [1.0] * 100 + [None] * 20}),
    "wrong interval": lambda p: change(
        p, timestamps=[t.isoformat() for t in pd.date_range("2025-03-04", periods=120, freq="5min", tz="UTC")]
    ),
    "odd interval": lambda p: change(
        p, timestamps=[t.isoformat() for t in pd.date_range("2025-03-04", periods=120, freq="7min", tz="UTC")]
    ),
    "naive time": lambda p: change(p, timestamps=[t[:19] for t in p["timestamps"]]),
    "no time": lambda p: change(p, timestamps=["yesterday"] * 120),
    "future": lambda p: change(
        p, timestamps=[t.isoformat() for t in pd.date_range("2101-03-04", periods=120, freq="15min", tz="UTC")]
    ),
    "year 1": lambda p: change(p, timestamps=["0001-01-01T00:00:00Z", *p["timestamps"][1:]]),
    "duplicates that disagree": lambda p: {
        "timestamps": [*p["timestamps"], p["timestamps"][-1]],
        "regions": {name: [*values, values[-1] + 5] for name, values in p["regions"].items()},
    },
    "long gap": lambda p: {
        "timestamps": p["timestamps"][:10] + p["timestamps"][95:],
        "regions": {name: values[:10] + values[95:] for name, values in p["regions"].items()},
    },
}


@pytest.mark.parametrize("name", BAD)
def test_bad_prices_are_refused_in_words(api: httpx.Client, prices: pd.DataFrame, name: str) -> None:
    answer = api.post("/models/predict", json={"prices": BAD[name](inline(prices))})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == 422 and body["title"] and len(body["detail"]) > 10


def test_the_limit_of_prices_is_the_setting_at_every_door(prices: pd.DataFrame) -> None:
    given = inline(prices)
    dear = change(given, timestamps=given["timestamps"][:50] + given["timestamps"][51:])  # a gap: laid out on a grid
    dear["regions"] = {name: [60_000.0, *values[1:50], *values[51:]] for name, values in given["regions"].items()}
    asked = Prices.model_validate_json(json.dumps(dear))
    assert asked.to_frame(100_000, 1e5)["real_time_price"].max() == 60_000
    with pytest.raises(ValueRangeError, match="between -50,000 and 50,000"):
        asked.to_recent(100_000, 50_000.0)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_is_no_price(api: httpx.Client, literal: str) -> None:
    raw = f'{{"prices": {{"timestamps": ["2025-03-05T12:00:00Z"], "regions": {{"FR": [{literal}]}}}}}}'
    for route, extra in (("predict", ""), ("act", '"charge_level_mwh": 0.5, ')):
        answer = api.post(
            f"/models/{route}", content="{" + extra + raw[1:], headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"].startswith("prices.regions.FR")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"horizons": [7]}, 422, "horizons"),
        ({"regions": ["XX"]}, 422, "regions"),
        ({"horizons": []}, 422, "horizons"),
        ({"level": 1.0}, 422, "level"),
        ({"model_id": "price_prediction_7m"}, 404, None),
        ({"model_id": "../../etc/passwd"}, 422, "model_id"),
        ({"model_id": "battery_policy"}, 422, None),
        ({"model_id": "price_prediction_15m", "horizons": [15]}, 422, "body"),
        ({"pickle": "gASV"}, 422, "pickle"),
        ({"timestamp": "1999-01-01T00:00:00Z"}, 404, None),
        ({"timestamp": "0613-08-23T00:27:22Z"}, 422, "timestamp"),
        ({"timestamp": "2893-10-07T19:05:23-10:31"}, 422, "timestamp"),
    ],
)
def test_what_can_not_be_is_refused(api: httpx.Client, body: dict[str, Any], status: int, field: str | None) -> None:
    answer = api.post("/models/predict", json=body)
    assert answer.status_code == status, answer.text
    if field:
        assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "body",
    [
        {"charge_level_mwh": 1.5},
        {"charge_level_mwh": -0.1},
        {"charge_level_mwh": "0.5"},
        {},
        {"charge_level_mwh": 0.5, "region": "XX"},
        {"charge_level_mwh": 0.5, "capacity_mwh": 0},
        {"charge_level_mwh": 4.5, "battery": "Site A"},
        {"charge_level_mwh": 0.5, "battery": "Site A", "capacity_mwh": 1},
        {"battery": "Site A"},
        {"battery": None},
        {"charge_level_mwh": 0.5, "forecasts": {"-1": 5.0}},
    ],
)
def test_impossible_batteries_are_refused(api: httpx.Client, body: dict[str, Any]) -> None:
    answer = api.post("/models/act", json=body)
    assert answer.status_code == 422 and answer.json()["detail"]


def test_unsorted_and_repeated_rows_are_put_right(api: httpx.Client, prices: pd.DataFrame) -> None:
    good = inline(prices)
    wanted = api.post("/models/predict", json={"prices": good}).raise_for_status().json()
    order = [*reversed(range(120)), 0, 5]
    messy = {
        "timestamps": [good["timestamps"][i] for i in order],
        "regions": {name: [values[i] for i in order] for name, values in good["regions"].items()},
    }
    assert (
        api.post("/models/predict", json={"prices": messy}).raise_for_status().json()["forecasts"]
        == wanted["forecasts"]
    )


def test_too_much_is_refused(server: Server, api: httpx.Client) -> None:
    many = {"timestamps": ["2025-03-05T12:00:00Z"] * 60_000, "regions": {"FR": [1.0] * 60_000, "DE": [1.0] * 60_000}}
    answer = api.post("/models/predict", json={"prices": many})
    assert answer.status_code == 413 and "100,000" in answer.json()["expected"]
    answer = api.post("/models/predict", content=b"x" * 5_000_000, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413

    def endless() -> Any:
        for _ in range(100):
            yield b"[" * 100_000

    try:
        answer = api.post("/models/predict", content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the server may close the connection while we still send
    assert api.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("raw", "status"), [(b"{", 422), (b"", 422), (b"\xff\xfe", 422), (b"[1]", 422), (b"null", 422)]
)
def test_no_json_is_no_question(api: httpx.Client, raw: bytes, status: int) -> None:
    for route in ("predict", "act", "train"):
        answer = api.post(f"/models/{route}", content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code == status and answer.json()["status"] == status
        assert api.post(f"/models/{route}", content=raw, headers={"Content-Type": "text/plain"}).status_code == 415


def test_models_metrics_importance_prices_batteries(api: httpx.Client, prices: pd.DataFrame) -> None:
    models = api.get("/models").raise_for_status().json()["models"]
    assert {m["model_id"] for m in models} == {*(f"price_prediction_{h}m" for h in HORIZONS), "battery_policy"}
    assert all(m["champion"] == m["serving"] and m["problem"] is None for m in models)
    detail = api.get("/models/price_prediction_15m").raise_for_status().json()
    assert detail["history"][-1]["as_of"] == "2025-03-04"
    assert api.get("/models/price_prediction_15m/metrics").json()["metrics"] == {"test": {"mae": 1.5}}
    for method in ("gain", "shap"):
        shares = api.get(f"/models/price_prediction_15m/feature-importance?method={method}").raise_for_status().json()
        assert sum(row["importance"] for row in shares["features"]) == pytest.approx(1)
    assert api.get("/models/battery_policy/feature-importance").status_code == 404
    assert api.get("/models/none").status_code == 404
    assert api.get("/models/..%2f..%2fetc%2fpasswd").status_code in (404, 422)
    recent = api.get("/prices?minutes=60").raise_for_status().json()
    newest = prices[prices["region"] == "FR"]["real_time_price"].tail(4)
    assert recent["regions"]["FR"] == pytest.approx(newest.tolist())
    batteries = api.get("/batteries").raise_for_status().json()["batteries"]
    own, *telemetry = batteries
    assert telemetry and all(0 <= b["charge_level_mwh"] <= b["capacity_mwh"] for b in telemetry)
    assert own == {
        "battery_id": "Site A",
        "region": "FR",
        "timestamp": None,
        "charge_level_mwh": None,
        "capacity_mwh": 4.0,
        "rated_power_mw": 2.0,
        "discharge_power_mw": 2.0,
        "execution_delay": 0,
    }


@pytest.mark.parametrize("minutes", [-1, 0, 43_201, 10**9])
def test_too_few_and_too_many_recent_prices_are_refused_at_every_door(
    server: Server, api: httpx.Client, minutes: int
) -> None:
    with pytest.raises(ServiceError, match="minutes of prices asked for") as caught:
        MLService(server.settings).recent_prices(minutes)
    assert caught.value.status == api.get(f"/prices?minutes={minutes}").status_code == 422


def test_health_and_figures(api: httpx.Client) -> None:
    assert api.get("/health/ready").json() == {"status": "ok"}
    health = api.get("/health").json()
    assert health["ready"] and health["problems"] == {}
    text = api.get("/metrics").raise_for_status().text
    assert 'energy_ml_model_info{model_id="battery_policy"' in text
    assert "passwd" not in text, "paths that clients chose must not become labels"
