"""Pages of what cases have, of one case or of many in one statement (under a tenant's row security).

Whoever shows a list of cases with their tokens asks once for all of them: each case gives its own page, of at most
`limit` rows behind the number `after`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Table, Uuid, bindparam, column, func, literal, select, text, true, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.events import CaseEvent, decode_event
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage import artefacts, rows, tables
from circuit.storage.listing import Listed
from circuit.storage.records import ExecutionRow, FiringRow, IncidentRow


class LaidToken(NamedTuple):
    """A token with its case, and the firing that reserves it, if one does."""

    key: CaseKey
    token: Token
    holder: int | None


class RecordedEvent(NamedTuple):
    """An event with its case and its place there."""

    key: CaseKey
    seq: int
    at: datetime
    event: CaseEvent


class Ran(NamedTuple):
    """An execution with its case and its firing."""

    key: CaseKey
    workflow_id: str
    workflow_hash: str
    row: ExecutionRow
    firing: FiringRow | None


async def cases(conn: AsyncConnection, tenant: int, wanted: Sequence[UUID]) -> list[Listed]:
    """The rows of these cases; those that are not there are left out."""
    table = tables.case
    found = await conn.execute(
        select(table).where(table.c.tenant_id == tenant, table.c.case_id == func.any(_ids(wanted)))
    )
    return [Listed(rows.key(row), rows.case_row(row)) for row in found.mappings()]


async def tokens(conn: AsyncConnection, tenant: int, wanted: Sequence[UUID], after: int, limit: int) -> list[LaidToken]:
    """The tokens of these cases, by number."""
    found = await _page_of_each(conn, tables.token, "number", tenant, wanted, after, limit)
    return [LaidToken(rows.key(row), rows.token(row), row["reserved_by"]) for row in found]


async def token(conn: AsyncConnection, key: CaseKey, number: int) -> LaidToken | None:
    """One token where it lies, or None."""
    found = await tokens(conn, key.tenant, [key.case], number - 1, 1)
    return found[0] if found and found[0].token.number == number else None


async def markings(conn: AsyncConnection, tenant: int, wanted: Sequence[UUID]) -> list[tuple[UUID, str, int]]:
    """How many tokens lie in which place of these cases."""
    table = tables.token
    found = await conn.execute(
        select(table.c.case_id, table.c.place, func.count())
        .where(table.c.tenant_id == tenant, table.c.case_id == func.any(_ids(wanted)))
        .group_by(table.c.case_id, table.c.place)
        .order_by(table.c.case_id, func.min(table.c.number))
    )
    return [(rows.plain(case), place, count) for case, place, count in found]


async def events(
    conn: AsyncConnection, tenant: int, wanted: Sequence[UUID], after: int, limit: int
) -> list[RecordedEvent]:
    """The events of these cases, in order."""
    found = await _page_of_each(conn, tables.history, "seq", tenant, wanted, after, limit)
    return [
        RecordedEvent(rows.key(row), row["seq"], row["at"], decode_event(row["kind"], rows.document(row["body"])))
        for row in found
    ]


async def incidents(
    conn: AsyncConnection, tenant: int, wanted: Sequence[UUID], after: int, limit: int
) -> list[tuple[CaseKey, IncidentRow]]:
    """The incidents of these cases, by number, the resolved ones too."""
    found = await _page_of_each(conn, tables.incident, "number", tenant, wanted, after, limit)
    return [(rows.key(row), rows.incident(row)) for row in found]


async def executions(conn: AsyncConnection, tenant: int, wanted: Sequence[UUID], after: int, limit: int) -> list[Ran]:
    """The executions of these cases, by the number of their firing."""
    found = await _page_of_each(conn, tables.execution, "firing", tenant, wanted, after, limit)
    return await _with_firings(conn, tenant, found)


async def executions_of_agent(
    conn: AsyncConnection,
    tenant: int,
    *,
    case: UUID | None = None,
    agent: str | None = None,
    status: str | None = None,
    limit: int,
    before: tuple[UUID, int] | None = None,
) -> list[Ran]:
    """Executions of all cases, those of the youngest cases first; `before` is the last one of the page before."""
    table = tables.execution
    query = (
        select(table)
        .where(table.c.tenant_id == tenant)
        .order_by(table.c.case_id.desc(), table.c.firing.desc())
        .limit(limit)
    )
    if case is not None:
        query = query.where(table.c.case_id == case)
    if agent is not None:
        query = query.where(table.c.agent_id == agent)
    if status is not None:
        query = query.where(table.c.status == status)
    if before is not None:
        query = query.where(tuple_(table.c.case_id, table.c.firing) < tuple_(literal(before[0]), literal(before[1])))
    found = await conn.execute(query)
    return await _with_firings(conn, tenant, list(found.mappings()))


# What a firing took stands in its request, what it read too; what it produced stands in the event that ended it.
_OF_TOKEN = """
SELECT e.* FROM circuit.execution e
JOIN circuit.firing f ON f.tenant_id = e.tenant_id AND f.case_id = e.case_id AND f.number = e.firing
WHERE e.tenant_id = :tenant AND e.case_id = :case AND e.firing > :after AND (
    f.request @? CAST(:taken AS jsonpath)
    OR EXISTS (
        SELECT 1 FROM circuit.history h, json_array_elements(h.body -> 'produced') AS p
        WHERE h.tenant_id = e.tenant_id AND h.case_id = e.case_id AND h.firing = e.firing
            AND h.kind IN ('transition_fired', 'firing_failed') AND (p ->> 'number')::int = :number
    )
)
ORDER BY e.firing
LIMIT :limit
"""


async def executions_of_token(conn: AsyncConnection, key: CaseKey, number: int, after: int, limit: int) -> list[Ran]:
    """The executions that took, read or made a version of this token, the oldest first."""
    taken = f"$ ? (@.consumed[*][0] == {number} || @.read[*].number == {number} || @.refreshed[*].number == {number})"
    given = {"tenant": key.tenant, "case": key.case, "after": after, "taken": taken, "number": number, "limit": limit}
    found = await conn.execute(text(_OF_TOKEN), given)
    return await _with_firings(conn, key.tenant, list(found.mappings()))


async def tokens_in_place(
    conn: AsyncConnection,
    tenant: int,
    place: str,
    *,
    case_id: UUID | None = None,
    workflow_id: str | None = None,
    limit: int,
    after: tuple[UUID, int] | None = None,
) -> list[LaidToken]:
    """Tokens that lie in a place of a case, or of any case of a workflow, by case and number."""
    table, case = tables.token, tables.case
    query = (
        select(table)
        .where(table.c.tenant_id == tenant, table.c.place == place)
        .order_by(table.c.case_id, table.c.number)
        .limit(limit)
    )
    if case_id is not None:
        query = query.where(table.c.case_id == case_id)
    if workflow_id is not None:
        same = (case.c.tenant_id == table.c.tenant_id) & (case.c.case_id == table.c.case_id)
        query = query.join(case, same).where(case.c.workflow_id == workflow_id)
    if after is not None:
        query = query.where(tuple_(table.c.case_id, table.c.number) > tuple_(literal(after[0]), literal(after[1])))
    found = await conn.execute(query)
    laid = await artefacts.resolved(conn, tenant, found.mappings())
    return [LaidToken(rows.key(row), rows.token(row), row["reserved_by"]) for row in laid]


async def _page_of_each(
    conn: AsyncConnection, table: Table, order: str, tenant: int, wanted: Sequence[UUID], after: int, limit: int
) -> Sequence[Mapping[str, Any]]:
    of = func.unnest(_ids(wanted)).table_valued(column("wanted_id", Uuid)).render_derived("wanted")
    page = (
        select(table)
        .where(table.c.tenant_id == tenant, table.c.case_id == of.c.wanted_id, table.c[order] > after)
        .order_by(table.c[order])
        .limit(limit)
        .lateral("page")
    )
    query = select(page).select_from(of.join(page, true())).order_by(page.c.case_id, page.c[order])
    return await artefacts.resolved(conn, tenant, (await conn.execute(query)).mappings())


async def _with_firings(conn: AsyncConnection, tenant: int, found: Sequence[rows.Row]) -> list[Ran]:
    """These rows of executions, each with its firing and its workflow: two statements, however many there are."""
    if not found:
        return []
    table, case = tables.firing, tables.case
    ids, numbers = [rows.plain(row["case_id"]) for row in found], [row["firing"] for row in found]
    pairs = rows.pairs([*zip(ids, numbers, strict=True)])
    same = (table.c.case_id == pairs.c.case_id) & (table.c.number == pairs.c.number)
    firings = await conn.execute(select(table).join(pairs, same).where(table.c.tenant_id == tenant))
    begun = await artefacts.resolved(conn, tenant, firings.mappings())
    known = {(rows.plain(row["case_id"]), row["number"]): rows.firing(row) for row in begun}
    named = await conn.execute(
        select(case.c.case_id, case.c.workflow_id, case.c.workflow_hash).where(
            case.c.tenant_id == tenant, case.c.case_id == func.any(_ids(sorted(set(ids))))
        )
    )
    workflows = {rows.plain(case_id): (workflow, version) for case_id, workflow, version in named}
    return [
        Ran(
            rows.key(row),
            *workflows.get(rows.plain(row["case_id"]), ("", "")),
            rows.execution(row),
            known.get((rows.plain(row["case_id"]), row["firing"])),
        )
        for row in found
    ]


def _ids(wanted: Sequence[UUID]) -> ColumnElement[Any]:
    return bindparam(None, list(wanted), type_=ARRAY(Uuid))
