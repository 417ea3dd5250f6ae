"""The processes that stay: `serve` (the server and a worker) and `worker` (a worker alone)."""

from __future__ import annotations

import asyncio
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
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=0,
            max=256,
            help="Work on cases in so many processes of their own, and not in the server's; 0: serve only.",
        ),
    ] = None,
) -> int:
    """Serve GraphQL, WebSocket and SSE, and work on cases. Ends cleanly on SIGINT and SIGTERM.

    With --workers a process that is lost is started again, and all end with the server.

    \b
    Examples:
      circuit serve --port 4000
      circuit serve --workers 4
    """
    settings = _settings(pools, actions)
    terminal = Terminal()

    async def body() -> int:
        from circuit.app import Circuit
        from circuit.app.rules import warn_of_rules
        from circuit.app.supervision import worker_processes

        opened = Circuit.open(settings=settings, worker=workers is None, exit_when_stuck=True, progress=terminal.note)
        async with opened as circuit:
            await warn_of_rules(circuit)
            environment = {**settings.environment, "CIRCUIT_DATABASE_URL": circuit.database.address.url}
            arguments = _repeated(pools, actions)
            async with worker_processes(workers or 0, arguments, environment, settings.stop_seconds) as crew:
                await circuit.serve(
                    host or settings.host,
                    settings.port if port is None else port,
                    ready=lambda url: terminal.line(f"circuit serve is ready at {url}"),
                    crew=crew,
                )
        return 0

    return _until_signal(body, settings)


def worker(
    pools: PoolOption = None,
    actions: ActionsOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address for --port [default: 127.0.0.1].")] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Serve /health, /ready and /metrics of this worker here."),
    ] = None,
    supervised: Annotated[
        bool, typer.Option("--supervised", hidden=True, help="End when standard input ends.")
    ] = False,
) -> int:
    """Work on cases, without a server. Any number of workers share one database. Ends cleanly on SIGTERM, and when
    `circuit workers drain` asks it to.

    \b
    Examples:
      CIRCUIT_DATABASE_URL=postgresql://circuit@localhost/circuit circuit worker --pool gpu --actions shop
      circuit worker --port 4001
    """
    settings = _settings(pools, actions)
    terminal = Terminal()

    async def body() -> int:
        from circuit.app import Circuit
        from circuit.app.rules import warn_of_rules

        async with Circuit.open(settings=settings, exit_when_stuck=True, progress=terminal.note) as circuit:
            if not supervised:
                await warn_of_rules(circuit)
            terminal.line("circuit worker is ready")
            ends = [asyncio.ensure_future(circuit.worked())]
            if supervised:
                from circuit.app.supervision import answer

                ends.append(asyncio.ensure_future(answer(circuit)))
            if port is not None:
                where = (host or settings.host, port)
                said = lambda url: terminal.line(f"circuit worker answers at {url}")  # noqa: E731
                ends.append(asyncio.ensure_future(circuit.serve(*where, ready=said, probes=True)))
            try:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in done:
                    end.result()
            finally:
                for end in ends:
                    end.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
        return 0

    return _until_signal(body, settings)


def _repeated(pools: list[str] | None, actions: list[str] | None) -> list[str]:
    """The options as they go to worker processes."""
    return [
        *(part for pool in pools or () for part in ("--pool", pool)),
        *(part for module in actions or () for part in ("--actions", module)),
    ]


def _settings(pools: list[str] | None, actions: list[str] | None) -> Settings:
    # Whoever starts what stays is not the one who starts its cases.
    settings = replace(with_actions(Settings.from_environment(), actions), traceparent=None)
    return replace(settings, pools=check_pools(pools, "--pool")) if pools else settings


def _until_signal(body: Callable[[], Coroutine[Any, Any, int]], settings: Settings) -> int:
    """Run what runs for ever; to be told to end is its normal end."""
    try:
        return run_session(body, settings)
    except typer.Exit:
        return 0
