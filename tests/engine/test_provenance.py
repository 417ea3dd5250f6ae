"""Where the result of an execution comes from, and what people say of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from circuit.app import Circuit
from circuit.definition import load_workflow
from circuit.engine.calls import action_config, descriptor
from circuit.engine.provenance import ExecutionRecord, FeedbackView, execution_key, found_record
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import DEFAULT_TENANT, CaseKey
from circuit.security.principal import Principal
from tests.cli.commanding import Command
from tests.cli.conftest import bare, circuit

__all__ = ["bare", "circuit"]

WORKFLOW = """
workflow: judged
places: {begin: {initial: true}, end: {terminal: true}}
agents:
  judge:
    name: Judge
    description: Judges.
    llm_provider: {type: scripted, model: fair, responses: ["a verdict"]}
    llm_config: {temperature: 0.5}
    prompts: {user_template: "Judge {token_id}"}
transitions:
  judge: {from_places: begin, to_place: end, agent_execution: {agent_id: judge}}
"""


async def seen(opened: Circuit, execution_id: str) -> ExecutionRecord:
    key, firing = execution_key(execution_id, DEFAULT_TENANT)
    return found_record(execution_id, await opened.queries.execution(key, firing))


async def rate(opened: Circuit, execution_id: str, score: float | None = None, comment: str = "") -> FeedbackView:
    key, firing = execution_key(execution_id, DEFAULT_TENANT)
    return await opened.commands.give_feedback(key, firing, principal=opened.principal, score=score, comment=comment)


async def test_an_execution_keeps_what_it_used_and_what_was_said_of_it(database_url: str) -> None:
    async with Circuit.open(database_url) as opened:
        workflow = await opened.load(WORKFLOW)
        case = (await opened.wait(await opened.start(workflow.id, {}))).case_id
        found = await seen(opened, f"{case}.1")
        agent = workflow.agents["judge"]
        shown = found.as_dict()
        assert shown["provenance"] == {
            "agent_id": "judge",
            "agent_hash": agent.hash,
            "prompt_hash": agent.prompt_hash,
            "provider": "scripted",
            "model": "fair",
            "parameters": {"temperature": 0.5},
        }
        assert (shown["status"], shown["attempts"], shown["starts"], shown["crashes"]) == ("completed", 1, 1, 0)
        assert (shown["case_id"], shown["workflow"], shown["workflow_hash"]) == (case, "judged", workflow.hash)
        [answer] = shown["answers"]
        assert (answer["attempt"], answer["model"]) == (1, "fair") and answer["usage"] == shown["usage"]
        assert shown["feedback"] == []

        # The case has ended, and takes feedback all the same.
        first = await rate(opened, f"{case}.1", 1.0, "right")
        await rate(opened, f"{case}.1", comment="or is it?")
        assert [(one.score, one.comment, one.subject) for one in (await seen(opened, f"{case}.1")).feedback] == [
            (1.0, "right", "local"),
            (None, "or is it?", "local"),
        ]
        assert first.as_dict()["by"] == "local"

        key = CaseKey(DEFAULT_TENANT, opened.key(case).case)
        given = [
            await opened.commands.give_feedback(key, 1, principal=opened.principal, score=score, idempotency_key="k")
            for score in (0.5, 0.5)
        ]
        assert given[0] == given[1], "asked again with the same key, it is what was added first"
        with pytest.raises(Conflict):
            await opened.commands.give_feedback(key, 1, principal=opened.principal, score=-1.0, idempotency_key="k")
        with pytest.raises(NotFound):
            await opened.commands.give_feedback(
                key, 1, principal=Principal("other", 2, frozenset({"operator"})), score=1.0
            )
        for execution in (f"{case}.2", "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.1"):
            with pytest.raises(NotFound):
                await rate(opened, execution, 1.0)
        for score, comment in ((None, ""), (float("nan"), ""), (float("inf"), "x"), (1.0, "x" * 10_001), (1.0, "\0")):
            with pytest.raises(InvalidRequest):
                await rate(opened, f"{case}.1", score, comment)
        with pytest.raises(InvalidRequest, match="not the id of an execution"):
            await seen(opened, case)
    connection = await asyncpg.connect(database_url)
    with pytest.raises(asyncpg.PostgresError, match="feedback never changes") as refused:
        await connection.execute("UPDATE circuit.feedback SET score = 5")
    assert refused.value.sqlstate == "CT001"
    await connection.close()


def test_what_a_case_changes_of_an_agent_is_named() -> None:
    """The hashes are those of the definition: without the names, they would tell of prompts that were not asked."""
    workflow = load_workflow(WORKFLOW, "judged.yaml")
    changes = {"llm_config": {"temperature": 0.0}, "cache": {"ttl": 60}}
    row: Any = SimpleNamespace(parameters={"agents": {"judge": changes}})
    told = descriptor(action_config(workflow, workflow.actions["judge"], row))
    assert told["changed"] == ["cache", "llm_config"] and told["parameters"] == {"temperature": 0.0}


def test_the_command_shows_and_rates(circuit: Command, database_url: str) -> None:
    async def run() -> str:
        async with Circuit.open(database_url) as opened:
            workflow = await opened.load(WORKFLOW)
            return (await opened.wait(await opened.start(workflow.id, {}))).case_id

    case = asyncio.run(run())
    rated = circuit("executions", "rate", f"{case}.1", "--score", "-1", "--comment", "missed the date", "--json")
    assert (rated.code, rated.json["score"], rated.json["comment"]) == (0, -1.0, "missed the date")
    shown = circuit("executions", "show", f"{case}.1")
    assert shown.code == 0
    for text in ("is completed", "model: fair", "agent_hash: ", "answer 1/", "feedback -1 ", "local: missed the date"):
        assert text in shown.out, shown.out
    assert circuit("executions", "show", f"{case}.1", "--json").json["feedback"][0]["by"] == "local"
    assert circuit("executions", "show", f"{case}.7").code == 2
    assert circuit("executions", "rate", f"{case}.1").code == 2
