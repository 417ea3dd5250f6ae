"""The door to agents' conversations: what an agent is told of earlier runs, and what people may see and fork.

A conversation is one agent's in one case, or about one token of it. It has one writer, the owner of the case, and
grows only when a firing completes, in the same commit: what was said by a run that failed is not in it, and nothing is
in it twice. A fork is a copy, so that nobody else ever adds to it. One that belongs to no case is a chat's: whoever
adds to it says what was said last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from circuit.definition.workflow import Workflow
from circuit.engine.asking import check_idempotency_key
from circuit.engine.tombstone import is_unsaid
from circuit.engine.views import instant
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import CaseKey, IdSource, Numbered
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import conversations, ledger, publications, subjects
from circuit.storage.commands import OTHER_REQUEST
from circuit.storage.conversations import SUMMARY, ConversationRow, SaidRow
from circuit.storage.database import Database
from circuit.storage.publications import Publication

MOST_LISTED = 1_000
MOST_CONVERSATIONS = 1_000
MOST_RECALLED = 1_000
"""How many messages an agent is told at most; what it cannot hold of them it summarises."""
PAGE = 1_000
FIRST_TOKEN = 1
"""The number of the token that a case is started with."""


@dataclass(frozen=True, slots=True)
class ConversationView:
    """A conversation as it is shown. `token` is the id of the token that it is about, if it is about one."""

    id: str
    agent_id: str
    workflow_id: str | None
    case_id: str | None
    token: str | None
    messages: int
    created_at: datetime
    forked_from: str | None
    forked_after: int | None
    created_by: str | None

    @classmethod
    def of(cls, row: ConversationRow) -> ConversationView:
        about = None if row.case_id is None or row.token is None else str(Numbered(row.case_id, row.token))
        return cls(
            str(row.id),
            row.agent_id,
            row.workflow_id,
            None if row.case_id is None else str(row.case_id),
            about,
            row.messages,
            row.created_at,
            None if row.forked_from is None else str(row.forked_from),
            row.forked_after,
            row.created_by,
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "conversation_id": self.id,
            "agent_id": self.agent_id,
            "workflow": self.workflow_id,
            "case_id": self.case_id,
            "token": self.token,
            "messages": self.messages,
            "created_at": instant(self.created_at),
            "forked_from": self.forked_from,
            "forked_after": self.forked_after,
            "created_by": self.created_by,
        }


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as it is shown, its parts typed. `covers` is the last message that a summary stands for."""

    number: int
    role: str
    parts: Sequence[Mapping[str, Any]]
    agent_id: str | None
    execution_id: str | None
    covers: int | None
    at: datetime

    @classmethod
    def of(cls, row: SaidRow) -> MessageView:
        said_in = None if row.case_id is None or row.firing is None else str(Numbered(row.case_id, row.firing))
        return cls(row.seq, row.role, row.parts, row.agent_id, said_in, row.covers, row.at)

    def as_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "role": self.role,
            "parts": [dict(part) for part in self.parts],
            "agent_id": self.agent_id,
            "execution_id": self.execution_id,
            "covers": self.covers,
            "at": instant(self.at),
        }


@dataclass(frozen=True, slots=True)
class Memory:
    """What one conversation of a tenant tells its agent."""

    database: Database
    tenant: int
    conversation: UUID

    async def length(self) -> int:
        """How many messages there are. Raises `StorageError`."""
        async with self.database.transaction(self.tenant) as connection:
            return await conversations.length(connection, self.tenant, self.conversation)

    async def recall(self, upto: int) -> list[tuple[int, Mapping[str, Any]]]:
        """What the agent is told of the first `upto` messages, as JSON, each with the number of the last message that
        is known with it. A summary has the role `summary`. Raises `StorageError`."""
        async with self.database.transaction(self.tenant) as connection:
            found = await conversations.recalled(connection, self.tenant, self.conversation, upto, MOST_RECALLED)
        cut = sum(one.role != SUMMARY for one in found) == MOST_RECALLED
        # What was erased is told to no model: not even its hash.
        found = [one for one in found if not is_unsaid(one.parts)]
        summaries = [one for one in found if one.role == SUMMARY]
        said = [one for one in found if one.role != SUMMARY]
        if cut:
            # It was cut somewhere: what is told begins with somebody who asks.
            said = said[next((at for at, one in enumerate(said) if one.role == "user"), len(said)) :]
        return [
            *((one.covers or 0, {"role": SUMMARY, "parts": one.parts}) for one in summaries),
            *((one.seq, {"role": one.role, "parts": one.parts}) for one in said),
        ]


def conversation_id(key: CaseKey, agent_id: str, token: int | None) -> UUID:
    """The conversation of an agent about a case, or about one of its tokens. It sorts with the case's own id."""
    told = key.case.bytes + f"\\0{agent_id}\\0{'' if token is None else token}".encode()
    value = int.from_bytes(key.case.bytes[:8] + hashlib.sha256(told).digest()[:8], "big")
    return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)


class Conversations:
    """What people may see of conversations, and fork."""

    def __init__(self, database: Database, ids: IdSource) -> None:
        self._database = database
        self._ids = ids

    async def list(
        self,
        principal: Principal,
        *,
        agent_id: str | None = None,
        case: UUID | None = None,
        limit: int = 50,
        before: UUID | None = None,
    ) -> Sequence[ConversationView]:
        """Conversations, the youngest first, of an agent or in a case; `before` is the last one of the page before.
        Raises `InvalidRequest`, `Forbidden`."""
        principal.require(Permission.READ)
        if not 1 <= limit <= MOST_LISTED:
            raise InvalidRequest(f"a page has 1 to {MOST_LISTED} conversations, not {limit}")
        async with self._database.transaction(principal.tenant) as connection:
            found = await conversations.list_of(
                connection, principal.tenant, agent_id=agent_id, case=case, limit=limit, before=before
            )
        return [ConversationView.of(row) for row in found]

    async def find(self, principal: Principal, conversation: str) -> ConversationView:
        """A conversation. Raises `NotFound`, `Forbidden`."""
        principal.require(Permission.READ)
        which = named(conversation)
        async with self._database.transaction(principal.tenant) as connection:
            row = await conversations.find(connection, principal.tenant, which)
        return ConversationView.of(present(row, conversation))

    async def messages(
        self, principal: Principal, conversation: str, *, after: int = 0, limit: int = PAGE
    ) -> Sequence[MessageView]:
        """What was said behind the message `after`, in order. Raises `NotFound`, `InvalidRequest`, `Forbidden`."""
        principal.require(Permission.READ)
        if not 1 <= limit <= PAGE:
            raise InvalidRequest(f"a page has 1 to {PAGE} messages, not {limit}")
        which = named(conversation)
        async with self._database.transaction(principal.tenant) as connection:
            row = present(await conversations.find(connection, principal.tenant, which), conversation)
            said = await conversations.messages(connection, principal.tenant, row.id, after=after, limit=limit)
        return [MessageView.of(one) for one in said]

    def memory(self, principal: Principal, conversation: str) -> Memory:
        """What a conversation tells its agent. Raises `NotFound` for what is no id."""
        return Memory(self._database, principal.tenant, named(conversation))

    async def begin(self, principal: Principal, agent_id: str, said: Sequence[Mapping[str, Any]]) -> ConversationView:
        """Make a conversation that belongs to no case, of these first messages, as JSON. Raises `Forbidden`."""
        principal.require(Permission.RUN)
        made = self._ids.uuid()
        async with self._database.transaction(principal.tenant) as connection:
            await conversations.begin(connection, principal.tenant, made, agent_id, principal.subject)
            await conversations.add(connection, principal.tenant, made, 0, said)
            await ledger.note(connection, principal, "conversation.begin", made, agent=agent_id)
            return ConversationView.of(present(await conversations.find(connection, principal.tenant, made), str(made)))

    async def add(self, principal: Principal, conversation: str, after: int, said: Sequence[Mapping[str, Any]]) -> None:
        """Add messages, as JSON, behind the last one, `after`. Raises `NotFound`, `Forbidden`, and `Conflict` where it
        is not the last one any more, or where the conversation is a case's: that one adds to it itself."""
        principal.require(Permission.RUN)
        async with self._database.transaction(principal.tenant) as connection:
            row = present(await conversations.find(connection, principal.tenant, named(conversation)), conversation)
            if row.case_id is not None:
                raise Conflict(f"conversation {conversation} is case {row.case_id}'s, which alone adds to it; fork it")
            if not await conversations.add(connection, principal.tenant, row.id, after, said):
                raise Conflict(f"somebody else went on with conversation {conversation}; continue it anew, or fork it")

    async def fork(
        self,
        principal: Principal,
        conversation: str,
        after: int | None = None,
        *,
        agent_id: str | None = None,
        key: str | None = None,
    ) -> ConversationView:
        """Make a conversation of the messages up to `after` (all of them, without it) of another one, for its agent or
        this one. It belongs to no case; a case may start from it. Asked again with the same `key`, it answers with what
        was made first. Raises `NotFound`, `InvalidRequest`, `Forbidden`, `Conflict` for a key of another request."""
        principal.require(Permission.RUN)
        check_idempotency_key(key)
        which, fork = named(conversation), self._ids.uuid()
        request = f"conversation:{which}:{'' if after is None else after}:{agent_id or ''}"
        async with self._database.transaction(principal.tenant) as connection:
            kept = Publication(request, str(fork), "")
            if key is not None and not await publications.keep(connection, principal.tenant, key, kept):
                before = await publications.find(connection, principal.tenant, key)
                if before is None or before.request != request:
                    raise Conflict(OTHER_REQUEST)
                made = await conversations.find(connection, principal.tenant, UUID(before.id))
                return ConversationView.of(present(made, before.id))
            source = present(await conversations.find(connection, principal.tenant, which), conversation)
            copied = check_after(source, after)
            behind = await conversations.messages(connection, principal.tenant, which, after=copied, limit=1)
            if behind and behind[0].role == "tool":
                # Providers take no conversation in which a call has no result.
                raise InvalidRequest(
                    f"message {copied} of conversation {which} makes calls, whose results are message {copied + 1}:"
                    f" fork it after {copied + 1}, or before the calls"
                )
            await conversations.fork(
                connection, principal.tenant, source, copied, fork, created_by=principal.subject, agent_id=agent_id
            )
            await ledger.note(connection, principal, "conversation.fork", fork, source=conversation)
            return ConversationView.of(present(await conversations.find(connection, principal.tenant, fork), str(fork)))


async def carry_over(
    connection: Any, origin: CaseKey, fork: CaseKey, ended: Collection[int], principal: Principal
) -> None:
    """Fork the conversations about a case for a fork of it, in the transaction that starts it: with what was said in
    the firings that had `ended` by then, and before the case."""
    before: UUID | None = None
    while True:
        page = await conversations.list_of(
            connection, origin.tenant, case=origin.case, limit=MOST_CONVERSATIONS, before=before
        )
        for source in page:
            after = await conversations.length_before(connection, origin.tenant, source.id, origin.case, ended)
            # Those that agents keep about a case have its name; others that are about it are left where they are.
            if after and source.id == conversation_id(origin, source.agent_id, source.token):
                await conversations.fork(
                    connection,
                    origin.tenant,
                    source,
                    after,
                    conversation_id(fork, source.agent_id, source.token),
                    created_by=principal.subject,
                    case=fork.case,
                    token=source.token,
                )
        if len(page) < MOST_CONVERSATIONS:
            return
        before = page[-1].id


async def take_along(
    connection: Any, case: CaseKey, workflow: Workflow, wanted: Mapping[str, str], principal: Principal
) -> None:
    """Fork the conversations that the agents of a new case go on with, in the transaction that starts it.

    Raises `InvalidRequest` for an agent that the workflow does not have or that keeps none, `NotFound`.
    """
    for agent_id, conversation in sorted(wanted.items()):
        agent = workflow.agents.get(agent_id)
        scope = None if agent is None else agent.document.get("conversation")
        if scope is None:
            raise InvalidRequest(
                f"workflow {workflow.id} has no agent {agent_id!r} that keeps a conversation: set `conversation: case`"
                " or `conversation: token` there"
            )
        source = present(await conversations.find(connection, case.tenant, named(conversation)), conversation)
        token = FIRST_TOKEN if scope == "token" else None
        if source.case_id is not None:
            await subjects.inherit(connection, CaseKey(case.tenant, source.case_id), case, principal.subject)
        await conversations.fork(
            connection,
            case.tenant,
            source,
            source.messages,
            conversation_id(case, agent_id, token),
            created_by=principal.subject,
            agent_id=agent_id,
            workflow_id=workflow.id,
            case=case.case,
            token=token,
        )


def named(conversation: str) -> UUID:
    """The id in `conversation`. Raises `NotFound` where it holds none."""
    try:
        return UUID(conversation)
    except ValueError:
        raise _missing(conversation) from None


def present(row: ConversationRow | None, conversation: str) -> ConversationRow:
    """`row`, if it is there. Raises `NotFound`."""
    if row is None:
        raise _missing(conversation)
    return row


def check_after(source: ConversationRow, after: int | None) -> int:
    """How many messages a fork of `source` takes. Raises `InvalidRequest`."""
    if after is None:
        return source.messages
    if not 1 <= after <= source.messages:
        raise InvalidRequest(f"conversation {source.id} has the messages 1 to {source.messages}, and no {after}")
    return after


def _missing(conversation: str) -> NotFound:
    return NotFound(f"there is no conversation {conversation!r}; `circuit conversations list` lists them")
