"""What is asked of the runs of agents, and what is said of them."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import numbered
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, DEFAULT_PART, behind, behind_numbered, page, part
from circuit.api.graphql.scalars import as_json
from circuit.engine.feedback import FeedbackFilter, OpinionView
from circuit.engine.pages import ListedExecution
from circuit.engine.provenance import AnswerView, FeedbackView, cost_of
from circuit.errors import Conflict
from circuit.ids import CaseKey, parse_case_id, parse_numbered


@strawberry.type(description="What somebody said of an execution. What a score means is for those who give it.")
class Feedback:
    feedback_id: str
    score: float | None
    comment: str
    by: str
    at: datetime

    @classmethod
    def of(cls, view: FeedbackView) -> Feedback:
        return cls(feedback_id=view.id, score=view.score, comment=view.comment, by=view.subject, at=view.at)


@strawberry.type(description="Feedback with what it is about.")
class Opinion(Feedback):
    execution_id: str
    case_id: str
    workflow: str
    workflow_hash: str
    agent_id: str | None
    model: str | None
    provenance: JSON = strawberry.field(description="The versions of agent and prompts, provider, model, parameters.")

    @classmethod
    def of(cls, one: OpinionView) -> Opinion:  # type: ignore[override]
        view, about = one.view, one.opinion
        return cls(
            feedback_id=view.id,
            score=view.score,
            comment=view.comment,
            by=view.subject,
            at=view.at,
            execution_id=one.execution_id,
            case_id=str(about.key.case),
            workflow=about.workflow_id,
            workflow_hash=about.workflow_hash,
            agent_id=about.descriptor.get("agent_id"),
            model=about.descriptor.get("model"),
            provenance=as_json(dict(about.descriptor)),
        )


@strawberry.type(description="A recorded step of an execution: an answer has its model and its usage.")
class RecordedAnswer:
    attempt: int
    step: str
    at: datetime
    agent_id: str | None = strawberry.field(description="Who asked: the execution's agent, or one that it asked.")
    provider: str | None
    model_asked: str | None = strawberry.field(description="The model by the name that it was asked for.")
    model: str | None = strawberry.field(description="The model by the name that the provider answered with.")
    finish: str | None
    detail: str | None = strawberry.field(description="What the provider said of its end.")
    usage: JSON
    raw_usage: JSON = strawberry.field(description="The provider's own account.")
    cached: bool
    cost_usd: float | None = strawberry.field(description="Null where no price is known.")

    @classmethod
    def of(cls, view: AnswerView) -> RecordedAnswer:
        return cls(
            attempt=view.attempt,
            step=view.step,
            at=view.at,
            agent_id=view.agent,
            provider=view.provider,
            model_asked=view.asked,
            model=view.model,
            finish=view.finish,
            detail=view.detail,
            usage=as_json(dict(view.usage)),
            raw_usage=as_json(dict(view.raw_usage)),
            cached=view.cached,
            cost_usd=view.cost,
        )


@strawberry.type(description="One run of an agent: what `agentExecutionStream` is addressed by.")
class Execution:
    listed: strawberry.Private[ListedExecution]
    execution_id: str
    case_id: str
    workflow: str
    workflow_hash: str = strawberry.field(description="The version that its case is on.")
    transition: str
    status: str = strawberry.field(description="`suspended` while it waits without a worker, for what `awaits` says.")
    agent_id: str | None
    model: str | None
    started_at: datetime
    finished_at: datetime | None
    usage: JSON
    error: JSON | None
    retry_at: datetime | None
    awaits: JSON | None
    wake_at: datetime | None
    attempts: int = strawberry.field(description="How often it was tried.")
    starts: int = strawberry.field(description="Every try, and every time that it went on in another process.")
    crashes: int = strawberry.field(description="How often it lost its process.")
    provenance: JSON = strawberry.field(description="The versions of agent and prompts, provider, model, parameters.")

    @classmethod
    def of(cls, listed: ListedExecution) -> Execution:
        view = listed.view
        return cls(
            listed=listed,
            execution_id=view.id,
            case_id=str(listed.key.case),
            workflow=listed.workflow_id,
            workflow_hash=listed.workflow_hash,
            transition=view.transition,
            status=view.status,
            agent_id=view.descriptor.get("agent_id"),
            model=view.descriptor.get("model"),
            started_at=view.started_at,
            finished_at=view.finished_at,
            usage=as_json(dict(view.usage)),
            error=None if view.error is None else as_json(dict(view.error)),
            retry_at=view.retry_at,
            awaits=None if view.awaits is None else as_json(dict(view.awaits)),
            wake_at=view.wake_at,
            attempts=listed.attempts,
            starts=listed.starts,
            crashes=listed.crashes,
            provenance=as_json(dict(view.descriptor)),
        )

    @strawberry.field(description="What was recorded of its steps, with the usage that the provider told of each.")
    async def answers(self, info: Resolving) -> list[RecordedAnswer]:
        named = (self.listed.key, self.listed.firing)
        return [RecordedAnswer.of(one) for one in await info.context.loaders.answers(info.context.tenant, named)]

    @strawberry.field(
        description="What all of its recorded answers cost, those of attempts that failed too; null where no price is"
        " known of any."
    )
    async def cost_usd(self, info: Resolving) -> float | None:
        named = (self.listed.key, self.listed.firing)
        return cost_of(await info.context.loaders.answers(info.context.tenant, named))

    @strawberry.field(description="What people said of it, the oldest first.")
    async def feedback(self, info: Resolving) -> list[Feedback]:
        named = (self.listed.key, self.listed.firing)
        return [Feedback.of(one) for one in await info.context.loaders.feedback(info.context.tenant, named)]


@strawberry.type
class ExecutionQueries:
    @strawberry.field(description="One run of an agent, by its id.")
    async def agent_execution(self, info: Resolving, id: str) -> Execution | None:  # noqa: A002
        name, tenant = parse_numbered(id), info.context.tenant
        if name is None:
            return None
        found = await info.context.services.pages.execution(CaseKey(tenant, name.case), name.number)
        return None if found is None else Execution.of(found)

    @strawberry.field(
        description="The runs of agents that took or made a version of this token, the oldest first; `after` is the"
        " number at the end of the last one's id."
    )
    async def token_executions(
        self, info: Resolving, token_id: str, first: int = DEFAULT_PART, after: int = 0
    ) -> list[Execution]:
        name, tenant = parse_numbered(token_id), info.context.tenant
        if name is None:
            return []
        key = CaseKey(tenant, name.case)
        found = await info.context.services.pages.executions_of_token(key, name.number, behind(after), part(first))
        return [Execution.of(one) for one in found]

    @strawberry.field(
        description="Executions of all cases, of one, or of one agent, the youngest first; `after` is the"
        " `executionId` of the last one that is known."
    )
    async def executions(
        self,
        info: Resolving,
        case_id: str | None = None,
        agent_id: str | None = None,
        status: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Execution]:
        tenant = info.context.tenant
        case = None if case_id is None else parse_case_id(case_id)
        if case_id is not None and case is None:
            return []
        found = await info.context.services.pages.executions_of_agent(
            tenant, case=case, agent=agent_id, status=status, limit=page(first), before=behind_numbered(after)
        )
        return [Execution.of(one) for one in found]

    @strawberry.field(
        description="What people said of executions, the youngest first; `after` is the `feedbackId` of the last one"
        " that is known."
    )
    async def feedback(
        self,
        info: Resolving,
        case_id: str | None = None,
        workflow_id: str | None = None,
        agent_id: str | None = None,
        by: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Opinion]:
        log = info.context.services.feedback
        if log is None:
            raise Conflict("this server lists no feedback")
        chosen = FeedbackFilter(case_id, workflow_id, agent_id, by, since, until)
        return [Opinion.of(one) for one in await log.page(info.context.principal, chosen, page(first), after)]


@strawberry.type
class ExecutionMutations:
    @strawberry.mutation(
        description="Say what an execution was worth: a score, a comment, or both. It is added and never changes;"
        " asked again with the same `idempotencyKey`, it answers with what was added first."
    )
    async def give_feedback(
        self,
        info: Resolving,
        execution_id: str,
        score: float | None = None,
        comment: str = "",
        idempotency_key: str | None = None,
    ) -> Feedback:
        key, firing = numbered(info, execution_id, "execution")
        added = await info.context.services.commands.give_feedback(
            key,
            firing,
            principal=info.context.principal,
            score=score,
            comment=comment,
            idempotency_key=idempotency_key,
        )
        return Feedback.of(added)
