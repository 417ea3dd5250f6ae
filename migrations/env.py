"""How Alembic reaches the database: over a connection that `circuit.storage.schema` hands in, or over `-x url=...`.

Everything runs in one transaction under one advisory lock, so that upgrades at the same time wait for each other.
"""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from circuit.storage.tables import SCHEMA, metadata

# Any constant will do, as long as every release uses the same.
UPGRADE_LOCK = 0x63697263


def migrate(connection: Connection) -> None:
    """Run the migrations that were asked for. The caller's transaction commits them."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
    # Asked first: creating needs a right that a user who only upgrades may lack.
    if not connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": SCHEMA}):
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    context.configure(connection=connection, target_metadata=metadata, version_table_schema=SCHEMA)
    context.run_migrations()


async def connect_and_migrate() -> None:
    """The way of the `alembic` command."""
    from circuit.storage.database import engine

    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("Name the database: alembic -x url=postgresql://user@host/name ...")
    databases = engine(url, patient=True)
    try:
        async with databases.begin() as connection:
            await connection.run_sync(migrate)
    finally:
        await databases.dispose()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    asyncio.run(connect_and_migrate())
