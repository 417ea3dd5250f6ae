"""What is refused on a WebSocket is in the audit log as over HTTP: once for each kind, then counted."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import asyncpg
import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from whole import whole

from circuit.engine.ledger import Sought
from circuit.security.credentials import stream_token
from circuit.security.principal import LOCAL, Principal

SECRET = "a secret of thirty-two bytes, yes"
EXECUTION = "0199a000-0000-7000-8000-000000000001.1"
OTHER = "0199a000-0000-7000-8000-000000000002.1"
CASE = EXECUTION.partition(".")[0]
PROTOCOL: Any = ["graphql-transport-ws"]
FOLLOWED = 'subscription { workflowEvents(workflowId: "w") { cursor } }'
READ = f'subscription {{ agentExecutionStream(executionId: "{EXECUTION}") {{ content }} }}'
RETIRED = 'mutation { retireWorkflow(id: "x") { id } }'


async def said(url: str, *messages: Any, protocols: Any = None, **options: Any) -> list[Any]:
    """What a server answers to each message, to its end."""
    heard: list[Any] = []
    with suppress(ConnectionClosed):
        async with connect(url, subprotocols=protocols, **options) as socket:
            for message in messages or (None,):
                if message is not None:
                    await socket.send(json.dumps(message))
                heard.append(json.loads(await socket.recv()))
    return heard


async def test_what_is_refused_on_a_socket_is_written_down(database_url: str) -> None:
    variables = {
        "CIRCUIT_JWT_SECRET": SECRET,
        "STREAM_AUTH_SECRET": SECRET,
        "CIRCUIT_RATE_LIMITS": "agent-stream=1/3",
    }
    async with whole(database_url, **variables) as (circuit, url):
        server, now = f"ws{url.removeprefix('http')}", circuit.clock.now()

        def bearer(roles: list[str], **claims: Any) -> str:
            until = int((now + timedelta(hours=1)).timestamp())
            shown = {"sub": "eve", "aud": "circuit", "exp": until, "roles": roles, **claims}
            return f"Bearer {jwt.encode(shown, SECRET, 'HS256')}"

        nobody, viewer = bearer([]), bearer(["viewer"])

        def subscribe(number: int, query: str) -> Any:
            return {"id": str(number), "type": "subscribe", "payload": {"query": query}}

        # Before anybody says who he is: the origin, no credential, one of another audience, and one at a wrong place.
        for path in ("/stream", "/graphql", f"/agent-stream/{EXECUTION}"):
            with suppress(InvalidStatus):
                assert not await said(server + path, origin="https://evil.example", protocols=PROTOCOL)
        assert not await said(f"{server}/agent-stream/{EXECUTION}")
        assert not await said(
            f"{server}/agent-stream/{EXECUTION}", additional_headers={"authorization": bearer([], aud="x")}
        )
        assert (await said(f"{server}/stream", {"type": "ping"}))[0]["error"]["code"] == "unauthenticated"
        assert not await said(f"{server}/graphql", subscribe(1, READ), protocols=PROTOCOL)
        # Known, and without the role: the stream of an execution, over each of the protocols, and everything else.
        assert not await said(f"{server}/agent-stream/{EXECUTION}", additional_headers={"authorization": nobody})
        wanted = [
            {"type": "subscribe", "id": name, name: value}
            for name, value in (
                ("execution", EXECUTION),
                ("case", CASE),
                ("workflow", "w"),
            )
        ]
        heard = await said(f"{server}/stream", {"type": "init", "authorization": nobody}, *wanted)
        assert [one.get("error", {}).get("code") for one in heard] == [None, "forbidden", "forbidden", "forbidden"]
        init = {"type": "connection_init", "payload": {"authorization": nobody}}
        for query in (READ, FOLLOWED, RETIRED, RETIRED):
            heard = await said(f"{server}/graphql", init, subscribe(1, query), protocols=PROTOCOL)
            assert "forbidden" in json.dumps(heard[1]), heard
        # The token of one stream opens no other; who asks too often is refused. What is not there is no refusal.
        token, _ = stream_token(SECRET, Principal("ada", roles=frozenset({"viewer"})), EXECUTION, now)
        assert not await said(f"{server}/agent-stream/{OTHER}?token={token}")
        for _ in range(4):  # two more than are let through
            assert not await said(f"{server}/agent-stream/{EXECUTION}", additional_headers={"authorization": viewer})

        ledger = circuit.engine.ledger
        own = [one async for one in ledger.all(LOCAL, Sought(action="request"))]
        assert {(one.subject, one.target, one.details["code"]) for one in own} == {
            ("eve", f"/agent-stream/{EXECUTION}", "forbidden"),
            ("eve", f"/stream {EXECUTION}", "forbidden"),
            ("eve", f"/stream {CASE}", "forbidden"),
            ("eve", "/stream w", "forbidden"),
            ("eve", "agentExecutionStream", "forbidden"),
            ("eve", "workflowEvents", "forbidden"),
            ("eve", "retireWorkflow", "forbidden"),
            ("ada", f"/agent-stream/{OTHER}", "forbidden"),
            ("eve", f"/agent-stream/{EXECUTION}", "too_many_requests"),
        }
        strangers = [one async for one in ledger.all(LOCAL, Sought(), deployment=True)]
        assert {(one.action, one.target, one.details["code"]) for one in strangers} == {
            *(("request.refuse", path, "forbidden") for path in ("/stream", "/graphql", "/agent-stream")),
            *(("login.refuse", path, "unauthenticated") for path in ("/stream", "/graphql", "/agent-stream")),
        }
        assert {one.origin for one in (*own, *strangers)} == {"127.0.0.1"}
        assert len(own) + len(strangers) == 15, "the same again is counted"
    connection = await asyncpg.connect(database_url)
    again = await connection.fetch(
        "SELECT target, (details->>'times')::int4 AS times FROM circuit.audit_log WHERE details ? 'times'"
    )
    await connection.close()
    assert {row["target"]: row["times"] for row in again} == {
        "retireWorkflow": 1,
        "/agent-stream": 1,
        f"/agent-stream/{EXECUTION}": 1,
    }
