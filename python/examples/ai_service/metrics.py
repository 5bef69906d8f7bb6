"""What the service counts: its own requests, and what its engine counted."""

from __future__ import annotations

import time
from collections.abc import Iterator

from antiphon import AsyncEngine
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Metrics:
    """A registry of one application; nothing is global."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ai_requests", "Requests by endpoint and by how they ended", ["endpoint", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "ai_request_duration_seconds",
            "From the request to the end of its answer",
            ["endpoint"],
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3, 10, 30),
            registry=self._registry,
        )
        self._engine = engine
        self._engine_families = EngineFamilies()
        self._registry.register(self._engine_families)

    def count(self, endpoint: str, status: str, seconds: float) -> None:
        """`status` is `success`, `cancelled`, or the kind of the error."""
        self._requests.labels(endpoint, status).inc()
        self._seconds.labels(endpoint).observe(seconds)

    async def text(self, accept: str) -> tuple[str, bytes]:
        """The content type that the reader prefers, and the figures in it."""
        self._engine_families.text = await self._engine.metrics()
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)


class EngineFamilies(Collector):
    """What the engine said last, `ai_model_accuracy` among it.

    Two families are left out, because the service has them under the same names: the engine counts calls, of which a
    request can need several or none.
    """

    text = "# EOF\n"

    def collect(self) -> Iterator[Metric]:
        for family in text_string_to_metric_families(self.text):  # type: ignore[no-untyped-call]
            if family.name not in ("ai_requests", "ai_request_duration_seconds"):
                yield family


class CountRequests:
    """Counts each HTTP request under the path of its route, so that a scanner of paths adds no series."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        started = time.perf_counter()
        # An exception that nothing answers is a bug; the server answers it further out.
        outcome = "internal"
        complete = False

        async def watched_send(message: Message) -> None:
            nonlocal complete
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, watched_send)
            outcome = scope.get("state", {}).get("outcome", "success") if complete else "cancelled"
        finally:
            route = scope.get("route")
            endpoint = getattr(route, "path", "unmatched")
            scope["app"].state.metrics.count(endpoint, outcome, time.perf_counter() - started)
