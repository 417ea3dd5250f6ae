"""Connections: every way of writing a URL, and every way in which a database can refuse."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from postgres import Server, binaries_of, execute
from sqlalchemy import select, text

from circuit.errors import (
    CircuitError,
    DatabaseMisconfigured,
    DatabaseUnreachable,
    Fenced,
    GuardLost,
    SchemaMismatch,
    StorageError,
    UnstorableText,
)
from circuit.storage import database as module
from circuit.storage import embedded, schema
from circuit.storage.database import Database, address, translated, unconnected
from circuit.storage.tables import tenant, worker

SECRET = "s3cret/@:word"


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[Server]:
    """A server that asks for a password."""
    server = Server()
    server.create(password=SECRET)
    server.start()
    yield server
    server.remove()


async def refused(url: str) -> StorageError:
    """The error that opening `url` raises; it must not hold the password."""
    with pytest.raises(StorageError) as error:
        await Database.open(url)
    assert "s3cret" not in str(error.value) and "s3cret" not in repr(address(url))
    return error.value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:pw@db.example:6000/circuit", "the database 'circuit' at db.example, port 6000"),
        ("postgres://ada@db.example/circuit", "the database 'circuit' at db.example, port 5432"),
        ("postgresql+asyncpg://ada:p%40w@[::1]:6000/circuit", "the database 'circuit' at [::1], port 6000"),
        ("postgresql://postgres@/postgres?host=/run/my%20db", "the database 'postgres' at /run/my db, port 5432"),
        ("postgresql://ada@one,two:6000/circuit", "the database 'circuit' at one,two, port 6000"),
        ("postgresql://ada@db.example", "the database 'ada' at db.example, port 5432"),
        ("postgresql:///circuit?user=ada", "the database 'circuit' at localhost, port 5432"),
    ],
)
def test_an_address_shows_where_and_nothing_secret(url: str, shown: str) -> None:
    found = address(url)
    assert str(found) == shown
    assert found.url.startswith("postgresql://")
    assert "pw" not in repr(found)


@pytest.mark.parametrize("url", ["", "mysql://a@b/c", "sqlite:///file.db", "just words", "postgresql://[broken/x"])
async def test_what_is_no_url_of_postgres(url: str) -> None:
    with pytest.raises(DatabaseMisconfigured):
        await Database.open(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_every_scheme_opens(database_url: str, scheme: str) -> None:
    database = await Database.open(database_url.replace("postgresql", scheme))
    assert await database.revision() is not None
    async with database.transaction(1) as transaction:
        assert await transaction.scalar(select(tenant.c.name)) == "local"
    await database.close()
    await database.close()


async def test_the_embedded_server_migrates_and_serves(home: Path) -> None:
    server = await asyncio.to_thread(embedded.start, home)
    await schema.upgrade(server.url)
    database = await Database.open(server.url)
    await schema.require_current(database)
    async with database.transaction(1) as transaction:
        assert await transaction.scalar(text("SELECT current_user")) == "circuit_tenant"
    await database.close()
    await asyncio.to_thread(server.stop)


async def test_a_password_with_every_special_character(guarded_server: Server) -> None:
    database = await Database.open(guarded_server.url(password=SECRET))
    await database.close()


async def test_sslmode_is_obeyed(guarded_server: Server) -> None:
    database = await Database.open(guarded_server.url(password=SECRET) + "?sslmode=disable")
    await database.close()
    error = await refused(guarded_server.url(password=SECRET) + "?sslmode=require")
    assert isinstance(error, DatabaseMisconfigured) and "sslmode" in error.message


async def test_a_wrong_password(guarded_server: Server) -> None:
    error = await refused(guarded_server.url(password="wrong-s3cret"))
    assert isinstance(error, DatabaseMisconfigured)
    assert "'postgres'" in error.message and "password in the database URL" in error.message


async def test_a_database_that_does_not_exist(postgres_server: Server) -> None:
    error = await refused(postgres_server.url("nowhere"))
    assert isinstance(error, DatabaseMisconfigured)
    assert "createdb nowhere" in error.message and str(postgres_server.port) in error.message


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as held:
        # Bound, so that nobody else gets it meanwhile.
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        error = await refused(f"postgresql://ada:s3cret@127.0.0.1:{port}/circuit")
    assert isinstance(error, DatabaseUnreachable) and error.retryable
    assert "127.0.0.1" in error.message and str(port) in error.message and "'circuit'" in error.message


async def test_a_host_that_does_not_exist() -> None:
    error = await refused("postgresql://ada:s3cret@nowhere.invalid/circuit")
    assert isinstance(error, DatabaseUnreachable) and "nowhere.invalid" in error.message


async def test_a_socket_that_does_not_exist(tmp_path: Path) -> None:
    error = await refused(f"postgresql://ada@/circuit?host={tmp_path}")
    assert isinstance(error, DatabaseUnreachable) and str(tmp_path) in error.message


async def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    error = await refused(f"postgresql://ada:s3cret@127.0.0.1:{port}/circuit")
    silent.close()
    assert isinstance(error, DatabaseUnreachable) and "no answer within 0.2 seconds" in error.message


async def test_a_parameter_that_makes_no_sense(postgres_server: Server) -> None:
    error = await refused(postgres_server.url() + "?sslmode=perhaps")
    assert isinstance(error, DatabaseMisconfigured)


async def test_a_server_that_is_too_old(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OLDEST_SERVER", 99)
    with pytest.raises(DatabaseMisconfigured, match="needs Postgres 99 or newer"):
        await Database.open(database_url)


async def test_a_database_without_the_roles_says_what_to_run() -> None:
    binaries = binaries_of(18)
    server = Server(binaries)
    server.create()
    server.start()
    try:
        database = await Database.open(server.url())
        with pytest.raises(SchemaMismatch, match="circuit db upgrade"):
            await database.raw()
        with pytest.raises(SchemaMismatch, match="circuit db upgrade"):
            async with database.transaction(1):
                pass
        await database.close()
    finally:
        server.remove()


async def test_a_user_who_may_not_take_the_roles(postgres_server: Server, database_url: str) -> None:
    await execute(database_url, "CREATE ROLE outsider LOGIN")
    database = await Database.open(address(database_url).url.replace("postgres@", "outsider@"))
    with pytest.raises(DatabaseMisconfigured, match='GRANT circuit_engine, circuit_tenant TO "outsider"'):
        await database.raw()
    await database.close()
    await execute(database_url, "DROP ROLE outsider")


async def test_the_connections_have_their_roles_and_limits(database: Database) -> None:
    connection = await database.raw()
    assert await connection.fetchval("SELECT current_user") == "circuit_engine"
    assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
    await connection.close()
    async with database.transaction(7) as transaction:
        assert await transaction.scalar(text("SELECT current_user")) == "circuit_tenant"
        assert await transaction.scalar(text("SELECT current_setting('circuit.tenant')")) == "7"


async def test_a_statement_without_an_answer_ends(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over a connection whose other end is gone without a word."""
    monkeypatch.setattr(module, "COMMAND_SECONDS", 1.0)
    database = await Database.open(database_url)
    connection = await database.raw()
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT pg_sleep(60)")
    with pytest.raises(DatabaseUnreachable):
        async with database.transaction(1) as transaction:
            await transaction.execute(text("SELECT pg_sleep(60)"))
    connection.terminate()
    await database.close()


async def test_a_migration_may_take_its_time(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.2)
    databases = module.engine(database_url, patient=True)
    async with databases.begin() as connection:
        await connection.execute(text("SELECT pg_sleep(0.5)"))
    await databases.dispose()


async def test_both_ends_ask_whether_the_other_is_there(database: Database) -> None:
    connection = await database.raw()
    assert await connection.fetchval("SHOW tcp_keepalives_idle") == "10"
    there = cast("Any", connection)._transport.get_extra_info("socket")
    assert there.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    await connection.close()


async def test_a_transaction_commits_as_a_whole_or_not_at_all(database: Database) -> None:
    insert = text("INSERT INTO circuit.case_key VALUES (1, :key, gen_random_uuid())")
    with pytest.raises(RuntimeError, match="half way"):
        async with database.transaction(1) as transaction:
            await transaction.execute(insert, {"key": "lost"})
            raise RuntimeError("half way")
    async with database.transaction(1) as transaction:
        await transaction.execute(insert, {"key": "kept"})
    async with database.transaction(1) as transaction:
        keys = (await transaction.scalars(text("SELECT key FROM circuit.case_key"))).all()
    assert list(keys) == ["kept"]


async def test_no_foreign_error_leaves_a_transaction(database: Database) -> None:
    with pytest.raises(StorageError, match="division by zero"):
        async with database.transaction(1) as transaction:
            await transaction.execute(text("SELECT 1 / 0"))
    with pytest.raises(SchemaMismatch, match="circuit db upgrade"):
        async with database.transaction(1) as transaction:
            await transaction.execute(text("SELECT * FROM circuit.of_a_later_release"))
    for value, said in (("a\0b", "NUL"), ("a\ud800b", "half a character")):
        with pytest.raises(UnstorableText, match=said):
            async with database.transaction(1) as transaction:
                await transaction.execute(text("SELECT 1 FROM circuit.case_key WHERE key = :key"), {"key": value})


@pytest.mark.parametrize(("state", "kind"), [("CF001", Fenced), ("CG001", GuardLost), ("XX000", StorageError)])
async def test_states_of_the_writer_become_errors(database: Database, state: str, kind: type[CircuitError]) -> None:
    connection = await database.raw()
    with pytest.raises(asyncpg.PostgresError) as error:
        await connection.execute("SELECT circuit.require(false, $1, 'refused')", state)
    await connection.close()
    assert type(translated(error.value)) is kind


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        ("08006", True),
        ("53100", True),
        ("53300", True),
        ("57014", True),
        ("57P01", True),
        ("25006", True),
        ("58030", True),
        ("22012", False),
        ("XX000", False),
    ],
)
async def test_states_that_pass_are_known(database: Database, state: str, passes: bool) -> None:
    connection = await database.raw()
    with pytest.raises(asyncpg.PostgresError) as error:
        await connection.execute("SELECT circuit.require(false, $1, 'refused')", state)
    await connection.close()
    assert translated(error.value).retryable == passes


async def test_a_database_that_is_read_only_is_said_to_be(database: Database, database_url: str) -> None:
    """A standby after a failover, or an operator's doing: it passes, and the message says what it is."""
    name = database_url.rpartition("/")[2]
    await execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseUnreachable, match=r"cannot do this at present.*read-only transaction") as raised:
        async with database.transaction(1) as transaction:
            await transaction.execute(text("INSERT INTO circuit.case_key VALUES (1, 'key', gen_random_uuid())"))
    assert raised.value.retryable


async def test_it_comes_back_after_its_connections_were_cut(database: Database, database_url: str) -> None:
    async with database.transaction(1) as transaction:
        await transaction.execute(text("SELECT 1"))
    await execute(database_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IS NOT NULL"
                                " AND datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
    async with database.transaction(1) as transaction:
        assert await transaction.scalar(text("SELECT 1")) == 1


async def test_a_task_that_is_cancelled_leaves_no_transaction_open(database: Database) -> None:
    begun = asyncio.Event()

    async def insert(statement: str) -> None:
        async with database.transaction(1) as connection:
            await connection.execute(text("INSERT INTO circuit.case_key VALUES (1, 'half', gen_random_uuid())"))
            begun.set()
            await connection.execute(text(statement))
            await asyncio.Event().wait()

    for statement in ("SELECT 1", "SELECT pg_sleep(60)"):
        begun.clear()
        working = asyncio.create_task(insert(statement))
        await asyncio.wait_for(begun.wait(), 60)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        # The connection that it had is the first that the pool gives out again.
        async with database.transaction(1) as connection:
            open_ones = await connection.scalar(
                text("SELECT count(*) FROM pg_locks WHERE relation = 'circuit.case_key'::regclass")
            )
            assert open_ones == 0
            assert await connection.scalar(text("SELECT count(*) FROM circuit.case_key")) == 0


async def test_a_connection_that_is_cut_in_a_transaction_is_unreachable(database: Database, database_url: str) -> None:
    with pytest.raises(DatabaseUnreachable) as error:
        async with database.transaction(1) as transaction:
            number = await transaction.scalar(text("SELECT pg_backend_pid()"))
            await execute(database_url, f"SELECT pg_terminate_backend({number})")
            await transaction.execute(text("SELECT 1"))
    assert error.value.retryable


async def test_json_goes_through_unharmed(database: Database) -> None:
    settings = {"big": 2**53 + 1, "text": 'Ü "quoted" \\ \n', "list": [1, None, True], "nested": {"": {}}}
    connection = await database.raw()
    await connection.execute("UPDATE circuit.tenant SET settings = $1::text::jsonb", '{"a": 1}')
    await connection.execute("INSERT INTO circuit.worker (id, host, boot_id, pid, pid_started)"
                             " VALUES (gen_random_uuid(), 'h', 'b', 1, 2.5)")  # fmt: skip
    await connection.close()
    databases = module.engine(database.address)
    async with databases.begin() as direct:
        await direct.execute(tenant.update().values(settings=settings))
        assert await direct.scalar(select(tenant.c.settings)) == settings
        row = (await direct.execute(select(worker.c.pid_started, worker.c.pools, worker.c.fenced))).one()
    await databases.dispose()
    assert tuple(row) == (2.5, [], False)


def test_alembic_runs_in_a_checkout(postgres_server: Server) -> None:
    root = Path(__file__).resolve().parents[2]
    asyncio.run(execute(postgres_server.url(), "CREATE DATABASE by_alembic"))
    url = postgres_server.url("by_alembic")
    subprocess.run([sys.executable, "-m", "alembic", "-x", f"url={url}", "upgrade", "heads"], cwd=root, check=True)
    assert asyncio.run(schema.status(url)).state == "current"
    asyncio.run(execute(postgres_server.url(), "DROP DATABASE by_alembic"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (asyncpg.DiskFullError("could not write init file"), "has no room left on its disk"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), "starts, recovers or stops at present"),
        (ConnectionRefusedError(111, "Connection refused"), "Check that Postgres runs there"),
    ],
    ids=["full", "starting", "nobody"],
)
def test_what_keeps_a_server_from_answering_is_told_apart(error: Exception, said: str) -> None:
    found = unconnected(error, address("postgresql://u@h/d"))
    assert isinstance(found, DatabaseUnreachable) and said in found.message
