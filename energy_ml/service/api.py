"""REST, WebSocket and the page over ``MLService`` and ``Trainings``, and ``serve``.

What belongs here: routes and what they are told in OpenAPI. What doesn't: answers, trainings, rights, shapes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from energy_ml.errors import EnergyMLError, ServiceError, needing

with needing("service", "the service"):
    import fastapi_offline
    import uvicorn
    from fastapi import Depends, FastAPI, Header, Query, Request, WebSocket, WebSocketDisconnect
    from fastapi import Path as InPath
    from fastapi.responses import Response
    from fastapi.types import DecoratedCallable

    from energy_ml.service import answers, schemas
    from energy_ml.service.http import (
        V1,
        Counting,
        describe,
        handle_errors,
        in_thread,
        json_response,
        only_known_parameters,
        parse,
        patient,
        read_body,
        refusals,
        told_of,
    )
    from energy_ml.service.monitoring import CONTENT_TYPE, Monitoring

import pandas as pd
from pydantic import BaseModel

from energy_ml import __version__
from energy_ml.artifacts import to_jsonable
from energy_ml.config import ServiceSettings, Settings
from energy_ml.names import IS_FILLED, PRICE, REGION, TIMESTAMP
from energy_ml.price_prediction.model import PricePredictionModel, family_of
from energy_ml.service.connections import Server, bounded
from energy_ml.service.events import Client, Hub
from energy_ml.service.ml_service import MOST_MINUTES, MLService
from energy_ml.service.security import SUBPROTOCOL, Guard, check_exposure
from energy_ml.service.training_tasks import TrainingRequest, Trainings
from energy_ml.training_window import deployment

_STATIC = Path(__file__).parent / "static"
_SMALL = 20_000
"""Bodies up to so many bytes are answered on the spot; a thread would cost more than it frees."""
_SEND_SECONDS = 10.0
_HEADER_BYTES = 64 * 1024
_REPORT_HEADERS = {
    # A page of its own origin: what it holds came from data, and mustn't reach the token that opened it.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
}
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_FORECAST = answers.ForecastOut.__annotations__.keys()
_OF_ALL = schemas.PredictOut.__annotations__.keys()
_B = TypeVar("_B", bound=BaseModel)
_T = TypeVar("_T")

_ModelId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,63}$", examples=["price_prediction_15m"])]
_TrainingId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$", examples=["t-0123456789abcdef"])]


def create_app(settings: Settings | None = None, service_settings: ServiceSettings | None = None) -> Guard:
    """The whole service as an ASGI application; ``serve`` runs it. Settings come from the environment by default."""
    limits = service_settings or ServiceSettings.from_env()
    where = settings or deployment()
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
        docs_url=None,  # its page would load scripts from elsewhere; ours, at /docs too, has them from a package
        redoc_url=None,
        lifespan=lifespan,
        responses=refusals(503),
        dependencies=[Depends(only_known_parameters)],
    )
    app.router.route_class = patient(limits.timeout_seconds)
    app.state.service, app.state.trainings, app.state.hub = service, trainings, hub
    handle_errors(app)
    app.add_middleware(Counting, monitoring=monitoring)
    _trainings(_Routes(app, "trainings"), trainings, limits)  # before the models, or `train` would be taken for an id
    _answers(_Routes(app, "answers"), service, limits, monitoring)
    _models(_Routes(app, "models"), service)
    _market(_Routes(app, "market"), service)
    _health(_Routes(app, "health"), service, trainings, hub, monitoring)
    _socket(app, hub, limits)
    _page(app, service)
    describe(app, guarded=not (limits.token is None and limits.train_token is None))
    return Guard(app, limits)


def serve(
    host: str = "127.0.0.1", port: int = 8000, *, log_level: str = "info", settings: ServiceSettings | None = None
) -> None:
    """Run the service until interrupted. Raises ConfigError if it would be reachable from elsewhere without a token."""
    limits = settings or ServiceSettings.from_env()
    check_exposure(limits, host)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server_around(create_app(service_settings=limits), limits, host, port, log_level).run()


def server_around(app: Guard, limits: ServiceSettings, host: str, port: int, log_level: str) -> Server:
    """The server around the service, with its limits: size and time of headers, connections, time to end."""
    config = uvicorn.Config(
        app,
        http=bounded(limits),
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(limits.timeout_seconds) + 1,  # each answer has that long
        ws_max_size=4096,
        ws_ping_interval=20,
        ws_ping_timeout=20,
    )
    return Server(config, app)


# --- routes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Routes:
    """Routes of one tag, below ``V1``."""

    app: FastAPI
    tag: str

    def get(self, path: str, **told: Any) -> Callable[[DecoratedCallable], DecoratedCallable]:
        return self.app.get(V1 + path, tags=[self.tag], **told)

    def post(self, path: str, **told: Any) -> Callable[[DecoratedCallable], DecoratedCallable]:
        return self.app.post(V1 + path, tags=[self.tag], **told)


def _models(routes: _Routes, service: MLService) -> None:
    @routes.get("/models", response_model=schemas.ModelsOut, responses=refusals(401))
    def list_models() -> Response:
        """Every model with its champion and the version in memory."""
        return json_response({"models": service.list_models()})

    @routes.get("/models/{model_id}", response_model=answers.ModelDetail, responses=refusals(401, 404, 422))
    def get_model(model_id: _ModelId) -> Response:
        """One model with its versions and their metrics."""
        return json_response(service.get_model(model_id))

    @routes.get("/models/{model_id}/metrics", response_model=answers.MetricsOut, responses=refusals(401, 404, 422))
    def get_metrics(model_id: _ModelId) -> Response:
        """How the champion did on its test split, beside the naive forecast."""
        return json_response(service.champion_metrics(model_id))

    @routes.get(
        "/models/{model_id}/feature-importance",
        response_model=schemas.ImportanceOut,
        responses=refusals(401, 404, 422, 503),
    )
    def get_importance(model_id: _ModelId, method: Annotated[Literal["gain", "shap"], Query()] = "gain") -> Response:
        """What a price model looks at: shares of gain, or of mean absolute SHAP values."""
        shares = service.get_feature_importance(model_id, method=method)
        version = service.champions.get(model_id).version
        rows = [{"feature": f, "family": family_of(f), "importance": share} for f, share in shares.items()]
        return json_response({"model_id": model_id, "version": version, "method": method, "features": rows})


def _answers(routes: _Routes, service: MLService, limits: ServiceSettings, monitoring: Monitoring) -> None:
    most = limits.max_prices, service.settings.models.price_prediction.max_abs_price

    async def answered(request: Request, shape: type[_B], make: Callable[[_B], _T]) -> _T:
        """Small questions about given prices on the spot, all else (large bodies, reading files) in a thread."""
        raw = await read_body(request)
        if len(raw) <= _SMALL and b'"prices"' in raw and b'"battery"' not in raw and not service.starting:
            return make(parse(shape, raw))
        return await in_thread(lambda: make(parse(shape, raw)), limits.timeout_seconds)

    def forecasts(asked: schemas.PredictRequest) -> dict[str, object]:
        prices = None if asked.prices is None else asked.prices.to_recent(*most)
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
            "forecasts": [{name: value for name, value in row.items() if name in _FORECAST} for row in rows],
            "as_of": first["timestamp"],
            **{name: value for name, value in first.items() if name in _OF_ALL},
        }

    @routes.post("/models/predict", response_model=schemas.PredictOut, **told_of(schemas.PredictRequest))
    async def predict(request: Request) -> Response:
        """Prices ahead with intervals, per horizon and region."""
        return json_response(await answered(request, schemas.PredictRequest, forecasts))

    def of_policy(ask: Callable[..., _T], asked: schemas.ActRequest) -> _T:
        return ask(
            asked.charge_level_mwh,
            battery=asked.battery,
            region=asked.region,
            prices=None if asked.prices is None else asked.prices.to_frame(*most),
            forecasts=None if asked.forecasts is None else {int(h): v for h, v in asked.forecasts.items()},
            capacity_mwh=asked.capacity_mwh,
            power_mw=asked.power_mw,
        )

    @routes.post("/models/act", response_model=answers.ActionAnswer, **told_of(schemas.ActRequest))
    async def act(request: Request) -> Response:
        """What the battery should do now, with the value of each action and the reason."""
        made = await answered(request, schemas.ActRequest, partial(of_policy, service.act))
        monitoring.actions.labels(made["action"]).inc()
        return json_response(made)

    @routes.post("/models/plan", response_model=answers.PlanAnswer, **told_of(schemas.ActRequest))
    async def plan(request: Request) -> Response:
        """What it means to do over the coming day, and at which expected prices; its first step is the action now."""
        return json_response(await answered(request, schemas.ActRequest, partial(of_policy, service.plan)))


def _trainings(routes: _Routes, trainings: Trainings, limits: ServiceSettings) -> None:
    told = told_of(schemas.TrainRequest, 403, 429)
    told["responses"][200] = {"model": answers.TrainingOut, "description": "This training was there already."}

    @routes.post("/models/train", status_code=202, response_model=answers.TrainingOut, **told)
    async def train(
        request: Request,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")] = None,
    ) -> Response:
        """Start a training in another process, as a Dagster run; asking twice with one key starts it once."""
        raw = await read_body(request)

        def answer() -> Response:
            asked = parse(schemas.TrainRequest, raw).model_dump()
            state, started = trainings.start(TrainingRequest(**asked, idempotency_key=idempotency_key))
            place = {"Location": f"{V1}/models/train/{state['training_id']}"}
            return json_response(state, 202 if started else 200, place)

        return await in_thread(answer, limits.timeout_seconds)

    @routes.get("/models/train", response_model=schemas.TrainingsOut, responses=refusals(401))
    def list_trainings() -> Response:
        """The newest fifty trainings."""
        return json_response({"trainings": trainings.newest()})

    @routes.get("/models/train/{training_id}", response_model=answers.TrainingOut, responses=refusals(401, 404, 422))
    def get_training(training_id: _TrainingId) -> Response:
        """State, progress and metrics of one training, or in words why it failed."""
        return json_response(trainings.get(training_id))

    @routes.post(
        "/models/train/{training_id}/cancel",
        response_model=answers.TrainingOut,
        responses=refusals(401, 403, 404, 422),
    )
    def cancel_training(training_id: _TrainingId) -> Response:
        """End a running training; one that has ended stays as it is."""
        return json_response(trainings.cancel(training_id))


def _market(routes: _Routes, service: MLService) -> None:
    @routes.get("/prices", response_model=schemas.RecentPricesOut, responses=refusals(401, 404, 422))
    def prices(minutes: Annotated[int, Query(ge=1, le=MOST_MINUTES)] = 360) -> Response:
        """The newest prices of the data folder, all regions."""
        recent, age = service.recent_prices(minutes)
        tables = {
            str(name): recent.frame.pivot_table(index=TIMESTAMP, columns=REGION, values=name, dropna=False)
            for name in recent.frame.columns.difference([TIMESTAMP, REGION, IS_FILLED])
        }
        columns = {
            name: {
                str(region): [None if pd.isna(value) else value for value in table[region].tolist()]
                for region in table.columns
            }
            for name, table in tables.items()
        }
        return json_response(
            {
                "timestamps": list(tables[PRICE].index),
                "regions": columns.pop(PRICE),
                "columns": columns,
                "interval_minutes": recent.interval_minutes,
                "unit": service.settings.display.price,
                "zone": service.settings.display.zone,
                **age,
            }
        )

    @routes.get("/batteries", response_model=schemas.BatteriesOut, responses=refusals(401, 422))
    def batteries() -> Response:
        """Each battery of the settings and of the telemetry, with its newest charge where telemetry tells."""
        return json_response({"batteries": service.batteries(), "reference": service.reference()})

    @routes.get("/results", response_model=answers.ResultsOut, responses=refusals(401))
    def results() -> Response:
        """Days that have a report, and what the policy took in on the last seven of them."""
        return json_response(service.results())


def _health(routes: _Routes, service: MLService, trainings: Trainings, hub: Hub, monitoring: Monitoring) -> None:
    @routes.get("/health/live", response_model=schemas.LiveOut, responses=refusals(421))
    async def live() -> Response:
        """Whether the process answers."""
        return json_response({"status": "ok"})

    unready = {503: {"model": schemas.LiveOut, "description": "No model can answer."}}

    @routes.get("/health/ready", response_model=schemas.LiveOut, responses=unready)
    async def ready() -> Response:
        """Whether at least one model can answer."""
        good = service.health()["ready"]
        return json_response({"status": "ok" if good else "unavailable"}, 200 if good else 503)

    @routes.get("/health", response_model=answers.HealthOut, responses=refusals(401))
    async def health() -> Response:
        """Versions in memory, and in words what is wrong."""
        return json_response(service.health())

    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @routes.get("/metrics", response_class=Response, responses={**text, **refusals(401)})
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
            await asyncio.wait_for(socket.send_text(json.dumps(event, default=to_jsonable)), _SEND_SECONDS)


async def _hear(socket: WebSocket) -> None:
    """Clients have nothing to say; hearing them is how their leaving is noticed."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.receive_text()


def _page(app: FastAPI, service: MLService) -> None:
    @app.get("/reports/{day}", include_in_schema=False)
    def report(day: Annotated[dt.date, InPath()]) -> Response:
        return Response(service.report(str(day)), media_type="text/html", headers=_REPORT_HEADERS)

    swagger = Path(fastapi_offline.__file__).parent / "static"
    for path, file in (
        ("/", _STATIC / "index.html"),
        ("/static/page.css", _STATIC / "page.css"),
        ("/static/page.js", _STATIC / "page.js"),
        ("/docs", _STATIC / "docs.html"),
        ("/static/docs.js", _STATIC / "docs.js"),
        ("/static/swagger-ui-bundle.js", swagger / "swagger-ui-bundle.js"),
        ("/static/swagger-ui.css", swagger / "swagger-ui.css"),
    ):
        app.add_api_route(path, _sender(file), include_in_schema=False)


def _sender(file: Path) -> Callable[[], Awaitable[Response]]:
    content, kind = file.read_bytes(), _MEDIA_TYPES[file.suffix]

    async def send() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return send


def _start(service: MLService) -> None:
    """In the background: the service is live at once, and ready when nothing is left to load or to compile."""
    service.start()
    # What is there now stays; looking through it for garbage again and again would hold requests up.
    gc.collect()
    gc.freeze()


_ABOUT = f"""
Times are UTC, prices currency/MWh, energy MWh, power MW at the grid (positive buys). Errors are problem details
(RFC 9457). `{V1}/ws` is a WebSocket: events `model_training_progress` `{{model_id, progress 0..1, epoch?, metrics}}`,
`model_training_completed`, `model_training_failed` and `training`; whoever connects late is told the present state.
Browsers pass the token as subprotocols `["energy-ml", "bearer.<base64url of the token>"]`.
"""
