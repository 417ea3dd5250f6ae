"""Tasks for people as they come and go: of a case or of all cases of a workflow, from any cursor on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import strawberry

from circuit.api.graphql.addressing import case_key, checked
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.following import AMONG, Followed, last_number, open_following
from circuit.api.graphql.paging import LARGEST_PAGE
from circuit.api.graphql.tasks import HumanTask
from circuit.engine.inbox import TASK, Inbox, Wanted
from circuit.errors import InvalidCursor
from circuit.events import CaseEnded, CaseStarted, FiringCancelled, FiringResumed, FiringSuspended
from circuit.ids import CaseKey, Numbered, parse_numbered
from circuit.security.principal import Principal

TASK_TYPES = ("open", "closed")


@strawberry.type(description="A task for a person that is `open`, or that is `closed` and needs nobody any more.")
class HumanTaskUpdate:
    cursor: str = strawberry.field(description="Give it as `after` to go on from here.")
    type: str
    task_id: str
    case_id: str
    task: HumanTask | None = strawberry.field(
        description="The task; null where it is closed, also since it was `open`."
    )
    by: str | None = strawberry.field(description="Who completed it.")


@strawberry.type
class AttendanceSubscriptions:
    @strawberry.subscription(
        description="Tasks for people, of a case or of all cases of a workflow: those that are open, then each that"
        " comes and each that is closed; or what comes behind the cursor `after`. `types` chooses, `role` those that it"
        " may complete."
    )
    async def human_tasks(
        self,
        info: Resolving,
        case_id: str | None = None,
        workflow_id: str | None = None,
        role: str | None = None,
        types: list[str] | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[HumanTaskUpdate, None]:
        checked(types, TASK_TYPES, "types")
        case = None if case_id is None else case_key(info, case_id)
        start, told = (None, None) if after is None else _parsed(after)
        if start is None and case is not None:
            start = await last_number(info, case)
        following = await open_following(info, case_id, workflow_id, start)
        wanted = Wanted(workflow_id, None if case is None else case.case, role)
        attendance = _Attendance(info.context.services.inbox, info.context.principal, wanted)
        async with aclosing(following), aclosing(following.events()) as events:
            # Followed first and then looked up: what comes meanwhile is in one of both, and told once.
            if after is None or told is not None:
                async for update in attendance.standing(following.begun, told):
                    if types is None or update.type in types:
                        yield update
            async for one in events:
                update = await attendance.update(one)
                if update is not None and (types is None or update.type in types):
                    yield update


class _Attendance:
    """Which tasks are open, as far as what was told of their cases goes."""

    def __init__(self, inbox: Inbox, principal: Principal, wanted: Wanted) -> None:
        self._inbox = inbox
        self._principal = principal
        self._wanted = wanted
        self._told: set[str] = set()
        self._open: dict[UUID, set[int]] = {}

    async def standing(self, begun: str, after: tuple[UUID, int] | None) -> AsyncGenerator[HumanTaskUpdate, None]:
        """The tasks that are open now, behind the one that was told last."""
        while True:
            page = await self._inbox.tasks(self._principal, self._wanted, LARGEST_PAGE, after)
            for view in page:
                self._told.add(view.id)
                yield _opened(HumanTask.of(view), f"{begun}{AMONG}{view.id}")
            if len(page) < LARGEST_PAGE:
                return
            after = parse_numbered(page[-1].id)

    async def update(self, one: Followed) -> HumanTaskUpdate | None:
        """What an event says of a task: it is open now, or one that was is closed."""
        key, seq, event = one.view.key, one.view.seq, one.view.event
        if isinstance(event, CaseStarted):
            self._open[key.case] = set()
        if isinstance(event, CaseEnded):
            self._open.pop(key.case, None)
        if isinstance(event, FiringSuspended) and event.awaits == TASK:
            return await self._opening(one, event.firing)
        if not isinstance(event, FiringResumed | FiringCancelled):
            return None
        waiting = await self._waiting(key, seq - 1)
        if event.firing not in waiting:
            return None
        waiting.discard(event.firing)
        by = event.principal if isinstance(event, FiringResumed) else None
        task_id = str(Numbered(key.case, event.firing))
        self._told.discard(task_id)
        return HumanTaskUpdate(cursor=one.cursor, type="closed", task_id=task_id, case_id=str(key), task=None, by=by)

    async def _opening(self, one: Followed, firing: int) -> HumanTaskUpdate | None:
        key, task_id = one.view.key, str(Numbered(one.view.key.case, firing))
        waiting = await self._waiting(key, one.view.seq - 1)
        here = Wanted(self._wanted.workflow_id, key.case, self._wanted.role)
        found = await self._inbox.tasks(self._principal, here, 1, (key.case, firing - 1))
        task = HumanTask.of(found[0]) if found and found[0].id == task_id else None
        if task is None and firing not in await self._inbox.open_at(key, one.view.seq, self._wanted.role):
            return None
        waiting.add(firing)
        if task_id in self._told:
            return None
        if task is None:
            return HumanTaskUpdate(
                cursor=one.cursor, type="open", task_id=task_id, case_id=str(key), task=None, by=None
            )
        return _opened(task, one.cursor)

    async def _waiting(self, key: CaseKey, seq: int) -> set[int]:
        """The open tasks of a case; read once, as they were after its event `seq`."""
        if key.case not in self._open:
            self._open[key.case] = await self._inbox.open_at(key, seq, self._wanted.role)
        return self._open[key.case]


def _parsed(after: str) -> tuple[str, tuple[UUID, int] | None]:
    """The place that a cursor follows from, and the open task that was told last. Raises `InvalidCursor`."""
    start, among, task = after.partition(AMONG)
    if not among:
        return start, None
    told = parse_numbered(task)
    if told is None:
        raise InvalidCursor("give the cursor of an update of tasks")
    return start, (told.case, told.number)


def _opened(task: HumanTask, cursor: str) -> HumanTaskUpdate:
    return HumanTaskUpdate(cursor=cursor, type="open", task_id=task.task_id, case_id=task.case_id, task=task, by=None)
