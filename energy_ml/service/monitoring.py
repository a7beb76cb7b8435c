"""Figures for Prometheus. What belongs here: counters and gauges. What doesn't: deciding anything by them."""

from __future__ import annotations

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Monitoring:
    """The figures of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "energy_ml_requests_total",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "energy_ml_request_seconds", "Time to answer.", ["route"], buckets=_BUCKETS, registry=self.registry
        )
        self.forecasts = Counter("energy_ml_forecasts_total", "Forecasts given.", ["horizon"], registry=self.registry)
        self.actions = Counter("energy_ml_actions_total", "Battery actions given.", ["action"], registry=self.registry)
        self.sockets = Gauge("energy_ml_sockets", "WebSocket clients.", registry=self.registry)
        self.data_age = Gauge("energy_ml_data_age_minutes", "Age of the newest price served.", registry=self.registry)
        self.problems = Gauge("energy_ml_problems", "Models that can't be loaded, registry.", registry=self.registry)
        self.model = Gauge(
            "energy_ml_model_info", "Versions in memory.", ["model_id", "version"], registry=self.registry
        )
        self.trainings = Gauge("energy_ml_trainings", "Latest trainings by state.", ["state"], registry=self.registry)

    def answered(self, method: str, route: str, status: int, began: float) -> None:
        """Count one request that began at ``time.perf_counter()`` value ``began``."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(time.perf_counter() - began)

    def render(self) -> bytes:
        """Text exposition format."""
        return generate_latest(self.registry)
