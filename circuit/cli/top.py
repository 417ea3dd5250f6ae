"""`circuit top`: what goes on, live in the terminal."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, clean
from circuit.definition.field import seconds
from circuit.errors import InvalidRequest, StorageError
from circuit.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from circuit.engine.overview import Glance


MIN_ROWS = 3
OTHER_LINES = 3
"""Lines of a look beside its figures and its workers: the names of columns, some trouble, and where the cursor is."""
_COLUMNS = {"worker": 8, "state": 8, "host": 10, "pid": 7, "pools": 10, "cases": 5, "lease": 6}
"""What is told of a worker, and how many characters of that are to be seen."""
_SPARED = ("pools", "pid", "host")
"""What a narrow terminal leaves out, the first first."""


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
    """Show what goes on, live. Events and executions a second, what waits for workers, who works, what it costs.

    Rates and workers are those of the whole deployment; cases, executions and cost are of the tenant's cases that began
    within --window. Where more workers are there than lines, those that are not well come first, then the busiest.
    Goes on when a database that was away is back. Ends with Ctrl-C.

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
            look = partial(circuit.engine.overview.look, circuit.principal, span)
            before = await look()
            console = terminal.console()
            if as_json or once or not terminal.interactive:
                while True:
                    await asyncio.sleep(every)
                    try:
                        now = await look()
                    except StorageError as error:
                        if once:
                            raise
                        terminal.note(f"{error.message} Looking again.")
                        continue
                    if as_json:
                        terminal.row(now.as_dict(before))
                    else:
                        console.print(_picture(now, before, window, console))
                    before = now
                    if once:
                        return 0
            from rich.live import Live

            picture = partial(_picture, window=window, console=console, whole=False)
            with Live(picture(before, None), console=console, auto_refresh=False) as live:
                while True:
                    await asyncio.sleep(every)
                    try:
                        now = await look()
                    except StorageError as error:
                        live.update(picture(before, None, trouble=f"{error.message} Looking again."), refresh=True)
                        continue
                    live.update(picture(now, before), refresh=True)
                    before = now

    return run_session(body, Settings.from_environment())


def _picture(
    now: Glance, before: Glance | None, window: str, console: Console, *, whole: bool = True, trouble: str = ""
) -> RenderableType:
    """A look as wide as the console; unless it is to be `whole`, no higher either. With `trouble`, the last one before
    that began."""
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
        ("workers", _counts(Counter(worker["state"] for worker in shown["workers"]))),
    ):
        head.add_row(Text(name), Text(value))
    workers = sorted(shown["workers"], key=_standing)
    lines = len(console.render_lines(head)) + OTHER_LINES
    room = len(workers) if whole else max(MIN_ROWS, console.height - lines)
    shows = workers if len(workers) <= room else workers[: room - 1]
    rows = [_cells(worker) for worker in shows]
    if len(shows) < len(workers):
        rest = workers[len(shows) :]
        cases = str(sum(worker["cases"] for worker in rest))
        rows.append(dict.fromkeys(_COLUMNS, "") | {"worker": f"{len(rest)} more", "cases": cases})
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    names = _fitting(rows, console.width)
    for name in names:
        table.add_column(name, no_wrap=name not in _SPARED)
    for row in rows:
        table.add_row(*(Text(row[name], no_wrap=True, overflow="ellipsis") for name in names))
    return Group(head, table, Text(clean(trouble), style="bold red")) if trouble else Group(head, table)


def _cells(worker: Mapping[str, Any]) -> dict[str, str]:
    """What is told of a worker, by the names of columns."""
    lease = worker["lease_seconds"]
    told = {
        "worker": worker["worker_id"][:8],
        "state": worker["state"],
        "host": worker["host"],
        "pid": str(worker["pid"]),
        "pools": ", ".join(worker["pools"]),
        "cases": str(worker["cases"]),
        "lease": "" if lease is None else f"{lease:g} s",
    }
    return {name: clean(cell) for name, cell in told.items()}


def _fitting(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """The columns of which at least the beginnings are to be seen in so many characters."""
    needs = {
        name: 1 + min(least, max(len(name), *(len(row[name]) for row in rows))) if rows else 1 + len(name)
        for name, least in _COLUMNS.items()
    }
    for name in _SPARED:
        if sum(needs.values()) > width:
            del needs[name]
    return list(needs)


def _standing(worker: dict[str, Any]) -> tuple[bool, int]:
    """Where a worker stands in the table: first those that are not well, and then the busiest."""
    return worker["state"] == "alive", -worker["cases"]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none"


def _span(text: str) -> timedelta:
    try:
        found = timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        found = timedelta()
    if not timedelta() < found <= timedelta(days=366):
        raise InvalidRequest(f"--window is a time such as 10m, 1h or 7d, not {text!r}")
    return found
