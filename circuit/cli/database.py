"""`circuit db`: the schema of the database that the settings name, embedded or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, clean
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.storage.schema import SchemaStatus

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]

app = typer.Typer(rich_markup_mode=None)

_WORDS = {
    "current": "up to date",
    "behind": "behind this release; run: circuit db upgrade",
    "empty": "empty; run: circuit db upgrade",
    "compatible": "of a newer release that lets this one work beside it",
    "ahead": "of a newer release than this one; upgrade Circuit, or use another database",
}


@app.callback(invoke_without_command=True)
def database(context: typer.Context) -> None:
    """Look at the database's schema, or bring it up to date.

    \b
    Example: circuit db status
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("status")
def status(as_json: JsonOption = False) -> int:
    """Say at which revision the database is. Exit code 0 if this release can work on it, else 1.

    \b
    Example: circuit db status --json
    """
    from circuit.storage import schema

    return _report(schema.status, as_json=as_json)


@app.command("upgrade")
def upgrade(as_json: JsonOption = False) -> int:
    """Bring the database to the revision of this release. Safe to repeat, and to run at once from several places.

    \b
    Example: CIRCUIT_DATABASE_URL=postgresql://circuit@localhost/circuit circuit db upgrade
    """
    from circuit.storage import schema

    return _report(schema.upgrade, as_json=as_json)


def _report(look: Callable[[str], Awaitable[SchemaStatus]], *, as_json: bool) -> int:
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()

    async def body() -> int:
        from circuit.app import database_url

        async with database_url(settings, progress=terminal.note) as url:
            found = await look(url)
        embedded = settings.database_url is None
        if as_json:
            terminal.result({"state": found.state, "current": found.current, "head": found.head, "embedded": embedded})
        else:
            where = f"the embedded database in {settings.home}" if embedded else "the database at CIRCUIT_DATABASE_URL"
            at = f"revision {found.current}" if found.current else "no revision"
            terminal.line(clean(f"{where} is at {at} (head {found.head}): {_WORDS[found.state]}"))
        return 0 if found.usable else 1

    return run_session(body, settings)
