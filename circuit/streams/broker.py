"""What one process knows live: per stream a ring of its newest frames, and who waits for the next one.

A reader is a cursor over the ring, never a queue: one that is slow costs nothing, falls off the ring and reads the
log instead. A channel exists while an outlet feeds it or a reader holds it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence

from circuit.events import Frame
from circuit.streams.cursor import Cursor

RING_FRAMES = 1000


def place(frame: Frame) -> Cursor:
    """Where `frame` stands in its stream."""
    return Cursor(frame.start, frame.sequence)


class Channel:
    """One stream as this process sees it.

    `feeder` is the outlet of this process that writes the stream, if one does: then nothing new comes from elsewhere.
    `rung` counts the changes: who saw `rung` and then nothing new waits for it to differ. `looking` lets one reader
    at a time look into the log, for all of them; `seen` is what its last look showed.
    """

    __slots__ = ("_capacity", "_frames", "_waiters", "feeder", "holders", "looking", "name", "rung", "seen")

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.feeder: object | None = None
        self.holders = 0
        self.rung = 0
        self.looking = asyncio.Lock()
        self.seen: Look | None = None
        self._capacity = capacity
        self._frames: list[Frame] = []
        self._waiters: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: Frame) -> None:
        """Hand a new frame to the readers."""
        self.extend((frame,))
        self.ring()

    def extend(self, frames: Sequence[Frame]) -> None:
        """Keep `frames`, which are in order, if they are newer than what the ring holds; wakes nobody.

        What does not follow on the ring's last frame replaces the ring, so that the ring never holds a gap within
        a start.
        """
        if not frames:
            return
        if self._frames:
            last, first = place(self._frames[-1]), place(frames[0])
            if first <= last:
                frames = frames[bisect_right(frames, last, key=place) :]
                if not frames:
                    return
                first = place(frames[0])
            if first != (last.start, last.sequence + 1) and (first.start == last.start or first.sequence != 1):
                self._frames.clear()
        self._frames.extend(frames)
        if len(self._frames) > self._capacity + self._capacity // 4:  # not at every frame: each time shifts the list
            del self._frames[: -self._capacity]

    def clear(self) -> None:
        """Forget the ring, whose newest frames may never reach the log; every reader goes to the log."""
        self._frames.clear()
        self.seen = None
        self.ring()

    def after(self, cursor: Cursor, limit: int) -> list[Frame]:
        """Up to `limit` frames behind `cursor`, all of one start. The first need not be the one that follows it."""
        frames = self._frames
        first = bisect_right(frames, cursor, key=place)
        taken = frames[first : first + limit]
        if taken and taken[0].start != taken[-1].start:
            start = taken[0].start
            taken = [frame for frame in taken if frame.start == start]
        return taken

    def ring(self) -> None:
        """Say that something changed: what was seen before may no longer be all."""
        self.rung += 1
        self.wake()

    def wake(self) -> None:
        """Wake everybody who waits, because the ring has more."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            _resolve(waiter)

    async def changed(self, rung: int, seconds: float, waiter: asyncio.Future[None] | None = None) -> None:
        """Wait until the channel has changed since its count was `rung`, or the ring has more; at most `seconds`.

        Whoever holds `waiter` may resolve it to end the wait early.
        """
        if self.rung != rung:
            return
        loop = asyncio.get_running_loop()
        waiter = waiter or loop.create_future()
        timer = loop.call_later(seconds, _resolve, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)


class Look:
    """What a look into the log showed: begun when the channel's count was `rung`, at `at` (the loop's clock), it
    found nothing behind `head`; `ended` if nothing can follow."""

    __slots__ = ("at", "ended", "head", "rung")

    def __init__(self, rung: int, at: float, head: Cursor, ended: bool) -> None:
        self.rung = rung
        self.at = at
        self.head = head
        self.ended = ended


class Broker:
    """The channels of this process, by name: an execution's `CASE.NUMBER`, or a case's id for its events."""

    def __init__(self, ring_frames: int = RING_FRAMES) -> None:
        if ring_frames < 1:
            raise ValueError(f"a ring of {ring_frames} frames holds nothing; give 1 or more")
        self._ring_frames = ring_frames
        self._channels: dict[str, Channel] = {}

    def __len__(self) -> int:
        """How many channels there are: none when nobody writes or reads."""
        return len(self._channels)

    def hold(self, name: str) -> Channel:
        """The channel `name`, kept until `release`."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._ring_frames)
        channel.holders += 1
        return channel

    def release(self, channel: Channel) -> None:
        """Give `channel` back; the last holder's release forgets it."""
        channel.holders -= 1
        if channel.holders == 0:
            self._channels.pop(channel.name, None)

    def find(self, name: str) -> Channel | None:
        """The channel `name`, if somebody holds it."""
        return self._channels.get(name)

    def hear(self, name: str) -> None:
        """A hint that something new about `name` is in the log. A stream that is written here needs none."""
        channel = self._channels.get(name)
        if channel is not None and channel.feeder is None:
            channel.ring()

    def hear_all(self) -> None:
        """A hint that anything may have changed: wake-ups may have been lost."""
        for channel in list(self._channels.values()):
            if channel.feeder is None:
                channel.ring()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
