"""What of cases goes on by itself, and when."""

from __future__ import annotations

from datetime import datetime

import strawberry

from circuit.api.graphql.addressing import case_key
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, page
from circuit.engine.schedules import Place, ScheduledRun, ScheduleView


@strawberry.type(description="The next run of a place agent on a token, or a timer that will take one.")
class Run:
    transition: str
    agent_id: str | None
    place_id: str
    token_id: str
    due_at: datetime
    runs: int = strawberry.field(description="How often the agent ran before in this stay of the token.")

    @classmethod
    def of(cls, view: ScheduledRun) -> Run:
        return cls(
            transition=view.transition,
            agent_id=view.agent_id,
            place_id=view.place,
            token_id=view.token_id,
            due_at=view.due_at,
            runs=view.runs,
        )


@strawberry.type(description="A case that goes on by itself: a run, a timer, a retry, or a wait whose time is up.")
class Schedule:
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this entry.")
    case_id: str
    workflow: str
    due_at: datetime
    runs: list[Run]

    @classmethod
    def of(cls, view: ScheduleView) -> Schedule:
        return cls(
            cursor=str(view.place),
            case_id=str(view.key),
            workflow=view.workflow_id,
            due_at=view.due_at,
            runs=[Run.of(run) for run in view.runs],
        )


@strawberry.type
class ScheduleQueries:
    @strawberry.field(
        description="Cases that wait for a time, the next ones first, with the runs that come; `after` is the `cursor`"
        " of the last one that is known."
    )
    async def schedules(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        case_id: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Schedule]:
        tenant = info.context.tenant
        case = None if case_id is None else case_key(info, case_id).case
        found = await info.context.services.schedules.due(
            tenant,
            workflow_id=workflow_id,
            case=case,
            limit=page(first),
            after=None if after is None else Place.parse(after),
        )
        return [Schedule.of(view) for view in found]
