"""Small cases for the tests of the storage: written as a start writes them, and the steps of an owner."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from circuit.events import CaseStarted, TokenImage, TokenRef, TransitionFired
from circuit.ids import CaseKey, uuid7
from circuit.net.marking import Token
from circuit.storage import cases, commands, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import CaseRow, CaseStatus, CaseWrite, TokenMove
from circuit.storage.workers import Incarnation

TENANT = 1
AT = datetime(2026, 11, 2, 12, tzinfo=UTC)
LEASE_SECONDS = 60.0
_random = itertools.count(1)


def new_key(tenant: int = TENANT) -> CaseKey:
    return CaseKey(tenant, uuid7(int(AT.timestamp() * 1000), next(_random)))


def incarnation(host: str = "here", boot_id: str = "boot", pid: int = 1) -> Incarnation:
    return Incarnation(uuid4(), host, boot_id, pid, 1.5)


async def start_worker(conn: Connection, **about: Any) -> UUID:
    """A registered incarnation; its id."""
    worker = incarnation(**about)
    await workers.register(conn, worker, LEASE_SECONDS)
    return worker.id


def first_row(bucket: int = 0) -> CaseRow:
    return CaseRow("flow", "hash", CaseStatus.RUNNING, 1, 2, 1, 1, AT, bucket=bucket)


def first_token() -> Token:
    return Token(1, 1, "begin", {"value": 0}, {}, AT)


async def start_case(database: Database, key: CaseKey | None = None, **options: Any) -> CaseKey:
    """A case with one token in `begin`, as a start leaves it."""
    [started] = await start_cases(database, [key or new_key()], **options)
    return started


async def start_cases(database: Database, keys: Sequence[CaseKey], *, bucket: int = 0, **options: Any) -> list[CaseKey]:
    """Cases of one tenant, in one transaction."""
    token = first_token()
    image = TokenImage(token.number, token.version, token.place, token.data, token.metadata)
    event = CaseStarted("flow", "hash", (image,), "tests")
    async with database.transaction(keys[0].tenant) as conn:
        return [await commands.insert_case(conn, key, first_row(bucket), [token], event, AT, **options) for key in keys]


async def owned_cases(database: Database, conn: Connection, worker: UUID, count: int) -> list[CaseKey]:
    """`count` new cases that `worker` owns."""
    keys = await start_cases(database, [new_key() for _ in range(count)])
    assert sorted(await cases.claim(conn, worker, count, keys)) == sorted(keys)
    return keys


def step(key: CaseKey, seq: int = 1, *, from_version: int = 1, value: int = 1, **changes: Any) -> CaseWrite:
    """A step of a case that stands at `seq`: its one token fires `go` once more."""
    row = replace(first_row(), seq=seq + 1)
    token = Token(1, from_version + 1, "begin", {"value": value}, {}, AT)
    event = TransitionFired(
        "go",
        (TokenRef(1, from_version, "begin"),),
        (TokenImage(1, token.version, token.place, token.data, token.metadata),),
    )
    write = CaseWrite(key, seq, row, [(AT, event)], tokens_moved=[TokenMove(token, from_version, None)])
    for name, change in changes.items():
        setattr(write, name, change)
    return write


async def seqs(conn: Connection, keys: Sequence[CaseKey]) -> list[int]:
    """Where these cases stand."""
    return [
        await conn.fetchval(
            'SELECT seq FROM circuit."case" WHERE tenant_id = $1 AND case_id = $2', key.tenant, key.case
        )
        for key in keys
    ]


async def history(conn: Connection, key: CaseKey) -> list[tuple[int, str]]:
    """The numbers and kinds of the events of a case."""
    rows = await conn.fetch(
        "SELECT seq, kind FROM circuit.history WHERE tenant_id = $1 AND case_id = $2 ORDER BY seq", key.tenant, key.case
    )
    return [(row["seq"], row["kind"]) for row in rows]
