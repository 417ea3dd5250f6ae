"""Fixtures of the storage's tests: a connection, a registered worker and its writer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from circuit.storage.database import Database, connect
from circuit.storage.driver import Connection
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import start_worker


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[Connection]:
    """A connection under the engine's role."""
    connection = await database.raw()
    yield connection
    connection.terminate()


@pytest.fixture
async def witness(database: Database) -> AsyncIterator[Connection]:
    """A connection that sees what the others do and may end them."""
    connection = await connect(database.address)
    yield connection
    connection.terminate()


@pytest.fixture
async def worker(conn: Connection) -> UUID:
    """A registered incarnation."""
    return await start_worker(conn)


@pytest.fixture
async def writer(database: Database, worker: UUID) -> AsyncIterator[Writer]:
    """The writer of `worker`."""
    opened = await Writer.open(database, worker)
    yield opened
    await opened.close(within_seconds=5)
