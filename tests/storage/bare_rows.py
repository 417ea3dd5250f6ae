"""Rows written by hand, for the tests of the tables themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import asyncpg

NOW = datetime(2031, 3, 5, 12, tzinfo=UTC)


async def insert_case(connection: asyncpg.Connection, case: UUID, tenant: int = 1, status: str = "running") -> None:
    await connection.execute(
        "INSERT INTO circuit.case (tenant_id, case_id, workflow_id, workflow_hash, status, seq, next_token,"
        " next_firing, next_incident, started_at) VALUES ($1, $2, 'w', 'h', $3, 1, 2, 1, 1, now())",
        tenant,
        case,
        status,
    )


async def insert_token(connection: asyncpg.Connection, case: UUID, tenant: int = 1) -> None:
    await connection.execute(
        "INSERT INTO circuit.token (tenant_id, case_id, number, version, place, data, metadata, entered_at)"
        " VALUES ($1, $2, 1, 1, 'p', '{}', '{}', now())",
        tenant,
        case,
    )
