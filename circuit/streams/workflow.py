"""Following a whole workflow: the events of all of its cases, live, from a mark on.

A hint names a case that has changed, and only that one is looked at. Now and then all cases are, in case a hint was
lost; each time that moves the mark, from which another follower goes on later. It finds again what came since the mark
moved: an event is known by its case and its number.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple
from uuid import UUID

from circuit.errors import InvalidCursor, NotFound, StorageError
from circuit.ids import parse_case_id
from circuit.storage import following
from circuit.storage.database import Database
from circuit.storage.following import Written
from circuit.streams.broker import Broker
from circuit.streams.relay import Relay

PAGE_EVENTS = 500
MOST_HINTS = 200
"""Where more cases have changed than that, all are looked at."""
SETTLE_SECONDS = 0.05
"""How long an event waits before which one of an older transaction may still come."""
_WHOLE_FACTOR = 5.0
"""After so many pauses all cases are looked at, although hints come."""
_FIRST = (UUID(int=0), 0)
_SPELLING = re.compile(r"m([1-9][0-9]{0,17})", re.ASCII)


class Mark(NamedTuple):
    """A place among all events: a number of transactions. Outside it is one opaque word."""

    number: int

    @classmethod
    def parse(cls, text: str) -> Mark:
        """The mark that `text` spells. Raises `InvalidCursor`."""
        match = _SPELLING.fullmatch(text)
        if match is None:
            raise InvalidCursor(f"{text[:40]!r} is no mark; give one that an event of this workflow carried")
        return cls(int(match[1]))

    def __str__(self) -> str:
        return f"m{self.number}"


class Marked(NamedTuple):
    """An event, and the mark from which on to follow so that it and all after it come (again)."""

    written: Written
    mark: Mark


class WorkflowFollower:
    """The events of the cases of one workflow. One task uses it."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        relay: Relay,
        monotonic: Callable[[], float],
        tenant: int,
        workflow_id: str,
    ) -> None:
        self._database = database
        self._broker = broker
        self._relay = relay
        self._monotonic = monotonic
        self.tenant = tenant
        self._workflow_id = workflow_id
        self._mark = Mark(0)
        # How far the cases are told that were looked at since the mark moved.
        self._told: dict[UUID, int] = {}
        self._ear = broker.overhear()
        self._behind = False

    def close(self) -> None:
        """Hear nothing any more. Twice is fine."""
        self._broker.ignore(self._ear)

    @property
    def mark(self) -> Mark:
        """The mark from which what is told next can be followed again."""
        return self._mark

    async def events(self) -> AsyncGenerator[Marked]:
        """The events, for ever, after `open`; those of a case come in their order. A database that cannot be reached is
        waited for."""
        try:
            whole, whole_at = self._behind, self._monotonic()
            hinted: set[UUID] = set()
            while True:
                pause = self._relay.pause(fed=False)
                if self._monotonic() - whole_at >= pause * _WHOLE_FACTOR or len(hinted) > MOST_HINTS:
                    whole = True
                if whole or hinted:
                    waiting: set[UUID] = set()
                    try:
                        async for marked in self._look(None if whole else hinted, waiting):
                            yield marked
                    except StorageError as error:
                        if not error.retryable:
                            raise
                    else:
                        hinted = waiting
                        if whole:
                            whole, whole_at = False, self._monotonic()
                heard = await self._ear.heard(SETTLE_SECONDS if hinted else pause)
                hinted |= {case for name in heard.names if (case := parse_case_id(name)) is not None}
                whole = whole or heard.lost
        finally:
            self.close()

    def open(self, now: int | None, after: Mark | None) -> None:
        """Begin behind `after`, or where it is `now`, None where there is no such workflow. Raises `NotFound` and
        `InvalidCursor`."""
        if now is None:
            raise NotFound(f"there is no workflow {self._workflow_id[:100]!r}; `circuit workflows list` has them")
        if after is not None and not 0 <= now - after.number <= following.LONGEST_AGE:
            raise InvalidCursor(f"the mark {after} is none of this database, or too old: follow without one")
        self._mark, self._behind = after or Mark(now), after is not None

    async def _look(self, cases: set[UUID] | None, waiting: set[UUID]) -> AsyncGenerator[Marked]:
        """What is new of these cases, or of all. Cases of which there is more that may not be told yet come into
        `waiting`."""
        place, low = _FIRST, 0
        while True:
            async with self._database.transaction(self.tenant) as connection:
                low = low or await following.mark(connection)
                page = await following.events_since(
                    connection,
                    self.tenant,
                    self._workflow_id,
                    self._mark.number,
                    low,
                    cases=cases,
                    after=place,
                    limit=PAGE_EVENTS,
                )
            for written in page:
                if written.transaction >= low:
                    waiting.add(written.case)
                elif written.transaction >= self._told.get(written.case, 0):
                    yield Marked(written, self._mark)
            if len(page) < PAGE_EVENTS:
                break
            place = (page[-1].case, page[-1].seq)
        if cases is None:
            self._mark, self._told = Mark(low), {}
        else:
            self._told |= dict.fromkeys(cases, low)
