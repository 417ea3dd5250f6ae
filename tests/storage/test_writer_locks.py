"""The group commit while somebody holds the lock of a case and does not give it back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from eventually import eventually
from test_writer_faults import a_frame

from circuit.errors import DatabaseUnreachable, GuardLost
from circuit.ids import CaseKey
from circuit.storage import commands, lane
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import LogWrite
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import AT, owned_cases, seqs, step


@asynccontextmanager
async def raised(database: Database, keys: Sequence[CaseKey]) -> AsyncIterator[None]:
    """While this is open, somebody stands between raising the rows of `ready` of these cases and his commit."""
    async with database.transaction(keys[0].tenant) as tenant:
        for key in keys:
            await commands.make_ready(tenant, key)
        yield


async def test_only_the_case_whose_lock_is_held_waits(database: Database, conn: Connection, worker: UUID) -> None:
    keys = await owned_cases(database, conn, worker, 7)
    held = keys[2:4]
    pauses: list[float] = []
    again = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await again.wait()

    writer = await Writer.open(database, worker, pause=pause)
    async with raised(database, held):
        futures = {key: writer.write(step(key, release=True, due_at=AT)) for key in keys}
        free = [key for key in keys if key not in held]
        async with asyncio.timeout(60):
            await asyncio.gather(*(futures[key] for key in free))
            await eventually(lambda: len(pauses) == 2, what="both guilty cases, set aside")
            # Both lanes are free for others, and what comes for the guilty cases waits behind them.
            behind = writer.write(LogWrite(held[0], frames=[a_frame(1)]))
            others = await owned_cases(database, conn, worker, 4)
            await asyncio.gather(*(writer.write(step(key)) for key in others))
        assert not any(futures[key].done() for key in held)
        assert not behind.done()
        assert len(pauses) == 2
        assert await seqs(conn, keys) == [2, 2, 1, 1, 2, 2, 2]
    again.set()
    await asyncio.gather(*(futures[key] for key in held))
    with pytest.raises(GuardLost):
        await behind
    assert await seqs(conn, keys) == [2] * 7
    await writer.close()


async def test_a_case_that_waits_for_a_lock_does_not_spin(
    database: Database, conn: Connection, worker: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "PLANNER", lane.PLANNER.replace("lock_timeout = '1s'", "lock_timeout = '20ms'"))
    [key] = await owned_cases(database, conn, worker, 1)
    limits: list[float] = []
    enough = asyncio.Event()

    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    async def pause(seconds: float) -> None:
        limits.append(seconds)
        if len(limits) == 7:
            enough.set()
        await asyncio.sleep(0)

    writer = await Writer.open(database, worker, pause=pause, rng=Longest())
    async with raised(database, [key]):
        future = writer.write(step(key, release=True, due_at=AT))
        closing = asyncio.ensure_future(writer.close())
        async with asyncio.timeout(60):
            await enough.wait()
        assert not future.done() and not closing.done()
        assert limits[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    # Closing waits for what was handed over.
    await closing
    assert future.done() and future.exception() is None
    assert await seqs(conn, [key]) == [2]


async def test_a_writer_is_closed_in_time_though_a_case_waits_for_a_lock(
    database: Database, conn: Connection, worker: UUID
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    aside = asyncio.Event()

    async def pause(seconds: float) -> None:
        aside.set()
        await asyncio.Event().wait()

    writer = await Writer.open(database, worker, pause=pause)
    async with raised(database, [key]):
        future = writer.write(step(key, release=True, due_at=AT))
        async with asyncio.timeout(60):
            await aside.wait()
            await writer.close(within_seconds=0)
    with pytest.raises(DatabaseUnreachable):
        await future
