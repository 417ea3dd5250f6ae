"""What agents say, live and again, and the tokens that open their streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any

import orjson
import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import checked
from circuit.api.graphql.context import Resolving
from circuit.errors import Conflict, NotFound
from circuit.events import Frame, StreamType
from circuit.ids import parse_numbered
from circuit.security.credentials import stream_token
from circuit.security.permissions import Permission


@strawberry.type(description="One event of an execution's stream; which fields are set follows from `eventType`.")
class AgentStreamEvent:
    execution_id: str
    event_type: str
    content: str | None
    status: str | None
    tool_name: str | None
    arguments: JSON | None
    call_id: str | None
    result: JSON | None
    error: str | None = strawberry.field(description="What failed, in words; `failure` has its code too.")
    failure: JSON | None = strawberry.field(description="`{code, message, retryable}`.")
    usage: JSON | None
    output: JSON | None
    final_response: str | None
    reason: str | None
    found: list[JSON] | None = strawberry.field(
        description="What screening found, of a `thinking` event that tells it."
    )
    attempt: int = strawberry.field(description="Counts the starts of the execution.")
    sequence: int = strawberry.field(description="Counts the events of a start, without a gap.")
    timestamp: str
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this event.")


@strawberry.type(description="Opens the stream of one execution until it expires.")
class StreamToken:
    token: str
    expires_at: datetime


@strawberry.type
class StreamMutations:
    @strawberry.mutation(
        description="A token that opens the stream of one execution for ten minutes, for an `EventSource` or a"
        " WebSocket of a browser: `/agent-stream/EXECUTION?token=TOKEN`."
    )
    async def create_stream_token(self, info: Resolving, execution_id: str) -> StreamToken:
        principal = info.context.principal
        principal.require(Permission.READ)
        secret = info.context.services.gate.access.stream_secret
        if secret is None:
            raise Conflict("stream tokens are not configured: set STREAM_AUTH_SECRET")
        if parse_numbered(execution_id) is None:
            raise NotFound("there is no such execution; an id looks like CASE.NUMBER")
        token, until = stream_token(secret, principal, execution_id, info.context.services.clock.now())
        return StreamToken(token=token, expires_at=until)


@strawberry.type
class StreamSubscriptions:
    @strawberry.subscription(
        description="The stream of an execution: from its start, or behind the cursor `after`; then live, to its end."
        " `types` chooses by `eventType`."
    )
    async def agent_execution_stream(
        self, info: Resolving, execution_id: str, after: str | None = None, types: list[str] | None = None
    ) -> AsyncGenerator[AgentStreamEvent, None]:
        checked(types, [kind.value for kind in StreamType], "types")
        readers = info.context.readers
        reader = await readers.open(execution_id, after, info.context.principal)
        try:
            while not reader.over:
                for frame in await reader.read():
                    if types is None or frame.type.value in types:
                        yield frame.wire(stream_event)
        finally:
            readers.close(reader)


def stream_event(frame: Frame) -> AgentStreamEvent:
    """The frame's own values; `frame.wire` keeps the object for every subscriber of the execution."""
    return AgentStreamEvent(**values(frame))


def values(frame: Frame) -> dict[str, Any]:
    """What the fields of the event of `frame` are."""
    said: dict[str, Any] = orjson.loads(frame.body)
    failure = said.get("error")
    return {
        "execution_id": said["executionId"],
        "event_type": said["eventType"],
        "content": said.get("content"),
        "status": said.get("status"),
        "tool_name": said.get("toolName"),
        "arguments": said.get("arguments"),
        "call_id": said.get("callId"),
        "result": said.get("result"),
        "error": str(failure["message"]) if isinstance(failure, Mapping) else failure,
        "failure": failure,
        "usage": said.get("usage"),
        "output": said.get("output"),
        "final_response": said.get("final_response"),
        "reason": said.get("reason"),
        "found": said.get("found"),
        "attempt": said["attempt"],
        "sequence": said["sequence"],
        "timestamp": said["timestamp"],
        "cursor": said["cursor"],
    }
