"""Following a whole workflow over real Postgres: what comes live, from a mark, with hints that got lost, and past
transactions that take their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import pytest
from stage import TENANT, Stage, Told

from circuit.errors import InvalidCursor, NotFound
from circuit.events import CaseEvent, FiringBegun, FiringResumed
from circuit.streams.workflow import PAGE_EVENTS, Mark, Marked

SECONDS = 120.0


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Stage]:
    async with Stage(database_url) as stage:
        yield stage


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Stage]:
    async with Stage(database_url) as stage:
        yield stage


@pytest.fixture
async def deaf(database_url: str) -> AsyncIterator[Stage]:
    async with Stage(database_url, listen=False) as stage:
        yield stage


def resumed(number: int) -> CaseEvent:
    return FiringResumed("ask", 1, "x", number, "tests")


async def told_by(stage: Stage, after: Mark | None, wanted: int, begun: asyncio.Event | None = None) -> list[Marked]:
    """The first `wanted` events that a follower of this stage is told."""
    follower = await stage.streams.open_workflow(TENANT, "flow", after)
    if begun is not None:
        begun.set()
    found: list[Marked] = []
    async with asyncio.timeout(SECONDS), aclosing(follower.events()) as events:
        async for marked in events:
            found.append(marked)
            if len(found) == wanted:
                break
    assert not stage.broker._ears
    return found


def places(found: list[Marked]) -> list[tuple[str, int]]:
    return [(str(one.written.case), one.written.seq) for one in found]


async def test_every_event_comes_once_and_in_the_order_of_its_case(here: Stage, elsewhere: Stage, deaf: Stage) -> None:
    first = await here.execution()
    begun = [asyncio.Event() for _ in range(3)]
    followers = [
        asyncio.create_task(told_by(stage, None, 62, event))
        for stage, event in zip((here, elsewhere, deaf), begun, strict=True)
    ]
    for event in begun:
        await event.wait()
    second = await here.execution()

    async def speak(told: Told) -> None:
        for number in range(30):
            await told.step(resumed(number))

    await asyncio.gather(speak(first), speak(second))
    for follower in followers:
        found = await follower
        for told, seqs in ((first, range(3, 33)), (second, range(1, 33))):
            assert [seq for case, seq in places(found) if case == str(told.key.case)] == list(seqs)
        assert isinstance(next(one.written.event for one in found if one.written.seq == 2), FiringBegun)


async def test_a_mark_leads_back_to_where_it_was_read(here: Stage, elsewhere: Stage) -> None:
    told = await here.execution()
    live = asyncio.create_task(told_by(here, None, 1, begun := asyncio.Event()))
    await begun.wait()
    await told.step(resumed(0))
    [seen] = await live
    for number in range(PAGE_EVENTS + 20):  # more than a page
        await told.step(resumed(number))
    again = await told_by(elsewhere, Mark.parse(str(seen.mark)), PAGE_EVENTS + 21)
    assert [seq for _, seq in places(again)] == list(range(3, PAGE_EVENTS + 24))
    for wrong in ("", "m0", "x", "1-2", "m" + "9" * 19):
        with pytest.raises(InvalidCursor):
            Mark.parse(wrong)
    with pytest.raises(InvalidCursor):
        await elsewhere.streams.open_workflow(TENANT, "flow", Mark(10**17))
    with pytest.raises(NotFound):
        await elsewhere.streams.open_workflow(TENANT, "nothing")
    with pytest.raises(NotFound):
        await elsewhere.streams.open_workflow(TENANT + 1, "flow")
    assert not elsewhere.broker._ears


async def test_an_older_transaction_holds_events_back_and_loses_none(here: Stage) -> None:
    told = await here.execution()
    follower = await here.streams.open_workflow(TENANT, "flow")

    async def look(cases: set[UUID] | None) -> tuple[list[int], set[UUID]]:
        waiting: set[UUID] = set()
        return [one.written.seq async for one in follower._look(cases, waiting)], waiting

    connection = await here.database.raw()
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetchval("SELECT pg_current_xact_id()::text")
        await told.step(resumed(0))
        # Somebody older might still say something.
        assert await look({told.key.case}) == ([], {told.key.case})
        assert await look(None) == ([], {told.key.case})
        await transaction.rollback()
        assert await look({told.key.case}) == ([3], set())
        assert await look(None) == ([], set())
    finally:
        await connection.close()
        follower.close()
