"""What is asked of cases, and what is done to them."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key, case_seen
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.executions import Execution
from circuit.api.graphql.history import HistoryEvent
from circuit.api.graphql.incidents import Incident
from circuit.api.graphql.scalars import as_json, as_object
from circuit.api.graphql.tokens import Token, TokenInput, put
from circuit.engine.views import CaseSummary as CaseSummaryView
from circuit.engine.views import CaseView
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import parse_case_id

DEFAULT_PAGE = 50
LARGEST_PAGE = 200


@strawberry.type(description="A case in a list; `case(id)` has the rest.")
class CaseSummary:
    case_id: str
    status: str
    workflow: str
    workflow_hash: str
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, view: CaseSummaryView) -> CaseSummary:
        return cls(
            case_id=str(view.key.case),
            status=view.status.value,
            workflow=view.workflow_id,
            workflow_hash=view.workflow_hash,
            started_at=view.started_at,
            finished_at=view.finished_at,
        )


@strawberry.type(description="A case with all that is to be seen of it.")
class Case:
    view: strawberry.Private[CaseView]
    case_id: str
    status: str
    workflow: str
    workflow_hash: str
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, view: CaseView) -> Case:
        return cls(
            view=view,
            case_id=view.case_id,
            status=view.status.value,
            workflow=view.workflow_id,
            workflow_hash=view.workflow_hash,
            started_at=view.started_at,
            finished_at=view.finished_at,
        )

    @strawberry.field(description="How many tokens lie in each place that is not empty: `{place: count}`.")
    def marking(self) -> JSON:
        return as_json(self.view.marking)

    @strawberry.field
    def tokens(self) -> list[Token]:
        return [Token.of(token) for token in self.view.tokens]

    @strawberry.field(description="The events behind the number `after`, at most `first` of them.")
    def history(self, after: int = 0, first: int | None = None) -> list[HistoryEvent]:
        if after < 0 or (first is not None and first < 0):
            raise InvalidRequest("`after` and `first` count events: neither is below 0")
        wanted = [event for event in self.view.history if event.seq > after]
        return [HistoryEvent.of(event) for event in wanted[:first]]

    @strawberry.field
    def executions(self) -> list[Execution]:
        return [Execution.of(execution) for execution in self.view.executions]

    @strawberry.field
    def incidents(self) -> list[Incident]:
        return [Incident.of(incident) for incident in self.view.incidents]


@strawberry.type
class CaseQueries:
    @strawberry.field
    async def case(self, info: Resolving, id: str) -> Case | None:  # noqa: A002
        found = await case_seen(info, parse_case_id(id))
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


@strawberry.type
class CaseMutations:
    @strawberry.mutation(
        description="Start a case of the current version of a workflow. Asked again with the same `idempotencyKey`,"
        " it answers with the case that was started first."
    )
    async def start_case(
        self,
        info: Resolving,
        workflow_id: str,
        token: TokenInput | None = None,
        idempotency_key: str | None = None,
        conversations: JSON | None = None,
    ) -> Case:
        services = info.context.services
        key = await services.commands.start_case(
            workflow_id,
            put(token),
            principal=info.context.principal,
            conversations={name: str(id_) for name, id_ in as_object(conversations, "conversations").items()},
            key=idempotency_key,
        )
        view = await services.queries.case(key)
        if view is None:
            raise NotFound(f"case {key} was started and is gone")
        return Case.of(view)

    @strawberry.mutation(description="Fire a manual transition of a case, with its form.")
    async def fire_transition(
        self,
        info: Resolving,
        case_id: str,
        transition: str,
        form: JSON | None = None,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        filled = as_object(form, "form")
        outcome = await info.context.services.commands.fire(
            case_key(info, case_id),
            transition,
            filled,
            principal=info.context.principal,
            idempotency_key=idempotency_key,
        )
        return CommandOutcome.of(outcome)

    @strawberry.mutation(description="End a case as it is.")
    async def cancel_case(
        self, info: Resolving, case_id: str, reason: str = "", idempotency_key: str | None = None
    ) -> CommandOutcome:
        outcome = await info.context.services.commands.cancel(
            case_key(info, case_id), reason, principal=info.context.principal, idempotency_key=idempotency_key
        )
        return CommandOutcome.of(outcome)
