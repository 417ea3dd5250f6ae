"""A whole Circuit that serves on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from circuit.app import Circuit
from circuit.settings import Settings


@asynccontextmanager
async def whole(database_url: str, /, **variables: str) -> AsyncIterator[tuple[Circuit, str]]:
    """The Circuit and its address, with the settings that these variables give."""
    options: dict[str, Any] = {}
    if variables:
        options["settings"] = Settings.from_environment({"CIRCUIT_DATABASE_URL": database_url, **variables})
    async with Circuit.open(database_url, **options) as circuit:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(circuit.serve("127.0.0.1", 0, ready=ready.set_result))
        done, _ = await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if serving in done:
            serving.result()
        try:
            yield circuit, ready.result()
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
