"""Many readers that come at the same instant: each is let in for itself, and all look into the log together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
from served import Served, Serving
from sqlalchemy import event
from stage import Stage, collect
from test_api_multiplex import client
from test_api_streams import a_whole_stream, in_graphql, over_graphql, over_sse, over_websocket, texts

from circuit.api.authentication import Gate, Verifiers
from circuit.engine.guesses import SharedGuesses
from circuit.engine.keys import Keys
from circuit.engine.reach import Reach
from circuit.errors import InvalidCursor, NotFound
from circuit.ids import Numbered
from circuit.security.access import Access
from circuit.security.guesses import FREE_GUESSES
from circuit.security.principal import LOCAL
from circuit.storage.database import Database, TenantConnection
from circuit.storage.ferry import LANES
from circuit.streams.cursor import Cursor
from circuit.streams.reader import Reader
from circuit.streams.workflow import WorkflowFollower

SECONDS = 120.0
MANY = 1_000
OF_EACH = 10
STATEMENTS = 3
"""That a look needs, and one more where it finds that nothing follows."""


class Turnstile:
    """Counts transactions and statements of a database, and lets none begin before it is `open`."""

    def __init__(self, database: Database) -> None:
        self.open = asyncio.Event()
        self.counted: Counter[str] = Counter()
        self._whole = database.transaction
        database.transaction = self._transaction  # type: ignore[method-assign]
        engine: Any = database
        event.listen(engine._engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.counted["statements"] += 1

    @asynccontextmanager
    async def _transaction(self, tenant: int) -> AsyncGenerator[TenantConnection]:
        self.counted["transactions"] += 1
        await self.open.wait()
        async with self._whole(tenant) as connection:
            yield connection


async def over_multiplex(server: Served, name: object) -> list[str]:
    async with client(server) as one:
        await one.subscribe("it", execution=str(name))
        await one.until("complete", "it")
    return one.frames["it"]


def hold_until(stage: Stage, count: int) -> asyncio.Event:
    """Set when somebody holds a channel for the `count`th time: they have all asked."""
    asked, hold, held = asyncio.Event(), stage.broker.hold, 0

    def counted(name: str) -> Any:
        nonlocal held
        held += 1
        if held == count:
            asked.set()
        return hold(name)

    stage.broker.hold = counted  # type: ignore[method-assign]
    return asked


async def test_a_crowd_over_every_protocol_looks_a_few_times(reading: Stage, writing: Stage, serving: Serving) -> None:
    told = await writing.execution()
    frames = await a_whole_stream(told)
    asked = hold_until(reading, 4 * OF_EACH)
    turnstile = Turnstile(reading.database)
    async with serving(reading) as server, asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        everywhere = [
            [group.create_task(over(server, told.name)) for _ in range(OF_EACH)]  # type: ignore[operator]
            for over in (over_websocket, over_sse, over_graphql, over_multiplex)
        ]
        await asked.wait()
        turnstile.open.set()
    websocket, sse, graphql, multiplex = [[one.result() for one in readers] for readers in everywhere]
    assert websocket == [(texts(frames), 1000)] * OF_EACH
    assert [[one.data for one in events] for events in sse] == [texts(frames)] * OF_EACH
    assert graphql == [in_graphql(frames)] * OF_EACH
    assert multiplex == [texts(frames)] * OF_EACH
    # The first of them did not wait for the others.
    assert turnstile.counted["transactions"] <= LANES + 1


async def test_a_thousand_look_three_times_and_each_gets_what_is_its_own(reading: Stage, writing: Stage) -> None:
    told, other = await writing.execution(), await writing.execution()
    frames = await a_whole_stream(told)
    outlet = other.open()
    await other.say(outlet, ["said"])
    await outlet.close()
    turnstile = Turnstile(reading.database)
    streams = reading.streams
    last = Cursor(frames[-1].start, frames[-1].sequence)
    asked = hold_until(reading, MANY + 6)
    crowd = [asyncio.ensure_future(streams.open(told.name, 1)) for _ in range(MANY)]
    foreign = asyncio.ensure_future(streams.open(told.name, 2))
    missing = asyncio.ensure_future(streams.open(Numbered(told.key.case, 7), 1))
    behind = asyncio.ensure_future(streams.open(told.name, 1, Cursor(1, 1)))
    ended = asyncio.ensure_future(streams.open(told.name, 1, last))
    second = asyncio.ensure_future(streams.open(other.name, 1))
    to_come = asyncio.ensure_future(streams.open(other.name, 1, Cursor(2, 1)))
    async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
        await asked.wait()
        crowd.pop(5).cancel()
        turnstile.open.set()
        for refused, error in ((foreign, NotFound), (missing, NotFound), (to_come, InvalidCursor)):
            assert isinstance((await asyncio.gather(refused, return_exceptions=True))[0], error)
        readers: list[Reader] = await asyncio.gather(*crowd, behind, ended, second)
        for reader in readers:
            stack.callback(reader.close)
        *crowd_readers, one_behind, one_ended, one_second = readers
        assert one_ended.over
        # The other tenant's look is one of its own.
        counted = turnstile.counted
        assert counted["transactions"] <= LANES + 2
        assert counted["statements"] <= (LANES + 1) * STATEMENTS + 1
        for reader, expected in ((crowd_readers[0], frames), (crowd_readers[-1], frames), (one_behind, frames[1:])):
            said = [frame for _ in expected if not reader.over for frame in await reader.read()]
            assert texts(said) == texts(expected) and reader.over
        [only] = await one_second.read()
        assert orjson.loads(only.body)["result"] == "said"
    assert len(reading.broker) == 0
    turnstile.counted.clear()
    async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
        opened = await asyncio.gather(
            *(streams.open_workflow(1, "flow") for _ in range(MANY)),
            streams.open_workflow(1, "none"),
            return_exceptions=True,
        )
        assert isinstance(opened.pop(), NotFound)
        followers = [one for one in opened if isinstance(one, WorkflowFollower)]
        for follower in followers:
            stack.callback(follower.close)
        await asyncio.gather(*(streams.require(told.key) for _ in range(MANY)))
    assert len(followers) == MANY and turnstile.counted["transactions"] <= 2 * LANES
    assert texts(await collect(streams, told.name)) == texts(frames)


async def test_a_crowd_with_one_key_asks_for_it_a_few_times(reading: Stage) -> None:
    clock, database = reading.clock, reading.database
    made = await Keys(database, clock.now, clock.monotonic).create("board", ["viewer"], LOCAL)
    keys = Keys(database, clock.now, clock.monotonic)
    guesses = SharedGuesses(clock.monotonic, Reach(database, clock.monotonic))

    async def nothing(_: object) -> Any:
        raise AssertionError("nobody shows a token here")

    gate = Gate(
        Access(), Verifiers(keys.principal, nothing, nothing), clock, required=True, otherwise=LOCAL, guesses=guesses
    )
    turnstile = Turnstile(database)
    turnstile.open.set()
    found = await asyncio.gather(*(gate.admit(made.text, address="192.0.2.1") for _ in range(MANY)))
    assert {one.subject for one in found} == {"key:board"}
    # As many may look before the first is in as may be wrong for nothing.
    assert turnstile.counted["transactions"] <= 2 * FREE_GUESSES
    # A second server, or this one when it asks again: all who come with what is known to hold.
    again = Keys(database, clock.now, clock.monotonic)
    turnstile.counted.clear()
    await asyncio.gather(*(again.principal(made.text) for _ in range(MANY)))
    assert turnstile.counted["transactions"] <= LANES
