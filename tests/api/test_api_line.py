"""The short way to a socket: the same bytes as the server's own, and for slow clients the server's own way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import h11
import pytest
from eventually import eventually
from served import Served, Serving
from stage import Stage, collect
from test_api_multiplex import client
from test_api_streams import events_of, in_graphql, over_graphql, over_sse, over_websocket, texts
from websockets.asyncio.client import connect
from websockets.frames import Frame as Message
from websockets.frames import Opcode

from circuit.api.line import chunk, message, response_line, socket_line
from circuit.api.sse import event
from circuit.events import Frame
from circuit.streams.reader import Line, Reader

SECONDS = 120.0
LENGTHS = (0, 1, 125, 126, 200, 65_535, 65_536, 200_000)


@pytest.fixture
async def writing(database_url: str) -> AsyncIterator[Stage]:
    """Nobody is woken but by what comes: who looks for it himself takes no line."""
    async with Stage(database_url, poll_seconds=600) as stage:
        yield stage


@pytest.mark.parametrize("length", LENGTHS)
def test_a_message_and_a_chunk_are_what_the_libraries_make_of_them(length: int) -> None:
    body = b"x" * length
    assert message(body) == Message(Opcode.TEXT, body).serialize(mask=False)
    if length:  # an empty chunk would be the last
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        connection.next_event()
        connection.send(h11.Response(status_code=200, headers=[("transfer-encoding", "chunked")]))
        assert chunk(body) == connection.send(h11.Data(data=body))


def test_what_is_no_connection_of_the_server_has_no_line() -> None:
    async def send(message: Any) -> None:
        raise AssertionError("nothing is sent")

    assert socket_line(send, lambda frame: frame.body) is None
    assert response_line(send, lambda frame: frame.body) is None


class Lines:
    """What went down the lines of readers, by the number of the reader."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[int] = []
        self._readers: list[Reader] = []
        send_through = Reader.send_through

        def noting(reader: Reader, line: Line) -> None:
            number = len(self.taken)
            self.taken.append(0)
            self._readers.append(reader)

            def noted(frames: Sequence[Frame]) -> int:
                taken = line(frames)
                self.taken[number] += taken
                return taken

            send_through(reader, noted)

        monkeypatch.setattr(Reader, "send_through", noting)

    async def ready(self, count: int) -> None:
        """So many readers wait for what comes next."""

        def wait() -> bool:
            waiters = [reader._waiter for reader in self._readers]
            return len(waiters) == count and all(one is not None and not one.done() for one in waiters)

        await eventually(wait, what="the readers")


async def over_multiplex(server: Served, name: object) -> list[str]:
    async with client(server) as reading:
        await reading.subscribe("one", execution=str(name))
        await reading.until("complete", "one")
        return reading.frames["one"]


async def test_every_protocol_has_a_line_and_says_the_same_through_it(
    writing: Stage, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server knows its connections by their classes, which may be others in another release."""
    lines = Lines(monkeypatch)
    told = await writing.execution()
    outlet = told.open()
    await told.say(outlet, ["before anybody reads"])
    async with serving(writing) as server, asyncio.timeout(SECONDS):
        websocket = asyncio.create_task(over_websocket(server, told.name))
        sse = asyncio.create_task(over_sse(server, told.name))
        graphql = asyncio.create_task(over_graphql(server, told.name))
        multiplexed = asyncio.create_task(over_multiplex(server, told.name))
        await lines.ready(4)
        said = ["a", "\u2603", "x" * 120, "x" * 70_000, "x" * 300]
        for word in said:
            await told.say(outlet, [word])
            await asyncio.sleep(0)
        await told.complete(await outlet.close())
        stored = await collect(writing.streams, told.name)
        assert len(stored) == len(said) + 2
        assert await websocket == (texts(stored), 1000)
        assert [event.data for event in await sse] == texts(stored)
        assert await graphql == in_graphql(stored)
        assert await multiplexed == texts(stored)
    assert all(taken >= len(said) for taken in lines.taken)


async def test_clients_that_stop_reading_get_everything_once_they_go_on(
    writing: Stage, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines(monkeypatch)
    told = await writing.execution()
    outlet = told.open()
    await told.say(outlet, ["a"])
    async with serving(writing) as server, asyncio.timeout(SECONDS):
        quick = asyncio.create_task(over_websocket(server, told.name))
        async with (
            connect(f"{server.websocket_url}/agent-stream/{told.name}", max_queue=1) as slow,
            events_of(server, told.name) as slow_events,
        ):
            frames = [str(await slow.recv())]
            events = [await anext(slow_events)]
            await lines.ready(3)
            for number in range(200):  # 20 MB, and so more than the sockets hold
                await told.say(outlet, [f"{number:5}" + "x" * 100_000])
            await told.complete(await outlet.close())
            seen, code = await quick  # nobody waits for the slow ones
            assert (len(seen), code) == (202, 1000)
            frames += [str(frame) async for frame in slow]
            events += [event async for event in slow_events]
        assert frames == seen
        assert [event.data for event in events if not event.comment] == seen
        assert len(server.readers) == 0


async def test_a_client_of_http_1_0_gets_the_stream_without_chunks(writing: Stage, serving: Serving) -> None:
    told = await writing.execution()
    outlet = told.open()
    await told.say(outlet, ["a"])
    async with serving(writing) as server, asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET /agent-stream/{told.name} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"data: ") + await reader.readuntil(b"\n\n")
        await told.say(outlet, ["b"])
        await told.complete(await outlet.close())
        body += await reader.read()
        writer.close()
        assert b"chunked" not in head
        assert body == b"retry: 2000\n\n" + b"".join(
            event(frame) for frame in await collect(writing.streams, told.name)
        )
