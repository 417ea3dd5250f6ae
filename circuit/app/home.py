"""The database that the settings name, with the embedded server where they name none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from circuit.settings import Settings
from circuit.storage import cluster, embedded

Progress = Callable[[str], None]


@asynccontextmanager
async def database_url(settings: Settings, progress: Progress | None = None) -> AsyncGenerator[str]:
    """The URL of the database that the settings name; the embedded server runs while the block does."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    if progress is not None and is_new(settings.home):
        progress(f"making the embedded database in {settings.home} (once, a few seconds)")
    starting = asyncio.ensure_future(asyncio.to_thread(embedded.start, settings.home))
    try:
        server = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # The thread cannot be interrupted: what it started is stopped as soon as it is there.
        await asyncio.to_thread((await starting).stop)
        raise
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.stop)


def is_new(home: Path) -> bool:
    """Whether an embedded database would have to be made first."""
    try:
        return not cluster.data_directory(home).exists()
    except OSError:
        return False  # whoever starts the server says what is wrong with the directory
