"""Load spreads over workers and pools, and nobody's case waits behind the many of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from eventually import eventually
from parts import Doing, at_once
from running import LIMITS, REVIEW, engine, publish, start, until

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.engine import Engine
from circuit.engine.requirement import Capabilities
from circuit.engine.views import CaseStanding
from circuit.happenings import happenings
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL, Principal
from circuit.storage import cases
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import CaseStatus

WIDE = REVIEW.replace("workflow: review", "workflow: wide").replace(
    "  open: {initial: true}", f"  open: {{tokens: [{', '.join(['{}'] * 40)}]}}"
)
"""Forty tokens that an agent looks at, one by one."""

GPU = REVIEW.replace("workflow: review", "workflow: review\npool: gpu")


class Gate:
    """An action that runs until it is let go, and knows what runs."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running: Counter[CaseKey] = Counter()
        self.seen: Counter[CaseKey] = Counter()

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        self.running[call.key] += 1
        self.seen[call.key] += 1
        try:
            await self.open.wait()
        finally:
            self.running[call.key] -= 1
        return await at_once(call, context)

    @property
    def count(self) -> int:
        return self.running.total()


@pytest.fixture
async def asking(database: Database) -> AsyncIterator[Engine]:
    """An engine that asks and works on nothing."""
    async with engine(database, worker=False) as made:
        yield made


async def test_a_huge_case_leaves_room_for_the_others(database: Database, asking: Engine) -> None:
    await publish(asking, WIDE)
    await publish(asking, REVIEW)
    gate = Gate()
    async with engine(database, {"agent": gate}, limits=replace(LIMITS, executions=8)):
        huge = await asking.commands.start_case("wide", None, principal=LOCAL)
        await eventually(lambda: gate.count == 6, what="the huge case takes its part of the slots")
        small = [await start(asking, "review") for _ in range(2)]
        await eventually(lambda: all(gate.running[key] for key in small), what="others get the rest")
        assert gate.running[huge] == 6 and gate.count == 8
        gate.open.set()
        for key in (*small, huge):
            await until(asking, key, "completed")
    assert gate.seen[huge] == 40


async def test_the_load_spreads_over_three_workers(
    database: Database, asking: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is there before anybody looks, and who has had a bite lets the others have theirs: whoever comes last
    finds that something was left."""
    await publish(asking, REVIEW)
    gates = [Gate() for _ in range(3)]
    served: set[UUID] = set()
    there, all_served = asyncio.Event(), asyncio.Event()
    claim = cases.claim_fairly

    async def in_turn(connection: Connection, worker: UUID, *rest: Any) -> cases.Claim:
        if not there.is_set():
            return cases.Claim([])
        if worker in served:
            await all_served.wait()
        found = await claim(connection, worker, *rest)
        served.update([worker] if found.keys else ())
        if len(served) == len(gates):
            all_served.set()
        return found

    monkeypatch.setattr(cases, "claim_fairly", in_turn)
    async with AsyncExitStack() as stack:
        for gate in gates:
            await stack.enter_async_context(engine(database, {"agent": gate}, limits=replace(LIMITS, executions=12)))
        keys = [await start(asking, "review") for _ in range(24)]
        there.set()
        await eventually(lambda: sum(gate.count for gate in gates) == 24, what="all of it runs")
        assert all(gate.count for gate in gates), [gate.count for gate in gates]
        for gate in gates:
            gate.open.set()
        for key in keys:
            await until(asking, key, "completed")
    assert max(sum((gate.seen for gate in gates), Counter[CaseKey]()).values()) == 1


async def test_a_tenant_with_many_cases_does_not_hold_up_another(database: Database, asking: Engine) -> None:
    connection = await database.raw()
    await connection.execute("INSERT INTO circuit.tenant (tenant_id, name) VALUES (2, 'small')")
    await connection.close()
    many, few = (Principal(name, tenant, LOCAL.roles) for name, tenant in (("many", 1), ("few", 2)))
    for principal in (many, few):
        await asking.commands.publish(await publish(asking, REVIEW), principal)
    for _ in range(30):
        await asking.commands.start_case("review", None, principal=many)
    small = await asking.commands.start_case("review", None, principal=few)
    gate = Gate()
    gate.open.set()
    async with engine(database, {"agent": gate}, limits=replace(LIMITS, executions=4)):
        await until(asking, small, "completed")
        await eventually(lambda: gate.seen.total() == 31, what="all of them ran")
    # Claimed by age alone it would have been the last one.
    assert list(gate.seen).index(small) < 15


async def test_a_case_waits_for_a_worker_of_its_pool_and_says_so(database: Database, asking: Engine) -> None:
    await publish(asking, GPU)
    key = await start(asking, "review")
    has = Capabilities(("agent",), ("scripted",))
    here, there = Doing(at_once), Doing(at_once)
    async with engine(database, {"agent": here}, capabilities=has):
        why = await asking.queries.why(key)
        assert why is not None and "No worker that is running has what the case needs: the pool gpu (" in why.summary
        async with engine(database, {"agent": there}, capabilities=Capabilities((), (), ("gpu",))):
            said = await asking.queries.missing(key)
            assert "the pool gpu; actions of the kind agent; the provider scripted" in said
            assert "lacks the pool gpu; worker" in said and "lacks actions of the kind agent; the provider" in said
        [listed] = await asking.queries.cases(1)
        assert listed.lacks is not None and "gpu" in listed.as_dict()["no_worker_for"]
        async with engine(database, {"agent": there}, capabilities=replace(has, pools=("gpu",))):
            await until(asking, key, "completed")
            [listed] = await asking.queries.cases(1)
            assert listed.lacks is None
            assert await asking.queries.missing(key) == ""
    assert (len(here.calls), len(there.calls)) == (0, 1)


async def test_who_waits_for_a_case_that_no_worker_can_take_is_told_once(
    database: Database, asking: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit.happenings.QUIET_SECONDS", 0.01)
    await publish(asking, GPU.replace('scripted, model: any, responses: ["yes"]', "vllm, model: /models/any"))
    key = await start(asking, "review")
    told: asyncio.Queue[str] = asyncio.Queue()

    async def follow() -> None:
        async def look() -> CaseStanding:
            return await eventually(lambda: asking.queries.standing(key))

        async def missing() -> str:
            return await asking.queries.missing(key)

        source = happenings(asking.streams, key, look, lambda at: at.status.terminal, None, missing, told.put_nowait)
        async with aclosing(source):
            async for _ in source:
                pass

    following = asyncio.create_task(follow())
    assert (await told.get()).startswith("No worker is running, and the case needs one with what follows: the pool gpu")
    async with engine(database, {"agent": Doing(at_once)}, capabilities=Capabilities(("agent",), ("scripted",))):
        said = await told.get()
        assert "circuit worker --pool gpu" in said and "Install circuit-engine[vllm]" in said
        has = Capabilities(("agent",), ("vllm",), ("gpu",))
        async with engine(database, {"agent": Doing(at_once)}, capabilities=has):
            await following
    assert told.empty()


async def test_a_case_that_was_started_with_another_model_needs_that_ones_provider(
    database: Database, asking: Engine
) -> None:
    await publish(asking, REVIEW.replace('type: scripted, model: any, responses: ["yes"]', "type: openai, model: any"))
    has = Capabilities(("agent",), ("scripted",))
    plain = await start(asking, "review")
    models = {"models": {"*": {"type": "scripted", "model": "any"}}}
    replaced = await asking.commands.start_case("review", None, principal=LOCAL, parameters=models)
    async with engine(database, {"agent": Doing(at_once)}, capabilities=has):
        await until(asking, replaced, "completed")
        why = await asking.queries.why(plain)
        assert why is not None and "the provider openai" in why.summary


async def test_a_worker_of_one_case_runs_it_whatever_it_needs(database: Database, asking: Engine) -> None:
    await publish(asking, GPU)
    key, other = await start(asking, "review"), await start(asking, "review")
    has = Capabilities(("agent",), ("scripted",))
    async with engine(database, {"agent": Doing(at_once)}, capabilities=has, only=[key]):
        await until(asking, key, "completed")
        why = await asking.queries.why(other)
        assert why is not None and "the pool gpu" in why.summary, "nobody is to count on it"


def test_no_worker_is_missing_while_a_case_waits_for_another_attempt() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    later, earlier = now + timedelta(seconds=3), now - timedelta(seconds=3)
    waits = CaseStanding(CaseStatus.WAITING, 1, retrying=True, due_at=later)
    assert waits.at_hand(now) and not replace(waits, due_at=earlier).at_hand(now)
    assert not replace(waits, retrying=False).at_hand(now) and replace(waits, owned=True, due_at=earlier).at_hand(now)
