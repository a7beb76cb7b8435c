"""The Dagster entry point; everything is put together in ``energy_ml.orchestration.build``."""

from energy_ml.orchestration.build import build_definitions

defs = build_definitions()
