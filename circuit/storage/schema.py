"""The schema of a database: at which revision it is, and how it gets to that of this release.

The migrations lie beside the package in a checkout and inside it in a wheel. Reading the status needs no Alembic.
"""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import SQLAlchemyError

from circuit.errors import DatabaseMisconfigured, DatabaseUnreachable, SchemaMismatch
from circuit.storage import partitions
from circuit.storage.database import (
    OLDEST_SERVER,
    Address,
    Database,
    address,
    connect,
    engine,
    floor,
    revisions,
    translated,
)
from circuit.storage.tables import ENGINE_ROLE

TRIES = 30
PAUSE_SECONDS = 0.5
"""How often, and how far apart, an upgrade tries to get at a table that others hold locked."""

_alone = threading.Lock()
_PACKAGE = Path(__file__).resolve().parent.parent
_ASSIGNED = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*(.+)$", re.MULTILINE)
_NAMES = re.compile(r"""["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """`current` is the database's revision and `head` this release's; several branches are joined by commas.

    `compatible`: a newer release made it, and lets this one work beside it. `ahead`: it does not.
    """

    current: str | None
    head: str
    state: Literal["empty", "behind", "current", "compatible", "ahead"]

    @property
    def usable(self) -> bool:
        """Whether this release may work on the database as it is."""
        return self.state in ("current", "compatible")


def migrations() -> Path:
    """Where the migrations lie: in the package of a wheel, or at the top of a checkout."""
    for folder in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise DatabaseMisconfigured(f"This installation of Circuit has no migrations beside {_PACKAGE}: install it anew.")


def known() -> tuple[frozenset[str], tuple[str, ...]]:
    """All revisions of this release, and its heads. Read from the files' text: Alembic takes far longer to import."""
    revisions: set[str] = set()
    followed: set[str] = set()
    for file in (migrations() / "versions").glob("*.py"):
        for name, value in _ASSIGNED.findall(file.read_text(encoding="utf-8")):
            (revisions if name == "revision" else followed).update(_NAMES.findall(value))
    return frozenset(revisions), tuple(sorted(revisions - followed))


async def status(url: str) -> SchemaStatus:
    """At which revision the database at `url` is. Raises `StorageError`."""
    connection = await connect(url)
    try:
        return judge(await revisions(connection), await floor(connection))
    finally:
        await connection.close()


def judge(current: list[str], oldest: str | None = None) -> SchemaStatus:
    """What the revisions that a database names mean to this release; `oldest` is its floor."""
    revisions, heads = known()
    head = ",".join(heads)
    if not current:
        return SchemaStatus(None, head, "empty")
    name = ",".join(current)
    if not revisions.issuperset(current):
        return SchemaStatus(name, head, "compatible" if oldest in revisions else "ahead")
    return SchemaStatus(name, head, "current" if sorted(current) == list(heads) else "behind")


async def require_current(database: Database) -> None:
    """Raises `SchemaMismatch`, with what to do, unless the database is at the revision of this release, or at one of
    a newer release that this one may work beside."""
    current, oldest = await database.revision_and_floor()
    found = judge(current.split(",") if current else [], oldest)
    if found.usable:
        return
    if found.state == "ahead":
        raise _ahead(database.address, found)
    now_at = f"is at revision {found.current}" if found.current else "has no tables of Circuit yet"
    raise SchemaMismatch(f"{database.address} {now_at}; this release needs {found.head}. Run: circuit db upgrade")


async def upgrade(url: str) -> SchemaStatus:
    """Bring the database at `url` to the revision of this release and make the coming weeks' partitions.

    Safe to run at the same time from anywhere: one upgrade waits for the other. Raises `SchemaMismatch` for a
    database of a newer release and `DatabaseMisconfigured` where rights are missing.
    """
    where = address(url)
    if not (await _checked(where)).usable:
        await _migrate_patiently(where)
    # Under the engine's role, as a worker does it: the one who made the tables need not be the one who upgrades.
    connection = await connect(where, ENGINE_ROLE)
    try:
        await partitions.ensure(connection, datetime.now(UTC))
        return judge(await revisions(connection), await floor(connection))
    finally:
        await connection.close()


async def _checked(where: Address) -> SchemaStatus:
    connection = await connect(where)
    try:
        version = connection.get_server_version()
        found = judge(await revisions(connection), await floor(connection))
    finally:
        await connection.close()
    if version.major < OLDEST_SERVER:
        raise DatabaseMisconfigured(f"Circuit needs Postgres {OLDEST_SERVER} or newer; {where} is {version.major}.")
    if found.state == "ahead":
        raise _ahead(where, found)
    return found


def _ahead(where: Address, found: SchemaStatus) -> SchemaMismatch:
    return SchemaMismatch(
        f"{where} is at revision {found.current}, which this release does not know (it has {found.head}): "
        "a newer release made it. Upgrade Circuit, or use another database."
    )


async def _migrate_patiently(where: Address) -> None:
    """Try again while a table is locked: each try waits for the lock only so long, and what it came to stays."""
    for left in reversed(range(TRIES)):
        try:
            await asyncio.to_thread(_migrate_alone, where)
        except DatabaseUnreachable as error:
            if left == 0 or "lock timeout" not in error.message:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


def _migrate_alone(where: Address) -> None:
    """Alembic keeps its state in modules: one migration at a time in a process, on a thread and a loop of its own."""
    with _alone:
        asyncio.run(_migrate(where))


async def _migrate(where: Address) -> None:
    # A migration may rewrite a large table, or wait for another upgrade.
    databases = engine(where, patient=True)
    try:
        async with databases.connect() as connection:
            await connection.run_sync(_run_alembic)
    except (SQLAlchemyError, OSError) as error:
        raise _unmigrated(error, where) from error
    finally:
        await databases.dispose()


def _run_alembic(connection: SyncConnection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "heads")


def _unmigrated(error: BaseException, where: Address) -> Exception:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if getattr(cause, "sqlstate", None) != "42501":
        return translated(error)
    grant = f'as a superuser: GRANT CREATE ON DATABASE "{where.database}" TO "{where.user}";'
    advice = getattr(cause, "hint", None) or grant
    return DatabaseMisconfigured(f"The user {where.user!r} lacks a right in {where}: {cause}. What to do, {advice}")
