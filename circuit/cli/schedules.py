"""What of cases goes on by itself: `circuit schedules`, and `circuit trigger`, which waits for no time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.cases import CaseArgument, ask
from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal
from circuit.cli.workflows import JsonOption

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.schedules import ScheduleView


def schedules(
    workflow: Annotated[str | None, typer.Option("--workflow", metavar="ID", help="Only cases of this one.")] = None,
    case: Annotated[str | None, typer.Option("--case", metavar="CASE", help="Only this case.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, the next ones first.")] = 50,
    as_json: JsonOption = False,
) -> int:
    """List the cases that wait for a time, the next ones first. Runs of place agents, timers, retries, waits.

    \b
    Example: circuit schedules --workflow triage
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.engine.schedules.due(
            circuit.principal.tenant,
            workflow_id=workflow,
            case=None if case is None else circuit.key(case).case,
            limit=limit,
        )
        if as_json:
            terminal.result([_entry(one) for one in found])
        elif not found:
            terminal.line("no case waits for a time")
        else:
            rows = [row for one in found for row in _rows(one)]
            terminal.table(
                ("due", "case", "workflow", "transition", "agent", "place", "token", "runs"), rows, whole="case"
            )
        return 0

    return with_circuit(body, as_json=as_json)


def trigger(
    case_id: CaseArgument,
    place: Annotated[str, typer.Argument(metavar="PLACE", help="The place whose agents run.")],
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only this agent of the place.")] = None,
    token: Annotated[
        int | None, typer.Option("--token", metavar="NUMBER", min=1, help="Only on this token, by its number.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Have the agents of a place run now. On the tokens that lie there, whatever their schedules say. Exit code 0 if
    one runs, 1 if the case refused it.

    \b
    Examples:
      circuit trigger 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 inbox
      circuit trigger 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 inbox --agent sorter --token 1
    """
    from circuit.engine.commands import DEFAULT_WAIT_SECONDS
    from circuit.engine.summons import KIND, wanted

    command = wanted(place, agent, token)
    return ask(
        case_id,
        lambda circuit: circuit.commands.ask(
            circuit.key(case_id), KIND, command, circuit.principal, None, DEFAULT_WAIT_SECONDS
        ),
        f"agents of {place}",
        as_json,
    )


def _entry(one: ScheduleView) -> dict[str, Any]:
    from circuit.engine.views import instant

    return {
        "case_id": str(one.key),
        "workflow": one.workflow_id,
        "due_at": instant(one.due_at),
        "runs": [
            {
                "transition": run.transition,
                "agent": run.agent_id,
                "place": run.place,
                "token": run.token_id,
                "due_at": instant(run.due_at),
                "runs": run.runs,
            }
            for run in one.runs
        ],
    }


def _rows(one: ScheduleView) -> list[tuple[str, ...]]:
    """A line for each run; where none is due, a retry or the end of a wait is."""
    from circuit.engine.views import instant

    if not one.runs:
        return [(instant(one.due_at), str(one.key), one.workflow_id, "-", "-", "-", "-", "-")]
    return [
        (
            instant(run.due_at),
            str(one.key),
            one.workflow_id,
            run.transition,
            run.agent_id or "-",
            run.place,
            run.token_id.rpartition(".")[2],
            str(run.runs),
        )
        for run in one.runs
    ]
