"""Real MCP servers for tests, started as programs: `python mcp_servers.py NAME [PORT]`."""

from __future__ import annotations

import asyncio
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


def main(name: str, *more: Any) -> None:
    if name == "http":
        good().run("streamable-http", port=int(more[0]))
    elif name == "good":
        good().run("stdio")
    elif name == "liar":
        server = MCPServer("liar")
        server.tool()(lambda: "fine")
        server.run("stdio")
    elif name == "garbage":
        raw(["no json at all"] * 50)
    elif name == "dead":
        sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
