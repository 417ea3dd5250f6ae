"""The stored frames of executions as their readers see them (under a tenant's row security)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Table,
    TableValuedAlias,
    Uuid,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.events import Frame, StreamType
from circuit.ids import CaseKey
from circuit.storage import rows, tables
from circuit.storage.records import CaseStatus, ExecutionRow, ExecutionStatus

_FRAME = tables.stream_event


async def execution(conn: AsyncConnection, key: CaseKey, firing: int) -> ExecutionRow | None:
    """The execution `CASE.firing`, or None if there is none. Its end and its terminal frame are one commit."""
    table = tables.execution
    found = await conn.execute(
        select(table).where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.firing == firing)
    )
    row = found.mappings().one_or_none()
    return None if row is None else rows.execution(row)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The frames of the execution `CASE.firing` behind a cursor (start, sequence), in so many bytes. What differs in
    the bytes alone is the same: a page may be shorter."""

    case: UUID
    firing: int
    start: int
    sequence: int
    most_bytes: int = field(compare=False, default=128 * 1024)


class Standing(NamedTuple):
    """What is known of an execution: its status, None where it has yet to begin, and its newest start, 0 before the
    first one and None where nobody knows any more."""

    status: ExecutionStatus | None
    start: int | None


class Stored(NamedTuple):
    """A frame as it is stored. Where it begins before the cursor that was asked for, `lengths` are those of the texts
    that were merged into it, in characters."""

    frame: Frame
    lengths: Sequence[int] | None


async def standings(conn: AsyncConnection, tenant: int, wanted: Sequence[Wanted]) -> list[Standing | None]:
    """How the execution of each stands, all at one instant; None where there is none, and none is about to begin, as
    the next firing of a case that goes on does. A start is stored before it says anything."""
    case_, execution_, firing_, given = tables.case, tables.execution, tables.firing, _table(wanted)
    live = case_.c.status.not_in([status.value for status in CaseStatus if status.terminal])
    found = await conn.execute(
        select(given.c.place, execution_.c.status, firing_.c.start)
        .outerjoin_from(given, case_, _of(case_, tenant, given))
        .outerjoin(execution_, _of(execution_, tenant, given) & (execution_.c.firing == given.c.firing))
        .outerjoin(firing_, _of(firing_, tenant, given) & (firing_.c.number == given.c.firing))
        .where(execution_.c.status.is_not(None) | (live & (case_.c.next_firing == given.c.firing)))
    )
    standings: list[Standing | None] = [None] * len(wanted)
    for place, status, start in found:
        standings[place - 1] = Standing(None, 0) if status is None else Standing(ExecutionStatus(status), start)
    return standings


async def pages(conn: AsyncConnection, tenant: int, wanted: Sequence[Wanted], limit: int = 500) -> list[list[Stored]]:
    """Of each up to `limit` frames behind its cursor, in order, and none behind the one with which they come to its
    bytes. A cursor beyond the end of its start goes on with the next one; of a frame into which the cursor's own was
    merged all is given."""
    given = _table(wanted)
    inside = and_(_FRAME.c.start == given.c.start, _FRAME.c.first_seq <= given.c.sequence)
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
            _FRAME.c.tenant_id == tenant,
            _FRAME.c.case_id == given.c.case_id,
            _FRAME.c.firing == given.c.firing,
            tuple_(_FRAME.c.start, _FRAME.c.seq) > tuple_(given.c.start, given.c.sequence),
        )
        .order_by(_FRAME.c.start, _FRAME.c.seq)
        .limit(limit)
        .correlate(given)
        .subquery()
    )
    so_far = func.sum(func.octet_length(page.c.frame)).over(order_by=(page.c.start, page.c.seq), rows=(None, 0))
    sized = select(page, (so_far - func.octet_length(page.c.frame)).label("before")).lateral()
    found = await conn.execute(
        select(given.c.place, sized)
        .join_from(given, sized, true())
        .where(sized.c.before < given.c.most_bytes)
        .order_by(given.c.place, sized.c.start, sized.c.seq)
    )
    told: list[list[Stored]] = [[] for _ in wanted]
    for place, start, seq, kind, at, body, merged, lengths, _ in map(tuple, found):
        told[place - 1].append(Stored(Frame(start, seq, StreamType(kind), at, body.encode(), merged), lengths))
    return told


async def stored(conn: AsyncConnection, tenant: int, wanted: Sequence[Wanted]) -> list[bool]:
    """Whether any frame of the execution of each is stored."""
    given = _table(wanted)
    mine = _of(_FRAME, tenant, given) & (_FRAME.c.firing == given.c.firing)
    found = await conn.execute(select(given.c.place).where(exists().where(mine).correlate(given)))
    places = set(found.scalars())
    return [place in places for place in range(1, len(wanted) + 1)]


def _table(wanted: Sequence[Wanted]) -> TableValuedAlias:
    """A table of `wanted`, by their `place` from 1 on."""
    numbers = ("firing", "start", "sequence", "most_bytes")
    columns = [bindparam("cases", [one.case for one in wanted], type_=ARRAY(Uuid))]
    columns += [bindparam(name, [getattr(one, name) for one in wanted], type_=ARRAY(Integer)) for name in numbers]
    return (
        func.unnest(*columns)
        .table_valued(column("case_id", Uuid), *(column(name, Integer) for name in numbers), with_ordinality="place")
        .render_derived("wanted")
    )


def _of(table: Table, tenant: int, given: TableValuedAlias) -> ColumnElement[bool]:
    return and_(table.c.tenant_id == tenant, table.c.case_id == given.c.case_id)
