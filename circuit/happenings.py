"""A case as it is followed: its events and what its executions say, live, to where nothing more happens by itself."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from circuit.engine.views import CaseStanding
from circuit.errors import CircuitError, StorageError
from circuit.events import CaseEvent, FiringBegun, FiringCancelled, FiringFailed, Frame, TransitionFired
from circuit.ids import CaseKey, parse_numbered
from circuit.streams.subscription import Streams

logger = logging.getLogger(__name__)

_QUEUE = 1000
_LAST_FRAMES_SECONDS = 3.0
"""How long the event that ends an execution waits for the next of its frames, unless who follows takes none."""
_FIRST_LOOK_SECONDS = 0.05
_LONGEST_LOOK_SECONDS = 2.0
"""How often a case that says nothing is looked at, to see whether it rests."""
AWAY_SECONDS = 60.0
"""How long a database that cannot be reached is waited for."""
QUIET_SECONDS = 3.0
"""How long a case says nothing until it is asked whether any worker can take it; each time twice as long."""


@dataclass(frozen=True, slots=True)
class CaseUpdate:
    """An event of a case. `seq` counts the case's events from 1."""

    seq: int
    at: datetime
    event: CaseEvent


@dataclass(frozen=True, slots=True)
class StreamUpdate:
    """A frame of the stream of one execution of a case."""

    execution_id: str
    frame: Frame


Happening = CaseUpdate | StreamUpdate


class _Alarm:
    """Comes out of a queue where nothing else does for as long as was said. Its timer is not set anew for each item:
    many come soon after each other, and a timer costs more than what is done for an item."""

    def __init__(self, queue: _Items) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._due: float | None = None

    def set(self, seconds: float) -> None:
        """Come in `seconds`."""
        self._due = self._loop.time() + seconds
        if self._timer is None or self._due < self._rings_at:
            self.end()
            self._wind(self._due)

    def unset(self) -> None:
        """Do not come."""
        self._due = None

    def end(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._rings_at < self._due:
            self._wind(self._due)
        elif self._queue.empty():
            self._queue.put_nowait(self)

    def _wind(self, at: float) -> None:
        # What loops give back for a timer need not say when that is.
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._go_off)


_Items = asyncio.Queue[Happening | BaseException | _Alarm | None]


async def happenings(
    source: Streams,
    key: CaseKey,
    look: Callable[[], Awaitable[CaseStanding]],
    rests: Callable[[CaseStanding], bool],
    silent: Collection[str] | None,
    missing: Callable[[], Awaitable[str]],
    tell: Callable[[str], None],
) -> AsyncGenerator[Happening]:
    """The events of a case and the frames of its executions but those in `silent` (of none at all if None). Where the
    case says nothing, `tell` hears what `missing` says of why no worker takes it: each reason once. A database that
    cannot be reached for `AWAY_SECONDS` ends it with the error."""
    queue: _Items = asyncio.Queue(_QUEUE)
    streams: dict[str, asyncio.Task[None]] = {}
    heard: Counter[str] = Counter()

    async def listen(execution_id: str) -> None:
        execution = parse_numbered(execution_id)
        if execution is None:
            return
        try:
            async for frame in source.subscribe(execution, key.tenant, known=True):
                await queue.put(StreamUpdate(execution_id, frame))
                heard[execution_id] += 1
        except CircuitError as error:
            # What an execution says is worth less than what happens: the case is followed all the same.
            logger.warning("the stream of execution %s ended early: %s", execution_id, error)

    async def heard_out(execution_id: str) -> None:
        """The event that ends an execution comes after the last of its frames, if they come at all."""
        listener, count = streams.get(execution_id), -1
        if listener is not None:
            while not listener.done() and (heard[execution_id] > count or queue.full()):
                count = heard[execution_id]
                await asyncio.wait([listener], timeout=_LAST_FRAMES_SECONDS)
            listener.cancel()
            del streams[execution_id], heard[execution_id]

    async def follow() -> None:
        async for seq, at, event in source.follow(key):
            if isinstance(event, FiringBegun) and silent is not None and event.execution_id not in silent:
                streams[event.execution_id] = asyncio.create_task(listen(event.execution_id))
            elif isinstance(event, TransitionFired | FiringFailed | FiringCancelled) and event.execution_id:
                await heard_out(event.execution_id)
            await queue.put(CaseUpdate(seq, at, event))

    async def run() -> None:
        try:
            await follow()
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    following = asyncio.create_task(run())
    alarm = _Alarm(queue)
    seen, pause = 0, _FIRST_LOOK_SECONDS
    quiet, ask_at, told = 0.0, QUIET_SECONDS, ""
    loop, away_since = asyncio.get_running_loop(), None
    try:
        while True:
            if queue.empty():
                alarm.set(pause)
                item = await queue.get()
                alarm.unset()
            else:
                item = queue.get_nowait()
            if isinstance(item, _Alarm):
                quiet += pause
                pause = min(pause * 2, _LONGEST_LOOK_SECONDS)
                try:
                    standing = await look()
                    if rests(standing) and not standing.status.terminal and seen >= standing.seq and queue.empty():
                        return
                    if standing.owned:
                        # A worker has it: what it waits for is no worker.
                        quiet, ask_at = 0.0, QUIET_SECONDS
                    elif quiet >= ask_at:
                        ask_at = 2 * quiet
                        if (said := await missing()) and said != told:
                            told = said
                            tell(said)
                    away_since = None
                except StorageError as error:
                    away_since = away_since or loop.time()
                    if not error.retryable or loop.time() - away_since >= AWAY_SECONDS:
                        raise
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, CaseUpdate):
                seen = item.seq
                # What is said does not bring the case to a rest: only what happens is followed by a look that soon.
                pause = _FIRST_LOOK_SECONDS
            quiet, ask_at = 0.0, QUIET_SECONDS
            yield item
    finally:
        alarm.end()
        for task in (following, *streams.values()):
            task.cancel()
        await asyncio.gather(following, *streams.values(), return_exceptions=True)
