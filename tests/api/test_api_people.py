"""What waits for people, and what went wrong, over GraphQL: tasks, calls of tools, incidents, feedback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from driven import Server, driven
from eventually import eventually

from circuit.settings import Settings

OFFICE = """
workflow: office
places:
  asked: {initial: true, roles: [accountant]}
  checked: {}
  signed: {}
  done: {terminal: true}
  lost: {dead_letter: true}
agents:
  clerk:
    llm_provider:
      type: scripted
      responses:
        - - {tool_calls: [{name: fs.write_file, arguments: {path: a.txt, content: "yes"}}], response: ""}
          - "It is written."
    tools: [fs.*]
    policies: [{require_approval: fs.write_file}]
transitions:
  check:
    from_places: asked
    to_place: checked
    rules:
      - {id: has-text, description: There is something to check, field_exists: data.text}
    conditions: ["data.size < 3"]
    action:
      type: human
      title: "Check {text}"
      form: {type: object, required: [approved], properties: {approved: {type: boolean}}}
      input_mapping: {text: data.text}
      output_mapping: {data.approved: approved, data.by: completed_by}
  write:
    from_places: checked
    to_place: signed
    agent_execution: {agent_id: clerk, output_mapping: {data.said: text}}
  file:
    from_places: signed
    to_place: done
    trigger: {type: manual}
"""
BROKEN = """
workflow: broken
places: {begin: {initial: true}, end: {terminal: true}}
transitions:
  work:
    from_places: begin
    to_places: [{place: end, data: {half: "100 / data.n"}}]
"""
START = "mutation ($id: String!, $data: JSON) { startCase(workflowId: $id, token: {data: $data}) { caseId } }"
LOAD = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }"
COMPLETE = """mutation ($id: String!, $form: JSON, $key: String) {
  completeTask(taskId: $id, form: $form, idempotencyKey: $key) { state result } }"""


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with driven(database_url, settings=settings) as running:
        await running.ok(LOAD, yaml=OFFICE)
        await running.ok(LOAD, yaml=BROKEN)
        yield running


async def answers(server: Server, query: str, **variables: Any) -> list[Any]:
    """What a list has in it, as soon as it has something in it."""
    found: list[Any] = []

    async def some() -> bool:
        found[:] = await server.ok(query, **variables)
        return bool(found)

    await eventually(some)
    return found


TASKS = "query ($role: String) { humanTasks(role: $role) { taskId caseId workflow title roles form inputs } }"
APPROVALS = "{ toolApprovals { executionId call agentId toolName arguments roles } }"


async def test_a_task_is_completed_once_by_one_of_two(server: Server) -> None:
    case = (await server.ok(START, id="office", data={"text": "a bill", "size": 2}))["caseId"]
    [task] = await answers(server, TASKS)
    assert (task["taskId"], task["title"], task["roles"]) == (f"{case}.1", "Check a bill", ["accountant"])
    assert task["inputs"] == {"text": "a bill"}
    assert await server.ok(TASKS, role="author") == []
    assert [one["taskId"] for one in await server.ok(TASKS, role="accountant")] == [task["taskId"]]
    assert await server.code(COMPLETE, id=task["taskId"], form={"approved": "perhaps"}) == "invalid_request"
    assert await server.code(COMPLETE, id=task["taskId"], form=[1]) == "invalid_request"
    assert await server.code(COMPLETE, id=f"{case}.99", form={}) == "not_found"
    assert await server.code(COMPLETE, id="nothing", form={}) == "not_found"
    assert (
        await server.code("mutation ($id: String!) { approveToolCall(executionId: $id) { state } }", id=task["taskId"])
    ) == "conflict"

    both = await asyncio.gather(
        *(server.post(COMPLETE, id=task["taskId"], form={"approved": True}, key=key) for key in ("mine", "yours"))
    )
    refused = [one["errors"][0]["extensions"]["code"] for one in both if "errors" in one]
    assert refused == ["conflict"]
    key = next(key for key, one in zip(("mine", "yours"), both, strict=True) if "errors" not in one)
    again = await server.ok(COMPLETE, id=task["taskId"], form={"approved": True}, key=key)
    assert again["state"] == "applied", "asked again with its key, it answers as it did"
    assert await server.code(COMPLETE, id=task["taskId"], form={"approved": True}) == "conflict"
    assert await server.ok(TASKS) == []

    [approval] = await answers(server, APPROVALS)
    assert (approval["agentId"], approval["toolName"]) == ("clerk", "fs.write_file")
    assert approval["arguments"] == {"path": "a.txt", "content": "yes"}
    [clerk] = await server.ok("{ agents { toolAccess { tool access policies { policy says } } } }")
    access = {one["tool"]: (one["access"], one["policies"]) for one in clerk["toolAccess"]}
    assert access["fs.write_file"] == ("needs_approval", [{"policy": 1, "says": "asks for approval of fs.write_file"}])
    assert access["fs.read_file"] == ("allowed", [])
    refuse = """mutation ($id: String!, $call: String) {
      refuseToolCall(executionId: $id, reason: "not today", call: $call) { state } }"""
    assert await server.code(refuse, id=approval["executionId"], call="of earlier") == "conflict"
    assert (await server.ok(refuse, id=approval["executionId"], call=approval["call"]))["state"] == "applied"
    assert await server.ok(APPROVALS) == []
    laid = 'query ($id: String!) { tokensInPlace(caseId: $id, placeId: "signed") { id data } }'
    [token] = await answers(server, laid, id=case)
    assert token["data"]["said"] == "It is written." and token["data"]["by"] == "local"

    rate = """mutation ($id: String!) {
      giveFeedback(executionId: $id, score: 0.5, comment: "fair", idempotencyKey: "k") { feedbackId by } }"""
    given = await server.ok(rate, id=approval["executionId"])
    assert await server.ok(rate, id=approval["executionId"]) == given
    seen = await server.ok(
        """query ($id: String!) { agentExecution(id: $id) {
          caseId workflow status provenance answers { step model } feedback { score comment by } } }""",
        id=approval["executionId"],
    )
    assert (seen["caseId"], seen["workflow"], seen["status"]) == (case, "office", "completed")
    assert seen["feedback"] == [{"score": 0.5, "comment": "fair", "by": "local"}]
    assert [one["model"] for one in seen["answers"] if one["model"]] == ["scripted", "scripted"]
    assert seen["provenance"]["agent_id"] == "clerk"
    runs = await server.ok("query ($id: String!) { tokenExecutions(tokenId: $id) { transition } }", id=f"{case}.1")
    assert [one["transition"] for one in runs] == ["check", "write"]
    listed = '{ executions(agentId: "clerk") { executionId } }'
    assert await server.ok(listed) == [{"executionId": approval["executionId"]}]


async def test_the_rules_say_what_they_think_of_a_token(server: Server) -> None:
    case = (await server.ok(START, id="office", data={"size": 7}))["caseId"]
    token = f"{case}.1"
    [ruling] = await server.ok(
        """query ($id: String!) { evaluateRules(tokenId: $id) {
          transition holds complete rules { rule description holds faulty reasons } } }""",
        id=token,
    )
    assert (ruling["transition"], ruling["holds"], ruling["complete"]) == ("check", False, True)
    assert [(rule["rule"], rule["holds"], rule["faulty"]) for rule in ruling["rules"]] == [
        ("has-text", False, False),
        ("data.size < 3", False, False),
    ]
    assert ruling["rules"][0]["description"] == "There is something to check"
    assert "data.text is missing" in ruling["rules"][0]["reasons"][0]
    available = "query ($id: String!) { availableTransitions(tokenId: $id) { transition enabled reasons { kind } } }"
    [one] = await server.ok(available, id=token)
    assert (one["transition"], one["enabled"], one["reasons"][0]["kind"]) == ("check", False, "guard")
    assert await server.ok(available, id=f"{case}.9") == []
    found = await server.ok("query ($id: String!) { token(id: $id) { place version } }", id=token)
    assert found == {"place": "asked", "version": 1}


INCIDENTS = "query ($after: String) { incidents(first: 2, after: $after) { id caseId incident code tokens } }"


async def test_incidents_are_put_right_one_and_many(server: Server) -> None:
    cases = [(await server.ok(START, id="broken", data={"n": 0}))["caseId"] for _ in range(4)]

    async def all_there() -> bool:
        return len(await server.ok("{ incidents(first: 10) { id } }")) == 4

    await eventually(all_there)
    page = await server.ok(INCIDENTS)
    rest = await server.ok(INCIDENTS, after=page[-1]["id"])
    assert [one["caseId"] for one in page + rest] == sorted(cases)
    assert page[0]["tokens"] == [f"{page[0]['caseId']}.1"]
    resolve = """mutation ($case: String!, $set: JSON!) {
      resolveIncident(caseId: $case, incident: 1, set: $set) { state } }"""
    assert await server.code(resolve, case=cases[0], set={"other": 1}) == "invalid_request"
    assert await server.code(resolve, case=cases[0], set=7) == "invalid_request"
    assert (await server.ok(resolve, case=cases[0], set={"data.n": 4}))["state"] == "applied"
    assert await server.code(resolve, case=cases[0], set={"data.n": 4}) == "conflict"

    retry_all = """mutation ($rate: Float!, $first: Int!) {
      retryAllIncidents(workflowId: "broken", rate: $rate, first: $first) { asked applied refused endCursor } }"""
    assert await server.code(retry_all, rate=0, first=1) == "invalid_request"
    assert await server.code(retry_all, rate=0.01, first=100) == "invalid_request"
    begun = asyncio.get_running_loop().time()
    told = await server.ok(retry_all, rate=20, first=3)
    assert (told["asked"], told["applied"] + told["refused"]) == (3, 3)
    assert told["endCursor"] is not None
    assert asyncio.get_running_loop().time() - begun >= 0.1, "the third is asked a tenth of a second after the first"
    again = "{ incidents(first: 10) { id incident } }"

    async def raised_again() -> bool:
        return sorted(one["incident"] for one in await server.ok(again)) == [2, 2, 2]

    await eventually(raised_again)
    put_right = """mutation { resolveAllIncidents(set: {data_n: 1}, rate: 100) { asked refused refusals } }"""
    told = await server.ok(put_right)
    assert told["asked"] == told["refused"] == 3 and "data_n" in next(iter(told["refusals"]))
    told = await server.ok(
        "mutation ($set: JSON!) { resolveAllIncidents(set: $set, rate: 100) { asked applied endCursor } }",
        set={"data.n": 5},
    )
    assert told == {"asked": 3, "applied": 3, "endCursor": None}
    ended = '{ cases(workflowId: "broken", status: "completed") { caseId incidents { incident resolvedBy } } }'

    async def all_ended() -> bool:
        return len(await server.ok(ended)) == 4

    await eventually(all_ended)
