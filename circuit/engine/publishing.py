"""Publishing: workflows, agents that belong to no workflow, earlier versions again; and taking workflows away.

With an idempotency key each is done once: asked again, it answers with what was published first, and moves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from circuit.definition.adoption import borrowed
from circuit.definition.compiler import compile_document
from circuit.definition.versions import content_hash
from circuit.definition.workflow import AgentDefinition, Workflow
from circuit.definition.written import as_lines, written
from circuit.engine import roster
from circuit.engine.children import check_calls
from circuit.engine.commands import Published, check_idempotency_key
from circuit.engine.grants import check_agents
from circuit.errors import Conflict, NotFound
from circuit.expressions.template import TEMPLATE_VARIABLES, Template
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import agents, ledger, publications, workflows
from circuit.storage.commands import OTHER_REQUEST
from circuit.storage.database import Database
from circuit.storage.publications import Publication

Load = Callable[..., Workflow]
"""Makes a workflow of a YAML text, a name for its source and published `agents`; raises `DefinitionError`."""

AGENT_SOURCE = "createAgent"
PLACE_AGENT_SOURCE = "createPlaceAgentConfig"


class Publishing:
    """The door to what is published. Everything takes the permission to edit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(self, workflow: Workflow, *, principal: Principal, key: str | None = None) -> Published:
        """Make `workflow` the current version of its id. Raises `Conflict` where the key published something else."""
        principal.require(Permission.EDIT)
        return await self._once(f"workflow:{workflow.hash}", workflow, None, principal, key)

    async def make_current(self, workflow_id: str, version: str, *, principal: Principal) -> bool:
        """Make a version that was published before the current one again. Returns whether that changed anything.
        Raises `NotFound`."""
        principal.require(Permission.EDIT)
        async with self._database.transaction(principal.tenant) as connection:
            current = await workflows.current(connection, principal.tenant, workflow_id)
            wanted = await workflows.by_hash(connection, principal.tenant, workflow_id, version)
        if current is None or wanted is None:
            raise NotFound(f"workflow {workflow_id[:100]!r} has no version {version[:100]!r}")
        if current.hash == version:
            return False
        # As if its file were loaded: what its agents and its places say counts again too.
        workflow = await asyncio.to_thread(compile_document, wanted.document)
        async with self._database.transaction(principal.tenant) as connection:
            await check_agents(connection, principal.tenant, workflow)
            await workflows.publish(connection, principal.tenant, workflow, principal.subject)
            await ledger.note(connection, principal, "workflow.publish", workflow.id, hash=workflow.hash)
        return True

    async def delete(self, workflow_id: str, *, principal: Principal) -> None:
        """Take a workflow away: no list shows it, and no case of it can begin. Cases that have ended keep the version
        that they ran. Raises `NotFound`, and `Conflict` while a case of it has not ended."""
        principal.require(Permission.EDIT)
        async with self._database.transaction(principal.tenant) as connection:
            if await publications.lock(connection, principal.tenant, workflow_id) is None:
                raise NotFound(f"there is no workflow {workflow_id[:100]!r}")
            if await publications.live_cases(connection, principal.tenant, workflow_id):
                raise Conflict(
                    f"cases of workflow {workflow_id} have not ended: retire it, and delete it when they have"
                )
            await publications.delete_workflow(connection, principal.tenant, workflow_id)
            await ledger.note(connection, principal, "workflow.delete", workflow_id)

    async def publish_agent(
        self, agent_id: str, said: Mapping[str, Any], load: Load, *, principal: Principal, key: str | None = None
    ) -> AgentDefinition:
        """Publish an agent under its id. It is checked as one in a file is; whom it may ask or hand over to must be
        published. Raises `DefinitionError`."""
        principal.require(Permission.EDIT)
        check_idempotency_key(key)
        alone = {
            "workflow": "agent",
            "places": {"asked": {"initial": True}, "answered": {"terminal": True}},
            "agents": {agent_id: dict(said)},
            "transitions": {
                "answer": {
                    "from_places": "asked",
                    "to_place": "answered",
                    "agent_execution": {"agent_id": agent_id, "input_mapping": _named_inputs(said)},
                }
            },
        }
        text = as_lines(alone)
        async with self._database.transaction(principal.tenant) as connection:
            others = await roster.documents(connection, principal.tenant, borrowed(text))
        agent = load(text, AGENT_SOURCE, **({"agents": others} if others else {})).agents[agent_id]
        kept = Publication(f"agent:{agent.hash}", agent.id, agent.hash)
        async with self._database.transaction(principal.tenant) as connection:
            if await self._claimed(connection, principal.tenant, key, kept) is None:
                await workflows.publish_agents(connection, principal.tenant, [agent])
                await ledger.note(connection, principal, "agent.publish", agent.id, hash=agent.hash)
        return agent

    async def delete_agent(self, agent_id: str, *, principal: Principal) -> None:
        """Take a published agent away: nobody can ask it, and no workflow that is published from now on finds it. Those
        that have it keep it. Raises `NotFound`."""
        principal.require(Permission.EDIT)
        async with self._database.transaction(principal.tenant) as connection:
            if not await agents.delete(connection, principal.tenant, agent_id):
                raise NotFound(f"there is no agent {agent_id[:100]!r}; `circuit agents list` names them")
            await ledger.note(connection, principal, "agent.delete", agent_id)

    async def add_place_agent(
        self,
        workflow_id: str,
        entry: Mapping[str, Any],
        load: Load,
        *,
        principal: Principal,
        key: str | None = None,
    ) -> Published:
        """Publish a version of a workflow in which one more agent runs on the tokens of a place. An agent that the
        workflow does not have is taken from those that are published. Raises `NotFound`, `DefinitionError`, and
        `Conflict` where the workflow is published anew at the same time."""
        principal.require(Permission.EDIT)
        check_idempotency_key(key)
        request = f"place_agent:{content_hash({'workflow': workflow_id, 'entry': dict(entry)})}"
        agent_id = str(entry.get("agent_id", ""))
        async with self._database.transaction(principal.tenant) as connection:
            before = await self._again(connection, principal.tenant, key, request)
            if before is not None:
                return Published(before.id, before.hash, False)
            current = await workflows.current(connection, principal.tenant, workflow_id)
            published = await agents.current(connection, principal.tenant, [agent_id])
        if current is None:
            raise NotFound(f"there is no workflow {workflow_id[:100]!r}")
        document = dict(current.document)
        if agent_id not in (document.get("agents") or {}) and published:
            document["agents"] = {**(document.get("agents") or {}), agent_id: _without_id(published[0].document)}
        workflow = load(written(document, [entry]), PLACE_AGENT_SOURCE)
        return await self._once(request, workflow, current.hash, principal, key)

    async def _once(
        self, request: str, workflow: Workflow, current: str | None, principal: Principal, key: str | None
    ) -> Published:
        """Publish `workflow`, where the current version is still `current` (or whatever, if that is None)."""
        check_idempotency_key(key)
        tenant, kept = principal.tenant, Publication(request, workflow.id, workflow.hash)
        async with self._database.transaction(tenant) as connection:
            before = await self._claimed(connection, tenant, key, kept)
            if before is not None:
                return Published(before.id, before.hash, False)
            if current is not None and await publications.lock(connection, tenant, workflow.id) != current:
                raise Conflict(f"workflow {workflow.id} was published anew meanwhile: ask again")
            await check_calls(connection, tenant, workflow)
            await check_agents(connection, tenant, workflow)
            new = await workflows.publish(connection, tenant, workflow, principal.subject)
            await ledger.note(connection, principal, "workflow.publish", workflow.id, hash=workflow.hash)
        return Published(workflow.id, workflow.hash, new)

    async def _again(self, connection: Any, tenant: int, key: str | None, request: str) -> Publication | None:
        """What this key published before. Raises `Conflict` where that was another request."""
        before = None if key is None else await publications.find(connection, tenant, key)
        if before is not None and before.request != request:
            raise Conflict(OTHER_REQUEST)
        return before

    async def _claimed(self, connection: Any, tenant: int, key: str | None, kept: Publication) -> Publication | None:
        """Enter what the key publishes, before it is published: of two that come at once, the second waits here, and is
        told what the first published. Raises as `_again` does."""
        if key is None or await publications.keep(connection, tenant, key, kept):
            return None
        return await self._again(connection, tenant, key, kept.request)


def _named_inputs(said: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that an agent names, in its prompts and as images: whoever runs it says what they are."""
    prompts, images = said.get("prompts"), said.get("images")
    texts: list[Any] = list(prompts.values()) if isinstance(prompts, dict) else []
    jinja = isinstance(prompts, dict) and cast("dict[str, Any]", prompts).get("engine") == "jinja"
    names = {name for text in texts if isinstance(text, str) for name, _ in _parsed(text, jinja=jinja)}
    if isinstance(images, list):
        names |= {name for name in cast("list[Any]", images) if isinstance(name, str)}
    return {name: f"data.{name}" for name in sorted(names.difference(TEMPLATE_VARIABLES))}


def _parsed(text: str, *, jinja: bool) -> tuple[tuple[str, int], ...]:
    if not jinja:
        return Template.parse(text).names
    from circuit.expressions.jinja import JinjaFault, JinjaTemplate

    try:
        return JinjaTemplate.parse(text).names
    except JinjaFault:
        return ()  # what checks the agent says what is wrong


def _without_id(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "id"}
