"""Tools of servers that speak the Model Context Protocol, through the official SDK (the extra `mcp`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit.errors import ToolsMisconfigured


def open_toolset(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """The tools of the server that `settings` (the canonical form of `mcp` in a workflow file) name.

    Raises `ToolsMisconfigured` where the SDK is not installed.
    """
    try:
        from circuit.extensions.mcp.server import McpToolset
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "anyio", "httpx2"):
            raise
        raise ToolsMisconfigured(
            "tools of MCP servers need the extra `mcp`: pip install 'circuit-engine[mcp]'"
        ) from None
    return McpToolset(settings, environment)
