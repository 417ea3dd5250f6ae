"""What operators ask of a worker, as the worker hears it: to end in good order, or to give cases up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

from circuit.engine.connecting import connected
from circuit.engine.service import Service
from circuit.ids import CaseKey
from circuit.storage import fleet
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.fleet import Request

logger = logging.getLogger(__name__)


class Attendance(Service):
    """Looks now and then whether something is asked of its incarnation. `release` gives cases up (None: all), `drain`
    has the worker end within so many seconds."""

    def __init__(
        self,
        database: Database,
        worker: UUID,
        *,
        release: Callable[[Collection[CaseKey] | None], asyncio.Future[list[CaseKey]]],
        drain: Callable[[float], None],
        every_seconds: float,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-attendance")
        self._database = database
        self._worker = worker
        self._release = release
        self._drain = drain
        self._every_seconds = every_seconds
        self._rng = rng or random.Random()

    async def _run(self) -> None:
        async with connected(self._database) as connection:
            while not self.stopping:
                for request in await fleet.asked(connection, self._worker):
                    await self._answer(connection, request)
                self._working()
                await self.pause(self._every_seconds * self._rng.uniform(0.75, 1.25))

    async def _answer(self, connection: Connection, request: Request) -> None:
        """Do what is asked, then say so. A request that is met twice (the answer was lost) does no harm."""
        drain_within: float | None = None
        if request.kind == "release":
            released = await self._release(request.cases)
            logger.warning("worker %s gave up %d cases on request", self._worker, len(released))
            result: dict[str, Any] = {"released": [[key.tenant, str(key.case)] for key in released]}
        elif request.kind == "drain":
            drain_within = float(request.payload.get("within_seconds", 0.0))
            result = {"draining": True}
        else:
            result = {"error": {"code": "invalid_request", "message": f"this release knows no {request.kind!r}"}}
        await fleet.settle(connection, self._worker, request.id, result)
        if drain_within is not None:
            logger.warning("worker %s ends on request, within %.0f s", self._worker, drain_within)
            self._drain(drain_within)
