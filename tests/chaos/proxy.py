"""A proxy on loopback between workers and Postgres, that breaks connections in the ways in which networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field

READ_BYTES = 65_536
READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"
"""How a server ends its answer to a statement outside of a transaction: whatever it was, it is committed."""


@dataclass(eq=False)
class Pair:
    """One connection through the proxy. While `open` is not set nothing is forwarded, and nobody is told.
    `losing` swallows the next answer that says that a statement is committed, and cuts the connection then."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: bool = False
    losing: bool = False

    def __post_init__(self) -> None:
        self.open.set()

    def reset(self) -> None:
        """End both sides at once and without a farewell: the peers see ECONNRESET."""
        for writer in (self.client, self.server):
            there: socket.socket | None = writer.get_extra_info("socket")
            if there is not None:
                with contextlib.suppress(OSError):
                    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def cut(self) -> None:
        """End both sides as a process that ends does: the peers see the end of the stream."""
        self.client.close()
        self.server.close()


class Proxy:
    """Forwards connections to `port` of loopback. The methods change what happens to those that there are now;
    `delay` and `refusing` also hold for those that come."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.delay = 0.0
        self.refusing = False
        self.lost = 0
        self._pairs: set[Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self) -> None:
        for pair in list(self._pairs):
            pair.cut()

    def reset(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    def half_open(self) -> None:
        """The connections that there are become black holes; new ones are fine."""
        for pair in self._pairs:
            pair.open.clear()

    def lose_acknowledgements(self) -> None:
        """Of each connection that there is, the answer to the next statement is lost, with the connection."""
        for pair in self._pairs:
            pair.losing = True
            pair.asked = False

    def heal(self) -> None:
        """No fault any more. What fell into a black hole stays there: those connections are cut."""
        self.delay = 0.0
        self.refusing = False
        for pair in list(self._pairs):
            pair.losing = False
            if not pair.open.is_set():
                pair.reset()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        pair: Pair | None = None
        try:
            if self.refusing:
                return
            answers, server = await asyncio.open_connection("127.0.0.1", self.target)
            pair = Pair(writer, server)
            self._pairs.add(pair)
            ways = [
                asyncio.ensure_future(self._forward(pair, reader, server, asking=True)),
                asyncio.ensure_future(self._forward(pair, answers, writer, asking=False)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            if pair is not None:
                self._pairs.discard(pair)
                pair.server.close()

    async def _forward(
        self, pair: Pair, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, asking: bool
    ) -> None:
        while data := await source.read(READ_BYTES):
            if self.delay and asking:
                await asyncio.sleep(self.delay)
            await pair.open.wait()
            if pair.losing:
                if asking:
                    pair.asked = True
                elif pair.asked and data.endswith(READY_FOR_QUERY):
                    self.lost += 1
                    pair.reset()
                    return
            sink.write(data)
            await sink.drain()
