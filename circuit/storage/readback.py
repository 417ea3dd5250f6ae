"""After a lost answer: was it committed?

A step with events raises the case's event number, and only the owner raises it. So while the incarnation is not
fenced, a case whose number has passed the step's has the step, and one that is still where the step began has not.
A step without events either gives the case up (then the owner is gone), settles a command (then the command is
settled), or changes nothing that may not be written twice.

A database may also have forgotten what it had acknowledged: it was restored from a backup, or exchanged for a standby
that had not heard of everything. Then the last that was acknowledged is gone (`there`), and what the incarnation
remembers never was.

Of a case that was given up and then claimed anew by the same incarnation, the first cannot be seen any more: it is
given up once more (`again`), but in any case with a wake-up, for the claim has used up what there was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from circuit.storage.driver import Connection
from circuit.storage.records import CaseWrite, LogWrite

READ_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class Pending:
    """A write that waits for its commit. `uncertain` says that it was sent once and the answer was lost, `waits` how
    often it was set aside."""

    write: CaseWrite | LogWrite
    future: asyncio.Future[None]
    uncertain: bool = False
    waits: int = 0

    def again(self) -> None:
        """It is not in the database, as far as can be seen, and is sent once more."""
        write = self.write
        if isinstance(write, CaseWrite) and write.release and not write.events:
            # An instant that has passed.
            self.write = replace(write, due_at=write.row.started_at)


_FENCED = "SELECT fenced FROM circuit.worker WHERE id = $1"
_CASES = """
SELECT t.seq, t.owner IS NOT DISTINCT FROM $1 AS owned, k.state IS DISTINCT FROM 'pending' AS settled
FROM unnest($2::int4[], $3::uuid[], $4::uuid[]) WITH ORDINALITY AS i(tenant_id, case_id, command_id, place)
LEFT JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.case_id
LEFT JOIN circuit.command k
    ON k.tenant_id = i.tenant_id AND k.case_id = i.case_id AND k.command_id = i.command_id
ORDER BY i.place
"""
_FRAMES = """
SELECT EXISTS (
    SELECT 1 FROM circuit.stream_event t
    WHERE t.tenant_id = i.tenant_id AND t.case_id = i.case_id
        AND t.firing = i.firing AND t.start = i.start AND t.seq = i.seq
) AS there
FROM unnest($1::int4[], $2::uuid[], $3::int4[], $4::int4[], $5::int4[])
    WITH ORDINALITY AS i(tenant_id, case_id, firing, start, seq, place)
ORDER BY i.place
"""


_EVENT_AT = "SELECT at FROM circuit.history WHERE tenant_id = $1 AND case_id = $2 AND seq = $3"
# Long after its end the stream may have been compacted: then the frame is within another one.
_FRAME_AT = """
SELECT CASE WHEN found.seq = $5 THEN found.at WHEN found.first_seq <= $5 THEN $6 END FROM (
    SELECT seq, at, first_seq FROM circuit.stream_event
    WHERE tenant_id = $1 AND case_id = $2 AND firing = $3 AND start = $4 AND seq >= $5 ORDER BY seq LIMIT 1
) found
"""


async def committed(connection: Connection, worker: UUID, writes: Sequence[CaseWrite | LogWrite]) -> list[bool] | None:
    """For each write, whether it is in the database; None if the incarnation is fenced (then it does not matter)."""
    steps = [write for write in writes if isinstance(write, CaseWrite)]
    # The rows of a log are committed together: its first frame stands for all. A log without frames holds journal
    # rows only, and those may be sent twice.
    logs = [write for write in writes if isinstance(write, LogWrite) and write.frames]
    found: dict[int, bool] = {}
    if steps:
        commands = [write.commands_settled[0].id if write.commands_settled else None for write in steps]
        rows = await connection.fetch(
            _CASES,
            worker,
            [write.key.tenant for write in steps],
            [write.key.case for write in steps],
            commands,
            timeout=READ_SECONDS,
        )
        for write, row in zip(steps, rows, strict=True):
            found[id(write)] = _is_there(write, row["seq"], owned=row["owned"], settled=row["settled"])
    if logs:
        first = [write.frames[0] for write in logs]
        rows = await connection.fetch(
            _FRAMES,
            [write.key.tenant for write in logs],
            [write.key.case for write in logs],
            [row.firing for row in first],
            [row.frame.start for row in first],
            [row.frame.sequence for row in first],
            timeout=READ_SECONDS,
        )
        for write, row in zip(logs, rows, strict=True):
            found[id(write)] = row["there"]
    # Last, so that what was read above was read while the incarnation was not fenced.
    if await connection.fetchval(_FENCED, worker, timeout=READ_SECONDS) is not False:
        return None
    return [found.get(id(write), False) for write in writes]


def trace(batch: Sequence[Pending]) -> CaseWrite | LogWrite | None:
    """The last write of a batch that left a row which stays, and by whose instant it can be told from any other."""
    for item in reversed(batch):
        write = item.write
        if write.events if isinstance(write, CaseWrite) else write.frames:
            return write
    return None


async def there(connection: Connection, traces: Sequence[CaseWrite | LogWrite]) -> bool:
    """Whether these writes, which were committed, are in the database still. A server that forgets, because it was
    restored from a backup or exchanged for a standby that had not heard of everything, forgets the last first."""
    for write in traces:
        if isinstance(write, CaseWrite):
            seq = write.expected_seq + len(write.events)
            found = await connection.fetchval(_EVENT_AT, *write.key, seq, timeout=READ_SECONDS)
            at = write.events[-1][0]
        else:
            row = write.frames[-1]
            at = row.frame.at
            place = (row.firing, row.frame.start, row.frame.sequence, at)
            found = await connection.fetchval(_FRAME_AT, *write.key, *place, timeout=READ_SECONDS)
        if found != at:
            return False
    return True


def _is_there(write: CaseWrite, seq: int | None, *, owned: bool, settled: bool) -> bool:
    if seq is None:
        return False
    if write.events:
        return seq >= write.expected_seq + len(write.events)
    if write.release:
        return not owned
    return bool(write.commands_settled) and settled
