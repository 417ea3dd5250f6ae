"""Workers: what they claim, what they survive, what they hand back, and that a case has one owner."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import invariants
import pytest
from eventually import eventually
from parts import Doing, SystemClock, at_once, for_ever
from postgres import Server
from running import CHAIN, LIMITS, MANUAL, REVIEW, engine, publish, start, until

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.engine import Engine
from circuit.engine.lease import Loss
from circuit.engine.slots import Slots
from circuit.engine.worker import Tenure
from circuit.errors import RateLimited
from circuit.events import StreamDelta
from circuit.ids import Numbered
from circuit.security.principal import LOCAL
from circuit.storage import workers
from circuit.storage.database import Database


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def tenure(running: Engine) -> Tenure:
    assert running.worker is not None and running.worker.tenure is not None
    return running.worker.tenure


async def another_tenure(running: Engine, before: Tenure) -> Tenure:
    """The worker's next incarnation."""
    assert running.worker is not None
    worker = running.worker
    await eventually(lambda: worker.tenure is not None and worker.tenure is not before, what="a new incarnation")
    return tenure(running)


async def crashes(plain: Any) -> list[int]:
    return [row["crashes"] for row in await plain.fetch("SELECT crashes FROM circuit.firing ORDER BY case_id, number")]


async def test_many_cases_run_to_their_end_and_leave_no_trace_in_memory(database: Database, database_url: str) -> None:
    action = Doing(at_once)
    async with engine(database, {"agent": action}) as running:
        await publish(running, REVIEW)
        keys = await asyncio.gather(*(start(running, "review", {"n": n}) for n in range(120)))
        for key in keys:
            await until(running, key, "completed")
        held = tenure(running)
        await eventually(lambda: len(held.desk) == 0 and held.desk.slots.running == 0)
        assert len(action.calls) == len(keys)
    await invariants.check(database_url)


async def test_no_more_executions_run_at_once_than_allowed(database: Database) -> None:
    most = 0
    now = 0
    go = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await go.wait()
        now -= 1
        return ActionOutput({"answer": "yes"})

    action = Doing(perform)
    async with engine(database, {"agent": action}, limits=replace(LIMITS, executions=3)) as running:
        await publish(running, REVIEW)
        keys = [await start(running, "review") for _ in range(10)]
        await eventually(lambda: now == 3)
        free = await running.queries.cases(1)
        assert len(free) == 10
        go.set()
        for key in keys:
            await until(running, key, "completed")
        assert most == 3


async def test_a_worker_without_a_free_slot_claims_nothing(database: Database, plain: Any) -> None:
    action = Doing(for_ever)
    async with engine(database, {"agent": action}, limits=replace(LIMITS, executions=2)) as running:
        await publish(running, REVIEW)
        for _ in range(2):
            await start(running, "review")
        await eventually(lambda: len(action.calls) == 2)
        late = await start(running, "review")
        async with engine(database, {"agent": Doing(at_once)}) as other:
            await until(other, late, "completed")


async def test_a_stopped_worker_hands_its_cases_back_and_counts_no_crash(
    database: Database, database_url: str, plain: Any
) -> None:
    action = Doing(for_ever)
    async with engine(database, {"agent": action}, limits=replace(LIMITS, stop_seconds=0.05)) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await eventually(lambda: action.calls)
    assert await plain.fetchval('SELECT count(*) FROM circuit."case" WHERE owner IS NOT NULL') == 0
    assert await plain.fetchval("SELECT count(*) FROM circuit.worker WHERE NOT fenced") == 0
    assert await crashes(plain) == [0]
    async with engine(database, {"agent": Doing(at_once)}) as other:
        case = await until(other, key, "completed")
        assert [event.kind for event in case.history] == [
            "case_started",
            "firing_begun",
            "firing_resumed",
            "transition_fired",
            "case_ended",
        ]
    await invariants.check(database_url)


async def test_what_ends_while_the_worker_drains_is_committed(database: Database) -> None:
    stopping = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await stopping.wait()
        return ActionOutput({"answer": "just in time"})

    action = Doing(perform)
    async with engine(database, {"agent": action}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await eventually(lambda: action.calls)
        assert running.worker is not None
        stop = asyncio.create_task(running.worker.stop())
        await eventually(lambda: tenure(running).claims.stopping)
        stopping.set()
        await stop
        case = await until(running, key, "completed")
        assert case.tokens[0].data["answer"] == "just in time"


async def test_a_worker_whose_lease_is_taken_drops_everything_and_begins_anew(
    database: Database, database_url: str, plain: Any
) -> None:
    first_calls = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        if call.start == 1:
            first_calls.set()
            return await for_ever(call, context)
        return ActionOutput({"answer": f"start {call.start}"})

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await first_calls.wait()
        before = tenure(running)
        connection = await database.raw()
        assert await workers.take_over(connection, before.incarnation.id) == 1
        await connection.close()
        after = await another_tenure(running, before)
        assert before.lease.loss is Loss.FENCED
        assert after.incarnation.id != before.incarnation.id
        case = await until(running, key, "completed")
        assert case.tokens[0].data["answer"] == "start 2"
        assert before.desk.slots.running == 0
    assert await crashes(plain) == [1]
    await invariants.check(database_url)


async def test_a_fence_is_noticed_at_the_next_write(database: Database) -> None:
    go = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        if call.start == 1:
            await go.wait()
        return ActionOutput({"answer": f"start {call.start}"})

    action = Doing(perform)
    async with engine(database, {"agent": action}, limits=replace(LIMITS, lease_seconds=30)) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await eventually(lambda: action.calls)
        before = tenure(running)
        connection = await database.raw()
        await workers.take_over(connection, before.incarnation.id)
        await connection.close()
        go.set()  # the late result of the first start is refused by the database
        case = await until(running, key, "completed")
        assert case.tokens[0].data["answer"] == "start 2"
        assert [event.kind for event in case.history].count("transition_fired") == 1


async def test_of_two_workers_each_case_has_one_owner_and_runs_once(database: Database, database_url: str) -> None:
    ran: Counter[str] = Counter()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        ran[call.execution_id] += 1
        return ActionOutput({"answer": "yes"})

    actions = {"agent": Doing(perform)}
    second = await Database.open(database_url)
    async with engine(database, actions) as one, engine(second, actions) as two:
        await publish(one, REVIEW)
        keys = await asyncio.gather(*(start((one, two)[n % 2], "review") for n in range(60)))
        for key in keys:
            await until(one, key, "completed")
    assert len(ran) == 60 and set(ran.values()) == {1}
    await second.close()
    await invariants.check(database_url)


async def test_a_worker_for_one_case_leaves_the_others_alone(database: Database) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, CHAIN)
        mine, other = await start(asking, "chain"), await start(asking, "chain")
        async with engine(database, only=[mine]):
            await until(asking, mine, "completed")
            case = await asking.queries.case(other)
            assert case is not None and case.status == "running" and len(case.history) == 1


async def test_a_failed_attempt_is_retried_and_the_stream_says_so(database: Database, database_url: str) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await context.emit(StreamDelta.content(f"try {call.attempt}"))
        if call.attempt < 3:
            raise RateLimited("slow down")
        return ActionOutput({"answer": "yes"}, text="yes")

    retried = REVIEW.replace(
        "output_mapping: {data.answer: answer}",
        "output_mapping: {data.answer: answer}, retry_config: {max_attempts: 3, backoff_seconds: 0.01}",
    )

    class Ahead(SystemClock):
        """That of a machine whose clock is wrong."""

        def now(self) -> datetime:
            return super().now() + timedelta(hours=1)

    async with engine(database, {"agent": Doing(perform)}, clock=Ahead()) as running:
        await publish(running, retried)
        key = await start(running, "review")
        case = await until(running, key, "completed")
        assert [event.kind for event in case.history].count("firing_retried") == 2
        frames = [frame async for frame in running.streams.subscribe(Numbered(key.case, 1), key.tenant)]
        assert [(frame.start, frame.sequence, frame.type.value) for frame in frames] == [
            (1, 1, "content_chunk"),
            (2, 1, "restarted"),
            (2, 2, "content_chunk"),
            (3, 1, "restarted"),
            (3, 2, "content_chunk"),
            (3, 3, "completed"),
        ]
        times = [frame.at for frame in frames]
        assert times == sorted(times) and times[-1] == case.finished_at, "streams and events have one time"
    await invariants.check(database_url)


async def test_a_write_that_is_refused_has_the_case_read_anew(
    database: Database, database_url: str, plain: Any
) -> None:
    started = asyncio.Event()
    go = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        started.set()
        if call.start == 1:
            await go.wait()
        return ActionOutput({"answer": f"start {call.start}"})

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await started.wait()
        # Somebody broke the rules and wrote an event of a case that is not his.
        await plain.execute(
            "INSERT INTO circuit.history (tenant_id, case_id, seq, kind, at, body) VALUES ($1, $2, 3,"
            ' \'incident_resolved\', now(), \'{"incident": 9, "transition": "review", "reason": ""}\')',
            key.tenant,
            key.case,
        )
        await plain.execute('UPDATE circuit."case" SET seq = 3 WHERE case_id = $1', key.case)
        go.set()
        case = await until(running, key, "completed")
        assert case.tokens[0].data["answer"] == "start 2"
    await invariants.check(database_url)


async def test_an_action_that_does_not_heed_its_end_writes_nothing_under_the_next_incarnation(
    database: Database, database_url: str, plain: Any
) -> None:
    heedless = asyncio.Event()
    go = asyncio.Event()
    spoke: list[BaseException] = []

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        if call.start > 1:
            return ActionOutput({"answer": "yes"})
        heedless.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await go.wait()
            for late in (context.emit(StreamDelta.content("late")), context.record("answer:0", "late")):
                try:
                    await late
                except Exception as error:
                    spoke.append(error)
        return ActionOutput({"answer": "late"})

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await heedless.wait()
        before = tenure(running)
        connection = await database.raw()
        await workers.take_over(connection, before.incarnation.id)
        await connection.close()
        await another_tenure(running, before)
        go.set()
        case = await until(running, key, "completed")
        await eventually(lambda: len(spoke) == 2)
        assert case.tokens[0].data["answer"] == "yes"
    assert [getattr(error, "code", "") for error in spoke] == ["cancelled", "cancelled"]
    assert await plain.fetchval("SELECT count(*) FROM circuit.journal") == 0
    assert await plain.fetchval("SELECT count(*) FROM circuit.stream_event WHERE start = 1") == 0
    await invariants.check(database_url)


async def test_a_worker_that_is_cut_off_while_it_ends_leaves_no_thread_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = asyncio.Event()

    async def hangs(self: Slots, seconds: float) -> None:
        ending.set()
        await asyncio.Event().wait()

    async with engine(database, {}) as running:
        before = tenure(running)
        await before.claims.started.wait()
        assert running.worker is not None and running.worker._task is not None
        monkeypatch.setattr(Slots, "drain", hangs)
        stop = asyncio.create_task(running.worker.stop())
        await ending.wait()
        running.worker._task.cancel()
        await asyncio.wait_for(stop, 60)
        assert before.lease._thread is not None and not before.lease._thread.is_alive()
        assert before.claims._task is not None and before.claims._task.done()


async def test_a_database_that_restarts_is_found_again(
    database: Database, database_url: str, postgres_server: Server
) -> None:
    go = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await context.record("answer:0", call.start)
        await go.wait()
        return ActionOutput({"answer": call.recorded.get("answer:0", call.start)})

    action = Doing(perform)
    async with engine(database, {"agent": action}, limits=replace(LIMITS, lease_seconds=20)) as running:
        await publish(running, REVIEW)
        before = await start(running, "review")
        await eventually(lambda: action.calls)
        await asyncio.to_thread(postgres_server.restart, "immediate")
        go.set()
        case = await until(running, before, "completed")
        assert case.tokens[0].data["answer"] == 1
        after = await start(running, "review")
        await until(running, after, "completed")
    await invariants.check(database_url)


async def test_a_lease_that_expired_while_the_database_was_away_is_replaced_and_counts_no_crash(
    database: Database, database_url: str, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        if call.start == 1:
            calls.set()
            return await for_ever(call, context)
        return ActionOutput({"answer": "yes"})

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await calls.wait()
        before = tenure(running)
        renew = workers.renew

        async def away(*args: Any) -> Any:
            raise ConnectionResetError("the database is away")

        monkeypatch.setattr(workers, "renew", away)
        await asyncio.wait_for(before.lease.lost.wait(), 60)
        monkeypatch.setattr(workers, "renew", renew)
        assert before.lease.loss is Loss.EXPIRED
        await until(running, key, "completed")
    assert await crashes(plain) == [0]
    await invariants.check(database_url)


async def test_many_commands_at_once_are_each_applied_or_refused_once(database: Database, database_url: str) -> None:
    forever = MANUAL.replace("to_place: done", "to_place: draft")
    async with engine(database) as running:
        await publish(running, forever)
        key = await start(running, "manual")
        await until(running, key, "waiting")
        outcomes = await asyncio.gather(
            *(running.commands.fire(key, "publish", {"title": str(n)}, principal=LOCAL) for n in range(40))
        )
        assert {outcome.state.value for outcome in outcomes} == {"applied"}
        case = await running.queries.case(key)
        assert case is not None
        assert [event.kind for event in case.history].count("transition_fired") == 40
        assert case.tokens[0].version == 41
    await invariants.check(database_url)
