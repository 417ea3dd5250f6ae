"""The subscriptions."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.types import AgentStreamEvent, HistoryEvent, stream_event
from circuit.engine.views import EventView
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_case_id


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="The stream of an execution: from its start, or behind the cursor `after`; then live, to its end."
    )
    async def agent_execution_stream(
        self, info: Resolving, execution_id: str, after: str | None = None
    ) -> AsyncGenerator[AgentStreamEvent, None]:
        readers = info.context.readers
        reader = await readers.open(execution_id, after, info.context.principal)
        try:
            while not reader.over:
                for frame in await reader.read():
                    yield stream_event(frame)
        finally:
            readers.close(reader)

    @strawberry.subscription(
        description="The events of a case: from its start, or behind the number `after`; then live, to its end."
    )
    async def case_events(
        self, info: Resolving, case_id: str, after: int = 0, kinds: list[str] | None = None
    ) -> AsyncGenerator[HistoryEvent, None]:
        case = parse_case_id(case_id)
        if case is None:
            raise NotFound("there is no such case; an id of a case is a UUID")
        if after < 0:
            raise InvalidRequest("`after` counts events: it is not below 0")
        key = CaseKey(info.context.tenant, case)
        async for seq, at, event in info.context.services.streams.follow(key, after):
            if kinds is None or event.kind in kinds:
                yield HistoryEvent.of(EventView(key, seq, at, event))
