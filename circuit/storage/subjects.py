"""Whom cases are about, all rows of such cases, and what an erasure changes of them.

`link` and what it is made of run in a transaction of a tenant; everything else under the engine's role.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Uuid, exists, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.storage import archive, rows
from circuit.storage.driver import Connection
from circuit.storage.tables import case, case_subject

ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A case that is about a subject. `status` is None where the case is not in the database (any more)."""

    case: UUID
    status: str | None
    workflow_id: str | None
    owned: bool
    erased_at: datetime | None


def digest(subject: str) -> bytes:
    """What is stored of a subject's name."""
    return sha256(subject.encode()).digest()


async def link(conn: AsyncConnection, key: CaseKey, subjects: Collection[str], by: str) -> None:
    """Say whom a case is about. Twice is fine."""
    if subjects:
        given = [
            {"tenant_id": key.tenant, "subject": digest(one), "case_id": key.case, "added_by": by} for one in subjects
        ]
        await conn.execute(insert(case_subject).values(given).on_conflict_do_nothing())


async def inherit(conn: AsyncConnection, source: CaseKey, key: CaseKey, by: str) -> None:
    """Let a case be about those whom another one is about: it has what that one had."""
    table = case_subject.c
    found = select(table.tenant_id, table.subject, literal(key.case, Uuid), literal(by)).where(
        table.tenant_id == source.tenant, table.case_id == source.case
    )
    await conn.execute(
        insert(case_subject)
        .from_select(["tenant_id", "subject", "case_id", "added_by"], found)
        .on_conflict_do_nothing()
    )


async def is_there(conn: AsyncConnection, key: CaseKey) -> bool:
    """Whether there is such a case."""
    return bool(await conn.scalar(select(exists().where(case.c.tenant_id == key.tenant, case.c.case_id == key.case))))


# Cases that those of the subject opened: they have rows of their own, but for those of a parent that was named later.
_LINKED = """
WITH RECURSIVE named AS (
    SELECT s.case_id, s.erased_at FROM circuit.case_subject s WHERE s.tenant_id = $1 AND s.subject = $2
),
kin AS (
    SELECT n.case_id FROM named n
    UNION
    SELECT c.case_id FROM kin k JOIN circuit."case" c ON c.tenant_id = $1 AND c.parent_case = k.case_id
)
SELECT k.case_id, c.status, c.workflow_id, c.owner IS NOT NULL AS owned, n.erased_at
FROM kin k
LEFT JOIN named n ON n.case_id = k.case_id
LEFT JOIN circuit."case" c ON c.tenant_id = $1 AND c.case_id = k.case_id
ORDER BY k.case_id
"""
_OVER = """
SELECT c.status IN ('completed', 'failed', 'cancelled') AND c.owner IS NULL
FROM circuit."case" c WHERE c.tenant_id = $1 AND c.case_id = $2
"""
_LOCK = 'SELECT FROM circuit."case" c WHERE c.tenant_id = $1 AND c.case_id = $2 FOR UPDATE'
_OF_CASES = "FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)"
_OWN = "ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id"
# What is said in a case may have been copied to forks of its conversation, which belong to other cases or to none.
_BESIDE = {
    "case": f'SELECT to_json(t)::text AS row {_OF_CASES} JOIN circuit."case" t {_OWN}',
    "sent_message": f"SELECT to_json(t)::text AS row {_OF_CASES} JOIN circuit.sent_message t {_OWN}",
    "message": f"""
        WITH RECURSIVE spoken AS (
            SELECT t.tenant_id, t.conversation_id {_OF_CASES} JOIN circuit.conversation t {_OWN}
            UNION
            SELECT t.tenant_id, t.conversation_id
            FROM spoken s JOIN circuit.conversation t
                ON t.tenant_id = s.tenant_id AND t.forked_from = s.conversation_id
        )
        SELECT to_json(m)::text AS row
        FROM spoken s JOIN circuit.message m
            ON m.tenant_id = s.tenant_id AND m.conversation_id = s.conversation_id
        WHERE m.case_id = ANY($2::uuid[]) OR EXISTS (
            SELECT FROM circuit.conversation c WHERE c.tenant_id = s.tenant_id
                AND c.conversation_id = s.conversation_id AND c.case_id = ANY($2::uuid[])
        )
    """,
}
_KEYS: Mapping[str, Mapping[str, str]] = {
    "case": {},
    "token": {"number": "int4"},
    "history": {"seq": "int4"},
    "firing": {"number": "int4"},
    "journal": {"firing": "int4", "attempt": "int4", "step": "text"},
    "execution": {"firing": "int4"},
    "stream_event": {"firing": "int4", "start": "int4", "seq": "int4"},
    "command": {"command_id": "uuid"},
    "incident": {"number": "int4"},
    "feedback": {"feedback_id": "uuid"},
    "message": {"conversation_id": "uuid", "seq": "int4"},
    "sent_message": {"message_id": "uuid"},
}
"""By what a row is found, beside its tenant and its case (which rows of conversations need not have)."""
_APART = ("message", "sent_message")
_TYPES: Mapping[str, Mapping[str, str]] = {
    "history": {"body": "json"},
    "journal": {"value": "json"},
    "stream_event": {"frame": "text", "lengths": "json"},
    "incident": {"message": "text"},
    "feedback": {"comment": "text"},
    "message": {"parts": "json"},
    "sent_message": {"key": "text"},
}
_EMPTY_CACHE = "DELETE FROM circuit.cached_answer WHERE tenant_id = $1"
_MARK = """
UPDATE circuit.case_subject SET erased_at = now()
WHERE tenant_id = $1 AND case_id = $2 AND erased_at IS NULL
"""
_UNTAKEN = """
DELETE FROM circuit.sent_message
WHERE tenant_id = $1 AND state IN ('kept', 'refused', 'expired') AND case_id IS NULL AND key <> ''
    AND key::jsonb ? $2
"""
_FORGET_STRAYS = """
DELETE FROM circuit.case_subject s
WHERE s.tenant_id = $1 AND s.case_id = ANY($2::uuid[])
    AND NOT EXISTS (SELECT FROM circuit."case" c WHERE c.tenant_id = s.tenant_id AND c.case_id = s.case_id)
"""


async def linked(conn: Connection, tenant: int, subject: str) -> list[LinkRow]:
    """The cases that are about a subject, and those that they opened, the oldest first."""
    return [
        LinkRow(rows.plain(row["case_id"]), row["status"], row["workflow_id"], row["owned"], row["erased_at"])
        for row in await conn.fetch(_LINKED, tenant, digest(subject))
    ]


async def over(conn: Connection, key: CaseKey) -> bool | None:
    """Whether a case is over, and nobody writes to it; None if it is not there."""
    return await conn.fetchval(_OVER, key.tenant, key.case)


async def lock(conn: Connection, key: CaseKey) -> None:
    """Keep others from changing a case."""
    await conn.execute(_LOCK, key.tenant, key.case)


async def rows_of(conn: Connection, table: str, key: CaseKey) -> list[dict[str, Any]]:
    """The rows of a case in a table, as JSON has them."""
    query = _BESIDE.get(table)
    if query is None:
        return [orjson.loads(text) for _, text in await archive.rows_of(conn, table, [key])]
    return [orjson.loads(row["row"]) for row in await conn.fetch(query, [key.tenant], [key.case])]


async def change(
    conn: Connection, table: str, key: CaseKey, changes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> None:
    """Change rows of a case: each is a row as it was, and its new columns."""
    columns = sorted({column for _, changed in changes for column in changed})
    if not columns:
        return
    keys = _KEYS[table]
    named = {"tenant_id": "int4", **({} if table in _APART else {"case_id": "uuid"}), **keys}
    types = {column: _TYPES.get(table, {}).get(column, "jsonb") for column in columns}
    given = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(named.values(), 1))
    texts = ", ".join(f"${place}::text[]" for place in range(len(named) + 1, len(named) + len(columns) + 1))
    names = ", ".join([*named, *(f"new_{column}" for column in columns)])
    query = (
        f'UPDATE circuit."{table}" t SET '
        + ", ".join(f"{column} = i.new_{column}::{types[column]}" for column in columns)
        + f" FROM unnest({given}, {texts}) AS i({names}) WHERE "
        + " AND ".join(f"t.{name} = i.{name}" for name in named)
    )
    for start in range(0, len(changes), ROWS_AT_ONCE):
        some = changes[start : start + ROWS_AT_ONCE]
        identities = [[_typed(row[name], kind) for row, _ in some] for name, kind in named.items()]
        values = [
            [_text(changed.get(column, row[column]), types[column]) for row, changed in some] for column in columns
        ]
        await conn.execute(query, *identities, *values)


async def mark(conn: Connection, key: CaseKey) -> None:
    """Say that what a case held is erased, for all whom it is about."""
    await conn.execute(_MARK, key.tenant, key.case)


async def empty_cache(conn: Connection, tenant: int) -> int:
    """Forget all answers of models that are kept for identical requests: whose they are is not known. How many."""
    return int((await conn.execute(_EMPTY_CACHE, tenant)).split()[-1])


async def forget_untaken(conn: Connection, tenant: int, subject: str) -> int:
    """Delete messages that no case took and whose key names the subject. How many."""
    return int((await conn.execute(_UNTAKEN, tenant, subject)).split()[-1])


async def forget_strays(conn: Connection, tenant: int, cases: Sequence[UUID]) -> None:
    """Forget links to cases that are nowhere: the firing that was to open them did not."""
    await conn.execute(_FORGET_STRAYS, tenant, list(cases))


def _typed(value: Any, kind: str) -> Any:
    return UUID(value) if kind == "uuid" and isinstance(value, str) else value


def _text(value: Any, kind: str) -> str | None:
    return value if value is None or kind == "text" else orjson.dumps(value).decode()
