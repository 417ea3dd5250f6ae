"""What is refused is in the audit log, and who guesses at credentials waits."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import jwt
from websockets.asyncio.client import connect
from whole import whole

from circuit.engine import refusals
from circuit.engine.ledger import Sought
from circuit.engine.refusals import Refusals
from circuit.errors import Forbidden, Unauthenticated
from circuit.security import guesses
from circuit.security.principal import LOCAL, Principal

SECRET = "a secret of thirty-two bytes, yes"
TOKEN = "the token of the built-in service"


async def fetch(url: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def test_what_is_refused_is_written_down_without_the_credential(database_url: str, monkeypatch: Any) -> None:
    # Who has guessed too often does so to the end of the test.
    monkeypatch.setattr(guesses, "FIRST_WAIT_SECONDS", 60.0)
    variables = {"CIRCUIT_JWT_SECRET": SECRET, "AGENT_ACCESS_TOKEN": TOKEN, "CIRCUIT_RATE_LIMITS": "v1=1"}
    async with whole(database_url, **variables) as (circuit, url), httpx.AsyncClient(timeout=120) as client:
        keys, now = circuit.engine.keys, circuit.clock.now()

        async def ask(credential: str | None, query: str) -> Any:
            headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
            return await client.post(f"{url}/graphql", json={"query": query}, headers=headers)

        def signed(secret: str = SECRET, **claims: Any) -> str:
            until = int((now + timedelta(hours=1)).timestamp())
            return jwt.encode({"sub": "eve", "aud": "circuit", "exp": until, **claims}, secret, "HS256")

        made = await keys.create("board", ["viewer"], LOCAL)
        wrong = made.text[:-6] + "aaaaaa"
        forged = jwt.encode({"sub": "eve", "aud": "circuit", "exp": 2**33}, None, "none")
        shown = [
            wrong,
            forged,
            signed("another secret of thirty-two bytes"),
            signed(aud="other"),
            signed(exp=1),
            TOKEN + "x",
        ]
        for credential in (*shown, None):
            assert (await ask(credential, "{ __typename }")).status_code == 401
        async with connect(f"ws{url.removeprefix('http')}/stream") as socket:
            await socket.send(json.dumps({"type": "init", "authorization": f"Bearer {wrong}"}))
            assert json.loads(await socket.recv())["error"]["code"] == "unauthenticated"
        # Who is known and may not: in the log of his tenant, under the field of the mutation.
        refused = await ask(made.text, 'mutation { retireWorkflow(id: "x") { id } }')
        assert refused.json()["errors"][0]["extensions"]["code"] == "forbidden"
        bearer = {"authorization": f"Bearer {made.text}"}
        codes = [(await client.get(f"{url}/v1/models", headers=bearer)).status_code for _ in range(3)]
        assert codes == [200, 429, 429]

        ledger = circuit.engine.ledger
        own = [one async for one in ledger.all(LOCAL, Sought(action="request"))]
        assert [(one.subject, one.target, one.details) for one in own] == [
            ("key:board", "retireWorkflow", {"code": "forbidden"}),
            ("key:board", "/v1/models", {"code": "too_many_requests"}),
        ]
        assert {one.origin for one in own} == {"127.0.0.1"}
        nobody = [one async for one in ledger.all(LOCAL, Sought(action="login"), deployment=True)]
        # The key by its id, which is no secret; what else was shown is of one kind, and counted.
        assert [(one.subject, one.target, one.details) for one in nobody] == [
            ("unknown", "/graphql", {"code": "unauthenticated", "key": made.row.id}),
            ("unknown", "/graphql", {"code": "unauthenticated"}),
            ("unknown", "/stream", {"code": "unauthenticated", "key": made.row.id}),
        ]

        # More guesses than are free: now even a right credential waits, unless it held before.
        for _ in range(guesses.FREE_GUESSES):
            answer = await ask("nonsense", "{ __typename }")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await ask(signed(roles=["viewer"]), "{ __typename }")).status_code == 429
        assert (await ask(made.text, "{ __typename }")).status_code == 200

    # What was counted is written at the end; nowhere is anything of a credential.
    rows = await fetch(database_url, "SELECT tenant_id, action, origin, target, details::text FROM circuit.audit_log")
    counted = [json.loads(row["details"]).get("times") for row in rows if row["tenant_id"] == 0]
    assert sorted(one for one in counted if one) == [6, 9]
    text = str([tuple(row) for row in rows])
    for credential in (*shown, made.text):
        assert credential not in text
        assert credential[-20:] not in text


async def test_a_flood_of_refusals_leaves_few_entries(database_url: str, monkeypatch: Any) -> None:
    from circuit.storage.database import Database

    monkeypatch.setattr(refusals, "MOST_KINDS", 5)
    now = 0.0
    database = await Database.open(database_url)
    try:
        log = Refusals(database, lambda: now)
        who = Principal("eve", 1, frozenset({"viewer"}))
        await asyncio.gather(*(log.note(Forbidden("no"), who, f"field{n % 20}", "192.0.2.1") for n in range(200)))
        await log.note(Unauthenticated("no"), None, "/graphql", "192.0.2.1")
        before = await fetch(database_url, "SELECT target FROM circuit.audit_log")
        assert len(before) == 7
        now = refusals.WINDOW_SECONDS + 1
        await log.note(Forbidden("no"), who, "field0", "192.0.2.1")
        rows = await fetch(database_url, "SELECT (details->>'times')::int4 AS times FROM circuit.audit_log")
        assert sum(row["times"] or 1 for row in rows) == 202, "every one is counted, once"
        # What no column takes leaves an entry all the same.
        now *= 2
        await log.note(Forbidden("no"), who, "/v1/\x00\ud800\nroot did it", "192.0.2.1")
        rows = await fetch(database_url, "SELECT target FROM circuit.audit_log ORDER BY entry_id DESC LIMIT 1")
        assert [row["target"] for row in rows] == ["/v1/???root did it"]
        await log.stop()
        await log.stop()
    finally:
        await database.close()
