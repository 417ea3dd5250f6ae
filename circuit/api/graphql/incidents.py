"""What could not proceed, and having it tried again."""

from __future__ import annotations

from datetime import datetime

import strawberry

from circuit.api.graphql.addressing import case_key
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.engine.views import IncidentView


@strawberry.type(description="Something that could not proceed; open while `resolvedAt` is null.")
class Incident:
    incident: int
    transition: str
    code: str
    message: str
    execution_id: str | None
    raised_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None

    @classmethod
    def of(cls, view: IncidentView) -> Incident:
        return cls(
            incident=view.number,
            transition=view.transition,
            code=view.code,
            message=view.message,
            execution_id=view.execution_id,
            raised_at=view.raised_at,
            resolved_at=view.resolved_at,
            resolved_by=view.resolved_by,
        )


@strawberry.type
class IncidentMutations:
    @strawberry.mutation(description="Let what an open incident of a case blocks be tried again; without one: all.")
    async def retry_incidents(
        self, info: Resolving, case_id: str, incident: int | None = None, idempotency_key: str | None = None
    ) -> CommandOutcome:
        outcome = await info.context.services.commands.retry(
            case_key(info, case_id), incident, principal=info.context.principal, idempotency_key=idempotency_key
        )
        return CommandOutcome.of(outcome)
