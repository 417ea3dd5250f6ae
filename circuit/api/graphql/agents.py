"""Agents, and those that run on the tokens of a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json
from circuit.engine.views import WorkflowView


@strawberry.type(description="An agent's texts.")
class Prompts:
    system: str
    user_template: str
    context_instructions: str


@strawberry.type(description="An agent of a workflow's current version.")
class Agent:
    id: str
    workflow: str
    name: str
    description: str
    llm_provider: JSON = strawberry.field(description="Type, model and options; keys are never part of it.")
    llm_config: JSON
    prompts: Prompts
    capabilities: list[str]
    tools: list[str]
    output_schema: JSON | None

    @classmethod
    def of(cls, view: WorkflowView, agent_id: str, said: Mapping[str, Any]) -> Agent:
        prompts: Mapping[str, Any] = said.get("prompts") or {}
        return cls(
            id=agent_id,
            workflow=view.id,
            name=said.get("name") or agent_id,
            description=said.get("description") or "",
            llm_provider=as_json(said.get("llm_provider") or {}),
            llm_config=as_json(said.get("llm_config") or {}),
            prompts=Prompts(
                system=prompts.get("system") or "",
                user_template=prompts.get("user_template") or "",
                context_instructions=prompts.get("context_instructions") or "",
            ),
            capabilities=_names(said.get("capabilities")),
            tools=_names(said.get("tools")),
            output_schema=as_json(said.get("output_schema")),
        )


@strawberry.type
class AgentQueries:
    @strawberry.field(description="The agents of the current versions of all workflows, or of one.")
    async def agents(self, info: Resolving, workflow_id: str | None = None) -> list[Agent]:
        views = await info.context.services.queries.workflows(info.context.tenant)
        return [
            Agent.of(view, name, agent)
            for view in views
            if workflow_id is None or view.id == workflow_id
            for name, agent in sorted((view.document.get("agents") or {}).items())
        ]

    @strawberry.field(description="The place agents of the current version of a workflow, as in its file.")
    async def place_agent_configs(self, info: Resolving, workflow_id: str, place_id: str | None = None) -> list[JSON]:
        view = await info.context.services.queries.workflow(info.context.tenant, workflow_id)
        configured = (view.document.get("place_agents") or []) if view else []
        return [as_json(entry) for entry in configured if place_id is None or entry.get("place_id") == place_id]


def _names(said: Any) -> list[str]:
    return [str(one.get("name", one.get("id", ""))) if isinstance(one, dict) else str(one) for one in said or ()]
