"""The outbox: each event once in the commit that records it, and no reader skips one that is committed late."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from uuid import UUID

import asyncpg
import pytest
from eventually import eventually
from parts import SystemIds
from running import CHAIN, engine, publish, start, until

from circuit.definition import load_workflow
from circuit.engine.engine import Engine
from circuit.engine.outbox import BEGINNING, Mark, Message, Outbox, mark, shown
from circuit.errors import DefinitionError, InvalidRequest, NotFound
from circuit.ids import CaseKey
from circuit.storage.database import Database

LEAVING = "outbox: [case_started, transition_fired, case_ended]\n" + CHAIN.lstrip()
SILENT = CHAIN.replace("chain", "silent")


@pytest.fixture
def box(database: Database) -> Outbox:
    return Outbox(database, 1)


async def taken(box: Outbox, consumer: str, most: int = 10_000) -> list[Message]:
    """What a consumer gets now: it takes `most`, and asks for no more."""
    found: list[Message] = []
    async with aclosing(box.messages(consumer, follow=False)) as messages:
        async for message in messages:
            if len(found) == most:
                break
            found.append(message)
    return found


async def completed(database: Database, running: Engine, key: CaseKey) -> None:
    """A case has ended, and what it has told can be read: that waits for every transaction that began before, whoever's
    it is, and some are the server's own."""
    await until(running, key, "completed")
    connection = await database.raw()

    async def readable() -> bool:
        late = "SELECT count(*) FROM circuit.outbox WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        return await connection.fetchval(late) == 0

    await eventually(readable, what="the end of what began before")
    await connection.close()


async def test_events_leave_that_the_workflow_names(database: Database, box: Outbox) -> None:
    async with engine(database) as running:
        await publish(running, LEAVING)
        await publish(running, SILENT)
        keys = [await start(running, name) for name in ("chain", "silent", "chain")]
        for key in keys:
            await completed(database, running, key)
    found = await box.read()
    kinds = ["case_started", "transition_fired", "transition_fired", "case_ended"]
    for key in (keys[0], keys[2]):
        told = [message for message in found if message.key == key]
        assert [message.kind for message in told] == kinds
        assert [message.seq for message in told] == [1, 2, 3, 4]
        assert shown(told[0])["event"]["workflow"] == "chain"
    assert {message.workflow_id for message in found} == {"chain"}
    assert [message.mark for message in found] == sorted(message.mark for message in found)


async def test_a_consumer_goes_on_where_it_stopped(database: Database, box: Outbox) -> None:
    async with engine(database) as running:
        await publish(running, LEAVING)
        await completed(database, running, await start(running, "chain"))
        assert await taken(box, "other", most=0) == []
        first = await taken(box, "one", most=2)
        assert [message.seq for message in first] == [1, 2]
        assert [message.seq for message in await taken(box, "one")] == [3, 4]
        assert await taken(box, "one") == []
        assert [message.seq for message in await taken(box, "other")] == [1, 2, 3, 4], (
            "each consumer has a mark of its own"
        )
        again = await start(running, "chain")
        await completed(database, running, again)
        assert {message.key for message in await taken(box, "one")} == {again}
    consumers = {consumer.name: consumer.mark for consumer in await box.consumers()}
    assert consumers["one"] > consumers["other"]
    assert mark(str(consumers["one"])) == consumers["one"]


async def test_what_a_consumer_was_working_on_when_it_died_comes_again(database: Database, box: Outbox) -> None:
    async with engine(database) as running:
        await publish(running, LEAVING)
        await completed(database, running, await start(running, "chain"))
    messages = box.messages("dying", follow=False)
    assert (await anext(messages)).seq == 1
    assert (await anext(messages)).seq == 2
    with pytest.raises(RuntimeError):
        await messages.athrow(RuntimeError("the consumer failed"))
    assert [message.seq for message in await taken(box, "dying")] == [2, 3, 4]


async def test_rows_go_when_every_consumer_has_taken_them(database: Database, box: Outbox) -> None:
    async def left() -> int:
        connection = await database.raw()
        count = await connection.fetchval("SELECT count(*) FROM circuit.outbox")
        await connection.close()
        return count

    async with engine(database) as running:
        await publish(running, LEAVING)
        await completed(database, running, await start(running, "chain"))
    await taken(box, "slow", most=0)
    await taken(box, "quick")
    assert await left() == 4, "the slow one has not taken them"
    await box.forget("slow")
    with pytest.raises(NotFound):
        await box.forget("slow")
    async with engine(database) as running:
        await completed(database, running, await start(running, "chain"))
    await taken(box, "quick")
    assert await left() == 0


async def test_a_follower_hears_what_comes(database: Database, box: Outbox) -> None:
    heard: list[Message] = []

    async def follow() -> None:
        async for message in box.messages("follower", kinds=["case_ended"], poll_seconds=0.02):
            heard.append(message)  # noqa: PERF401 -- it is looked at meanwhile

    async with engine(database) as running:
        await publish(running, LEAVING)
        follower = asyncio.create_task(follow())
        for number in range(1, 4):
            await start(running, "chain")
            await eventually(lambda: len(heard) == number)  # noqa: B023
        follower.cancel()
    assert [message.kind for message in heard] == ["case_ended"] * 3


# -- what is committed late -------------------------------------------------------------------------------------------


class Writing:
    """A transaction that writes outbox rows and is committed when the test says so."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.transaction = connection.transaction()

    async def begin(self, *cases: UUID) -> None:
        await self.transaction.start()
        for case in cases:
            await self.connection.execute(
                'INSERT INTO circuit."case" (tenant_id, case_id, workflow_id, workflow_hash, status, seq, next_token,'
                " next_firing, next_incident, started_at) VALUES (1, $1, 'w', 'h', 'stuck', 1, 1, 1, 1, now())",
                case,
            )
            await self.connection.execute(
                "INSERT INTO circuit.history (tenant_id, case_id, seq, kind, at, body)"
                " VALUES (1, $1, 1, 'case_started', now(), '{}')",
                case,
            )
            await self.connection.execute(
                "INSERT INTO circuit.outbox (tenant_id, case_id, seq) VALUES (1, $1, 1)", case
            )


async def test_what_is_committed_late_is_not_skipped(database_url: str, box: Outbox) -> None:
    """The first to begin is the last to be committed. A reader that went on from what it saw would never see it."""
    connections = [await asyncpg.connect(database_url) for _ in range(3)]
    early, late, naive = (Writing(connection) for connection in connections)
    ids = SystemIds()
    first, second = ids.uuid(), ids.uuid()
    await early.begin(first)
    await late.begin(second)
    await late.transaction.commit()
    assert await taken(box, "careful") == [], "the first may still come before it"
    [seen] = await naive.connection.fetch("SELECT xid FROM circuit.outbox")
    await early.transaction.commit()
    assert [message.key.case for message in await taken(box, "careful")] == [first, second]
    assert await naive.connection.fetch("SELECT 1 FROM circuit.outbox WHERE xid > $1", seen["xid"]) == [], (
        "a reader that had gone on from what it saw would have skipped the first"
    )
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("seed", range(3))
async def test_many_transactions_that_end_in_any_order_are_each_read_once(
    seed: int, database_url: str, box: Outbox
) -> None:
    rng = random.Random(seed)
    ids = SystemIds()
    connections = [await asyncpg.connect(database_url) for _ in range(6)]
    written: list[UUID] = []
    aborted: list[UUID] = []
    read: list[Message] = []
    running: list[Writing] = []
    for _ in range(120):
        if running and (len(running) == len(connections) or rng.random() < 0.5):
            ending = running.pop(rng.randrange(len(running)))
            await (ending.transaction.rollback() if rng.random() < 0.2 else ending.transaction.commit())
        else:
            free = [one for one in connections if all(one is not busy.connection for busy in running)]
            writing = Writing(free[0])
            cases = [ids.uuid() for _ in range(rng.randint(0, 3))]
            await writing.begin(*cases)
            written += cases
            running.append(writing)
        if rng.random() < 0.4:
            read += await taken(box, "reader")
    for writing in running:
        await writing.transaction.commit()
    read += await taken(box, "reader")
    there = {row["case_id"] for row in await connections[0].fetch('SELECT case_id FROM circuit."case"')}
    aborted = [case for case in written if case not in there]
    assert aborted and there
    assert sorted(message.key.case for message in read) == sorted(there), f"seed {seed}"
    assert [message.mark for message in read] == sorted(message.mark for message in read)
    for connection in connections:
        await connection.close()


# -- bad input --------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_asked(box: Outbox) -> None:
    for text in ("", "1", "1:2:3", "x:0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11:1"):
        with pytest.raises(InvalidRequest, match="no mark"):
            mark(text)
    for name in ("", "a\nb", "x" * 201):
        with pytest.raises(InvalidRequest, match="name of a consumer"):
            await taken(box, name)
    assert Mark(7, UUID(int=1), 2) > BEGINNING


def test_a_workflow_names_events_that_exist() -> None:
    with pytest.raises(DefinitionError) as raised:
        load_workflow(LEAVING.replace("case_ended", "case_over"), "test.yaml")
    [fault] = raised.value.faults
    assert "case_over" in fault.message and "case_ended" in fault.hint and fault.line == 1
    plain = load_workflow(CHAIN, "test.yaml")
    assert plain.outbox == frozenset() and "outbox" not in plain.document
