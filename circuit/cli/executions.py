"""`circuit executions`: what was said, where a result comes from, and what people say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from circuit.cli.display import PlainDisplay
from circuit.cli.narration import Narrator, Speech
from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, compact, one_line
from circuit.spend import dollars, microdollars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from circuit.app import Circuit
    from circuit.engine.provenance import ExecutionRecord
    from circuit.events import Frame

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
ExecutionArgument = Annotated[str, typer.Argument(metavar="CASE.NUMBER", help="The id of an execution.")]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def executions(context: typer.Context) -> None:
    """Read what was said, see where it comes from, or rate it.

    \b
    Example: circuit executions show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.1
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("show")
def show(execution_id: ExecutionArgument, as_json: JsonOption = False) -> int:
    """Show where the result of an execution comes from. Versions of agent, prompts and model, its answers with their
    usage, its feedback.

    \b
    Example: circuit executions show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.1 --json
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.provenance import execution_key, found_record

        key, firing = execution_key(execution_id, circuit.principal.tenant)
        found = found_record(execution_id, await circuit.queries.execution(key, firing))
        if as_json:
            terminal.result(found.as_dict())
        else:
            _print(found, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("read")
def read(
    execution_id: ExecutionArgument,
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="Only what comes behind it, such as 1-12.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until the execution is over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the frames, one JSON object a line.")] = False,
) -> int:
    """Read what an execution said: text, thoughts and tools. While it runs, or long after.

    What is archived is read from the files of its week. With --json each line is a frame of its stream, with its
    `cursor`.

    \b
    Examples:
      circuit executions read 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.1
      circuit executions read 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.1 --after 1-12 --follow --json
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.archive.stream import archived_stream
        from circuit.engine.provenance import execution_key, found_record
        from circuit.ids import Numbered
        from circuit.streams.cursor import BEGINNING, Cursor

        begin = None if after is None else Cursor.parse(after)
        key, firing = execution_key(execution_id, circuit.principal.tenant)
        name, narrator = str(Numbered(key.case, firing)), Narrator()

        def begun(transition: str, status: str) -> None:
            if not as_json:
                terminal.line(one_line(f"execution {name} of {transition} is {status}"))
            narrator.speeches[name] = Speech(one_line(transition, 60))

        def tell(shown: PlainDisplay, frames: Sequence[Frame]) -> None:
            for frame in frames:
                if as_json:
                    terminal.row(orjson.loads(frame.body))
                else:
                    shown.frame(name, frame)

        found = await circuit.queries.execution(key, firing)
        archived = (
            None if found is not None else await archived_stream(circuit.archive, key, firing, begin or BEGINNING)
        )
        if archived is not None:
            begun(archived.transition, archived.status)
            terminal.note(f"it is archived in {archived.place}")
            with PlainDisplay(terminal, narrator) as shown:
                tell(shown, archived.frames)
            return 0
        run = found_record(execution_id, found).execution
        begun(run.transition, run.status)
        reader = await circuit.streams.open(Numbered(key.case, firing), key.tenant, begin)
        try:
            with PlainDisplay(terminal, narrator) as shown:
                while frames := await reader.read(None if follow else 0):
                    tell(shown, frames)
            if not reader.over:
                rest = f"--after {reader.cursor}" if reader.cursor.sequence else "--follow"
                terminal.note(f"the execution is not over; go on with: circuit executions read {name} {rest}")
        finally:
            reader.close()
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("rate")
def rate(
    execution_id: ExecutionArgument,
    score: Annotated[float | None, typer.Option("--score", help="A number; more is better.")] = None,
    comment: Annotated[str, typer.Option("--comment", help="A few words.")] = "",
    as_json: JsonOption = False,
) -> int:
    """Attach feedback to an execution: a score, a comment, or both. It is added and never changes.

    \b
    Example: circuit executions rate 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.1 --score -1 --comment "missed the date"
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.provenance import execution_key

        key, firing = execution_key(execution_id, circuit.principal.tenant)
        added = await circuit.commands.give_feedback(
            key, firing, principal=circuit.principal, score=score, comment=comment
        )
        if as_json:
            terminal.result(added.as_dict())
        else:
            terminal.line(one_line(f"feedback {added.id} by {added.subject}"))
        return 0

    return with_circuit(body, as_json=as_json)


def _print(found: ExecutionRecord, terminal: Terminal) -> None:
    shown = found.as_dict()
    run = found.execution
    terminal.line(one_line(f"execution {run.id} of {run.transition} is {run.status}"))
    terminal.line(one_line(f"workflow: {found.workflow_id}, version {found.workflow_hash}"))
    for name, value in shown["provenance"].items():
        terminal.line(one_line(f"{name}: {value if isinstance(value, str) else compact(value, 300)}"))
    terminal.line(f"attempts: {found.attempts}, starts: {found.starts}, crashes: {found.crashes}")
    if found.cost is not None:
        terminal.line(f"cost: {dollars(microdollars(found.cost))} USD")
    if run.usage:
        terminal.line(one_line(f"usage: {compact(dict(run.usage), 300)}"))
    if run.error is not None:
        terminal.line(one_line(f"error: {compact(dict(run.error), 500)}"))
    for answer in shown["answers"]:
        model = answer["model"] or "-"
        if answer["model_asked"] not in (None, answer["model"]):
            model += f" (asked: {answer['model_asked']})"
        if answer["cached"]:
            model += "  cached"
        elif answer["model"] is not None:
            cost = answer["cost_usd"]
            model += "  no price known" if cost is None else f"  {dollars(microdollars(cost))} USD"
        usage = compact(answer["raw_usage"] or answer["usage"], 300)
        what = "step" if answer["model"] is None else "answer"
        terminal.line(one_line(f"{what} {answer['attempt']}/{answer['step']}  {answer['at']}  {model}  {usage}"))
    for one in shown["feedback"]:
        score = "-" if one["score"] is None else f"{one['score']:g}"
        terminal.line(one_line(f"feedback {score}  {one['at']}  {one['by']}: {one['comment']}"))
