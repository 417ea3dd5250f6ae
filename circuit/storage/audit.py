"""What `circuit fsck` reads: cases with all their rows, page by page, under the engine's role, and nothing is written.

A page is a range of the primary key of `case`, so that rows of cases that do not exist (any more) are found between
its bounds. The reads of one page belong into one snapshot (`snapshot`), or a case would be seen half before and half
after a step of its owner.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from circuit.ids import CaseKey
from circuit.storage import archive, artefacts, rows
from circuit.storage.archive import ArchiveRow
from circuit.storage.driver import Connection, Record
from circuit.storage.payloads import MARK
from circuit.storage.tables import PARTITIONED

PAGE_CASES = 100
PAGE_EVENTS = 5_000
FIRST = CaseKey(-(2**31), UUID(int=0))
"""Stands before every case."""
LAST = CaseKey(2**31 - 1, UUID(int=2**128 - 1))

# The tables may have no statistics yet: one look into the primary key for each case, and nothing else.
_PLANNER = """
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET plan_cache_mode = force_custom_plan
"""

_PAGE = """
SELECT t.*, w.id AS worker_id, w.fenced, r.due_at AS ready_at, r.bucket AS ready_bucket, now() AS now,
    extract(epoch FROM now() - l.expires_at)::float8 AS lease_over_seconds
FROM (
    SELECT * FROM circuit."case" c
    WHERE (c.tenant_id, c.case_id) > ($1, $2) AND (c.tenant_id, c.case_id) <= ($3, $4)
        AND ($6::float8 >= 1 OR (hashtextextended(c.case_id::text, $7::int8) & 1048575) < $6::float8 * 1048576)
    ORDER BY c.tenant_id, c.case_id LIMIT $5
) t
LEFT JOIN circuit.worker w ON w.id = t.owner
LEFT JOIN circuit.worker_lease l ON l.worker_id = t.owner
LEFT JOIN circuit.ready r ON r.tenant_id = t.tenant_id AND r.case_id = t.case_id
ORDER BY t.tenant_id, t.case_id
"""
_STAY = "LOCK TABLE ONLY " + ", ONLY ".join(f"circuit.{table}" for table in PARTITIONED) + " IN ACCESS SHARE MODE"
_COUNT = """
SELECT count(*) FROM circuit."case" c WHERE (c.tenant_id, c.case_id) > ($1, $2) AND (c.tenant_id, c.case_id) <= ($3, $4)
"""


def _of_cases(what: str, table: str, tail: str = "") -> str:
    return (
        f"SELECT {what} FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id) JOIN circuit.{table} t"
        f" ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id {tail}"
    )


_KEY = "t.tenant_id, t.case_id"
# A payload from which something large was put aside begins with its mark.
_LARGE = f"""WHERE starts_with(t.value::text, '{{"{MARK}"')"""
_SAID = (
    "JOIN circuit.message m ON m.tenant_id = t.tenant_id AND m.conversation_id = t.conversation_id"
    f""" WHERE starts_with(m.parts::text, '{{"{MARK}"')"""
)
_ROWS = {
    "token": _of_cases("t.*", "token", "ORDER BY t.number"),
    "firing": _of_cases("t.*", "firing", "ORDER BY t.number"),
    "execution": _of_cases("t.*", "execution", "ORDER BY t.firing"),
    "incident": _of_cases("t.*", "incident", "ORDER BY t.number"),
    "awaited_message": _of_cases("t.*", "awaited_message", "ORDER BY t.transition, t.name, t.key"),
    "budget": "SELECT i.tenant_id, i.case_id, t.since, t.spent_calls, t.spent_tokens, t.spent_microdollars"
    " FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id) JOIN circuit.budget t"
    " ON t.tenant_id = i.tenant_id AND t.scope = 'case' AND t.subject = i.case_id::text",
    "charge": _of_cases("t.*", "charge", "AND t.payer IS NULL ORDER BY t.firing, t.start, t.number"),
    "command": _of_cases("t.tenant_id, t.case_id, t.command_id, t.kind, t.state, t.settled_at, t.result", "command"),
    "journal": _of_cases(
        "t.tenant_id, t.case_id, t.firing, t.step, max(t.attempt) AS attempt, count(*) AS answers,"
        " count(DISTINCT t.attempt) AS attempts",
        "journal",
        "GROUP BY 1, 2, 3, 4",
    ),
    "stream_event": _of_cases(
        "t.tenant_id, t.case_id, t.firing, t.start, sum(t.seq - coalesce(t.first_seq, t.seq) + 1) AS frames,"
        " min(coalesce(t.first_seq, t.seq)) AS least, max(t.seq) AS most,"
        " count(*) FILTER (WHERE json_array_length(t.lengths) <> t.seq - t.first_seq + 1) AS broken,"
        " count(*) FILTER (WHERE t.type IN ('completed', 'failed')) AS ends,"
        " max(t.seq) FILTER (WHERE t.type IN ('completed', 'failed')) AS last_end",
        "stream_event",
        "GROUP BY 1, 2, 3, 4 ORDER BY 3, 4",
    ),
    "artefact_use": _of_cases(
        "t.*, a.hash IS NOT NULL AS there,"
        " a.hash = encode(sha256(convert_to(a.content::text, 'UTF8')), 'hex') AS right",
        "artefact_use",
        "LEFT JOIN circuit.artefact a ON a.tenant_id = t.tenant_id AND a.hash = t.hash ORDER BY t.hash",
    ),
    "referring": _of_cases(f"{_KEY}, 'journal' AS of, t.firing AS number, t.step AS part, t.value", "journal", _LARGE)
    + " UNION ALL "
    + _of_cases(f"{_KEY}, 'message', m.seq, m.conversation_id::text, m.parts", "conversation", _SAID),
}
_PAYLOADS = {"token": ("data", "metadata"), "firing": ("request", "awaits")}
"""What of these rows may refer to artefacts. (Of journals and messages it is looked at only whether it does.)"""
_HISTORY = _of_cases("t.tenant_id, t.case_id, t.seq, t.kind, t.at, t.body", "history", "ORDER BY 1, 2, 3 LIMIT $3")
_HISTORY_OF_ONE = """
SELECT t.tenant_id, t.seq, t.kind, t.at, t.body FROM circuit.history t
WHERE t.tenant_id = $1 AND t.case_id = $2 AND t.seq > $3 ORDER BY t.seq LIMIT $4
"""
_VERSION = "SELECT document FROM circuit.workflow_version WHERE tenant_id = $1 AND workflow_id = $2 AND hash = $3"

# Between the bounds of a page lie the rows of its cases and those of no case.
_STRAYS = " UNION ALL ".join(
    f"""
    (SELECT '{table}' AS "table", t.tenant_id, t.case_id, count(*) AS rows FROM circuit.{table} t
    WHERE (t.tenant_id, t.case_id) > ($1, $2) AND (t.tenant_id, t.case_id) <= ($3, $4)
        AND NOT EXISTS (SELECT 1 FROM circuit."case" c WHERE c.tenant_id = t.tenant_id AND c.case_id = t.case_id)
    GROUP BY 2, 3 LIMIT 100)"""
    for table in (*PARTITIONED, "ready")
)
_WORKERS = """
SELECT w.id, w.fenced, w.retired_at, w.started_at, l.worker_id IS NOT NULL AS leased,
    coalesce(l.expires_at > now(), false) AS alive,
    extract(epoch FROM now() - l.expires_at)::float8 AS lease_over_seconds,
    extract(epoch FROM now() - w.started_at)::float8 AS age_seconds,
    (SELECT count(*) FROM circuit."case" c WHERE c.owner = w.id) AS cases
FROM circuit.worker w LEFT JOIN circuit.worker_lease l ON l.worker_id = w.id
ORDER BY w.started_at, w.id
"""
_STRAY_LEASES = """
SELECT l.worker_id FROM circuit.worker_lease l
WHERE NOT EXISTS (SELECT 1 FROM circuit.worker w WHERE w.id = l.worker_id)
"""
_DEAD_ROWS = """
SELECT relname AS table, n_live_tup AS live, n_dead_tup AS dead FROM pg_stat_user_tables
WHERE schemaname = 'circuit' AND n_dead_tup > 10000 AND n_dead_tup > n_live_tup ORDER BY relname
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which cases: those after `after` up to and with `upto`, and of them a share drawn by `seed`."""

    after: CaseKey = FIRST
    upto: CaseKey = LAST
    share: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, tenant: int | None, case: UUID | None = None, share: float = 1.0, seed: int = 0) -> Scope:
        """All cases, those of one tenant, or one case of a tenant."""
        if tenant is None:
            return cls(share=share, seed=seed)
        if case is None:
            return cls(CaseKey(tenant - 1, LAST.case), CaseKey(tenant, LAST.case), share, seed)
        return cls(CaseKey(tenant, UUID(int=max(case.int - 1, 0))), CaseKey(tenant, case))


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case with its rows as they are stored, by table; `row` has what is known of its owner beside its own columns
    (`fenced`, `lease_over_seconds`), when it is `ready_at`, and the snapshot's time, `now`."""

    key: CaseKey
    row: Record
    rows: Mapping[str, Sequence[Record]]

    @property
    def now(self) -> datetime:
        return self.row["now"]


@dataclass(frozen=True, slots=True)
class Page:
    """The cases of a page in the order of their keys, all rows of no case between its bounds (table, key, how many),
    and whether it is the last one."""

    cases: list[StoredCase]
    strays: list[tuple[str, CaseKey, int]]
    upto: CaseKey
    last: bool
    events: Mapping[CaseKey, list[Record]] = field(default_factory=dict[CaseKey, list[Record]])


async def prepare(conn: Connection) -> None:
    """Set a connection up for these reads."""
    await conn.execute(_PLANNER)


@asynccontextmanager
async def snapshot(conn: Connection) -> AsyncGenerator[None]:
    """One snapshot for all that is read within, and no right to write.

    The locks come before the snapshot: no partition goes while it lasts, and it sees all that went before.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await conn.execute(_STAY)
        yield


async def leaving(conn: Connection) -> list[ArchiveRow]:
    """Weeks that are on their way out, or whose streams are gone."""
    return [row for row in await archive.known(conn) if row.state in ("streams", "closing", "written")]


async def count(conn: Connection, scope: Scope) -> int:
    """How many cases there are (before a share is drawn)."""
    return await conn.fetchval(_COUNT, *scope.after, *scope.upto)


async def page(conn: Connection, scope: Scope, after: CaseKey) -> Page:
    """The next cases behind `after`: up to `PAGE_CASES`, and fewer if their histories are long."""
    found = await conn.fetch(_PAGE, *after, *scope.upto, PAGE_CASES, float(scope.share), scope.seed)
    cut = _cut(found)
    last = cut == len(found) < PAGE_CASES
    upto = scope.upto if last else rows.key(found[cut - 1])
    found = found[:cut]
    keys = [rows.key(row) for row in found]
    by_table: dict[str, dict[CaseKey, list[Record]]] = {name: {} for name in _ROWS}
    events: dict[CaseKey, list[Record]] = {}
    if keys:
        arrays = ([key.tenant for key in keys], [key.case for key in keys])
        for name, query in _ROWS.items():
            fetched = await conn.fetch(query, *arrays)
            _group(await artefacts.read(conn, fetched, *_PAYLOADS.get(name, ())), by_table[name])
        limit = 2 * PAGE_EVENTS
        if sum(row["seq"] for row in found) <= PAGE_EVENTS:
            history = await artefacts.read(conn, await conn.fetch(_HISTORY, *arrays, limit), "body")
            if len(history) < limit:
                events = {key: [] for key in keys}
                _group(history, events)
    cases = [
        StoredCase(key, row, {name: grouped.get(key, []) for name, grouped in by_table.items()})
        for key, row in zip(keys, found, strict=True)
    ]
    strays: list[tuple[str, CaseKey, int]] = []
    if scope.share >= 1:
        found = await conn.fetch(_STRAYS, *after, *upto)
        strays = [(row["table"], rows.key(row), row["rows"]) for row in found]
    return Page(cases, strays, upto, last, events)


async def history(conn: Connection, read: Page, key: CaseKey) -> AsyncGenerator[Record]:
    """The history of one case of a page, however long it is."""
    if key in read.events:
        for event in read.events[key]:
            yield event
        return
    seq = -(2**31)
    while True:
        found = await artefacts.read(conn, await conn.fetch(_HISTORY_OF_ONE, *key, seq, PAGE_EVENTS), "body")
        for event in found:
            yield event
        if len(found) < PAGE_EVENTS:
            return
        seq = found[-1]["seq"]


async def document(conn: Connection, tenant: int, workflow_id: str, version: str) -> Mapping[str, Any] | None:
    """The document of a workflow version, or None if it is not stored."""
    found = await conn.fetchval(_VERSION, tenant, workflow_id, version)
    return None if found is None else orjson.loads(found)


async def workers(conn: Connection) -> list[Record]:
    """All incarnations with their leases and how many cases they own."""
    return await conn.fetch(_WORKERS)


async def stray_leases(conn: Connection) -> list[UUID]:
    """Leases of incarnations that are not there."""
    return [rows.plain(row["worker_id"]) for row in await conn.fetch(_STRAY_LEASES)]


async def dead_rows(conn: Connection) -> list[Record]:
    """Tables with more dead rows than living ones, as far as Postgres has counted."""
    return await conn.fetch(_DEAD_ROWS)


def _cut(found: Sequence[Record]) -> int:
    """How many of these cases go into one page: their histories are read together."""
    events = 0
    for place, row in enumerate(found):
        events += row["seq"]
        if events > PAGE_EVENTS:
            return max(place, 1)
    return len(found)


def _group(found: Sequence[Record], grouped: dict[CaseKey, list[Record]]) -> None:
    for row in found:
        grouped.setdefault(rows.key(row), []).append(row)
