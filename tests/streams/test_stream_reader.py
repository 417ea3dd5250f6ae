"""Readers in virtual time against a log that lags, other processes, small rings and lost hints."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended import NAME, Process, Store, frame
from virtual_time import EPOCH, pass_time, run

from circuit.errors import NotFound
from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.streams.channel import MOST_BYTES, place
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.pace import PAGE_BYTES, ROOM_BYTES, size
from circuit.streams.reader import Reader


async def everything(process: Process, cursor: Cursor = BEGINNING) -> list[str]:
    return await drained(await process.open(cursor))


async def drained(reader: Reader) -> list[str]:
    seen: list[str] = []
    while not reader.over:
        seen += spell(await reader.read())
    reader.close()
    return seen


def spell(frames: Sequence[Frame]) -> list[str]:
    return [str(place(frame)) for frame in frames]


def test_a_finished_stream_is_replayed_from_every_cursor() -> None:
    async def main() -> None:
        frames = [
            frame(1, 1),
            frame(1, 2),
            frame(2, 1, StreamType.RESTARTED),
            frame(2, 2),
            frame(2, 3, StreamType.COMPLETED),
        ]
        process = Process(Store(frames, ended=True))
        names = spell(frames)
        assert await everything(process) == names
        for index, one in enumerate(frames):
            assert await everything(process, place(one)) == names[index + 1 :]
        assert await everything(process, Cursor(1, 900)) == names[2:]
        assert await everything(process, Cursor(2, 900)) == []
        assert len(process.broker) == 0

    run(main())


def test_a_terminal_cursor_is_known_at_once() -> None:
    async def main() -> None:
        reader = await Process(Store([frame(1, 1, StreamType.FAILED)], ended=True)).open(Cursor(1, 1))
        assert reader.over
        assert await reader.read() == ()

    run(main())


def test_an_execution_that_ended_without_a_last_word_ends_its_readers() -> None:
    async def main() -> None:
        store = Store([frame(1, 1)])
        process = Process(store)
        reader = await process.open()
        assert spell(await reader.read()) == ["1-1"]
        waiting = asyncio.create_task(reader.read())
        await pass_time(10)
        assert not waiting.done()
        store.add(ended=True)
        await pass_time(3)
        assert waiting.done() and waiting.result() == () and reader.over

    run(main())


def test_an_unknown_execution_is_not_found_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        process = Process(Store(known=False))
        with pytest.raises(NotFound):
            await process.open()
        assert len(process.broker) == 0

    run(main())


def test_live_frames_reach_a_reader_before_they_are_stored_and_without_a_look_at_the_log() -> None:
    async def main() -> None:
        store = Store()
        process = Process(store)
        channel = process.feed()
        channel.append(frame(1, 1))
        readers = [await process.open() for _ in range(50)]
        assert [spell(await reader.read()) for reader in readers] == [["1-1"]] * 50
        looks = store.looks
        for sequence in range(2, 500):
            channel.append(frame(1, sequence))
            if sequence % 50 == 0:
                await asyncio.gather(*(reader.read() for reader in readers))
        assert store.looks == looks == 50
        for reader in readers:
            reader.close()

    run(main())


def test_readers_of_another_process_share_one_look() -> None:
    async def main() -> None:
        store = Store(seconds=0.01)
        process = Process(store)
        readers = [await process.open() for _ in range(100)]
        reads = [asyncio.create_task(reader.read()) for reader in readers]
        await pass_time(0.1)
        looks = store.looks
        store.add(frame(1, 1), frame(1, 2))
        process.relay.hear(NAME)
        await pass_time(0.5)
        assert [spell(read.result()) for read in reads] == [["1-1", "1-2"]] * 100
        assert store.looks <= looks + 2
        again = [asyncio.create_task(reader.read()) for reader in readers]
        looks = store.looks
        process.relay.hear(NAME)  # a hint with nothing behind it
        await pass_time(0.5)
        assert store.looks <= looks + 2
        for reader, read in zip(readers, again, strict=True):
            reader.close()
            await read

    run(main())


def test_a_lost_hint_costs_one_poll() -> None:
    async def main() -> None:
        store = Store()
        process = Process(store, poll=1.0)
        reader = await process.open()
        read = asyncio.create_task(reader.read())
        await pass_time(0.1)
        store.add(frame(1, 1))
        await pass_time(2.5)
        assert spell(read.result()) == ["1-1"]
        reader.close()

    run(main())


def test_a_new_start_waits_for_what_the_log_has_of_the_old_one() -> None:
    async def main() -> None:
        store = Store([frame(1, 1)])
        process = Process(store, poll=60.0)
        reader = await process.open()
        assert spell(await reader.read()) == ["1-1"]
        store.add(frame(1, 2), frame(1, 3))  # written elsewhere, the hint was lost, then the start moved here
        channel = process.feed()
        channel.append(frame(2, 1, StreamType.RESTARTED))
        seen = [*spell(await reader.read()), *spell(await reader.read())]
        assert seen == ["1-2", "1-3", "2-1"]
        reader.close()
        process.stop_feeding(channel)

    run(main())


def test_a_reader_that_fell_off_the_ring_goes_on_from_the_log() -> None:
    async def main() -> None:
        store = Store()
        process = Process(store, ring=10)
        channel = process.feed()
        reader = await process.open()
        for sequence in range(1, 101):
            one = frame(1, sequence)
            channel.append(one)
            store.add(one)
        assert len(channel) <= 20
        last = frame(1, 101, StreamType.COMPLETED)
        store.add(last, ended=True)
        channel.append(last)
        process.stop_feeding(channel)
        assert await drained(reader) == [f"1-{n}" for n in range(1, 102)]
        assert len(process.broker) == 0

    run(main())


def test_a_ring_of_large_frames_holds_fewer_of_them_and_readers_the_same() -> None:
    async def main() -> None:
        store = Store()
        process = Process(store)
        channel = process.feed()
        reader = await process.open()
        names: list[str] = []
        for sequence in range(1, 41):
            delta = StreamDelta(StreamType.TOOL_RESULT, {"result": "x" * (MOST_BYTES // 10)})
            one = encode_frame(NAME, 1, sequence, delta, EPOCH)
            channel.append(one)
            store.add(one)
            names.append(str(place(one)))
            assert sum(len(held.body) for held in channel.after(BEGINNING)) <= MOST_BYTES
        assert len(channel) < 11
        alone = encode_frame(NAME, 1, 41, StreamDelta(StreamType.TOOL_RESULT, {"result": "x" * MOST_BYTES}), EPOCH)
        store.add(alone)
        channel.append(alone)
        assert len(channel) == 1
        store.add(frame(1, 42, StreamType.COMPLETED), ended=True)
        channel.append(store.frames[-1])
        process.stop_feeding(channel)
        assert await drained(reader) == [*names, "1-41", "1-42"]

    run(main())


def test_a_read_with_a_time_limit_comes_back_empty_and_goes_on_later() -> None:
    async def main() -> None:
        store = Store()
        process = Process(store)
        reader = await process.open()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await reader.read(15.0) == ()
        assert 15.0 <= loop.time() - begun < 15.1
        assert not reader.over
        store.add(frame(1, 1))
        assert spell(await reader.read(15.0)) == ["1-1"]
        reader.close()

    run(main())


def test_those_who_wait_for_long_come_together() -> None:
    """Each who has waited long enough wakes all: one by one a thousand would be woken a thousand times."""

    async def main() -> None:
        process, beats = Process(Store()), list[float]()
        channel = process.feed()

        async def follow(late: float) -> None:
            await pass_time(late)
            reader = await process.open()
            while not reader.over:
                assert await reader.read(15.0) == ()
                beats.append(asyncio.get_running_loop().time())

        tasks = [asyncio.ensure_future(follow(number * 0.15)) for number in range(100)]
        await pass_time(60)
        begun = len(beats)
        await pass_time(15)
        assert 100 <= len(beats) - begun <= 150
        assert len(set(beats[begun:])) < 10
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        process.stop_feeding(channel)

    run(main())


def test_one_who_replays_takes_large_pages_and_a_thousand_who_never_read_hold_small_ones() -> None:
    async def main() -> None:
        store = Store([frame(1, number, more="." * 16_000) for number in range(1, 301)])
        store.add(frame(1, 301, StreamType.COMPLETED), ended=True)
        whole = size(store.frames)
        process = Process(store)
        assert await everything(process) == spell(store.frames)
        assert store.looks <= 3
        store.given = 0
        readers = [await process.open() for _ in range(1_000)]
        assert store.given < ROOM_BYTES + 1_000 * (PAGE_BYTES + 17_000) < whole * 1_000 / 20
        assert process.broker.room.left < ROOM_BYTES
        # Whoever reads on gives back what it held, and so does who goes.
        for reader in readers[:20]:
            assert await drained(reader) == spell(store.frames)
        for reader in readers[20:]:
            reader.close()
        assert process.broker.room.left == ROOM_BYTES
        assert len(process.broker) == 0

    run(main())


def test_stop_ends_a_read_under_way() -> None:
    async def main() -> None:
        process = Process(Store())
        reader = await process.open()
        read = asyncio.create_task(reader.read())
        await pass_time(0.5)
        begun = asyncio.get_running_loop().time()
        reader.stop()
        assert await read == ()
        assert asyncio.get_running_loop().time() == begun
        reader.close()
        reader.close()
        assert len(process.broker) == 0

    run(main())


def test_a_database_that_is_away_is_waited_for() -> None:
    async def main() -> None:
        store = Store([frame(1, 1)])
        process = Process(store)
        reader = await process.open()
        assert spell(await reader.read()) == ["1-1"]
        store.down = True
        read = asyncio.create_task(reader.read())
        await pass_time(30)
        assert not read.done()
        store.down = False
        store.add(frame(1, 2, StreamType.COMPLETED), ended=True)
        await pass_time(3)
        assert spell(read.result()) == ["1-2"]
        reader.close()

    run(main())


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 1000]), st.booleans())
def test_whatever_happens_a_reader_gets_the_stored_stream_in_order(seed: int, ring: int, listening: bool) -> None:
    """Several starts in two processes, rings that overflow, hints that are lost, a slow database and slow readers.

    Stored frames come once, in order, without a gap, whatever the reader's process; what was never stored may be seen
    before a restart and is then a true beginning of what that start said.
    """

    async def main() -> None:
        dice = random.Random(seed)
        store = Store(seconds=dice.choice([0.0, 0.02]))
        here, elsewhere = Process(store, ring, poll=0.5), Process(store, ring, poll=0.5)
        writer = asyncio.create_task(_write(store, here, elsewhere, dice, listening))
        readers = [
            asyncio.create_task(_read(process, dice, patience))
            for process in (here, elsewhere)
            for patience in (0.0, 0.05, 0.7)
        ]
        await writer
        truth = spell(store.frames)
        for reader in readers:
            seen = await reader
            assert len(set(seen)) == len(seen)
            assert [name for name in seen if name in set(truth)] == truth
            by_start: dict[int, list[int]] = {}
            for cursor in map(Cursor.parse, seen):
                by_start.setdefault(cursor.start, []).append(cursor.sequence)
            assert list(by_start) == sorted(by_start)
            assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_start.values())
        assert len(here.broker) == len(elsewhere.broker) == 0

    run(main())


async def _write(store: Store, here: Process, elsewhere: Process, dice: random.Random, listening: bool) -> None:
    starts = dice.randint(1, 3)
    for start in range(1, starts + 1):
        writer = dice.choice([here, elsewhere])
        channel = writer.feed()
        unstored: list[Frame] = []
        sequence = 0

        def store_all(writer: Process = writer, unstored: list[Frame] = unstored) -> None:
            store.add(*unstored)
            unstored.clear()
            for process in (here, elsewhere):
                if process is not writer and listening and dice.random() < 0.8:
                    process.relay.hear(NAME)

        for _ in range(dice.randint(0, 12)):
            sequence += 1
            type_ = StreamType.RESTARTED if start > 1 and sequence == 1 else StreamType.CONTENT_CHUNK
            one = frame(start, sequence, type_)
            channel.append(one)
            unstored.append(one)
            if dice.random() < 0.4:
                await pass_time(dice.choice([0.01, 0.1, 0.4]))
                store_all()
        lost = start < starts and dice.random() < 0.5
        if lost:  # the process forgets what it did not store
            channel.clear()
        else:
            store_all()
        writer.stop_feeding(channel)
        await pass_time(dice.choice([0.0, 0.3]))
        if start == starts:
            last = frame(start, sequence + 1, StreamType.COMPLETED)
            store.add(last, ended=True)
            found = writer.broker.find(NAME)
            if found is not None:
                found.append(last)


def _take_some(seen: list[str], dice: random.Random, frames: Sequence[Frame]) -> int:
    """A line that now and then takes less than there is, as one to a slow client does."""
    taken = frames if dice.random() < 0.6 else frames[: dice.randint(0, len(frames))]
    seen += spell(taken)
    return len(taken)


async def _read(process: Process, dice: random.Random, patience: float) -> list[str]:
    seen: list[str] = []
    cursor = BEGINNING
    while True:
        reader = await process.open(cursor)
        if dice.random() < 0.7:
            reader.send_through(partial(_take_some, seen, dice))
        while not reader.over:
            frames = await reader.read(dice.choice([None, 0.2]))
            seen += spell(frames)
            cursor = reader.cursor
            if patience:
                await pass_time(patience)
            if dice.random() < 0.1:  # reconnects with the cursor that it has
                break
        over = reader.over
        reader.close()
        if over:
            return seen
