"""Weeks of finished cases leave the database: whole, readable again, and without anybody waiting for it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import invariants
import pytest
from eventually import eventually
from parts import SystemIds
from running import CHAIN, REVIEW, engine, publish, start, until

from circuit.engine.archive import patience
from circuit.engine.archive.keeper import Keeper
from circuit.engine.archive.policy import Policy
from circuit.engine.archive.round import Archive
from circuit.engine.audit.inspection import inspect_at
from circuit.engine.commands import TokenInput
from circuit.engine.migrator import Wanted
from circuit.errors import ArchiveDamaged, Conflict, DatabaseUnreachable, NotFound, StreamRetired
from circuit.ids import CaseKey, Numbered, uuid7
from circuit.security.principal import LOCAL
from circuit.storage import archive as store
from circuit.storage import partitions
from circuit.storage.database import Database
from circuit.storage.tables import PARTITIONED
from circuit.streams.cursor import Cursor

NOW = datetime.now(UTC)
LONG_AGO = partitions.week_of(NOW - timedelta(weeks=10))
OLD = Policy(timedelta(weeks=6))
STAYS = REVIEW.replace("workflow: review", "workflow: stays").replace("to_place: reviewed", "to_place: reviewed")
MANUAL = """
workflow: waits
places: {open: {initial: true}, done: {terminal: true}}
transitions:
  finish: {from_places: open, to_place: done, trigger: {type: manual}}
"""
BAD = "workflow: bad\nplaces: {a: {initial: true}, b: {terminal: true, outcome: failed}}\n" + (
    "transitions: {go: {from_places: a, to_place: b}}\n"
)


class OldIds(SystemIds):
    """Ids of cases that were born ten weeks ago."""

    def __init__(self) -> None:
        super().__init__()
        self._born = LONG_AGO.lower.int >> 80
        self._number = 0

    def uuid(self) -> Any:
        self._number += 1
        return uuid7(self._born + self._number, self._number)


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Archive:
    return Archive(database, tmp_path / "archive")


async def make_partitions(database: Database) -> None:
    connection = await database.raw()
    await partitions.ensure(connection, NOW - timedelta(weeks=10))
    await connection.close()


async def age(plain: Any) -> None:
    """What has ended, has ended nine weeks ago (past the trigger that refuses it)."""
    await plain.execute("SET session_replication_role = replica")
    await plain.execute(
        "UPDATE circuit.\"case\" SET finished_at = now() - interval '9 weeks' WHERE finished_at IS NOT NULL"
    )
    await plain.execute(
        'UPDATE circuit.history SET at = c.finished_at FROM circuit."case" c'
        " WHERE c.case_id = history.case_id AND history.kind = 'case_ended'"
    )
    await plain.execute("RESET session_replication_role")


async def old_cases(database: Database, plain: Any, texts: list[str]) -> list[CaseKey]:
    """Cases that were born ten weeks ago; those that end by themselves ended nine weeks ago."""
    await make_partitions(database)
    async with engine(database) as running:
        running.commands._ids = OldIds()
        keys: list[CaseKey] = []
        for text in texts:
            workflow = await publish(running, text)
            keys.append(
                await running.commands.start_case(
                    workflow.id, TokenInput({"n": len(keys)}), principal=LOCAL, key=f"key-{len(keys)}"
                )
            )
        for key in keys:
            await until(running, key, "completed", "failed", "waiting")
    await age(plain)
    return keys


async def tables(plain: Any) -> set[str]:
    rows = await plain.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'circuit'::regnamespace")
    return {row["relname"] for row in rows}


async def test_a_week_is_written_out_and_its_partitions_are_dropped(
    database: Database, database_url: str, plain: Any, shelf: Archive, tmp_path: Path
) -> None:
    keys = await old_cases(database, plain, [CHAIN, CHAIN, CHAIN])
    fresh = None
    async with engine(database) as running:
        fresh = await start(running, "chain")
        await until(running, fresh, "completed")
    async with engine(database, worker=False) as asking:
        view = await asking.queries.case(keys[0])
    said = UUID(int=1)
    await plain.execute(
        "INSERT INTO circuit.conversation (tenant_id, conversation_id, agent_id, case_id) VALUES (1, $1, 'a', $2),"
        " (1, $3, 'a', $4)", said, keys[0].case, UUID(int=2), fresh.case
    )  # fmt: skip
    await plain.execute(
        "INSERT INTO circuit.message (tenant_id, conversation_id, seq, role, parts)"
        " SELECT tenant_id, conversation_id, 1, 'user', '[]' FROM circuit.conversation"
    )
    await plain.execute(
        "INSERT INTO circuit.budget (tenant_id, scope, subject, calls, updated_by)"
        " VALUES (1, 'case', $1, 5, 'me'), (1, 'workflow', 'chain', 5, 'me')", str(keys[0].case)
    )  # fmt: skip
    [plan] = await shelf.plan(OLD, NOW)
    assert plan.goes and plan.as_dict()["cases"] == 3
    [done] = await shelf.run(OLD, NOW)
    assert (done.cases, done.stayed) == (3, 0)
    assert not {f"{table}_{LONG_AGO.suffix}" for table in PARTITIONED} & await tables(plain)
    assert [row["case_id"] for row in await plain.fetch('SELECT case_id FROM circuit."case"')] == [fresh.case]
    assert await plain.fetchval("SELECT count(*) FROM circuit.case_key") == 0

    place = Path(done.place)
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["cases"] == 3 and manifest["rows"]["case"] == 3 and manifest["rows"]["case_key"] == 3
    assert manifest["rows"]["workflow_version"] == 1
    for table, stays in (("conversation", 1), ("message", 1), ("budget", 1)):
        assert manifest["rows"][table] == 1
        assert await plain.fetchval(f"SELECT count(*) FROM circuit.{table}") == stays
    assert await shelf.check() == [str(place)]
    shown = await shelf.show(keys[0])
    assert view is not None
    assert [row["seq"] for row in shown["rows"]["history"]] == [event.seq for event in view.history]
    assert shown["rows"]["case"][0]["status"] == "completed"
    assert shown["rows"]["token"][0]["data"] == {"n": 0}
    with pytest.raises(NotFound):
        await shelf.show(fresh)
    moved = tmp_path / "elsewhere"
    (tmp_path / "archive").rename(moved)
    assert (await Archive(database, moved).show(keys[2]))["archive"].startswith(str(moved))
    assert await shelf.run(OLD, NOW) == [], "there is nothing more to do"
    await invariants.check(database_url)
    assert (await inspect_at(database_url)).clean


async def test_cases_that_stay_are_carried_over_and_go_on(
    database: Database, database_url: str, plain: Any, shelf: Archive
) -> None:
    """One of the old cases still waits for a person, and one failed and is kept: only their week goes."""
    ended, waits, failed = await old_cases(database, plain, [CHAIN, MANUAL, BAD])
    keep = Policy(timedelta(weeks=6), keep_failed=True)
    [plan] = await shelf.plan(keep, NOW)
    assert {key for key, _ in plan.standing.staying} == {waits, failed} and plan.goes
    [done] = await shelf.run(keep, NOW)
    assert (done.cases, done.stayed) == (1, 2)
    assert f"history_{LONG_AGO.suffix}" not in await tables(plain)
    assert (await shelf.show(ended))["rows"]["case"][0]["case_id"] == str(ended.case)
    await invariants.check(database_url)
    report = await inspect_at(database_url)
    assert report.clean and report.cases == 2, report.as_dict()
    async with engine(database) as running:
        await running.commands.fire(waits, "finish", principal=LOCAL)
        view = await until(running, waits, "completed")
        assert [event.seq for event in view.history] == list(range(1, len(view.history) + 1))
    await age(plain)
    [second] = await shelf.run(OLD, NOW)
    assert (second.cases, second.stayed, Path(second.place).name) == (2, 0, f"{LONG_AGO.suffix}-2")
    assert await plain.fetchval("SELECT count(*) FROM circuit.history_default") == 0
    assert (await shelf.show(failed))["rows"]["case"][0]["status"] == "failed"
    assert (await inspect_at(database_url)).clean


async def test_a_week_waits_and_says_for_what(
    database: Database, plain: Any, shelf: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, waits = await old_cases(database, plain, ["outbox: [case_ended]\n" + CHAIN.lstrip(), MANUAL])
    [plan] = await shelf.plan(OLD, NOW)
    assert not plan.goes and "outbox" in plan.obstacles[0]
    told: list[str] = []
    assert await shelf.run(OLD, NOW, told.append) == []
    assert any("outbox" in text for text in told)
    await plain.execute("DELETE FROM circuit.outbox")
    monkeypatch.setattr("circuit.engine.archive.policy.MOST_STAYING", 0)
    [plan] = await shelf.plan(OLD, NOW)
    assert not plan.goes and str(waits.case) in plan.obstacles[0]
    assert await shelf.plan(Policy(timedelta(weeks=20)), NOW) == [], "nothing is old enough"


async def test_a_worker_goes_on_while_a_week_with_its_case_is_dropped(
    database: Database, database_url: str, plain: Any, shelf: Archive
) -> None:
    """A case of the old week is at work, and new ones come and go: each write finds its rows at every moment."""
    loop = (
        CHAIN.replace("chain", "loop")
        .replace("places: [a, b, c]", "places: [a, b, c]")
        .replace(
            "second: {from_places: b, to_place: c}", "second: {from_places: b, to_place: a, trigger: {type: manual}}"
        )
    )
    await old_cases(database, plain, [CHAIN, CHAIN])
    stopped = asyncio.Event()
    fired = 0
    async with engine(database) as running:
        running.commands._ids = OldIds()
        running.commands._ids._number = 100
        workflow = await publish(running, loop)
        key = await running.commands.start_case(workflow.id, TokenInput({}), principal=LOCAL)
        await until(running, key, "waiting")
        running.commands._ids = SystemIds()

        async def work() -> None:
            nonlocal fired
            while not stopped.is_set():
                outcome = await running.commands.fire(key, "second", principal=LOCAL)
                assert outcome.state.value == "applied", outcome
                fired += 1
                await until(running, await start(running, "chain"), "completed")

        working = asyncio.create_task(work())
        await eventually(lambda: fired >= 2)
        [done] = await shelf.run(OLD, NOW)
        assert (done.cases, done.stayed) == (2, 1)
        before = fired
        await eventually(lambda: fired >= before + 2 or working.done())
        stopped.set()
        await working
    assert await plain.fetchval("SELECT max(crashes) FROM circuit.firing") in (0, None)
    await invariants.check(database_url)
    report = await inspect_at(database_url)
    assert report.clean, report.as_dict()


async def test_whoever_comes_after_a_crash_goes_on_with_the_week(
    database: Database, database_url: str, plain: Any, shelf: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await old_cases(database, plain, [CHAIN, CHAIN])

    async def crash(*args: Any) -> Any:
        raise ConnectionResetError("gone")

    for step in ("rows_of", "delete_cases", "retire"):
        with monkeypatch.context() as patched:
            patched.setattr(store, step, crash)
            with pytest.raises(DatabaseUnreachable):
                await shelf.run(OLD, NOW)
        assert (await inspect_at(database_url)).found == 0, "a week that is on its way out is no fault"
        if step == "rows_of":
            with pytest.raises(Conflict, match="being archived"):
                async with (
                    engine(database, worker=False) as asking,
                    asking._notifier._database.transaction(1) as tenant,
                ):
                    from circuit.storage import feedback

                    await feedback.insert(tenant, keys[0], 1, SystemIds().uuid(), score=1.0, comment="", subject="late")
    [done] = await shelf.run(OLD, NOW)
    assert done.cases == 2
    assert (await shelf.show(keys[1]))["rows"]["case"][0]["case_id"] == str(keys[1].case)
    assert (await inspect_at(database_url)).clean


async def test_one_archives_at_a_time(database: Database, plain: Any, shelf: Archive) -> None:
    connection = await database.raw()
    assert await store.lock(connection)
    with pytest.raises(Conflict, match="another process"):
        await shelf.run(OLD, NOW)
    await connection.close()


async def test_a_table_that_others_hold_is_waited_for_with_short_locks(
    database: Database, plain: Any, shelf: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old_cases(database, plain, [CHAIN])
    holder = await database.raw()
    retired = asyncio.Event()
    retire = store.retire
    tries: list[int | None] = []

    async def watched(*args: Any) -> int | None:
        tries.append(await retire(*args))
        if tries[-1] is None and tries.count(None) == 2:
            retired.set()
        return tries[-1]

    monkeypatch.setattr(store, "retire", watched)
    transaction = holder.transaction()
    await transaction.start()  # type: ignore[attr-defined]
    await holder.execute("SELECT count(*) FROM circuit.history")
    running = asyncio.create_task(shelf.run(OLD, NOW))
    await asyncio.wait_for(retired.wait(), 60)
    async with asyncio.timeout(60):
        # Between two tries nobody stands in the way of writers.
        await plain.execute("UPDATE circuit.history SET kind = kind WHERE false")
    await transaction.rollback()  # type: ignore[attr-defined]
    assert len(await running) == 1
    await holder.close()


async def test_old_streams_go_before_their_cases(
    database: Database, database_url: str, plain: Any, shelf: Archive
) -> None:
    from circuit.engine.action import ActionCall, ActionContext, ActionOutput

    class Saying:
        async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
            return ActionOutput({"answer": "yes"}, "yes", {"answer": "yes"}, {}, "any")

    await make_partitions(database)
    async with engine(database, {"agent": Saying()}) as running:
        await publish(running, REVIEW)
        running.commands._ids = OldIds()
        key = await start(running, "review")
        await until(running, key, "completed")
        frames = [frame async for frame in running.streams.subscribe(Numbered(key.case, 1), key.tenant)]
    await age(plain)
    assert await plain.fetchval("SELECT count(*) FROM circuit.stream_event") == len(frames) > 0
    assert await shelf.run(Policy(streams_older_than=timedelta(weeks=6)), NOW) == []
    assert await plain.fetchval("SELECT count(*) FROM circuit.stream_event") == 0
    assert f"stream_event_{LONG_AGO.suffix}" not in await tables(plain)
    assert f"history_{LONG_AGO.suffix}" in await tables(plain)
    async with engine(database, {}) as running:
        # Whatever its cursor: that a reader has the end already is known of stored frames only.
        for after in (None, Cursor(frames[0].start, frames[0].sequence), Cursor(frames[-1].start, frames[-1].sequence)):
            with pytest.raises(StreamRetired):
                await anext(aiter(running.streams.subscribe(Numbered(key.case, 1), key.tenant, after)))
    report = await inspect_at(database_url)
    assert report.clean and report.cases == 1, report.as_dict()
    [done] = await shelf.run(OLD, NOW)
    assert done.cases == 1


async def test_damage_is_found(database: Database, plain: Any, shelf: Archive) -> None:
    keys = await old_cases(database, plain, [CHAIN])
    [done] = await shelf.run(OLD, NOW)
    part = Path(done.place) / "part-0001.jsonl.gz"
    whole = part.read_bytes()
    part.write_bytes(gzip.compress(gzip.decompress(whole)[:-20]))
    with pytest.raises(ArchiveDamaged, match="hash"):
        await shelf.check()
    part.write_bytes(whole[:-10])
    with pytest.raises(ArchiveDamaged):
        await shelf.show(keys[0])
    part.unlink()
    with pytest.raises(ArchiveDamaged):
        await shelf.check()


async def test_a_keeper_makes_the_coming_weeks_and_applies_the_policy(
    database: Database, plain: Any, shelf: Archive
) -> None:
    await old_cases(database, plain, [CHAIN])
    later = NOW + timedelta(weeks=3)
    keeper = Keeper(database, lambda: later, OLD, shelf)
    await keeper.start()
    await asyncio.wait_for(keeper.started.wait(), 60)
    await keeper.stop()
    assert f"token_{partitions.week_of(later + timedelta(weeks=4)).suffix}" in await tables(plain)
    assert [row.state for row in await shelf.weeks()] == ["dropped"]
    assert patience.LOOK_SECONDS < 1


async def test_the_version_that_a_migrated_case_began_on_is_kept_too(
    database: Database, plain: Any, shelf: Archive
) -> None:
    [key] = await old_cases(database, plain, [MANUAL])
    async with engine(database) as running:
        view = await running.queries.case(key)
        changed = await publish(
            running, MANUAL + "  again: {from_places: open, to_place: done, trigger: {type: manual}}\n"
        )
        assert (await running.migrator.migrate(Wanted(changed.id), principal=LOCAL)).moved == 1
        await until(running, key, "waiting")
        await running.commands.fire(key, "again", principal=LOCAL)
        await until(running, key, "completed")
    await age(plain)
    [done] = await shelf.run(OLD, NOW)
    lines = gzip.decompress((Path(done.place) / "versions.jsonl.gz").read_bytes()).splitlines()
    assert view is not None
    assert {json.loads(line)["row"]["hash"] for line in lines} == {view.workflow_hash, changed.hash}
