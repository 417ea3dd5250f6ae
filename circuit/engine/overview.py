"""What goes on, at one glance: who works, what waits, how fast it goes, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from circuit.engine.connecting import connected
from circuit.engine.fleet import Fleet, WorkerView
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import overview, waiting
from circuit.storage.database import Database
from circuit.storage.overview import Recent, Written
from circuit.storage.waiting import Queue


@dataclass(frozen=True, slots=True)
class Glance:
    """What a look shows. `at` counts seconds; `recent` is of the cases that began within `window`."""

    at: float
    window: timedelta
    queue: Queue
    workers: Sequence[WorkerView]
    written: Written
    recent: Recent

    def rates(self, before: Glance | None) -> tuple[float, float] | None:
        """Events and executions a second since the look `before`; None where there was none, or no time between."""
        if before is None or self.at <= before.at:
            return None
        seconds = self.at - before.at
        events = self.written.events - before.written.events
        return events / seconds, (self.written.executions - before.written.executions) / seconds

    def as_dict(self, before: Glance | None = None) -> dict[str, Any]:
        rates = self.rates(before)
        return {
            "queue": {"cases": self.queue.due, "oldest_seconds": round(self.queue.oldest, 1)},
            "events_per_second": None if rates is None else round(rates[0], 1),
            "executions_per_second": None if rates is None else round(rates[1], 1),
            "window_seconds": int(self.window.total_seconds()),
            "cases": self.recent.cases,
            "executions": self.recent.executions,
            "cost_usd": self.recent.cost_usd,
            "tokens": self.recent.tokens,
            "workers": [worker.as_dict() for worker in self.workers],
        }


class Overview:
    """Looks at a whole deployment, and at the cases of one tenant."""

    def __init__(
        self, database: Database, fleet: Fleet, now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._now = now
        self._monotonic = monotonic

    async def look(self, principal: Principal, window: timedelta) -> Glance:
        """What goes on now. Raises `Forbidden` and `StorageError`."""
        principal.require(Permission.READ)
        async with connected(self._database) as connection:
            queue = await waiting.queue(connection)
            written = await overview.written(connection)
        at = self._monotonic()
        async with self._database.transaction(principal.tenant) as connection:
            recent = await overview.recent(connection, principal.tenant, self._now() - window)
        return Glance(at, window, queue, await self._fleet.workers(), written, recent)
