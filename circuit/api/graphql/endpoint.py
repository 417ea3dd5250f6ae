"""The ASGI application behind `/graphql`."""

from __future__ import annotations

import json
import logging
from typing import Any, cast

import orjson
from cross_web import HTTPException
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import Message, SubscribeMessage

from circuit.api.authentication import PRINCIPAL, bearer, introduced
from circuit.api.explorer.page import ExplorerPage
from circuit.api.graphql.coding import coded
from circuit.api.graphql.context import Context
from circuit.api.graphql.plain import Asked, PlainSelections, attributes_of
from circuit.api.graphql.schema import create_schema
from circuit.api.graphql.streams import AgentStreamEvent
from circuit.api.line import RAW_SEND, message, pass_on, socket_line
from circuit.api.problems import Problems
from circuit.api.readers import Readers
from circuit.api.services import Services
from circuit.errors import CircuitError, TooManyRequests, Unauthenticated
from circuit.events import Frame
from circuit.expressions.value import exact_json
from circuit.streams.reader import Reader
from circuit.tracing import current

logger = logging.getLogger(__name__)

LONGEST_NAME = 100
"""Characters of the name of an operation, which a client may choose, that are said of it in a trace."""
MOST_SUBSCRIPTIONS = 100
"""Operations that one WebSocket may have under way."""


RESPONSE_TYPE = "application/graphql-response+json"
"""GraphQL's own type of an answer, with a status that says whether anything was executed."""

Operating = Operation[Context, None]


class Conversation(BaseGraphQLTransportWSHandler[Context, None]):
    """One WebSocket. What is no message of the protocol closes it with 4400."""

    view: GraphQLEndpoint

    async def run_operation(self, operation: Operating) -> None:
        asked = self.view.plain.asked(operation.query, operation.variables, operation.operation_name)
        reader = None
        if asked is not None:
            try:
                reader = await self.context.readers.open(asked.execution_id, asked.after, self.context.principal)
            except CircuitError:
                logger.debug("the executor says why execution %s cannot be read", asked.execution_id)
        if asked is None or reader is None:
            await super().run_operation(operation)
            return
        try:
            await self._stream(operation, asked, reader)
        except CircuitError as error:
            coded_error = coded(GraphQLError(error.message, original_error=error))
            payload: Any = {"data": None, "errors": [coded_error.formatted]}
            await operation.send_operation_message({"id": operation.id, "type": "next", "payload": payload})
        except OSError:  # the client is gone
            return
        finally:
            self.context.readers.close(reader)
        await operation.send_operation_message({"id": operation.id, "type": "complete"})

    async def _stream(self, operation: Operating, asked: Asked, reader: Reader) -> None:
        websocket: Any = self.websocket
        send: Send = websocket.ws.scope[RAW_SEND]
        before = b'{"id":%b,"type":"next","payload":{"data":' % orjson.dumps(operation.id)

        def spelled(frame: Frame) -> bytes:
            return b"%b%b}}" % (before, frame.wire(asked.projection))

        async def send_one(frame: Frame) -> None:
            if asked.wants(frame):
                await send({"type": "websocket.send", "text": spelled(frame).decode()})

        line = socket_line(send, lambda frame: message(spelled(frame)) if asked.wants(frame) else b"")
        if line is not None:
            reader.send_through(line)
        while not reader.over:
            frames = await reader.read()
            if operation.completed:
                return
            await pass_on(frames, line, send_one)

    async def send_message(self, message: Message) -> None:
        """When the server stops nothing is complete: the client comes back, and goes on from the cursor that it has."""
        if not self.context.readers.draining:
            await super().send_message(message)

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):  # the client is gone
            logger.error("an operation over WebSocket failed", exc_info=error)

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Strawberry answers what is refused here; it is written down before."""
        if not self.connection_acknowledged:
            await self.context.refused(Unauthenticated("nobody has said who asks"), self.context.scope["path"])
        elif len(self.operations) >= MOST_SUBSCRIPTIONS and message["id"] not in self.operations:
            many = TooManyRequests(f"one connection has at most {MOST_SUBSCRIPTIONS} operations")
            await self.context.refused(many, self.context.scope["path"])
        await super().handle_subscribe(message)

    async def handle_message(self, message: Any) -> None:
        if _is_message(message):
            await super().handle_message(cast("Message", message))
        else:
            await self.handle_invalid_message("not a message of graphql-transport-ws")


_MENDS = {
    "Unsupported content type": "the body of a request is JSON: send it with `Content-Type: application/json`",
    "Unable to parse request body as JSON": "the body is no JSON in UTF-8: send an object with `query`",
    "No GraphQL query found in the request": "nothing is asked: the body is an object with `query`",
}
"""Strawberry's reasons, with what to do."""


class GraphQLEndpoint(GraphQL[Context, None]):
    """Strawberry's application with Circuit's JSON and errors."""

    graphql_transport_ws_handler_class = Conversation

    def __init__(
        self,
        services: Services,
        readers: Readers,
        problems: Problems,
        explorer: ExplorerPage,
    ) -> None:
        super().__init__(
            create_schema(),
            graphql_ide="graphiql",
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            max_subscriptions_per_connection=MOST_SUBSCRIPTIONS,
        )
        schema = cast("Any", self.schema)
        self.plain = PlainSelections(schema._schema, attributes_of(AgentStreamEvent))
        self._services = services
        self._readers = readers
        self._problems = problems
        self._explorer = explorer

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        scope = request.scope
        explorable = self._explorer.shown
        return Context(self._services, self._readers, self._problems, explorable, scope, scope.get(PRINCIPAL))

    async def on_ws_connect(self, context: Context) -> Any:
        """What `connection_init` brought may say who asks; a credential in the handshake goes before it."""
        if context.who is None:
            given = context.connection_params.get("authorization")
            try:
                credential = bearer(given) if isinstance(given, str) else None
                context.who = await introduced(self._services.gate, self._problems, context.scope, credential)
            except CircuitError as error:
                raise ConnectionRejectionError({"code": error.code}) from None
        return await super().on_ws_connect(context)

    async def render_graphql_ide(self, request: Request) -> Response:
        return await self._explorer.page(request)

    def should_render_graphql_ide(self, request: Any) -> bool:
        return self._explorer.shown and super().should_render_graphql_ide(request)

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
        said = cast("dict[str, Any]", content)
        span = current()
        if span is not None and said.get("operationName"):
            span.set({"graphql.operation.name": said["operationName"][:LONGEST_NAME]})
        return said

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        response = await super().get_sub_response(request)
        if RESPONSE_TYPE in request.headers.get("accept", ""):
            response.media_type = RESPONSE_TYPE
        return response

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        """The answer; to who accepts GraphQL's own type in that type, where what was not executed is no success."""
        if sub_response.media_type != RESPONSE_TYPE or not isinstance(response_data, dict):
            return super().create_response(response_data, sub_response)
        answer = cast("dict[str, Any]", response_data)
        refused = answer.get("data") is None and not any(error.get("path") for error in answer.get("errors") or [{}])
        if refused:
            answer = {name: value for name, value in answer.items() if name != "data"}
        response = super().create_response(cast("Any", answer), sub_response)
        response.headers["content-type"] = f"{RESPONSE_TYPE}; charset=utf-8"
        response.status_code = 400 if refused else 200
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        try:
            response = await self.run(Request(scope, receive))
        except HTTPException as error:
            response = self._problems.refused(error.status_code, _MENDS.get(error.reason, error.reason))
        await response(scope, receive, send)

    def _check_websocket_origin(self, request: Any) -> bool:
        """They are checked before anything comes here (`OriginCheck`)."""
        return True


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
