"""How Circuit reaches Postgres: connections under the two roles, and what their errors mean.

Requests run through `Database.transaction`, under the role `circuit_tenant` and the row security of one tenant.
The engine's few statements run through `Database.raw`, under the role `circuit_engine`, on the plain driver: it costs
a fraction of what SQLAlchemy costs a statement.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import orjson
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

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
from circuit.storage.driver import Connection
from circuit.storage.tables import ENGINE_ROLE, FENCED, GUARD_LOST, SCHEMA, TENANT_ROLE, TENANT_SETTING

OLDEST_SERVER = 15
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
"""After so long without an answer a statement fails: nobody waits for ever for a connection that is half open."""
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 10, 5, 3
"""Over TCP, after how many seconds of silence each end asks whether the other is there, how often, and how many times
in vain."""
# A transaction of Circuit never waits for anything but Postgres: one that idles has lost its owner.
IDLE_IN_TRANSACTION_SECONDS = 60
PASSING_CLASSES = frozenset({"08", "53", "58"})
"""The classes of errors that pass: of connections, of disk and memory that ran out, of the machine below."""
PASSING = frozenset({"40001", "40003", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "25006", "25P03"})
"""So do these: serialisation, deadlocks, locks and times that ran out, a server that ends, starts or is read-only."""
UNSTORABLE = frozenset({"22021", "22P05"})
"""A text with a NUL, sent to a column, and inside JSON."""
POOL_SIZE = 5
POOL_OVERFLOW = 5

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver raises when something is wrong with a connection or a statement."""

_open = cast("Callable[..., Coroutine[Any, Any, Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]
_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_BEGIN = f"BEGIN; SELECT set_config('{TENANT_SETTING}', '%d', true)"
_LOST = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    OSError,
)
"""What a connection raises that was lost while nobody used it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, without anything secret. `url` is what the driver takes, with the password."""

    url: str
    host: str
    port: str
    database: str
    user: str

    def __str__(self) -> str:
        return f"the database {self.database!r} at {self.host}, port {self.port}"

    def __repr__(self) -> str:
        return f"Address({self})"


def address(url: str) -> Address:
    """The address in a database URL. Raises `DatabaseMisconfigured` if it is none of Postgres."""
    try:
        parts = urlsplit(url.strip())
        query = parse_qs(parts.query)
    except ValueError as error:
        raise DatabaseMisconfigured(f"The database URL cannot be read: {error}.") from None
    if parts.scheme not in _SCHEMES:
        raise DatabaseMisconfigured(
            f"The database URL has the scheme {parts.scheme!r}. Circuit stores everything in Postgres: "
            "give a URL such as postgresql://user:password@host:5432/database."
        )
    # The network location is read by hand: it may name several hosts, which `urlsplit` cannot tell apart.
    credentials, _, hosts = parts.netloc.rpartition("@")
    host, _, port = hosts.rpartition(":") if ":" in hosts.rpartition("]")[2] else (hosts, "", "")
    user = unquote(credentials.partition(":")[0]) or query.get("user", [""])[0]
    return Address(
        url="postgresql" + url.strip()[len(parts.scheme) :],
        host=unquote(host) or query.get("host", ["localhost"])[0],
        port=port or query.get("port", ["5432"])[0],
        database=unquote(parts.path.lstrip("/")) or query.get("dbname", [user])[0] or "postgres",
        user=user,
    )


async def connect(url: str | Address, role: str | None = None, *, patient: bool = False) -> Connection:
    """A new connection, under `role` if one is given. Raises `StorageError`.

    A statement that takes longer than `COMMAND_SECONDS` raises `TimeoutError`, unless the connection is `patient`.
    """
    where = url if isinstance(url, Address) else address(url)
    settings = {
        "application_name": "circuit",
        "timezone": "UTC",
        "jit": "off",
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_SECONDS * 1000),
        # Postgres takes no notice of these on a Unix socket.
        "tcp_keepalives_idle": str(KEEPALIVE_IDLE),
        "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL),
        "tcp_keepalives_count": str(KEEPALIVE_COUNT),
    }
    if role:
        settings["role"] = role
    try:
        limit = None if patient else COMMAND_SECONDS
        connection = await _open(where.url, timeout=CONNECT_SECONDS, command_timeout=limit, server_settings=settings)
    except Exception as error:
        raise unconnected(error, where, role) from error
    _keep_alive(connection)
    return connection


def _keep_alive(connection: Connection) -> None:
    """Have the system ask whether the server is there. The driver has no setting for it, so its socket is asked for;
    without it, `COMMAND_SECONDS` finds a dead connection, only later."""
    transport: Any = getattr(connection, "_transport", None)
    there: socket.socket | None = None if transport is None else transport.get_extra_info("socket")
    if there is None or there.family not in (socket.AF_INET, socket.AF_INET6):
        return
    there.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
    ):
        if hasattr(socket, name):
            there.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def engine(
    url: str | Address,
    role: str | None = None,
    *,
    creator: Callable[[], Coroutine[Any, Any, Connection]] | None = None,
    patient: bool = False,
    plain: bool = False,
) -> AsyncEngine:
    """An engine of SQLAlchemy over `connect`, so that every kind of URL is read in one way. A `plain` one begins and
    ends no transactions and asks no connection whether it is there: whoever uses it does."""
    where = url if isinstance(url, Address) else address(url)

    async def connection() -> Connection:
        return await connect(where, role, patient=patient)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator or connection,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=not plain,
        **({"isolation_level": "AUTOCOMMIT"} if plain else {}),
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )


TenantConnection = AsyncConnection
"""A connection within a transaction of one tenant (`Database.transaction`)."""


class Database:
    """One Postgres database that Circuit uses. `open` checks that it answers; it does not check the schema."""

    def __init__(self, where: Address) -> None:
        self.address = where
        self._engine = engine(where, TENANT_ROLE, plain=True)

    @classmethod
    async def open(cls, url: str) -> Database:
        """The database at `url`. Raises `DatabaseUnreachable` or `DatabaseMisconfigured`."""
        where = address(url)
        connection = await connect(where)
        try:
            version = connection.get_server_version()
            if version.major < OLDEST_SERVER:
                raise DatabaseMisconfigured(
                    f"{_capital(where)} is Postgres {version.major}.{version.minor}; "
                    f"Circuit needs Postgres {OLDEST_SERVER} or newer."
                )
        finally:
            await connection.close(timeout=CONNECT_SECONDS)
        return cls(where)

    async def close(self) -> None:
        """Give all pooled connections back. Twice is fine."""
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(self, tenant: int) -> AsyncGenerator[AsyncConnection]:
        """A transaction that sees and writes the rows of `tenant` only. Raises `StorageError`."""
        try:
            async with self._connected(tenant) as (connection, driver):
                try:
                    yield connection
                    await driver.execute("COMMIT")
                except BaseException:
                    await _roll_back(driver)
                    raise
        except (SQLAlchemyError, *DRIVER_ERRORS) as error:
            raise translated(error) from error

    @asynccontextmanager
    async def _connected(self, tenant: int) -> AsyncGenerator[tuple[AsyncConnection, Connection]]:
        """A connection of the pool with a transaction of `tenant` begun. One that was lost meanwhile is replaced, and
        the whole pool with it: nothing was asked of it yet."""
        while True:
            async with self._engine.connect() as connection:
                pool, pooled = self._engine.pool, await connection.get_raw_connection()
                driver = cast("Connection", pooled.driver_connection)
                fresh = pooled.info.setdefault("used", False) is False
                pooled.info["used"] = True
                try:
                    await driver.execute(_BEGIN % tenant)
                except _LOST:
                    await connection.invalidate()
                    if fresh:
                        raise
                except BaseException:
                    await _roll_back(driver)
                    raise
                else:
                    yield connection, driver
                    return
            if self._engine.pool is pool:
                await self._engine.dispose()

    async def raw(self) -> Connection:
        """A new connection of the driver under the engine's role; the caller closes it. Raises `StorageError`."""
        return await connect(self.address, ENGINE_ROLE)

    async def revision(self) -> str | None:
        """The revision of the schema, or None if there is no schema yet."""
        return (await self.revision_and_floor())[0]

    async def revision_and_floor(self) -> tuple[str | None, str | None]:
        """The revision of the schema, and the oldest one whose release may work on it."""
        connection = await connect(self.address)
        try:
            return ",".join(await revisions(connection)) or None, await floor(connection)
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


async def _roll_back(driver: Connection) -> None:
    """End a transaction as if it had not been; a connection that cannot even do that is closed."""
    try:
        await driver.execute("ROLLBACK")
    except DRIVER_ERRORS:
        driver.terminate()
    except BaseException:
        driver.terminate()
        raise


async def revisions(connection: Connection) -> list[str]:
    """The revisions that the version table of a database names, in order; none if there is no such table."""
    try:
        rows = await connection.fetch(f"SELECT version_num FROM {SCHEMA}.alembic_version ORDER BY 1")  # noqa: S608
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return []
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise translated(error) from error
    return [row[0] for row in rows]


async def floor(connection: Connection) -> str | None:
    """The oldest revision whose release may work on this database, or None where the database does not say."""
    try:
        return await connection.fetchval(f"SELECT floor FROM {SCHEMA}.compatibility")  # noqa: S608
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise translated(error) from error


def unconnected(error: BaseException, where: Address, role: str | None = None) -> StorageError:
    """What it means that a connection could not be made, and what to do."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, ssl.SSLError) or "SSL" in str(error):
        return DatabaseMisconfigured(
            f"{_capital(where)} and the database URL do not agree about TLS: {error}. Check sslmode in the URL."
        )
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return DatabaseMisconfigured(
            f"{_capital(where)} refuses the user {where.user!r}: {error}. "
            "Check the user and the password in the database URL."
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return DatabaseMisconfigured(
            f"There is no database {where.database!r} at {where.host}, port {where.port}. "
            f"Make it (createdb {where.database}) or name another in the database URL."
        )
    if role and isinstance(error, asyncpg.InvalidParameterValueError | asyncpg.UndefinedObjectError):
        return SchemaMismatch(f"{_capital(where)} does not have the role {role!r} yet. Run: circuit db upgrade")
    if role and isinstance(error, asyncpg.InsufficientPrivilegeError):
        return DatabaseMisconfigured(
            f"The user {where.user!r} may not use the role {role!r} in {where}. "
            f'As its owner: GRANT {ENGINE_ROLE}, {TENANT_ROLE} TO "{where.user}";'
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return DatabaseMisconfigured(f"The user {where.user!r} may not connect to {where}: {error}.")
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return DatabaseUnreachable(f"{_capital(where)} has no connection left: {error}. Raise max_connections.")
    if isinstance(error, asyncpg.DiskFullError):
        return DatabaseUnreachable(f"{_capital(where)} has no room left on its disk: {error}. Make room there.")
    if isinstance(error, asyncpg.CannotConnectNowError):
        return DatabaseUnreachable(f"{_capital(where)} starts, recovers or stops at present: {error}. Try again soon.")
    if isinstance(error, asyncpg.PostgresError | OSError | TimeoutError | asyncpg.InternalClientError):
        reason = str(error) or f"no answer within {CONNECT_SECONDS:g} seconds"
        return DatabaseUnreachable(
            f"{_capital(where)} cannot be reached: {reason}. Check that Postgres runs there, and the database URL."
        )
    return DatabaseMisconfigured(f"The database URL for {where} cannot be used: {error}.")


def translated(error: BaseException) -> CircuitError:
    """The error of Circuit that an error of the driver or of SQLAlchemy stands for."""
    if isinstance(error, CircuitError):
        return error
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, asyncpg.PostgresError | CircuitError):
        cause = cause.orig if isinstance(cause, DBAPIError) and cause.orig is not None else cause.__cause__
    if isinstance(cause, CircuitError):
        return cause
    state: str | None = getattr(cause, "sqlstate", None)
    message = str(cause or error)
    if state == FENCED:
        return Fenced(message)
    if state == GUARD_LOST:
        return GuardLost(message)
    if state in ("3F000", "42P01", "42703"):
        return SchemaMismatch(f"The database lacks what this release needs: {message}. Run: circuit db upgrade")
    if state in UNSTORABLE:
        return UnstorableText("a text that was given holds a NUL, which no text in the database has: take it out")
    if cause is not None and isinstance(cause.__cause__, UnicodeEncodeError):
        return UnstorableText("a text that was given holds half a character (a lone surrogate): it is no UTF-8")
    if _passing(error, state):
        what = "did not answer" if state is None else "cannot do this at present"
        details = {} if state is None else {"sqlstate": state}
        return DatabaseUnreachable(f"The database {what}: {message or type(error).__name__}.", details=details)
    return StorageError(message)


def _passing(error: BaseException, state: str | None) -> bool:
    """Whether the same may work later."""
    if state is None:
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost or isinstance(error, OSError | PoolTimeout | asyncpg.InterfaceError | asyncpg.InternalClientError)
    return state[:2] in PASSING_CLASSES or state in PASSING


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _capital(where: Address) -> str:
    return "T" + str(where)[1:]
