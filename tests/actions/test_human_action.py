"""Tasks for people: a firing that waits without a worker, completed once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from circuit import Circuit
from circuit.definition import load_workflow
from circuit.engine.commands import OutcomeState
from circuit.errors import Conflict, DefinitionError
from circuit.security.principal import Principal
from circuit.settings import Settings

WORKFLOW = """
workflow: invoice
places:
  received: {initial: true}
  paid: {terminal: true}
  unpaid: {dead_letter: true}
transitions:
  check:
    from_places: received
    to_place: paid
    action:
      type: human
      title: "Check invoice {number}"
      instructions: "Does {invoice} say what was ordered?"
      roles: [accountant]
      form: {type: object, required: [approved], properties: {approved: {type: boolean}, note: {type: string}}}
      input_mapping: {number: data.number, invoice: data.invoice}
      output_mapping: {data.approved: approved, data.by: completed_by, data.note: {path: note, optional: true}}
    on_failure: unpaid
"""
DATA = {"number": 7, "invoice": {"sum": 12}}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Circuit]:
    settings = Settings.from_environment({"CIRCUIT_DATABASE_URL": url, "CIRCUIT_LEASE_SECONDS": "20"})
    async with Circuit.open(settings=settings, stop_seconds=0.2) as circuit:
        yield circuit


async def test_a_task_is_listed_and_completed_once(database_url: str) -> None:
    async with opened(database_url) as circuit:
        workflow = await circuit.load(WORKFLOW)
        case = await circuit.start(workflow.id, DATA)
        waiting = await asyncio.wait_for(circuit.wait(case), 60)
        assert waiting.status == "waiting" and waiting.executions[0].status == "suspended"
        [task] = await circuit.tasks(role="accountant")
        assert (task.id, task.title) == (f"{case}.1", "Check invoice 7")
        assert task.instructions == 'Does {"sum":12} say what was ordered?'
        assert task.inputs == DATA and task.roles == ("accountant",) and task.due_at is None
        assert "approved" in task.form["properties"]
        assert await circuit.tasks(role="author") == await circuit.tasks(workflow_id="other") == []
        assert [one.id for one in await circuit.tasks(case_id=case)] == [task.id]

        refused = await circuit.complete(task.id, {"approved": "perhaps"})
        assert refused.state is OutcomeState.REFUSED and "approved" in refused.result["error"]["message"]
        circuit.principal = Principal("eve", roles=frozenset({"author", "operator"}))
        stranger = await circuit.complete(task.id, {"approved": True})
        assert stranger.result["error"]["code"] == "forbidden"

        async def by(name: str) -> str:
            circuit.principal = Principal(name, roles=frozenset({"accountant", "operator"}))
            try:
                outcome = await circuit.complete(task.id, {"approved": True, "note": name})
            except Conflict:
                return "conflict"
            return outcome.result.get("error", {}).get("code", name)

        ends = await asyncio.gather(by("ada"), by("ben"), by("cyd"))
        assert ends.count("conflict") == 2
        [winner] = [end for end in ends if end != "conflict"]
        done = await asyncio.wait_for(circuit.wait(case), 60)
        assert done.marking == {"paid": 1}
        assert done.tokens[0].data == {**DATA, "approved": True, "by": winner, "note": winner}
        assert await circuit.tasks() == []


async def test_a_task_that_nobody_completes_in_time_fails(database_url: str) -> None:
    async with opened(database_url) as circuit:
        workflow = await circuit.load(WORKFLOW.replace("type: human", "type: human\n      timeout_seconds: 0.1"))
        done = await asyncio.wait_for(circuit.wait(await circuit.start(workflow.id, DATA)), 60)
        assert done.marking == {"unpaid": 1}
        assert done.tokens[0].metadata["failure"]["code"] == "timeout"
        assert "nobody completed the task within 0.1 s" in done.tokens[0].metadata["failure"]["message"]


async def test_a_task_waits_over_restarts_and_a_cancelled_case_takes_none(database_url: str) -> None:
    async with opened(database_url) as circuit:
        workflow = await circuit.load(WORKFLOW)
        first, second = [await circuit.start(workflow.id, DATA) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(circuit.wait(first), circuit.wait(second)), 60)
    async with opened(database_url) as circuit:
        await circuit.cancel(second)
        with pytest.raises(Conflict):
            await circuit.complete(f"{second}.1", {"approved": True})
        assert [task.id for task in await circuit.tasks()] == [f"{first}.1"]
        await circuit.complete(f"{first}.1", {"approved": False})
        done = await asyncio.wait_for(circuit.wait(first), 60)
    assert done.tokens[0].data["approved"] is False and done.tokens[0].data["by"] == "local"


def test_what_is_at_fault_in_a_task() -> None:
    for written, meant in (
        ("{invoice}", "{invoise}"),
        ("approved: {type: boolean}", "approved: {type: bool}"),
        ("data.approved: approved", "data.approved: aproved"),
    ):
        with pytest.raises(DefinitionError):
            load_workflow(WORKFLOW.replace(written, meant), "f")
    loaded = load_workflow(WORKFLOW, "f")
    assert loaded.actions["check"].timeout_seconds == 300 and "wait_seconds" not in loaded.actions["check"].config
    limited = load_workflow(WORKFLOW.replace("type: human", "type: human\n      timeout_seconds: 2d"), "f")
    assert limited.actions["check"].config["wait_seconds"] == 172_800
    assert replace(limited.actions["check"], config={}) == replace(loaded.actions["check"], config={})
