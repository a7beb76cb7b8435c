"""Errors as RFC 9457 problem details: what was found, what was expected, what to do, and which field is meant.

What belongs here: which named error becomes which HTTP status, and the body. What doesn't: raising them.
"""

from __future__ import annotations

import http
import json
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ValidationError

from energy_ml.errors import EnergyMLError, ModelNotFoundError, NoDataError, RegistryError, ServiceError, StaleDataError

MEDIA_TYPE = "application/problem+json"
_FIELDS = {"HorizonError": "horizons", "UnknownRegionError": "regions", "BatteryError": "charge_level_mwh"}
_STATUS: tuple[tuple[type[EnergyMLError], int], ...] = (
    (ModelNotFoundError, 404),
    (NoDataError, 404),
    (StaleDataError, 409),
    (RegistryError, 503),
)


def _clean(text: str) -> str:
    """No control characters and no lone surrogates from a request in an answer."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)[:2000]


_Text = Annotated[str, AfterValidator(_clean)]


class FieldError(BaseModel):
    """Which member of the request is meant."""

    field: str
    message: str


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: _Text
    expected: _Text | None = None
    remedy: _Text | None = None
    errors: list[FieldError] | None = None

    def encode(self) -> bytes:
        """The document as bytes."""
        body = self.model_dump(exclude_none=True)
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def in_words(error: ValidationError) -> str:
    """Where pydantic found the first thing wrong, and what."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def problem_of(error: EnergyMLError) -> Problem:
    """The problem document of a named error."""
    name = type(error).__name__
    if isinstance(error, ServiceError):
        status, title = error.status, http.HTTPStatus(error.status).phrase
    else:  # the request led to those that no rule names
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 422)
        title = re.sub(r"(?<!^)(?=[A-Z])", " ", name.removesuffix("Error")).capitalize()
    column = getattr(error, "column", None)
    field = f"prices.{column}" if column else _FIELDS.get(name)
    detail = str(error.args[0]) if error.args else error.found
    for part in (error.expected, error.remedy):  # they have members of their own
        if part:
            detail = detail.replace(f" Expected: {part.rstrip('.')}.", "").replace(f" Remedy: {part.rstrip('.')}.", "")
    return Problem(
        status=status,
        title=title,
        detail=detail,
        errors=[FieldError(field=field, message=error.found)] if field else None,
        expected=error.expected or None,
        remedy=error.remedy or None,
    )
