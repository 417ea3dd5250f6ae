"""The queries."""

from __future__ import annotations

from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.types import (
    Agent,
    Case,
    CaseSummary,
    CaseWhy,
    Execution,
    ServerStatus,
    Token,
    TransitionWhy,
    Workflow,
    as_json,
)
from circuit.engine.views import CaseView
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey, Numbered, parse_case_id, parse_numbered
from circuit.security.permissions import Permission

DEFAULT_PAGE = 50
LARGEST_PAGE = 200


@strawberry.type
class Query:
    @strawberry.field(description="The current version of a workflow.")
    async def workflow(self, info: Resolving, id: str) -> Workflow | None:  # noqa: A002
        found = await info.context.services.queries.workflow(info.context.tenant, id)
        return None if found is None else Workflow.of(found)

    @strawberry.field(description="The current versions of all workflows.")
    async def workflows(self, info: Resolving) -> list[Workflow]:
        return [Workflow.of(view) for view in await info.context.services.queries.workflows(info.context.tenant)]

    @strawberry.field
    async def case(self, info: Resolving, id: str) -> Case | None:  # noqa: A002
        case = parse_case_id(id)
        if case is None:
            return None
        found = await info.context.services.queries.case(CaseKey(info.context.tenant, case))
        return None if found is None else Case.of(found)

    @strawberry.field(description="Cases, the youngest first; `after` is the `caseId` of the last one that is known.")
    async def cases(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        status: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[CaseSummary]:
        if not 1 <= first <= LARGEST_PAGE:
            raise InvalidRequest(f"`first` is 1 to {LARGEST_PAGE}, not {first}; go on with `after`")
        before = None if after is None else parse_case_id(after)
        if after is not None and before is None:
            raise InvalidRequest("`after` is not the id of a case")
        found = await info.context.services.queries.cases(
            info.context.tenant, workflow_id=workflow_id, status=status, limit=first, before=before
        )
        return [CaseSummary.of(view) for view in found]

    @strawberry.field(description="What each transition of a case waits for, in words; null if there is no such case.")
    async def why(self, info: Resolving, case_id: str) -> CaseWhy | None:
        case = parse_case_id(case_id)
        if case is None:
            return None
        found = await info.context.services.queries.why(CaseKey(info.context.tenant, case))
        return None if found is None else CaseWhy.of(found)

    @strawberry.field(description="The tokens that lie in a place of a case.")
    async def tokens_in_place(self, info: Resolving, case_id: str, place_id: str) -> list[Token]:
        case = parse_case_id(case_id)
        view = None if case is None else await _case(info, case)
        return [Token.of(token) for token in (view.tokens if view else ()) if token.place == place_id]

    @strawberry.field(
        description="The transitions of a token's case: which could fire now, and what the others wait for."
    )
    async def available_transitions(self, info: Resolving, token_id: str) -> list[TransitionWhy]:
        token = parse_numbered(token_id)
        if token is None:
            return []
        found = await info.context.services.queries.why(CaseKey(info.context.tenant, token.case))
        return [] if found is None else [TransitionWhy.of(transition) for transition in found.transitions]

    @strawberry.field(description="One run of an agent, by its id.")
    async def agent_execution(self, info: Resolving, id: str) -> Execution | None:  # noqa: A002
        name = parse_numbered(id)
        view = None if name is None else await _case(info, name.case)
        found = next((one for one in (view.executions if view else ()) if one.id == id), None)
        return None if found is None else Execution.of(found)

    @strawberry.field(description="The runs of agents that took or made a version of this token, the oldest first.")
    async def token_executions(self, info: Resolving, token_id: str) -> list[Execution]:
        token = parse_numbered(token_id)
        view = None if token is None else await _case(info, token.case)
        if token is None or view is None:
            return []
        wanted = _executions_of(view, token)
        return [Execution.of(one) for one in view.executions if one.id in wanted]

    @strawberry.field(description="The agents of the current versions of all workflows, or of one.")
    async def agents(self, info: Resolving, workflow_id: str | None = None) -> list[Agent]:
        views = await info.context.services.queries.workflows(info.context.tenant)
        return [
            Agent.of(view, name, agent)
            for view in views
            if workflow_id is None or view.id == workflow_id
            for name, agent in sorted((view.document.get("agents") or {}).items())
        ]

    @strawberry.field(description="The place agents of the current version of a workflow, as in its file.")
    async def place_agent_configs(self, info: Resolving, workflow_id: str, place_id: str | None = None) -> list[JSON]:
        view = await info.context.services.queries.workflow(info.context.tenant, workflow_id)
        configured = (view.document.get("place_agents") or []) if view else []
        return [as_json(entry) for entry in configured if place_id is None or entry.get("place_id") == place_id]

    @strawberry.field(description="Which release answers, and whether it can serve.")
    async def server_status(self, info: Resolving) -> ServerStatus:
        info.context.principal.require(Permission.READ)
        known = await info.context.services.ready()
        return ServerStatus.of(known, len(info.context.readers))


async def _case(info: Resolving, case: UUID) -> CaseView | None:
    return await info.context.services.queries.case(CaseKey(info.context.tenant, case))


def _executions_of(view: CaseView, token: Numbered) -> set[str]:
    """The executions whose events name the token as consumed, read or produced."""
    found: set[str] = set()
    for event in view.history:
        shown = event.as_dict()
        touched = [*shown.get("consumed", ()), *shown.get("read", ()), *shown.get("produced", ())]
        if "execution_id" in shown and any(one["id"] == str(token) for one in touched):
            found.add(shown["execution_id"])
    return found
