"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and distributions of one server: of requests by model and status, of what waits, and
    of batches.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of_model: dict[str, Any] = {"labelnames": ("model",), "registry": self.registry}
        self._requests = Counter(
            "vggc_requests",
            "Requests that were answered.",
            labelnames=("model", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "vggc_request_seconds", "From a request to its answer.", buckets=SECONDS, **of_model
        )
        self._batches = Histogram(
            "vggc_batch_images", "Images that ran together.", buckets=BATCHES, **of_model
        )
        self._batch_seconds = Histogram(
            "vggc_batch_seconds", "The net's time for a batch.", buckets=SECONDS, **of_model
        )
        self._waiting = Gauge("vggc_waiting_images", "Images that wait.", **of_model)

    def count_request(self, model: str, status: int, seconds: float) -> None:
        """A request for a model was answered with an HTTP status after so long."""
        self._requests.labels(model, status).inc()
        self._seconds.labels(model).observe(seconds)

    def count_batch(self, model: str, images: int, seconds: float) -> None:
        """So many images of a model ran together for so long."""
        self._batches.labels(model).observe(images)
        self._batch_seconds.labels(model).observe(seconds)

    def watch_waiting(self, model: str, waiting: Callable[[], float]) -> None:
        """Asks how many images wait for a model whenever somebody reads the metrics."""
        self._waiting.labels(model).set_function(waiting)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)
