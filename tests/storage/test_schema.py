"""Migrations: from nothing to the newest revision, on every supported Postgres, under every kind of user."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import Server, execute
from sqlalchemy import Connection

from circuit.errors import DatabaseMisconfigured, SchemaMismatch
from circuit.ids import first_uuid7_at
from circuit.storage import partitions, schema
from circuit.storage.database import Database, engine
from circuit.storage.tables import PARTITIONED, SCHEMA, metadata
from tests.forked import command, finished
from tests.storage.bare_rows import NOW, insert_case, insert_token

# --- on every version --------------------------------------------------------------------------------------------


async def test_processes_that_upgrade_at_once_on_a_server_without_the_roles(any_server: Server) -> None:
    await execute(any_server.url(), "CREATE DATABASE race_0", "CREATE DATABASE race_1")

    def upgraded(number: int) -> str:
        environment = {**os.environ, "CIRCUIT_DATABASE_URL": any_server.url(f"race_{number % 2}")}
        code, out, err = finished(command, "db", "upgrade", "--json", environment=environment)
        assert code == 0, err
        return json.loads(out)["state"]

    # Two processes for each database: they race for the schema within it, and for the roles with the others.
    said = await asyncio.gather(*(asyncio.to_thread(upgraded, number) for number in range(4)))
    assert said == ["current"] * 4


async def test_upgrades_at_once_in_one_process(postgres_server: Server, empty_database_url: str) -> None:
    states = await asyncio.gather(*(schema.upgrade(empty_database_url) for _ in range(3)))
    assert {status.state for status in states} == {"current"}


async def test_a_case_is_written_and_read_on_every_version(any_server: Server) -> None:
    await execute(any_server.url(), "CREATE DATABASE smoke")
    await schema.upgrade(any_server.url("smoke"))
    database = await Database.open(any_server.url("smoke"))
    now = datetime.now(UTC)
    case = first_uuid7_at(now)
    connection = await database.raw()
    await insert_case(connection, case)
    await insert_token(connection, case)
    held = await connection.fetchval("SELECT tableoid::regclass::text FROM circuit.token")
    await connection.close()
    async with database.transaction(1) as transaction:
        rows = (await transaction.exec_driver_sql("SELECT place FROM circuit.token")).all()
    await database.close()
    assert [tuple(row) for row in rows] == [("p",)]
    assert held == f"circuit.token_{partitions.week_of(now).suffix}"


@pytest.fixture(scope="module")
def bare_server(any_server: Server) -> Iterator[Server]:
    """Another one of the same version, with no role of Circuit's until one of these tests makes them."""
    server = Server(any_server.binaries)
    server.create()
    server.start()
    yield server
    server.remove()


async def test_a_user_who_may_not_make_roles_is_told_what_to_do(bare_server: Server) -> None:
    await execute(
        bare_server.url(), "CREATE ROLE plain LOGIN", "CREATE DATABASE owned OWNER plain", "CREATE DATABASE x"
    )
    with pytest.raises(DatabaseMisconfigured, match="CREATE ROLE circuit_engine NOLOGIN; GRANT circuit_engine"):
        await schema.upgrade(bare_server.url("owned", user="plain"))
    assert (await schema.status(bare_server.url("owned"))).state == "empty"
    with pytest.raises(DatabaseMisconfigured, match='GRANT CREATE ON DATABASE "x" TO "plain"'):
        await schema.upgrade(bare_server.url("x", user="plain"))


async def test_a_user_who_may_make_roles_needs_no_superuser(bare_server: Server) -> None:
    await execute(
        bare_server.url(),
        "CREATE ROLE admin LOGIN CREATEROLE",
        "CREATE DATABASE administered OWNER admin",
        "CREATE ROLE other LOGIN",
        "CREATE DATABASE foreign_owned OWNER other",
    )
    assert (await schema.upgrade(bare_server.url("administered", user="admin"))).state == "current"
    database = await Database.open(bare_server.url("administered", user="admin"))
    connection = await database.raw()
    await insert_case(connection, first_uuid7_at(NOW))
    assert await partitions.ensure(connection, NOW)
    await connection.close()
    async with database.transaction(1) as transaction:
        assert (await transaction.exec_driver_sql("SELECT count(*) FROM circuit.case")).scalar() == 1
    await database.close()

    # The roles exist now, and somebody who may not take them is told what to ask for.
    with pytest.raises(DatabaseMisconfigured, match="GRANT circuit_engine TO other"):
        await schema.upgrade(bare_server.url("foreign_owned", user="other"))
    await execute(bare_server.url(), "GRANT circuit_engine, circuit_tenant TO other")
    assert (await schema.upgrade(bare_server.url("foreign_owned", user="other"))).state == "current"


# --- revisions ---------------------------------------------------------------------------------------------------


async def test_from_empty_to_current(empty_database_url: str) -> None:
    before = await schema.status(empty_database_url)
    assert (before.current, before.state) == (None, "empty")
    after = await schema.upgrade(empty_database_url)
    assert (after.current, after.state) == (before.head, "current")
    assert await schema.upgrade(empty_database_url) == after
    database = await Database.open(empty_database_url)
    await schema.require_current(database)
    assert await database.revision() == after.head
    await database.close()


async def test_an_empty_database_is_refused_with_what_to_do(empty_database_url: str) -> None:
    database = await Database.open(empty_database_url)
    assert await database.revision() is None
    with pytest.raises(SchemaMismatch, match=r"has no tables of Circuit yet.*circuit db upgrade"):
        await schema.require_current(database)
    with pytest.raises(SchemaMismatch, match="circuit db upgrade"):
        async with database.transaction(1) as transaction:
            await transaction.exec_driver_sql("SELECT 1 FROM circuit.case")
    await database.close()


async def test_a_database_of_a_newer_release(database: Database, database_url: str) -> None:
    await execute(database_url, "UPDATE circuit.alembic_version SET version_num = '9999'")
    assert (await schema.status(database_url)).state == "compatible"
    await schema.require_current(database)
    assert (await schema.upgrade(database_url)).state == "compatible"
    await execute(database_url, "UPDATE circuit.compatibility SET floor = '9999'")
    assert (await schema.status(database_url)).state == "ahead"
    with pytest.raises(SchemaMismatch, match=r"9999.*newer release"):
        await schema.require_current(database)
    with pytest.raises(SchemaMismatch, match=r"9999.*newer release"):
        await schema.upgrade(database_url)


async def test_a_database_of_an_older_release(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    known, (head,) = schema.known()
    monkeypatch.setattr(schema, "known", lambda: (known | {"9999"}, ("9999",)))
    with pytest.raises(SchemaMismatch, match=rf"at revision {head}; this release needs 9999.*circuit db upgrade"):
        await schema.require_current(database)


def test_the_revisions_read_from_the_files_are_those_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.migrations()))
    scripts = ScriptDirectory.from_config(config)
    revisions, heads = schema.known()
    assert sorted(heads) == sorted(scripts.get_heads())
    assert revisions == {script.revision for script in scripts.walk_revisions()}


def test_the_migrations_of_a_wheel_go_before_those_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "circuit"
    monkeypatch.setattr(schema, "_PACKAGE", package)
    with pytest.raises(DatabaseMisconfigured, match="install it anew"):
        schema.migrations()
    for folder in (tmp_path / "migrations", package / "migrations"):
        folder.mkdir(parents=True)
        (folder / "env.py").touch()
        assert schema.migrations() == folder


async def test_the_migrations_make_what_the_tables_say(database_url: str) -> None:
    children = {f"{table}_" for table in PARTITIONED}

    def ours(name: str | None, kind: str, parents: object) -> bool:
        if kind == "schema":
            return name == SCHEMA
        return not (kind == "table" and name and (name == "alembic_version" or name.startswith(tuple(children))))

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={"include_schemas": True, "include_name": ours, "compare_type": True, "compare_server_default": True,
                  "version_table_schema": SCHEMA},
        )  # fmt: skip
        return compare_metadata(context, metadata)

    databases = engine(database_url)
    async with databases.connect() as connection:
        found = await connection.run_sync(differences)
    await databases.dispose()
    assert found == []


async def test_columns_stand_in_the_order_of_the_tables(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch(
        "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) AS columns"
        " FROM information_schema.columns WHERE table_schema = 'circuit' GROUP BY table_name"
    )
    found = {row["table_name"]: row["columns"] for row in rows}
    for table in metadata.tables.values():
        assert found[table.name] == [column.name for column in table.columns], table.name


# --- partitions --------------------------------------------------------------------------------------------------


def test_a_week_starts_on_monday_and_ends_where_the_next_starts() -> None:
    sunday = datetime(2026, 1, 4, 23, 59, 59, 999000, tzinfo=UTC)
    monday = datetime(2026, 1, 5, tzinfo=UTC)
    assert partitions.week_of(sunday).suffix == "2026w01"
    assert partitions.week_of(monday).suffix == "2026w02"
    assert partitions.week_of(sunday).upper == partitions.week_of(monday).lower == first_uuid7_at(monday)


async def test_the_coming_weeks_are_made_once(raw: asyncpg.Connection) -> None:
    made = await partitions.ensure(raw, NOW)
    assert len(made) == len(PARTITIONED) * 5
    assert await partitions.ensure(raw, NOW) == []
    assert len(await partitions.ensure(raw, NOW + timedelta(weeks=1))) == len(PARTITIONED)


async def test_workers_that_start_at_once_make_them_once(database: Database) -> None:
    connections = [await database.raw() for _ in range(4)]
    made = await asyncio.gather(*(partitions.ensure(connection, NOW) for connection in connections))
    for connection in connections:
        await connection.close()
    names = [name for part in made for name in part]
    assert len(names) == len(set(names)) == len(PARTITIONED) * 5


async def test_a_range_with_rows_in_the_default_partition_stays_there(
    raw: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    case = first_uuid7_at(NOW)
    await insert_token(raw, case)
    assert await raw.fetchval("SELECT tableoid::regclass::text FROM circuit.token") == "circuit.token_default"
    made = await partitions.ensure(raw, NOW)
    suffix = partitions.week_of(NOW).suffix
    assert f"token_{suffix}" not in made and f"history_{suffix}" in made
    assert f"token_{suffix}" in caplog.text
    assert await raw.fetchval("SELECT count(*) FROM circuit.token WHERE case_id = $1", case) == 1


async def test_partitions_have_the_options_that_keep_updates_heap_only(raw: asyncpg.Connection) -> None:
    await partitions.ensure(raw, NOW)
    suffix = partitions.week_of(NOW).suffix
    rows = await raw.fetch("SELECT relname, reloptions FROM pg_class WHERE relname LIKE '%' || $1", suffix)
    options = {row["relname"]: row["reloptions"] for row in rows if row["reloptions"]}
    assert options[f"token_{suffix}"] == options[f"firing_{suffix}"] == ["fillfactor=50"]
    await insert_token(raw, first_uuid7_at(NOW))
    async with raw.transaction():
        await raw.execute("UPDATE circuit.token SET place = 'q', version = 2, reserved_by = 1")
        heap_only = await raw.fetchval(
            "SELECT pg_stat_get_xact_tuples_hot_updated($1::regclass)", f"circuit.token_{suffix}"
        )
    assert heap_only == 1


async def test_a_locked_table_delays_its_partitions_and_no_more(
    database: Database, owner: asyncpg.Connection, raw: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await owner.execute("ALTER FUNCTION circuit.add_partition SET lock_timeout = '50ms'")
    async with owner.transaction():
        await owner.execute("LOCK TABLE circuit.token IN ACCESS EXCLUSIVE MODE")
        made = await partitions.ensure(raw, NOW)
    assert {name.partition("_")[0] for name in made} == {name.partition("_")[0] for name in PARTITIONED} - {"token"}
    assert "will be tried again" in caplog.text
    assert len(await partitions.ensure(raw, NOW)) == 5


async def test_only_the_engine_makes_partitions(database: Database) -> None:
    with pytest.raises(Exception, match="permission denied for function add_partition"):
        async with database.transaction(1) as transaction:
            await transaction.exec_driver_sql(
                f"SELECT circuit.add_partition('token', 'x', '{UUID(int=0)}', '{UUID(int=1)}')"
            )


# --- what the database refuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_case_that_has_ended_never_changes(raw: asyncpg.Connection, status: str) -> None:
    case = first_uuid7_at(NOW)
    await insert_case(raw, case, status=status)
    for change in ("status = 'running'", "seq = seq + 1", "next_token = 9", "finished_at = now()"):
        with pytest.raises(asyncpg.PostgresError, match=f"a case that is {status} never changes") as refused:
            await raw.execute(f"UPDATE circuit.case SET {change}")
        assert refused.value.sqlstate == "CT001"
    await raw.execute("UPDATE circuit.case SET owner = NULL, parameters = '{}'")


async def test_a_case_that_runs_may_change(raw: asyncpg.Connection) -> None:
    await insert_case(raw, first_uuid7_at(NOW))
    await raw.execute("UPDATE circuit.case SET status = 'completed', seq = 2, finished_at = now()")
    assert await raw.fetchval("SELECT status FROM circuit.case") == "completed"


async def test_an_execution_that_has_ended_never_changes_its_status(raw: asyncpg.Connection) -> None:
    await partitions.ensure(raw, NOW)
    await raw.execute(
        "INSERT INTO circuit.execution (tenant_id, case_id, firing, status, descriptor, started_at)"
        " VALUES (1, $1, 1, 'running', '{}', now())",
        first_uuid7_at(NOW),
    )
    await raw.execute("UPDATE circuit.execution SET status = 'failed'")
    with pytest.raises(asyncpg.PostgresError, match="an execution that is failed never changes"):
        await raw.execute("UPDATE circuit.execution SET status = 'completed'")


async def test_a_status_that_does_not_exist(raw: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert_case(raw, first_uuid7_at(NOW), status="done")


async def test_require_raises_what_it_is_told(raw: asyncpg.Connection) -> None:
    assert await raw.fetchval("SELECT circuit.require(true, 'CF001', 'fenced')") is True
    for ok in ("false", "NULL"):
        with pytest.raises(asyncpg.PostgresError, match="fenced") as refused:
            await raw.execute(f"SELECT circuit.require({ok}, 'CF001', 'fenced')")
        assert refused.value.sqlstate == "CF001"


# --- the documentation -------------------------------------------------------------------------------------------


def test_the_reference_names_every_table_and_column_and_no_other() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "tables.md"
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page.read_text(), re.MULTILINE | re.DOTALL))
    documented = {
        name: [
            column for row in re.findall(r"^\| (`.*?) \|", body, re.MULTILINE) for column in re.findall(r"`(\w+)`", row)
        ]
        for name, body in sections.items()
    }
    for table in metadata.tables.values():
        assert sorted(documented.pop(table.name)) == sorted(column.name for column in table.columns), table.name
    assert documented == {}
