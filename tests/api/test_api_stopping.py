"""A server that stops while it is asked: nobody is left without a word, and nothing is called over that is not."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import httpx
import pytest
from eventually import eventually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from circuit.api import server as server_module
from circuit.api.openai import endpoint
from circuit.app import Circuit

SECONDS = 120.0
WORKFLOW = """
workflow: slow
places: {open: {initial: true}, done: {terminal: true}}
agents:
  writer:
    llm_provider: {type: scripted, model: s, delay_seconds: 0.05, chunk_size: 1, responses: ["%s"]}
    prompts: {system: You write., user_template: Write}
transitions:
  write: {from_places: open, to_place: done, agent_execution: {agent_id: writer, output_mapping: {data.text: text}}}
""" % ("word " * 1_000)


async def test_who_waits_for_an_answer_is_told_that_it_does_not_come(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "LEAVING_SECONDS", 0.1)
    monkeypatch.setattr(server_module, "GRACE_SECONDS", 3)
    async with Circuit.open(database_url, stop_seconds=0) as circuit, httpx.AsyncClient(timeout=SECONDS) as client:
        await circuit.load(WORKFLOW)
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(circuit.serve("127.0.0.1", 0, ready=told.set_result))
        url = await told
        case = await circuit.start("slow", {})

        async def chat(**more: Any) -> httpx.Response:
            body = {"model": "agent:writer", "messages": [{"role": "user", "content": "x"}], **more}
            return await client.post(f"{url}/v1/chat/completions", json=body)

        async def followed(query: str) -> tuple[list[str], int]:
            """The kinds of messages that a subscription heard, and the code of the close."""
            heard: list[str] = []
            protocols: Any = ["graphql-transport-ws"]
            async with connect(f"ws{url.removeprefix('http')}/graphql", subprotocols=protocols) as socket:
                await socket.send(json.dumps({"type": "connection_init"}))
                await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
                with suppress(ConnectionClosed):
                    while True:
                        heard.append(json.loads(await socket.recv())["type"])
                        begun.add(query)
                return heard, socket.close_code or 0

        async def half() -> bytes:
            """What somebody is told who never sends the rest of his request."""
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: 100\r\n\r\n{")
            answer = await reader.read()
            writer.close()
            return answer

        begun: set[str] = set()
        execution = f'agentExecutionStream(executionId: "{case}.1"'
        queries = [
            f"subscription {{ {execution}) {{ content }} }}",
            f'subscription {{ {execution}, types: ["content_chunk"]) {{ content }} }}',
            'subscription { workflowEvents(workflowId: "slow") { cursor } }',
        ]
        asked = [asyncio.create_task(chat(stream=stream)) for stream in (False, True)]
        halved = asyncio.create_task(half())

        async def running() -> bool:
            views = [await circuit.case(str(one.key.case)) for one in await circuit.cases()]
            return len(views) == 3 and all(view.executions for view in views)

        await eventually(running)
        following = [asyncio.create_task(followed(query)) for query in queries]
        await eventually(lambda: len(begun) == 3)
        with caplog.at_level(logging.WARNING):
            serving.cancel()
            whole, streamed = await asyncio.wait_for(asyncio.gather(*asked), SECONDS)
            with suppress(asyncio.CancelledError):
                await serving
        assert (whole.status_code, whole.json()["error"]["code"]) == (503, "restarting")
        assert whole.headers["x-should-retry"] == "true" and int(whole.headers["retry-after"]) >= 1
        lines = [line for line in streamed.text.splitlines() if line.startswith("data: ")]
        assert json.loads(lines[-1][6:])["error"]["code"] == "restarting"
        answer = await asyncio.wait_for(halved, SECONDS)
        assert answer.startswith(b"HTTP/1.1 503 ") and b'"restarting"' in answer and b"retry-after: " in answer
        for task in following:
            heard, code = await asyncio.wait_for(task, SECONDS)
            assert code == 1012 and "complete" not in heard, "it goes on from its cursor elsewhere"
        assert not [record for record in caplog.records if record.exc_info], "nothing of it is a fault"
        # Whoever was sent away asks again: what he asked for first is not done for nobody. The other case goes on.
        states = {str(one.key.case): one.status for one in await circuit.cases()}
        assert states.pop(case) == "running"

        async def cancelled() -> bool:
            return {one.status for one in await circuit.cases() if str(one.key.case) != case} == {"cancelled"}

        await eventually(cancelled)
