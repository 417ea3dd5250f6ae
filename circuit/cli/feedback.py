"""`circuit feedback`: what people said of executions."""

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
    from circuit.engine.feedback import FeedbackFilter

app = typer.Typer(rich_markup_mode=None)

CaseOption = Annotated[str | None, typer.Option("--case", metavar="CASE", help="Only on executions of this case.")]
WorkflowOption = Annotated[str | None, typer.Option("--workflow", metavar="ID", help="Only of this workflow.")]
AgentOption = Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only of this agent.")]
ByOption = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Only what this person or program said.")]


@app.callback(invoke_without_command=True)
def feedback(context: typer.Context) -> None:
    """Read what was said of executions. `circuit executions rate` adds to it.

    \b
    Example: circuit feedback list --agent reviewer --since 30d
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_feedback(
    case: CaseOption = None,
    workflow: WorkflowOption = None,
    agent: AgentOption = None,
    by: ByOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    before: Annotated[str | None, typer.Option("--before", metavar="ID", help="Go on before this feedback.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
) -> int:
    """List feedback, the youngest first. With the versions of agent, prompts and model that it is about.

    \b
    Example: circuit feedback list --workflow triage --json
    """
    chosen = _chosen(case, workflow, agent, by, since, until)
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            found = await circuit.engine.feedback.page(circuit.principal, chosen, limit, before)
        shown = [one.as_dict() for one in found]
        if as_json:
            terminal.result(shown)
        elif not shown:
            terminal.line("no feedback; `circuit executions rate` gives some")
        else:
            head = ("execution", "score", "by", "at", "agent", "comment")
            cells = [
                (
                    one["execution_id"],
                    "-" if one["score"] is None else f"{one['score']:g}",
                    one["by"],
                    one["at"],
                    one["provenance"].get("agent_id") or "-",
                    one["comment"],
                )
                for one in shown
            ]
            terminal.table(head, [tuple(clean(cell, keep="") for cell in row) for row in cells], whole="execution")
        return 0

    return run_session(body, Settings.from_environment())


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to [default: standard output].")] = None,
    case: CaseOption = None,
    workflow: WorkflowOption = None,
    agent: AgentOption = None,
    by: ByOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> int:
    """Write all feedback as JSON, one object a line, the oldest first.

    \b
    Example: circuit feedback export feedback.jsonl --agent reviewer
    """
    chosen = _chosen(case, workflow, agent, by, since, until)
    terminal = Terminal(json=True)

    async def body() -> int:
        from circuit.app import Circuit

        count = 0
        async with Circuit.open(worker=False) as circuit:
            found = circuit.engine.feedback.all(circuit.principal, chosen)
            if file is None:
                async for one in found:
                    terminal.row(one.as_dict())
                return 0
            try:
                with file.open("x", encoding="utf-8") as out:
                    async for one in found:
                        out.write(compact(one.as_dict()) + "\n")
                        count += 1
            except OSError as error:
                raise InvalidRequest(f"{str(file)!r} cannot be written: {error.strerror}") from None
        terminal.result({"file": str(file), "entries": count})
        return 0

    return run_session(body, Settings.from_environment())


def _chosen(
    case: str | None, workflow: str | None, agent: str | None, by: str | None, since: str | None, until: str | None
) -> FeedbackFilter:
    from circuit.engine.feedback import FeedbackFilter

    return FeedbackFilter(case, workflow, agent, by, instant_of(since, "--since"), instant_of(until, "--until"))
