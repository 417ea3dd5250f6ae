"""What agents remember of earlier runs: seen and forked."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, DEFAULT_PART, behind, page, part
from circuit.api.graphql.scalars import as_json
from circuit.engine.conversations import ConversationView, MessageView
from circuit.errors import NotFound
from circuit.ids import parse_case_id


@strawberry.type(description="A message of a conversation.")
class ConversationMessage:
    number: int
    role: str = strawberry.field(description="`user`, `assistant`, `tool`, or `summary` of all up to `covers`.")
    parts: JSON = strawberry.field(description="Typed: text, image, reasoning, tool_call, tool_result.")
    agent_id: str | None
    execution_id: str | None
    covers: int | None
    at: datetime

    @classmethod
    def of(cls, view: MessageView) -> ConversationMessage:
        return cls(
            number=view.number,
            role=view.role,
            parts=as_json([dict(part) for part in view.parts]),
            agent_id=view.agent_id,
            execution_id=view.execution_id,
            covers=view.covers,
            at=view.at,
        )


@strawberry.type(description="What an agent remembers: about a case, about a token of it, or a fork of such.")
class Conversation:
    conversation_id: str
    agent_id: str
    workflow: str | None
    case_id: str | None
    token_id: str | None
    message_count: int
    created_at: datetime
    forked_from: str | None
    forked_after: int | None

    @classmethod
    def of(cls, view: ConversationView) -> Conversation:
        return cls(
            conversation_id=view.id,
            agent_id=view.agent_id,
            workflow=view.workflow_id,
            case_id=view.case_id,
            token_id=view.token,
            message_count=view.messages,
            created_at=view.created_at,
            forked_from=view.forked_from,
            forked_after=view.forked_after,
        )

    @strawberry.field(description="What was said behind the message `after`, at most `first` messages.")
    async def messages(self, info: Resolving, after: int = 0, first: int = DEFAULT_PART) -> list[ConversationMessage]:
        which = UUID(self.conversation_id)
        said = await info.context.loaders.said(info.context.tenant, which, behind(after), part(first))
        return [ConversationMessage.of(one) for one in said]


@strawberry.type
class ConversationQueries:
    @strawberry.field(description="Conversations of an agent or in a case, the youngest first; `after` is an id.")
    async def conversations(
        self,
        info: Resolving,
        agent_id: str | None = None,
        case_id: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Conversation]:
        case = None if case_id is None else parse_case_id(case_id)
        before = None if after is None else parse_case_id(after)
        if (case is None) != (case_id is None) or (before is None) != (after is None):
            return []
        found = await info.context.services.conversations.list(
            info.context.principal,
            agent_id=agent_id,
            case=case,
            limit=page(first),
            before=before,
        )
        return [Conversation.of(one) for one in found]

    @strawberry.field(description="A conversation, by its id.")
    async def conversation(self, info: Resolving, id: str) -> Conversation | None:  # noqa: A002
        try:
            return Conversation.of(await info.context.services.conversations.find(info.context.principal, id))
        except NotFound:
            return None


@strawberry.type
class ConversationMutations:
    @strawberry.mutation(description="Copy a conversation, or its messages up to `after`.")
    async def fork_conversation(
        self,
        info: Resolving,
        id: str,  # noqa: A002
        after: int | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        made = await info.context.services.conversations.fork(info.context.principal, id, after, key=idempotency_key)
        return Conversation.of(made)
