"""`circuit costs`: what the answers of models came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from circuit.cli.instant import SinceOption, UntilOption, instant_of
from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, one_line
from circuit.settings import Settings
from circuit.spend import dollars, microdollars


def costs(
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="NAME", help="day, workflow, case, agent, provider or model; may be repeated."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    case: Annotated[str | None, typer.Option("--case", metavar="CASE", help="Only of this case.")] = None,
    opened: Annotated[
        bool, typer.Option("--opened", help="Beside --case also the cases that it opened, and those that they did.")
    ] = False,
    workflow: Annotated[str | None, typer.Option("--workflow", metavar="ID", help="Only of this workflow.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only of this agent.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", metavar="TYPE", help="Only of this provider.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only of the model so called.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many lines at most.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Go on: the `next` of the page before.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")
    ] = False,
) -> int:
    """Show what the answers of models cost. In the last 30 days: all of it, and by workflow, the dearest first.

    A call of a model that has no known price is counted apart, and is in no sum of money.

    \b
    Examples:
      circuit costs --by model
      circuit costs --by day --by agent --since 7d --workflow triage
      circuit costs --case 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --by agent --json
    """
    names = tuple(by or ("workflow",))
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit
        from circuit.engine.costs import CostFilter

        chosen = CostFilter(
            instant_of(since, "--since"), instant_of(until, "--until"), case, opened, workflow, agent, provider, model
        )
        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            page = await circuit.engine.costs.page(circuit.principal, chosen, names, limit=limit, after=after)
        shown = page.as_dict()
        if as_json:
            terminal.result(shown)
            return 0
        rows = [_row(entry, [entry[name] or "-" for name in names]) for entry in shown["entries"]]
        rows.append(_row(shown["total"], ["all", *[""] * (len(names) - 1)]))
        head = (*names, "calls", "cached", "tokens in", "tokens out", "USD", "unpriced")
        terminal.table(head, rows, whole=names[0])
        if shown["total"]["unpriced"]:
            terminal.line("Of unpriced calls no price is known: `llm_provider.price` in the workflow names one.")
        if shown["next"] is not None:
            terminal.line(f"There are more: --after {shown['next']}")
        return 0

    return run_session(body, Settings.from_environment())


def _row(entry: Mapping[str, Any], names: list[str]) -> tuple[str, ...]:
    counted = (f"{entry[name]:,}" for name in ("calls", "cached", "input_tokens", "output_tokens"))
    known = entry["usd"] or not entry["unpriced"]
    usd = dollars(microdollars(entry["usd"])) if known else "unknown"
    return (*(one_line(name, 60) for name in names), *counted, usd, f"{entry['unpriced']:,}")
