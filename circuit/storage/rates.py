"""How often somebody may start agents, over all processes: one bucket for each principal.

All of it runs in a transaction of `Database.transaction`, under the row security of the tenant.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage.tables import start_rate


async def draw(
    conn: AsyncConnection, tenant: int, subject: str, *, every: float, burst: int, wanted: int
) -> tuple[int, float]:
    """Draw up to `wanted` from the bucket of `subject`, into which one comes all `every` seconds, up to `burst`.

    Returns how many were drawn, and, where that is none, in how many seconds there is one."""
    table = start_rate.c
    mine = (table.tenant_id == tenant) & (table.subject == subject)
    fresh = insert(start_rate).values(tenant_id=tenant, subject=subject, full_at=func.clock_timestamp())
    await conn.execute(fresh.on_conflict_do_nothing())
    found = await conn.execute(select(table.full_at).where(mine).with_for_update())
    full_at = found.scalar_one()
    # Behind the lock: whoever held it may have taken a while.
    now = (await conn.execute(select(func.clock_timestamp()))).scalar_one()
    lacking = max(0.0, (full_at - now).total_seconds())
    there = int((burst * every - lacking) / every + 1e-6)
    drawn = max(0, min(there, wanted))
    if drawn:
        begins = max(full_at, now)
        await conn.execute(update(start_rate).where(mine).values(full_at=begins + timedelta(seconds=every * drawn)))
    return drawn, 0.0 if drawn else max(0.001, lacking - (burst - 1) * every)
