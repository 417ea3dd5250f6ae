"""What could not proceed: looked at, tried again, put right, one or many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key, numbered
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, LARGEST_PAGE, behind_numbered, page
from circuit.api.graphql.scalars import as_json, as_object
from circuit.api.graphql.tokens import Token
from circuit.engine import bulk
from circuit.engine.commands import CommandOutcome as Outcome
from circuit.engine.views import DeadLetterEntry, IncidentEntry, IncidentView
from circuit.errors import InvalidRequest
from circuit.ids import Numbered
from circuit.security.permissions import Permission

DEFAULT_RATE = 10.0
LARGEST_RATE = 100.0
LONGEST_BULK_SECONDS = 30.0
WAIT_SECONDS = 0.5
"""How long a bulk operation waits for the answer of one case; one that takes longer counts as pending."""

Entry = TypeVar("Entry", IncidentEntry, DeadLetterEntry)


@strawberry.type(description="Something that could not proceed; open while `resolvedAt` is null.")
class Incident:
    id: str = strawberry.field(description="`CASE.INCIDENT`: give it as `after` to go on behind it.")
    case_id: str
    incident: int
    transition: str
    code: str
    message: str
    execution_id: str | None
    tokens: list[str] = strawberry.field(description="The ids of the tokens that it is about.")
    raised_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None

    @classmethod
    def of(cls, case_id: str, view: IncidentView) -> Incident:
        return cls(
            id=f"{case_id}.{view.number}",
            case_id=case_id,
            incident=view.number,
            transition=view.transition,
            code=view.code,
            message=view.message,
            execution_id=view.execution_id,
            tokens=list(view.tokens),
            raised_at=view.raised_at,
            resolved_at=view.resolved_at,
            resolved_by=view.resolved_by,
        )


@strawberry.type(description="What became of many that were asked, each for itself.")
class BulkOutcome:
    asked: int
    applied: int
    pending: int = strawberry.field(description="Asked, and not answered yet: no worker has come to it.")
    refused: int
    refusals: JSON = strawberry.field(description="The reasons, with how often each was given.")
    end_cursor: str | None = strawberry.field(description="Give it as `after` to go on; null where none is left.")

    @classmethod
    def of(cls, tally: bulk.Tally, end_cursor: str | None) -> BulkOutcome:
        return cls(
            asked=tally.asked,
            applied=tally.applied,
            pending=tally.pending,
            refused=tally.refused,
            refusals=as_json(tally.refusals),
            end_cursor=end_cursor,
        )


@strawberry.type
class IncidentQueries:
    @strawberry.field(
        description="Open incidents of all cases, or of one, by case and number; `after` is the `id` of the last one"
        " that is known."
    )
    async def incidents(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        case_id: str | None = None,
        code: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Incident]:
        tenant = info.context.tenant
        case = None if case_id is None else case_key(info, case_id).case
        found = await info.context.services.queries.open_incidents(
            tenant, workflow_id, code, page(first), behind_numbered(after), case=case
        )
        return [Incident.of(str(entry.key), entry.incident) for entry in found]

    @strawberry.field(
        description="Tokens in dead-letter places of all live cases; why one lies there stands in its metadata, under"
        " `failure`."
    )
    async def dead_letters(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        code: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Token]:
        found = await info.context.services.queries.dead_letters(
            info.context.tenant, workflow_id, code, page(first), behind_numbered(after)
        )
        return [Token.of(entry.token) for entry in found]


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

    @strawberry.mutation(
        description="Change the data of the tokens that an incident is about (or of one of them), and let it be tried"
        ' again. `set` has values by dotted path: `{"data.NAME": ...}`.'
    )
    async def resolve_incident(
        self,
        info: Resolving,
        case_id: str,
        incident: int,
        set: JSON,  # noqa: A002
        token_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        token = None
        if token_id is not None:
            key, token = numbered(info, token_id, "token")
            if key != case_key(info, case_id):
                raise InvalidRequest(f"token {token_id} is not of case {case_id}")
        outcome = await info.context.services.commands.resolve(
            case_key(info, case_id),
            incident,
            as_object(set, "set"),
            token,
            principal=info.context.principal,
            idempotency_key=idempotency_key,
        )
        return CommandOutcome.of(outcome)

    @strawberry.mutation(
        description="Put a token of a dead-letter place back to where it was taken from, or into another place."
    )
    async def put_back(
        self, info: Resolving, token_id: str, place_id: str | None = None, idempotency_key: str | None = None
    ) -> CommandOutcome:
        key, token = numbered(info, token_id, "token")
        outcome = await info.context.services.commands.put_back(
            key, token, place_id, principal=info.context.principal, idempotency_key=idempotency_key
        )
        return CommandOutcome.of(outcome)

    @strawberry.mutation(
        description="Have many open incidents tried again, at most `rate` in a second; what fails again meanwhile is"
        " not asked a second time."
    )
    async def retry_all_incidents(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        code: str | None = None,
        rate: float = DEFAULT_RATE,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> BulkOutcome:
        async def ask(entry: IncidentEntry) -> Outcome:
            return await info.context.services.commands.retry(
                entry.key, entry.incident.number, principal=info.context.principal, wait_seconds=WAIT_SECONDS
            )

        return await _each(await _incidents(info, workflow_id, code, first, after), ask, rate, first)

    @strawberry.mutation(
        description="Change the data of the tokens of many open incidents in the same way, and have them tried again,"
        " at most `rate` in a second."
    )
    async def resolve_all_incidents(
        self,
        info: Resolving,
        set: JSON,  # noqa: A002
        workflow_id: str | None = None,
        code: str | None = None,
        rate: float = DEFAULT_RATE,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> BulkOutcome:
        changes = as_object(set, "set")

        async def ask(entry: IncidentEntry) -> Outcome:
            return await info.context.services.commands.resolve(
                entry.key,
                entry.incident.number,
                changes,
                principal=info.context.principal,
                wait_seconds=WAIT_SECONDS,
            )

        return await _each(await _incidents(info, workflow_id, code, first, after), ask, rate, first)

    @strawberry.mutation(
        description="Put many tokens of dead-letter places back, to where each was taken from or into one place, at"
        " most `rate` in a second."
    )
    async def put_all_back(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        code: str | None = None,
        place_id: str | None = None,
        rate: float = DEFAULT_RATE,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> BulkOutcome:
        info.context.principal.require(Permission.OPERATE)
        found = await info.context.services.queries.dead_letters(
            info.context.tenant, workflow_id, code, page(first), behind_numbered(after)
        )

        async def ask(entry: DeadLetterEntry) -> Outcome:
            return await info.context.services.commands.put_back(
                entry.key, entry.number, place_id, principal=info.context.principal, wait_seconds=WAIT_SECONDS
            )

        return await _each(found, ask, rate, first)


async def _incidents(
    info: Resolving, workflow_id: str | None, code: str | None, first: int, after: str | None
) -> Sequence[IncidentEntry]:
    info.context.principal.require(Permission.OPERATE)
    return await info.context.services.queries.open_incidents(
        info.context.tenant, workflow_id, code, page(first), behind_numbered(after)
    )


async def _each(
    entries: Sequence[Entry], ask: Callable[[Entry], Awaitable[Outcome]], rate: float, first: int
) -> BulkOutcome:
    """Ask it of each. A request does not last longer than clients wait: `first` and `rate` bound it."""
    if not 0 < rate <= LARGEST_RATE:
        raise InvalidRequest(f"`rate` is above 0 and at most {LARGEST_RATE:g} in a second")
    if first / rate > LONGEST_BULK_SECONDS:
        raise InvalidRequest(
            f"{first} at {rate:g} in a second would take longer than {LONGEST_BULK_SECONDS:g} s: ask for fewer with"
            " `first`, and go on with `after`"
        )
    tally = await bulk.ask_each(_these(entries), ask, rate)
    full = len(entries) == min(first, LARGEST_PAGE)
    return BulkOutcome.of(tally, _place(entries[-1]) if full else None)


async def _these(entries: Sequence[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry


def _place(entry: IncidentEntry | DeadLetterEntry) -> str:
    number = entry.number if isinstance(entry, DeadLetterEntry) else entry.incident.number
    case: UUID = entry.key.case
    return str(Numbered(case, number))
