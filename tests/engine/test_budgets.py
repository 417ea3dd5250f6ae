"""Budgets: held before each call of a model, settled once after it, never passed, whatever dies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from eventually import eventually
from hypothesis import given
from hypothesis import strategies as st
from parts import SystemClock, SystemIds
from running import REVIEW, WITHOUT_WAY_OUT, engine, publish, start, until

from circuit.actions.agent import AgentAction
from circuit.actions.context import Context
from circuit.actions.function import FunctionAction
from circuit.actions.functions import action, collect
from circuit.actions.subworkflow import SubworkflowAction
from circuit.agents.answer import Answer
from circuit.agents.meter import Meter
from circuit.agents.run import AgentRun, Choice
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.answers import Answers
from circuit.engine.children import Children
from circuit.engine.costs import CostFilter
from circuit.engine.engine import Engine
from circuit.engine.solvency import judge
from circuit.engine.versions import Versions
from circuit.errors import InvalidOutput
from circuit.ids import CaseKey
from circuit.providers.pricing import Price
from circuit.providers.registry import ProviderRegistry
from circuit.security.principal import LOCAL
from circuit.spend import MOST_OF_A_CALL, NOTHING, Limits, Spend, dollars, microdollars
from circuit.storage import budgets, workers
from circuit.storage.charges import Asked, Budget, BudgetKey, Charge
from circuit.storage.database import Database

TENANT = BudgetKey.of_tenant(1)
REVIEWS = BudgetKey.of_workflow(1, "review")


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def put(database: Database, key: BudgetKey, **limits: int) -> None:
    async with database.transaction(key.tenant) as connection:
        await budgets.change(connection, key, Limits(), limits, None, "test")


async def budget(database: Database, key: BudgetKey) -> Budget:
    async with database.transaction(key.tenant) as connection:
        [found] = await budgets.listed(connection, key.tenant, scope=key.scope, subject=key.subject)
    return found


class Spending:
    """An action that calls a model that may cost `most` and does cost `cost`; each call waits to be let go."""

    def __init__(self, most: Spend, cost: Spend | None, calls: int = 1) -> None:
        self.most = most
        self.cost = cost
        self.calls = calls
        self.gate = asyncio.Event()
        self.going = 0
        self.highest = 0
        self.made = 0

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        for number in range(self.calls):
            step = f"answer:{number}"
            if step in call.recorded:
                continue
            charge = await context.hold(self.most)
            self.going += 1
            self.made += 1
            self.highest = max(self.highest, self.going)
            try:
                await self.gate.wait()
            finally:
                self.going -= 1
            if charge is not None and self.cost is not None:
                context.settle(charge, self.cost)
            await context.record(step, {"number": number})
        return ActionOutput({"answer": "yes"}, text="yes")


async def test_what_is_left_is_shared_by_all_cases_of_two_workers_and_never_passed(
    database: Database, plain: Any
) -> None:
    """Ten calls of at most 40 that cost 10, with 100 in all: two go on at once, the others wait, and all are made."""
    await put(database, TENANT, tokens=100)
    spending = Spending(Spend(1, 40), Spend(1, 10))
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(engine(database, {"agent": spending})) for _ in range(2)]
        await publish(engines[0], REVIEW)
        keys = [await start(engines[number % 2], "review") for number in range(7)]
        await eventually(lambda: spending.going == 2, what="two calls are held")
        held = await budget(database, TENANT)
        assert (held.spent, held.held) == (NOTHING, Spend(2, 80, 0))
        spending.gate.set()
        for key in keys:
            await until(engines[0], key, "completed")
    assert spending.highest == 2
    after = await budget(database, TENANT)
    assert (after.spent, after.held) == (Spend(7, 70, 0), NOTHING)
    async with engine(database, {"agent": spending}) as running:
        # 30 are left: a call that may cost 40 is not made, whatever the others came to.
        late = await start(running, "review")
        case = await until(running, late, "attention")
    [event] = [event for event in case.history if event.kind == "firing_failed"]
    error = event.as_dict()["error"]
    assert error["code"] == "budget_exhausted"
    assert (
        "70 tokens of 100 tokens are spent" in error["message"] and "circuit budgets set --tokens" in error["message"]
    )
    assert "incident" not in error["message"], "the token went to on_failure"
    assert await plain.fetchval("SELECT count(*) FROM circuit.charge") == 0, "what is settled has joined the budget"


async def test_raised_and_retried(database: Database, plain: Any) -> None:
    spending = Spending(Spend(1), Spend(1), calls=3)
    spending.gate.set()
    async with engine(database, {"agent": spending}) as running:
        await publish(running, WITHOUT_WAY_OUT + "budget: {calls: 2}\noutbox: [budget_used_up]\n")
        key = await start(running, "review")
        case = await until(running, key, "attention")
        [incident] = case.incidents
        assert incident.code == "budget_exhausted" and f"--case {key.case} --calls" in incident.message
        [seq] = [one.seq for one in case.history if one.kind == "budget_used_up"]
        assert [one.kind for one in case.history][seq:] == ["firing_failed"]
        told = case.history[seq - 1].as_dict()
        counted = {"unit": "calls", "limit": 2, "spent": 2, "needed": 1}
        assert told.items() >= {"scope": "case", "subject": str(key.case), **counted}.items()
        assert await plain.fetchval("SELECT array_agg(seq) FROM circuit.outbox") == [seq]
        why = await running.queries.why(key)
        assert why is not None and "is used up: 2 calls of 2 calls are spent" in why.summary
        own = BudgetKey.of_case(key)
        assert (await budget(database, own)).spent == Spend(2)
        await put(database, own, calls=5)
        assert (await running.commands.retry(key, principal=LOCAL)).state == "applied"
        await until(running, key, "completed")
        assert (await budget(database, own)).spent == Spend(5), "another attempt asks anew"


async def test_a_dead_worker_is_settled_once_and_its_journalled_answers_are_not_charged_again(
    database: Database, plain: Any
) -> None:
    await put(database, REVIEWS, tokens=1_000, calls=100)
    spending = Spending(Spend(1, 100), Spend(1, 7), calls=2)
    async with engine(database, {"agent": spending}) as running:
        await publish(running, REVIEW)
        spending.gate.set()
        key = await start(running, "review")
        await until(running, key, "completed")
        assert (await budget(database, REVIEWS)).spent == Spend(2, 14, 0)
        spending.gate.clear()
        dying = await start(running, "review")
        await eventually(lambda: spending.going == 1, what="a call goes on")
        assert running.worker is not None and running.worker.tenure is not None
        # Its worker hears of its end while this goes on, and begins anew.
        gone = running.worker.tenure.incarnation.id
        connection = await database.raw()
        await workers.take_over(connection, gone)
        await connection.close()
        # One of a process that is gone, too: nobody is there to settle it.
        await plain.execute(
            "INSERT INTO circuit.charge (tenant_id, case_id, firing, start, number, workflow_id, worker, calls, tokens,"
            " microdollars) VALUES (1, $1, 9, 1, 1, 'review', $2, 1, 500, 0)",
            dying.case,
            gone,
        )
        await eventually(lambda: spending.made == 4, what="another worker calls")
        spending.gate.set()
        await until(running, dying, "completed")

        async def settled() -> bool:
            return (await budget(database, REVIEWS)).held == NOTHING

        await eventually(settled, what="what the dead worker held is settled")
        # Nobody knows what the calls that were cut off came to: they count as the most that they could.
        assert (await budget(database, REVIEWS)).spent == Spend(6, 14 + 100 + 500 + 14, 0)
    async with engine(database, {"agent": spending}):
        pass
    assert (await budget(database, REVIEWS)).spent == Spend(6, 628, 0)


PARENT = """
workflow: order
places: [open, done]
transitions:
  check:
    from_places: open
    to_place: done
    action: {type: subworkflow, workflow: review}
"""


async def test_a_case_that_another_one_opened_draws_on_the_budget_of_that_one(database: Database, plain: Any) -> None:
    spending = Spending(Spend(1, 10), Spend(1, 4), calls=2)
    spending.gate.set()
    versions = Versions()
    actions = {"agent": spending, "subworkflow": SubworkflowAction(Children(database, versions, SystemIds()))}
    async with engine(database, actions, versions=versions) as running:
        await publish(running, WITHOUT_WAY_OUT)
        await publish(running, PARENT + "budget: {calls: 3}\n")
        rich = await start(running, "order")
        await until(running, rich, "completed")
        assert (await budget(database, BudgetKey.of_case(rich))).spent == Spend(2, 8, 0)
        await publish(running, PARENT + "budget: {calls: 1}\n")
        poor = await start(running, "order")

        async def refused() -> str | None:
            return await plain.fetchval("SELECT message FROM circuit.incident")

        message = await eventually(refused, what="the child has spent what its parent had")
        family = await running.costs.page(LOCAL, CostFilter(case_id=str(rich.case), opened=True), ("workflow",))
        assert [(one.names["workflow"], one.calls, one.unpriced) for one in family.entries] == [("review", 2, 2)]
        assert (await running.costs.page(LOCAL, CostFilter(case_id=str(rich.case)), ())).total.calls == 0
        assert message is not None and f"--case {poor.case} --calls" in message
        assert (await budget(database, BudgetKey.of_case(poor))).spent == Spend(1, 4, 0)
        # One that has its own draws on that, and on no other.
        await publish(running, WITHOUT_WAY_OUT + "budget: {calls: 9}\n")
        own = await start(running, "order")
        await until(running, own, "completed")
        async with database.transaction(1) as connection:
            found = await budgets.listed(connection, 1)
        spent = {one.key.subject: one.spent.calls for one in found}
        assert str(own.case) not in spent and sorted(spent.values()) == [1, 2, 2]


async def test_what_is_cancelled_or_never_said_counts_with_the_most(database: Database, plain: Any) -> None:
    await put(database, TENANT, microdollars=microdollars(1.0))
    spending = Spending(Spend(1, 10, microdollars(0.3)), None)
    async with engine(database, {"agent": spending}) as running:
        await publish(running, REVIEW)
        cut, silent = await start(running, "review"), await start(running, "review")
        await eventually(lambda: spending.going == 2, what="both call")
        assert (await running.commands.cancel(cut, principal=LOCAL)).state == "applied"
        spending.gate.set()
        await until(running, silent, "completed")

        async def settled() -> bool:
            return (await budget(database, TENANT)).held == NOTHING

        await eventually(settled, what="both are settled")
        assert (await budget(database, TENANT)).spent == Spend(2, 20, microdollars(0.6))


AGENT = WITHOUT_WAY_OUT.replace(
    'responses: ["yes"]}',
    'responses: [{answer: "yes"}], price: {input: 1000, output: 1000}}\n    llm_config: {max_tokens: 100}',
)


async def agents(running: Engine, text: str) -> CaseKey:
    await publish(running, text)
    return await start(running, "review", {"text": "x" * 30})


async def test_an_agent_draws_on_the_budgets_and_shows_its_cost(database: Database) -> None:
    registry = ProviderRegistry({})
    async with engine(database, {"agent": AgentAction(registry)}) as running:
        key = await agents(running, AGENT + "budget: {usd: 5, tokens: 10000}\n")
        case = await until(running, key, "completed")
        [execution] = case.executions
        spent = (await budget(database, BudgetKey.of_case(key))).spent
        assert spent.calls == 1 and spent.microdollars == microdollars(execution.usage["cost_usd"]) > 0
        assert spent.tokens == execution.usage["input_tokens"] + execution.usage["output_tokens"]
        # Each of its calls may cost 0.10 dollars for the answer alone.
        poor = await until(running, await agents(running, AGENT + "budget: {usd: 0.05}\n"), "attention")
        [incident] = poor.incidents
        assert incident.code == "budget_exhausted" and "0.00 USD of 0.05 USD are spent" in incident.message
        # Without a bound nothing is asked.
        endless = AGENT.replace("    llm_config: {max_tokens: 100}\n", "") + "budget: {tokens: 10000}\n"
        case = await until(running, await agents(running, endless), "attention")
        assert case.incidents[0].code == "budget_unbounded" and "max_tokens" in case.incidents[0].message
        # Nor where money counts and no price is known: what is not known is not taken for nothing.
        served = '{type: custom, model: our-own, base_url: "http://127.0.0.1:9"}'
        unknown = re.sub(r"llm_provider: .*", f"llm_provider: {served}", AGENT)
        case = await until(running, await agents(running, unknown + "budget: {usd: 5}\n"), "attention")
        assert case.incidents[0].code == "budget_unbounded" and "llm_provider.price" in case.incidents[0].message
    await registry.aclose()


FUNCTION = """
workflow: embedding
places: {open: {initial: true}, done: {terminal: true}}
transitions:
  embed:
    from_places: open
    to_place: done
    action: {type: function, name: find, retry_config: {max_attempts: 2, backoff_seconds: 0.05}}
"""
VECTORS = {"type": "scripted", "model": "vectors", "price": {"input": 1000, "output": 0}}


async def test_vectors_and_orders_are_charged_once_and_refused_like_answers(database: Database, plain: Any) -> None:
    tries: list[int] = []

    @action
    async def find(*, ctx: Context) -> dict[str, Any]:
        vectors = await ctx.embed("texts", VECTORS, ["red", "green blue"], dimensions=8)
        order = await ctx.rerank("order", {**VECTORS, "model": "order"}, "blue", ["red", "green blue"], top=1)
        tries.append(order[0].index)
        if len(tries) == 1:
            raise InvalidOutput("once more")
        assert [len(vector) for vector in vectors] == [8, 8]
        return {"best": (await ctx.rerank("order 2", "scripted:free", "red", ["red"]))[0].index}

    await put(database, TENANT, calls=3, tokens=1_000, microdollars=microdollars(5.0))
    registry = ProviderRegistry({})
    functions = {"function": FunctionAction(collect([find]), 1, registry)}
    async with engine(database, functions) as running:
        await publish(running, FUNCTION)
        key = await start(running, "embedding")
        await until(running, key, "completed")
        spent = (await budget(database, TENANT)).spent
        # Nobody tells what these took, so they count at the most; the second attempt paid for nothing again.
        assert (spent.calls, tries) == (3, [1, 1]) and 0 < (spent.tokens or 0) < 100 and spent.microdollars
        told = await running.costs.page(LOCAL, CostFilter(case_id=str(key.case)), ("model",))
        assert {one.names["model"]: (one.calls, one.unpriced) for one in told.entries} == {
            "vectors": (1, 1), "order": (1, 1), "free": (1, 0)
        }, "of what was priced nobody told the usage"  # fmt: skip
        poor = await until(running, await start(running, "embedding"), "attention")
        assert poor.incidents[0].code == "budget_exhausted"
        kept = await plain.fetchval("SELECT count(*) FROM circuit.journal WHERE attempt = 0 AND case_id = $1", key.case)
        assert kept == 3
    await registry.aclose()


async def test_an_answer_from_the_cache_costs_nothing_and_is_not_refused(database: Database) -> None:
    await put(database, TENANT, calls=1)
    registry = ProviderRegistry({})
    clerk = AgentAction(registry, answers=partial(Answers, database))
    text = AGENT.replace("    llm_config:", "    cache: {ttl: 1h}\n    llm_config:")
    async with engine(database, {"agent": clerk}) as running:
        await until(running, await agents(running, text), "completed")
        # The budget is used up, and whoever asks the same is answered all the same: nothing is held for it.
        again = await until(running, await agents(running, text), "completed")
        assert again.executions[0].usage["cached_answers"] == 1
        assert (await budget(database, TENANT)).spent.calls == 1
        other = await start(running, "review", {"text": "another"})
        [incident] = (await until(running, other, "attention")).incidents
        assert incident.code == "budget_exhausted"
    await registry.aclose()


async def test_absurd_amounts_harm_nobody_else(database: Database) -> None:
    """An answer of at most 2**62 tokens, a million dollars for a million of them: no row could hold that."""
    registry = ProviderRegistry({})
    absurd = AGENT.replace("max_tokens: 100", f"max_tokens: {2**62}").replace("output: 1000", "output: 1000000")
    await put(database, TENANT, calls=9)
    async with engine(database, {"agent": AgentAction(registry)}) as running:
        keys = [await agents(running, absurd) for _ in range(3)]
        for key in keys:
            await until(running, key, "completed")
        assert (await budget(database, TENANT)).spent.calls == 3
        poor = await until(running, await agents(running, absurd + "budget: {usd: 100}\n"), "attention")
        assert poor.incidents[0].code == "budget_exhausted"
        assert (await budget(database, TENANT)).held == NOTHING
    await registry.aclose()


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_what_a_provider_tells_is_kept_within_bounds(asked: int, told: int) -> None:
    settled: list[Spend] = []
    journal: Any = SimpleNamespace(settle=lambda charge, spent: settled.append(spent))  # type: ignore[misc]
    run = AgentRun("m", (), choices=(Choice("custom", "m", Price(1e6, 1e6)),))
    answer = Answer("", "stop", {"input_tokens": asked, "output_tokens": told}, "m", "")
    Meter(run, journal).answered(1, answer)
    [spent] = settled
    assert all(amount is None or 0 <= amount <= MOST_OF_A_CALL for amount in (spent.tokens, spent.microdollars))


amounts = st.integers(0, 30)
spends = st.builds(Spend, st.integers(0, 2), amounts, amounts)
limits = st.builds(Limits, st.none() | st.integers(0, 5), st.none() | amounts, st.none() | amounts)
KEYS = [CaseKey(1, UUID(int=number)) for number in range(3)]


@given(
    st.dictionaries(
        st.sampled_from([TENANT, REVIEWS, *map(BudgetKey.of_case, KEYS)]), st.tuples(limits, spends, spends)
    ),
    st.lists(st.tuples(st.sampled_from(KEYS), spends), max_size=8),
)
def test_no_verdict_passes_a_limit_and_nobody_is_passed_over(
    standing: dict[BudgetKey, tuple[Limits, Spend, Spend]], calls: list[tuple[CaseKey, Spend]]
) -> None:
    there = {key: _budget(key, *values) for key, values in standing.items()}
    asked = [Asked(Charge(key, 1, 1, number), "review", most, Limits()) for number, (key, most) in enumerate(calls)]
    verdict = judge(there, asked)
    refused = {one for one, _ in verdict.refused}
    assert len({*verdict.granted, *verdict.free, *refused}) == len(verdict.granted) + len(verdict.free) + len(refused)
    for key, found in there.items():
        for unit in ("calls", "tokens", "microdollars"):
            limit = getattr(found.limits, unit)
            granted = sum(getattr(one.most, unit) for one in verdict.granted if key in one.budgets)
            before = getattr(found.spent, unit) + getattr(found.held, unit)
            assert limit is None or granted == 0 or before + granted <= limit
    waiting = [one for one in asked if one not in verdict.granted and one not in verdict.free and one not in refused]
    for one in waiting:
        later = [other for other in verdict.granted if other.charge.number > one.charge.number]
        shared = {key for key in one.budgets if key in there}
        assert all(shared.isdisjoint(other.budgets) for other in later)
        assert any(there[key].held != NOTHING or verdict.granted for key in shared), "it waits for somebody"


def _budget(key: BudgetKey, limits: Limits, spent: Spend, held: Spend) -> Budget:
    now = SystemClock().now()
    return Budget(key, limits, spent, held, None, now, now, "test")


@given(st.integers(0, 10**12))
def test_money_reads_back(amount: int) -> None:
    assert microdollars(float(dollars(amount))) == amount
