"""Which cases a case opened (under a tenant's row security)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.storage import rows, tables
from circuit.storage.records import CaseRow, Parent

MOST_CHILDREN = 1_000

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


async def children(conn: AsyncConnection, tenant: int, parents: Sequence[UUID]) -> list[tuple[CaseKey, CaseRow]]:
    """The cases that these cases opened, by birth; at most `MOST_CHILDREN` in all."""
    table = tables.case
    wanted = bindparam("parents", list(parents), type_=ARRAY(Uuid))
    found = await conn.execute(
        select(table)
        .where(table.c.tenant_id == tenant, table.c.parent_case == wanted.any_())
        .order_by(table.c.case_id)
        .limit(MOST_CHILDREN)
    )
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


async def busy(conn: AsyncConnection, key: CaseKey) -> bool:
    """Whether somebody works on a case that this one opened, or that one of these did, or has to."""
    return bool(await conn.scalar(_BUSY, {"tenant": key.tenant, "case": key.case}))
