"""Bodies of requests, with limits and examples, and the envelopes around answers (``answers``), as OpenAPI shows them.

What belongs here: shapes and their limits. What doesn't: what they mean to a model (``ml_service``).

Bodies are parsed strictly, straight from JSON: ``"15"`` is no number and NaN is none either.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from typing_extensions import TypedDict

from energy_ml.config import SUPPORTED_INTERVALS
from energy_ml.errors import ServiceError, TimestampError
from energy_ml.features.panel import NS_PER_MINUTE, Panel
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.names import IS_FILLED, PRICE, REGION, TIMESTAMP
from energy_ml.service.answers import (
    BatteryOut,
    DataAge,
    ForecastOut,
    LateRegions,
    LeftOut,
    ModelInfo,
    Source,
    TrainingOut,
)

_ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,63}$", examples=["price_prediction_15m"])]
_Region = Annotated[
    str,
    Field(
        pattern=r"^[^\s,\u0000-\u001f](?:[^,\u0000-\u001f\u007f]{0,62}[^\s,\u0000-\u001f])?$",
        examples=["FR", "North Sea"],
    ),
]
_Horizon = Annotated[int, Field(ge=1, le=10_080, examples=[15], description="minutes ahead")]
_Value = Annotated[float, Field(allow_inf_nan=False)]
_Energy = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
_AHEAD = dt.timedelta(minutes=2)
"""Clocks differ: a price that lies further in the future than this is refused."""
_EPOCH, _MICROSECOND = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(microseconds=1)
_FIRST, _LAST = dt.datetime(1990, 1, 1, tzinfo=dt.UTC), dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


_GIVEN: dict[str, JsonValue] = {"not": {"type": "null"}}


class _Body(BaseModel):
    """Base of request bodies: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Prices(_Body):
    """Recent prices: a list of times, and a list of prices per region. Send all regions of training if you can."""

    timestamps: Annotated[
        list[AwareDatetime],
        Field(min_length=1, max_length=100_000, description="start of each interval, with time zone"),
    ]
    regions: Annotated[
        dict[_Region, list[_Value | None]],
        Field(min_length=1, max_length=500, description="currency/MWh, as many as timestamps; null where unknown"),
    ]
    columns: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=200)], dict[_Region, list[_Value | None]]],
        Field(max_length=50, description="by name and region: the extra_columns that the models were trained with"),
    ] = {}

    def to_recent(self, max_prices: int, max_abs_price: float) -> Panel | pd.DataFrame:
        """A panel if they are a whole, ascending grid (the fast way), else a frame cleaned by the rules for files.

        Raises ServiceError 413, TimestampError, ServiceError 422 (lengths differ) and the errors of ``clean_prices``.
        """
        count, names = len(self.timestamps), sorted(self.regions)
        carried = count * len(names) * (1 + len(self.columns))
        if carried > max_prices:
            raise ServiceError(
                f"{carried:,} prices in one request",
                status=413,
                expected=f"at most {max_prices:,}",
                remedy="send only the history that the models need",
            )
        lists = {f"regions.{name}": values for name, values in self.regions.items()}
        for column, held in self.columns.items():
            lists |= {f"columns.{column}.{name}": values for name, values in held.items()}
            if column in (TIMESTAMP, REGION, PRICE, IS_FILLED) or not held.keys() <= self.regions.keys():
                raise ServiceError(
                    f"prices.columns.{column} can't be used",
                    status=422,
                    expected="another column than the prices, of regions that have prices",
                )
        for where, values in lists.items():
            if len(values) != count:
                raise ServiceError(
                    f"prices.{where} holds {len(values)} numbers for {count} timestamps",
                    status=422,
                    expected="one, or null, per timestamp",
                )
        micros = np.array([(stamp - _EPOCH) // _MICROSECOND for stamp in self.timestamps], dtype=np.int64)
        first, last = (_EPOCH + int(edge) * _MICROSECOND for edge in (micros.min(), micros.max()))
        for stamp in (first, last):
            if not _FIRST <= stamp < _LAST:
                raise TimestampError(
                    f"timestamp {stamp} is impossible", column="timestamps", expected="between 1990 and now"
                )
        if last > dt.datetime.now(dt.UTC) + _AHEAD:
            raise TimestampError(
                "recent prices lie in the future",
                column="timestamps",
                example=last,
                expected="nothing after now",
                remedy="check the clock and the time zone of the prices",
            )
        times = micros * 1000
        unknown = [None] * count
        tables = {
            column: np.array([held.get(name, unknown) for name in names], dtype=np.float64).T
            for column, held in {PRICE: self.regions, **self.columns}.items()
        }
        steps = np.diff(times)
        minutes, rest = divmod(int(steps[0]), NS_PER_MINUTE) if count > 1 else (0, 0)
        whole = minutes > 0 and rest == 0 and bool((steps == steps[0]).all()) and bool(np.isfinite(tables[PRICE]).all())
        if whole and minutes in SUPPORTED_INTERVALS and times[0] % int(steps[0]) == 0:
            blocks = {column: np.ascontiguousarray(table) for column, table in tables.items()}
            return Panel(times, tuple(names), minutes, blocks)
        frame = pd.DataFrame(
            {
                TIMESTAMP: pd.DatetimeIndex(np.repeat(times, len(names)).view("M8[ns]"), tz="UTC"),
                REGION: np.tile(np.array(names, dtype=object), count),
                **{column: table.reshape(-1) for column, table in tables.items()},
            }
        )
        if count == 1:
            return frame.dropna(subset=PRICE)
        return clean_prices(frame, max_cells=max_prices, max_abs_price=max_abs_price).frame

    def to_frame(self, max_prices: int, max_abs_price: float) -> pd.DataFrame:
        """The same as a long frame, always."""
        recent = self.to_recent(max_prices, max_abs_price)
        return recent.to_long() if isinstance(recent, Panel) else recent


class PredictRequest(_Body):
    """Ask for forecasts of one model, or of several horizons; from given prices, or from the data folder's newest."""

    model_config = ConfigDict(
        json_schema_extra={
            # What `_one_question` refuses; null counts as left out.
            "allOf": [
                {"not": {"required": [a, b], "properties": {a: _GIVEN, b: _GIVEN}}}
                for a, b in (("model_id", "horizons"), ("prices", "timestamp"))
            ],
            "examples": [
                {"horizons": [15, 60], "regions": ["FR"]},
                {"model_id": "price_prediction_15m", "regions": ["FR"], "level": 0.8},
            ],
        }
    )
    model_id: _ModelId | None = Field(None, description="one model; or name horizons; neither means all horizons")
    horizons: Annotated[list[_Horizon], Field(min_length=1, max_length=24)] | None = None
    regions: Annotated[list[_Region], Field(min_length=1, max_length=500)] | None = Field(
        None, description="all regions of the prices if left out"
    )
    prices: Prices | None = Field(None, description="recent prices; left out, those of the data folder are used")
    level: Annotated[float, Field(ge=0.5, le=0.99)] | None = Field(None, description="of the interval; 0.9 if left out")
    timestamp: AwareDatetime | None = Field(
        None, description="as of when, at the data folder's prices; now if left out"
    )

    @field_validator("timestamp")
    @classmethod
    def _possible(cls, stamp: dt.datetime | None) -> dt.datetime | None:
        if stamp is not None and not _FIRST <= stamp <= dt.datetime.now(dt.UTC) + _AHEAD:
            raise ValueError("not between 1990 and now")
        return stamp

    @model_validator(mode="after")
    def _one_question(self) -> PredictRequest:
        if self.model_id is not None and self.horizons is not None:
            raise ValueError("name model_id or horizons, not both")
        if self.prices is not None and self.timestamp is not None:
            raise ValueError("timestamp asks for the data folder's prices; leave it out when sending prices")
        return self


class ActRequest(_Body):
    """Ask for the battery's action in the newest interval."""

    model_config = ConfigDict(
        json_schema_extra={
            # What `_some_battery` refuses; null counts as left out.
            "anyOf": [{"required": [name], "properties": {name: _GIVEN}} for name in ("charge_level_mwh", "battery")],
            "allOf": [
                {"not": {"required": ["battery", size], "properties": {"battery": _GIVEN, size: _GIVEN}}}
                for size in ("capacity_mwh", "power_mw")
            ],
            "examples": [{"charge_level_mwh": 0.5, "region": "FR"}, {"charge_level_mwh": 0.5}],
        }
    )
    charge_level_mwh: _Energy | None = Field(
        None, description="energy in the cells; left out, what the battery's telemetry says", examples=[0.5]
    )
    battery: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="name of a battery of the settings or the telemetry (GET /api/v1/batteries)"
    )
    region: _Region | None = None
    prices: Prices | None = Field(None, description="recent prices; left out, those of the data folder are used")
    forecasts: (
        Annotated[dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}$")], _Value], Field(max_length=24)] | None
    ) = Field(None, description="minutes ahead -> price; left out, the price models make them")
    capacity_mwh: Annotated[float, Field(gt=1e-3, le=1e6)] | None = Field(None, description="if not that of training")
    power_mw: Annotated[float, Field(gt=1e-3, le=1e6)] | None = Field(None, description="limit at the grid")

    @model_validator(mode="after")
    def _some_battery(self) -> ActRequest:
        if self.charge_level_mwh is None and self.battery is None:
            raise ValueError("give charge_level_mwh, or the battery whose telemetry tells it")
        if self.battery is not None and (self.capacity_mwh is not None or self.power_mw is not None):
            raise ValueError("give battery, or capacity_mwh and power_mw")
        return self


class TrainRequest(_Body):
    """Ask for a training."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"type": "price_prediction"}, {"type": "all", "as_of": "2026-02-10"}]}
    )
    type: Literal["price_prediction", "rl_battery", "all"] = Field(
        description="price models; the battery policy with the forecasts it needs; or everything, with promotion"
    )
    as_of: dt.date | None = Field(
        None, description="UTC day up to which is learned; the newest complete one if left out"
    )
    horizons: Annotated[list[_Horizon], Field(min_length=1, max_length=24)] | None = None
    regions: Annotated[list[_Region], Field(min_length=1, max_length=500)] | None = None


# --- envelopes: documentation of what the handlers build, never run over it -----------------------------------------


class PredictOut(DataAge):
    """Forecasts, one per horizon and region."""

    forecasts: list[ForecastOut]
    as_of: dt.datetime
    late_regions: LateRegions
    source: Source
    method: str
    left_out: LeftOut


class ModelsOut(TypedDict):
    """All models."""

    models: list[ModelInfo]


class ImportanceRow(TypedDict):
    """One input column."""

    feature: str
    family: str
    importance: float


class ImportanceOut(TypedDict):
    """Shares of all input columns, largest first."""

    model_id: str
    version: str
    method: str
    features: list[ImportanceRow]


class TrainingsOut(TypedDict):
    """The newest trainings, newest first."""

    trainings: list[TrainingOut]


class RecentPricesOut(DataAge):
    """Recent prices of the data folder."""

    timestamps: list[dt.datetime]
    regions: dict[str, list[float | None]]
    columns: Annotated[
        dict[str, dict[str, list[float | None]]], Field(description="by name and region: the models' extra_columns")
    ]
    interval_minutes: int
    unit: Annotated[str, Field(description="of prices, for people", examples=["EUR/MWh"])]
    zone: Annotated[str, Field(description="IANA time zone to show times in; here they are UTC")]


class BatteriesOut(TypedDict):
    """All batteries of the settings and of the telemetry."""

    batteries: list[BatteryOut]
    reference: Annotated[BatteryOut | None, Field(description="of questions that name none; without a policy none")]


class LiveOut(TypedDict):
    """A probe's answer."""

    status: Literal["ok", "unavailable"]
