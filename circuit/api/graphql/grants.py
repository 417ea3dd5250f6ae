"""Which workflows may use which agents."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, behind_name, page
from circuit.engine import grants
from circuit.errors import Conflict
from circuit.security.grants import Effect


@strawberry.enum(description="Whether the workflows of a rule may use an agent.")
class AgentEffect(Enum):
    ALLOW = "allow"
    DENY = "deny"


@strawberry.type(description="A rule: workflows whose ids fit the pattern may use the agent, or may not.")
class AgentPermission:
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this rule.")
    agent_id: str
    workflows: str = strawberry.field(description="A pattern of ids, in which `*` stands for any text.")
    effect: AgentEffect
    set_at: datetime
    set_by: str

    @classmethod
    def of(cls, row: grants.GrantRow) -> AgentPermission:
        return cls(
            cursor=f"{row.agent_id}/{row.rule.pattern}",
            agent_id=row.agent_id,
            workflows=row.rule.pattern,
            effect=AgentEffect(row.rule.effect.value),
            set_at=row.set_at,
            set_by=row.set_by,
        )


@strawberry.type
class GrantQueries:
    @strawberry.field(
        description="The rules of an agent, or of all: what one denies is denied; as soon as one allows anything, what "
        "none allows is denied; without rules all workflows may use it. `after` is the `cursor` of the last one "
        "that is known."
    )
    async def agent_permissions(
        self, info: Resolving, agent_id: str | None = None, first: int = DEFAULT_PAGE, after: str | None = None
    ) -> list[AgentPermission]:
        known = None if after is None else behind_name(after)
        found = await _door(info).listed(info.context.principal, agent_id, limit=page(first), after=known)
        return [AgentPermission.of(row) for row in found]


@strawberry.type
class GrantMutations:
    @strawberry.mutation(
        description="Let workflows whose ids fit these patterns use an agent, or deny it. With `remove`, take such "
        "rules away. It takes the permission to administer. Answers whether there is (or was) such a rule."
    )
    async def set_agent_permission(
        self, info: Resolving, agent_id: str, workflows: list[str], effect: AgentEffect, remove: bool = False
    ) -> bool:
        door, principal = _door(info), info.context.principal
        if remove:
            return await door.remove(agent_id, workflows, Effect(effect.value), principal) > 0
        await door.set(agent_id, workflows, Effect(effect.value), principal)
        return True


def _door(info: Resolving) -> grants.Grants:
    door = info.context.services.grants
    if door is None:
        raise Conflict("this server has no rules of agents")
    return door
