"""REST, WebSocket and the page over ``MLService`` and ``Trainings``, and ``serve``.

What belongs here: routes and what they are told in OpenAPI. What doesn't: answers, trainings, rights, shapes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

try:
    import uvicorn
    from fastapi import Depends, FastAPI, Header, Query, Request, WebSocket, WebSocketDisconnect
    from fastapi import Path as InPath
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import Response
    from pydantic import BaseModel, ValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import HTTPConnection

    from energy_ml.service import schemas
    from energy_ml.service.monitoring import CONTENT_TYPE, Monitoring
except ImportError as error:
    from energy_ml.errors import ConfigError

    raise ConfigError(
        f"the service needs packages that aren't installed ({error})", remedy="pip install 'energy_ml[service]'"
    ) from error

import pandas as pd

from energy_ml import __version__
from energy_ml.config import Settings
from energy_ml.errors import EnergyMLError, ServiceError
from energy_ml.price_prediction.model import PricePredictionModel
from energy_ml.price_prediction.predictor import METHOD
from energy_ml.service.events import Client, Hub
from energy_ml.service.ml_service import MLService
from energy_ml.service.problems import MEDIA_TYPE, problem, problem_of
from energy_ml.service.security import SUBPROTOCOL, Guard, check_exposure
from energy_ml.service.settings import ServiceSettings
from energy_ml.service.training_tasks import TrainingRequest, Trainings

log = logging.getLogger("energy_ml.service")

STATIC = Path(__file__).parent / "static"
V1 = "/api/v1"
SMALL = 20_000
"""Bodies up to so many bytes are answered on the spot; a thread would cost more than it frees."""
SEND_SECONDS = 10.0
_FORECAST = tuple(schemas.ForecastOut.model_fields)
B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")

ModelIdPath = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,63}$", examples=["price_prediction_15m"])]
TrainingIdPath = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$", examples=["t-0123456789abcdef"])]


def create_app(settings: Settings | None = None, service_settings: ServiceSettings | None = None) -> Guard:
    """The whole service as an ASGI application; ``serve`` runs it. Settings come from the environment by default."""
    limits = service_settings or ServiceSettings.from_env()
    where = settings or Settings.from_env()
    service = MLService(where, limits=limits)
    trainings = Trainings(where, per_hour=limits.trainings_per_hour)
    hub, monitoring = Hub(trainings), Monitoring()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.starting = True
        tasks = [asyncio.create_task(asyncio.to_thread(_start, service)), asyncio.create_task(hub.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            service.stop()

    app = FastAPI(
        title="energy_ml",
        version=__version__,
        summary="Price forecasts with intervals, battery actions, trainings with live progress.",
        description=_ABOUT,
        docs_url=None,  # its page would load scripts from elsewhere; the description itself is at /openapi.json
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(_only_known_parameters)],
    )
    app.state.service, app.state.trainings, app.state.hub = service, trainings, hub
    _handle_errors(app)
    app.add_middleware(_Counting, monitoring=monitoring)
    _trainings(app, trainings, limits)  # before the models, or `train` would be taken for a model's id
    _models(app, service)
    _answers(app, service, limits, monitoring)
    _market(app, service)
    _health(app, service, trainings, hub, monitoring)
    _socket(app, hub, limits)
    _page(app)
    _describe_security(app)
    guard = Guard(app, limits)
    return guard


def serve(
    host: str = "127.0.0.1", port: int = 8000, *, log_level: str = "info", settings: ServiceSettings | None = None
) -> None:
    """Run the service until interrupted. Raises ConfigError if it would be reachable from elsewhere without a token."""
    limits = settings or ServiceSettings.from_env()
    check_exposure(limits, host)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvicorn.run(
        create_app(service_settings=limits),
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=64 * 1024,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        ws_max_size=4096,
        ws_ping_interval=20,
        ws_ping_timeout=20,
    )


# --- routes -----------------------------------------------------------------------------------------------------------


def _models(app: FastAPI, service: MLService) -> None:
    @app.get(f"{V1}/models", tags=["models"], response_model=schemas.ModelsOut, responses=_problems(401))
    def list_models() -> Response:
        """Every model with its champion and the version in memory."""
        return _json({"models": service.list_models()})

    @app.get(
        f"{V1}/models/{{model_id}}",
        tags=["models"],
        response_model=schemas.ModelDetailOut,
        responses=_problems(401, 404, 422),
    )
    def get_model(model_id: ModelIdPath) -> Response:
        """One model with its versions and their metrics."""
        return _json(service.get_model(model_id))

    @app.get(
        f"{V1}/models/{{model_id}}/metrics",
        tags=["models"],
        response_model=schemas.MetricsOut,
        responses=_problems(401, 404, 422),
    )
    def get_metrics(model_id: ModelIdPath) -> Response:
        """How the champion did on its test split, beside the naive forecast."""
        return _json(service.get_model_metrics(model_id))

    @app.get(
        f"{V1}/models/{{model_id}}/feature-importance",
        tags=["models"],
        response_model=schemas.ImportanceOut,
        responses=_problems(401, 404, 422, 503),
    )
    def get_importance(model_id: ModelIdPath, method: Annotated[Literal["gain", "shap"], Query()] = "gain") -> Response:
        """What a price model looks at: shares of gain, or of mean absolute SHAP values."""
        table = service.get_feature_importance(model_id, method=method)
        version = service.champions.get(model_id).version
        return _json({"model_id": model_id, "version": version, "method": method, "features": table.to_dict("records")})


def _answers(app: FastAPI, service: MLService, limits: ServiceSettings, monitoring: Monitoring) -> None:
    @app.post(
        f"{V1}/models/predict",
        tags=["answers"],
        response_model=schemas.PredictOut,
        responses=_problems(400, 401, 404, 408, 409, 413, 415, 422, 503),
        openapi_extra=_body(schemas.PredictRequest),
    )
    async def predict(request: Request) -> Response:
        """Prices ahead with intervals, per horizon and region."""
        raw = await _read(request)

        def answer() -> dict[str, Any]:
            asked = _parse(schemas.PredictRequest, raw)
            prices = None if asked.prices is None else asked.prices.to_recent(limits.max_prices)
            horizons = asked.horizons
            if asked.model_id is not None:
                model = service.champions.get(asked.model_id).model
                if not isinstance(model, PricePredictionModel):
                    raise ServiceError(
                        f"{asked.model_id} gives actions, not prices", status=422, remedy=f"POST {V1}/models/act"
                    )
                horizons = [model.horizon]
            rows = service.forecast(prices, horizons, asked.regions, level=asked.level, timestamp=asked.timestamp)
            if not rows:
                raise ServiceError("no region has a price at the newest instant", status=422)
            for row in rows:
                monitoring.forecasts.labels(str(row["horizon"])).inc()
            first = rows[0]
            monitoring.data_age.set(first["data_age_minutes"])
            return {
                "forecasts": [{name: row[name] for name in _FORECAST} for row in rows],
                "as_of": first["timestamp"],
                **{name: first[name] for name in ("source", "data_age_minutes", "stale")},
                "method": METHOD,
            }

        return _json(await _answer(answer, raw, service, limits))

    @app.post(
        f"{V1}/models/act",
        tags=["answers"],
        response_model=schemas.ActOut,
        responses=_problems(400, 401, 404, 408, 409, 413, 415, 422, 503),
        openapi_extra=_body(schemas.ActRequest),
    )
    async def act(request: Request) -> Response:
        """What the battery should do now, with the value of each action and the reason."""
        raw = await _read(request)

        def answer() -> dict[str, Any]:
            asked = _parse(schemas.ActRequest, raw)
            made = service.act(
                asked.charge_level_mwh,
                region=asked.region,
                prices=None if asked.prices is None else asked.prices.to_frame(limits.max_prices),
                forecasts=None if asked.forecasts is None else {int(h): v for h, v in asked.forecasts.items()},
                capacity_mwh=asked.capacity_mwh,
                power_mw=asked.power_mw,
            )
            monitoring.actions.labels(made["action"]).inc()
            return made

        return _json(await _answer(answer, raw, service, limits))


def _trainings(app: FastAPI, trainings: Trainings, limits: ServiceSettings) -> None:
    @app.post(
        f"{V1}/models/train",
        tags=["trainings"],
        status_code=202,
        response_model=schemas.TrainingOut,
        responses={
            **_problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
            200: {"model": schemas.TrainingOut, "description": "This training was there already."},
        },
        openapi_extra=_body(schemas.TrainRequest),
    )
    async def train(
        request: Request,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")] = None,
    ) -> Response:
        """Start a training in another process, as a Dagster run; asking twice with one key starts it once."""
        raw = await _read(request)

        def answer() -> Response:
            asked = _parse(schemas.TrainRequest, raw)
            state, started = trainings.start(
                TrainingRequest(
                    type=asked.type,
                    as_of=asked.as_of,
                    horizons=tuple(sorted(set(asked.horizons))) if asked.horizons else None,
                    regions=tuple(sorted(set(asked.regions))) if asked.regions else None,
                    idempotency_key=idempotency_key,
                )
            )
            place = {"Location": f"{V1}/models/train/{state['training_id']}"}
            return _json(state, 202 if started else 200, place)

        return await _in_thread(answer, limits)

    @app.get(f"{V1}/models/train", tags=["trainings"], response_model=schemas.TrainingsOut, responses=_problems(401))
    def list_trainings() -> Response:
        """The newest fifty trainings."""
        return _json({"trainings": trainings.newest()})

    @app.get(
        f"{V1}/models/train/{{training_id}}",
        tags=["trainings"],
        response_model=schemas.TrainingOut,
        responses=_problems(401, 404, 422),
    )
    def get_training(training_id: TrainingIdPath) -> Response:
        """State, progress and metrics of one training, or in words why it failed."""
        return _json(trainings.get(training_id))

    @app.post(
        f"{V1}/models/train/{{training_id}}/cancel",
        tags=["trainings"],
        response_model=schemas.TrainingOut,
        responses=_problems(401, 403, 404, 422),
    )
    def cancel_training(training_id: TrainingIdPath) -> Response:
        """End a running training; one that has ended stays as it is."""
        return _json(trainings.cancel(training_id))


def _market(app: FastAPI, service: MLService) -> None:
    @app.get(
        f"{V1}/prices",
        tags=["market"],
        response_model=schemas.RecentPricesOut,
        responses=_problems(401, 404, 422),
    )
    def prices(minutes: Annotated[int, Query(ge=1, le=2880)] = 360) -> Response:
        """The newest prices of the data folder, all regions."""
        recent, age = service.recent_prices(minutes)
        table = recent.frame.pivot_table(index="timestamp", columns="region", values="real_time_price", dropna=False)
        return _json(
            {
                "timestamps": list(table.index),
                "regions": {
                    str(name): [None if pd.isna(value) else value for value in table[name].tolist()]
                    for name in table.columns
                },
                "interval_minutes": recent.interval_minutes,
                **age,
            }
        )

    @app.get(f"{V1}/batteries", tags=["market"], response_model=schemas.BatteriesOut, responses=_problems(401, 422))
    def batteries() -> Response:
        """The newest charge of each battery that the telemetry knows."""
        frame = service.market.batteries()
        names = [name for name in schemas.BatteryOut.model_fields if name in frame.columns]
        rows = frame[names].to_dict("records") if len(frame) else []
        return _json({"batteries": [{"region": None, **row} for row in rows]})


def _health(app: FastAPI, service: MLService, trainings: Trainings, hub: Hub, monitoring: Monitoring) -> None:
    @app.get(f"{V1}/health/live", tags=["health"], response_model=schemas.LiveOut, responses=_problems(421))
    async def live() -> Response:
        """Whether the process answers."""
        return _json({"status": "ok"})

    @app.get(
        f"{V1}/health/ready",
        tags=["health"],
        response_model=schemas.LiveOut,
        responses={503: {"model": schemas.LiveOut, "description": "No model can answer."}},
    )
    async def ready() -> Response:
        """Whether at least one model can answer."""
        good = service.health()["ready"]
        return _json({"status": "ok" if good else "unavailable"}, 200 if good else 503)

    @app.get(f"{V1}/health", tags=["health"], response_model=schemas.HealthOut, responses=_problems(401))
    async def health() -> Response:
        """Versions in memory, and in words what is wrong."""
        return _json(service.health())

    @app.get(
        f"{V1}/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_problems(401)},
    )
    def metrics() -> Response:
        """Figures for Prometheus."""
        now = service.health()
        monitoring.problems.set(len(now["problems"]))
        monitoring.sockets.set(len(hub.clients))
        monitoring.model.clear()
        for model_id, version in now["models"].items():
            monitoring.model.labels(model_id, version).set(1)
        monitoring.trainings.clear()
        for state in trainings.newest():
            monitoring.trainings.labels(state["state"]).inc()
        return Response(monitoring.render(), media_type=CONTENT_TYPE)


def _socket(app: FastAPI, hub: Hub, limits: ServiceSettings) -> None:
    @app.websocket(f"{V1}/ws")
    async def ws(socket: WebSocket, training_id: str | None = None) -> None:
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if len(hub.clients) >= limits.max_sockets:
            await socket.close(1013, "too many clients, try again later")
            return
        try:
            client = hub.join(training_id)
        except EnergyMLError as error:
            await socket.close(4404, error.found[:120])
            return
        telling = asyncio.create_task(_tell(socket, client))
        hearing = asyncio.create_task(_hear(socket))
        try:
            await asyncio.wait({telling, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hub.leave(client)
            for task in (telling, hearing):
                task.cancel()
            await asyncio.gather(telling, hearing, return_exceptions=True)


async def _tell(socket: WebSocket, client: Client) -> None:
    while True:
        for event in await client.take():
            # A client whose buffers stay full is let go; it reconnects and is told the present state.
            await asyncio.wait_for(socket.send_text(json.dumps(event, default=_jsonable)), SEND_SECONDS)


async def _hear(socket: WebSocket) -> None:
    """Clients have nothing to say; hearing them is how their leaving is noticed."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.receive_text()


def _page(app: FastAPI) -> None:
    for path, name, kind in (
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/static/page.css", "page.css", "text/css; charset=utf-8"),
        ("/static/page.js", "page.js", "text/javascript; charset=utf-8"),
    ):
        app.add_api_route(path, _sender((STATIC / name).read_bytes(), kind), include_in_schema=False)


def _sender(content: bytes, kind: str) -> Callable[[], Any]:
    async def send() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return send


# --- helpers ----------------------------------------------------------------------------------------------------------


class _Counting:
    """Counts answers by the route's template, never by the path that a client chose."""

    def __init__(self, app: Any, monitoring: Monitoring) -> None:
        self.app = app
        self.monitoring = monitoring

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def counted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self.monitoring.answered(scope["method"] if route != "unknown" else "other", route, status, began)


def _handle_errors(app: FastAPI) -> None:
    async def named(_: Request, error: Exception) -> Response:
        assert isinstance(error, EnergyMLError)
        body = problem_of(error)
        headers = {"Retry-After": "300"} if body["status"] == 429 else {}
        return Response(_dump(body), body["status"], headers, MEDIA_TYPE)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error.errors())

    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        remedy = "see /openapi.json for paths and methods" if error.status_code in (404, 405) else None
        body = problem(error.status_code, str(error.detail), str(error.detail), remedy=remedy)
        return Response(_dump(body), error.status_code, dict(error.headers or {}), MEDIA_TYPE)

    async def unforeseen(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.scope.get("route"), exc_info=error)
        body = problem(500, "Internal error", "the service failed; its log says why")
        return Response(_dump(body), 500, media_type=MEDIA_TYPE)

    app.add_exception_handler(EnergyMLError, named)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unforeseen)


def _invalid(errors: Any) -> Response:
    fields = []
    for error in errors[:20]:
        place = [str(part) for part in error["loc"] if part not in ("body", "query", "path", "header")]
        fields.append({"field": ".".join(place)[:200] or "body", "message": str(error["msg"])[:300]})
    body = problem(
        422,
        "Unprocessable content",
        f"{fields[0]['field']}: {fields[0]['message']}",
        errors=fields,
        remedy="see /openapi.json for what each field may hold",
    )
    return Response(_dump(body), 422, media_type=MEDIA_TYPE)


async def _only_known_parameters(connection: HTTPConnection) -> None:
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


async def _read(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also keeps other sites' forms out: only application/json makes a browser ask first.
        raise ServiceError(
            f"the body is {kind or 'of no type'}", status=415, expected="header Content-Type: application/json"
        )
    return await request.body()


def _parse(shape: type[B], raw: bytes) -> B:
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_context=False, include_input=False)
        ) from None


def _start(service: MLService) -> None:
    """In the background: the service is live at once, and ready when nothing is left to load or to compile."""
    service.start()
    # What is there now stays; looking through it for garbage again and again would hold requests up.
    gc.collect()
    gc.freeze()


async def _answer(make: Callable[[], T], raw: bytes, service: MLService, limits: ServiceSettings) -> T:
    """Small questions about given prices on the spot, all else (large bodies, reading files) in a thread."""
    if len(raw) <= SMALL and b'"prices"' in raw and not service.starting:
        return make()
    return await _in_thread(make, limits)


async def _in_thread(make: Callable[[], T], limits: ServiceSettings) -> T:
    try:
        return await asyncio.wait_for(asyncio.to_thread(make), limits.timeout_seconds)
    except TimeoutError:
        raise ServiceError(
            f"there is no answer after {limits.timeout_seconds:g} s", status=503, remedy="ask for less, or try again"
        ) from None


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_dump(value), status, headers, "application/json")


def _dump(value: Any) -> bytes:
    return json.dumps(value, default=_jsonable, separators=(",", ":"), allow_nan=False).encode()


def _jsonable(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} isn't JSON")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _STATUS_WORDS[status], "content": content} for status in statuses}


def _body(shape: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _describe_security(app: FastAPI) -> None:
    """Add what FastAPI can't see: bodies that handlers parse themselves, problem details, the token."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = make()
            parts = made.setdefault("components", {}).setdefault("schemas", {})
            for shape in (schemas.PredictRequest, schemas.ActRequest, schemas.TrainRequest, schemas.Problem):
                own = shape.model_json_schema(ref_template="#/components/schemas/{model}")
                parts.update(own.pop("$defs", {}))
                parts[shape.__name__] = own
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in made["paths"].items():
                for operation in operations.values():
                    if path not in (f"{V1}/health/live", f"{V1}/health/ready"):
                        operation["security"] = [{"token": []}]
                    invalid = operation["responses"].get("422")
                    if invalid is not None and "application/json" in invalid.get("content", {}):
                        operation["responses"]["422"] = _problems(422)[422]
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
_ABOUT = f"""
Times are UTC, prices currency/MWh, energy MWh, power MW at the grid (positive buys). Errors are problem details
(RFC 9457). `{V1}/ws` is a WebSocket: events `model_training_progress` `{{model_id, progress 0..1, epoch?, metrics}}`,
`model_training_completed`, `model_training_failed` and `training`; whoever connects late is told the present state.
Browsers pass the token as subprotocols `["energy-ml", "bearer.<base64url of the token>"]`.
"""
