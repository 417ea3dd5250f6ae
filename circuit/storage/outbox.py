"""The outbox: events that leave Circuit, written in the commit of what they tell, and read so that none is skipped.

A row names an event of `history`; its order is that of the transactions that wrote the rows (`xid`). A transaction
that began before another may be committed after it, so a reader that took all that it sees and went on from there
would skip what is committed late. So rows are read below `pg_snapshot_xmin` only: every transaction with a smaller
number has ended, and nothing will ever appear below it again.

All of it runs in a transaction of a tenant (`Database.transaction`), under row security.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, delete, func, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey, parse_case_id
from circuit.storage import artefacts, rows, tables

TRIM_ROWS = 5_000

# The number of a transaction as a plain integer: 64 bits, which never come round.
_SETTLED = literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


class Mark(NamedTuple):
    """A place in the outbox of a tenant: behind the row of this transaction, case and event."""

    xid: int
    case: UUID
    seq: int

    def __str__(self) -> str:
        return f"{self.xid}:{self.case}:{self.seq}"


BEGINNING = Mark(0, UUID(int=0), 0)


@dataclass(frozen=True, slots=True)
class Message:
    """An event that leaves. `mark` is the place behind it."""

    mark: Mark
    key: CaseKey
    seq: int
    workflow_id: str
    kind: str
    at: datetime
    body: Mapping[str, Any]


def parse_mark(text: str) -> Mark | None:
    """The mark in `text`, or None if it is none."""
    xid, _, rest = text.partition(":")
    case, _, seq = rest.partition(":")
    parsed = parse_case_id(case)
    if parsed is None or not (xid.isascii() and xid.isdigit() and seq.isascii() and seq.isdigit()):
        return None
    return Mark(int(xid), parsed, int(seq))


async def read(conn: AsyncConnection, tenant: int, after: Mark, limit: int) -> list[Message]:
    """Up to `limit` messages behind `after`, in order. What was written by a transaction that may still have elder
    siblings under way is not given yet."""
    box, events, case = tables.outbox, tables.history, tables.case
    same = and_(events.c.tenant_id == box.c.tenant_id, events.c.case_id == box.c.case_id, events.c.seq == box.c.seq)
    found = await conn.execute(
        select(box, case.c.workflow_id, events.c.kind, events.c.at, events.c.body)
        .join_from(box, events, same)
        .join(case, and_(case.c.tenant_id == box.c.tenant_id, case.c.case_id == box.c.case_id))
        .where(box.c.tenant_id == tenant, _place() > _literal(after), box.c.xid < _SETTLED)
        .order_by(box.c.xid, box.c.case_id, box.c.seq)
        .limit(limit)
    )
    return [
        Message(
            Mark(row["xid"], rows.plain(row["case_id"]), row["seq"]),
            rows.key(row),
            row["seq"],
            row["workflow_id"],
            row["kind"],
            row["at"],
            rows.document(row["body"]),
        )
        for row in await artefacts.resolved(conn, tenant, found.mappings())
    ]


async def mark_of(conn: AsyncConnection, tenant: int, consumer: str) -> Mark | None:
    """How far a consumer has come, or None if there is none of this name."""
    table = tables.outbox_consumer
    found = await conn.execute(
        select(table.c.xid, table.c.case_id, table.c.seq).where(table.c.tenant_id == tenant, table.c.name == consumer)
    )
    row = found.one_or_none()
    return None if row is None else Mark(row[0], rows.plain(row[1]), row[2])


async def move(conn: AsyncConnection, tenant: int, consumer: str, mark: Mark, *, back: bool = False) -> None:
    """Store how far a consumer has come. A mark only moves ahead, unless it is put `back`."""
    table = tables.outbox_consumer
    given = upsert(table).values(tenant_id=tenant, name=consumer, xid=mark.xid, case_id=mark.case, seq=mark.seq)
    new = given.excluded
    await conn.execute(
        given.on_conflict_do_update(
            index_elements=["tenant_id", "name"],
            set_={"xid": new.xid, "case_id": new.case_id, "seq": new.seq, "updated_at": func.now()},
            where=None
            if back
            else tuple_(new.xid, new.case_id, new.seq) > tuple_(table.c.xid, table.c.case_id, table.c.seq),
        )
    )


async def consumers(conn: AsyncConnection, tenant: int) -> list[tuple[str, Mark, datetime]]:
    """The consumers of a tenant by name, how far each has come, and when it last moved."""
    table = tables.outbox_consumer
    found = await conn.execute(select(table).where(table.c.tenant_id == tenant).order_by(table.c.name))
    return [
        (row["name"], Mark(row["xid"], rows.plain(row["case_id"]), row["seq"]), row["updated_at"])
        for row in found.mappings()
    ]


async def forget(conn: AsyncConnection, tenant: int, consumer: str) -> bool:
    """Remove a consumer: nothing is kept for it any more. Returns whether there was one."""
    table = tables.outbox_consumer
    gone = await conn.execute(
        delete(table).where(table.c.tenant_id == tenant, table.c.name == consumer).returning(table.c.name)
    )
    return gone.first() is not None


async def trim(conn: AsyncConnection, tenant: int) -> int:
    """Delete some of what every consumer has behind it; how many rows. Without a consumer everything stays."""
    box, known = tables.outbox, tables.outbox_consumer
    slowest = (
        select(known.c.xid, known.c.case_id, known.c.seq)
        .where(known.c.tenant_id == tenant)
        .order_by(known.c.xid, known.c.case_id, known.c.seq)
        .limit(1)
    )
    row = (await conn.execute(slowest)).one_or_none()
    if row is None:
        return 0
    old = (
        select(box.c.xid, box.c.case_id, box.c.seq)
        .where(box.c.tenant_id == tenant, _place() <= _literal(Mark(row[0], rows.plain(row[1]), row[2])))
        .limit(TRIM_ROWS)
    )
    gone = await conn.execute(delete(box).where(box.c.tenant_id == tenant, _place().in_(old)).returning(box.c.seq))
    return len(gone.all())


def _place() -> Any:
    box = tables.outbox
    return tuple_(box.c.xid, box.c.case_id, box.c.seq)


def _literal(mark: Mark) -> Any:
    return tuple_(mark.xid, mark.case, mark.seq)
