"""What an operator may set about the service, from ``ENERGY_ML_API_*``.

What belongs here: limits, tokens, ages. What doesn't: where data and models are (``energy_ml.config.Settings``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from energy_ml.errors import ConfigError

MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and rights of the service. Tokens never appear in its ``repr``."""

    token: str | None = field(default=None, repr=False)
    """``ENERGY_ML_API_TOKEN``: reads, forecasts, actions."""
    train_token: str | None = field(default=None, repr=False)
    """``ENERGY_ML_API_TRAIN_TOKEN``: the same, and starting and cancelling trainings."""
    max_body_bytes: int = 4_000_000
    """``ENERGY_ML_API_MAX_BODY_BYTES``."""
    max_prices: int = 100_000
    """``ENERGY_ML_API_MAX_PRICES``: prices in one request, all regions together."""
    stale_after_minutes: float = 30.0
    """``ENERGY_ML_API_STALE_AFTER_MINUTES``: older data is flagged ``stale`` in the answer."""
    max_age_minutes: float | None = None
    """``ENERGY_ML_API_MAX_AGE_MINUTES``: older data is refused; unset never refuses."""
    trainings_per_hour: int = 12
    """``ENERGY_ML_API_TRAININGS_PER_HOUR``."""
    timeout_seconds: float = 30.0
    """``ENERGY_ML_API_TIMEOUT_SECONDS``: for receiving a body and for answering."""
    max_sockets: int = 1000
    """``ENERGY_ML_API_MAX_SOCKETS``: WebSocket clients at once."""

    def __post_init__(self) -> None:
        for name, token in (("TOKEN", self.token), ("TRAIN_TOKEN", self.train_token)):
            if token is not None and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable()):
                raise ConfigError(
                    f"ENERGY_ML_API_{name} has {len(token)} characters",
                    expected=f"at least {MIN_TOKEN_LENGTH} printable ASCII characters",
                    remedy="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
                )
        for name in ("max_body_bytes", "max_prices", "trainings_per_hour", "timeout_seconds", "max_sockets"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}", expected="above 0", remedy=f"set {name}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> ServiceSettings:
        """Read the settings; ``environ`` defaults to the process's environment. Raises ConfigError on nonsense."""
        env = os.environ if environ is None else environ

        def number(name: str, default: float | None) -> float | None:
            text = env.get(f"ENERGY_ML_API_{name}", "").strip()
            try:
                return float(text) if text else default
            except ValueError:
                raise ConfigError(
                    f"ENERGY_ML_API_{name} is {text!r}", expected="a number", remedy="correct or unset it"
                ) from None

        def whole(name: str, default: int) -> int:
            return int(number(name, default) or 0)

        return cls(
            token=env.get("ENERGY_ML_API_TOKEN", "").strip() or None,
            train_token=env.get("ENERGY_ML_API_TRAIN_TOKEN", "").strip() or None,
            max_body_bytes=whole("MAX_BODY_BYTES", cls.max_body_bytes),
            max_prices=whole("MAX_PRICES", cls.max_prices),
            stale_after_minutes=number("STALE_AFTER_MINUTES", cls.stale_after_minutes) or 0.0,
            max_age_minutes=number("MAX_AGE_MINUTES", cls.max_age_minutes),
            trainings_per_hour=whole("TRAININGS_PER_HOUR", cls.trainings_per_hour),
            timeout_seconds=number("TIMEOUT_SECONDS", cls.timeout_seconds) or 0.0,
            max_sockets=whole("MAX_SOCKETS", cls.max_sockets),
        )
