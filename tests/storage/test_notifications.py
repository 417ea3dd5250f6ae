"""Hints between processes: coalesced, bounded, and never more than hints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from eventually import eventually

from circuit.errors import DatabaseUnreachable
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.notifications import CHANNEL, LARGEST_PAYLOAD, Listener, Notifier


class Heard:
    """What a listener heard, one entry a NOTIFY."""

    def __init__(self) -> None:
        self.hints: list[list[str]] = []
        self.new = asyncio.Event()

    def __call__(self, names: Sequence[str]) -> None:
        self.hints.append(list(names))
        self.new.set()

    @property
    def names(self) -> list[str]:
        return [name for hint in self.hints for name in hint]

    async def until(self, count: int) -> None:
        while len(self.names) < count:
            self.new.clear()
            async with asyncio.timeout(60):
                await self.new.wait()


async def test_ids_are_coalesced_into_one_notify(database: Database) -> None:
    heard = Heard()
    listener, notifier = Listener(database, heard), Notifier(database)
    listener.start()
    notifier.start()
    await listener.started.wait()
    assert listener.listening
    for number in range(50):
        notifier.notify(f"case-{number}")
        notifier.notify("case-0")
    await heard.until(50)
    assert heard.hints == [[f"case-{number}" for number in range(50)]]
    await asyncio.gather(notifier.stop(), listener.stop())
    await asyncio.gather(notifier.stop(), listener.stop())
    assert notifier.sent == 1
    assert not listener.listening


async def test_more_ids_than_one_notify_holds(database: Database) -> None:
    heard = Heard()
    listener, notifier = Listener(database, heard), Notifier(database)
    listener.start()
    await listener.started.wait()
    names = [f"{number:036}" for number in range(1_000)]
    notifier.notify("x" * 9_000)
    for name in names:
        notifier.notify(name)
    notifier.start()
    await heard.until(1_000)
    assert heard.names == names
    assert 4 < len(heard.hints) < 7
    assert all(len(" ".join(hint)) < LARGEST_PAYLOAD for hint in heard.hints)
    await notifier.stop()
    await listener.stop()


async def test_stopping_sends_what_waits(database: Database) -> None:
    heard = Heard()
    listener, notifier = Listener(database, heard), Notifier(database, collect_seconds=0.001)
    listener.start()
    await listener.started.wait()
    notifier.start()
    notifier.notify("last")
    await notifier.stop()
    await heard.until(1)
    assert heard.names == ["last"]
    await listener.stop()


async def test_a_listener_comes_back_and_says_that_it_was_away(database: Database, witness: Connection) -> None:
    heard = Heard()
    listener = Listener(database, heard)
    listener.start()
    await listener.started.wait()
    ended = await witness.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    )
    assert ended == 1
    await eventually(lambda: heard.hints == [[]], what="the listener's word that it was away")
    assert listener.listening
    await witness.execute("SELECT pg_notify($1, 'a b')", CHANNEL)
    await heard.until(2)
    assert heard.hints == [[], ["a", "b"]]
    await listener.stop()


async def test_a_lost_connection_loses_only_hints(database: Database, witness: Connection) -> None:
    heard = Heard()
    listener, notifier = Listener(database, heard), Notifier(database, collect_seconds=0.001)
    listener.start()
    notifier.start()
    await listener.started.wait()
    notifier.notify("before")
    await heard.until(1)
    await witness.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_notify%' AND state = 'idle'"
    )

    async def after() -> bool:
        notifier.notify("after")
        return "after" in heard.names

    await eventually(after, what="a hint after the connection was lost")
    await notifier.stop()
    await listener.stop()


async def test_a_notifier_without_a_database_is_only_silent() -> None:
    class Nowhere:
        async def raw(self) -> Any:
            raise DatabaseUnreachable("not here")

    notifier = Notifier(Nowhere(), collect_seconds=0)
    for number in range(20_000):
        notifier.notify(str(number))
    notifier.start()
    await notifier.stop()
    assert notifier.sent == 0


async def test_a_reader_that_raises_does_not_end_the_listener(database: Database, witness: Connection) -> None:
    heard = Heard()

    def hear(names: Sequence[str]) -> None:
        heard(names)
        raise RuntimeError("a fault of the reader")

    listener = Listener(database, hear)
    listener.start()
    await listener.started.wait()
    for name in ("a", "b"):
        await witness.execute("SELECT pg_notify($1, $2)", CHANNEL, name)
    await heard.until(2)
    assert heard.names == ["a", "b"]
    await listener.stop()


async def test_a_listener_notices_a_connection_that_is_dead_without_a_word(database: Database) -> None:
    connections: list[Connection] = []

    class Deaf:
        def __init__(self, connection: Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        async def fetchval(self, query: str, timeout: float | None = None) -> Any:
            raise TimeoutError("no answer")

    class Half:
        """A database of whose connections the first is half open."""

        async def raw(self) -> Any:
            connection = await database.raw()
            connections.append(connection)
            return Deaf(connection) if len(connections) == 1 else connection

    told = asyncio.Event()
    listener = Listener(Half(), lambda names: told.set(), check_seconds=0.01)
    listener.start()
    async with asyncio.timeout(60):
        await told.wait()
    assert len(connections) == 2
    assert connections[0].is_closed()
    assert listener.listening
    await listener.stop()
