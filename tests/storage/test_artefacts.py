"""Large values: cut out of the rows, kept once for a tenant, read as if they were there, collected when nobody uses
them."""

from __future__ import annotations

import asyncio
import hashlib
import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.errors import ArtefactLost
from circuit.events import CaseStarted, TokenImage
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage import artefacts, cases, commands, history, payloads, tokens, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.lane import Lane
from circuit.storage.payloads import EVENT, LIMIT, MARK, METADATA, PLAIN, REQUEST, STEP, WAIT, Shape
from circuit.storage.records import CaseWrite, FiringRow, FiringState, JournalRow, LogWrite, TokenMove
from circuit.storage.workers import Incarnation
from circuit.storage.writer import Writer
from tests.eventually import eventually
from tests.storage.cases_in_store import AT, first_row, new_key, step

LARGE = "large " * 2_000
OTHER = "other " * 2_000
ABLE = {"features": ["artefacts"]}

# -- the form in which rows hold payloads -----------------------------------------------------------------------------

_SMALL = st.none() | st.booleans() | st.integers(-5, 5) | st.text(string.ascii_lowercase, max_size=5)
_HASH = st.sampled_from([hashlib.sha256(b"x").hexdigest(), "a" * 64, "short"])
_MARKS = st.lists(st.tuples(_HASH, st.sampled_from(["document", 0, 1])).map(list), max_size=2)
_LOOKS_LIKE = st.builds(
    lambda mark, rest: {MARK: mark} | rest,
    _MARKS | st.fixed_dictionaries({"in": _MARKS, "value": _SMALL}) | _SMALL,
    st.dictionaries(st.sampled_from(["document", "in", "value"]), _SMALL, max_size=2),
)
_STRINGS = st.sampled_from([LARGE, OTHER, 'ä"\\\n' * 3_000, "x" * (LIMIT - 2), "x" * (LIMIT - 1)])
VALUES = st.recursive(
    _SMALL | _STRINGS | _LOOKS_LIKE | st.just(["item"] * 2_000),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["document", "data", "inputs", "failure", MARK, "k" * 9_000]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from([PLAIN, METADATA, EVENT, REQUEST, WAIT, STEP]))
def test_a_payload_reads_back_as_it_was_and_only_structure_stays_large(value: Any, shape: Shape) -> None:
    encoded = orjson.dumps(value)
    if payloads.plain(value, encoded):
        assert payloads.references(value) == []
        return
    cut = payloads.cut(value, encoded, shape)
    stored = orjson.loads(orjson.dumps(cut.stored))
    contents = {one.hash: one.text for one in cut.artefacts}
    for one in cut.artefacts:
        assert one.hash == hashlib.sha256(one.text.encode()).hexdigest() and one.size == len(one.text.encode())
        assert one.size > LIMIT
    assert {one[0] for one in payloads.references(stored)} == set(contents)
    if shape.depth == 0:
        named = len(orjson.dumps(payloads.references(stored)))
        assert len(orjson.dumps(stored)) <= LIMIT + named + 100, "nothing large stays where nothing is structure"
    assert payloads.filled(stored, lambda name: orjson.loads(contents[name])) == value


def test_what_sql_looks_for_stays_where_it_is() -> None:
    event = {"produced": [{"number": n, "data": {"document": LARGE, "n": n}} for n in range(3)], "transition": "go"}
    stored = payloads.cut(event, orjson.dumps(event), EVENT).stored
    assert [image["number"] for image in stored["produced"]] == [0, 1, 2] and stored["transition"] == "go"
    assert [image["data"]["n"] for image in stored["produced"]] == [0, 1, 2]
    request = {"consumed": [[n, 1] for n in range(3_000)], "read": [], "inputs": {f"{n}": "x" * 50 for n in range(300)}}
    stored = payloads.cut(request, orjson.dumps(request), REQUEST).stored
    assert stored["consumed"] == request["consumed"] and stored["inputs"] is None
    answer = {"model": "m", "usage": {"input_tokens": 1}, "cost": 0.1, "parts": [{"text": LARGE}, {"text": "short"}]}
    stored = payloads.cut(answer, orjson.dumps(answer), STEP).stored
    assert [stored[name] for name in ("model", "usage", "cost")] == [
        answer[name] for name in ("model", "usage", "cost")
    ]
    assert stored["parts"] == [{"text": None}, {"text": "short"}]
    failure = {"failure": {"code": "timeout", "message": LARGE}}
    assert payloads.cut(failure, orjson.dumps(failure), METADATA).stored["failure"]["code"] == "timeout"


def test_the_same_value_has_the_same_hash_wherever_it_lies() -> None:
    def hashes(value: Any, shape: Shape) -> set[str]:
        return {one.hash for one in payloads.cut(value, orjson.dumps(value), shape).artefacts}

    token = {"document": LARGE, "title": "a"}
    assert hashes(token, PLAIN) == hashes({"produced": [{"data": token}]}, EVENT) == hashes({"inputs": token}, REQUEST)


# -- in the database --------------------------------------------------------------------------------------------------


@pytest.fixture
async def able(conn: Connection) -> UUID:
    """A worker that knows of artefacts."""
    one = Incarnation(uuid4(), "here", "boot", 1, 1.5, capabilities=ABLE)
    await workers.register(conn, one, 60.0)
    return one.id


@pytest.fixture
async def writer(database: Database, able: UUID) -> Any:
    opened = await Writer.open(database, able)
    yield opened
    await opened.close(within_seconds=5)


async def begin(database: Database, data: Mapping[str, Any], tenant: int = 1, bucket: int = 0) -> CaseKey:
    """A case with one token that holds `data`."""
    key = new_key(tenant)
    token = Token(1, 1, "begin", data, {}, AT)
    event = CaseStarted("flow", "hash", (TokenImage(1, 1, "begin", data, {}),), "tests")
    async with database.transaction(tenant) as tenant_conn:
        return await commands.insert_case(tenant_conn, key, first_row(bucket), [token], event, AT)


async def owned(database: Database, conn: Connection, worker: UUID, data: Mapping[str, Any] | None = None) -> CaseKey:
    key = await begin(database, data or {"value": 0})
    assert await cases.claim(conn, worker, 1, [key]) == [key]
    return key


def moved(key: CaseKey, data: Mapping[str, Any], seq: int = 1, **changes: Any) -> CaseWrite:
    """A step that gives the token of a case other data."""
    write = step(key, seq, from_version=seq, **changes)
    [(at, event)] = write.events
    token = Token(1, seq + 1, "begin", data, {}, AT)
    write.events = [(at, replace(event, produced=(TokenImage(1, seq + 1, "begin", data, {}),)))]
    write.tokens_moved = [TokenMove(token, seq, None)]
    return write


async def stored(conn: Connection) -> dict[tuple[int, str], Any]:
    rows = await conn.fetch("SELECT tenant_id, hash, content FROM circuit.artefact")
    return {(row["tenant_id"], row["hash"]): orjson.loads(row["content"]) for row in rows}


async def bucket(conn: Connection, key: CaseKey) -> int:
    return await conn.fetchval('SELECT bucket FROM circuit."case" WHERE case_id = $1', key.case)


async def needs(conn: Connection, key: CaseKey) -> Any:
    query = 'SELECT b.requires FROM circuit."case" c JOIN circuit.bucket b USING (bucket) WHERE c.case_id = $1'
    found = await conn.fetchval(query, key.case)
    return None if found is None else orjson.loads(found)


async def test_a_large_value_is_kept_once_and_read_everywhere(
    database: Database, conn: Connection, able: UUID, writer: Writer
) -> None:
    key = await owned(database, conn, able, {"document": LARGE})
    asked = FiringRow(1, "ask", FiringState.RUNNING, 1, 1, {"consumed": [], "read": [], "inputs": {"document": LARGE}})
    await writer.write(moved(key, {"document": LARGE, "n": 1}, firings_opened=[asked]))
    await writer.write(LogWrite(key, [JournalRow(1, 1, "text", LARGE), JournalRow(1, 1, "list", [OTHER])]))
    waits = FiringRow(1, "ask", FiringState.SUSPENDED, 1, 1, {}, awaits={"kind": "human", "payload": OTHER})
    await writer.write(moved(key, {"document": LARGE, "n": 2}, 2, firings_changed=[waits]))
    assert sorted((await stored(conn)).values()) == [LARGE, OTHER]
    # As its owner reads it.
    [state] = await cases.load(conn, [key])
    assert state.tokens[0][0].data == {"document": LARGE, "n": 2}
    assert state.firings[0].request["inputs"] == {"document": LARGE}
    assert state.firings[0].awaits == {"kind": "human", "payload": OTHER}
    assert state.journal == {1: {"text": LARGE, "list": [OTHER]}}
    assert await cases.recorded(conn, key, 1, 1) == {"text": LARGE, "list": [OTHER]}
    # As its readers do.
    async with database.transaction(key.tenant) as tenant:
        [(token, _)] = await tokens.of_case(tenant, key)
        assert token.data == {"document": LARGE, "n": 2}
        told = [one.event for one in await history.read_events(tenant, key)]
        assert [event.produced[0].data.get("document") for event in told] == [LARGE] * 3  # type: ignore[union-attr]
        assert {step: value for _, step, _, value in await history.journal(tenant, key, 1)} == {
            "text": LARGE,
            "list": [OTHER],
        }
        assert [one[-1] for one in await history.journals(tenant, key.tenant, [(key.case, 1)])] != []
    # The rows themselves are small.
    for table, column in (("token", "data"), ("history", "body"), ("firing", "request"), ("journal", "value")):
        sizes = await conn.fetch(f"SELECT octet_length({column}::text) AS size FROM circuit.{table}")
        assert max(row["size"] for row in sizes) < 1_000, table


async def test_what_looks_like_a_reference_is_data(
    database: Database, conn: Connection, able: UUID, writer: Writer
) -> None:
    name = hashlib.sha256(orjson.dumps(LARGE)).hexdigest()
    other = await owned(database, conn, able, {"document": LARGE})
    for data in ({MARK: [[name, "stolen"]], "stolen": None}, {MARK: {"in": [[name]], "value": None}}, {MARK: 1}):
        key = await owned(database, conn, able, data)
        await writer.write(moved(key, {"again": 1, **data}))
        [state] = await cases.load(conn, [key])
        assert state.tokens[0][0].data == {"again": 1, **data}
        async with database.transaction(key.tenant) as tenant:
            assert (await tokens.of_case(tenant, key))[0][0].data == {"again": 1, **data}
    assert set(await stored(conn)) == {(1, name)} and other


async def test_a_tenant_has_its_own(database: Database, conn: Connection, able: UUID) -> None:
    await conn.execute("INSERT INTO circuit.tenant (tenant_id, name) VALUES (2, 'other')")
    keys = [await begin(database, {"document": LARGE}, tenant) for tenant in (1, 2)]
    kept = await stored(conn)
    assert sorted(tenant for tenant, _ in kept) == [1, 2] and len({name for _, name in kept}) == 1
    name = next(iter(kept))[1]
    # A tenant whose artefact is gone does not read that of the other.
    await conn.execute("DELETE FROM circuit.artefact WHERE tenant_id = 2")
    async with database.transaction(2) as tenant:
        with pytest.raises(ArtefactLost, match="restore it from a backup"):
            await tokens.of_case(tenant, keys[1])
        assert (await tenant.exec_driver_sql("SELECT count(*) FROM circuit.artefact")).scalar() == 0
    loaded = await cases.load_page(conn, keys)
    assert [state.key for state in loaded.states] == [keys[0]], "it spoils no other case"
    assert isinstance(loaded.unreadable[keys[1]], ArtefactLost)
    # Nor may the role of requests put anything under a hash that is another's, or say that a case uses something.
    insert = "INSERT INTO circuit.artefact (tenant_id, hash, size, content) VALUES ({}, '{}', 1, '\"x\"')"
    for statement in (
        insert.format(2, name),
        insert.format(1, "f" * 64),
        f"INSERT INTO circuit.artefact_use VALUES (2, '{keys[1].case}', 'x')",
        "DELETE FROM circuit.artefact",
        "UPDATE circuit.artefact SET content = '1'",
    ):
        await conn.execute("SET ROLE circuit_tenant")
        await conn.execute("SELECT set_config('circuit.tenant', '2', false)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(statement)
        await conn.execute("SET ROLE circuit_engine")


async def test_only_a_case_that_refers_to_something_needs_a_worker_that_knows_of_it(
    database: Database, conn: Connection, able: UUID, writer: Writer
) -> None:
    known = await conn.fetchval('SELECT circuit.bucket_of(\'{"pools": ["default"]}\')')
    key = await begin(database, {"value": 0}, bucket=known)
    assert await cases.claim(conn, able, 1, [key]) == [key]
    await writer.write(moved(key, {"document": "x" * (LIMIT - 20)}))
    assert await needs(conn, key) == {"pools": ["default"]}
    later = await conn.fetchval("SELECT now()")
    await writer.write(in_bucket(moved(key, {"document": LARGE}, 2, release=True, due_at=later), known))
    assert await needs(conn, key) == {"pools": ["default"], "features": ["artefacts"]}
    assert await conn.fetchval("SELECT bucket FROM circuit.ready") == await bucket(conn, key)
    # One that serves the pool and knows nothing of artefacts leaves it; this one does not.
    blind = Incarnation(uuid4(), "here", "boot", 2, 1.5, capabilities={"pools": ["default"]})
    await workers.register(conn, blind, 60.0)
    assert await cases.claim(conn, blind.id, 10) == []
    seeing = Incarnation(uuid4(), "here", "boot", 3, 1.5, capabilities={"pools": ["default"], **ABLE})
    await workers.register(conn, seeing, 60.0)
    assert await cases.claim(conn, seeing.id, 10) == [key]
    # What its owner does next, though he knew it in its first bucket.
    second = await Writer.open(database, seeing.id)
    await second.write(in_bucket(moved(key, {"document": OTHER}, 3), known))
    await second.write(in_bucket(moved(key, {"value": 1}, 4, release=True, due_at=later), known))
    await second.close(within_seconds=5)
    assert await conn.fetchval("SELECT bucket FROM circuit.ready") == await bucket(conn, key)
    assert await needs(conn, key) == {"pools": ["default"], "features": ["artefacts"]}


def in_bucket(write: CaseWrite, bucket: int) -> CaseWrite:
    """A step of an owner who knows his case in this bucket."""
    write.row = replace(write.row, bucket=bucket)
    return write


async def test_a_journal_alone_raises_its_case(
    database: Database, conn: Connection, able: UUID, writer: Writer
) -> None:
    key = await owned(database, conn, able)
    await writer.write(LogWrite(key, [JournalRow(1, 1, "text", LARGE)]))
    assert await needs(conn, key) == {"features": ["artefacts"]}
    assert list((await stored(conn)).values()) == [LARGE]
    # Beside a step of its case, in one batch, whichever of them is large; and what had announced the case goes along.
    for before, after in ((LARGE, 1), (1, LARGE)):
        key = await owned(database, conn, able)
        async with database.transaction(key.tenant) as tenant:
            await commands.make_ready(tenant, key)
        log = writer.write(LogWrite(key, [JournalRow(1, 1, "value", before)]))
        await asyncio.gather(log, writer.write(moved(key, {"value": after})))
        query = "SELECT bucket FROM circuit.ready WHERE case_id = $1"
        assert await conn.fetchval(query, key.case) == await bucket(conn, key) != 0
        [state] = await cases.load(conn, [key])
        assert state.tokens[0][0].data == {"value": after}
        assert await cases.recorded(conn, key, 1, 1) == {"value": before}


async def test_nothing_is_put_aside_while_a_worker_lives_that_takes_every_case(
    database: Database, conn: Connection, able: UUID
) -> None:
    """A worker of the first release heeds no buckets: it would take a reference for data."""
    old = Incarnation(uuid4(), "here", "boot", 2, 1.5)
    await workers.register(conn, old, 60.0)
    key = await owned(database, conn, able, {"document": LARGE})
    one = await Writer.open(database, able)
    await one.write(moved(key, {"document": OTHER}))
    await one.write(LogWrite(key, [JournalRow(1, 1, "text", LARGE)]))
    assert await stored(conn) == {} and await bucket(conn, key) == 0
    await workers.retire(conn, old.id)
    # It is not asked for each payload anew, so this writer learns it later, and another one at once.
    two = await Writer.open(database, able)
    await two.write(moved(key, {"document": LARGE}, 2))
    assert list((await stored(conn)).values()) == [LARGE]
    for writer in (one, two):
        await writer.close(within_seconds=5)


async def test_what_a_case_refers_to_already_is_not_sent_again(
    database: Database, conn: Connection, able: UUID, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = Lane.send

    async def noted(lane: Lane, names: tuple[str, ...], given: Any) -> None:
        sent.append(sum(len(one) for one in given if isinstance(one, str)))
        await send(lane, names, given)

    monkeypatch.setattr(Lane, "send", noted)
    key = await owned(database, conn, able)
    for seq in range(1, 4):
        await writer.write(moved(key, {"document": LARGE, "n": seq}, seq))
    assert sent[0] > len(LARGE) and max(sent[1:]) < 2_000, sent


@pytest.mark.parametrize("lane_error", [OSError("gone"), asyncpg.DeadlockDetectedError("again")])
async def test_a_batch_that_is_lost_on_its_way_is_sent_whole_again(
    database: Database, conn: Connection, able: UUID, lane_error: Exception
) -> None:
    """What was put is there with the row that refers to it, or neither is."""
    lost = [lane_error]

    def fault(point: str) -> None:
        if point == "before_commit" and lost:
            raise lost.pop()

    writer = await Writer.open(database, able, fault=fault)
    key = await owned(database, conn, able)
    await writer.write(moved(key, {"document": LARGE}))
    await writer.write(moved(key, {"document": LARGE, "n": 2}, 2))
    await writer.close(within_seconds=5)
    [state] = await cases.load(conn, [key])
    assert state.tokens[0][0].data == {"document": LARGE, "n": 2}


# -- collecting -------------------------------------------------------------------------------------------------------


async def forget(conn: Connection, *keys: CaseKey) -> None:
    """What the archive does to a case, as far as artefacts are concerned."""
    await conn.execute("DELETE FROM circuit.artefact_use WHERE case_id = ANY ($1)", [key.case for key in keys])


async def test_what_no_case_uses_is_collected(database: Database, conn: Connection, able: UUID) -> None:
    both = [await begin(database, {"document": LARGE}) for _ in range(2)]
    alone = await begin(database, {"document": OTHER})
    assert await artefacts.collect(conn) == (0, 0)
    await forget(conn, both[0], alone)
    assert await artefacts.collect(conn) == (1, len(orjson.dumps(OTHER)))
    assert list((await stored(conn)).values()) == [LARGE]
    await forget(conn, both[1])
    assert (await artefacts.collect(conn)).artefacts == 1
    assert await stored(conn) == {}


@pytest.mark.parametrize("first", ["collector", "writer"])
async def test_who_collects_and_who_refers_again_meet(
    database: Database, conn: Connection, witness: Connection, able: UUID, writer: Writer, first: str
) -> None:
    """Whoever comes first: what a committed row refers to is there."""
    gone = await begin(database, {"document": LARGE})
    key = await owned(database, conn, able)
    await forget(conn, gone)
    [name] = [name for _, name in await stored(conn)]
    if first == "collector":
        async with witness.transaction():
            await witness.fetch(artefacts._UNUSED, -1, "", 10)  # pyright: ignore[reportPrivateUsage]
            writing = writer.write(moved(key, {"document": LARGE}))
            await waits_for_lock(conn)
            assert len(await witness.fetch(artefacts._COLLECT, [1], [name])) == 1  # pyright: ignore[reportPrivateUsage]
        await writing
    else:
        async with witness.transaction():
            await witness.fetch("SELECT 1 FROM circuit.artefact FOR KEY SHARE")
            # It is skipped, and nobody waits: neither who collects, nor another writer.
            assert await artefacts.collect(conn) == (0, 0)
            await writer.write(moved(key, {"document": LARGE}))
        assert await artefacts.collect(conn) == (0, 0)
    [state] = await cases.load(conn, [key])
    assert state.tokens[0][0].data == {"document": LARGE}


async def waits_for_lock(conn: Connection) -> None:
    await eventually(
        lambda: conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), what="that somebody waits"
    )


async def test_many_that_put_and_forget_the_same_while_somebody_collects(
    database: Database, conn: Connection, able: UUID, writer: Writer
) -> None:
    keys = [await owned(database, conn, able) for _ in range(6)]
    collecting = await database.raw()
    done = asyncio.Event()

    async def collect() -> int:
        rounds = 0
        while not done.is_set():
            await artefacts.collect(collecting)
            rounds += 1
        return rounds

    async def go(key: CaseKey) -> None:
        """Each is a case of its own, of which nothing stays: so there is always something to collect."""
        for seq in range(1, 7):
            data = {"document": f"{seq // 2} {LARGE}", "n": seq}
            await writer.write(moved(key, data, seq))
            async with database.transaction(key.tenant) as tenant:
                assert (await tokens.of_case(tenant, key))[0][0].data == data

    task = asyncio.create_task(collect())
    await asyncio.gather(*(go(key) for key in keys))
    done.set()
    assert await task > 0
    await collecting.close()
