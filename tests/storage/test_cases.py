"""Who owns a case: claims, attention to commands, and the wake-up that must not be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventually import eventually

from circuit.ids import CaseKey
from circuit.storage import cases, commands, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import CaseStatus, CaseWrite, CommandResult, CommandRow, CommandState
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import AT, first_row, first_token, owned_cases, start_case, start_worker, step


def asking(kind: str = "fire") -> CommandRow:
    return CommandRow(uuid4(), kind, {"transition": "go"}, {"subject": "me"})


async def ask(database: Database, key: CaseKey, command: CommandRow | None = None) -> UUID:
    async with database.transaction(key.tenant) as tenant:
        return await commands.insert_command(tenant, key, command or asking())


async def ready_cases(conn: Connection) -> list[UUID]:
    return [UUID(bytes=row[0].bytes) for row in await conn.fetch("SELECT case_id FROM circuit.ready ORDER BY 1")]


async def test_the_oldest_due_cases_are_claimed_first(database: Database, conn: Connection, worker: UUID) -> None:
    keys = [await start_case(database) for _ in range(5)]
    assert await cases.claim(conn, worker, 2) == keys[:2]
    assert await cases.claim(conn, worker, 0) == []
    assert sorted(await cases.claim(conn, worker, 10)) == keys[2:]
    assert await cases.claim(conn, worker, 10) == []
    assert await ready_cases(conn) == []


async def test_a_case_is_claimed_when_it_is_due(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    later = await conn.fetchval("SELECT now() + interval '1 hour'")
    await writer.write(step(key, release=True, due_at=later))
    assert await cases.claim(conn, worker, 10) == []
    assert await cases.next_due(conn, worker) == later
    # What asks for it by name gets it all the same.
    assert await cases.claim(conn, worker, 10, [key]) == [key]
    assert await cases.next_due(conn, worker) is None


async def test_only_these_cases_are_claimed(database: Database, conn: Connection, worker: UUID) -> None:
    keys = [await start_case(database) for _ in range(3)]
    other = await start_worker(conn)
    assert await cases.claim(conn, other, 10, keys[:1]) == keys[:1]
    assert await cases.claim(conn, worker, 10, [*keys[:2], CaseKey(1, uuid4())]) == keys[1:2]
    assert await ready_cases(conn) == [keys[2].case]


async def test_a_fenced_worker_claims_nothing(database: Database, conn: Connection, worker: UUID) -> None:
    key = await start_case(database)
    await workers.retire(conn, worker)
    assert await cases.claim(conn, worker, 10) == []
    assert await cases.claim(conn, worker, 10, [key]) == []
    assert await ready_cases(conn) == [key.case]
    assert await cases.claim(conn, uuid4(), 10) == []


async def test_claims_at_the_same_time_share_the_cases(database: Database, conn: Connection) -> None:
    keys = [await start_case(database) for _ in range(60)]
    connections = [await database.raw() for _ in range(4)]
    claimants = [await start_worker(conn) for _ in connections]

    async def claim_all(connection: Connection, worker: UUID) -> list[CaseKey]:
        mine: list[CaseKey] = []
        while batch := await cases.claim(connection, worker, 7):
            mine += batch
        return mine

    shares = await asyncio.gather(*(claim_all(*pair) for pair in zip(connections, claimants, strict=True)))
    assert sorted(key for share in shares for key in share) == keys
    for connection, worker, share in zip(connections, claimants, shares, strict=True):
        held = await conn.fetch('SELECT tenant_id, case_id FROM circuit."case" WHERE owner = $1', worker)
        assert {UUID(bytes=row[1].bytes) for row in held} == {key.case for key in share}
        connection.terminate()


async def test_a_case_that_was_just_started_reads_as_it_was_written(
    database: Database, conn: Connection, worker: UUID
) -> None:
    keys = await owned_cases(database, conn, worker, 2)
    unknown = CaseKey(1, uuid4())
    states = await cases.load(conn, [keys[1], unknown, keys[0]])
    assert [state.key for state in states] == [keys[1], keys[0]]
    assert states[0].row == first_row()
    assert states[0].tokens == [(first_token(), None)]
    assert (states[0].firings, states[0].executions, states[0].incidents, states[0].commands) == ([], [], [], [])
    assert (states[0].fired, states[0].journal) == ({}, {})
    assert await cases.load(conn, []) == []
    assert type(states[0].key.case) is UUID
    stranger = await start_worker(conn)
    assert await cases.load(conn, keys, stranger) == []
    assert len(await cases.load(conn, keys, worker)) == 2


async def test_commands_come_in_the_order_of_their_arrival(database: Database, conn: Connection, worker: UUID) -> None:
    key = await start_case(database)
    asked = [asking() for _ in range(4)]
    for command in asked:
        await ask(database, key, command)
    await cases.claim(conn, worker, 1)
    [state] = await cases.load(conn, [key])
    assert state.commands == asked
    assert await cases.pending(conn, [key, CaseKey(1, uuid4())]) == {key: asked}


async def test_an_owner_attends_once_to_what_it_is_asked(database: Database, conn: Connection, worker: UUID) -> None:
    key, quiet = await owned_cases(database, conn, worker, 2)
    stranger = await start_worker(conn)
    assert await cases.attend(conn, worker) == []
    command = await ask(database, key)
    await ask(database, key)
    assert await cases.attend(conn, stranger) == []
    assert await cases.claim(conn, stranger, 10) == []
    assert await cases.attend(conn, worker) == [key]
    assert await cases.attend(conn, worker) == []
    found = await cases.pending(conn, [key, quiet])
    assert found[key][0].id == command
    assert quiet not in found


async def test_no_command_is_overlooked_whose_row_was_there_already(
    database: Database, conn: Connection, worker: UUID
) -> None:
    """The row of `ready` announces the first command; the second raises it while the owner deletes it."""
    [key] = await owned_cases(database, conn, worker, 1)
    first = await ask(database, key)
    second = asking()
    async with database.transaction(key.tenant) as tenant:
        await commands.insert_command(tenant, key, second)
        # Not committed. The owner looks: either it sees the second command later, or it is told again.
        attended = await cases.attend(conn, worker)
        seen = await cases.pending(conn, [key])
        assert second.id not in {row.id for rows in seen.values() for row in rows}
    again = await cases.attend(conn, worker)
    assert (attended, again) == ([], [key])
    assert [row.id for row in (await cases.pending(conn, [key]))[key]] == [first, second.id]


async def test_a_command_that_comes_during_the_look_raises_its_own_row(
    database: Database, conn: Connection, witness: Connection, worker: UUID
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    await ask(database, key)
    async with conn.transaction(isolation="read_committed"):
        assert await cases.attend(conn, worker) == [key]
        asking_now = asyncio.ensure_future(ask(database, key))

        async def blocked() -> bool:
            return await witness.fetchval(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND query LIKE 'INSERT INTO circuit.ready%')"
            )

        await eventually(blocked, what="a command that waits for the row of its case")
    second = await asking_now
    assert await cases.attend(conn, worker) == [key]
    assert second in {row.id for row in (await cases.pending(conn, [key]))[key]}


async def test_a_release_never_hides_a_command(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    await ask(database, key)
    much_later = AT + timedelta(days=3650)
    await writer.write(step(key, release=True, due_at=much_later))
    assert await cases.claim(conn, worker, 1) == [key]
    assert len((await cases.pending(conn, [key]))[key]) == 1


async def test_a_dropped_case_is_due_at_once(database: Database, conn: Connection, worker: UUID) -> None:
    keys = await owned_cases(database, conn, worker, 2)
    stranger = await start_worker(conn)
    assert await cases.drop(conn, stranger, keys) == []
    assert await cases.drop(conn, worker, keys[:1]) == keys[:1]
    assert await cases.claim(conn, stranger, 10) == keys[:1]
    await workers.retire(conn, worker)
    assert await cases.drop(conn, worker, keys[1:]) == []


async def test_a_dropped_case_may_be_due_later(database: Database, conn: Connection, worker: UUID) -> None:
    keys = await owned_cases(database, conn, worker, 2)
    assert sorted(await cases.drop(conn, worker, keys, due_in_seconds=60)) == sorted(keys)
    assert await cases.claim(conn, worker, 10) == []
    due = await due_in(conn, keys[0])
    assert due is not None and 0 < due <= 60
    await ask(database, keys[0])
    assert await cases.claim(conn, worker, 10) == [keys[0]]


async def test_a_command_that_comes_while_its_case_ends_is_refused(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    late = asking()
    last = step(key, release=True)
    last.row = replace(last.row, status=CaseStatus.COMPLETED, finished_at=AT)
    async with database.transaction(key.tenant) as tenant:
        await commands.insert_command(tenant, key, late)
        await writer.write(last)
    assert await cases.claim(conn, worker, 10) == []
    assert await ready_cases(conn) == []
    async with database.transaction(key.tenant) as tenant:
        result = await commands.command_result(tenant, key, late.id)
    assert result is not None
    assert result.state is CommandState.REFUSED
    assert result.result["error"]["code"] == "conflict"
    assert await cases.next_due(conn, worker) is None


async def due_in(conn: Connection, key: CaseKey) -> float | None:
    """Seconds until the row of `ready` of a case is due, or None if there is none."""
    return await conn.fetchval(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM circuit.ready WHERE case_id = $1", key.case
    )


async def make_due(conn: Connection, key: CaseKey) -> None:
    """As if the time had passed for which its row of `ready` was postponed."""
    await conn.execute("UPDATE circuit.ready SET due_at = now() WHERE case_id = $1", key.case)


def settling(key: CaseKey, *asked: UUID, release: bool = False) -> CaseWrite:
    """A step that applies commands."""
    applied = [CommandResult(command, CommandState.APPLIED, {}) for command in asked]
    return step(key, commands_settled=applied, release=release)


async def test_a_command_that_was_told_and_not_applied_is_told_again(
    database: Database, conn: Connection, worker: UUID
) -> None:
    """The owner may lose its memory of the case between the look and the step that applies the command."""
    [key] = await owned_cases(database, conn, worker, 1)
    await ask(database, key)
    assert await cases.attend(conn, worker) == [key]
    postponed = await due_in(conn, key)
    assert postponed is not None and 0 < postponed <= cases.POSTPONED_SECONDS
    await make_due(conn, key)
    assert await cases.attend(conn, worker) == [key]
    # Another command does not wait until then.
    await ask(database, key)
    assert await cases.attend(conn, worker) == [key]


async def test_a_case_that_is_given_up_unattended_keeps_its_wake_up(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    command = await ask(database, key)
    assert await cases.attend(conn, worker) == [key]
    await writer.write(step(key, release=True))
    assert await due_in(conn, key) is not None
    await make_due(conn, key)
    assert await cases.claim(conn, worker, 1) == [key]
    assert [row.id for row in (await cases.pending(conn, [key]))[key]] == [command]


@pytest.mark.parametrize("release", [False, True])
async def test_the_step_that_settles_the_last_command_takes_the_wake_up_away(
    database: Database, conn: Connection, worker: UUID, writer: Writer, release: bool
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    asked = [await ask(database, key), await ask(database, key)]
    assert await cases.attend(conn, worker) == [key]
    await writer.write(settling(key, asked[0]))
    assert await due_in(conn, key) is not None
    last = settling(key, asked[1], release=release)
    last.expected_seq, last.row = 2, replace(last.row, seq=3)
    last.tokens_moved = []
    await writer.write(last)
    assert await due_in(conn, key) is None


async def test_a_step_leaves_the_wake_up_of_a_command_that_comes_meanwhile(
    database: Database, conn: Connection, witness: Connection, worker: UUID, writer: Writer
) -> None:
    """The batch waits for a lock; the command comes after its snapshot, and before it looks at `ready`."""
    [key] = await owned_cases(database, conn, worker, 1)
    first = await ask(database, key)
    assert await cases.attend(conn, worker) == [key]
    other = await database.raw()
    async with other.transaction():
        await other.execute('SELECT 1 FROM circuit."case" WHERE case_id = $1 FOR UPDATE', key.case)
        writing = writer.write(settling(key, first, release=True))
        await eventually(
            lambda: witness.fetchval(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND strpos(query, 'cases AS (UPDATE') > 0)"
            ),
            what="a batch that waits",
        )
        second = await ask(database, key)
    await writing
    other.terminate()
    assert await cases.claim(conn, worker, 1) == [key]
    assert [row.id for row in (await cases.pending(conn, [key]))[key]] == [second]


async def test_an_owned_case_without_a_command_keeps_no_row(database: Database, conn: Connection, worker: UUID) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    async with database.transaction(key.tenant) as tenant:
        await commands.make_ready(tenant, key)
    assert await cases.attend(conn, worker) == []
    assert await ready_cases(conn) == []


async def test_a_row_without_a_command_is_not_deleted_under_a_command(
    database: Database, conn: Connection, worker: UUID
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    async with database.transaction(key.tenant) as tenant:
        await commands.make_ready(tenant, key)
    asked = asking()
    look = Between(conn, cases._LOCKED, lambda: ask(database, key, asked))
    # Before the row is locked: the delete sees the command, and the row is due for it.
    assert await cases.attend(look, worker) == []  # type: ignore[arg-type]
    assert await cases.attend(conn, worker) == [key]
    assert [row.id for row in (await cases.pending(conn, [key]))[key]] == [asked.id]


class Between:
    """A connection on which something happens before the first statement that holds `text`."""

    def __init__(self, connection: Connection, text: str, happen: Callable[[], Awaitable[object]]) -> None:
        self._connection = connection
        self._text = text
        self._happen: Callable[[], Awaitable[object]] | None = happen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, query: str, *args: Any) -> Any:
        return await self._run(self._connection.fetch, query, *args)

    async def execute(self, query: str, *args: Any) -> Any:
        return await self._run(self._connection.execute, query, *args)

    async def _run(self, call: Callable[..., Awaitable[Any]], query: str, *args: Any) -> Any:
        if self._happen is not None and self._text in query:
            happen, self._happen = self._happen, None
            await happen()
        return await call(query, *args)


async def test_a_row_that_a_release_has_just_written_is_not_held_back(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    """The case was the worker's when its row was found due, and is not any more."""
    [key] = await owned_cases(database, conn, worker, 1)
    await ask(database, key)
    look = Between(conn, "unnest($2::int4[]", lambda: writer.write(step(key, release=True)))
    assert await cases.attend(look, worker) == []  # type: ignore[arg-type]
    assert await cases.claim(conn, worker, 1) == [key]


async def test_a_late_command_is_answered_with_its_row_or_not_at_all(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    key, command = await ended_with_a_command(database, conn, worker, writer)

    async def cut() -> None:
        raise ConnectionResetError("the process ends here")

    with pytest.raises(ConnectionResetError):
        await cases.claim(Between(conn, "SET state = 'refused'", cut), worker, 10)  # type: ignore[arg-type]
    assert await ready_cases(conn) == [key.case]
    # Who claims this case only answers as well.
    assert await cases.claim(conn, worker, 10, [key]) == []
    assert await ready_cases(conn) == []
    assert await conn.fetchval("SELECT state FROM circuit.command WHERE command_id = $1", command) == "refused"


async def ended_with_a_command(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> tuple[CaseKey, UUID]:
    [key] = await owned_cases(database, conn, worker, 1)
    command = await ask(database, key)
    last = step(key, release=True)
    last.row = replace(last.row, status=CaseStatus.COMPLETED, finished_at=AT)
    await writer.write(last)
    return key, command


async def test_a_case_that_cannot_be_read_spoils_no_other(database: Database, conn: Connection, worker: UUID) -> None:
    keys = await owned_cases(database, conn, worker, 3)
    await conn.execute(
        "INSERT INTO circuit.firing (tenant_id, case_id, number, transition, state, attempt, start, request)"
        " VALUES (1, $1, 1, 'go', 'running', 1, 1, '{}')",
        keys[1].case,
    )
    await conn.execute(
        "INSERT INTO circuit.incident (tenant_id, case_id, number, transition, code, message, blocks, raised_at)"
        " VALUES (1, $1, 1, 'go', 'x', 'x', '[7]', now())",
        keys[1].case,
    )
    await conn.execute("UPDATE circuit.case SET seq = 2 WHERE case_id = $1", keys[1].case)
    loaded = await cases.load_page(conn, keys, worker)
    assert [state.key for state in loaded.states] == [keys[0], keys[2]]
    assert list(loaded.unreadable) == [keys[1]]
    assert isinstance(loaded.unreadable[keys[1]], TypeError)
    assert [state.key for state in await cases.load(conn, keys, worker)] == [keys[0], keys[2]]
