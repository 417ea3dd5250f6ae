"""Shared places: counted over all cases, taken at the begin, given back at every end, first come, first served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import invariants
import pytest
from eventually import eventually
from hypothesis import given
from hypothesis import strategies as st
from parts import at_once
from running import REVIEW, engine, publish, start, until

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.allocation import allocate
from circuit.errors import ActionFailed
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage import workers
from circuit.storage.database import Database
from circuit.storage.resources import Wanted

SHARED = REVIEW.replace(
    "  open: {initial: true}", "  open: {initial: true}\n  desk: {shared: true, capacity: 2}"
).replace("from_places: open", "from_places: [open, desk]")
PACED = SHARED.replace("capacity: 2", "capacity: 2, interval: 500ms")


class Desks:
    """An action that runs until it is let go, and knows the most that ever ran at once."""

    def __init__(self) -> None:
        self.running: set[CaseKey] = set()
        self.order: list[CaseKey] = []
        self.most = 0
        self.gates: dict[CaseKey, asyncio.Event] = {}
        self.fail: set[CaseKey] = set()
        self.free = False

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        self.running.add(call.key)
        self.order.append(call.key)
        self.most = max(self.most, len(self.running))
        try:
            if not self.free:
                await self.gates.setdefault(call.key, asyncio.Event()).wait()
        finally:
            self.running.discard(call.key)
        if call.key in self.fail:
            raise ActionFailed("broken")
        return await at_once(call, context)

    def let(self, *keys: CaseKey) -> None:
        for key in keys:
            self.gates.setdefault(key, asyncio.Event()).set()


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def held(plain: Any) -> int:
    return await plain.fetchval("SELECT coalesce(sum(amount), 0)::int FROM circuit.hold WHERE granted_at IS NOT NULL")


async def test_no_more_run_than_there_is_and_the_others_come_in_their_order(
    database: Database, plain: Any, database_url: str
) -> None:
    desks = Desks()
    async with engine(database, {"agent": desks}) as running:
        await publish(running, SHARED)
        keys = [await start(running, "review") for _ in range(5)]
        await eventually(lambda: len(desks.running) == 2, what="two have a desk")

        async def queued() -> bool:
            return await plain.fetchval("SELECT count(*) FROM circuit.hold WHERE granted_at IS NULL") == 3

        await eventually(queued, what="the others wait")
        first = set(desks.running)
        waiting = next(key for key in keys if key not in first)
        case = await until(running, waiting, "waiting")
        assert case.marking == {"open": 1} and case.tokens[0].execution_id is not None, "its token is reserved"
        why = await running.queries.why(waiting)
        assert why is not None
        obstacle = why.transitions[0].obstacles[0]
        assert (obstacle.kind, obstacle.subject, obstacle.have, obstacle.need) == ("resource", "desk", 0, 1)
        assert all(f"{key.case}.1" in obstacle.message for key in first)
        assert obstacle.message in why.summary
        asked = await plain.fetch(
            "SELECT case_id FROM circuit.hold WHERE granted_at IS NULL ORDER BY asked_at, case_id"
        )
        for begun, row in enumerate(asked, 3):
            desks.let(next(iter(desks.running)))
            await eventually(lambda begun=begun: len(desks.order) == begun, what="the next one has the desk")
            assert desks.order[-1].case == row["case_id"]
        desks.let(*keys)
        for key in keys:
            await until(running, key, "completed")
        assert desks.most == 2 and await held(plain) == 0
        granted = [event.kind for event in (await until(running, waiting, "completed")).history]
        assert granted == ["case_started", "firing_begun", "firing_granted", "transition_fired", "case_ended"]
    await invariants.check(database_url)


async def test_every_kind_of_end_gives_back(database: Database, plain: Any) -> None:
    desks = Desks()
    async with engine(database, {"agent": desks}) as running:
        await publish(running, SHARED)
        fails, cancelled = await start(running, "review"), await start(running, "review")
        await eventually(lambda: desks.running == {fails, cancelled}, what="both run")
        waits, third = await start(running, "review"), await start(running, "review")
        await until(running, waits, "waiting")
        # One that waits and is cancelled stands in nobody's way.
        assert (await running.commands.cancel(waits, principal=LOCAL)).state == "applied"
        desks.fail.add(fails)
        desks.let(fails)
        await until(running, fails, "attention")
        await eventually(lambda: third in desks.running, what="a failure gives back")
        fourth = await start(running, "review")
        assert (await running.commands.cancel(cancelled, principal=LOCAL)).state == "applied"
        await eventually(lambda: fourth in desks.running, what="a cancellation gives back")
        desks.let(third, fourth)
        for key in (third, fourth):
            await until(running, key, "completed")
        assert await plain.fetchval("SELECT count(*) FROM circuit.hold") == 0


async def test_a_take_over_leaves_what_is_held_with_its_firing(database: Database, plain: Any) -> None:
    desks = Desks()
    async with engine(database, {"agent": desks}) as running:
        await publish(running, SHARED)
        keys = [await start(running, "review") for _ in range(3)]
        await eventually(lambda: len(desks.running) == 2, what="two have a desk")
        [late] = set(keys) - desks.running
        await until(running, late, "waiting")
        assert running.worker is not None and running.worker.tenure is not None
        connection = await database.raw()
        await workers.take_over(connection, running.worker.tenure.incarnation.id)
        await connection.close()
        await eventually(lambda: len(desks.order) == 4, what="the two go on")
        assert late not in desks.order and await held(plain) == 2
        desks.let(*keys)
        for key in keys:
            await until(running, key, "completed")
        assert desks.most == 2


async def test_three_workers_share_one_amount(database: Database, database_url: str) -> None:
    desks = Desks()
    desks.free = True
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(engine(database, {"agent": desks})) for _ in range(3)]
        await publish(engines[0], SHARED)
        keys = [await start(engines[number % 3], "review") for number in range(30)]
        for key in keys:
            await until(engines[0], key, "completed")
    assert desks.most <= 2 and len(desks.order) == 30
    await invariants.check(database_url)


async def test_what_is_paced_comes_back_with_time_and_not_with_the_end(database: Database, plain: Any) -> None:
    desks = Desks()
    desks.free = True
    async with engine(database, {"agent": desks}) as running:
        await publish(running, PACED)
        keys = [await start(running, "review") for _ in range(6)]
        for key in keys:
            await until(running, key, "completed")
        # The moment of the grant itself: its owner hears of it later.
        rows = await plain.fetch("SELECT created_at AS at FROM circuit.command WHERE kind = 'granted' ORDER BY at")
        times = [row["at"] for row in rows]
        assert len(times) == 6
        assert all((later - earlier).total_seconds() >= 0.5 for earlier, later in zip(times, times[2:], strict=False))

        async def gone() -> bool:
            return await plain.fetchval("SELECT count(*) FROM circuit.hold") == 0

        await eventually(gone, what="a sweep deletes what is there again")


async def test_publishing_sets_the_capacity(database: Database, plain: Any) -> None:
    desks = Desks()
    async with engine(database, {"agent": desks}) as running:
        await publish(running, SHARED)
        keys = [await start(running, "review") for _ in range(4)]
        await eventually(lambda: len(desks.running) == 2, what="two have a desk")
        await publish(running, SHARED.replace("capacity: 2", "capacity: 4"))
        await eventually(lambda: len(desks.running) == 4, what="the other two have one of the new ones")
        await publish(running, SHARED.replace("capacity: 2", "capacity: 1"))
        late = await start(running, "review")
        await until(running, late, "waiting")
        desks.let(*keys[:3])
        for key in keys[:3]:
            await until(running, key, "completed")
        assert late not in desks.running
        desks.let(keys[3], late)
        await until(running, late, "completed")


amounts = st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), min_size=1)


@given(st.dictionaries(st.sampled_from("abc"), st.integers(-2, 5)), st.lists(amounts, max_size=12))
def test_who_comes_first_is_served_first_and_nothing_is_given_twice(
    free: dict[str, int], asked: list[dict[str, int]]
) -> None:
    waiting = [Wanted(CaseKey(1, UUID(int=number)), 1, one) for number, one in enumerate(asked)]
    granted = allocate(free, waiting)
    taken: Counter[str] = Counter()
    for request in granted:
        taken.update(request.amounts)
    assert all(amount <= free.get(place, 0) for place, amount in taken.items())
    assert [one for one in waiting if one in granted] == granted, "in the order of asking"
    for position, request in enumerate(waiting):
        if request in granted:
            passed = [one for one in waiting[:position] if one not in granted]
            assert all(set(one.amounts).isdisjoint(request.amounts) for one in passed), "nobody is passed over"
    left = {place: free.get(place, 0) - taken[place] for place in "abc"}
    first = next((one for one in waiting if one not in granted), None)
    assert first is None or any(left[place] < amount for place, amount in first.amounts.items()), "nobody waits idly"
