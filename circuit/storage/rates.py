"""How often somebody may ask, over all processes: a bucket for each principal, of starts of agents and of each part of
the server.

What is drawn is drawn in a transaction of `Database.transaction`, under the row security of the tenant.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage.driver import Connection
from circuit.storage.tables import request_rate, start_rate

# A bucket that has long been full is as good as none.
_SWEEP = (
    "DELETE FROM circuit.start_rate WHERE full_at < clock_timestamp() - interval '1 hour'",
    "DELETE FROM circuit.request_rate WHERE full_at < clock_timestamp() - interval '1 hour'",
)


async def draw(
    conn: AsyncConnection, tenant: int, subject: str, *, part: str | None, every: float, burst: int, wanted: int
) -> tuple[int, float]:
    """Draw up to `wanted` from the bucket of `subject`, into which one comes all `every` seconds, up to `burst`: that
    of its requests to a `part` of the server, or that of its starts of agents.

    Returns how many were drawn, and, where that is none, in how many seconds there is one."""
    table = start_rate if part is None else request_rate
    key = {"tenant_id": tenant, "subject": subject, **({} if part is None else {"part": part})}
    fresh = insert(table).values(**key, full_at=func.clock_timestamp())
    # A row that is there is locked by this, and read behind the lock, with the time: whoever held it may have taken a
    # while.
    held = fresh.on_conflict_do_update(index_elements=list(key), set_={"full_at": table.c.full_at})
    found = (await conn.execute(held.returning(table.c.full_at, func.clock_timestamp().label("now")))).one()
    full_at, now = found.full_at, found.now
    lacking = max(0.0, (full_at - now).total_seconds())
    there = int((burst * every - lacking) / every + 1e-6)
    drawn = max(0, min(there, wanted))
    if drawn:
        begins = max(full_at, now)
        mine = [table.c[name] == value for name, value in key.items()]
        await conn.execute(update(table).where(*mine).values(full_at=begins + timedelta(seconds=every * drawn)))
    return drawn, 0.0 if drawn else max(0.001, lacking - (burst - 1) * every)


async def sweep(connection: Connection) -> None:
    """Forget the buckets that nobody drew from for long; under the engine's role."""
    for statement in _SWEEP:
        await connection.execute(statement)
