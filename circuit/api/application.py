"""The server's routes, as one ASGI application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

import circuit
from circuit.api.exposure import Exposure
from circuit.api.graphql.endpoint import GraphQLEndpoint
from circuit.api.health import HealthEndpoint
from circuit.api.limits import BodyLimit, HostCheck
from circuit.api.problems import JSONAnswer, Problems
from circuit.api.readers import Readers
from circuit.api.services import Services as Services
from circuit.api.sse import EventEndpoint
from circuit.api.websocket import StreamSocket
from circuit.errors import CircuitError

LARGEST_BODY = 8 * 1024 * 1024
"""Bytes of a request's body, and of a WebSocket message."""

STREAM_PATH = "/agent-stream/{execution_id}"


def create_application(
    services: Services, *, development: bool | None = None, allowed_origins: Sequence[str] = ()
) -> Starlette:
    """The application, for `circuit.api.server.serve`. With `development` it shows GraphQL's schema and a page to
    explore it; None: where only this machine can reach it.

    Pages from `allowed_origins` (`https://host`, or `*`) may open WebSockets, beside those of the server's own host.
    """
    exposure = Exposure(development=development)
    readers = Readers(services.streams, services.principal.tenant)
    problems = Problems(services.clock)
    origins = frozenset(allowed_origins)
    graphql = GraphQLEndpoint(services, readers, problems, exposure, origins)

    async def index(request: Request) -> Response:
        return JSONAnswer(
            {
                "name": "circuit",
                "version": circuit.__version__,
                "routes": {
                    "health": "/health",
                    "graphql": "/graphql",
                    "stream": f"{STREAM_PATH} (server-sent events and WebSocket)",
                },
            }
        )

    application = Starlette(
        routes=[
            Route("/", index),
            Route("/health", HealthEndpoint(services, circuit.__version__).__call__),
            Route(STREAM_PATH, EventEndpoint(readers).__call__),
            WebSocketRoute(STREAM_PATH, StreamSocket(readers, origins)),
            Route("/graphql", graphql),
            WebSocketRoute("/graphql", graphql),
        ],
        exception_handlers={
            CircuitError: problems.on_circuit_error,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_fault,
        },
        middleware=[
            Middleware(HostCheck, exposure, problems),
            Middleware(BodyLimit, LARGEST_BODY, problems),
        ],
    )
    application.state.readers = readers
    application.state.exposure = exposure
    return application
