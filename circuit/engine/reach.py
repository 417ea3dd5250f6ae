"""Asking the database for what a request can do without: within bounded time, and not at all for a while where it does
not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from circuit.errors import DatabaseUnreachable
from circuit.storage.database import Database, TenantConnection

PATIENCE_SECONDS = 1.0
PAUSE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Reach:
    """The way to the database of those who count for all processes, and for their own where there is none."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._again_at = float("-inf")

    @property
    def lost(self) -> bool:
        """Whether the database did not answer a short while ago."""
        return self._monotonic() < self._again_at

    @asynccontextmanager
    async def transaction(self, tenant: int) -> AsyncGenerator[TenantConnection]:
        """As `Database.transaction`. Raises `StorageError`, at once while the database is `lost`, and where it does not
        answer in time `TimeoutError`; it is `lost` then."""
        if self.lost:
            raise DatabaseUnreachable("the database did not answer a short while ago")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._database.transaction(tenant) as connection:
                yield connection
        except (DatabaseUnreachable, TimeoutError) as error:
            # Of those who asked at the same time the first one says it.
            if not self.lost:
                logger.warning(
                    "the database does not answer and is not asked for a while: %s", str(error) or "not in time"
                )
            self._again_at = self._monotonic() + PAUSE_SECONDS
            raise
