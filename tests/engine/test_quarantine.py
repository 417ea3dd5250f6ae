"""A firing whose process was lost twice runs alone; its neighbours wait for it and are not to blame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from eventually import eventually
from parts import at_once
from running import REVIEW, engine, publish, start, until

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.engine import Engine
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage import workers
from circuit.storage.database import Database


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


class Watched:
    """An action that ends when its case is let go, and knows which run beside which."""

    def __init__(self) -> None:
        self.running: set[CaseKey] = set()
        self.open: set[CaseKey] = set()
        self.beside: dict[CaseKey, set[CaseKey]] = {}
        self.starts: list[CaseKey] = []
        self.changed = asyncio.Condition()

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        self.starts.append(call.key)
        self.running.add(call.key)
        for key in self.running:
            self.beside.setdefault(key, set()).update(self.running - {key})
        try:
            async with self.changed:
                await self.changed.wait_for(lambda: call.key in self.open)
        finally:
            self.running.discard(call.key)
        return await at_once(call, context)

    async def let(self, *keys: CaseKey) -> None:
        async with self.changed:
            self.open.update(keys)
            self.changed.notify_all()


async def lose(running: Engine, database: Database) -> None:
    """Another worker holds this one for dead."""
    assert running.worker is not None and running.worker.tenure is not None
    before = running.worker.tenure.incarnation.id
    connection = await database.raw()
    try:
        await workers.take_over(connection, before)
    finally:
        await connection.close()


async def test_a_firing_that_crashed_twice_runs_alone_and_the_others_wait(database: Database, plain: Any) -> None:
    watched = Watched()
    async with engine(database, {"agent": watched}) as running:
        await publish(running, REVIEW)
        bad, good = await start(running, "review"), await start(running, "review")
        await eventually(lambda: watched.running == {bad, good}, what="both run")
        await plain.execute("UPDATE circuit.firing SET crashes = 1 WHERE case_id = $1", bad.case)
        watched.beside.clear()
        await lose(running, database)
        await eventually(lambda: len(watched.starts) >= 3, what="one of them goes on")
        # Either the other one runs, and the bad one waits for it, or the bad one runs, and all others wait.
        late = await start(running, "review")
        await watched.let(good)
        await eventually(lambda: watched.running == {bad}, what="it runs")
        suspect = await plain.fetchval("SELECT suspect_case FROM circuit.worker_lease WHERE suspect_firing IS NOT NULL")
        assert suspect == bad.case
        await watched.let(late)
        await asyncio.sleep(0)
        assert watched.running == {bad}, "nothing begins beside it"
        await watched.let(bad)
        for key in (bad, good, late):
            await until(running, key, "completed")
        assert not watched.beside.get(bad)
        blamed = "SELECT count(*) FROM circuit.worker_lease WHERE suspect_firing IS NOT NULL"
        assert await plain.fetchval(blamed) == 0
    crashes = await plain.fetch("SELECT case_id, crashes FROM circuit.firing ORDER BY case_id")
    assert {row["case_id"]: row["crashes"] for row in crashes} == {bad.case: 2, good.case: 1, late.case: 0}


async def test_what_waits_in_quarantine_is_cancelled_like_anything(database: Database, plain: Any) -> None:
    watched = Watched()
    async with engine(database, {"agent": watched}) as running:
        await publish(running, REVIEW)
        keys = [await start(running, "review") for _ in range(3)]
        await eventually(lambda: len(watched.running) == 3, what="all run")
        await plain.execute("UPDATE circuit.firing SET crashes = 1")
        await lose(running, database)
        await eventually(lambda: len(watched.starts) == 4, what="one of them runs alone")
        [alone] = watched.running
        waiting = [key for key in keys if key != alone]
        assert (await running.commands.cancel(waiting[0], principal=LOCAL)).state == "applied"
        assert (await running.commands.cancel(alone, principal=LOCAL)).state == "applied"
        await eventually(lambda: watched.running == {waiting[1]}, what="the last one has its turn")
        await watched.let(waiting[1])
        await until(running, waiting[1], "completed")
    assert len(watched.starts) == 5
