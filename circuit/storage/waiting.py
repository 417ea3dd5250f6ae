"""How much waits for a worker, over all tenants (under the engine's role)."""

from __future__ import annotations

from dataclasses import dataclass

from circuit.storage.driver import Connection

MOST_COUNTED = 10_000

_QUEUE = f"""
SELECT (SELECT count(*) FROM (SELECT FROM circuit.ready WHERE due_at <= now() LIMIT {MOST_COUNTED}) due) AS due,
    (SELECT coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 FROM circuit.ready WHERE due_at <= now())
        AS oldest,
    (SELECT count(*) FROM circuit.worker w JOIN circuit.worker_lease l ON l.worker_id = w.id
        WHERE NOT w.fenced AND l.expires_at > now()) AS workers
"""  # noqa: S608 - a constant of this module


@dataclass(frozen=True, slots=True)
class Queue:
    """`due` counts the cases that could be claimed now, up to `MOST_COUNTED`; `oldest` is in seconds."""

    due: int
    oldest: float
    workers: int


async def queue(connection: Connection) -> Queue:
    """What waits now."""
    row = await connection.fetchrow(_QUEUE)
    assert row is not None
    return Queue(row["due"], row["oldest"], row["workers"])
