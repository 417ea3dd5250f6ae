"""A real HTTP server on loopback that speaks as providers do, for tests: which protocol, the request's path says.

In a test: `async with ChatServer([reply, ...]) as server:` and `server.url`. As a process of its own:
`python tests/chat_server.py --port 0 --script FILE` prints its base URL on the first line; FILE is a JSON list.

A reply is an object; each request takes the next one, and the last one repeats (or, with `when`, the first one whose
text the request's body holds):
  text, object, reasoning, calls, pieces, finish, usage, model, done, newline      see `provider_shapes`
  raw              the exact body of a 200, as text, instead of one made up from the above
  content_type
  cuts             a seed: the body is sent in pieces cut at random byte boundaries
  cut_after        close the connection after so many bytes of the body
  hang             `first_byte` (no status line at all), `content` (headers only) or a number of bytes of the body
  gate             a number of bytes: wait there until `release()` (or `POST /release`)
  status, headers, body      another status, with this body (text, or an object sent as JSON)
  garbage          bytes (latin-1 text) sent instead of an HTTP answer
`GET /requests` gives what was asked for, `POST /release` opens a gate. Nothing here sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from provider_shapes import protocol_of, stream_bytes

DEFAULT_REPLY: dict[str, Any] = {"text": "Hello from the loopback server."}


@dataclass
class Received:
    """One request as it came. `disconnected`: the client closed before the answer was whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    answered: bool = False
    disconnected: bool = False


@dataclass
class Disconnected(Exception):
    """The client went away."""

    at: int = 0


@dataclass
class ChatServer:
    replies: Sequence[dict[str, Any]] = ()
    requests: list[Received] = field(default_factory=list)
    port: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self._changed = asyncio.Condition()
        self._gate = asyncio.Event()
        self._at_gate = 0
        self._taken = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> ChatServer:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def release(self) -> None:
        """Let the replies that wait at their gate go on."""
        self._gate.set()

    async def wait_for(self, condition: Callable[[ChatServer], bool]) -> None:
        """Return when `condition` holds; it is looked at after everything that happens here."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: condition(self)), 180)

    async def at_gate(self, count: int = 1) -> None:
        """Return when so many replies have come to their gate."""
        await self.wait_for(lambda server: server._at_gate >= count)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (received := await _read(reader)) is not None:
                if not await self._answer(received, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection can be used again."""
        if received.path.endswith("/requests"):
            await _send(writer, 200, {}, json.dumps([asdict(r) for r in self.requests]).encode())
            return True
        if received.path.endswith("/release"):
            self.release()
            await _send(writer, 200, {}, b"{}")
            return True
        reply = self._next(received)
        self.requests.append(received)
        await self._notify()
        watcher = asyncio.ensure_future(reader.read(1))
        try:
            async with _aborting(watcher):
                again = await self._perform(reply, writer, protocol_of(received.path))
            received.answered = True
            return again
        except (Disconnected, ConnectionError):
            received.disconnected = True
            return False
        finally:
            watcher.cancel()
            # Not awaited itself: its cancellation and that of this very task would look the same.
            await asyncio.wait([watcher])
            await self._notify()

    def _next(self, received: Received) -> dict[str, Any]:
        body = json.dumps(received.body, ensure_ascii=False)
        for reply in self.replies:
            if "when" in reply and reply["when"] in body:
                return reply
        in_turn = [reply for reply in self.replies if "when" not in reply] or [DEFAULT_REPLY]
        reply = in_turn[min(self._taken, len(in_turn) - 1)]
        self._taken += 1
        return reply

    async def _perform(self, reply: dict[str, Any], writer: asyncio.StreamWriter, protocol: str) -> bool:
        if "garbage" in reply:
            writer.write(reply["garbage"].encode("latin-1"))
            await writer.drain()
            return False
        if reply.get("hang") == "first_byte":
            await asyncio.Event().wait()
        if "status" in reply:
            body = reply.get("body", "")
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            kind = "text/plain" if isinstance(body, str) else "application/json"
            await _send(writer, reply["status"], {"Content-Type": kind} | reply.get("headers", {}), data)
            return True
        return await self._stream(reply, writer, protocol)

    async def _stream(self, reply: dict[str, Any], writer: asyncio.StreamWriter, protocol: str) -> bool:
        body = stream_bytes(reply, protocol)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {reply.get('content_type', 'text/event-stream')}\r\n"
        writer.write((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        await writer.drain()
        if reply.get("hang") == "content":
            await asyncio.Event().wait()
        sent = 0
        stops = {reply[name] for name in ("cut_after", "hang", "gate") if isinstance(reply.get(name), int)}
        for piece in cut(body, reply.get("cuts"), stops):
            if sent == reply.get("cut_after"):
                return False
            if sent == reply.get("hang"):
                await asyncio.Event().wait()
            if sent == reply.get("gate"):
                self._at_gate += 1
                await self._notify()
                await self._gate.wait()
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            sent += len(piece)
        if sent == reply.get("cut_after"):
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def cut(body: bytes, seed: int | None, stops: set[int]) -> list[bytes]:
    """`body` in pieces: at `stops`, and at random boundaries if there is a seed."""
    at = {stop for stop in stops if 0 <= stop < len(body)}
    if seed is not None and len(body) > 1:
        source = random.Random(seed)
        at |= set(source.sample(range(1, len(body)), min(len(body) - 1, source.randint(1, 60))))
    bounds = [*sorted(at - {0}), len(body)]
    pieces = [body[begin:end] for begin, end in zip([0, *bounds], bounds, strict=False)]
    return [piece for piece in pieces if piece]


@asynccontextmanager
async def _aborting(watcher: asyncio.Future[bytes]) -> AsyncIterator[None]:
    """Raise `Disconnected` in the block as soon as the client closes."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    def closed(done: asyncio.Future[bytes]) -> None:
        nonlocal gone
        if not done.cancelled():
            done.exception()
            gone = True
            task.cancel()

    watcher.add_done_callback(closed)
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise Disconnected from None
    finally:
        watcher.remove_done_callback(closed)


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    data = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, json.loads(data) if data else None)


async def _send(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes) -> None:
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
    await writer.drain()


async def _main(port: int, replies: list[dict[str, Any]]) -> None:
    async with ChatServer(replies, port=port) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path)
    arguments = parser.parse_args()
    script = json.loads(arguments.script.read_text()) if arguments.script else []
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(arguments.port, script))
    sys.exit(0)
