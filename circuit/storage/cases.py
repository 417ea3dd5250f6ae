"""Which cases a worker owns, and what it reads of them. All of it runs under the engine's role.

**The wake-up.** A row of `ready` says: look at this case, from `due_at` on. Whoever wants something of a case writes
what he wants and raises its row of `ready` in one transaction. A claim deletes the row first, *in one statement*, and
reads in another: a later statement has a later snapshot, so it sees whatever the deleted row announced. The other
way round, or both in one, would delete the announcement of something that it did not see.

An owner does not delete the row of what it attends to, for it may end before it has applied it: it *postpones* the row.
The step that settles the last command takes the row away (`circuit.storage.statements`); a row that is left without a
command is deleted when it comes up again, in two statements: the first locks the row, so that who raises it waits, and
the second, with a later snapshot, looks whether a command is pending.

**Locks.** A claim locks rows of `ready` and of cases without an owner; it skips what is locked, so it never waits
while it holds any (the order is worker, case, ready, as in `circuit.storage.statements`).
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from circuit.errors import ArtefactLost
from circuit.ids import CaseKey
from circuit.storage import artefacts, resources, rows
from circuit.storage.driver import Connection, Record
from circuit.storage.records import AwaitedMessage, CaseState, CommandRow
from circuit.storage.statements import FENCE

logger = logging.getLogger(__name__)

POSTPONED_SECONDS = 5
"""After so long an owner is told again of a command that it has not settled."""

_LIVE = "t.status NOT IN ('completed', 'failed', 'cancelled')"

# A lane is a tenant's part of a bucket. Each step of the recursion is one look into the index for the next tenant that
# has anything in the bucket; a bucket whose cases this worker cannot run is never looked into.
# (The tenant of a case is compared with a sum below, so that the planner cannot take all cases of the lane's tenant
# for an index look-up.)
_LANES = """
buckets AS MATERIALIZED (
    SELECT 0::int2 AS bucket
    UNION ALL
    SELECT b.bucket
    FROM circuit.bucket b JOIN circuit.worker w ON w.id = $1
    WHERE w.capabilities = '{}'::jsonb OR b.requires <@ w.capabilities
),
lanes (bucket, tenant_id) AS (
    SELECT b.bucket, (SELECT min(r.tenant_id) FROM circuit.ready r WHERE r.bucket = b.bucket) FROM buckets b
    UNION ALL
    SELECT l.bucket, (
        SELECT min(r.tenant_id) FROM circuit.ready r WHERE r.bucket = l.bucket AND r.tenant_id > l.tenant_id
    )
    FROM lanes l WHERE l.tenant_id IS NOT NULL
)"""

# Each lane in which something is due has the same share of what is claimed, the oldest first, and the lanes come in
# turn, from the tenant `$3` on: so no tenant waits behind the thousand cases of another. (Those of the tenants `$4`,
# and those that need the providers `$5`, would only wait here: they are left.) The owner is looked up for each case.
# Both rows are locked before either is changed, and a case that another claim takes meanwhile is skipped,
# not waited for.
_CLAIM = f"""
WITH RECURSIVE fence AS MATERIALIZED ({FENCE}),
{_LANES},
open AS MATERIALIZED (
    SELECT l.bucket, l.tenant_id
    FROM lanes l
    WHERE l.tenant_id IS NOT NULL AND (SELECT count(*) FROM fence) = 1 AND now() >= (
        SELECT min(r.due_at) FROM circuit.ready r WHERE r.bucket = l.bucket AND r.tenant_id = l.tenant_id
    )
    AND l.tenant_id <> ALL ($4::int4[]) AND NOT EXISTS (
        SELECT FROM circuit.bucket b WHERE b.bucket = l.bucket AND b.requires -> 'providers' ?| $5::text[]
    )
    ORDER BY l.tenant_id < $3, l.tenant_id, random()
),
due AS MATERIALIZED (
    SELECT f.tenant_id, f.case_id, l.bucket
    FROM open l CROSS JOIN LATERAL (
        SELECT t.tenant_id, t.case_id
        FROM circuit.ready r JOIN circuit."case" t ON t.tenant_id = r.tenant_id + 0 AND t.case_id = r.case_id
        WHERE r.bucket = l.bucket AND r.tenant_id = l.tenant_id AND r.due_at <= now() AND t.owner IS NULL AND {_LIVE}
        ORDER BY r.due_at
        LIMIT (SELECT ceil($2::float8 / greatest(count(*), 1)) FROM open)
        FOR UPDATE OF r, t SKIP LOCKED
    ) f
    LIMIT $2
),
looked AS (
    DELETE FROM circuit.ready r USING due WHERE r.tenant_id = due.tenant_id AND r.case_id = due.case_id
)
UPDATE circuit."case" t SET owner = $1
FROM due
WHERE t.tenant_id = due.tenant_id AND t.case_id = due.case_id AND t.owner IS NULL
RETURNING t.tenant_id, t.case_id, due.bucket, (SELECT count(*) FROM open) AS lanes
"""

# These cases, whether or not anything of them is due. The row of `ready` may be waited for here (a command that is
# being inserted): who holds it waits for no case.
_CLAIM_THESE = f"""
WITH fence AS MATERIALIZED ({FENCE}),
due AS MATERIALIZED (
    SELECT t.tenant_id, t.case_id
    FROM unnest($3::int4[], $4::uuid[]) AS i(tenant_id, case_id)
    JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id
    WHERE (SELECT count(*) FROM fence) = 1 AND t.owner IS NULL AND {_LIVE}
    LIMIT $2
    FOR UPDATE OF t SKIP LOCKED
),
looked AS (
    DELETE FROM circuit.ready r USING due WHERE r.tenant_id = due.tenant_id AND r.case_id = due.case_id
)
UPDATE circuit."case" t SET owner = $1
FROM due
WHERE t.tenant_id = due.tenant_id AND t.case_id = due.case_id AND t.owner IS NULL
RETURNING t.tenant_id, t.case_id
"""

# A command that came while its case ended: nobody will own the case again, so whoever is idle answers it. Its row of
# `ready` goes first, in a statement of its own (see above), but not without the answer: both are one transaction.
_LATE = f"""
WITH RECURSIVE {_LANES}
SELECT r.tenant_id, r.case_id
FROM lanes l
JOIN circuit.ready r ON r.bucket = l.bucket AND r.tenant_id = l.tenant_id
JOIN circuit."case" t ON t.tenant_id = r.tenant_id + 0 AND t.case_id = r.case_id
WHERE r.due_at <= now() AND t.owner IS NULL AND t.status IN ('completed', 'failed', 'cancelled')
LIMIT 100
"""
_LATE_OF_THESE = """
SELECT r.tenant_id, r.case_id
FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)
JOIN circuit.ready r ON r.tenant_id = i.tenant_id AND r.case_id = i.case_id
JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id
WHERE t.owner IS NULL AND t.status IN ('completed', 'failed', 'cancelled')
"""
_LOCKED = """
SELECT r.tenant_id, r.case_id
FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)
JOIN circuit.ready r ON r.tenant_id = i.tenant_id AND r.case_id = i.case_id
FOR UPDATE OF r SKIP LOCKED
"""
_FORGET = """
DELETE FROM circuit.ready r USING unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)
WHERE r.tenant_id = i.tenant_id AND r.case_id = i.case_id
"""
_REFUSE_LATE = """
UPDATE circuit.command k
SET state = 'refused', settled_at = now(), result = jsonb_build_object(
    'error', jsonb_build_object(
        'code', 'conflict', 'message', 'the case ended before this could be applied', 'retryable', false
    )
)
FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)
WHERE k.tenant_id = i.tenant_id AND k.case_id = i.case_id AND k.state = 'pending'
"""

_ATTEND = f"""
UPDATE circuit.ready r SET due_at = now() + interval '{POSTPONED_SECONDS} seconds'
FROM (
    SELECT r.tenant_id, r.case_id
    FROM circuit.ready r JOIN circuit."case" t ON t.tenant_id = r.tenant_id AND t.case_id = r.case_id
    WHERE r.due_at <= now() AND t.owner = $1
    FOR UPDATE OF r SKIP LOCKED
) due
WHERE r.tenant_id = due.tenant_id AND r.case_id = due.case_id
RETURNING r.tenant_id, r.case_id
"""
_PENDING_HERE = """
EXISTS (
    SELECT 1 FROM circuit.command k
    WHERE k.tenant_id = i.tenant_id AND k.case_id = i.case_id AND k.state = 'pending'
)"""
_WANTED = f"""
SELECT i.tenant_id, i.case_id
FROM unnest($2::int4[], $3::uuid[]) AS i(tenant_id, case_id)
JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id
WHERE t.owner = $1 AND {_PENDING_HERE}
"""
# Of rows that this transaction has locked. A case that was given up after it was found to be the worker's is somebody
# else's to look at, and at once.
_UNWANTED = f"""
DELETE FROM circuit.ready r
USING unnest($2::int4[], $3::uuid[]) AS i(tenant_id, case_id)
JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id
WHERE r.tenant_id = i.tenant_id AND r.case_id = i.case_id AND t.owner = $1 AND NOT {_PENDING_HERE}
"""
_NOT_MINE = """
UPDATE circuit.ready r SET due_at = least(r.due_at, now())
FROM unnest($2::int4[], $3::uuid[]) AS i(tenant_id, case_id)
JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id
WHERE r.tenant_id = i.tenant_id AND r.case_id = i.case_id AND t.owner IS DISTINCT FROM $1
"""

# Written as comparisons of rows, so that only the index of the lane gives this order: with the one on `due_at` alone,
# all that waits in other lanes would be read on the way.
_NEXT_DUE = f"""
WITH RECURSIVE {_LANES}
SELECT min(f.due_at)
FROM lanes l CROSS JOIN LATERAL (
    SELECT r.due_at
    FROM circuit.ready r JOIN circuit."case" t ON t.tenant_id = r.tenant_id + 0 AND t.case_id = r.case_id
    WHERE (r.bucket, r.tenant_id) >= (l.bucket, l.tenant_id) AND (r.bucket, r.tenant_id) <= (l.bucket, l.tenant_id)
        AND t.owner IS NULL AND {_LIVE}
    ORDER BY r.bucket, r.tenant_id, r.due_at
    LIMIT 1
) f
WHERE l.tenant_id IS NOT NULL
"""

_DROP = f"""
WITH fence AS MATERIALIZED ({FENCE}),
dropped AS (
    UPDATE circuit."case" t SET owner = NULL
    FROM unnest($2::int4[], $3::uuid[]) AS i(tenant_id, case_id)
    WHERE (SELECT count(*) FROM fence) = 1
        AND t.tenant_id = i.tenant_id AND t.case_id = i.case_id AND t.owner = $1
    RETURNING t.bucket, t.tenant_id, t.case_id
)
INSERT INTO circuit.ready AS r (bucket, tenant_id, case_id, due_at)
SELECT bucket, tenant_id, case_id, now() + make_interval(secs => $4) FROM dropped ORDER BY tenant_id, case_id
ON CONFLICT (tenant_id, case_id) DO UPDATE SET due_at = least(r.due_at, excluded.due_at)
RETURNING tenant_id, case_id
"""

_OF_CASES = (
    "FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id) JOIN {table} t"
    " ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id"
)


def _reads(table: str, where: str = "true", order: str = "1, 2", *, what: str = "t.*") -> str:
    return f"SELECT {what} {_OF_CASES.format(table=table)} WHERE {where} ORDER BY {order}"


_CASES = _reads('circuit."case"')
_TOKENS = _reads("circuit.token", order="t.number")
_FIRINGS = _reads("circuit.firing", "t.state IN ('offered', 'running', 'suspended')", "t.number")
_EXECUTIONS = _reads("circuit.execution", "t.status = 'running'", "t.firing")
_AWAITED = _reads("circuit.awaited_message")
_INCIDENTS = _reads("circuit.incident", "t.resolved_at IS NULL", "t.number")
_COMMANDS = _reads("circuit.command", "t.state = 'pending'", "t.created_at, t.command_id")
# What fired since the counts were written down.
_FIRED = """
SELECT t.tenant_id, t.case_id, t.transition, count(*) AS times
FROM unnest($1::int4[], $2::uuid[], $3::int4[]) AS i(tenant_id, case_id, since)
JOIN circuit.history t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id AND t.seq > i.since
WHERE t.kind = 'transition_fired' GROUP BY 1, 2, 3
"""
_JOURNAL = (
    "SELECT t.tenant_id, t.case_id, t.firing, t.step, t.value "
    + _OF_CASES.format(table="circuit.journal")
    + " JOIN circuit.firing f ON f.tenant_id = i.tenant_id AND f.case_id = i.case_id AND f.number = t.firing"
    " WHERE f.state IN ('offered', 'running', 'suspended') AND t.attempt IN (0, f.attempt)"
)
_RECORDED = """
SELECT tenant_id, step, value FROM circuit.journal
WHERE tenant_id = $1 AND case_id = $2 AND firing = $3 AND attempt IN (0, $4)
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim took. `more` says that there may be more at once, `next_tenant` whose turn is next."""

    keys: list[CaseKey]
    more: bool = False
    next_tenant: int = 0


async def claim(conn: Connection, worker: UUID, limit: int, only: Sequence[CaseKey] | None = None) -> list[CaseKey]:
    """The cases of `claim_fairly`; with `only`, those of these that have no owner, due or not, whatever they need.
    A fenced worker gets none. What was claimed is read with `load_page`."""
    if only is None:
        return (await claim_fairly(conn, worker, limit)).keys
    if limit <= 0:
        return []
    claimed = _keys(await conn.fetch(_CLAIM_THESE, worker, limit, *_arrays(only)))
    if len(claimed) < limit:
        await _answer_late(conn, worker, only)
    return claimed


class Useless(NamedTuple):
    """Cases that a worker leaves: those of tenants, and those that need one of these types of providers."""

    tenants: Sequence[int] = ()
    providers: Sequence[str] = ()


NO_USELESS = Useless()


async def claim_fairly(
    conn: Connection, worker: UUID, limit: int, first_tenant: int = 0, useless: Useless = NO_USELESS
) -> Claim:
    """Take up to `limit` cases that have no owner, are due, and need nothing that the worker has not. Every tenant
    has the same share, from `first_tenant` on; where there are more tenants than cases to take, they have turns."""
    if limit <= 0:
        return Claim([])
    found = await conn.fetch(_CLAIM, worker, limit, first_tenant, list(useless.tenants), list(useless.providers))
    keys = _keys(found)
    if len(keys) == limit:
        last = max(keys, key=lambda key: (key.tenant < first_tenant, key.tenant))
        return Claim(keys, True, last.tenant + 1)
    await _answer_late(conn, worker, None)
    # A tenant that had its whole share may have more.
    taken = Counter((row["tenant_id"], row["bucket"]) for row in found)
    more = any(count >= math.ceil(limit / found[0]["lanes"]) for count in taken.values())
    return Claim(keys, more, first_tenant)


async def attend(conn: Connection, worker: UUID) -> list[CaseKey]:
    """The worker's own cases that have a pending command; read `pending` afterwards. Each is told once, and again
    after `POSTPONED_SECONDS` if the command is pending still, and at once if another command comes."""
    told = _keys(await conn.fetch(_ATTEND, worker))
    if not told:
        return []
    wanted = set(_keys(await conn.fetch(_WANTED, worker, *_arrays(told))))
    unwanted = [key for key in told if key not in wanted]
    if unwanted:
        async with conn.transaction(isolation="read_committed"):
            locked = _keys(await conn.fetch(_LOCKED, *_arrays(unwanted)))
            await conn.execute(_UNWANTED, worker, *_arrays(locked))
            await conn.execute(_NOT_MINE, worker, *_arrays(locked))
    return [key for key in told if key in wanted]


async def pending(conn: Connection, keys: Sequence[CaseKey]) -> dict[CaseKey, list[CommandRow]]:
    """The commands of these cases that wait to be applied, in the order in which they came."""
    commands: dict[CaseKey, list[CommandRow]] = {}
    for row in await conn.fetch(_COMMANDS, *_arrays(keys)):
        commands.setdefault(rows.key(row), []).append(rows.command(row))
    return commands


async def next_due(conn: Connection, worker: UUID) -> datetime | None:
    """When the next case is due that has no owner and that the worker can run (in the past, if one is due now), or
    None if there is none."""
    return await conn.fetchval(_NEXT_DUE, worker)


async def drop(conn: Connection, worker: UUID, keys: Sequence[CaseKey], *, due_in_seconds: float = 0) -> list[CaseKey]:
    """Give cases up without a step of theirs; they are due at once, or after `due_in_seconds` (unless somebody wants
    something of them before). Returns those that were the worker's."""
    return _keys(await conn.fetch(_DROP, worker, *_arrays(keys), float(due_in_seconds)))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The cases that could be read, in the order that was asked for, and why the others could not."""

    states: list[CaseState]
    unreadable: dict[CaseKey, Exception]


async def load(conn: Connection, keys: Sequence[CaseKey], worker: UUID | None = None) -> list[CaseState]:
    """The cases of `load_page` that this release can read; what it cannot read is left out, and logged."""
    loaded = await load_page(conn, keys, worker)
    for key, error in loaded.unreadable.items():
        logger.error("case %s cannot be read by this release: %s: %s", key, type(error).__name__, error)
    return loaded.states


async def load_page(conn: Connection, keys: Sequence[CaseKey], worker: UUID | None = None) -> Loaded:
    """All that an owner must know of these cases, in their order, with one query a table. What is read can change
    only through the owner, but for commands. A case that does not exist is left out; with `worker`, also one that
    is not (or no longer) its own. A case with a row that this release cannot read spoils no other."""
    loaded = Loaded([], {})
    if not keys:
        return loaded

    async def read(
        query: str, of: Sequence[CaseKey], *more: Sequence[Any], payloads: Sequence[str] = ()
    ) -> Mapping[CaseKey, list[Record]]:
        found = await conn.fetch(query, *_arrays(of), *more) if of else ()
        return _by_case(await artefacts.read(conn, found, *payloads) if payloads else found)

    cases = await read(_CASES, keys)
    # Of a case that was only started there is nothing but its tokens; most claims are of such.
    touched = [key for key, (case, *_) in cases.items() if case["seq"] > 1]
    # One that came to rest without an event may wait for a message.
    looked_at = [key for key, (case, *_) in cases.items() if case["seq"] > 1 or case["status"] != "running"]
    found = _Rows(
        tokens=await read(_TOKENS, keys, payloads=("data", "metadata")),
        firings=await read(_FIRINGS, touched, payloads=("request", "awaits")),
        executions=await read(_EXECUTIONS, touched),
        incidents=await read(_INCIDENTS, touched),
        fired=await read(_FIRED, touched, [cases[key][0]["fired_seq"] for key in touched]),
        journal=await read(_JOURNAL, touched, payloads=("value",)),
        commands=await read(_COMMANDS, keys),
        awaited=await read(_AWAITED, looked_at),
    )
    waiting = await resources.waiting_of(conn, cases, found.firings)
    for key in keys:
        if key not in cases or (worker is not None and cases[key][0]["owner"] != worker):
            continue
        try:
            loaded.states.append(_state(key, cases[key][0], found, waiting.get(key, frozenset())))
        except (ValueError, TypeError, LookupError, ArtefactLost) as error:
            loaded.unreadable[key] = error
    return loaded


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the tables hold of a page of cases."""

    tokens: Mapping[CaseKey, list[Record]]
    firings: Mapping[CaseKey, list[Record]]
    executions: Mapping[CaseKey, list[Record]]
    incidents: Mapping[CaseKey, list[Record]]
    fired: Mapping[CaseKey, list[Record]]
    journal: Mapping[CaseKey, list[Record]]
    commands: Mapping[CaseKey, list[Record]]
    awaited: Mapping[CaseKey, list[Record]]


def _state(key: CaseKey, case: Record, found: _Rows, waiting: frozenset[int]) -> CaseState:
    journal: dict[int, dict[str, Any]] = {}
    for row in found.journal.get(key, ()):
        journal.setdefault(row["firing"], {})[row["step"]] = artefacts.value(row)
    fired: dict[str, int] = dict(rows.document(case["fired"]))
    for row in found.fired.get(key, ()):
        fired[row["transition"]] = fired.get(row["transition"], 0) + row["times"]
    return CaseState(
        key=key,
        row=rows.case_row(case),
        tokens=[(rows.token(row), row["reserved_by"]) for row in found.tokens.get(key, ())],
        firings=[rows.firing(row) for row in found.firings.get(key, ())],
        executions=[rows.execution(row) for row in found.executions.get(key, ())],
        incidents=[rows.incident(row) for row in found.incidents.get(key, ())],
        commands=[rows.command(row) for row in found.commands.get(key, ())],
        fired=fired,
        journal=journal,
        fired_seq=case["fired_seq"],
        waiting=waiting,
        awaited=frozenset(
            AwaitedMessage(row["transition"], row["name"], row["key"]) for row in found.awaited.get(key, ())
        ),
    )


async def recorded(conn: Connection, key: CaseKey, number: int, attempt: int) -> dict[str, Any]:
    """What the journal holds of one attempt of a firing, by step: of two answers for a step, the first."""
    found = await artefacts.read(conn, await conn.fetch(_RECORDED, key.tenant, key.case, number, attempt), "value")
    return {row["step"]: artefacts.value(row) for row in found}


async def _answer_late(conn: Connection, worker: UUID, only: Sequence[CaseKey] | None) -> None:
    found = await (conn.fetch(_LATE, worker) if only is None else conn.fetch(_LATE_OF_THESE, *_arrays(only)))
    if not found:
        return
    async with conn.transaction(isolation="read_committed"):
        late = _arrays(_keys(await conn.fetch(_LOCKED, *_arrays(_keys(found)))))
        await conn.execute(_FORGET, *late)
        await conn.execute(_REFUSE_LATE, *late)


def _arrays(keys: Iterable[CaseKey]) -> tuple[list[int], list[UUID]]:
    listed = list(keys)
    return [key.tenant for key in listed], [key.case for key in listed]


def _keys(found: Iterable[Record]) -> list[CaseKey]:
    return [rows.key(row) for row in found]


def _by_case(found: Iterable[Record]) -> dict[CaseKey, list[Record]]:
    grouped: dict[CaseKey, list[Record]] = {}
    for row in found:
        grouped.setdefault(rows.key(row), []).append(row)
    return grouped
