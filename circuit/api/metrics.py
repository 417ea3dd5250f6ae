"""`/metrics`: figures for Prometheus, for whoever may read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from circuit.api.authentication import asking
from circuit.api.readers import Readers
from circuit.api.services import Figures
from circuit.observability.metrics import CONTENT_TYPE, Figure, exposition
from circuit.security.permissions import Permission


class MetricsEndpoint:
    """The figures of the engine, and those of the server itself."""

    def __init__(self, figures: Figures, readers: Readers) -> None:
        self._figures = figures
        self._readers = readers

    async def __call__(self, request: Request) -> Response:
        asking(request.scope).require(Permission.READ)
        readers = self._readers
        own = [
            Figure("circuit_stream_readers", "Streams that are read through this server.", len(readers)),
            Figure(
                "circuit_stream_lag_frames",
                "How many frames the reader that is behind the most has yet to take of those that are live here.",
                readers.lag,
            ),
        ]
        content = exposition([*await self._figures(), *own])
        return Response(content, headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})
