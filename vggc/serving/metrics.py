"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from vggc.serving.crew import ServerCrew

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and distributions of one process: of requests by model and status, of what waits,
    and of batches.
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
        self._waiting = Gauge(
            "vggc_waiting_images", "Images that wait.", multiprocess_mode="livesum", **of_model
        )

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

    def refresh(self) -> None:
        """Asks what is asked now and then, rather than when somebody reads the metrics."""

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)


class CrewMetrics(Metrics):
    """The metrics of all processes of a server, which any of them tells.

    Each process keeps its numbers in files of the crew's folder; who follows a process that ended
    goes on with its numbers, so that none falls. There may be one in a process, made before any
    other metrics.
    """

    def __init__(self, crew: ServerCrew, number: int) -> None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(crew.folder)
        values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
        self._crew = crew
        self._watched: dict[str, Callable[[], float]] = {}
        super().__init__()

    def watch_waiting(self, model: str, waiting: Callable[[], float]) -> None:
        """Asks how many images wait for a model at each `refresh`."""
        self._watched[model] = waiting
        self.refresh()

    def refresh(self) -> None:
        """Lets the other processes know how many images wait here."""
        for model, waiting in self._watched.items():
            self._waiting.labels(model).set(waiting())

    def text(self) -> bytes:
        """The sums over all processes, and what each of them takes."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._crew.folder))  # type: ignore[no-untyped-call]
        registry.register(CrewCollector(self._crew))
        return generate_latest(registry)


class CrewCollector(Collector):
    """What each process takes of the machine: `process` is its number, or `supervisor`."""

    def __init__(self, crew: ServerCrew) -> None:
        self._crew = crew

    def collect(self) -> Iterator[Metric]:
        """The metrics of one process, once with the samples of all."""
        found: dict[str, Metric] = {}
        for name, process in [("supervisor", os.getppid()), *self._crew.ready()]:
            for metric in ProcessCollector(pid=lambda: process, registry=None).collect():  # noqa: B023
                own = Metric(metric.name, metric.documentation, metric.type)
                for sample in metric.samples:
                    labels = {"process": str(name)}
                    found.setdefault(metric.name, own).add_sample(sample.name, labels, sample.value)
        yield from found.values()


def forget_waiting(crew: ServerCrew, number: int) -> None:
    """Nothing waits any more in a process that has ended."""
    mark_process_dead(number, str(crew.folder))  # type: ignore[no-untyped-call]
