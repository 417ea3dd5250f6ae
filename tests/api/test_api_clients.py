"""The clients that others wrote, and the examples of the docs, against a real server."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from driven import SECONDS, Server, driven

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests" / "clients"
PAGE = (ROOT / "docs" / "how-to" / "clients.md").read_text(encoding="utf-8")
AGENT: dict[str, Any] = {
    "id": "teller",
    "llmProvider": {"type": "scripted", "responses": ["Once upon a time there was a net."], "chunk_size": 8},
}
ANSWER = "Once upon a time there was a net."


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def node() -> str:
    """The program that runs the clients: the one that `make clients` brings for this machine, or the machine's own."""
    brought = sorted((CLIENTS / "node_modules").glob("node-*/bin/node"))
    found = str(brought[0]) if brought else shutil.which("node")
    version = "" if found is None else subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    new_enough = version.startswith("v") and int(version[1:].partition(".")[0]) >= 20
    if found is None or not new_enough or not (CLIENTS / "node_modules" / "graphql-ws").is_dir():
        pytest.skip("needs npm, which brings Node with the clients: install it, then `make clients`")
    return found


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with driven(database_url) as running:
        create = "mutation ($agent: AgentInput!) { createAgent(agent: $agent) { id } }"
        await running.ok(create, agent=AGENT)
        yield running


async def executed(server: Server) -> str:
    ask = 'mutation { executeAgent(agentId: "teller", input: "a tale") { executionId execution { status } } }'
    return (await server.ok(ask))["executionId"]


async def javascript(server: Server, mode: str, **given: Any) -> list[dict[str, Any]]:
    """What a client got."""
    told = {"http": server.url, "websocket": "ws" + server.url.removeprefix("http"), **given}
    process = await asyncio.create_subprocess_exec(
        node(), "clients.mjs", mode, cwd=CLIENTS,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate(json.dumps(told).encode())
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.decode().splitlines()]


async def test_the_examples_for_javascript_run_as_they_stand(server: Server) -> None:
    execution = await executed(server)
    [apollo] = blocks("typescript")
    query = re.search(r"gql`(.*?)`", apollo, re.DOTALL)
    assert query is not None
    results = await javascript(server, "graphql", query=query[1], variables={"executionId": execution})
    events = [one["data"]["agentExecutionStream"] for one in results]
    assert {one["executionId"] for one in events} == {execution}
    assert "".join(one["content"] or "" for one in events if one["eventType"] == "content_chunk") == ANSWER
    assert events[-1]["eventType"] == "completed"
    assert set(events[0]) == {"executionId", "eventType", "content", "status", "toolName", "error", "timestamp"}

    websocket, eventsource = blocks("javascript")
    called = await javascript(server, "websocket", example=websocket, execution=execution)
    assert "".join(one.get("appendToResponse", "") for one in called) == ANSWER
    assert called[-2:] == [{"hideThinkingIndicator": True}, {"showFinalResponse": ANSWER}]
    frames = await javascript(server, "eventsource", example=eventsource, execution=execution)
    assert [one["eventType"] for one in frames] == [one["eventType"] for one in events]
    assert frames[-1]["final_response"] == ANSWER


async def test_the_server_passes_the_audits_of_graphql_over_http(server: Server) -> None:
    audits = await javascript(server, "audits")
    assert len(audits) > 50
    failed = {one["name"]: one["reason"] for one in audits if one["status"] != "ok"}
    assert failed == {}


async def test_the_examples_for_python_run_as_they_stand(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    execution = await executed(server)
    address = "ws" + server.url.removeprefix("http")
    names: dict[str, Any] = {}
    for source in blocks("python"):
        exec(compile(source, "clients.md", "exec"), names)  # noqa: S102 -- our own page
    async with asyncio.timeout(SECONDS):
        assert await names["stream_agent_response"](execution, address) == ANSWER
        assert capsys.readouterr().out == ANSWER
        events = [one async for one in names["events"](execution, address)]
    assert "".join(one["content"] or "" for one in events) == ANSWER
    assert events[-1]["eventType"] == "completed"
