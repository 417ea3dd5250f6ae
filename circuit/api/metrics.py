"""`/metrics`: figures for Prometheus, for whoever may read in the first tenant: they are of the whole deployment."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from circuit.api.authentication import asking
from circuit.api.readers import Readers
from circuit.api.services import Figures
from circuit.errors import Forbidden
from circuit.ids import DEFAULT_TENANT
from circuit.observability.metrics import CONTENT_TYPE, Figure, exposition
from circuit.security.permissions import Permission


class MetricsEndpoint:
    """The figures of the engine, and those of the server itself."""

    def __init__(self, figures: Figures, readers: Readers) -> None:
        self._figures = figures
        self._readers = readers

    async def __call__(self, request: Request) -> Response:
        principal = asking(request.scope)
        principal.require(Permission.READ)
        if principal.tenant != DEFAULT_TENANT:
            raise Forbidden(f"figures are of all tenants together: they are for those of tenant {DEFAULT_TENANT}")
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
