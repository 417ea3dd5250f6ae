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
from circuit.storage import following, history, streams
from circuit.storage.database import Database
from circuit.storage.ferry import Ferry
from circuit.storage.records import ExecutionStatus
from circuit.storage.streams import Standing, Stored, Wanted
from circuit.streams.cursor import Cursor
from circuit.streams.merging import rest
from circuit.streams.pace import PAGE_BYTES, size

PAGE_FRAMES = 500
PAGE_EVENTS = 500
MOST_FOLLOWED = 50
"""How many cases, or executions, are looked at together."""
GOES_ON = (None, ExecutionStatus.RUNNING)
LEAVE_A_FRAME = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)


@dataclass(frozen=True, slots=True)
class FramePage:
    """Frames behind a cursor, in order."""

    frames: Sequence[Frame]
    ended: bool
    retired: bool = False
    """Whether there were frames once, and are none any more."""
    full: bool = False
    """Whether more may follow at once."""
    start: int | None = None
    """The newest start of the execution, 0 where it is about to begin; None where nobody knows."""


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
        self._frames = Ferry(self._read_frames, MOST_FOLLOWED, weigh=lambda wanted: wanted.most_bytes, shared=True)
        self._events = Ferry(self._read_events, MOST_FOLLOWED, shared=True)
        self._marks = Ferry(self._read_marks, shared=True)

    async def frames(self, key: CaseKey, firing: int, after: Cursor, most_bytes: int = PAGE_BYTES) -> FramePage | None:
        """The frames of the execution `CASE.firing` behind `after`, none behind the one with which they come to
        `most_bytes`; None if there is no such execution, and none is about to begin."""
        return await self._frames.take(key.tenant, Wanted(key.case, firing, *after, most_bytes))

    async def events(self, key: CaseKey, after: int) -> EventPage | None:
        """The events of a case behind the number `after`; None if there is no such case."""
        found = await self._events.take(key.tenant, (key.case, after))
        if found is None:
            return None
        status, events = found
        return EventPage(events, status.terminal)

    async def mark(self, tenant: int, workflow_id: str) -> int | None:
        """The number below which every transaction has ended, where there is such a workflow; else None."""
        return await self._marks.take(tenant, workflow_id)

    async def _read_events(self, tenant: int, wanted: Sequence[tuple[UUID, int]]) -> Sequence[history.Page | None]:
        async with self._database.transaction(tenant) as connection:
            return await history.follow_all(connection, tenant, wanted, PAGE_EVENTS)

    async def _read_marks(self, tenant: int, workflows: Sequence[str]) -> Sequence[int | None]:
        async with self._database.transaction(tenant) as connection:
            known = await following.known(connection, tenant, workflows)
            low = await following.mark(connection)
        return [low if workflow in known else None for workflow in workflows]

    async def _read_frames(self, tenant: int, wanted: Sequence[Wanted]) -> Sequence[FramePage | None]:
        async with self._database.transaction(tenant) as connection:
            # First how they stand: what has ended then has its last frame.
            standings = await streams.standings(connection, tenant, wanted)
            there = [one for one, standing in zip(wanted, standings, strict=True) if standing is not None]
            stored = await streams.pages(connection, tenant, there, PAGE_FRAMES) if there else ()
            found = dict(zip(there, stored, strict=True))
            # Whoever completes or fails leaves a last frame, and behind that one there is nothing. Where no frame is
            # there any more, nobody can say what the cursor has seen.
            bare = [
                one
                for one, standing in zip(wanted, standings, strict=True)
                if standing is not None and standing.status in LEAVE_A_FRAME and not found[one]
            ]
            kept = await streams.stored(connection, tenant, bare) if bare else ()
        retired = {one for one, any_left in zip(bare, kept, strict=True) if not any_left}
        return [
            None if standing is None else _page(one, standing, found[one], retired=one in retired)
            for one, standing in zip(wanted, standings, strict=True)
        ]


def _page(wanted: Wanted, standing: Standing, stored: Sequence[Stored], *, retired: bool) -> FramePage:
    after = Cursor(wanted.start, wanted.sequence)
    frames = [rest(frame, lengths, after) for frame, lengths in stored]
    full = len(stored) >= PAGE_FRAMES or size([one.frame for one in stored]) >= wanted.most_bytes
    return FramePage(frames, standing.status not in GOES_ON, retired, full, standing.start)
