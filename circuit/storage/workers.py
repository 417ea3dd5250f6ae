"""The incarnations of workers: one row for each start of one, its lease, and its end.

An incarnation ends by being *fenced*, once and for ever: by itself (`retire`) or by another that holds it for dead
(`take_over`). Every batch of the writer holds the incarnation's row FOR SHARE until it is committed, and `fenced` is
set before anything else is touched; so setting it waits for the batches in flight, and no later batch counts. The
cases are given free in the same transaction, so none is ever owned by a fenced incarnation, and of two take-overs of
the same incarnation one does all and the other sees that there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson

from circuit.ids import CaseKey
from circuit.storage.driver import Connection
from circuit.storage.records import QUARANTINE_CRASHES
from circuit.storage.rows import plain


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One start of a worker. `host` and `boot_id` together name where its `pid` means something; `pid_started` is
    when that process began (ticks since boot where the system tells), so that another with the same pid is not
    taken for it. `capabilities` name what it can run (`actions`, `pools`, `providers`): it claims only cases whose
    needs are among them."""

    id: UUID
    host: str
    boot_id: str
    pid: int
    pid_started: float
    pools: tuple[str, ...] = ()
    capabilities: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


KEPT_DAYS = 7

_REGISTER = """
WITH incarnation AS (
    INSERT INTO circuit.worker (id, host, boot_id, pid, pid_started, pools, capabilities)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    RETURNING id
)
INSERT INTO circuit.worker_lease (worker_id, expires_at)
SELECT id, now() + make_interval(secs => $8) FROM incarnation
RETURNING now()
"""
# Renewing never waits for a batch: it reads the worker's row, which the batches only share, and writes another table.
# A lease that ends earlier than its last renewal said is that of a database that was set back.
_RENEW = """
UPDATE circuit.worker_lease l SET expires_at = now() + make_interval(secs => $2)
FROM circuit.worker w
WHERE l.worker_id = $1 AND w.id = $1 AND NOT w.fenced
    AND ($3::timestamptz IS NULL OR l.expires_at > $3 - interval '10 milliseconds')
RETURNING now()
"""
_SUSPECT = """
UPDATE circuit.worker_lease SET suspect_tenant = $2, suspect_case = $3, suspect_firing = $4 WHERE worker_id = $1
"""
# Two that do this to the same incarnation meet here: the second waits, and then finds it fenced.
_FENCE = """
UPDATE circuit.worker
SET fenced = true, retired_at = CASE WHEN $2 THEN now() ELSE retired_at END
WHERE id = $1 AND NOT fenced
RETURNING 1
"""
# A statement of its own after the fence, so that its snapshot has what the last batches committed. Nobody else changes
# these cases and firings any more; rows of `ready` are locked in the order of their keys, as everywhere. Where the
# worker had said which firing it ran alone, or was stuck in, that one is to blame and no other; a firing that waited to
# run alone has nothing to do with it.
_FREE = """
WITH freed AS (
    UPDATE circuit."case" SET owner = NULL WHERE owner = $1 RETURNING bucket, tenant_id, case_id, status
),
suspect AS (
    SELECT suspect_tenant AS tenant_id, suspect_case AS case_id, suspect_firing AS number
    FROM circuit.worker_lease WHERE worker_id = $1 AND suspect_firing IS NOT NULL
),
crashed AS (
    UPDATE circuit.firing f SET crashes = f.crashes + 1
    FROM freed LEFT JOIN suspect s ON true
    WHERE $2 AND f.tenant_id = freed.tenant_id AND f.case_id = freed.case_id AND f.state = 'running'
        AND CASE
            WHEN s.number IS NULL THEN f.crashes < $3
            ELSE s.tenant_id = f.tenant_id AND s.case_id = f.case_id AND s.number = f.number
        END
),
made_ready AS (
    INSERT INTO circuit.ready AS r (bucket, tenant_id, case_id, due_at)
    SELECT bucket, tenant_id, case_id, now() FROM freed
    WHERE status NOT IN ('completed', 'failed', 'cancelled')
    ORDER BY tenant_id, case_id
    ON CONFLICT (tenant_id, case_id) DO UPDATE SET due_at = least(r.due_at, excluded.due_at)
)
SELECT count(*) FROM freed
"""
_FORGET_LEASE = "DELETE FROM circuit.worker_lease WHERE worker_id = $1"
# To be fenced and to be unknown is the same to whoever writes: no row to lock, no write.
_FORGET = """
DELETE FROM circuit.worker w
WHERE w.fenced AND w.started_at < now() - make_interval(days => $1)
  AND NOT EXISTS (SELECT FROM circuit."case" c WHERE c.owner = w.id)
"""
_LIVING = """
SELECT w.id, w.host, w.boot_id, w.pid, w.pid_started, coalesce(l.expires_at < now(), true) AS expired
FROM circuit.worker w LEFT JOIN circuit.worker_lease l ON l.worker_id = w.id
WHERE NOT w.fenced
ORDER BY w.started_at, w.id
"""


async def register(conn: Connection, incarnation: Incarnation, lease_seconds: float) -> datetime:
    """Enter an incarnation and its lease. Returns the database's time."""
    return await conn.fetchval(
        _REGISTER,
        incarnation.id,
        incarnation.host,
        incarnation.boot_id,
        incarnation.pid,
        incarnation.pid_started,
        list(incarnation.pools),
        orjson.dumps(dict(incarnation.capabilities)).decode(),
        lease_seconds,
    )


async def renew(conn: Connection, worker: UUID, lease_seconds: float, until: datetime | None = None) -> datetime | None:
    """Renew the lease from now on; `until` is when it ends by its last renewal. Returns the database's time, or None if
    the worker is fenced. It also is where the database was set back to a time before that renewal: what the worker
    remembers never was."""
    now = await conn.fetchval(_RENEW, worker, lease_seconds, until)
    if now is None:
        await retire(conn, worker)
    return now


async def retire(conn: Connection, worker: UUID) -> int:
    """End an incarnation in good order: what it still owns is free and due at once, and nothing of it counts as a
    crash. Returns how many cases that were. Twice is fine."""
    return await _end(conn, worker, crashed=False)


async def take_over(conn: Connection, dead: UUID, *, fault: Callable[[str], None] = lambda _: None) -> int:
    """End an incarnation that is held for dead: its cases are free and due at once, and each firing that it was
    running has crashed once more; if it named a suspect, only that one has. Waits for its batches in flight. Returns
    how many cases were freed.

    `fault` is called at `before_take_over` and `after_take_over`, on both sides of the commit, for crash tests."""
    return await _end(conn, dead, crashed=True, fault=fault)


async def suspect(conn: Connection, worker: UUID, key: CaseKey | None, firing: int | None = None) -> None:
    """Say which firing is to blame if this incarnation is taken over; without one, all that it runs are."""
    tenant, case = (key.tenant, key.case) if key is not None else (None, None)
    await conn.execute(_SUSPECT, worker, tenant, case, firing)


async def expired(conn: Connection, host: str, boot_id: str, alive: Callable[[int, float], bool]) -> list[UUID]:
    """The incarnations that may be taken over: those whose lease has expired by the database's clock, and those of
    this host and boot whose process is gone, as `alive(pid, pid_started)` says."""
    return [
        plain(row["id"])
        for row in await conn.fetch(_LIVING)
        if row["expired"]
        or (row["host"] == host and row["boot_id"] == boot_id and not alive(row["pid"], row["pid_started"]))
    ]


async def living(conn: Connection) -> int:
    """How many incarnations are not fenced."""
    return await conn.fetchval("SELECT count(*) FROM circuit.worker WHERE NOT fenced")


async def forget(conn: Connection, days: int = KEPT_DAYS) -> None:
    """Delete the rows of incarnations that ended and began more than `days` days ago; every command that works on a
    case leaves one."""
    await conn.execute(_FORGET, days)


async def _end(conn: Connection, worker: UUID, *, crashed: bool, fault: Callable[[str], None] = lambda _: None) -> int:
    async with conn.transaction(isolation="read_committed"):
        if await conn.fetchval(_FENCE, worker, not crashed) is None:
            return 0
        freed = await conn.fetchval(_FREE, worker, crashed, QUARANTINE_CRASHES)
        await conn.execute(_FORGET_LEASE, worker)
        fault("before_take_over")
    fault("after_take_over")
    return freed
