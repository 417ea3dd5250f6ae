"""The ASGI application behind `/graphql`."""

from __future__ import annotations

import json
from typing import Any, cast

import orjson
from cross_web import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.subscriptions.protocols.graphql_transport_ws.types import Message

from circuit.api.exposure import Exposure
from circuit.api.graphql.context import Context
from circuit.api.graphql.schema import create_schema
from circuit.api.problems import Problems
from circuit.api.readers import Readers, origin_allowed
from circuit.api.services import Services
from circuit.expressions.value import exact_json

MOST_SUBSCRIPTIONS = 100
"""Operations that one WebSocket may have under way."""


class Conversation(BaseGraphQLTransportWSHandler[Context, None]):
    """One WebSocket. What is no message of the protocol closes it with 4400."""

    async def handle_message(self, message: Any) -> None:
        if _is_message(message):
            await super().handle_message(cast("Message", message))
        else:
            await self.handle_invalid_message("not a message of graphql-transport-ws")


class GraphQLEndpoint(GraphQL[Context, None]):
    """Strawberry's application with Circuit's JSON, errors and origins."""

    graphql_transport_ws_handler_class = Conversation

    def __init__(
        self,
        services: Services,
        readers: Readers,
        problems: Problems,
        exposure: Exposure,
        allowed_origins: frozenset[str],
    ) -> None:
        super().__init__(
            create_schema(),
            graphql_ide="graphiql",
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            max_subscriptions_per_connection=MOST_SUBSCRIPTIONS,
        )
        self._services = services
        self._readers = readers
        self._problems = problems
        self._exposure = exposure
        self._allowed_origins = allowed_origins

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        return Context(self._services, self._readers, self._exposure.explorable)

    def should_render_graphql_ide(self, request: Any) -> bool:
        return self._exposure.explorable and super().should_render_graphql_ide(request)

    def encode_json(self, data: object) -> str:
        """JSON as text: bytes would go out as a binary WebSocket message."""
        try:
            return orjson.dumps(data).decode()
        except TypeError:  # an integer beyond 64 bits, which JSON may hold
            return json.dumps(data, separators=(",", ":"), allow_nan=False)

    def decode_json(self, data: str | bytes) -> object:
        return exact_json(data)

    def parse_json(self, data: str | bytes) -> Any:
        content = super().parse_json(data)
        if not isinstance(content, dict) or not _names_operation(cast("dict[str, Any]", content)):
            raise HTTPException(400, "The body must be an object with `query`, and `operationName` as text if at all.")
        return cast("dict[str, Any]", content)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        try:
            response = await self.run(Request(scope, receive))
        except HTTPException as error:
            response = self._problems.refused(error.status_code, error.reason)
        await response(scope, receive, send)

    def _check_websocket_origin(self, request: Any) -> bool:
        return origin_allowed(request.headers.get("origin"), request.headers.get("host"), self._allowed_origins)


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    message = cast("dict[str, Any]", value)
    if message.get("type") not in ("subscribe", "complete"):
        return True  # the protocol's own checks are enough
    if not isinstance(message.get("id"), str):
        return False
    if message["type"] == "complete":
        return True
    payload = message.get("payload")
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("query"), str)
        and isinstance(payload.get("variables"), dict | None)
        and _names_operation(cast("dict[str, Any]", payload))
    )


def _names_operation(request: dict[str, Any]) -> bool:
    return isinstance(request.get("operationName"), str | None)
