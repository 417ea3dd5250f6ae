"""What executions say, on its way out: coalesced, encoded once, to live readers at once and to the log in batches.

The first piece of text goes out at once; what follows within `COALESCE_SECONDS` waits and becomes one frame. Events
of other types push out what waits and then go at once. The log gets what is new at most every `STORE_SECONDS`, that of
all outlets at the same moments, in order and with at most one write of an outlet in flight, so that what is stored of a
start is always its beginning.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from circuit.errors import CircuitError, StorageError
from circuit.events import CaseEvent, Frame, StreamDelta, StreamType
from circuit.ids import CaseKey, Numbered
from circuit.security.redactor import NOTHING, Redaction, lengthy
from circuit.storage.records import LogWrite, StreamRow
from circuit.streams.broker import Broker
from circuit.streams.channel import Channel
from circuit.streams.encoding import encode, readable
from circuit.streams.veil import Veil, mergeable
from circuit.threads import apart

COALESCE_SECONDS = 0.03
STORE_SECONDS = 0.1
LONGEST_TEXT = 16 * 1024
"""Characters that wait at most; more go out before their time."""
MOST_UNSTORED = 1000
"""Frames that wait for the log at most; then `emit` waits for the database."""


class Publisher:
    """Opens the outlets of a process.

    `write` commits log rows and returns then; `now` is the time by which the events of cases are stamped as well;
    `notify` is a hint to other processes that something of this name (an execution, or a case) is new, and may be lost.
    """

    def __init__(
        self,
        write: Callable[[LogWrite], Awaitable[None]],
        broker: Broker,
        now: Callable[[], datetime],
        notify: Callable[[str], None],
    ) -> None:
        self.write = write
        self.broker = broker
        self.now = now
        self.notify = notify

    def open(
        self, key: CaseKey, firing: int, start: int, *, reason: str | None, redaction: Redaction = NOTHING
    ) -> Outlet:
        """The outlet of one start of the execution `CASE.firing`, which tells nothing that `redaction` takes out. A
        later start than the first says `restarted`."""
        outlet = Outlet(self, key, firing, start, Veil(redaction) if redaction else None)
        if start > 1:
            outlet.begin(reason or "restarted")
        return outlet

    def announce(self, key: CaseKey, firing: int, frame: Frame) -> None:
        """Hand a frame that is already committed, the terminal one, to the readers."""
        name = str(Numbered(key.case, firing))
        channel = self.broker.find(name)
        if channel is not None:
            channel.append(frame)
        self.notify(name)

    def changed(self, key: CaseKey, seq: int, events: Sequence[tuple[datetime, CaseEvent]]) -> None:
        """Say that `events` of the case were committed, the first with the number `seq`, to its readers here and
        elsewhere."""
        name = str(key)
        self.broker.tell(name, seq, events)
        self.notify(name)

    def heard(self, name: str) -> None:
        """Say that there is something new of `name`, to who waits for it here and elsewhere."""
        self.broker.hear(name)
        self.notify(name)


class Outlet:
    """Where one start of one execution speaks. One task uses it; after `close` or `abandon` it is spent."""

    def __init__(self, publisher: Publisher, key: CaseKey, firing: int, start: int, veil: Veil | None = None) -> None:
        self._publisher = publisher
        self._key = key
        self._firing = firing
        self.start = start
        self._veil = veil
        self._turn = asyncio.Lock()
        self._execution = str(Numbered(key.case, firing))
        publisher.broker.fed(self._execution, self)
        self._loop = asyncio.get_running_loop()
        # Held from the first frame on: most of what answers at once says nothing before its end.
        self._channel: Channel | None = None
        self._sequence = 0
        self._failure: Exception | None = None
        self._over = False
        # Text that waits: what it belongs to (its type, and the status of a thought), its pieces, their length.
        self._kind: tuple[StreamType, Any] | None = None
        self._pieces: list[str] = []
        self._length = 0
        self._said_at = float("-inf")
        self._saying: asyncio.TimerHandle | None = None
        # Frames that are not stored yet, and the one write that is under way.
        self._unstored: list[StreamRow] = []
        self._stored_at = float("-inf")
        self._storing: asyncio.TimerHandle | None = None
        self._write: asyncio.Future[None] | None = None

    @property
    def sequence(self) -> int:
        """The number of the last frame that was sent; 0 before the first."""
        return self._sequence

    def begin(self, reason: str) -> None:
        """Say that this is a new start, before anything else."""
        self._send(StreamDelta(StreamType.RESTARTED, {"reason": reason}))

    async def emit(self, delta: StreamDelta) -> None:
        """Send `delta`. Text may wait a moment. Waits while the log is far behind.

        Raises the `StorageError` that stopped the log: from then on nothing that this start says will be stored.
        """
        self._require_open()
        if self._veil is None:
            self._take(delta)
        else:
            told = await self._redacted(self._veil, delta)
            self._require_open()
            for one in told:
                self._take(one)
        while len(self._unstored) >= MOST_UNSTORED and self._failure is None:
            await self._store_now()
        self._require_open()

    async def close(self) -> int:
        """Send and store everything; the number of the last frame. Raises as `emit` does."""
        self._require_open()
        if self._veil is not None:
            for told in self._veil.end():
                self._take(told)
        self._say(final=True)
        while (self._unstored or self._write is not None) and self._failure is None:
            await self._store_now()
        self._require_open()
        self._finish()
        return self._sequence

    def abandon(self) -> None:
        """Stop without storing what waits: readers go back to what the log holds. Doing it twice is fine."""
        if not self._over:
            if self._channel is not None and self._channel.feeder is self:
                # What readers saw here may never be stored; the ring must not show it to new ones.
                self._channel.clear()
            self._finish()

    # Saying

    async def _redacted(self, veil: Veil, delta: StreamDelta) -> list[StreamDelta]:
        """What may be told now: one delta after the other, also where a long one is redacted apart."""
        async with self._turn:
            return await apart(partial(veil.told, delta)) if lengthy(delta.fields) else veil.told(delta)

    def _take(self, delta: StreamDelta) -> None:
        kind, text = mergeable(delta)
        if kind is None:
            self._say(final=True)
            self._send(delta)
        elif text:
            self._hold_back(kind, text)

    def _hold_back(self, kind: tuple[StreamType, Any], text: str) -> None:
        if kind != self._kind:
            self._say(final=True)
            self._kind = kind
        self._pieces.append(text)
        self._length += len(text)
        wait = self._said_at + COALESCE_SECONDS - self._loop.time()
        if wait <= 0 or self._length >= LONGEST_TEXT:
            self._say()
        elif self._saying is None:
            self._saying = self._loop.call_later(wait, self._say)

    def _say(self, final: bool = False) -> None:
        """Send the text that waits. Half of a surrogate pair at its end waits for the other half, unless `final`."""
        if self._saying is not None:
            self._saying.cancel()
            self._saying = None
        if self._kind is None:
            return
        (type_, status), text = self._kind, "".join(self._pieces)
        rest = text[-1:] if not final and "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text[: len(text) - len(rest)]
        self._pieces, self._length = ([rest], 1) if rest else ([], 0)
        if final:
            self._kind = None
        if not text:
            return
        self._said_at = self._loop.time()
        fields: dict[str, Any] = {"content": readable(text)}
        self._send(StreamDelta(type_, fields if type_ is StreamType.CONTENT_CHUNK else {"status": status, **fields}))

    def _send(self, delta: StreamDelta) -> None:
        self._sequence += 1
        frame = encode(self._execution, self.start, self._sequence, delta, self._publisher.now())
        if self._channel is None:
            self._channel = self._publisher.broker.hold(self._execution)
        if self._channel.feeder is self:  # a newer start in this process may have taken over
            self._channel.append(frame)
        self._unstored.append(StreamRow(self._firing, frame))
        self._plan_store()

    # Storing

    def _plan_store(self) -> None:
        if self._write is not None or self._storing is not None or not self._unstored or self._over:
            return
        due = self._loop.time()
        if self._stored_at > float("-inf"):
            # All outlets at the same moments, so that one commit holds what a process says.
            moments = max(due, self._stored_at + STORE_SECONDS) / STORE_SECONDS
            due = math.ceil(moments - 1e-6) * STORE_SECONDS
        self._storing = self._loop.call_at(due, self._store)

    def _store(self) -> None:
        if self._storing is not None:
            self._storing.cancel()
            self._storing = None
        rows, self._unstored = self._unstored, []
        self._stored_at = self._loop.time()
        try:
            self._write = asyncio.ensure_future(self._publisher.write(LogWrite(self._key, frames=rows)))
        except CircuitError as error:
            self._fail(error)
        else:
            self._write.add_done_callback(self._stored)

    def _stored(self, write: asyncio.Future[None]) -> None:
        self._write = None
        if write.cancelled():
            self._fail(StorageError(f"the log of execution {self._execution} was closed while it was written"))
        elif error := write.exception():
            if not isinstance(error, Exception):
                raise error
            self._fail(error)
        else:
            if self._channel is not None and self._channel.feeder is self:
                self._channel.stored()
            self._publisher.notify(self._execution)
            self._plan_store()

    async def _store_now(self) -> None:
        """Wait until a write under way has ended, or begin one and wait for its end."""
        if self._write is None:
            self._store()
        if self._write is not None:
            await asyncio.wait((self._write,))

    # Ending

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self.abandon()

    def _finish(self) -> None:
        self._over = True
        for timer in (self._saying, self._storing):
            if timer is not None:
                timer.cancel()
        self._saying = self._storing = None
        self._pieces, self._unstored = [], []
        self._publisher.broker.unfed(self._execution, self)
        if self._channel is not None:
            self._publisher.broker.release(self._channel)

    def _require_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._over:
            raise RuntimeError(f"the outlet of execution {self._execution}, start {self.start}, is closed")
