"""One stream as a process knows it live: a ring of its newest frames, and who waits for the next one.

A reader is a cursor over the ring, never a queue: one that is slow costs nothing, falls off the ring and reads the
log instead.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from circuit.events import Frame
from circuit.streams.cursor import Cursor
from circuit.streams.news import News
from circuit.streams.pace import Pace, batch

BATCH_FRAMES = 256

MOST_BYTES = 16 * 1024 * 1024
"""Of a ring's frames, should they be large: it keeps fewer of them then, and the newest in any case."""

HANDED_AT_ONCE = 500
"""Followers that are handed what is new in one turn of the loop, unless its bytes are spent before: some milliseconds.
"""

logger = logging.getLogger(__name__)

Waiter = asyncio.Future[bool]


class Feeder(Protocol):
    """Who writes a stream in this process."""

    @property
    def start(self) -> int:
        """The start of the execution that it writes."""
        ...


class Follower(Protocol):
    """Who waits, and is handed what comes where it stands."""

    def take(self, now: float) -> bool:
        """Take all that is new, at this time of the loop. False if its task has to see to it."""
        ...

    async def look(self, rung: int) -> None:
        """Look into the log, for all who follow: into the ring with what is new. Raises what the look raises."""
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
    that came with news. `looking` lets one reader at a time look into the log, for all of them; `seen` is what its last
    look showed.

    Who waits is woken when something comes, or may have come. A follower waits too, but what comes is handed to it
    where it stands, to all of them in one go, and its task sleeps on: a turn of a task for each reader and event costs
    as much as sending does. Where the log has to be looked into, one look is taken for all who follow.

    `missed` says that somebody lacks frames that the ring has dropped and the log did not have yet.
    """

    __slots__ = (
        "_alarm",
        "_bytes",
        "_capacity",
        "_due",
        "_first",
        "_followers",
        "_frames",
        "_loop",
        "_patience",
        "_scout",
        "_waiters",
        "end",
        "feeder",
        "holders",
        "looking",
        "missed",
        "name",
        "news",
        "pace",
        "rung",
        "seen",
        "told",
    )

    def __init__(self, name: str, capacity: int, pace: Pace) -> None:
        self.name = name
        self.pace = pace
        self.feeder: Feeder | None = None
        self.news: News | None = None
        self.holders = 0
        self.rung = 0
        self.told = 0
        self.missed = False
        self.looking = asyncio.Lock()
        self.seen: Look | None = None
        self._capacity = capacity
        # How many frames the ring has dropped: the first of those that it holds has this position; the next one to come
        # has the position `end`.
        self._first = 0
        self.end = 0
        self._frames: list[Frame] = []
        self._bytes = 0
        self._loop = asyncio.get_running_loop()
        self._waiters: list[Waiter] = []
        self._followers: list[tuple[Waiter, Follower]] = []
        # How many of the first of them have yet to be handed what is new, and who looks into the log for all of them.
        self._due = 0
        self._scout: asyncio.Task[None] | None = None
        # One timer for all who wait: it is set for the first of them to whom it gets too long.
        self._alarm: asyncio.TimerHandle | None = None
        self._patience = 0.0

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: Frame) -> None:
        """Hand a new frame to the readers: to those who follow in the loop's next turn, with what comes until then."""
        self.extend((frame,))
        self.rung += 1
        self.share()

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
        for frame in frames:
            self._bytes += len(frame.body)
        # Not at every frame: each time shifts the list.
        if len(self._frames) > self._capacity + self._capacity // 4:
            self._drop(len(self._frames) - self._capacity)
        if self._bytes > MOST_BYTES:
            self._lighten()

    def stored(self) -> None:
        """Say that the log has what was appended: who lacks what the ring has dropped finds it there."""
        if self.missed:
            self.missed = False
            self.rung += 1
            self.share()

    def clear(self) -> None:
        """Forget the ring, whose newest frames may never reach the log; every reader goes to the log."""
        self._drop(len(self._frames))
        self.seen = None
        self.rung += 1
        self.wake()

    def after(self, cursor: Cursor, limit: int = BATCH_FRAMES) -> Sequence[Frame]:
        """Up to `limit` frames behind `cursor`, all of one start. The first need not be the one that follows it."""
        first = bisect_right(self._frames, cursor, key=place)
        return batch(_of_one_start(self._frames[first : first + limit]))

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
                return batch(_of_one_start(frames[index : index + BATCH_FRAMES]))
        return ()

    def position(self, cursor: Cursor) -> int:
        """Where the first frame behind `cursor` lies, or will lie."""
        return self._first + bisect_right(self._frames, cursor, key=place)

    @property
    def looked_for(self) -> bool:
        """Whether somebody sees to it that what is new in the log comes to all who follow."""
        return self._scout is not None

    def ring(self) -> None:
        """Say that the log may have more: who waits looks, and one for all who follow."""
        self.rung += 1
        self._wake_waiters()
        if self._scout is None:
            follower = next((follower for waiter, follower in self._followers if not waiter.done()), None)
            if follower is not None:
                self._scout = self._loop.create_task(self._look_for_all(follower), name=f"circuit-scout-{self.name}")

    def share(self) -> None:
        """Say that the ring has more: who waits finds it there, and who follows gets it in the loop's next turn."""
        self._wake_waiters()
        if not self._due and self._followers:
            self._loop.call_soon(self._hand_out)
        self._due = len(self._followers)

    def wake(self, *, late: bool = False) -> None:
        """Wake everybody, because nobody can be sure of what there is, or because it gets `late` for one of them."""
        self._wake_waiters(late=late)
        followers, self._followers, self._due = self._followers, [], 0
        _wake([waiter for waiter, _ in followers], late=late)

    def wait(self, seconds: float, follower: Follower | None = None) -> Waiter:
        """A future that is done when the log may have more, when the ring has more, or (then it is True) after
        `seconds` or before. With a `follower`, only for what it does not take. Whoever waits may also resolve it."""
        if self._alarm is None or seconds < self._patience:
            # An alarm that was set before, for no longer, goes off in time.
            self._forget_alarm()
            self._patience = seconds
            self._alarm = self._loop.call_later(seconds, self._go_off)
        waiter: Waiter = self._loop.create_future()
        if follower is None:
            self._waiters.append(waiter)
        else:
            self._followers.append((waiter, follower))
        return waiter

    async def changed(self, rung: int, seconds: float) -> None:
        """Wait until the channel has changed since its count was `rung`, or the ring has more; at most `seconds`."""
        if self.rung == rung:
            await self.wait(seconds)

    def rest(self) -> None:
        """Nobody reads any more: wake nobody, and look for nobody."""
        self._forget_alarm()
        if self._scout is not None:
            self._scout.cancel()

    def _wake_waiters(self, *, late: bool = False) -> None:
        waiters, self._waiters = self._waiters, []
        _wake(waiters, late=late)

    def _forget_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _go_off(self) -> None:
        self._alarm = None
        self.wake(late=True)

    def _hand_out(self) -> None:
        """Let those who follow take what is new; wake who does not."""
        count, pace, now = 0, self.pace, self._loop.time()
        staying: list[tuple[Waiter, Follower]] = []
        for waiting in self._followers[: min(self._due, HANDED_AT_ONCE)]:
            if pace.left <= 0:
                break
            count += 1
            waiter, follower = waiting
            if waiter.done():
                continue
            try:
                taken = follower.take(now)
            except Exception as error:
                waiter.set_exception(error)
            else:
                if taken:
                    staying.append(waiting)
                else:
                    waiter.set_result(False)
        self._followers = [*self._followers[count:], *staying]
        self._due -= count
        if self._due:
            self._loop.call_soon(self._hand_out)

    async def _look_for_all(self, follower: Follower) -> None:
        try:
            rung = -1
            while self.rung != rung:
                rung = self.rung
                await follower.look(rung)
                if self.seen is None or self.seen.rung < rung:  # there is more than one look shows
                    self.wake()
                else:
                    self.share()
        except Exception as error:
            logger.debug("%s: a look for all failed: %r", self.name, error)
            self.wake()  # each will see for itself
        finally:
            self._scout = None

    def _lighten(self) -> None:
        """Drop the oldest frames until three quarters of what may be held are left, or the newest one."""
        rest, count = self._bytes, 0
        while rest > MOST_BYTES * 3 // 4 and count < len(self._frames) - 1:
            rest -= len(self._frames[count].body)
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        self._first += count
        self._bytes -= sum(len(frame.body) for frame in self._frames[:count])
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


def _wake(waiters: Sequence[Waiter], *, late: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(late)


def _of_one_start(frames: list[Frame]) -> list[Frame]:
    if frames and frames[0].start != frames[-1].start:
        start = frames[0].start
        return [frame for frame in frames if frame.start == start]
    return frames
