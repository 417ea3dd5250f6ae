"""What operators ask of a worker, as the worker hears it: to end in good order, or to give cases up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from uuid import UUID

from circuit.engine.connecting import connected
from circuit.engine.service import Service
from circuit.errors import CircuitError
from circuit.ids import CaseKey
from circuit.storage import fleet
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.fleet import Request

logger = logging.getLogger(__name__)


Errand = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""What a process does beside its cases when it is asked to; it gets the payload and gives the answer."""


class Attendance(Service):
    """Looks now and then whether something is asked of its incarnation. `release` gives cases up (None: all), `drain`
    has the worker end within so many seconds, `errands` are what else may be asked of this process, by kind."""

    def __init__(
        self,
        database: Database,
        worker: UUID,
        *,
        release: Callable[[Collection[CaseKey] | None], asyncio.Future[list[CaseKey]]],
        drain: Callable[[float], None],
        every_seconds: float,
        errands: Mapping[str, Errand] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-attendance")
        self._database = database
        self._worker = worker
        self._release = release
        self._drain = drain
        self._every_seconds = every_seconds
        self._errands = errands or {}
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
        elif request.kind in self._errands:
            result = await self._run_errand(self._errands[request.kind], request)
        else:
            result = {"error": {"code": "invalid_request", "message": f"this release knows no {request.kind!r}"}}
        await fleet.settle(connection, self._worker, request.id, result)
        if drain_within is not None:
            logger.warning("worker %s ends on request, within %.0f s", self._worker, drain_within)
            self._drain(drain_within)

    async def _run_errand(self, errand: Errand, request: Request) -> dict[str, Any]:
        try:
            return dict(await errand(request.payload))
        except CircuitError as error:
            return {"error": error.as_dict()}
        except Exception as error:
            logger.exception("worker %s could not do what it was asked: %s", self._worker, request.kind)
            return {"error": {"code": "internal_error", "message": f"{type(error).__name__}: {error}"}}
