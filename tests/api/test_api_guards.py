"""What stands before every route: origins, headers of safety, rates; and the document that describes them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest
from served import Served, Serving
from stage import Stage
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from whole import whole

from circuit.api.authentication import Gate
from circuit.api.explorer.page import POLICY
from circuit.engine.consultations import Consultation
from circuit.engine.modification import Modification, NewToken
from circuit.engine.summons import KIND, wanted
from circuit.errors import InvalidRequest, TooManyRequests
from circuit.security.principal import LOCAL, Principal
from circuit.security.rates import Rate
from circuit.settings import Settings

SECONDS = 120.0
FRIEND, STRANGER = "https://desk.example", "https://evil.example"
QUERY = {"query": "{ __typename }"}


@pytest.fixture
def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=SECONDS)


async def test_pages_of_strange_origins_change_nothing_and_read_nothing(
    reading: Stage, serving: Serving, writing: Stage, client: httpx.AsyncClient
) -> None:
    told = await writing.execution()
    await told.complete(await told.open().close())
    async with serving(reading, allowed_origins=[FRIEND]) as server:
        stream = f"{server.url}/agent-stream/{told.name}"
        # A simple request needs no preflight: it is refused before anything looks at it.
        for kind in ("application/json", "text/plain"):
            headers = {"origin": STRANGER, "content-type": kind}
            refused = await client.post(f"{server.url}/graphql", json=QUERY, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
            assert "access-control-allow-origin" not in refused.headers
        for url in (f"{server.url}/graphql", stream):
            wanted = "authorization,content-type,traceparent,x-stainless-lang"
            asked = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
            preflight = await client.options(url, headers={"origin": STRANGER, **asked})
            assert preflight.status_code == 403
            preflight = await client.options(url, headers={"origin": FRIEND, **asked})
            assert preflight.status_code == 204
            assert preflight.headers["access-control-allow-origin"] == FRIEND
            assert preflight.headers["access-control-allow-headers"] == wanted
        for origin, seen in ((FRIEND, True), (STRANGER, False), (server.url, False)):
            answers = [await client.get(url, headers={"origin": origin}) for url in (f"{server.url}/health", stream)]
            assert [answer.headers.get("access-control-allow-origin") for answer in answers] == (
                [FRIEND] * 2 if seen else [None] * 2
            )
            assert all(answer.headers["vary"] == "origin" for answer in answers)
        for origin in (FRIEND, server.url, None):
            own = {} if origin is None else {"origin": origin}
            answer = await client.post(f"{server.url}/graphql", json=QUERY, headers=own)
            assert answer.json()["data"]["__typename"] == "Query"
        for path in ("/stream", f"/agent-stream/{told.name}"):
            with pytest.raises(InvalidStatus):
                async with connect(f"{server.websocket_url}{path}", origin=STRANGER):  # type: ignore[arg-type]
                    pass


async def test_answers_carry_headers_of_safety(server: Served, writing: Stage, client: httpx.AsyncClient) -> None:
    told = await writing.execution()
    await told.complete(await told.open().close())
    for path in ("/", "/health", "/nothing", "/graphql", f"/agent-stream/{told.name}", "/openapi.json"):
        answer = await client.get(f"{server.url}{path}", headers={"accept": "text/html"})
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
    data = await client.get(f"{server.url}/health")
    assert data.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    page = await client.get(f"{server.url}/graphql", headers={"accept": "text/html"})
    assert page.headers["content-security-policy"] == POLICY


async def test_rates_are_per_principal_and_per_path(
    reading: Stage, serving: Serving, client: httpx.AsyncClient, writing: Stage
) -> None:
    told = await writing.execution()
    gate = Gate.open(reading.clock, LOCAL)
    rates = {"graphql": Rate(1, 2), "agent-stream": Rate(1, 1), "*": Rate(1, 4)}
    async with serving(reading, rates=rates, gate=gate) as server:
        for status in (200, 200, 429):
            answer = await client.post(f"{server.url}/graphql", json=QUERY)
            assert answer.status_code == status
        assert answer.json()["error"]["code"] == "too_many_requests"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        # Another path has another bucket; what nobody has to prove himself for has none.
        assert (await client.get(f"{server.url}/")).status_code == 200
        for _ in range(10):
            assert (await client.get(f"{server.url}/health")).status_code == 200
        # A WebSocket and an SSE reader of the same path draw from one.
        async with connect(f"{server.websocket_url}/agent-stream/{told.name}"):
            pass
        with pytest.raises(ConnectionClosed) as closed:
            async with connect(f"{server.websocket_url}/agent-stream/{told.name}") as second:
                await second.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4429, "too_many_requests")
        assert (await client.get(f"{server.url}/agent-stream/{told.name}")).status_code == 429


async def test_agents_are_started_as_often_as_the_settings_say(database_url: str, client: httpx.AsyncClient) -> None:
    async with whole(database_url, RATE_LIMIT_PER_MINUTE="1/2") as (circuit, url):
        body = {"model": "scripted:x", "messages": [{"role": "user", "content": "x"}]}
        answers = [await client.post(f"{url}/v1/chat/completions", json=body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].json()["error"]["type"] == "rate_limit_error"
        assert answers[-1].headers["x-should-retry"] == "true"
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert len(await circuit.cases()) == 2
        # Whatever has no agents is free of it.
        await circuit.load("workflow: flow\nplaces: [a]\ntransitions: {}\n", allow_unsound=True)
        await circuit.start("flow")
        with pytest.raises(TooManyRequests):
            wanted = Consultation(body["messages"], model={"type": "scripted", "model": "x"})
            await circuit.engine.consultations.ask(wanted, principal=circuit.principal)


HELD = """
workflow: held
places: {inbox: {initial: true}, read: {terminal: true}, aside: {terminal: true}}
agents:
  reader:
    llm_provider: {type: scripted, model: script, responses: [done]}
    prompts: {system: You read.}
transitions:
  read: {from_places: inbox, to_place: read, trigger: {type: manual}, agent_execution: {agent_id: reader}}
  drop: {from_places: inbox, to_place: aside, trigger: {type: manual}}
place_agents:
  - {place_id: inbox, agent_id: reader, schedule: {initial_delay_seconds: 86400}}
"""


async def test_no_door_starts_more_agents_than_the_settings_say(database_url: str) -> None:
    async with whole(database_url, RATE_LIMIT_PER_MINUTE="1/1") as (circuit, _):
        await circuit.load(HELD)
        commands, travel = circuit.commands, circuit.engine.travel
        put = Modification("more", put=(NewToken("inbox", {}, {}),))
        case = circuit.key(await circuit.start("held", {"n": 1}))

        async def doors(who: Principal) -> list[Any]:
            return await asyncio.gather(
                commands.start_case("held", None, principal=who),
                commands.start_case("held", None, principal=who, key="again"),
                commands.modify(case, put, principal=who),
                commands.fire(case, "read", principal=who),
                commands.ask(case, KIND, wanted("inbox", None, None), who, None, 1.0),
                travel.fork(case, principal=who),
                return_exceptions=True,
            )

        refused = await doors(circuit.principal)
        assert [type(one) for one in refused] == [TooManyRequests] * len(refused)
        # What starts nothing, and what was started before, is answered.
        other = Principal("user:bo", roles=frozenset({"operator"}))
        first = await commands.start_case("held", None, principal=other, key="mine")
        assert await commands.start_case("held", None, principal=other, key="mine") == first
        outcome = await commands.fire(case, "drop", principal=circuit.principal)
        assert outcome.state == "applied"
        assert len(await circuit.cases()) == 2


def test_settings_of_guards_are_checked() -> None:
    chosen = Settings.from_environment(
        {
            "CIRCUIT_RATE_LIMITS": "graphql=600/50, *=1200",
            "RATE_LIMIT_PER_MINUTE": "100",
            "CIRCUIT_ALLOWED_ORIGINS": "https://a.example, http://localhost:5173",
        }
    )
    assert chosen.rates == {"graphql": Rate(600, 50), "*": Rate(1200, 1200)}
    assert chosen.start_rate == Rate(100, 100)
    assert chosen.allowed_origins == ("https://a.example", "http://localhost:5173")
    for name, wrong in (
        ("RATE_LIMIT_PER_MINUTE", "many"),
        ("CIRCUIT_RATE_LIMITS", "graphql"),
        ("CIRCUIT_RATE_LIMITS", "nowhere=1"),
        ("CIRCUIT_RATE_LIMITS", "v1=0"),
        ("CIRCUIT_ALLOWED_ORIGINS", "a.example"),
        ("CIRCUIT_ALLOWED_ORIGINS", "https://a.example/path"),
    ):
        with pytest.raises(InvalidRequest, match=name):
            Settings.from_environment({name: wrong})


def usable(described: dict[str, Any]) -> set[str]:
    """The operations of a document. Every reference in it leads somewhere, and every schema is one."""
    text = orjson.dumps(described).decode()
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', text):
        found: Any = described
        for part in reference.split("/"):
            found = found[part]
    for schema in described["components"]["schemas"].values():
        jsonschema_rs.validator_for({**schema, "components": described["components"]})
    return {
        operation["operationId"]
        for path in described["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    }


async def test_the_document_describes_every_route(server: Served, database_url: str, client: httpx.AsyncClient) -> None:
    described = (await client.get(f"{server.url}/openapi.json")).json()
    framework = server.application._framework
    routes = {route.path for route in framework.routes if isinstance(route, Route)}
    assert set(described["paths"]) == routes | {"/agent-stream/{execution_id}"}
    explorer = {"explorer", "explorerFile"}
    assert usable(described) == {"stream", "graphql", "health", "ready", "metrics", "openapi", "index"} | explorer
    async with whole(database_url) as (_, url):
        described = (await client.get(f"{url}/openapi.json")).json()
        assert {"chat", "complete", "models", "model"} < usable(described)
        chat = {path for path in described["paths"] if path.startswith("/v1")}
        assert chat == {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{model}"}
        for path in chat:
            assert (await client.put(url + path)).status_code == 405  # it is there
