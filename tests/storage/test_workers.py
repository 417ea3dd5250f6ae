"""Incarnations: their leases, their end, and what becomes of the cases that they leave."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from eventually import eventually

from circuit.events import FiringBegun, TokenRef
from circuit.ids import CaseKey
from circuit.storage import cases, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import CaseStatus, FiringRow, FiringState
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import AT, LEASE_SECONDS, incarnation, owned_cases, start_worker, step


async def expires_in(conn: Connection, worker: UUID) -> float:
    return await conn.fetchval(
        "SELECT extract(epoch FROM expires_at - now())::float8 FROM circuit.worker_lease WHERE worker_id = $1", worker
    )


async def expire(conn: Connection, worker: UUID) -> None:
    await conn.execute(
        "UPDATE circuit.worker_lease SET expires_at = now() - interval '1 second' WHERE worker_id = $1", worker
    )


async def with_firings(database: Database, conn: Connection, worker: UUID, writer: Writer) -> CaseKey:
    """A case of `worker` with a running and an offered firing."""
    [key] = await owned_cases(database, conn, worker, 1)
    running = FiringRow(1, "think", FiringState.RUNNING, 1, 1, {}, begun_at=AT)
    event = FiringBegun("think", 1, f"{key}.1", (TokenRef(1, 1, "begin"),))
    await writer.write(
        step(key, events=[(AT, event)], firings_opened=[running, replace(running, number=2, state=FiringState.OFFERED)])
    )
    return key


def living(pid: int, started: float) -> bool:
    return True


async def test_a_lease_is_renewed_by_the_clock_of_the_database(conn: Connection) -> None:
    worker = incarnation()
    began = await workers.register(conn, worker, 2.5)
    assert isinstance(began, datetime)
    assert 0 < await expires_in(conn, worker.id) <= 2.5
    renewed = await workers.renew(conn, worker.id, LEASE_SECONDS)
    assert renewed is not None
    assert renewed > began
    assert LEASE_SECONDS - 5 < await expires_in(conn, worker.id) <= LEASE_SECONDS
    row = await conn.fetchrow("SELECT * FROM circuit.worker WHERE id = $1", worker.id)
    assert row is not None
    assert (row["host"], row["boot_id"], row["pid"], row["pid_started"]) == ("here", "boot", 1, 1.5)


async def test_a_fenced_worker_renews_nothing(conn: Connection, worker: UUID) -> None:
    await workers.take_over(conn, worker)
    assert await workers.renew(conn, worker, LEASE_SECONDS) is None
    assert await workers.renew(conn, uuid4(), LEASE_SECONDS) is None


async def test_renewing_does_not_wait_for_a_batch_in_flight(database: Database, conn: Connection, worker: UUID) -> None:
    batch = await database.raw()
    async with batch.transaction():
        await batch.execute("SELECT 1 FROM circuit.worker WHERE id = $1 FOR SHARE", worker)
        async with asyncio.timeout(60):
            assert await workers.renew(conn, worker, LEASE_SECONDS) is not None
    batch.terminate()


async def test_a_take_over_frees_the_cases_and_counts_the_crashes(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    key = await with_firings(database, conn, worker, writer)
    assert await workers.take_over(conn, worker) == 1
    other = await start_worker(conn)
    assert await cases.claim(conn, other, 10) == [key]
    [state] = await cases.load(conn, [key])
    assert [firing.crashes for firing in state.firings] == [1, 0]
    assert await workers.take_over(conn, worker) == 0
    [state] = await cases.load(conn, [key])
    assert [firing.crashes for firing in state.firings] == [1, 0]


async def test_only_the_suspect_of_a_dead_worker_is_to_blame(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    first = await with_firings(database, conn, worker, writer)
    second = await with_firings(database, conn, worker, writer)
    await workers.suspect(conn, worker, first, 1)
    await workers.take_over(conn, worker)
    states = await cases.load(conn, [first, second])
    assert [firing.crashes for state in states for firing in state.firings] == [1, 0, 0, 0]


async def test_who_waits_to_run_alone_is_not_to_blame(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    key = await with_firings(database, conn, worker, writer)
    await conn.execute("UPDATE circuit.firing SET crashes = 2")
    await workers.suspect(conn, worker, key, 2)
    await workers.suspect(conn, worker, None)
    await workers.take_over(conn, worker)
    [state] = await cases.load(conn, [key])
    assert [firing.crashes for firing in state.firings] == [2, 2]


async def test_retiring_hands_the_cases_back_and_counts_nothing(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    key = await with_firings(database, conn, worker, writer)
    assert await workers.retire(conn, worker) == 1
    other = await start_worker(conn)
    assert await cases.claim(conn, other, 10) == [key]
    [state] = await cases.load(conn, [key])
    assert [firing.crashes for firing in state.firings] == [0, 0]
    assert await workers.retire(conn, worker) == 0
    assert await workers.take_over(conn, worker) == 0
    row = await conn.fetchrow("SELECT fenced, retired_at FROM circuit.worker WHERE id = $1", worker)
    assert row is not None
    assert row["fenced"]
    assert row["retired_at"] is not None


async def test_of_two_take_overs_one_does_all(
    database: Database, conn: Connection, witness: Connection, worker: UUID, writer: Writer
) -> None:
    key = await with_firings(database, conn, worker, writer)
    first, second = await database.raw(), await database.raw()
    # The witness is outside of this: within a transaction it would have one view of `pg_stat_activity` for all looks.
    async with conn.transaction():
        # Both have to wait here, so that neither is done before the other begins.
        await conn.execute("SELECT 1 FROM circuit.worker WHERE id = $1 FOR SHARE", worker)
        both = [asyncio.ensure_future(workers.take_over(each, worker)) for each in (first, second)]

        async def waiting() -> bool:
            count = await witness.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%SET fenced%'"
            )
            return count == 2

        await eventually(waiting, what="two take-overs that wait")
    assert sorted(await asyncio.gather(*both)) == [0, 1]
    [state] = await cases.load(conn, [key])
    assert [firing.crashes for firing in state.firings] == [1, 0]
    for each in (first, second):
        each.terminate()


async def test_a_take_over_leaves_the_cases_of_others_alone(database: Database, conn: Connection) -> None:
    dead, alive = await start_worker(conn), await start_worker(conn)
    mine = await owned_cases(database, conn, dead, 2)
    await owned_cases(database, conn, alive, 2)
    assert await workers.take_over(conn, dead) == 2
    assert sorted(await cases.claim(conn, alive, 10)) == sorted(mine)


async def test_who_is_dead(conn: Connection) -> None:
    late = await start_worker(conn, host="elsewhere")
    gone = await start_worker(conn, pid=7)
    alive = await start_worker(conn, pid=8)
    stranger = await start_worker(conn, host="elsewhere", pid=7)
    rebooted = await start_worker(conn, boot_id="another", pid=7)
    await expire(conn, late)
    asked: list[tuple[int, float]] = []

    def is_alive(pid: int, started: float) -> bool:
        asked.append((pid, started))
        return pid != 7

    assert set(await workers.expired(conn, "here", "boot", is_alive)) == {late, gone}
    assert sorted(asked) == [(7, 1.5), (8, 1.5)]
    await workers.take_over(conn, late)
    assert await workers.expired(conn, "here", "boot", living) == []
    for worker in (gone, alive, stranger, rebooted):
        assert await workers.renew(conn, worker, LEASE_SECONDS) is not None


async def test_a_worker_without_a_lease_counts_as_expired(conn: Connection, worker: UUID) -> None:
    await conn.execute("DELETE FROM circuit.worker_lease WHERE worker_id = $1", worker)
    assert await workers.expired(conn, "here", "boot", living) == [worker]


async def test_a_case_that_has_ended_is_not_made_ready(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    last = step(key)
    last.row = replace(last.row, status=CaseStatus.FAILED, finished_at=AT)
    await writer.write(last)
    assert await workers.take_over(conn, worker) == 1
    assert await conn.fetchval("SELECT count(*) FROM circuit.ready") == 0


async def test_incarnations_that_ended_long_ago_are_forgotten(database: Database) -> None:
    conn = await database.raw()
    old, recent, alive = [await start_worker(conn) for _ in range(3)]
    await workers.retire(conn, old)
    await workers.retire(conn, recent)
    await conn.execute(
        "UPDATE circuit.worker SET started_at = now() - interval '8 days' WHERE id = ANY($1)", [old, alive]
    )
    await workers.forget(conn)
    left = {row["id"] for row in await conn.fetch("SELECT id FROM circuit.worker")}
    assert left == {recent, alive}
    assert await workers.renew(conn, old, LEASE_SECONDS) is None, "a worker that is forgotten is fenced"
    await conn.close()
