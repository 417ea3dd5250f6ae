"""One connection of the writer, with the statements that are prepared on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from circuit.errors import StorageError
from circuit.storage.batch import EMPTY
from circuit.storage.driver import Connection, Statement
from circuit.storage.statements import BY_NAME, PLANNER, SECTIONS, compose

MOST_STATEMENTS = 32
"""How many statements a connection keeps prepared; beyond that, one that does more is sent with empty arrays."""
SEND_SECONDS = 30.0
"""After so long without an answer the connection counts as lost."""
CLOSE_SECONDS = 2.0

_ALL = tuple(section.name for section in SECTIONS)


class Source(Protocol):
    """Where connections under the engine's role come from: the `Database`."""

    async def raw(self) -> Connection: ...


class Lane:
    """A connection that sends batches, one at a time."""

    def __init__(self, database: Source, worker: UUID) -> None:
        self._database = database
        self._worker = worker
        self._connection: Connection | None = None
        self._prepared: dict[tuple[str, ...], Statement] = {}

    @property
    def connection(self) -> Connection:
        """The present connection. Raises `StorageError` if there is none."""
        if self._connection is None:
            raise StorageError("the writer is not connected")
        return self._connection

    async def connect(self) -> None:
        """Give up the present connection, if there is one, and make a new one. Raises `StorageError`."""
        await self._give_up()
        connection = await self._database.raw()
        try:
            await connection.execute(PLANNER)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def send(self, names: tuple[str, ...], given: Sequence[Any]) -> None:
        """Send the sections `names`; returns when they are committed. Raises what the driver does."""
        statement = self._prepared.get(names)
        if statement is None:
            statement, names, given = await self._statement(names, given)
        await statement.fetchval(self._worker, *given, timeout=SEND_SECONDS)

    async def close(self) -> None:
        """Give up the connection."""
        await self._give_up(CLOSE_SECONDS)

    async def _statement(
        self, names: tuple[str, ...], given: Sequence[Any]
    ) -> tuple[Statement, tuple[str, ...], Sequence[Any]]:
        """A prepared statement that does what `names` say, perhaps more, and its parameters."""
        if len(self._prepared) < MOST_STATEMENTS:
            wanted = names
        else:
            # Sets of sections that come so late are seldom ones: an empty section costs less than a plan.
            covering = [known for known in self._prepared if set(names) <= set(known)]
            wanted = min(covering, key=len, default=_ALL)
        statement = self._prepared.get(wanted)
        if statement is None:
            statement = self._prepared[wanted] = await self.connection.prepare(compose(wanted))
        return statement, wanted, given if wanted == names else _spread(names, given, wanted)

    async def _give_up(self, seconds: float | None = None) -> None:
        connection, self._connection = self._connection, None
        self._prepared.clear()
        if connection is None:
            return
        if seconds is None:
            # It is lost, or in a state that nobody knows: no farewell.
            connection.terminate()
            return
        try:
            await connection.close(timeout=seconds)
        except (OSError, TimeoutError, asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()


def _spread(names: tuple[str, ...], given: Sequence[Any], wanted: tuple[str, ...]) -> list[Any]:
    """`given` with nothing for the sections that `wanted` has and `names` has not."""
    left = iter(given)
    spread: list[Any] = []
    for name in wanted:
        section = BY_NAME[name]
        if section.guards:
            spread.append(next(left) if name in names else 0)
        spread.extend(next(left) if name in names else EMPTY for _ in section.columns)
    return spread
