"""What there is to be seen: the one door through which everything above the engine reads.

Every query runs in a transaction of its tenant, under the database's row security.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from circuit.definition.workflow import Workflow
from circuit.engine.diagnosis import explain, explain_some
from circuit.engine.memory import Memory
from circuit.engine.provenance import ExecutionRecord, FeedbackView, answer_view
from circuit.engine.requirement import needs, shortfall
from circuit.engine.ruling import TransitionRuling, concerned, rulings
from circuit.engine.suspension import TASK_KIND
from circuit.engine.versions import VersionKey, Versions, VersionUnusable
from circuit.engine.viewing import execution_view, incident_view, summary_view, task_view, token_view, workflow_view
from circuit.engine.views import (
    CaseStanding,
    CaseSummary,
    CaseView,
    CaseWhy,
    DeadLetterEntry,
    EventView,
    IncidentEntry,
    TaskView,
    TransitionWhy,
    WorkflowView,
)
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey, Numbered
from circuit.storage import feedback, history, incidents, kinship, listing, resources, streams, tokens, workflows
from circuit.storage.database import Database, TenantConnection
from circuit.storage.ferry import Ferry
from circuit.storage.kinship import Untaken
from circuit.storage.listing import Glance
from circuit.storage.records import CaseRow, CaseStatus, FiringRow

MOST_CASES = 1_000
PAGE_EVENTS = 1_000
_SERVED_FOR = timedelta(seconds=2)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Queries:
    """Reads of workflows and cases. What does not exist is None or an empty list."""

    def __init__(self, database: Database, versions: Versions, now: Callable[[], datetime]) -> None:
        self._database = database
        self._versions = versions
        self._now = now
        self._glances = Ferry(self._glance)
        # Until when it is taken for known that some worker takes the cases of a bucket.
        self._served: dict[int, datetime] = {}

    async def _glance(self, tenant: int, wanted: Sequence[UUID]) -> Sequence[Glance | None]:
        async with self._database.transaction(tenant) as connection:
            found = await listing.glanced(connection, tenant, wanted)
        return [found.get(case) for case in wanted]

    async def workflows(self, tenant: int) -> list[WorkflowView]:
        """The current versions of all workflows, by id."""
        async with self._database.transaction(tenant) as connection:
            return [workflow_view(found) for found in await workflows.list_current(connection, tenant)]

    async def workflow(self, tenant: int, workflow_id: str) -> WorkflowView | None:
        """The current version of a workflow."""
        async with self._database.transaction(tenant) as connection:
            found = await workflows.current(connection, tenant, workflow_id)
        return None if found is None else workflow_view(found)

    async def cases(
        self,
        tenant: int,
        workflow_id: str | None = None,
        status: CaseStatus | str | None = None,
        limit: int = 50,
        before: UUID | None = None,
        *,
        started: tuple[datetime | None, datetime | None] = (None, None),
        search: str | None = None,
    ) -> list[CaseSummary]:
        """Cases, the youngest first; `before` is the last case of the page before. `started` bounds when they began
        (from, to), `search` is how their ids, or those of their workflows, begin. Raises `InvalidRequest`."""
        if not 1 <= limit <= MOST_CASES:
            raise InvalidRequest(f"a page of cases has 1 to {MOST_CASES} cases, not {limit}")
        wanted = _status(status)
        async with self._database.transaction(tenant) as connection:
            found = await listing.list_cases(
                connection,
                tenant,
                workflow_id=workflow_id,
                status=wanted,
                limit=limit,
                before=before,
                started=started,
                search=search,
            )
            lacks = await listing.unserved(connection, {row.bucket for _, row in found if _wants_worker(row)})
        return [_summary(key, row, lacks) for key, row in found]

    async def open_incidents(
        self,
        tenant: int,
        workflow_id: str | None = None,
        code: str | None = None,
        limit: int = 100,
        after: tuple[UUID, int] | None = None,
        since_before: datetime | None = None,
        *,
        case: UUID | None = None,
    ) -> list[IncidentEntry]:
        """Open incidents of all cases (or of one), by case and number; `after` is the last one of the page before, and
        with `since_before` what was raised later is left out."""
        async with self._database.transaction(tenant) as connection:
            found = await incidents.open_incidents(
                connection,
                tenant,
                workflow_id=workflow_id,
                code=code,
                limit=limit,
                after=after,
                since_before=since_before,
                case_id=case,
            )
        return [IncidentEntry(key, workflow, incident_view(key, row), row.blocks) for key, workflow, row in found]

    async def dead_letters(
        self,
        tenant: int,
        workflow_id: str | None = None,
        code: str | None = None,
        limit: int = 100,
        after: tuple[UUID, int] | None = None,
        since_before: datetime | None = None,
    ) -> list[DeadLetterEntry]:
        """Tokens in dead-letter places of all live cases, by case and number; `code` is that of the failure."""
        async with self._database.transaction(tenant) as connection:
            found = await incidents.dead_letters(
                connection,
                tenant,
                workflow_id=workflow_id,
                code=code,
                limit=limit,
                after=after,
                since_before=since_before,
            )
        return [
            DeadLetterEntry(key, workflow, token.number, token_view(key, token, None)) for key, workflow, token in found
        ]

    async def tasks(
        self,
        *,
        tenant: int,
        workflow_id: str | None = None,
        case: UUID | None = None,
        role: str | None = None,
        limit: int = 50,
    ) -> list[TaskView]:
        """Open tasks for people, those of the youngest cases first. Raises `InvalidRequest`."""
        if not 1 <= limit <= MOST_CASES:
            raise InvalidRequest(f"a page of tasks has 1 to {MOST_CASES} tasks, not {limit}")
        async with self._database.transaction(tenant) as connection:
            roles = None if role is None else (role,)
            found = await listing.waiting(
                connection, tenant, TASK_KIND, workflow_id=workflow_id, case=case, roles=roles, limit=limit
            )
        return [task_view(key, row, firing) for (key, row), firing in found]

    async def case(self, key: CaseKey) -> CaseView | None:
        """A case with its tokens, history, incidents and executions."""
        async with self._database.transaction(key.tenant) as connection:
            # Before its status: a case that goes on meanwhile must not look as if it rested.
            owned, ready_at = await listing.attended(connection, key)
            row = await listing.find_case(connection, key)
            if row is None:
                return None
            laid = await tokens.of_case(connection, key)
            firings = await listing.firings(connection, key)
            executions = await listing.executions(connection, key)
            raised = await listing.incidents(connection, key)
            opened, busy, ready_at = await _opened(connection, key, row, ready_at)
            owned = owned or busy
            events: list[EventView] = []
            while True:
                page = await history.read_events(connection, key, len(events), PAGE_EVENTS)
                events += [EventView(key, seq, at, event) for seq, at, event in page]
                if len(page) < PAGE_EVENTS:
                    break
        by_number = {firing.number: firing for firing in firings}
        return CaseView(
            key,
            row.status,
            row.workflow_id,
            row.workflow_hash,
            row.started_at,
            row.finished_at,
            _due_at(row, firings, ready_at),
            [token_view(key, token, holder) for token, holder in laid],
            events,
            [incident_view(key, incident) for incident in raised],
            [execution_view(key, execution, by_number) for execution in executions],
            owned,
            None if row.parent is None else str(Numbered(row.parent.case, row.parent.firing)),
            [_summary(child, of, {}) for child, of in opened],
            row.traceparent,
        )

    async def standing(self, key: CaseKey) -> CaseStanding | None:
        """Whether a case goes on by itself: for whoever looks often. While a worker has it, only its row is read."""
        seen = await self._glances.take(key.tenant, key.case)
        if seen is None:
            return None
        if seen.owned or seen.status.terminal or seen.status is CaseStatus.RUNNING:
            return CaseStanding(seen.status, seen.seq, seen.owned)
        async with self._database.transaction(key.tenant) as connection:
            # Before its status: a case that goes on meanwhile must not look as if it rested.
            owned, ready_at = await listing.attended(connection, key)
            row = await listing.find_case(connection, key)
            if row is None:
                return None
            if owned or row.status.terminal or row.status is CaseStatus.RUNNING:
                return CaseStanding(row.status, row.seq, owned)
            firings = await listing.firings(connection, key)
            _, busy, ready_at = await _opened(connection, key, row, ready_at)
        retrying = any(firing.state.live and firing.retry_at is not None for firing in firings)
        return CaseStanding(row.status, row.seq, busy, retrying, _due_at(row, firings, ready_at))

    async def execution(self, key: CaseKey, firing: int) -> ExecutionRecord | None:
        """The execution `CASE.firing` with what explains its result: versions, answers with their usage, feedback."""
        async with self._database.transaction(key.tenant) as connection:
            row = await listing.find_case(connection, key)
            found = await streams.execution(connection, key, firing)
            if row is None or found is None:
                return None
            firings = {one.number: one for one in await listing.firings(connection, key) if one.number == firing}
            answers = await history.journal(connection, key, firing)
            said = await feedback.of_execution(connection, key, firing)
        of = firings.get(firing)
        return ExecutionRecord(
            execution_view(key, found, firings),
            str(key.case),
            row.workflow_id,
            row.workflow_hash,
            of.attempt if of is not None else 0,
            of.start if of is not None else 0,
            of.crashes if of is not None else 0,
            [answer_view(*answer) for answer in answers],
            [FeedbackView.of(one) for one in said],
        )

    async def why(self, key: CaseKey) -> CaseWhy | None:
        """What each transition of a case waits for, in words."""
        async with self._database.transaction(key.tenant) as connection:
            found = await listing.state(connection, key)
            if found is None:
                return None
            row = found.row
            missing = _shortfall(key, await kinship.untaken(connection, key))
            waits = any(firing.state.live and firing.start == 0 for firing in found.firings)
            standings = await resources.standing(connection, key, row.workflow_id) if waits else ()
        try:
            workflow = await self.version(VersionKey(key.tenant, row.workflow_id, row.workflow_hash))
        except VersionUnusable as error:
            return CaseWhy(key, row.status, error.message, ())
        explained = explain(workflow, found, self._now(), standings)
        return replace(explained, summary=f"{missing} {explained.summary}") if missing else explained

    async def missing(self, key: CaseKey) -> str:
        """Why no worker takes a case, or one that it opened, although there is something to do in it; nothing where
        one has it, or can take it."""
        seen = await self._glances.take(key.tenant, key.case)
        # Nothing was done in it yet: then it has opened no other.
        new = seen is not None and seen.seq == 1
        if seen is not None and new and (seen.owned or self._served.get(seen.bucket, _LONG_AGO) > self._now()):
            return ""
        async with self._database.transaction(key.tenant) as connection:
            reason = _shortfall(key, await kinship.untaken(connection, key))
        if seen is not None and new and not reason:
            # Thousands may wait for the same workers, and ask at the same time.
            self._served[seen.bucket] = self._now() + _SERVED_FOR
        return reason

    async def available(self, key: CaseKey, token: int) -> tuple[TransitionWhy, ...]:
        """What each transition that could take or read token `token` waits for."""
        memory = await self._memory(key)
        laid = None if memory is None else memory.marking.get(token)
        if memory is None or laid is None:
            return ()
        return explain_some(memory, concerned(memory, laid.place), self._now())

    async def rulings(self, key: CaseKey, token: int) -> list[TransitionRuling]:
        """What the guards of the transitions that could take or read token `token` say of it."""
        memory = await self._memory(key)
        return [] if memory is None else rulings(memory, token)

    async def _memory(self, key: CaseKey) -> Memory | None:
        """A case as its owner would have it in memory; None if it is not there, or its version cannot be used."""
        async with self._database.transaction(key.tenant) as connection:
            found = await listing.state(connection, key)
        if found is None:
            return None
        try:
            version = VersionKey(key.tenant, found.row.workflow_id, found.row.workflow_hash)
            return Memory(await self.version(version), found)
        except VersionUnusable:
            return None

    async def version(self, key: VersionKey) -> Workflow:
        """A published version, compiled. Raises `VersionUnusable`."""
        if self._versions.known(key):
            return self._versions.get(key)
        async with self._database.transaction(key.tenant) as connection:
            found = await workflows.by_hash(connection, *key)
        return self._versions.add(key, None if found is None else found.document)


def _due_at(row: CaseRow, firings: Sequence[FiringRow], ready_at: datetime | None) -> datetime | None:
    """When a case goes on by itself: a retry, a wait whose time is up, a timer."""
    found = [at for firing in firings if firing.state.live and (at := firing.retry_at or firing.wake_at) is not None]
    if row.status is CaseStatus.WAITING and ready_at is not None:
        found.append(ready_at)
    return min(found, default=None)


def _status(status: CaseStatus | str | None) -> CaseStatus | None:
    try:
        return None if status is None else CaseStatus(status)
    except ValueError:
        names = ", ".join(known.value for known in CaseStatus)
        raise InvalidRequest(f"there is no status {status!r} of a case; there are {names}") from None


def _shortfall(key: CaseKey, untaken: Sequence[Untaken]) -> str:
    for one in untaken:
        if said := shortfall(one.requires, one.lacks):
            return said if one.key == key else f"Case {one.key}, which this one waits for: {said}"
    return ""


def _wants_worker(row: CaseRow) -> bool:
    """Whether a worker has work to do in the case at once."""
    return row.status is CaseStatus.RUNNING and row.bucket != 0


async def _opened(
    connection: TenantConnection, key: CaseKey, row: CaseRow, ready_at: datetime | None
) -> tuple[list[tuple[CaseKey, CaseRow]], bool, datetime | None]:
    """The cases that a case opened, whether somebody has one of them or the case itself went on meanwhile, and when it
    comes up next by itself."""
    opened = await kinship.children(connection, key.tenant, [key.case])
    if not opened or await kinship.busy(connection, key):
        return opened, bool(opened), ready_at
    # A child ends in the commit in which its parent comes up: so that is asked once more, after the child.
    owned, ready_at = await listing.attended(connection, key)
    again = await listing.find_case(connection, key)
    return opened, owned or again is None or again.seq != row.seq, ready_at


def _summary(key: CaseKey, row: CaseRow, lacks: Mapping[int, Mapping[str, Any]]) -> CaseSummary:
    lack = needs(lacks[row.bucket]) if row.bucket in lacks and _wants_worker(row) else None
    return summary_view(key, row, lack)
