"""A connection of the engine's role for as long as a loop runs, closed whatever happened to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from circuit.storage.database import DRIVER_ERRORS, Database, translated
from circuit.storage.driver import Connection

CLOSE_SECONDS = 1.0


@asynccontextmanager
async def connected(database: Database) -> AsyncGenerator[Connection]:
    """A new connection, closed at the end. What goes wrong with it, in the block too, is raised as a `StorageError`."""
    connection = await database.raw()
    try:
        yield connection
    except DRIVER_ERRORS as error:
        raise translated(error) from error
    finally:
        await close(connection)


async def close(connection: Connection | None) -> None:
    """Close a connection, or cut it off if it is too broken to be closed. Never raises an error of the driver."""
    if connection is None or connection.is_closed():
        return
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except Exception:
        connection.terminate()
