"""What rules of redaction do at the doors of the server: each tells the same, and what is data stays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from driven import Server, driven
from eventually import eventually
from websockets.asyncio.client import connect

from circuit.settings import Settings

RULES = "redaction: [email, {name: payment_card, kind: payment_card, where: [events]}]"
OFFICE = """
workflow: office
redaction: [{name: customer, pattern: 'KD-\\d{3}', where: [events]}]
outbox: [firing_failed]
places: {asked: {initial: true}, checked: {}, gone: {terminal: true}, done: {terminal: true}}
agents:
  clerk:
    name: Clerk
    llm_provider:
      type: scripted
      chunk_size: 3
      responses:
        - {when: broken, error: provider_refused, message: "no bob@example.com, KD-123"}
        - {when: ada, response: "To ada@example.com, 4111 1111 1111 1111 (KD-123).", reasoning: "Is it eve@example.com"}
        - {when: "[email]", response: "Hidden, ada@example.com."}
    redaction: [{kind: us_ssn, where: [events]}]
transitions:
  check:
    from_places: asked
    to_place: checked
    action: {type: human, title: "Check {mail}", input_mapping: {mail: data.mail}, output_mapping: {data.ok: ok},
             form: {type: object, properties: {ok: {type: boolean}}}}
  write:
    from_places: checked
    to_place: done
    agent_execution: {agent_id: clerk, input_mapping: {task: data.task}, output_mapping: {data.said: text}}
    on_failure: gone
"""
SHOWN = "To [email], [payment_card] ([customer])."
LOAD = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { hash } }"
START = 'mutation ($token: TokenInput) { startCase(workflowId: "office", token: $token) { caseId } }'
COMPLETE = "mutation ($id: String!) { completeTask(taskId: $id, form: {ok: true}) { state } }"
TASKS = "{ humanTasks { taskId title inputs } }"
CASE = """query ($id: String!) { case(id: $id) {
  status tokens { data } history { event } executions { error } incidents { message } } }"""
STREAM = """subscription ($id: String!) { agentExecutionStream(executionId: $id) {
  eventType content status result finalResponse error cursor } }"""
ASK = 'mutation ($input: JSON!) { executeAgent(agentId: "clerk", input: $input) { executionId } }'
SECRETS = ("ada@", "bob@", "eve@", "4111", "KD-123")


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    file = tmp_path / "redaction.yaml"
    file.write_text(RULES)
    settings = Settings.from_environment(
        {"CIRCUIT_HOME": str(tmp_path), "CIRCUIT_DATABASE_URL": database_url, "CIRCUIT_REDACTION": str(file)}
    )
    async with driven(database_url, settings=settings) as running:
        await running.ok(LOAD, yaml=OFFICE)
        yield running


def clean(text: str) -> str:
    assert not [secret for secret in SECRETS if secret in text], text
    return text


async def sse(server: Server, path: str, body: Any = None) -> list[str]:
    method = "GET" if body is None else "POST"
    async with server.client.stream(method, f"{server.url}{path}", json=body) as answer:
        return [line.removeprefix("data: ") async for line in answer.aiter_lines() if line.startswith("data: ")]


async def told(server: Server, execution: str) -> list[dict[str, Any]]:
    """The frames of an execution, which every door gives alike."""
    frames = await sse(server, f"/agent-stream/{execution}")
    address = "ws" + server.url.removeprefix("http")
    async with connect(f"{address}/agent-stream/{execution}") as client:
        assert [str(frame) async for frame in client] == frames
    events = [json.loads(clean(frame)) for frame in frames]
    # From any cursor on, the same bytes.
    middle = len(events) // 2
    again = await sse(server, f"/agent-stream/{execution}?after={events[middle]['cursor']}")
    assert again == frames[middle + 1 :]
    async with server.subscribed(STREAM, id=execution) as stream:
        said = [one["agentExecutionStream"] async for one in stream]
    clean(json.dumps(said))
    assert [one["cursor"] for one in said] == [one["cursor"] for one in events]
    return events


async def test_every_door_tells_the_same_and_tokens_stay(server: Server) -> None:
    case = (await server.ok(START, token={"data": {"mail": "ada@example.com", "task": "write to ada"}}))["caseId"]
    await eventually(lambda: server.ok(TASKS))
    # Another version has other rules; this case stays with its own.
    await server.ok(LOAD, yaml=OFFICE.replace("customer", "client").replace("kind: us_ssn", "kind: iban"))
    [task] = await server.ok(TASKS)
    assert "ada@example.com" in json.dumps(task), "whoever decides sees what it is about"
    await server.ok(COMPLETE, id=task["taskId"])
    await server.circuit.wait(case)
    events = await told(server, f"{case}.2")
    assert "".join(one["content"] for one in events if one["eventType"] == "content_chunk") == SHOWN
    assert "".join(one.get("content", "") for one in events if one["eventType"] == "thinking") == "Is it [email]"
    assert events[-1]["final_response"] == SHOWN
    view = await server.ok(CASE, id=case)
    assert view["tokens"][0]["data"]["said"] == "To ada@example.com, 4111 1111 1111 1111 (KD-123)."
    clean(json.dumps(view["history"]))
    figures = (await server.client.get(f"{server.url}/metrics")).text
    assert 'circuit_redactions_total{rule="customer",where="events"}' in figures
    clean(figures)


async def test_errors_are_redacted_where_they_are_stored(server: Server) -> None:
    case = (await server.ok(START, token={"data": {"mail": "x", "task": "broken"}}))["caseId"]
    await eventually(lambda: server.ok(TASKS))
    [task] = await server.ok(TASKS)
    await server.ok(COMPLETE, id=task["taskId"])
    await server.circuit.wait(case)
    events = await told(server, f"{case}.2")
    assert "no [email], [customer]" in events[-1]["error"]["message"]
    view = await server.ok(CASE, id=case)
    assert "no [email], [customer]" in clean(json.dumps(view))


async def test_agents_that_are_asked_alone_answer_as_their_stream_does(server: Server) -> None:
    messages = [{"role": "user", "content": "for ada"}]
    body: dict[str, Any] = {"model": "agent:clerk", "messages": messages}
    whole = await server.client.post(f"{server.url}/v1/chat/completions", json=body)
    shown = SHOWN.replace("[customer]", "KD-123")
    assert whole.json()["choices"][0]["message"]["content"] == shown
    chunks = await sse(server, "/v1/chat/completions", {**body, "stream": True})
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks if chunk != "[DONE]"]
    assert "".join(delta.get("content") or "" for delta in deltas) == shown
    # The prompt went out without the address, or the script would have answered something else.
    asked = await server.ok(ASK, input="is it eve@example.com?")
    await server.circuit.wait(asked["executionId"].partition(".")[0])
    events = await told(server, asked["executionId"])
    assert events[-1]["final_response"] == "Hidden, [email]."
    failed = await server.client.post(
        f"{server.url}/v1/chat/completions", json={**body, "messages": [{"role": "user", "content": "broken"}]}
    )
    assert failed.status_code == httpx.codes.BAD_REQUEST
    assert "no [email]" in failed.json()["error"]["message"]
