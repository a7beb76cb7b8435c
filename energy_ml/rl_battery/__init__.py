"""Battery control: physics, exact optimum, tabular Q-learning, policies and baselines.

Only names live here; each is loaded when first used, so that importing the package compiles and loads nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Battery": "battery",
    "BatteryAgent": "agent",
    "BatteryEnv": "environment",
    "BatteryPolicy": "policy",
    "BatteryRLTrainer": "trainer",
    "Context": "strategy",
    "Strategy": "strategy",
    "ablation": "parts",
    "build_context": "strategy",
    "perfect_foresight": "optimum",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
