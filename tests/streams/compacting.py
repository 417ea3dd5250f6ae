"""A process that compacts streams, and says `working` before each change and waits then until it is told to go on."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from circuit.engine.archive import compaction
from circuit.storage.database import Database


def run(url: str) -> None:
    """The process's whole life; it ends by being killed, or when everything is compacted."""
    asyncio.run(_compact(url))


async def _compact(url: str) -> None:
    replace = compaction.compaction.replace

    async def held(*arguments: Any) -> None:
        print("working", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await replace(*arguments)

    compaction.PAGE_FRAMES, compaction.AT_ONCE = 7, 1
    compaction.compaction.replace = held
    database = await Database.open(url)
    await compaction.Compaction(database).run(timedelta(0), datetime.now(UTC) + timedelta(minutes=1))
    await database.close()
