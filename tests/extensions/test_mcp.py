"""The MCP client against real servers, started as processes: what it finds, calls, bounds and survives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from circuit.actions.tools import Toolbox
from circuit.agents.tools import Tool, ToolContext, call_tool
from circuit.errors import ToolError, ToolFailed, ToolsMisconfigured, ToolTimeout
from circuit.extensions.mcp import open_toolset
from circuit.extensions.mcp.server import McpToolset

PROGRAM = str(Path(__file__).with_name("mcp_servers.py"))
AROUND = ToolContext("case.1", "a", "c", "k")


def settings(server: str = "good", **more: Any) -> dict[str, Any]:
    return {"kind": "mcp", "name": "s", "command": [sys.executable, PROGRAM, server], **more}


@asynccontextmanager
async def opened(given: dict[str, Any], environment: dict[str, str] | None = None) -> AsyncIterator[McpToolset]:
    toolset: McpToolset = open_toolset(given, environment or {})
    try:
        yield toolset
    finally:
        await toolset.aclose()


async def found(toolset: McpToolset) -> dict[str, Tool]:
    return {tool.name: tool for tool in await toolset.tools()}


async def test_tools_are_found_with_a_prefix_and_called() -> None:
    environment = {"MY_TOKEN": "secret-token-1", "OPENAI_API_KEY": "sk-of-circuit"}
    async with opened(settings(env={"TOKEN": "${MY_TOKEN}"}), environment) as toolset:
        tools = await found(toolset)
        assert {"s.add", "s.whoami"} <= set(tools)
        assert tools["s.add"].spec.description == "Adds two numbers."
        assert tools["s.add"].spec.parameters["required"] == ["a"]
        assert await call_tool(tools["s.add"], {"a": 2}, AROUND) in ({"result": 3}, 3, "3")
        said = str(await call_tool(tools["s.whoami"], {}, AROUND))
        assert "secret-token-1 none" in said, "a server gets its own credentials and no others"
        assert tools["s.add"].secrets == ("secret-token-1",)
        many = await asyncio.gather(*(call_tool(tools["s.add"], {"a": n}, AROUND) for n in range(20)))
        assert len({str(value) for value in many}) == 20


async def test_only_the_tools_that_were_asked_for() -> None:
    async with opened(settings(tools=["a*"])) as toolset:
        assert list(await found(toolset)) == ["s.add"]


async def test_what_fails_hangs_or_floods() -> None:
    async with opened(settings(seconds=30)) as toolset:
        tools = await found(toolset)
        with pytest.raises(ToolFailed, match="refuse"):
            await call_tool(tools["s.refuse"], {}, AROUND)
        with pytest.raises(ToolError):
            await call_tool(tools["s.add"], {"a": "x"}, AROUND)
        toolset._seconds = 0.2
        with pytest.raises((ToolTimeout, ToolFailed)):
            await call_tool(tools["s.hang"], {}, AROUND)
        toolset._seconds = 30
        assert await call_tool(tools["s.add"], {"a": 1}, AROUND)


async def test_a_huge_message_ends_the_session_and_the_next_call_opens_another() -> None:
    async with opened(settings(seconds=20)) as toolset:
        tools = await found(toolset)
        with pytest.raises(ToolError):
            await call_tool(tools["s.flood"], {}, AROUND)
        assert await call_tool(tools["s.add"], {"a": 1}, AROUND)


async def test_a_server_that_dies_is_started_again() -> None:
    async with opened(settings(seconds=20)) as toolset:
        tools = await found(toolset)
        with pytest.raises(ToolFailed, match="did not answer"):
            await call_tool(tools["s.die"], {}, AROUND)
        assert await call_tool(tools["s.add"], {"a": 1}, AROUND)
    assert not [child for child in psutil.Process().children(recursive=True) if PROGRAM in " ".join(_line(child))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("server", ["dead", "garbage"])
async def test_a_server_that_is_none(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuit.extensions.mcp.server.OPEN_SECONDS", 1.0)
    async with opened(settings(server)) as toolset:
        with pytest.raises(ToolsMisconfigured, match="the MCP server s does not name its tools"):
            await toolset.tools()


async def test_a_program_that_is_not_there() -> None:
    async with opened({"kind": "mcp", "name": "s", "command": ["/nowhere/at/all"]}) as toolset:
        with pytest.raises(ToolsMisconfigured, match="does not name its tools"):
            await toolset.tools()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "mcp", "name": "s"}, "a command or a url"),
        ({"kind": "mcp", "name": "s", "command": ["x"], "url": "http://x"}, "and not both"),
    ],
)
def test_what_is_set_up_wrongly(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ToolsMisconfigured, match=says):
        open_toolset(given, {})


async def test_a_variable_that_is_not_set() -> None:
    async with opened(settings(env={"TOKEN": "${MISSING_TOKEN}"})) as toolset:
        with pytest.raises(ToolsMisconfigured, match="MISSING_TOKEN"):
            await toolset.tools()


async def test_a_schema_that_changed_asks_for_approval() -> None:
    async with opened(settings()) as toolset:
        doubts = {tool.name: tool.doubt for tool in await toolset.tools()}
    assert set(doubts.values()) == {""}
    async with opened(settings(pinned={"add": "0000"})) as toolset:
        doubts = {tool.name: tool.doubt for tool in await toolset.tools()}
    assert "changed its tool add" in doubts["s.add"]
    assert "a new tool whoami" in doubts["s.whoami"]
    now = doubts["s.add"].split("its schema is ")[1].split(" ")[0]
    async with opened(settings(pinned={"add": now})) as toolset:
        assert {tool.name: tool.doubt for tool in await toolset.tools()}["s.add"] == ""


async def test_over_streamable_http() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, "http", str(port), stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"Uvicorn running" not in await process.stderr.readline():
                assert process.returncode is None
        given = {"kind": "mcp", "name": "h", "url": f"http://127.0.0.1:{port}/mcp"}
        async with opened(given) as toolset:
            tools = await found(toolset)
            assert await call_tool(tools["h.add"], {"a": 4}, AROUND) in ({"result": 5}, 5, "5")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_agents_with_the_same_settings_share_a_server(tmp_path: Path) -> None:
    toolbox = Toolbox(tmp_path)
    agent = {"tools": [settings()]}
    first, second = await toolbox.tools(agent, "one"), await toolbox.tools(agent, "two")
    assert "s.add" in first
    assert "s.add" in second
    assert len(toolbox._toolsets) == 1
    await toolbox.aclose()
