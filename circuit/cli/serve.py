"""The processes that stay: `serve` (the server and a worker) and `worker` (a worker alone)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Annotated, Any

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal
from circuit.settings import Settings, check_pools, with_actions

PoolOption = Annotated[
    list[str] | None,
    typer.Option("--pool", help="Take cases of workflows in this pool; may be given several times [default: default]."),
]
ActionsOption = Annotated[
    list[str] | None,
    typer.Option("--actions", metavar="MODULE", help="A Python module (or .py file) with @action functions."),
]


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one [default: 4000]."),
    ] = None,
    pools: PoolOption = None,
    actions: ActionsOption = None,
) -> int:
    """Serve GraphQL, WebSocket and SSE, and work on cases. Ends cleanly on SIGINT and SIGTERM.

    \b
    Example: circuit serve --port 4000
    """
    settings = _settings(pools, actions)
    terminal = Terminal()

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, exit_when_stuck=True, progress=terminal.note) as circuit:
            await circuit.serve(
                host or settings.host,
                settings.port if port is None else port,
                ready=lambda url: terminal.line(f"circuit serve is ready at {url}"),
            )
        return 0

    return _until_signal(body, settings)


def worker(pools: PoolOption = None, actions: ActionsOption = None) -> int:
    """Work on cases, without a server. Any number of workers share one database. Ends cleanly on SIGTERM, and when
    `circuit workers drain` asks it to.

    \b
    Example: CIRCUIT_DATABASE_URL=postgresql://circuit@localhost/circuit circuit worker --pool gpu --actions shop
    """
    settings = _settings(pools, actions)
    terminal = Terminal()

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, exit_when_stuck=True, progress=terminal.note) as circuit:
            terminal.line("circuit worker is ready")
            await circuit.worked()
        return 0

    return _until_signal(body, settings)


def _settings(pools: list[str] | None, actions: list[str] | None) -> Settings:
    settings = with_actions(Settings.from_environment(), actions)
    return replace(settings, pools=check_pools(pools, "--pool")) if pools else settings


def _until_signal(body: Callable[[], Coroutine[Any, Any, int]], settings: Settings) -> int:
    """Run what runs for ever; to be told to end is its normal end."""
    try:
        return run_session(body, settings)
    except typer.Exit:
        return 0
