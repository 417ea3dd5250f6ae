"""What is asked of cases, and what is done to them."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import asked_case, case_key
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.executions import Execution
from circuit.api.graphql.history import HistoryEvent
from circuit.api.graphql.incidents import Incident
from circuit.api.graphql.paging import DEFAULT_PAGE, DEFAULT_PART, behind, page, part
from circuit.api.graphql.reasons import CaseWhy
from circuit.api.graphql.scalars import as_json, as_object
from circuit.api.graphql.tokens import Token, TokenInput, given_token
from circuit.engine.views import CaseSummary
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import parse_case_id


@strawberry.type(description="A case. What lies in it is read for all cases of an answer at once.")
class Case:
    view: strawberry.Private[CaseSummary]
    case_id: str
    status: str
    workflow: str
    workflow_hash: str
    started_at: datetime
    finished_at: datetime | None
    no_worker_for: str | None = strawberry.field(
        description="In a list: what the case needs of a worker, where no running worker has it."
    )

    @classmethod
    def of(cls, view: CaseSummary) -> Case:
        return cls(
            view=view,
            case_id=str(view.key.case),
            status=view.status.value,
            workflow=view.workflow_id,
            workflow_hash=view.workflow_hash,
            started_at=view.started_at,
            finished_at=view.finished_at,
            no_worker_for=view.lacks,
        )

    @strawberry.field(description="The trace in which the case is, where its work is traced (OpenTelemetry).")
    def trace_id(self) -> str:
        return self.view.trace_id

    @strawberry.field(description="How many tokens lie in each place that is not empty: `{place: count}`.")
    async def marking(self, info: Resolving) -> JSON:
        return as_json(await info.context.loaders.marking(info.context.tenant, self.view.key.case))

    @strawberry.field(description="The tokens behind the one with the number `after`.")
    async def tokens(self, info: Resolving, first: int = DEFAULT_PART, after: int = 0) -> list[Token]:
        found = await info.context.loaders.tokens(info.context.tenant, self.view.key.case, behind(after), part(first))
        return [Token.of(token) for token in found]

    @strawberry.field(description="The events behind the number `after`.")
    async def history(self, info: Resolving, after: int = 0, first: int = DEFAULT_PART) -> list[HistoryEvent]:
        found = await info.context.loaders.events(info.context.tenant, self.view.key.case, behind(after), part(first))
        return [HistoryEvent.of(event) for event in found]

    @strawberry.field(description="The execution that opened this case, as a sub-workflow of its own.")
    async def parent(self, info: Resolving) -> str | None:
        return await info.context.loaders.parent(info.context.tenant, self.view.key.case)

    @strawberry.field(
        description="The cases that executions of this one opened, by birth, behind the one with the id `after`."
    )
    async def children(self, info: Resolving, first: int = DEFAULT_PART, after: str | None = None) -> list[Case]:
        known = None if after is None else case_key(info, after).case
        opened = await info.context.loaders.children(info.context.tenant, self.view.key.case, known, part(first))
        return [Case.of(view) for view in opened]

    @strawberry.field(description="The executions behind the number `after`.")
    async def executions(self, info: Resolving, first: int = DEFAULT_PART, after: int = 0) -> list[Execution]:
        found = await info.context.loaders.executions(
            info.context.tenant, self.view.key.case, behind(after), part(first)
        )
        return [Execution.of(execution) for execution in found]

    @strawberry.field(description="The incidents behind the number `after`, the resolved ones too.")
    async def incidents(self, info: Resolving, first: int = DEFAULT_PART, after: int = 0) -> list[Incident]:
        found = await info.context.loaders.incidents(
            info.context.tenant, self.view.key.case, behind(after), part(first)
        )
        return [Incident.of(self.case_id, incident) for incident in found]


@strawberry.type
class CaseQueries:
    @strawberry.field
    async def case(self, info: Resolving, id: str) -> Case | None:  # noqa: A002
        case = parse_case_id(id)
        found = None if case is None else await info.context.loaders.case(info.context.tenant, case)
        return None if found is None else Case.of(found)

    @strawberry.field(
        description="Cases, the youngest first; `after` is the `caseId` of the last one that is known, and `search`"
        " the beginning of a `caseId` or of a workflow's id."
    )
    async def cases(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        status: str | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        search: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Case]:
        before = None if after is None else parse_case_id(after)
        if after is not None and before is None:
            raise InvalidRequest("`after` is not the id of a case")
        found = await info.context.services.queries.cases(
            info.context.tenant,
            workflow_id=workflow_id,
            status=status,
            started=(started_after, started_before),
            search=search,
            limit=page(first),
            before=before,
        )
        return [Case.of(view) for view in found]

    @strawberry.field(description="What each transition of a case waits for, in words; null if there is no such case.")
    async def why(self, info: Resolving, case_id: str) -> CaseWhy | None:
        info.context.require_reading()
        case = parse_case_id(case_id)
        found = None if case is None else await info.context.services.queries.why(case_key(info, case_id))
        return None if found is None else CaseWhy.of(found)


@strawberry.type
class CaseMutations:
    @strawberry.mutation(
        description="Start a case of the current version of a workflow. Asked again with the same `idempotencyKey`,"
        " it answers with the case that was started first. `models` puts other models in the place of the workflow's:"
        " `{agent id or '*': {type, model}}`. `subjects` are people whom the case is about, beside those that its"
        " workflow finds in its token."
    )
    async def start_case(
        self,
        info: Resolving,
        workflow_id: str,
        token: TokenInput | None = None,
        models: JSON | None = None,
        idempotency_key: str | None = None,
        conversations: JSON | None = None,
        subjects: list[str] | None = None,
    ) -> Case:
        context = info.context
        parameters = {} if models is None else {"models": models}
        key = await context.services.commands.start_case(
            workflow_id,
            given_token(token),
            principal=context.principal,
            parameters=parameters,
            conversations={name: str(id_) for name, id_ in as_object(conversations, "conversations").items()},
            key=idempotency_key,
            subjects=subjects or (),
        )
        view = await context.loaders.case(key.tenant, key.case)
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
        outcome = await info.context.services.commands.fire(
            asked_case(info, case_id),
            transition,
            as_object(form, "form"),
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
