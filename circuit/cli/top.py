"""`circuit top`: what goes on, live in the terminal."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, clean
from circuit.definition.field import seconds
from circuit.errors import InvalidRequest
from circuit.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from circuit.engine.overview import Glance


def top(
    every: Annotated[
        float, typer.Option("--every", min=0.1, max=3600, help="Seconds from one look to the next.")
    ] = 2.0,
    window: Annotated[
        str, typer.Option("--window", help="Count cases that began within this time: 10m, 1h, 7d.")
    ] = "1h",
    once: Annotated[bool, typer.Option("--once", help="Look twice, print once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a look, one a line.")] = False,
) -> int:
    """Show what goes on: events and executions a second, what waits for workers, who works, what it costs.

    Rates and workers are those of the whole deployment; cases, executions and cost are of the tenant's cases that began
    within --window. Ends with Ctrl-C.

    \b
    Examples:
      circuit top
      circuit top --once --json
    """
    span = _span(window)
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            look = circuit.engine.overview.look
            before = await look(circuit.principal, span)
            if as_json or once or not terminal.interactive:
                while True:
                    await asyncio.sleep(every)
                    now = await look(circuit.principal, span)
                    if as_json:
                        terminal.row(now.as_dict(before))
                    else:
                        terminal.console().print(_picture(now, before, window))
                    before = now
                    if once:
                        return 0
            from rich.live import Live

            with Live(_picture(before, None, window), console=terminal.console(), auto_refresh=False) as live:
                while True:
                    await asyncio.sleep(every)
                    now = await look(circuit.principal, span)
                    live.update(_picture(now, before, window), refresh=True)
                    before = now

    return run_session(body, Settings.from_environment())


def _picture(now: Glance, before: Glance | None, window: str) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: dict[str, Any] = now.as_dict(before)
    head = Table.grid(padding=(0, 3))
    for name, value in (
        ("events/s", _rate(shown["events_per_second"])),
        ("executions/s", _rate(shown["executions_per_second"])),
        ("waiting cases", str(shown["queue"]["cases"])),
        ("oldest waits", f"{shown['queue']['oldest_seconds']:g} s"),
        (f"cases of the last {window}", _counts(shown["cases"])),
        ("their executions", _counts(shown["executions"])),
        ("their cost", f"${shown['cost_usd']:.4f}, {shown['tokens']} tokens"),
    ):
        head.add_row(Text(name), Text(value))
    table = Table("worker", "state", "host", "pid", "pools", "cases", "lease")
    for worker in shown["workers"]:
        lease = worker["lease_seconds"]
        cells = (
            worker["worker_id"][:8],
            worker["state"],
            worker["host"],
            str(worker["pid"]),
            ", ".join(worker["pools"]),
            str(worker["cases"]),
            "" if lease is None else f"{lease:g} s",
        )
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return Group(head, table)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none"


def _span(text: str) -> timedelta:
    try:
        found = timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        found = timedelta()
    if not timedelta() < found <= timedelta(days=366):
        raise InvalidRequest(f"--window is a time such as 10m, 1h or 7d, not {text!r}")
    return found
