"""HTTP around the routes: reading bodies, patience, errors as problem details, counting, what OpenAPI can't see.

What belongs here: what holds for every route. What doesn't: routes (``api``), rights (``security``).
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import iscoroutinefunction
from typing import Any, TypedDict, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from energy_ml.artifacts import to_jsonable
from energy_ml.errors import EnergyMLError, ServiceError
from energy_ml.service import schemas
from energy_ml.service.monitoring import Monitoring
from energy_ml.service.problems import MEDIA_TYPE, FieldError, Problem, problem_of
from energy_ml.service.security import OPEN_PATHS

log = logging.getLogger("energy_ml.service")

V1 = "/api/v1"
_SCHEMAS = "#/components/schemas/"
_B = TypeVar("_B", bound=BaseModel)
_T = TypeVar("_T")


class Counting:
    """Counts answers by the route's template, never by the path that a client chose."""

    def __init__(self, app: ASGIApp, monitoring: Monitoring) -> None:
        self.app = app
        self.monitoring = monitoring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count and time the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self.monitoring.answered(scope["method"] if route != "unknown" else "other", route, status, began)


def handle_errors(app: FastAPI) -> None:
    """Every error becomes a problem document."""

    async def named(_: Request, error: Exception) -> Response:
        assert isinstance(error, EnergyMLError)
        return _told(problem_of(error))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error.errors())

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:  # each method is a route of its own; Starlette names those of the first alone
            found = {method for route in _matching(app, request) for method in route.methods or ()}
            error.headers = {**(error.headers or {}), "Allow": ", ".join(sorted(found))}
        remedy = "see /openapi.json for paths and methods" if error.status_code in (404, 405) else None
        words = str(error.detail)
        return _told(Problem(status=error.status_code, title=words, detail=words, remedy=remedy), error.headers)

    async def unforeseen(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.scope.get("route"), exc_info=error)
        return _told(Problem(status=500, title="Internal error", detail="the service failed; its log says why"))

    app.add_exception_handler(EnergyMLError, named)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unforeseen)


def _matching(app: FastAPI, request: Request) -> Iterator[Route]:
    """Routes with this path, and any method; the most particular path alone, as a request would find it."""
    found: str | None = None
    for route in app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found = found or route.path
            if route.path == found:
                yield route


def _invalid(errors: Iterable[Mapping[str, Any]]) -> Response:
    fields = []
    for error in list(errors)[:20]:
        place = [str(part) for part in error["loc"] if part not in ("body", "query", "path", "header")]
        fields.append(FieldError(field=".".join(place)[:200] or "body", message=str(error["msg"])[:300]))
    return _told(
        Problem(
            status=422,
            title="Unprocessable content",
            detail=f"{fields[0].field}: {fields[0].message}",
            errors=fields,
            remedy="see /openapi.json for what each field may hold",
        )
    )


def _told(body: Problem, headers: Mapping[str, str] | None = None) -> Response:
    later = {"Retry-After": "300"} if body.status == 429 else {}
    return Response(body.encode(), body.status, {**later, **(headers or {})}, MEDIA_TYPE)


async def only_known_parameters(connection: HTTPConnection) -> None:
    """A parameter that is misspelt must not be passed over in silence."""
    route = connection.scope.get("route")
    if connection.scope["type"] != "http" or not getattr(route, "include_in_schema", False):
        return
    known = {field.alias for field in route.dependant.query_params}  # type: ignore[union-attr]
    given = [name for name, _ in connection.query_params.multi_items()]
    wrong = [name for name in given if name not in known or given.count(name) > 1]
    if wrong:
        message = "given more than once" if wrong[0] in known else "no such parameter"
        raise RequestValidationError([{"loc": ("query", wrong[0]), "msg": message, "type": "extra_forbidden"}])


async def read_body(request: Request) -> bytes:
    """The bytes of a JSON body. Raises ServiceError 415 for another type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also keeps other sites' forms out: only application/json makes a browser ask first.
        raise ServiceError(
            f"the body is {kind or 'of no type'}", status=415, expected="header Content-Type: application/json"
        )
    return await request.body()


def parse(shape: type[_B], raw: bytes) -> _B:
    """A body as its shape. Raises RequestValidationError."""
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_context=False, include_input=False)
        ) from None


async def in_thread(make: Callable[[], _T], seconds: float) -> _T:
    """What ``make`` gives, in a thread. Raises ServiceError 503 after ``seconds``."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(make), seconds)
    except TimeoutError:
        raise ServiceError(
            f"there is no answer after {seconds:g} s", status=503, remedy="ask for less, or try again"
        ) from None


def patient(seconds: float) -> type[APIRoute]:
    """A route whose plain functions run in threads that are waited for ``seconds`` at most."""

    class Patient(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            super().__init__(path, endpoint if iscoroutinefunction(endpoint) else in_time(endpoint), **options)

    def in_time(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(endpoint)
        async def answer(**given: Any) -> Any:
            return await in_thread(functools.partial(endpoint, **given), seconds)

        return answer

    return Patient


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as JSON."""
    text = json.dumps(value, default=to_jsonable, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, "application/json")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents of a route, for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}
    return {status: {"description": _STATUS_WORDS[status], "content": content} for status in statuses}


class _Told(TypedDict):
    """What OpenAPI is told of a route, as FastAPI takes it."""

    responses: dict[int | str, dict[str, Any]]
    openapi_extra: dict[str, Any]


def told_of(shape: type[BaseModel], *more: int) -> _Told:
    """A route that parses its body itself, for OpenAPI; ``more`` refusals beside those that any body may meet."""
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": _SCHEMAS + shape.__name__}}}}
    responses = refusals(400, 401, 404, 408, 409, 413, 415, 422, 503, *more)
    return {"responses": responses, "openapi_extra": {"requestBody": body}}


def describe(app: FastAPI, *, guarded: bool) -> None:
    """Add what FastAPI can't see: bodies that handlers parse themselves, problem details, the token if there is one."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = make()
            parts = made.setdefault("components", {}).setdefault("schemas", {})
            for shape in (schemas.PredictRequest, schemas.ActRequest, schemas.TrainRequest, Problem):
                own = shape.model_json_schema(ref_template=_SCHEMAS + "{model}")
                parts.update(own.pop("$defs", {}))
                parts[shape.__name__] = own
            if guarded:
                made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in made["paths"].items():
                for operation in operations.values():
                    if guarded and path not in OPEN_PATHS:
                        operation["security"] = [{"token": []}]
                    invalid = operation["responses"].get("422")
                    if invalid is not None and "application/json" in invalid.get("content", {}):
                        operation["responses"]["422"] = refusals(422)[422]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


_STATUS_WORDS = {
    400: "The request can't be read.",
    401: "There is no token, or a wrong one.",
    403: "This token may not do that.",
    404: "There is no such model, training or data.",
    408: "The body didn't arrive in time.",
    409: "Another training is running, the key was used for something else, or the data is too old.",
    413: "Too many bytes or prices.",
    415: "The body isn't JSON.",
    421: "The host isn't this machine.",
    422: "The request names something that can't be; the answer says which field and what to do.",
    429: "Too many trainings in an hour.",
    503: "Nothing can answer this now; the answer says why.",
}
