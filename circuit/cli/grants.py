"""`circuit agents allow`, `deny` and `permissions`: which workflows may use an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.agents import agents_app
from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.workflows import JsonOption
from circuit.security.grants import Effect

if TYPE_CHECKING:
    from circuit.app import Circuit

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The id of an agent.")]
WorkflowsArgument = Annotated[
    list[str],
    typer.Argument(metavar="WORKFLOWS...", help="Ids of workflows, or patterns: * stands for any text."),
]
RemoveOption = Annotated[bool, typer.Option("--remove", help="Take the rule away again.")]


@agents_app.command("allow")
def allow(agent: AgentArgument, workflows: WorkflowsArgument, remove: RemoveOption = False) -> int:
    """Let these workflows use an agent. As soon as one is allowed, all that are not are denied.

    Who asks the agent directly (chat clients, executeAgent) is agent:ID.

    \b
    Examples:
      circuit agents allow payer 'invoices-*' agent:payer
      circuit agents allow payer 'invoices-*' --remove
    """
    return _change(agent, workflows, Effect.ALLOW, remove=remove)


@agents_app.command("deny")
def deny(agent: AgentArgument, workflows: WorkflowsArgument, remove: RemoveOption = False) -> int:
    """Keep these workflows from using an agent, whatever allows it.

    \b
    Example: circuit agents deny payer 'trial-*'
    """
    return _change(agent, workflows, Effect.DENY, remove=remove)


@agents_app.command("permissions")
def permissions(
    agent: Annotated[str | None, typer.Argument(metavar="[AGENT]", help="Those of one agent.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List which workflows may use an agent, by its rules.

    \b
    Example: circuit agents permissions payer
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.engine.grants.listed(circuit.principal, agent)
        if as_json:
            terminal.result(
                [
                    {"agent": row.agent_id, "workflows": row.rule.pattern, "effect": row.rule.effect, "by": row.set_by}
                    for row in found
                ]
            )
        elif not found:
            terminal.line("no rules: every workflow may use every agent" if agent is None else "every workflow may")
        else:
            cells = [(row.agent_id, row.rule.effect.value, row.rule.pattern, row.set_by) for row in found]
            terminal.table(("agent", "rule", "workflows", "by"), cells)
        return 0

    return with_circuit(body, as_json=as_json)


def _change(agent: str, workflows: list[str], effect: Effect, *, remove: bool) -> int:
    async def body(circuit: Circuit, terminal: Terminal) -> int:
        grants = circuit.engine.grants
        if remove:
            gone = await grants.remove(agent, workflows, effect, circuit.principal)
            terminal.line(f"{gone} rules are gone")
        else:
            await grants.set(agent, workflows, effect, circuit.principal)
            may = "may" if effect is Effect.ALLOW else "may not"
            terminal.line(one_line(f"{', '.join(workflows)} {may} use {agent}"))
        return 0

    return with_circuit(body, as_json=False)
