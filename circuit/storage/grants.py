"""Which workflows may use which agents (under a tenant's row security)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.security.grants import Effect, Rule
from circuit.storage.tables import agent_grant


@dataclass(frozen=True, slots=True)
class GrantRow:
    agent_id: str
    rule: Rule
    set_at: datetime
    set_by: str


async def listed(
    conn: AsyncConnection,
    tenant: int,
    agents: Collection[str] | None = None,
    *,
    limit: int | None = None,
    after: tuple[str, str] | None = None,
) -> list[GrantRow]:
    """The rules of these agents, or of all, by agent and pattern; so many, behind the one of these."""
    table = agent_grant.c
    query = select(table.agent_id, table.pattern, table.effect, table.set_at, table.set_by).where(
        table.tenant_id == tenant
    )
    if agents is not None:
        query = query.where(table.agent_id.in_(agents))
    if after is not None:
        query = query.where(tuple_(table.agent_id, table.pattern) > tuple_(*after))
    found = await conn.execute(query.order_by(table.agent_id, table.pattern).limit(limit))
    return [GrantRow(agent, Rule(pattern, Effect(effect)), at, by) for agent, pattern, effect, at, by in found]


async def put(conn: AsyncConnection, tenant: int, agent: str, rule: Rule, by: str) -> None:
    """Set a rule, in the place of the one for this pattern."""
    given = insert(agent_grant).values(
        tenant_id=tenant, agent_id=agent, pattern=rule.pattern, effect=rule.effect.value, set_by=by
    )
    await conn.execute(
        given.on_conflict_do_update(
            index_elements=["tenant_id", "agent_id", "pattern"],
            set_={"effect": given.excluded.effect, "set_by": given.excluded.set_by, "set_at": func.now()},
        )
    )


async def remove(conn: AsyncConnection, tenant: int, agent: str, rule: Rule) -> bool:
    """Take a rule away. Returns whether there was one."""
    table = agent_grant.c
    gone = await conn.execute(
        delete(agent_grant).where(
            table.tenant_id == tenant,
            table.agent_id == agent,
            table.pattern == rule.pattern,
            table.effect == rule.effect.value,
        )
    )
    return gone.rowcount > 0
