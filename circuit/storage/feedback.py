"""What was said of executions (under a tenant's row security). Rows are added and never change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import eq, ge, gt, lt
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.errors import Conflict
from circuit.ids import CaseKey
from circuit.storage import rows, tables
from circuit.storage.commands import OTHER_REQUEST


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """Feedback on the execution `CASE.firing` by `subject`."""

    id: UUID
    firing: int
    score: float | None
    comment: str
    subject: str
    at: datetime


async def insert(
    conn: AsyncConnection,
    key: CaseKey,
    firing: int,
    feedback: UUID,
    *,
    score: float | None,
    comment: str,
    subject: str,
    idempotency_key: str | None = None,
) -> FeedbackRow:
    """Add feedback, or find what came with the same idempotency key before. Raises `Conflict` where that was
    something else, and while the week of the case is archived."""
    table = tables.feedback
    given = upsert(table).values(
        tenant_id=key.tenant,
        case_id=key.case,
        firing=firing,
        feedback_id=feedback,
        score=score,
        comment=comment,
        subject=subject,
        idempotency_key=idempotency_key,
    )
    await conn.execute(given.on_conflict_do_nothing(index_elements=["tenant_id", "case_id", "idempotency_key"]))
    # After the insert, which gives this transaction its number: the archive waits for all with smaller numbers than
    # the one that closed the week.
    week = tables.archive_week
    closed = await conn.execute(
        select(week.c.state).where(
            week.c.lower_bound <= key.case, week.c.upper_bound > key.case, week.c.state.in_(("closing", "written"))
        )
    )
    if closed.first() is not None:
        raise Conflict(f"the week of case {key} is being archived at this moment: nothing is added to it")
    which = table.c.feedback_id == feedback
    if idempotency_key is not None:
        which = table.c.idempotency_key == idempotency_key
    found = await conn.execute(select(table).where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, which))
    row = _row(found.mappings().one())
    if (row.firing, row.score, row.comment) != (firing, score, comment):
        raise Conflict(OTHER_REQUEST)
    return row


async def of_execution(conn: AsyncConnection, key: CaseKey, firing: int) -> list[FeedbackRow]:
    """What was said of an execution, the oldest first."""
    table = tables.feedback
    found = await conn.execute(
        select(table)
        .where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.firing == firing)
        .order_by(table.c.at, table.c.feedback_id)
    )
    return [_row(row) for row in found.mappings()]


async def of_executions(
    conn: AsyncConnection, tenant: int, wanted: Sequence[tuple[UUID, int]]
) -> list[tuple[UUID, FeedbackRow]]:
    """What was said of these executions (each a case and a firing), the oldest first, with the case of each."""
    table, pairs = tables.feedback, rows.pairs(wanted)
    found = await conn.execute(
        select(table)
        .join(pairs, (table.c.case_id == pairs.c.case_id) & (table.c.firing == pairs.c.number))
        .where(table.c.tenant_id == tenant)
        .order_by(table.c.at, table.c.feedback_id)
    )
    return [(rows.plain(row["case_id"]), _row(row)) for row in found.mappings()]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which feedback; what is None does not choose."""

    case: UUID | None = None
    workflow_id: str | None = None
    agent_id: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """Feedback with what it is about: the workflow's version, and what the execution's row keeps of who ran."""

    key: CaseKey
    row: FeedbackRow
    workflow_id: str
    workflow_hash: str
    descriptor: Mapping[str, Any]


async def listed(
    conn: AsyncConnection,
    tenant: int,
    wanted: Wanted,
    *,
    limit: int,
    before: UUID | None = None,
    after: UUID | None = None,
) -> list[Opinion]:
    """Feedback: the youngest before `before` (of all), or the oldest behind `after`. Its ids sort by when it came."""
    table, case, execution = tables.feedback, tables.case, tables.execution
    query = (
        select(table, case.c.workflow_id, case.c.workflow_hash, execution.c.descriptor)
        .join(case, (case.c.tenant_id == table.c.tenant_id) & (case.c.case_id == table.c.case_id))
        .join(
            execution,
            (execution.c.tenant_id == table.c.tenant_id)
            & (execution.c.case_id == table.c.case_id)
            & (execution.c.firing == table.c.firing),
        )
        .order_by(table.c.feedback_id if after is not None else table.c.feedback_id.desc())
        .limit(limit)
    )
    chosen: tuple[tuple[ColumnElement[Any], Callable[[Any, Any], Any], Any], ...] = (
        (table.c.feedback_id, lt, before),
        (table.c.feedback_id, gt, after),
        (table.c.case_id, eq, wanted.case),
        (case.c.workflow_id, eq, wanted.workflow_id),
        (execution.c.agent_id, eq, wanted.agent_id),
        (table.c.subject, eq, wanted.subject),
        (table.c.at, ge, wanted.since),
        (table.c.at, lt, wanted.until),
    )
    query = query.where(
        table.c.tenant_id == tenant, *[compare(part, value) for part, compare, value in chosen if value is not None]
    )
    return [
        Opinion(rows.key(row), _row(row), row["workflow_id"], row["workflow_hash"], row["descriptor"])
        for row in (await conn.execute(query)).mappings()
    ]


def _row(row: rows.Row) -> FeedbackRow:
    return FeedbackRow(
        rows.plain(row["feedback_id"]), row["firing"], row["score"], row["comment"], row["subject"], row["at"]
    )
