"""`circuit outbox`: the events that leave, as a consumer reads them."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, compact, one_line

if TYPE_CHECKING:
    from circuit.app import Circuit

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def outbox(context: typer.Context) -> None:
    """Read the events that workflows send out. They are those of their `outbox:`, each at least once; or see who reads
    them.

    \b
    Example: circuit outbox tail --consumer billing --json
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("tail")
def tail(
    consumer: Annotated[
        str | None,
        typer.Option("--consumer", help="Read as this consumer: go on where it stopped, and remember how far it came."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MARK", help="Begin behind this mark; `begin` is the beginning.")
    ] = None,
    workflow: Annotated[
        list[str] | None, typer.Option("--workflow", help="Only this workflow. May be repeated.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only events of this kind. May be repeated.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Print the events, one a line. With --json each line is one JSON object with its `mark`.

    Without --consumer nothing is remembered.

    \b
    Examples:
      circuit outbox tail
      circuit outbox tail --consumer billing --kind case_ended --follow --json
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.outbox import BEGINNING, mark, shown

        begin = None if start is None else BEGINNING if start == "begin" else mark(start)
        if consumer is None:
            messages = circuit.outbox.look(
                begin or BEGINNING, workflows=workflow or (), kinds=kind or (), follow=follow
            )
        else:
            messages = circuit.outbox.messages(
                consumer, start=begin, workflows=workflow or (), kinds=kind or (), follow=follow
            )
        async with aclosing(messages):
            async for message in messages:
                found = shown(message)
                if as_json:
                    terminal.row(found)
                else:
                    terminal.line(
                        one_line(
                            f"{found['at']}  {found['kind']}  {found['workflow']}  {found['case_id']}.{found['seq']}"
                            f"  {compact(found['event'], 200)}"
                        )
                    )
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("consumers")
def consumers(as_json: JsonOption = False) -> int:
    """List who reads the outbox, and how far each has come.

    \b
    Example: circuit outbox consumers
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = [consumer.as_dict() for consumer in await circuit.outbox.consumers()]
        if as_json:
            terminal.result(found)
        elif not found:
            terminal.line("no consumers")
        else:
            rows = [tuple(str(value) for value in consumer.values()) for consumer in found]
            terminal.table(("consumer", "mark", "moved"), rows)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("forget")
def forget(consumer: Annotated[str, typer.Argument(metavar="CONSUMER")], as_json: JsonOption = False) -> int:
    """Remove a consumer: nothing is kept for it any more.

    \b
    Example: circuit outbox forget billing
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        await circuit.outbox.forget(consumer)
        if as_json:
            terminal.result({"forgotten": consumer})
        else:
            terminal.line(one_line(f"consumer {consumer} is forgotten"))
        return 0

    return with_circuit(body, as_json=as_json)
