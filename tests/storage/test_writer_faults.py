"""The group commit while things break: lost answers, lost connections, restarts, take-overs at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventually import eventually
from postgres import Server

from circuit.errors import DatabaseUnreachable, Fenced, GuardLost
from circuit.events import Frame, StreamType
from circuit.ids import CaseKey
from circuit.storage import cases, commands, lane, workers
from circuit.storage.database import Database, connect
from circuit.storage.driver import Connection
from circuit.storage.records import (
    CaseWrite,
    CommandResult,
    CommandRow,
    CommandState,
    JournalRow,
    LogWrite,
    StreamRow,
)
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import AT, history, owned_cases, seqs, start_case, start_worker, step


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def locked_case(database: Database, key: CaseKey) -> AsyncIterator[None]:
    """While this is open, a batch that holds the case waits, with the fence in its hand."""
    connection = await database.raw()
    try:
        async with connection.transaction():
            await connection.execute('SELECT 1 FROM circuit."case" WHERE case_id = $1 FOR UPDATE', key.case)
            yield
    finally:
        connection.terminate()


async def waiting(witness: Connection, text: str) -> list[int]:
    """The backends that wait for a lock in a statement that holds `text`."""
    rows = await witness.fetch(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        " AND strpos(query, $1) > 0",
        text,
    )
    return [row[0] for row in rows]


async def a_waiting_batch(witness: Connection) -> int:
    [pid] = await eventually(lambda: waiting(witness, "cases AS (UPDATE"), what="a batch that waits for a lock")
    return pid


async def terminate(witness: Connection, pid: int) -> None:
    """End a backend, and wait until it is gone."""
    await witness.execute("SELECT pg_terminate_backend($1)", pid)

    async def gone() -> bool:
        return not await witness.fetchval("SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1)", pid)

    await eventually(gone, what="the end of a backend")


class Losing:
    """A database whose connections lose the first `lose` answers after the commit, and the one that is awaited when
    `cut` is set."""

    def __init__(self, database: Database, lose: int) -> None:
        self._database = database
        self.left = lose
        self.cut = asyncio.Event()

    async def raw(self) -> Any:
        return LosingConnection(self, await self._database.raw())


class LosingConnection:
    def __init__(self, losing: Losing, connection: Connection) -> None:
        self._losing = losing
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def prepare(self, query: str) -> Any:
        statement = await self._connection.prepare(query)
        losing = self._losing

        class LosingStatement:
            async def fetchval(self, *args: Any, timeout: float | None = None) -> Any:
                answer = asyncio.ensure_future(statement.fetchval(*args, timeout=timeout))
                cut = asyncio.ensure_future(losing.cut.wait())
                await asyncio.wait([answer, cut], return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    losing.cut.clear()
                    answer.add_done_callback(asyncio.Future.exception)
                    raise ConnectionResetError("the connection is cut")
                cut.cancel()
                value = answer.result()
                if losing.left:
                    losing.left -= 1
                    raise ConnectionResetError("the answer is lost")
                return value

        return LosingStatement()


# -- unknown outcomes -----------------------------------------------------------------------------------------------


async def test_a_batch_whose_backend_dies_before_the_commit_is_sent_again(
    database: Database, conn: Connection, witness: Connection, worker: UUID, writer: Writer
) -> None:
    keys = await owned_cases(database, conn, worker, 3)
    async with locked_case(database, keys[1]):
        futures = [writer.write(step(key)) for key in keys]
        await terminate(witness, await a_waiting_batch(witness))
        assert not any(future.done() for future in futures)
    await asyncio.gather(*futures)
    assert await seqs(conn, keys) == [2, 2, 2]
    for key in keys:
        assert await history(conn, key) == [(1, "case_started"), (2, "transition_fired")]


def a_frame(sequence: int) -> StreamRow:
    return StreamRow(1, Frame(1, sequence, StreamType.CONTENT_CHUNK, AT, b"{}"))


LOST: dict[str, Callable[[CaseKey, UUID], CaseWrite | LogWrite]] = {
    "a step": lambda key, command: step(key),
    "a step that gives the case up": lambda key, command: step(key, release=True, due_at=AT),
    "giving the case up": lambda key, command: CaseWrite(key, 1, step(key, 0).row, release=True),
    "a settled command": lambda key, command: CaseWrite(
        key, 1, step(key, 0).row, commands_settled=[CommandResult(command, CommandState.REFUSED, {})]
    ),
    "no change at all": lambda key, command: CaseWrite(key, 1, step(key, 0).row),
    "frames": lambda key, command: LogWrite(key, frames=[a_frame(1), a_frame(2)]),
    "a journal entry": lambda key, command: LogWrite(key, journal=[JournalRow(1, 1, "s", "x")]),
}


@pytest.mark.parametrize("what", LOST)
async def test_a_commit_whose_answer_is_lost_counts_once(
    database: Database, conn: Connection, worker: UUID, what: str
) -> None:
    keys = [await start_case(database) for _ in range(3)]
    asked = CommandRow(uuid4(), "fire", {}, {})
    async with database.transaction(keys[0].tenant) as tenant:
        await commands.insert_command(tenant, keys[0], asked)
    await cases.claim(conn, worker, 3, keys)
    writer = await Writer.open(Losing(database, lose=1), worker, pause=no_pause)
    write = LOST[what](keys[0], asked.id)
    futures = [writer.write(write), *(writer.write(step(key)) for key in keys[1:])]
    await asyncio.gather(*futures)
    await writer.close()
    assert await seqs(conn, keys) == [2 if "a step" in what else 1, 2, 2]
    assert await conn.fetchval("SELECT count(*) FROM circuit.stream_event") == (2 if what == "frames" else 0)
    assert await cases.recorded(conn, keys[0], 1, 1) == ({"s": "x"} if what == "a journal entry" else {})
    owner = await conn.fetchval('SELECT owner FROM circuit."case" WHERE case_id = $1', keys[0].case)
    assert (owner is None) == ("up" in what)


async def test_a_first_try_that_commits_after_the_look_counts_once(
    database: Database, conn: Connection, witness: Connection, worker: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend of the first try waits for a lock and does not notice that its client is gone."""
    monkeypatch.setattr(lane, "PLANNER", lane.PLANNER.replace("lock_timeout = '1s'", "lock_timeout = '60s'"))
    [key] = await owned_cases(database, conn, worker, 1)
    losing = Losing(database, lose=0)
    writer = await Writer.open(losing, worker, pause=no_pause)
    async with locked_case(database, key):
        future = writer.write(step(key))
        await a_waiting_batch(witness)
        losing.cut.set()

        async def both() -> bool:
            return len(await waiting(witness, "cases AS (UPDATE")) == 2

        await eventually(both, what="the second try, behind the first")
    await future
    await writer.close()
    assert await seqs(conn, [key]) == [2]
    assert await history(conn, key) == [(1, "case_started"), (2, "transition_fired")]


# -- take-overs at the same moment ----------------------------------------------------------------------------------


async def test_a_take_over_waits_for_the_batch_in_flight(
    database: Database, conn: Connection, witness: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    other = await database.raw()
    async with locked_case(database, key):
        future = writer.write(step(key))
        await a_waiting_batch(witness)
        taking = asyncio.ensure_future(workers.take_over(other, worker))
        await eventually(lambda: waiting(witness, "SET fenced = true"), what="a take-over that waits")
        assert not taking.done()
        assert not future.done()
    await future
    assert await taking == 1
    assert await seqs(conn, [key]) == [2]
    with pytest.raises(Fenced):
        await writer.write(step(key, 2, from_version=2))
    assert await seqs(conn, [key]) == [2]
    other.terminate()


async def test_a_batch_that_waits_for_a_take_over_changes_nothing(
    database: Database, conn: Connection, witness: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    other = await database.raw()
    async with other.transaction():
        await other.execute("UPDATE circuit.worker SET fenced = true WHERE id = $1", worker)
        futures = [writer.write(step(key)), writer.write(LogWrite(key, [JournalRow(1, 1, "s", 1)]))]
        await eventually(lambda: waiting(witness, "cases AS (UPDATE"), what="a batch that waits")
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [Fenced, Fenced]
    assert await seqs(conn, [key]) == [1]
    other.terminate()


# -- the database away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_writes_outlive_a_restart_of_the_server(
    postgres_server: Server, database: Database, conn: Connection, witness: Connection, worker: UUID, mode: str
) -> None:
    keys = await owned_cases(database, conn, worker, 40)
    # What the tables of the test itself were made with is not synchronous.
    await witness.execute("CHECKPOINT")
    writer = await Writer.open(database, worker)
    steps = 60
    enough = asyncio.Event()

    async def live(key: CaseKey) -> None:
        for number in range(1, steps + 1):
            await writer.write(step(key, number, from_version=number))
            if number == steps // 4:
                enough.set()
            if number == steps // 2:
                # Half of the steps are to be done after the restart.
                await restarted

    restarted = asyncio.ensure_future(_restart(postgres_server, mode, enough))
    await asyncio.gather(*(live(key) for key in keys))
    await writer.close()
    again = await database.raw()
    assert await seqs(again, keys) == [steps + 1] * len(keys)
    for key in keys:
        assert [seq for seq, _ in await history(again, key)] == list(range(1, steps + 2))
    again.terminate()


async def _restart(server: Server, mode: str, when: asyncio.Event) -> None:
    await when.wait()
    await asyncio.to_thread(server.restart, mode)


async def test_a_connection_that_never_answers_is_given_up(
    database: Database,
    conn: Connection,
    worker: UUID,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    writer = await Writer.open(database, worker, pause=no_pause)
    async with locked_case(database, key):
        with monkeypatch.context() as hurried:
            hurried.setattr(lane, "SEND_SECONDS", 0.05)
            future = writer.write(step(key))
            await eventually(lambda: "TimeoutError" in caplog.text, what="a batch that is given up")
    await future
    await writer.close()
    assert await seqs(conn, [key]) == [2]
    assert await history(conn, key) == [(1, "case_started"), (2, "transition_fired")]


async def test_a_writer_whose_database_is_away_can_be_closed(
    database: Database, conn: Connection, witness: Connection, worker: UUID
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)

    class Away:
        there = True

        async def raw(self) -> Connection:
            if not self.there:
                raise DatabaseUnreachable("gone")
            return await database.raw()

    away = Away()
    tried = asyncio.Event()

    async def pause(seconds: float) -> None:
        tried.set()
        await asyncio.sleep(0)

    writer = await Writer.open(away, worker, pause=pause)
    async with locked_case(database, key):
        future = writer.write(step(key))
        pid = await a_waiting_batch(witness)
        away.there = False
        await terminate(witness, pid)
        await tried.wait()
        assert not future.done()
        await writer.close(within_seconds=0)
    with pytest.raises(DatabaseUnreachable):
        await future


async def test_a_deadlock_is_sent_again(
    database: Database, conn: Connection, witness: Connection, worker: UUID, writer: Writer
) -> None:
    """Nobody else takes these locks in Circuit; somebody with psql may."""
    key, second = sorted(await owned_cases(database, conn, worker, 2))
    other = await connect(database.address)
    # The batch is the one that gives way: it looks for deadlocks first.
    await other.execute("SET deadlock_timeout = '1h'")
    async with other.transaction():
        await other.execute('SELECT 1 FROM circuit."case" WHERE case_id = $1 FOR UPDATE', second.case)
        futures = [writer.write(step(key)), writer.write(step(second))]
        await a_waiting_batch(witness)
        # The batch holds the first case and waits for the second; now this waits for the first.
        await other.execute('SELECT 1 FROM circuit."case" WHERE case_id = $1 FOR UPDATE', key.case)
    await asyncio.gather(*futures)
    assert await seqs(conn, [key, second]) == [2, 2]
    other.terminate()


# -- the hook -------------------------------------------------------------------------------------------------------


async def test_the_hook_stands_around_each_commit(database: Database, conn: Connection, worker: UUID) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    points: list[str] = []
    writer = await Writer.open(database, worker, fault=points.append)
    await writer.write(step(key))
    assert points == ["before_commit", "after_commit"]
    with pytest.raises(GuardLost):
        await writer.write(step(key))
    await writer.close()
    assert points == ["before_commit", "after_commit", "before_commit"]


async def test_two_workers_cannot_own_a_case(database: Database, conn: Connection) -> None:
    key = await start_case(database)
    first, second = await start_worker(conn), await start_worker(conn)
    other = await database.raw()
    got = await asyncio.gather(cases.claim(conn, first, 5, [key]), cases.claim(other, second, 5, [key]))
    assert sorted(got, key=len) == [[], [key]]
    other.terminate()


# -- a case that comes back at once ---------------------------------------------------------------------------------


async def test_a_release_that_is_sent_again_leaves_a_wake_up(
    database: Database, conn: Connection, worker: UUID
) -> None:
    """The answer to a release is lost, and the same worker claims the case before the release is read back: the
    release looks as if it had not been committed."""
    [key] = await owned_cases(database, conn, worker, 1)
    losing = Losing(database, lose=1)

    class Claiming:
        async def raw(self) -> Any:
            if not losing.left:
                async with database.transaction(key.tenant) as tenant:
                    await commands.insert_command(tenant, key, CommandRow(uuid4(), "fire", {}, {}))
                assert await cases.claim(conn, worker, 1) == [key]
            return await losing.raw()

    writer = await Writer.open(Claiming(), worker, pause=no_pause)
    await writer.write(CaseWrite(key, 1, step(key, 0).row, release=True))
    await writer.close()
    # Whoever held the case in memory finds that it is not his any more; somebody must look at it again.
    assert await cases.claim(conn, worker, 1) == [key]
    assert len((await cases.pending(conn, [key]))[key]) == 1
