"""What readers of a case and of its executions find in the tables."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from circuit.events import Frame, StreamDelta, TransitionFired, encode_frame
from circuit.ids import CaseKey
from circuit.storage import history, listing, streams
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import (
    CaseStatus,
    ExecutionRow,
    ExecutionStatus,
    FiringRow,
    FiringState,
    IncidentRow,
    LogWrite,
    StreamRow,
)
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import AT, owned_cases, step


def content(key: CaseKey, start: int, sequence: int) -> Frame:
    return encode_frame(f"{key}.1", start, sequence, StreamDelta.content(f"ä {start} {sequence} \0"), AT)


async def test_frames_read_back_byte_for_byte_from_any_cursor(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    written = [content(key, start, sequence) for start in (1, 2, 10) for sequence in range(1, 4)]
    for frame in written:
        await writer.write(LogWrite(key, frames=[StreamRow(1, frame)]))
    await writer.write(LogWrite(key, frames=[StreamRow(2, content(key, 1, 1))]))
    async with database.transaction(key.tenant) as tenant:
        assert [one.frame for one in await streams.read_frames(tenant, key, 1)] == written
        assert [one.frame for one in await streams.read_frames(tenant, key, 1, (1, 2), limit=3)] == written[2:5]
        # A cursor beyond the stored end of its start goes on with the next one.
        assert [one.frame for one in await streams.read_frames(tenant, key, 1, (2, 99))] == written[6:]
        assert await streams.read_frames(tenant, key, 1, (10, 3)) == []
        two = len(written[0].body) + len(written[1].body)
        for most, count in ((1, 1), (two, 2), (two + 1, 3)):
            assert [one.frame for one in await streams.read_frames(tenant, key, 1, limit_bytes=most)] == written[:count]


async def test_an_execution_and_all_that_belongs_to_a_case(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    run = ExecutionRow(1, ExecutionStatus.RUNNING, {"agent_id": "a"}, AT)
    firing = FiringRow(1, "think", FiringState.RUNNING, 1, 1, {"inputs": {}}, begun_at=AT)
    trouble = IncidentRow(1, "think", 1, "x", "y", (), AT)
    await writer.write(step(key, executions_opened=[run], firings_opened=[firing], incidents_opened=[trouble]))
    async with database.transaction(key.tenant) as tenant:
        assert await streams.execution(tenant, key, 1) == run
        assert await streams.execution(tenant, key, 2) is None
        assert await listing.executions(tenant, key) == [run]
        assert await listing.firings(tenant, key) == [firing]
        assert await listing.incidents(tenant, key) == [trouble]
    ended = replace(run, status=ExecutionStatus.COMPLETED, finished_at=AT, usage={"input_tokens": 1})
    await writer.write(step(key, 2, from_version=2, executions_changed=[ended]))
    async with database.transaction(key.tenant) as tenant:
        assert await streams.execution(tenant, key, 1) == ended


async def test_history_is_read_in_pages(database: Database, conn: Connection, worker: UUID, writer: Writer) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    for seq in range(1, 6):
        await writer.write(step(key, seq, from_version=seq))
    async with database.transaction(key.tenant) as tenant:
        assert [row.seq for row in await history.read_events(tenant, key)] == [1, 2, 3, 4, 5, 6]
        page = await history.read_events(tenant, key, after=2, limit=3)
        assert [row.seq for row in page] == [3, 4, 5]
        assert all(isinstance(row.event, TransitionFired) and row.at == AT for row in page)
        assert await history.fired(tenant, key) == {"go": 5}
        found = await history.follow(tenant, key, 0, 1)
        assert found is not None and found[0] is CaseStatus.RUNNING
