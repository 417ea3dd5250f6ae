"""Which cases a case opened (under a tenant's row security), and what is wrong between parents and children (under the
engine's role)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.storage import listing, rows, tables
from circuit.storage.driver import Connection, Record
from circuit.storage.records import CaseRow, Parent

MOST_CHILDREN = 1_000


class Untaken(NamedTuple):
    """A case with something to do, what it needs of a worker, and what each living one lacks of that."""

    key: CaseKey
    requires: Mapping[str, Any]
    lacks: Mapping[UUID, Mapping[str, Any]]


_BUSY = text(
    """
    WITH RECURSIVE kin AS (
        SELECT c.case_id, c.owner, c.status FROM circuit."case" c
        WHERE c.tenant_id = :tenant AND c.parent_case = :case AND c.status NOT IN ('completed', 'failed', 'cancelled')
        UNION ALL
        SELECT c.case_id, c.owner, c.status FROM kin k JOIN circuit."case" c
            ON c.tenant_id = :tenant AND c.parent_case = k.case_id
        WHERE c.status NOT IN ('completed', 'failed', 'cancelled')
    )
    SELECT coalesce(bool_or(owner IS NOT NULL OR status = 'running'), false) FROM kin
    """
)
_WAITING = text(
    """
    WITH RECURSIVE kin AS (
        SELECT c.case_id, c.owner, c.bucket FROM circuit."case" c
        WHERE c.tenant_id = :tenant AND c.case_id = :case AND c.status NOT IN ('completed', 'failed', 'cancelled')
        UNION ALL
        SELECT c.case_id, c.owner, c.bucket FROM kin k JOIN circuit."case" c
            ON c.tenant_id = :tenant AND c.parent_case = k.case_id
        WHERE c.status NOT IN ('completed', 'failed', 'cancelled')
    )
    SELECT k.case_id, k.bucket FROM kin k JOIN circuit.ready r ON r.tenant_id = :tenant AND r.case_id = k.case_id
    WHERE k.owner IS NULL AND k.bucket <> 0 AND r.due_at <= now() ORDER BY k.case_id LIMIT :most
    """
)


# The end of a child and the command that tells its parent are one commit, and so are the end of a firing and the cancel
# of the case that it waited for.
_UNTOLD = """
SELECT c.tenant_id, c.parent_case AS case_id, c.parent_firing AS firing, c.case_id AS child
FROM circuit."case" c JOIN circuit.firing f
    ON f.tenant_id = c.tenant_id AND f.case_id = c.parent_case AND f.number = c.parent_firing
WHERE c.parent_case IS NOT NULL AND c.status IN ('completed', 'failed', 'cancelled')
    AND f.state = 'suspended' AND f.awaits ->> 'case' = c.case_id::text AND NOT EXISTS (
        SELECT FROM circuit.command k WHERE k.tenant_id = f.tenant_id AND k.case_id = f.case_id
            AND k.kind = 'child_ended' AND k.state = 'pending'
    )
ORDER BY 1, 2, 3 LIMIT $1
"""
_ORPHANED = """
SELECT c.tenant_id, c.case_id, c.parent_case, c.parent_firing FROM circuit."case" c
WHERE c.parent_case IS NOT NULL AND c.status NOT IN ('completed', 'failed', 'cancelled') AND NOT EXISTS (
    SELECT FROM circuit.firing f WHERE f.tenant_id = c.tenant_id AND f.case_id = c.parent_case
        AND f.number = c.parent_firing AND f.state = 'suspended' AND f.awaits ->> 'case' = c.case_id::text
) AND NOT EXISTS (
    SELECT FROM circuit.command k WHERE k.tenant_id = c.tenant_id AND k.case_id = c.case_id
        AND k.kind = 'cancel' AND k.state = 'pending'
)
ORDER BY 1, 2 LIMIT $1
"""


async def untold(conn: Connection, limit: int) -> list[Record]:
    """Firings that wait for a case which has ended, and which nothing will tell of it."""
    return await conn.fetch(_UNTOLD, limit)


async def orphaned(conn: Connection, limit: int) -> list[Record]:
    """Cases that live on although the firing that opened them does not wait for them any more."""
    return await conn.fetch(_ORPHANED, limit)


async def children(
    conn: AsyncConnection,
    tenant: int,
    parents: Sequence[UUID],
    after: UUID | None = None,
    limit: int = MOST_CHILDREN,
) -> list[tuple[CaseKey, CaseRow]]:
    """The cases that these cases opened, by birth: so many of each, behind the one `after`."""
    table = tables.case
    wanted = bindparam("parents", list(parents), type_=ARRAY(Uuid))
    place = func.row_number().over(partition_by=table.c.parent_case, order_by=table.c.case_id)
    opened = select(table, place.label("place")).where(
        table.c.tenant_id == tenant, table.c.parent_case == wanted.any_()
    )
    if after is not None:
        opened = opened.where(table.c.case_id > after)
    placed = opened.subquery()
    found = await conn.execute(select(placed).where(placed.c.place <= limit).order_by(placed.c.case_id))
    return [(rows.key(row), rows.case_row(row)) for row in found.mappings()]


async def parents(conn: AsyncConnection, tenant: int, cases: Sequence[UUID]) -> dict[UUID, Parent]:
    """By what these cases were opened, if they were."""
    table = tables.case
    wanted = bindparam("cases", list(cases), type_=ARRAY(Uuid))
    found = await conn.execute(
        select(table.c.case_id, table.c.parent_case, table.c.parent_firing).where(
            table.c.tenant_id == tenant, table.c.case_id == wanted.any_(), table.c.parent_case.is_not(None)
        )
    )
    return {rows.plain(case): Parent(rows.plain(parent), firing) for case, parent, firing in found}


async def untaken(conn: AsyncConnection, key: CaseKey) -> list[Untaken]:
    """Those of a case, the cases that it opened, and so on, in which there is something to do and that no living worker
    takes."""
    found = await conn.execute(_WAITING, {"tenant": key.tenant, "case": key.case, "most": MOST_CHILDREN})
    waiting = {CaseKey(key.tenant, rows.plain(row.case_id)): row.bucket for row in found}
    requires = await listing.unserved(conn, set(waiting.values()))
    lacks = {bucket: await listing.lacking(conn, bucket) for bucket in requires}
    return [Untaken(case, requires[bucket], lacks[bucket]) for case, bucket in waiting.items() if bucket in requires]


async def busy(conn: AsyncConnection, key: CaseKey) -> bool:
    """Whether somebody works on a case that this one opened, or that one of these did, or has to."""
    return bool(await conn.scalar(_BUSY, {"tenant": key.tenant, "case": key.case}))
