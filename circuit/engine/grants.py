"""Which workflows may use which agents: set by administrators, asked when a workflow is published and again when an
agent begins to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from circuit.definition.workflow import Workflow
from circuit.errors import AgentNotAllowed, InvalidRequest
from circuit.security.grants import Effect, Rule, allowed, is_pattern
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import grants, ledger
from circuit.storage.database import Database, TenantConnection
from circuit.storage.grants import GrantRow as GrantRow

KNOWN_SECONDS = 1.0
"""So long the rules that a process has read count, before it reads them again."""
LONGEST_AGENT = 200

_Rules = Mapping[str, Sequence[Rule]]


class Grants:
    """The door to the rules. Reading them takes the permission to read, changing them to administer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listed(
        self,
        principal: Principal,
        agent: str | None = None,
        *,
        limit: int | None = None,
        after: tuple[str, str] | None = None,
    ) -> list[GrantRow]:
        """The rules of an agent, or of all, by agent and pattern; so many, behind the one of these. Raises
        `Forbidden`."""
        principal.require(Permission.READ)
        async with self._database.transaction(principal.tenant) as connection:
            agents = None if agent is None else [agent]
            return await grants.listed(connection, principal.tenant, agents, limit=limit, after=after)

    async def set(self, agent: str, patterns: Collection[str], effect: Effect, principal: Principal) -> None:
        """Let workflows whose ids fit one of these patterns use an agent, or not. What runs goes on; who begins to use
        it is asked. Raises `InvalidRequest`, `Forbidden`."""
        principal.require(Permission.ADMINISTER)
        rules = _checked(agent, patterns, effect)
        async with self._database.transaction(principal.tenant) as connection:
            for rule in rules:
                await grants.put(connection, principal.tenant, agent, rule, principal.subject)
                await ledger.note(connection, principal, f"agent.{effect.value}", agent, workflows=rule.pattern)

    async def remove(self, agent: str, patterns: Collection[str], effect: Effect, principal: Principal) -> int:
        """Take rules away; how many there were. Raises `InvalidRequest`, `Forbidden`."""
        principal.require(Permission.ADMINISTER)
        removed = 0
        async with self._database.transaction(principal.tenant) as connection:
            for rule in _checked(agent, patterns, effect):
                if await grants.remove(connection, principal.tenant, agent, rule):
                    removed += 1
                    await ledger.note(connection, principal, f"agent.un{effect.value}", agent, workflows=rule.pattern)
        return removed


class Permits:
    """What is asked before an agent runs. It reads the rules of a tenant at most once a second."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._known: dict[int, tuple[float, _Rules]] = {}
        self._reading: dict[int, asyncio.Lock] = {}

    async def check(self, tenant: int, workflow_id: str, agent: str) -> None:
        """Raise `AgentNotAllowed` where the workflow may not use the agent."""
        rules = self._fresh(tenant)
        if rules is None:
            rules = await self._read(tenant)
        asked = rules.get(agent)
        if asked is not None and not allowed(asked, workflow_id):
            raise _refusal(workflow_id, agent)

    def _fresh(self, tenant: int) -> _Rules | None:
        known = self._known.get(tenant)
        return known[1] if known is not None and self._monotonic() - known[0] < KNOWN_SECONDS else None

    async def _read(self, tenant: int) -> _Rules:
        """The rules as they are now. Many agents that begin at once read them once."""
        async with self._reading.setdefault(tenant, asyncio.Lock()):
            rules = self._fresh(tenant)
            if rules is None:
                now = self._monotonic()
                async with self._database.transaction(tenant) as connection:
                    rules = _by_agent(await grants.listed(connection, tenant))
                self._known[tenant] = now, rules
        return rules


async def check_agents(connection: TenantConnection, tenant: int, workflow: Workflow) -> None:
    """Raise `AgentNotAllowed` where a workflow has an agent that it may not use, whether it defines it or adopts it."""
    if not workflow.agents:
        return
    rules = _by_agent(await grants.listed(connection, tenant, list(workflow.agents)))
    for agent in sorted(rules):
        if not allowed(rules[agent], workflow.id):
            raise _refusal(workflow.id, agent)


def _by_agent(rows: Sequence[GrantRow]) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for row in rows:
        found.setdefault(row.agent_id, []).append(row.rule)
    return found


def _checked(agent: str, patterns: Collection[str], effect: Effect) -> list[Rule]:
    if not (0 < len(agent) <= LONGEST_AGENT) or not agent.isprintable():
        raise InvalidRequest(f"the id of an agent has 1 to {LONGEST_AGENT} printable characters")
    if not patterns:
        raise InvalidRequest("no workflows are named: give their ids, or patterns such as reviews-*")
    for pattern in patterns:
        if not is_pattern(pattern):
            raise InvalidRequest(
                f"{pattern[:80]!r} is no pattern of workflow ids: letters, digits, -, _ and : and * for any text"
            )
    return [Rule(pattern, effect) for pattern in dict.fromkeys(patterns)]


def _refusal(workflow_id: str, agent: str) -> AgentNotAllowed:
    return AgentNotAllowed(
        f"workflow {workflow_id} may not use the agent {agent!r}: `circuit agents permissions {agent}` shows who may,"
        " and `circuit agents allow` lets others"
    )
