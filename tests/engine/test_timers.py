"""Timers: what time does to a case, what a deadline interrupts, and that waiting costs nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import invariants
from eventually import eventually
from parts import Doing, for_ever
from running import engine, publish, start, until

from circuit.engine.action import Suspended
from circuit.net.structure import Net, Trigger
from circuit.net.timing import Timer
from circuit.storage.database import Database
from circuit.storage.records import CaseStatus, FiringState
from tests.engine.test_owner import NOW, Stage, acting, place, transition

TIMED = """
workflow: timed
places: [asked, answered, given_up]
transitions:
  answer: {from_places: asked, to_place: answered, trigger: {type: manual}}
  give_up: {from_places: asked, to_place: given_up, trigger: {type: timer, after: 0.3}}
"""
DEADLINE = """
workflow: deadline
places: {asked: {initial: true}, answered: {terminal: true}, late: {terminal: true}}
agents: {slow: {llm_provider: {type: scripted}}}
transitions:
  answer: {from_places: asked, to_place: answered, agent_execution: slow}
  late: {from_places: asked, to_place: late, trigger: {type: timer, after: 1, interrupt: true}}
"""


def later(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def timed(after: float, **options: Any) -> dict[str, Any]:
    return {"trigger": Trigger.TIMER, "timing": Timer(after, **options)}


def test_a_case_waits_for_its_timer_and_goes_on_when_it_is_due() -> None:
    net = Net.build("w", [place("a"), place("b", terminal=True)], [transition("t", "a", "b", **timed(60))])
    stage = Stage(net, [("a", {})])
    step = stage.wake()
    assert stage.case.row.status is CaseStatus.WAITING
    assert step.write is not None and step.write.release and step.write.due_at == later(60)
    stage.now = later(60)
    stage.read()
    step = stage.wake()
    assert stage.case.row.status is CaseStatus.COMPLETED
    assert step.write is not None and step.write.not_before == later(60), "the database's clock has the last word"


def test_of_several_times_the_first_counts_and_each_token_has_its_own() -> None:
    net = Net.build(
        "w",
        [place("a"), place("b"), place("c", terminal=True)],
        [transition("slow", "a", "c", **timed(90)), transition("late", "b", "c", **timed(30))],
    )
    stage = Stage(net, [("a", {}), ("a", {}), ("b", {})])
    assert stage.wake().write.due_at == later(30)  # type: ignore[union-attr]
    stage.now = later(30)
    stage.read()
    assert stage.wake().write.due_at == later(90)  # type: ignore[union-attr]
    assert stage.marking == {"a": 2, "c": 1}
    stage.now = later(90)
    stage.read()
    stage.wake()
    assert stage.marking == {"c": 3}


def test_a_token_that_is_not_available_yet_is_waited_for() -> None:
    net = Net.build("w", [place("a"), place("b", terminal=True)], [transition("t", "a", "b")])
    stage = Stage(net, [("a", {})])
    token, holder = stage.case.tokens[1]
    stage.case.tokens[1] = (replace(token, available_at=later(5)), holder)
    stage.read()
    step = stage.wake()
    assert step.write is not None and step.write.due_at == later(5)
    assert stage.case.row.status is CaseStatus.WAITING
    stage.now = later(5)
    stage.read()
    stage.wake()
    assert stage.case.row.status is CaseStatus.COMPLETED


def deadline_net(**options: Any) -> Net:
    return Net.build(
        "w",
        [place("a"), place("b", terminal=True), place("c", terminal=True)],
        [transition("act", "a", "b", acting=True), transition("late", "a", "c", **timed(60, **options))],
    )


def test_a_deadline_without_interrupt_leaves_what_a_firing_holds() -> None:
    stage = Stage(deadline_net(), [("a", {})], act=acting())
    start = stage.wake().starts[0]
    stage.now = later(61)
    assert not stage.commit(stage.owner.wake(stage.now)).cancels
    stage.finish(start)
    assert stage.marking == {"b": 1}


def test_a_deadline_that_interrupts_cancels_the_firing_and_no_late_result_counts() -> None:
    stage = Stage(deadline_net(interrupt=True), [("a", {})], act=acting())
    start = stage.wake().starts[0]
    assert stage.owner.due_at(NOW) == later(60)
    stage.now = later(60)
    step = stage.commit(stage.owner.wake(stage.now))
    assert step.cancels == (1,)
    assert stage.marking == {"c": 1}
    assert stage.case.firings[1].state is FiringState.CANCELLED
    assert stage.kinds[-3:] == ["firing_cancelled", "transition_fired", "case_ended"]
    assert stage.finish(start).write is None


def test_a_deadline_ends_a_wait_for_a_person() -> None:
    stage = Stage(deadline_net(interrupt=True), [("a", {})], act=acting())
    call = stage.wake().starts[0].call
    step = stage.commit(stage.owner.suspended(1, call.start, Suspended("person"), {}, 0, NOW))
    assert step.write is not None and step.write.due_at == later(60)
    stage.now = later(60)
    stage.read()
    stage.wake()
    assert stage.marking == {"c": 1}


async def test_timers_fire_from_the_database(database: Database, database_url: str) -> None:
    async with engine(database) as running:
        await publish(running, TIMED)
        keys = await asyncio.gather(*(start(running, "timed") for _ in range(20)))
        why = await running.queries.why(keys[0])
        assert why is not None
        for key in keys:
            assert (await until(running, key, "completed")).marking == {"given_up": 1}
    await invariants.check(database_url)


def test_a_deadline_that_passes_before_its_firing_is_stored_is_still_to_come() -> None:
    net = Net.build(
        "w",
        [place("a"), place("b", terminal=True), place("late", terminal=True)],
        [transition("work", "a", "b", acting=True), transition("late", "a", "late", **timed(1, interrupt=True))],
    )
    stage = Stage(net, [("a", {})], work=acting())
    stage.wake()
    assert stage.case.firings[1].state is FiringState.RUNNING
    assert stage.owner.due_at(later(0)) == later(1)
    # The commit took longer than the deadline.
    stage.now = later(5)
    assert stage.owner.due_at(stage.now) == later(1)
    stage.wake()
    assert (stage.case.row.status, stage.marking) == (CaseStatus.COMPLETED, {"late": 1})


def test_a_deadline_that_has_no_room_is_not_waited_for() -> None:
    net = Net.build(
        "w",
        [place("a"), place("b", terminal=True), place("late", capacity=1)],
        [transition("work", "a", "b", acting=True), transition("late", "a", "late", **timed(1, interrupt=True))],
    )
    stage = Stage(net, [("a", {}), ("late", {})], work=acting())
    stage.wake()
    stage.now = later(5)
    stage.wake()
    assert stage.case.firings[1].state is FiringState.RUNNING and stage.owner.due_at(stage.now) is None


async def test_a_deadline_fires_while_the_agent_runs(database: Database, database_url: str) -> None:
    action = Doing(for_ever)
    async with engine(database, {"agent": action}) as running:
        await publish(running, DEADLINE)
        key = await start(running, "deadline")
        view = await until(running, key, "completed")
        assert view.marking == {"late": 1}
        assert [execution.status for execution in view.executions] == ["cancelled"]
        assert len(action.calls) == 1
    await invariants.check(database_url)


async def test_why_says_when_a_timer_is_due(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, TIMED.replace("after: 0.3", "after: 1h"))
        key = await start(running, "timed")
        view = await until(running, key, "waiting")
        why = await running.queries.why(key)
        assert why is not None
        (obstacle,) = next(one for one in why.transitions if one.transition == "give_up").obstacles
        assert obstacle.kind == "timer" and obstacle.message.startswith("is due at ")
        assert view.due_at is not None
        assert timedelta(minutes=59) < view.due_at - view.started_at <= timedelta(minutes=61)


MANY = 100_000


async def test_cases_that_wait_cost_a_worker_no_reading(database: Database, database_url: str) -> None:
    """However many cases wait, a look for work reads as many rows as there are due."""
    async with engine(database, worker=False) as running:
        await publish(running, TIMED)
        key = await start(running, "timed")
    plain = await asyncpg.connect(database_url)
    try:
        await plain.execute(
            """
            WITH made AS (
                INSERT INTO circuit."case" (tenant_id, case_id, workflow_id, workflow_hash, status, seq, next_token,
                    next_firing, next_incident, started_at)
                SELECT tenant_id, gen_random_uuid(), workflow_id, workflow_hash, 'waiting', 1, 2, 1, 1, now()
                FROM circuit."case", generate_series(1, $1) WHERE case_id = $2
                RETURNING tenant_id, case_id
            )
            INSERT INTO circuit.ready (tenant_id, case_id, due_at)
            SELECT tenant_id, case_id, now() + interval '1 day' FROM made
            """,
            MANY,
            key.case,
        )
        await plain.execute("ANALYZE circuit.ready")
        await plain.execute('ANALYZE circuit."case"')
        before = await _rows_read(plain)

        async def ended() -> bool:
            # Looked for where no row counts.
            kind = "SELECT count(*) FROM circuit.history WHERE case_id = $1 AND kind = 'case_ended'"
            return await plain.fetchval(kind, key.case) == 1

        async with engine(database) as running:
            await eventually(ended, what="the end of the one case that is due")
            assert running.worker is not None and running.worker.tenure is not None
            assert len(running.worker.tenure.desk) <= 1, "what waits is not in memory"
        read = await _rows_read(plain) - before
        assert read < 2_000, f"{read} rows were read while {MANY} cases waited"
    finally:
        await plain.close()


async def _rows_read(plain: Any) -> int:
    await plain.execute("SELECT pg_stat_force_next_flush()")
    return await plain.fetchval(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables"
        " WHERE schemaname = 'circuit' AND relname IN ('ready', 'case')"
    )
