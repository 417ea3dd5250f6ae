"""Streams are compacted while everything goes on, and nobody who reads them can tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import asyncpg
import invariants
import orjson
import pytest
from stage import Stage, Told, collect

from circuit.engine.archive import compaction as compaction_file
from circuit.engine.archive.compaction import Compaction
from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.storage.records import LogWrite, StreamRow
from circuit.streams.cursor import BEGINNING, Cursor

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
    monkeypatch.setattr(compaction_file, "PAGE_FRAMES", 7)


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
