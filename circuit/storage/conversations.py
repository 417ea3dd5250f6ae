"""Conversations of agents, read and forked (under a tenant's row security). What firings add to them goes through the
writer, in the commit that completes the firing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, column, func, literal, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage import artefacts, rows
from circuit.storage.tables import conversation, message

SUMMARY = "summary"
"""The role of a message that stands for those before it."""


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """A conversation, with how many messages it holds. `case_id` and `token` are what it is about."""

    id: UUID
    agent_id: str
    workflow_id: str | None
    case_id: UUID | None
    token: int | None
    forked_from: UUID | None
    forked_after: int | None
    created_at: datetime
    created_by: str | None
    messages: int


@dataclass(frozen=True, slots=True)
class SaidRow:
    """A message. `case_id` and `firing` name the execution in which it was said."""

    seq: int
    role: str
    parts: Any
    agent_id: str | None
    case_id: UUID | None
    firing: int | None
    covers: int | None
    at: datetime


_LENGTH = (
    select(func.coalesce(func.max(message.c.seq), 0))
    .where(message.c.tenant_id == conversation.c.tenant_id, message.c.conversation_id == conversation.c.conversation_id)
    .scalar_subquery()
    .label("messages")
)


async def find(conn: AsyncConnection, tenant: int, which: UUID) -> ConversationRow | None:
    """A conversation, if there is one of this id."""
    table = conversation.c
    found = await conn.execute(
        select(conversation, _LENGTH).where(table.tenant_id == tenant, table.conversation_id == which)
    )
    row = found.mappings().one_or_none()
    return None if row is None else _conversation(row)


async def list_of(
    conn: AsyncConnection,
    tenant: int,
    *,
    agent_id: str | None = None,
    case: UUID | None = None,
    limit: int = 50,
    before: UUID | None = None,
) -> list[ConversationRow]:
    """Conversations, the youngest first; `before` is the last one of the page before."""
    table = conversation.c
    query = select(conversation, _LENGTH).where(table.tenant_id == tenant)
    if agent_id is not None:
        query = query.where(table.agent_id == agent_id)
    if case is not None:
        query = query.where(table.case_id == case)
    if before is not None:
        query = query.where(table.conversation_id < before)
    found = await conn.execute(query.order_by(table.conversation_id.desc()).limit(limit))
    return [_conversation(row) for row in found.mappings()]


async def length(conn: AsyncConnection, tenant: int, which: UUID) -> int:
    """The number of the last message; 0 where there is none."""
    table = message.c
    found = await conn.scalar(
        select(func.max(table.seq)).where(table.tenant_id == tenant, table.conversation_id == which)
    )
    return found or 0


async def length_before(conn: AsyncConnection, tenant: int, which: UUID, case: UUID, ended: Collection[int]) -> int:
    """How many messages come before the first one that was said in a firing of `case` which is not among `ended`."""
    table = message.c
    mine = (table.tenant_id == tenant) & (table.conversation_id == which)
    later = (table.case_id == case) & table.firing.not_in(ended)
    first = await conn.scalar(select(func.min(table.seq)).where(mine, later))
    return await length(conn, tenant, which) if first is None else first - 1


async def messages(
    conn: AsyncConnection, tenant: int, which: UUID, *, after: int = 0, limit: int = 1_000
) -> list[SaidRow]:
    """What was said behind the message `after`, in order, summaries included."""
    table = message.c
    query = select(message).where(table.tenant_id == tenant, table.conversation_id == which, table.seq > after)
    found = await conn.execute(query.order_by(table.seq).limit(limit))
    return [_said(row) for row in await artefacts.resolved(conn, tenant, found.mappings())]


async def messages_of(
    conn: AsyncConnection, tenant: int, wanted: Sequence[UUID], after: int, limit: int
) -> list[tuple[UUID, SaidRow]]:
    """What was said in each of these conversations behind the message `after`, in order, with its conversation."""
    ids = bindparam("wanted", list(wanted), type_=ARRAY(Uuid))
    of = func.unnest(ids).table_valued(column("wanted_id", Uuid)).render_derived("wanted")
    page = (
        select(message)
        .where(message.c.tenant_id == tenant, message.c.conversation_id == of.c.wanted_id, message.c.seq > after)
        .order_by(message.c.seq)
        .limit(limit)
        .lateral("page")
    )
    query = select(page).select_from(of.join(page, true())).order_by(page.c.conversation_id, page.c.seq)
    found = await artefacts.resolved(conn, tenant, (await conn.execute(query)).mappings())
    return [(rows.plain(row["conversation_id"]), _said(row)) for row in found]


async def recalled(conn: AsyncConnection, tenant: int, which: UUID, upto: int, most: int) -> list[SaidRow]:
    """What an agent is told of the first `upto` messages: the last summary, and at most `most` of those behind what it
    covers, in order."""
    table = message.c
    mine = (table.tenant_id == tenant) & (table.conversation_id == which) & (table.seq <= upto)
    summary = (
        (
            await conn.execute(
                select(message).where(mine, table.role == SUMMARY).order_by(table.covers.desc(), table.seq).limit(1)
            )
        )
        .mappings()
        .one_or_none()
    )
    first = 0 if summary is None else summary["covers"]
    query = select(message).where(mine, table.seq > first, table.role != SUMMARY)
    found = await conn.execute(query.order_by(table.seq.desc()).limit(most))
    said = [_said(row) for row in await artefacts.resolved(conn, tenant, found.mappings())][::-1]
    if summary is None:
        return said
    [covering] = await artefacts.resolved(conn, tenant, [summary])
    return [_said(covering), *said]


async def begin(conn: AsyncConnection, tenant: int, which: UUID, agent_id: str, created_by: str) -> None:
    """Make a conversation that is about no case."""
    made = {"tenant_id": tenant, "conversation_id": which, "agent_id": agent_id, "created_by": created_by}
    await conn.execute(insert(conversation).values(made))


async def add(conn: AsyncConnection, tenant: int, which: UUID, after: int, said: Sequence[Mapping[str, Any]]) -> bool:
    """Add these messages (`role`, `parts`, perhaps `agent_id` and `covers`) behind the message `after`, which is the
    last one. False where it is not, or not any more: then the transaction must not be committed."""
    if await length(conn, tenant, which) != after:
        return False
    values = [
        {
            "tenant_id": tenant,
            "conversation_id": which,
            "seq": after + number,
            "role": one["role"],
            "parts": list(one["parts"]),
            "agent_id": one.get("agent_id"),
            "covers": one.get("covers"),
        }
        for number, one in enumerate(said, 1)
    ]
    made = insert(message).values(values).on_conflict_do_nothing().returning(message.c.seq)
    return len((await conn.execute(made)).all()) == len(values)


async def fork(
    conn: AsyncConnection,
    tenant: int,
    source: ConversationRow,
    after: int,
    fork: UUID,
    *,
    created_by: str,
    agent_id: str | None = None,
    workflow_id: str | None = None,
    case: UUID | None = None,
    token: int | None = None,
) -> None:
    """Copy the first `after` messages of `source` into the new conversation `fork`. It outlives the case of its source,
    and so do its messages, in which nothing large is put aside."""
    await conn.execute(
        insert(conversation).values(
            tenant_id=tenant,
            conversation_id=fork,
            agent_id=agent_id or source.agent_id,
            workflow_id=workflow_id or source.workflow_id,
            case_id=case,
            token=token,
            forked_from=source.id,
            forked_after=after,
            created_by=created_by,
        )
    )
    kept = message.c
    copied = ("seq", "role", "parts", "agent_id", "case_id", "firing", "covers", "at")
    these = (kept.tenant_id == tenant) & (kept.conversation_id == source.id) & (kept.seq <= after)
    # Parts are a list, and an object where something large was put aside.
    whole = func.json_typeof(kept.parts) == "array"
    await conn.execute(
        insert(message).from_select(
            ["tenant_id", "conversation_id", *copied],
            select(kept.tenant_id, literal(fork, Uuid), *(kept[name] for name in copied)).where(these, whole),
        )
    )
    found = await conn.execute(select(kept.tenant_id, *(kept[name] for name in copied)).where(these, ~whole))
    large = await artefacts.resolved(conn, tenant, found.mappings())
    if large:
        await conn.execute(insert(message), [{**row, "conversation_id": fork} for row in large])


def _conversation(row: rows.Row) -> ConversationRow:
    return ConversationRow(
        rows.plain(row["conversation_id"]),
        row["agent_id"],
        row["workflow_id"],
        _plain(row["case_id"]),
        row["token"],
        _plain(row["forked_from"]),
        row["forked_after"],
        row["created_at"],
        row["created_by"],
        row["messages"],
    )


def _said(row: rows.Row) -> SaidRow:
    return SaidRow(
        row["seq"],
        row["role"],
        rows.document(row["parts"]),
        row["agent_id"],
        _plain(row["case_id"]),
        row["firing"],
        row["covers"],
        row["at"],
    )


def _plain(value: UUID | None) -> UUID | None:
    return None if value is None else rows.plain(value)
