"""Who may do what, and how much: tokens, origins, hosts, body sizes, patience. One ASGI layer around everything.

What belongs here: refusing a request before anything looks into it. What doesn't: what the request is about.

Without tokens the service only listens on loopback. Browsers reach loopback too, so requests must then name a loopback
host (no DNS rebinding), and sockets must come from the page of the same origin.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from energy_ml.config import ServiceSettings
from energy_ml.errors import ConfigError, ServiceError
from energy_ml.service.problems import MEDIA_TYPE, problem_of

log = logging.getLogger("energy_ml.service")

OPEN_PATHS = frozenset(
    {
        *("/", "/static/page.css", "/static/page.js"),
        *("/docs", "/openapi.json", "/static/docs.js", "/static/swagger-ui-bundle.js", "/static/swagger-ui.css"),
        *("/api/v1/health/live", "/api/v1/health/ready"),
    }
)
"""Need no token: the empty page (it asks for one), the description of the interface, and what probes ask."""
_REPORTS = "/reports/"
_COOKIE = "energy_ml_token"
"""A link can't carry a header: for reports, and for them alone, the page's token may come as a cookie, base64url."""
SUBPROTOCOL = "energy-ml"
_TOKEN_PROTOCOL = "bearer."
"""Browsers can't set headers on a WebSocket: the token comes as subprotocol ``bearer.<base64url>``, not in the URL."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


def _is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(settings: ServiceSettings, host: str) -> None:
    """Refuse to listen beyond loopback without a token. Raises ConfigError."""
    if settings.token is None and settings.train_token is None and not _is_loopback(host):
        raise ConfigError(
            f"the service would listen on {host} without a token",
            expected="ENERGY_ML_API_TOKEN, unless bound to 127.0.0.1 or ::1",
            remedy="set one: python -c 'import secrets; print(secrets.token_urlsafe(32))' makes it",
        )


class Guard:
    """Refuses what isn't allowed, limits bodies and waiting, and adds headers that browsers heed."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self.app = app
        self.settings = settings
        self.stopping = False
        self._read = _digest(settings.token)
        self._train = _digest(settings.train_token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or socket."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # --- rights -------------------------------------------------------------------------------------------------------

    def authorize(self, scope: Scope) -> None:
        """Raises ServiceError: 401 (no or a wrong token), 403 (another right), 421 (foreign host), 503 (ending)."""
        if self.stopping:
            raise ServiceError("the service is ending", status=503, remedy="try again when it is back")
        headers = dict(scope["headers"])
        if self._read is None and self._train is None:
            host = headers.get(b"host", b"").decode("latin-1")
            if not _is_loopback(_without_port(host)):
                raise ServiceError(
                    f"host {host!r} isn't this machine",
                    status=421,
                    expected="127.0.0.1, localhost or [::1]",
                    remedy="set ENERGY_ML_API_TOKEN to serve other hosts",
                )
            if scope.get("method") == "POST":  # where a token is asked for, other sites' pages don't have it
                _same_origin(scope)
            return
        if scope["path"] in OPEN_PATHS:
            return
        token = _token_of(scope, headers)
        if token is None:
            raise ServiceError(
                "there is no token",
                status=401,
                expected="header Authorization: Bearer <token>",
                remedy="send the value of ENERGY_ML_API_TOKEN",
            )
        given = hashlib.sha256(token).digest()
        # Both comparisons always run, each in constant time over digests of equal length.
        reads = hmac.compare_digest(given, self._read or b"")
        trains = hmac.compare_digest(given, self._train or b"")
        if not reads and not trains:
            raise ServiceError("the token isn't right", status=401, remedy="send the value of ENERGY_ML_API_TOKEN")
        if _trains(scope) and not trains:
            raise ServiceError(
                "this token may not start or cancel trainings",
                status=403,
                expected="the token of ENERGY_ML_API_TRAIN_TOKEN",
                remedy="use it, or ask whoever runs the service to set one",
            )

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                cache = [] if scope["path"] in OPEN_PATHS else [(b"cache-control", b"no-store")]
                own = message.get("headers", ())
                usual = [header for header in _HEADERS if header[0] not in {name for name, _ in own}]
                message = {**message, "headers": [*own, *usual, *cache]}
            await send(message)

        try:
            self.authorize(scope)
            self._check_length(scope)
        except ServiceError as error:
            await _refuse(send_with_headers, error)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            if started:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self.settings.timeout_seconds)
            except TimeoutError:
                raise ServiceError(
                    f"the body didn't arrive within {self.settings.timeout_seconds:g} s", status=408
                ) from None
            seen += len(message.get("body", b""))
            if seen > self.settings.max_body_bytes:
                raise self._too_large()
            return message

        await self.app(scope, limited, send_with_headers)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.authorize(scope)
            _same_origin(scope)
        except ServiceError as error:
            log.warning("socket refused: %s", error.found)
            await receive()
            code = {401: 4401, 503: 1012}.get(error.status, 4403)
            await send({"type": "websocket.close", "code": code, "reason": error.found})
            return
        await self.app(scope, receive, send)

    def _check_length(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > self.settings.max_body_bytes):
                raise self._too_large()

    def _too_large(self) -> ServiceError:
        return ServiceError(
            "the body is too large",
            status=413,
            expected=f"at most {self.settings.max_body_bytes:,} bytes",
            remedy="send only the history that the models need, or let the service read the data folder",
        )


async def _refuse(send: Send, error: ServiceError) -> None:
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="energy_ml"'))
    if error.status in (408, 413, 503):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem_of(error).encode()})


def _digest(token: str | None) -> bytes | None:
    return None if token is None else hashlib.sha256(token.encode()).digest()


def _trains(scope: Scope) -> bool:
    posted = scope["type"] == "http" and scope["method"] == "POST"
    return posted and str(scope["path"]).startswith("/api/v1/models/train")


def _token_of(scope: Scope, headers: dict[bytes, bytes]) -> bytes | None:
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer" and token.strip():
        return token.strip()
    texts = [p.removeprefix(_TOKEN_PROTOCOL) for p in scope.get("subprotocols", ()) if p.startswith(_TOKEN_PROTOCOL)]
    if scope["path"].startswith(_REPORTS):
        pairs = (pair.strip().partition("=") for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"))
        texts += [value for name, _, value in pairs if name == _COOKIE]
    try:
        return base64.urlsafe_b64decode(texts[0] + "=" * (-len(texts[0]) % 4)) if texts else None
    except ValueError:
        return None


def _same_origin(scope: Scope) -> None:
    """A page of another site may not open a socket or post here with what the browser is allowed to reach."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    origin = headers.get(b"origin")
    if origin is not None and origin.partition("://")[2] != headers.get(b"host"):
        raise ServiceError(f"origin {origin!r} isn't this service", status=403)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host
