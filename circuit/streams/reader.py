"""One reader of one execution's stream: a cursor over the ring of this process, and over the log where that is short.

The rule that keeps the stream whole: a frame is handed out only if it follows the cursor within its start, or if it
came from the log, which is in order, or if it opens a later start and a look into the log, begun after the frame was
seen, showed nothing between. So it does not matter what a ring dropped, nor which process writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from circuit.errors import NotFound, StorageError, StreamRetired
from circuit.events import TERMINAL, Frame
from circuit.streams.broker import Broker
from circuit.streams.channel import Channel, Look, Waiter, before, place
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.log import FramePage
from circuit.streams.pace import batch, size
from circuit.streams.relay import Relay

logger = logging.getLogger(__name__)

EARLY = 0.25
MANY = 10
"""By so much of its time a wait may end early where more than so many read: the end of each wakes all, so their ends
come together, and each is woken a few times, however many they are."""

Line = Callable[[Sequence[Frame]], int]
"""Sends frames at once, as many of the first as it can without waiting, and says how many."""


class Reader:
    """`read` until `over`, then `close`. One task reads; `stop` may come from anywhere in the same loop."""

    def __init__(
        self,
        name: str,
        cursor: Cursor,
        look: Callable[[Cursor, int], Awaitable[FramePage | None]],
        broker: Broker,
        relay: Relay,
    ) -> None:
        self.name = name
        self.over = False
        self._start, self._sequence = cursor
        self._look = look
        self._broker = broker
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._channel: Channel = broker.hold(name)
        self._closed = False
        self._waiter: Waiter | None = None
        self._pause = relay.pause(fed=False)
        # What has yet to be handed out of the page that this reader holds, and the bytes that the page takes.
        self._first: Sequence[Frame] = ()
        self._page = 0
        # Where in the ring the next frame lies, if it is there at all; and the look into the log by which this reader
        # has, at the end of the ring, all that there is.
        self._position = self._channel.position(cursor)
        self._settled: Look | None = None
        # Where frames go while `read` waits, and when (by the loop's clock) the last went there.
        self._line: Line | None = None
        self._sent_at = float("-inf")

    @property
    def cursor(self) -> Cursor:
        """The last frame that was handed out."""
        return Cursor(self._start, self._sequence)

    @property
    def waits(self) -> bool:
        """Whether there is nothing to read yet."""
        return not (self.over or self._first)

    @property
    def behind(self) -> int:
        """How many of the frames that the ring holds come behind the cursor."""
        return 0 if self._closed else self._channel.end - self._channel.position(self.cursor)

    async def open(self, *, known: bool = False) -> None:
        """Take the first look. Afterwards `over` says whether there is anything to read, now or later. Of an execution
        that is `known` to be there, and whose first start speaks here, there is nothing to look for: the ring has it.

        Raises `NotFound`, `StreamRetired` and `StorageError`.
        """
        channel = self._channel
        if known and self.cursor == BEGINNING and channel.feeder is not None and channel.feeder.start == 1:
            held = channel.after(self.cursor)
            if not held or self._continues(held):
                if channel.seen is None:
                    channel.seen = Look(channel.rung, self._loop.time(), BEGINNING, ended=False)
                return
        try:
            rung = self._channel.rung
            found = await self._look_up(rung)
            if found is None:
                raise NotFound(f"there is no execution {self.name}; `circuit show CASE` lists those of a case")
            self._first = found
            if not found:
                self._first = await self._next()
        except BaseException:
            self.close()
            raise

    def send_through(self, line: Line) -> None:
        """Send what comes while `read` waits through `line`; `read` returns what the line does not take, and the end.

        Only what one turn of the loop can send goes there: to whoever reads slowly the task has to see.
        """
        self._line = line

    async def read(self, timeout: float | None = None) -> Sequence[Frame]:
        """The next frames, at least one. None if the stream is `over`, or if `timeout` seconds brought nothing, not
        to the line either; where many read, after somewhat less.

        A database that cannot be reached is waited for. Raises other `StorageError`s.
        """
        channel, until = self._channel, 0.0
        pace = channel.pace
        while not self.over:
            if pace.crowded:
                await pace.turn()
                if self.over:
                    break
            rung = channel.rung
            # Mostly a reader has all that there is when it comes, and finds the next frame where it left off.
            if self._position != channel.end or not self._caught_up():
                frames = () if self._first else channel.following(self._position, self._start, self._sequence)
                if frames:
                    self._position += len(frames)
                    if self._page:
                        self._hold(0)
                else:
                    frames = await self._next()
                if frames and not self.over:
                    last = frames[-1]
                    self._start, self._sequence = last.start, last.sequence
                    self.over = last.type in TERMINAL
                    pace.spend(size(frames))
                    return frames
            seconds = self._pause
            if timeout is not None:
                now = self._loop.time()
                until = max(until or now + timeout, self._sent_at + timeout)
                if until - now <= (timeout * EARLY if channel.holders > MANY else 0.0):
                    break
                if until - now < seconds:
                    seconds = until - now
            if not self.over and channel.rung == rung:
                self._waiter = channel.wait(seconds, self if self._line is not None else None)
                if await self._waiter:
                    self._settled = None
        return ()

    def stop(self) -> None:
        """End the stream for this reader: a `read` under way returns at once, with nothing."""
        self.over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)

    def close(self) -> None:
        """Stop, and give back what the reader holds. Doing it twice is fine."""
        self.stop()
        if not self._closed:
            self._closed = True
            self._first = ()
            self._hold(0)
            self._broker.release(self._channel)

    def take(self, now: float) -> bool:
        """Send what is new through the line. False where `read` has to see to it: the end, and what is not sure."""
        channel, line = self._channel, self._line
        if self._position != channel.end:
            frames = channel.following(self._position, self._start, self._sequence)
            if not frames or line is None or frames[-1].type in TERMINAL:
                return False
            taken = line(frames)
            if taken:
                last = frames[taken - 1]
                self._start, self._sequence = last.start, last.sequence
                self._position += taken
                self._sent_at = now
                channel.pace.spend(len(last.body) if taken == 1 else size(frames[:taken]))
            if self._position != channel.end:
                return False
        return channel.feeder is not None or self._looked_for()

    async def look(self, rung: int) -> None:
        """Look into the log, for all who follow. Raises what is in the way, `NotFound` where nothing is there."""
        async with self._channel.looking:
            if self._unsure(rung, ()):
                found = await self._look_up(rung)
                self._hold(0)  # what was found is in the ring
                if found is None:
                    raise NotFound(f"there is no execution {self.name} any more")

    def _looked_for(self) -> bool:
        """Whether this reader has all that the last look showed, and somebody looks for what comes after."""
        channel = self._channel
        seen = channel.seen
        return (
            seen is not None
            and not seen.ended
            and (seen.rung == channel.rung or channel.looked_for)
            and seen.head == (self._start, self._sequence)
        )

    def _caught_up(self) -> bool:
        """Whether a reader at the end of the ring is known to have all that there is: the stream is written here."""
        channel, settled = self._channel, self._settled
        return settled is not None and channel.seen is settled and channel.feeder is not None and not self._first

    async def _next(self) -> Sequence[Frame]:
        """What may be handed out now, if anything; sets `over` where nothing can follow."""
        channel = self._channel
        self._pause = self._relay.pause(fed=channel.feeder is not None)
        if not self._first:
            self._hold(0)
        found = self._first or await self._find()
        frames = batch(found)
        self._first = found[len(frames) :]
        self._position = channel.position(place(frames[-1]) if frames else self.cursor)
        self._settled = None if frames or self._unsure(channel.rung, ()) else channel.seen
        return frames

    async def _find(self) -> Sequence[Frame]:
        channel = self._channel
        rung = channel.rung
        held = channel.after(self.cursor)
        if self._continues(held):
            return held
        if self._unsure(rung, held):
            async with channel.looking:
                newer = channel.after(self.cursor)  # whoever looked before may have found it
                if self._continues(newer):
                    return newer
                if self._unsure(rung, held):
                    try:
                        found = await self._look_up(rung)
                    except StorageError as error:
                        if not error.retryable:
                            raise
                        logger.warning("execution %s: %s; the stream waits", self.name, error)
                        return ()
                    if found:
                        return found
                    if found is None:
                        self.over = True
                        return ()
        if held and held[0].start > self.cursor.start and before(held[0]).sequence == 0:
            return held
        channel.missed |= bool(held) and channel.feeder is not None
        seen = channel.seen
        if seen is not None and seen.ended and seen.head <= self.cursor and channel.feeder is None:
            self.over = True
        return ()

    def _continues(self, frames: Sequence[Frame]) -> bool:
        if not frames:
            return False
        first = frames[0]
        return first.sequence - first.merged == self._sequence and first.start == self._start

    def _unsure(self, rung: int, held: Sequence[Frame]) -> bool:
        """Whether the log may hold what this reader lacks."""
        seen, fed = self._channel.seen, self._channel.feeder is not None
        if seen is None or seen.head > self.cursor or (not fed and self._loop.time() - seen.at >= self._pause):
            return True
        # Behind the ring of a stream that is written here there is nothing, whatever has changed since the last look,
        # and however long ago that was.
        return seen.rung < rung and (bool(held) or not fed)

    async def _look_up(self, rung: int) -> Sequence[Frame] | None:
        """A page of the log behind the cursor; None if there is no such execution (any more)."""
        channel, cursor, at = self._channel, self.cursor, self._loop.time()
        self._hold(self._broker.room.page())
        page = await self._look(cursor, self._page)
        if page is None:
            return None
        self._hold(size(page.frames))
        if channel.feeder is None and page.frames:
            channel.extend(page.frames)
            channel.share()
        if page.retired:
            raise StreamRetired(
                f"the frames of execution {self.name} were dropped; `circuit executions show` has its end"
            )
        if not page.full:
            head = place(page.frames[-1]) if page.frames else cursor
            channel.seen = Look(rung, at, head, page.ended)
        return page.frames

    def _hold(self, count: int) -> None:
        """Take the room of a page of so many bytes, and give back that of the one before."""
        held = 0 if self._closed else count
        self._broker.room.left += self._page - held
        self._page = held
