"""The MCP client against real servers, started as processes: what it finds, calls, bounds and survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from postgres import free_port

from circuit.actions.tools import Toolbox
from circuit.agents.tools import Tool, ToolContext, call_tool
from circuit.cli.main import main
from circuit.errors import (
    ToolError,
    ToolFailed,
    ToolOutputTooLarge,
    ToolSchemaBroken,
    ToolSchemaInvalid,
    ToolServerLost,
    ToolsMisconfigured,
    ToolsUnreachable,
    ToolTimeout,
)
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
        assert "*** none" in said, "a server gets its own credentials and no others, and tells them to nobody"
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
        with pytest.raises(ToolTimeout):
            await call_tool(tools["s.hang"], {}, AROUND)
        toolset._seconds = 30
        assert await call_tool(tools["s.add"], {"a": 1}, AROUND)


async def test_a_huge_message_ends_the_session_and_the_next_call_opens_another() -> None:
    async with opened(settings(seconds=20)) as toolset:
        tools = await found(toolset)
        with pytest.raises(ToolOutputTooLarge, match="answered flood with more than 8 MiB"):
            await call_tool(tools["s.flood"], {}, AROUND)
        assert await call_tool(tools["s.add"], {"a": 1}, AROUND)


async def test_a_server_that_dies_is_started_again() -> None:
    async with opened(settings(seconds=20)) as toolset:
        tools = await found(toolset)
        with pytest.raises(ToolServerLost, match="did not answer die"):
            await call_tool(tools["s.die"], {}, AROUND)
        assert await call_tool(tools["s.add"], {"a": 1}, AROUND)
        # One that cannot be started again is lost too; the model is told, and the run goes on.
        toolset._settings = {**toolset._settings, "command": ["/nowhere/at/all"]}
        with pytest.raises(ToolServerLost, match="did not answer die"):
            await call_tool(tools["s.die"], {}, AROUND)
        with pytest.raises(ToolServerLost, match="cannot be reached"):
            await call_tool(tools["s.add"], {"a": 1}, AROUND)
    assert not [child for child in psutil.Process().children(recursive=True) if PROGRAM in " ".join(_line(child))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_a_server_that_lies_about_its_schemas() -> None:
    async with opened(settings("liar")) as toolset:
        tools = await found(toolset)
        for _ in range(2):
            with pytest.raises(ToolSchemaBroken, match="'many' is not of type 'integer'"):
                await call_tool(tools["s.count"], {}, AROUND)
    async with opened(settings("nonsense")) as toolset:
        with pytest.raises(ToolSchemaInvalid, match="its tool count by what is no JSON Schema"):
            await toolset.tools()
    async with opened(settings("nonsense", tools=["other"])) as toolset:
        assert await found(toolset) == {}


async def test_a_server_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings("dead", env={"TOKEN": "${MY_TOKEN}"})
    async with opened(given, {"MY_TOKEN": "secret-token-1"}) as toolset:
        with pytest.raises(ToolsMisconfigured, match=r"does not name its tools: .* \(it wrote: no \*\*\* is mine\)"):
            await toolset.tools()
    # Of a line that is cut nothing is told: it may begin in the middle of a secret.
    monkeypatch.setattr("circuit.extensions.mcp.server.LAST_WORDS", 16)
    async with opened(given, {"MY_TOKEN": "secret-token-1"}) as toolset:
        with pytest.raises(ToolsMisconfigured, match="does not name its tools") as told:
            await toolset.tools()
    assert "it wrote" not in str(told.value)
    monkeypatch.setattr("circuit.extensions.mcp.server.OPEN_SECONDS", 1.0)
    async with opened(settings("garbage")) as toolset:
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


WORKFLOW = """
workflow: w
places: {{a: {{initial: true}}, b: {{terminal: true}}}}
agents: {{x: {{llm_provider: {{type: scripted, responses: [y]}}, tools: [{{mcp: {settings}}}]}}}}
transitions: {{t: {{from_places: a, to_place: b, agent_execution: x}}}}
"""


def test_pins_are_printed_to_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUIT_HOME", str(tmp_path / "home"))
    given = {key: value for key, value in settings(tools=["add", "who*"]).items() if key != "kind"}
    file = tmp_path / "w.yaml"
    file.write_text(WORKFLOW.format(settings=json.dumps(given)))
    assert main(["tools", "list", str(file), "--pins", "--json"]) == 0
    pins = json.loads(capsys.readouterr().out)["s"]
    assert set(pins) == {"add", "whoami"}
    file.write_text(WORKFLOW.format(settings=json.dumps({**given, "pinned": {**pins, "whoami": "0000"}})))
    assert main(["tools", "list", str(file), "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert (listed["s.add"]["access"], listed["s.add"]["pin"]) == ("allowed", pins["add"])
    assert listed["s.whoami"]["access"] == "needs_approval"
    assert "changed its tool whoami" in listed["s.whoami"]["policies"][0]["says"]
    # Nobody calls here what a model may not.
    assert main(["tools", "call", str(file), "s.whoami"]) == 1
    assert "needs somebody's approval" in capsys.readouterr().err


@pytest.mark.parametrize("form", [(), ("json",)], ids=["events", "json"])
async def test_over_streamable_http(form: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    given = {"kind": "mcp", "name": "h", "url": f"http://127.0.0.1:{port}/mcp?key=${{H_KEY}}"}
    async with opened(given, {"H_KEY": "a-key-of-h"}) as toolset:
        async with served(port, *form):
            tools = await found(toolset)
            assert tools["h.add"].secrets == ("a-key-of-h",), "what it says is told without it"
            assert await call_tool(tools["h.add"], {"a": 4}, AROUND) in ({"result": 5}, 5, "5")
            with pytest.raises(ToolOutputTooLarge):
                await call_tool(tools["h.flood"], {}, AROUND)
            assert "Traceback" not in caplog.text
            with pytest.raises(ToolFailed, match="refuse"):
                await call_tool(tools["h.refuse"], {}, AROUND)
            with pytest.raises(ToolServerLost):
                await call_tool(tools["h.die"], {}, AROUND)
        async with served(port, *form):
            assert await call_tool(tools["h.add"], {"a": 1}, AROUND)


class Forgetful(BaseHTTPRequestHandler):
    """A server with sessions, which it forgets: `sessions` has those that it knows."""

    sessions: ClassVar[list[str]] = []
    calls: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        session, method = self.headers.get("mcp-session-id"), asked["method"]
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.get("id")}
        status, more = 200, {}
        if method == "initialize":
            self.sessions.append(f"session-{len(self.sessions)}")
            more = {"mcp-session-id": self.sessions[-1]}
            info = {"name": "forgetful", "version": "1"}
            body["result"] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        elif session is None:
            status, body["error"] = 404, {"code": -32601, "message": "no such method"}
        elif session != self.sessions[-1]:
            status, body = 404, {}
        elif method == "tools/call":
            self.calls.append(session)
            body["result"] = {"content": [{"type": "text", "text": session}]}
        elif method == "tools/list":
            body["result"] = {"tools": [{"name": "where", "inputSchema": {"type": "object"}}]}
        else:
            status = 202
        written = json.dumps(body).encode() if body else b""
        self.send_response(status)
        for name, value in {**more, "content-type": "application/json", "content-length": str(len(written))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(written)

    def do_GET(self) -> None:
        self.send_error(405)

    def do_DELETE(self) -> None:
        self.send_error(405)

    def log_message(self, *_: Any) -> None:
        pass


async def test_a_session_that_its_server_forgot_is_opened_again_and_nothing_is_done_twice() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forgetful)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        given = {"kind": "mcp", "name": "h", "url": f"http://127.0.0.1:{server.server_port}/mcp"}
        async with opened(given) as toolset:
            tools = await found(toolset)
            assert await call_tool(tools["h.where"], {}, AROUND) == "session-0"
            Forgetful.sessions.append("another-one")
            assert await call_tool(tools["h.where"], {}, AROUND) == "session-2"
            Forgetful.sessions.append("another-one")
            assert list(await found(toolset)) == ["h.where"]
            assert Forgetful.calls == ["session-0", "session-2"]
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


class Refusing(Forgetful):
    """A server that answers with `status` alone."""

    status: ClassVar[int] = 0

    def do_POST(self) -> None:
        self.send_error(self.status)


async def test_a_server_that_refuses_or_is_away_is_told_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    given = {"kind": "mcp", "name": "h", "url": f"http://127.0.0.1:{server.server_port}/mcp"}
    try:
        for status, kind in ((401, ToolsMisconfigured), (404, ToolsMisconfigured), (500, ToolsUnreachable)):
            monkeypatch.setattr(Refusing, "status", status)
            async with opened(given) as toolset:
                with pytest.raises(kind, match=rf"h does not name its tools: .* \(HTTP {status}\)"):
                    await toolset.tools()
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
    async with opened(given) as toolset:
        with pytest.raises(ToolsUnreachable, match="h does not name its tools") as away:
            await toolset.tools()
        assert away.value.retryable
        with pytest.raises(ToolServerLost, match="h cannot be reached"):
            await toolset._call("where", {})


@asynccontextmanager
async def served(port: int, *form: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, "http", str(port), *form, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"Uvicorn running" not in await process.stderr.readline():
                assert process.returncode is None
        yield
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
