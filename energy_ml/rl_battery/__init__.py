"""Battery control: physics, exact optimum, tabular Q-learning, policies and baselines.

Only names live here; each is loaded when first used, so that importing the package compiles and loads nothing.
"""

from __future__ import annotations

from energy_ml.lazy import from_homes

_HOMES = {
    "Battery": "battery",
    "BatteryAgent": "agent",
    "BatteryEnv": "environment",
    "BatteryPolicy": "policy",
    "BatteryRLTrainer": "trainer",
    "Context": "strategy",
    "Strategy": "strategy",
    "ablation": "baselines",
    "build_context": "strategy",
    "perfect_foresight": "optimum",
}

__all__ = sorted(_HOMES)


__getattr__ = from_homes(__name__, _HOMES)
