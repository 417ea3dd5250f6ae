"""The workers as an operator sees them, and what he asks of one. All of it runs under the engine's role.

A request is a row that the worker itself settles, so that nothing is taken from it by force: it gives up what it has in
good order, or says why not. Only an incarnation that is dead is fenced from outside (`circuit.storage.workers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from circuit.ids import CaseKey
from circuit.storage import rows
from circuit.storage.driver import Connection, Record
from circuit.storage.rows import document, plain

_WORKERS = """
SELECT w.*, now() AS now, l.expires_at,
    coalesce(l.expires_at > now(), false) AS leased,
    (SELECT count(*) FROM circuit."case" c WHERE c.owner = w.id) AS cases,
    (
        SELECT count(*) FROM circuit."case" c
        JOIN circuit.firing f ON f.tenant_id = c.tenant_id AND f.case_id = c.case_id AND f.state = 'running'
        WHERE c.owner = w.id
    ) AS executions,
    EXISTS (
        SELECT 1 FROM circuit.worker_request r
        WHERE r.worker_id = w.id AND r.kind = 'drain' AND r.settled_at IS NULL
    ) AS draining
FROM circuit.worker w LEFT JOIN circuit.worker_lease l ON l.worker_id = w.id
WHERE $1 OR NOT w.fenced
ORDER BY w.started_at, w.id
"""
_ASK = """
INSERT INTO circuit.worker_request (id, worker_id, kind, payload, asked_by) VALUES ($1, $2, $3, $4, $5)
"""
_ASKED = """
SELECT id, kind, payload FROM circuit.worker_request WHERE worker_id = $1 AND settled_at IS NULL ORDER BY asked_at, id
"""
_SETTLE = """
UPDATE circuit.worker_request SET settled_at = now(), result = $3
WHERE worker_id = $1 AND id = $2 AND settled_at IS NULL
"""
_RESULT = "SELECT result FROM circuit.worker_request WHERE worker_id = $1 AND id = $2"
_OWNER = 'SELECT owner FROM circuit."case" WHERE tenant_id = $1 AND case_id = $2'
_FORGET = """
DELETE FROM circuit.worker_request r
WHERE r.asked_at < now() - interval '1 day' AND NOT EXISTS (
    SELECT 1 FROM circuit.worker w WHERE w.id = r.worker_id AND NOT w.fenced
)
"""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """An incarnation as it stands: `leased` says that it lives by the database's clock; `cases` are those it owns,
    `executions` the firings that run in them."""

    id: UUID
    host: str
    boot_id: str
    pid: int
    pid_started: float
    pools: tuple[str, ...]
    started_at: datetime
    now: datetime
    expires_at: datetime | None
    leased: bool
    fenced: bool
    retired_at: datetime | None
    draining: bool
    cases: int
    executions: int


@dataclass(frozen=True, slots=True)
class Request:
    """Something that is asked of a worker: `drain` (`within_seconds`) or `release` (`cases`, or all of them)."""

    id: UUID
    kind: str
    payload: Mapping[str, Any]

    @property
    def cases(self) -> list[CaseKey] | None:
        """The cases that are to be given up, or None for all."""
        named = self.payload.get("cases")
        return None if named is None else [CaseKey(int(tenant), UUID(case)) for tenant, case in named]


async def listed(conn: Connection, *, ended: bool = False) -> list[WorkerRow]:
    """The workers, the oldest first; with `ended` also those that were fenced or retired and are not forgotten."""
    return [_worker(row) for row in await conn.fetch(_WORKERS, ended)]


async def ask(conn: Connection, worker: UUID, request: Request, asked_by: str) -> None:
    """Ask something of a worker."""
    payload = orjson.dumps(request.payload).decode()
    await conn.execute(_ASK, request.id, worker, request.kind, payload, asked_by)


async def asked(conn: Connection, worker: UUID) -> list[Request]:
    """What is asked of a worker and not settled, the oldest first."""
    return [
        Request(plain(row["id"]), row["kind"], document(row["payload"])) for row in await conn.fetch(_ASKED, worker)
    ]


async def settle(conn: Connection, worker: UUID, request: UUID, result: Mapping[str, Any]) -> None:
    """Say what became of a request. What is settled stays as it is."""
    await conn.execute(_SETTLE, worker, request, orjson.dumps(result).decode())


async def result(conn: Connection, worker: UUID, request: UUID) -> Mapping[str, Any] | None:
    """What became of a request, or None as long as nothing did."""
    return document(await conn.fetchval(_RESULT, worker, request))


async def owner(conn: Connection, key: CaseKey) -> UUID | None:
    """The worker that owns a case. Raises `LookupError` if there is no such case."""
    found = await conn.fetchrow(_OWNER, key.tenant, key.case)
    if found is None:
        raise LookupError(f"there is no case {key}")
    return None if found["owner"] is None else plain(found["owner"])


async def forget(conn: Connection) -> None:
    """Delete requests to workers that ended."""
    await conn.execute(_FORGET)


def _worker(row: Record) -> WorkerRow:
    return WorkerRow(
        id=rows.plain(row["id"]),
        host=row["host"],
        boot_id=row["boot_id"],
        pid=row["pid"],
        pid_started=row["pid_started"],
        pools=tuple(row["pools"]),
        started_at=row["started_at"],
        now=row["now"],
        expires_at=row["expires_at"],
        leased=row["leased"],
        fenced=row["fenced"],
        retired_at=row["retired_at"],
        draining=row["draining"],
        cases=row["cases"],
        executions=row["executions"],
    )
