"""Calls of tools that agents may make only when somebody allows them: which wait (`approvals`), and the answers
(`approve`, `refuse`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from circuit.cli.cases import JsonOption, ask
from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, clean, one_line
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey, parse_numbered

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.commands import CommandOutcome
    from circuit.engine.inbox import ApprovalView

ExecutionArgument = Annotated[
    str, typer.Argument(metavar="EXECUTION", help="The execution that waits, as `circuit approvals` shows it.")
]
CallOption = Annotated[
    str | None,
    typer.Option("--call", help="The call that you have looked at. If another one waits by now, nothing is done."),
]


def approvals(
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only of the workflow of this id.")] = None,
    case_id: Annotated[str | None, typer.Option("--case", help="Only of this case.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="Only those that this role may decide on.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, the newest first.")] = 50,
    as_json: JsonOption = False,
) -> int:
    """List the calls of tools that wait to be allowed. Each with all its arguments, those of the newest cases first.

    \b
    Example: circuit approvals --workflow refunds
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.inbox import Wanted

        case = None if case_id is None else circuit.key(case_id).case
        found = await circuit.inbox.approvals(circuit.principal, Wanted(workflow, case, role), limit)
        if as_json:
            terminal.result([one.as_dict() for one in found])
        elif not found:
            terminal.line("no call of a tool waits to be allowed")
        else:
            for one in found:
                _print(one, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


def approve(
    execution: ExecutionArgument,
    call: CallOption = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept with the answer.")] = "",
    as_json: JsonOption = False,
) -> int:
    """Allow the call of a tool, with exactly its arguments. Exit code 1 if the case refused it, as where somebody else
    was first.

    \b
    Example: circuit approve 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.3 --call approve:35e7f9e59ad3dda4:1
    """
    return _decide(execution, True, call, reason, as_json)


def refuse(
    execution: ExecutionArgument,
    call: CallOption = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; the model is told.")] = "",
    as_json: JsonOption = False,
) -> int:
    """Refuse the call of a tool; the agent goes on without it. Exit code 1 if the case refused the answer.

    \b
    Example: circuit refuse 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.3 --reason "refunds above 100 go to Ada"
    """
    return _decide(execution, False, call, reason, as_json)


def _decide(execution: str, approved: bool, call: str | None, reason: str, as_json: bool) -> int:
    found = parse_numbered(execution)
    if found is None:
        raise InvalidRequest(f"{one_line(execution)!r} is not the id of an execution; `circuit approvals` lists them.")

    async def put(circuit: Circuit) -> CommandOutcome:
        key = CaseKey(circuit.principal.tenant, found.case)
        return await circuit.inbox.decide(key, found.number, approved, reason, call=call, principal=circuit.principal)

    return ask(str(found.case), put, "approve" if approved else "refuse", as_json)


def _print(one: ApprovalView, terminal: Terminal) -> None:
    """A call with all that it would do: nothing of its arguments is cut off or hidden."""
    roles = f", for {', '.join(one.roles)}" if one.roles else ""
    said = one.as_dict()
    until = f", until {said['due_at']}" if said["due_at"] else ""
    terminal.line(one_line(f"{one.id} ({one.workflow_id}, {one.transition}) since {said['since']}{until}{roles}"))
    terminal.line("  " + clean(f"{one.agent} asks to call {one.tool} {orjson.dumps(one.arguments).decode()}", keep=""))
    if one.doubt:
        terminal.line("  " + one_line(one.doubt))
    terminal.line("  " + one_line(f"circuit approve {one.id} --call {one.call}"))
