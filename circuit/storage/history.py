"""The events of a case as its readers see them (under a tenant's row security)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, Uuid, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.events import (
    CaseEvent,
    FiringCancelled,
    FiringResumed,
    FiringSuspended,
    TransitionFired,
    decode_event,
)
from circuit.ids import CaseKey
from circuit.storage import artefacts, rows, tables
from circuit.storage.records import CaseStatus


class Recorded(NamedTuple):
    """An event and its place in the history of its case."""

    seq: int
    at: datetime
    event: CaseEvent


# Several cases at once, each behind a number of its own; one that is not there has no row.
_FOLLOWED = text(
    """
    SELECT w.place, c.status, h.seq, h.at, h.kind, h.body
    FROM unnest(:cases, CAST(:after AS int4[])) WITH ORDINALITY AS w(case_id, after, place)
    JOIN circuit."case" c ON c.tenant_id = :tenant AND c.case_id = w.case_id
    LEFT JOIN LATERAL (
        SELECT h.seq, h.at, h.kind, h.body FROM circuit.history h
        WHERE h.tenant_id = c.tenant_id AND h.case_id = c.case_id AND h.seq > w.after
        ORDER BY h.seq LIMIT :limit
    ) h ON true
    ORDER BY w.place, h.seq
    """
).bindparams(bindparam("tenant", type_=Integer), bindparam("cases", type_=ARRAY(Uuid)))

Page = tuple[CaseStatus, list[Recorded]]


async def follow_all(
    conn: AsyncConnection, tenant: int, wanted: Sequence[tuple[UUID, int]], limit: int
) -> list[Page | None]:
    """For each of these cases its status, and up to `limit` of its events behind the number beside it, all as they were
    at one instant; None where there is no such case. The end of a case and its last event are one commit."""
    given = {
        "tenant": tenant,
        "cases": [case for case, _ in wanted],
        "after": [after for _, after in wanted],
        "limit": limit,
    }
    found = await conn.execute(_FOLLOWED, given)
    pages: list[Page | None] = [None] * len(wanted)
    for row in await artefacts.resolved(conn, tenant, found.mappings()):
        page = pages[row["place"] - 1]
        if page is None:
            page = pages[row["place"] - 1] = CaseStatus(row["status"]), []
        if row["seq"] is not None:
            event = decode_event(row["kind"], rows.document(row["body"]))
            page[1].append(Recorded(row["seq"], row["at"], event))
    return pages


async def follow(conn: AsyncConnection, key: CaseKey, after: int, limit: int) -> Page | None:
    """The same of one case."""
    [page] = await follow_all(conn, key.tenant, [(key.case, after)], limit)
    return page


async def read_events(conn: AsyncConnection, key: CaseKey, after: int = 0, limit: int = 500) -> list[Recorded]:
    """Up to `limit` events of a case behind the number `after`, in order; the first event has the number 1."""
    table = tables.history
    found = await conn.execute(
        select(table.c.seq, table.c.at, table.c.kind, table.c.body)
        .where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.seq > after)
        .order_by(table.c.seq)
        .limit(limit)
    )
    told = await artefacts.resolved(conn, key.tenant, found.mappings())
    return [Recorded(row["seq"], row["at"], decode_event(row["kind"], rows.document(row["body"]))) for row in told]


async def waiting(conn: AsyncConnection, key: CaseKey, awaits: str, upto: int) -> dict[int, str]:
    """The firings of a case that waited for something of this kind after its event `upto`, each with its transition."""
    table = tables.history
    kinds = (FiringSuspended.kind, FiringResumed.kind, FiringCancelled.kind)
    found = await conn.execute(
        select(table.c.kind, table.c.firing, table.c.transition, table.c.body)
        .where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.seq <= upto)
        .where(table.c.kind.in_(kinds))
        .order_by(table.c.seq)
    )
    open_waits: dict[int, str] = {}
    for kind, firing, transition, body in found:
        if kind != FiringSuspended.kind:
            open_waits.pop(firing, None)
        elif rows.document(body)["awaits"] == awaits:
            open_waits[firing] = transition
    return open_waits


async def path(conn: AsyncConnection, key: CaseKey, upto: int) -> list[str]:
    """The transitions that a case has fired up to and with its event `upto`, in order."""
    table = tables.history
    found = await conn.execute(
        select(table.c.transition)
        .where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.seq <= upto)
        .where(table.c.kind == TransitionFired.kind)
        .order_by(table.c.seq)
    )
    return [transition for (transition,) in found]


async def journal(conn: AsyncConnection, key: CaseKey, firing: int) -> list[tuple[int, str, datetime, Any]]:
    """What is recorded of the steps of a firing: attempt, step, when, and the value."""
    table = tables.journal
    found = await conn.execute(
        select(table.c.attempt, table.c.step, table.c.at, table.c.value)
        .where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.firing == firing)
        .order_by(table.c.attempt, table.c.at, table.c.step)
    )
    kept = await artefacts.resolved(conn, key.tenant, found.mappings())
    return [(row["attempt"], row["step"], row["at"], row["value"]) for row in kept]


async def journals(
    conn: AsyncConnection, tenant: int, wanted: Sequence[tuple[UUID, int]]
) -> list[tuple[UUID, int, int, str, datetime, Any]]:
    """What is recorded of the steps of these firings (each a case and a number): case, firing, attempt, step, when,
    and the value."""
    table, pairs = tables.journal, rows.pairs(wanted)
    found = await conn.execute(
        select(table.c.case_id, table.c.firing, table.c.attempt, table.c.step, table.c.at, table.c.value)
        .join(pairs, (table.c.case_id == pairs.c.case_id) & (table.c.firing == pairs.c.number))
        .where(table.c.tenant_id == tenant)
        .order_by(table.c.case_id, table.c.firing, table.c.attempt, table.c.at, table.c.step)
    )
    kept = await artefacts.resolved(conn, tenant, found.mappings())
    return [
        (rows.plain(row["case_id"]), row["firing"], row["attempt"], row["step"], row["at"], row["value"])
        for row in kept
    ]


async def fired(conn: AsyncConnection, key: CaseKey) -> dict[str, int]:
    """How often each transition of a case has fired to its end; those that never did are left out."""
    table, case = tables.history, tables.case
    known = await conn.execute(
        select(case.c.fired, case.c.fired_seq).where(case.c.tenant_id == key.tenant, case.c.case_id == key.case)
    )
    counted, since = known.one_or_none() or ({}, 0)
    found = await conn.execute(
        select(table.c.transition, func.count())
        .where(table.c.tenant_id == key.tenant, table.c.case_id == key.case, table.c.kind == TransitionFired.kind)
        .where(table.c.seq > since)
        .group_by(table.c.transition)
    )
    fired: dict[str, int] = {name: times for name, times in counted.items() if times}
    for name, times in found:
        fired[name] = fired.get(name, 0) + times
    return fired
