"""kill -9 of workers while firings wait for their turn and a budget comes to its last dollars: each case comes to its
end once, nobody is forgotten in the queue, and no more is spent than there is."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import asyncpg
import invariants
from eventually import eventually
from processes import program

from circuit import Circuit
from circuit.engine.budgets import BudgetChange, Target
from circuit.engine.limits import pool
from circuit.security.principal import LOCAL
from circuit.spend import MICRO

CASES = 130
LIMIT = 60
# A token costs a dollar: an answer is one, and could be ten.
WORKFLOW = """
workflow: dear
places: [open, done]
agents:
  writer:
    llm_provider:
      {type: scripted, model: dear, responses: [fine], delay_seconds: 0.05, price: {input: 0, output: 1000000}}
    llm_config: {max_tokens: 10}
transitions:
  write: {from_places: open, to_place: done, agent_execution: writer}
"""


async def test_kills_forget_no_turn_and_pass_no_budget(database_url: str) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    plain = await asyncpg.connect(database_url)

    async def ended() -> bool:
        count = "SELECT count(*) FROM circuit.\"case\" WHERE status IN ('completed', 'attention')"
        return await plain.fetchval(count) == CASES

    async def queued() -> bool:
        return await plain.fetchval("SELECT count(*) FROM circuit.hold WHERE granted_at IS NULL") > 0

    async with Circuit.open(database_url, worker=False) as circuit:
        await circuit.load(WORKFLOW)
        # Nobody has a turn before everybody is there and some wait for it.
        await circuit.engine.limits.set(LOCAL, pool(1, agent="writer"), 0)
        await circuit.budgets.set(LOCAL, Target(), BudgetChange({"microdollars": LIMIT * MICRO}))
        for _ in range(CASES):
            await circuit.start("dear", {})
        async with AsyncExitStack() as stack:
            both = [await stack.enter_async_context(program("--url", database_url, "work")) for _ in range(2)]
            for one in both:
                assert await one.says("working") is not None
            await eventually(queued, what=f"seed {seed}: some wait for their turn")
            await circuit.engine.limits.set(LOCAL, pool(1, agent="writer"), 2)
            await asyncio.sleep(rng.uniform(0, 0.5))
            for one in both[: rng.randint(1, 2)]:
                await one.kill()
        async with program("--url", database_url, "work"):
            await eventually(ended, within=120, what=f"seed {seed}: the end of all cases")

            async def settled() -> bool:
                found = await circuit.budgets.find(LOCAL, Target())
                return found is not None and found.budget.held.calls == 0

            await eventually(settled, what=f"seed {seed}: all that was held is settled")
        view = await circuit.budgets.find(LOCAL, Target())
        assert view is not None
        spent = (view.budget.spent.microdollars or 0) / MICRO
        assert LIMIT - 10 < spent <= LIMIT, f"seed {seed}: the last call that could be made was, and none beyond it"
        done = await plain.fetchval("SELECT count(*) FROM circuit.\"case\" WHERE status = 'completed'")
        costs = await plain.fetchval("SELECT count(*) FROM circuit.journal WHERE step = 'answer:0'")
        assert done <= costs <= spent, f"seed {seed}: each answer was paid for"
        refused = await plain.fetch("SELECT DISTINCT code FROM circuit.incident")
        assert [row["code"] for row in refused] == ["budget_exhausted"]
        events = await plain.fetchval("SELECT count(*) FROM circuit.history WHERE kind = 'budget_used_up'")
        assert events == CASES - done
        assert await plain.fetchval("SELECT count(*) FROM circuit.hold") == 0
    await plain.close()
    await invariants.check(database_url)
