"""The raw writer: the limit on a given Postgres.

It writes what a durable chain writes, firing by firing: one guarded row of `token`, one row of `history`, one row of
`case`, with the same keys, the same fence and the writer's own statement, and one commit for each batch of up to 500
tokens, over two connections. For each firing it decodes, changes and encodes 200 bytes of JSON. What it leaves out is
everything that makes these rows mean something: nets, guards, owners, queues.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson

from circuit.ids import uuid7
from circuit.storage import partitions, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.lane import Lane
from circuit.storage.statements import BY_NAME
from circuit.storage.workers import Incarnation

BATCH = 500
LANES = 2
LEASE_SECONDS = 3_600.0
TENANT = 1
WORKFLOW = "raw-writer"
SECTIONS = ("cases", "history", "tokens_moved")
PLACES = ("left", "right")
PAYLOAD = {"text": "x" * 150, "value": 0, "name": "raw", "tags": ["a", "b"]}

_CASES = """
INSERT INTO circuit.case (tenant_id, case_id, workflow_id, workflow_hash, status, owner, seq, next_token, next_firing,
    next_incident, started_at)
SELECT $1, case_id, $2, '', 'running', $3, 0, 2, 1, 1, now() FROM unnest($4::uuid[]) AS i(case_id)
"""
_TOKENS = """
INSERT INTO circuit.token (tenant_id, case_id, number, version, place, data, metadata, entered_at)
SELECT $1, case_id, 1, 0, $2, $3, '{}', now() FROM unnest($4::uuid[]) AS i(case_id)
"""


@dataclass(slots=True)
class Share:
    """The tokens of one batch: they fire together, again and again. `seq` is the number of their last event."""

    ids: list[UUID]
    data: list[bytes] = field(default_factory=list[bytes])
    seq: int = 0


class RawWriter:
    """So many live tokens over the writer's lanes. Made by `open`."""

    def __init__(self, lanes: list[Lane], shares: list[Share]) -> None:
        self._lanes = lanes
        self._shares = shares

    @classmethod
    async def open(cls, url: str, *, live: int) -> RawWriter:
        """Register as a worker, make the cases, and fire once, which plans the statements."""
        database = await Database.open(url)
        connection = await database.raw()
        incarnation = Incarnation(uuid4(), "benchmark", "benchmark", 0, 0.0)
        await workers.register(connection, incarnation, LEASE_SECONDS)
        lanes = [Lane(database, incarnation.id) for _ in range(LANES)]
        shares = await _prepare(connection, incarnation.id, live)
        for lane in lanes:
            await lane.connect()
        writer = cls(lanes, shares)
        await writer.fire(1)
        return writer

    async def fire(self, rounds: int) -> None:
        """Fire every token so many times."""
        await _fire(self._lanes, self._shares, rounds)


async def _prepare(connection: Connection, worker: UUID, live: int) -> list[Share]:
    now = datetime.now(UTC)
    await partitions.ensure(connection, now)
    noise = random.SystemRandom()
    ids = sorted(uuid7(int(now.timestamp() * 1000), noise.getrandbits(74)) for _ in range(live))
    payload = orjson.dumps(PAYLOAD)
    await connection.execute(_CASES, TENANT, WORKFLOW, worker, ids)
    await connection.execute(_TOKENS, TENANT, PLACES[0], payload.decode(), ids)
    size = max(1, min(BATCH, -(-live // LANES)))
    return [
        Share(ids[first : first + size], [payload] * len(ids[first : first + size])) for first in range(0, live, size)
    ]


async def _fire(lanes: list[Lane], shares: list[Share], rounds: int) -> None:
    """Every share fires `rounds` times; a lane takes the next share as soon as it is free."""
    queue: asyncio.Queue[tuple[Share, int]] = asyncio.Queue()
    left = len(shares)
    for share in shares:
        queue.put_nowait((share, rounds))

    async def serve(lane: Lane) -> None:
        nonlocal left
        while left:
            try:
                share, again = queue.get_nowait()
            except asyncio.QueueEmpty:
                return
            await lane.send(SECTIONS, _parameters(share))
            if again > 1:
                queue.put_nowait((share, again - 1))
            else:
                left -= 1

    await asyncio.gather(*(serve(lane) for lane in lanes))


def _parameters(share: Share) -> list[object]:
    """One firing of each token of the share, as the writer's statement takes it."""
    seq, share.seq = share.seq, share.seq + 1
    count = len(share.ids)
    source, target = PLACES[seq % 2], PLACES[(seq + 1) % 2]
    now = datetime.now(UTC)
    documents: list[str] = []
    bodies: list[str] = []
    for place, encoded in enumerate(share.data):
        data = orjson.loads(encoded)
        data["value"] += 1
        share.data[place] = changed = orjson.dumps(data)
        document = changed.decode()
        documents.append(document)
        bodies.append(
            f'{{"transition":"go","consumed":[{{"number":1,"version":{seq},"place":"{source}"}}],"produced":[{{"number":1,'
            f'"version":{seq + 1},"place":"{target}","data":{document},"metadata":{{}},"parents":[]}}],"read":[],'
            f'"firing":null,"execution_id":null,"principal":null,"skipped":null,"v":1}}'
        )

    # A column that is not named here is null in every row.
    same: dict[str, object] = {"tenant_id": TENANT, "kind": "transition_fired", "transition": "go", "status": "running"}
    same |= {"expected": seq, "seq": seq + 1, "next_token": 2, "next_firing": 1, "next_incident": 1, "release": False}
    same |= {"from_version": seq, "number": 1, "version": seq + 1, "place": target, "metadata": "{}"}
    same |= {"at": now, "entered_at": now}
    each: dict[str, list[Any]] = {"case_id": share.ids, "body": bodies, "data": documents}
    given: list[object] = []
    for name in SECTIONS:
        section = BY_NAME[name]
        given += [count] if section.guards else []
        given += [_array(each.get(column) or [same.get(column)] * count) for column, _ in section.columns]
    return given


def _array(column: list[Any]) -> str:
    return f"{{{orjson.dumps(column)[1:-1].decode()}}}"
