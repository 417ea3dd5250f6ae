"""The tokens of a case as its readers see them (under a tenant's row security)."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage import artefacts, rows, tables


async def of_case(conn: AsyncConnection, key: CaseKey) -> list[tuple[Token, int | None]]:
    """The tokens of a case by number, each with the firing that reserves it, if one does."""
    table = tables.token
    found = await conn.execute(
        select(table).where(table.c.tenant_id == key.tenant, table.c.case_id == key.case).order_by(table.c.number)
    )
    laid = await artefacts.resolved(conn, key.tenant, found.mappings())
    return [(rows.token(row), row["reserved_by"]) for row in laid]
