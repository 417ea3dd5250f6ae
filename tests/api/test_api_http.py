"""Everything of the server that is no stream and no GraphQL: health, errors, limits, and how it begins."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
import pytest
from offices import Office
from served import Served, Serving
from stage import Stage
from starlette.requests import Request

from circuit import collector
from circuit.api.application import LARGEST_BODY
from circuit.api.health import HealthEndpoint
from circuit.api.problems import LONGEST_SAID, shown
from circuit.api.server import listen, serve
from circuit.errors import Conflict, DatabaseUnreachable, InvalidRequest, NotFound, SchemaMismatch

SECONDS = 120.0


@pytest.fixture
def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=SECONDS)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer, whose shape is checked."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    error = content["error"]
    assert set(error) == {"code", "message", "details", "timestamp"}
    assert error["code"] == code
    assert error["timestamp"].endswith("Z")
    assert datetime.fromisoformat(error["timestamp"]).tzinfo is not None
    return error


async def test_the_index_names_the_routes(server: Served, client: httpx.AsyncClient) -> None:
    answer = await client.get(server.url)
    assert answer.json()["routes"]["graphql"] == "/graphql"
    assert "server" not in answer.headers


async def test_health_shows_the_revision(server: Served, client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{server.url}/health")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    assert (said["status"], list(said["database"])) == ("ok", ["revision"])
    assert said["version"]


async def test_health_says_what_is_wrong(reading: Stage, serving: Serving, client: httpx.AsyncClient) -> None:
    errors: list[Exception] = [
        DatabaseUnreachable("the database 'secret' at secret.internal, port 5432, does not answer"),
        SchemaMismatch("run circuit db upgrade"),
        KeyError("secret"),
    ]

    async def ready() -> Mapping[str, Any]:
        raise errors.pop(0)

    async with serving(reading, ready=ready) as server:
        for code in ("database_unreachable", "schema_mismatch"):
            answer = await client.get(f"{server.url}/health")
            problem(answer, 503, code)
            assert answer.json()["status"] == "unavailable"
            assert "secret" not in answer.text, "whoever asks without a credential learns nothing of where it is"
        answer = await client.get(f"{server.url}/health")
        problem(answer, 500, "internal_error")
        assert "secret" not in answer.text


async def test_health_waits_for_the_database_only_so_long(reading: Stage) -> None:
    async def never() -> Mapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    endpoint = HealthEndpoint(Office(reading, never).services, "1", answer_seconds=0.01)
    answer = await endpoint(Request({"type": "http", "method": "GET", "path": "/health", "headers": []}))
    assert answer.status_code == 503
    assert b"database_unreachable" in answer.body


async def test_a_server_of_this_machine_answers_to_no_other_name(server: Served, client: httpx.AsyncClient) -> None:
    for host, good in [
        ("localhost", True),
        (f"localhost:{server.port}", True),
        ("127.0.0.1:1", True),
        ("[::1]:4000", True),
        ("circuit.localhost", True),
        ("evil.example", False),
        (f"evil.example:{server.port}", False),
        ("127.0.0.1.evil.example", False),
        ("[", False),
        ("", False),
    ]:
        answer = await client.get(f"{server.url}/health", headers={"host": host})
        if good:
            assert answer.status_code == 200
        else:
            problem(answer, 421, "invalid_request")
    server.application.state.exposure.local = False
    assert (await client.get(f"{server.url}/health", headers={"host": "circuit.example"})).status_code == 200


async def test_what_http_itself_refuses(server: Served, client: httpx.AsyncClient) -> None:
    problem(await client.get(f"{server.url}/nothing"), 404, "not_found")
    problem(await client.post(f"{server.url}/health"), 405, "invalid_request")
    problem(await client.delete(f"{server.url}/graphql"), 405, "invalid_request")
    problem(await client.post(f"{server.url}/graphql", content=b"{"), 400, "invalid_request")
    problem(await client.post(f"{server.url}/graphql", content=b"query=1"), 400, "invalid_request")


async def test_a_body_that_is_too_large_is_refused(server: Served, client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post(f"{server.url}/graphql", content=b" " * (LARGEST_BODY + 1), headers=headers)
    problem(answer, 413, "payload_too_large")

    async def endless() -> Any:
        for _ in range(LARGEST_BODY // 65536 + 2):
            yield b" " * 65536

    answer = await client.post(f"{server.url}/graphql", content=endless(), headers=headers)
    problem(answer, 413, "payload_too_large")


async def test_who_sends_all_of_a_large_body_before_reading_gets_the_answer(server: Served) -> None:
    length = LARGEST_BODY * 3
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode())
    for _ in range(length // 65536):
        writer.write(b" " * 65536)
        await writer.drain()
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_a_port_that_is_in_use(server: Served) -> None:
    with pytest.raises(Conflict, match=f"port {server.port} of 127.0.0.1 is in use"):
        await serve(server.application, "127.0.0.1", server.port)


@pytest.mark.parametrize("host", ["300.1.2.3", "nowhere.invalid", "192.0.2.1", "\0", "a" * 300])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(InvalidRequest):
        listen(host, 0)


async def test_a_socket_may_be_handed_in(server: Served, client: httpx.AsyncClient) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    urls: list[str] = []
    ready = asyncio.Event()

    def hear(url: str) -> None:
        urls.append(url)
        ready.set()

    task = asyncio.create_task(serve(server.application, sock=given, ready=hear))
    async with asyncio.timeout(SECONDS):
        await ready.wait()
        assert (await client.get(f"{urls[0]}/health")).status_code == 200
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert given.fileno() == -1


@pytest.mark.parametrize(("before", "while_serving"), [(700, collector.YOUNG), (0, 0), (90_000, 90_000)])
async def test_a_process_that_serves_looks_for_garbage_rarely(
    reading: Stage, serving: Serving, before: int, while_serving: int
) -> None:
    chosen = gc.get_threshold()
    gc.set_threshold(before, *chosen[1:])
    try:
        async with serving(reading):
            assert gc.get_threshold() == (while_serving, *chosen[1:])
    finally:
        gc.set_threshold(*chosen)


def test_no_error_repeats_all_that_somebody_sent() -> None:
    told = shown(NotFound(f"there is no workflow {'x' * 1_000_000!r}", details={"of": 1}))
    assert told.message.startswith("there is no workflow 'xxx") and told.message.endswith("(1000023 characters)")
    assert len(told.message) < LONGEST_SAID + 50 and (told.code, told.details) == ("not_found", {"of": 1})
    short = NotFound("there is none")
    assert shown(short) is short
