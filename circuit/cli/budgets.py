"""`circuit budgets`: what may be spent on calls of models, and what is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, one_line
from circuit.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.budgets import BudgetView, Target

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
CaseOption = Annotated[str | None, typer.Option("--case", metavar="CASE", help="The budget of this case.")]
WorkflowOption = Annotated[
    str | None, typer.Option("--workflow", metavar="ID", help="The budget that all cases of this workflow share.")
]

app = typer.Typer(rich_markup_mode=None)

_UNITS = ("calls", "tokens", "usd")


@app.callback(invoke_without_command=True)
def budgets(
    context: typer.Context,
    cases: Annotated[bool, typer.Option("--cases", help="Also the budgets of cases, the newest first.")] = False,
    as_json: JsonOption = False,
) -> int:
    """List budgets: limits, what is spent, what is held. Those of the tenant and of its workflows; what calls that go
    on may cost is held.

    \b
    Examples:
      circuit budgets
      circuit budgets --cases --json
      circuit budgets set --workflow triage --usd 50 --per month
    """
    if context.invoked_subcommand is not None:
        return 0

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.budgets.listed(circuit.principal, cases=cases)
        if as_json:
            terminal.result([view.as_dict() for view in found])
        elif not found:
            terminal.line("no budgets; `circuit budgets set` begins one")
        else:
            _table(found, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("show")
def show(case: CaseOption = None, workflow: WorkflowOption = None, as_json: JsonOption = False) -> int:
    """Show one budget. Without --case and --workflow, that of the tenant.

    \b
    Examples:
      circuit budgets show
      circuit budgets show --case 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.budgets.find(circuit.principal, _target(case, workflow))
        if found is None:
            raise NotFound(f"there is no budget of {_whose(case, workflow)}; `circuit budgets set` begins one")
        if as_json:
            terminal.result(found.as_dict())
        else:
            _show(found, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("set")
def set_budget(
    case: CaseOption = None,
    workflow: WorkflowOption = None,
    calls: Annotated[str | None, typer.Option("--calls", metavar="N|none", help="At most so many calls.")] = None,
    tokens: Annotated[str | None, typer.Option("--tokens", metavar="N|none", help="At most so many tokens.")] = None,
    usd: Annotated[str | None, typer.Option("--usd", metavar="X|none", help="At most so many US dollars.")] = None,
    per: Annotated[
        str | None, typer.Option("--per", metavar="day|month|ever", help="It begins anew each day or month (UTC).")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Begin anew now: nothing of it is spent.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Set a budget, or raise it. Without --case and --workflow, that of the tenant. What is not named stays as it is.

    A case that came to the end of its budget goes on after `circuit retry`.

    \b
    Examples:
      circuit budgets set --usd 500 --per month
      circuit budgets set --workflow triage --tokens 2000000 --calls none
      circuit budgets set --case 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --usd 2.50
    """
    from circuit.engine.budgets import BudgetChange

    if per not in (None, "day", "month", "ever"):
        raise InvalidRequest(f"--per is day, month or ever, not {per!r}")
    limits = {
        unit: value
        for unit, option, text in (
            ("calls", "--calls", calls),
            ("tokens", "--tokens", tokens),
            ("microdollars", "--usd", usd),
        )
        if text is not None
        for value in (_limit(option, text),)
    }
    change = BudgetChange(limits, per, reset)

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.budgets.set(circuit.principal, _target(case, workflow), change)
        if as_json:
            terminal.result(found.as_dict())
        else:
            _show(found, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("remove")
def remove(workflow: WorkflowOption = None, as_json: JsonOption = False) -> int:
    """Take a budget away, with what is spent of it. That of a workflow; without --workflow, that of the tenant.

    \b
    Example: circuit budgets remove --workflow triage
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        removed = await circuit.budgets.remove(circuit.principal, _target(None, workflow))
        if as_json:
            terminal.result({"removed": removed})
        else:
            told = "is removed" if removed else "did not exist"
            terminal.line(one_line(f"the budget of {_whose(None, workflow)} {told}"))
        return 0

    return with_circuit(body, as_json=as_json)


def _target(case: str | None, workflow: str | None) -> Target:
    from circuit.engine.budgets import Target

    return Target(case, workflow)


def _whose(case: str | None, workflow: str | None) -> str:
    return f"case {case}" if case is not None else "the tenant" if workflow is None else f"workflow {workflow}"


def _limit(option: str, text: str) -> int | None:
    from circuit.engine.budgets import money

    if text == "none":
        return None
    try:
        return money(float(text)) if option == "--usd" else int(text.replace("_", ""))
    except ValueError:
        raise InvalidRequest(f"{option} takes a number or `none`, not {text!r}") from None


def _told(unit: str, amount: Any) -> str:
    from circuit.spend import dollars, microdollars

    if amount is None:
        return "-"
    return dollars(microdollars(amount)) if unit == "usd" else f"{amount:,}"


def _table(found: Sequence[BudgetView], terminal: Terminal) -> None:
    rows: list[tuple[str, ...]] = []
    for view in found:
        shown = view.as_dict()
        whose = shown["scope"] if shown["subject"] is None else f"{shown['scope']} {shown['subject']}"
        for unit in _UNITS:
            if shown["limits"][unit] is not None:
                told = (_told(unit, shown[kind][unit]) for kind in ("limits", "spent", "held"))
                rows.append((whose, unit, *told, shown["period"] or "-"))
    terminal.table(("budget of", "unit", "limit", "spent", "held", "per"), rows, whole="budget of")


def _show(view: BudgetView, terminal: Terminal) -> None:
    shown = view.as_dict()
    whose = shown["scope"] if shown["subject"] is None else f"{shown['scope']} {shown['subject']}"
    period = f", anew each {shown['period']}" if shown["period"] else ""
    terminal.line(one_line(f"budget of {whose} since {shown['since']}{period}"))
    rows = [(unit, *(_told(unit, shown[kind][unit]) for kind in ("limits", "spent", "held"))) for unit in _UNITS]
    terminal.table(("unit", "limit", "spent", "held"), rows)
