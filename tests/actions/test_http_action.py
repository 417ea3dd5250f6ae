"""One request of an action: what is sent, what comes back, and where requests may not go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from calling import CASE, Remembering, call

from circuit import Circuit
from circuit.actions.request import HttpAction
from circuit.definition import load_workflow
from circuit.egress import Egress
from circuit.engine.action import ActionOutput
from circuit.errors import (
    ActionFailed,
    CircuitError,
    HostRefused,
    InvalidOutput,
    MappingError,
    ProviderUnavailable,
    RateLimited,
    StreamCut,
    UnexpectedStatus,
)
from circuit.http import Http
from circuit.ids import idempotency_key
from circuit.settings import Settings


@dataclass
class Office:
    """A server that answers as it is told and remembers what it was asked."""

    port: int = 0
    answer: bytes = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"id": "o1"}'
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://office.test:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.asked.append((line, headers, body))
            writer.write(self.answer)
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def opened() -> AsyncIterator[Office]:
    office = Office()
    server = await asyncio.start_server(office.serve, "127.0.0.1", 0)
    office.port = server.sockets[0].getsockname()[1]
    async with server:
        yield office


def finding(*addresses: str) -> Callable[[str, int], Any]:
    async def lookup(host: str, port: int) -> list[str]:
        return list(addresses)

    return lookup


async def send(
    config: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    egress: Egress | None = None,
    context: Remembering | None = None,
    **changes: Any,
) -> ActionOutput:
    http = Http()
    action = HttpAction(
        egress or Egress(["office.test"], private=True, lookup=finding("127.0.0.1")), http, environment or {}
    )
    try:
        made = call("http", {"method": "GET", **config}, inputs, **changes)
        return await action.perform(made, context or Remembering())
    finally:
        await http.aclose()


def written(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_inputs_and_secrets_are_put_in_once_and_nowhere_else() -> None:
    async with opened() as office:
        done = await send(
            {
                "method": "POST",
                "url": office.url + "/orders/{order}/lines",
                "query": {"page": "{page}", "q": "a b"},
                "headers": {"Authorization": "Bearer ${TOKEN}"},
                "body": {"amount": "{page}", "note": "for {order}: {order}", "all": ["{items}"], "fixed": 1},
            },
            {"order": "../x?y=${TOKEN}&{page}", "page": 7, "items": [1, {"a": "{page}"}]},
            environment={"TOKEN": "s3cr3t-value"},
        )
    [(line, headers, body)] = office.asked
    order = "../x?y=${TOKEN}&{page}"
    assert line == "POST /orders/..%2Fx%3Fy%3D%24%7BTOKEN%7D%26%7Bpage%7D/lines?page=7&q=a+b HTTP/1.1"
    assert headers["authorization"] == "Bearer s3cr3t-value"
    assert headers["host"] == f"office.test:{office.port}"
    assert orjson.loads(body) == {
        "amount": 7,
        "note": f"for {order}: {order}",
        "all": [[1, {"a": "{page}"}]],
        "fixed": 1,
    }
    assert done.outputs["id"] == "o1" and done.outputs["status"] == 200 and done.outputs["body"] == {"id": "o1"}
    assert done.outputs["execution_id"] == f"{CASE}.1"


async def test_a_request_that_changes_something_has_a_key_and_is_journalled() -> None:
    async with opened() as office:
        context = Remembering()
        config = {"method": "POST", "url": office.url + "/orders"}
        await send(config, {"a": 1}, context=context)
        again = await send(config, {"a": 1}, attempt=2, start=3, recorded=context.journal)
        assert again.outputs["id"] == "o1" and len(office.asked) == 1
        await send(config, {"a": 1}, attempt=2, start=4)
        await send({**config, "idempotency_header": "X-Once"}, {"a": 1})
        await send({"url": office.url}, {"a": 1})
    keys = [headers.get("idempotency-key") or headers.get("x-once") for _, headers, _ in office.asked]
    assert keys == [idempotency_key(f"{CASE}.1", "http", {"a": 1})] * 3 + [None]
    assert orjson.loads(office.asked[0][2]) == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (written("404 Not Found", b"no such s3cr3t-value"), UnexpectedStatus, r"with status 404: no such \*\*\*"),
        (written("429 Slow", b"", "Retry-After: 7"), RateLimited, "429"),
        (written("503 Away"), ProviderUnavailable, "503"),
        (
            written("302 Found", b"", "Location: http://169.254.169.254/"),
            UnexpectedStatus,
            "redirects are not followed",
        ),
        (written("200 OK", b"{", "Content-Type: application/json"), InvalidOutput, "calls its answer JSON"),
        (written("200 OK", b"x" * 4_200_000), InvalidOutput, "more than 4194304 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", StreamCut, "broke"),
        (written("200 OK", b'{"a": "\\u0000"}', "Content-Type: application/json"), InvalidOutput, "NUL"),
    ],
)
async def test_answers_that_are_no_success(answer: bytes, error: type[CircuitError], message: str) -> None:
    async with opened() as office:
        office.answer = answer
        with pytest.raises(error, match=message) as caught:
            await send({"url": office.url, "headers": {"A": "${KEY}"}}, environment={"KEY": "s3cr3t-value"})
    if error is RateLimited:
        assert caught.value.retry_after == 7


async def test_statuses_may_be_expected_and_text_is_text() -> None:
    async with opened() as office:
        office.answer = written("404 Not Found", b"nobody", "Content-Type: text/plain")
        done = await send({"url": office.url, "expect": [200, 404]})
    assert done.outputs["status"] == 404 and done.outputs["body"] == done.text == "nobody"


async def test_what_a_request_needs_and_does_not_have() -> None:
    with pytest.raises(MappingError, match=r"uses \{order\}, and there is no such input"):
        await send({"url": "http://office.test/{order}"})
    with pytest.raises(ActionFailed, match=r"refers to \$\{TOKEN\}, which is not set"):
        await send({"url": "http://office.test", "headers": {"A": "${TOKEN}"}})


# Where requests may not go

HERE = "127.0.0.1"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
async def test_private_addresses_are_refused_whatever_the_name_says(address: str) -> None:
    for addresses in ([address], ["93.184.216.34", address]):
        with pytest.raises(HostRefused, match="has the private address"):
            await Egress(["innocent.example"], lookup=finding(*addresses)).judge("https://innocent.example/")
    with pytest.raises(HostRefused, match="has the private address"):
        await Egress(["*"], private=True, lookup=finding(address)).judge("https://innocent.example/")


async def test_the_connection_goes_to_the_address_that_was_judged() -> None:
    """A name that points elsewhere at the second look is looked up once."""
    looked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.1"] if len(looked) == 1 else ["192.0.2.1"]

    async with opened() as office:
        done = await send({"url": office.url}, egress=Egress(["office.test"], private=True, lookup=rebinding))
    assert done.outputs["status"] == 200 and looked == ["office.test"]


@pytest.mark.parametrize(
    ("hosts", "url", "taken"),
    [
        ([], "https://a.example/", False),
        (["a.example"], "https://a.example/x", True),
        (["A.Example"], "https://a.EXAMPLE./x", True),
        (["a.example"], "https://b.a.example/", False),
        (["*.a.example"], "https://b.a.example/", True),
        (["*.a.example"], "https://evila.example/", False),
        (["a.example:8443"], "https://a.example:8443/", True),
        (["a.example:8443"], "https://a.example/", False),
        (["*"], "http://anything.example/", True),
        (["a.example"], "https://a.example@b.example/", False),
        (["a.example"], "ftp://a.example/", False),
        (["a.example"], "https://a.example:99999/", False),
        (["a.example"], "https://a.example /", False),
    ],
)
async def test_the_list_of_hosts(hosts: list[str], url: str, taken: bool) -> None:
    egress = Egress(hosts, lookup=finding("93.184.216.34"))
    if taken:
        assert (await egress.judge(url)).address == "93.184.216.34"
    else:
        with pytest.raises(HostRefused):
            await egress.judge(url)


async def test_odd_spellings_of_an_address_are_looked_up_like_names() -> None:
    for url in ("http://2130706433/", "http://0x7f.1/", "http://[::ffff:7f00:1]/"):
        with pytest.raises((HostRefused, ProviderUnavailable)):
            await Egress(["*"]).judge(url)


# In the workflow file

FILE = "workflow: small\nplaces: [a, b]\ntransitions: {go: {from_places: a, to_place: b, action: %s}}\n"


def test_the_keys_of_a_request() -> None:
    text = (
        "{type: http, url: 'https://api.example/{order}', headers: {Authorization: 'Bearer ${T}', Accept: text/plain},"
        " query: {p: 1}, body: {a: '{order}'}, expect: 201, input_mapping: {order: data.id}}"
    )
    config = load_workflow(FILE % text, "f").actions["go"].config
    assert config == {
        "method": "POST",
        "url": "https://api.example/{order}",
        "headers": {"Authorization": "Bearer ${T}", "Accept": "text/plain"},
        "query": {"p": 1},
        "body": {"a": "{order}"},
        "expect": [201],
    }
    assert load_workflow(FILE % "{type: http, url: 'https://a.example'}", "f").actions["go"].config["method"] == "GET"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("{type: http, url: 'https://{host}/x'}", "the host of a request must stand in the file"),
        ("{type: http, url: 'https://a.example{x}/'}", "the host of a request must stand in the file"),
        ("{type: http, url: 'ftp://a/'}", "this is not an address of a server"),
        ("{type: http, url: 'https://u:p@a.example/'}", "must not hold a name or a password"),
        ("{type: http, url: 'https://a.example', headers: {Authorization: 'Bearer abc'}}", "gives it away"),
        ("{type: http, url: 'https://a.example', headers: {'two words': x}}", "not the name of an HTTP header"),
        ("{type: http, url: 'https://a.example', method: GET, body: {}}", "GET has no body"),
        ("{type: http, url: 'https://a.example', expect: [99]}", "between 100 and 599"),
        (
            "{type: http, url: 'https://a.example/{oder}', input_mapping: {order: data.id}}",
            "unknown template variable {oder}",
        ),
        (
            "{type: http, url: 'https://a.example', body: {a: ['{x}']}, input_mapping: {order: data.id}}",
            "unknown template variable {x}",
        ),
    ],
)
def test_faults_of_a_request(action: str, message: str) -> None:
    with pytest.raises(CircuitError, match=message.replace("{", r"\{").replace("}", r"\}")):
        load_workflow(FILE % action, "f")


async def test_a_case_sends_a_request(database_url: str) -> None:
    async with opened() as office:
        settings = Settings.from_environment(
            {"CIRCUIT_DATABASE_URL": database_url, "CIRCUIT_HTTP_HOSTS": "localhost", "CIRCUIT_HTTP_PRIVATE": "true"}
        )
        async with Circuit.open(settings=settings) as circuit:
            url = f"http://localhost:{office.port}/"
            asked = "{type: http, url: '%s', body: {a: 1}, output_mapping: {data.id: id}}"
            workflow = await circuit.load(FILE % (asked % url))
            view = await asyncio.wait_for(circuit.wait(await circuit.start(workflow.id)), 60)
    assert view.marking == {"b": 1} and view.tokens[0].data == {"id": "o1"}
    assert [body for _, _, body in office.asked] == [b'{"a":1}']
