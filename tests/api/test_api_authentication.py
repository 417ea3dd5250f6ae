"""Who gets in, to what, and what the others are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from served import Served, served
from stage import Stage
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from circuit.api.authentication import Gate, Verifiers
from circuit.engine.keys import Keys
from circuit.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from circuit.events import StreamDelta
from circuit.security.access import Access
from circuit.security.credentials import stream_token
from circuit.security.principal import LOCAL, Principal
from circuit.storage import keys as stored_keys
from tests.eventually import eventually

SECONDS = 120.0
SECRET = "a secret of thirty-two bytes, yes"
TOKEN = "the token of the built-in service"
CASES = "{ cases { caseId } }"
LOAD = 'mutation { loadWorkflow(yaml: "flow") { id } }'
PRIVATE = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def keys(reading: Stage) -> Keys:
    return Keys(reading.database, reading.clock.now, reading.clock.monotonic)


@pytest.fixture
async def guarded(reading: Stage, keys: Keys) -> AsyncIterator[Served]:
    """A server that asks for credentials of every kind."""

    async def jwks(url: str) -> dict[str, Any]:
        assert url == "https://keys.example/jwks"
        public = json.loads(ECAlgorithm.to_jwk(PRIVATE.public_key()))
        return {"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}

    access = Access(TOKEN, SECRET, "https://keys.example/jwks", stream_secret=SECRET)
    gate = Gate(
        access, Verifiers(keys.principal, jwks, keys.require_tenant), reading.clock, required=True, otherwise=LOCAL
    )
    async with served(reading, gate=gate) as running:
        yield running


async def ask(server: Served, query: str, credential: str | None) -> tuple[int, Any]:
    headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        answer = await client.post(f"{server.url}/graphql", json={"query": query}, headers=headers)
    return answer.status_code, answer.json()


def token(stage: Stage, **changes: Any) -> str:
    claims = {"sub": "ada", "aud": "circuit", "exp": int((stage.clock.now() + timedelta(hours=1)).timestamp())}
    return jwt.encode({**claims, **changes}, SECRET, "HS256")


async def test_nobody_gets_in_without_a_credential_but_to_see_that_the_server_lives(guarded: Served) -> None:
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        assert (await client.get(f"{guarded.url}/health")).status_code == 200
        for path in ("/", "/graphql", "/agent-stream/0199a000-0000-7000-8000-000000000001.1", "/nothing"):
            answer = await client.get(f"{guarded.url}{path}", params={"query": CASES})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated"), path
            assert answer.headers["www-authenticate"] == "Bearer"
    for credential in ("x", "Bearer", "ck_1_aaaaaaaaaaaaaaaa_" + "x" * 43, "a.b.c", TOKEN + "x", "y" * 20_000):
        status, said = await ask(guarded, CASES, credential)
        assert (status, said["error"]["code"]) == (401, "unauthenticated"), credential
        assert len(credential) < 8 or credential not in json.dumps(said)


async def test_each_kind_of_credential_says_who_asks(guarded: Served, reading: Stage, keys: Keys) -> None:
    made = await keys.create("board", ["viewer"], LOCAL)
    published = jwt.encode(
        {"sub": "eve", "aud": "circuit", "exp": 2**33, "roles": ["viewer"]}, PRIVATE, "ES256", headers={"kid": "one"}
    )
    for credential in (TOKEN, made.text, token(reading, roles=["viewer"]), published):
        assert await ask(guarded, CASES, credential) == (200, {"data": {"cases": []}})
    unknown = jwt.encode({"sub": "eve", "aud": "circuit", "exp": 2**33}, PRIVATE, "ES256", headers={"kid": "two"})
    confused = jwt.encode({"sub": "eve", "aud": "circuit", "exp": 2**33}, "one" * 20, "HS256", headers={"kid": "one"})
    for credential in (unknown, confused, token(reading, aud="circuit-stream"), token(reading, exp=1)):
        assert (await ask(guarded, CASES, credential))[0] == 401


async def test_published_keys_are_fetched_seldom_and_those_that_are_known_hold_while_they_cannot_be() -> None:
    clock, asked, served = Ticking(), list[float](), list[Any]()

    async def jwks(_: str) -> dict[str, Any]:
        asked.append(clock.at)
        if isinstance(served[-1], Exception):
            raise served[-1]
        return {"keys": [{**json.loads(ECAlgorithm.to_jwk(PRIVATE.public_key())), "kid": served[-1], "alg": "ES256"}]}

    async def known(_: object) -> Any: ...

    verifiers = Verifiers(known, jwks, known)
    gate = Gate(Access(jwks_url="https://keys.example"), verifiers, clock, required=True, otherwise=LOCAL)

    async def shown(kid: str) -> bool:
        claims = {"sub": "eve", "aud": "circuit", "exp": 2**33}
        try:
            await gate.admit(jwt.encode(claims, PRIVATE, "ES256", headers={"kid": kid}))
        except Unauthenticated as error:
            # Whose keys cannot be fetched has guessed nothing.
            assert error.guessed == (not isinstance(served[-1], Exception))
            return False
        return True

    served.append("one")
    assert await shown("one") and not await shown("two") and not await shown("two")
    assert asked == [0]
    served.append("two")
    clock.at = 16
    assert await shown("two") and not await shown("one")
    served.append(Unauthenticated("away", guessed=False))
    clock.at = 400
    for _ in range(3):
        assert await shown("two") and not await shown("three")
    assert asked == [0, 16, 400]
    clock.at = 16 + 3601
    assert not await shown("two") and not await shown("two")
    served.append("two")
    clock.at += 15
    assert await shown("two")
    assert asked == [0, 16, 400, 3617, 3632]


class Ticking:
    """A clock that is moved by hand."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime(2026, 11, 26, tzinfo=UTC) + timedelta(seconds=self.at)


async def test_roles_and_scopes_decide_what_may_be_done(guarded: Served, reading: Stage) -> None:
    for roles, scope, may_read, may_load in (
        (["viewer"], None, True, False),
        (["admin"], "read", True, False),
        (["author"], None, False, False),
        ([], None, False, False),
        (["admin"], "edit", False, False),
    ):
        credential = token(reading, roles=roles, **({} if scope is None else {"scope": scope}))
        read = await ask(guarded, CASES, credential)
        stream = await ask(guarded, 'mutation { createStreamToken(executionId: "x") { token } }', credential)
        assert ("errors" not in read[1]) == may_read, (roles, scope)
        codes = [error["extensions"]["code"] for error in stream[1]["errors"]]
        assert codes == (["not_found"] if may_read else ["forbidden"]), (roles, scope)
        assert not may_load


async def test_a_browser_reads_one_stream_with_a_stream_token(guarded: Served, writing: Stage, reading: Stage) -> None:
    told = await writing.execution()
    await told.complete(await told.open().close())
    other = await writing.execution()
    text, _ = stream_token(SECRET, Principal("ada"), str(told.name), reading.clock.now())
    late, _ = stream_token(SECRET, Principal("ada"), str(told.name), reading.clock.now() - timedelta(hours=1))
    elsewhere, _ = stream_token(SECRET, Principal("ada", 2), str(told.name), reading.clock.now())
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        for name, shown, status in (
            (told.name, text, 200),
            (other.name, text, 403),
            (told.name, late, 401),
            (told.name, elsewhere, 404),
            (told.name, "nonsense", 401),
        ):
            answer = await client.get(f"{guarded.url}/agent-stream/{name}", params={"token": shown})
            assert answer.status_code == status, (name, shown)
    assert (await ask(guarded, CASES, text))[0] == 401
    async with connect(f"{guarded.websocket_url}/agent-stream/{told.name}?token={text}") as client:
        assert json.loads(await client.recv())["eventType"] == "completed"
    for shown, code in ((late, 4401), ("", 4401)):
        async with connect(f"{guarded.websocket_url}/agent-stream/{told.name}?token={shown}") as client:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


async def test_graphql_over_websocket_takes_the_credential_in_its_first_message(guarded: Served) -> None:
    async def begin(payload: Any) -> Any:
        async with (
            asyncio.timeout(SECONDS),
            connect(f"{guarded.websocket_url}/graphql", subprotocols=["graphql-transport-ws"]) as client,  # type: ignore[list-item]
        ):
            await client.send(json.dumps({"type": "connection_init", "payload": payload}))
            try:
                return json.loads(await client.recv())["type"]
            except ConnectionClosed as closed:
                return closed.rcvd and closed.rcvd.code

    assert await begin({"authorization": f"Bearer {TOKEN}"}) == "connection_ack"
    for payload in ({}, {"authorization": "Bearer x"}, {"authorization": 7}, {"authorization": TOKEN}):
        assert await begin(payload) == 4403


async def test_what_belongs_to_another_tenant_is_not_there_and_a_tenant_that_is_not_lets_nobody_in(
    guarded: Served, writing: Stage, reading: Stage, keys: Keys
) -> None:
    told = await writing.execution()
    stranger = token(reading, tenant=2, roles=["admin"])
    async with httpx.AsyncClient(timeout=SECONDS) as client:

        async def asked() -> tuple[int, str]:
            headers = {"authorization": f"Bearer {stranger}"}
            answer = await client.get(f"{guarded.url}/agent-stream/{told.name}", headers=headers)
            return answer.status_code, answer.json()["error"]["code"]

        # What it wrote there would be found by whoever gets the number.
        assert await asked() == (401, "unauthenticated")
        assert (await keys.create_tenant("the second")).id == 2
        assert await asked() == (404, "not_found")


async def test_who_is_connected_is_let_go_when_the_credential_ends(
    guarded: Served, writing: Stage, reading: Stage, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All of them read, so nobody is cut off before he is told.
    monkeypatch.setattr("circuit.api.standing.STUCK_SECONDS", SECONDS)
    told = await writing.execution()
    outlet = told.open()
    await outlet.emit(StreamDelta.content("a"))
    key, stays = await keys.create("one", ["viewer"], LOCAL), await keys.create("two", ["viewer"], LOCAL)
    once, _ = stream_token(SECRET, Principal("key:one"), str(told.name), reading.clock.now())
    path = f"/agent-stream/{told.name}"
    shown, other = ({"authorization": f"Bearer {one.text}"} for one in (key, stays))
    graphql = f"{guarded.websocket_url}/graphql"
    protocol: list[Any] = ["graphql-transport-ws"]
    subscribed = {
        "id": "1",
        "type": "subscribe",
        "payload": {"query": f'subscription {{ agentExecutionStream(executionId: "{told.name}") {{ content }} }}'},
    }
    async with (
        connect(guarded.websocket_url + path, additional_headers=shown) as one,
        connect(guarded.websocket_url + path, additional_headers=other) as another,
        connect(f"{guarded.websocket_url}{path}?token={once}") as browser,
        connect(graphql, subprotocols=protocol) as asking,
        connect(graphql, subprotocols=protocol, additional_headers=shown) as silent,
        connect(f"{guarded.websocket_url}/stream") as many,
        httpx.AsyncClient(timeout=SECONDS) as client,
        client.stream("GET", guarded.url + path, headers=shown) as events,
    ):
        await asking.send(json.dumps({"type": "connection_init", "payload": shown}))
        await many.send(json.dumps({"type": "init", **shown}))
        assert json.loads(await asking.recv())["type"] == "connection_ack"
        assert json.loads(await many.recv())["type"] == "ready"
        await asking.send(json.dumps(subscribed))
        await many.send(json.dumps({"type": "subscribe", "id": "1", "execution": str(told.name)}))
        lines = events.aiter_lines()
        for heard in (one.recv, another.recv, browser.recv, asking.recv, many.recv, lines.__anext__):
            assert await heard()
        gate = guarded.office.services.gate
        await gate.lasting.look()
        await keys.revoke(key.row.id, LOCAL)
        await gate.lasting.look()
        for socket, code in ((one, 4401), (asking, 4403), (silent, 4403), (many, 4401)):
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await socket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "unauthenticated")
        assert "data" not in "".join([line async for line in lines][3:])
        # What a stream token opened is read to its end, and who has another key goes on.
        await outlet.emit(StreamDelta.content("b"))
        await told.complete(await outlet.close())
        for socket in (another, browser):
            assert [json.loads(text)["eventType"] async for text in socket] == ["content_chunk", "completed"]


async def test_who_does_not_read_is_cut_off_when_the_credential_ends(
    guarded: Served, writing: Stage, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit.api.standing.STUCK_SECONDS", 0.01)
    told = await writing.execution()
    outlet = told.open()
    for _ in range(32):
        await outlet.emit(StreamDelta.content("x" * 250_000))
    await told.complete(await outlet.close())
    key = await keys.create("one", ["viewer"], LOCAL)
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    lasting = guarded.office.services.gate.lasting
    with contextlib.ExitStack() as opened:
        for kind in ("", upgrade):
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", guarded.port))
            asked = f"GET /agent-stream/{told.name} HTTP/1.1\r\nHost: 127.0.0.1:{guarded.port}\r\n{kind}"
            client.sendall(f"{asked}Authorization: Bearer {key.text}\r\n\r\n".encode())

        def stuck() -> bool:
            transports: list[Any] = [getattr(one._cut, "__self__", None) for one in lasting._open]
            return len(transports) == 2 and all(one and one.get_write_buffer_size() > 65_536 for one in transports)

        await eventually(stuck, within=SECONDS, what="two clients that are written to no more")
        await keys.revoke(key.row.id, LOCAL)
        await lasting.look()
        await eventually(lambda: not lasting._open, within=SECONDS, what="both connections to have ended")
        assert len(guarded.readers) == 0


async def test_a_key_is_shown_once_and_ends_when_it_is_revoked_or_expires(keys: Keys, reading: Stage) -> None:
    made = await keys.create("deploy", ["editor"], LOCAL, scopes=["read"], lasts=timedelta(days=1))
    assert await keys.any()
    found = await keys.principal(made.text)
    assert found == Principal("key:deploy", 1, frozenset({"editor"}), frozenset({"read"}))
    [listed] = await keys.listed(LOCAL)
    assert made.text.rpartition("_")[2] not in repr(listed)
    await keys.revoke(made.row.id, LOCAL)
    with pytest.raises(Unauthenticated):
        await keys.principal(made.text)
    first = (await keys.revoke(made.row.id, LOCAL)).revoked_at
    assert first is not None
    assert not await keys.any()
    with pytest.raises(NotFound):
        await keys.revoke("nothing", LOCAL)
    with pytest.raises(Forbidden):
        await keys.create("x", ["admin"], Principal("v", roles=frozenset({"editor"})))
    for name, roles, scopes in (
        ("", ["viewer"], None),
        ("x", [], None),
        ("x", ["*"], None),
        ("x", ["viewer"], ["fly"]),
    ):
        with pytest.raises(InvalidRequest):
            await keys.create(name, roles, LOCAL, scopes=scopes)
    with pytest.raises(InvalidRequest):
        await keys.create("x", ["viewer"], LOCAL, lasts=timedelta(0))


async def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await keys.create("one", ["viewer"], LOCAL)
    found, revoked, find_all = asyncio.Event(), asyncio.Event(), stored_keys.find_all

    async def late(*given: Any) -> Any:
        rows = await find_all(*given)
        if not found.is_set():
            found.set()
            await revoked.wait()
        return rows

    monkeypatch.setattr(stored_keys, "find_all", late)
    async with asyncio.timeout(SECONDS):
        asking = asyncio.create_task(keys.principal(made.text))
        await found.wait()
        await keys.revoke(made.row.id, LOCAL)
        revoked.set()
        assert (await asking).subject == "key:one", "when it was looked up it held"
    with pytest.raises(Unauthenticated):
        await keys.principal(made.text)


async def test_a_key_of_a_tenant_stays_in_it(keys: Keys) -> None:
    acme = await keys.create_tenant("acme")
    made = await keys.create("theirs", ["admin"], LOCAL, tenant=acme.id)
    principal = await keys.principal(made.text)
    assert principal.tenant == acme.id
    assert [row.name for row in await keys.listed(principal)] == ["theirs"]
    assert [row.name for row in await keys.listed(LOCAL)] == []
    for act in (
        lambda: keys.create("x", ["viewer"], principal, tenant=1),
        lambda: keys.listed(principal, 1),
        lambda: keys.revoke(made.row.id, principal, 1),
        lambda: keys.create("x", ["viewer"], LOCAL, tenant=77),
    ):
        with pytest.raises((InvalidRequest, NotFound)):
            await act()
    assert [row.name for row in await keys.tenants()] == ["local", "acme"]
