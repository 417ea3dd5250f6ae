"""Takes over what dead workers left: at the start of a worker and once every lease. Forgets those long gone, and
answers whose time in the cache is over.

A worker is dead when its lease has expired by the database's clock, or, on the same boot of the same host, when its
process is gone: then nobody has to wait for the lease.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from circuit.engine.connecting import connected
from circuit.engine.execution import FaultHook, no_fault
from circuit.engine.process import alive
from circuit.engine.service import Service
from circuit.storage import answers, fleet, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.workers import Incarnation

logger = logging.getLogger(__name__)


class Sweep(Service):
    """The sweep of one incarnation. `taken_over` is called when cases came free."""

    def __init__(
        self,
        database: Database,
        incarnation: Incarnation,
        lease_seconds: float,
        *,
        taken_over: Callable[[], None],
        fault: FaultHook = no_fault,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-sweep")
        self._database = database
        self._incarnation = incarnation
        self._lease_seconds = lease_seconds
        self._taken_over = taken_over
        self._fault = fault
        self._rng = rng or random.Random()

    async def _run(self) -> None:
        async with connected(self._database) as connection:
            await workers.forget(connection)
            await fleet.forget(connection)
            while not self.stopping:
                await self._look(connection)
                await answers.forget(connection)
                self._working()
                await self.pause(self._lease_seconds * self._rng.uniform(0.75, 1.0))

    async def _look(self, connection: Connection) -> None:
        here = self._incarnation
        for dead in await workers.expired(connection, here.host, here.boot_id, alive):
            if dead == here.id:
                continue
            self._fault("in_sweep")
            released = await workers.take_over(connection, dead, fault=self._fault)
            level = logging.WARNING if released else logging.INFO
            logger.log(level, "worker %s is dead; %d of its cases are free now", dead, released)
            if released:
                self._taken_over()
