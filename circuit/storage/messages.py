"""Messages: how they are stored, and how each finds a case that waits for it.

**Nothing is missed.** Who sends a message commits it and then somebody looks who waits for it; who waits commits that
and then somebody looks what was kept. Each look begins after the commit of its side, so of two that meet the later one
sees both. What has not had its look yet is marked (`state = 'new'`, `NOT sought`), and only that is ever read: what
waits or is kept costs nothing. The mark is taken away after the look, so a look that was cut off is done again.

**Nothing is taken twice.** A message is locked, and given to one case as a command; only when that is answered may it
be given to another. Of a case at most one message for each of its keys is under way.

**Locks.** Messages in the order of their ids, then rows of `ready` in the order of their cases. A row of
`awaited_message` is only marked, and skipped where it is locked, so no batch of a writer waits for a look.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage import rows
from circuit.storage.driver import Connection, Record
from circuit.storage.tables import awaited_message, sent_message

BATCH = 500
MOST_TRIES = 50
"""So often a message is given to a case that does not take it, before it is refused for good."""
KEPT_AFTER = timedelta(days=1)
"""So long after its lifetime a message can still be seen, and its delivery id is known."""

OPEN = ("new", "kept")


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message. `key` is as `circuit.net.reception` makes it, `case_id` the case that it is given to, or was."""

    message_id: UUID
    name: str
    key: str
    delivery_id: str
    data: Mapping[str, Any]
    principal: Mapping[str, Any]
    state: str
    expires_at: datetime
    case_id: UUID | None = None
    sent_at: datetime | None = None
    error: Mapping[str, Any] | None = None


async def insert_message(
    conn: AsyncConnection, tenant: int, row: MessageRow, lifetime: timedelta
) -> tuple[MessageRow, bool]:
    """Store a message. Returns it, and whether it is new: one that came with the same name and delivery id before is
    given back as it is. Two that come at once meet at the unique index. Runs in a transaction of the tenant."""
    new = await conn.scalar(
        insert(sent_message)
        .values(
            tenant_id=tenant,
            message_id=row.message_id,
            name=row.name,
            key=row.key,
            delivery_id=row.delivery_id,
            data=dict(row.data),
            principal=dict(row.principal),
            state=row.state,
            expires_at=func.now() + lifetime,
            case_id=row.case_id,
        )
        .on_conflict_do_nothing(index_elements=["tenant_id", "name", "delivery_id"])
        .returning(sent_message.c.message_id)
    )
    table = sent_message.c
    found = await _rows(
        conn,
        select(sent_message).where(
            table.tenant_id == tenant, table.name == row.name, table.delivery_id == row.delivery_id
        ),
    )
    return found[0], new is not None


async def find(conn: AsyncConnection, tenant: int, message: UUID) -> MessageRow | None:
    """A message by its id."""
    table = sent_message.c
    found = await _rows(conn, select(sent_message).where(table.tenant_id == tenant, table.message_id == message))
    return found[0] if found else None


async def list_messages(
    conn: AsyncConnection, tenant: int, *, name: str | None, states: Sequence[str], limit: int, before: UUID | None
) -> list[MessageRow]:
    """Messages, the newest first; `before` is the last one of the page before."""
    table = sent_message.c
    query = select(sent_message).where(table.tenant_id == tenant).order_by(table.message_id.desc()).limit(limit)
    if name is not None:
        query = query.where(table.name == name)
    if states:
        query = query.where(table.state.in_(states))
    if before is not None:
        query = query.where(table.message_id < before)
    return await _rows(conn, query)


async def is_awaited(conn: AsyncConnection, tenant: int, name: str, key: str) -> bool:
    """Whether some case waits for such a message."""
    table = awaited_message.c
    found = select(literal(1)).where(table.tenant_id == tenant, table.name == name, table.key == key)
    return await conn.scalar(found.limit(1)) is not None


_TURN = "SELECT pg_advisory_lock(hashtext('circuit.sent_message'))"
_NEXT = "SELECT pg_advisory_unlock(hashtext('circuit.sent_message'))"

# A command that was answered says what became of its message. A case that did not take it (it had moved on, it had
# ended, it was given up) leaves it to others, after a pause that grows with each time; what does not fit is refused.
# Whoever waits in that case for more of these may have the next one.
_ANSWERED = f"""
WITH answered AS MATERIALIZED (
    SELECT m.tenant_id, m.message_id, k.state AS answer, k.result -> 'error' AS error
    FROM circuit.sent_message m JOIN circuit.command k
        ON k.tenant_id = m.tenant_id AND k.case_id = m.case_id AND k.command_id = m.command_id
    WHERE m.state = 'assigned' AND k.state <> 'pending'
    LIMIT {BATCH}
    FOR UPDATE OF m SKIP LOCKED
)
UPDATE circuit.sent_message m
SET state = CASE
        WHEN a.answer = 'applied' THEN 'delivered'
        WHEN a.error ->> 'code' IN ('conflict', 'action_failed') AND m.tries < {MOST_TRIES} THEN 'new'
        ELSE 'refused'
    END,
    tries = m.tries + 1,
    due_at = now() + make_interval(secs => CASE WHEN m.tries < 3 THEN 0 ELSE 0.1 * 2 ^ least(m.tries, 9) END),
    error = CASE WHEN a.answer = 'applied' THEN NULL ELSE a.error END
FROM answered a
WHERE m.tenant_id = a.tenant_id AND m.message_id = a.message_id
RETURNING m.tenant_id, m.message_id, m.case_id, m.name
"""
_SEEK_AGAIN = """
UPDATE circuit.awaited_message a SET sought = false
FROM (
    SELECT a.tenant_id, a.case_id, a.transition, a.name, a.key
    FROM (SELECT DISTINCT tenant_id, case_id, name FROM unnest($1::int4[], $2::uuid[], $3::text[])
        AS i(tenant_id, case_id, name)) i
    JOIN circuit.awaited_message a
        ON a.tenant_id = i.tenant_id AND a.case_id = i.case_id AND a.name = i.name AND a.sought
    FOR UPDATE OF a SKIP LOCKED
) f
WHERE a.tenant_id = f.tenant_id AND a.case_id = f.case_id AND a.transition = f.transition
    AND a.name = f.name AND a.key = f.key
"""
_UNSOUGHT = f"""
SELECT tenant_id, case_id, transition, name, key FROM circuit.awaited_message
WHERE NOT sought ORDER BY since LIMIT {BATCH}
"""
_NEW = f"""
SELECT tenant_id, message_id, name, key FROM circuit.sent_message
WHERE state = 'new' AND due_at <= now() ORDER BY due_at LIMIT {BATCH}
"""
_OPEN_OF = f"""
SELECT g.n, m.message_id
FROM unnest($1::int4[], $2::text[], $3::text[]) WITH ORDINALITY AS g(tenant_id, name, key, n)
CROSS JOIN LATERAL (
    SELECT message_id FROM circuit.sent_message m
    WHERE m.tenant_id = g.tenant_id AND m.name = g.name AND m.key = g.key AND m.state IN ('new', 'kept')
        AND m.expires_at > now() AND m.due_at <= now()
    ORDER BY m.message_id LIMIT {BATCH}
) m
ORDER BY g.n, m.message_id
"""
_WAITING_FOR = f"""
SELECT g.n, a.case_id
FROM unnest($1::int4[], $2::text[], $3::text[]) WITH ORDINALITY AS g(tenant_id, name, key, n)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (a.since, a.case_id) a.since, a.case_id FROM circuit.awaited_message a
    WHERE a.tenant_id = g.tenant_id AND a.name = g.name AND a.key = g.key AND NOT EXISTS (
        SELECT FROM circuit.sent_message m
        WHERE m.tenant_id = a.tenant_id AND m.case_id = a.case_id AND m.state = 'assigned'
            AND m.name = a.name AND m.key = a.key
    )
    ORDER BY a.since, a.case_id LIMIT {BATCH}
) a
ORDER BY g.n, a.since, a.case_id
"""
_LOCK = """
SELECT m.tenant_id, m.message_id, i.case_id
FROM unnest($1::int4[], $2::uuid[], $3::uuid[]) AS i(tenant_id, message_id, case_id)
JOIN circuit.sent_message m ON m.tenant_id = i.tenant_id AND m.message_id = i.message_id
WHERE m.state IN ('new', 'kept')
ORDER BY m.tenant_id, m.message_id
FOR UPDATE OF m
"""
_READY = """
INSERT INTO circuit.ready AS r (bucket, tenant_id, case_id, due_at)
SELECT t.bucket, t.tenant_id, t.case_id, now()
FROM (SELECT DISTINCT tenant_id, case_id FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)) i
JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id
ORDER BY t.tenant_id, t.case_id
ON CONFLICT (tenant_id, case_id) DO UPDATE SET due_at = least(r.due_at, excluded.due_at)
"""
_ASSIGN = """
WITH given AS MATERIALIZED (
    SELECT m.tenant_id, m.message_id, i.case_id, gen_random_uuid() AS command_id, m.name, m.key, m.data, m.principal
    FROM unnest($1::int4[], $2::uuid[], $3::uuid[]) AS i(tenant_id, message_id, case_id)
    JOIN circuit.sent_message m ON m.tenant_id = i.tenant_id AND m.message_id = i.message_id
),
asked AS (
    INSERT INTO circuit.command (tenant_id, case_id, command_id, kind, payload, principal)
    SELECT tenant_id, case_id, command_id, 'message', jsonb_build_object(
        'message', message_id, 'name', name, 'key', key, 'data', data
    ), principal
    FROM given
)
UPDATE circuit.sent_message m SET state = 'assigned', case_id = g.case_id, command_id = g.command_id
FROM given g
WHERE m.tenant_id = g.tenant_id AND m.message_id = g.message_id
"""
_KEEP = """
UPDATE circuit.sent_message m SET state = 'kept'
FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, message_id)
WHERE m.tenant_id = i.tenant_id AND m.message_id = i.message_id AND m.state = 'new'
"""
_SOUGHT = """
UPDATE circuit.awaited_message a SET sought = true
FROM (
    SELECT a.tenant_id, a.case_id, a.transition, a.name, a.key
    FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::text[], $5::text[])
        AS i(tenant_id, case_id, transition, name, key)
    JOIN circuit.awaited_message a ON a.tenant_id = i.tenant_id AND a.case_id = i.case_id
        AND a.transition = i.transition AND a.name = i.name AND a.key = i.key AND NOT a.sought
    FOR UPDATE OF a SKIP LOCKED
) f
WHERE a.tenant_id = f.tenant_id AND a.case_id = f.case_id AND a.transition = f.transition
    AND a.name = f.name AND a.key = f.key
"""
_EXPIRE = f"""
UPDATE circuit.sent_message m SET state = 'expired'
FROM (
    SELECT tenant_id, message_id FROM circuit.sent_message
    WHERE expires_at <= now() AND state IN ('new', 'kept') LIMIT {BATCH} FOR UPDATE SKIP LOCKED
) f
WHERE m.tenant_id = f.tenant_id AND m.message_id = f.message_id
"""
_FORGET = f"""
DELETE FROM circuit.sent_message m USING (
    SELECT tenant_id, message_id FROM circuit.sent_message
    WHERE expires_at <= now() - make_interval(secs => {KEPT_AFTER.total_seconds()}) AND state <> 'assigned'
    LIMIT {BATCH} FOR UPDATE SKIP LOCKED
) f
WHERE m.tenant_id = f.tenant_id AND m.message_id = f.message_id
"""


@dataclass(frozen=True, slots=True)
class Round:
    """What one look came to: how many messages were `given` to cases, which were `settled` or kept, and whether there
    is `more` at once."""

    given: int
    settled: list[UUID]
    more: bool


async def match(conn: Connection) -> Round:
    """One look at what is new: answers, messages, and cases that wait. Runs under the engine's role.

    Of all workers one looks at a time: what it does not come to in the end is marked still.
    """
    await conn.execute(_TURN)
    try:
        return await _look(conn)
    finally:
        if not conn.is_closed():
            await conn.execute(_NEXT)


async def _look(conn: Connection) -> Round:
    async with conn.transaction(isolation="read_committed"):
        answered = await conn.fetch(_ANSWERED)
        if answered:
            await conn.execute(_SEEK_AGAIN, *_columns(answered, "tenant_id", "case_id", "name"))
    waiting = await conn.fetch(_UNSOUGHT)
    new = await conn.fetch(_NEW)
    settled = [rows.plain(row["message_id"]) for row in answered]
    if not waiting and not new:
        return Round(0, settled, bool(answered))
    # What they are looked for by, each once, and in an order that all keep to.
    groups = sorted({(row["tenant_id"], row["name"], row["key"]) for row in (*waiting, *new)})
    arrays = [list(column) for column in zip(*groups, strict=True)]
    messages = _grouped(await conn.fetch(_OPEN_OF, *arrays), "message_id")
    cases = _grouped(await conn.fetch(_WAITING_FOR, *arrays), "case_id") if messages else {}
    pairs = [
        (groups[n - 1][0], message, case)
        for n, found in messages.items()
        for message, case in zip(found, cases.get(n, ()), strict=False)
    ]
    given = await _assign(conn, pairs)
    await conn.execute(_KEEP, *_columns(new, "tenant_id", "message_id"))
    # A pair that somebody else was quicker with leaves its case unsought: it is looked at again.
    missed = {(tenant, case) for tenant, _, case in pairs} - {(tenant, case) for tenant, _, case in given}
    sought = [row for row in waiting if (row["tenant_id"], rows.plain(row["case_id"])) not in missed]
    await conn.execute(_SOUGHT, *_columns(sought, "tenant_id", "case_id", "transition", "name", "key"))
    settled += [rows.plain(row["message_id"]) for row in new]
    more = bool(answered or missed) or len(waiting) == BATCH or len(new) == BATCH
    return Round(len(given), settled, more)


async def forget(conn: Connection) -> None:
    """Mark the messages whose lifetime is over, and delete those of which it was over long ago."""
    await conn.execute(_EXPIRE)
    await conn.execute(_FORGET)


async def _assign(conn: Connection, pairs: Sequence[tuple[int, UUID, UUID]]) -> list[tuple[int, UUID, UUID]]:
    """Give messages to cases, as commands. Returns the pairs (tenant, message, case) of which that came true."""
    if not pairs:
        return []
    async with conn.transaction(isolation="read_committed"):
        locked = await conn.fetch(_LOCK, *[list(column) for column in zip(*pairs, strict=True)])
        if not locked:
            return []
        await conn.execute(_ASSIGN, *_columns(locked, "tenant_id", "message_id", "case_id"))
        await conn.execute(_READY, *_columns(locked, "tenant_id", "case_id"))
    return [(row["tenant_id"], rows.plain(row["message_id"]), rows.plain(row["case_id"])) for row in locked]


def _columns(found: Sequence[Record], *names: str) -> list[list[Any]]:
    return [[row[name] for row in found] for name in names]


def _grouped(found: Sequence[Record], name: str) -> dict[int, list[UUID]]:
    groups: dict[int, list[UUID]] = {}
    for row in found:
        groups.setdefault(row["n"], []).append(rows.plain(row[name]))
    return groups


async def _rows(conn: AsyncConnection, query: Any) -> list[MessageRow]:
    return [
        MessageRow(
            rows.plain(row["message_id"]),
            row["name"],
            row["key"],
            row["delivery_id"],
            row["data"],
            row["principal"],
            row["state"],
            row["expires_at"],
            None if row["case_id"] is None else rows.plain(row["case_id"]),
            row["sent_at"],
            row["error"],
        )
        for row in (await conn.execute(query)).mappings()
    ]
