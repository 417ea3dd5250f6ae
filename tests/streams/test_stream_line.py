"""Readers with a line: what is said goes down it without waking the task that reads."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from itertools import chain

import pytest
from pretended import NAME, Process, Store, frame
from virtual_time import pass_time, run

from circuit.events import Frame, StreamType
from circuit.streams.channel import HANDED_AT_ONCE, place
from circuit.streams.pace import BATCH_BYTES, TURN_BYTES, size
from circuit.streams.reader import Reader


class Recording:
    """A line that takes `room` frames, and keeps what it was given at once."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.sent: list[list[str]] = []

    def __call__(self, frames: Sequence[Frame]) -> int:
        taken = frames[: self.room]
        self.room -= len(taken)
        if taken:
            self.sent.append(spell(taken))
        return len(taken)


def spell(frames: Sequence[Frame]) -> list[str]:
    return [str(place(frame)) for frame in frames]


async def reading(
    process: Process, line: Recording, timeout: float | None = None
) -> tuple[Reader, asyncio.Task[Sequence[Frame]]]:
    """A reader that waits for what comes, with `line`."""
    reader = await process.open()
    reader.send_through(line)
    task = asyncio.create_task(reader.read(timeout))
    await pass_time(0)
    return reader, task


def test_what_is_said_in_one_turn_goes_down_the_line_at_once_and_wakes_nobody() -> None:
    async def main() -> None:
        process, line = Process(Store()), Recording()
        channel = process.feed()
        reader, task = await reading(process, line)
        for sequence in (1, 2, 3):
            channel.append(frame(1, sequence))
        assert line.sent == []  # not before the one who speaks is done
        await pass_time(0)
        channel.append(frame(1, 4))
        await pass_time(0)
        assert line.sent == [["1-1", "1-2", "1-3"], ["1-4"]]
        assert not task.done()
        assert (str(reader.cursor), reader.behind) == ("1-4", 0)
        reader.stop()
        assert await task == ()
        channel.append(frame(1, 5))
        await pass_time(0)
        assert len(line.sent) == 2
        reader.close()

    run(main())


def test_what_a_line_does_not_take_is_for_the_task() -> None:
    async def main() -> None:
        process, line, other = Process(Store()), Recording(room=1), Recording()
        channel = process.feed()
        _, task = await reading(process, line)
        _, others = await reading(process, other)
        channel.append(frame(1, 1))
        channel.append(frame(1, 2))
        channel.append(frame(1, 3))
        assert spell(await task) == ["1-2", "1-3"]
        assert line.sent == [["1-1"]]
        assert other.sent == [["1-1", "1-2", "1-3"]]
        assert not others.done()

    run(main())


def test_the_end_and_another_start_are_for_the_task() -> None:
    async def main() -> None:
        store = Store()
        process, line = Process(store), Recording()
        channel = process.feed()
        reader, task = await reading(process, line)
        channel.append(frame(1, 1))
        await pass_time(0)
        store.add(frame(1, 1))
        channel.append(frame(2, 1, StreamType.RESTARTED))
        assert spell(await task) == ["2-1"]
        task = asyncio.create_task(reader.read())
        await pass_time(0)
        channel.append(frame(2, 2))
        channel.append(frame(2, 3, StreamType.COMPLETED))
        assert spell(await task) == ["2-2", "2-3"]
        assert reader.over
        assert line.sent == [["1-1"]]
        reader.close()
        process.stop_feeding(channel)
        assert len(process.broker) == 0

    run(main())


def test_what_comes_when_nobody_here_writes_any_more_is_sent_and_looked_for() -> None:
    async def main() -> None:
        store = Store()
        process, line = Process(store), Recording()
        channel = process.feed()
        reader, task = await reading(process, line)
        looks = store.looks
        channel.append(frame(1, 1))
        process.stop_feeding(channel)
        await pass_time(0.1)
        assert line.sent == [["1-1"]]
        assert store.looks == looks + 1
        store.add(frame(1, 1), frame(1, 2), ended=True)
        process.relay.hear(NAME)
        assert await task == ()
        assert reader.over
        assert line.sent == [["1-1"], ["1-2"]]
        reader.close()

    run(main())


def test_one_look_is_taken_for_all_who_follow_what_is_written_elsewhere() -> None:
    async def main() -> None:
        store = Store(seconds=0.01)
        process = Process(store, poll=10.0)
        lines = [Recording() for _ in range(1_200)]
        readers = [await reading(process, line) for line in lines]
        await pass_time(0.1)
        looks = store.looks
        for sequence in range(1, 6):
            store.add(frame(1, sequence))
            process.relay.hear(NAME)
            if sequence == 3:
                await pass_time(0.005)  # the next hint comes while the log is looked into
            else:
                await pass_time(0.05)
        process.relay.hear(NAME)  # a hint with nothing behind it
        await pass_time(0.05)
        assert {tuple(chain(*line.sent)) for line in lines} == {tuple(f"1-{number}" for number in range(1, 6))}
        assert store.looks - looks <= 7
        assert not any(task.done() for _, task in readers)
        store.add(frame(1, 6, StreamType.COMPLETED), ended=True)
        process.relay.hear(NAME)
        assert {tuple(spell(await task)) for _, task in readers} == {("1-6",)}
        for reader, _ in readers:
            reader.close()
        assert len(process.broker) == 0

    run(main())


@pytest.mark.parametrize("fate", ["down", "closed", "gone"])
def test_a_look_for_all_that_fails_leaves_nobody_behind(fate: str) -> None:
    async def main() -> None:
        store = Store(seconds=0.01)
        process, line = Process(store, poll=1.0), Recording()
        first, looking = await reading(process, Recording())
        reader, task = await reading(process, line)
        store.add(frame(1, 1))
        store.down, store.known = fate == "down", fate != "gone"
        process.relay.hear(NAME)
        await pass_time(0.005)  # the look has begun
        if fate == "closed":  # the one on whose behalf it was begun goes
            first.close()
            assert await looking == ()
        await pass_time(0.1)
        store.down = False
        if fate == "gone":
            assert (await task, reader.over) == ((), True)
        else:
            await pass_time(3.0)
            assert line.sent == [["1-1"]] or spell(await task) == ["1-1"]
        first.close()
        reader.close()
        assert len(process.broker) == 0

    run(main())


def test_a_line_that_fails_fails_its_own_reader_only() -> None:
    class Torn(Recording):
        def __call__(self, frames: Sequence[Frame]) -> int:
            raise ValueError("torn")

    async def main() -> None:
        process, line = Process(Store()), Recording()
        channel = process.feed()
        _, torn = await reading(process, Torn())
        _, whole = await reading(process, line)
        channel.append(frame(1, 1))
        with pytest.raises(ValueError, match="torn"):
            await torn
        assert line.sent == [["1-1"]]
        assert not whole.done()

    run(main())


def test_a_reader_hears_that_nothing_came_so_long_after_the_last_that_went_down_its_line() -> None:
    async def main() -> None:
        process, line = Process(Store()), Recording()
        channel = process.feed()
        begun = asyncio.get_running_loop().time()
        reader, task = await reading(process, line, 15.0)
        for sequence in range(1, 5):
            await pass_time(6.0)
            channel.append(frame(1, sequence))
        assert await task == ()
        assert 24.0 + 15.0 <= asyncio.get_running_loop().time() - begun < 24.0 + 15.1
        assert [*line.sent] == [["1-1"], ["1-2"], ["1-3"], ["1-4"]]
        reader.close()

    run(main())


def test_more_than_is_handed_at_once_does_not_wait_for_what_comes_next() -> None:
    async def main() -> None:
        process, line = Process(Store(), poll=60.0), Recording()
        channel = process.feed()
        reader, task = await reading(process, line)
        for sequence in range(1, 301):
            channel.append(frame(1, sequence))
        await pass_time(0.01)
        assert [*chain(*line.sent), *spell(await task)] == [f"1-{sequence}" for sequence in range(1, 301)]
        reader.close()

    run(main())


@pytest.mark.parametrize("direct", [True, False], ids=["down a line", "by a task"])
def test_a_turn_of_the_loop_hands_out_no_more_than_its_bytes_however_many_take_all(direct: bool) -> None:
    """Sockets take megabytes for clients that never read: all at once would be gigabytes, and nobody else's turn."""

    async def main() -> None:
        process, loop, turn = Process(Store(), poll=60.0), asyncio.get_running_loop(), 0
        channel = process.feed()
        said = [frame(1, sequence, more="." * 16_000) for sequence in range(1, 41)]
        said.append(frame(1, 41, StreamType.COMPLETED))
        handed: Counter[int] = Counter()
        followers: Counter[int] = Counter()
        got: Counter[Reader] = Counter()
        behind: list[int] = []

        def tick() -> None:
            nonlocal turn
            turn += 1
            ticking.append(loop.call_soon(tick))

        def note(reader: Reader, frames: Sequence[Frame]) -> int:
            handed[turn] += size(frames)
            followers[turn] += 1
            got[reader] += len(frames)
            return len(frames)

        async def follow(reader: Reader) -> None:
            if direct:
                reader.send_through(partial(note, reader))
            while not reader.over:
                note(reader, await reader.read())
            behind.append(min(got[other] for other in readers))
            reader.close()

        readers = [await process.open() for _ in range(200)]
        tasks = [asyncio.create_task(follow(reader)) for reader in readers]
        await pass_time(0)
        ticking = deque([loop.call_soon(tick)], maxlen=1)
        for one in said:
            channel.append(one)
        await asyncio.gather(*tasks)
        ticking[0].cancel()
        assert set(got.values()) == {41} and len(got) == 200
        # Renewed in the middle of a turn, it may hand out what was left before, too.
        assert max(handed.values()) < 2 * TURN_BYTES + BATCH_BYTES + 17_000 < sum(handed.values()) / 14
        assert max(followers.values()) <= HANDED_AT_ONCE
        assert behind[50] > 20, "they take turns: where some have all, nobody is far behind"

    run(main())
