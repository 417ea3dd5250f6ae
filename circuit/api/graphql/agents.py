"""Agents, published and asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from circuit.agents.access import access_to, named_tools
from circuit.agents.prompt import PromptTexts, build_messages, prompt_values
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.executions import Execution
from circuit.api.graphql.paging import DEFAULT_PAGE, behind_name, page
from circuit.api.graphql.scalars import as_json, as_object
from circuit.api.graphql.workflow_input import AgentInput, entry, words
from circuit.engine.consultations import Consultation
from circuit.engine.pages import AgentView
from circuit.errors import Conflict, NotFound
from circuit.events import CaseEnded, FiringBegun
from circuit.ids import CaseKey, Numbered
from circuit.providers.messages import text_of
from circuit.security.permissions import Permission

BEGIN_SECONDS = 5.0
"""How long the beginning of an execution is waited for."""


@strawberry.type(description="An agent's texts.")
class Prompts:
    system: str
    user_template: str
    context_instructions: str

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Prompts:
        return cls(
            system=said.get("system") or "",
            user_template=said.get("user_template") or "",
            context_instructions=said.get("context_instructions") or "",
        )


@strawberry.type(description="What one policy of an agent says of a tool.")
class ToolGround:
    policy: int = strawberry.field(description="Which of the agent's policies it is, counted from 1.")
    says: str


@strawberry.type(description="Whether the policies of an agent let it call a tool.")
class ToolAccess:
    tool: str = strawberry.field(description="Its name; of the tools of a server there is the pattern that means them.")
    access: str = strawberry.field(description="`allowed`, `needs_approval` or `denied`.")
    policies: list[ToolGround]


@strawberry.type(description="An agent of a workflow's current version.")
class Agent:
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this agent.")
    id: str
    workflow: str
    name: str
    description: str
    llm_provider: JSON = strawberry.field(description="Type, model and options; keys are never part of it.")
    llm_config: JSON
    prompts: Prompts
    capabilities: list[str]
    tools: list[str]
    tool_access: list[ToolAccess] = strawberry.field(description="What its policies say of each of its tools.")
    output_schema: JSON | None
    document: JSON = strawberry.field(description="The agent as JSON, with all that its file says.")

    @classmethod
    def of(cls, view: AgentView) -> Agent:
        said = view.document
        return cls(
            cursor=f"{view.workflow_id}/{view.id}",
            id=view.id,
            workflow=view.workflow_id,
            name=said.get("name") or view.id,
            description=said.get("description") or "",
            llm_provider=as_json(said.get("llm_provider") or {}),
            llm_config=as_json(said.get("llm_config") or {}),
            prompts=Prompts.of(said.get("prompts") or {}),
            capabilities=_names(said.get("capabilities")),
            tools=_names(said.get("tools")),
            tool_access=_access(said),
            output_schema=as_json(said.get("output_schema")),
            document=as_json(dict(said)),
        )


@strawberry.type
class AgentQueries:
    @strawberry.field(
        description="The agents of the current versions of all workflows, or of one; `after` is the `cursor` of the"
        " last one that is known. `publishedAgents` has those of no workflow too."
    )
    async def agents(
        self, info: Resolving, workflow_id: str | None = None, first: int = DEFAULT_PAGE, after: str | None = None
    ) -> list[Agent]:
        found = await info.context.services.pages.agents(
            info.context.tenant, workflow_id, page(first), behind_name(after)
        )
        return [Agent.of(one) for one in found]

    @strawberry.field(
        description="The agents that `executeAgent` and chat clients ask, by id: those that were published on their"
        " own, and those that workflows brought. `after` is the `id` of the last one that is known."
    )
    async def published_agents(
        self, info: Resolving, first: int = DEFAULT_PAGE, after: str | None = None
    ) -> list[PublishedAgent]:
        found = await info.context.services.pages.published_agents(info.context.tenant, page(first), after or "")
        return [PublishedAgent.of(one.hash, one.document) for one in found]

    @strawberry.field(description="The agent that is published under this id.")
    async def agent(self, info: Resolving, id: str) -> PublishedAgent | None:  # noqa: A002
        found = await info.context.services.pages.published_agent(info.context.tenant, id)
        return None if found is None else PublishedAgent.of(found.hash, found.document)


@strawberry.type(description="An agent that was published on its own, or by a workflow.")
class PublishedAgent:
    id: str
    name: str
    description: str
    hash: str = strawberry.field(description="The content hash of the version.")
    llm_provider: JSON
    llm_config: JSON
    prompts: Prompts
    document: JSON

    @classmethod
    def of(cls, hash: str, said: Mapping[str, Any]) -> PublishedAgent:  # noqa: A002
        return cls(
            id=str(said["id"]),
            name=said.get("name") or str(said["id"]),
            description=said.get("description") or "",
            hash=hash,
            llm_provider=as_json(said.get("llm_provider") or {}),
            llm_config=as_json(said.get("llm_config") or {}),
            prompts=Prompts.of(said.get("prompts") or {}),
            document=as_json(dict(said)),
        )


@strawberry.type
class AgentMutations:
    @strawberry.mutation(
        description="Publish an agent under its id, outside of any workflow: `executeAgent` asks it, and"
        " `createPlaceAgentConfig` puts it into a workflow. What is wrong with it comes as that of a file does."
    )
    async def create_agent(
        self, info: Resolving, agent: AgentInput, idempotency_key: str | None = None
    ) -> PublishedAgent:
        said = entry(agent)
        made = await info.context.services.publishing.publish_agent(
            said.pop("id"), said, info.context.services.load, principal=info.context.principal, key=idempotency_key
        )
        return PublishedAgent.of(made.hash, made.document)

    @strawberry.mutation(
        description="Take a published agent away: nobody can ask it any more. Workflows that have it keep it, and"
        " loading one publishes its agents anew."
    )
    async def delete_agent(self, info: Resolving, id: str) -> bool:  # noqa: A002
        await info.context.services.publishing.delete_agent(id, principal=info.context.principal)
        return True

    @strawberry.mutation(
        description="Run a published agent once, outside of any workflow: a durable case of its own. `input` is text,"
        " or an object whose values its `userTemplate` names; the answer comes over `agentExecutionStream`, and stays"
        " with `agentExecution`."
    )
    async def execute_agent(
        self,
        info: Resolving,
        agent_id: str,
        input: JSON,  # noqa: A002
        llm_config: JSON | None = None,
        idempotency_key: str | None = None,
    ) -> AgentRun:
        context = info.context
        asking = context.services.consultations
        if asking is None:
            raise Conflict("this server asks no agents")
        context.principal.require(Permission.RUN)
        agent = await asking.agent(context.principal.tenant, agent_id)
        if agent is None:
            raise NotFound(f"there is no agent {agent_id[:100]!r}; `createAgent` and loading a workflow publish agents")
        changes = {} if llm_config is None else {"llm_config": words(as_object(llm_config, "llmConfig"))}
        wanted = Consultation([{"role": "user", "content": _message(agent.document, input)}], agent_id, changes=changes)
        key = await asking.ask(wanted, principal=context.principal, key=idempotency_key)
        return AgentRun(
            execution_id=str(Numbered(key.case, 1)), case_id=str(key.case), agent_id=agent_id, agent_hash=agent.hash
        )


@strawberry.type(description="A run of an agent that has been asked for; it begins as soon as a worker comes to it.")
class AgentRun:
    execution_id: str
    case_id: str
    agent_id: str
    agent_hash: str

    @strawberry.field(description="The execution, waited for a moment; null while no worker has come to it.")
    async def execution(self, info: Resolving) -> Execution | None:
        key = CaseKey(info.context.tenant, UUID(self.case_id))
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_SECONDS):
                async for _, _, event in info.context.services.streams.follow(key):
                    if isinstance(event, FiringBegun | CaseEnded):
                        break
        found = await info.context.services.pages.execution(key, 1)
        return None if found is None else Execution.of(found)


def _message(document: Mapping[str, Any], given: Any) -> str:
    """What an agent is told: text as it is; of an object, what the agent's template makes of it."""
    if isinstance(given, str):
        return given
    inputs = as_object(given, "input")
    values = prompt_values(inputs=inputs, tokens=(), workflow_id="", history_count=0)
    template = str((document.get("prompts") or {}).get("user_template") or "{input_data}")
    return text_of(build_messages(PromptTexts(user_template=template), values)[-1].parts)


def _access(said: Mapping[str, Any]) -> list[ToolAccess]:
    found = [access_to(said.get("policies") or (), tool) for tool in named_tools(said.get("tools") or ())]
    return [
        ToolAccess(
            tool=one.tool,
            access=one.standing.value,
            policies=[ToolGround(policy=ground.number, says=ground.says) for ground in one.grounds],
        )
        for one in found
    ]


def _names(said: Any) -> list[str]:
    return [_name(one) for one in said or ()]


def _name(one: Any) -> str:
    return str(one.get("name") or one.get("kind") or "") if isinstance(one, dict) else str(one)
