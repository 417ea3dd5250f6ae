"""The server side of the fan-out benchmark: one stream, many readers, one process. `python -m benchmarks.stream_server`

Circuit's side is its own application and server, with a stream that is fed here and already in its ring, so that what
is measured is the way from an encoded frame to the sockets (what storing costs is measured with the firings). The
raw side is the least that an ASGI application can do: each handler walks over the same encoded frames and waits for
one shared future where there are no more.

An event is said when every reader has sent the last one (they send in turn, so it is enough to ask the last). So each
event is sent for itself to each reader, as it is when an agent speaks, and nothing is gained by sending several at
once. How many events are said next comes as a number a line on the standard input, and what they took goes back as one
line of JSON; at the end of the input comes the terminal event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import uvicorn

from circuit.api.application import create_application
from circuit.api.authentication import Gate
from circuit.api.readers import Readers
from circuit.api.server import serve
from circuit.api.services import Services
from circuit.app import SystemClock
from circuit.events import Frame, StreamDelta, StreamType
from circuit.ids import Numbered
from circuit.security.principal import LOCAL
from circuit.streams.broker import Broker
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.encoding import encode
from circuit.streams.log import FramePage
from circuit.streams.reader import Reader
from circuit.streams.relay import Relay
from circuit.streams.subscription import Streams

EXECUTION = Numbered(UUID("0199a000-0000-7000-8000-000000000001"), 1)
PASSES = 3
"""Turns of the event loop in which an event mostly reaches everybody."""
TEXT = "all is well in this part of the text "

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


SPOKEN = StreamDelta.content(TEXT)
LAST = StreamDelta(StreamType.COMPLETED, {"final_response": "done", "usage": {}, "output": None})


def frame(number: int, delta: StreamDelta = SPOKEN) -> Frame:
    """An event of some 200 bytes."""
    return encode(str(EXECUTION), 1, number, delta, datetime.now(UTC))


class Fed:
    """A stream of this process that is in no database: `Streams` as far as the server's readers need it."""

    start = 1

    def __init__(self) -> None:
        self.broker = Broker()
        self.relay = Relay(self.broker)
        self.channel = self.broker.hold(str(EXECUTION))
        self.channel.feeder = self
        self.readers: list[Reader] = []

    async def open(self, execution: Numbered, tenant: int, after: Cursor | None = None) -> Reader:
        async def look(cursor: Cursor, most_bytes: int) -> FramePage:
            return FramePage((), ended=False)

        reader = Reader(str(execution), after or BEGINNING, look, self.broker, self.relay)
        await reader.open()
        self.readers.append(reader)
        return reader

    def say(self, frame: Frame) -> None:
        self.channel.append(frame)

    def reached(self) -> int:
        return self.readers[-1].cursor.sequence

    def count(self) -> int:
        return len(self.readers)


class Raw:
    """The raw ASGI application, for WebSocket and for server-sent events."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.events: list[bytes] = []
        self.at: dict[int, int] = {}
        self.over = False
        self.more: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def say(self, frame: Frame) -> None:
        self.said.append(frame.body.decode())
        self.events.append(b"id: %d-%d\ndata: %b\n\n" % (frame.start, frame.sequence, frame.body))
        self.over = frame.terminal
        more, self.more = self.more, asyncio.get_running_loop().create_future()
        more.set_result(None)

    def reached(self) -> int:
        return self.at[len(self.at) - 1]

    def count(self) -> int:
        return len(self.at)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number = len(self.at)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            self.at[number] = 0
            async for index in self._indices(number):
                await send({"type": "websocket.send", "text": self.said[index]})
            await send({"type": "websocket.close"})
        else:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self.at[number] = 0
            async for index in self._indices(number):
                await send({"type": "http.response.body", "body": self.events[index], "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _indices(self, number: int) -> AsyncGenerator[int]:
        index = 0
        while True:
            while index < len(self.said):
                yield index
                index += 1
                self.at[number] = index
            if self.over:
                return
            await self.more


async def feed(source: Fed | Raw, readers: int) -> None:
    """Say as much as is asked for, as fast as the readers take it, and print what it took."""
    while source.count() < readers:
        await asyncio.sleep(0.01)
    said = 0
    print("ready", flush=True)
    while asked := await asyncio.to_thread(sys.stdin.readline):
        frames = [frame(number) for number in range(said + 1, said + 1 + int(asked))]
        began, cpu = time.perf_counter(), time.process_time()
        for one in frames:
            source.say(one)
            for _ in range(PASSES):
                await asyncio.sleep(0)
            while source.reached() < one.sequence:
                await asyncio.sleep(0)
        took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        said += len(frames)
        print(json.dumps(took), flush=True)
    source.say(frame(said + 1, LAST))


async def run(mode: str, readers: int) -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    listening.setblocking(False)
    print(listening.getsockname()[1], flush=True)
    if mode == "raw":
        source: Fed | Raw = Raw()
        config = uvicorn.Config(
            cast("Any", source), ws="websockets-sansio", ws_per_message_deflate=False, lifespan="off", log_config=None
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
    else:
        source = Fed()
        services = Services(
            commands=cast("Any", None),
            queries=cast("Any", None),
            pages=cast("Any", None),
            inbox=cast("Any", None),
            messages=cast("Any", None),
            publishing=cast("Any", None),
            schedules=cast("Any", None),
            fleet=cast("Any", None),
            catalogue=cast("Any", None),
            streams=cast("Streams", source),
            load=cast("Any", None),
            gate=Gate.open(SystemClock(), LOCAL),
            ready=cast("Any", None),
            conversations=cast("Any", None),
            clock=SystemClock(),
        )
        application = create_application(services)
        assert isinstance(application.state.readers, Readers)
        serving = asyncio.create_task(serve(application, sock=listening))
    await feed(source, readers)
    # The parent ends this process when its readers have everything.
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.stream_server", description=__doc__)
    parser.add_argument("mode", choices=["raw", "circuit"])
    parser.add_argument("readers", type=int)
    options = parser.parse_args()
    asyncio.run(run(options.mode, options.readers))


if __name__ == "__main__":
    main()
