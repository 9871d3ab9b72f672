"""What a server counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The figures of one app; each has its own, so that several may run in a process.

    Args:
        depth: says how many requests wait.
    """

    def __init__(self, depth: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "searchlib_requests",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "searchlib_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._steps = Histogram(
            "searchlib_step_seconds",
            "What a query spends its time with.",
            ["step"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._ingested = Counter(
            "searchlib_ingested",
            "Files that were taken in or found changed while the server watches.",
            ["outcome"],
            registry=self._registry,
        )
        self._present = Gauge(
            "searchlib_images", "Images with a file in place.", registry=self._registry
        )
        queue = Gauge(
            "searchlib_queue_depth",
            "Requests that wait for work on the library.",
            registry=self._registry,
        )
        queue.set_function(depth)

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: its pattern; None where there is no such route, as callers make up paths.
            method: any word.
            status: of the answer; 499 where the caller did not wait for it.
            seconds: that it took.
        """
        name = "none" if route is None else route
        self._requests.labels(name, method if method in _METHODS else "other", status).inc()
        self._seconds.labels(name).observe(seconds)

    def observe(self, step: str, seconds: float) -> None:
        """Note what a step of a query took: "fetch", "decode", "encode" or "search"."""
        self._steps.labels(step).observe(seconds)

    def ingested(self, outcome: str) -> None:
        """Count a file that something became of."""
        self._ingested.labels(outcome).inc()

    def images(self, count: int) -> None:
        """Note how many images have a file in place."""
        self._present.set(count)

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)
