"""Queries and mutations over HTTP: what they say, and what becomes of bad ones."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Served, Serving
from stage import Stage
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from circuit.api.graphql.schema import create_schema
from circuit.errors import Conflict

SECONDS = 120.0
SDL = Path(__file__).resolve().parents[2] / "docs" / "reference" / "schema.graphql"

LOAD = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id name description hash publishedAt document } }"
START = """
  mutation ($workflowId: String!, $token: TokenInput, $key: String) {
    startCase(workflowId: $workflowId, token: $token, idempotencyKey: $key) { caseId status workflow }
  }
"""


class Asker:
    """Posts operations; `ok` insists on no error, `refused` on exactly one."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.client = httpx.AsyncClient(timeout=SECONDS)

    async def post(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await self.client.post(
            f"{self.server.url}/graphql", json={"query": query, "variables": variables or {}}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ok(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = await self.post(query, variables)
        assert "errors" not in answer, answer
        return answer["data"]

    async def refused(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = await self.post(query, variables)
        [error] = answer["errors"]
        assert isinstance(error["extensions"]["code"], str)
        assert "Traceback" not in json.dumps(answer)
        return error


@pytest.fixture
async def ask(server: Served) -> AsyncIterator[Asker]:
    asker = Asker(server)
    yield asker
    await asker.client.aclose()


def test_the_schema_is_what_the_reference_shows() -> None:
    assert SDL.read_text(encoding="utf-8") == create_schema().as_str() + "\n", (
        "the schema has changed: write `create_schema().as_str()` to docs/reference/schema.graphql"
    )


async def test_a_workflow_is_loaded_and_seen(ask: Asker) -> None:
    loaded = (await ask.ok(LOAD, yaml="hello"))["loadWorkflow"]
    assert loaded == {
        "id": "hello",
        "name": "Hello",
        "description": "about it",
        "hash": "hash-hello",
        "publishedAt": "2026-11-21T12:00:00.250Z",
        "document": {"id": "hello", "places": {}},
    }
    await ask.ok(LOAD, yaml="another")
    seen = await ask.ok('{ workflow(id: "hello") { id hash } workflows { id } none: workflow(id: "none") { id } }')
    assert seen == {
        "workflow": {"id": "hello", "hash": "hash-hello"},
        "workflows": [{"id": "another"}, {"id": "hello"}],
        "none": None,
    }


async def test_the_faults_of_a_workflow_come_with_their_places(ask: Asker) -> None:
    error = await ask.refused(
        'mutation ($yaml: String!) { loadWorkflow(yaml: $yaml, source: "mine.yaml") { id } }', yaml="a:\n  b: c"
    )
    assert error["extensions"]["code"] == "invalid_definition"
    assert error["extensions"]["retryable"] is False
    assert error["path"] == ["loadWorkflow"]
    assert error["extensions"]["faults"] == [
        {
            "file": "mine.yaml",
            "line": 2,
            "column": 5,
            "path": "places.a",
            "message": "this is not known",
            "hint": "remove it",
        },
        {
            "file": "mine.yaml",
            "line": 3,
            "column": 1,
            "path": "transitions",
            "message": "nothing happens here",
            "hint": "",
        },
    ]


async def test_a_case_is_started_once_and_seen_whole(ask: Asker) -> None:
    await ask.ok(LOAD, yaml="hello")
    token = {"data": {"name": "Ada", "big": 2**70, "text": "☃ \u0000"}, "metadata": {"by": "me"}}
    started = (await ask.ok(START, workflowId="hello", token=token, key="once"))["startCase"]
    again = (await ask.ok(START, workflowId="hello", token=token, key="once"))["startCase"]
    assert started == again
    case = started["caseId"]
    seen = (
        await ask.ok(
            """
            query ($id: String!) {
              case(id: $id) {
                caseId status workflow workflowHash startedAt finishedAt marking
                tokens { id version place data metadata enteredAt executionId }
                history { seq kind at transition executionId status reason principal error event }
                later: history(after: 1, first: 1) { seq }
                executions { executionId transition status agentId model startedAt finishedAt usage error }
                incidents { incident }
              }
            }
            """,
            id=case,
        )
    )["case"]
    assert (seen["caseId"], seen["status"], seen["workflow"]) == (case, "completed", "hello")
    assert (seen["startedAt"], seen["finishedAt"]) == ("2026-11-21T12:00:00.250Z", "2026-11-21T12:00:02.250Z")
    assert seen["marking"] == {"end": 1}
    [laid] = seen["tokens"]
    assert (laid["id"], laid["place"], laid["metadata"]) == (f"{case}.1", "end", {"by": "me"})
    assert laid["data"]["text"] == "☃ \u0000"
    assert [(event["seq"], event["kind"]) for event in seen["history"]] == [
        (1, "case_started"),
        (2, "firing_begun"),
        (3, "case_ended"),
    ]
    assert seen["history"][1]["executionId"] == f"{case}.1"
    assert seen["history"][1]["event"]["reserved"] == [{"id": f"{case}.1", "version": 1, "place": "begin"}]
    assert seen["history"][2]["status"] == "completed"
    assert seen["later"] == [{"seq": 2}]
    assert seen["executions"][0]["usage"] == {"output_tokens": 3}
    assert seen["incidents"] == []


async def test_cases_are_listed_by_pages_at_one_query_each(ask: Asker) -> None:
    await ask.ok(LOAD, yaml="hello")
    await ask.ok(LOAD, yaml="other")
    for workflow in ("hello", "hello", "hello", "other"):
        await ask.ok(START, workflowId=workflow)
    office = ask.server.office
    page = (
        'query ($after: String) { cases(workflowId: "hello", first: 2, after: $after) { caseId workflow startedAt } }'
    )
    before = office.queries
    first = (await ask.ok(page))["cases"]
    assert office.queries == before + 1
    rest = (await ask.ok(page, after=first[-1]["caseId"]))["cases"]
    cases = [case["caseId"] for case in first + rest]
    assert len(cases) == 3
    assert cases == sorted(cases, reverse=True)
    assert (await ask.ok('{ cases(status: "running") { caseId } }'))["cases"] == []
    assert len((await ask.ok('{ cases(status: "completed") { caseId } }'))["cases"]) == 4


async def test_what_is_not_there_is_null(ask: Asker) -> None:
    nothing = '{ a: case(id: "nothing") { caseId } b: case(id: "00000000-0000-7000-8000-000000000000") { caseId } }'
    assert await ask.ok(nothing) == {"a": None, "b": None}


BAD_OPERATIONS = [
    ("{ cases(first: 0) { caseId } }", "invalid_request"),
    ("{ cases(first: 1000000) { caseId } }", "invalid_request"),
    ('{ cases(after: "x") { caseId } }', "invalid_request"),
    ('{ cases(status: "odd") { caseId } }', "invalid_request"),
    ('mutation { startCase(workflowId: "none") { caseId } }', "not_found"),
    ('mutation { startCase(workflowId: "hello", token: {data: [1]}) { caseId } }', "invalid_request"),
    ('mutation { startCase(workflowId: "hello", token: {metadata: "x"}) { caseId } }', "invalid_request"),
    ('mutation { startCase(workflowId: "hello", token: {data: {refuse: true}}) { caseId } }', "token_refused"),
    ('mutation { loadWorkflow(yaml: "") { id } }', "invalid_definition"),
    ("{", "invalid_request"),
    ("", "invalid_request"),
    ("{ nothing }", "invalid_request"),
    ("{ case { caseId } }", "invalid_request"),
    ("query ($a: Int!) { cases(first: $a) { caseId } }", "invalid_request"),
    ("{ " + " ".join(f"a{n}: workflows {{ id }}" for n in range(10_000)) + " }", "invalid_request"),
    ("{ workflows " + "{ a " * 1_000 + "} " * 1_000 + "}", "invalid_request"),
    ("{ a(b: " + "[" * 3_000 + "]" * 3_000 + ") }", "invalid_request"),
    ("fragment A on Query { ...A } { ...A }", "invalid_request"),
]


async def test_a_bad_operation_gets_a_coded_error(ask: Asker) -> None:
    await ask.ok(LOAD, yaml="hello")
    for query, code in BAD_OPERATIONS:
        answer = await ask.client.post(f"{ask.server.url}/graphql", json={"query": query})
        content = answer.json()
        if answer.status_code == 400:
            assert content["error"]["code"] == code
        else:
            assert answer.status_code == 200
            assert {error["extensions"]["code"] for error in content["errors"]} == {code}, query[:100]
        assert len(answer.text) < 100_000


async def test_the_details_of_an_error_come_along(ask: Asker) -> None:
    await ask.ok(LOAD, yaml="hello")
    error = await ask.refused(START, workflowId="hello", token={"data": {"refuse": True}})
    assert error["message"] == "the place does not take this"
    assert error["extensions"] == {"code": "token_refused", "retryable": False, "faults": ["data: refuse"]}


async def test_a_fault_is_masked_and_logged(ask: Asker, caplog: pytest.LogCaptureFixture) -> None:
    await ask.ok(LOAD, yaml="hello")
    ask.server.office.fault = KeyError("postgresql://user:secret@host")
    with caplog.at_level(logging.ERROR):
        error = await ask.refused('{ case(id: "00000000-0000-7000-8000-000000000000") { caseId } }')
    assert error["extensions"] == {"code": "internal_error", "retryable": False}
    assert "secret" not in json.dumps(error)
    assert "GraphQL failed at case" in caplog.text
    caplog.clear()
    ask.server.office.fault = Conflict("it moved on")
    with caplog.at_level(logging.WARNING):
        error = await ask.refused('{ case(id: "00000000-0000-7000-8000-000000000000") { caseId } }')
    assert (error["message"], error["extensions"]["code"]) == ("it moved on", "conflict")
    assert caplog.text == ""


async def test_strange_text_and_strange_requests(ask: Asker) -> None:
    url = f"{ask.server.url}/graphql"
    for content in (
        b"",
        b"null",
        b"[]",
        b"7",
        b'{"query": 7}',
        b'{"query": "{ workflows { id } }", "variables": 7}',
        b'{"query": "{ workflows { id } }", "operationName": 7}',
        b'{"query": "{ workflows { id } }", "variables": {"a": "\\ud800"}}',
        b'{"query": "\\ud800"}',
        b'{"query": "{ \xff }"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"extensions": 7, "query": "{ workflows { id } }"}',
    ):
        answer = await ask.client.post(url, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400), content
        if answer.status_code == 400:
            assert answer.json()["error"]["code"] == "invalid_request"
    answer = await ask.client.post(
        url, content=b"{ workflows { id } }", headers={"content-type": "application/graphql"}
    )
    assert answer.status_code == 400 and "application/json" in answer.json()["error"]["message"]
    assert "errors" not in await ask.post("{ workflows { id } }")


async def test_a_get_changes_nothing(ask: Asker) -> None:
    url = f"{ask.server.url}/graphql"
    answer = await ask.client.get(url, params={"query": 'mutation { loadWorkflow(yaml: "x") { id } }'})
    assert answer.status_code == 400
    assert ask.server.office.asked == []
    answer = await ask.client.get(url, params={"query": "{ workflows { id } }"})
    assert answer.json() == {"data": {"workflows": []}}


async def test_the_schema_is_shown_in_development_only(reading: Stage, serving: Serving) -> None:
    question = "{ __schema { queryType { name } } }"
    async with serving(reading) as server:
        asker = Asker(server)
        assert await asker.ok(question) == {"__schema": {"queryType": {"name": "Query"}}}
        page = await asker.client.get(f"{server.url}/graphql", headers={"accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
    async with serving(reading, development=False) as server:
        asker = Asker(server)
        hidden = await asker.post(question)
        assert {error["extensions"]["code"] for error in hidden["errors"]} == {"invalid_request"}
        assert hidden["data"] is None
        page = await asker.client.get(f"{server.url}/graphql", headers={"accept": "text/html"})
        assert page.status_code == 400


async def test_a_subscription_over_plain_http_is_refused(ask: Asker, writing: Stage) -> None:
    told = await writing.execution()
    query = f'subscription {{ agentExecutionStream(executionId: "{told.name}") {{ cursor }} }}'
    for accept in ("*/*", "application/json", "text/event-stream", "multipart/mixed;subscriptionSpec=1.0"):
        async with asyncio.timeout(SECONDS):
            answer = await ask.client.post(
                f"{ask.server.url}/graphql", json={"query": query}, headers={"accept": accept}
            )
        assert answer.status_code == 400, accept
        assert answer.json()["error"]["code"] == "invalid_request"
    assert len(ask.server.readers) == 0


async def test_only_one_websocket_protocol_is_spoken(server: Served) -> None:
    url = f"{server.websocket_url}/graphql"
    async with asyncio.timeout(SECONDS):
        for protocols in (["graphql-ws"], None):
            async with connect(url, subprotocols=protocols) as client:  # type: ignore[arg-type]
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 4406


NO_MESSAGES = [
    "",
    "{",
    "7",
    "null",
    "[]",
    '"subscribe"',
    "{}",
    '{"type": 7}',
    '{"type": []}',
    '{"type": "start"}',
    '{"type": "subscribe"}',
    '{"type": "subscribe", "id": ["a"], "payload": {"query": "{ workflows { id } }"}}',
    '{"type": "subscribe", "id": "1", "payload": 7}',
    '{"type": "subscribe", "id": "1", "payload": {}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": 7}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ a }", "variables": []}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ a }", "operationName": {}}}',
    '{"type": "complete"}',
    '{"type": "complete", "id": {}}',
    "[" * 10_000,
    "\ud7ff\u0000",
]


async def test_what_is_no_message_of_the_protocol_closes_the_socket(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(SECONDS):
        for message in NO_MESSAGES:
            async with connect(f"{server.websocket_url}/graphql", subprotocols=["graphql-transport-ws"]) as client:  # type: ignore[list-item]
                await client.send('{"type": "connection_init"}')
                await client.recv()
                await client.send(message)
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4400, message
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_errors_of_subscriptions_are_coded(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    stream = """
      subscription ($id: String!, $after: String) { agentExecutionStream(executionId: $id, after: $after) { cursor } }
    """
    async with (
        asyncio.timeout(SECONDS),
        connect(f"{server.websocket_url}/graphql", subprotocols=["graphql-transport-ws"]) as client,  # type: ignore[list-item]
    ):
        await client.send('{"type": "connection_init"}')
        assert json.loads(await client.recv())["type"] == "connection_ack"
        for number, (query, variables, code) in enumerate(
            [
                (stream, {"id": "nothing"}, "not_found"),
                (stream, {"id": str(told.name), "after": "x"}, "invalid_cursor"),
                (stream, {}, "invalid_request"),
                ("subscription { nothing }", {}, "invalid_request"),
            ]
        ):
            payload = {"query": query, "variables": variables}
            await client.send(json.dumps({"id": str(number), "type": "subscribe", "payload": payload}))
            said = json.loads(await client.recv())
            errors = said["payload"] if said["type"] == "error" else said["payload"]["errors"]
            assert [error["extensions"]["code"] for error in errors] == [code]
            if said["type"] == "next":
                assert json.loads(await client.recv())["type"] == "complete"
    assert len(server.readers) == 0
