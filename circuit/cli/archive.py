"""`circuit archive`: weeks of finished cases out of the database and into files, and back to be seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, compact, one_line
from circuit.errors import InvalidRequest
from circuit.settings import Settings, parse_span

if TYPE_CHECKING:
    from circuit.app import Circuit

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def archive(
    context: typer.Context,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="SPAN", help="Cases that ended so long ago: 12h, 30d, 8w.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where the files go.")] = None,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Failed cases stay in the database.")] = False,
    streams_older_than: Annotated[
        str | None,
        typer.Option("--streams-older-than", metavar="SPAN", help="Drop the frames of weeks that ended so long ago."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and what waits.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Move weeks of finished cases from the database to files. Everything goes on meanwhile.

    Exit code 0 if all that is old enough went, 1 if some week waits.

    \b
    Examples:
      circuit archive --older-than 30d --dry-run
      circuit archive --older-than 30d --to /backup/circuit --keep-failed
      circuit archive show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """
    if context.invoked_subcommand is not None:
        return 0
    span = _span(older_than, "--older-than")
    streams = _span(streams_older_than, "--streams-older-than")
    if span is None and streams is None:
        raise InvalidRequest("say how old what goes must be: --older-than 30d, or --streams-older-than 7d")

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.archive.policy import Policy

        policy = Policy(span, keep_failed, streams)
        plans = await circuit.archive.plan(policy, circuit.engine.now())
        waiting = [plan for plan in plans if plan.obstacles]
        done = [] if dry_run else await circuit.archive.run(policy, circuit.engine.now(), terminal.note)
        if as_json:
            terminal.result({"weeks": [plan.as_dict() for plan in plans], "done": [week.as_dict() for week in done]})
            return 1 if waiting else 0
        for plan in plans:
            if dry_run and plan.goes:
                stay = f", {len(plan.standing.staying)} stay" if plan.standing.staying else ""
                terminal.line(f"week {plan.week.suffix} goes: {plan.standing.cases} cases{stay}")
            for obstacle in plan.obstacles:
                terminal.line(one_line(f"week {plan.week.suffix} waits: {obstacle}"))
        for week in done:
            terminal.line(one_line(f"week {week.week}: {week.cases} cases in {week.place}, {week.stayed} stay"))
        if not plans and not done:
            terminal.line("nothing is old enough")
        return 1 if waiting else 0

    return _with_circuit(body, as_json=as_json, folder=to)


@app.command("list")
def listed(as_json: JsonOption = False) -> int:
    """List the weeks that went, and where they lie.

    \b
    Example: circuit archive list --json
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.archive.weeks()
        rows = [
            (row.week, str(row.round), row.state, str(row.cases), str(len(row.kept)), row.folder or "-")
            for row in found
        ]
        head = ("week", "round", "state", "cases", "stay", "place")
        if as_json:
            terminal.result([dict(zip(head, row, strict=True)) for row in rows])
        elif not rows:
            terminal.line("nothing was archived")
        else:
            terminal.table(head, rows)
        return 0

    return _with_circuit(body, as_json=as_json)


@app.command("show")
def show(
    case_id: Annotated[str, typer.Argument(metavar="CASE", help="The id of an archived case.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where the files lie now.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Show an archived case: its rows by table, as they were.

    \b
    Example: circuit archive show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --json
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.archive.show(circuit.key(case_id))
        if as_json:
            terminal.result(found)
            return 0
        terminal.line(one_line(f"case {case_id} lies in {found['archive']}"))
        for table, rows in found["rows"].items():
            for row in rows:
                told = {name: value for name, value in row.items() if name not in ("tenant_id", "case_id")}
                terminal.line(one_line(f"{table}  {compact(told, 500)}"))
        return 0

    return _with_circuit(body, as_json=as_json, folder=to)


@app.command("check")
def check(as_json: JsonOption = False) -> int:
    """Read every file again and compare it with its manifest. Exit code 1 if one is damaged.

    \b
    Example: circuit archive check
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        places = await circuit.archive.check()
        if as_json:
            terminal.result({"whole": places})
        else:
            terminal.line(f"{len(places)} weeks are whole")
        return 0

    return _with_circuit(body, as_json=as_json)


def _span(text: str | None, option: str) -> timedelta | None:
    if text is None:
        return None
    span = parse_span(text)
    if span is None:
        raise InvalidRequest(f"{option} {text!r} is no span; write 12h, 30d or 8w")
    return span


def _with_circuit(
    body: Callable[[Circuit, Terminal], Awaitable[int]], *, as_json: bool, folder: Path | None = None
) -> int:
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    if folder is not None:
        settings = replace(settings, archive_folder=folder.absolute())

    async def session() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            return await body(circuit, terminal)

    return run_session(session, settings)
