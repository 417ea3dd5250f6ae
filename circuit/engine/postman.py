"""Brings messages to the cases that wait for them.

It looks when something was sent, or when a case of this process waits for something new or has answered, and at each
sweep at what a dead process did not come to. What waits and what is kept is not looked at, so neither costs anything.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from circuit.engine.connecting import connected
from circuit.engine.service import Service
from circuit.storage import messages
from circuit.storage.database import Database
from circuit.storage.driver import Connection

logger = logging.getLogger(__name__)

LEAST_PAUSE_SECONDS = 0.02
REST_FACTOR = 2.0
"""After a look it rests so many times as long as the look took, so that a backlog leaves the database to others."""


class Postman(Service):
    """Brings what there is. `brought` is called when cases have become due by it, `settled` with the id of each message
    of which something is known now."""

    def __init__(
        self,
        database: Database,
        sweep_seconds: float,
        *,
        brought: Callable[[], None],
        settled: Callable[[str], None],
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-postman")
        self._database = database
        self._sweep_seconds = sweep_seconds
        self._brought = brought
        self._settled = settled
        self._rng = rng or random.Random()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There may be something to bring."""
        self._woken.set()

    async def _run(self) -> None:
        async with connected(self._database) as connection:
            loop = asyncio.get_running_loop()
            sweep_at = loop.time()
            while not self.stopping:
                self._woken.clear()
                begun = loop.time()
                if begun >= sweep_at:
                    sweep_at = begun + self._sweep_seconds * self._rng.uniform(0.75, 1.0)
                    await messages.forget(connection)
                more = await self._look(connection)
                self._working()
                await self.pause(max(LEAST_PAUSE_SECONDS, REST_FACTOR * (loop.time() - begun)))
                if not more:
                    await self._rest(sweep_at - loop.time())

    async def _look(self, connection: Connection) -> bool:
        found = await messages.match(connection)
        if found.given:
            logger.debug("%d messages were given to cases", found.given)
            self._brought()
        for message in found.settled:
            self._settled(str(message))
        return found.more

    async def _rest(self, seconds: float) -> None:
        """Wait until there may be something, or the next sweep is due."""
        try:
            async with asyncio.timeout(max(0.005, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return
