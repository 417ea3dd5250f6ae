"""What is shown of workflows and cases, and why a case is where it is."""

from __future__ import annotations

from typing import Any

import pytest
from eventually import eventually
from parts import Doing, at_once, for_ever
from running import CHAIN, MANUAL, REVIEW, WITHOUT_WAY_OUT, engine, publish, start, until

from circuit.errors import InvalidRequest
from circuit.ids import CaseKey
from circuit.storage.database import Database

GATED = """
workflow: gated
places:
  begin: {initial: true}
  full: {capacity: 1}
  end: {terminal: true}
transitions:
  rich: {from_places: begin, to_place: end, rules: [{id: enough, field_greater_than: {field: data.amount, value: 100}}]}
"""


async def test_what_is_not_there_is_none_or_empty(database: Database) -> None:
    async with engine(database, worker=False) as running:
        nobody = CaseKey(1, running.commands._ids.uuid())
        assert await running.queries.case(nobody) is None
        assert await running.queries.why(nobody) is None
        assert await running.queries.workflow(1, "none") is None
        assert await running.queries.workflows(1) == []
        assert await running.queries.cases(1) == []


async def test_a_case_is_shown_as_the_doors_promise(database: Database) -> None:
    async with engine(database, {"agent": Doing(at_once)}) as running:
        workflow = await publish(running, REVIEW)
        key = await start(running, "review", {"text": "x"})
        shown = (await until(running, key, "completed")).as_dict()
    assert list(shown) == [
        "case_id",
        "status",
        "workflow",
        "workflow_hash",
        "started_at",
        "finished_at",
        "trace_id",
        "marking",
        "tokens",
        "history",
        "incidents",
        "executions",
    ]
    assert (shown["case_id"], shown["status"], shown["workflow"]) == (str(key.case), "completed", "review")
    assert shown["workflow_hash"] == workflow.hash
    assert shown["marking"] == {"reviewed": 1}
    assert shown["tokens"] == [
        {"id": f"{key.case}.1", "place": "reviewed", "data": {"text": "x", "answer": "yes"}, "metadata": {}}
    ]
    history = shown["history"]
    assert [(item["seq"], item["kind"]) for item in history] == [
        (1, "case_started"),
        (2, "firing_begun"),
        (3, "transition_fired"),
        (4, "case_ended"),
    ]
    assert all(item["at"].endswith("Z") for item in history)
    assert history[1]["transition"] == "review"
    assert history[1]["execution_id"] == history[2]["execution_id"] == f"{key.case}.1"
    assert history[2]["consumed"] == [{"id": f"{key.case}.1", "version": 1, "place": "open"}]
    assert history[2]["produced"] == [{"id": f"{key.case}.1", "version": 2, "place": "reviewed"}]
    execution = shown["executions"][0]
    assert (execution["execution_id"], execution["status"]) == (f"{key.case}.1", "completed")
    assert (execution["transition"], execution["agent_id"], execution["model"]) == ("review", "reviewer", "any")


async def test_cases_are_listed_youngest_first_by_page_workflow_and_status(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, CHAIN)
        await publish(running, MANUAL)
        ended = [await start(running, "chain") for _ in range(3)]
        waiting = await start(running, "manual")
        for key in ended:
            await until(running, key, "completed")
        await until(running, waiting, "waiting")
        listed = [case.key for case in await running.queries.cases(1)]
        assert sorted(listed, reverse=True) == listed
        assert set(listed) == {*ended, waiting}
        page = await running.queries.cases(1, limit=2)
        rest = await running.queries.cases(1, before=page[-1].key.case)
        assert [case.key for case in page + rest] == listed
        assert {case.key for case in await running.queries.cases(1, workflow_id="chain")} == set(ended)
        assert [case.key for case in await running.queries.cases(1, status="waiting")] == [waiting]
        assert await running.queries.cases(2) == []
        summary = (await running.queries.cases(1, status="waiting"))[0].as_dict()
        assert list(summary) == ["case_id", "status", "workflow", "started_at"]
        with pytest.raises(InvalidRequest, match="waiting"):
            await running.queries.cases(1, status="sleeping")
        with pytest.raises(InvalidRequest):
            await running.queries.cases(1, limit=0)


async def test_workflows_are_shown_in_their_current_version(database: Database) -> None:
    async with engine(database, worker=False) as running:
        first = await publish(running, CHAIN)
        second = await publish(running, CHAIN.replace("workflow: chain", "workflow: chain\nname: Longer chain"))
        assert first.hash != second.hash
        shown = await running.queries.workflow(1, "chain")
        assert shown is not None and (shown.hash, shown.name) == (second.hash, "Longer chain")
        assert [view.id for view in await running.queries.workflows(1)] == ["chain"]


async def test_why_names_the_guard_that_does_not_hold(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, GATED)
        key = await start(running, "gated", {"amount": 7})
        await until(running, key, "stuck")
        found = await running.queries.why(key)
        assert found is not None and found.status == "stuck"
        (rich,) = found.transitions
        assert not rich.enabled
        assert [obstacle.kind for obstacle in rich.obstacles] == ["guard"]
        assert "amount" in rich.obstacles[0].message


async def test_why_names_the_place_that_lacks_a_token_and_how_many(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, CHAIN.replace("first: {from_places: a", "first: {from_places: [a, c]"))
        key = await start(running, "chain")
        await until(running, key, "stuck")
        found = await running.queries.why(key)
        assert found is not None
        first = next(transition for transition in found.transitions if transition.transition == "first")
        assert [(o.kind, o.subject, o.have, o.need) for o in first.obstacles] == [("tokens", "c", 0, 1)]
        assert found.as_dict()["transitions"][0]["reasons"]


async def test_why_names_the_person_and_the_role(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, MANUAL)
        key = await start(running, "manual")
        await until(running, key, "waiting")
        found = await running.queries.why(key)
        assert found is not None
        assert found.transitions[0].enabled
        assert "author" in found.transitions[0].obstacles[0].message
        assert "author" in found.summary


async def test_why_names_what_runs_and_what_waits_for_its_retry(database: Database) -> None:
    failing = True

    async def perform(call: Any, context: Any) -> Any:
        if failing:
            raise ValueError("no")
        return await for_ever(call, context)

    action = Doing(perform)
    retried = REVIEW.replace(
        "output_mapping: {data.answer: answer}",
        "output_mapping: {data.answer: answer}, retry_config: {max_attempts: 2, backoff_seconds: 3600, "
        "retry_on_errors: [action_failed]}",
    )
    async with engine(database, {"agent": action}) as running:
        await publish(running, retried)
        waiting = await start(running, "review")
        case = await until(running, waiting, "waiting")
        assert case.due_at is not None and "due_at" in case.as_dict()
        found = await running.queries.why(waiting)
        assert found is not None
        kinds = [obstacle.kind for obstacle in found.transitions[0].obstacles]
        assert kinds[0] == "retry"
        assert "action_failed" in found.summary and "attempt 2" in found.summary
        failing = False
        runs = await start(running, "review")
        await eventually(lambda: len(action.calls) == 2)
        found = await running.queries.why(runs)
        assert found is not None
        assert found.transitions[0].obstacles[0].kind == "running"
        assert f"{runs.case}.1" in found.summary


async def test_why_names_open_incidents(database: Database) -> None:
    async def perform(call: Any, context: Any) -> Any:
        raise ValueError("broken for good")

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, WITHOUT_WAY_OUT)
        key = await start(running, "review")
        await until(running, key, "attention")
        found = await running.queries.why(key)
        assert found is not None and "1 incident" in found.summary
        assert any(
            obstacle.kind == "incident" and "broken for good" in obstacle.message
            for obstacle in found.transitions[0].obstacles
        )


async def test_why_of_a_case_that_is_over_says_so(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, CHAIN)
        key = await start(running, "chain")
        await until(running, key, "completed")
        found = await running.queries.why(key)
        assert found is not None and found.transitions == () and "completed" in found.summary
