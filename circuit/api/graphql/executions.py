"""What is asked of the runs of agents."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_seen
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json
from circuit.engine.views import CaseView, ExecutionView
from circuit.ids import Numbered, parse_numbered


@strawberry.type(description="One run of an agent: what `agentExecutionStream` is addressed by.")
class Execution:
    execution_id: str
    transition: str
    status: str
    agent_id: str | None
    model: str | None
    started_at: datetime
    finished_at: datetime | None
    usage: JSON
    error: JSON | None

    @classmethod
    def of(cls, view: ExecutionView) -> Execution:
        return cls(
            execution_id=view.id,
            transition=view.transition,
            status=view.status,
            agent_id=view.descriptor.get("agent_id"),
            model=view.descriptor.get("model"),
            started_at=view.started_at,
            finished_at=view.finished_at,
            usage=as_json(dict(view.usage)),
            error=None if view.error is None else as_json(dict(view.error)),
        )


@strawberry.type
class ExecutionQueries:
    @strawberry.field(description="One run of an agent, by its id.")
    async def agent_execution(self, info: Resolving, id: str) -> Execution | None:  # noqa: A002
        name = parse_numbered(id)
        view = await case_seen(info, None if name is None else name.case)
        found = next((one for one in (view.executions if view else ()) if one.id == id), None)
        return None if found is None else Execution.of(found)

    @strawberry.field(description="The runs of agents that took or made a version of this token, the oldest first.")
    async def token_executions(self, info: Resolving, token_id: str) -> list[Execution]:
        token = parse_numbered(token_id)
        view = await case_seen(info, None if token is None else token.case)
        if token is None or view is None:
            return []
        wanted = _executions_of(view, token)
        return [Execution.of(one) for one in view.executions if one.id in wanted]


def _executions_of(view: CaseView, token: Numbered) -> set[str]:
    """The executions whose events name the token as consumed, read or produced."""
    found: set[str] = set()
    for event in view.history:
        shown = event.as_dict()
        touched = [*shown.get("consumed", ()), *shown.get("read", ()), *shown.get("produced", ())]
        if "execution_id" in shown and any(one["id"] == str(token) for one in touched):
            found.add(shown["execution_id"])
    return found
