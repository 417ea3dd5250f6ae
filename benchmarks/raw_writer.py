"""The raw writer: the limit on a given Postgres.

It writes what a durable chain writes, firing by firing: one guarded row of `token`, one row of `history`, one row of
`case`, with the same keys, the same fence and the writer's own statement, and one commit for each batch of up to 500
tokens, over two connections. For each firing it decodes, changes and encodes 200 bytes of JSON. What it leaves out is
everything that makes these rows mean something: nets, guards, owners, queues.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson

from circuit.ids import uuid7
from circuit.storage import partitions, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.lane import Lane
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
_DONE = "UPDATE circuit.case SET status = 'completed', finished_at = now(), owner = NULL WHERE owner = $1"


@dataclass(frozen=True, slots=True)
class RawResult:
    """`client_us_per_firing` is CPU time of this process."""

    firings_per_second: float
    client_us_per_firing: float


@dataclass(slots=True)
class Share:
    """The tokens of one batch: they fire together, again and again. `seq` is the number of their last event."""

    ids: list[UUID]
    data: list[bytes] = field(default_factory=list[bytes])
    seq: int = 0


async def run(database_url: str, *, firings: int, live: int) -> RawResult:
    """Fire `firings` times (rounded up to whole batches) with `live` tokens."""
    database = await Database.open(database_url)
    connection = await database.raw()
    incarnation = Incarnation(uuid4(), "benchmark", "benchmark", 0, 0.0)
    await workers.register(connection, incarnation, LEASE_SECONDS)
    lanes = [Lane(database, incarnation.id) for _ in range(LANES)]
    try:
        shares = await _prepare(connection, incarnation.id, live)
        for lane in lanes:
            await lane.connect()
        rounds = -(-firings // live)
        # The first round plans the statements; it is not measured.
        await _fire(lanes, shares, 1)
        started, cpu = time.perf_counter(), time.process_time()
        await _fire(lanes, shares, rounds)
        seconds, used = time.perf_counter() - started, time.process_time() - cpu
    finally:
        for lane in lanes:
            await lane.close()
        # What it leaves looks like cases that are done, so that no worker takes them up.
        await connection.execute(_DONE, incarnation.id)
        await workers.retire(connection, incarnation.id)
        await connection.close()
        await database.close()
    done = rounds * live
    return RawResult(done / seconds, used / done * 1e6)


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

    def repeated(value: object) -> str:
        return _array([value] * count)

    ids, tenants = _array(share.ids), repeated(TENANT)
    before, after, null, one = repeated(seq), repeated(seq + 1), repeated(None), repeated(1)
    status, false, at = repeated("running"), repeated(False), repeated(now)
    cases = [count, tenants, ids, before, after, status, repeated(2), one, one, null, false]
    history = [tenants, ids, after, repeated("transition_fired"), at, repeated("go"), null, _array(bodies)]
    tokens = [
        *(count, tenants, ids, before, one, after, repeated(target)),
        *(_array(documents), repeated("{}"), at, null, null),
    ]
    return [*cases, *history, *tokens]


def _array(column: list[object] | list[str] | list[UUID]) -> str:
    return f"{{{orjson.dumps(column)[1:-1].decode()}}}"
