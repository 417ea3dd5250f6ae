"""Limits of what runs at once over all workers, and each worker's share in them. Runs under the engine's role.

A *pool* is what a limit is of: all executions, those of a tenant, of an agent, of a provider. A worker that wants more
of a pool locks it, so that one grows at a time, and sees what the others hold. To give back locks nothing. What a
fenced worker held does not count, from the commit on that fenced it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from circuit.storage import resources
from circuit.storage.driver import Connection, Record


class Pool(NamedTuple):
    """`kind` is `deployment`, `tenant`, `agent` or `provider`; `name` an agent's id, or `TYPE` or `TYPE:MODEL` of a
    provider. The tenant 0 stands for all of them together."""

    tenant: int
    kind: str
    name: str

    @property
    def turn(self) -> str:
        """The place at which firings wait for their turn in this pool (`circuit.storage.resources`)."""
        return f"{self.kind}:{self.name}"

    @classmethod
    def of_turn(cls, tenant: int, place: str) -> Pool:
        """The pool of such a place."""
        kind, _, name = place.partition(":")
        return cls(tenant, kind, name)


ALL = Pool(0, "deployment", "")


class Share(NamedTuple):
    """What one worker holds of a pool, and how much more it wants."""

    amount: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a pool stands: this worker's share, and those of the other workers that are not fenced."""

    mine: Share
    others: tuple[Share, ...] = ()


_LIMITS = "SELECT tenant_id, kind, name, executions FROM circuit.concurrency_limit ORDER BY 1, 2, 3"
_SHARES = """
SELECT s.worker_id, s.tenant_id, s.kind, s.name, s.amount, s.wanted
FROM circuit.worker_share s JOIN circuit.worker w ON w.id = s.worker_id AND NOT w.fenced
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('circuit pool ' || $1, 0))"
# Of a worker that is fenced meanwhile it would count for nothing.
_PUT = """
INSERT INTO circuit.worker_share (worker_id, tenant_id, kind, name, amount, wanted)
SELECT $1, tenant_id, kind, name, amount, wanted
FROM unnest($2::int4[], $3::text[], $4::text[], $5::int4[], $6::int4[]) AS i(tenant_id, kind, name, amount, wanted)
ON CONFLICT (worker_id, tenant_id, kind, name) DO UPDATE SET amount = excluded.amount, wanted = excluded.wanted
"""
_FORGET = """
DELETE FROM circuit.worker_share s
WHERE NOT EXISTS (SELECT FROM circuit.worker w WHERE w.id = s.worker_id AND NOT w.fenced)
"""


async def limits(conn: Connection) -> dict[Pool, int]:
    """All limits that were set."""
    return {_pool(row): row["executions"] for row in await conn.fetch(_LIMITS)}


async def standing(conn: Connection, worker: UUID) -> dict[Pool, Standing]:
    """How the pools stand of which anybody has a share, or wants one."""
    mine: dict[Pool, Share] = {}
    others: dict[Pool, list[Share]] = {}
    for row in await conn.fetch(_SHARES):
        pool, share = _pool(row), Share(row["amount"], row["wanted"])
        if row["worker_id"] == worker:
            mine[pool] = share
        else:
            others.setdefault(pool, []).append(share)
    nothing = Share(0, 0)
    return {
        pool: Standing(mine.get(pool, nothing), tuple(others.get(pool, ()))) for pool in mine.keys() | others.keys()
    }


async def put(conn: Connection, worker: UUID, changed: Mapping[Pool, Share]) -> None:
    """Write shares of this worker that do not grow."""
    await conn.execute(
        _PUT,
        worker,
        [pool.tenant for pool in changed],
        [pool.kind for pool in changed],
        [pool.name for pool in changed],
        [share.amount for share in changed.values()],
        [share.wanted for share in changed.values()],
    )


async def grow(
    conn: Connection,
    worker: UUID,
    pools: Sequence[Pool],
    decide: Callable[[Mapping[Pool, Standing]], dict[Pool, Share]],
) -> dict[Pool, Share]:
    """Let shares of this worker in these pools grow as `decide` says, while nobody else's do."""
    async with conn.transaction(isolation="read_committed"):
        for pool in sorted(pools):
            await conn.execute(_LOCK, f"{pool.tenant} {pool.kind} {pool.name}")
        # A statement of its own after the locks: its snapshot has what those before us have committed.
        granted = decide(await standing(conn, worker))
        await put(conn, worker, granted)
    return granted


async def queued(conn: Connection) -> list[Pool]:
    """The pools in which firings wait for their turn."""
    return [Pool.of_turn(tenant, place) for tenant, place in await resources.turns(conn)]


async def call_in(conn: Connection, pool: Pool, most: int | None) -> int:
    """Let firings begin that wait for their turn in a pool, as `resources.call_in` does, while nobody else does."""
    async with conn.transaction(isolation="read_committed"):
        await conn.execute(_LOCK, f"{pool.tenant} {pool.kind} {pool.name}")
        return await resources.call_in(conn, pool.tenant, pool.turn, most)


async def forget(conn: Connection) -> None:
    """Delete the shares of workers that are over."""
    await conn.execute(_FORGET)


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A limit that was set, and what the workers hold of it now."""

    pool: Pool
    executions: int
    held: int
    wanted: int
    updated_by: str


_LISTED = """
SELECT l.tenant_id, l.kind, l.name, l.executions, l.updated_by, coalesce(s.amount, 0)::int8 AS amount,
    coalesce(s.wanted, 0)::int8 + (
        SELECT count(*) FROM circuit.hold h
        WHERE h.tenant_id = l.tenant_id AND h.place = l.kind || ':' || l.name AND h.granted_at IS NULL
            AND h.place LIKE '%:%'
    ) AS wanted
FROM circuit.concurrency_limit l LEFT JOIN LATERAL (
    SELECT sum(s.amount) AS amount, sum(s.wanted) AS wanted
    FROM circuit.worker_share s JOIN circuit.worker w ON w.id = s.worker_id AND NOT w.fenced
    WHERE s.tenant_id = l.tenant_id AND s.kind = l.kind AND s.name = l.name
) s ON true
WHERE l.tenant_id IN (0, $1)
ORDER BY l.kind, l.name
"""
_SET = """
INSERT INTO circuit.concurrency_limit (tenant_id, kind, name, executions, updated_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, kind, name) DO UPDATE
SET executions = excluded.executions, updated_at = now(), updated_by = excluded.updated_by
"""
_REMOVE = "DELETE FROM circuit.concurrency_limit WHERE tenant_id = $1 AND kind = $2 AND name = $3 RETURNING 1"


async def listed(conn: Connection, tenant: int) -> list[LimitRow]:
    """The limits of a tenant and those of all tenants together, with what is held of them."""
    return [
        LimitRow(_pool(row), row["executions"], row["amount"], row["wanted"], row["updated_by"])
        for row in await conn.fetch(_LISTED, tenant)
    ]


async def set_limit(conn: Connection, pool: Pool, executions: int, by: str) -> None:
    """Set a limit. What runs beyond it goes on, and nothing more begins."""
    await conn.execute(_SET, pool.tenant, pool.kind, pool.name, executions, by)


async def remove_limit(conn: Connection, pool: Pool) -> bool:
    """Take a limit away. Returns whether there was one."""
    return await conn.fetchval(_REMOVE, pool.tenant, pool.kind, pool.name) is not None


def _pool(row: Record) -> Pool:
    return Pool(row["tenant_id"], row["kind"], row["name"])
