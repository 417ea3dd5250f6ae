"""The events of all cases of a workflow, by the transactions that wrote them (under a tenant's row security).

Events of different cases are committed in another order than they say, so no time and no number tells what is new. What
does is the number of the transaction that wrote a row: below the oldest one that still runs, nothing comes any more.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Integer, Text, Uuid, bindparam, column, exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.events import CaseEvent, decode_event
from circuit.storage import artefacts, rows, tables

LONGEST_AGE = 1_000_000_000
"""How many transactions a mark may lie back: numbers of rows come again after twice as many."""


class Written(NamedTuple):
    """An event, and the number of the transaction that wrote it."""

    case: UUID
    seq: int
    at: datetime
    event: CaseEvent
    transaction: int


_LOW = "pg_snapshot_xmin(pg_current_snapshot())"
_MARK = text(f"SELECT {_LOW}::text::bigint")

# `age` counts from the present number back: rows that are as old as the mark, or younger. The row of a case is written
# with each of its events, so it says first whether there are any.
_SINCE = text(
    """
    SELECT h.case_id, h.seq, h.at, h.kind, h.body, :low - (age(h.xmin) - age((:low)::text::xid8::xid)) AS transaction
    FROM circuit.case c
    JOIN circuit.history h ON h.tenant_id = c.tenant_id AND h.case_id = c.case_id
    WHERE c.tenant_id = :tenant AND c.workflow_id = :workflow
      AND (:cases IS NULL OR c.case_id = ANY (:cases))
      AND age(c.xmin) <= age((:mark)::text::xid8::xid) AND age(h.xmin) <= age((:mark)::text::xid8::xid)
      AND (c.case_id, h.seq) > (:case, :seq)
    ORDER BY c.case_id, h.seq
    LIMIT :most
    """
).bindparams(
    bindparam("low", type_=BigInteger),
    bindparam("mark", type_=BigInteger),
    bindparam("tenant", type_=Integer),
    bindparam("workflow", type_=Text),
    bindparam("cases", type_=ARRAY(Uuid)),
    bindparam("case", type_=Uuid),
    bindparam("seq", type_=Integer),
    bindparam("most", type_=Integer),
)


async def mark(conn: AsyncConnection) -> int:
    """The number below which every transaction has ended."""
    found: Any = await conn.scalar(_MARK)
    return int(found)


async def events_since(
    conn: AsyncConnection,
    tenant: int,
    workflow_id: str,
    since: int,
    low: int,
    *,
    cases: Collection[UUID] | None,
    after: tuple[UUID, int],
    limit: int,
) -> list[Written]:
    """Up to `limit` events that transactions from `since` on wrote, by case and number behind `after`: of these cases,
    or of all. `low` is what `mark` gave, from which the numbers of transactions are told."""
    found = await conn.execute(
        _SINCE,
        {
            "low": low,
            "mark": since,
            "tenant": tenant,
            "workflow": workflow_id,
            "cases": None if cases is None else list(cases),
            "case": after[0],
            "seq": after[1],
            "most": limit,
        },
    )
    written = await artefacts.resolved(conn, tenant, found.mappings())
    return [
        Written(
            row["case_id"],
            row["seq"],
            row["at"],
            decode_event(row["kind"], rows.document(row["body"])),
            row["transaction"],
        )
        for row in written
    ]


async def known(conn: AsyncConnection, tenant: int, workflows: Collection[str]) -> set[str]:
    """Which of these workflows there are, or cases of them."""
    pointer, case = tables.workflow.c, tables.case.c
    wanted = (
        func.unnest(bindparam("workflows", list(workflows), type_=ARRAY(Text)))
        .table_valued(column("id", Text))
        .render_derived("wanted")
    )
    published = exists().where(pointer.tenant_id == tenant, pointer.workflow_id == wanted.c.id).correlate(wanted)
    begun = exists().where(case.tenant_id == tenant, case.workflow_id == wanted.c.id).correlate(wanted)
    return set((await conn.execute(select(wanted.c.id).where(published | begun))).scalars())
