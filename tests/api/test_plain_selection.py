"""Plain selections of a stream: the short way answers what the executor does, and takes nothing else for one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from served import Served
from stage import Stage
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from websockets.asyncio.client import connect

from circuit.api.graphql.plain import PlainSelections, attributes_of
from circuit.api.graphql.schema import create_schema
from circuit.api.graphql.streams import AgentStreamEvent
from circuit.events import StreamDelta, StreamType

SECONDS = 120.0


async def subscribed(
    server: Served, query: str, variables: dict[str, Any], operation: str | None = None
) -> list[dict[str, Any]]:
    """What a subscription brings until it is complete."""
    found: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(SECONDS),
        connect(f"{server.websocket_url}/graphql", subprotocols=["graphql-transport-ws"]) as client,  # type: ignore[list-item]
    ):
        await client.send('{"type": "connection_init"}')
        assert json.loads(await client.recv())["type"] == "connection_ack"
        payload = {"query": query, "variables": variables, "operationName": operation}
        await client.send(json.dumps({"id": 'a"b', "type": "subscribe", "payload": payload}))
        while (message := json.loads(await client.recv()))["type"] != "complete":
            assert (message["type"], message["id"]) == ("next", 'a"b'), message
            found.append(message["payload"]["data"])
    return found


PLAIN = """
subscription Asked($id: String!, $after: String) {
  stream: agentExecutionStream(executionId: $id, after: $after) {
    __typename executionId eventType text: content status toolName arguments callId result error failure usage output
    finalResponse reason attempt sequence timestamp cursor
  }
}
"""
WRITTEN_OTHERWISE = """
    subscription Asked($id: String!, $yes: Boolean!, $no: Boolean = false, $types: [String!]) {
      ...Root
    }
    fragment Root on Subscription {
      agentExecutionStream(executionId: $id, types: $types) {
        content @include(if: $no)
        ... @include(if: $yes) { eventType ...Rest }
        ... on AgentStreamEvent @skip(if: $yes) { usage }
        eventType
      }
    }
    fragment Rest on AgentStreamEvent { kind: eventType sequence @skip(if: false) status @skip(if: true) }
"""
TYPED = """
subscription Asked($id: String!, $types: [String!]) {
  agentExecutionStream(executionId: $id, types: $types) { sequence eventType }
}
"""


def by_the_executor(query: str) -> str:
    """Of two operations, which is not plain."""
    return f"{query} query Other {{ __typename }}"


async def test_a_plain_selection_gives_what_the_executor_gives(
    server: Served, writing: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed = 0
    run = BaseGraphQLTransportWSHandler.run_operation

    async def counted(self: Any, operation: Any) -> None:
        nonlocal executed
        executed += 1
        await run(self, operation)

    monkeypatch.setattr(BaseGraphQLTransportWSHandler, "run_operation", counted)
    told = await writing.execution()
    outlet = told.open()
    for delta in (
        StreamDelta.content('a "quoted"\n\u2028 text'),
        StreamDelta.thinking("looking", "hm"),
        StreamDelta(StreamType.TOOL_CALL, {"toolName": "find", "arguments": {"a": [1]}, "callId": "c"}),
    ):
        await outlet.emit(delta)
    await told.complete(await outlet.close())
    name = str(told.name)
    short = await subscribed(server, PLAIN, {"id": name})
    assert executed == 0
    assert short == await subscribed(server, by_the_executor(PLAIN), {"id": name}, "Asked")
    assert executed == 1
    assert [event["stream"]["eventType"] for event in short] == ["content_chunk", "thinking", "tool_call", "completed"]
    assert short[0]["stream"]["__typename"] == "AgentStreamEvent"

    executed = 0
    variables = {"id": name, "yes": True, "types": ["thinking", "completed"]}
    short = await subscribed(server, WRITTEN_OTHERWISE, variables)
    assert executed == 0
    assert short == await subscribed(server, by_the_executor(WRITTEN_OTHERWISE), variables, "Asked")
    assert [list(event["agentExecutionStream"]) for event in short] == [["eventType", "kind", "sequence"]] * 2

    for types in (["tool_call"], [], None):
        executed = 0
        short = await subscribed(server, TYPED, {"id": name, "types": types})
        assert executed == 0
        assert short == await subscribed(server, by_the_executor(TYPED), {"id": name, "types": types}, "Asked")
        assert len(short) == (4 if types is None else len(types))


@pytest.mark.parametrize(
    "query",
    [
        "subscription { agentExecutionStream(executionId: 1) { cursor } }",
        'subscription { agentExecutionStream(executionId: "x") { cursor { x } } }',
        'subscription { agentExecutionStream(executionId: "x") { nothing } }',
        "subscription { agentExecutionStream { cursor } }",
        'subscription { a: agentExecutionStream(executionId: "x") { cursor } b: agentExecutionStream { cursor } }',
        "subscription ($x: Int) { agentExecutionStream(executionId: $x) { cursor } }",
        'subscription { agentExecutionStream(executionId: "x") { ...F } }',
        'subscription { agentExecutionStream(executionId: "x") { cursor ... on Workflow { id } } }',
        'subscription { agentExecutionStream(executionId: "x") { cursor @skip(if: true) } }',
        'subscription { agentExecutionStream(executionId: "x") { cursor @include } }',
        'subscription { agentExecutionStream(executionId: "x") @skip(if: false) { cursor } }',
        'subscription { agentExecutionStream(executionId: "x", types: ["none"]) { cursor } }',
        """fragment F on AgentStreamEvent { cursor ...F }
        subscription { agentExecutionStream(executionId: "x") { ...F } }""",
        """fragment F on AgentStreamEvent { cursor }
        subscription { agentExecutionStream(executionId: "x") { ...F ... { ...F } } }""",
        f'subscription {{ agentExecutionStream(executionId: "x") {{ {"cursor " * 50} }} }}',
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
