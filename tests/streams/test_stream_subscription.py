"""Subscriptions over real Postgres: live and replayed, in the writing process and in another, from every cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from uuid import UUID

import pytest
from postgres import execute
from stage import Stage, Told, collect

from circuit.errors import Fenced, InvalidCursor, NotFound
from circuit.events import CaseEnded, CaseStarted, FiringBegun, Frame, StreamDelta, StreamType
from circuit.ids import CaseKey, Numbered, uuid7
from circuit.storage import cases, workers
from circuit.storage.records import LogWrite
from circuit.streams.channel import place
from circuit.streams.cursor import Cursor
from circuit.streams.pace import BATCH_BYTES
from circuit.streams.relay import Relay
from circuit.streams.subscription import Streams

SECONDS = 120.0


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Stage]:
    async with Stage(database_url) as stage:
        yield stage


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Stage]:
    async with Stage(database_url, ring=7) as stage:
        yield stage


@pytest.fixture
async def deaf(database_url: str) -> AsyncIterator[Stage]:
    async with Stage(database_url, listen=False) as stage:
        yield stage


def bodies(frames: Sequence[Frame]) -> list[bytes]:
    return [frame.body for frame in frames]


def spell(frames: Sequence[Frame]) -> list[str]:
    return [str(place(frame)) for frame in frames]


async def three_starts(told: Told) -> list[Frame]:
    """A stream of three starts that ends well; what a reader of the log sees."""
    outlet = told.open()
    await told.say(outlet, ["a", "b", "c"])
    await outlet.close()
    outlet = await told.open_again("a retry")
    await told.say(outlet, ["d"])
    await outlet.close()
    outlet = await told.open_again("a take-over")
    await outlet.emit(StreamDelta.content("NUL \0 and ☃ and 😀"))
    await told.complete(await outlet.close())
    return await collect(told.stage.streams, told.name)


async def test_live_and_replayed_frames_are_the_same_bytes_here_and_elsewhere(
    here: Stage, elsewhere: Stage, deaf: Stage
) -> None:
    told = await here.execution()
    async with asyncio.timeout(SECONDS):
        readers = [
            asyncio.create_task(collect(stage.streams, told.name))
            for stage in (here, elsewhere, deaf)
            for _ in range(5)
        ]
        frames = await three_starts(told)
        for reader in readers:
            assert bodies(await reader) == bodies(frames)
    assert spell(frames) == ["1-1", "1-2", "1-3", "2-1", "2-2", "3-1", "3-2", "3-3"]
    assert frames[3].type is StreamType.RESTARTED and frames[-1].terminal
    assert [len(stage.broker) for stage in (here, elsewhere, deaf)] == [0, 0, 0]


async def test_every_cursor_goes_on_where_it_stands(here: Stage, elsewhere: Stage) -> None:
    told = await here.execution()
    frames = await three_starts(told)
    for stage in (here, elsewhere):
        for index, frame in enumerate(frames):
            assert bodies(await collect(stage.streams, told.name, place(frame))) == bodies(frames[index + 1 :])
        assert spell(await collect(stage.streams, told.name, Cursor(1, 900))) == ["2-1", "2-2", "3-1", "3-2", "3-3"]
        assert await collect(stage.streams, told.name, Cursor(3, 3)) == []
        assert await collect(stage.streams, told.name, Cursor(9, 9)) == []


async def test_a_frame_is_read_before_it_is_stored(here: Stage, elsewhere: Stage) -> None:
    told = await here.execution()
    may_store = asyncio.Event()

    async def gated(write: LogWrite) -> None:
        await may_store.wait()
        await here.writer.write(write)

    here.publisher.write = gated
    reader = await here.streams.open(told.name, 1)
    outlet = told.open()
    async with asyncio.timeout(SECONDS):
        await outlet.emit(StreamDelta.content("first"))
        assert spell(await reader.read()) == ["1-1"]
        # A reader that comes now, with the cursor of what is not stored or with none, misses nothing either.
        late = await here.streams.open(told.name, 1)
        again = await here.streams.open(told.name, 1, Cursor(1, 1))
        away = await elsewhere.streams.open(told.name, 1, Cursor(1, 1))
        assert spell(await late.read()) == ["1-1"]
        may_store.set()
        await told.complete(await outlet.close())
        for one in (reader, late, again, away):
            assert spell(await one.read()) == ["1-2"]
            assert one.over
            one.close()


async def test_a_start_that_was_fenced_goes_on_elsewhere_with_restarted(here: Stage, elsewhere: Stage) -> None:
    told = await here.execution()
    readers = [await stage.streams.open(told.name, 1) for stage in (here, elsewhere)]
    outlet = told.open()
    await told.say(outlet, ["stored"])
    async with asyncio.timeout(SECONDS):
        assert [spell(await reader.read()) for reader in readers] == [["1-1"], ["1-1"]]
        await workers.take_over(elsewhere.connection, here.worker)
        await told.say(outlet, ["never stored"])
        assert spell(await readers[0].read()) == ["1-2"]
        with pytest.raises(Fenced):
            await outlet.close()
        # The new owner.
        assert await cases.claim(elsewhere.connection, elsewhere.worker, 1, [told.key]) == [told.key]
        told.stage = elsewhere
        outlet = await told.open_again("the process that ran it was lost")
        await told.say(outlet, ["again"])
        await told.complete(await outlet.close())
        for reader in readers:
            seen: list[str] = []
            while not reader.over:
                seen += spell(await reader.read())
            assert seen == ["2-1", "2-2", "2-3"]
            reader.close()
    assert spell(await collect(here.streams, told.name)) == ["1-1", "2-1", "2-2", "2-3"]


async def test_a_reader_that_does_not_read_holds_nobody_up_and_misses_nothing(database_url: str) -> None:
    async with Stage(database_url, ring=10) as stage:
        told = await stage.execution()
        slow = await stage.streams.open(told.name, 1)
        quick = asyncio.create_task(collect(stage.streams, told.name))
        outlet = told.open()
        async with asyncio.timeout(SECONDS):
            for number in range(200):
                await told.say(outlet, [f"{number} " * 1000])
            await told.complete(await outlet.close())
            frames = await quick
            longest = max(len(frame.body) for frame in frames)
            seen: list[Frame] = []
            while not slow.over:
                page = await slow.read()
                assert sum(len(frame.body) for frame in page) < BATCH_BYTES + longest
                seen += page
        slow.close()
        assert bodies(seen) == bodies(frames)
        assert len(frames) == 201


async def test_a_cancelled_execution_ends_its_readers_everywhere(here: Stage, elsewhere: Stage, deaf: Stage) -> None:
    told = await here.execution()
    outlet = told.open()
    await told.say(outlet, ["a"])
    async with asyncio.timeout(SECONDS):
        readers = [asyncio.create_task(collect(stage.streams, told.name)) for stage in (here, elsewhere, deaf)]
        await outlet.close()
        await told.cancel()
        for reader in readers:
            assert spell(await reader) == ["1-1"]
    assert await collect(elsewhere.streams, told.name, Cursor(1, 1)) == []


async def test_what_is_not_there_is_not_found(here: Stage) -> None:
    told = await here.execution()
    for name in (Numbered(told.key.case, 3), Numbered(UUID(int=7), 1), Numbered(uuid7(1, 1), 999_999_999)):
        with pytest.raises(NotFound, match=str(name)):
            await collect(here.streams, name)
    # Neither has the one that runs such a start, nor the one that is about to begin.
    for name, start in ((told.name, 2), (told.name, 99), (Numbered(told.key.case, 2), 2)):
        with pytest.raises(InvalidCursor, match=f"{start}-1"):
            await here.streams.open(name, 1, Cursor(start, 1))
    assert len(here.broker) == 0
    (await here.streams.open(told.name, 1, Cursor(1, 99))).close()  # said, perhaps, and lost before it was stored


async def test_another_tenant_sees_nothing(here: Stage) -> None:
    await here.connection.execute(
        "INSERT INTO circuit.tenant (tenant_id, name) VALUES (2, 'other') ON CONFLICT DO NOTHING"
    )
    told = await here.execution()
    outlet = told.open()
    await told.say(outlet, ["secret"])  # on the ring of this process
    with pytest.raises(NotFound):
        await here.streams.open(told.name, 2)
    with pytest.raises(NotFound):
        await anext(aiter(here.streams.follow(CaseKey(2, told.key.case))))
    outlet.abandon()


async def test_a_stream_outlives_lost_connections(here: Stage, elsewhere: Stage, database_url: str) -> None:
    told = await here.execution()
    reader = await elsewhere.streams.open(told.name, 1)
    outlet = told.open()
    async with asyncio.timeout(SECONDS):
        await told.say(outlet, ["a"])
        await execute(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()",
        )
        await told.say(outlet, ["b"])
        await told.complete(await outlet.close())
        seen: list[str] = []
        while not reader.over:
            seen += spell(await reader.read())
        assert seen == ["1-1", "1-2", "1-3"]
    reader.close()


async def test_the_events_of_a_case_are_followed_live_and_replayed(here: Stage, elsewhere: Stage, deaf: Stage) -> None:
    told = await here.execution()

    async def follow(stage: Stage, after: int) -> list[tuple[int, str]]:
        return [(number, event.kind) async for number, _, event in stage.streams.follow(told.key, after)]

    async with asyncio.timeout(SECONDS):
        followers = [asyncio.create_task(follow(stage, 0)) for stage in (here, elsewhere, deaf)]
        await told.complete(await told.open().close())
        kinds = [CaseStarted.kind, FiringBegun.kind, CaseEnded.kind]
        for follower in followers:
            assert await follower == list(enumerate(kinds, 1))
        assert await follow(here, 1) == [(2, FiringBegun.kind), (3, CaseEnded.kind)]
        assert await follow(here, 3) == []
        assert await follow(here, 99) == []
    with pytest.raises(NotFound):
        await anext(aiter(here.streams.follow(CaseKey(1, UUID(int=5)))))
    assert len(here.broker) == 0


async def test_the_events_of_a_case_that_is_written_here_are_looked_up_rarely(here: Stage) -> None:
    told = await here.execution()
    waits: asyncio.Queue[bool] = asyncio.Queue()

    class Counted(Relay):
        def pause(self, *, fed: bool) -> float:
            waits.put_nowait(fed)
            return super().pause(fed=fed)

    for held in (True, False):
        streams = Streams(here.database, here.broker, Counted(here.broker), here.clock, lambda _, held=held: held)
        async with aclosing(streams.follow(told.key, 2)) as events:
            following = asyncio.ensure_future(anext(events))
            assert await waits.get() is held
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def test_many_readers_elsewhere_cost_few_looks(here: Stage, elsewhere: Stage) -> None:
    told = await here.execution()
    async with asyncio.timeout(SECONDS):
        readers = [asyncio.create_task(collect(elsewhere.streams, told.name)) for _ in range(60)]
        outlet = told.open()
        for word in "abcdefgh":
            await told.say(outlet, [word])
        await told.complete(await outlet.close())
        lengths = {len(await reader) for reader in readers}
        assert lengths == {9}
