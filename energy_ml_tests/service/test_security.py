"""Who may do what: tokens, rights, hosts, origins, and no secret in what is written down."""

from __future__ import annotations

import base64
import importlib
import sys

import httpx
import pytest
from starlette.types import Scope

import energy_ml.service
from energy_ml.config import ServiceSettings
from energy_ml.errors import ConfigError, ServiceError
from energy_ml.service.security import OPEN_PATHS, Guard, check_exposure
from energy_ml_tests.service.conftest import TOKEN, TRAIN_TOKEN, Server

WRONG = (None, "wrong", TOKEN + "x", TOKEN[:-1])


@pytest.mark.parametrize(("token", "status"), [*((t, 401) for t in WRONG), (TOKEN, 200), (TRAIN_TOKEN, 200)])
def test_a_token_is_needed(server: Server, token: str | None, status: int) -> None:
    with server.client(token) as client:
        for path in ("/models", "/health", "/metrics", "/prices", "/models/train"):
            answer = client.get(path)
            assert answer.status_code == status
            if status == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.json()["status"] == 401
        assert client.get("/health/live").status_code == 200


def test_training_is_a_right_of_its_own(server: Server) -> None:
    with server.client(TOKEN) as client:
        for path in ("/models/train", "/models/train/t-none/cancel"):
            answer = client.post(path, json={"type": "all"})
            assert answer.status_code == 403 and "TRAIN_TOKEN" in answer.json()["expected"]
    with server.client(TRAIN_TOKEN) as client:
        assert client.post("/models/train/t-none/cancel").status_code == 404


def test_headers_that_browsers_heed(server: Server) -> None:
    page = httpx.get(server.url)
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert "energy_ml" in page.text and "http://" not in page.text and "https://" not in page.text, "works offline"
    for path in ("/static/page.js", "/static/page.css"):
        assert httpx.get(server.url + path).status_code == 200
    with server.client() as client:
        answer = client.get("/models", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in answer.headers and answer.headers["cache-control"] == "no-store"
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        assert "access-control-allow-origin" not in client.options("/models/predict", headers=asked).headers


def test_no_secret_is_written_down(server: Server) -> None:
    with server.client("secret-that-is-wrong-0123") as client:
        client.get("/models")
    settings = ServiceSettings(token=TOKEN, train_token=TRAIN_TOKEN)
    for text in (server.log(), repr(settings)):
        assert TOKEN not in text and TRAIN_TOKEN not in text and "secret-that-is-wrong" not in text


def scope(**changes: object) -> Scope:
    base = {"type": "http", "method": "GET", "path": "/api/v1/models", "headers": [(b"host", b"127.0.0.1:8000")]}
    return {**base, **changes}


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:8000", "[::1]:8000", "127.0.0.5"])
def test_without_tokens_loopback_serves(host: str) -> None:
    Guard(None, ServiceSettings()).authorize(scope(headers=[(b"host", host.encode())]))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "192.168.1.5", "", "localhost.evil.example"])
def test_without_tokens_a_foreign_host_is_refused(host: str) -> None:
    """DNS rebinding: a page of another site whose name suddenly means 127.0.0.1."""
    with pytest.raises(ServiceError) as caught:
        Guard(None, ServiceSettings()).authorize(scope(headers=[(b"host", host.encode())]))
    assert caught.value.status == 421


def test_without_tokens_other_sites_may_not_post() -> None:
    """A form of another site reaches loopback without asking; browsers say where it comes from."""
    guard, host = Guard(None, ServiceSettings()), (b"host", b"127.0.0.1:8000")
    guard.authorize(scope(method="POST", headers=[host]))
    guard.authorize(scope(method="POST", headers=[host, (b"origin", b"http://127.0.0.1:8000")]))
    for origin in (b"http://evil.example", b"null", b"http://127.0.0.1:9000"):
        with pytest.raises(ServiceError) as caught:
            guard.authorize(scope(method="POST", headers=[host, (b"origin", origin)]))
        assert caught.value.status == 403


def test_beyond_loopback_only_with_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "energy.example"):
        with pytest.raises(ConfigError, match="without a token"):
            check_exposure(ServiceSettings(), host)
        check_exposure(ServiceSettings(token=TOKEN), host)
    for host in ("127.0.0.1", "::1", "localhost"):
        check_exposure(ServiceSettings(), host)


def test_tokens_of_sockets_come_as_subprotocols() -> None:
    guard = Guard(None, ServiceSettings(token=TOKEN))
    encoded = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    guard.authorize(scope(type="websocket", subprotocols=["energy-ml", f"bearer.{encoded}"]))
    for wrong in (["energy-ml"], ["bearer.!!!"], ["bearer."], [f"bearer.{encoded}x"]):
        with pytest.raises(ServiceError):
            guard.authorize(scope(type="websocket", subprotocols=wrong))
    assert not any(path.startswith("/api/v1/models") for path in OPEN_PATHS)


@pytest.mark.parametrize(
    "environment",
    [
        {"ENERGY_ML_API_TOKEN": "short"},
        {"ENERGY_ML_API_MAX_BODY_BYTES": "many"},
        {"ENERGY_ML_API_MAX_PRICES": "-1"},
        {"ENERGY_ML_API_TIMEOUT_SECONDS": "0"},
        {"ENERGY_ML_API_TIMEOUT_SECONDS": "inf"},
    ],
)
def test_nonsense_in_settings_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        ServiceSettings.from_env(environment)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its packages the models still answer in process; only serving them asks for the extra."""
    monkeypatch.setattr(energy_ml, "service", energy_ml.service)  # the parent's attribute comes back too
    for name in [name for name in sys.modules if name.startswith("energy_ml.service")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("fastapi", "httpx", "prometheus_client", "starlette", "uvicorn", "websockets"):
        monkeypatch.setitem(sys.modules, name, None)
    service = importlib.import_module("energy_ml.service")
    assert service.MLService and service.Trainings
    with pytest.raises(ConfigError, match=r"pip install 'energy_ml\[service\]'"):
        _ = service.serve
