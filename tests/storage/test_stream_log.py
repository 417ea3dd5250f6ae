"""What readers of a case and of its executions find in the tables."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from circuit.events import Frame, StreamDelta, TransitionFired, encode_frame
from circuit.ids import CaseKey
from circuit.storage import history, listing, streams
from circuit.storage.database import Database, TenantConnection
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
from circuit.storage.streams import Standing, Wanted
from circuit.storage.writer import Writer
from tests.storage.cases_in_store import AT, owned_cases, step


def content(key: CaseKey, start: int, sequence: int) -> Frame:
    return encode_frame(f"{key}.1", start, sequence, StreamDelta.content(f"ä {start} {sequence} \0"), AT)


async def frames(tenant: TenantConnection, key: CaseKey, after: tuple[int, int] = (1, 0), **most: int) -> list[Frame]:
    limit = most.pop("limit", 500)
    [page] = await streams.pages(tenant, key.tenant, [Wanted(key.case, 1, *after, **most)], limit)
    return [one.frame for one in page]


async def test_frames_read_back_byte_for_byte_from_any_cursor(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    [key] = await owned_cases(database, conn, worker, 1)
    written = [content(key, start, sequence) for start in (1, 2, 10) for sequence in range(1, 4)]
    for frame in written:
        await writer.write(LogWrite(key, frames=[StreamRow(1, frame)]))
    await writer.write(LogWrite(key, frames=[StreamRow(2, content(key, 1, 1))]))
    async with database.transaction(key.tenant) as tenant:
        assert await frames(tenant, key) == written
        assert await frames(tenant, key, (1, 2), limit=3) == written[2:5]
        # A cursor beyond the stored end of its start goes on with the next one.
        assert await frames(tenant, key, (2, 99)) == written[6:]
        assert await frames(tenant, key, (10, 3)) == []
        two = len(written[0].body) + len(written[1].body)
        for most, count in ((1, 1), (two, 2), (two + 1, 3)):
            assert await frames(tenant, key, most_bytes=most) == written[:count]
        # Many at once, each behind its own cursor and in its own bytes.
        wanted = [
            Wanted(key.case, 1, 1, 2, 1),
            Wanted(key.case, 2, 1, 0),
            Wanted(key.case, 3, 1, 0),
            Wanted(key.case, 1, 2, 3),
        ]
        pages = [[one.frame for one in page] for page in await streams.pages(tenant, key.tenant, wanted)]
        assert pages == [written[2:3], [content(key, 1, 1)], [], written[6:]]
        assert await streams.stored(tenant, key.tenant, wanted) == [True, True, False, True]
        foreign = (
            await streams.pages(tenant, key.tenant + 1, wanted),
            await streams.stored(tenant, key.tenant + 1, wanted),
        )
        assert foreign == ([[]] * 4, [False] * 4)


async def test_an_execution_and_all_that_belongs_to_a_case(
    database: Database, conn: Connection, worker: UUID, writer: Writer
) -> None:
    key, bare = await owned_cases(database, conn, worker, 2)
    run = ExecutionRow(1, ExecutionStatus.RUNNING, {"agent_id": "a"}, AT)
    firing = FiringRow(1, "think", FiringState.RUNNING, 1, 1, {"inputs": {}}, begun_at=AT)
    trouble = IncidentRow(1, "think", 1, "x", "y", (), AT)
    await writer.write(step(key, executions_opened=[run], firings_opened=[firing], incidents_opened=[trouble]))
    async with database.transaction(key.tenant) as tenant:
        assert await streams.execution(tenant, key, 1) == run
        assert await streams.execution(tenant, key, 2) is None
        wanted = [Wanted(case, number, 1, 0) for case, number in ((key.case, 1), (bare.case, 1), (bare.case, 2))]
        assert await streams.standings(tenant, key.tenant, wanted) == [
            Standing(ExecutionStatus.RUNNING, 1),
            Standing(None, 0),
            None,
        ]
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
