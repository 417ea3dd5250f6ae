"""Where the live cases of a workflow stand: their tokens and what is under way, a page at a time (under a tenant's row
security)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage import artefacts, rows, tables
from circuit.storage.records import CaseRow, CaseStatus, FiringRow, FiringState

_OVER = [status.value for status in CaseStatus if status.terminal]
_LIVE = [state.value for state in FiringState if state.live]


class Standing(NamedTuple):
    """A live case, with its tokens and its live firings."""

    key: CaseKey
    row: CaseRow
    tokens: Sequence[Token]
    firings: Sequence[FiringRow]


async def live_cases(
    conn: AsyncConnection,
    tenant: int,
    workflow_id: str,
    *,
    version: str | None,
    other_than: str,
    after: UUID | None = None,
    only: UUID | None = None,
    limit: int = 100,
) -> list[Standing]:
    """Up to `limit` live cases of a workflow that are on `version` (any, if None) and not on `other_than`, the oldest
    first, behind the case `after`; or of these only the case `only`.

    A case that goes on meanwhile may come with tokens that are younger than its row, never with older ones: who acts on
    what he reads names the `seq` of the row, and the owner refuses what has gone on since.
    """
    case = tables.case
    query = (
        select(case)
        .where(case.c.tenant_id == tenant, case.c.workflow_id == workflow_id, case.c.workflow_hash != other_than)
        .where(case.c.status.not_in(_OVER))
        .order_by(case.c.case_id)
        .limit(limit)
    )
    if version is not None:
        query = query.where(case.c.workflow_hash == version)
    if after is not None:
        query = query.where(case.c.case_id > after)
    if only is not None:
        query = query.where(case.c.case_id == only)
    found = list((await conn.execute(query)).mappings())
    ids = [row["case_id"] for row in found]
    tokens: dict[UUID, list[Token]] = {}
    firings: dict[UUID, list[FiringRow]] = {}
    for row in await _of_cases(conn, tables.token, tenant, ids):
        tokens.setdefault(row["case_id"], []).append(rows.token(row))
    for row in await _of_cases(conn, tables.firing, tenant, ids):
        if row["state"] in _LIVE:
            firings.setdefault(row["case_id"], []).append(rows.firing(row))
    return [
        Standing(rows.key(row), rows.case_row(row), tokens.get(row["case_id"], ()), firings.get(row["case_id"], ()))
        for row in found
    ]


async def _of_cases(
    conn: AsyncConnection, table: Table, tenant: int, cases: Sequence[UUID]
) -> Sequence[Mapping[str, Any]]:
    if not cases:
        return []
    found = await conn.execute(
        select(table).where(table.c.tenant_id == tenant, table.c.case_id.in_(cases)).order_by(table.c.number)
    )
    return await artefacts.resolved(conn, tenant, found.mappings())
