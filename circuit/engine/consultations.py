"""Asking an agent, or a model alone, outside of any workflow: each time a case of the workflow that nobody writes.

The version of that workflow holds the agents as they are at that moment, so that what was asked can be told, and asked
again, later. What a single request changes of its agent stands in the parameters of the case.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from circuit.definition.adoption import colleagues
from circuit.definition.compiler import compile_document
from circuit.definition.consultation import MODEL, bare_model, consultation
from circuit.definition.workflow import Workflow
from circuit.engine import roster
from circuit.engine.asking import fingerprint, stored_object
from circuit.engine.commands import Commands, TokenInput
from circuit.engine.versions import VersionKey, Versions
from circuit.errors import NotFound
from circuit.ids import CaseKey
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import agents, workflows
from circuit.storage.database import Database

_MOST_KNOWN = 1_000


@dataclass(frozen=True, slots=True)
class Consultation:
    """What is asked, of whom. `messages` are in the form of chat clients.

    `agent` is the id of a published agent; without one it is `model` (`type`, `model`, `options`) alone that answers.
    `changes` are laid over the agent's definition: `llm_config`, `capabilities`, `output_schema`, `functions` (tools of
    whoever asks), `tool_choice`. `template` is another published agent, whose prompts count.
    """

    messages: Sequence[Mapping[str, Any]]
    agent: str | None = None
    model: Mapping[str, Any] | None = None
    template: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        """What is asked, by which it is known when it is asked again."""
        return {
            "messages": self.messages,
            "agent": self.agent,
            "model": self.model,
            "template": self.template,
            "changes": self.changes,
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class AgentView:
    """A published agent. `updated_at` is when this version became the current one."""

    id: str
    hash: str
    document: Mapping[str, Any]
    updated_at: datetime


class Consultations:
    """Begins consultations, and knows whom one can ask."""

    def __init__(self, database: Database, commands: Commands, versions: Versions) -> None:
        self._database = database
        self._commands = commands
        self._versions = versions
        # By the versions of the agents in it: what this process knows to be stored, which never changes.
        self._stored: OrderedDict[tuple[Any, ...], VersionKey] = OrderedDict()

    async def agents(self, tenant: int) -> list[AgentView]:
        """The published agents, all of them, by id."""
        found: list[agents.PublishedAgent] = []
        async with self._database.transaction(tenant) as connection:
            while page := await agents.list_current(connection, tenant, after=found[-1].id if found else ""):
                found += page
        return [_view(one) for one in found]

    async def agent(self, tenant: int, agent_id: str) -> AgentView | None:
        """A published agent."""
        async with self._database.transaction(tenant) as connection:
            found = await agents.current(connection, tenant, [agent_id])
        return _view(found[0]) if found else None

    async def documents(self, tenant: int, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Those of these agents that are published, by id, and all that may be asked in turn."""
        async with self._database.transaction(tenant) as connection:
            return await roster.documents(connection, tenant, ids)

    async def ask(
        self,
        wanted: Consultation,
        *,
        principal: Principal,
        key: str | None = None,
        subjects: Collection[str] = (),
    ) -> CaseKey:
        """Start the case of a consultation, which is about `subjects`; with an idempotency `key`, at most once:
        the same request again is answered with the same case. Raises `Conflict` where another one comes with its key,
        `NotFound` for an agent that is not published, and what `Commands.start_case` raises."""
        principal.require(Permission.RUN)
        changes = dict(wanted.changes)
        if wanted.template is not None:
            [template] = await self._published(principal.tenant, [wanted.template])
            changes["prompts"] = template.document["prompts"]
        asked = wanted.agent or MODEL
        workflow = await self._version(wanted.agent, principal)
        parameters: dict[str, Any] = {}
        if wanted.model is not None:
            parameters["models"] = {"*": dict(wanted.model)}
        if changes:
            parameters["agents"] = {asked: stored_object(changes, "what is asked of the agent")}
        token = TokenInput({"messages": list(wanted.messages)}, dict(wanted.metadata))
        request = fingerprint(key, {**wanted.as_dict(), "subjects": list(subjects)})
        return await self._commands.begin(
            workflow, token, principal=principal, parameters=parameters, key=key, request=request, subjects=subjects
        )

    async def abandon(self, key: CaseKey, *, principal: Principal) -> None:
        """End a consultation for whose answer nobody waits any more. Raises as `Commands.abandon` does."""
        await self._commands.abandon(key, principal=principal)

    async def _version(self, agent_id: str | None, principal: Principal) -> Workflow:
        """The workflow of asking this agent, or a model alone, compiled and stored."""
        found = {} if agent_id is None else await self._with_colleagues(principal.tenant, agent_id)
        mark = (principal.tenant, agent_id, *sorted((one.id, one.hash) for one in found.values()))
        known = self._stored.get(mark)
        if known is not None and self._versions.known(known):
            return self._versions.get(known)
        documents = {name: one.document for name, one in found.items()}
        document = bare_model() if agent_id is None else consultation(agent_id, documents)
        workflow = compile_document(document)
        async with self._database.transaction(principal.tenant) as connection:
            await workflows.store(connection, principal.tenant, workflow, principal.subject)
        known = self._stored[mark] = VersionKey(principal.tenant, workflow.id, workflow.hash)
        if len(self._stored) > _MOST_KNOWN:
            self._stored.popitem(last=False)
        return self._versions.get(known) if self._versions.known(known) else self._versions.add(known, document)

    async def _with_colleagues(self, tenant: int, agent_id: str) -> dict[str, agents.PublishedAgent]:
        """This agent and all that may be asked in turn."""
        found: dict[str, agents.PublishedAgent] = {}
        wanted = [agent_id]
        while wanted:
            found |= {one.id: one for one in await self._published(tenant, wanted)}
            wanted = sorted({name for one in found.values() for name in colleagues(one.document)} - found.keys())
        return found

    async def _published(self, tenant: int, ids: Sequence[str]) -> list[agents.PublishedAgent]:
        async with self._database.transaction(tenant) as connection:
            found = await agents.current(connection, tenant, ids)
        missing = sorted(set(ids) - {one.id for one in found})
        if missing:
            raise NotFound(f"there is no agent {missing[0]!r}; loading a workflow publishes its agents")
        return found


def _view(found: agents.PublishedAgent) -> AgentView:
    return AgentView(found.id, found.hash, found.document, found.updated_at)
