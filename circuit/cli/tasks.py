"""What waits for people: the open tasks (`tasks`), and how one is completed (`complete`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.cases import JsonOption, ask
from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.token import parse_object, put_together
from circuit.errors import InvalidRequest
from circuit.ids import parse_numbered

if TYPE_CHECKING:
    from circuit.app import Circuit


def tasks(
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only tasks of the workflow of this id.")] = None,
    case_id: Annotated[str | None, typer.Option("--case", help="Only tasks of this case.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="Only tasks that this role may complete.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, the newest first.")] = 50,
    as_json: JsonOption = False,
) -> int:
    """List the open tasks for people, the newest cases first.

    \b
    Example: circuit tasks --role accountant --json
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.tasks(workflow_id=workflow, case_id=case_id, role=role, limit=limit)
        if as_json:
            terminal.result([task.as_dict() for task in found])
        elif not found:
            terminal.line("no tasks")
        else:
            rows = [
                (
                    task.id,
                    task.workflow_id,
                    task.transition,
                    task.title,
                    ", ".join(task.roles),
                    task.as_dict()["due_at"],
                )
                for task in found
            ]
            shown = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
            terminal.table(("task", "workflow", "transition", "title", "roles", "due"), shown, whole="task")
        return 0

    return with_circuit(body, as_json=as_json)


def complete(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The id of a task, as `circuit tasks` shows it.")],
    data: Annotated[str | None, typer.Option("--data", metavar="JSON", help="The form, filled in.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set one field; VALUE is JSON, else text."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Complete a task. Exit code 0 if it is done, 1 if the case refused it, as where somebody else was first.

    \b
    Example: circuit complete 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.3 --set approved=true --set "note=looks good"
    """
    found = parse_numbered(task)
    if found is None:
        raise InvalidRequest(f"{one_line(task)!r} is not the id of a task; `circuit tasks` lists them.")
    form: dict[str, Any] = put_together(parse_object(data, "--data") if data is not None else {}, assignments or [])
    return ask(str(found.case), lambda circuit: circuit.complete(task, form), "complete", as_json)
