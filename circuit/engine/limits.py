"""The door to the limits of what runs at once, over all workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circuit.engine.connecting import connected
from circuit.errors import Forbidden, InvalidRequest
from circuit.ids import DEFAULT_TENANT
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import ledger, shares
from circuit.storage.database import Database
from circuit.storage.shares import LimitRow, Pool

MOST = 100_000
LONGEST_NAME = 300


@dataclass(frozen=True, slots=True)
class LimitView:
    """A limit, what workers hold of it, and how many executions wait for more of it."""

    row: LimitRow

    def as_dict(self) -> dict[str, Any]:
        row = self.row
        return {
            "kind": row.pool.kind,
            "name": row.pool.name or None,
            "every_tenant": row.pool.tenant == 0,
            "executions": row.executions,
            "held": row.held,
            "waiting": row.wanted,
            "updated_by": row.updated_by,
        }


def pool(tenant: int, *, agent: str | None = None, provider: str | None = None, tenant_only: bool = False) -> Pool:
    """An agent's pool, or that of a provider (`TYPE` or `TYPE:MODEL`, of all tenants together or with `tenant_only` of
    this one), or with neither the tenant's. Raises `InvalidRequest`."""
    if agent is not None and provider is not None:
        raise InvalidRequest("a limit is of an agent, of a provider, or (without either) of the tenant")
    name = agent if agent is not None else provider
    if name is not None and not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise InvalidRequest(f"a name has 1 to {LONGEST_NAME} printable characters")
    if agent is not None:
        return Pool(tenant, "agent", agent)
    if provider is None:
        return Pool(tenant, "tenant", "")
    return Pool(tenant if tenant_only else 0, "provider", provider)


class ExecutionLimits:
    """Lists limits and sets them. All of it takes the permission to administer, and what is of all tenants together is
    set in the first one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listed(self, principal: Principal) -> list[LimitView]:
        """The limits of the tenant, of its agents, and of providers. Raises `Forbidden`."""
        principal.require(Permission.ADMINISTER)
        async with connected(self._database) as connection:
            return [LimitView(row) for row in await shares.listed(connection, principal.tenant)]

    async def set(self, principal: Principal, of: Pool, executions: int) -> LimitView:
        """Let no more than so many executions run at once; what runs beyond it goes on. Workers know it within a
        second. Raises `InvalidRequest`, `Forbidden`."""
        _require(principal, of)
        if not 0 <= executions <= MOST:
            raise InvalidRequest(f"a limit is 0 to {MOST} executions, not {executions}")
        async with connected(self._database) as connection, connection.transaction(isolation="read_committed"):
            await shares.set_limit(connection, of, executions, principal.subject)
            await ledger.enter(connection, principal, "limit.set", _named(of), tenant=of.tenant, executions=executions)
            found = next((row for row in await shares.listed(connection, principal.tenant) if row.pool == of), None)
        return LimitView(found or LimitRow(of, executions, 0, 0, principal.subject))

    async def remove(self, principal: Principal, of: Pool) -> bool:
        """Take a limit away. Returns whether there was one. Raises `Forbidden`."""
        _require(principal, of)
        async with connected(self._database) as connection, connection.transaction(isolation="read_committed"):
            removed = await shares.remove_limit(connection, of)
            if removed:
                await ledger.enter(connection, principal, "limit.remove", _named(of), tenant=of.tenant)
        return removed


def _require(principal: Principal, of: Pool) -> None:
    principal.require(Permission.ADMINISTER)
    if of.tenant == 0 and principal.tenant != DEFAULT_TENANT:
        raise Forbidden("a limit of all tenants together is set in the first tenant; one of this tenant alone is not")


def _named(of: Pool) -> str:
    alone = " of the tenant" if of.kind == "provider" and of.tenant else ""
    return f"{of.kind} {of.name}{alone}".strip()
