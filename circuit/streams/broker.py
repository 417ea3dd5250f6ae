"""What one process knows live: per stream a ring of its newest frames, and who waits for the next one.

A reader is a cursor over the ring, never a queue: one that is slow costs nothing, falls off the ring and reads the
log instead. A channel exists while an outlet feeds it or a reader holds it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple, Protocol

from circuit.events import CaseEvent, Frame
from circuit.streams.cursor import Cursor
from circuit.streams.news import News

RING_FRAMES = 1000

BATCH_FRAMES = 256

MOST_OVERHEARD = 10_000

Waiter = asyncio.Future[bool]

Take = Callable[[float], bool]
"""Takes all that is new for a follower, at this time of the loop; False if its task has to see to it."""


class Feeder(Protocol):
    """Who writes a stream in this process."""

    @property
    def start(self) -> int:
        """The start of the execution that it writes."""
        ...


def place(frame: Frame) -> Cursor:
    """Where `frame` stands in its stream."""
    return Cursor(frame.start, frame.sequence)


def before(frame: Frame) -> Cursor:
    """The place that `frame` follows on: what it holds begins behind it."""
    return Cursor(frame.start, frame.sequence - frame.merged)


class Channel:
    """One stream as this process sees it.

    `feeder` is the outlet of this process that writes the stream, if one does: then nothing new comes from elsewhere.
    `news` are the events of a case that were committed here while somebody followed it.
    `rung` counts the changes: who saw `rung` and then nothing new waits for it to differ; `told` counts those of them
    that came with news. `looking` lets one reader
    at a time look into the log, for all of them; `seen` is what its last look showed.

    Who waits is woken when something comes. A follower waits too, but what is appended is handed to it where it stands,
    to all of them in one go, and its task sleeps on: a task a reader and event costs as much as sending does.
    """

    __slots__ = (
        "_alarm",
        "_capacity",
        "_first",
        "_followers",
        "_frames",
        "_handing",
        "_loop",
        "_patience",
        "_waiters",
        "end",
        "feeder",
        "holders",
        "looking",
        "name",
        "news",
        "rung",
        "seen",
        "told",
    )

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.feeder: Feeder | None = None
        self.news: News | None = None
        self.holders = 0
        self.rung = 0
        self.told = 0
        self.looking = asyncio.Lock()
        self.seen: Look | None = None
        self._capacity = capacity
        # How many frames the ring has dropped: the first of those that it holds has this position; the next one to come
        # has the position `end`.
        self._first = 0
        self.end = 0
        self._frames: list[Frame] = []
        self._loop = asyncio.get_running_loop()
        self._waiters: list[Waiter] = []
        self._followers: list[tuple[Waiter, Take]] = []
        self._handing = False
        # One timer for all who wait: it is set for the first of them to whom it gets too long.
        self._alarm: asyncio.TimerHandle | None = None
        self._patience = 0.0

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: Frame) -> None:
        """Hand a new frame to the readers: to those who follow in the loop's next turn, with what comes until then."""
        self.extend((frame,))
        self.rung += 1
        waiters, self._waiters = self._waiters, []
        _wake(waiters, late=False)
        if self._followers and not self._handing:
            self._handing = True
            self._loop.call_soon(self._hand_out)

    def extend(self, frames: Sequence[Frame]) -> None:
        """Keep `frames`, which are in order, if they are newer than what the ring holds; wakes nobody.

        What does not follow on the ring's last frame replaces the ring, so that the ring never holds a gap within
        a start.
        """
        if not frames:
            return
        if self._frames:
            last = place(self._frames[-1])
            if place(frames[0]) <= last:
                frames = frames[bisect_right(frames, last, key=place) :]
                if not frames:
                    return
            behind = before(frames[0])
            if behind != last and (behind.start == last.start or behind.sequence != 0):
                self._drop(len(self._frames))
        self._frames.extend(frames)
        self.end += len(frames)
        if len(self._frames) > self._capacity + self._capacity // 4:  # not at every frame: each time shifts the list
            self._drop(len(self._frames) - self._capacity)

    def clear(self) -> None:
        """Forget the ring, whose newest frames may never reach the log; every reader goes to the log."""
        self._drop(len(self._frames))
        self.seen = None
        self.ring()

    def after(self, cursor: Cursor, limit: int = BATCH_FRAMES) -> list[Frame]:
        """Up to `limit` frames behind `cursor`, all of one start. The first need not be the one that follows it."""
        first = bisect_right(self._frames, cursor, key=place)
        return _of_one_start(self._frames[first : first + limit])

    def following(self, position: int, start: int, sequence: int) -> Sequence[Frame]:
        """The frames of `start` behind its number `sequence`, if the ring has them at `position`; else none.

        A position counts what came into the ring since it began: the way of a reader that follows the ring without a
        search. What the ring dropped or replaced meanwhile is noticed by what lies there.
        """
        frames, index = self._frames, position - self._first
        if 0 <= index < len(frames):
            frame = frames[index]
            if frame.sequence - frame.merged == sequence and frame.start == start:
                if index + 1 == len(frames):
                    return (frame,)
                return _of_one_start(frames[index : index + BATCH_FRAMES])
        return ()

    def position(self, cursor: Cursor) -> int:
        """Where the first frame behind `cursor` lies, or will lie."""
        return self._first + bisect_right(self._frames, cursor, key=place)

    def ring(self) -> None:
        """Say that something changed: what was seen before may no longer be all."""
        self.rung += 1
        self.wake()

    def wake(self, *, late: bool = False) -> None:
        """Wake everybody who waits, because the ring has more, or because it gets `late` for one of them."""
        waiters, self._waiters = self._waiters, []
        followers, self._followers = self._followers, []
        _wake(waiters, late=late)
        _wake([waiter for waiter, _ in followers], late=late)

    def wait(self, seconds: float, take: Take | None = None) -> Waiter:
        """A future that is done when the channel has changed, when the ring has more, or (then it is True) after
        `seconds` or before. With `take`, not for what is appended and that took. Whoever waits may also resolve it."""
        if self._alarm is None or seconds < self._patience:
            # An alarm that was set before, for no longer, goes off in time.
            self.forget_alarm()
            self._patience = seconds
            self._alarm = self._loop.call_later(seconds, self._go_off)
        waiter: Waiter = self._loop.create_future()
        if take is None:
            self._waiters.append(waiter)
        else:
            self._followers.append((waiter, take))
        return waiter

    async def changed(self, rung: int, seconds: float) -> None:
        """Wait until the channel has changed since its count was `rung`, or the ring has more; at most `seconds`."""
        if self.rung == rung:
            await self.wait(seconds)

    def forget_alarm(self) -> None:
        """Wake nobody any more for having waited long."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _go_off(self) -> None:
        self._alarm = None
        self.wake(late=True)

    def _hand_out(self) -> None:
        """Let every follower take what is new; wake those that do not."""
        self._handing = False
        followers, self._followers = self._followers, []
        staying, now = self._followers, self._loop.time()
        for follower in followers:
            waiter, take = follower
            if waiter.done():
                continue
            try:
                taken = take(now)
            except Exception as error:
                waiter.set_exception(error)
            else:
                if taken:
                    staying.append(follower)
                else:
                    waiter.set_result(False)

    def _drop(self, count: int) -> None:
        self._first += count
        del self._frames[:count]


class Look:
    """What a look into the log showed: begun when the channel's count was `rung`, at `at` (the loop's clock), it
    found nothing behind `head`; `ended` if nothing can follow."""

    __slots__ = ("at", "ended", "head", "rung")

    def __init__(self, rung: int, at: float, head: Cursor, ended: bool) -> None:
        self.rung = rung
        self.at = at
        self.head = head
        self.ended = ended


class Heard(NamedTuple):
    """Names of which something is new. `lost` says that there may be others."""

    names: frozenset[str]
    lost: bool


class Ear:
    """Hears of every case that changes, for whoever does not know beforehand which ones count."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lost = False
        self._woken = asyncio.Event()

    def hear(self, name: str) -> None:
        """Something of the case `name` is new."""
        if len(self._names) < MOST_OVERHEARD:
            self._names.add(name)
        else:
            self._lost = True
        self._woken.set()

    def lose(self) -> None:
        """Hints may have been lost."""
        self._lost = True
        self._woken.set()

    async def heard(self, seconds: float) -> Heard:
        """What was heard since the last time; waits for it up to `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
        found = Heard(frozenset(self._names), self._lost)
        self._names.clear()
        self._lost = False
        return found


class Broker:
    """The channels of this process, by name: an execution's `CASE.NUMBER`, or a case's id for its events."""

    def __init__(self, ring_frames: int = RING_FRAMES) -> None:
        if ring_frames < 1:
            raise ValueError(f"a ring of {ring_frames} frames holds nothing; give 1 or more")
        self._ring_frames = ring_frames
        self._channels: dict[str, Channel] = {}
        self._feeders: dict[str, Feeder] = {}
        self._ears: set[Ear] = set()

    def __len__(self) -> int:
        """How many channels there are: none when nobody writes or reads."""
        return len(self._channels)

    def hold(self, name: str) -> Channel:
        """The channel `name`, kept until `release`."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._ring_frames)
            channel.feeder = self._feeders.get(name)
        channel.holders += 1
        return channel

    def release(self, channel: Channel) -> None:
        """Give `channel` back; the last holder's release forgets it."""
        channel.holders -= 1
        if channel.holders == 0:
            channel.forget_alarm()
            self._channels.pop(channel.name, None)

    def fed(self, name: str, feeder: Feeder) -> None:
        """From now on the stream `name` is written here, by `feeder`, in the place of who did before."""
        self._feeders[name] = feeder
        channel = self._channels.get(name)
        if channel is not None:
            channel.feeder = feeder

    def unfed(self, name: str, feeder: Feeder) -> None:
        """`feeder` writes it no more. Twice is fine."""
        if self._feeders.get(name) is feeder:
            del self._feeders[name]
            channel = self._channels.get(name)
            if channel is not None:
                channel.feeder = None

    def find(self, name: str) -> Channel | None:
        """The channel `name`, if somebody holds it."""
        return self._channels.get(name)

    def tell(self, name: str, seq: int, events: Sequence[tuple[datetime, CaseEvent]]) -> None:
        """The case `name` has `events`, the first of which has the number `seq`: this process committed them."""
        channel = self._channels.get(name)
        if channel is not None and events:
            if channel.news is None:
                channel.news = News()
            channel.news.add(seq, events)
            channel.told += channel.feeder is None
        self.hear(name)

    def hear(self, name: str) -> None:
        """A hint that something new about `name` is in the log. A stream that is written here needs none."""
        channel = self._channels.get(name)
        if channel is not None and channel.feeder is None:
            channel.ring()
        if self._ears and "." not in name:
            for ear in self._ears:
                ear.hear(name)

    def overhear(self) -> Ear:
        """An ear for every case; give it back with `ignore`."""
        ear = Ear()
        self._ears.add(ear)
        return ear

    def ignore(self, ear: Ear) -> None:
        """Forget an ear."""
        self._ears.discard(ear)

    def hear_all(self) -> None:
        """A hint that anything may have changed: wake-ups may have been lost."""
        for channel in list(self._channels.values()):
            if channel.feeder is None:
                channel.ring()
        for ear in self._ears:
            ear.lose()


def _wake(waiters: Sequence[Waiter], *, late: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(late)


def _of_one_start(frames: list[Frame]) -> list[Frame]:
    if frames and frames[0].start != frames[-1].start:
        start = frames[0].start
        return [frame for frame in frames if frame.start == start]
    return frames
