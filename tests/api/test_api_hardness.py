"""GraphQL under those who mean ill: other tenants, odd values in every field, queries that are too much."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import operations, plain
from driven import SECONDS, Server, driven
from eventually import eventually
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_api_people import BROKEN, LOAD, OFFICE, START, TASKS, answers
from test_api_people import server as server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from circuit.api.graphql.endpoint import MOST_SUBSCRIPTIONS
from circuit.api.graphql.extent import DEEPEST_QUERY, MOST_ALIASES
from circuit.errors import CircuitError
from circuit.security.principal import LOCAL
from circuit.settings import Settings

DROPPED, LINES, PER_LINE = 10_000, 4, 500
SECRET = "a-secret-of-the-first-tenant"
GHOST = "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11"


def codes(cls: type[CircuitError] = CircuitError) -> set[str]:
    return {cls.code}.union(*(codes(sub) for sub in cls.__subclasses__()))


async def test_too_much_is_refused_before_anything_is_read(server: Server) -> None:
    aliases = "{ " + " ".join(f"a{n}: serverStatus {{ ready }}" for n in range(MOST_ALIASES + 1)) + " }"
    fragments = (
        "query { ...F0 } "
        + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(60))
        + " fragment F60 on Query { cases(first: 200) { history(first: 1000) { event } } }"
    )
    for query in (
        aliases,
        "{ workflows " + "{ versions " * DEEPEST_QUERY + "{ id }" + " }" * DEEPEST_QUERY + " }",
        "{ cases(first: 200) { tokens(first: 1000) { id } } }",
        "query ($n: Int = 1000) { cases(first: 200) { history(first: $n) { seq } } }",
        fragments,
        "{ cases(first: 200) { ...C } } fragment C on Case { history(first: 900) { ...H } }"
        " fragment H on HistoryEvent { seq }",
    ):
        answer = await server.client.post(f"{server.url}/graphql", json={"query": query})
        assert {one["extensions"]["code"] for one in answer.json()["errors"]} == {"invalid_request"}, query[:80]
        assert answer.json().get("data") is None
    # A name again and again is refused before each is compared with all the others.
    for query in ("{ " + "x: nothing " * 900 + "}", "{ " + "serverStatus { ready } " * 900 + "}"):
        answer = await server.client.post(f"{server.url}/graphql", json={"query": query})
        messages = [one["message"] for one in answer.json()["errors"]]
        assert any("more than" in one for one in messages) and len(messages) <= 2, messages
    answer = await server.client.post(f"{server.url}/graphql", json={"query": "{ " + "x" * 1_000_000 + " }"})
    assert len(answer.content) < 2_000, "nobody is told at length what he said"
    assert "errors" not in await server.post("{ cases(first: 200) { tokens(first: 100) { id place } } }")

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"query": "'
        for _ in range(100):
            yield b" " * 1024 * 1024

    answer = await server.client.post(
        f"{server.url}/graphql", content=endless(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "payload_too_large"


async def test_what_no_database_holds_is_refused_at_every_door(server: Server) -> None:
    """In words of our own, and where it is what was asked wrong."""
    for query, value in (
        ("query ($v: String!) { workflow(id: $v) { id } }", "office\0"),
        ("query ($v: String!) { cases(search: $v) { caseId } }", "\0"),
        ("mutation ($v: String!) { retireWorkflow(id: $v) { id } }", "office\0"),
    ):
        [error] = (await server.post(query, v=value))["errors"]
        assert (error["extensions"]["code"], "NUL" in error["message"]) == ("unstorable_text", True), query
    for value in ("2026-01-01T00:00:00+99:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "soon", "", 7):
        query = "query ($v: DateTime) { cases(startedAfter: $v) { caseId } }"
        assert await server.code(query, v=value) == "invalid_request", value
    assert await server.ok("query ($v: DateTime) { cases(startedAfter: $v) { caseId } }", v="2026-01-01") == []
    asked = {"messages": [{"role": "user", "content": "x"}]}
    for body, status, code in (
        ({**asked, "model": "agent:clerk\0"}, 400, "unstorable_text"),
        ({**asked, "model": "agent:clerk", "template": "\0"}, 400, "unstorable_text"),
        ({**asked, "model": "agent:clerk", "metadata": {"deep": _nested(900)}}, 422, "token_refused"),
        ({"model": "agent:clerk", "messages": [{"role": "user", "content": "\0"}]}, 422, "token_refused"),
    ):
        answer = await server.client.post(f"{server.url}/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), body
    assert "data.messages[0].content holds a NUL" in answer.json()["error"]["message"]
    # JSON may spell half a character; UTF-8 cannot.
    for path, text in (
        ("graphql", '{"query": "query ($v: String!) { case(id: $v) { status } }", "variables": {"v": "\\ud800"}}'),
        ("v1/chat/completions", '{"model": "agent:clerk", "messages": [{"role": "user", "content": "\\ud800"}]}'),
    ):
        headers = {"content-type": "application/json"}
        answer = await server.client.post(f"{server.url}/{path}", content=text, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


async def test_subscriptions_that_are_opened_and_dropped_leave_nothing(server: Server) -> None:
    """10,000 of every way to subscribe, on connections that go on and on some that break: nothing stays of them."""
    case = (await server.ok(START, id="office", data={"text": SECRET, "size": 2}))["caseId"]
    [execution] = await answers(server, "{ executions { executionId } }")
    stream = f'agentExecutionStream(executionId: "{execution["executionId"]}")'
    queries = (
        f"subscription {{ {stream} {{ cursor }} }}",
        f"subscription {{ {stream} {{ cursor @skip(if: false) }} }}",
        f'subscription {{ caseEvents(caseId: "{case}") {{ seq }} }}',
        'subscription { workflowEvents(workflowId: "office") { cursor } }',
        'subscription { humanTasks(workflowId: "office") { cursor } }',
    )
    broker: Any = server.circuit.streams._broker

    async def nothing_is_left() -> bool:
        held = broker._ears or any(channel.holders for channel in broker._channels.values())
        return not held and (await server.ok("{ serverStatus { streamReaders } }"))["streamReaders"] == 0

    objects: list[int] = []
    for _ in range(DROPPED // (LINES * PER_LINE)):
        async with asyncio.timeout(SECONDS * 2):
            await asyncio.gather(*(_open_and_drop(server, queries, broken=line == 0) for line in range(LINES)))
        await eventually(nothing_is_left)
        gc.collect()
        objects.append(len(gc.get_objects()))
    # The first rounds fill what is kept for all; had a subscription left one thing, there would be thousands more.
    assert max(objects[-2:]) - objects[1] < DROPPED // 10, objects


async def _open_and_drop(server: Server, queries: Sequence[str], *, broken: bool) -> None:
    """Subscriptions on one connection, each dropped at once; `broken` ones are left as they are."""
    address = "ws" + server.url.removeprefix("http")
    async with connect(f"{address}/graphql", subprotocols=["graphql-transport-ws"]) as client:  # type: ignore[list-item]
        await client.send('{"type": "connection_init"}')
        await client.recv()
        drain = asyncio.create_task(_drain(client))
        for number in range(PER_LINE):
            payload = {"query": queries[number % len(queries)]}
            await client.send(json.dumps({"id": str(number), "type": "subscribe", "payload": payload}))
            if not broken or number < PER_LINE - MOST_SUBSCRIPTIONS:
                await client.send(json.dumps({"id": str(number), "type": "complete"}))
        if broken:
            drain.cancel()
            client.transport.abort()
            return
        await client.send('{"type": "ping"}')
        await drain


async def _drain(client: Any) -> None:
    while json.loads(await client.recv())["type"] != "pong":
        pass


class Tenants:
    """A server with two tenants: the first one has everything, the second one asks for it."""

    def __init__(self, first: Server, second: Server, known: dict[str, str]) -> None:
        self.first = first
        self.second = second
        self.known = known


@pytest.fixture
async def tenants(database_url: str, tmp_path: Path) -> AsyncIterator[Tenants]:
    token = "t" * 40
    settings = Settings.from_environment(
        {"CIRCUIT_DATABASE_URL": database_url, "CIRCUIT_HOME": str(tmp_path), "AGENT_ACCESS_TOKEN": token,
         "STREAM_AUTH_SECRET": "s" * 40}
    )  # fmt: skip
    async with driven(database_url, settings=settings) as running:
        first = running.authorized(token)
        keys = running.circuit.engine.keys
        other = await keys.create_tenant("other")
        second = running.authorized((await keys.create("theirs", ["admin"], LOCAL, tenant=other.id)).text)
        for text in (OFFICE, BROKEN):
            await first.ok(LOAD, yaml=text.replace("There is something to check", SECRET))
        case = (await first.ok(START, id="office", data={"text": SECRET, "size": 2}))["caseId"]
        await first.ok(START, id="broken", data={"n": 0, "text": SECRET})
        await answers(first, "{ incidents { id } }")
        [task] = await answers(first, TASKS)
        workflow = await first.ok('{ workflow(id: "office") { hash } }')
        known = {"case": case, "task": task["taskId"], "hash": workflow["hash"]}
        yield Tenants(first, second, known)
        await first.client.aclose()
        await second.client.aclose()


def _names(case: str, number: str, workflow: str, version: str) -> list[dict[str, str]]:
    """What arguments mean, by their names; `id` and the like once as each thing that has one."""
    named = {
        "caseId": case, "workflowId": workflow, "tokenId": number, "executionId": number, "taskId": number,
        "agentId": "clerk", "placeId": "asked", "transition": "check", "hash": version, "yaml": "x: [",
        "source": "s", "status": "", "search": case, "completeWhen": "true",
    }  # fmt: skip
    return [{**named, "": one} for one in (case, number, workflow)]


async def test_no_operation_shows_another_tenant_what_it_has(tenants: Tenants) -> None:
    mine = _names(tenants.known["case"], tenants.known["task"], "office", tenants.known["hash"])
    ghost = _names(GHOST, f"{GHOST}.1", "offices", "0" * 64)
    before = await tenants.first.ok("{ cases { caseId status history { seq } tokens { id version } } }")
    asked = 0
    for operation in operations("query", "mutation"):
        # An argument that its name says nothing of is tried as each thing that has an id.
        vague = any(
            str(one.type).startswith("String") and name not in mine[0] for name, one in operation.field.args.items()
        )
        for here, there in zip(mine, ghost, strict=True) if vague else [(mine[0], ghost[0])]:
            shown = [await _outcome(tenants.second, operation, names) for names in (here, there)]
            assert SECRET not in json.dumps(shown[0]), operation.name
            assert _neutral(shown[0], here) == _neutral(shown[1], there), operation.name
            asked += 1
    for operation in operations("subscription"):
        shown = []
        for names in (mine[0], ghost[0]):
            variables = operation.variables(lambda name, kind, names=names: plain(name, kind, names), optional=False)
            for name in ("caseId", "workflowId"):
                if name in operation.field.args and name not in variables and "caseId" not in variables:
                    variables[name] = names[name]
            async with tenants.second.subscribed(operation.document, **variables) as values:
                [error] = (await anext(values))["errors"]
            shown.append(error)
        assert _neutral(shown[0], mine[0]) == _neutral(shown[1], ghost[0]), operation.name
    assert asked > 90
    after = await tenants.first.ok("{ cases { caseId status history { seq } tokens { id version } } }")
    assert after == before, "and nothing was done to it"


async def test_no_stream_and_no_chat_crosses_to_another_tenant(tenants: Tenants) -> None:
    """Beside GraphQL: what is the other tenant's is answered as what is not there, by the same words."""
    second, known = tenants.second, tenants.known
    address, headers = "ws" + second.url.removeprefix("http"), dict(second.client.headers)
    credential = {"authorization": headers["authorization"]}
    execution, ghost = known["task"], f"{GHOST}.1"
    for name in (execution, ghost):
        answer = await second.client.get(f"{second.url}/agent-stream/{name}", params={"after": "1-1"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        async with connect(f"{address}/agent-stream/{name}", additional_headers=credential) as client:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404
    async with connect(f"{address}/stream", additional_headers=credential) as client:
        for wanted in (
            {"execution": execution}, {"execution": ghost}, {"case": known["case"]}, {"case": GHOST},
            {"workflow": "office"}, {"workflow": "offices"},
        ):  # fmt: skip
            await client.send(json.dumps({"type": "subscribe", "id": "a", **wanted}))
            said = json.loads(await client.recv())
            assert (said["type"], said["error"]["code"]) == ("error", "not_found"), wanted
    figures = [(await one.client.get(f"{one.url}/metrics")) for one in (second, tenants.first)]
    assert [one.status_code for one in figures] == [403, 200], "they are of all tenants together"
    models = (await second.client.get(f"{second.url}/v1/models")).json()["data"]
    assert [one["id"] for one in models if not one["id"].startswith("scripted:")] == []
    for model in ("agent:clerk", "workflow:office"):
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        answer = await second.client.post(f"{second.url}/v1/chat/completions", json=body)
        assert (answer.status_code, SECRET in answer.text) == (404, False), model
        assert (await second.client.get(f"{second.url}/v1/models/{model}")).status_code == 404


async def _outcome(server: Server, operation: Any, names: dict[str, str]) -> dict[str, Any]:
    variables = operation.variables(lambda name, kind: plain(name, kind, names))
    return await server.post(operation.document, **variables)


_RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}(\.\d+)?|20\d\d-\d\d-\d\dT[0-9:.]+Z|[0-9a-f]{64}")


def _neutral(shown: Any, names: dict[str, str]) -> str:
    """What was answered, without what was asked with, and without what is made up each time."""
    text = json.dumps(shown, sort_keys=True)
    for value in sorted({*names.values()} - {""}, key=len, reverse=True):
        text = text.replace(value, "?") if len(value) > 5 else text
    return re.sub(r'eyJ[\w.-]+|"streamReaders": \d+', "*", _RANDOM.sub("*", text)).replace("offices", "?")


NASTY = [
    "", "\u0000", "\ud7ff￿", "☃" * 300, "' OR 1=1; DROP TABLE circuit.case; --", "${OPENAI_API_KEY}", "{{7*7}}", "%s%n",
    "../../etc/passwd", "\r\nX-Injected: 1", "a" * 20_000, "-1", GHOST, f"{GHOST}.99999999999", "m99999999999999999",
    "__proto__", "office", "local",
]  # fmt: skip
JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | st.sampled_from(NASTY),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data.n", "", "a.b", "*"]), inner, max_size=3)
    ),
    max_leaves=6,
)
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "Int": st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, -1, 2**40, "1", None]),
    "Float": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0, -1, 1e308, "x"]),
    "Boolean": st.booleans() | st.none(),
    "JSON": JSONS,
    "DateTime": st.sampled_from(
        ["", "now", "2026-13-01", "2026-01-01T00:00:00+99:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", 7]
    ),
}
LEAKS = ("Traceback", "sqlalchemy", "asyncpg", "site-packages", "circuit/engine", "SELECT ", "KeyError", "TypeError")


async def test_every_field_of_every_operation_takes_what_comes(server: Server) -> None:
    case = (await server.ok(START, id="office", data={"text": "a bill", "size": 2}))["caseId"]
    # What the database alone has words for, and faults of Circuit's own, are no answer to anybody.
    known = codes() - {"storage_error", "internal_error"}
    names = _names(case, f"{case}.1", "office", "0" * 64)[0]
    loop = asyncio.get_running_loop()
    tried: set[str] = set()

    def attack(client: httpx.Client) -> None:
        for operation in operations("mutation", "query"):

            @settings(
                max_examples=3,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(st.data(), st.just(operation))
            def one(data: st.DataObject, operation: Any) -> None:
                def value(name: str, kind: Any) -> Any:
                    if data.draw(st.booleans()):
                        return plain(name, kind, names)
                    return data.draw(LEAVES.get(kind.name, st.sampled_from(NASTY)))

                variables = operation.variables(value)
                content = json.dumps({"query": operation.document, "variables": variables})
                answer = client.post("/graphql", content=content, headers={"content-type": "application/json"})
                assert answer.status_code in (200, 400), (operation.name, answer.status_code, answer.text[:300])
                said = answer.json()
                errors = said.get("errors") or ([{"extensions": said["error"]}] if "error" in said else [])
                for error in errors:
                    assert error["extensions"]["code"] in known, (operation.name, variables, error)
                assert not [leak for leak in LEAKS if leak in answer.text], (operation.name, answer.text[:500])
                tried.add(operation.name)

            one()

    def run() -> None:
        with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
            attack(client)

    await loop.run_in_executor(None, run)
    assert tried == {operation.name for operation in operations("mutation", "query")}
    document = 'mutation ($it: JSON!) { executeAgent(agentId: "clerk", input: {text: "x"}, llmConfig: $it) { id } }'
    for unfit in ({"seed": 2**70}, {"stop": "\0"}):
        assert await server.code(document, it=unfit) == "invalid_request"
    assert await server.ok("{ serverStatus { ready } }") == {"ready": True}
