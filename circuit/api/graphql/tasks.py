"""What waits for people and from outside: tasks, calls of tools that somebody must allow, and signals."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import asked_case, numbered
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, behind_numbered, page
from circuit.api.graphql.scalars import as_json, as_object
from circuit.engine.inbox import ApprovalView, Wanted
from circuit.engine.views import TaskView


@strawberry.type(description="A task that waits for a person: who may complete it, and what it asks for.")
class HumanTask:
    task_id: str
    case_id: str
    workflow: str
    transition: str
    title: str
    instructions: str
    inputs: JSON
    roles: list[str]
    form: JSON = strawberry.field(description="The JSON Schema of what `completeTask` takes.")
    since: datetime
    due_at: datetime | None

    @classmethod
    def of(cls, view: TaskView) -> HumanTask:
        return cls(
            task_id=view.id,
            case_id=str(view.key),
            workflow=view.workflow_id,
            transition=view.transition,
            title=view.title,
            instructions=view.instructions,
            inputs=as_json(dict(view.inputs)),
            roles=list(view.roles),
            form=as_json(dict(view.form)),
            since=view.since,
            due_at=view.due_at,
        )


@strawberry.type(description="A call of a tool that an agent may make only when somebody has allowed it.")
class ToolApproval:
    execution_id: str
    call: str = strawberry.field(
        description="Names this call with exactly these arguments: whoever decides with it decides on no other."
    )
    case_id: str
    workflow: str
    transition: str
    agent_id: str
    tool_name: str
    arguments: JSON
    doubt: str | None = strawberry.field(description="Why the tool itself is doubted, if it is.")
    roles: list[str]
    since: datetime
    due_at: datetime | None

    @classmethod
    def of(cls, view: ApprovalView) -> ToolApproval:
        return cls(
            execution_id=view.id,
            call=view.call,
            case_id=str(view.key),
            workflow=view.workflow_id,
            transition=view.transition,
            agent_id=view.agent,
            tool_name=view.tool,
            arguments=as_json(view.arguments),
            doubt=view.doubt,
            roles=list(view.roles),
            since=view.since,
            due_at=view.due_at,
        )


@strawberry.type
class TaskQueries:
    @strawberry.field(
        description="Open tasks for people, those of the youngest cases first; with `role`, those that it may complete."
        " `after` is the `taskId` of the last one that is known."
    )
    async def human_tasks(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        case_id: str | None = None,
        role: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[HumanTask]:
        wanted = _wanted(info, workflow_id, case_id, role)
        found = await info.context.services.inbox.tasks(
            info.context.principal, wanted, page(first), behind_numbered(after)
        )
        return [HumanTask.of(task) for task in found]

    @strawberry.field(
        description="Calls of tools that wait to be allowed, those of the youngest cases first; `after` is the"
        " `executionId` of the last one that is known."
    )
    async def tool_approvals(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        case_id: str | None = None,
        role: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[ToolApproval]:
        wanted = _wanted(info, workflow_id, case_id, role)
        found = await info.context.services.inbox.approvals(
            info.context.principal, wanted, page(first), behind_numbered(after)
        )
        return [ToolApproval.of(approval) for approval in found]


@strawberry.type
class TaskMutations:
    @strawberry.mutation(
        description="Complete a task with its form, filled in. Of two who do it at once, one is refused with"
        " `conflict`."
    )
    async def complete_task(
        self, info: Resolving, task_id: str, form: JSON | None = None, idempotency_key: str | None = None
    ) -> CommandOutcome:
        key, firing = numbered(info, task_id, "task")
        outcome = await info.context.services.inbox.complete(
            key,
            firing,
            as_object(form, "form"),
            principal=info.context.principal,
            idempotency_key=idempotency_key,
        )
        return CommandOutcome.of(outcome)

    @strawberry.mutation(
        description="Allow the call of a tool that an execution waits to make, as it stands. With `call`, as"
        " `toolApprovals` names it, it is that call: where the execution waits with another one by now, it is a"
        " `conflict`."
    )
    async def approve_tool_call(
        self,
        info: Resolving,
        execution_id: str,
        reason: str = "",
        call: str | None = None,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        return await _decide(info, execution_id, True, reason, call, idempotency_key)

    @strawberry.mutation(
        description="Refuse the call of a tool that an execution waits to make; the model is told the reason. `call` is"
        " as in `approveToolCall`."
    )
    async def refuse_tool_call(
        self,
        info: Resolving,
        execution_id: str,
        reason: str = "",
        call: str | None = None,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        return await _decide(info, execution_id, False, reason, call, idempotency_key)

    @strawberry.mutation(
        description="Send an execution what it waits for: its wait of this key, or whatever it waits for. One that does"
        " not wait yet gets it as soon as it does."
    )
    async def signal(
        self,
        info: Resolving,
        execution_id: str,
        payload: JSON | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        case, firing = numbered(info, execution_id, "execution")
        outcome = await info.context.services.commands.signal(
            case, firing, payload, wait=key, principal=info.context.principal, idempotency_key=idempotency_key
        )
        return CommandOutcome.of(outcome)


def _wanted(info: Resolving, workflow_id: str | None, case_id: str | None, role: str | None) -> Wanted:
    return Wanted(workflow_id, None if case_id is None else asked_case(info, case_id).case, role)


async def _decide(
    info: Resolving, execution_id: str, approved: bool, reason: str, call: str | None, idempotency_key: str | None
) -> CommandOutcome:
    key, firing = numbered(info, execution_id, "execution")
    outcome = await info.context.services.inbox.decide(
        key, firing, approved, reason, call=call, principal=info.context.principal, idempotency_key=idempotency_key
    )
    return CommandOutcome.of(outcome)
