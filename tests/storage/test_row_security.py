"""What the role of requests sees and may write: the rows of its tenant, and no more than it needs."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from postgres import Server, execute

from circuit.errors import StorageError
from circuit.ids import first_uuid7_at
from circuit.storage import cases, commands, schema
from circuit.storage.database import Database
from circuit.storage.records import CommandResult, CommandRow, CommandState
from circuit.storage.tables import metadata
from circuit.storage.writer import Writer
from tests.storage.bare_rows import NOW, insert_case, insert_token
from tests.storage.cases_in_store import start_case, start_worker, step


@pytest.fixture
async def two_tenants(raw: asyncpg.Connection) -> dict[int, UUID]:
    """A case with a token of tenant 1 and one of tenant 2."""
    await raw.execute("INSERT INTO circuit.tenant (tenant_id, name) VALUES (2, 'other')")
    cases = {tenant: first_uuid7_at(NOW + timedelta(seconds=tenant)) for tenant in (1, 2)}
    for tenant, case in cases.items():
        await insert_case(raw, case, tenant)
        await insert_token(raw, case, tenant)
        await raw.execute("INSERT INTO circuit.ready (tenant_id, case_id, due_at) VALUES ($1, $2, now())", tenant, case)
    return cases


async def test_a_tenant_sees_its_own_rows_only(database: Database, two_tenants: dict[int, UUID]) -> None:
    for tenant, case in two_tenants.items():
        async with database.transaction(tenant) as transaction:
            for table in ("tenant", "case", "token", "ready"):
                seen = (await transaction.exec_driver_sql(f"SELECT DISTINCT tenant_id FROM circuit.{table}")).all()
                assert [tuple(row) for row in seen] == [(tenant,)], table
            assert (await transaction.exec_driver_sql("SELECT case_id FROM circuit.case")).scalar() == case


async def test_without_a_tenant_nothing_is_seen(owner: asyncpg.Connection, two_tenants: dict[int, UUID]) -> None:
    await owner.execute("SET ROLE circuit_tenant")
    for table in ("tenant", "case", "token", "ready"):
        assert await owner.fetchval(f"SELECT count(*) FROM circuit.{table}") == 0
    # What a local setting leaves behind is no tenant either.
    async with owner.transaction():
        await owner.execute("SELECT set_config('circuit.tenant', '1', true)")
        assert await owner.fetchval("SELECT count(*) FROM circuit.case") == 1
    assert await owner.fetchval("SELECT count(*) FROM circuit.case") == 0


async def test_a_tenant_writes_its_own_rows_only(owner: asyncpg.Connection, two_tenants: dict[int, UUID]) -> None:
    await owner.execute("SET ROLE circuit_tenant")
    await owner.execute("SELECT set_config('circuit.tenant', '1', false)")
    await insert_case(owner, first_uuid7_at(NOW + timedelta(hours=1)), tenant=1)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await insert_case(owner, first_uuid7_at(NOW + timedelta(hours=1)), tenant=2)
    upsert = (
        "INSERT INTO circuit.ready AS r (tenant_id, case_id, due_at) VALUES ($1, $2, 'epoch')"
        " ON CONFLICT (tenant_id, case_id) DO UPDATE SET due_at = least(r.due_at, excluded.due_at)"
    )
    await owner.execute(upsert, 1, two_tenants[1])
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await owner.execute(upsert, 2, two_tenants[2])
    await owner.execute("UPDATE circuit.ready SET due_at = 'infinity'")
    await owner.execute("RESET ROLE")
    due = await owner.fetchval("SELECT due_at < 'infinity' FROM circuit.ready WHERE tenant_id = 2")
    assert due is True


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE circuit.case SET status = 'cancelled'",
        "DELETE FROM circuit.case",
        "UPDATE circuit.token SET place = 'q'",
        "DELETE FROM circuit.history",
        "DELETE FROM circuit.ready",
        "INSERT INTO circuit.firing SELECT * FROM circuit.firing",
        "UPDATE circuit.command SET state = 'applied'",
        "SELECT * FROM circuit.worker",
        "SELECT * FROM circuit.worker_lease",
        "SELECT * FROM circuit.token_default",
        "DELETE FROM circuit.workflow_version",
        "UPDATE circuit.tenant SET settings = '{}'",
        "INSERT INTO circuit.case (tenant_id, case_id, owner) VALUES (1, gen_random_uuid(), gen_random_uuid())",
        "INSERT INTO circuit.case (tenant_id, case_id, finished_at) VALUES (1, gen_random_uuid(), now())",
        "INSERT INTO circuit.token (tenant_id, case_id, reserved_by) VALUES (1, gen_random_uuid(), 1)",
        "INSERT INTO circuit.history (tenant_id, case_id, firing) VALUES (1, gen_random_uuid(), 1)",
        "SELECT * FROM circuit.bucket",
        "INSERT INTO circuit.command (tenant_id, case_id, state) VALUES (1, gen_random_uuid(), 'applied')",
        "INSERT INTO circuit.command (tenant_id, case_id, result) VALUES (1, gen_random_uuid(), '{}')",
        "INSERT INTO circuit.command (tenant_id, case_id, settled_at) VALUES (1, gen_random_uuid(), now())",
        "INSERT INTO circuit.command (tenant_id, case_id, created_at) VALUES (1, gen_random_uuid(), '-infinity')",
    ],
)
async def test_what_a_request_may_never_do(owner: asyncpg.Connection, statement: str) -> None:
    await owner.execute("SET ROLE circuit_tenant")
    await owner.execute("SELECT set_config('circuit.tenant', '1', false)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
        await owner.execute(statement)


A_CASE = (
    "INSERT INTO circuit.case (tenant_id, case_id, workflow_id, workflow_hash, status, seq, next_token, next_firing,"
    " next_incident, started_at) VALUES (1, gen_random_uuid(), 'w', 'h', {status}, {seq}, 2, {firing}, 1, now())"
)
A_TOKEN = (
    "INSERT INTO circuit.token (tenant_id, case_id, number, version, place, data, metadata, entered_at)"
    " VALUES (1, '{case}', 7, {version}, 'p', '{{}}', '{{}}', now())"
)
AN_EVENT = (
    "INSERT INTO circuit.history (tenant_id, case_id, seq, kind, at, body)"
    " VALUES (1, '{case}', {seq}, '{kind}', now(), '{{}}')"
)
NEW, OLD = first_uuid7_at(NOW + timedelta(hours=2)), first_uuid7_at(NOW + timedelta(seconds=1))


@pytest.mark.parametrize(
    "statement",
    [
        A_CASE.format(status="'completed'", seq=1, firing=1),
        A_CASE.format(status="'running'", seq=2, firing=1),
        A_CASE.format(status="'running'", seq=1, firing=2),
        A_TOKEN.format(case=NEW, version=2),
        A_TOKEN.format(case=OLD, version=1),
        A_TOKEN.format(case=UUID(int=5), version=1),
        AN_EVENT.format(case=NEW, seq=2, kind="case_started"),
        AN_EVENT.format(case=NEW, seq=1, kind="case_ended"),
        AN_EVENT.format(case=OLD, seq=1, kind="case_started"),
        f"INSERT INTO circuit.ready (tenant_id, case_id, due_at, bucket) VALUES (1, '{NEW}', now(), 7)",
    ],
)
async def test_a_request_writes_nothing_but_the_start_of_a_case_of_its_own(
    owner: asyncpg.Connection, two_tenants: dict[int, UUID], statement: str
) -> None:
    assert two_tenants[1] == OLD
    await owner.execute("SET ROLE circuit_tenant")
    await owner.execute("SELECT set_config('circuit.tenant', '1', false)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with owner.transaction():
            await insert_case(owner, NEW)
            await owner.execute(statement)


async def test_a_case_is_started_and_asked_on_every_version(any_server: Server) -> None:
    await execute(any_server.url(), "CREATE DATABASE started")
    await schema.upgrade(any_server.url("started"))
    database = await Database.open(any_server.url("started"))
    key = await start_case(database, idempotency_key="once")
    command = CommandRow(UUID(int=9), "fire", {"form": {"n": 1}}, {"subject": "me"})
    for _ in range(2):
        assert await start_case(database, idempotency_key="once") == key
        async with database.transaction(key.tenant) as transaction:
            assert await commands.insert_command(transaction, key, command, idempotency_key="k") == command.id
    connection = await database.raw()
    worker = await start_worker(connection)
    assert await cases.claim(connection, worker, 5) == [key]
    writer = await Writer.open(database, worker)
    applied = [CommandResult(command.id, CommandState.APPLIED, {})]
    await writer.write(step(key, commands_settled=applied, release=True))
    await writer.close()
    assert await connection.fetchval("SELECT count(*) FROM circuit.ready") == 0
    await connection.close()
    with pytest.raises(StorageError, match="row-level security"):
        async with database.transaction(1) as transaction:
            await transaction.exec_driver_sql(A_TOKEN.format(case=key.case, version=1))
    await database.close()


async def test_every_table_has_row_security_and_both_policies(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch(
        "SELECT c.relname, c.relrowsecurity, array_agg(p.polname::text ORDER BY p.polname) AS policies"
        " FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid"
        " WHERE c.relnamespace = 'circuit'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relname <> 'alembic_version' GROUP BY c.relname, c.relrowsecurity"
    )
    assert {row["relname"] for row in rows} == {table.name for table in metadata.tables.values()}
    for row in rows:
        nobodys = ("bucket", "provider_ration", "stream_compaction")
        closed = row["relname"].startswith("worker") or row["relname"] in nobodys
        expected = ["engine"] if closed else ["engine", "tenant"]
        if row["relname"] in ("case", "token", "history", "command", "ready", "artefact", "artefact_use"):
            expected.append("tenant_insert")
        assert row["relrowsecurity"] and row["policies"] == expected, row["relname"]
