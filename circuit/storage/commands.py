"""What somebody other than the owner writes: a new case, and commands to one that exists.

All of it runs in a transaction of a tenant (`Database.transaction`), under row security.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.errors import Conflict, NotFound
from circuit.events import CaseStarted, encode_event
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage import rows, tables
from circuit.storage.records import CaseRow, CaseStatus, CommandResult, CommandRow


async def insert_case(
    conn: AsyncConnection,
    key: CaseKey,
    row: CaseRow,
    tokens: Sequence[Token],
    event: CaseStarted,
    at: datetime,
    *,
    idempotency_key: str | None = None,
) -> CaseKey:
    """Write a new case: its row, its tokens, its first event and its claim to attention.

    Returns `key`, or, where a case was started with the same idempotency key before, the key of that case, and
    nothing is written. Two that come with one key at the same time meet at the unique index: the second waits until
    the first is committed, and is given the first one's case.
    """
    if idempotency_key is not None:
        first = await conn.scalar(
            upsert(tables.case_key)
            .values(tenant_id=key.tenant, key=idempotency_key, case_id=key.case)
            .on_conflict_do_nothing()
            .returning(tables.case_key.c.case_id)
        )
        if first is None:
            earlier = await conn.scalar(
                select(tables.case_key.c.case_id).where(
                    tables.case_key.c.tenant_id == key.tenant, tables.case_key.c.key == idempotency_key
                )
            )
            if earlier is None:
                raise Conflict("a case with this idempotency key is being started at this moment; try again")
            return CaseKey(key.tenant, rows.plain(earlier))
    where: dict[str, Any] = {"tenant_id": key.tenant, "case_id": key.case}
    await conn.execute(
        insert(tables.case).values(
            **where,
            workflow_id=row.workflow_id,
            workflow_hash=row.workflow_hash,
            status=row.status.value,
            seq=1,
            next_token=row.next_token,
            next_firing=row.next_firing,
            next_incident=row.next_incident,
            parameters=dict(row.parameters),
            started_at=row.started_at,
        )
    )
    if tokens:
        await conn.execute(
            insert(tables.token),
            [
                {
                    **where,
                    "number": token.number,
                    "version": token.version,
                    "place": token.place,
                    "data": dict(token.data),
                    "metadata": dict(token.metadata),
                    "entered_at": token.entered_at,
                    "available_at": token.available_at,
                }
                for token in tokens
            ],
        )
    await conn.execute(
        insert(tables.history).values(**where, seq=1, kind=event.kind, at=at, body=orjson.loads(encode_event(event)))
    )
    await conn.execute(insert(tables.ready).values(**where, due_at=func.now()))
    return key


async def insert_command(
    conn: AsyncConnection, key: CaseKey, command: CommandRow, *, idempotency_key: str | None = None
) -> UUID:
    """Ask something of a case. Returns the id of the command, or, where one came with the same idempotency key
    before, the id of that one. Raises `NotFound`, and `Conflict` where the case has ended.

    A case that ends at this very moment does not see the command; then whoever claims next refuses it.
    """
    if idempotency_key is not None:
        earlier = await conn.scalar(_by_key(key, idempotency_key))
        if earlier is not None:
            return rows.plain(earlier)
    status = await conn.scalar(
        select(tables.case.c.status).where(tables.case.c.tenant_id == key.tenant, tables.case.c.case_id == key.case)
    )
    if status is None:
        raise NotFound(f"there is no case {key.case}")
    if CaseStatus(status).terminal:
        raise Conflict(f"case {key.case} is {status}: nothing more can be asked of it")
    inserted = await conn.scalar(
        upsert(tables.command)
        .values(
            tenant_id=key.tenant,
            case_id=key.case,
            command_id=command.id,
            kind=command.kind,
            payload=dict(command.payload),
            principal=dict(command.principal),
            idempotency_key=idempotency_key,
        )
        .on_conflict_do_nothing(index_elements=["tenant_id", "case_id", "idempotency_key"])
        .returning(tables.command.c.command_id)
    )
    if inserted is None:
        assert idempotency_key is not None
        earlier = await conn.scalar(_by_key(key, idempotency_key))
        if earlier is None:
            raise Conflict("a command with this idempotency key is being sent at this moment; try again")
        return rows.plain(earlier)
    await make_ready(conn, key)
    return command.id


async def make_ready(conn: AsyncConnection, key: CaseKey) -> None:
    """Have somebody look at a case at once: its owner, or whoever claims it.

    ON CONFLICT DO UPDATE, and never DO NOTHING. The owner deletes the row of `ready` and then reads the commands; it
    may have deleted a row that stands here still, and DO NOTHING would rely on it: the owner would have read before
    this transaction is committed, and the row would be gone. DO UPDATE locks the row. If the owner's delete came
    first, this waits for it and then inserts a new row; if this comes first, the delete skips the row, which stays
    until the command can be seen.
    """
    statement = upsert(tables.ready).values(tenant_id=key.tenant, case_id=key.case, due_at=func.now())
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "case_id"],
            set_={"due_at": func.least(tables.ready.c.due_at, statement.excluded.due_at)},
        )
    )


async def command_result(conn: AsyncConnection, key: CaseKey, command: UUID) -> CommandResult | None:
    """What became of a command (`pending` as long as nothing did), or None if there is none with this id."""
    found = await conn.execute(
        select(tables.command.c.command_id, tables.command.c.state, tables.command.c.result).where(
            tables.command.c.tenant_id == bindparam("tenant"),
            tables.command.c.case_id == bindparam("case"),
            tables.command.c.command_id == bindparam("command"),
        ),
        {"tenant": key.tenant, "case": key.case, "command": command},
    )
    row = found.mappings().one_or_none()
    return None if row is None else rows.command_result(row)


def _by_key(key: CaseKey, idempotency_key: str) -> Any:
    return select(tables.command.c.command_id).where(
        tables.command.c.tenant_id == key.tenant,
        tables.command.c.case_id == key.case,
        tables.command.c.idempotency_key == idempotency_key,
    )
