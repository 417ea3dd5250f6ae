"""What a worker does for the database in the background: the partitions of the weeks to come, the policies for what is
old, and what lapsed on its own.

Every worker that stays has one; of those that archive or compact at the same time one does, and the others leave it
alone.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import datetime

from circuit.engine.archive.compaction import Compaction
from circuit.engine.archive.policy import Policy
from circuit.engine.archive.round import Archive
from circuit.engine.connecting import connected
from circuit.engine.service import Service
from circuit.errors import Conflict
from circuit.storage import guesses, partitions, rates, rations
from circuit.storage.database import Database

logger = logging.getLogger(__name__)

EVERY_SECONDS = 3_600.0
COMPACTING_SHARE = 0.5
"""How much of the time it compacts, at most: the database has other things to do."""


class Keeper(Service):
    """Looks after the database once an hour."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        policy: Policy,
        archive: Archive | None = None,
        *,
        every_seconds: float = EVERY_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-keeper")
        self._database = database
        self._now = now
        self._policy = policy
        self._archive = archive
        self._every_seconds = every_seconds
        self._rng = rng or random.Random()

    async def _run(self) -> None:
        while not self.stopping:
            async with connected(self._database) as connection:
                await partitions.ensure(connection, self._now())
                await rates.sweep(connection)
                await guesses.sweep(connection)
                await rations.sweep(connection)
            if self._archive is not None and self._policy.wanted:
                try:
                    await self._archive.run(self._policy, self._now(), logger.info)
                except Conflict as busy:
                    logger.info("the archive: %s", busy)
            if self._policy.compact_older_than is not None:
                try:
                    compaction = Compaction(self._database, share=COMPACTING_SHARE)
                    await compaction.run(self._policy.compact_older_than, self._now(), logger.info)
                except Conflict as busy:
                    logger.info("the compaction of streams: %s", busy)
            self._working()
            await self.pause(self._every_seconds * self._rng.uniform(0.75, 1.25))
