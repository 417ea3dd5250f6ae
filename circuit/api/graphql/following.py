"""What happens, as it happens: the events of a case or of all cases of a workflow, and what they mean for tokens and
costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key, checked
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.history import HistoryEvent
from circuit.api.graphql.scalars import as_json
from circuit.engine.views import EventView
from circuit.errors import InvalidCursor, InvalidRequest
from circuit.events import CASE_EVENTS, TokenImage, TokenRef
from circuit.ids import CaseKey, Numbered
from circuit.streams.subscription import Streams
from circuit.streams.workflow import Mark, WorkflowFollower

TOKEN_TYPES = ("created", "updated", "consumed")
COST_TYPES = ("transition_fired", "firing_failed", "firing_retried", "firing_cancelled")
AMONG = "+"
"""Stands in a cursor between the place that is followed from, and what was told last of what comes there."""
_LONGEST_NUMBER = 9


@dataclass(frozen=True, slots=True)
class Followed:
    """An event of a case that is followed, and the cursor behind it."""

    view: EventView
    cursor: str


@strawberry.type(description="An event of one of a workflow's cases.")
class WorkflowEvent:
    cursor: str = strawberry.field(
        description="Give it as `after` to go on from here. What came shortly before may come again: an event is known"
        " by `caseId` and `event.seq`."
    )
    case_id: str
    event: HistoryEvent


@strawberry.type(description="What became of a token: `created`, `updated` (moved, or given other data), `consumed`.")
class TokenUpdate:
    cursor: str
    type: str
    token_id: str
    case_id: str
    version: int
    place: str = strawberry.field(description="Where it lies; where it lay, if it was consumed.")
    from_place: str | None
    data: JSON | None
    metadata: JSON | None
    event: HistoryEvent


@strawberry.type(description="What an execution has cost so far.")
class CostUpdate:
    cursor: str
    case_id: str
    execution_id: str
    transition: str
    status: str
    agent_id: str | None
    model: str | None
    usage: JSON
    cost_usd: float | None = strawberry.field(description="Null where the model has no price.")
    at: datetime


@strawberry.type
class FollowingSubscriptions:
    @strawberry.subscription(
        description="The events of all cases of a workflow, from now on or behind the cursor `after`; `kinds` chooses."
    )
    async def workflow_events(
        self, info: Resolving, workflow_id: str, after: str | None = None, kinds: list[str] | None = None
    ) -> AsyncGenerator[WorkflowEvent, None]:
        checked(kinds, CASE_EVENTS, "kinds")
        async with aclosing(_followed(info, None, workflow_id, after)) as events:
            async for one in events:
                if kinds is None or one.view.kind in kinds:
                    yield WorkflowEvent(cursor=one.cursor, case_id=str(one.view.key), event=HistoryEvent.of(one.view))

    @strawberry.subscription(
        description="What becomes of the tokens of a case, or of all cases of a workflow: from the start of the case"
        " (of a workflow: from now on), or behind the cursor `after`. `types` and `placeId` choose."
    )
    async def token_updates(
        self,
        info: Resolving,
        case_id: str | None = None,
        workflow_id: str | None = None,
        place_id: str | None = None,
        types: list[str] | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[TokenUpdate, None]:
        checked(types, TOKEN_TYPES, "types")
        start, told = (after, 0) if after is None or case_id is None else _within(after)
        async with aclosing(_followed(info, case_id, workflow_id, start)) as events:
            async for one in events:
                for update in islice(_token_updates(one, exact=case_id is not None), told, None):
                    if (types is None or update.type in types) and place_id in (None, update.place):
                        yield update
                told = 0

    @strawberry.subscription(
        description="What executions cost, each time one has ended or is tried again: of a case from its start, of all"
        " cases of a workflow from now on, or behind the cursor `after`. `agentId` chooses."
    )
    async def cost_updates(
        self,
        info: Resolving,
        case_id: str | None = None,
        workflow_id: str | None = None,
        agent_id: str | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[CostUpdate, None]:
        async with aclosing(_followed(info, case_id, workflow_id, after)) as events:
            async for one in events:
                number = getattr(one.view.event, "firing", None)
                if one.view.kind not in COST_TYPES or number is None:
                    continue
                found = await info.context.services.pages.execution(one.view.key, number)
                if found is None or agent_id not in (None, found.view.descriptor.get("agent_id")):
                    continue
                cost = found.view.usage.get("cost_usd")
                yield CostUpdate(
                    cursor=one.cursor,
                    case_id=str(one.view.key),
                    execution_id=found.view.id,
                    transition=found.view.transition,
                    status=found.view.status,
                    agent_id=found.view.descriptor.get("agent_id"),
                    model=found.view.descriptor.get("model"),
                    usage=as_json(dict(found.view.usage)),
                    cost_usd=float(cost) if isinstance(cost, int | float) else None,
                    at=one.view.at,
                )


class Following:
    """A case that is followed to its end, or a workflow that is followed for ever."""

    def __init__(self, streams: Streams, key: CaseKey | None, number: int, follower: WorkflowFollower | None) -> None:
        self._streams = streams
        self._key = key
        self._number = number
        self._follower = follower

    @property
    def begun(self) -> str:
        """The cursor that it began behind."""
        return str(self._number) if self._follower is None else str(self._follower.mark)

    async def aclose(self) -> None:
        """Hear nothing any more. Twice is fine."""
        if self._follower is not None:
            self._follower.close()

    async def events(self) -> AsyncGenerator[Followed, None]:
        if self._key is not None:
            async with aclosing(self._streams.follow(self._key, self._number)) as events:
                async for seq, at, event in events:
                    yield Followed(EventView(self._key, seq, at, event), str(seq))
        if self._follower is not None:
            async with aclosing(self._follower.events()) as marked:
                async for one in marked:
                    written = one.written
                    key = CaseKey(self._follower.tenant, written.case)
                    yield Followed(EventView(key, written.seq, written.at, written.event), str(one.mark))


async def open_following(info: Resolving, case_id: str | None, workflow_id: str | None, after: str | None) -> Following:
    """Begin to follow. Raises `NotFound`, `InvalidCursor`, `InvalidRequest`."""
    if (case_id is None) == (workflow_id is None):
        raise InvalidRequest("name what is followed: `caseId` or `workflowId`")
    tenant, streams = info.context.tenant, info.context.services.streams
    if case_id is not None:
        key, number = case_key(info, case_id), _number(after)
        await streams.require(key)
        return Following(streams, key, number, None)
    mark = None if after is None else Mark.parse(after)
    return Following(streams, None, 0, await streams.open_workflow(tenant, workflow_id or "", mark))


async def _followed(
    info: Resolving, case_id: str | None, workflow_id: str | None, after: str | None
) -> AsyncGenerator[Followed, None]:
    following = await open_following(info, case_id, workflow_id, after)
    async with aclosing(following), aclosing(following.events()) as events:
        async for one in events:
            yield one


async def last_number(info: Resolving, key: CaseKey) -> str | None:
    """The number of the newest event of a case."""
    found = await info.context.loaders.case(key.tenant, key.case)
    return None if found is None else str(found.seq)


def _number(after: str | None) -> int:
    if after is None:
        return 0
    if not (after.isascii() and after.isdecimal() and len(after) <= _LONGEST_NUMBER):
        raise InvalidCursor("the cursor of a case's events is the number of one")
    return int(after)


def _within(after: str) -> tuple[str, int]:
    """The event of a case that a cursor follows on, and how many updates of the next one were told. Raises
    `InvalidCursor`."""
    start, among, told = after.partition(AMONG)
    count = _number(told) if among else 0
    if among and not count:
        raise InvalidCursor("give the cursor of an update of tokens")
    return start, count


def _token_updates(one: Followed, *, exact: bool) -> Iterator[TokenUpdate]:
    """What an event did to tokens, by their numbers. The cursors are `exact` where they are those of one case: the last
    update has that of the event, and those before say that there are more."""
    event = one.view.event
    taken: dict[int, TokenRef] = {
        ref.number: ref for name in ("consumed", "removed") for ref in getattr(event, name, ())
    }
    made: dict[int, TokenImage] = {image.number: image for image in getattr(event, "produced", ())}
    shown = HistoryEvent.of(one.view)
    numbers = sorted(taken.keys() | made.keys())
    for count, number in enumerate(numbers, 1):
        before, after = taken.get(number), made.get(number)
        token: TokenRef | TokenImage | None = after or before
        assert token is not None
        yield TokenUpdate(
            cursor=f"{one.view.seq - 1}{AMONG}{count}" if exact and count < len(numbers) else one.cursor,
            type="consumed" if after is None else "created" if before is None else "updated",
            token_id=str(Numbered(one.view.key.case, number)),
            case_id=str(one.view.key),
            version=token.version,
            place=token.place,
            from_place=None if before is None else before.place,
            data=None if after is None else as_json(dict(after.data)),
            metadata=None if after is None else as_json(dict(after.metadata)),
            event=shown,
        )
