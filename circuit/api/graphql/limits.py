"""How many executions run at once over all workers."""

from __future__ import annotations

from typing import Annotated

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.engine.limits import ExecutionLimits, LimitView, pool
from circuit.errors import Conflict

_AgentId = Annotated[str | None, strawberry.argument(description="The limit of this agent.")]
_Provider = Annotated[
    str | None,
    strawberry.argument(description="The limit of a provider (`TYPE`), or of one of its models (`TYPE:MODEL`)."),
]
_TenantOnly = Annotated[
    bool, strawberry.argument(description="Of a provider: what this tenant may run there, not all of them together.")
]


@strawberry.type(description="A limit, what workers hold of it, and how many executions wait for more of it.")
class ExecutionLimit:
    kind: str = strawberry.field(description="`agent`, `provider` or `tenant`.")
    name: str | None = strawberry.field(description="The agent, or the provider with perhaps its model.")
    every_tenant: bool = strawberry.field(description="Whether it is of all tenants together.")
    executions: int
    held: int
    waiting: int
    updated_by: str

    @classmethod
    def of(cls, view: LimitView) -> ExecutionLimit:
        return cls(**view.as_dict())


@strawberry.type
class LimitQueries:
    @strawberry.field(
        description="The limits of the tenant, of its agents and of providers. It takes the permission to administer."
    )
    async def execution_limits(self, info: Resolving) -> list[ExecutionLimit]:
        return [ExecutionLimit.of(view) for view in await _limits(info).listed(info.context.principal)]


@strawberry.type
class LimitMutations:
    @strawberry.mutation(
        description="Let no more than so many executions run at once over all workers: of an agent, of a provider, or"
        " (with neither) of the tenant. What runs goes on. A provider's of all tenants is set in the first tenant."
    )
    async def set_execution_limit(
        self,
        info: Resolving,
        executions: int,
        agent_id: _AgentId = None,
        provider: _Provider = None,
        tenant_only: _TenantOnly = False,
    ) -> ExecutionLimit:
        principal, limits = info.context.principal, _limits(info)
        of = pool(principal.tenant, agent=agent_id, provider=provider, tenant_only=tenant_only)
        return ExecutionLimit.of(await limits.set(principal, of, executions))

    @strawberry.mutation(description="Take a limit away. False if there was none.")
    async def remove_execution_limit(
        self,
        info: Resolving,
        agent_id: _AgentId = None,
        provider: _Provider = None,
        tenant_only: _TenantOnly = False,
    ) -> bool:
        principal = info.context.principal
        of = pool(principal.tenant, agent=agent_id, provider=provider, tenant_only=tenant_only)
        return await _limits(info).remove(principal, of)


def _limits(info: Resolving) -> ExecutionLimits:
    found = info.context.services.limits
    if found is None:
        raise Conflict("this server has no limits of executions")
    return found
