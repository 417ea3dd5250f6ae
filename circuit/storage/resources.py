"""Shared places: what there is of them, who holds it, and who waits. All but `standing` runs under the engine's role.

An owner writes the request of a firing with its begin and deletes it with its end (`circuit.storage.statements`).
Whoever grants locks the resources of the workflow, in the order of their places, so that one grants at a time; then
the rows of `ready`, and the holds last. A hold that is locked is being given back at that very moment: it is skipped,
so that who grants never waits while the writer waits for it.

A firing may also wait for its *turn*, where its agent, or a provider of its tenant, has more to do than it may run at
once (`circuit.storage.shares`): it asks for one of a place that no workflow can have, such as `agent:reviewer`. Nobody
counts what is free of that. Who runs such executions calls some more in when few are left to begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.errors import ArtefactLost
from circuit.ids import CaseKey
from circuit.storage import rows
from circuit.storage.driver import Connection, Record

MOST_LOOKED_AT = 1_000
"""How many holds that wait are looked at in one go: more are granted in the next."""


class Wanted(NamedTuple):
    """What one firing waits for: amounts by the names of shared places."""

    key: CaseKey
    firing: int
    amounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Grants:
    """What a look at one workflow's queue came to. `due_at` is when something paced is there again for those that still
    wait, `more` says that not all of the queue was looked at."""

    granted: int = 0
    due_at: datetime | None = None
    more: bool = False


_RESOURCES = """
SELECT place, capacity, interval_seconds FROM circuit.resource
WHERE tenant_id = $1 AND workflow_id = $2 ORDER BY place FOR UPDATE
"""
_WAITING = """
SELECT tenant_id, case_id, firing, place, amount FROM circuit.hold
WHERE tenant_id = $1 AND workflow_id = $2 AND granted_at IS NULL AND place NOT LIKE '%:%'
ORDER BY asked_at, case_id, firing LIMIT $3
"""
_HELD = """
SELECT place, sum(amount)::int8 AS amount FROM circuit.hold
WHERE tenant_id = $1 AND workflow_id = $2 AND granted_at IS NOT NULL AND (held_until IS NULL OR held_until > now())
GROUP BY place
"""
_DUE = """
SELECT min(held_until) FROM circuit.hold WHERE tenant_id = $1 AND workflow_id = $2 AND held_until > now()
"""
_READY = """
INSERT INTO circuit.ready AS r (bucket, tenant_id, case_id, due_at)
SELECT t.bucket, t.tenant_id, t.case_id, now()
FROM (SELECT DISTINCT case_id FROM unnest($2::uuid[]) AS i(case_id)) i
JOIN circuit."case" t ON t.tenant_id = $1 AND t.case_id = i.case_id
ORDER BY t.tenant_id, t.case_id
ON CONFLICT (tenant_id, case_id) DO UPDATE SET due_at = least(r.due_at, excluded.due_at)
"""
_COMMANDS = """
INSERT INTO circuit.command (tenant_id, case_id, command_id, kind, payload, principal)
SELECT $1, i.case_id, gen_random_uuid(), 'granted', jsonb_build_object('firing', i.firing), '{"subject": "circuit"}'
FROM (SELECT DISTINCT case_id, firing FROM unnest($2::uuid[], $3::int4[]) AS i(case_id, firing)) i
"""
_GRANT = """
UPDATE circuit.hold h
SET granted_at = now(), held_until = now() + make_interval(secs => r.interval_seconds)
FROM circuit.resource r, (
    SELECT h.place, h.case_id, h.firing
    FROM unnest($3::uuid[], $4::int4[]) AS i(case_id, firing)
    JOIN circuit.resource r ON r.tenant_id = $1 AND r.workflow_id = $2
    JOIN circuit.hold h ON h.tenant_id = $1 AND h.workflow_id = $2 AND h.place = r.place
        AND h.case_id = i.case_id AND h.firing = i.firing
    FOR UPDATE OF h SKIP LOCKED
) found
WHERE r.tenant_id = $1 AND r.workflow_id = $2 AND r.place = found.place
    AND h.tenant_id = $1 AND h.workflow_id = $2 AND h.place = found.place
    AND h.case_id = found.case_id AND h.firing = found.firing
"""
_TURNS = """
WITH RECURSIVE turns AS (
    (SELECT tenant_id, place FROM circuit.hold WHERE granted_at IS NULL AND place LIKE '%:%'
     ORDER BY tenant_id, place LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.place FROM turns t CROSS JOIN LATERAL (
        SELECT h.tenant_id, h.place FROM circuit.hold h
        WHERE h.granted_at IS NULL AND h.place LIKE '%:%' AND (h.tenant_id, h.place) > (t.tenant_id, t.place)
        ORDER BY h.tenant_id, h.place LIMIT 1
    ) n
)
SELECT tenant_id, place FROM turns
"""
_CALLED = """
SELECT count(*) FROM circuit.hold
WHERE tenant_id = $1 AND place = $2 AND granted_at IS NOT NULL AND place LIKE '%:%'
"""
_NEXT = """
SELECT case_id, firing FROM circuit.hold
WHERE tenant_id = $1 AND place = $2 AND granted_at IS NULL AND place LIKE '%:%'
ORDER BY asked_at, case_id, firing LIMIT $3
"""
_CALL = """
UPDATE circuit.hold h SET granted_at = now()
FROM (
    SELECT h.workflow_id, h.case_id, h.firing
    FROM unnest($3::uuid[], $4::int4[]) AS i(case_id, firing)
    JOIN circuit.hold h ON h.tenant_id = $1 AND h.place = $2 AND h.case_id = i.case_id AND h.firing = i.firing
    WHERE h.granted_at IS NULL AND h.place LIKE '%:%'
    FOR UPDATE OF h SKIP LOCKED
) found
WHERE h.tenant_id = $1 AND h.place = $2 AND h.workflow_id = found.workflow_id
    AND h.case_id = found.case_id AND h.firing = found.firing
"""
_QUEUES = """
WITH RECURSIVE queues AS (
    (SELECT tenant_id, workflow_id FROM circuit.hold WHERE granted_at IS NULL AND place NOT LIKE '%:%'
     ORDER BY tenant_id, workflow_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.workflow_id FROM queues q CROSS JOIN LATERAL (
        SELECT h.tenant_id, h.workflow_id FROM circuit.hold h
        WHERE h.granted_at IS NULL AND h.place NOT LIKE '%:%'
            AND (h.tenant_id, h.workflow_id) > (q.tenant_id, q.workflow_id)
        ORDER BY h.tenant_id, h.workflow_id LIMIT 1
    ) n
)
SELECT tenant_id, workflow_id FROM queues
"""
_FORGET = "DELETE FROM circuit.hold WHERE held_until < now()"
_STILL_WAITING = """
SELECT DISTINCT i.tenant_id, i.case_id, i.firing
FROM unnest($1::int4[], $2::text[], $3::text[], $4::uuid[], $5::int4[])
    AS i(tenant_id, workflow_id, place, case_id, firing)
JOIN circuit.hold h ON h.tenant_id = i.tenant_id AND h.workflow_id = i.workflow_id AND h.place = i.place
    AND h.case_id = i.case_id AND h.firing = i.firing
WHERE h.granted_at IS NULL
"""


async def grant(
    conn: Connection,
    tenant: int,
    workflow_id: str,
    decide: Callable[[Mapping[str, int], Sequence[Wanted]], Iterable[Wanted]],
) -> Grants:
    """Give those that wait for the shared places of one workflow what there is, as `decide` says, and wake them."""
    async with conn.transaction(isolation="read_committed"):
        places = await conn.fetch(_RESOURCES, tenant, workflow_id)
        found = await conn.fetch(_WAITING, tenant, workflow_id, MOST_LOOKED_AT)
        if not found:
            return Grants()
        free = {row["place"]: row["capacity"] for row in places}
        for row in await conn.fetch(_HELD, tenant, workflow_id):
            free[row["place"]] = free.get(row["place"], 0) - row["amount"]
        waiting = _together(found)
        # Of the last one perhaps not all rows were read.
        more = len(found) == MOST_LOOKED_AT and len(waiting) > 1
        chosen = list(decide(free, waiting[:-1] if more else waiting))
        if chosen:
            cases, firings = [one.key.case for one in chosen], [one.firing for one in chosen]
            await conn.execute(_READY, tenant, cases)
            await conn.execute(_COMMANDS, tenant, cases, firings)
            await conn.execute(_GRANT, tenant, workflow_id, cases, firings)
        due_at = await conn.fetchval(_DUE, tenant, workflow_id) if len(chosen) < len(waiting) else None
    return Grants(len(chosen), due_at, more and bool(chosen))


async def turns(conn: Connection) -> list[tuple[int, str]]:
    """The tenants, and the places of turns, of which somebody waits."""
    return [(row["tenant_id"], row["place"]) for row in await conn.fetch(_TURNS)]


async def call_in(conn: Connection, tenant: int, place: str, most: int | None) -> int:
    """Let those begin that have waited longest for their turn, until `most` that were called in have not ended (None:
    a page of them, whatever runs). Returns how many. Runs in a transaction in which nobody else calls in for `place`.
    """
    called = 0 if most is None else await conn.fetchval(_CALLED, tenant, place)
    room = MOST_LOOKED_AT if most is None else min(MOST_LOOKED_AT, most - called)
    found = await conn.fetch(_NEXT, tenant, place, room) if room > 0 else []
    if found:
        cases, firings = [row["case_id"] for row in found], [row["firing"] for row in found]
        await conn.execute(_READY, tenant, cases)
        await conn.execute(_COMMANDS, tenant, cases, firings)
        await conn.execute(_CALL, tenant, place, cases, firings)
    return len(found)


async def queues(conn: Connection) -> list[tuple[int, str]]:
    """The tenants and workflows of which somebody waits for a shared place."""
    return [(row["tenant_id"], row["workflow_id"]) for row in await conn.fetch(_QUEUES)]


async def forget_paced(conn: Connection) -> None:
    """Delete what was paced and is there again."""
    await conn.execute(_FORGET)


async def still_waiting(conn: Connection, asked: Sequence[tuple[CaseKey, str, str, int]]) -> set[tuple[CaseKey, int]]:
    """Of these requests (case, workflow, place, firing), the firings that were not granted yet."""
    if not asked:
        return set()
    found = await conn.fetch(
        _STILL_WAITING,
        [key.tenant for key, _, _, _ in asked],
        [workflow for _, workflow, _, _ in asked],
        [place for _, _, place, _ in asked],
        [key.case for key, _, _, _ in asked],
        [firing for _, _, _, firing in asked],
    )
    return {(rows.key(row), row["firing"]) for row in found}


async def waiting_of(
    conn: Connection, cases: Mapping[CaseKey, Sequence[Record]], firings: Mapping[CaseKey, Sequence[Record]]
) -> dict[CaseKey, frozenset[int]]:
    """Of these firings of these cases, the ones that have never started, for they wait for shared places still. Most
    cases have none such."""
    asked = [
        (key, cases[key][0]["workflow_id"], place, row["number"])
        for key, found in firings.items()
        for row in found
        if row["start"] == 0 and key in cases
        for place in _asked_for(row)
    ]
    waiting: dict[CaseKey, frozenset[int]] = {}
    for key, firing in await still_waiting(conn, asked):
        waiting[key] = waiting.get(key, frozenset()) | {firing}
    return waiting


def _asked_for(row: Record) -> Iterable[str]:
    """The shared places of which a firing asked for something. One that cannot be read is its case's concern."""
    try:
        return rows.document(row["request"]).get("holds", ())
    except ArtefactLost:
        return ()


# What is wrong with holds: nobody's, or more than there ever was room for. (Where a capacity was lowered, what had been
# granted before stays: that is no fault.)
_STRAY = """
SELECT h.tenant_id, h.workflow_id, h.place, h.case_id, h.firing FROM circuit.hold h
WHERE h.held_until IS NULL AND NOT EXISTS (
    SELECT FROM circuit.firing f
    WHERE f.tenant_id = h.tenant_id AND f.case_id = h.case_id AND f.number = h.firing
        AND f.state NOT IN ('completed', 'failed', 'cancelled')
)
ORDER BY 1, 2, 3, 4, 5 LIMIT $1
"""
_OVERDRAWN = """
SELECT r.tenant_id, r.workflow_id, r.place, r.capacity, held.amount FROM circuit.resource r CROSS JOIN LATERAL (
    SELECT sum(h.amount)::int8 AS amount FROM circuit.hold h
    WHERE h.tenant_id = r.tenant_id AND h.workflow_id = r.workflow_id AND h.place = r.place
        AND h.granted_at > r.updated_at AND (h.held_until IS NULL OR h.held_until > now())
) held
WHERE held.amount > r.capacity
ORDER BY 1, 2, 3 LIMIT $1
"""


async def stray(conn: Connection, limit: int) -> list[Record]:
    """Holds of firings that have ended: nobody will ever give them back."""
    return await conn.fetch(_STRAY, limit)


async def overdrawn(conn: Connection, limit: int) -> list[Record]:
    """Resources of which more was granted than there is, since their capacity was set."""
    return await conn.fetch(_OVERDRAWN, limit)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a request stands: what there is of the resource, what is held and by which executions (some of them), how
    many wait before it, and when something paced is there again."""

    place: str
    firing: int
    amount: int
    capacity: int
    held: int
    ahead: int
    holders: tuple[str, ...] = field(default=())
    due_at: datetime | None = None


_STANDING = """
SELECT h.place, h.firing, h.amount, coalesce(r.capacity, 0) AS capacity, coalesce(held.amount, 0)::int8 AS held,
    held.due_at, (
        SELECT count(DISTINCT (w.case_id, w.firing)) FROM circuit.hold w
        WHERE w.tenant_id = h.tenant_id AND w.workflow_id = h.workflow_id AND w.place = h.place
            AND w.granted_at IS NULL AND (w.asked_at, w.case_id, w.firing) < (h.asked_at, h.case_id, h.firing)
    ) AS ahead, ARRAY(
        SELECT o.case_id || '.' || o.firing FROM circuit.hold o
        WHERE o.tenant_id = h.tenant_id AND o.workflow_id = h.workflow_id AND o.place = h.place
            AND o.granted_at IS NOT NULL AND (o.held_until IS NULL OR o.held_until > now())
        ORDER BY o.granted_at LIMIT 5
    ) AS holders
FROM circuit.hold h
LEFT JOIN circuit.resource r
    ON r.tenant_id = h.tenant_id AND r.workflow_id = h.workflow_id AND r.place = h.place
LEFT JOIN LATERAL (
    SELECT sum(o.amount) AS amount, min(o.held_until) AS due_at FROM circuit.hold o
    WHERE o.tenant_id = h.tenant_id AND o.workflow_id = h.workflow_id AND o.place = h.place
        AND o.granted_at IS NOT NULL AND (o.held_until IS NULL OR o.held_until > now())
) held ON true
WHERE h.tenant_id = :tenant AND h.workflow_id = :workflow AND h.case_id = :case AND h.granted_at IS NULL
ORDER BY h.firing, h.place
"""


async def standing(conn: AsyncConnection, key: CaseKey, workflow_id: str) -> list[Standing]:
    """How the requests of a case stand that wait. Runs in a transaction of its tenant."""
    given = {"tenant": key.tenant, "workflow": workflow_id, "case": key.case}
    found = await conn.execute(text(_STANDING), given)
    return [
        Standing(
            row["place"],
            row["firing"],
            row["amount"],
            row["capacity"],
            row["held"],
            row["ahead"],
            tuple(row["holders"]),
            row["due_at"],
        )
        for row in found.mappings()
    ]


def _together(found: Iterable[rows.Row]) -> list[Wanted]:
    """The rows of each firing, which follow each other, as one request."""
    amounts: dict[tuple[CaseKey, int], dict[str, int]] = {}
    for row in found:
        amounts.setdefault((rows.key(row), row["firing"]), {})[row["place"]] = row["amount"]
    return [Wanted(key, firing, held) for (key, firing), held in amounts.items()]


def requests_of(
    key: CaseKey, workflow_id: str, firing: int, amounts: Mapping[str, int]
) -> list[tuple[CaseKey, str, str, int]]:
    """The rows of one firing's request, for `still_waiting`."""
    return [(key, workflow_id, place, firing) for place in amounts]
