"""What somebody other than the owner writes: a new case, and commands to one that exists.

All of it runs in a transaction of a tenant (`Database.transaction`), under row security.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Integer, SmallInteger, Uuid, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.errors import Conflict, NotFound
from circuit.events import CaseStarted, encode_event
from circuit.ids import CaseKey
from circuit.net.marking import Run, Token
from circuit.storage import artefacts, rows, subjects, tables
from circuit.storage.payloads import EVENT, METADATA, PLAIN
from circuit.storage.records import CaseRow, CaseStatus, CommandResult, CommandRow, NewCase

OTHER_REQUEST = "this idempotency key came with another request before; use a new key for a new request"

# What begins with cases: one statement, for each costs a round trip, and somebody waits. (The cases themselves are
# written before it, for row security looks whether they are there.)
_BEGIN = text(
    """
    WITH filled AS (
        INSERT INTO circuit.token (
            tenant_id, case_id, number, version, place, data, metadata, entered_at, available_at, runs
        )
        SELECT :tenant, i.case_id, i.number, i.version, i.place, i.data::jsonb, i.metadata::jsonb, i.entered_at,
            i.available_at, i.runs::jsonb
        FROM unnest(
            :of, CAST(:numbers AS int4[]), CAST(:versions AS int4[]), CAST(:places AS text[]), CAST(:data AS text[]),
            CAST(:metadata AS text[]), CAST(:entered AS timestamptz[]), CAST(:available AS timestamptz[]),
            CAST(:runs AS text[])
        ) AS i(case_id, number, version, place, data, metadata, entered_at, available_at, runs)
    ),
    recorded AS (
        INSERT INTO circuit.history (tenant_id, case_id, seq, kind, at, body)
        SELECT :tenant, i.case_id, 1, i.kind, i.at, i.body::json
        FROM unnest(:cases, CAST(:kinds AS text[]), CAST(:at AS timestamptz[]), CAST(:bodies AS text[]))
            AS i(case_id, kind, at, body)
    ),
    told AS (
        INSERT INTO circuit.outbox (tenant_id, case_id, seq)
        SELECT :tenant, i.case_id, 1 FROM unnest(:leaving) AS i(case_id)
    )
    INSERT INTO circuit.ready (tenant_id, case_id, bucket, due_at)
    SELECT :tenant, i.case_id, i.bucket, now() FROM unnest(:cases, CAST(:buckets AS int2[])) AS i(case_id, bucket)
    """
).bindparams(
    bindparam("tenant", type_=Integer),
    *(bindparam(name, type_=ARRAY(Uuid)) for name in ("of", "cases", "leaving")),
)


class Beginning(NamedTuple):
    """A case that begins: its row, its tokens, its first event and when. With `leaving` the event goes to the outbox;
    `fired` is how often its transitions count as fired already."""

    key: CaseKey
    row: CaseRow
    tokens: Sequence[Token]
    event: CaseStarted
    at: datetime
    leaving: bool = False
    fired: Mapping[str, int] = {}


async def insert_cases(conn: AsyncConnection, beginnings: Sequence[Beginning]) -> None:
    """Write new cases of one tenant: their rows, their tokens, their first events and their claims to attention."""
    placed = [await _placed(conn, one) for one in beginnings]
    await conn.execute(
        insert(tables.case), [_case(one, there.bucket) for one, there in zip(beginnings, placed, strict=True)]
    )
    asides = {one.key.case: there.artefacts for one, there in zip(beginnings, placed, strict=True)}
    await artefacts.put(conn, beginnings[0].key.tenant, asides)
    laid = [(one.key.case, token) for one in beginnings for token in one.tokens]
    await conn.execute(
        _BEGIN,
        {
            "tenant": beginnings[0].key.tenant,
            "of": [case for case, _ in laid],
            "numbers": [token.number for _, token in laid],
            "versions": [token.version for _, token in laid],
            "places": [token.place for _, token in laid],
            "data": [data for there in placed for data in there.texts[0:-1:2]],
            "metadata": [data for there in placed for data in there.texts[1:-1:2]],
            "entered": [token.entered_at for _, token in laid],
            "available": [token.available_at for _, token in laid],
            "runs": [None if token.runs is None else _runs(token.runs) for _, token in laid],
            "cases": [one.key.case for one in beginnings],
            "kinds": [one.event.kind for one in beginnings],
            "at": [one.at for one in beginnings],
            "bodies": [there.texts[-1] for there in placed],
            "leaving": [one.key.case for one in beginnings if one.leaving],
            "buckets": [there.bucket for there in placed],
        },
    )


async def insert_case(
    conn: AsyncConnection,
    key: CaseKey,
    row: CaseRow,
    tokens: Sequence[Token],
    event: CaseStarted,
    at: datetime,
    *,
    idempotency_key: str | None = None,
    request: str | None = None,
    leaving: bool = False,
    fired: Mapping[str, int] | None = None,
) -> CaseKey:
    """Write one new case, as `insert_cases` does; `request` is the hash of what was asked.

    Returns `key`, or, where a case was started with the same idempotency key before, the key of that case, and
    nothing is written. Two that come with one key at the same time meet at the unique index: the second waits until
    the first is committed, and is given the first one's case. Raises `Conflict` where something else was asked
    for with that key.
    """
    if idempotency_key is not None:
        first = await conn.scalar(
            upsert(tables.case_key)
            .values(tenant_id=key.tenant, key=idempotency_key, case_id=key.case, request=request)
            .on_conflict_do_nothing()
            .returning(tables.case_key.c.case_id)
        )
        if first is None:
            before = await started_with(conn, key.tenant, idempotency_key, request)
            if before is None:
                raise Conflict("a case with this idempotency key is being started at this moment; try again")
            return before
    await insert_cases(conn, [Beginning(key, row, tokens, event, at, leaving, fired or {})])
    return key


async def _placed(conn: AsyncConnection, one: Beginning) -> artefacts.Placed:
    given = [part for token in one.tokens for part in ((dict(token.data), PLAIN), (dict(token.metadata), METADATA))]
    return await artefacts.placed(conn, one.row.bucket, [*given, (orjson.loads(encode_event(one.event)), EVENT)])


def _case(one: Beginning, bucket: int) -> dict[str, Any]:
    row = one.row
    return {
        "tenant_id": one.key.tenant,
        "case_id": one.key.case,
        "workflow_id": row.workflow_id,
        "workflow_hash": row.workflow_hash,
        "status": row.status.value,
        "seq": 1,
        "next_token": row.next_token,
        "next_firing": row.next_firing,
        "next_incident": row.next_incident,
        "parameters": dict(row.parameters),
        "started_at": row.started_at,
        "bucket": bucket,
        "fired": dict(one.fired),
        "traceparent": row.traceparent,
    }


def _runs(runs: Mapping[str, Run]) -> str:
    return orjson.dumps({name: run.as_json() for name, run in runs.items()}).decode()


async def started_with(conn: AsyncConnection, tenant: int, idempotency_key: str, request: str | None) -> CaseKey | None:
    """The case that was started with this idempotency key, if one was. Raises `Conflict` where that was asked for by
    another `request`; what an older release started is not known by one."""
    table = tables.case_key
    found = await conn.execute(
        select(table.c.case_id, table.c.request).where(table.c.tenant_id == tenant, table.c.key == idempotency_key)
    )
    earlier = found.one_or_none()
    if earlier is None:
        return None
    if None not in (earlier.request, request) and earlier.request != request:
        raise Conflict(OTHER_REQUEST)
    return CaseKey(tenant, rows.plain(earlier.case_id))


async def write_case(
    conn: AsyncConnection, new: NewCase, idempotency_key: str | None = None, request: str | None = None
) -> CaseKey:
    """Write a new case; with an idempotency key, at most once for one `request`. Returns the key of the case. Raises
    `Conflict`."""
    row = replace(new.row, bucket=await bucket_of(conn, new.requires))
    started = await insert_case(
        conn,
        new.key,
        row,
        new.tokens,
        new.event,
        row.started_at,
        idempotency_key=idempotency_key,
        request=request,
        leaving=new.leaving,
    )
    if new.subjects and started == new.key:
        await subjects.link(conn, new.key, new.subjects, new.event.principal)
    return started


async def write_cases(conn: AsyncConnection, given: Sequence[NewCase]) -> None:
    """Write new cases of one tenant."""
    buckets: list[tuple[Mapping[str, Any], int]] = []
    beginnings: list[Beginning] = []
    for new in given:
        bucket = next((bucket for needs, bucket in buckets if needs == new.requires), None)
        if bucket is None:
            bucket = await bucket_of(conn, new.requires)
            buckets.append((new.requires, bucket))
        row = replace(new.row, bucket=bucket)
        beginnings.append(Beginning(new.key, row, new.tokens, new.event, row.started_at, new.leaving))
    await insert_cases(conn, beginnings)
    for new in given:
        await subjects.link(conn, new.key, new.subjects, new.event.principal)


async def bucket_of(conn: AsyncConnection, requires: Mapping[str, Any]) -> int:
    """The bucket of the cases that need this of a worker; it is made if it is new."""
    asked = select(func.circuit.bucket_of(bindparam("requires", requires, type_=JSONB), type_=SmallInteger))
    return int(await conn.scalar(asked) or 0)


async def insert_command(
    conn: AsyncConnection, key: CaseKey, command: CommandRow, *, idempotency_key: str | None = None
) -> UUID:
    """Ask something of a case. Returns the id of the command, or, where one came with the same idempotency key
    before, the id of that one. Raises `NotFound`, and `Conflict` where the case has ended or the key came with
    another request.

    A case that ends at this very moment does not see the command; then whoever claims next refuses it.
    """
    if idempotency_key is not None:
        earlier = await _asked_before(conn, key, command, idempotency_key)
        if earlier is not None:
            return earlier
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
        earlier = await _asked_before(conn, key, command, idempotency_key)
        if earlier is None:
            raise Conflict("a command with this idempotency key is being sent at this moment; try again")
        return earlier
    await make_ready(conn, key)
    return command.id


async def make_ready(conn: AsyncConnection, key: CaseKey) -> None:
    """Have somebody look at a case at once: its owner, or whoever claims it.

    ON CONFLICT DO UPDATE, and never DO NOTHING. Whoever looks deletes or postpones the row of `ready` and then reads
    the commands; DO NOTHING would rely on a row that may be gone when this transaction is committed, after the look.
    DO UPDATE locks the row. If the other came first, this waits for it and then inserts a new row or makes the
    postponed one due; if this comes first, the other skips the row, which stays until the command can be seen.
    """
    case = tables.case
    statement = upsert(tables.ready).from_select(
        ["bucket", "tenant_id", "case_id", "due_at"],
        select(case.c.bucket, case.c.tenant_id, case.c.case_id, func.now()).where(
            case.c.tenant_id == key.tenant, case.c.case_id == key.case
        ),
    )
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


async def _asked_before(conn: AsyncConnection, key: CaseKey, command: CommandRow, idempotency_key: str) -> UUID | None:
    """The command that came with this key, if one did. Postgres compares what was asked: 1 and 1.0 are the same."""
    table = tables.command
    same = (table.c.kind == command.kind) & (table.c.payload == dict(command.payload))
    found = await conn.execute(
        select(table.c.command_id, same.label("same")).where(
            table.c.tenant_id == key.tenant,
            table.c.case_id == key.case,
            table.c.idempotency_key == idempotency_key,
        )
    )
    earlier = found.mappings().one_or_none()
    if earlier is None:
        return None
    if not earlier["same"]:
        raise Conflict(OTHER_REQUEST)
    return rows.plain(earlier["command_id"])
