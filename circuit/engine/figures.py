"""What an engine shows of itself in figures: what its worker holds and does, and what waits in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from circuit.engine.connecting import connected
from circuit.observability.metrics import Figure, Kind
from circuit.storage import compaction, waiting
from circuit.storage.database import Database

if TYPE_CHECKING:
    from circuit.engine.worker import Worker


async def figures(database: Database) -> Sequence[Figure]:
    """The figures of the database. Raises `StorageError`."""
    async with connected(database) as connection:
        queue = await waiting.queue(connection)
        frames, size = await compaction.totals(connection)
    gone = "that went when streams were compacted."
    return [
        Figure("circuit_ready_cases", "Cases that wait for a worker now, counted up to ten thousand.", queue.due),
        Figure("circuit_ready_oldest_seconds", "How long the one that waits the longest has waited.", queue.oldest),
        Figure("circuit_workers", "Workers whose lease holds.", queue.workers),
        Figure("circuit_compacted_frames", f"Frames {gone}", frames, Kind.COUNTER),
        Figure("circuit_compacted_bytes", f"Bytes of frames {gone}", size, Kind.COUNTER),
    ]


def worker_figures(worker: Worker) -> Sequence[Figure]:
    """The figures of this process's worker."""
    losses = Figure("circuit_lease_losses", "Leases that this process has lost.", worker.lease_losses, Kind.COUNTER)
    tenure = worker.tenure
    if tenure is None:
        return [losses]
    desk, slots, sent = tenure.desk, tenure.desk.slots, tenure.writer.statistics
    fired = "Firings of transitions that this worker has committed: of those with an action, and of the others."
    ended = "Executions that ended in this worker, by how."
    return [
        losses,
        Figure("circuit_firings", fired, desk.fired_immediate, Kind.COUNTER, {"kind": "immediate"}),
        Figure("circuit_firings", fired, desk.fired_acting, Kind.COUNTER, {"kind": "acting"}),
        *(
            Figure("circuit_executions_ended", ended, count, Kind.COUNTER, {"outcome": outcome})
            for outcome, count in slots.outcomes.items()
        ),
        Figure("circuit_held_cases", "Cases that this process holds in memory.", len(desk)),
        Figure("circuit_running_executions", "Executions that run in this process.", slots.running),
        Figure("circuit_free_executions", "Executions that could begin in this process now.", slots.free),
        Figure("circuit_waiting_executions", "Executions that wait in this process for a slot.", slots.waiting),
        Figure(
            "circuit_lacking_shares",
            "Executions of this process that wait for a limit over all workers.",
            tenure.shares.lacking,
        ),
        Figure(
            "circuit_pressed_providers",
            "Types of providers that can take no more now: no cases are claimed for them.",
            len(worker.pressed()),
        ),
        Figure("circuit_flying_writes", "Steps and log entries on their way to the database.", desk.flying),
        Figure("circuit_executions", "Executions that this worker was asked to begin.", slots.submitted, Kind.COUNTER),
        Figure("circuit_commits", "Batches that this worker has committed.", sent.batches, Kind.COUNTER),
        Figure("circuit_writes", "Steps and log entries in these batches.", sent.writes, Kind.COUNTER),
    ]
