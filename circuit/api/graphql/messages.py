"""Messages from outside."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json, as_object
from circuit.engine.messages import MessageView
from circuit.errors import InvalidRequest


@strawberry.type(
    description="A message. `state`: `new`, `kept` until a case waits for it, `assigned` to a case that has not"
    " answered, `delivered`, `refused` (then `error` says why), `expired`."
)
class SentMessage:
    id: str
    name: str
    key: list[str]
    delivery_id: str
    state: str
    data: JSON
    sender: str
    sent_at: datetime | None
    expires_at: datetime
    case_id: str | None
    error: JSON | None
    duplicate: bool = strawberry.field(description="Whether it had been sent before, with the same delivery id.")

    @classmethod
    def of(cls, view: MessageView) -> SentMessage:
        return cls(
            id=view.id,
            name=view.name,
            key=list(view.parts),
            delivery_id=view.delivery_id,
            state=view.state,
            data=as_json(view.data),
            sender=view.sender,
            sent_at=view.sent_at,
            expires_at=view.expires_at,
            case_id=view.case_id,
            error=None if view.error is None else as_json(view.error),
            duplicate=view.duplicate,
        )


@strawberry.type
class MessageQueries:
    @strawberry.field(description="Messages, the newest first; `after` is the `id` of the last one that is known.")
    async def messages(
        self,
        info: Resolving,
        name: str | None = None,
        state: str | None = None,
        first: int = 50,
        after: str | None = None,
    ) -> list[SentMessage]:
        try:
            before = None if after is None else UUID(after)
        except ValueError:
            raise InvalidRequest("`after` is not the id of a message") from None
        found = await info.context.services.messages.list(
            info.context.principal, name=name, state=state, limit=first, before=before
        )
        return [SentMessage.of(view) for view in found]


@strawberry.type
class MessageMutations:
    @strawberry.mutation(
        description="Send a message to the case that waits for it. One that no case waits for starts a case, where a"
        " workflow says so, or is kept for its lifetime. With a `deliveryId` it counts once, however often it is sent."
    )
    async def send_message(
        self,
        info: Resolving,
        name: str,
        data: JSON | None = None,
        key: Annotated[list[str] | None, strawberry.argument(description="As `correlate` asks for it.")] = None,
        delivery_id: str | None = None,
        lifetime_seconds: float | None = None,
    ) -> SentMessage:
        sent = await info.context.services.messages.send(
            name,
            as_object(data, "data"),
            principal=info.context.principal,
            key=key or (),
            delivery_id=delivery_id,
            lifetime_seconds=lifetime_seconds,
        )
        return SentMessage.of(sent)
