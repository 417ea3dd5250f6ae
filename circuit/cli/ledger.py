"""`circuit audit`: who did what to which, when, from where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.instant import SinceOption, UntilOption, instant_of
from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, clean, compact
from circuit.errors import InvalidRequest
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.engine.ledger import Sought

app = typer.Typer(rich_markup_mode=None)

SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only what this person or program did.")]
ActionOption = Annotated[
    str | None, typer.Option("--action", help="Only this action (case.start), or a kind of actions (case).")
]
TargetOption = Annotated[str | None, typer.Option("--target", help="Only what was done to this: the id of a case, ...")]
DeploymentOption = Annotated[
    bool, typer.Option("--deployment", help="What is done to the deployment itself, and who was not let in.")
]


@app.callback(invoke_without_command=True)
def audit(context: typer.Context) -> None:
    """Read the audit log, which is only ever added to.

    \b
    Example: circuit audit list --action key --since 30d
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_entries(
    subject: SubjectOption = None,
    action: ActionOption = None,
    target: TargetOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    deployment: DeploymentOption = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    before: Annotated[
        int | None, typer.Option("--before", min=1, help="Go on before the entry of this number.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
) -> int:
    """List entries, the youngest first.

    \b
    Examples:
      circuit audit list --target 0192f0c1-2d3e-7a4b-8c5d-6e7f80910a1b
      circuit audit list --subject key:deploy --since 7d --json
      circuit audit list --deployment --action login
    """
    sought = _sought(subject, action, target, since, until)
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit
        from circuit.engine.ledger import entry_json

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            found = await circuit.engine.ledger.page(circuit.principal, sought, limit, before, deployment=deployment)
        shown = [entry_json(entry) for entry in found]
        if as_json:
            terminal.result({"entries": shown})
        elif not shown:
            terminal.line("no entries")
        else:
            head = ("entry", "at", "subject", "action", "target", "from")
            cells = [
                (str(one["entry"]), one["at"], one["subject"], one["action"], one["target"], one["origin"])
                for one in shown
            ]
            terminal.table(head, [tuple(clean(cell) for cell in row) for row in cells])
        return 0

    return run_session(body, Settings.from_environment())


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to [default: standard output].")] = None,
    subject: SubjectOption = None,
    action: ActionOption = None,
    target: TargetOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    deployment: DeploymentOption = False,
) -> int:
    """Write all entries as JSON, one object a line, the oldest first.

    \b
    Example: circuit audit export audit.jsonl --since 2026-01-01T00:00:00Z
    """
    sought = _sought(subject, action, target, since, until)
    terminal = Terminal(json=True)

    async def body() -> int:
        from circuit.app import Circuit
        from circuit.engine.ledger import entry_json

        count = 0
        async with Circuit.open(worker=False) as circuit:
            entries = circuit.engine.ledger.all(circuit.principal, sought, deployment=deployment)
            if file is None:
                async for entry in entries:
                    terminal.row(entry_json(entry))
                return 0
            try:
                with file.open("x", encoding="utf-8") as out:
                    async for entry in entries:
                        out.write(compact(entry_json(entry)) + "\n")
                        count += 1
            except OSError as error:
                raise InvalidRequest(f"{str(file)!r} cannot be written: {error.strerror}") from None
        terminal.result({"file": str(file), "entries": count})
        return 0

    return run_session(body, Settings.from_environment())


def _sought(
    subject: str | None, action: str | None, target: str | None, since: str | None, until: str | None
) -> Sought:
    from circuit.engine.ledger import Sought

    return Sought(subject, action, target, instant_of(since, "--since"), instant_of(until, "--until"))
