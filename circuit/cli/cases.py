"""What concerns cases that exist: look at them (`cases`, `show`, `why`) and ask something of them (`fire`,
`signal`, `retry`, `cancel`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.failure import report
from circuit.cli.narration import Narrator
from circuit.cli.outcome import marking_text, print_tokens, print_why, standing
from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, compact, one_line
from circuit.cli.token import parse_object, parse_value
from circuit.cli.travel import print_moment
from circuit.errors import Conflict, InvalidRequest

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.commands import CommandOutcome
    from circuit.engine.views import CaseView

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
CaseArgument = Annotated[str, typer.Argument(metavar="CASE", help="The id of a case.")]

_SHOWN_WIDTH = 10_000
"""So many characters of a token's data are shown where the case itself was asked for."""
_STATUSES = ("running", "waiting", "attention", "stuck", "completed", "failed", "cancelled")


def cases(
    status: Annotated[str | None, typer.Option("--status", help=f"Only cases that are {', '.join(_STATUSES)}.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only cases of the workflow of this id.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, the newest first.")] = 50,
    as_json: JsonOption = False,
) -> int:
    """List cases, the newest first.

    \b
    Example: circuit cases --status attention --json
    """
    if status is not None and status not in _STATUSES:
        raise InvalidRequest(f"--status {status!r} is none of {', '.join(_STATUSES)}.")

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.cases(workflow_id=workflow, status=status, limit=limit)
        if as_json:
            terminal.result([case.as_dict() for case in found])
        elif not found:
            terminal.line("no cases")
        else:
            rows = [tuple(str(value) for value in list(case.as_dict().values())[:4]) for case in found]
            terminal.table(("case", "status", "workflow", "started"), rows, whole="case")
            for lack in sorted({case.lacks for case in found if case.lacks}):
                stranded = sum(case.lacks == lack for case in found)
                terminal.line(one_line(f"{stranded} of these wait for a worker, and none that is running has {lack}"))
        return 0

    return with_circuit(body, as_json=as_json)


def show(
    case_id: CaseArgument,
    at: Annotated[
        int | None, typer.Option("--at", metavar="N", min=1, help="As it was after its event N, from its history.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show a case: its marking, its tokens and its history. Or its marking and data as they were.

    \b
    Example: circuit show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --json
    Example: circuit show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --at 5
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        if at is not None:
            print_moment(await circuit.at(case_id, at), terminal)
            return 0
        view = await circuit.case(case_id)
        if as_json:
            terminal.result(view.as_dict())
        else:
            _print_case(view, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


def why(case_id: CaseArgument, as_json: JsonOption = False) -> int:
    """Say what keeps each transition of a case from firing.

    \b
    Example: circuit why 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.why(case_id)
        if as_json:
            terminal.result(found.as_dict())
        else:
            terminal.line(one_line(f"case {case_id} {standing(found.status)}"))
            print_why(found, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


def fire(
    case_id: CaseArgument,
    transition: Annotated[str, typer.Argument(metavar="TRANSITION", help="A manual transition.")],
    form: Annotated[str | None, typer.Option("--form", metavar="JSON", help="What its form asks for.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Fire a manual transition. Exit code 0 if it fired, 1 if the case refused it.

    \b
    Example: circuit fire 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 resubmit --form '{"content": "A better text."}'
    """
    values = parse_object(form, "--form") if form is not None else {}
    return ask(case_id, lambda circuit: circuit.fire(case_id, transition, values), transition, as_json)


def signal(
    case_id: CaseArgument,
    firing: Annotated[int, typer.Argument(metavar="FIRING", min=1, help="The number of the firing that waits.")],
    key: Annotated[
        str | None, typer.Option("--key", help="Which wait of the firing. Default: whichever it is in.")
    ] = None,
    data: Annotated[str, typer.Option("--data", metavar="JSON", help="What it waits for.")] = "null",
    as_json: JsonOption = False,
) -> int:
    """Send a firing what it waits for. Exit code 0 if it is taken or kept, 1 if the case refused it.

    \b
    Example: circuit signal 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 3 --data '{"approved": true}'
    """
    payload = parse_value(data, "--data")
    return ask(case_id, lambda circuit: circuit.signal(case_id, firing, payload, key=key), "signal", as_json)


def retry(case_id: CaseArgument, as_json: JsonOption = False) -> int:
    """Let what open incidents of a case block be tried again.

    \b
    Example: circuit retry 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """
    return ask(case_id, lambda circuit: circuit.retry(case_id), "retry", as_json)


def cancel(case_id: CaseArgument, as_json: JsonOption = False) -> int:
    """End a case as it is: what runs in it is cancelled.

    \b
    Example: circuit cancel 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """
    return ask(case_id, lambda circuit: circuit.cancel(case_id), "cancel", as_json)


def ask(case_id: str, put: Callable[[Circuit], Awaitable[CommandOutcome]], what: str, as_json: bool) -> int:
    """Ask something of a case. Where no other worker has the case, work on it until it rests again."""

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        try:
            outcome = await put(circuit)
        except Conflict as error:
            # The command was well put; it is the case that does not take it.
            report(error, terminal)
            return 1
        # Where another worker has the case it goes on there; what this one has taken it brings to a rest.
        view = await circuit.wait(case_id) if circuit.busy else await circuit.case(case_id)
        state, result = str(outcome.state), dict(outcome.result or {})
        if as_json:
            answer = {"case_id": view.case_id, "status": view.status.value, "state": state, "result": result}
            terminal.result({**answer, "command_id": str(outcome.id)})
        else:
            terminal.line(one_line(f"{what}: {state}{_answer(result)}"))
            terminal.line(one_line(f"case {view.case_id} {standing(view.status)}: {marking_text(view)}"))
        return 1 if state == "refused" else 0

    return with_circuit(body, as_json=as_json, only=[case_id])


def _answer(result: Mapping[str, Any]) -> str:
    """What a case answered to a command, for people: why it was refused, or what it did beyond what was asked."""
    error: Any = result.get("error")
    if isinstance(error, Mapping):
        return f": {error.get('message', '')}"
    said = {name: value for name, value in result.items() if value is not None and name != "transition"}
    return f" {compact(said, 300)}" if said else ""


def _print_case(view: CaseView, terminal: Terminal) -> None:
    from circuit.engine.views import instant

    terminal.line(one_line(f"case {view.case_id} of the workflow {view.workflow_id} {standing(view.status)}"))
    if view.parent is not None:
        terminal.line(f"opened by the execution {view.parent}")
    for child in view.children:
        terminal.line(one_line(f"opened case {child.key} of the workflow {child.workflow_id}: {child.status.value}"))
    terminal.line(f"marking: {marking_text(view)}")
    print_tokens(view, terminal, width=_SHOWN_WIDTH)
    for incident in view.incidents:
        state = "open" if incident.open else "resolved"
        terminal.line(
            one_line(
                f"incident {incident.number} ({state}) at {incident.transition}: {incident.code}: {incident.message}"
            )
        )
    terminal.line("history:")
    narrator = Narrator()
    for entry in view.history:
        for line in narrator.event(entry.at, entry.event):
            terminal.line(f"{entry.seq:>5}  {instant(entry.at)}  {line.text}")
