"""The server's routes, as one ASGI application.

Streams come before the framework: what goes through Starlette passes a function for each of its layers, at every event
and for every reader, and that costs a third of what the socket itself does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import circuit
from circuit.api.authentication import Authenticated
from circuit.api.explorer.page import PATH as EXPLORER_PATH
from circuit.api.explorer.page import ExplorerPage
from circuit.api.exposure import Exposure
from circuit.api.graphql.endpoint import GraphQLEndpoint
from circuit.api.health import HealthEndpoint
from circuit.api.limits import BodyLimit, HostCheck, RateLimited
from circuit.api.line import RAW_SEND
from circuit.api.metrics import MetricsEndpoint
from circuit.api.multiplex.socket import MultiplexEndpoint
from circuit.api.openai.answers import error_body
from circuit.api.openai.endpoint import ChatEndpoint
from circuit.api.openapi import describe
from circuit.api.origins import OriginCheck, Origins
from circuit.api.problems import JSONAnswer, Problems
from circuit.api.readers import RESTARTING, Readers
from circuit.api.services import Services as Services
from circuit.api.sse import EventEndpoint
from circuit.api.traced import Traced
from circuit.api.websocket import StreamSocket
from circuit.engine.rates import RequestRate
from circuit.errors import CircuitError, Restarting

LARGEST_BODY = 8 * 1024 * 1024
"""Bytes of a request's body, and of a WebSocket message."""

STREAM_PATH = "/agent-stream/"
MULTIPLEX_PATH = "/stream"
RETRY_SECONDS = 5.0
"""After so long, whoever was told to ask again finds another server, or this one again."""


class Application:
    """The streams, and behind them everything else."""

    def __init__(
        self, framework: Starlette, streams: Mapping[str, ASGIApp], many: ASGIApp, readers: Readers, problems: Problems
    ) -> None:
        self._framework = framework
        self._readers = readers
        self._problems = problems
        self._streams = streams
        self._many = many
        self.state = framework.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind in self._streams:
            if kind == "websocket":
                scope[RAW_SEND] = send
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path == MULTIPLEX_PATH and kind == "websocket":
                await self._many(scope, receive, send)
                return
            execution = path.removeprefix(STREAM_PATH)
            if execution and execution != path and "/" not in execution:
                scope["path_params"] = {"execution_id": execution}
                await self._streams[kind](scope, receive, send)
                return
        if kind == "http":
            await self._answered(scope, receive, send)
        else:
            await self._framework(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is still at work when the server has waited long enough is told so, where it has not begun to answer."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._framework(scope, receive, noted)
        except asyncio.CancelledError:
            if not self._readers.draining:
                raise
            if not begun:
                await self._problems.of(Restarting(RESTARTING, retry_after=RETRY_SECONDS))(scope, receive, send)


def create_application(
    services: Services,
    *,
    development: bool | None = None,
    allowed_origins: Sequence[str] = (),
    rates: Mapping[str, RequestRate] | None = None,
) -> Application:
    """The application, for `circuit.api.server.serve`. With `development` it shows GraphQL's schema and a page to
    explore it; None: where only this machine can reach it.

    Pages from `allowed_origins` (`https://host`, or `*`) may use it, beside those of the server's own host. `rates` are
    how often a principal may ask, by the first part of the path (`graphql`, `v1`, `agent-stream`, `stream`), or `*`.
    """
    exposure = Exposure(development=development)
    readers = Readers(services.streams)
    problems = Problems(services.clock, services.refusals, {"/v1/": error_body})
    origins = Origins(allowed_origins)
    explorer = ExplorerPage(exposure)
    graphql = GraphQLEndpoint(services, readers, problems, explorer)

    async def index(request: Request) -> Response:
        return JSONAnswer(
            {
                "name": "circuit",
                "version": circuit.__version__,
                "routes": {
                    "health": "/health",
                    "ready": "/ready",
                    "metrics": "/metrics",
                    "openapi": "/openapi.json",
                    "graphql": "/graphql",
                    **({"chat": "/v1/chat/completions", "models": "/v1/models"} if chat else {}),
                    "stream": f"{STREAM_PATH}{{execution_id}} (server-sent events and WebSocket)",
                    "streams": f"{MULTIPLEX_PATH} (many over one WebSocket)",
                },
            }
        )

    async def described(request: Request) -> Response:
        return JSONAnswer(describe(circuit.__version__, chat=bool(chat)))

    chat: list[Route] = []
    if services.consultations is not None:
        endpoint = ChatEndpoint(services, problems, readers)
        chat = [
            Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
            Route("/v1/completions", endpoint.completions, methods=["POST"]),
            Route("/v1/models", endpoint.models),
            Route("/v1/models/{model:path}", endpoint.model),
        ]
    framework = Starlette(
        routes=[
            *chat,
            Route("/", index),
            Route("/health", HealthEndpoint(services, circuit.__version__).__call__),
            Route("/ready", HealthEndpoint(services, circuit.__version__).__call__),
            Route("/metrics", MetricsEndpoint(services.figures, readers).__call__),
            Route("/openapi.json", described),
            Route("/graphql", graphql),
            WebSocketRoute("/graphql", graphql),
            Route(EXPLORER_PATH, explorer.page),
            Route(f"{EXPLORER_PATH}/{{name}}", explorer.file),
        ],
        exception_handlers={
            CircuitError: problems.on_circuit_error,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_fault,
        },
        middleware=[
            Middleware(HostCheck, exposure, problems),
            Middleware(OriginCheck, origins, problems),
            Middleware(Authenticated, services.gate, problems),
            Middleware(RateLimited, rates or {}, problems),
            Middleware(BodyLimit, LARGEST_BODY, problems),
            *([] if services.tracer is None else [Middleware(Traced, services.tracer)]),
        ],
    )
    framework.state.readers = readers
    framework.state.exposure = exposure
    streams: dict[str, ASGIApp] = {
        "http": EventEndpoint(readers, problems),
        "websocket": StreamSocket(readers, problems),
    }

    def guarded(endpoint: ASGIApp) -> ASGIApp:
        limited = RateLimited(endpoint, rates or {}, problems)
        admitted = Authenticated(limited, services.gate, problems)
        return HostCheck(OriginCheck(admitted, origins, problems, dress=False), exposure, problems)

    many = MultiplexEndpoint(services, readers, problems)
    guards = {kind: guarded(endpoint) for kind, endpoint in streams.items()}
    return Application(framework, guards, guarded(many), readers, problems)
