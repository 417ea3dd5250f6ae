"""Whose cases a worker claims: those that it can run, and of every tenant its part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from circuit.ids import CaseKey
from circuit.storage import cases, commands, listing, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import LEASE_SECONDS, incarnation, new_key, owned_cases, start_cases, step

PLAIN = {"actions": ["agent"], "pools": ["default"], "providers": ["scripted"]}
GPU = {"actions": ["agent"], "pools": ["gpu"], "providers": ["scripted"]}


_READ = """
SELECT coalesce(sum(coalesce(idx_tup_fetch, 0) + seq_tup_read), 0)::int FROM pg_stat_xact_user_tables
WHERE relname = 'ready'
"""


async def worker_with(conn: Connection, capabilities: Mapping[str, Sequence[str]]) -> workers.Incarnation:
    made = replace(incarnation(), capabilities=capabilities)
    await workers.register(conn, made, LEASE_SECONDS)
    return made


async def started(
    database: Database, count: int, *, tenant: int = 1, requires: Mapping[str, Sequence[str]] | None = None
) -> list[CaseKey]:
    """New cases of a tenant that need this."""
    bucket = 0
    if requires is not None:
        async with database.transaction(tenant) as transaction:
            bucket = await commands.bucket_of(transaction, requires)
            assert await commands.bucket_of(transaction, dict(reversed(requires.items()))) == bucket
    return await start_cases(database, [new_key(tenant) for _ in range(count)], bucket=bucket)


async def tenants(conn: Connection, count: int) -> None:
    await conn.execute(
        "INSERT INTO circuit.tenant (tenant_id, name) SELECT n, 'tenant ' || n FROM generate_series(2, $1::int) n",
        count,
    )


async def test_a_worker_claims_what_it_can_run_and_nothing_else(database: Database, conn: Connection) -> None:
    plain, gpu = await started(database, 2, requires=PLAIN), await started(database, 3, requires=GPU)
    before = await started(database, 1)
    here = await worker_with(conn, {"actions": ["agent", "http"], "pools": ["default"], "providers": ["scripted"]})
    there = await worker_with(
        conn, {"actions": ["agent"], "pools": ["gpu", "big"], "providers": ["openai", "scripted"]}
    )
    nowhere = await worker_with(conn, {"actions": ["agent"], "pools": [], "providers": ["scripted"]})
    assert sorted(await cases.claim(conn, here.id, 10)) == sorted([*plain, *before])
    assert await cases.next_due(conn, here.id) is None
    assert await cases.next_due(conn, there.id) is not None
    assert await cases.claim(conn, nowhere.id, 10) == []
    assert sorted(await cases.claim(conn, there.id, 10)) == sorted(gpu)


async def test_a_worker_that_says_nothing_of_itself_claims_all(database: Database, conn: Connection) -> None:
    started_cases = [*await started(database, 1, requires=PLAIN), *await started(database, 1, requires=GPU)]
    anybody = await worker_with(conn, {})
    assert sorted(await cases.claim(conn, anybody.id, 10)) == sorted(started_cases)


async def test_a_case_that_is_given_up_and_asked_for_stays_in_its_bucket(database: Database, conn: Connection) -> None:
    [key] = await started(database, 1, requires=GPU)
    gpu, plain = await worker_with(conn, GPU), await worker_with(conn, PLAIN)
    assert await cases.claim(conn, gpu.id, 1) == [key]
    # Dropped, handed back by a take-over, released for later, and asked for: each writes a row of `ready`.
    assert await cases.drop(conn, gpu.id, [key]) == [key]
    assert await cases.claim(conn, plain.id, 1) == []
    assert await cases.claim(conn, gpu.id, 1) == [key]
    await workers.take_over(conn, gpu.id)
    assert await cases.claim(conn, plain.id, 1) == []
    again = await worker_with(conn, GPU)
    assert await cases.claim(conn, again.id, 1) == [key]
    [state] = await cases.load(conn, [key], again.id)
    writer = await Writer.open(database, again.id)
    given_up = step(key, release=True, due_at=state.row.started_at)
    await writer.write(replace_bucket(given_up, state.row.bucket))
    await writer.close()
    assert await cases.claim(conn, plain.id, 1) == []
    assert await cases.claim(conn, again.id, 1) == [key]
    await conn.execute('UPDATE circuit."case" SET owner = NULL')
    async with database.transaction(1) as transaction:
        await commands.make_ready(transaction, key)
    assert await cases.claim(conn, plain.id, 1) == []
    assert await cases.claim(conn, again.id, 1) == [key]


def replace_bucket(write: cases.CaseWrite, bucket: int) -> cases.CaseWrite:
    write.row = replace(write.row, bucket=bucket)
    return write


async def test_every_tenant_has_its_part(database: Database, conn: Connection) -> None:
    await tenants(conn, 3)
    await started(database, 60, tenant=1)
    for tenant in (2, 3):
        await started(database, 5, tenant=tenant)
    worker = await worker_with(conn, {})
    claim = await cases.claim_fairly(conn, worker.id, 12)
    assert Counter(key.tenant for key in claim.keys) == {1: 4, 2: 4, 3: 4}
    assert claim.more
    # What the others do not need is there for the first.
    taken = Counter[int]()
    while claim.more:
        claim = await cases.claim_fairly(conn, worker.id, 12, claim.next_tenant)
        taken.update(key.tenant for key in claim.keys)
    assert taken == {1: 56, 2: 1, 3: 1}


async def test_where_there_are_more_tenants_than_room_they_have_turns(database: Database, conn: Connection) -> None:
    await tenants(conn, 5)
    for tenant in range(1, 6):
        await started(database, 4, tenant=tenant)
    worker = await worker_with(conn, {})
    first, order = 0, list[int]()
    for _ in range(10):
        claim = await cases.claim_fairly(conn, worker.id, 1, first)
        first = claim.next_tenant
        order += [key.tenant for key in claim.keys]
    assert order == [1, 2, 3, 4, 5] * 2


async def test_who_cannot_be_served_is_said(database: Database, conn: Connection) -> None:
    await started(database, 1, requires=GPU)
    async with database.transaction(1) as transaction:
        gpu = await commands.bucket_of(transaction, GPU)
        assert await listing.unserved(transaction, {0, gpu}) == {gpu: GPU}
        assert await listing.unserved(transaction, set()) == {}
    plain = await worker_with(conn, PLAIN)
    async with database.transaction(1) as transaction:
        assert set(await listing.unserved(transaction, {gpu})) == {gpu}
    there = await worker_with(conn, {**GPU, "actions": ["agent", "http"]})
    async with database.transaction(1) as transaction:
        assert await listing.unserved(transaction, {gpu}) == {}
    await conn.execute(
        "UPDATE circuit.worker_lease SET expires_at = now() - interval '1 s' WHERE worker_id = $1", there.id
    )
    async with database.transaction(1) as transaction:
        assert set(await listing.unserved(transaction, {gpu})) == {gpu}
    await workers.retire(conn, plain.id)


async def test_a_claim_looks_at_no_row_that_it_cannot_take(database: Database, conn: Connection) -> None:
    """A long queue for others costs a worker nothing."""
    async with database.transaction(1) as transaction:
        gpu = await commands.bucket_of(transaction, GPU)
    await conn.execute(
        "INSERT INTO circuit.ready (bucket, tenant_id, case_id, due_at)"
        " SELECT $1, 1, gen_random_uuid(), now() FROM generate_series(1, 20000)",
        gpu,
    )
    await conn.execute("ANALYZE circuit.ready")
    await started(database, 3, requires=PLAIN)
    worker = await worker_with(conn, PLAIN)
    async with conn.transaction():
        assert len((await cases.claim_fairly(conn, worker.id, 50)).keys) == 3
        assert await conn.fetchval(_READ) < 100


async def test_two_who_claim_at_once_share(database: Database, conn: Connection) -> None:
    await started(database, 30)
    first, second = await worker_with(conn, {}), await worker_with(conn, {})
    other = await database.raw()
    try:
        async with conn.transaction():
            mine = await cases.claim(conn, first.id, 10)
            theirs = await cases.claim(other, second.id, 10)
        assert len(mine) == len(theirs) == 10
        assert not set(mine) & set(theirs)
        assert await workers.living(conn) == 2
        assert len(await owned_cases(database, conn, first.id, 1)) == 1
    finally:
        await other.close()
