"""How Alembic reaches the database: over a connection that `circuit.storage.schema` hands in, or over `-x url=...`.

Each migration is one transaction, so that a lock lasts as long as one of them and an index can be made CONCURRENTLY
between two. An advisory lock keeps upgrades at the same time apart. It is tried again and again, and not waited for:
who waits within a statement holds a snapshot, and CREATE INDEX CONCURRENTLY would wait for that.
"""

from __future__ import annotations

import asyncio
import time

from alembic import context
from sqlalchemy import Connection, text

from circuit.storage.tables import SCHEMA, metadata

# Any constant will do, as long as every release uses the same.
UPGRADE_LOCK = 0x63697263
LOCK_PAUSE_SECONDS = 0.05
# Whoever waits for a lock on a busy table makes everybody behind it wait too: so not for long, and then once more.
LOCK_TIMEOUT = "2s"


def migrate(connection: Connection) -> None:
    """Run the migrations that were asked for. Commits."""
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": UPGRADE_LOCK}):
        connection.commit()
        time.sleep(LOCK_PAUSE_SECONDS)
    try:
        # Asked first: creating needs a right that a user who only upgrades may lack.
        if not connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": SCHEMA}):
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        connection.execute(text("SELECT set_config('lock_timeout', :limit, false)"), {"limit": LOCK_TIMEOUT})
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            version_table_schema=SCHEMA,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": UPGRADE_LOCK})
        connection.commit()


async def connect_and_migrate() -> None:
    """The way of the `alembic` command."""
    from circuit.storage.database import engine

    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("Name the database: alembic -x url=postgresql://user@host/name ...")
    databases = engine(url, patient=True)
    try:
        async with databases.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await databases.dispose()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    asyncio.run(connect_and_migrate())
