"""`circuit limits`: how many executions run at once over all workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, one_line

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.storage.shares import Pool

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
AgentOption = Annotated[str | None, typer.Option("--agent", metavar="ID", help="The limit of this agent.")]
ProviderOption = Annotated[
    str | None,
    typer.Option("--provider", metavar="TYPE[:MODEL]", help="The limit of a provider, or of one of its models."),
]

TenantOption = Annotated[
    bool, typer.Option("--tenant-only", help="Of a provider: of this tenant alone, not of all tenants together.")
]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def limits(context: typer.Context, as_json: JsonOption = False) -> int:
    """List the limits of executions at once. What workers hold of them, and how many executions wait.

    That of the whole deployment is the setting MAX_CONCURRENT_EXECUTIONS.

    \b
    Examples:
      circuit limits
      circuit limits set 20 --provider openai
      circuit limits set 5 --agent reviewer
    """
    if context.invoked_subcommand is not None:
        return 0

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.engine.limits.listed(circuit.principal)
        if as_json:
            terminal.result([view.as_dict() for view in found])
        elif not found:
            terminal.line("no limits but that of the deployment; `circuit limits set` sets one")
        else:
            rows = [
                (
                    _named(row.pool),
                    str(row.executions),
                    str(row.held),
                    str(row.wanted),
                )
                for row in (view.row for view in found)
            ]
            terminal.table(("limit of", "executions", "held", "waiting"), rows, whole="limit of")
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("set")
def set_limit(
    executions: Annotated[int, typer.Argument(metavar="N", help="At most so many executions at once.")],
    agent: AgentOption = None,
    provider: ProviderOption = None,
    tenant_only: TenantOption = False,
    as_json: JsonOption = False,
) -> int:
    """Limit executions at once over all workers. Of an agent, of a provider, or of the tenant. What runs goes on.

    \b
    Examples:
      circuit limits set 200
      circuit limits set 20 --provider openai:gpt-4.1
      circuit limits set 5 --provider openai --tenant-only
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        of = _pool(circuit, agent, provider, tenant_only)
        await circuit.engine.limits.set(circuit.principal, of, executions)
        if as_json:
            terminal.result({"executions": executions})
        else:
            terminal.line(one_line(f"at most {executions} executions of {_whose(agent, provider)} run at once"))
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("remove")
def remove(
    agent: AgentOption = None,
    provider: ProviderOption = None,
    tenant_only: TenantOption = False,
    as_json: JsonOption = False,
) -> int:
    """Take a limit away.

    \b
    Example: circuit limits remove --agent reviewer
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        removed = await circuit.engine.limits.remove(circuit.principal, _pool(circuit, agent, provider, tenant_only))
        if as_json:
            terminal.result({"removed": removed})
        else:
            told = "is removed" if removed else "did not exist"
            terminal.line(one_line(f"the limit of {_whose(agent, provider)} {told}"))
        return 0

    return with_circuit(body, as_json=as_json)


def _pool(circuit: Circuit, agent: str | None, provider: str | None, tenant_only: bool) -> Pool:
    from circuit.engine.limits import pool

    return pool(circuit.principal.tenant, agent=agent, provider=provider, tenant_only=tenant_only)


def _named(of: Pool) -> str:
    alone = " (this tenant)" if of.kind == "provider" and of.tenant else ""
    return f"{of.kind} {of.name}{alone}".strip()


def _whose(agent: str | None, provider: str | None) -> str:
    return f"agent {agent}" if agent is not None else "the tenant" if provider is None else f"provider {provider}"
