"""Readers in virtual time of a stream that is compacted piece by piece beneath them, in several passes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial

import orjson
from hypothesis import given
from hypothesis import strategies as st
from pretended import NAME, Process, Store
from virtual_time import EPOCH, pass_time, run

from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.streams.channel import place
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.log import FramePage
from circuit.streams.merging import Entry, merge, rest
from circuit.streams.pace import PAGE_BYTES


class Compacting(Store):
    """A log whose frames are merged, some at a time. What was merged into each is in `lengths`, by its place."""

    def __init__(self, frames: Sequence[Frame], seconds: float) -> None:
        super().__init__(list(frames), ended=True, seconds=seconds)
        self.lengths: dict[Cursor, Sequence[int]] = {}

    async def look(self, after: Cursor, most_bytes: int = PAGE_BYTES) -> FramePage | None:
        lengths = dict(self.lengths)  # as they are with the frames that this look finds
        page = await super().look(after, most_bytes)
        assert page is not None
        return FramePage([rest(one, lengths.get(place(one)), after) for one in page.frames], page.ended, full=page.full)

    def compact(self, first: int, count: int) -> None:
        some = self.frames[first : first + count]
        entries = [
            Entry(
                one.start, one.sequence - one.merged + 1, one.sequence, one.body.decode(), self.lengths.get(place(one))
            )
            for one in some
        ]
        for entry, frames, _ in merge(entries).merged if entries else ():
            assert entry.lengths is not None and entry.body is not None
            at = next(index for index, one in enumerate(self.frames) if place(one) == (entry.start, entry.sequence))
            whole = self.frames[at]
            merged = Frame(
                entry.start, entry.sequence, whole.type, EPOCH, entry.body.encode(), entry.sequence - entry.first + 1
            )
            self.frames[at - frames + 1 : at + 1] = [merged]
            self.lengths[place(merged)] = entry.lengths


def stream(dice: random.Random) -> list[Frame]:
    frames: list[Frame] = []
    starts = dice.randint(1, 3)
    for start in range(1, starts + 1):
        said = [StreamDelta.restarted("again")] if start > 1 else []
        for _ in range(dice.randint(1, 12)):
            called = StreamDelta(StreamType.TOOL_CALL, {"toolName": "t", "arguments": {}, "callId": "1"})
            said.append(
                called if dice.random() < 0.15 else StreamDelta.content(dice.choice(["a", "é", "𝄞x", "\0"]) * 2)
            )
        if start == starts:
            said.append(StreamDelta(StreamType.COMPLETED, {"final_response": ""}))
        frames += [encode_frame(NAME, start, number, delta, EPOCH) for number, delta in enumerate(said, 1)]
    return frames


def told(frames: Sequence[Frame]) -> list[tuple[object, ...]]:
    """Every character with its start, and every other event with its place: whatever the frames that brought them."""
    found: list[tuple[object, ...]] = []
    for one in frames:
        if one.type is StreamType.CONTENT_CHUNK:
            found += [(one.start, letter) for letter in orjson.loads(one.body)["content"]]
        else:
            found.append((one.start, one.type, one.sequence))
    return found


def _some(seen: list[Frame], dice: random.Random, frames: Sequence[Frame]) -> int:
    taken = frames if dice.random() < 0.6 else frames[: dice.randint(0, len(frames))]
    seen += taken
    return len(taken)


async def _read(process: Process, dice: random.Random, cursor: Cursor) -> list[Frame]:
    seen: list[Frame] = []
    while True:
        reader = await process.open(place(seen[-1]) if seen else cursor)
        if dice.random() < 0.5:
            reader.send_through(partial(_some, seen, dice))
        left = dice.choice([1, 2, 100])
        while not reader.over and left:
            seen += await reader.read(dice.choice([None, 0.2]))
            left -= 1
            await pass_time(dice.choice([0.0, 0.05, 0.4]))
        over = reader.over
        if not over and dice.random() < 0.3:  # the last was on its way when the client went
            del seen[-1:]
        reader.close()
        if over:
            return seen


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 1000]))
def test_readers_of_a_stream_that_is_compacted_beneath_them_miss_and_repeat_nothing(seed: int, ring: int) -> None:
    async def main() -> None:
        dice = random.Random(seed)
        frames = stream(dice)
        store = Compacting(frames, dice.choice([0.0, 0.02]))
        processes = [Process(store, ring, poll=0.5), Process(store, ring, poll=0.5)]
        cursors = [BEGINNING, *(place(dice.choice(frames)) for _ in range(5))]
        readers = [asyncio.create_task(_read(dice.choice(processes), dice, cursor)) for cursor in cursors]
        for _ in range(6):
            store.compact(dice.randrange(len(store.frames)), dice.randint(2, 8))
            await pass_time(dice.choice([0.0, 0.1, 0.3]))
        store.compact(0, len(store.frames))
        for cursor, reader in zip(cursors, readers, strict=True):
            seen = await reader
            expected = [one for one in frames if place(one) > cursor]
            assert told(seen) == told(expected)
            assert sum(one.merged for one in seen) == len(expected)
        assert all(len(process.broker) == 0 for process in processes)

    run(main())
