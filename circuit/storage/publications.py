"""What was published with an idempotency key, and the pointers of workflows, held and taken away.

All of it runs in a transaction of a tenant (`Database.transaction`), under row security.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage import tables
from circuit.storage.records import CaseStatus


class Publication(NamedTuple):
    """What a request published: its id and the hash of its version. `request` names what was asked for."""

    request: str
    id: str
    hash: str


async def find(conn: AsyncConnection, tenant: int, key: str) -> Publication | None:
    """What was published with this idempotency key, if something was."""
    table = tables.publication
    found = await conn.execute(
        select(table.c.request, table.c.id, table.c.hash).where(table.c.tenant_id == tenant, table.c.key == key)
    )
    row = found.one_or_none()
    return None if row is None else Publication(*row)


async def keep(conn: AsyncConnection, tenant: int, key: str, publication: Publication) -> bool:
    """Keep what a key published. Two that come with one key at a time meet here: the second waits for the first, and
    gets False."""
    table = tables.publication
    first = await conn.scalar(
        insert(table)
        .values(tenant_id=tenant, key=key, **publication._asdict())
        .on_conflict_do_nothing()
        .returning(table.c.key)
    )
    return first is not None


async def lock(conn: AsyncConnection, tenant: int, workflow_id: str) -> str | None:
    """The hash of the current version of a workflow, which nobody moves before this transaction has ended."""
    table = tables.workflow
    return await conn.scalar(
        select(table.c.hash).where(table.c.tenant_id == tenant, table.c.workflow_id == workflow_id).with_for_update()
    )


async def delete_workflow(conn: AsyncConnection, tenant: int, workflow_id: str) -> None:
    """Take the pointer of a workflow away. Its versions stay, for the cases that ran them."""
    table = tables.workflow
    await conn.execute(delete(table).where(table.c.tenant_id == tenant, table.c.workflow_id == workflow_id))


async def live_cases(conn: AsyncConnection, tenant: int, workflow_id: str) -> bool:
    """Whether a case of this workflow has not ended."""
    case = tables.case
    over = [status.value for status in CaseStatus if status.terminal]
    mine = (case.c.tenant_id == tenant) & (case.c.workflow_id == workflow_id) & case.c.status.not_in(over)
    return bool(await conn.scalar(select(exists(select(case.c.case_id).where(mine)))))
