"""The one subscription of which WebSocket, SSE and GraphQL are spellings: replay from a cursor, then live.

Also long after the end, and from another process than the one that writes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from circuit.clock import Clock
from circuit.errors import InvalidCursor, NotFound, StorageError
from circuit.events import CaseEnded, CaseEvent, Frame
from circuit.ids import CaseKey, Numbered
from circuit.storage.database import Database
from circuit.streams.broker import Broker
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.log import EventPage, FramePage, Log
from circuit.streams.reader import Reader
from circuit.streams.relay import Relay
from circuit.streams.workflow import Mark, WorkflowFollower

_NO_CASE = "there is no case {}; `circuit cases` lists them"
_NEVER = 2**31 - 1
"""No case has so many events."""


class Streams:
    """Every stream that a process can read. `held` knows the cases whose history only this process adds to."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        relay: Relay,
        clock: Clock,
        held: Callable[[CaseKey], bool] = lambda _: False,
    ) -> None:
        self._database = database
        self._log = Log(database)
        self._broker = broker
        self._relay = relay
        self._held = held
        self.clock = clock

    async def open(
        self, execution: Numbered, tenant: int, after: Cursor | None = None, *, known: bool = False
    ) -> Reader:
        """A reader of an execution's stream, behind the cursor `after` or from the start; close it in the end. `known`
        says that the tenant is known to have the execution: one that has just begun here is not looked for then.

        Raises `NotFound` for an execution that the tenant does not have, and `InvalidCursor` where `after` is of a
        start that is yet to come.
        """
        key = CaseKey(tenant, execution.case)

        async def look(cursor: Cursor, most_bytes: int) -> FramePage | None:
            page = await self._log.frames(key, execution.number, cursor, most_bytes)
            if page is not None and not page.ended and page.start is not None and page.start < cursor.start > 1:
                raise InvalidCursor(f"{cursor} is no cursor of execution {execution}: it has no start {cursor.start}")
            return page

        reader = Reader(str(execution), after or BEGINNING, look, self._broker, self._relay)
        await reader.open(known=known)
        return reader

    async def subscribe(
        self, execution: Numbered, tenant: int, after: Cursor | None = None, *, known: bool = False
    ) -> AsyncGenerator[Frame, None]:
        """The frames of an execution behind `after`, without gap or repeat, to the terminal one and no further; `known`
        as for `open`.

        Raises `NotFound` at the first step.
        """
        reader = await self.open(execution, tenant, after, known=known)
        try:
            while not reader.over:
                for frame in await reader.read():
                    yield frame
        finally:
            reader.close()

    async def open_workflow(self, tenant: int, workflow_id: str, after: Mark | None = None) -> WorkflowFollower:
        """A follower of all cases of a workflow, behind the mark `after` or from now on; close it in the end.

        Raises `NotFound` and `InvalidCursor`.
        """
        follower = WorkflowFollower(
            self._database, self._broker, self._relay, self.clock.monotonic, tenant, workflow_id
        )
        try:
            follower.open(await self._log.mark(tenant, workflow_id), after)
        except BaseException:
            follower.close()
            raise
        return follower

    async def require(self, key: CaseKey) -> None:
        """Raise `NotFound` where the tenant has no such case."""
        if await self._log.events(key, _NEVER) is None:
            raise NotFound(_NO_CASE.format(key.case))

    async def _events(self, key: CaseKey, after: int, *, patient: bool) -> EventPage:
        """What the database has behind the number `after`. Raises `NotFound`, and, unless it is `patient`, what keeps
        the database from saying it."""
        try:
            page = await self._log.events(key, after)
        except StorageError as error:
            if not (patient and error.retryable):
                raise
            page = EventPage((), ended=False)
        if page is None:
            raise NotFound(_NO_CASE.format(key.case))
        return page

    async def follow(self, key: CaseKey, after: int = 0) -> AsyncGenerator[tuple[int, datetime, CaseEvent], None]:
        """The events of a case behind the number `after`, live, to `case_ended` and no further.

        Raises `NotFound` at the first step. A database that cannot be reached later on is waited for.
        """
        channel = self._broker.hold(str(key.case))
        begun, told, hinted = False, 0, 0
        try:
            while True:
                rung = channel.rung
                # What this process committed needs no look; only who was let in by the database is told.
                woken, told = channel.told > told, channel.told
                news = channel.news if begun else None
                fresh = news.after(after) if news is not None else ()
                if fresh or (news is not None and woken and rung - told == hinted and news.last <= after):
                    page = EventPage(fresh, ended=False)
                else:
                    hinted = rung - told
                    page = await self._events(key, after, patient=begun)
                begun = True
                for number, at, event in page.events:
                    yield number, at, event
                    after = number
                    if isinstance(event, CaseEnded):
                        return
                if page.full:
                    continue
                if page.ended:
                    return
                await channel.changed(rung, self._relay.pause(fed=self._held(key)))
        finally:
            self._broker.release(channel)
