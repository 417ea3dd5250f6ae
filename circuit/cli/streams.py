"""`circuit streams`: what executions said, in fewer frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal
from circuit.errors import InvalidRequest
from circuit.settings import parse_span

if TYPE_CHECKING:
    from circuit.app import Circuit

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Compact what executions said long ago.")


@app.command("compact")
def compact(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="SPAN", help="Of executions that ended so long ago: 1h, 7d, 4w.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Join pieces of text that follow each other into one frame. Answers and thoughts. Readers get the same text, from
    any cursor; everything else stays as it is.

    It can be stopped at any time, and goes on where it was the next time.

    \b
    Examples:
      circuit streams compact --older-than 7d --dry-run
      circuit streams compact --older-than 7d
    """
    span = parse_span(older_than)
    if span is None:
        raise InvalidRequest(f"--older-than {older_than!r} is no span; write 1h, 7d or 4w")

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        work = circuit.engine.compaction.plan if dry_run else circuit.engine.compaction.run
        weeks = await work(span, circuit.engine.now(), terminal.note)
        totals = {
            "executions": sum(week.executions for week in weeks),
            "frames": sum(week.frames for week in weeks),
            "frames_gone": sum(week.gone for week in weeks),
            "bytes_gone": sum(week.bytes for week in weeks),
        }
        if as_json:
            terminal.result({"dry_run": dry_run, **totals, "weeks": [week.as_dict() for week in weeks]})
            return 0
        for week in weeks:
            terminal.line(
                f"week {week.week}: {week.gone:,} of {week.frames:,} frames {'would go' if dry_run else 'went'}, with"
                f" {week.bytes:,} bytes, of {week.executions:,} executions"
            )
        if not weeks:
            terminal.line("nothing is left to compact")
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("list")
def listed(as_json: JsonOption = False) -> int:
    """List the weeks whose streams are compacted. How far each has come, and what went.

    \b
    Example: circuit streams list --json
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.engine.compaction.weeks()
        if as_json:
            terminal.result([row.as_dict() for row in found])
        elif not found:
            terminal.line("no stream was compacted")
        else:
            head = ("week", "ended before", "state", "executions", "frames gone", "bytes gone")
            terminal.table(
                head,
                [
                    (
                        row.week.suffix,
                        "-" if row.done_before is None else row.done_before.isoformat(timespec="seconds"),
                        row.state,
                        f"{row.executions:,}",
                        f"{row.frames:,}",
                        f"{row.bytes:,}",
                    )
                    for row in found
                ],
            )
        return 0

    return with_circuit(body, as_json=as_json)
