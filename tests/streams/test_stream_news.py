"""What this process writes itself reaches its own readers without a look into the database, and is the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from stage import Stage, collect

from circuit.events import BudgetUsedUp, CaseEnded, CaseEvent, FiringRetried, Frame, StreamDelta, TokenImage
from circuit.events import TransitionFired as Fired
from circuit.storage import cases, workers
from circuit.streams.log import Log
from circuit.streams.news import MOST_EVENTS, News

SECONDS = 120.0
AT = datetime(2026, 11, 27, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Stage]:
    """Looks into the database for nothing but a hint of another process, however long the test takes."""
    async with Stage(database_url, poll_seconds=600) as stage:
        yield stage


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The looks into the database that are taken, as they are taken."""
    taken: list[str] = []
    for name in ("events", "frames"):
        whole = getattr(Log, name)

        def look(self: Log, *given: Any, name: str = name, whole: Any = whole) -> Any:
            taken.append(name)
            return whole(self, *given)

        monkeypatch.setattr(Log, name, look)
    return taken


def said(number: int) -> CaseEvent:
    return FiringRetried("ask", 1, f"case.{number}", number, {"code": "timeout", "n": number}, AT)


async def test_events_that_are_committed_here_are_read_once_and_are_what_the_database_would_say(
    here: Stage, looks: list[str]
) -> None:
    told = await here.execution()
    data = {"deep": [1, {"ä": 1.5, "none": None}]}
    events: list[CaseEvent] = [
        said(1),
        Fired("ask", (), (TokenImage(2, 1, "end", data, {}, (1,)),), firing=1, execution_id=str(told.name)),
        BudgetUsedUp("ask", 1, str(told.name), "tenant", "1", "usd", 2.5, 2, 1),
        CaseEnded("completed"),
    ]
    async with asyncio.timeout(SECONDS), aclosing(here.streams.follow(told.key)) as followed:
        live = [await anext(followed), await anext(followed)]
        for event in events:
            # One at a time, while somebody waits for it.
            next_one = asyncio.ensure_future(anext(followed))
            await asyncio.sleep(0)
            await told.step(event)
            live.append(await next_one)
    assert looks == ["events"]
    assert [(seq, event) for seq, _, event in live[2:]] == list(enumerate(events, 3))
    assert [one async for one in here.streams.follow(told.key)] == live
    # What one reader does to it is nothing to another, nor to the case.
    produced = live[3][2]
    assert isinstance(produced, Fired) and produced.produced[0].data == data and produced.produced[0].data is not data


async def test_what_another_process_adds_is_read_from_the_database(here: Stage, database_url: str) -> None:
    told = await here.execution()
    async with (
        Stage(database_url) as elsewhere,
        asyncio.timeout(SECONDS),
        aclosing(here.streams.follow(told.key)) as followed,
    ):
        assert [(await anext(followed))[0] for _ in range(2)] == [1, 2]
        await told.step(said(3))
        assert (await anext(followed))[0] == 3
        await workers.take_over(elsewhere.connection, here.worker)
        assert await cases.claim(elsewhere.connection, elsewhere.worker, 1, [told.key]) == [told.key]
        told.stage = elsewhere
        await told.step(said(4), said(5))
        told.stage = here
        # Also where the hint comes late, and something else is told here before: nothing is left out.
        here.broker.tell(str(told.key), 7, [(AT, said(7))])
        await_next = [await anext(followed) for _ in range(2)]
        assert [seq for seq, _, _ in await_next] == [4, 5]


def test_only_what_follows_without_a_gap_is_given_out() -> None:
    news = News()
    news.add(5, [(AT, said(5)), (AT, said(6))])
    assert [seq for seq, _, _ in news.after(4)] == [5, 6]
    assert [seq for seq, _, _ in news.after(5)] == [6]
    assert news.after(3) == [] and news.after(6) == [] and news.last == 6
    news.add(9, [(AT, said(9))])
    assert news.after(6) == [] and [seq for seq, _, _ in news.after(8)] == [9]
    news.add(10, [(AT, said(number)) for number in range(10, 10 + MOST_EVENTS)])
    assert news.after(8) == [] and len(news.after(9)) == MOST_EVENTS


async def test_a_stream_that_begins_here_is_read_without_a_look(here: Stage, looks: list[str]) -> None:
    told = await here.execution()
    outlet = told.open()

    async def read() -> list[Frame]:
        return [frame async for frame in here.streams.subscribe(told.name, 1, known=True)]

    async with asyncio.timeout(SECONDS):
        before = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        await outlet.emit(StreamDelta.content("one "))
        between = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        await outlet.emit(StreamDelta.thinking("thought"))
        await told.complete(await outlet.close())
        frames = [await before, await between]
    assert looks == []
    stored = await collect(here.streams, told.name)
    assert [[one.body for one in read] for read in frames] == [[one.body for one in stored]] * 2


async def test_a_stream_of_a_later_start_is_looked_for(here: Stage) -> None:
    told = await here.execution()
    first = told.open()
    await told.say(first, ["stored"])
    await first.close()
    second = await told.open_again("a retry")
    async with asyncio.timeout(SECONDS):
        reader = await here.streams.open(told.name, 1, known=True)
        spelled = [f"{frame.start}-{frame.sequence}" for frame in await reader.read()]
        assert spelled[0] == "1-1"
        reader.close()
    second.abandon()
    assert len(here.broker) == 0
