"""Streams are compacted while everything goes on, and nobody who reads them can tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import asyncpg
import compacting
import invariants
import orjson
import pytest
from eventually import eventually
from stage import Stage, SystemClock, Told, collect

from circuit.engine.archive import compaction as compaction_file
from circuit.engine.archive import patience
from circuit.engine.archive.compaction import Compaction
from circuit.engine.archive.keeper import Keeper
from circuit.engine.archive.policy import Policy
from circuit.engine.archive.round import Archive
from circuit.engine.figures import figures
from circuit.engine.subjects import Subjects
from circuit.errors import Conflict
from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.security.principal import LOCAL
from circuit.storage import archive, partitions, readback, subjects
from circuit.storage import compaction as compaction_store
from circuit.storage.records import LogWrite, StreamRow
from circuit.streams.cursor import BEGINNING, Cursor
from tests.forked import Talking

AT_ONCE = timedelta(0)
A_DAY = timedelta(days=1)


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Stage]:
    async with Stage(database_url) as stage:
        yield stage


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_file, "PAGE_FRAMES", 28)
    monkeypatch.setattr(compaction_store, "PAGE_EXECUTIONS", 2)


def soon() -> datetime:
    """An instant before which everything of these tests ends."""
    return datetime.now(UTC) + timedelta(minutes=1)


def told(frames: Sequence[Frame]) -> list[Any]:
    """What a reader has understood: texts, however they were cut, and all other frames byte for byte."""

    def kind(frame: Frame) -> Any:
        said = orjson.loads(frame.body)
        text = frame.type in (StreamType.CONTENT_CHUNK, StreamType.THINKING) and "content" in said
        return (frame.start, said["eventType"], said.get("status")) if text else (frame.start, frame.sequence)

    return [
        (key, "".join(orjson.loads(one.body)["content"] for one in some) if len(key) == 3 else next(some).body)
        for key, some in groupby(frames, kind)
    ]


async def speak(one: Told, said: Sequence[StreamDelta], start: int = 1) -> list[Frame]:
    """Store what a start says, each piece a frame of its own."""
    begin = [StreamDelta.restarted("again")] if start > 1 else []
    frames = [
        encode_frame(str(one.name), start, number, delta, one.stage.clock.now())
        for number, delta in enumerate([*begin, *said], 1)
    ]
    one.start = start
    await one.stage.writer.write(LogWrite(one.key, frames=[StreamRow(one.name.number, frame) for frame in frames]))
    return frames


def letters(count: int, text: str = "ä{}𝄞") -> list[StreamDelta]:
    return [StreamDelta.content(text.format(number)) for number in range(count)]


TOOL = [
    StreamDelta(StreamType.TOOL_CALL, {"toolName": "t", "arguments": {}, "callId": "1"}),
    StreamDelta(StreamType.TOOL_RESULT, {"toolName": "t", "result": "r", "callId": "1"}),
]
THOUGHTS = [StreamDelta.thinking("weighs", f"so {number}") for number in range(9)]


async def finished(stage: Stage, *said: Sequence[StreamDelta]) -> tuple[Told, list[Frame]]:
    one = await stage.execution()
    frames: list[Frame] = []
    for start, some in enumerate(said, 1):
        frames += await speak(one, some, start)
    frames.append(await one.complete(frames[-1].sequence))
    return one, frames


async def numbers(plain: Any, one: Told) -> list[int]:
    rows = await plain.fetch(
        "SELECT seq FROM circuit.stream_event WHERE case_id = $1 ORDER BY start, seq", one.key.case
    )
    return [row["seq"] for row in rows]


async def test_from_every_cursor_a_compacted_stream_says_the_same(here: Stage, plain: Any) -> None:
    said = [
        await finished(here, [*letters(30), *THOUGHTS, *TOOL, *letters(3)]),
        await finished(here, letters(5), letters(20), [*TOOL, StreamDelta.thinking("weighs"), *letters(2)]),
        await finished(here, letters(1)),
        await finished(here, TOOL),
    ]
    running = await here.execution()
    await speak(running, letters(4))
    compaction = Compaction(here.database)
    assert await compaction.run(A_DAY, soon()) == [] and await compaction.plan(A_DAY, soon()) == []
    [planned] = await compaction.plan(AT_ONCE, soon())
    assert await numbers(plain, said[2][0]) == [1, 2]
    [done] = await compaction.run(AT_ONCE, soon())
    assert planned.as_dict() == done.as_dict()
    assert (done.executions, done.frames, done.gone) == (
        2,
        30 + 9 + 2 + 3 + 1 + 5 + 21 + 6 + 1 + 2 + 3,
        29 + 8 + 2 + 4 + 19 + 1,
    )
    assert await numbers(plain, said[0][0]) == [30, 39, 40, 41, 44, 45]
    assert await numbers(plain, said[1][0]) == [5, 1, 21, 1, 2, 3, 4, 6, 7]
    assert await numbers(plain, running) == [1, 2, 3, 4]
    for one, frames in said:
        for cursor in [BEGINNING, *(Cursor(frame.start, frame.sequence) for frame in frames)]:
            expected = [frame for frame in frames if (frame.start, frame.sequence) > cursor]
            assert told(await collect(here.streams, one.name, cursor)) == told(expected), cursor
        assert (await collect(here.streams, one.name))[-1].body == frames[-1].body
    assert await invariants.i5_streams(plain) == []
    # What is done is done, whoever comes and however often.
    assert await compaction.plan(AT_ONCE, soon()) == [] and await compaction.run(AT_ONCE, soon()) == []
    # What ends later is a later pass's.
    frames = [await running.complete(4)]
    [later] = await compaction.run(AT_ONCE, soon() + timedelta(hours=2))
    assert (later.executions, later.gone) == (1, 3) and await numbers(plain, running) == [4, 5]


async def test_readers_inside_of_a_merged_frame_share_a_ring(here: Stage, database_url: str) -> None:
    """What one reader was given of a frame is never what another one lacks of it."""
    one, frames = await finished(here, letters(20), [*letters(12), *TOOL])
    async with Stage(database_url, ring=7) as elsewhere:
        early = await elsewhere.streams.open(one.name, 1)
        seen = list(await early.read())[:3]
        early.close()
        await Compaction(here.database).run(AT_ONCE, soon())
        cursors = [BEGINNING, *(Cursor(1, number) for number in (3, 4, 19, 20, 9)), Cursor(2, 5), Cursor(2, 1)]
        readers = [await elsewhere.streams.open(one.name, 1, cursor) for cursor in cursors]
        for cursor, reader in zip(cursors, readers, strict=True):
            got: list[Frame] = []
            while not reader.over:
                got += await reader.read()
            assert told(got) == told([frame for frame in frames if (frame.start, frame.sequence) > cursor]), cursor
            assert [frame.merged for frame in got][-3:] == [1, 1, 1]
        for reader in readers:
            reader.close()
        rest = await collect(elsewhere.streams, one.name, Cursor(1, seen[-1].sequence))
    assert told([*seen, *rest]) == told(frames)


async def test_a_worker_whose_last_frame_was_merged_does_not_take_the_database_for_set_back(here: Stage) -> None:
    one, _ = await finished(here, letters(9))
    await Compaction(here.database).run(AT_ONCE, soon())

    def trace(number: int) -> LogWrite:
        frame = encode_frame(str(one.name), 1, number, StreamDelta.content("x"), datetime(2026, 1, 1, tzinfo=UTC))
        return LogWrite(one.key, frames=[StreamRow(1, frame)])

    assert await readback.there(here.connection, [trace(1), trace(4), trace(8)])
    # What was not merged into another is told by its instant, as ever; and what is not there is not.
    for number in (9, 10, 11):
        assert not await readback.there(here.connection, [trace(number)])


async def test_what_was_erased_stays_erased_and_is_given_as_a_whole(here: Stage, plain: Any, tmp_path: Path) -> None:
    one, _ = await finished(here, [*letters(8, "secret{}"), *TOOL, *letters(3, "more{}")])
    await plain.execute('UPDATE circuit."case" SET owner = NULL')
    async with here.database.transaction(1) as connection:
        await subjects.link(connection, one.key, ["ada"], "me")
    pieces, erase = Compaction(here.database), Subjects(here.database, None, Archive(here.database, tmp_path)).erase  # type: ignore[arg-type]
    await pieces.run(AT_ONCE, soon())
    # Somebody was killed while he packed: what is erased must not lie there either.
    week = partitions.week_of(here.clock.now())
    assert await compaction_store.copy(here.connection, week)
    assert (await erase("ada", LOCAL)).rows["stream_event"] == 5
    assert await plain.fetchval("SELECT to_regclass($1)", f"circuit.stream_event_{week.suffix}_packed") is None
    rows = await plain.fetch("SELECT first_seq, seq, lengths, frame FROM circuit.stream_event ORDER BY seq")
    assert [(row["first_seq"], row["seq"], row["lengths"]) for row in rows] == [
        (1, 8, None), (None, 9, None), (None, 10, None), (11, 13, None), (None, 14, None)
    ]  # fmt: skip
    assert not any("secret" in row["frame"] or "more" in row["frame"] for row in rows)
    assert [frame.sequence for frame in await collect(here.streams, one.name, Cursor(1, 4))] == [8, 9, 10, 13, 14]
    assert await invariants.i5_streams(plain) == []
    await plain.execute("DELETE FROM circuit.stream_compaction")
    assert await pieces.run(AT_ONCE, soon()) == []


async def test_an_erasure_between_the_look_and_the_change_is_kept(
    here: Stage, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = await finished(here, letters(6, "secret{}"))
    replace, looks = compaction_store.replace, 0

    async def late(*args: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            await plain.execute("UPDATE circuit.stream_event SET frame = '{}' WHERE seq = 3")
        await replace(*args)

    monkeypatch.setattr(compaction_store, "replace", late)
    [done] = await Compaction(here.database).run(AT_ONCE, soon())
    assert looks == 2 and done.gone == 1 + 2
    assert await numbers(plain, one) == [2, 3, 6, 7]
    assert await plain.fetchval("SELECT frame FROM circuit.stream_event WHERE seq = 3") == "{}"


async def test_one_process_compacts_and_a_killed_one_is_gone_on_with(
    here: Stage, plain: Any, database_url: str
) -> None:
    said = [await finished(here, letters(60), [*TOOL, *letters(20)]) for _ in range(12)]
    count = "SELECT count(*) FROM circuit.stream_event"
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    before = await plain.fetchval(count)
    for _ in range(2):
        child = Talking(compacting.run, database_url)
        await child.open()
        assert await child.line() == "working"
        with pytest.raises(Conflict, match="another process"):
            await Compaction(here.database).run(AT_ONCE, soon())
        left = await plain.fetchval(count)
        while await plain.fetchval(count) == left:
            child.tell()
            assert await child.line() == "working"
        await child.close()
        await eventually(partial(plain.fetchval, f"SELECT ({locks}) = 0"), what="the lock of who was killed is free")
        for one, frames in said[::4]:
            assert told(await collect(here.streams, one.name, Cursor(1, 7))) == told(frames[7:])
        assert await invariants.i5_streams(plain) == []
    assert 12 * 6 < await plain.fetchval(count) < before
    await Compaction(here.database).run(AT_ONCE, soon())
    assert await plain.fetchval(count) == 12 * 6
    for one, frames in said:
        assert told(await collect(here.streams, one.name)) == told(frames)
    [week] = await Compaction(here.database).weeks()
    assert (week.state, week.executions, week.frames) == ("open", 12, before - 12 * 6)


class LongAgo(SystemClock):
    """Four weeks behind."""

    def now(self) -> datetime:
        return super().now() - timedelta(weeks=4)


async def test_a_week_whose_cases_have_ended_gives_its_room_back(
    here: Stage, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with what somebody left who was killed while he packed; and only where nobody else is at the week."""
    here.clock = LongAgo()
    week = partitions.week_of(here.clock.now())
    await partitions.ensure(here.connection, here.clock.now())
    said = [await finished(here, letters(900), [*TOOL, *letters(4)]) for _ in range(3)]
    compaction, notes = Compaction(here.database), list[str]()
    # A case that goes on keeps its week from being packed: it may say more.
    await plain.execute('UPDATE circuit."case" SET owner = NULL WHERE case_id <> $1', said[0][0].key.case)
    size = await compaction_store.size(here.connection, week)
    assert [one.gone for one in await compaction.run(A_DAY, soon(), notes.append)] == [3 * (899 + 3)]
    assert await compaction_store.size(here.connection, week) >= size
    assert (await compaction.weeks())[0].state == "open"
    await plain.execute('UPDATE circuit."case" SET owner = NULL')
    assert await compaction_store.copy(here.connection, week)
    # The archive is at work, so the week is left as it is, until the next time.
    assert await archive.lock(here.connection)
    await compaction.run(A_DAY - timedelta(hours=1), soon())
    assert (await compaction.weeks())[0].state == "open"
    await archive.unlock(here.connection)
    async with plain.transaction():
        await plain.fetch("SELECT * FROM circuit.stream_event LIMIT 1")
        assert not await compaction_store.exchange(here.connection, week)
        # Nor where some old transaction does not end; the other weeks do not wait for that.
        await plain.execute("SELECT pg_current_xact_id()")
        with monkeypatch.context() as hurried:
            hurried.setattr(patience, "PATIENCE_SECONDS", 0.0)
            await compaction.run(A_DAY - timedelta(hours=1, minutes=30), soon(), notes.append)
        assert "are not packed now" in notes[-1] and (await compaction.weeks())[0].state == "open"
        assert await plain.fetchval("SELECT to_regclass($1)", f"circuit.stream_event_{week.suffix}_packed") is None
    before = await plain.fetch("SELECT * FROM circuit.stream_event ORDER BY case_id, start, seq")
    await compaction.run(A_DAY - timedelta(hours=2), soon(), notes.append)
    assert notes[-1].startswith(f"week {week.suffix}: its streams take ")
    assert await compaction_store.size(here.connection, week) < size / 4
    assert await plain.fetch("SELECT * FROM circuit.stream_event ORDER BY case_id, start, seq") == before
    assert (await compaction.weeks())[0].state == "settled"
    # The partition is as `partitions.ensure` makes one, and there is nothing beside it.
    shapes = await plain.fetch(
        "SELECT c.reloptions, c.relispartition, ARRAY(SELECT pg_get_constraintdef(o.oid) FROM pg_constraint o"
        " WHERE o.conrelid = c.oid ORDER BY 1) AS constraints FROM pg_class c"
        " WHERE c.relname ~ '^stream_event_[0-9]' AND c.relkind = 'r'"
    )
    assert len(shapes) > 5 and len({str(tuple(shape)) for shape in shapes}) == 1
    assert await plain.fetchval("SELECT to_regclass($1) IS NOT NULL", f"circuit.stream_event_{week.suffix}_pkey")
    for one, frames in said:
        for cursor in (BEGINNING, Cursor(1, 500), Cursor(2, 4)):
            expected = [frame for frame in frames if (frame.start, frame.sequence) > cursor]
            assert told(await collect(here.streams, one.name, cursor)) == told(expected)
    # Never again.
    assert await compaction.plan(AT_ONCE, soon()) == [] and await compaction.run(AT_ONCE, soon(), notes.append) == []

    # A week of such streams is archived as it is, and erased there.
    shelf, key = Archive(here.database, tmp_path), said[0][0].key
    async with here.database.transaction(1) as connection:
        await subjects.link(connection, key, ["ada"], "me")
    [done] = await shelf.run(Policy(A_DAY), soon())
    assert done.cases == 3 and await compaction_store.size(here.connection, week) is None
    first = (await shelf.show(key))["rows"]["stream_event"][0]
    assert first["first_seq"] == 1 and sum(first["lengths"]) == len(orjson.loads(first["frame"])["content"])
    await Subjects(here.database, None, shelf).erase("ada", LOCAL)  # type: ignore[arg-type]
    first = (await shelf.show(key))["rows"]["stream_event"][0]
    assert (first["first_seq"], first["seq"], first["lengths"]) == (1, 900, None) and '"content":' not in first["frame"]
    assert await compaction.run(AT_ONCE, soon()) == []


async def test_a_keeper_compacts_by_policy_and_figures_tell_what_went(here: Stage) -> None:
    """Of several tenants; an empty database is no trouble."""
    assert await Compaction(here.database).plan(AT_ONCE, soon()) == []
    assert await Compaction(here.database).run(AT_ONCE, soon()) == []
    keeper = Keeper(here.database, soon, Policy(compact_older_than=AT_ONCE))
    for tenant in (1, 2, 3):
        one = await here.execution(tenant)
        await speak(one, letters(tenant + 4))
        await one.complete(tenant + 4)
    await keeper.start()
    await asyncio.wait_for(keeper.started.wait(), 60)
    await keeper.stop()
    told_ = {figure.name: figure.value for figure in await figures(here.database)}
    assert told_["circuit_compacted_frames"] == 4 + 5 + 6 and told_["circuit_compacted_bytes"] > 1_000
