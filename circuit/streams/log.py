"""What readers take from the database: pages of an execution's frames and of a case's events.

A page says whether its subject had ended *before* the page was read. The end and the last event are one commit, so
an ended page that is short is the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from circuit.events import CaseEvent, Frame
from circuit.ids import CaseKey
from circuit.storage import history, streams
from circuit.storage.database import Database
from circuit.storage.ferry import Ferry
from circuit.storage.records import ExecutionStatus
from circuit.streams.cursor import Cursor
from circuit.streams.merging import rest
from circuit.streams.pace import PAGE_BYTES, size

PAGE_FRAMES = 500
PAGE_EVENTS = 500
MOST_FOLLOWED = 50
"""How many cases are looked at together."""


@dataclass(frozen=True, slots=True)
class FramePage:
    """Frames behind a cursor, in order."""

    frames: Sequence[Frame]
    ended: bool
    retired: bool = False
    """Whether there were frames once, and are none any more."""
    full: bool = False
    """Whether more may follow at once."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events behind a number, in order."""

    events: Sequence[tuple[int, datetime, CaseEvent]]
    ended: bool

    @property
    def full(self) -> bool:
        """Whether more may follow at once."""
        return len(self.events) >= PAGE_EVENTS


class Log:
    """Reads as the tenant of the key: the database lets nothing else through."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._events = Ferry(self._read_events, MOST_FOLLOWED)

    async def frames(self, key: CaseKey, firing: int, after: Cursor, most_bytes: int = PAGE_BYTES) -> FramePage | None:
        """The frames of the execution `CASE.firing` behind `after`, none behind the one with which they come to
        `most_bytes`; None if there is no such execution, and none is about to begin."""
        async with self._database.transaction(key.tenant) as connection:
            execution = await streams.execution(connection, key, firing)
            if execution is None:
                if await streams.expected(connection, key, firing):
                    return FramePage((), ended=False)
                # It may have begun between the two looks.
                execution = await streams.execution(connection, key, firing)
            if execution is None:
                return None
            stored = await streams.read_frames(connection, key, firing, after, PAGE_FRAMES, most_bytes)
            full = len(stored) >= PAGE_FRAMES or size([one.frame for one in stored]) >= most_bytes
            frames = [rest(frame, lengths, after) for frame, lengths in stored]
            # Whoever completes or fails leaves a last frame, and behind that one there is nothing. Where no frame is
            # there any more, nobody can say what the cursor has seen.
            told = execution.status in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)
            retired = told and not frames and not await streams.stored(connection, key, firing)
        return FramePage(frames, execution.status is not ExecutionStatus.RUNNING, retired, full)

    async def latest_start(self, key: CaseKey, firing: int) -> int | None:
        """The newest start of the execution `CASE.firing`, 0 where it is about to begin; None where nobody knows."""
        async with self._database.transaction(key.tenant) as connection:
            found = await streams.latest_start(connection, key, firing)
            return 0 if found is None and await streams.expected(connection, key, firing) else found

    async def events(self, key: CaseKey, after: int) -> EventPage | None:
        """The events of a case behind the number `after`; None if there is no such case."""
        found = await self._events.take(key.tenant, (key.case, after))
        if found is None:
            return None
        status, events = found
        return EventPage(events, status.terminal)

    async def _read_events(self, tenant: int, wanted: Sequence[tuple[UUID, int]]) -> Sequence[history.Page | None]:
        async with self._database.transaction(tenant) as connection:
            return await history.follow_all(connection, tenant, wanted, PAGE_EVENTS)
