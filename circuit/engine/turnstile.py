"""Lets the firings in that wait for shared places, as soon as there is something for them.

The process whose case asks for something, or gives something back, looks at the queue of that workflow after its
commit; so nothing polls the queues. What is paced is looked for when it is there again, and what a dead process did not
come to at each sweep.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime

from circuit.engine.allocation import allocate
from circuit.engine.connecting import connected
from circuit.engine.service import Service
from circuit.storage import resources
from circuit.storage.database import Database
from circuit.storage.driver import Connection

logger = logging.getLogger(__name__)

Queue = tuple[int, str]
"""A tenant and a workflow."""


class Turnstile(Service):
    """Grants what there is. `granted` is called when cases have become due by it."""

    def __init__(
        self,
        database: Database,
        sweep_seconds: float,
        *,
        now: Callable[[], datetime],
        granted: Callable[[], None],
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-turnstile")
        self._database = database
        self._sweep_seconds = sweep_seconds
        self._now = now
        self._granted = granted
        self._rng = rng or random.Random()
        self._touched: dict[Queue, None] = {}
        self._due: dict[Queue, datetime] = {}
        self._woken = asyncio.Event()

    def touch(self, tenant: int, workflow_id: str) -> None:
        """Somebody asks for something of this workflow's shared places, or has given something back."""
        self._touched[tenant, workflow_id] = None
        self._woken.set()

    async def _run(self) -> None:
        async with connected(self._database) as connection:
            loop = asyncio.get_running_loop()
            sweep_at = loop.time()
            while not self.stopping:
                self._woken.clear()
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + self._sweep_seconds * self._rng.uniform(0.75, 1.0)
                    await resources.forget_paced(connection)
                    for queue in await resources.queues(connection):
                        self._touched[queue] = None
                await self._serve(connection)
                self._working()
                await self._rest(sweep_at - loop.time())

    async def _serve(self, connection: Connection) -> None:
        now = self._now()
        for queue in [queue for queue, due_at in self._due.items() if due_at <= now]:
            self._touched[queue] = None
        while self._touched:
            queue = next(iter(self._touched))
            grants = await resources.grant(connection, *queue, allocate)
            # Only now: what is interrupted is looked at again.
            del self._touched[queue]
            self._due.pop(queue, None)
            if grants.due_at is not None:
                self._due[queue] = grants.due_at
            if grants.more:
                self._touched[queue] = None
            if grants.granted:
                logger.debug("%d firings of %s have what they waited for", grants.granted, queue[1])
                self._granted()

    async def _rest(self, seconds: float) -> None:
        """Wait until something is touched, is there again, or is to be swept."""
        if self._due:
            seconds = min(seconds, (min(self._due.values()) - self._now()).total_seconds())
        try:
            async with asyncio.timeout(max(0.005, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return
