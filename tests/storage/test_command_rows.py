"""Starting cases and asking things of them, as a tenant."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from circuit.errors import Conflict, NotFound
from circuit.events import CaseStarted
from circuit.storage import cases, commands, history, listing, tokens
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import CaseStatus, CommandResult, CommandRow, CommandState
from circuit.value import replace
from tests.eventually import eventually
from tests.storage.cases_in_store import AT, first_row, first_token, new_key, start_case, start_worker


def asking() -> CommandRow:
    return CommandRow(uuid4(), "fire", {"form": {"ok": True}}, {"subject": "me", "roles": ["clerk"]})


async def test_a_start_writes_all_of_a_case(database: Database) -> None:
    key = await start_case(database)
    async with database.transaction(key.tenant) as conn:
        assert await listing.find_case(conn, key) == first_row()
        assert await tokens.of_case(conn, key) == [(first_token(), None)]
        [(seq, at, event)] = await history.read_events(conn, key)
        assert await listing.due_at(conn, key) is not None
    assert (seq, at) == (1, AT)
    assert isinstance(event, CaseStarted)
    assert [image.place for image in event.produced] == ["begin"]


async def test_a_start_that_fails_leaves_nothing(database: Database, conn: Connection) -> None:
    key = new_key()
    with pytest.raises(RuntimeError):
        async with database.transaction(key.tenant) as tenant:
            event = CaseStarted("flow", "hash", (), "tests")
            await commands.insert_case(tenant, key, first_row(), [], event, AT, idempotency_key="k")
            raise RuntimeError("the caller changed its mind")
    assert await start_case(database, idempotency_key="k") != key
    assert await conn.fetchval("SELECT count(*) FROM circuit.ready") == 1


async def test_one_key_starts_one_case_however_many_ask_at_once(database: Database, conn: Connection) -> None:
    started = await asyncio.gather(*(start_case(database, idempotency_key="delivery-1") for _ in range(8)))
    assert len(set(started)) == 1
    assert await start_case(database, idempotency_key="delivery-1") == started[0]
    assert await start_case(database, idempotency_key="delivery-2") != started[0]
    assert await conn.fetchval('SELECT count(*) FROM circuit."case"') == 2
    assert await conn.fetchval("SELECT count(*) FROM circuit.token") == 2


async def test_starts_that_are_written_together_wait_for_no_others_that_put_the_same(
    database: Database, witness: Connection
) -> None:
    def beginnings(letters: str) -> list[commands.Beginning]:
        event = CaseStarted("flow", "hash", (), "tests")
        tokens = [replace(first_token(), data={"text": letter * 20_000}) for letter in letters]
        return [commands.Beginning(new_key(), first_row(), [token], event, AT) for token in tokens]

    async def write(letters: str) -> None:
        async with database.transaction(1) as tenant:
            await commands.insert_cases(tenant, beginnings(letters))

    async def blocked() -> bool:
        count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return await witness.fetchval(count) == 2

    await write("z")  # then there is a bucket for what is so large
    async with database.transaction(1) as first:
        await commands.insert_cases(first, beginnings("m"))
        others = [asyncio.ensure_future(write(letters)) for letters in ("amb", "bma")]
        await eventually(blocked, what="both to wait for the first")
    await asyncio.gather(*others)
    assert await witness.fetchval("SELECT count(*) FROM circuit.artefact") == 4
    assert await witness.fetchval("SELECT count(*) FROM circuit.artefact_use") == 8


async def test_one_key_asks_once_however_many_ask_at_once(database: Database, conn: Connection) -> None:
    key, other = await start_case(database), await start_case(database)

    async def ask(of: object = key) -> object:
        async with database.transaction(key.tenant) as tenant:
            return await commands.insert_command(tenant, of, asking(), idempotency_key="once")  # type: ignore[arg-type]

    ids = await asyncio.gather(*(ask() for _ in range(8)))
    assert len(set(ids)) == 1
    assert await ask() == ids[0]
    assert await ask(other) != ids[0]
    assert await conn.fetchval("SELECT count(*) FROM circuit.command") == 2


async def test_a_command_keeps_its_result(database: Database, conn: Connection) -> None:
    key = await start_case(database)
    command = asking()
    async with database.transaction(key.tenant) as tenant:
        assert await commands.insert_command(tenant, key, command) == command.id
    async with database.transaction(key.tenant) as tenant:
        result = await commands.command_result(tenant, key, command.id)
        assert result == CommandResult(command.id, CommandState.PENDING, {})
        assert await listing.pending_commands(tenant, key) == [command]
        assert await commands.command_result(tenant, key, uuid4()) is None


async def test_what_cannot_be_asked(database: Database, conn: Connection) -> None:
    key = await start_case(database)
    async with database.transaction(key.tenant) as tenant:
        earlier = await commands.insert_command(tenant, key, asking(), idempotency_key="early")
    await conn.execute("UPDATE circuit.\"case\" SET status = 'completed' WHERE case_id = $1", key.case)
    with pytest.raises(Conflict):
        async with database.transaction(key.tenant) as tenant:
            await commands.insert_command(tenant, key, asking())
    async with database.transaction(key.tenant) as tenant:
        assert await commands.insert_command(tenant, key, asking(), idempotency_key="early") == earlier
    with pytest.raises(NotFound):
        async with database.transaction(key.tenant) as tenant:
            await commands.insert_command(tenant, new_key(), asking())


async def test_another_tenant_sees_and_asks_nothing(database: Database, conn: Connection) -> None:
    key = await start_case(database)
    theirs = new_key(2)
    await start_case(database, theirs, idempotency_key="same")
    await start_case(database, idempotency_key="same")
    with pytest.raises(NotFound):
        async with database.transaction(2) as tenant:
            await commands.insert_command(tenant, key, asking())
    async with database.transaction(2) as tenant:
        assert await listing.find_case(tenant, key) is None
        assert await tokens.of_case(tenant, key) == []
        assert await history.read_events(tenant, key) == []
        assert await history.follow(tenant, key, 0, 1) is None
        assert [listed.key for listed in await listing.list_cases(tenant, 2)] == [theirs]
        assert await listing.list_cases(tenant, 1) == []


async def test_a_list_goes_on_where_the_page_before_ended(database: Database, conn: Connection) -> None:
    keys = [await start_case(database) for _ in range(7)]
    await conn.execute("UPDATE circuit.\"case\" SET status = 'waiting' WHERE case_id = $1", keys[2].case)
    found: list[object] = []
    async with database.transaction(1) as tenant:
        before = None
        while page := await listing.list_cases(tenant, 1, limit=3, before=before):
            found += [listed.key for listed in page]
            before = page[-1].key.case
        waiting = await listing.list_cases(tenant, 1, status=CaseStatus.WAITING)
        assert await listing.list_cases(tenant, 1, workflow_id="another") == []
        assert len(await listing.list_cases(tenant, 1, workflow_id="flow")) == 7
    assert found == list(reversed(keys))
    assert [listed.key for listed in waiting] == [keys[2]]


async def test_what_was_started_is_claimed(database: Database, conn: Connection) -> None:
    worker = await start_worker(conn)
    key = await start_case(database)
    assert await cases.claim(conn, worker, 5) == [key]


async def test_one_key_asks_one_thing(database: Database, conn: Connection) -> None:
    key = await start_case(database)
    first = asking()

    async def ask(command: CommandRow) -> object:
        async with database.transaction(key.tenant) as tenant:
            return await commands.insert_command(tenant, key, command, idempotency_key="once")

    await ask(first)
    assert await ask(CommandRow(uuid4(), "fire", {"form": {"ok": True}}, {"subject": "another"})) == first.id
    for other in (CommandRow(uuid4(), "cancel", first.payload, {}), CommandRow(uuid4(), "fire", {"form": {}}, {})):
        with pytest.raises(Conflict, match="another request"):
            await ask(other)
    both = await asyncio.gather(*(ask(CommandRow(uuid4(), kind, {}, {})) for kind in "ab"), return_exceptions=True)
    assert [type(answer) for answer in both] == [Conflict, Conflict]
    assert await conn.fetchval("SELECT count(*) FROM circuit.command") == 1


async def test_one_key_starts_the_case_of_one_request(database: Database) -> None:
    key = await start_case(database, idempotency_key="delivery", request="one")
    event = CaseStarted("flow", "hash", (), "tests")
    for request in ("other", "one", None):
        async with database.transaction(1) as tenant:
            start = commands.insert_case(
                tenant, new_key(), first_row(), [], event, AT, idempotency_key="delivery", request=request
            )
            if request == "other":
                with pytest.raises(Conflict, match="with another request"):
                    await start
            else:  # None: an older release asks, which knows no more than the key
                assert await start == key
