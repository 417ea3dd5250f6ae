"""Streams that are opened before their execution begins: silent until then, through every door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from driven import SECONDS, Server, driven
from eventually import eventually
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

STORY = """
workflow: story
places: {asked: {initial: true}, checked: {}, done: {terminal: true}}
agents:
  teller: {llm_provider: {type: scripted, model: script, responses: [Once upon a time.], chunk_size: 4}}
transitions:
  check: {from_places: asked, to_place: checked, action: {type: human, title: Check it}}
  tell:
    from_places: checked
    to_place: done
    agent_execution: {agent_id: teller, input_mapping: {task: data.task}, output_mapping: {data.told: text}}
"""
LOAD = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { hash } }"
START = 'mutation { startCase(workflowId: "story", token: {data: {task: "a tale"}}) { caseId } }'
TASKS = "{ humanTasks { taskId } }"
COMPLETE = "mutation ($id: String!) { completeTask(taskId: $id, form: {}) { state } }"
CANCEL = "mutation ($id: String!) { cancelCase(caseId: $id) { state } }"
ASK = 'mutation { executeAgent(agentId: "teller", input: "a tale") { executionId } }'
STREAM = "subscription ($id: String!) { agentExecutionStream(executionId: $id) { eventType content cursor } }"


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with driven(database_url) as running:
        await running.ok(LOAD, yaml=STORY)
        yield running


async def lines(answer: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") async for line in answer.aiter_lines() if line.startswith("data: ")]


async def said(client: ClientConnection) -> tuple[list[str], int]:
    frames: list[str] = []
    try:
        while True:
            frames.append(str(await client.recv()))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return frames, closed.rcvd.code


async def started(server: Server) -> tuple[str, str]:
    """A case whose first firing waits for a person: its id, and that of the task."""
    case = (await server.ok(START))["caseId"]
    tasks: list[dict[str, Any]] = []

    async def there() -> bool:
        tasks[:] = [task for task in await server.ok(TASKS) if task["taskId"].startswith(case)]
        return bool(tasks)

    await eventually(there)
    return case, tasks[0]["taskId"]


async def reading(server: Server, count: int) -> None:
    """Wait until so many streams are open."""

    async def open_now() -> bool:
        text = (await server.client.get(f"{server.url}/metrics")).text
        return f"circuit_stream_readers {count}.0" in text.replace("\r", "")

    await eventually(open_now)


async def test_whoever_comes_before_the_agent_hears_all_of_it(server: Server) -> None:
    case, task = await started(server)
    name, sockets = f"{case}.2", "ws" + server.url.removeprefix("http")
    assert (await server.client.get(f"{server.url}/agent-stream/{case}.3")).status_code == httpx.codes.NOT_FOUND
    async with (
        asyncio.timeout(SECONDS),
        server.client.stream("GET", f"{server.url}/agent-stream/{name}") as events,
        connect(f"{sockets}/agent-stream/{name}") as socket,
        server.subscribed(STREAM, id=name) as subscription,
    ):
        assert events.status_code == httpx.codes.OK
        await reading(server, 3)
        await server.ok(COMPLETE, id=task)
        frames = await lines(events)
        assert await said(socket) == (frames, 1000)
        values = [value["agentExecutionStream"] async for value in subscription]
    found = [json.loads(frame) for frame in frames]
    assert (
        "".join(one.get("content") or "" for one in found if one["eventType"] == "content_chunk") == "Once upon a time."
    )
    assert found[-1]["eventType"] == "completed"
    assert [value["cursor"] for value in values] == [one["cursor"] for one in found]


async def test_the_stream_of_what_never_begins_ends_with_its_case(server: Server) -> None:
    case, _ = await started(server)
    sockets = "ws" + server.url.removeprefix("http")
    async with (
        asyncio.timeout(SECONDS),
        server.client.stream("GET", f"{server.url}/agent-stream/{case}.2") as events,
        connect(f"{sockets}/agent-stream/{case}.2") as socket,
    ):
        await reading(server, 2)
        await server.ok(CANCEL, id=case)
        assert await lines(events) == []
        assert await said(socket) == ([], 1000)
    gone = await server.client.get(f"{server.url}/agent-stream/{case}.2")
    assert gone.status_code == httpx.codes.NOT_FOUND


async def test_what_an_agent_was_asked_can_be_heard_at_once(server: Server) -> None:
    for _ in range(3):
        name = (await server.ok(ASK))["executionId"]
        async with server.client.stream("GET", f"{server.url}/agent-stream/{name}") as events:
            assert events.status_code == httpx.codes.OK
            assert json.loads((await lines(events))[-1])["eventType"] == "completed"
