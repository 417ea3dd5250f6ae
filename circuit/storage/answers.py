"""Answers of models that are kept for identical requests, until their time is over (under a tenant's row security)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage import rows
from circuit.storage.driver import Connection
from circuit.storage.tables import cached_answer

# Some at once: nobody waits for a sweep.
_FORGET = """
DELETE FROM circuit.cached_answer WHERE (tenant_id, digest) IN (
    SELECT tenant_id, digest FROM circuit.cached_answer WHERE expires_at < now()
    ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED
)
"""


async def find(conn: AsyncConnection, tenant: int, digest: bytes) -> Mapping[str, Any] | None:
    """The answer under `digest`, unless its time is over."""
    table = cached_answer.c
    found = await conn.scalar(
        select(table.answer).where(
            table.tenant_id == tenant, table.digest == digest, table.expires_at > func.clock_timestamp()
        )
    )
    return None if found is None else rows.document(found)


async def keep(conn: AsyncConnection, tenant: int, digest: bytes, answer: Mapping[str, Any], seconds: float) -> None:
    """Keep `answer` for so long, in the place of what was there."""
    given = insert(cached_answer).values(
        tenant_id=tenant,
        digest=digest,
        answer=answer,
        expires_at=func.clock_timestamp() + timedelta(seconds=seconds),
    )
    await conn.execute(
        given.on_conflict_do_update(
            index_elements=["tenant_id", "digest"],
            set_={
                "answer": given.excluded.answer,
                "created_at": func.now(),
                "expires_at": given.excluded.expires_at,
            },
        )
    )


async def forget(conn: Connection) -> None:
    """Delete answers whose time is over, some at once. Runs under the engine's role."""
    await conn.execute(_FORGET)
