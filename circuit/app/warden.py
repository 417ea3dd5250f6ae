"""Who sees to it that the embedded Postgres runs for as long as this process uses it.

A server that was killed (by the system for want of memory, say) is started again; it recovers, and what waits for it
goes on. Where several processes use it, one of them starts it, and the others find it running. One that does not start
is tried again for as long as it takes, with growing pauses: room may be made on its disk meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import math

from circuit.engine.service import Backoff
from circuit.errors import StorageError
from circuit.storage.embedded import EmbeddedServer

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often it is looked whether the server lives: without asking it, so that it costs next to nothing."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""So long after the last start a server that is gone is started at once; before that, after a pause."""


class Warden:
    """Watches the server of one hold, between `start` and `stop`."""

    def __init__(
        self, server: EmbeddedServer, look_seconds: float = LOOK_SECONDS, backoff: Backoff | None = None
    ) -> None:
        self.problem: StorageError | None = None
        """Why the server does not run, if it was gone and did not start."""
        self._server = server
        self._look_seconds = look_seconds
        self._backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch; starting twice is fine."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="circuit-warden")

    async def stop(self) -> None:
        """Watch no longer. A start that is under way goes on in its thread; whoever stops the server waits for it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        tried = -math.inf
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                alive = await asyncio.to_thread(self._server.alive)
            except Exception:
                # Whatever this process is short of now, it needs its server afterwards.
                logger.exception("whether the embedded Postgres in %s runs is not known", self._server.home)
                await asyncio.sleep(self._backoff.next())
                continue
            if alive:
                if self.problem is not None:
                    self._runs()
                continue
            if self.problem is None:
                logger.warning("the embedded Postgres in %s is gone: it is started again", self._server.home)
            if loop.time() - tried >= STEADY_SECONDS:
                self._backoff.reset()
            else:
                await asyncio.sleep(self._backoff.next())
            await self._revive()
            tried = loop.time()

    async def _revive(self) -> None:
        try:
            await asyncio.to_thread(self._server.revive)
            self._runs()
        except StorageError as error:
            if self.problem is None:
                logger.error("%s", error)
            else:
                logger.error("the embedded Postgres in %s still does not start", self._server.home)
            self.problem = error
        except Exception:
            logger.exception("the embedded Postgres in %s could not be started", self._server.home)

    def _runs(self) -> None:
        """Whoever started it: it is there."""
        logger.warning("the embedded Postgres in %s runs again", self._server.home)
        self.problem = None
