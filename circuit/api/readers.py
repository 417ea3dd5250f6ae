"""The streams that are being read through this server, and the answers that are waited for, so that they can all be
ended when it stops."""

from __future__ import annotations

import asyncio
from typing import Protocol

from circuit.errors import NotFound
from circuit.ids import parse_numbered
from circuit.security.principal import Principal
from circuit.streams.cursor import Cursor
from circuit.streams.reader import Reader
from circuit.streams.subscription import Streams

LONGEST_SHOWN = 80
GRACE_SECONDS = 5
"""How long requests that are no streams have to finish when the server stops."""
LEAVING_SECONDS = 4.0
"""After so long, whoever waits for an answer is told that it does not come: there is time for that to reach him."""
RESTARTING = "the server stops before it has the answer: ask again"


class Stoppable(Protocol):
    """What can be told to end."""

    def stop(self) -> None: ...


class Readers:
    """Opens readers for requests, and knows those that are open."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._open: set[Reader] = set()
        self._connections: dict[Stoppable, float] = {}
        self.draining = False
        """Whether the server is stopping: whoever reads should come back later, with the cursor it has."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def lag(self) -> int:
        """How many frames that are live here the one that is behind the most has yet to take."""
        return max((reader.behind for reader in self._open), default=0)

    async def open(self, execution: str, after: str | None, principal: Principal) -> Reader:
        """A reader of `execution` behind the cursor `after`, if one is given. Close it through `close`.

        Raises `Forbidden`, `NotFound`, `InvalidCursor` and `StorageError`.
        """
        principal.require_stream(execution)
        name = parse_numbered(execution)
        if name is None:
            raise NotFound(f"there is no execution {execution[:LONGEST_SHOWN]!r}; an id looks like CASE.NUMBER")
        cursor = Cursor.parse(after) if after else None
        reader = await self._streams.open(name, principal.tenant, cursor)
        self._open.add(reader)
        if self.draining:
            reader.stop()
        return reader

    def close(self, reader: Reader) -> None:
        """Give a reader back. Doing it twice is fine."""
        self._open.discard(reader)
        reader.close()

    def enter(self, connection: Stoppable, patience: float = 0.0) -> None:
        """A connection that sees itself to what it reads, and has to end when the server stops, or `patience` later."""
        self._connections[connection] = patience
        if self.draining:
            self._stop(connection, patience)

    def leave(self, connection: Stoppable) -> None:
        """The connection has ended."""
        self._connections.pop(connection, None)

    def drain(self) -> None:
        """End every stream, those that are opened later too."""
        self.draining = True
        # First the connections of many streams: they say themselves why they end.
        for connection, patience in list(self._connections.items()):
            self._stop(connection, patience)
        for reader in self._open:
            reader.stop()

    @staticmethod
    def _stop(connection: Stoppable, patience: float) -> None:
        if patience:
            asyncio.get_running_loop().call_later(patience, connection.stop)
        else:
            connection.stop()
