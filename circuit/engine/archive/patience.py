"""Waiting for others who use the database: for old transactions, and for tables that they have locked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from circuit.errors import Conflict
from circuit.storage import archive
from circuit.storage.driver import Connection

LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 600.0


async def until(look: Callable[[], Awaitable[bool]], what: str) -> None:
    """Look again and again, with jitter, until it is true. Raises `Conflict` when patience is at its end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while not await look():
        if loop.time() > deadline:
            raise Conflict(f"{what} were waited for {PATIENCE_SECONDS:.0f} s in vain; it goes on the next time")
        await asyncio.sleep(random.uniform(0.25, 1.0) * LOOK_SECONDS)


async def others_ended(connection: Connection) -> None:
    """Wait for the ends of all transactions that began before."""
    number = await archive.transaction_number(connection)
    await until(lambda: archive.all_before_ended(connection, number), "transactions that began before")
