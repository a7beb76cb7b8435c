"""Shapes of what the service answers, as Python gets them and as OpenAPI shows them.

What belongs here: names, types and units of answers. What doesn't: how they are made, and bodies of requests
(``schemas``). Times are UTC, prices currency/MWh, energy MWh.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # typing's own is no field of pydantic's before Python 3.12

Source = Literal["request", "lake"]
LateRegions = Annotated[
    dict[str, dt.datetime | None], Field(description="left out, having no price as new as the others -> their last")
]
_Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


LeftOut = Annotated[dict[str, str], Field(description="models that can't serve from these prices, and why")]


class DataAge(TypedDict):
    """How old the newest price was when it was used."""

    data_age_minutes: float
    stale: Annotated[bool, Field(description="older than the operator allows without a flag")]


class ForecastOut(TypedDict):
    """One forecast with its interval."""

    model_id: str
    version: str
    region: str
    horizon: Annotated[int, Field(description="minutes ahead")]
    price: Annotated[float, Field(description="currency/MWh")]
    lower: float
    upper: float
    expected: Annotated[float, Field(description="mean of what may come; price is its middle")]
    spike_probability: Annotated[float | None, Field(description="of a price above spike_price")]
    spike_price: Annotated[float | None, Field(description="a high quantile of the region's training prices")]
    level: Annotated[float, Field(description="nominal coverage of the interval")]
    price_now: float
    timestamp: Annotated[dt.datetime, Field(description="start of the interval whose price is the newest known")]
    target_time: dt.datetime
    known_region: Annotated[bool, Field(description="whether the model saw this region in training")]
    recent_missing: Annotated[int, Field(description="recent prices looked at that weren't measured")]
    penalty: str | None


class ForecastAnswer(ForecastOut, DataAge):
    """A forecast as ``MLService`` gives it: with what it was made from, and how."""

    late_regions: LateRegions
    source: Source
    method: str
    left_out: LeftOut


class PolicyFacts(DataAge):
    """Whom a question to the policy is about, and what it is answered from."""

    battery: str | None
    region: str
    timestamp: dt.datetime
    acts_at: Annotated[dt.datetime, Field(description="start of the interval that the action is for")]
    recent_missing: Annotated[int, Field(description="of the last two days' prices, those not measured or given")]
    forecast_source: Annotated[str, Field(description="request, models, or none with the reason")]
    model_id: str
    version: str
    source: Source


_Action = Literal["charge", "hold", "discharge"]
_Bounds = Annotated[list[float], Field(description="lowest and highest charge allowed")]


class ActionAnswer(PolicyFacts):
    """The battery's action and why."""

    action: _Action
    q_values: dict[str, float]
    power_mw: Annotated[float, Field(description="at the grid, positive buys")]
    energy_mwh: float
    charge_level_mwh: float
    charge_after_mwh: float
    bounds_mwh: _Bounds
    why: str
    price: float
    forecasts: dict[int, float]


class PlannedAction(TypedDict):
    """A stretch of a plan."""

    timestamp: dt.datetime
    minutes: Annotated[int, Field(description="how long it lasts")]
    price: Annotated[float, Field(description="expected there; of the first, the newest known one")]
    action: _Action
    power_mw: Annotated[float, Field(description="mean at the grid, positive buys")]
    energy_mwh: float
    charge_after_mwh: float
    cash: float


class PlanAnswer(PolicyFacts):
    """What the battery means to do over the coming day if prices come as its policy expects them."""

    steps: list[PlannedAction]
    cash: Annotated[float, Field(description="of all steps, if prices come as expected")]
    charge_level_mwh: float
    capacity_mwh: float
    bounds_mwh: _Bounds


class BatteryOut(TypedDict):
    """A battery of the settings or of the telemetry; without telemetry no time and no charge."""

    battery_id: str
    region: str | None
    timestamp: dt.datetime | None
    charge_level_mwh: float | None
    capacity_mwh: float
    rated_power_mw: Annotated[float, Field(description="charging, at the grid")]
    discharge_power_mw: float
    execution_delay: Annotated[int, Field(description="intervals")]


class DayCash(TypedDict):
    """What the policy took in on one UTC day of a backtest."""

    day: str
    region: str
    battery_id: str
    cash: Annotated[float, Field(description="currency, after fees and wear")]


class ResultsOut(TypedDict):
    """What the nights left behind: days with a report, and what their backtests took in."""

    reports: Annotated[list[str], Field(description="days, oldest first; each is served at /reports/{day}")]
    dagster_url: Annotated[str, Field(description="where Dagster's UI is; a run is at /runs/{run_id}")]
    earned: Annotated[list[DayCash], Field(description="the policy's cash of the last seven days, by battery")]


@dataclasses.dataclass(frozen=True)
class ModelInfo(Mapping[str, object]):
    """One model of the registry; ``info.champion`` and ``info["champion"]`` are the same.

    >>> info = ModelInfo("battery_policy", "rl_battery", "v1", "2026-02-10", "v2", 2, "v1", None)
    >>> info.champion == info["champion"] == "v1", len(dict(info))
    (True, 8)
    """

    model_id: str
    type: str
    champion: str | None
    as_of: str | None
    latest: str | None
    versions: int
    serving: str | None
    """The version in memory."""
    problem: str | None

    def __getitem__(self, name: str) -> object:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


@dataclasses.dataclass(frozen=True)
class ModelDetail(ModelInfo):
    """One model with its versions, oldest first."""

    history: list[dict[str, object]]


class MetricsOut(TypedDict):
    """Metrics of a champion."""

    model_id: str
    version: str
    as_of: str | None
    metrics: dict[str, object]


class ModelProgress(TypedDict):
    """One model of a training."""

    state: str
    progress: float
    epoch: float | None
    metrics: dict[str, object]


class TrainingFacts(TypedDict):
    """What a training is for and how it stands."""

    training_id: str
    run_id: Annotated[str, Field(description="the Dagster run, as the UI shows it")]
    task: str
    job: str
    type: str
    as_of: str
    horizons: list[int]
    regions: list[str] | None
    state: Literal["running", "completed", "failed", "cancelled"]
    error: str | None
    finished_at: _Moment | None


class TrainingOut(TrainingFacts):
    """A training."""

    progress: float
    models: dict[str, ModelProgress]
    created_at: _Moment


class HealthOut(TypedDict):
    """What serves and what is wrong."""

    ready: bool
    models: dict[str, str]
    problems: dict[str, str]
