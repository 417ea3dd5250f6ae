"""The database that the settings name, with the embedded server where they name none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from circuit.app.warden import Warden
from circuit.errors import DatabaseUnreachable
from circuit.settings import Settings
from circuit.storage import cluster, embedded, schema
from circuit.storage.database import Database

Progress = Callable[[str], None]


@asynccontextmanager
async def database_url(settings: Settings, progress: Progress | None = None) -> AsyncGenerator[str]:
    """The URL of the database that the settings name; the embedded server runs while the block does, and is started
    again if it dies. A block that ends because it does not start ends with the reason."""
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
    warden = Warden(server)
    try:
        warden.start()
        yield server.url
    except DatabaseUnreachable:
        if warden.problem is not None:
            raise warden.problem from None
        raise
    finally:
        await warden.stop()
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def opened(settings: Settings, progress: Progress | None = None) -> AsyncGenerator[Database]:
    """That database, open for as long as the block runs and at this release's revision: an embedded one is brought to
    it, and another one must be at it. Raises `StorageError`."""
    async with database_url(settings, progress) as address:
        if settings.database_url is None and (await schema.status(address)).state in ("empty", "behind"):
            if progress is not None:
                progress("bringing the embedded database to this release's revision")
            await schema.upgrade(address)
        database = await Database.open(address)
        try:
            await schema.require_current(database)
            yield database
        finally:
            await database.close()


def is_new(home: Path) -> bool:
    """Whether an embedded database would have to be made first."""
    try:
        return not cluster.data_directory(home).exists()
    except OSError:
        return False  # whoever starts the server says what is wrong with the directory
