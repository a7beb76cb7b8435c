"""What ``MLService.predict`` may be told by name, and refusing everything else in words.

What belongs here: names and types of features, also those that the policy's own interface has. What doesn't: answering,
and bodies of requests (``schemas``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from energy_ml.errors import DataError, ServiceError
from energy_ml.names import POLICY_ID, PRICE, REGION, TIMESTAMP
from energy_ml.service.problems import in_words

_FORECAST = re.compile(r"price_forecast_([1-9]\d{0,4})m", re.ASCII)


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)

    region: str | None = None
    prices: pd.DataFrame | None = None

    @model_validator(mode="before")
    @classmethod
    def _columns(cls, given: object) -> object:
        """A mapping of columns is a frame of prices."""
        if isinstance(given, Mapping) and PRICE in given:
            return {"prices": pd.DataFrame(dict(given))}
        return given


class _PriceQuestion(_Question):
    """Features of a price model."""

    level: float | None = Field(None, ge=0.5, le=0.99)


class PolicyQuestion(_Question):
    """Features of the policy: those of ``MLService.act``, and the names of ``BatteryPolicy.get_action``."""

    charge_level_mwh: float | None = Field(None, validation_alias=AliasChoices("charge_level_mwh", "charge_level"))
    battery: str | None = None
    current_price: float | None = None
    hour: int | None = Field(None, ge=0, le=23)
    forecasts: dict[int, float] | None = None
    capacity_mwh: float | None = None
    power_mw: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _horizons(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        named = {int(found[1]): value for name, value in given.items() if (found := _FORECAST.fullmatch(str(name)))}
        rest = {name: value for name, value in given.items() if not _FORECAST.fullmatch(str(name))}
        return rest | {"forecasts": {**(rest.get("forecasts") or {}), **named}} if named else rest

    @model_validator(mode="after")
    def _one_present(self) -> PolicyQuestion:
        if self.prices is not None and self.current_price is not None:
            raise ValueError("give prices or current_price, not both")
        if self.hour is not None and self.current_price is None:
            raise ValueError("hour belongs to current_price; other prices have their own time")
        return self

    def market(self, region: str, at: pd.Timestamp) -> pd.DataFrame | None:
        """Prices to act on: those given, one row of the present price at ``at`` (or its ``hour``), or None."""
        if self.current_price is None:
            return self.prices
        at = at if self.hour is None else at.replace(hour=self.hour)
        return pd.DataFrame({TIMESTAMP: [at], REGION: [region], PRICE: [self.current_price]})


def question_of(model_id: str, features: Mapping[str, object] | pd.DataFrame | None) -> _PriceQuestion | PolicyQuestion:
    """The features of a call as a question. Raises ServiceError 422 naming the feature that can't be."""
    shape = PolicyQuestion if model_id == POLICY_ID else _PriceQuestion
    given = {"prices": features} if isinstance(features, pd.DataFrame) else {} if features is None else features
    try:
        return shape.model_validate(given)
    except (ValidationError, ValueError, TypeError) as error:
        what = in_words(error) if isinstance(error, ValidationError) else str(error)
        names = [n for n in shape.model_fields if n not in ("forecasts",)]
        extra = ["price_forecast_{minutes}m"] if shape is PolicyQuestion else []
        raise ServiceError(
            f"features of {model_id} can't be used: {what}", status=422, expected=", ".join([*names, *extra])
        ) from error


def check_prices(prices: pd.DataFrame) -> None:
    """Refuse a frame that holds no prices. Raises DataError naming the column."""
    for name in (TIMESTAMP, PRICE):
        if name not in prices.columns:
            raise DataError(f"the prices have no column {name!r}", column=name, expected=f"{TIMESTAMP}, {PRICE}")
