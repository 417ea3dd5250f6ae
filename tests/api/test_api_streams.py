"""WebSocket, SSE and GraphQL subscriptions over a real server and real clients; another process writes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport
from served import Served, Serving
from stage import Stage, Told, collect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from circuit.events import Frame, StreamDelta, StreamType
from circuit.streams.channel import place

SECONDS = 120.0
WRITING_PROCESS = str(Path(__file__).with_name("writing_process.py"))

# The subscription of the design, to the letter.
DESIGN_OPERATION = """
  subscription AgentExecutionStream($executionId: String!) {
    agentExecutionStream(executionId: $executionId) {
      executionId
      eventType
      content
      status
      toolName
      error
      timestamp
    }
  }
"""
WHOLE_OPERATION = """
  subscription ($executionId: String!, $after: String) {
    agentExecutionStream(executionId: $executionId, after: $after) {
      executionId eventType content status toolName arguments callId result error failure usage output finalResponse
      reason attempt sequence timestamp cursor
    }
  }
"""
IN_GRAPHQL = {"final_response": "finalResponse"}


async def over_websocket(
    server: Served, name: object, after: str | None = None, word: str = "after"
) -> tuple[list[str], int]:
    """The frames, and the code that it closed with."""
    query = "" if after is None else f"?{word}={after}"
    frames: list[str] = []
    async with connect(f"{server.websocket_url}/agent-stream/{name}{query}") as client:
        try:
            while True:
                frames.append(str(await client.recv()))
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return frames, closed.rcvd.code


class Event:
    """One server-sent event as a browser's parser reads it."""

    def __init__(self, block: str) -> None:
        fields: dict[str, str] = {}
        self.comment = False
        for line in block.splitlines():
            if line.startswith(":"):
                self.comment = True
            else:
                name, _, value = line.partition(":")
                assert name not in fields
                fields[name] = value.removeprefix(" ")
        self.fields = fields
        self.id = fields.get("id")
        self.data = fields.get("data")


@asynccontextmanager
async def events_of(
    server: Served, name: object, headers: dict[str, str] | None = None, **query: str
) -> AsyncIterator[AsyncIterator[Event]]:
    async with (
        httpx.AsyncClient(timeout=SECONDS) as client,
        client.stream("GET", f"{server.url}/agent-stream/{name}", headers=headers, params=query) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"

        async def events() -> AsyncIterator[Event]:
            text = ""
            async for part in response.aiter_text():
                text += part
                while "\n\n" in text:
                    block, _, text = text.partition("\n\n")
                    yield Event(block)
            assert text == ""

        async with aclosing(events()) as reading:
            first = await anext(reading)
            assert first.fields == {"retry": "2000"}
            yield reading


async def over_sse(server: Served, name: object, headers: dict[str, str] | None = None, **query: str) -> list[Event]:
    async with events_of(server, name, headers, **query) as events:
        return [event async for event in events if not event.comment]


async def over_graphql(server: Served, name: object, after: str | None = None) -> list[dict[str, Any]]:
    transport = WebsocketsTransport(f"{server.websocket_url}/graphql")
    async with Client(transport=transport) as session:
        request = gql(WHOLE_OPERATION)
        request.variable_values = {"executionId": str(name), "after": after}
        return [result["agentExecutionStream"] async for result in session.subscribe(request)]


def texts(frames: Sequence[Frame]) -> list[str]:
    return [frame.body.decode() for frame in frames]


def in_graphql(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """What GraphQL must say of these frames: the same values, null where the type has no such field."""
    names = WHOLE_OPERATION.partition("after: $after) {")[2].partition("}")[0].split()
    said: list[dict[str, Any]] = []
    for frame in frames:
        values = {IN_GRAPHQL.get(name, name): value for name, value in orjson.loads(frame.body).items()}
        assert set(values) <= set(names)
        if isinstance(values.get("error"), dict):
            values |= {"failure": values["error"], "error": values["error"]["message"]}
        said.append({name: values.get(name) for name in names})
    return said


async def a_whole_stream(told: Told) -> list[Frame]:
    """Two starts with an event of every type."""
    outlet = told.open()
    await outlet.emit(StreamDelta.content("before it was lost"))
    await outlet.close()
    outlet = await told.open_again("the process that ran it was lost")
    await outlet.emit(StreamDelta.thinking("calling the model", "hm"))
    await outlet.emit(StreamDelta.content('quotes " and \n newlines \r\n, NUL \0, ☃ and 😀'))
    await outlet.emit(
        StreamDelta(StreamType.TOOL_CALL, {"toolName": "search", "arguments": {"q": ["a", None]}, "callId": "c1"})
    )
    await outlet.emit(StreamDelta(StreamType.TOOL_RESULT, {"toolName": "search", "result": [1, 2.5], "callId": "c1"}))
    await told.complete(await outlet.close(), "done\0")
    return await collect(told.stage.streams, told.name)


async def test_every_protocol_gives_the_same_frames_live(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as readers:
        websocket = readers.create_task(over_websocket(server, told.name))
        sse = readers.create_task(over_sse(server, told.name))
        graphql = readers.create_task(over_graphql(server, told.name))
        frames = await a_whole_stream(told)
    assert websocket.result() == (texts(frames), 1000)
    assert [event.data for event in sse.result()] == texts(frames)
    assert graphql.result() == in_graphql(frames)
    assert len({frame.type for frame in frames}) == 6
    assert len(server.readers) == 0


async def test_every_protocol_goes_on_from_every_cursor(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    frames = await a_whole_stream(told)
    async with asyncio.timeout(SECONDS):
        for index, frame in enumerate(frames[:-1]):
            rest, after = frames[index + 1 :], str(place(frame))
            for word in ("after", "since"):
                assert await over_websocket(server, told.name, after, word) == (texts(rest), 1000)
            for how in ({"after": after}, {"since": after}, {"headers": {"last-event-id": after}}):
                events = await over_sse(server, told.name, **how)  # type: ignore[arg-type]
                assert [event.data for event in events] == texts(rest)
                assert [event.id for event in events] == [str(place(one)) for one in rest]
                assert all(set(event.fields) == {"id", "data"} for event in events)
            assert await over_graphql(server, told.name, after) == in_graphql(rest)


async def test_a_cursor_of_a_start_that_was_lost_goes_on_with_restarted(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    frames = await a_whole_stream(told)
    async with asyncio.timeout(SECONDS):
        for after in ("1-1", "1-2", "1-900"):
            assert await over_websocket(server, told.name, after) == (texts(frames[1:]), 1000)
            assert [event.data for event in await over_sse(server, told.name, after=after)] == texts(frames[1:])
    assert orjson.loads(frames[1].body)["eventType"] == "restarted"


async def test_nothing_follows_a_terminal_cursor(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    last = str(place((await a_whole_stream(told))[-1]))
    url = f"{server.url}/agent-stream/{told.name}"
    async with httpx.AsyncClient() as client, asyncio.timeout(SECONDS):
        for answer in (
            await client.get(url, params={"after": last}),
            await client.get(url, headers={"last-event-id": last}),
            # What a browser sends when it reconnects: the URL that it began with, and where it is now.
            await client.get(url, params={"after": "1-1"}, headers={"last-event-id": last}),
        ):
            assert (answer.status_code, answer.content) == (204, b"")
        assert await over_websocket(server, told.name, last) == ([], 1000)
        assert await over_graphql(server, told.name, last) == []


async def test_a_cancelled_execution_ends_its_streams(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as readers:
        websocket = readers.create_task(over_websocket(server, told.name))
        sse = readers.create_task(over_sse(server, told.name))
        outlet = told.open()
        await told.say(outlet, ["a"])
        await outlet.close()
        await told.cancel()
    assert websocket.result()[1] == 1000
    assert [event.id for event in sse.result()] == ["1-1"]
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/agent-stream/{told.name}", headers={"last-event-id": "1-1"})
    assert answer.status_code == 204


async def test_an_execution_that_is_not_there(server: Served) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(SECONDS):
        for name in (
            *("abc-123", "0", ".x", "00000000-0000-7000-8000-000000000000.1", "%00", "%F0%9F%98%80", "%ED%A0%80"),
            "a" * 3000,
        ):
            answer = await client.get(f"{server.url}/agent-stream/{name}")
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert set(error) == {"code", "message", "details", "timestamp"}
            assert error["code"] == "not_found"
            assert len(error["message"]) < 300
            assert await over_websocket(server, name) == ([], 4404)


async def test_a_cursor_that_is_none(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    async with httpx.AsyncClient() as client, asyncio.timeout(SECONDS):
        for cursor in ("x", "0-1", "1-0", "1", "-", "1-1-1", "%00", "%ff", "9" * 500):
            answer = await client.get(f"{server.url}/agent-stream/{told.name}?after={cursor}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor")
            assert await over_websocket(server, told.name, cursor) == ([], 4400)
    assert len(server.readers) == 0


async def test_head_begins_no_stream(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    async with httpx.AsyncClient() as client, asyncio.timeout(SECONDS):
        answer = await client.head(f"{server.url}/agent-stream/{told.name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(server.readers) == 0


async def test_what_a_websocket_client_says_is_ignored(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    outlet = told.open()
    async with (
        asyncio.timeout(SECONDS),
        connect(f"{server.websocket_url}/agent-stream/{told.name}") as client,
    ):
        for said in ("hello", "{", b"\0\xff", "x" * 100_000, '{"type": "complete"}'):
            await client.send(said)
        await client.ping()
        await told.say(outlet, ["a"])
        assert orjson.loads(await client.recv())["result"] == "a"
    outlet.abandon()


async def test_a_client_that_goes_ends_its_subscription_at_once(
    server: Served, writing: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await writing.execution()
    outlet = told.open()
    await told.say(outlet, ["a"])
    closed = asyncio.Queue[str]()
    close = server.readers.close

    def noting(reader: Any) -> None:
        close(reader)
        closed.put_nowait(reader.name)

    monkeypatch.setattr(server.readers, "close", noting)
    async with asyncio.timeout(SECONDS):
        async with connect(f"{server.websocket_url}/agent-stream/{told.name}") as client:
            await client.recv()
        await closed.get()
        async with events_of(server, told.name) as events:
            await anext(events)
        await closed.get()
        async with Client(transport=WebsocketsTransport(f"{server.websocket_url}/graphql")) as session:
            request = gql(WHOLE_OPERATION)
            request.variable_values = {"executionId": str(told.name)}
            async with aclosing(session.subscribe(request)) as results:
                await anext(results)
            await closed.get()
    assert len(server.readers) == 0
    assert len(server.office.services.streams._broker) == 0
    outlet.abandon()


def never_reads(server: Served, path: str, *, upgrade: bool) -> socket.socket:
    """A client that asks and then reads nothing, with as little room as the system gives."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.connect(("127.0.0.1", server.port))
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if upgrade:
        head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    client.sendall((head + "\r\n").encode())
    return client


@pytest.fixture
def graceful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops waits for those who are connected longer than any test does: so it must not have to."""
    monkeypatch.setattr("circuit.api.server.GRACE_SECONDS", 2 * SECONDS)


async def test_readers_that_do_not_read_hold_nobody_up_and_stop_no_shutdown(
    reading: Stage, writing: Stage, serving: Serving, graceful: None
) -> None:
    told = await writing.execution()
    stuck: list[socket.socket] = []
    async with serving(reading) as server, asyncio.timeout(SECONDS):
        path = f"/agent-stream/{told.name}"
        stuck += [never_reads(server, path, upgrade=upgrade) for upgrade in (True, False) for _ in range(10)]
        quick = asyncio.create_task(over_websocket(server, told.name))
        outlet = told.open()
        for _ in range(40):
            await told.say(outlet, ["x" * 200_000])
        last = await outlet.close()
        await told.complete(last)
        frames, code = await quick
        assert (len(frames), code) == (41, 1000)
        await server.stop()
    for client in stuck:
        client.close()


async def test_a_server_that_stops_ends_its_streams_and_does_not_wait_for_them(
    reading: Stage, writing: Stage, serving: Serving, graceful: None
) -> None:
    told = await writing.execution()
    outlet = told.open()
    await told.say(outlet, ["a"])
    async with serving(reading) as server, asyncio.timeout(SECONDS):
        async with (
            connect(f"{server.websocket_url}/agent-stream/{told.name}") as client,
            events_of(server, told.name) as events,
        ):
            await client.recv()
            await anext(events)
            stopping = asyncio.create_task(server.stop())
            assert [event async for event in events] == []
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            await stopping
        assert len(server.readers) == 0
    outlet.abandon()


async def test_the_subscription_of_the_design_works_as_it_is_written(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    frames = await a_whole_stream(told)
    async with (
        asyncio.timeout(SECONDS),
        Client(transport=WebsocketsTransport(f"{server.websocket_url}/graphql")) as session,
    ):
        request = gql(DESIGN_OPERATION)
        request.variable_values = {"executionId": str(told.name)}
        said = [result["agentExecutionStream"] async for result in session.subscribe(request)]
    names = ["executionId", "eventType", "content", "status", "toolName", "error", "timestamp"]
    assert said == [{name: event[name] for name in names} for event in in_graphql(frames)]


async def test_a_failure_is_text_in_graphql_and_an_object_elsewhere(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    outlet = told.open()
    failure = {"code": "rate_limit", "message": "slow down", "retryable": True}
    await outlet.emit(StreamDelta(StreamType.FAILED, {"error": failure}))
    await outlet.close()
    async with asyncio.timeout(SECONDS):
        [event] = await over_graphql(server, told.name)
        frames, _ = await over_websocket(server, told.name)
    assert (event["error"], event["failure"]) == ("slow down", failure)
    assert orjson.loads(frames[0])["error"] == failure


async def test_a_writer_that_is_a_process_of_its_own(server: Served, database_url: str) -> None:
    """The writer says its execution's name, waits to be told, speaks and ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        WRITING_PROCESS,
        database_url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    async with asyncio.timeout(SECONDS):
        name = (await process.stdout.readline()).decode().strip()
        async with asyncio.TaskGroup() as readers:
            websocket = readers.create_task(over_websocket(server, name))
            sse = readers.create_task(over_sse(server, name))
            process.stdin.write(b"go\n")
            await process.stdin.drain()
        await process.wait()
    frames, code = websocket.result()
    assert code == 1000
    assert "".join(orjson.loads(frame).get("content", "") for frame in frames) == "".join(map(str, range(500)))
    assert [event.data for event in sse.result()] == frames


async def test_pages_of_other_hosts_may_not_open_a_websocket(reading: Stage, serving: Serving) -> None:
    async with serving(reading, allowed_origins=["https://ui.example"]) as server, asyncio.timeout(SECONDS):
        for origin, allowed in [
            (None, True),
            (server.url, True),
            ("http://localhost:3000", True),
            ("https://ui.example", True),
            ("https://evil.example", False),
            ("http://127.0.0.1.evil.example", False),
            ("null", False),
            ("http://[", False),
        ]:
            for path, protocol in (("/agent-stream/x", None), ("/graphql", ["graphql-transport-ws"])):
                headers = {} if origin is None else {"origin": origin}
                try:
                    async with connect(
                        f"{server.websocket_url}{path}", additional_headers=headers, subprotocols=protocol
                    ):  # type: ignore[arg-type]
                        opened = True
                except Exception as error:
                    assert "403" in str(error)
                    opened = False
                assert opened == allowed, (origin, path)
