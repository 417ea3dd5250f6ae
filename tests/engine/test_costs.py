"""What answers came to, by day, workflow, case, agent, provider and model; and what people said of executions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from running import engine, publish, start, until

from circuit.actions.agent import AgentAction
from circuit.engine.costs import CostFilter, CostPage
from circuit.engine.engine import Engine
from circuit.engine.feedback import FeedbackFilter
from circuit.errors import InvalidRequest, NotFound
from circuit.providers.registry import ProviderRegistry
from circuit.security.principal import LOCAL, Principal
from circuit.storage.database import Database

DESK = """
workflow: desk
places: {asked: {initial: true}, drafted: {}, told: {terminal: true}}
agents:
  writer:
    llm_provider: {type: scripted, model: dear, responses: ["a long answer", "b"], price: {input: 0, output: 1000000}}
    tools: [{agent: helper}]
  helper:
    description: Helps.
    llm_provider: {type: custom, model: gpt-4.1-mini, base_url: "http://127.0.0.1:9"}
  checker:
    llm_provider: {type: scripted, model: free, responses: ["fine"]}
transitions:
  write:
    from_places: asked
    to_place: drafted
    agent_execution: {agent_id: writer}
  check:
    from_places: drafted
    to_place: told
    agent_execution: {agent_id: checker}
"""


async def page(running: Engine, *by: str, **options: Any) -> CostPage:
    chosen = CostFilter(**{name: options.pop(name) for name in list(options) if name not in ("limit", "after")})
    return await running.costs.page(LOCAL, chosen, by, **options)


async def test_costs_are_told_apart_and_add_up(database: Database) -> None:
    registry, began = ProviderRegistry({}), datetime.now(UTC)
    async with engine(database, {"agent": AgentAction(registry)}) as running:
        await publish(running, DESK)
        await publish(running, DESK.replace("workflow: desk", "workflow: other"))
        keys = [await start(running, name) for name in ("desk", "desk", "other")]
        for key in keys:
            await until(running, key, "completed")
        # A call whose price is not known, one that was cached, and one of an attempt that came to nothing.
        connection = await database.raw()
        answer = '{"text": "x", "model": "secret-model", "usage": {"input_tokens": 7, "output_tokens": 2}'
        await connection.execute(
            "INSERT INTO circuit.journal (tenant_id, case_id, firing, attempt, step, value) VALUES"
            f' (1, $1, 1, 7, \'answer:0\', \'{answer}, "agent": "helper", "provider": "custom"}}\'),'
            f" (1, $1, 1, 8, 'answer:0', '{answer[:-2]}0}}, \"cached\": true, \"cost\": 0.0}}'),"
            ' (1, $1, 1, 0, \'tool:answer:0\', \'{"value": {"model": "m", "usage": {}}}\'),'
            ' (1, $1, 1, 0, \'step:mine\', \'{"model": "m", "usage": {"input_tokens": 5}, "cost": 9}\')',
            keys[0].case,
        )
        await connection.close()
        found = await page(running, "agent", "model", "provider")
        rows = {(one.names["agent"], one.names["model"]): one for one in found.entries}
        assert set(rows) == {
            ("writer", "dear"), ("checker", "free"), ("helper", "secret-model"), ("writer", "secret-model")
        }  # fmt: skip
        assert found.entries[0].names == {"agent": "writer", "model": "dear", "provider": "scripted"}
        dear, helper = rows["writer", "dear"], rows["helper", "secret-model"]
        assert (dear.calls, dear.unpriced, dear.usd) == (3, 0, float(dear.output_tokens))
        assert (helper.calls, helper.unpriced, helper.usd, helper.input_tokens) == (1, 1, 0.0, 7)
        assert (rows["checker", "free"].usd, rows["checker", "free"].unpriced) == (0.0, 0), "scripted answers are free"
        cached = rows["writer", "secret-model"]
        assert (cached.calls, cached.cached, cached.unpriced) == (0, 1, 0)
        assert (found.total.calls, found.total.cached, found.total.unpriced) == (7, 1, 1)
        assert found.total.usd == dear.usd and found.total.input_tokens == sum(r.input_tokens for r in found.entries)
        # Pages: the same total on each, and together all entries.
        first = await page(running, "case", limit=2)
        second = await page(running, "case", limit=2, after=first.next)
        assert (len(first.entries), len(second.entries), second.next) == (2, 1, None)
        assert first.total == second.total == found.total
        assert {one.names["case"] for one in (*first.entries, *second.entries)} == {str(key.case) for key in keys}
        assert sum(one.usd for one in (*first.entries, *second.entries)) == pytest.approx(found.total.usd)
        # Chosen, and told apart by day.
        told = (await page(running, "day", workflow_id="other")).entries
        assert {one.names["day"] for one in told} <= {f"{at:%Y-%m-%d}" for at in (began, datetime.now(UTC))}
        assert sum(one.calls for one in told) == 2
        assert (await page(running, case_id=str(keys[1].case), agent_id="checker")).total.calls == 1
        assert (await page(running, provider="custom")).total.calls == 1
        assert (await page(running, model="dear", until=datetime.now(UTC) - timedelta(hours=1))).total.calls == 0
        other = await running.costs.page(Principal("x", 2, frozenset({"viewer"})), CostFilter(), ("case",))
        assert (other.total.calls, other.entries) == (0, []), "another tenant sees none of it"
        for by, options, error in (
            (("colour",), {}, InvalidRequest),
            (("day", "day"), {}, InvalidRequest),
            (("day",), {"after": "-1"}, InvalidRequest),
            (("day",), {"limit": 0}, InvalidRequest),
            (("day",), {"since": datetime.now(UTC), "until": datetime(2025, 1, 1, tzinfo=UTC)}, InvalidRequest),
            (("day",), {"case_id": "x"}, NotFound),
        ):  # fmt: skip
            with pytest.raises(error):
                await page(running, *by, **options)
        # What was said of them, with the versions that it is about.
        for number, key in enumerate(keys):
            principal = Principal(f"person {number}", 1, frozenset({"operator"}))
            await running.commands.give_feedback(key, 2, principal=principal, score=number, comment="hm")
        listed = await running.feedback.page(LOCAL, FeedbackFilter(workflow_id="desk", agent_id="checker"), 1)
        assert [one.view.subject for one in listed] == ["person 1"]
        rest = await running.feedback.page(LOCAL, FeedbackFilter(workflow_id="desk"), 9, listed[0].view.id)
        assert [one.view.subject for one in rest] == ["person 0"]
        shown = [one.as_dict() async for one in running.feedback.all(LOCAL, FeedbackFilter(by="person 2"))]
        assert shown[0]["execution_id"] == f"{keys[2].case}.2" and shown[0]["provenance"]["prompt_hash"]
        assert await running.feedback.page(LOCAL, FeedbackFilter(agent_id="writer"), 9) == []
    await registry.aclose()
