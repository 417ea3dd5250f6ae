"""Plain selections of a stream: the short way answers what the executor does, and takes nothing else for one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from served import Served
from stage import Stage
from websockets.asyncio.client import connect

from circuit.api.graphql.plain import PlainSelections, attributes_of
from circuit.api.graphql.schema import create_schema
from circuit.api.graphql.streams import AgentStreamEvent
from circuit.events import StreamDelta, StreamType

SECONDS = 30.0


async def subscribed(server: Served, query: str, variables: dict[str, Any]) -> list[dict[str, Any]]:
    """What a subscription brings until it is complete."""
    found: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(SECONDS),
        connect(f"{server.websocket_url}/graphql", subprotocols=["graphql-transport-ws"]) as client,  # type: ignore[list-item]
    ):
        await client.send('{"type": "connection_init"}')
        assert json.loads(await client.recv())["type"] == "connection_ack"
        payload = {"query": query, "variables": variables}
        await client.send(json.dumps({"id": 'a"b', "type": "subscribe", "payload": payload}))
        while (message := json.loads(await client.recv()))["type"] != "complete":
            assert (message["type"], message["id"]) == ("next", 'a"b'), message
            found.append(message["payload"]["data"])
    return found


PLAIN = """
subscription ($id: String!, $after: String) {
  stream: agentExecutionStream(executionId: $id, after: $after) {
    __typename executionId eventType text: content status toolName arguments callId result error failure usage output
    finalResponse reason attempt sequence timestamp cursor
  }
}
"""


async def test_a_plain_selection_gives_what_the_executor_gives(server: Served, writing: Stage) -> None:
    """A directive that changes nothing sends the same selection the long way."""
    told = await writing.execution()
    outlet = told.open()
    for delta in (
        StreamDelta.content('a "quoted"\n\u2028 text'),
        StreamDelta.thinking("looking", "hm"),
        StreamDelta(StreamType.TOOL_CALL, {"toolName": "find", "arguments": {"a": [1]}, "callId": "c"}),
    ):
        await outlet.emit(delta)
    await told.complete(await outlet.close())
    long = PLAIN.replace("eventType", "eventType @include(if: true)")
    answers = [await subscribed(server, query, {"id": str(told.name)}) for query in (PLAIN, long)]
    assert answers[0] == answers[1]
    assert [event["stream"]["eventType"] for event in answers[0]] == [
        "content_chunk",
        "thinking",
        "tool_call",
        "completed",
    ]
    assert answers[0][0]["stream"]["__typename"] == "AgentStreamEvent"


@pytest.mark.parametrize(
    "query",
    [
        "subscription { agentExecutionStream(executionId: 1) { cursor } }",
        'subscription { agentExecutionStream(executionId: "x") { cursor { x } } }',
        'subscription { agentExecutionStream(executionId: "x") { nothing } }',
        "subscription { agentExecutionStream { cursor } }",
        'subscription { a: agentExecutionStream(executionId: "x") { cursor } b: agentExecutionStream { cursor } }',
        "subscription ($x: Int) { agentExecutionStream(executionId: $x) { cursor } }",
        'fragment F on AgentStreamEvent { cursor } subscription { agentExecutionStream(executionId: "x") { ...F } }',
        "query { workflows { id } }",
        "subscription {",
        "{" * 2_000,
    ],
)
def test_what_is_not_plain_is_left_to_the_executor(query: str) -> None:
    schema: Any = create_schema()
    plain = PlainSelections(schema._schema, attributes_of(AgentStreamEvent))
    assert plain.asked(query, {}, None) is None


def test_variables_that_do_not_fit_are_left_to_the_executor() -> None:
    schema: Any = create_schema()
    plain = PlainSelections(schema._schema, attributes_of(AgentStreamEvent))
    assert plain.asked(PLAIN, {}, None) is None
    assert plain.asked(PLAIN, {"id": 1}, None) is None
    assert plain.asked(PLAIN, {"id": "x"}, "Other") is None
    first, second = plain.asked(PLAIN, {"id": "x"}, None), plain.asked(PLAIN, {"id": "y", "after": "1-2"}, None)
    assert first is not None and second is not None
    assert (first.execution_id, first.after, second.execution_id, second.after) == ("x", None, "y", "1-2")
    assert first.projection is second.projection
