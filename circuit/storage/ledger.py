"""The audit log. An entry is written in the transaction of what it is about, and never changed.

All but `enter` runs in a transaction of `Database.transaction`, under the row security of the tenant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.security.origin import origin
from circuit.security.principal import Principal
from circuit.storage.driver import Connection
from circuit.storage.tables import audit_log


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """`subject` did `action` to `target`. `number` counts up, with gaps."""

    number: int
    at: datetime
    subject: str
    action: str
    target: str
    origin: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sought:
    """Which entries are wanted; what is None does not count. `action` is one action (`case.start`), or the first part
    of some (`case`)."""

    subject: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def entry(
    principal: Principal, action: str, target: object, *, tenant: int | None = None, **details: Any
) -> dict[str, Any]:
    """What is written down where `principal` did `action` to `target`, in his tenant or in `tenant`: a row.

    No payload belongs into `details`: what is personal can be erased, and an entry cannot."""
    return {
        "tenant_id": principal.tenant if tenant is None else tenant,
        "subject": principal.subject,
        "action": action,
        "target": str(target),
        "origin": origin(),
        "details": {name: value for name, value in details.items() if value is not None},
    }


async def write(connection: AsyncConnection, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write entries, in the transaction of what they are about."""
    await connection.execute(insert(audit_log), entries)


async def note(
    connection: AsyncConnection,
    principal: Principal,
    action: str,
    target: object,
    *,
    tenant: int | None = None,
    **details: Any,
) -> None:
    """Write an entry, in the transaction of what it is about."""
    await write(connection, [entry(principal, action, target, tenant=tenant, **details)])


_ENTER = """
INSERT INTO circuit.audit_log (tenant_id, subject, action, target, origin, details)
VALUES ($1, $2, $3, $4, $5, $6::jsonb)
"""


async def enter(
    connection: Connection, principal: Principal, action: str, target: object, *, tenant: int, **details: Any
) -> None:
    """`note`, on a connection of the engine's role: what is done to the deployment is no tenant's."""
    told = orjson.dumps({name: value for name, value in details.items() if value is not None}).decode()
    await connection.execute(_ENTER, tenant, principal.subject, action, str(target), origin(), told)


async def entries(
    connection: AsyncConnection,
    tenant: int,
    sought: Sought,
    *,
    limit: int,
    before: int | None = None,
    after: int | None = None,
) -> list[LedgerEntry]:
    """Up to `limit` entries: the youngest before the number `before` (of all), or the oldest behind `after`."""
    table = audit_log.c
    query = select(table.entry_id, table.at, table.subject, table.action, table.target, table.origin, table.details)
    query = query.where(table.tenant_id == tenant).limit(limit)
    if after is not None:
        query = query.where(table.entry_id > after).order_by(table.entry_id)
    else:
        query = query.order_by(table.entry_id.desc())
    if before is not None:
        query = query.where(table.entry_id < before)
    if sought.subject is not None:
        query = query.where(table.subject == sought.subject)
    if sought.action is not None:
        whole, _, part = sought.action.partition(".")
        chosen = table.action == sought.action if part else table.action.startswith(f"{whole}.", autoescape=True)
        query = query.where(chosen)
    if sought.target is not None:
        query = query.where(table.target == sought.target)
    if sought.since is not None:
        query = query.where(table.at >= sought.since)
    if sought.until is not None:
        query = query.where(table.at < sought.until)
    return [LedgerEntry(*row) for row in await connection.execute(query)]
