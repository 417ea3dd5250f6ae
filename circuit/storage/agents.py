"""Published agents. A version never changes and is known by its hash; a pointer names the current one of an id.

All of it runs in a transaction of `Database.transaction`, under the row security of the tenant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage.tables import agent, agent_version


@dataclass(frozen=True, slots=True)
class PublishedAgent:
    """The current version of an agent. `updated_at` is when it became that."""

    id: str
    hash: str
    document: Mapping[str, Any]
    updated_at: datetime


async def current(connection: AsyncConnection, tenant: int, ids: Collection[str]) -> list[PublishedAgent]:
    """The current versions of those of these agents that there are."""
    return await _rows(connection, _current(tenant).where(agent.c.agent_id.in_(ids)))


async def list_current(
    connection: AsyncConnection, tenant: int, *, limit: int = 1000, after: str = ""
) -> list[PublishedAgent]:
    """The current version of each agent, by id, from the first id after `after`."""
    query = _current(tenant).where(agent.c.agent_id > after).order_by(agent.c.agent_id).limit(limit)
    return await _rows(connection, query)


async def delete(connection: AsyncConnection, tenant: int, agent_id: str) -> bool:
    """Take the pointer of an agent away; its versions stay. Returns whether there was one."""
    gone = await connection.execute(sql_delete(agent).where(agent.c.tenant_id == tenant, agent.c.agent_id == agent_id))
    return gone.rowcount > 0


def _current(tenant: int) -> Select[Any, Any, Any, Any]:
    version = agent_version.c
    return (
        select(agent.c.agent_id, agent.c.hash, version.document, agent.c.updated_at)
        .join(
            agent_version,
            (version.tenant_id == agent.c.tenant_id)
            & (version.agent_id == agent.c.agent_id)
            & (version.hash == agent.c.hash),
        )
        .where(agent.c.tenant_id == tenant)
    )


async def _rows(connection: AsyncConnection, query: Select[Any, Any, Any, Any]) -> list[PublishedAgent]:
    return [PublishedAgent(*row) for row in await connection.execute(query)]
