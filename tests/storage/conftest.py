"""Fixtures of the storage's tests: a connection, a registered worker and its writer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import asyncpg
import pytest
from postgres import Server, binaries_of

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


@pytest.fixture(scope="module", params=[15, 16, 18])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A fresh server of each supported major version, without any role of Circuit's."""
    binaries = binaries_of(request.param)
    if binaries is None:
        pytest.skip(f"needs Postgres {request.param}: install postgresql-{request.param}")
    server = Server(binaries)
    server.create()
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def raw(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection under the engine's role."""
    connection = await database.raw()
    yield connection
    await connection.close()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the user who migrated."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
