"""The events of cases, as they were and as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key, checked
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import behind
from circuit.api.graphql.scalars import as_json
from circuit.engine.views import EventView
from circuit.events import CASE_EVENTS


@strawberry.type(description="One event of a case's history; `event` has all of its fields.")
class HistoryEvent:
    seq: int
    kind: str
    at: datetime
    transition: str | None
    execution_id: str | None
    status: str | None
    reason: str | None
    principal: str | None
    error: JSON | None
    event: JSON

    @classmethod
    def of(cls, view: EventView) -> HistoryEvent:
        shown = view.as_dict()
        return cls(
            seq=view.seq,
            kind=view.kind,
            at=view.at,
            transition=shown.get("transition"),
            execution_id=shown.get("execution_id"),
            status=shown.get("status"),
            reason=shown.get("reason"),
            principal=shown.get("principal"),
            error=as_json(shown.get("error")),
            event=as_json(shown),
        )


@strawberry.type
class HistorySubscriptions:
    @strawberry.subscription(
        description="The events of a case: from its start, or behind the number `after`; then live, to its end."
    )
    async def case_events(
        self, info: Resolving, case_id: str, after: int = 0, kinds: list[str] | None = None
    ) -> AsyncGenerator[HistoryEvent, None]:
        checked(kinds, CASE_EVENTS, "kinds")
        key = case_key(info, case_id)
        async for seq, at, event in info.context.services.streams.follow(key, behind(after)):
            if kinds is None or event.kind in kinds:
                yield HistoryEvent.of(EventView(key, seq, at, event))
