"""Real MCP servers for tests, started as programs: `python mcp_servers.py NAME [PORT]`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer


def good(state: Path | None = None) -> MCPServer:
    server = MCPServer("good")

    @server.tool()
    def add(a: int, b: int = 1) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def whoami() -> str:
        """What the server knows of its surroundings."""
        return f"{os.environ.get('TOKEN', 'nobody')} {os.environ.get('OPENAI_API_KEY', 'none')}"

    @server.tool()
    def traced(ctx: Context) -> str:
        """In which trace it was asked: as the message says, and the header where there is one."""
        around = ctx.request_context
        headers = getattr(around.request, "headers", {})
        return f"{(around.meta or {}).get('traceparent')} {headers.get('traceparent')}"

    @server.tool()
    def refuse() -> str:
        """Fails."""
        raise ValueError("not today")

    @server.tool()
    async def hang() -> str:
        """Never answers."""
        await asyncio.Event().wait()
        return ""

    @server.tool()
    def die() -> str:
        """Ends the server."""
        os._exit(1)

    @server.tool()
    def flood() -> str:
        """Answers with far too much."""
        return "x" * 10_000_000

    return server


def raw(lines: list[str]) -> None:
    """A server that answers each request with the next of `lines`, whatever it was."""
    for line, _ in zip(lines, sys.stdin, strict=False):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def liar(schema: dict[str, Any]) -> None:
    """A server whose tool `count` takes what `schema` says, and whose result is never what it promised."""
    promised = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    tool = {"name": "count", "description": "Counts.", "inputSchema": schema, "outputSchema": promised}
    results: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "liar", "version": "1"},
        },
        "tools/list": {"tools": [tool]},
        "tools/call": {"content": [{"type": "text", "text": "many"}], "structuredContent": {"n": "many"}},
    }
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        if asked["method"] in results:
            answer["result"] = results[asked["method"]]
        else:
            answer["error"] = {"code": -32601, "message": "no such method"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main(name: str, *more: Any) -> None:
    if name == "http":
        good().run("streamable-http", port=int(more[0]), json_response=len(more) > 1)
    elif name == "good":
        good().run("stdio")
    elif name == "liar":
        liar({"type": "object", "properties": {}})
    elif name == "nonsense":
        liar({"type": "object", "properties": {"a": {"type": "no type"}}})
    elif name == "garbage":
        raw(["no json at all"] * 50)
    elif name == "dead":
        sys.exit(f"no {os.environ.get('TOKEN')} is mine")


if __name__ == "__main__":
    main(*sys.argv[1:])
