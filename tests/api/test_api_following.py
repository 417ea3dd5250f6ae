"""Subscriptions to what happens: tokens, events of a workflow, tasks, costs; and going on behind a cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from driven import Server, driven
from eventually import eventually
from test_api_people import COMPLETE, LOAD, OFFICE, START, answers

from circuit.settings import Settings


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with driven(database_url, settings=settings) as running:
        await running.ok(LOAD, yaml=OFFICE)
        yield running


FORK = """
workflow: fork
places: {begin: {initial: true}, a: {}, b: {}, c: {}, end: {terminal: true}}
transitions:
  split: {from_places: begin, to_places: [a, b, c]}
  join: {from_places: [a, b, c], to_place: end}
"""
TOKENS = """subscription ($case: String, $workflow: String, $types: [String!], $after: String) {
  tokenUpdates(caseId: $case, workflowId: $workflow, types: $types, after: $after) {
    cursor type tokenId place fromPlace version data event { kind transition } } }"""
TASKS = """subscription ($case: String, $workflow: String, $role: String, $types: [String!], $after: String) {
  humanTasks(caseId: $case, workflowId: $workflow, role: $role, types: $types, after: $after) {
    cursor type taskId by task { title } } }"""
EVENTS = """subscription ($after: String, $kinds: [String!]) {
  workflowEvents(workflowId: "office", after: $after, kinds: $kinds) { cursor caseId event { seq kind } } }"""
COSTS = """subscription ($case: String) { costUpdates(caseId: $case, agentId: "clerk") {
  executionId status agentId usage costUsd } }"""
SAID = """subscription ($id: String!, $types: [String!]) {
  agentExecutionStream(executionId: $id, types: $types) { eventType } }"""
KINDS = 'subscription ($case: String!) { caseEvents(caseId: $case, kinds: ["odd"]) { seq } }'
REFUSE = "mutation ($id: String!) { refuseToolCall(executionId: $id) { state } }"
FIRE = 'mutation ($id: String!) { fireTransition(caseId: $id, transition: "file") { state } }'
WAITS = "{ toolApprovals { executionId } }"


async def test_a_case_is_followed_in_all_its_respects(server: Server) -> None:
    async with (
        server.subscribed(TASKS, workflow="office", role="accountant") as tasks,
        server.subscribed(EVENTS, kinds=["firing_suspended", "case_ended"]) as events,
    ):
        opened = asyncio.ensure_future(anext(tasks))
        heard = asyncio.ensure_future(anext(events))
        await eventually(lambda: _followed(server, 2))
        case = (await server.ok(START, id="office", data={"text": "a bill", "size": 2}))["caseId"]
        task = (await opened)["humanTasks"]
        assert task.pop("cursor")
        assert task == {"type": "open", "taskId": f"{case}.1", "by": None, "task": {"title": "Check a bill"}}

        await server.ok(COMPLETE, id=task["taskId"], form={"approved": True})
        closed = (await anext(tasks))["humanTasks"]
        assert closed.pop("cursor")
        assert closed == {"type": "closed", "taskId": f"{case}.1", "by": "local", "task": None}
        [waiting] = await answers(server, WAITS)
        await server.ok(REFUSE, id=waiting["executionId"])
        async with server.subscribed(TOKENS, case=case, types=["updated"]) as updates:
            moves = [(await anext(updates))["tokenUpdates"] for _ in range(2)]
        await server.ok(FIRE, id=case)
        first = last = (await heard)["workflowEvents"]
        while last["event"]["kind"] != "case_ended":
            last = (await anext(events))["workflowEvents"]
            assert (last["caseId"], last["event"]["kind"] in ("firing_suspended", "case_ended")) == (case, True)
    assert [(one["fromPlace"], one["place"]) for one in moves] == [("asked", "checked"), ("checked", "signed")]
    assert moves[1]["data"]["said"] == "It is written."

    async with server.subscribed(TOKENS, case=case) as updates:
        whole = [one["tokenUpdates"] async for one in updates]
    assert [one["type"] for one in whole] == ["created", "updated", "updated", "updated"]
    assert whole[-1]["event"] == {"kind": "transition_fired", "transition": "file"}
    async with server.subscribed(TOKENS, case=case, after=whole[1]["cursor"]) as updates:
        assert [one["tokenUpdates"] async for one in updates] == whole[2:]
    async with server.subscribed(COSTS, case=case) as updates:
        [cost] = [one["costUpdates"] async for one in updates]
    assert (cost["executionId"], cost["status"], cost["agentId"]) == (waiting["executionId"], "completed", "clerk")
    assert cost["usage"]["output_tokens"] > 0
    async with server.subscribed(SAID, id=waiting["executionId"], types=["tool_call", "completed"]) as said:
        kinds = [one["agentExecutionStream"]["eventType"] async for one in said]
    assert set(kinds) == {"tool_call", "completed"} and kinds[-1] == "completed"

    # Behind the first event's cursor all that follows comes, and perhaps that one again.
    async with server.subscribed(EVENTS, after=first["cursor"]) as events:
        seen: dict[int, str] = {}
        while "case_ended" not in seen.values():
            one = (await anext(events))["workflowEvents"]
            assert one["caseId"] == case
            seen.setdefault(one["event"]["seq"], one["event"]["kind"])
    assert set(range(first["event"]["seq"] + 1, last["event"]["seq"] + 1)) <= seen.keys()


async def test_tokens_are_followed_on_from_between_the_updates_of_one_event(server: Server) -> None:
    await server.ok(LOAD, yaml=FORK)
    case = (await server.ok(START, id="fork", data={}))["caseId"]
    async with server.subscribed(TOKENS, case=case) as updates:
        whole = [one["tokenUpdates"] async for one in updates]
    assert len(whole) == 1 + 4 + 4 and len({one["cursor"] for one in whole}) == len(whole)
    for number, one in enumerate(whole, 1):
        async with server.subscribed(TOKENS, case=case, after=one["cursor"]) as updates:
            assert [two["tokenUpdates"] async for two in updates] == whole[number:]
    async with server.subscribed(TOKENS, case=case, after=whole[1]["cursor"], types=["created"]) as updates:
        assert [one["tokenUpdates"] async for one in updates] == [one for one in whole[2:] if one["type"] == "created"]
    for cursor in ("1+", "+1", "1+1+1", "1+x", "1+0", "m7+1", "1+1000000000"):
        async with server.subscribed(TOKENS, case=case, after=cursor) as updates:
            assert (await anext(updates))["errors"][0]["extensions"]["code"] == "invalid_cursor", cursor


async def test_tasks_are_followed_on_from_any_cursor(server: Server) -> None:
    """Also what was opened or closed while nobody followed; also in the middle of those that were open at first."""
    cases = [(await server.ok(START, id="office", data={"text": str(n), "size": 2}))["caseId"] for n in range(3)]

    async def all_open() -> bool:
        return len(await server.ok("{ humanTasks { taskId } }")) == len(cases)

    await eventually(all_open)
    async with server.subscribed(TASKS, workflow="office") as tasks:
        first = (await anext(tasks))["humanTasks"]
        rest = [(await anext(tasks))["humanTasks"] for _ in cases[1:]]
    assert [first["taskId"], *(one["taskId"] for one in rest)] == [f"{case}.1" for case in reversed(cases)]
    assert {one["type"] for one in (first, *rest)} == {"open"}
    async with server.subscribed(TASKS, workflow="office", after=first["cursor"]) as tasks:
        assert [(await anext(tasks))["humanTasks"] for _ in rest] == rest

    youngest = cases[2]
    await server.ok(COMPLETE, id=f"{youngest}.1", form={"approved": True})
    await server.ok("mutation ($id: String!) { cancelCase(caseId: $id) { state } }", id=cases[1])
    late = (await server.ok(START, id="office", data={"text": "late", "size": 2}))["caseId"]
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    async with server.subscribed(TASKS, workflow="office", after=rest[-1]["cursor"]) as tasks:
        wanted = {(f"{youngest}.1", "closed"), (f"{cases[1]}.1", "closed"), (f"{late}.1", "open")}
        while not wanted <= seen.keys():
            one = (await anext(tasks))["humanTasks"]
            seen[one["taskId"], one["type"]] = one
    assert seen.keys() - wanted <= {(one["taskId"], "open") for one in (first, *rest)}, "what came shortly before"
    assert [seen[f"{case}.1", "closed"]["by"] for case in (youngest, cases[1])] == ["local", None]

    # Of a case: the same events, whoever heard them when, and whatever became of the task meanwhile.
    await server.ok("mutation ($id: String!) { cancelCase(caseId: $id) { state } }", id=youngest)
    async with server.subscribed(TASKS, case=youngest, after="0") as tasks:
        whole = [one["humanTasks"] async for one in tasks]
    assert [(one["type"], one["task"], one["by"]) for one in whole] == [("open", None, None), ("closed", None, "local")]
    for behind, found in ((whole[0]["cursor"], whole[1:]), (whole[1]["cursor"], [])):
        async with server.subscribed(TASKS, case=youngest, after=behind) as tasks:
            assert [one["humanTasks"] async for one in tasks] == found
    for role, found in (("accountant", whole), ("author", [])):
        async with server.subscribed(TASKS, case=youngest, after="0", role=role) as tasks:
            assert [one["humanTasks"] async for one in tasks] == found
    async with server.subscribed(TASKS, case=youngest, after="0", types=["closed"]) as tasks:
        assert [one["humanTasks"] async for one in tasks] == whole[1:]


async def test_what_cannot_be_followed_is_refused_with_a_code(server: Server) -> None:
    nobody = "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11"
    for query, variables, code in (
        (TOKENS, {}, "invalid_request"),
        (TOKENS, {"case": nobody, "workflow": "office"}, "invalid_request"),
        (TOKENS, {"case": nobody}, "not_found"),
        (TOKENS, {"case": "x"}, "not_found"),
        (TOKENS, {"workflow": "nothing"}, "not_found"),
        (TOKENS, {"workflow": "office", "types": ["odd"]}, "invalid_request"),
        (TOKENS, {"workflow": "office", "after": "m999999999999999999"}, "invalid_cursor"),
        (TOKENS, {"workflow": "office", "after": "7"}, "invalid_cursor"),
        (TOKENS, {"case": nobody, "after": "-1"}, "invalid_cursor"),
        (EVENTS, {"kinds": ["odd"]}, "invalid_request"),
        (TASKS, {"workflow": "nothing"}, "not_found"),
        (TASKS, {"workflow": "office", "after": "m1+nothing"}, "invalid_cursor"),
        (TASKS, {"workflow": "office", "after": "+"}, "invalid_cursor"),
        (TASKS, {"workflow": "office", "types": ["odd"]}, "invalid_request"),
        (KINDS, {"case": nobody}, "invalid_request"),
        (SAID, {"id": f"{nobody}.1", "types": ["odd"]}, "invalid_request"),
    ):
        async with server.subscribed(query, **variables) as values:
            [error] = (await anext(values))["errors"]
        assert error["extensions"]["code"] == code, (query, variables, error)


async def _followed(server: Server, count: int) -> bool:
    """Whether so many workflows are followed."""
    broker: Any = server.circuit.streams._broker
    return len(broker._ears) == count
