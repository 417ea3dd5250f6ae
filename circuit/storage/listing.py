"""Cases and what belongs to them, as queries read them (under a tenant's row security)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import SmallInteger, Table, Text, Uuid, any_, bindparam, cast, column, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.storage import artefacts, history, rows, tables, tokens
from circuit.storage.records import CaseRow, CaseState, CaseStatus, CommandRow, ExecutionRow, FiringRow, IncidentRow


class Listed(NamedTuple):
    """A case and its row."""

    key: CaseKey
    row: CaseRow


async def list_cases(
    conn: AsyncConnection,
    tenant: int,
    *,
    workflow_id: str | None = None,
    status: CaseStatus | None = None,
    limit: int = 50,
    before: UUID | None = None,
    started: tuple[datetime | None, datetime | None] = (None, None),
    search: str | None = None,
) -> list[Listed]:
    """Up to `limit` cases, the youngest first; `before` is the last case of the page before. An id of a case sorts
    by its birth, so a page never shifts when new cases come. `started` bounds when they began (from, to), `search` is
    how their ids, or those of their workflows, begin."""
    table = tables.case
    query = select(table).where(table.c.tenant_id == tenant).order_by(table.c.case_id.desc()).limit(limit)
    if workflow_id is not None:
        query = query.where(table.c.workflow_id == workflow_id)
    if status is not None:
        query = query.where(table.c.status == status.value)
    if before is not None:
        query = query.where(table.c.case_id < before)
    since, until = started
    if since is not None:
        query = query.where(table.c.started_at >= since)
    if until is not None:
        query = query.where(table.c.started_at <= until)
    if search:
        begins = cast(table.c.case_id, Text).startswith(search.lower(), autoescape=True)
        query = query.where(begins | table.c.workflow_id.startswith(search, autoescape=True))
    found = await conn.execute(query)
    return [Listed(rows.key(row), rows.case_row(row)) for row in found.mappings()]


async def unserved(conn: AsyncConnection, buckets: Collection[int]) -> dict[int, Mapping[str, Any]]:
    """Of these buckets, those that no living worker takes cases from, with what they ask for."""
    if not buckets:
        return {}
    given = bindparam("buckets", sorted(buckets), type_=ARRAY(SmallInteger))
    found = func.circuit.unserved(given).table_valued(column("bucket", SmallInteger), column("requires", JSONB))
    return {row.bucket: row.requires for row in await conn.execute(select(found.c.bucket, found.c.requires))}


async def lacking(conn: AsyncConnection, bucket: int) -> dict[UUID, Mapping[str, Any]]:
    """What each living worker lacks of what the cases of a bucket need."""
    wanted = bindparam("wanted", bucket, type_=SmallInteger)
    found = func.circuit.lacking(wanted).table_valued(column("worker_id", Uuid), column("lacks", JSONB))
    return {rows.plain(row.worker_id): row.lacks for row in await conn.execute(select(found))}


async def find_case(conn: AsyncConnection, key: CaseKey) -> CaseRow | None:
    """The row of a case, or None if there is none."""
    table = tables.case
    found = await conn.execute(select(table).where(table.c.tenant_id == key.tenant, table.c.case_id == key.case))
    row = found.mappings().one_or_none()
    return None if row is None else rows.case_row(row)


async def due_at(conn: AsyncConnection, key: CaseKey) -> datetime | None:
    """When a case that has no owner comes up next by itself, or None."""
    return (await attended(conn, key))[1]


async def due_later(
    conn: AsyncConnection,
    tenant: int,
    *,
    workflow_id: str | None = None,
    case: UUID | None = None,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[tuple[Listed, datetime]]:
    """Up to `limit` cases that wait for a time, the next ones first, each with that time; `after` is the last one of
    the page before."""
    cases, ready = tables.case, tables.ready
    same = (ready.c.tenant_id == cases.c.tenant_id) & (ready.c.case_id == cases.c.case_id)
    query = (
        select(cases, ready.c.due_at)
        .select_from(ready.join(cases, same))
        .where(ready.c.tenant_id == tenant, cases.c.status == CaseStatus.WAITING.value)
        .order_by(ready.c.due_at, ready.c.case_id)
        .limit(limit)
    )
    if workflow_id is not None:
        query = query.where(cases.c.workflow_id == workflow_id)
    if case is not None:
        query = query.where(cases.c.case_id == case)
    if after is not None:
        query = query.where(tuple_(ready.c.due_at, ready.c.case_id) > tuple_(literal(after[0]), literal(after[1])))
    found = await conn.execute(query)
    return [(Listed(rows.key(row), rows.case_row(row)), row["due_at"]) for row in found.mappings()]


class Glance(NamedTuple):
    """What of a case is seen at a glance: whether somebody owns it, its status, how many events it has, its bucket."""

    owned: bool
    status: CaseStatus
    seq: int
    bucket: int


async def attended(conn: AsyncConnection, key: CaseKey) -> tuple[bool, datetime | None]:
    """Whether somebody owns a case, and when it comes up next by itself; both as of one moment."""
    case, ready = tables.case, tables.ready
    found = await conn.execute(
        select(case.c.owner, ready.c.due_at)
        .outerjoin_from(case, ready, (ready.c.tenant_id == case.c.tenant_id) & (ready.c.case_id == case.c.case_id))
        .where(case.c.tenant_id == key.tenant, case.c.case_id == key.case)
    )
    row = found.mappings().one_or_none()
    return (False, None) if row is None else (row["owner"] is not None, row["due_at"])


async def glanced(conn: AsyncConnection, tenant: int, wanted: Sequence[UUID]) -> dict[UUID, Glance]:
    """These cases as of one moment, those that there are."""
    case = tables.case
    found = await conn.execute(
        select(case.c.case_id, case.c.owner.is_not(None), case.c.status, case.c.seq, case.c.bucket).where(
            case.c.tenant_id == tenant, case.c.case_id == any_(bindparam("wanted", wanted, ARRAY(Uuid)))
        )
    )
    return {rows.plain(case_id): Glance(owned, CaseStatus(status), *more) for case_id, owned, status, *more in found}


async def firings(conn: AsyncConnection, key: CaseKey) -> list[FiringRow]:
    """All firings of acting transitions of a case, by number."""
    return [rows.firing(row) for row in await _of_case(conn, tables.firing, key, "number")]


async def waiting(
    conn: AsyncConnection,
    tenant: int,
    kind: str,
    *,
    workflow_id: str | None = None,
    case: UUID | None = None,
    roles: Collection[str] | None = None,
    asking: bool = False,
    limit: int = 50,
    after: tuple[UUID, int] | None = None,
) -> list[tuple[Listed, FiringRow]]:
    """Up to `limit` firings that wait for something of this kind, those of the youngest cases first; with `roles`,
    those whose end one of them may bring, or anybody (not with `asking`). `after` is the last of the page before."""
    cases, waits = tables.case, tables.firing
    same = (waits.c.tenant_id == cases.c.tenant_id) & (waits.c.case_id == cases.c.case_id)
    over = [status.value for status in CaseStatus if status.terminal]
    query = (
        select(cases, *(one.label(f"firing_{one.name}") for one in waits.c))
        .select_from(cases.join(waits, same))
        .where(cases.c.tenant_id == tenant, cases.c.status.not_in(over))
        .where(waits.c.state == "suspended", waits.c.awaits["kind"].astext == kind)
        .order_by(cases.c.case_id.desc(), waits.c.number)
        .limit(limit)
    )
    if workflow_id is not None:
        query = query.where(cases.c.workflow_id == workflow_id)
    if case is not None:
        query = query.where(cases.c.case_id == case)
    if roles is not None:
        asked = waits.c.awaits["roles"]
        held = bindparam("roles", sorted(roles), type_=ARRAY(Text))
        may = asked.has_any(held)
        query = query.where(may if asking else asked.is_(None) | may)
    if after is not None:
        case_id, number = after
        query = query.where((cases.c.case_id < case_id) | ((cases.c.case_id == case_id) & (waits.c.number > number)))
    found = list((await conn.execute(query)).mappings())
    named = [
        {name.removeprefix("firing_"): value for name, value in row.items() if name.startswith("firing_")}
        for row in found
    ]
    begun = await artefacts.resolved(conn, tenant, named)
    return [
        (Listed(rows.key(row), rows.case_row(row)), rows.firing(firing))
        for row, firing in zip(found, begun, strict=True)
    ]


async def firing(conn: AsyncConnection, key: CaseKey, number: int) -> FiringRow | None:
    """One firing of an acting transition of a case, or None."""
    table = tables.firing
    found = await conn.execute(
        select(table).where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.number == number)
    )
    begun = await artefacts.resolved(conn, key.tenant, found.mappings())
    return rows.firing(begun[0]) if begun else None


async def signalled(conn: AsyncConnection, key: CaseKey, idempotency_key: str) -> str | None:
    """The key of the wait that a signal with this idempotency key was for, if one came."""
    table = tables.command
    found = await conn.scalar(
        select(table.c.payload["key"].astext).where(
            table.c.tenant_id == key.tenant,
            table.c.case_id == key.case,
            table.c.idempotency_key == idempotency_key,
            table.c.kind == "signal",
        )
    )
    return None if found is None else str(found)


async def executions(conn: AsyncConnection, key: CaseKey) -> list[ExecutionRow]:
    """All executions of a case, by the number of their firing."""
    return [rows.execution(row) for row in await _of_case(conn, tables.execution, key, "firing")]


async def incidents(conn: AsyncConnection, key: CaseKey) -> list[IncidentRow]:
    """All incidents of a case, by number, the resolved ones too."""
    return [rows.incident(row) for row in await _of_case(conn, tables.incident, key, "number")]


async def state(conn: AsyncConnection, key: CaseKey) -> CaseState | None:
    """A case as its owner reads it, without what only an owner needs."""
    row = await find_case(conn, key)
    if row is None:
        return None
    return CaseState(
        key=key,
        row=row,
        tokens=await tokens.of_case(conn, key),
        firings=[firing for firing in await firings(conn, key) if firing.state.live],
        executions=await executions(conn, key),
        incidents=[one for one in await incidents(conn, key) if one.resolved_at is None],
        commands=[],
        fired=await history.fired(conn, key),
        journal={},
    )


async def pending_commands(conn: AsyncConnection, key: CaseKey) -> list[CommandRow]:
    """The commands of a case that wait to be applied, in the order in which they came."""
    table = tables.command
    found = await conn.execute(
        select(table)
        .where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.state == "pending")
        .order_by(table.c.created_at, table.c.command_id)
    )
    return [rows.command(row) for row in found.mappings()]


async def _of_case(conn: AsyncConnection, table: Table, key: CaseKey, order: str) -> Sequence[Mapping[str, Any]]:
    found = await conn.execute(
        select(table).where(table.c.tenant_id == key.tenant, table.c.case_id == key.case).order_by(table.c[order])
    )
    return await artefacts.resolved(conn, key.tenant, found.mappings())
