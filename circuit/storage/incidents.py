"""What of a tenant's cases waits for somebody: open incidents and dead-lettered tokens (under its row security)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage import artefacts, rows, tables
from circuit.storage.records import IncidentRow


class OpenIncident(NamedTuple):
    """An incident with its case."""

    key: CaseKey
    workflow_id: str
    row: IncidentRow


class DeadLetter(NamedTuple):
    """A token that lies in a dead-letter place, with its case."""

    key: CaseKey
    workflow_id: str
    token: Token


async def open_incidents(
    conn: AsyncConnection,
    tenant: int,
    *,
    workflow_id: str | None = None,
    code: str | None = None,
    limit: int = 100,
    after: tuple[UUID, int] | None = None,
    since_before: datetime | None = None,
    case_id: UUID | None = None,
) -> list[OpenIncident]:
    """Up to `limit` open incidents by case and number, from the first one after `after`, raised at `since_before` or
    earlier."""
    incident, case = tables.incident, tables.case
    query = (
        select(incident, case.c.workflow_id)
        .join(case, and_(case.c.tenant_id == incident.c.tenant_id, case.c.case_id == incident.c.case_id))
        .where(incident.c.tenant_id == tenant, incident.c.resolved_at.is_(None))
        .order_by(incident.c.case_id, incident.c.number)
        .limit(limit)
    )
    if workflow_id is not None:
        query = query.where(case.c.workflow_id == workflow_id)
    if case_id is not None:
        query = query.where(incident.c.case_id == case_id)
    if code is not None:
        query = query.where(incident.c.code == code)
    if since_before is not None:
        query = query.where(incident.c.raised_at <= since_before)
    if after is not None:
        query = query.where(tuple_(incident.c.case_id, incident.c.number) > tuple_(*after))
    found = await conn.execute(query)
    return [OpenIncident(rows.key(row), row["workflow_id"], rows.incident(row)) for row in found.mappings()]


# Which places are for dead letters belongs to the version that the case runs.
_DEAD = """
SELECT t.*, c.workflow_id
FROM circuit."case" c
JOIN circuit.workflow_version v
    ON v.tenant_id = c.tenant_id AND v.workflow_id = c.workflow_id AND v.hash = c.workflow_hash
CROSS JOIN LATERAL json_each(v.document -> 'places') AS p (name, place)
JOIN circuit.token t ON t.tenant_id = c.tenant_id AND t.case_id = c.case_id AND t.place = p.name
WHERE c.tenant_id = :tenant AND c.status NOT IN ('completed', 'failed', 'cancelled')
    AND p.place ->> 'dead_letter' = 'true' AND t.reserved_by IS NULL {where}
ORDER BY t.case_id, t.number
LIMIT :limit
"""


async def dead_letters(
    conn: AsyncConnection,
    tenant: int,
    *,
    workflow_id: str | None = None,
    code: str | None = None,
    limit: int = 100,
    after: tuple[UUID, int] | None = None,
    since_before: datetime | None = None,
) -> list[DeadLetter]:
    """Up to `limit` tokens in dead-letter places of live cases, by case and number, from the first one after `after`;
    `code` is that of the error for which they lie there, and they came at `since_before` or earlier."""
    where = ""
    given: dict[str, Any] = {"tenant": tenant, "limit": limit}
    if workflow_id is not None:
        where += " AND c.workflow_id = :workflow"
        given["workflow"] = workflow_id
    if code is not None:
        where += " AND t.metadata -> 'failure' ->> 'code' = :code"
        given["code"] = code
    if since_before is not None:
        where += " AND t.entered_at <= :since_before"
        given["since_before"] = since_before
    if after is not None:
        where += " AND (t.case_id, t.number) > (:after_case, :after_number)"
        given["after_case"], given["after_number"] = after
    found = await conn.execute(text(_DEAD.format(where=where)), given)
    laid = await artefacts.resolved(conn, tenant, found.mappings())
    return [DeadLetter(rows.key(row), row["workflow_id"], rows.token(row)) for row in laid]
