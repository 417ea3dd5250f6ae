"""The group commit: what a step writes, what a lost guard does, and what a batch looks like to the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from circuit.errors import Fenced, GuardLost, StorageError
from circuit.events import FiringBegun, Frame, StreamType, TokenRef
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage import batch, cases, commands, lane, streams, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import (
    CaseState,
    CaseStatus,
    CaseWrite,
    CommandResult,
    CommandRow,
    CommandState,
    ExecutionRow,
    ExecutionStatus,
    FiringRow,
    FiringState,
    IncidentRow,
    JournalRow,
    LogWrite,
    StreamRow,
    TokenMove,
)
from circuit.storage.statements import PLANNER, SECTIONS, compose
from circuit.storage.streams import Wanted
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import (
    AT,
    first_row,
    first_token,
    history,
    owned_cases,
    seqs,
    start_case,
    start_worker,
    step,
)


async def read(conn: Connection, key: CaseKey) -> CaseState:
    [state] = await cases.load(conn, [key])
    return state


def frame(start: int, sequence: int) -> Frame:
    return Frame(start, sequence, StreamType.CONTENT_CHUNK, AT, orjson.dumps({"sequence": sequence, "content": "ä\0"}))


async def frames(conn: Connection, key: CaseKey) -> list[tuple[int, int, int]]:
    rows = await conn.fetch(
        "SELECT firing, start, seq FROM circuit.stream_event WHERE case_id = $1 ORDER BY 1, 2, 3", key.case
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def test_the_history_is_counted_only_from_where_the_counts_were_written_down(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    await writer.write(step(key))
    await writer.write(step(key, 2, from_version=2, fired={"go": 41, "other": 1}))
    await writer.write(step(key, 3, from_version=3))
    state = await read(conn, key)
    assert (state.fired, state.fired_seq) == ({"go": 42, "other": 1}, 3)


async def test_a_step_is_committed_as_a_whole(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    await writer.write(step(key, value=7))
    state = await read(conn, key)
    assert state.row == replace(first_row(), seq=2)
    assert state.tokens == [(Token(1, 2, "begin", {"value": 7}, {}, AT), None)]
    assert state.fired == {"go": 1}
    assert await history(conn, key) == [(1, "case_started"), (2, "transition_fired")]


async def test_everything_that_a_step_may_hold_reads_back(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    key = await start_case(database)
    asked, late = (CommandRow(uuid4(), "fire", {"transition": "go"}, {"subject": "me"}) for _ in range(2))
    async with database.transaction(key.tenant) as tenant:
        await commands.insert_command(tenant, key, asked)
        await commands.insert_command(tenant, key, late)
    await cases.claim(conn, worker, 1, [key])
    held = FiringRow(1, "think", FiringState.RUNNING, 1, 1, {"consumed": [[1, 1]], "inputs": {"a": "ß"}}, begun_at=AT)
    other = replace(held, number=2, state=FiringState.OFFERED, retry_at=AT, error={"code": "timeout"}, crashes=3)
    run = ExecutionRow(1, ExecutionStatus.RUNNING, {"agent_id": "a", "model": "m", "x": [1]}, AT)
    gone = replace(run, firing=2)
    trouble = IncidentRow(1, "think", None, "mapping_error", "no such path", ((1, 1), (3, 2)), AT)
    event = FiringBegun("think", 1, f"{key}.1", (TokenRef(1, 1, "begin"),))
    row = replace(first_row(), seq=2, status=CaseStatus.WAITING, next_token=4, next_firing=3, next_incident=2)
    new = Token(2, 1, "aside", {"n": None}, {"m": 1.5}, AT, AT + timedelta(seconds=5))
    third = Token(3, 1, "aside", {}, {}, AT)
    await writer.write(
        CaseWrite(
            key,
            1,
            row,
            [(AT, event)],
            tokens_put=[(new, None), (third, 2)],
            tokens_moved=[TokenMove(first_token(), 1, 1)],
            firings_opened=[held, other],
            executions_opened=[run, gone],
            frames=[StreamRow(1, frame(1, 1))],
            incidents_opened=[trouble],
            commands_settled=[CommandResult(asked.id, CommandState.APPLIED, {"firing": 1})],
        )
    )
    await writer.write(LogWrite(key, [JournalRow(1, 1, "model-1", {"text": "\0"})], [StreamRow(1, frame(1, 2))]))
    state = await read(conn, key)
    assert state.row == row
    assert state.tokens == [(first_token(), 1), (new, None), (third, 2)]
    assert state.firings == [held, other]
    assert state.executions == [run, gone]
    assert state.incidents == [trouble]
    assert state.commands == [late]
    assert state.journal == {1: {"model-1": {"text": "\0"}}}
    assert await frames(conn, key) == [(1, 1, 1), (1, 1, 2)]

    done = replace(run, status=ExecutionStatus.FAILED, finished_at=AT, usage={"tokens": 3}, error={"code": "x"})
    due = AT + timedelta(days=1)
    await writer.write(
        CaseWrite(
            key,
            2,
            row,
            tokens_taken=[(3, 1)],
            firings_changed=[
                replace(held, state=FiringState.FAILED, error={"code": "x"}),
                replace(other, state=FiringState.RUNNING, attempt=2, start=2, retry_at=None, error=None),
            ],
            executions_changed=[done],
            incidents_changed=[replace(trouble, resolved_at=AT, resolved_by="me")],
            commands_settled=[CommandResult(late.id, CommandState.REFUSED, {})],
            release=True,
            due_at=due,
        )
    )
    state = await read(conn, key)
    assert [token.number for token, _ in state.tokens] == [1, 2]
    assert state.firings == [replace(other, state=FiringState.RUNNING, attempt=2, start=2, retry_at=None, error=None)]
    assert state.executions == [gone]
    assert (state.incidents, state.commands, state.journal) == ([], [], {})
    assert await conn.fetchval('SELECT owner FROM circuit."case" WHERE case_id = $1', key.case) is None
    assert await cases.next_due(conn, worker) == due
    ended = await conn.fetchrow("SELECT * FROM circuit.execution WHERE case_id = $1 AND firing = 1", key.case)
    assert ended is not None
    assert (ended["status"], ended["agent_id"], ended["model"]) == ("failed", "a", "m")
    async with database.transaction(key.tenant) as tenant:
        result = await commands.command_result(tenant, key, asked.id)
    assert result == CommandResult(asked.id, CommandState.APPLIED, {"firing": 1})


BREACHES: dict[str, dict[str, Any]] = {
    "the case has moved on": {"expected_seq": 7},
    "the token has another version": {"tokens_moved": [TokenMove(replace(first_token(), version=9), 8, None)]},
    "the token is not there": {"tokens_taken": [(5, 1)]},
    "the firing is not there": {"firings_changed": [FiringRow(9, "go", FiringState.RUNNING, 1, 1, {})]},
    "the execution is not there": {"executions_changed": [ExecutionRow(9, ExecutionStatus.RUNNING, {}, AT)]},
    "the incident is not there": {"incidents_changed": [IncidentRow(9, "go", None, "x", "x", (), AT, AT)]},
    "the command is not there": {"commands_settled": [CommandResult(uuid4(), CommandState.APPLIED, {})]},
    "a token is there already": {"tokens_put": [(first_token(), None)]},
    "an event is there already": {"events": step(CaseKey(1, uuid4())).events, "expected_seq": 0},
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_only_the_guilty_case_fails(
    database: Database, conn: Connection, worker: UUID, writer: Writer, breach: str
) -> None:
    keys = await owned_cases(database, conn, worker, 9)
    writes = [step(key) for key in keys]
    writes[4] = step(keys[4], **BREACHES[breach])
    results = await asyncio.gather(*(writer.write(write) for write in writes), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 4 + [GuardLost] + [type(None)] * 4
    assert await seqs(conn, keys) == [2] * 4 + [1] + [2] * 4
    # Nothing of the guilty step is there, and its case goes on when it is read anew.
    assert await history(conn, keys[4]) == [(1, "case_started")]
    await writer.write(step(keys[4]))
    assert await seqs(conn, keys) == [2] * 9


async def test_a_case_of_somebody_else_is_not_written(database: Database, conn: Connection, writer: Writer) -> None:
    stranger = await start_worker(conn)
    [key] = await owned_cases(database, conn, stranger, 1)
    free = await start_case(database)
    for write in (step(key), step(free), LogWrite(key, [JournalRow(1, 1, "s", 1)]), LogWrite(free)):
        with pytest.raises(GuardLost):
            await writer.write(write)
    assert await seqs(conn, [key, free]) == [1, 1]
    assert await cases.recorded(conn, key, 1, 1) == {}


async def test_what_postgres_cannot_store_fails_alone(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    keys = await owned_cases(database, conn, worker, 5)
    moved = step(keys[0]).tokens_moved[0]
    writes = [step(key) for key in keys]
    writes[1].tokens_moved = [replace(moved, token=replace(moved.token, data={"x": "\0"}))]
    writes[2].tokens_moved = [replace(moved, token=replace(moved.token, place="a\0b"))]
    writes[3].tokens_moved = [replace(moved, token=replace(moved.token, data={"x": object()}))]
    results = await asyncio.gather(*(writer.write(write) for write in writes), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), *[StorageError] * 3, type(None)]
    assert await seqs(conn, keys) == [2, 1, 1, 1, 2]


ODD = [
    'a "quoted" one',
    "back\\slash, {brace}, comma",
    "line\nfeed\tand\rothers \x01\x1f\x7f",
    "\\n is no line feed",
    "NULL",
    "null",
    "",
    " spaces ",
    "ünïcödé \U0001f600",
    "'; DROP TABLE circuit.token; --",
    '\\"',
]


async def test_any_text_reads_back_as_it_was(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    keys = await owned_cases(database, conn, worker, len(ODD))
    writes = [step(key) for key in keys]
    for write, text in zip(writes, ODD, strict=True):
        token = replace(write.tokens_moved[0].token, place=text, data={text: [text]}, metadata={"m": text})
        write.tokens_moved = [TokenMove(token, 1, None)]
        write.incidents_opened = [IncidentRow(1, text, None, "code", text, (), AT)]
        write.frames = [StreamRow(1, replace(frame(1, 1), body=text.encode()))]
    # All in one batch, and each alone, for an odd text decides how its whole column is written.
    await asyncio.gather(*(writer.write(write) for write in writes[:-1]))
    await writer.write(writes[-1])
    for state, text in zip(await cases.load(conn, keys), ODD, strict=True):
        [(token, _)] = state.tokens
        assert (token.place, token.data, token.metadata) == (text, {text: [text]}, {"m": text})
        assert (state.incidents[0].transition, state.incidents[0].message) == (text, text)
        async with database.transaction(1) as tenant:
            [[(stored, _)]] = await streams.pages(tenant, 1, [Wanted(state.key.case, 1, 1, 0)])
        assert stored.body == text.encode()


async def test_instants_keep_their_microseconds(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    at = datetime(2026, 3, 29, 1, 59, 59, 123457, tzinfo=timezone(timedelta(hours=-7, minutes=-30)))
    write = step(key)
    token = replace(write.tokens_moved[0].token, entered_at=at, available_at=at)
    write.tokens_moved = [TokenMove(token, 1, None)]
    await writer.write(write)
    [(stored, _)] = (await read(conn, key)).tokens
    assert (stored.entered_at, stored.available_at) == (at, at)


async def test_five_hundred_cases_are_one_statement(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    keys = await owned_cases(database, conn, worker, 520)
    await asyncio.gather(*(writer.write(step(key)) for key in keys))
    assert (writer.statistics.batches, writer.statistics.largest, writer.statistics.writes) == (2, 500, 520)
    assert await seqs(conn, keys) == [2] * 520


async def test_the_steps_of_a_case_are_committed_in_their_order(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    keys = await owned_cases(database, conn, worker, 3)
    done: list[tuple[CaseKey, int]] = []
    futures: list[asyncio.Future[None]] = []
    for number in range(1, 6):
        for key in keys:
            future = writer.write(step(key, number, from_version=number))
            future.add_done_callback(lambda _, key=key, number=number: done.append((key, number)))
            futures.append(future)
            futures.append(writer.write(LogWrite(key, [JournalRow(1, 1, f"{number}", number)])))
    await asyncio.gather(*futures)
    for key in keys:
        assert [number for of, number in done if of == key] == [1, 2, 3, 4, 5]
        assert await cases.recorded(conn, key, 1, 1) == {f"{n}": n for n in range(1, 6)}
    assert await seqs(conn, keys) == [6, 6, 6]


async def test_a_refused_step_takes_down_only_the_steps_after_it(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    key, other = await owned_cases(database, conn, worker, 2)
    results = await asyncio.gather(
        writer.write(step(key, expected_seq=5)),
        writer.write(LogWrite(key, [JournalRow(1, 1, "kept", 1)])),
        writer.write(step(key, 2, from_version=2)),
        writer.write(step(other)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [GuardLost, type(None), GuardLost, type(None)]
    assert await cases.recorded(conn, key, 1, 1) == {"kept": 1}


async def test_the_first_journal_entry_counts(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    await writer.write(LogWrite(key, [JournalRow(1, 1, "answer", "first")]))
    await writer.write(LogWrite(key, [JournalRow(1, 1, "answer", "second"), JournalRow(1, 2, "answer", "third")]))
    assert await cases.recorded(conn, key, 1, 1) == {"answer": "first"}
    assert await cases.recorded(conn, key, 1, 2) == {"answer": "third"}


async def test_a_frame_is_stored_once(database: Database, conn: Connection, worker: UUID, writer: Writer) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    await writer.write(LogWrite(key, frames=[StreamRow(1, frame(1, 1)), StreamRow(1, frame(1, 2))]))
    with pytest.raises(GuardLost):
        await writer.write(LogWrite(key, frames=[StreamRow(1, frame(1, 2)), StreamRow(1, frame(1, 3))]))
    assert await frames(conn, key) == [(1, 1, 1), (1, 1, 2)]


async def test_a_fenced_incarnation_changes_nothing(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    keys = await owned_cases(database, conn, worker, 3)
    await conn.execute("UPDATE circuit.worker SET fenced = true WHERE id = $1", worker)
    futures = [writer.write(step(keys[0])), writer.write(LogWrite(keys[1], [JournalRow(1, 1, "s", 1)]))]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [Fenced, Fenced]
    with pytest.raises(Fenced):
        await writer.write(step(keys[2]))
    assert await seqs(conn, keys) == [1, 1, 1]
    assert await cases.recorded(conn, keys[1], 1, 1) == {}


async def test_a_released_case_can_be_claimed_again(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    assert await cases.claim(conn, worker, 10) == []
    await writer.write(step(key, release=True, due_at=AT))
    with pytest.raises(GuardLost):
        await writer.write(step(key, 2, from_version=2))
    other = await start_worker(conn)
    assert await cases.claim(conn, other, 10) == [key]
    second = await Writer.open(database, other)
    await second.write(step(key, 2, from_version=2))
    await second.close()
    assert await seqs(conn, [key]) == [3]


async def test_two_writers_share_the_tables(database: Database, conn: Connection) -> None:
    async def live(key: CaseKey, writer: Writer) -> None:
        for number in range(1, 11):
            await writer.write(step(key, number, from_version=number))

    mine: list[tuple[list[CaseKey], Writer]] = []
    for _ in range(2):
        worker = await start_worker(conn)
        mine.append((await owned_cases(database, conn, worker, 40), await Writer.open(database, worker)))
    await asyncio.gather(*(live(key, writer) for keys, writer in mine for key in keys))
    for keys, writer in mine:
        await writer.close()
        assert await seqs(conn, keys) == [11] * 40
        assert writer.statistics.writes == 400
        assert writer.statistics.batches < 200


async def test_seldom_sets_of_sections_share_a_statement(
    database: Database, conn: Connection, worker: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MOST_STATEMENTS", 1)
    [key] = await owned_cases(database, conn, worker, 1)
    writer = await Writer.open(database, worker)
    await writer.write(step(key))
    await writer.write(LogWrite(key, [JournalRow(1, 1, "s", 1)]))
    put = (Token(2, 1, "aside", {}, {}, AT), None)
    await writer.write(step(key, 2, from_version=2, tokens_put=[put]))
    await writer.write(step(key, 3, from_version=3, tokens_taken=[(2, 1)]))
    with pytest.raises(GuardLost):
        await writer.write(step(key, 4, from_version=3))
    await writer.close()
    assert await seqs(conn, [key]) == [4]
    assert await cases.recorded(conn, key, 1, 1) == {"s": 1}


async def test_too_much_for_one_statement_goes_in_several(
    database: Database, conn: Connection, worker: UUID, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "LARGEST_STATEMENT", 5_000)
    keys = await owned_cases(database, conn, worker, 8)
    writes = [step(key) for key in keys]
    for write in writes:
        moved = write.tokens_moved[0]
        write.tokens_moved = [replace(moved, token=replace(moved.token, data={"text": "x" * 3_000}))]
    await asyncio.gather(*(writer.write(write) for write in writes))
    assert await seqs(conn, keys) == [2] * 8
    assert writer.statistics.batches == 8


async def test_closing_commits_what_was_handed_over(database: Database, conn: Connection, worker: UUID) -> None:
    keys = await owned_cases(database, conn, worker, 30)
    writer = await Writer.open(database, worker)
    futures = [writer.write(step(key)) for key in keys]
    later = [writer.write(step(key, 2, from_version=2)) for key in keys]
    await asyncio.gather(writer.close(), writer.close())
    assert all(future.done() for future in futures + later)
    assert await seqs(conn, keys) == [3] * 30
    with pytest.raises(StorageError):
        await writer.write(step(keys[0], 3, from_version=3))


async def test_the_statement_reads_no_whole_table_however_small(
    database: Database, conn: Connection, witness: Connection
) -> None:
    await start_case(database)
    await witness.execute('ANALYZE circuit."case", circuit.token, circuit.firing, circuit.execution, circuit.worker')
    await conn.execute(PLANNER)
    names = tuple(section.name for section in SECTIONS)
    await conn.execute(f"PREPARE everything AS {compose(names)}")
    parameters = 1 + sum(len(section.columns) + section.guards for section in SECTIONS)
    plan = await conn.fetch(f"EXPLAIN EXECUTE everything({', '.join(['NULL'] * parameters)})")
    lines = [row[0] for row in plan]
    assert not [line for line in lines if "Seq Scan" in line or "Hash Join" in line or "Merge Join" in line]
    guarded = [section for section in SECTIONS if section.guards]
    looked_up = [line for line in lines if "Index Cond: ((tenant_id = i" in line]
    assert len(looked_up) >= len(guarded)
    assert not [line for line in lines if "case_owner" in line]


async def test_a_retired_worker_writes_no_more(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    assert await workers.retire(conn, worker) == 1
    with pytest.raises(Fenced):
        await writer.write(step(key))
