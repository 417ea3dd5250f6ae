"""Limits over all workers: no more runs than there may, what a dead worker had is there again, nobody is starved."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from eventually import eventually
from hypothesis import given
from hypothesis import strategies as st
from parts import at_once
from running import CHAIN, LIMITS, REVIEW, engine, publish, start, until

from circuit.definition import load_workflow
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.apportionment import Need, apportion
from circuit.engine.claims import Claims
from circuit.engine.engine import Engine
from circuit.engine.quota import KEPT
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage import shares, workers
from circuit.storage.database import Database
from circuit.storage.shares import Pool, Share

FEW = replace(LIMITS, deployment=4)
TENANT = Pool(1, "tenant", "")


class Busy:
    """An action that runs until it is let go, and knows the most that ever ran at once."""

    def __init__(self) -> None:
        self.running: Counter[CaseKey] = Counter()
        self.most = 0
        self.open = asyncio.Event()

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        self.running[call.key] += 1
        self.most = max(self.most, self.count)
        try:
            await self.open.wait()
        finally:
            self.running[call.key] -= 1
        return await at_once(call, context)

    @property
    def count(self) -> int:
        return self.running.total()

    def of(self, tenant: int) -> int:
        return sum(count for key, count in self.running.items() if key.tenant == tenant)


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def limit(database: Database, pool: Pool, executions: int) -> None:
    connection = await database.raw()
    await shares.set_limit(connection, pool, executions, "test")
    await connection.close()


async def test_two_workers_run_no_more_than_the_deployment_may_and_one_alone_has_it_all(
    database: Database, plain: Any
) -> None:
    busy = [Busy(), Busy()]
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(engine(database, {"agent": one}, limits=FEW)) for one in busy]
        await publish(engines[0], REVIEW)
        keys = [await start(engines[0], "review") for _ in range(12)]
        # Who runs how many is a matter of who claimed first, for none of these ends before it is let go.
        await eventually(lambda: sum(one.count for one in busy) == 4, what="all four run")

        async def shared() -> bool:
            return await plain.fetchval("SELECT sum(amount) FROM circuit.worker_share") == 4

        await eventually(shared, what="the rows say so")
        # A worker that is gone: its share is there with the commit that fences it.
        gone = engines[1].worker
        assert gone is not None and gone.tenure is not None
        await gone.stop()
        await eventually(lambda: busy[0].count == 4, what="the other one has it all")
        assert busy[0].most <= 4
        busy[0].open.set()
        for key in keys:
            await until(engines[0], key, "completed")
    assert busy[0].most <= 4


async def test_a_share_ends_with_its_worker(database: Database, plain: Any) -> None:
    """A worker that was killed holds its share until it is fenced, and not a moment longer."""
    dead = (await plain.fetchval("SELECT gen_random_uuid()"),)
    await plain.execute(
        "INSERT INTO circuit.worker (id, host, boot_id, pid, pid_started) VALUES ($1, 'gone', 'x', 1, 0)", *dead
    )
    await plain.execute("INSERT INTO circuit.worker_lease VALUES ($1, now() + interval '1 hour')", *dead)
    await plain.execute("INSERT INTO circuit.worker_share VALUES ($1, 0, 'deployment', '', 3, 0)", *dead)
    busy = Busy()
    async with engine(database, {"agent": busy}, limits=FEW) as running:
        await publish(running, REVIEW)
        keys = [await start(running, "review") for _ in range(6)]
        await eventually(lambda: busy.count == 1, what="what is left is used")
        connection = await database.raw()
        await workers.take_over(connection, *dead)
        await connection.close()
        await eventually(lambda: busy.count == 4, what="its share is there again")
        busy.open.set()
        for key in keys:
            await until(running, key, "completed")
    assert busy.most == 4


async def test_a_tenant_at_its_limit_keeps_nobody_else_waiting(database: Database, plain: Any) -> None:
    await plain.execute("INSERT INTO circuit.tenant (tenant_id, name) VALUES (2, 'other')")
    busy = Busy()
    await limit(database, TENANT, 2)
    async with engine(database, {"agent": busy}, limits=replace(LIMITS, executions=6)) as running:
        await publish(running, REVIEW)
        other = replace(LOCAL, tenant=2)
        await running.commands.publish(load_workflow(REVIEW, "test.yaml"), other)
        many = [await start(running, "review") for _ in range(30)]
        await eventually(lambda: busy.of(1) == 2, what="the first has what it may")
        few = [await running.commands.start_case("review", None, principal=other) for _ in range(3)]
        await eventually(lambda: busy.of(2) == 3, what="the other one is served")
        assert busy.of(1) == 2
        assert running.worker is not None and running.worker.tenure is not None
        assert len(running.worker.tenure.desk) < 20, "what would only wait is left to others"
        # Raised while they wait.
        await limit(database, TENANT, 3)
        await eventually(lambda: busy.of(1) == 3, what="it is allowed another one")
        busy.open.set()
        for key in (*few, *many):
            await until(running, key, "completed")
    assert busy.most <= 6


async def test_an_agent_and_a_provider_have_limits_of_their_own(database: Database) -> None:
    busy = Busy()
    two = REVIEW.replace("workflow: review", "workflow: second").replace("reviewer", "second")
    await limit(database, Pool(1, "agent", "reviewer"), 1)
    await limit(database, Pool(0, "provider", "scripted"), 3)
    async with engine(database, {"agent": busy}) as running:
        await publish(running, REVIEW)
        await publish(running, two)
        first = [await start(running, "review") for _ in range(3)]
        await eventually(lambda: busy.count == 1, what="one has the agent")
        second = [await start(running, "second") for _ in range(4)]
        await eventually(lambda: busy.count == 3, what="three have the provider")
        assert sum(busy.running[key] for key in first) == 1
        busy.open.set()
        for key in (*first, *second):
            await until(running, key, "completed")
    assert busy.most == 3


async def test_a_worker_claims_nothing_before_it_knows_the_limits(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    limits, begin = shares.limits, Claims.start

    async def looked(connection: Any) -> dict[Pool, int]:
        found = await limits(connection)
        told.append("limits")
        return found

    async def begun(self: Claims) -> None:
        told.append("claims")
        await begin(self)

    monkeypatch.setattr(shares, "limits", looked)
    monkeypatch.setattr(Claims, "start", begun)
    async with engine(database) as running:
        await publish(running, CHAIN)
        await until(running, await start(running, "chain"), "completed")
    assert told[:2] == ["limits", "claims"]


async def test_who_waits_for_an_agent_at_its_limit_holds_nobody_up(database: Database, plain: Any) -> None:
    """130 cases want an agent that runs two at once: most wait in the database, each in its turn, claimed no more than
    that takes, while cases of other agents of the tenant go on."""
    busy, free = Busy(), REVIEW.replace("workflow: review", "workflow: second").replace("reviewer", "other")
    free = free.replace("agent_id: other", "agent_id: other, timeout_seconds: 7")
    agent = Pool(1, "agent", "reviewer")
    await limit(database, agent, 2)

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        quick = call.config["agent_id"] == "other"
        return await (at_once(call, context) if quick else busy.perform(call, context))

    async def queue() -> int:
        return await plain.fetchval("SELECT count(*) FROM circuit.hold WHERE granted_at IS NULL")

    async with engine(database, {"agent": SimpleNamespace(perform=perform)}) as running:
        await publish(running, REVIEW)
        await publish(running, free)

        keys = [await start(running, "review") for _ in range(130)]
        others = [await start(running, "second") for _ in range(5)]
        for key in others:
            await until(running, key, "completed")
        await eventually(queue, what="the rest waits for its turn")
        assert busy.count == 2

        async def settled() -> bool:
            return await plain.fetchval('SELECT count(*) FROM circuit."case" WHERE owner IS NOT NULL') <= 2 + 2 * KEPT

        await eventually(settled, what="the worker holds no more than it may come to soon")
        [last] = await plain.fetch(
            "SELECT case_id, firing FROM circuit.hold WHERE granted_at IS NULL ORDER BY asked_at DESC LIMIT 1"
        )
        late = CaseKey(1, last["case_id"])
        why = await running.queries.why(late)
        assert why is not None and "waits for its turn: agent reviewer" in why.summary
        [told] = await running.limits.listed(LOCAL)
        assert told.row.wanted >= await queue() > 0
        assert (await running.commands.cancel(late, principal=LOCAL)).state == "applied"
        busy.open.set()
        for key in keys:
            await until(running, key, "cancelled" if key == late else "completed")
        assert busy.most == 2
        assert await plain.fetchval("SELECT count(*) FROM circuit.hold") == 0
        assert await plain.fetchval("SELECT max(start) FROM circuit.firing") == 1, "none was begun and given up"
        claimed = await plain.fetchval(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM circuit.command WHERE kind = 'granted' GROUP BY case_id) s"
        )
        assert claimed == 1
        # Where the limit is taken away, nobody waits any more.
        busy.open.clear()
        more = [await start(running, "review") for _ in range(60)]
        await eventually(queue, what="some wait for their turn")
        await running.limits.remove(LOCAL, agent)
        busy.open.set()
        for key in more:
            await until(running, key, "completed")


class Worker:
    """A worker as `apportion` sees it."""

    def __init__(self) -> None:
        self.running = 0
        self.wants = 0
        self.ceiling = 0
        self.share = Share(0, 0)

    def begin(self) -> None:
        self.running = max(self.running, min(self.wants, self.ceiling))

    def look(self, limit: int, others: list[Share]) -> None:
        need = Need(self.running, max(self.wants, self.running), self.ceiling)
        self.ceiling, self.share = apportion(limit, need, others)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32))
def test_shares_never_pass_the_limit_and_come_to_equal_parts(limit: int, count: int, seed: int) -> None:
    rng = Random(seed)
    there = [Worker() for _ in range(count)]

    def look(worker: Worker) -> None:
        worker.look(limit, [other.share for other in there if other is not worker])
        assert sum(one.share.amount for one in there) <= limit
        worker.begin()
        assert worker.running <= worker.share.amount

    for _ in range(30):
        worker = rng.choice(there)
        worker.wants = rng.randint(0, 2 * limit)
        worker.running = rng.randint(0, worker.running)
        look(worker)
    for worker in there:
        worker.wants = 2 * limit
    served: Counter[int] = Counter()
    for _ in range(8 * count):
        for number, worker in enumerate(there):
            worker.running = max(0, worker.running - 1)
            look(worker)
            served[number] += worker.running
    if limit >= count:
        assert min(one.share.amount for one in there) >= limit // count
    assert all(served[number] for number in range(count)), "everybody has a turn"


def test_an_idle_worker_leaves_room_for_one_that_comes() -> None:
    ceiling, share = apportion(50, Need(0, 1, 0, spare=50), [])
    assert ceiling == 45 and share == Share(45, 0)
    assert apportion(50, Need(50, 80, 45, spare=50), []) == (50, Share(50, 30))


async def test_without_limits_there_is_nothing_to_share(database: Database, plain: Any) -> None:
    async with engine(database, {"agent": Busy()}) as running:
        assert isinstance(running, Engine)
        assert await plain.fetchval("SELECT count(*) FROM circuit.worker_share") == 0


async def test_cases_for_a_provider_that_can_take_no_more_are_left(database: Database, plain: Any) -> None:
    busy, pressed = Busy(), {"scripted"}
    busy.open.set()
    async with engine(database, {"agent": busy}, pressed=lambda: pressed) as running:
        await publish(running, REVIEW)
        await publish(running, CHAIN)
        waiting = [await start(running, "review") for _ in range(3)]
        # What needs no provider goes on; by then those were passed over.
        await until(running, await start(running, "chain"), "completed")
        assert await plain.fetchval("SELECT count(*) FROM circuit.ready") == 3
        assert not busy.most
        figures = {figure.name: figure.value for figure in running.process_figures()}
        assert figures["circuit_pressed_providers"] == 1
        pressed.clear()
        for key in waiting:
            await until(running, key, "completed")
