"""The workers as operators see and steer them: listed, drained, asked for cases, fenced when dead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import invariants
import pytest
from eventually import eventually
from parts import SystemIds
from running import LIMITS, REVIEW, engine, publish, start, until

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.fleet import Fleet, WorkerState
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage import workers
from circuit.storage.database import Database
from tests.storage.cases_in_store import incarnation, start_worker


class Slow:
    """An action that runs until it is let go, and counts its starts."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.starts: list[int] = []
        self.running = 0

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        self.starts.append(call.start)
        self.running += 1
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        return ActionOutput({"answer": "yes"}, "yes", {"answer": "yes"}, {}, "any")


@pytest.fixture
def fleet(database: Database) -> Fleet:
    return Fleet(database, SystemIds())


async def owner(database: Database, key: CaseKey) -> Any:
    connection = await database.raw()
    try:
        return await connection.fetchval('SELECT owner FROM circuit."case" WHERE case_id = $1', key.case)
    finally:
        await connection.close()


async def test_workers_are_listed_with_what_they_do(database: Database, fleet: Fleet) -> None:
    assert await fleet.workers() == []
    slow = Slow()
    async with engine(database, {"agent": slow}) as running:
        await publish(running, REVIEW)
        for _ in range(3):
            await start(running, "review")
        await eventually(lambda: slow.running == 3)
        [worker] = await fleet.workers()
        assert (worker.state, worker.row.cases, worker.row.executions) == (WorkerState.ALIVE, 3, 3)
        assert worker.lease_seconds is not None and 0 < worker.lease_seconds < LIMITS.lease_seconds + 1
        assert worker.as_dict()["worker_id"] == str(worker.id) and worker.age_seconds >= 0
        slow.go.set()
    assert await fleet.workers() == []
    [ended] = await fleet.workers(ended=True)
    assert (ended.state, ended.row.cases) == (WorkerState.RETIRED, 0)


async def test_a_case_that_is_asked_for_goes_to_another_worker_at_no_loss(
    database: Database, database_url: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the other one takes to come to it.
    monkeypatch.setattr("circuit.engine.handover.TURN_SECONDS", 600.0)
    slow, other = Slow(), Slow()
    async with engine(database, {"agent": slow}) as first:
        await publish(first, REVIEW)
        keys = [await start(first, "review") for _ in range(2)]
        await eventually(lambda: slow.running == 2)
        giver = await owner(database, keys[0])
        async with engine(database, {"agent": other}):
            answer = await fleet.release(str(keys[0].case), LOCAL)
            assert answer == {"worker_id": str(giver), "released": [str(keys[0].case)]}
            await eventually(lambda: other.running == 1)
            assert slow.running == 1, "only the case that was asked for was given up"
            assert await owner(database, keys[0]) not in (None, giver)
            other.go.set()
            slow.go.set()
            views = [await until(first, key, "completed") for key in keys]
    assert other.starts == [2], "the firing went on with another start of the same attempt"
    assert [event.kind for event in views[0].history].count("firing_resumed") == 1
    connection = await database.raw()
    assert await connection.fetchval("SELECT max(crashes) FROM circuit.firing") == 0, "it is nobody's crash"
    await connection.close()
    await invariants.check(database_url)


async def test_a_worker_that_is_alone_takes_its_cases_back(database: Database, fleet: Fleet, monkeypatch: Any) -> None:
    monkeypatch.setattr("circuit.engine.handover.TURN_SECONDS", 0.2)
    slow = Slow()
    async with engine(database, {"agent": slow}) as alone:
        await publish(alone, REVIEW)
        keys = [await start(alone, "review") for _ in range(4)]
        await eventually(lambda: slow.running == 4)
        [worker] = await fleet.workers()
        answer = await fleet.release(str(worker.id)[:13], LOCAL)
        assert answer is not None and sorted(answer["released"]) == sorted(str(key.case) for key in keys)
        slow.go.set()
        for key in keys:
            await until(alone, key, "completed")


async def test_a_drained_worker_ends_in_good_order(database: Database, database_url: str, fleet: Fleet) -> None:
    slow, other = Slow(), Slow()
    other.go.set()
    async with engine(database, {"agent": slow}) as first:
        await publish(first, REVIEW)
        keys = [await start(first, "review") for _ in range(3)]
        await eventually(lambda: slow.running == 3)
        [worker] = await fleet.workers()
        await fleet.drain(str(worker.id), LOCAL, within_seconds=0.1)
        assert await fleet.drained(worker.id, wait_seconds=60)
        assert first.worker is not None and first.worker.ended.is_set()
        late = await start(first, "review")
        async with engine(database, {"agent": other}) as second:
            for key in (*keys, late):
                await until(second, key, "completed")
    [ended, _] = await fleet.workers(ended=True)
    assert ended.state is WorkerState.RETIRED
    await invariants.check(database_url)


async def test_only_the_dead_are_fenced(database: Database, fleet: Fleet) -> None:
    connection = await database.raw()
    dead = incarnation(host="elsewhere")
    await workers.register(connection, dead, -1.0)
    living = await start_worker(connection, host="elsewhere")
    states = {worker.id: worker.state for worker in await fleet.workers()}
    assert states == {dead.id: WorkerState.DEAD, living: WorkerState.ALIVE}
    with pytest.raises(Conflict, match="lives"):
        await fleet.fence(str(living), LOCAL)
    for ask in (fleet.drain(str(dead.id), LOCAL), fleet.release(str(dead.id), LOCAL)):
        with pytest.raises(Conflict, match="is dead"):
            await ask
    assert await fleet.fence(str(dead.id), LOCAL) == 0
    assert await connection.fetchval("SELECT fenced FROM circuit.worker WHERE id = $1", dead.id)
    assert await fleet.fence(str(dead.id), LOCAL) == 0, "twice is fine"
    with pytest.raises(NotFound):
        await fleet.fence("nobody", LOCAL)
    with pytest.raises(NotFound):
        await fleet.release("0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11", LOCAL)
    await connection.close()


async def test_a_case_that_nobody_has_cannot_be_given_up(database: Database, fleet: Fleet) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, REVIEW)
        key = await start(asking, "review")
        with pytest.raises(Conflict, match="nobody has case"):
            await fleet.release(str(key.case), LOCAL)


async def test_a_beginning_that_fits_several_workers(database: Database, fleet: Fleet) -> None:
    connection = await database.raw()
    for number in (1, 2):
        await workers.register(connection, replace(incarnation(), id=UUID(int=number), host="elsewhere"), 60.0)
    await connection.close()
    with pytest.raises(InvalidRequest, match="2 workers have ids that begin with '0000'"):
        await fleet.drain("0000", LOCAL)
    with pytest.raises(NotFound):
        await fleet.drain("", LOCAL)
