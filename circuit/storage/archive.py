"""Weeks of finished cases on their way out of the database. All of it runs under the engine's role.

    closing -> written -> dropped        (streams: only the frames of a week were dropped)

`closing` is committed first: from then on nothing is added to the week's cases. `written` says that the files are
there and were read again; only then rows are deleted (of `case` and `case_key`, which are not partitioned) and the
week's partitions dropped. Whoever finds a week in one of these states goes on with it.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import orjson

from circuit.ids import CaseKey
from circuit.storage import rows
from circuit.storage.driver import Connection, Record
from circuit.storage.partitions import Week, week_of
from circuit.storage.tables import PARTITIONED

PAGE_CASES = 100
PAGE_EVENTS = 5_000
KEY_PAGE = 5_000
DELETED_AT_ONCE = 1_000
_LOCK = 0x63726172
"""Of all that archive one database, one does at a time."""

# No index leads with the case id, for every key leads with the tenant: so each tenant is looked into in turn.
_TENANTS = """
WITH RECURSIVE tenants AS (
    SELECT min(tenant_id) AS tenant_id FROM circuit."case"
    UNION ALL
    SELECT (SELECT min(c.tenant_id) FROM circuit."case" c WHERE c.tenant_id > t.tenant_id)
    FROM tenants t WHERE t.tenant_id IS NOT NULL
)
"""
_OF_WEEK = """
FROM tenants x JOIN circuit."case" c
    ON c.tenant_id = x.tenant_id AND c.case_id >= $1 AND c.case_id < $2
"""
_OLDEST = f"""{_TENANTS}
SELECT min(first.case_id::text)::uuid FROM tenants x CROSS JOIN LATERAL (
    SELECT c.case_id FROM circuit."case" c WHERE c.tenant_id = x.tenant_id ORDER BY c.case_id LIMIT 1
) first
"""
_STANDING = f"""{_TENANTS}
SELECT count(*) AS cases,
    count(*) FILTER (WHERE {{open}}) AS open,
    count(*) FILTER (WHERE NOT ({{open}}) AND c.finished_at >= $3) AS fresh,
    count(*) FILTER (WHERE NOT ({{open}}) AND c.finished_at < $3 AND c.status = 'failed') AS failed,
    coalesce(sum(c.seq) FILTER (WHERE {{stays}}), 0)::int8 AS staying_events
{_OF_WEEK}
"""
_OPEN = "c.status NOT IN ('completed', 'failed', 'cancelled') OR c.owner IS NOT NULL"
_STAYS = f"({_OPEN}) OR c.finished_at >= $3 OR ($4 AND c.status = 'failed')"
_STAYING = f"{_TENANTS} SELECT c.tenant_id, c.case_id, c.status {_OF_WEEK} WHERE {_STAYS} ORDER BY 1, 2 LIMIT $5"
_UNTAKEN = """
SELECT DISTINCT tenant_id, case_id FROM circuit.outbox WHERE case_id >= $1 AND case_id < $2 ORDER BY 1, 2 LIMIT 20
"""
_PAGE = """
SELECT c.tenant_id, c.case_id, c.seq, to_json(c)::text AS row FROM circuit."case" c
WHERE c.tenant_id = $1 AND c.case_id > $2 AND c.case_id < $3 AND NOT (c.case_id = ANY($4::uuid[]))
    AND c.status IN ('completed', 'failed', 'cancelled')
ORDER BY c.case_id LIMIT $5
"""
_KEYS = """
SELECT k.tenant_id, k.key, k.case_id, to_json(k)::text AS row FROM circuit.case_key k
WHERE (k.tenant_id, k.key) > ($1, $2) ORDER BY k.tenant_id, k.key LIMIT $3
"""
_DELETE_KEYS = """
DELETE FROM circuit.case_key k USING unnest($1::int4[], $2::text[]) AS i(tenant_id, key)
WHERE k.tenant_id = i.tenant_id AND k.key = i.key
"""
_DELETE_CASES = """
WITH gone AS (
    DELETE FROM circuit."case" c USING (
        SELECT t.tenant_id, t.case_id FROM circuit."case" t
        WHERE t.tenant_id = $1 AND t.case_id >= $2 AND t.case_id < $3 AND NOT (t.case_id = ANY($4::uuid[]))
            AND t.status IN ('completed', 'failed', 'cancelled')
        ORDER BY t.case_id LIMIT $5
    ) old
    WHERE c.tenant_id = old.tenant_id AND c.case_id = old.case_id
    RETURNING c.tenant_id, c.case_id
),
forgotten AS (
    DELETE FROM circuit.ready r USING gone WHERE r.tenant_id = gone.tenant_id AND r.case_id = gone.case_id
),
conversed AS (
    DELETE FROM circuit.conversation c USING gone WHERE c.tenant_id = gone.tenant_id AND c.case_id = gone.case_id
    RETURNING c.tenant_id, c.conversation_id
),
said AS (
    DELETE FROM circuit.message m USING conversed c
    WHERE m.tenant_id = c.tenant_id AND m.conversation_id = c.conversation_id
),
bounded AS (
    DELETE FROM circuit.budget b USING gone
    WHERE b.tenant_id = gone.tenant_id AND b.scope = 'case' AND b.subject = gone.case_id::text
)
SELECT count(*) FROM gone
"""
# Rows of a case outside of its partitions: what its agents said, what it may cost, and the large values that it uses.
# Others may use the same, so each case brings its own with it.
_OF_CASES = "FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)"
_OWN = "ON c.tenant_id = i.tenant_id AND c.case_id = i.case_id"
_BESIDE = {
    "conversation": f"SELECT i.*, to_json(c)::text AS row {_OF_CASES} JOIN circuit.conversation c {_OWN}",
    "message": (
        f"SELECT i.*, to_json(m)::text AS row {_OF_CASES} JOIN circuit.conversation c {_OWN}"
        " JOIN circuit.message m ON m.tenant_id = c.tenant_id AND m.conversation_id = c.conversation_id"
    ),
    "budget": (
        f"SELECT i.*, to_json(b)::text AS row {_OF_CASES} JOIN circuit.budget b"
        " ON b.tenant_id = i.tenant_id AND b.scope = 'case' AND b.subject = i.case_id::text"
    ),
    "artefact": (
        f"SELECT i.*, to_json(a)::text AS row {_OF_CASES} JOIN circuit.artefact_use c {_OWN}"
        " JOIN circuit.artefact a ON a.tenant_id = c.tenant_id AND a.hash = c.hash"
    ),
}
ARCHIVED = (*PARTITIONED, *_BESIDE)
"""The tables whose rows go with their case, beside the table of cases itself."""
# What lies in the default partition of cases that are gone: there is no partition to drop. The week has none of its
# own any more, so its range leads to the default partition and nowhere else.
_DELETE_LEFT = """
DELETE FROM circuit.{table} t
WHERE t.case_id >= $1 AND t.case_id < $2 AND t.ctid = ANY(ARRAY(
    SELECT d.ctid FROM circuit.{table} d
    WHERE d.case_id >= $1 AND d.case_id < $2 AND NOT EXISTS (
        SELECT 1 FROM circuit."case" c WHERE c.tenant_id = d.tenant_id AND c.case_id = d.case_id
    )
    LIMIT $3
))
"""
_WEEKS = "SELECT * FROM circuit.archive_week ORDER BY week, round"


@dataclass(frozen=True, slots=True)
class ArchiveRow:
    """A week that is, or was, on its way out. `kept` are the cases of the week that stay in the database."""

    week: str
    round: int
    lower: UUID
    upper: UUID
    state: str
    folder: str | None
    cases: int
    kept: tuple[CaseKey, ...]
    manifest: Mapping[str, Any]
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """The cases of a week: how many there are, how many are open, ended too lately, failed; `staying` are some of
    those that would stay, with their status, and `staying_events` how long the histories of all of those are;
    `untaken` are cases with events that consumers of the outbox have not taken."""

    cases: int
    open: int
    fresh: int
    failed: int
    staying_events: int
    staying: tuple[tuple[CaseKey, str], ...]
    untaken: tuple[CaseKey, ...]


async def lock(conn: Connection) -> bool:
    """Whether this connection is the one that archives now; it is until it closes."""
    return await conn.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)


async def unlock(conn: Connection) -> None:
    """Let others archive."""
    await conn.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def oldest_week(conn: Connection) -> datetime | None:
    """An instant in the week in which the oldest case was born, or None if there are no cases."""
    case = await conn.fetchval(_OLDEST)
    return None if case is None else born(rows.plain(case))


def weeks(oldest: datetime, cutoff: datetime) -> list[Week]:
    """The weeks from that of `oldest` on that were over before `cutoff`."""
    found: list[Week] = []
    instant = oldest
    while born(week_of(instant).upper) <= cutoff:
        found.append(week_of(instant))
        instant += timedelta(weeks=1)
    return found


async def standing(conn: Connection, week: Week, cutoff: datetime, keep_failed: bool, most: int) -> Standing:
    """Whether a week can go."""
    counts = await conn.fetchrow(
        _STANDING.format(open=_OPEN, stays=_STAYS), week.lower, week.upper, cutoff, keep_failed
    )
    assert counts is not None
    staying = await conn.fetch(_STAYING, week.lower, week.upper, cutoff, keep_failed, most)
    untaken = await conn.fetch(_UNTAKEN, week.lower, week.upper)
    return Standing(
        counts["cases"],
        counts["open"],
        counts["fresh"],
        counts["failed"],
        counts["staying_events"],
        tuple((rows.key(row), row["status"]) for row in staying),
        tuple(rows.key(row) for row in untaken),
    )


async def known(conn: Connection) -> list[ArchiveRow]:
    """All weeks that are or were on their way out."""
    return [_archive(row) for row in await conn.fetch(_WEEKS)]


async def close(conn: Connection, week: Week, round_: int, kept: Sequence[CaseKey]) -> None:
    """Nothing is added to the cases of this week from now on, but to those that stay."""
    await conn.execute(
        "INSERT INTO circuit.archive_week (week, round, lower_bound, upper_bound, state, kept)"
        " VALUES ($1, $2, $3, $4, 'closing', $5)"
        " ON CONFLICT (week, round) DO UPDATE SET state = 'closing', kept = excluded.kept",
        week.suffix,
        round_,
        week.lower,
        week.upper,
        orjson.dumps([[key.tenant, str(key.case)] for key in kept]).decode(),
    )


async def note_streams(conn: Connection, week: Week, round_: int) -> None:
    """The frames of this week are about to be dropped, and its cases stay."""
    await conn.execute(
        "INSERT INTO circuit.archive_week (week, round, lower_bound, upper_bound, state)"
        " VALUES ($1, $2, $3, $4, 'streams') ON CONFLICT (week, round) DO NOTHING",
        week.suffix,
        round_,
        week.lower,
        week.upper,
    )


async def transaction_number(conn: Connection) -> int:
    """A number above those of all transactions that are under way."""
    return await conn.fetchval("SELECT pg_current_xact_id()::text::int8")


async def all_before_ended(conn: Connection, number: int) -> bool:
    """Whether all transactions below `number` have ended."""
    return await conn.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8 >= $1", number)


async def settle(
    conn: Connection, week: str, round_: int, state: str, *, folder: str, manifest: Mapping[str, Any], cases: int
) -> None:
    """The next state of a week."""
    await conn.execute(
        "UPDATE circuit.archive_week SET state = $3, folder = $4, manifest = $5, cases = $6,"
        " finished_at = CASE WHEN $3 = 'dropped' THEN now() END WHERE week = $1 AND round = $2",
        week,
        round_,
        state,
        folder,
        orjson.dumps(manifest).decode(),
        cases,
    )


async def moved(conn: Connection, week: str, round_: int, folder: str, manifest: Mapping[str, Any]) -> None:
    """Say where the files of a week lie now, and what they are."""
    await conn.execute(
        "UPDATE circuit.archive_week SET folder = $3, manifest = $4 WHERE week = $1 AND round = $2",
        week,
        round_,
        folder,
        orjson.dumps(manifest).decode(),
    )


async def tenants(conn: Connection) -> list[int]:
    """Who has cases."""
    found = await conn.fetch(f"{_TENANTS} SELECT tenant_id FROM tenants WHERE tenant_id IS NOT NULL ORDER BY 1")
    return [row["tenant_id"] for row in found]


async def page(
    conn: Connection, tenant: int, after: UUID, upper: UUID, kept: Sequence[UUID]
) -> list[tuple[CaseKey, str]]:
    """The next finished cases of a tenant behind `after`, each with its row as JSON."""
    found = await conn.fetch(_PAGE, tenant, after, upper, list(kept), PAGE_CASES)
    cut: list[tuple[CaseKey, str]] = []
    events = 0
    for row in found:
        events += row["seq"]
        if cut and events > PAGE_EVENTS:
            break
        cut.append((rows.key(row), row["row"]))
    return cut


async def rows_of(conn: Connection, table: str, keys: Sequence[CaseKey]) -> list[tuple[CaseKey, str]]:
    """All rows of these cases in one of the tables in `ARCHIVED`, as JSON."""
    if table not in ARCHIVED:
        raise ValueError(table)
    query = _BESIDE.get(table) or f"SELECT i.*, to_json(c)::text AS row {_OF_CASES} JOIN circuit.{table} c {_OWN}"
    found = await conn.fetch(query, [key.tenant for key in keys], [key.case for key in keys])
    return [(rows.key(row), row["row"]) for row in found]


async def keys_page(conn: Connection, after: tuple[int, str]) -> list[tuple[int, str, UUID, str]]:
    """The next idempotency keys of starts behind `after`: tenant, key, case, and the row as JSON."""
    found = await conn.fetch(_KEYS, *after, KEY_PAGE)
    return [(row["tenant_id"], row["key"], rows.plain(row["case_id"]), row["row"]) for row in found]


async def delete_keys(conn: Connection, keys: Sequence[tuple[int, str]]) -> None:
    """Forget these idempotency keys."""
    await conn.execute(_DELETE_KEYS, [tenant for tenant, _ in keys], [key for _, key in keys])


async def delete_cases(conn: Connection, tenant: int, lower: UUID, upper: UUID, kept: Sequence[UUID]) -> int:
    """Delete the rows of some finished cases of a week; how many."""
    return await conn.fetchval(_DELETE_CASES, tenant, lower, upper, list(kept), DELETED_AT_ONCE)


async def retire(conn: Connection, table: str, week: str, lower: UUID, upper: UUID) -> int | None:
    """Drop the week's partition of a table; how many rows of cases that stay were carried over. None if others have
    the table locked: try again."""
    try:
        return await conn.fetchval("SELECT circuit.retire_partition($1, $2, $3, $4)", table, week, lower, upper)
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        return None


async def delete_left(conn: Connection, table: str, lower: UUID, upper: UUID) -> bool:
    """Delete some rows of cases that are gone from a default partition. Returns whether there may be more."""
    if table not in PARTITIONED:
        raise ValueError(table)
    done = await conn.execute(_DELETE_LEFT.format(table=table), lower, upper, DELETED_AT_ONCE)
    return int(done.split()[-1]) >= DELETED_AT_ONCE


def born(case: UUID) -> datetime:
    """When a case was born."""
    return datetime.fromtimestamp((case.int >> 80) / 1000, tz=UTC)


def _archive(row: Record) -> ArchiveRow:
    return ArchiveRow(
        row["week"],
        row["round"],
        rows.plain(row["lower_bound"]),
        rows.plain(row["upper_bound"]),
        row["state"],
        row["folder"],
        row["cases"],
        tuple(CaseKey(int(tenant), UUID(case)) for tenant, case in rows.document(row["kept"])),
        rows.document(row["manifest"]),
        row["started_at"],
        row["finished_at"],
    )
