"""Migrations after the first only add, and block nobody: what they run is recorded and judged."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from postgres import execute
from sqlalchemy import Connection, event

from circuit.errors import DatabaseUnreachable
from circuit.storage import schema
from circuit.storage.database import engine
from tests.releases.expansion import faults


async def migrate(url: str, target: str) -> dict[str, list[str]]:
    """Migrate to `target`; the statements of each migration, by its revision."""
    recorded: dict[str, list[str]] = {}
    pending: list[str] = []

    def record(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        if "circuit.alembic_version" in statement and statement.startswith(("UPDATE", "INSERT")):
            revision = str(parameters) if parameters else statement
            recorded[revision if parameters else statement.split("'")[1]] = list(pending)
            pending.clear()
        elif not statement.startswith(("SELECT", "show", "select", "CREATE SCHEMA")):
            pending.append(statement)

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema.migrations()))
        config.attributes["connection"] = connection
        command.upgrade(config, target)

    databases = engine(url, patient=True)
    event.listen(databases.sync_engine, "before_cursor_execute", record)
    try:
        async with databases.connect() as connection:
            await connection.run_sync(run)
    finally:
        await databases.dispose()
    return recorded


async def files(url: str) -> dict[str, int]:
    """Which file each table lies in: another one after a rewrite."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname, relfilenode FROM pg_class WHERE relnamespace = 'circuit'::regnamespace AND relkind = 'r'"
        )
    finally:
        await connection.close()
    return {row["relname"]: row["relfilenode"] for row in rows}


async def test_migrations_after_the_first_block_nobody(empty_database_url: str) -> None:
    await migrate(empty_database_url, "0001")
    before = await files(empty_database_url)
    recorded = await migrate(empty_database_url, "heads")
    revisions, _ = schema.known()
    assert len(recorded) == len(revisions) - 1, "each migration is recorded"
    found = {name: faults(statements) for name, statements in recorded.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    after = await files(empty_database_url)
    rewritten = [name for name in before if after.get(name) != before[name] and name != "alembic_version"]
    assert rewritten == [], "a migration rewrites these tables or takes them away"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX token_place ON circuit.token (place)",
        'CREATE UNIQUE INDEX x ON circuit."case" (owner)',
        "ALTER TABLE circuit.token ADD COLUMN colour text NOT NULL",
        "ALTER TABLE circuit.token ADD COLUMN a text, ADD COLUMN colour text NOT NULL",
        "ALTER TABLE circuit.token ADD COLUMN made uuid NOT NULL DEFAULT gen_random_uuid()",
        "ALTER TABLE circuit.token ALTER COLUMN number TYPE bigint",
        "ALTER TABLE circuit.token ALTER number SET NOT NULL",
        "ALTER TABLE circuit.token DROP COLUMN metadata",
        "ALTER TABLE circuit.token RENAME COLUMN place TO spot",
        "ALTER TABLE circuit.token ADD CONSTRAINT positive CHECK (number > 0)",
        "DROP TABLE circuit.journal",
        "DROP INDEX circuit.case_owner",
        "TRUNCATE circuit.history",
        "LOCK TABLE circuit.token",
        "UPDATE circuit.token SET place = 'x'",
        "DELETE FROM circuit.history",
        "REVOKE SELECT ON circuit.token FROM circuit_tenant",
        "REINDEX TABLE circuit.token",
        "DROP FUNCTION circuit.require",
        "CREATE TRIGGER x BEFORE UPDATE ON circuit.token FOR EACH ROW EXECUTE FUNCTION f()",
    ],
)
def test_what_blocks_is_refused(statement: str) -> None:
    assert len(faults([statement])) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE circuit.token ADD COLUMN colour text"],
        ["ALTER TABLE circuit.token ADD COLUMN tries int4 NOT NULL DEFAULT 0"],
        ["ALTER TABLE circuit.token ADD CONSTRAINT positive CHECK (number > 0) NOT VALID"],
        ["CREATE INDEX CONCURRENTLY token_place ON circuit.token (place)"],
        ["CREATE TABLE circuit.fresh (a int4 NOT NULL)", "CREATE INDEX fresh_a ON circuit.fresh (a)"],
        ["GRANT SELECT ON circuit.token TO circuit_tenant"],
        ["UPDATE circuit.compatibility SET floor = '0009'"],
    ],
)
def test_what_only_adds_is_fine(statements: list[str]) -> None:
    assert faults(statements) == []


async def test_an_upgrade_tries_again_while_a_table_is_locked(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait in a queue for long, for everybody behind it would wait too."""
    tries: list[str] = []

    def locked_twice(where: Any) -> None:
        tries.append("try")
        if len(tries) < 3:
            raise DatabaseUnreachable("The database did not answer: canceling statement due to lock timeout.")

    monkeypatch.setattr(schema, "_migrate_alone", locked_twice)
    monkeypatch.setattr(schema, "PAUSE_SECONDS", 0.001)
    await execute(database_url, "UPDATE circuit.alembic_version SET version_num = '0001'")
    await schema.upgrade(database_url)
    assert len(tries) == 3
    monkeypatch.setattr(schema, "TRIES", 2)
    tries.clear()
    with pytest.raises(DatabaseUnreachable, match="lock timeout"):
        await schema.upgrade(database_url)
    assert len(tries) == 2
