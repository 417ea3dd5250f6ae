"""Tenants. A tenant sees its own row; making and listing them is for the engine's role."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.errors import Conflict
from circuit.storage.driver import Connection, Record
from circuit.storage.tables import tenant

# One after the other takes the next number: the lock goes before the statement that looks, so that it sees the last.
_ALONE = "SELECT pg_advisory_xact_lock(x'63697274'::int4)"
_CREATE = """
INSERT INTO circuit.tenant (tenant_id, name)
SELECT coalesce(max(t.tenant_id), 0) + 1, $1 FROM circuit.tenant t
HAVING coalesce(bool_and(t.name <> $1), true)
RETURNING tenant_id, name, created_at
"""
_ALL = "SELECT tenant_id, name, created_at FROM circuit.tenant ORDER BY tenant_id"


@dataclass(frozen=True, slots=True)
class TenantRow:
    id: int
    name: str
    created_at: datetime


async def find(connection: AsyncConnection, tenant_id: int) -> TenantRow | None:
    """The tenant of a transaction, if it exists."""
    columns = tenant.c
    found = await connection.execute(
        select(columns.tenant_id, columns.name, columns.created_at).where(columns.tenant_id == tenant_id)
    )
    row = found.one_or_none()
    return None if row is None else TenantRow(row[0], row[1], row[2])


async def create(connection: Connection, name: str) -> TenantRow:
    """A new tenant with the next number. Raises `Conflict` if there is one of this name."""
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_ALONE)
        rows = await connection.fetch(_CREATE, name)
    if not rows:
        raise Conflict(f"there is a tenant {name!r} already; `circuit tenants list` names them")
    return _row(rows[0])


async def listed(connection: Connection) -> list[TenantRow]:
    """All tenants, by number."""
    return [_row(row) for row in await connection.fetch(_ALL)]


def _row(row: Record) -> TenantRow:
    return TenantRow(row["tenant_id"], row["name"], row["created_at"])
