"""What lists show: a page at a time, and of many cases at once.

`Queries` answers for one case as a whole. Doors that list (GraphQL above all) ask here instead: what they ask of many
cases costs as many statements as of one, and every page has a limit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from circuit.engine.conversations import MessageView
from circuit.engine.provenance import AnswerView, FeedbackView, answer_view
from circuit.engine.viewing import execution_view, incident_view, summary_view, token_view, workflow_view
from circuit.engine.views import (
    CaseSummary,
    EventView,
    ExecutionView,
    IncidentView,
    TokenView,
    WorkflowView,
)
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey, Numbered
from circuit.storage import agents, conversations, feedback, history, kinship, pages, workflows
from circuit.storage.agents import PublishedAgent
from circuit.storage.database import Database
from circuit.storage.records import ExecutionStatus

LARGEST_PAGE = 1_000

Execution = tuple[CaseKey, int]
"""What names an execution inside: its case and its firing."""


@dataclass(frozen=True, slots=True)
class ListedExecution:
    """An execution with the workflow of its case, and how often its firing was tried, was started, and lost its
    process."""

    key: CaseKey
    firing: int
    workflow_id: str
    workflow_hash: str
    view: ExecutionView
    attempts: int = 0
    starts: int = 0
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent of a workflow's current version."""

    workflow_id: str
    id: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlaceAgentView:
    """An entry of a workflow's place agents; `number` counts them from 1, in the order of the file."""

    workflow_id: str
    number: int
    document: Mapping[str, Any]


class Pages:
    """Reads of many at once. What does not exist is left out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def summaries(self, tenant: int, wanted: Collection[UUID]) -> dict[UUID, CaseSummary]:
        """These cases."""
        async with self._database.transaction(tenant) as connection:
            found = await pages.cases(connection, tenant, list(wanted))
        return {key.case: summary_view(key, row) for key, row in found}

    async def tokens(
        self, tenant: int, wanted: Collection[UUID], after: int, limit: int
    ) -> dict[UUID, list[TokenView]]:
        """Of each of these cases the tokens behind the number `after`."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await pages.tokens(connection, tenant, list(wanted), after, limit)
        given: dict[UUID, list[TokenView]] = {case: [] for case in wanted}
        for one in found:
            given[one.key.case].append(token_view(one.key, one.token, one.holder))
        return given

    async def token(self, key: CaseKey, number: int) -> TokenView | None:
        """One token where it lies."""
        async with self._database.transaction(key.tenant) as connection:
            found = await pages.token(connection, key, number)
        return None if found is None else token_view(found.key, found.token, found.holder)

    async def tokens_in_place(
        self,
        tenant: int,
        place: str,
        *,
        case: UUID | None = None,
        workflow_id: str | None = None,
        limit: int,
        after: tuple[UUID, int] | None = None,
    ) -> list[TokenView]:
        """Tokens that lie in a place of a case, or of any case of a workflow, by case and number."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await pages.tokens_in_place(
                connection, tenant, place, case_id=case, workflow_id=workflow_id, limit=limit, after=after
            )
        return [token_view(one.key, one.token, one.holder) for one in found]

    async def markings(self, tenant: int, wanted: Collection[UUID]) -> dict[UUID, dict[str, int]]:
        """How many tokens lie in each place of these cases that is not empty."""
        async with self._database.transaction(tenant) as connection:
            found = await pages.markings(connection, tenant, list(wanted))
        given: dict[UUID, dict[str, int]] = {case: {} for case in wanted}
        for case, place, count in found:
            given[case][place] = count
        return given

    async def parents(self, tenant: int, wanted: Collection[UUID]) -> dict[UUID, str]:
        """Of those of these cases that an execution opened, that execution."""
        async with self._database.transaction(tenant) as connection:
            found = await kinship.parents(connection, tenant, list(wanted))
        return {case: str(Numbered(*parent)) for case, parent in found.items()}

    async def children(
        self, tenant: int, wanted: Collection[UUID], after: UUID | None, limit: int
    ) -> dict[UUID, list[CaseSummary]]:
        """Of each of these cases the cases that it opened, by birth, behind the one `after`."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await kinship.children(connection, tenant, list(wanted), after, limit)
        given: dict[UUID, list[CaseSummary]] = {case: [] for case in wanted}
        for key, row in found:
            if row.parent is not None:
                given[row.parent.case].append(summary_view(key, row))
        return given

    async def events(
        self, tenant: int, wanted: Collection[UUID], after: int, limit: int
    ) -> dict[UUID, list[EventView]]:
        """Of each of these cases the events behind the number `after`."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await pages.events(connection, tenant, list(wanted), after, limit)
        given: dict[UUID, list[EventView]] = {case: [] for case in wanted}
        for key, seq, at, event in found:
            given[key.case].append(EventView(key, seq, at, event))
        return given

    async def incidents(
        self, tenant: int, wanted: Collection[UUID], after: int, limit: int
    ) -> dict[UUID, list[IncidentView]]:
        """Of each of these cases the incidents behind the number `after`, the resolved ones too."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await pages.incidents(connection, tenant, list(wanted), after, limit)
        given: dict[UUID, list[IncidentView]] = {case: [] for case in wanted}
        for key, row in found:
            given[key.case].append(incident_view(key, row))
        return given

    async def executions(
        self, tenant: int, wanted: Collection[UUID], after: int, limit: int
    ) -> dict[UUID, list[ListedExecution]]:
        """Of each of these cases the executions behind the number `after`."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await pages.executions(connection, tenant, list(wanted), after, limit)
        given: dict[UUID, list[ListedExecution]] = {case: [] for case in wanted}
        for one in found:
            given[one.key.case].append(_listed(one))
        return given

    async def execution(self, key: CaseKey, firing: int) -> ListedExecution | None:
        """One execution."""
        found = (await self.executions(key.tenant, [key.case], firing - 1, 1))[key.case]
        return found[0] if found and found[0].firing == firing else None

    async def executions_of_token(self, key: CaseKey, number: int, after: int, limit: int) -> list[ListedExecution]:
        """The executions that took, read or made a version of this token, the oldest first."""
        _check(limit)
        async with self._database.transaction(key.tenant) as connection:
            found = await pages.executions_of_token(connection, key, number, after, limit)
        return [_listed(one) for one in found]

    async def executions_of_agent(
        self,
        tenant: int,
        *,
        case: UUID | None = None,
        agent: str | None = None,
        status: str | None = None,
        limit: int,
        before: tuple[UUID, int] | None = None,
    ) -> list[ListedExecution]:
        """Executions of all cases or of one, those of the youngest first. Raises `InvalidRequest`."""
        _check(limit)
        if status is not None and status not in [known.value for known in ExecutionStatus]:
            names = ", ".join(known.value for known in ExecutionStatus)
            raise InvalidRequest(f"there is no status {status!r} of an execution; there are {names}")
        async with self._database.transaction(tenant) as connection:
            found = await pages.executions_of_agent(
                connection, tenant, case=case, agent=agent, status=status, limit=limit, before=before
            )
        return [_listed(one) for one in found]

    async def said(
        self, tenant: int, wanted: Collection[UUID], after: int, limit: int
    ) -> dict[UUID, list[MessageView]]:
        """Of each of these conversations what was said behind the message `after`."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await conversations.messages_of(connection, tenant, list(wanted), after, limit)
        given: dict[UUID, list[MessageView]] = {which: [] for which in wanted}
        for which, row in found:
            given[which].append(MessageView.of(row))
        return given

    async def feedback(self, tenant: int, wanted: Collection[Execution]) -> dict[Execution, list[FeedbackView]]:
        """What was said of these executions, the oldest first."""
        async with self._database.transaction(tenant) as connection:
            found = await feedback.of_executions(connection, tenant, [(key.case, firing) for key, firing in wanted])
        given: dict[Execution, list[FeedbackView]] = {one: [] for one in wanted}
        for case, row in found:
            given[CaseKey(tenant, case), row.firing].append(FeedbackView.of(row))
        return given

    async def answers(self, tenant: int, wanted: Collection[Execution]) -> dict[Execution, list[AnswerView]]:
        """The recorded steps of these executions, each answer with the usage that its provider told."""
        async with self._database.transaction(tenant) as connection:
            found = await history.journals(connection, tenant, [(key.case, firing) for key, firing in wanted])
        given: dict[Execution, list[AnswerView]] = {one: [] for one in wanted}
        for case, firing, attempt, step, at, value in found:
            given[CaseKey(tenant, case), firing].append(answer_view(attempt, step, at, value))
        return given

    async def workflows(self, tenant: int, limit: int, after: str = "") -> list[WorkflowView]:
        """The current versions of workflows, by id."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await workflows.list_current(connection, tenant, limit=limit, after=after)
        return [workflow_view(one) for one in found]

    async def versions(self, tenant: int, workflow_ids: Collection[str], limit: int) -> dict[str, list[WorkflowView]]:
        """Of each of these workflows the versions that were published, the newest first."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await workflows.list_versions(connection, tenant, list(workflow_ids), limit=limit)
        given: dict[str, list[WorkflowView]] = {name: [] for name in workflow_ids}
        for one in found:
            given[one.workflow_id].append(workflow_view(one))
        return given

    async def agents(
        self, tenant: int, workflow_id: str | None, limit: int, after: tuple[str, str] = ("", "")
    ) -> list[AgentView]:
        """The agents of the current versions of all workflows, or of one, by workflow and id."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await workflows.list_agents(connection, tenant, workflow_id=workflow_id, limit=limit, after=after)
        return [AgentView(*one) for one in found]

    async def published_agents(self, tenant: int, limit: int, after: str = "") -> list[PublishedAgent]:
        """The current versions of published agents, by id."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            return await agents.list_current(connection, tenant, limit=limit, after=after)

    async def published_agent(self, tenant: int, agent_id: str) -> PublishedAgent | None:
        """The current version of a published agent."""
        async with self._database.transaction(tenant) as connection:
            found = await agents.current(connection, tenant, [agent_id])
        return found[0] if found else None

    async def place_agents(
        self,
        tenant: int,
        *,
        workflow_id: str | None = None,
        place: str | None = None,
        limit: int,
        after: tuple[str, int] = ("", 0),
    ) -> list[PlaceAgentView]:
        """The place agents of the current versions of workflows, in the order of their files."""
        _check(limit)
        async with self._database.transaction(tenant) as connection:
            found = await workflows.list_place_agents(
                connection, tenant, workflow_id=workflow_id, place=place, limit=limit, after=after
            )
        return [PlaceAgentView(*one) for one in found]

    async def version(self, tenant: int, workflow_id: str, version: str) -> WorkflowView | None:
        """One version of a workflow, current or not."""
        async with self._database.transaction(tenant) as connection:
            found = await workflows.by_hash(connection, tenant, workflow_id, version)
        return None if found is None else workflow_view(found)


def _check(limit: int) -> None:
    if not 1 <= limit <= LARGEST_PAGE:
        raise InvalidRequest(f"a page has 1 to {LARGEST_PAGE} entries, not {limit}")


def _listed(one: pages.Ran) -> ListedExecution:
    firing = one.firing
    view = execution_view(one.key, one.row, {} if firing is None else {firing.number: firing})
    counts = (0, 0, 0) if firing is None else (firing.attempt, firing.start, firing.crashes)
    return ListedExecution(one.key, one.row.firing, one.workflow_id, one.workflow_hash, view, *counts)
