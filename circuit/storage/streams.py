"""The stored frames of executions as their readers see them (under a tenant's row security)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import and_, case, exists, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.events import Frame, StreamType
from circuit.ids import CaseKey
from circuit.storage import rows, tables
from circuit.storage.records import CaseStatus, ExecutionRow

_FRAME = tables.stream_event


async def execution(conn: AsyncConnection, key: CaseKey, firing: int) -> ExecutionRow | None:
    """The execution `CASE.firing`, or None if there is none. Its end and its terminal frame are one commit."""
    table = tables.execution
    found = await conn.execute(
        select(table).where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.firing == firing)
    )
    row = found.mappings().one_or_none()
    return None if row is None else rows.execution(row)


async def latest_start(conn: AsyncConnection, key: CaseKey, firing: int) -> int | None:
    """The newest start of a firing; None if it has yet to begin. A start is stored before it says anything."""
    table = tables.firing.c
    mine = (table.tenant_id == key.tenant, table.case_id == key.case, table.number == firing)
    return await conn.scalar(select(table.start).where(*mine))


async def expected(conn: AsyncConnection, key: CaseKey, firing: int) -> bool:
    """Whether `CASE.firing` is the next one that begins, if the case goes on."""
    table = tables.case.c
    mine = (table.tenant_id == key.tenant, table.case_id == key.case, table.next_firing == firing)
    live = table.status.not_in([status.value for status in CaseStatus if status.terminal])
    return bool(await conn.scalar(select(literal(True)).where(*mine, live)))


class Stored(NamedTuple):
    """A frame as it is stored. Where it begins before the cursor that was asked for, `lengths` are those of the texts
    that were merged into it, in characters."""

    frame: Frame
    lengths: Sequence[int] | None


async def read_frames(
    conn: AsyncConnection,
    key: CaseKey,
    firing: int,
    after: tuple[int, int] = (0, 0),
    limit: int = 500,
    limit_bytes: int = 128 * 1024,
) -> list[Stored]:
    """Up to `limit` frames behind the cursor `after` (start, sequence), in order, and none behind the one with which
    they come to `limit_bytes`. A cursor beyond the end of its start goes on with the next one; of a frame into which
    the cursor's own was merged all is given."""
    inside = and_(_FRAME.c.start == after[0], _FRAME.c.first_seq <= after[1])
    page = (
        select(
            _FRAME.c.start,
            _FRAME.c.seq,
            _FRAME.c.type,
            _FRAME.c.at,
            _FRAME.c.frame,
            (_FRAME.c.seq - func.coalesce(_FRAME.c.first_seq, _FRAME.c.seq) + 1).label("merged"),
            case((inside, _FRAME.c.lengths)).label("lengths"),
        )
        .where(
            _FRAME.c.tenant_id == key.tenant,
            _FRAME.c.case_id == key.case,
            _FRAME.c.firing == firing,
            tuple_(_FRAME.c.start, _FRAME.c.seq) > tuple_(literal(after[0]), literal(after[1])),
        )
        .order_by(_FRAME.c.start, _FRAME.c.seq)
        .limit(limit)
        .subquery()
    )
    so_far = func.sum(func.octet_length(page.c.frame)).over(order_by=(page.c.start, page.c.seq), rows=(None, 0))
    sized = select(page, (so_far - func.octet_length(page.c.frame)).label("before")).subquery()
    found = await conn.execute(select(sized).where(sized.c.before < limit_bytes).order_by(sized.c.start, sized.c.seq))
    return [
        Stored(Frame(start, seq, StreamType(kind), at, body.encode(), merged), lengths)
        for start, seq, kind, at, body, merged, lengths, _ in map(tuple, found)
    ]


async def stored(conn: AsyncConnection, key: CaseKey, firing: int) -> bool:
    """Whether any frame of an execution is stored."""
    one = exists().where(_FRAME.c.tenant_id == key.tenant, _FRAME.c.case_id == key.case, _FRAME.c.firing == firing)
    return bool(await conn.scalar(select(literal(True)).where(one)))
